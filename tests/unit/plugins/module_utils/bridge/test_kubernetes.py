# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The connection options as Ansible reads them, and their documentation."""

from __future__ import annotations

import sys

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.restorepoint.core.plugins.doc_fragments.kubernetes import ModuleDocFragment
from ansible_collections.restorepoint.core.plugins.module_utils.bridge import kubernetes as bridge
from ansible_collections.restorepoint.core.plugins.module_utils.bridge.libraries import missing_library
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import MissingLibrary
from ansible_collections.restorepoint.core.plugins.module_utils.kube_http import HttpApi
from ansible_collections.restorepoint.core.plugins.module_utils.kube_login import log_in

DOCUMENTED = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]


def variables(spec):
    return [name for option in spec.values() if "fallback" in option for name in option["fallback"][1]]


@pytest.fixture(autouse=True)
def _no_variables_of_this_machine(monkeypatch):
    for name in variables(bridge.ARGUMENT_SPEC) + variables(bridge.PROXY_HEADERS_SPEC):
        monkeypatch.delenv(name, raising=False)


def read(**parameters):
    result = ArgumentSpecValidator(bridge.ARGUMENT_SPEC).validate(parameters)
    assert result.error_messages == []
    return result


class Module:
    """What connection_options uses of an AnsibleModule."""

    def __init__(self, **parameters):
        result = read(**parameters)
        self.params = result.validated_parameters
        self.no_log_values = set(result._no_log_values)


def assert_documented(spec, documented):
    assert list(spec) == list(documented)
    for name, option in spec.items():
        for member in ("type", "elements", "aliases"):
            assert option.get(member) == documented[name].get(member), (name, member)
        for variable in variables({name: option}):
            assert f"E({variable})" in str(documented[name]["description"])


def test_every_option_is_documented_as_it_is():
    assert_documented(bridge.ARGUMENT_SPEC, DOCUMENTED)
    assert_documented(bridge.PROXY_HEADERS_SPEC, DOCUMENTED["proxy_headers"]["suboptions"])


def test_nothing_given_means_nothing_set():
    parameters = read().validated_parameters
    headers = parameters.pop("proxy_headers")
    assert set(parameters.values()) | set(headers.values()) == {None}


@pytest.mark.parametrize(
    ("variable", "option", "written", "meant"),
    [
        ("K8S_AUTH_HOST", "host", "https://k:6443", "https://k:6443"),
        ("K8S_AUTH_KUBECONFIG", "kubeconfig", "/etc/kube/config", "/etc/kube/config"),
        ("K8S_AUTH_VERIFY_SSL", "validate_certs", "no", False),
        ("K8S_AUTH_VALIDATE_CERTS", "validate_certs", "true", True),
        ("K8S_AUTH_SSL_CA_CERT", "ca_cert", "/ca.pem", "/ca.pem"),
        ("K8S_AUTH_CERT_FILE", "client_cert", "/c.pem", "/c.pem"),
        ("K8S_AUTH_KEY_FILE", "client_key", "/k.pem", "/k.pem"),
        ("K8S_AUTH_IMPERSONATE_GROUPS", "impersonate_groups", "ops,dev", ["ops", "dev"]),
        ("K8S_AUTH_PROXY_HEADERS_USER_AGENT", "proxy_headers", "me/1", "me/1"),
    ],
)
def test_an_option_that_is_not_given_comes_from_the_environment(monkeypatch, variable, option, written, meant):
    monkeypatch.setenv(variable, written)
    value = read().validated_parameters[option]
    assert (value["user_agent"] if option == "proxy_headers" else value) == meant


def test_an_option_that_is_given_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("K8S_AUTH_HOST", "https://other")
    assert read(host="https://mine").validated_parameters["host"] == "https://mine"


def test_secrets_are_kept_out_of_the_output(monkeypatch):
    monkeypatch.setenv("K8S_AUTH_API_KEY", "token-of-the-environment")
    kubeconfig = {"users": [{"name": "me", "user": {"token": "token-of-the-kubeconfig"}}]}
    module = Module(kubeconfig=kubeconfig, password="my-password", proxy_headers={"basic_auth": "me:header-password"})
    options = bridge.connection_options(module)  # type: ignore[arg-type]
    assert options["kubeconfig"] == kubeconfig
    assert module.no_log_values == {
        "token-of-the-environment",
        "token-of-the-kubeconfig",
        "my-password",
        "me:header-password",
    }


def test_what_ansible_fills_in_does_not_take_the_package(monkeypatch, certificate):
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    module = Module(host="https://10.0.0.1:6443", api_key="key", ca_cert=str(certificate))
    assert isinstance(log_in(bridge.connection_options(module)).client, HttpApi)  # type: ignore[arg-type]


def test_a_missing_package_is_told_in_ansibles_words():
    told = missing_library(MissingLibrary("connect", "kubernetes", "Traceback: ..."))
    assert "Failed to import the required Python library (kubernetes)" in told["msg"]
    assert told["exception"] == "Traceback: ..."
