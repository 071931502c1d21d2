# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTPS to a Kubernetes API with the standard library alone, for the agent: pods and hosts without other packages.

Logs in with the service account of the pod, or with a kubeconfig in JSON that holds a token or a client certificate.
`HttpApi` answers what kube.py asks of the kubernetes package's dynamic client. Certificates are always verified.
Imports the core; called by kube_login.py.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import http.client
import ipaddress
import json
import os
import select
import socket
import ssl
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from .core.errors import InvalidInput

#: Where a pod finds the token of its service account, which is renewed there, and the CA of the API server.
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_CHUNK = 64 * 1024
#: What a kubeconfig may say of a user or a cluster and this understands; the rest is for the kubernetes package.
_USER = ("token", "tokenFile", "client-certificate", "client-certificate-data", "client-key", "client-key-data")
_CLUSTER = ("server", "certificate-authority", "certificate-authority-data", "tls-server-name")
_ATTEMPT = "connect to the Kubernetes API"


class Unreachable(Exception):
    """No connection, or one that broke. kube.py knows it by its name, as it knows the errors of urllib3."""


class NoAnswer(Exception):
    """Nothing came in time."""


class HttpStatus(Exception):
    """An answer that tells of a failure. The body is what the server said."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = body


@dataclass(frozen=True)
class Account:
    """Whom to log in to and as whom. ``token`` reads the present token, None for a client certificate alone."""

    host: str
    context: ssl.SSLContext
    token: Callable[[], str | None]
    server_name: str | None = None


class Answer:
    """One answer: ``data`` is all of it; ``stream`` yields it as it comes."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._response = response
        self.data = b""

    def stream(self, amt: int | None = None, decode_content: bool = False) -> Iterator[bytes]:
        """Yield what comes, as soon as it comes. Raises Unreachable, NoAnswer."""
        with _told():
            while True:
                chunk = self._response.read1(amt or _CHUNK)
                if not chunk:
                    return
                yield chunk

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def release_conn(self) -> None:
        """Nothing is pooled here: a streamed answer has a connection of its own."""


class HttpApi:
    """One connection that is kept, and one more for each watch. Redirects are failures: an API server has none."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._kept: http.client.HTTPSConnection | None = None
        self._token: str | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """The token that was last used, which may never be shown."""
        return (self._token,) if self._token else ()

    def request(
        self,
        method: str,
        path: str,
        query_params: Sequence[tuple[str, Any]] = (),
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        serialize: bool = False,
        _request_timeout: tuple[float, float] = (10.0, 30.0),
    ) -> Answer:
        """Send a request and return its answer; of a watch only its beginning.

        Raises:
            HttpStatus, Unreachable, NoAnswer, ssl.SSLError.
        """
        watch = any(name == "watch" for name, _value in query_params)
        url = path + ("?" + urllib.parse.urlencode(query_params) if query_params else "")
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        headers = self._headers(content_type if data is not None else None)
        with _told():
            connection = self._connected(_request_timeout, kept=not watch)
            try:
                connection.request(method.upper(), url, data, headers)
                response = connection.getresponse()
                answer = Answer(connection, response)
                if not watch or response.status >= 300:
                    answer.data = response.read()
            except BaseException:
                self._drop(connection)
                raise
        if response.status >= 300:
            raise HttpStatus(response.status, response.reason, dict(response.headers), answer.data)
        return answer

    def _headers(self, content_type: str | None) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": "restorepoint.core"}
        self._token = self._account.token()
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if content_type:
            headers["Content-Type"] = content_type
        return headers

    def _connected(self, timeouts: tuple[float, float], kept: bool) -> http.client.HTTPSConnection:
        connect, read = timeouts
        connection = self._kept if kept else None
        if connection is None or _is_closed(connection):
            connection = self._open(connect)
            if kept:
                self._drop(self._kept)
                self._kept = connection
        connection.sock.settimeout(read)
        return connection

    def _open(self, timeout: float) -> http.client.HTTPSConnection:
        parts = urllib.parse.urlsplit(self._account.host)
        connection = _Connection(parts.hostname or "", parts.port or 443, self._account, timeout)
        connection.connect()
        return connection

    def _drop(self, connection: http.client.HTTPConnection | None) -> None:
        if connection is not None:
            connection.close()
            if connection is self._kept:
                self._kept = None


class _Connection(http.client.HTTPSConnection):
    """A connection that may expect another name in the certificate than that it connects to."""

    def __init__(self, host: str, port: int, account: Account, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout, context=account.context)
        self._account = account

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        name = self._account.server_name or self.host
        self.sock = self._account.context.wrap_socket(self.sock, server_hostname=name)


def _is_closed(connection: http.client.HTTPConnection) -> bool:
    """Say whether the server has closed an idle connection, or sent what nobody asked for."""
    if connection.sock is None:
        return True
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what the standard library raises into errors with names of one meaning."""
    try:
        yield
    except ssl.SSLCertVerificationError:
        raise
    except (TimeoutError, socket.timeout) as error:  # one and the same from Python 3.10 on
        raise NoAnswer("no answer in time") from error
    except http.client.IncompleteRead as error:
        raise Unreachable("the connection broke in the middle of an answer") from error
    except http.client.HTTPException as error:
        raise Unreachable(str(error) or type(error).__name__) from error
    except OSError as error:
        if isinstance(error, ssl.SSLError) and not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            raise
        raise Unreachable(error.strerror or str(error)) from error


# -- logging in --------------------------------------------------------------------------------------------------------


def pod_account(folder: str = "", environment: Mapping[str, str] | None = None) -> Account | None:
    """Return the login of the pod that this runs in; None where it runs in none, or the pod may not log in.

    ``folder`` is that of the service account, if it is another one than ACCOUNT. Raises InvalidInput where it cannot be
    read.
    """
    if environment is None:
        environment = os.environ
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    folder = folder or ACCOUNT
    token_file = os.path.join(folder, "token")
    if not host or not port or not os.path.exists(token_file):
        return None
    context = _context(os.path.join(folder, "ca.crt"), None)
    return Account(f"https://{_bracketed(host)}:{port}", context, lambda: _read_token(token_file))


def kubeconfig_account(path: str, wanted: str | None) -> Account | None:
    """Return the login of a context of a kubeconfig; None where that takes the kubernetes package.

    It does where the file is not JSON, and where a user logs in by a plugin, or a cluster is behind a proxy.

    Args:
        path: the file. ``kubectl config view --raw --flatten --minify --output json`` prints one.
        wanted: the context; None for the current one.

    Raises:
        InvalidInput: it cannot be read, or does not have what it names.
    """
    data = _read(path)
    if not data.lstrip().startswith(b"{"):
        return None
    try:
        config = json.loads(data)
        name = wanted or config.get("current-context")
        context = _entry(config, "contexts", name)["context"]
        cluster = _entry(config, "clusters", context["cluster"])["cluster"]
        user = _entry(config, "users", context["user"])["user"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        known = "" if isinstance(error, ValueError) else f": it has no {error}"
        raise InvalidInput(
            f"log in with kubeconfig {path}", f"it is not one{known}", "check that context with kubectl"
        ) from None
    if set(user) - set(_USER) or set(cluster) - set(_CLUSTER):
        return None
    return _account(os.path.dirname(os.path.abspath(path)), cluster, user)


def _entry(config: Mapping[str, Any], kind: str, name: Any) -> Any:
    for each in config[kind]:
        if each["name"] == name:
            return each
    raise KeyError(f"{kind[:-1]} {name}")


def _account(folder: str, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> Account:
    server = str(cluster["server"])
    if not server.startswith("https://"):
        raise InvalidInput(_ATTEMPT, f"{server} is no https URL", "name one: a token must not travel in the clear")
    authority = _bytes_of(folder, cluster, "certificate-authority")
    context = _context(None, authority)
    certificate = _bytes_of(folder, user, "client-certificate")
    key = _bytes_of(folder, user, "client-key")
    if certificate is not None and key is not None:
        _load_certificate(context, certificate, key)
    if user.get("tokenFile"):
        path = os.path.join(folder, str(user["tokenFile"]))
        return Account(server, context, lambda: _read_token(path), cluster.get("tls-server-name"))
    token = user.get("token")
    return Account(server, context, lambda: token, cluster.get("tls-server-name"))


def _bytes_of(folder: str, entry: Mapping[str, Any], name: str) -> bytes | None:
    """Return what an entry holds itself, or what the file has that it names, relative to the kubeconfig."""
    if entry.get(f"{name}-data"):
        try:
            return base64.b64decode(str(entry[f"{name}-data"]), validate=True)
        except binascii.Error:
            raise InvalidInput(_ATTEMPT, f"{name}-data is no base64", "check the kubeconfig with kubectl") from None
    return _read(os.path.join(folder, str(entry[name]))) if entry.get(name) else None


def _context(ca_file: str | None, ca_data: bytes | None) -> ssl.SSLContext:
    """Return a context that verifies certificates and names, by that CA or, without one, by those of the system.

    Not `ssl.create_default_context`: from Python 3.13 on that refuses CAs without an authority key identifier, as those
    of some clusters are.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # with CERT_REQUIRED and check_hostname
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if ca_file is None and ca_data is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(cafile=ca_file, cadata=None if ca_data is None else ca_data.decode("ascii"))
    except (OSError, ValueError) as error:
        reason = f"the CA of the API server cannot be read ({getattr(error, 'strerror', None) or error})"
        raise InvalidInput(_ATTEMPT, reason, "check the CA in the kubeconfig or the service account") from None
    return context


def _load_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Load a client's certificate and key. The ssl module takes files only: one in memory, which leaves no trace."""
    fd = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as stream:
            stream.write(certificate.rstrip() + b"\n" + key)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    except (OSError, ValueError):  # without the words of the library, which may quote
        raise InvalidInput(
            _ATTEMPT, "the client certificate and its key cannot be used", "check the kubeconfig with kubectl"
        ) from None
    finally:
        os.close(fd)


def _read(path: str) -> bytes:
    try:
        with open(os.path.expanduser(path), "rb") as stream:
            return stream.read()
    except OSError as error:
        raise InvalidInput(f"read {path}", str(error.strerror), "name a file that is there and may be read") from None


def _read_token(path: str) -> str:
    """Return the token as it is now: the kubelet renews it."""
    return _read(path).decode("ascii", "replace").strip()


def _bracketed(host: str) -> str:
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host
