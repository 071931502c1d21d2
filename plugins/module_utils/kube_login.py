# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logging in to a Kubernetes API as the options say.

Two ways lead there. A login by a token or a certificate takes the standard library alone (kube_accounts.py and
kube_http.py). Whatever else a kubeconfig may say, or say wrong, is for the ``kubernetes`` package (kube_package.py),
which is not even imported before: that costs more than a small task. Called by kube.py, the agent, and the bridge,
which keeps secrets out of the output.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .core.errors import InvalidInput, MissingLibrary, RestorePointError
from .kube_accounts import account_for, kubeconfig_account, pod_account
from .kube_http import HttpApi

_FILE_OPTIONS = ("ca_cert", "client_cert", "client_key")


class KubeError(RestorePointError):
    """The Kubernetes API could not be asked, or refused.

    ``status`` is the HTTP status, 0 when there was none; ``word`` is the API's own for the failure, such as
    AlreadyExists; ``transient`` says that it may go better in a moment.
    """

    def __init__(
        self, attempt: str, reason: str, remedy: str, status: int = 0, word: str = "", transient: bool = False
    ) -> None:
        super().__init__(attempt, reason, remedy)
        self.status = status
        self.word = word
        self.transient = transient


@dataclass(frozen=True)
class Login:
    """The package's dynamic client or an HttpApi, the server without credentials in its URL, and what stays secret."""

    client: Any
    host: str
    secrets: tuple[str, ...]


def log_in(options: Mapping[str, Any]) -> Login:
    """Return a login as connection options say; they are named as in bridge/kubernetes.py, and None means absent.

    Raises:
        MissingLibrary, InvalidInput (options that cannot be right), KubeError (no usable login).
    """
    given = _checked(options)
    account = account_for(given, os.environ)
    if account is not None:
        return Login(HttpApi(account), account.host, tuple(secrets_of(given)))
    return _by_package(given)


def log_in_with_package(options: Mapping[str, Any]) -> Login:
    """Return a login as `log_in` does, always by the ``kubernetes`` package."""
    return _by_package(_checked(options))


def log_in_alone(options: Mapping[str, Any]) -> Login:
    """Return a login for the agent, without the ``kubernetes`` package where that can be done.

    In a pod that is its service account, else a kubeconfig with a token or a client certificate, in JSON where there is
    no PyYAML. Any other kubeconfig takes the package. ``options`` may hold ``kubeconfig``, a path, and ``context``.

    Raises:
        InvalidInput (options that cannot be right), KubeError (no usable login; the package is needed and not there).
    """
    given = {name: value for name, value in options.items() if value}
    path = str(given.get("kubeconfig") or os.environ.get("KUBECONFIG") or "~/.kube/config")
    account = None if given else pod_account()
    if account is None and os.pathsep not in path:
        account = kubeconfig_account(path, given.get("context"))
    if account is not None:
        return Login(HttpApi(account), account.host, ())
    try:
        return _by_package(_checked(given))
    except MissingLibrary as error:
        remedy = "write it with kubectl config view --raw --flatten --minify --output json, or install kubernetes"
        raise KubeError(f"log in with kubeconfig {path}", error.reason, remedy) from None


def _by_package(given: Mapping[str, Any]) -> Login:
    from .kube_package import log_in_by_package  # seldom needed, and long

    return log_in_by_package(given)


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are there; raise InvalidInput for what can be seen to be wrong without asking anyone."""
    given = {name: value for name, value in options.items() if value not in (None, "", [], {})}
    if not any((given.get("proxy_headers") or {}).values()):
        given.pop("proxy_headers", None)  # Ansible fills the mapping with None
    _check_options(given)
    return given


def _check_options(options: Mapping[str, Any]) -> None:
    """Raise InvalidInput for options that can be seen to be wrong without asking anyone."""
    attempt = "connect to the Kubernetes API"
    host = options.get("host")
    if host is not None and not re.fullmatch(r"https?://[^/\s]+(/\S*)?", str(host)):
        raise InvalidInput(attempt, "host is not a URL", "write it with its scheme, such as https://10.0.0.1:6443")
    if ("client_cert" in options) != ("client_key" in options):
        raise InvalidInput(attempt, "client_cert and client_key go together", "give both or none")
    if "impersonate_groups" in options and "impersonate_user" not in options:
        raise InvalidInput(attempt, "impersonate_groups lacks impersonate_user", "name the user as well")
    for name in _FILE_OPTIONS:
        if name in options and not os.access(str(options[name]), os.R_OK):
            raise InvalidInput(attempt, f"{name} {options[name]} cannot be read", "give a file that is there")
    kubeconfig = options.get("kubeconfig")
    if kubeconfig is not None and not isinstance(kubeconfig, (str, dict)):
        raise InvalidInput(attempt, "kubeconfig is neither a path nor a mapping", "give one of the two")


def secrets_of(options: Mapping[str, Any]) -> list[str]:
    """Return the secrets among connection options, those inside a kubeconfig given as a mapping too."""
    secrets = [options.get("api_key"), options.get("password")]
    secrets += [value for name, value in (options.get("proxy_headers") or {}).items() if name != "user_agent"]
    for name in ("host", "proxy"):
        secrets += re.findall(r"//[^/@:]*:([^/@]+)@", str(options.get(name)))
    if isinstance(options.get("kubeconfig"), dict):
        secrets += _nested_secrets(options["kubeconfig"].get("users"))
    return sorted({str(each) for each in secrets if each}, key=len, reverse=True)


def _nested_secrets(value: Any, secret: bool = False) -> list[str]:
    """Return what stands under the secret members of a kubeconfig's users, at any depth."""
    if isinstance(value, Mapping):
        found: list[str] = []
        for name, each in value.items():
            hidden = name in ("token", "password", "client-key-data", "auth-provider", "env")
            found += [] if name == "name" else _nested_secrets(each, secret or hidden)
        return found
    if isinstance(value, list):
        return [each for part in value for each in _nested_secrets(part, secret)]
    # Short values (a provider's name, "true") are no secrets, and hiding them would make messages unreadable.
    return [value] if secret and isinstance(value, str) and len(value) >= 8 else []
