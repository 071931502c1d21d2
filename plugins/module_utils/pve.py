# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The door to the API of Proxmox VE: over HTTPS through proxmoxer, or on a node through the program pvesh.

A transport makes one call and says in one of three ways how it went: an answer, `Refused` (the server said no), or
`Lost` (no answer, and the call may have been carried out). `PveClient` repeats what may be repeated, keeps to the
deadline, and turns failures into one sentence. proxmoxer and requests are imported when a transport is made and not
before. Imports the core; called by backends/pve.
"""

from __future__ import annotations

import email.utils
import importlib
import json
import os
import re
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Protocol

from . import process
from .core.errors import InvalidInput, MissingLibrary, RestorePointError, ToolError
from .deadline import Deadline

#: Reading is repeated after these pauses (seconds), and so is a call that has certainly not been carried out.
PAUSES = (0.2, 0.5, 1.0, 2.0)
#: The proxy between nodes and whatever stands before the API answer these. 595 to 599 are AnyEvent's.
TRANSIENT = (429, 502, 503, 504, 595, 596, 597, 598, 599)
#: A ticket lives two hours. It is renewed at this age, in seconds, and when the server does not want it any more.
RENEW_AGE = 3000.0
CONNECT = "connect to the Proxmox VE API"
_UPID = re.compile(r"UPID:[^\s\"]+:")
_VERBS = {"GET": "get", "POST": "create", "PUT": "set", "DELETE": "delete"}


class Refused(Exception):
    """The server answered with an HTTP ``status`` of 400 or more, and words. Nothing was done, except by some 5xx."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"{words} (HTTP {status})")
        self.status = status
        self.words = words


class Lost(Exception):
    """There was no usable answer. ``maybe_done`` is False where the call has certainly not reached the server.

    ``final`` is True where trying again cannot help, such as with a certificate that does not match.
    """

    def __init__(self, words: str, maybe_done: bool, final: bool = False, remedy: str = "") -> None:
        super().__init__(words)
        self.words = words
        self.maybe_done = maybe_done
        self.final = final
        self.remedy = remedy


class PveError(RestorePointError):
    """The API refused a call, or did not answer. ``status`` is the HTTP status, 0 where there was none.

    ``maybe_done`` is True where nobody knows whether the call was carried out.
    """

    def __init__(
        self, attempt: str, reason: str, remedy: str, status: int = 0, words: str = "", maybe_done: bool = False
    ) -> None:
        super().__init__(attempt, reason, remedy)
        self.status = status
        self.words = words or reason
        self.maybe_done = maybe_done


class Transport(Protocol):
    """One way to the API. Safe for several threads."""

    #: Who the calls are made as, as in the server's tasks: ``root@pam`` or ``ops@pve!token``.
    user: str
    #: Whether a call that starts a task returns only when the task has ended.
    foreground: bool
    #: Seconds by which the server's clock is ahead of ours, or None where that is not known.
    skew: float | None

    def call(self, method: str, path: str, params: Mapping[str, Any], timeout: float) -> Any:
        """Make one call and return its data; raise Refused or Lost."""


@dataclass(frozen=True)
class Connection:
    """How to reach an API over HTTPS, and as whom. ``timeout`` is that of one call, in seconds."""

    host: str
    user: str
    password: str | None = None
    token_id: str | None = None
    token_secret: str | None = None
    otp: str | None = None
    port: int | None = None
    validate_certs: bool = True
    ca_path: str | None = None
    timeout: float = 30.0

    def __repr__(self) -> str:
        return f"Connection({self.user} at {self.host})"  # never the secrets


def _library(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingLibrary(CONNECT, package, traceback.format_exc()) from None


class HttpsTransport:
    """The API over HTTPS. One login serves all threads; each thread has a session, and so a connection, of its own.

    Raises MissingLibrary, InvalidInput, PveError (no usable login).
    """

    foreground = False

    def __init__(self, connection: Connection, clock: Callable[[], float] = time.monotonic) -> None:
        # proxmoxer ends the process where requests is missing, so that one is looked for first.
        self._requests = _library("requests", "requests")
        self._core = _library("proxmoxer.core", "proxmoxer")
        self._connection = connection
        self._clock = clock
        self._lock = threading.Lock()
        self._local = threading.local()
        self._generation = 0
        self._since = 0.0
        self._api: Any = None
        self.skew: float | None = None
        self.user, self._token = identity(connection)
        if connection.ca_path is not None and not os.access(connection.ca_path, os.R_OK):
            raise InvalidInput(CONNECT, f"ca_path {connection.ca_path} cannot be read", "give a file that is there")

    def call(self, method: str, path: str, params: Mapping[str, Any], timeout: float) -> Any:
        """Make one call. A ticket that has run out is renewed once. See Transport."""
        generation = self._log_in(timeout)
        try:
            return self._call(method, path, params, timeout)
        except Refused as error:
            if error.status != 401 or self._token is not None:
                raise
        # A ticket that ran out is refused before anything is done, so the call may be made again.
        self._log_in(timeout, refused=generation)
        return self._call(method, path, params, timeout)

    def _call(self, method: str, path: str, params: Mapping[str, Any], timeout: float) -> Any:
        resource, auth = self._resource()
        auth.timeout = timeout
        given = {name: int(value) if isinstance(value, bool) else value for name, value in params.items()}
        words = {"params": given} if method in ("GET", "DELETE") else {"data": given}
        try:
            answer = resource(path)._request(method, **words)
        except self._core.ResourceException as error:
            raise Refused(int(error.status_code), _words_of(error)) from None
        except self._requests.exceptions.RequestException as error:
            raise self._lost(error) from None
        except (KeyError, TypeError, ValueError):
            raise Lost("the answer is not what an API of Proxmox VE gives", maybe_done=True) from None
        # proxmoxer hands over as ``errors`` what is no JSON.
        if isinstance(answer, dict) and isinstance(answer.get("errors"), bytes):
            raise Lost("the answer is no JSON", maybe_done=True)
        return answer

    def _resource(self) -> Any:
        """Return this thread's own resource and the login that all share."""
        with self._lock:
            api, generation = self._api, self._generation
        if getattr(self._local, "generation", None) != generation:
            session = api._backend.get_session()
            session.max_redirects = 0  # what the API is told must not reach another
            session.hooks["response"].append(self._note_clock)
            self._local.resource = self._core.ProxmoxResource(
                base_url=api._backend.get_base_url(), session=session, serializer=api._backend.get_serializer()
            )
            self._local.auth = api._backend.auth
            self._local.generation = generation
        return self._local.resource, self._local.auth

    def _note_clock(self, response: Any, *_unused: Any, **_more: Any) -> None:
        if self.skew is None and "Date" in response.headers:
            parsed = email.utils.parsedate_tz(response.headers["Date"])
            if parsed is not None:
                self.skew = email.utils.mktime_tz(parsed) - time.time()

    def _log_in(self, timeout: float, refused: int | None = None) -> int:
        """See to it that there is a login that is neither old nor the ``refused`` one; return its number."""
        with self._lock:
            old = self._token is None and self._clock() - self._since > RENEW_AGE
            if self._api is None or old or refused == self._generation:
                self._api = self._login(timeout, renews=self._api is not None and refused is None)
                self._generation += 1
                self._since = self._clock()
            return self._generation

    def _login(self, timeout: float, renews: bool) -> Any:
        given = self._connection
        secrets: dict[str, Any] = {"token_name": self._token, "token_value": given.token_secret}
        if self._token is None:
            # A one-time password is good for one login: what renews is the ticket itself.
            ticket = self._api._backend.auth.pve_auth_ticket if renews and given.otp else None
            secrets = {"password": ticket or given.password, "otp": None if ticket else given.otp}
        try:
            api = _library("proxmoxer", "proxmoxer").ProxmoxAPI(
                given.host,
                port=given.port,
                user=self.user.partition("!")[0],
                verify_ssl=(given.ca_path or True) if given.validate_certs else False,
                timeout=timeout,
                **secrets,
            )
        except self._core.AuthenticationError as error:
            raise self._not_logged_in(str(error)) from None
        except self._requests.exceptions.RequestException as error:
            raise self._lost(error) from None
        except (KeyError, TypeError, ValueError):
            raise Lost(f"{given.host} does not answer as Proxmox VE does", maybe_done=False) from None
        if self._token is None:
            api._backend.auth.renew_age = float("inf")  # proxmoxer would renew it in several threads at once
        return api

    def _not_logged_in(self, words: str) -> Exception:
        found = re.search(r"code: (\d+)", words)
        status = int(found.group(1)) if found else 401
        if status != 401:
            return Lost(f"the login was answered with HTTP {status}", maybe_done=False, final=status < 500)
        reason = f"{self.user} was not let in"
        if "TFA" in words:
            reason += ": it has two-factor authentication"
        return PveError(CONNECT, reason, "check api_user with its realm, and api_password or the token", 401)

    def _lost(self, error: Exception) -> Lost:
        """Say what a failure of requests means: was the call made, and can trying again help?"""
        exceptions = self._requests.exceptions
        where = f"{self._connection.host}:{self._connection.port or 8006}"
        if isinstance(error, exceptions.SSLError):
            remedy = "give the cluster's CA (/etc/pve/pve-root-ca.pem) as ca_path, and as api_host a name in the" \
                     " certificate"  # fmt: skip
            return Lost(f"the certificate of {where} is not trusted: {_innermost(error)}", False, True, remedy)
        if isinstance(error, getattr(exceptions, "JSONDecodeError", ())):
            return Lost(f"{where} does not answer as Proxmox VE does", maybe_done=True)
        if isinstance(error, exceptions.ConnectTimeout):
            return Lost(f"{where} did not accept a connection in time", maybe_done=False)
        if isinstance(error, exceptions.ReadTimeout):
            return Lost(f"{where} did not answer in time", maybe_done=True)
        if isinstance(error, (exceptions.ConnectionError, exceptions.ChunkedEncodingError)):
            sent = "NewConnectionError" not in repr(error) and "NameResolutionError" not in repr(error)
            return Lost(f"the connection to {where} failed: {_innermost(error)}", maybe_done=sent)
        return Lost(f"{where} cannot be asked: {_innermost(error)}", maybe_done=True, final=True)


def identity(connection: Connection) -> tuple[str, str | None]:
    """Return the user as tasks name it, and the token's name; ``api_token_id`` may be given with its user or without.

    Raises InvalidInput.
    """
    token = connection.token_id
    user = connection.user
    if token and "!" in token:
        user, _unused, token = token.partition("!")
    if "@" not in user:
        raise InvalidInput(CONNECT, f"api_user {user!r} has no realm", "write it as user@realm, such as root@pam")
    if token:
        if not connection.token_secret:
            raise InvalidInput(CONNECT, "api_token_id lacks api_token_secret", "give both")
        return f"{user}!{token}", token
    if not connection.password:
        raise InvalidInput(CONNECT, "there is neither a password nor a token", "set api_password or api_token_id")
    return user, None


def _words_of(error: Any) -> str:
    """Return a refusal in the server's words, with those about single parameters."""
    words = " ".join(str(error.content or error.status_message or "").split())
    errors = getattr(error, "errors", None)  # proxmoxer has it since 1.3
    if isinstance(errors, Mapping):
        each = [f"{name}: {' '.join(str(text).split())}" for name, text in errors.items() if name != "errors"]
        words = f"{words.rstrip('.')}: {'; '.join(each)}" if each else words
    return words or "no reason given"


def _innermost(error: BaseException) -> str:
    """Return the last reason in a chain of exceptions as requests and urllib3 nest them."""
    while True:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((each for each in error.args if isinstance(each, BaseException)), None)
        if inner is None:
            break
        error = inner
    text = " ".join(str(getattr(error, "strerror", None) or error.args[-1] if error.args else error).split())
    return re.sub(r"^\w+\(.*?\): ", "", text) or type(error).__name__


class PveshTransport:
    """The API through ``pvesh`` on a node, as root, without any credential.

    pvesh runs a task in the foreground (RESTEnvironment.pm, fork_worker): it prints the task's log, waits for its end,
    prints the UPID, and exits with 0 even where the task failed. A call for another node it hands on over ssh, and then
    takes the log lines before the UPID for broken JSON (pvesh.pm, proxy_handler): such a call is Lost, and the task is
    looked for. Being stopped, it ends the task in order.
    """

    user = "root@pam"
    foreground = True
    skew: float | None = 0.0

    def __init__(self, program: str = "pvesh") -> None:
        self._program = program
        if process.find_program(program) is None:
            raise PveError(
                "speak to Proxmox VE through pvesh",
                f"the program {program} is not there",
                "run the task on a node of the cluster, as root, or use transport: https",
            )

    def call(self, method: str, path: str, params: Mapping[str, Any], timeout: float) -> Any:
        """Run pvesh once. See Transport."""
        argv = [self._program, _VERBS[method], path, "--output-format", "json"]
        for name, value in params.items():
            argv += [f"--{name}", str(int(value) if isinstance(value, bool) else value)]
        attempt = f"call {method} {path} through pvesh"
        try:
            done = process.run(argv, timeout=timeout, attempt=attempt, ok=range(-64, 256))
        except ToolError as error:
            raise Lost(error.reason, maybe_done="could not be started" not in error.reason) from None
        if done.rc != 0:
            raise _pvesh_failure(method, done)
        if method == "GET":
            return _json(done.stdout)
        task = _UPID.findall(done.stdout)
        if task:
            return task[-1]
        return _json(done.stdout) if done.stdout.strip() else None


def _pvesh_failure(method: str, done: process.Completed) -> Exception:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    words = " ".join(lines) or f"pvesh ended with {done.rc}"
    broken = re.search(r"proxy handler failed|malformed JSON|JSON text|[Bb]roken pipe|Connection closed", words)
    if done.rc < 0 or broken or _UPID.search(done.stdout):
        return Lost(words, maybe_done=method != "GET" or done.rc < 0)
    found = re.match(r"(\d{3}) (.*)", words)
    if found:
        return Refused(int(found.group(1)), found.group(2))
    return Refused(403 if "Permission check failed" in words else 500, words)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise Lost("pvesh printed what is no JSON", maybe_done=True) from None


class PveClient:
    """Calls of the API, made through a transport.

    Args:
        transport: the way there.
        timeout: seconds to wait for the answer to one call.
        deadline: when all has to have ended.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        transport: Transport,
        timeout: float,
        deadline: Deadline,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.transport = transport
        self.deadline = deadline
        self._timeout = timeout
        self._sleep = sleep
        self._lock = threading.Lock()
        #: How many calls were made, repeated ones too.
        self.calls = 0

    def get(self, attempt: str, path: str, **params: Any) -> Any:
        """Read, and read again where that may help. Raises PveError."""
        return self._repeated(attempt, "GET", path, params, repeats=True)

    def send(self, attempt: str, method: str, path: str, **params: Any) -> Any:
        """Make a call that changes something, once. It is repeated only where it has certainly not been carried out.

        Raises PveError; its ``maybe_done`` says that nobody knows.
        """
        return self._repeated(attempt, method, path, params, repeats=False)

    def _repeated(self, attempt: str, method: str, path: str, params: Mapping[str, Any], repeats: bool) -> Any:
        pauses = iter(PAUSES)
        while True:
            left = self.deadline.left()
            with self._lock:
                self.calls += 1
            # A task that pvesh runs in the foreground has until the deadline.
            waits = left if self.transport.foreground and not repeats else min(self._timeout, left)
            try:
                return self.transport.call(method, path, params, max(1.0, waits))
            except Refused as error:
                failure = _refusal(attempt, error)
                again = repeats and _may_pass(error)
                failure.maybe_done = not repeats and _may_pass(error)
            except Lost as error:
                remedy = error.remedy or "check that the API can be reached, and try again"
                failure = PveError(attempt, error.words, remedy, words=error.words)
                failure.maybe_done = error.maybe_done and not repeats
                again = not error.final and (repeats or not error.maybe_done)
            pause = next(pauses, None)
            if pause is None or not again or pause >= self.deadline.left():
                raise failure
            self._sleep(pause)


def _may_pass(error: Refused) -> bool:
    """Say whether a refusal is one of a moment. Such a call may also have been carried out behind a proxy."""
    return error.status in TRANSIENT or (error.status == 500 and re.search(r"time(d )?-?out", error.words) is not None)


def _refusal(attempt: str, error: Refused) -> PveError:
    denied = re.search(r"\((?P<path>/\S*), (?P<privileges>[^)]+)\)", error.words)
    if error.status == 401:
        remedy = "check api_user with its realm, and api_password or the token"
    elif error.status == 403 and denied:
        privilege = denied.group("privileges").replace("|", " or ")
        remedy = f"give the user, and the token, {privilege} on {denied.group('path')}"
    elif error.status == 403:
        remedy = "give the user, and the token, the privilege it lacks"
    elif error.status in TRANSIENT:
        remedy = "check that the node is online, and try again"
    else:
        remedy = "correct what it complains about, and try again"
    return PveError(attempt, str(error), remedy, error.status, error.words)
