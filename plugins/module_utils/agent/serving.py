# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Serves the metrics over HTTP, for Prometheus to scrape. Called by `metrics`.

A scrape never waits for storage: the newest metrics lie in memory, and say how old they are. They are gathered by this
same program in a process of its own, again and again. If that hangs or fails, the old ones are not shown any more; that
it failed is.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Callable

from ..core.errors import InvalidInput, StoreError

HOST = "127.0.0.1"
#: Seconds for a client to say what it wants, and to take it.
_CLIENT_SECONDS = 10
#: Seconds for one gathering: more than its own deadlines let it take. Then it is killed.
_GATHER_SECONDS = 600.0
_LONGEST = 64 * 1024 * 1024
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def address(text: str) -> tuple[str, int]:
    """Return host and port of ``PORT``, ``HOST:PORT`` or ``[HOST]:PORT``. Raises InvalidInput."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not port.isdecimal() or not 0 <= int(port) <= 65535 or (colon and not host):
        raise InvalidInput(f"listen on {text}", "it is no address and port", "write 9642, or 127.0.0.1:9642")
    return host or HOST, int(port)


class Latest:
    """The newest metrics, and when they came. Several threads may ask.

    Args:
        stale: seconds after which they are too old to be shown.
        clock: monotonic seconds.
    """

    def __init__(self, stale: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stale = stale
        self._clock = clock
        self._lock = threading.Lock()
        self._begun = clock()
        self._text = b""
        self._came: float | None = None

    def set(self, text: bytes | None) -> None:
        """Take new metrics; None where gathering them has failed."""
        with self._lock:
            self._text = text or b""
            self._came = self._clock() if text else self._came

    def page(self) -> bytes:
        """Return what is to be served: the metrics unless they are too old, whether they are there, and their age."""
        with self._lock:
            age = self._clock() - (self._begun if self._came is None else self._came)
            text = self._text if age <= self._stale else b""
        return text + _about(bool(text), age).encode("ascii")


def _about(up: bool, age: float) -> str:
    name = "restorepoint_collection"
    return (
        f"# HELP {name}_up 1 if the metrics could be gathered, 0 if not.\n# TYPE {name}_up gauge\n{name}_up {int(up)}\n"
        f"# HELP {name}_age_seconds How long ago they last were, or this began.\n# TYPE {name}_age_seconds gauge\n"
        f"{name}_age_seconds {age:.3f}\n"
    )


def serve(where: tuple[str, int], argv: Sequence[str], interval: float, complain: Callable[[str], None]) -> int:
    """Serve until TERM or INT; return 0. ``argv`` is the command that prints the metrics. Raises StoreError."""
    latest = Latest(stale=3 * interval + _GATHER_SECONDS)
    handlers = {number: signal.signal(number, _ended) for number in (signal.SIGTERM, signal.SIGINT)}
    ending = threading.Event()
    gathering = Gathering(argv, latest, interval, ending, complain)
    try:
        with _server(where, latest) as server:
            host, port = server.socket.getsockname()[:2]
            complain(f"serving metrics on {host}:{port}")
            gathering.start()
            server.serve_forever()
    except _Ended:
        return 0
    finally:
        ending.set()
        gathering.stop()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 0


class _Ended(BaseException):
    """The process was asked to end."""


def _ended(number: int, frame: object) -> None:
    raise _Ended


@contextlib.contextmanager
def _server(where: tuple[str, int], latest: Latest) -> Iterator[http.server.ThreadingHTTPServer]:
    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET

    class Handler(_Handler):
        pages = latest

    try:
        server = Server(where, Handler)
    except OSError as error:
        remedy = "give another address with --listen, or end what uses this one"
        raise StoreError(f"listen on {where[0]}:{where[1]}", str(error.strerror or error), remedy) from error
    with server:
        yield server


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers ``/metrics`` with the newest page, and ``/healthy`` while it answers at all."""

    pages: Latest
    timeout = _CLIENT_SECONDS
    server_version = "restorepoint"

    def do_GET(self) -> None:
        """Answer a GET."""
        path = self.path.partition("?")[0]
        if path not in ("/metrics", "/healthy"):
            self.send_error(404, "Only /metrics and /healthy are here")
            return
        page = self.pages.page() if path == "/metrics" else b"healthy\n"
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page)

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the parent's name for it
        """Log no scrapes."""


class Gathering(threading.Thread):
    """Gathers metrics again and again, each time in a process of its own, until it is to end."""

    def __init__(
        self,
        argv: Sequence[str],
        latest: Latest,
        interval: float,
        ending: threading.Event,
        complain: Callable[[str], None],
        seconds: float = _GATHER_SECONDS,
    ) -> None:
        super().__init__(name="gathering", daemon=True)
        self._argv = itself(argv)
        self._latest = latest
        self._interval = interval
        self._ending = ending
        self._complain = complain
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Gather, and wait, until the end."""
        while not self._ending.is_set():
            try:
                self._latest.set(self._gathered())
            except (OSError, subprocess.SubprocessError) as error:
                self._complain(f"the metrics could not be gathered: {error}")
                self._latest.set(None)
            self._ending.wait(self._interval)

    def _gathered(self) -> bytes:
        """Return what the command prints. Its exit code is 1 where it tells of something that is down."""
        self._process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
        with self._process:
            try:
                text, _unused = self._process.communicate(timeout=self._seconds)
            except subprocess.TimeoutExpired:
                self.stop()
                raise
        if not text.endswith(b"\n") or len(text) > _LONGEST:
            raise subprocess.SubprocessError(f"it ended with {self._process.returncode} and printed {len(text)} bytes")
        return text

    def stop(self) -> None:
        """Kill what gathers, and all it has started."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


def itself(argv: Sequence[str]) -> list[str]:
    """Return the command that runs this program with other arguments, from the same file or folder."""
    package = __package__ or ""
    code = f"import sys; sys.path[:] = sys.argv.pop(1).split({os.pathsep!r}); " + \
        f"from {package}.cli import main; sys.exit(main())"  # fmt: skip
    path = os.pathsep.join(os.path.abspath(each) if each else os.getcwd() for each in sys.path)
    return [sys.executable, "-c", code, path, *argv]
