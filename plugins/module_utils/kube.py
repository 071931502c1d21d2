# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The door to a Kubernetes API: log in as the options say, ask, and turn every failure into one sentence.

Login (kubeconfig, exec plugins, service account) is the work of the ``kubernetes`` package, 24 or newer, which is
imported when a client is made and not before. Of it only the dynamic client is used, with full paths: its typed APIs
take most of a second to import, and its discovery costs three requests and a cache file in a shared folder. Imports
the core; called by the modules of claims (bridge/kubernetes.py holds their options), later by the csi backend.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable, NoReturn

from .core.claims import (
    ClaimVolume,
    check_request,
    missing_claim,
    raise_all,
    resolve_all,
    select_claims,
    volume_name,
)
from .core.errors import InvalidInput, RestorePointError

OLDEST_PACKAGE = 24
#: Seconds to wait for a connection, and for an answer to go on.
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 30.0
#: Reading is repeated after these pauses (seconds) when the server is busy, restarting, or not reachable for a moment.
PAUSES = (0.2, 0.5, 1.0, 2.0)
_LONGEST_RETRY_AFTER = 5.0
_TRANSIENT = (429, 500, 502, 503, 504)
#: From how many volumes on one list of all volumes is cheaper than a request for each.
_LIST_FROM = 4
#: Under which name a configuration holds the token: packages before 36 know the first, newer ones the second.
_TOKEN_NAMES = ("authorization", "BearerToken")
_FILE_OPTIONS = ("ca_cert", "client_cert", "client_key")
_CLAIMS = "persistentvolumeclaims"
_VOLUMES = "persistentvolumes"


class MissingLibrary(RestorePointError):
    """A Python package is not installed. ``library`` is its name, ``traceback`` that of the failed import."""

    def __init__(self, attempt: str, library: str, traceback: str) -> None:
        super().__init__(
            attempt,
            f"the Python package {library} cannot be imported",
            f"install {library} for the Python that runs the module",
        )
        self.library = library
        self.traceback = traceback


class KubeError(RestorePointError):
    """The Kubernetes API could not be asked, or refused. ``status`` is the HTTP status, 0 when there was none."""

    def __init__(self, attempt: str, reason: str, remedy: str, status: int = 0) -> None:
        super().__init__(attempt, reason, remedy)
        self.status = status


class KubeClient:
    """One login to one API server.

    Args:
        options: the connection options, named as in bridge/kubernetes.py; absent and None mean the same.
        timeout: seconds to wait for an answer.
        sleep: waits for so many seconds between two attempts.

    Raises:
        MissingLibrary, InvalidInput (options that cannot be right), KubeError (no usable login).
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        timeout: float = READ_TIMEOUT,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        given = {name: value for name, value in options.items() if value not in (None, "", [], {})}
        _check_options(given)
        configuration = _login(given)
        self.host = re.sub(r"//[^/@]*@", "//", str(configuration.host))
        self._timeout = (min(CONNECT_TIMEOUT, timeout), timeout)
        self._sleep = sleep
        self._secrets = secrets_of(given) + _header_secrets(configuration)
        self._client = _dynamic_client(configuration, given)

    def get(
        self,
        attempt: str,
        resource: str,
        namespace: str | None = None,
        name: str | None = None,
        selector: str | None = None,
    ) -> dict[str, Any]:
        """Return one object of the core API group, or a list of them, as plain JSON.

        Args:
            attempt: what this is for, for the message of a failure: ``list the claims of namespace 'x'``.
            resource: the plural name, such as ``persistentvolumeclaims``.
            name: one object; without it they are listed, all or those that match the label ``selector``.

        Raises:
            KubeError: for everything that is not an answer; its ``status`` is 404 when there is no such object.
        """
        path = "/api/v1" + (f"/namespaces/{namespace}" if namespace else "") + f"/{resource}"
        path += f"/{name}" if name else ""
        asked = f"{'get' if name else 'list'} on {resource}" + (f" in namespace {namespace}" if namespace else "")
        query = [("labelSelector", selector)] if selector else []
        pauses = iter(PAUSES)
        while True:
            try:
                return _parsed(self._read(path, query))
            except Exception as error:
                failure = _failure(error)
            pause = next(pauses, None)
            if pause is None or not failure.transient:
                self._raise(attempt, asked, failure)
            self._sleep(min(max(pause, failure.retry_after), _LONGEST_RETRY_AFTER))

    def _read(self, path: str, query: list[tuple[str, str]]) -> bytes:
        # A pair, because packages before 28 drop a timeout that is a single float.
        answer = self._client.request(
            "get", path, query_params=list(query), serialize=False, _request_timeout=self._timeout
        )
        data: bytes = answer.data
        return data

    def _raise(self, attempt: str, asked: str, failure: _Failure) -> NoReturn:
        for secret in self._secrets:
            failure.message = failure.message.replace(secret, "***")
        reason, remedy = _explain(failure, self.host, asked, self._timeout[1])
        raise KubeError(attempt, reason, remedy, failure.status) from None


def resolve_claims(
    client: KubeClient,
    namespace: str,
    names: Sequence[str] = (),
    selector: str | None = None,
    node_name: str | None = None,
) -> list[ClaimVolume]:
    """Return the directories of claims, in the order of ``names``, else by name.

    One claim is one request and a few volumes are one each; more are one list of claims and one list of volumes.

    Args:
        names: claims; with neither names nor ``selector`` every claim of the namespace is meant.
        node_name: the node on which all of them have to lie, or None to take any.

    Raises:
        InvalidInput, ClaimError (see core/claims.py; every claim at fault is named), KubeError.
    """
    names = check_request(namespace, names, selector)
    claims = select_claims(namespace, _claims(client, namespace, names, selector), names, selector)
    errors: list[RestorePointError] = []
    wanted: set[str] = set()
    for claim in claims:
        try:
            wanted.add(volume_name(claim))
        except RestorePointError as error:
            errors.append(error)
    if len(errors) == len(claims):
        raise_all(errors)
    return resolve_all(claims, _volumes(client, wanted), node_name)


def _claims(client: KubeClient, namespace: str, names: Sequence[str], selector: str | None) -> list[Any]:
    """Fetch one claim by name, or list those of the namespace that match."""
    if len(names) == 1:
        attempt = f"look up claim {namespace}/{names[0]}"
        try:
            return [client.get(attempt, _CLAIMS, namespace, name=names[0])]
        except KubeError as error:
            if error.status != 404:
                raise
        raise missing_claim(namespace, names[0], _existing(client, namespace))
    return _items(client, f"list the claims of namespace {namespace!r}", _CLAIMS, namespace, selector)


def _existing(client: KubeClient, namespace: str) -> list[str]:
    """Return the claims of a namespace, for a message; none when they may not be listed."""
    try:
        found = _items(client, f"list the claims of namespace {namespace!r}", _CLAIMS, namespace)
        return [str(each["metadata"]["name"]) for each in found]
    except (KubeError, KeyError, TypeError):
        return []


def _volumes(client: KubeClient, wanted: set[str]) -> dict[str, Any]:
    """Fetch volumes by name; those that do not exist are left out."""
    if len(wanted) >= _LIST_FROM:
        found = _items(client, f"list the volumes of {len(wanted)} claims", _VOLUMES)
        named = ((each.get("metadata", {}).get("name"), each) for each in found if isinstance(each, dict))
        return {name: each for name, each in named if name in wanted}
    volumes = {}
    for name in sorted(wanted):
        try:
            volumes[name] = client.get(f"look up volume {name!r}", _VOLUMES, name=name)
        except KubeError as error:
            if error.status != 404:
                raise
    return volumes


def _items(
    client: KubeClient, attempt: str, resource: str, namespace: str | None = None, selector: str | None = None
) -> list[Any]:
    items = client.get(attempt, resource, namespace, selector=selector).get("items")
    if not isinstance(items, list):
        raise KubeError(attempt, f"{client.host} did not answer with a list", "check that host is a Kubernetes API")
    return items


# Login


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
    if not _stands_alone(options) and (named or not _in_cluster(configuration)):
        _load_kubeconfig(configuration, options)
    _finish_login(configuration, options)
    return configuration


def _stands_alone(options: Mapping[str, Any]) -> bool:
    if "host" not in options:
        return False
    if "api_key" in options or ("username" in options and "password" in options):
        return True
    return "client_cert" in options and "kubeconfig" not in options and "context" not in options


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


def _header_secrets(configuration: Any) -> list[str]:
    """Return the credentials that will stand in the request's headers."""
    values = [str(value) for value in configuration.api_key.values() if value]
    return [part for value in values for part in (value, value.split(" ", 1)[-1].strip()) if part]


# Failures


class _Failure:
    """What went wrong with one request: an HTTP status and the server's message, or the error that came instead."""

    def __init__(self, status: int, message: str, retry_after: float, cause: BaseException) -> None:
        self.status = status
        self.message = message
        self.retry_after = retry_after
        self.cause = cause
        self.names = {type(each).__name__ for each in _chain(cause)}

    @property
    def tls(self) -> bool:
        return "SSL" in self.message or any("SSL" in name or name == "CertificateError" for name in self.names)

    @property
    def slow(self) -> bool:
        return not self.status and bool(self.names & {"ReadTimeoutError", "ConnectTimeoutError"})

    @property
    def transient(self) -> bool:
        """Say whether the same question may be answered in a moment."""
        if self.status:
            return self.status in _TRANSIENT
        unreachable = {"NewConnectionError", "ProtocolError", "ConnectionResetError", "RemoteDisconnected"}
        return not self.tls and not self.slow and bool(self.names & unreachable)


def _failure(error: Exception) -> _Failure:
    status = getattr(error, "status", None) or 0
    headers = getattr(error, "headers", None) or {}
    try:
        retry_after = float(headers.get("Retry-After") or 0)
    except (TypeError, ValueError):
        retry_after = 0.0
    message = _status_message(error) if status else _message(error)
    return _Failure(int(status), message, retry_after, error)


def _status_message(error: Exception) -> str:
    """Return the message of the Status object in an answer, else the HTTP reason; never a whole page."""
    body = getattr(error, "body", None)
    try:
        parsed = json.loads(body or "")
        message = parsed.get("message") if isinstance(parsed, dict) else None
    except ValueError:
        message = None
    return _short(message or getattr(error, "reason", None) or "no reason given")


def _message(error: BaseException) -> str:
    """Return the words of the innermost error: the outer ones repeat it with the addresses of objects."""
    innermost = list(_chain(error))[-1]
    reason = getattr(innermost, "reason", None)
    return _short(getattr(innermost, "strerror", None) or (reason if isinstance(reason, str) else str(innermost)))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those it was made from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        context = None if current.__suppress_context__ else current.__context__
        inner = (getattr(current, "reason", None), *current.args, current.__cause__, context)
        current = next((each for each in inner if isinstance(each, BaseException)), None)


def _short(text: Any) -> str:
    return " ".join(str(text).split())[:300]


def _explain(failure: _Failure, host: str, asked: str, timeout: float) -> tuple[str, str]:
    """Return the reason and the remedy for a failed request."""
    said = failure.message
    if failure.status == 401:
        return f"{host} does not accept the credentials ({said})", "renew the token or certificate, or log in again"
    if failure.status == 403:
        return f"{host} forbids it: {said}", f"allow {asked} to this user (a Role or ClusterRole and its binding)"
    if failure.status == 404:
        return f"{host} has no such object: {said}", "check the names and that host is a Kubernetes API"
    if failure.status:
        remedy = "try again when the API server is well" if failure.status in _TRANSIENT else "correct the request"
        return f"{host} answered {failure.status}: {said}", remedy
    if "ProxyError" in failure.names:
        return f"the proxy to {host} does not connect ({said})", "check proxy, or list the host in no_proxy"
    if failure.tls:
        remedy = "give the CA of its certificate as ca_cert, and a host that the certificate names"
        return f"no trusted connection to {host} ({said})", remedy
    if failure.slow:
        return f"no answer from {host} within {timeout:g} s", "check the API server's load and the network"
    return f"{host} cannot be reached or understood ({said})", "check host, proxy and that the API server runs"


def _parsed(data: bytes) -> dict[str, Any]:
    """Return an answer as JSON; raise ValueError for anything but an object."""
    try:
        parsed = json.loads(data)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise ValueError("its answer is not a JSON object, as those of a Kubernetes API are")
    return parsed
