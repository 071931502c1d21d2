# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The programs of the test server, behind a socket in the file system: pvesh, qm, pct and pve-test-server.

Each is a script that runs pvesh.py, which hands its arguments over; they are carried out here. Called by server.py.
Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import socketserver
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any, cast

from .control import control
from .https import Site
from .shell import Shell

_PROGRAM = pathlib.Path(__file__).with_name("pvesh.py")
_NAMES = ("pvesh", "qm", "pct", "pve-test-server")


class ProgramServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Listens on a socket in the file system for the programs."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, site: Site) -> None:
        self.site = site
        self.folder = tempfile.TemporaryDirectory(prefix="restorepoint-pve-")
        self.path = os.path.join(self.folder.name, "socket")
        super().__init__(self.path, _Program)

    def programs(self, node: str) -> pathlib.Path:
        """Return a folder with the programs of a node: pvesh, qm, pct and pve-test-server."""
        folder = pathlib.Path(self.folder.name, "bin", node)
        if not folder.is_dir():
            folder.mkdir(parents=True)
            for name in _NAMES:
                told = {"SOCKET": self.path, "NODE": node, "PROGRAM": name}
                lines = f"import runpy\nrunpy.run_path({str(_PROGRAM)!r}, {told!r}, '__main__')\n"
                (folder / name).write_text(f"#!{sys.executable} -IS\n{lines}", encoding="utf-8")
                (folder / name).chmod(0o755)
        return folder

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of programs that were killed."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Program(socketserver.StreamRequestHandler):
    """One run of a program: a line of JSON asks for it, lines of JSON answer, the last one with the exit code."""

    def handle(self) -> None:
        """Run the program."""
        asked = json.loads(self.rfile.readline())
        site = cast(ProgramServer, self.server).site
        self.gone = False
        self.shell = Shell(site, asked["node"], self._emit, self._watch)
        if asked["program"] == "pve-test-server":
            code = control(site, asked["argv"], self._emit)
        else:
            code = self.shell.run(asked["program"], asked["argv"])
        self._emit("code", str(code))

    def _emit(self, kind: str, text: str) -> None:
        if not self.gone:
            try:
                self.wfile.write(json.dumps({kind: text}).encode() + b"\n")
            except OSError:
                self._lost()

    def _lost(self) -> None:
        self.gone = True
        self.shell.abandon()

    def _watch(self) -> None:
        if self.gone:
            return
        with _without_waiting(self.request):
            try:
                heard = self.request.recv(4096)
            except BlockingIOError:
                return
            except OSError:
                heard = b""
        if heard:
            self.shell.interrupt()
        else:
            self._lost()


@contextlib.contextmanager
def _without_waiting(connection: socket.socket) -> Iterator[None]:
    connection.setblocking(False)
    try:
        yield
    finally:
        connection.setblocking(True)


def serve(site: Site) -> ProgramServer:
    """Start to listen, and return the server, which its ``shutdown`` ends."""
    server = ProgramServer(site)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server
