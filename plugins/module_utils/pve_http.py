# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The API of Proxmox VE over HTTPS with the standard library alone, for the agent: a transport of the door `pve`.

It does what `pve.HttpsTransport` does through proxmoxer, and says in the same three ways how a call went. Each call has
a connection of its own, so that one that was closed meanwhile cannot leave it open whether a call was carried out.
Redirects are not followed. Imports the core; called by engine/pve.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any, Callable

from .core.errors import InvalidInput
from .pve import CONNECT, RENEW_AGE, Connection, Lost, PveError, Refused, identity

_PORT = 8006
_MOST = 256 * 1024 * 1024


class PlainTransport:
    """The API over HTTPS. One login serves all threads. See pve.Transport.

    Raises InvalidInput, PveError (no usable login).
    """

    foreground = False

    def __init__(self, connection: Connection, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._clock = clock
        self._lock = threading.Lock()
        self._since = 0.0
        self._generation = 0
        self._headers: dict[str, str] = {}
        self._ticket = ""
        self.skew: float | None = None
        self.user, self._token = identity(connection)
        self._context = _context(connection)

    def call(self, method: str, path: str, params: Mapping[str, Any], timeout: float) -> Any:
        """Make one call. A ticket that has run out is renewed once. See Transport."""
        generation = self._log_in(timeout)
        try:
            return self._made(method, path, params, timeout, self._headers)
        except Refused as error:
            if error.status != 401 or self._token is not None:
                raise
        # A ticket that ran out is refused before anything is done, so the call may be made again.
        self._log_in(timeout, refused=generation)
        return self._made(method, path, params, timeout, self._headers)

    def _log_in(self, timeout: float, refused: int | None = None) -> int:
        """See to it that there is a login that is neither old nor the ``refused`` one; return its number."""
        with self._lock:
            old = self._token is None and self._clock() - self._since > RENEW_AGE
            if not self._headers or old or refused == self._generation:
                self._headers = self._login(timeout, renews=bool(self._ticket) and refused is None)
                self._generation += 1
                self._since = self._clock()
            return self._generation

    def _login(self, timeout: float, renews: bool) -> dict[str, str]:
        given = self._connection
        if self._token is not None:
            return {"Authorization": f"PVEAPIToken={self.user}={given.token_secret}"}
        words = {"username": self.user, "password": self._ticket if renews else given.password}
        try:
            answer = self._made("POST", "/access/ticket", words, timeout, {})
            if answer.get("NeedTFA"):
                raise self._not_let_in(": it has two-factor authentication")
            self._ticket = str(answer["ticket"])
            return {
                "Cookie": f"PVEAuthCookie={self._ticket}",
                "CSRFPreventionToken": str(answer["CSRFPreventionToken"]),
            }
        except Refused as error:
            if error.status == 401:
                raise self._not_let_in("") from None
            words_said = f"the login was answered with HTTP {error.status}"
            raise Lost(words_said, maybe_done=False, final=error.status < 500) from None
        except (AttributeError, KeyError, TypeError):
            raise Lost(f"{given.host} does not answer as Proxmox VE does", maybe_done=False) from None

    def _not_let_in(self, more: str) -> PveError:
        remedy = "check api_user with its realm, and api_password or the token"
        return PveError(CONNECT, f"{self.user} was not let in{more}", remedy, 401)

    def _made(
        self, method: str, path: str, params: Mapping[str, Any], timeout: float, headers: Mapping[str, str]
    ) -> Any:
        given = {
            name: int(value) if isinstance(value, bool) else value
            for name, value in params.items()
            if value is not None
        }
        form = urllib.parse.urlencode(given, doseq=True)
        where = f"/api2/json{urllib.parse.quote(path)}"
        sends = method in ("POST", "PUT")
        if form and not sends:
            where = f"{where}?{form}"
        more = {"Content-Type": "application/x-www-form-urlencoded"} if sends else {}
        status, reason, body = self._exchanged(method, where, form if sends else None, {**headers, **more}, timeout)
        if status >= 400:
            raise Refused(status, _words_of(reason, body))
        if not 200 <= status < 300:
            raise Lost(f"it was answered with HTTP {status}, which is not what an API of Proxmox VE does", True, True)
        try:
            return json.loads(body)["data"]
        except (KeyError, TypeError, ValueError):
            raise Lost("the answer is no JSON", maybe_done=True) from None

    def _exchanged(
        self, method: str, where: str, body: str | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, str, bytes]:
        """Send a request and return status, reason and body of the answer. Raises Lost."""
        host, port = self._connection.host, self._connection.port or _PORT
        place = f"{host}:{port}"
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=self._context)
        try:
            try:
                connection.connect()
            except ssl.SSLError as error:
                remedy = (
                    "give the cluster's CA (/etc/pve/pve-root-ca.pem) as ca_path, and as api_host a name in the"
                    " certificate"
                )
                words = getattr(error, "verify_message", "") or error.reason or str(error)
                raise Lost(f"the certificate of {place} is not trusted: {words}", False, True, remedy) from None
            except (TimeoutError, socket.timeout):  # one and the same from Python 3.10 on
                raise Lost(f"{place} did not accept a connection in time", maybe_done=False) from None
            except OSError as error:
                raise Lost(f"the connection to {place} failed: {_why(error)}", maybe_done=False) from None
            try:
                connection.request(method, where, body=body, headers=dict(headers))
                response = connection.getresponse()
                self._note_clock(response.headers.get("Date"))
                content = response.read(_MOST)
            except (TimeoutError, socket.timeout):
                raise Lost(f"{place} did not answer in time", maybe_done=True) from None
            except (OSError, http.client.HTTPException) as error:
                raise Lost(f"the connection to {place} failed: {_why(error)}", maybe_done=True) from None
            return response.status, response.reason, content
        finally:
            connection.close()

    def _note_clock(self, date: str | None) -> None:
        parsed = email.utils.parsedate_tz(date) if date and self.skew is None else None
        if parsed is not None:
            self.skew = email.utils.mktime_tz(parsed) - time.time()


def _context(connection: Connection) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=connection.ca_path)
    except (OSError, ssl.SSLError) as error:
        reason = f"ca_path {connection.ca_path} cannot be used: {_why(error)}"
        raise InvalidInput(CONNECT, reason, "give a file with certificates that is there") from None
    if not connection.validate_certs:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _words_of(reason: str, body: bytes) -> str:
    """Return a refusal in the server's words, with those about single parameters."""
    words = " ".join(reason.split())
    try:
        errors = json.loads(body).get("errors")
    except (AttributeError, ValueError):
        errors = None
    if isinstance(errors, Mapping):
        each = [f"{name}: {' '.join(str(text).split())}" for name, text in errors.items()]
        words = f"{words.rstrip('.')}: {'; '.join(each)}" if each else words
    return words or "no reason given"


def _why(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
