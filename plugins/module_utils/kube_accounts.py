# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who logs in to a Kubernetes API, and how it is trusted, where the standard library does: no plugins, no proxies.

From connection options, a kubeconfig, or the service account of a pod to an `Account`. What is not understood here for
certain is left to the kubernetes package: each function answers None for it. Imports the core and kube_http.py; called
by kube_login.py.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Callable

from .core.errors import InvalidInput
from .kube_http import Account

#: Where a pod finds the token of its service account, which is renewed there, and the CA of the API server.
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
#: What a kubeconfig may say of a user or a cluster and this understands.
_USER = ("token", "tokenFile", "client-certificate", "client-certificate-data", "client-key", "client-key-data")
_CLUSTER = (
    *("server", "certificate-authority", "certificate-authority-data", "tls-server-name"),
    *("insecure-skip-tls-verify", "extensions"),
)
#: The connection options that this understands (bridge/kubernetes.py). Without a proxy, no_proxy says nothing, and
#: without a plugin there is nothing to persist.
_OPTIONS = frozenset(
    (
        *("kubeconfig", "context", "host", "api_key", "client_cert", "client_key", "ca_cert", "validate_certs"),
        *("no_proxy", "persist_config"),
    )
)
_PROXIES = ("https_proxy", "http_proxy", "all_proxy")
#: A server, without a password in its URL, and a token that can stand in a header as it is.
_SERVER = re.compile(r"https://(\[[\w:.%]+\]|[^/@:\s\[\]]+)(:\d{1,5})?(/[^?#\s]*)?")
_TOKEN = re.compile(r"[!-~]+")
_ATTEMPT = "connect to the Kubernetes API"


@dataclass(frozen=True)
class _Terms:
    """What was said of a login: the server, the user's token and certificate, and which certificates to trust."""

    host: str = ""
    token: Callable[[], str | None] = lambda: None
    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    server_name: str | None = None
    verify: bool = True


def account_for(options: Mapping[str, Any], environment: Mapping[str, str]) -> Account | None:
    """Return the login that connection options mean; None where that is for the kubernetes package to say.

    That is so for logins by plugins or passwords, for proxies (those of the environment, too), for impersonation, for
    servers with a certificate of a public CA, and for whatever is wrong: the package says what.

    Args:
        options: named as in bridge/kubernetes.py; what is absent is left out.
        environment: the environment variables.
    """
    proxied = any(environment.get(name) or environment.get(name.upper()) for name in _PROXIES)
    if proxied or set(options) - _OPTIONS:
        return None
    try:
        terms = _terms(options, environment)
        if terms is None:
            return None
        terms = _overridden(terms, options)
        return _account(terms) if _is_plain(terms) else None
    except InvalidInput:
        return None


def _is_plain(terms: _Terms) -> bool:
    """Say whether the kubernetes package would do with a login what is done here, and nothing else."""
    token = terms.token()
    trusted = terms.ca is not None or not terms.verify
    whole = (terms.certificate is None) == (terms.key is None)
    return bool(trusted and whole and _SERVER.fullmatch(terms.host) and (token is None or _TOKEN.fullmatch(token)))


def stands_alone(options: Mapping[str, Any]) -> bool:
    """Say whether options hold complete credentials for a host, so that no kubeconfig is read."""
    if "host" not in options:
        return False
    if "api_key" in options or ("username" in options and "password" in options):
        return True
    return "client_cert" in options and "kubeconfig" not in options and "context" not in options


def _terms(options: Mapping[str, Any], environment: Mapping[str, str]) -> _Terms | None:
    if stands_alone(options):
        return _Terms()
    named = "kubeconfig" in options or "context" in options
    pod = None if named else _pod_terms("", environment)
    if pod is not None:
        return pod
    kubeconfig = options.get("kubeconfig") or environment.get("KUBECONFIG") or "~/.kube/config"
    if isinstance(kubeconfig, dict):
        return _kubeconfig_terms(kubeconfig, "", options.get("context"), "the given kubeconfig")
    return None if os.pathsep in kubeconfig else _file_terms(kubeconfig, options.get("context"))


def _overridden(terms: _Terms, options: Mapping[str, Any]) -> _Terms:
    """Put the single options over what a kubeconfig or the service account said."""
    more: dict[str, Any] = {
        name: _read(str(options[option]))
        for name, option in (("ca", "ca_cert"), ("certificate", "client_cert"), ("key", "client_key"))
        if option in options
    }
    if "host" in options:
        more["host"] = str(options["host"]).rstrip("/")
    if "api_key" in options:
        more["token"] = lambda: str(options["api_key"])
    if "validate_certs" in options:
        more["verify"] = bool(options["validate_certs"])
    return replace(terms, **more)


def pod_account(folder: str = "", environment: Mapping[str, str] | None = None) -> Account | None:
    """Return the login of the pod that this runs in; None where it runs in none, or the pod may not log in.

    ``folder`` is that of the service account, if it is another one than ACCOUNT. Raises InvalidInput where it cannot be
    read.
    """
    terms = _pod_terms(folder, os.environ if environment is None else environment)
    return None if terms is None else _account(terms)


def _pod_terms(folder: str, environment: Mapping[str, str]) -> _Terms | None:
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    folder = folder or ACCOUNT
    token_file = os.path.join(folder, "token")
    if not host or not port or not os.path.exists(token_file):
        return None
    authority = _read(os.path.join(folder, "ca.crt"))
    return _Terms(f"https://{_bracketed(host)}:{port}", lambda: _read_token(token_file), authority)


def kubeconfig_account(path: str, wanted: str | None) -> Account | None:
    """Return the login of a context of a kubeconfig; None where that takes the kubernetes package.

    It does where a user logs in by a plugin, where a cluster is behind a proxy, and where the file is not JSON and
    there is no PyYAML.

    Args:
        path: the file. ``kubectl config view --raw --flatten --minify --output json`` prints one in JSON.
        wanted: the context; None for the current one.

    Raises:
        InvalidInput: it cannot be read, or does not have what it names.
    """
    terms = _file_terms(path, wanted)
    return None if terms is None else _account(terms)


def _file_terms(path: str, wanted: str | None) -> _Terms | None:
    where = f"kubeconfig {path}"
    remedy = "name one that is there and may be read, in kubeconfig or KUBECONFIG"
    config = _parsed(_read(path, f"log in with {where}", remedy), where)
    folder = os.path.dirname(os.path.abspath(os.path.expanduser(path)))
    return None if config is None else _kubeconfig_terms(config, folder, wanted, where)


def _parsed(data: bytes, where: str) -> Any:
    """Return what a kubeconfig holds; None for YAML where there is no PyYAML."""
    try:
        if data.lstrip().startswith(b"{"):
            return json.loads(data)
        try:
            import yaml  # there with Ansible, not with every Python
        except ImportError:
            return None
        return yaml.load(data, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except Exception as error:  # a YAMLError is no more than that, and has no name here
        raise _no_kubeconfig(where, "") from error


def _no_kubeconfig(where: str, lack: str) -> InvalidInput:
    return InvalidInput(f"log in with {where}", f"it is not one{lack}", "check that context with kubectl")


def _kubeconfig_terms(config: Any, folder: str, wanted: str | None, where: str) -> _Terms | None:
    try:
        context = _entry(config, "contexts", wanted or config.get("current-context"))["context"]
        cluster = _entry(config, "clusters", context["cluster"])["cluster"]
        user = _entry(config, "users", context["user"])["user"]
        unknown = set(user) - set(_USER) or set(cluster) - set(_CLUSTER) or {"token", "tokenFile"} <= set(user)
        insecure = cluster.get("insecure-skip-tls-verify", False)
        server = str(cluster["server"]).rstrip("/")
    except (KeyError, TypeError, AttributeError) as error:
        raise _no_kubeconfig(where, f": it has no {error}") from None
    if unknown or not isinstance(insecure, bool):
        return None
    return _Terms(
        server,
        _token(folder, user),
        _bytes_of(folder, cluster, "certificate-authority"),
        _bytes_of(folder, user, "client-certificate"),
        _bytes_of(folder, user, "client-key"),
        cluster.get("tls-server-name"),
        not insecure,
    )


def _entry(config: Mapping[str, Any], kind: str, name: Any) -> Any:
    for each in config[kind]:
        if each["name"] == name:
            return each
    raise KeyError(f"{kind[:-1]} {name}")


def _token(folder: str, user: Mapping[str, Any]) -> Callable[[], str | None]:
    if user.get("tokenFile"):
        path = os.path.join(folder, str(user["tokenFile"]))
        return lambda: _read_token(path)
    token = user.get("token")
    return lambda: None if token is None else str(token)


def _bytes_of(folder: str, entry: Mapping[str, Any], name: str) -> bytes | None:
    """Return what an entry holds itself, or what the file has that it names, relative to the kubeconfig."""
    if entry.get(f"{name}-data"):
        try:
            return base64.b64decode(str(entry[f"{name}-data"]), validate=True)
        except binascii.Error:
            raise InvalidInput(_ATTEMPT, f"{name}-data is no base64", "check the kubeconfig with kubectl") from None
    return _read(os.path.join(folder, str(entry[name]))) if entry.get(name) else None


def _account(terms: _Terms) -> Account:
    """Return the account of a login. Raises InvalidInput where it cannot be used."""
    if not terms.host.startswith("https://"):
        raise InvalidInput(_ATTEMPT, f"{terms.host} is no https URL", "name one: a token must not travel in the clear")
    context = _context(terms.ca, terms.verify)
    if terms.certificate is not None and terms.key is not None:
        _load_certificate(context, terms.certificate, terms.key)
    return Account(terms.host, context, terms.token, terms.server_name)


def _context(authority: bytes | None, verify: bool) -> ssl.SSLContext:
    """Return a context that verifies certificates and names, by that CA or, without one, by those of the system.

    Not `ssl.create_default_context`: from Python 3.13 on that refuses CAs without an authority key identifier, as those
    of some clusters are. A CA that another one has signed is enough by itself, as it is for kubectl.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # with CERT_REQUIRED and check_hostname
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    context.verify_flags |= getattr(ssl, "VERIFY_X509_PARTIAL_CHAIN", 0)  # from Python 3.10 on
    try:
        if authority is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(cadata=authority.decode("ascii", "ignore"))
    except (OSError, ValueError) as error:
        reason = f"the CA of the API server cannot be read ({getattr(error, 'strerror', None) or error})"
        raise InvalidInput(_ATTEMPT, reason, "check the CA in the kubeconfig or the service account") from None
    return context


def _load_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Load a client's certificate and key. A key with a password fails, and nobody is asked for that."""
    try:
        with _in_memory(certificate) as certificate_file, _in_memory(key) as key_file:
            context.load_cert_chain(certificate_file, key_file, password="")
    except (OSError, ValueError):  # without the words of the library, which may quote
        raise InvalidInput(
            _ATTEMPT, "the client certificate and its key cannot be used", "check the kubeconfig with kubectl"
        ) from None


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """Give the path of a file in memory, which leaves no trace: the ssl module takes files only."""
    if not hasattr(os, "memfd_create"):  # macOS
        raise InvalidInput(_ATTEMPT, "this system has no files in memory", "install the Python package kubernetes")
    fd = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as stream:
            stream.write(data)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _read(path: str, attempt: str = "", remedy: str = "name a file that is there and may be read") -> bytes:
    try:
        with open(os.path.expanduser(path), "rb") as stream:
            return stream.read()
    except OSError as error:
        raise InvalidInput(attempt or f"read {path}", str(error.strerror), remedy) from None


def _read_token(path: str) -> str:
    """Return the token as it is now: the kubelet renews it."""
    return _read(path).decode("ascii", "replace").strip()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host  # IPv6
