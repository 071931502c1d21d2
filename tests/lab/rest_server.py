# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A server of restic's REST protocol, version 1, in memory and with a password. For the tests of exports.

What it has to answer stands in restic's documentation, "REST Backend".
"""

from __future__ import annotations

import base64
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager

USER, PASSWORD = "nas", "open-sesame-4711"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    blobs: dict[str, bytes]

    def log_message(self, *_unused: object) -> None:
        """Say nothing."""

    def _answer(self, code: int, body: bytes = b"", length: int | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def _path(self) -> str | None:
        """Return what is asked for; None, and an answer, where the password is wrong."""
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != wanted:
            self._answer(401)
            return None
        return urllib.parse.urlsplit(self.path).path

    def do_HEAD(self) -> None:
        """Say how long a blob is."""
        path = self._path()
        if path is not None:
            found = self.blobs.get(path)
            self._answer(404 if found is None else 200, length=len(found or b""))

    def do_GET(self) -> None:
        """Give a blob, a part of one, or the names of those of one kind."""
        path = self._path()
        if path is None:
            return
        if path.endswith("/"):
            names = [each[len(path) :] for each in list(self.blobs) if each.startswith(path)]
            self._answer(200, json.dumps(names).encode())
        elif path not in self.blobs:
            self._answer(404)
        elif "Range" in self.headers:
            first, _dash, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            self._answer(206, self.blobs[path][int(first) : int(last) + 1 if last else None])
        else:
            self._answer(200, self.blobs[path])

    def do_POST(self) -> None:
        """Take a blob; POST of the root makes the repository, for which nothing is to be done."""
        body = self._body()
        path = self._path()
        if path is not None:
            if not path.endswith("/"):
                self.blobs[path] = body
            self._answer(200)

    def do_DELETE(self) -> None:
        """Forget a blob."""
        path = self._path()
        if path is not None:
            self._answer(404 if self.blobs.pop(path, None) is None else 200)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


@contextmanager
def serving() -> Iterator[str]:
    """Serve on a free port of this machine; give the repository, with its password in it."""
    handler = type("Handler", (_Handler,), {"blobs": {}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"rest:http://{USER}:{PASSWORD}@127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
