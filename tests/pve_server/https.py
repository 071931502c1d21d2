# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The HTTPS side of the test server: connections as pveproxy keeps them, logins, faults, and the form of answers.

A connection serves 100 requests, waits 5 s for the next one, and is closed after any status of 400 or more. The words
of a refusal stand in the status line. Requests are read by hand: http.server alone would cost more than all the rest.
Standard library only; called by server.py.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import re
import socket
import socketserver
import ssl
import struct
import sys
import threading
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, cast

from .calls import ApiError, Call, RawJson, Router
from .certificate import Certificate
from .cluster import Cluster
from .faults import Action, Faults
from .tasks import StepFault

PREFIX = "/api2/json"
_MAX_BODY = 1 << 20
_COOKIE = re.compile(r"(?:^|;\s*)PVEAuthCookie=([^;]+)")
_RESET = struct.pack("ii", 1, 0)


@dataclass
class Request:
    """A call as the log keeps it. ``status`` is 0 where no answer was sent."""

    number: int
    method: str
    path: str
    params: dict[str, Any]
    connection: int
    user: str = ""
    status: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        """Return it as faults name it."""
        return f"{self.method} {self.path}"


@dataclass
class Site:
    """What all connections share."""

    cluster: Cluster
    router: Router
    faults: Faults
    lock: threading.RLock
    calls: list[Request] = field(default_factory=list)
    connections: int = 0


@dataclass
class Answer:
    """What is sent back."""

    status: int
    message: str = ""
    body: str = ""


def refusal(error: ApiError) -> Answer:
    """Return the answer to a call that is refused."""
    shown: dict[str, Any] = {"data": None, "message": f"{error.message}\n"}
    if error.errors:
        shown["errors"] = error.errors
    return Answer(error.status, error.message, json.dumps(shown))


class Server(socketserver.ThreadingTCPServer):
    """Listens, and gives each connection a thread, in which the TLS handshake happens too."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256
    block_on_close = False

    def __init__(self, address: tuple[str, int], site: Site, files: Certificate) -> None:
        self.site = site
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(files.certificate, files.key)
        self.open: set[socket.socket] = set()
        super().__init__(address, Connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that clients broke off; anything else is a fault of ours, and shown."""
        if not isinstance(sys.exc_info()[1], (OSError, ssl.SSLError)):
            super().handle_error(request, client_address)


class Connection(socketserver.BaseRequestHandler):
    """One connection."""

    def handle(self) -> None:
        """Serve requests until the connection's end."""
        server = cast(Server, self.server)
        self.site = server.site
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request.settimeout(30)
        with server.tls.wrap_socket(self.request, server_side=True) as self.socket:
            server.open.add(self.socket)
            try:
                self._serve()
            finally:
                server.open.discard(self.socket)

    def _serve(self) -> None:
        settings = self.site.cluster.settings
        with self.site.lock:
            self.site.connections += 1
            self.number = self.site.connections
        self.reader = self.socket.makefile("rb")
        for left in range(settings.keepalive_requests - 1, -1, -1):
            self.socket.settimeout(settings.idle_seconds)
            with contextlib.suppress(socket.timeout):
                line = self.reader.readline(65537)
                self.socket.settimeout(30)
                if not line or not self._one(line, left == 0):
                    return
                continue
            return

    def _one(self, line: bytes, last: bool) -> bool:
        """Serve one request; return whether the connection stays."""
        begun = time.perf_counter()
        method, target, _protocol = line.decode("latin-1").split(None, 2)
        headers = self._headers()
        body = self.reader.read(min(int(headers.get("content-length", 0)), _MAX_BODY))
        path, _mark, query = target.partition("?")
        path = urllib.parse.unquote(path) if "%" in path else path
        params = _params(query, headers, body)
        request = self._log(method, path[len(PREFIX) :] if path.startswith(PREFIX) else path, params)
        actions = self.site.faults.meet(method, request.path)
        delay = self.site.cluster.settings.call_seconds + sum(action.delay for action in actions)
        if delay:
            time.sleep(delay)
        if any(action.drop_before for action in actions):
            return self._reset()
        answer = self._answer(request, headers, actions)
        how = next((action.answer for action in actions if action.answer), "")
        request.status, request.seconds = 0 if how == "drop" else answer.status, time.perf_counter() - begun
        if how == "drop":
            return self._reset()
        if how == "garbage":
            answer = Answer(200, "OK", "<html><body>It works!</body></html>")
        keep = not last and answer.status < 400 and headers.get("connection", "").lower() != "close"
        sent = _render(answer, keep, self.site.cluster.tasks.clock())
        if how == "cut":
            self.socket.sendall(sent[: len(sent) - 1 - len(answer.body.encode()) // 2])
            return self._reset()
        self.socket.sendall(sent)
        return keep

    def _headers(self) -> dict[str, str]:
        found: dict[str, str] = {}
        while True:
            line = self.reader.readline(65537)
            if line in (b"\r\n", b"\n", b""):
                return found
            name, _mark, value = line.decode("latin-1").partition(":")
            found[name.strip().lower()] = value.strip()

    def _log(self, method: str, path: str, params: dict[str, Any]) -> Request:
        with self.site.lock:
            request = Request(len(self.site.calls) + 1, method, path, params, self.number)
            self.site.calls.append(request)
        return request

    def _answer(self, request: Request, headers: Mapping[str, str], actions: list[Action]) -> Answer:
        forced = next((action for action in actions if action.status), None)
        if forced:
            return Answer(forced.status, forced.message, "")
        site = self.site
        with site.lock:
            site.cluster.tasks.advance()
            for action in actions:
                if action.change:
                    action.change(site.cluster)
            try:
                request.user = _user(site, request, headers)
            except ApiError as error:
                return Answer(error.status, error.message)
            call = Call(request.method, request.path, request.params, request.user, _task_faults(actions))
            try:
                data = site.router.handle(site.cluster, call)
            except ApiError as error:
                return refusal(error)
            if isinstance(data, RawJson):
                return Answer(200, "OK", f'{{"data":{data}}}')
        return Answer(200, "OK", json.dumps({"data": data}, separators=(",", ":")))

    def _reset(self) -> bool:
        """Break the connection off without TLS's good-bye."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        return False


def _task_faults(actions: list[Action]) -> list[StepFault]:
    return [action.task for action in actions if action.task]


def _params(query: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = dict(urllib.parse.parse_qsl(query, keep_blank_values=True)) if query else {}
    if body and headers.get("content-type", "").startswith("application/json"):
        found.update(json.loads(body))
    elif body:
        found.update(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True))
    return found


def _user(site: Site, request: Request, headers: Mapping[str, str]) -> str:
    """Return who calls; 401, in pveproxy's words, where nobody may."""
    if request.path == "/access/ticket":
        return ""
    access = site.cluster.access
    word, _mark, rest = headers.get("authorization", "").partition("=")
    if word == "PVEAPIToken":
        found = access.token(rest)
        if found is None:
            raise ApiError(401, "Authentication failed!")
        return found
    cookie = _COOKIE.search(headers.get("cookie", ""))
    if not cookie:
        raise ApiError(401, "No ticket")
    ticket = access.ticket(urllib.parse.unquote(cookie[1]))
    if ticket is None:
        raise ApiError(401, "permission denied - invalid PVE ticket")
    if request.method != "GET" and headers.get("csrfpreventiontoken") != ticket.csrf:
        raise ApiError(401, "Permission denied - invalid csrf token")
    return ticket.user


def _render(answer: Answer, keep: bool, now: float) -> bytes:
    words = answer.message.replace("\n", " ") or HTTPStatus(answer.status).phrase
    body = answer.body.encode()
    date = email.utils.formatdate(now, usegmt=True)
    head = (
        f"HTTP/1.1 {answer.status} {words}\r\n"
        f"Connection: {'Keep-Alive' if keep else 'close'}\r\n"
        f"Content-Type: application/json;charset=UTF-8\r\nContent-Length: {len(body)}\r\n"
        f"Date: {date}\r\nExpires: {date}\r\n"
        "Cache-Control: max-age=0\r\nPragma: no-cache\r\nServer: pve-api-daemon/3.0\r\n\r\n"
    )
    return head.encode() + body
