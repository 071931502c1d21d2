# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent's own way to a Kubernetes API: logging in from a pod and from a kubeconfig, trust, and what goes wrong.

Against a real HTTPS server on loopback. What is written and watched is tested in test_kube_writing.py, both ways.
"""

from __future__ import annotations

import base64
import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest
import yaml

from ansible_collections.restorepoint.core.plugins.module_utils import kube, kube_accounts, kube_http
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput, RestorePointError
from ansible_collections.restorepoint.core.plugins.module_utils.kube_login import KubeError, log_in_alone
from ansible_collections.restorepoint.core.plugins.module_utils.kube_resources import CLAIMS, VOLUMES
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_kube import (
    TOKEN,
    FakeKube,
    claim,
    make_certificate,
)

SECRET = "a-secret-that-nobody-may-see"


@pytest.fixture
def server(certificate):
    with FakeKube(certificate) as fake:
        fake.add(claim("data"))
        yield fake


@pytest.fixture(autouse=True)
def _no_cluster_of_this_machine(monkeypatch, tmp_path):
    """Tests see neither the kubeconfig nor the pod in which they may run; a proxy is set that must not be used."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))


def written(tmp_path, config):
    path = tmp_path / "kubeconfig.json"
    path.write_text(json.dumps(config))
    return str(path)


def connect(path, timeout=30.0, **options):
    return kube.KubeClient({"kubeconfig": path, **options}, timeout=timeout, sleep=lambda seconds: None,
                           log_in=log_in_alone)  # fmt: skip


def names(client):
    return [each["metadata"]["name"] for each in client.list_objects("list claims", CLAIMS, "shop-a").items]


def pod(tmp_path, server, token=TOKEN):
    """Make the folder of a service account, as a kubelet does: links to a folder that it changes at once."""
    first = tmp_path / "..first"
    first.mkdir()
    (first / "token").write_text(token + "\n")
    (first / "ca.crt").write_bytes(server.certificate.read_bytes())
    (tmp_path / "..data").symlink_to(first)
    for name in ("token", "ca.crt"):
        (tmp_path / name).symlink_to(tmp_path / "..data" / name)
    return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": server.url.rsplit(":", 1)[1]}


# In a pod


def test_a_pod_logs_in_with_its_service_account(monkeypatch, tmp_path, server):
    for name, value in pod(tmp_path, server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(kube_accounts, "ACCOUNT", str(tmp_path))
    client = kube.KubeClient({}, log_in=log_in_alone)
    assert client.host == server.url
    assert names(client) == ["data"]


def test_a_token_that_was_renewed_is_used_at_once_and_is_secret(tmp_path, server):
    account = kube_accounts.pod_account(str(tmp_path), pod(tmp_path, server, token="old"))
    assert account is not None
    api = kube_http.HttpApi(account)
    with pytest.raises(kube_http.HttpStatus) as caught:
        api.request("get", CLAIMS.path("shop-a"))
    assert caught.value.status == 401
    second = tmp_path / "..second"
    second.mkdir()
    (second / "token").write_text(TOKEN)
    (tmp_path / "..new").symlink_to(second)
    os.replace(tmp_path / "..new", tmp_path / "..data")
    assert api.request("get", CLAIMS.path("shop-a")).data
    assert api.secrets == (TOKEN,)


@pytest.mark.parametrize("missing", ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "token"])
def test_what_is_no_pod_with_an_account_has_no_login(tmp_path, server, missing):
    environment = pod(tmp_path, server)
    environment.pop(missing, None)
    if missing == "token":
        (tmp_path / "token").unlink()
    assert kube_accounts.pod_account(str(tmp_path), environment) is None


def test_an_ipv6_address_is_put_into_brackets(tmp_path, server):
    environment = {**pod(tmp_path, server), "KUBERNETES_SERVICE_HOST": "fd00::1"}
    account = kube_accounts.pod_account(str(tmp_path), environment)
    assert account is not None
    assert account.host.startswith("https://[fd00::1]:")


# With a kubeconfig


def test_a_kubeconfig_in_json_with_a_token_needs_no_package(tmp_path, server):
    path = written(tmp_path, server.kubeconfig())
    code = (
        "import sys; sys.modules['kubernetes'] = None\n"
        "from ansible_collections.restorepoint.core.plugins.module_utils import kube, kube_login\n"
        "from ansible_collections.restorepoint.core.plugins.module_utils.kube_resources import CLAIMS\n"
        f"client = kube.KubeClient({{'kubeconfig': {path!r}}}, log_in=kube_login.log_in_alone)\n"
        "print(len(client.list_objects('list', CLAIMS, 'shop-a').items))\n"
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_kubeconfig_in_yaml_needs_pyyaml_and_no_more(tmp_path, server, monkeypatch):
    path = written(tmp_path, server.kubeconfig())
    pathlib.Path(path).write_text(yaml.safe_dump(server.kubeconfig()))
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    assert names(connect(path)) == ["data"]


def test_a_server_behind_a_gateway_has_a_path(tmp_path, server):
    config = server.kubeconfig()
    config["clusters"][0]["cluster"]["server"] += "/k8s/clusters/c-1/"
    server.prefix = "/k8s/clusters/c-1"
    assert names(connect(written(tmp_path, config))) == ["data"]


def test_data_inside_the_kubeconfig_serves_as_well_as_files_beside_it(tmp_path, server):
    config = server.kubeconfig()
    cluster = config["clusters"][0]["cluster"]
    pem = pathlib.Path(cluster.pop("certificate-authority")).read_bytes()
    begin = pem.index(b"-----BEGIN PRIVATE KEY")
    cluster["certificate-authority-data"] = base64.b64encode(pem[:begin]).decode()
    assert names(connect(written(tmp_path, config))) == ["data"]
    (tmp_path / "ca.pem").write_bytes(pem[:begin])
    (tmp_path / "token").write_text(TOKEN)
    cluster.pop("certificate-authority-data")
    cluster["certificate-authority"] = "ca.pem"
    config["users"][0]["user"] = {"tokenFile": "token"}
    assert names(connect(written(tmp_path, config))) == ["data"]


def test_a_client_certificate_is_shown_to_the_server(tmp_path, certificate):
    pem = certificate.read_bytes()
    begin = pem.index(b"-----BEGIN PRIVATE KEY")
    user = {
        "client-certificate-data": base64.b64encode(pem[:begin]).decode(),
        "client-key-data": base64.b64encode(pem[begin:]).decode(),
    }
    with FakeKube(certificate, clients=True) as server:
        server.add(claim("data"))
        refused = connect(written(tmp_path, server.kubeconfig()))
        with pytest.raises(KubeError):
            names(refused)
        assert server.requests == []
        server.lets_in_anybody = True
        assert names(connect(written(tmp_path, server.kubeconfig(**user)))) == ["data"]


def test_a_context_that_is_named_is_used_and_one_that_is_not_there_is_said(tmp_path, server):
    config = server.kubeconfig()
    config["contexts"].append({"name": "other", "context": {"cluster": "fake", "user": "nobody"}})
    path = written(tmp_path, config)
    assert names(connect(path, context="lab")) == ["data"]
    with pytest.raises(InvalidInput, match="it has no 'user nobody'"):
        connect(path, context="other")
    with pytest.raises(InvalidInput, match="it has no 'context third'"):
        connect(path, context="third")


@pytest.mark.parametrize(
    ("user", "text"),
    [
        ({"token": TOKEN, "username": "jane"}, None),
        ({"exec": {"command": "/bin/false", "apiVersion": "client.authentication.k8s.io/v1"}}, None),
        ({"token": TOKEN}, "apiVersion: v1\nkind: Config\n"),
    ],
)
def test_a_kubeconfig_that_takes_the_package_says_so_where_there_is_none(tmp_path, server, monkeypatch, user, text):
    path = written(tmp_path, server.kubeconfig(**user))
    if text is not None:
        pathlib.Path(path).write_text(text)
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(KubeError) as caught:
        connect(path)
    assert "the Python package kubernetes cannot be imported; write it with kubectl config view" in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"server": "http://127.0.0.1:1"}, "is no https URL"),
        ({"certificate-authority-data": "%"}, "certificate-authority-data is no base64"),
        ({"certificate-authority-data": base64.b64encode(b"nothing").decode()}, "the CA of the API server cannot"),
        ({"certificate-authority": "/nowhere/ca"}, "read /nowhere/ca: No such file"),
    ],
)
def test_a_kubeconfig_that_cannot_be_right_is_said(tmp_path, server, change, words):
    config = server.kubeconfig()
    config["clusters"][0]["cluster"].update(change)
    with pytest.raises(InvalidInput, match=words):
        connect(written(tmp_path, config))


@pytest.mark.parametrize("key", ["client-certificate-data", "client-key-data"])
def test_a_client_certificate_that_is_none_is_said_without_its_content(tmp_path, server, key):
    pem = server.certificate.read_bytes()
    begin = pem.index(b"-----BEGIN PRIVATE KEY")
    parts = {"client-certificate-data": pem[:begin], "client-key-data": pem[begin:], key: SECRET.encode()}
    user = {name: base64.b64encode(value).decode() for name, value in parts.items()}
    with pytest.raises(InvalidInput, match="the client certificate and its key cannot be used") as caught:
        connect(written(tmp_path, server.kubeconfig(**user)))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"contexts": 3}'])
def test_a_file_that_is_no_kubeconfig_is_said(tmp_path, monkeypatch, content):
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    path = tmp_path / "kubeconfig"
    path.write_text(content)
    with pytest.raises(RestorePointError, match="log in with kubeconfig"):
        connect(str(path))


# Trust


def test_a_server_of_an_unknown_ca_gets_no_token(tmp_path, server):
    config = server.kubeconfig()
    config["clusters"][0]["cluster"]["certificate-authority"] = str(make_certificate(tmp_path, "localhost"))
    with pytest.raises(KubeError, match="no trusted connection to"):
        names(connect(written(tmp_path, config)))
    assert server.requests == []


def test_a_certificate_of_another_name_is_refused_unless_that_name_is_expected(tmp_path):
    with FakeKube(make_certificate(tmp_path, "kube.example.org")) as server:
        server.add(claim("data"))
        config = server.kubeconfig()
        with pytest.raises(KubeError, match="no trusted connection to"):
            names(connect(written(tmp_path, config)))
        assert server.requests == []
        config["clusters"][0]["cluster"]["tls-server-name"] = "kube.example.org"
        assert names(connect(written(tmp_path, config))) == ["data"]


def test_a_redirect_is_not_followed(tmp_path, server, certificate):
    with FakeKube(certificate) as other:
        server.faults = [(302, {"Location": f"{other.url}/api/v1/persistentvolumes"})]
        with pytest.raises(KubeError, match="answered 302"):
            connect(written(tmp_path, server.kubeconfig())).list_objects("list volumes", VOLUMES)
        assert other.requests == []


# What goes wrong


def test_a_token_that_the_server_repeats_is_blotted_out(tmp_path, server):
    server.faults = [(400, {})]
    server.fault_message = f"what is {TOKEN}?"
    with pytest.raises(KubeError, match=r"what is \*\*\*\?"):
        names(connect(written(tmp_path, server.kubeconfig())))


def test_a_busy_server_is_asked_again(tmp_path, server):
    server.faults = [(429, {"Retry-After": "1"}), (503, {}), (500, {})]
    assert names(connect(written(tmp_path, server.kubeconfig()))) == ["data"]


def test_a_slow_answer_is_not_waited_for_without_end(tmp_path, server):
    server.delay = 1.0
    with pytest.raises(KubeError, match=r"no answer from .* within 0.2 s"):
        names(connect(written(tmp_path, server.kubeconfig()), timeout=0.2))


def test_a_server_that_is_down_is_said_with_the_kernels_words(tmp_path, server):
    config = server.kubeconfig()
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    with pytest.raises(KubeError, match=r"cannot be reached or understood \(Connection refused\)"):
        names(connect(written(tmp_path, config)))


def test_an_unknown_host_is_said(tmp_path, server):
    config = server.kubeconfig()
    config["clusters"][0]["cluster"]["server"] = "https://nowhere.invalid"
    with pytest.raises(KubeError, match=r"https://nowhere.invalid cannot be reached"):
        names(connect(written(tmp_path, config)))


@pytest.mark.parametrize("body", [b"<html>login</html>", b"", b"[]", b"\xff\xfe", b'{"items": 3}'])
def test_an_answer_that_is_not_the_apis_is_an_error_never_an_empty_list(tmp_path, server, body):
    server.raw = body
    with pytest.raises(KubeError):
        names(connect(written(tmp_path, server.kubeconfig())))


def test_one_connection_serves_many_requests_and_one_that_was_closed_is_opened_anew(tmp_path, server):
    client = connect(written(tmp_path, server.kubeconfig()))
    assert names(client) == names(client) == ["data"]
    kept = client._client._kept
    assert kept is not None
    kept.sock.shutdown(socket.SHUT_RDWR)
    assert names(client) == ["data"]
    assert client.requests == 3
    assert client._client._kept is not kept
