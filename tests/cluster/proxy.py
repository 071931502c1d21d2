# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A proxy in front of an API server, which passes requests on, counts them, and does wrong what it is told.

It speaks HTTPS at both ends, a thread for each connection. Standard library only. Used through the fixture ``proxy``.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import pathlib
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

#: Headers of one connection, which are not passed on.
_OWN = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date", "server"}


@dataclass(frozen=True)
class Seen:
    """A request: ``verb`` is that of HTTP, or WATCH for a watch. ``status`` 0: the proxy cut it off."""

    verb: str
    path: str
    query: dict[str, list[str]]
    body: bytes
    status: int
    agent: str


@dataclass
class Fault:
    """What is done to requests of a verb (WATCH for a watch) whose path contains a match of a pattern.

    ``action``:
    ``answer`` with ``status``, ``retry_after`` (seconds) and ``message``, without passing it on;
    ``cut_before`` closes the connection without passing it on; ``cut_after`` once the server has answered;
    ``delay`` passes it on after ``seconds``; ``close`` ends a watch after ``seconds``, or after ``events`` of them;
    ``call`` calls ``function`` (before the request goes on, or, with ``after``, when its answer is there).
    """

    action: str
    verb: str = ""
    path: str = ""
    times: int = 1
    skip: int = 0
    status: int = 500
    retry_after: float | None = None
    message: str = "the proxy says no"
    seconds: float = 0.0
    events: int | None = None
    after: bool = False
    function: Callable[[], Any] | None = None
    done: int = field(default=0, init=False)

    def takes(self, verb: str, path: str) -> bool:
        """Say whether it befalls this request, and count it."""
        if (self.verb and self.verb != verb) or not re.search(self.path, path) or self.done >= self.times:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.done += 1
        return True


class Proxy:
    """The proxy; ``address`` is its URL. A context manager."""

    #: For `Fault.times`: as often as it comes.
    EVER = 1 << 30

    def __init__(self, server: str, ca: pathlib.Path, certificate: pathlib.Path, key: pathlib.Path) -> None:
        self.upstream = urlsplit(server)
        self.trust = ssl.create_default_context(cafile=str(ca))
        self.seen: list[Seen] = []
        self._faults: list[Fault] = []
        self._watches: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._passing = 0
        self._idle = threading.Condition(self._lock)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
        self._listener = _Listener(self, tls)
        self.address = f"https://127.0.0.1:{self._listener.server_address[1]}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._listener.shutdown()
        self._listener.server_close()
        self.close_watches()

    def tell(self, action: str, **told: Any) -> Fault:
        """Tell it to do something wrong from now on; see Fault. Its ``done`` counts how often that has happened."""
        fault = Fault(action, **told)
        with self._lock:
            self._faults.append(fault)
        return fault

    def heal(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._faults.clear()

    def forget(self) -> None:
        """Begin to count from nothing."""
        with self._lock:
            self.seen.clear()

    def count(self, verb: str = "", path: str = "") -> int:
        """Return how many requests of that verb there were, whose path has a match of the pattern."""
        return len(self.requests(verb, path))

    def requests(self, verb: str = "", path: str = "") -> list[Seen]:
        """Return those requests, in the order in which they were answered."""
        with self._lock:
            return [each for each in self.seen if verb in ("", each.verb) and re.search(path, each.path)]

    def close_watches(self) -> int:
        """End all watches that are open now; return how many there were."""
        with self._lock:
            open_now = list(self._watches)
        for each in open_now:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        return len(open_now)

    def settle(self, seconds: float = 120.0) -> None:
        """Wait until no request is on its way; watches are not waited for.

        What a client that was killed has sent goes on to the server, and may get there long after it.
        """
        with self._idle:
            assert self._idle.wait_for(lambda: not self._passing, seconds), "a request is still on its way"

    # For the handlers

    @contextlib.contextmanager
    def passing(self) -> Iterator[None]:
        with self._idle:
            self._passing += 1
        try:
            yield
        finally:
            with self._idle:
                self._passing -= 1
                self._idle.notify_all()

    def fault_for(self, verb: str, path: str) -> list[Fault]:
        with self._lock:
            return [each for each in self._faults if each.takes(verb, path)]

    def note(self, seen: Seen) -> None:
        with self._lock:
            self.seen.append(seen)

    @contextlib.contextmanager
    def watching(self, upstream: socket.socket) -> Iterator[None]:
        with self._lock:
            self._watches.add(upstream)
        try:
            yield
        finally:
            with self._lock:
                self._watches.discard(upstream)


class _Listener(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, proxy: Proxy, tls: ssl.SSLContext) -> None:
        self.proxy, self.tls = proxy, tls
        super().__init__(("127.0.0.1", 0), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Greet in the connection's own thread: a client that is slow to greet holds up no other one."""
        request.settimeout(60)
        with contextlib.suppress(OSError):
            secured = self.tls.wrap_socket(request, server_side=True)
            with secured:
                _Handler(secured, client_address, self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no error of the proxy's."""


class _Cut(Exception):
    """The connection to the client is to be closed at once."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: _Listener

    def setup(self) -> None:
        super().setup()
        upstream = self.server.proxy.upstream
        assert upstream.hostname
        self.out = http.client.HTTPSConnection(
            upstream.hostname, upstream.port, timeout=700, context=self.server.proxy.trust
        )

    def finish(self) -> None:
        self.out.close()
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_words: Any) -> None:
        """What it sees is in `Proxy.seen`."""

    def _serve(self) -> None:
        proxy, address = self.server.proxy, urlsplit(self.path)
        query = parse_qs(address.query)
        watch = query.get("watch", ["false"])[0].lower() in ("true", "1")
        verb = "WATCH" if watch else str(self.command)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        agent = str(self.headers.get("User-Agent"))
        self._note = lambda status: proxy.note(Seen(verb, address.path, query, body, status, agent))
        try:
            with contextlib.nullcontext() if watch else proxy.passing():
                self._pass_on(verb, address.path, body, watch)
        except _Cut:
            self._note(0)
            self._reset()
        except (OSError, http.client.HTTPException):
            self._reset()

    def _pass_on(self, verb: str, path: str, body: bytes, watch: bool) -> None:
        """Pass a request on, with what it is told to do wrong. It is noted before the client has the answer."""
        faults = self.server.proxy.fault_for(verb, path)
        for fault in faults:
            if fault.action == "answer":
                self._refuse(fault)
                return
            if fault.action == "cut_before":
                raise _Cut
            if fault.action == "delay":
                time.sleep(fault.seconds)
            if fault.action == "call" and not fault.after and fault.function:
                fault.function()
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OWN}
        with self._sent(body, headers) as answer:
            self._answer(answer, faults, watch)

    def _sent(self, body: bytes, headers: dict[str, str]) -> http.client.HTTPResponse:
        """Send it, and return the answer; what the server closed since the last request is opened anew."""
        reused = self.out.sock is not None
        try:
            self.out.request(str(self.command), self.path, body or None, headers)
            return self.out.getresponse()
        except (BrokenPipeError, ConnectionResetError):
            self.out.close()
            if not reused:
                raise
        self.out.request(str(self.command), self.path, body or None, headers)
        return self.out.getresponse()

    def _answer(self, answer: http.client.HTTPResponse, faults: list[Fault], watch: bool) -> None:
        streamed = watch and answer.status == 200
        content = b"" if streamed else answer.read()
        for fault in faults:
            if fault.action == "call" and fault.after and fault.function:
                fault.function()
            if fault.action == "cut_after":
                raise _Cut
        self._note(answer.status)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in _OWN:
                self.send_header(name, value)
        if streamed:
            self._stream(answer, next((each for each in faults if each.action == "close"), None))
        else:
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            self.wfile.flush()

    def _stream(self, answer: http.client.HTTPResponse, fault: Fault | None) -> None:
        """Pass the events of a watch on as they come, until one end closes it or the fault does."""
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        timer = None
        assert self.out.sock is not None
        with self.server.proxy.watching(self.out.sock):
            if fault and fault.events is None:
                timer = threading.Timer(fault.seconds, self._close_upstream)
                timer.start()
            try:
                told = 0
                while (not fault or fault.events is None or told < fault.events) and (line := answer.readline()):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                    self.wfile.flush()
                    told += 1
            except (OSError, http.client.HTTPException):
                pass  # closed at the server's end, or by a fault
            finally:
                if timer:
                    timer.cancel()
                self.out.close()
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _close_upstream(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self.out.sock.shutdown(socket.SHUT_RDWR)

    def _refuse(self, fault: Fault) -> None:
        self._note(fault.status)
        reason = {429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}.get(fault.status, "Unknown")
        told = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": fault.status}
        content = json.dumps({**told, "message": fault.message}).encode()
        self.send_response(fault.status)
        if fault.retry_after is not None:
            self.send_header("Retry-After", f"{fault.retry_after:g}")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _reset(self) -> None:
        """Close the client's connection as a host that dies does: without a word."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve
