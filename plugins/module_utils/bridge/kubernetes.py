# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The connection options of modules that speak to Kubernetes, for AnsibleModule. Called by those modules.

Names, types, aliases and environment variables are those of the kubernetes.core collection, so that its module_defaults
and its users' habits hold here. doc_fragments/kubernetes.py documents them, kube.py understands them. May import
ansible and what lies below.
"""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.parameters import env_fallback

from ..kube_login import secrets_of


def _option(*variables: str, **spec: Any) -> dict[str, Any]:
    """Return an option that falls back to the first of the environment variables ``K8S_AUTH_*`` that is set."""
    spec.setdefault("type", "str")
    spec["fallback"] = (env_fallback, [f"K8S_AUTH_{variable}" for variable in variables])
    return spec


PROXY_HEADERS_SPEC: dict[str, Any] = {
    "proxy_basic_auth": _option("PROXY_HEADERS_PROXY_BASIC_AUTH", no_log=True),
    "basic_auth": _option("PROXY_HEADERS_BASIC_AUTH", no_log=True),
    "user_agent": _option("PROXY_HEADERS_USER_AGENT"),
}

ARGUMENT_SPEC: dict[str, Any] = {
    "kubeconfig": _option("KUBECONFIG", type="raw"),
    "context": _option("CONTEXT"),
    "host": _option("HOST"),
    "api_key": _option("API_KEY", no_log=True),
    "username": _option("USERNAME"),
    "password": _option("PASSWORD", no_log=True),
    "client_cert": _option("CLIENT_CERT", "CERT_FILE", type="path", aliases=["cert_file"]),
    "client_key": _option("CLIENT_KEY", "KEY_FILE", type="path", aliases=["key_file"], no_log=False),
    "ca_cert": _option("CA_CERT", "SSL_CA_CERT", type="path", aliases=["ssl_ca_cert"]),
    "validate_certs": _option("VALIDATE_CERTS", "VERIFY_SSL", type="bool", aliases=["verify_ssl"]),
    "proxy": _option("PROXY"),
    "no_proxy": _option("NO_PROXY"),
    "proxy_headers": {"type": "dict", "options": PROXY_HEADERS_SPEC, "apply_defaults": True},
    "persist_config": _option("PERSIST_CONFIG", type="bool"),
    "impersonate_user": _option("IMPERSONATE_USER"),
    "impersonate_groups": _option("IMPERSONATE_GROUPS", type="list", elements="str"),
}


def connection_options(module: AnsibleModule) -> dict[str, Any]:
    """Return a module's connection options for KubeClient, and keep what is secret in them out of its output.

    Ansible hides the options marked no_log by itself; a kubeconfig given as a mapping, and passwords in URLs, it cannot
    know to be secret.
    """
    options = {name: module.params[name] for name in ARGUMENT_SPEC}
    module.no_log_values.update(secrets_of(options))
    return options
