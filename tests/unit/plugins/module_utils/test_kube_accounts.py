# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which logins the standard library does, and which are left to the kubernetes package."""

from __future__ import annotations

import base64
import json
import os
import ssl
import sys

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.restorepoint.core.plugins.module_utils import kube, kube_accounts
from ansible_collections.restorepoint.core.plugins.module_utils.kube_accounts import account_for
from ansible_collections.restorepoint.core.plugins.module_utils.kube_resources import CLAIMS
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_kube import TOKEN, FakeKube, claim

HOST = "https://kube.example.org:6443"


@pytest.fixture
def ca(certificate):
    return str(certificate)


def kubeconfig(ca, cluster=None, **user):
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "preferences": {},
        "clusters": [{"name": "c", "cluster": cluster or {"server": HOST, "certificate-authority": ca}}],
        "users": [{"name": "u", "user": user or {"token": TOKEN}}],
        "contexts": [{"name": "lab", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
    }


def credentials(ca, **more):
    return {"host": HOST, "api_key": TOKEN, "ca_cert": ca, **more}


def as_data(path):
    with open(path, "rb") as stream:
        return base64.b64encode(stream.read()).decode()


# What the standard library does


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"validate_certs": True},
        {"host": "https://[fd00::1]:6443/"},
        {"host": "https://rancher.example.org/k8s/clusters/c-1"},
        {"no_proxy": "10.0.0.0/8"},
        {"persist_config": False},
        {"kubeconfig": "/nowhere"},
    ],
)
def test_a_host_with_a_token_and_its_ca(ca, more):
    account = account_for(credentials(ca, **more), {})
    assert account is not None
    assert account.host == more.get("host", HOST).rstrip("/")
    assert account.token() == TOKEN
    assert account.context.verify_mode is ssl.CERT_REQUIRED
    assert account.context.check_hostname


def test_a_host_that_need_not_prove_who_it_is():
    account = account_for({"host": HOST, "api_key": TOKEN, "validate_certs": False}, {})
    assert account is not None
    assert account.context.verify_mode is ssl.CERT_NONE


def test_a_host_with_a_client_certificate(ca):
    account = account_for({"host": HOST, "client_cert": ca, "client_key": ca, "ca_cert": ca}, {})
    assert account is not None
    assert account.token() is None


@pytest.mark.parametrize("form", ["mapping", "json", "yaml"])
@pytest.mark.parametrize("way", ["option", "environment", "home"])
def test_a_kubeconfig_in_every_form_and_place(ca, tmp_path, monkeypatch, form, way):
    config = kubeconfig(ca)
    if form == "mapping":
        assert account_for({"kubeconfig": config, "context": "lab"}, {}) is not None
        return
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".kube" / "config"
    path.parent.mkdir()
    path.write_text(json.dumps(config) if form == "json" else yaml.safe_dump(config))
    options = {"kubeconfig": str(path)} if way == "option" else {}
    account = account_for(options, {"KUBECONFIG": str(path)} if way == "environment" else {})
    assert account is not None
    assert account.token() == TOKEN


def test_data_inside_a_kubeconfig_and_what_tools_add_to_it(ca):
    cluster = {"server": HOST, "certificate-authority-data": as_data(ca), "extensions": [{"name": "minikube"}]}
    user = {"client-certificate-data": as_data(ca), "client-key-data": as_data(ca)}
    assert account_for({"kubeconfig": kubeconfig(ca, cluster, **user)}, {}) is not None


def test_single_options_go_over_a_kubeconfig(ca):
    config = kubeconfig(ca, {"server": "https://nowhere.invalid", "insecure-skip-tls-verify": True}, token="old")
    account = account_for({"kubeconfig": config, **credentials(ca), "validate_certs": True}, {})
    assert account is not None
    assert (account.host, account.token()) == (HOST, TOKEN)
    assert account.context.verify_mode is ssl.CERT_REQUIRED


def pod(tmp_path, monkeypatch, ca):
    monkeypatch.setattr(kube_accounts, "ACCOUNT", str(tmp_path))
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "ca.crt").symlink_to(ca)
    return {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def test_a_pod_goes_before_the_default_kubeconfig_and_behind_one_that_is_named(ca, tmp_path, monkeypatch):
    environment = pod(tmp_path, monkeypatch, ca)
    path = tmp_path / "config"
    path.write_text(json.dumps(kubeconfig(ca)))
    for options, host in (({}, "https://10.0.0.1:443"), ({"kubeconfig": str(path)}, HOST), ({"context": "lab"}, HOST)):
        account = account_for(options, {**environment, "KUBECONFIG": str(path)})
        assert account is not None
        assert account.host == host


def test_a_module_does_not_import_the_package_for_such_a_login(certificate, monkeypatch):
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with FakeKube(certificate) as server:
        server.add(claim("data"))
        options = {"proxy": None, "proxy_headers": {"basic_auth": None}, "kubeconfig": server.kubeconfig()}
        client = kube.KubeClient(options)
        assert len(client.list_objects("list claims", CLAIMS, "shop-a").items) == 1


# What is left to the package


@pytest.mark.parametrize(
    "user",
    [
        {"exec": {"command": "aws", "apiVersion": "client.authentication.k8s.io/v1"}},
        {"token": TOKEN, "exec": {"command": "aws"}},
        {"auth-provider": {"name": "oidc", "config": {"id-token": "x"}}},
        {"username": "jane", "password": "word"},
        {"token": TOKEN, "as": "admin"},
        {"token": TOKEN, "tokenFile": "/etc/hostname"},
        {"token": f"{TOKEN}\n"},
        {"token": "two words"},
        {"token": "h\u00e9"},
        {"client-certificate-data": "YQ=="},
        {"client-certificate-data": "YQ==", "client-key-data": "YQ=="},
        {"client-certificate-data": "%", "client-key-data": "%"},
        {"tokenFile": "/nowhere/token"},
    ],
)
def test_a_user_who_logs_in_otherwise(ca, user):
    assert account_for({"kubeconfig": kubeconfig(ca, **user)}, {}) is None


@pytest.mark.parametrize(
    "cluster",
    [
        {"server": HOST},
        {"server": "http://kube.example.org:8080", "certificate-authority": "CA"},
        {"server": HOST, "certificate-authority": "CA", "proxy-url": "http://10.0.0.1:3128"},
        {"server": HOST, "certificate-authority": "CA", "disable-compression": True},
        {"server": HOST, "certificate-authority": "/nowhere/ca"},
        {"server": HOST, "certificate-authority": "/dev/null"},
        {"server": HOST, "certificate-authority-data": "%"},
        {"server": HOST, "insecure-skip-tls-verify": "true"},
        {"certificate-authority": "CA"},
    ],
)
def test_a_cluster_that_is_reached_or_trusted_otherwise(ca, cluster):
    told = {name: ca if value == "CA" else value for name, value in cluster.items()}
    assert account_for({"kubeconfig": kubeconfig(ca, told)}, {}) is None


@pytest.mark.parametrize(
    "more",
    [
        {"proxy": "http://10.0.0.1:3128"},
        {"proxy_headers": {"user_agent": "x"}},
        {"username": "jane", "password": "word"},
        {"impersonate_user": "jane"},
        {"host": "http://kube.example.org:8080"},
        {"host": "https://jane:word@kube.example.org"},
        {"host": "https://kube.example.org:many"},
        {"an_option_of_tomorrow": True},
    ],
)
def test_options_that_mean_something_else(ca, more):
    assert account_for(credentials(ca, **more), {}) is None


def test_a_host_of_a_public_ca_and_a_key_with_a_password(ca, tmp_path):
    assert account_for({"host": HOST, "api_key": TOKEN}, {}) is None
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"word"),
    )
    (tmp_path / "key").write_bytes(key)
    given = {"host": HOST, "client_cert": ca, "client_key": str(tmp_path / "key"), "ca_cert": ca}
    assert account_for(given, {}) is None


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_of_the_environment(ca, name):
    assert account_for(credentials(ca), {name: "http://10.0.0.1:3128"}) is None
    assert account_for(credentials(ca), {name: ""}) is not None


def test_several_kubeconfigs_and_those_with_a_fault(ca, tmp_path, monkeypatch):
    path = tmp_path / "config"
    path.write_text(json.dumps(kubeconfig(ca)))
    assert account_for({"kubeconfig": f"{path}{os.pathsep}/nowhere"}, {}) is None
    assert account_for({"kubeconfig": str(path), "context": "prod"}, {}) is None
    assert account_for({"kubeconfig": str(tmp_path / "missing")}, {}) is None
    assert account_for({"kubeconfig": str(tmp_path)}, {}) is None
    for content in ("{", "just text", "[1, 2]", "", "\0", "a: [", "contexts: 3"):
        path.write_text(content)
        assert account_for({"kubeconfig": str(path)}, {}) is None
    path.write_text(yaml.safe_dump(kubeconfig(ca)))
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert account_for({"kubeconfig": str(path)}, {}) is None


@pytest.mark.parametrize("broken", ["token", "ca.crt"])
def test_a_pod_whose_account_cannot_be_used(ca, tmp_path, monkeypatch, broken):
    environment = pod(tmp_path, monkeypatch, ca)
    (tmp_path / broken).unlink()
    (tmp_path / broken).write_text("")
    assert account_for({}, environment) is None
