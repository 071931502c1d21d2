# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTPS to a Kubernetes API with the standard library alone.

For the agent in pods and on hosts without other packages, and for modules, as it starts at once. `HttpApi` answers what
kube.py asks of the dynamic client of the kubernetes package. Who logs in where is an `Account`, from kube_accounts.py.
Imports nothing of ours; called by kube_login.py.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import ssl
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

_CHUNK = 64 * 1024


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
        self._prefix = urllib.parse.urlsplit(account.host).path.rstrip("/")  # of a server behind a gateway
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
        url = self._prefix + path + ("?" + urllib.parse.urlencode(query_params) if query_params else "")
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
