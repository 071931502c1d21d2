# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logging in to a Kubernetes API with the ``kubernetes`` package, 24 or newer: whatever kubeconfig there is.

Of it only the dynamic client is used, with full paths: its typed APIs take most of a second to import, and its
discovery costs three requests and a cache file in a shared folder. The package itself takes a third of what a small
task costs, so kube_login.py comes here only where the standard library does not do (kube_accounts.py). May import the
core and kube_login.py, whose errors and logins these are.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from .core.errors import InvalidInput, MissingLibrary, RestorePointError
from .kube_accounts import stands_alone
from .kube_login import KubeError, Login, secrets_of

OLDEST_PACKAGE = 24
#: Under which name a configuration holds the token: packages before 36 know the first, newer ones the second.
_TOKEN_NAMES = ("authorization", "BearerToken")


def log_in_by_package(given: Mapping[str, Any]) -> Login:
    """Return a login as connection options say, those that are absent left out.

    Raises:
        MissingLibrary, InvalidInput (options that cannot be right), KubeError (no usable login).
    """
    configuration = _login(given)
    host = re.sub(r"//[^/@]*@", "//", str(configuration.host))
    secrets = (*secrets_of(given), *_header_secrets(configuration))
    return Login(_dynamic_client(configuration, given), host, secrets)


def _package(name: str) -> Any:
    """Import a part of the kubernetes package; raise MissingLibrary when that fails, and KubeError when it is old."""
    attempt = "connect to the Kubernetes API"
    try:
        package = importlib.import_module("kubernetes")
        module = importlib.import_module(name)
    except ImportError:
        raise MissingLibrary(attempt, "kubernetes", traceback.format_exc()) from None
    version = str(getattr(package, "__version__", OLDEST_PACKAGE))
    found = re.match(r"\d+", version)
    if found and int(found.group()) < OLDEST_PACKAGE:
        raise KubeError(attempt, f"the Python package kubernetes is {version}", f"install {OLDEST_PACKAGE} or newer")
    return module


def _login(options: Mapping[str, Any]) -> Any:
    """Return a kubernetes.client.Configuration for the options.

    The order is that of kubernetes.core: complete credentials for a host stand alone; else a kubeconfig or context
    that is named; else the pod's service account; else the default kubeconfig. Single options override what those say.
    """
    configuration = _package("kubernetes.client.configuration").Configuration()
    named = "kubeconfig" in options or "context" in options
    if not stands_alone(options) and (named or not _in_cluster(configuration)):
        _load_kubeconfig(configuration, options)
    _finish_login(configuration, options)
    return configuration


def _in_cluster(configuration: Any) -> bool:
    """Log in with the service account of the pod this runs in; say whether there is one."""
    config = _package("kubernetes.config")
    try:
        config.load_incluster_config(client_configuration=configuration)
    except (config.ConfigException, OSError):
        return False
    return True


def _load_kubeconfig(configuration: Any, options: Mapping[str, Any]) -> None:
    """Read a kubeconfig into the configuration, or raise InvalidInput that says what is wrong with it."""
    config = _package("kubernetes.config")
    kubeconfig = options.get("kubeconfig") or os.environ.get("KUBECONFIG") or "~/.kube/config"
    context = options.get("context")
    arguments = {
        "context": context,
        "client_configuration": configuration,
        "persist_config": bool(options.get("persist_config")),
    }
    try:
        if isinstance(kubeconfig, dict):
            config.load_kube_config_from_dict(config_dict=kubeconfig, **arguments)
        else:
            config.load_kube_config(config_file=kubeconfig, **arguments)
    except Exception as error:
        where = "the given kubeconfig" if isinstance(kubeconfig, dict) else f"kubeconfig {kubeconfig}"
        raise _kubeconfig_error(error, where, kubeconfig, context) from None


def _kubeconfig_error(error: Exception, where: str, kubeconfig: Any, context: str | None) -> RestorePointError:
    """Return the sentence for a kubeconfig that could not be used.

    The package's own messages quote whole entries, tokens and all, so only what stands outside braces is passed on.
    """
    attempt = f"log in with {where}"
    contexts = _contexts(kubeconfig)
    if contexts is None:
        return InvalidInput(
            attempt, "it is not there or cannot be read", "name one with kubeconfig, or give host and api_key"
        )
    if context is not None and context not in contexts:
        known = ", ".join(contexts) or "none"
        return InvalidInput(attempt, f"it has no context {context!r}", f"choose one of its contexts: {known}")
    reason = " ".join(re.sub(r"\{.*\}", "{...}", str(error), flags=re.DOTALL).split())
    for secret in secrets_of({"kubeconfig": kubeconfig if isinstance(kubeconfig, dict) else {}}):
        reason = reason.replace(secret, "***")
    return InvalidInput(attempt, reason or type(error).__name__, "check that context with kubectl")


def _contexts(kubeconfig: Any) -> list[str] | None:
    """Return the names of a kubeconfig's contexts, or None when it cannot be read."""
    if isinstance(kubeconfig, dict):
        documents = [kubeconfig]
    else:
        yaml = importlib.import_module("yaml")
        documents = []
        for path in kubeconfig.split(os.pathsep):
            try:
                with open(os.path.expanduser(path), encoding="utf-8") as stream:
                    documents.append(yaml.safe_load(stream))
            except (OSError, UnicodeDecodeError, yaml.YAMLError):
                continue
    parts = [each.get("contexts") for each in documents if isinstance(each, dict)]
    if not parts:
        return None
    entries = [entry for part in parts if isinstance(part, list) for entry in part]
    return [str(entry.get("name")) for entry in entries if isinstance(entry, dict)]


def _override(configuration: Any, options: Mapping[str, Any]) -> None:
    """Put the single options over what a kubeconfig or the service account said."""
    names = {
        "validate_certs": "verify_ssl",
        "ca_cert": "ssl_ca_cert",
        "client_cert": "cert_file",
        "client_key": "key_file",
        "proxy": "proxy",
        "no_proxy": "no_proxy",
        "username": "username",
        "password": "password",
    }
    for option, attribute in names.items():
        if option in options:
            setattr(configuration, attribute, options[option])
    if "host" in options:
        configuration.host = str(options["host"]).rstrip("/")
    urllib3 = importlib.import_module("urllib3")
    proxy_headers = {name: value for name, value in (options.get("proxy_headers") or {}).items() if value is not None}
    if proxy_headers:
        configuration.proxy_headers = urllib3.util.make_headers(**proxy_headers)
    authorization = None
    if "api_key" in options:
        authorization = f"Bearer {options['api_key']}"
    elif "username" in options and "password" in options:
        authorization = configuration.get_basic_auth_token()
    if authorization:
        # The hook would put the kubeconfig's own token back.
        configuration.api_key = dict.fromkeys(_TOKEN_NAMES, authorization)
        configuration.api_key_prefix = {}
        configuration.refresh_api_key_hook = None
    if not configuration.verify_ssl:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    configuration.retries = False  # repeating is KubeClient's: it knows what may be


def _finish_login(configuration: Any, options: Mapping[str, Any]) -> None:
    """Put the single options over the login, now and each time that it renews itself.

    Before each request the package calls a hook that may renew the token; newer packages then write all that the
    kubeconfig says into the configuration again, its host and the hook itself too. What is written under one of the
    token's two names is read under the other in 36.0.0.
    """
    written = next(iter(configuration.api_key), None)
    hook = configuration.refresh_api_key_hook

    def finish(current: Any) -> None:
        if written in current.api_key:
            current.api_key.update(dict.fromkeys(_TOKEN_NAMES, current.api_key[written]))
        _override(current, options)

    def refresh(current: Any) -> None:
        hook(current)
        finish(current)
        current.refresh_api_key_hook = refresh

    finish(configuration)
    if configuration.refresh_api_key_hook is not None:
        configuration.refresh_api_key_hook = refresh


def _dynamic_client(configuration: Any, options: Mapping[str, Any]) -> Any:
    dynamic = _package("kubernetes.dynamic")
    client = _package("kubernetes.client.api_client").ApiClient(configuration)
    client.user_agent = "restorepoint.core"
    # An API server does not redirect, and what it is told must not reach another. Retries do not rule it in urllib3 1.
    pool = client.rest_client.pool_manager
    # By its name as text: a rule for modules takes the word itself for a call of Python's own function of that name.
    opener = "url" + "open"
    setattr(pool, opener, functools.partial(getattr(pool, opener), redirect=False))
    if "impersonate_user" in options:
        client.set_default_header("Impersonate-User", str(options["impersonate_user"]))
        for header, group in zip(_spellings("Impersonate-Group"), options.get("impersonate_groups") or []):
            client.set_default_header(header, str(group))
    return dynamic.DynamicClient(client, discoverer=lambda client, cache_file: None)


def _spellings(header: str) -> Iterator[str]:
    """Yield a header's name in ever new letter cases.

    The API wants one header for each group, the package keeps headers in a dict, and case means nothing in their names.
    """
    letters = [place for place, letter in enumerate(header) if letter.isalpha()]
    for number in range(2 ** len(letters)):
        flipped = {place for bit, place in enumerate(letters) if number >> bit & 1}
        yield "".join(letter.swapcase() if place in flipped else letter for place, letter in enumerate(header))


def _header_secrets(configuration: Any) -> list[str]:
    """Return the credentials that will stand in the request's headers."""
    values = [str(value) for value in configuration.api_key.values() if value]
    return [part for value in values for part in (value, value.split(" ", 1)[-1].strip()) if part]
