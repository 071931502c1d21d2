# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small client of a Kubernetes API server: paths in, JSON out. Standard library only.

It is not the collection's own door (plugins/module_utils/kube.py), so that what tests see does not come from what they
test. Called by tools/cluster.py and tests/cluster.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

JSON = "application/json"
MERGE = "application/merge-patch+json"
YAML = "application/yaml"
CORE = "/api/v1"
STORAGE = "/apis/storage.k8s.io/v1"
SNAPSHOTS = "/apis/snapshot.storage.k8s.io/v1"
GROUPS = "/apis/groupsnapshot.storage.k8s.io/v1"


class ApiError(RuntimeError):
    """The API server refused: ``status`` is the HTTP status, ``message`` its own words."""

    def __init__(self, status: int, message: str, attempt: str) -> None:
        super().__init__(f"{attempt}: {status} {message}")
        self.status, self.message = status, message


class Api:
    """One user of one API server. Several threads may use it: each has its own connection."""

    def __init__(
        self, server: str, ca: str | None, token: str | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        address = urlsplit(server)
        self.server, self.host, self.port = server, str(address.hostname), address.port or 443
        self.token = token
        self._tls = tls or ssl.create_default_context(cafile=ca)
        self._local = threading.local()

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Return an object, or a list."""
        return self.ask("GET", path, query=query)

    def find(self, path: str) -> dict[str, Any] | None:
        """Return an object, or None where it is not there."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """Return the objects of a list."""
        return list(self.get(path, **query).get("items") or [])

    def create(self, path: str, made: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object in the collection that the path names."""
        return self.ask("POST", path, made)

    def patch(self, path: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """Change an object by a merge patch."""
        return self.ask("PATCH", path, change, kind=MERGE)

    def replace(self, path: str, whole: Mapping[str, Any]) -> dict[str, Any]:
        """Put an object in the place of the one that is there."""
        return self.ask("PUT", path, whole)

    def delete(self, path: str, **options: Any) -> dict[str, Any]:
        """Delete an object; one that is not there is no trouble. ``options`` are those of DeleteOptions."""
        try:
            return self.ask("DELETE", path, options or None)
        except ApiError as error:
            if error.status == 404:
                return {}
            raise

    def wait(self, path: str, holds: Callable[[dict[str, Any] | None], Any], seconds: float = 180) -> dict[str, Any]:
        """Wait until something holds of an object (None: not there), and return it; TimeoutError shows the last one."""
        deadline, found = time.monotonic() + seconds, None
        while time.monotonic() < deadline:
            found = self.find(path)
            if holds(found):
                return found or {}
            time.sleep(0.1)
        raise TimeoutError(f"{path} did not become what was waited for within {seconds:g} s: {json.dumps(found)}")

    def gone(self, path: str, seconds: float = 300) -> None:
        """Wait until an object is not there."""
        self.wait(path, lambda found: found is None, seconds)

    def ask(
        self, verb: str, path: str, body: Any = None, kind: str = JSON, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Ask once, and return the answer; ApiError where the server refuses, OSError where it is not there."""
        status, _headers, answer = self.raw(verb, path, body, kind, query)
        parsed = json.loads(answer) if answer[:1] == b"{" else {"message": answer.decode(errors="replace")}
        if status >= 400:
            raise ApiError(status, str(parsed.get("message")), f"{verb} {path}")
        return dict(parsed)

    def raw(
        self, verb: str, path: str, body: Any = None, kind: str = JSON, query: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Ask once, and return status, headers and body, whatever they are."""
        for fresh in (False, True):
            connection = self._connection()
            reused = connection.sock is not None and not fresh
            try:
                connection.request(verb, _target(path, query), _encoded(body), self._headers(kind))
                answer = connection.getresponse()
                return answer.status, dict(answer.headers), answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if reused and isinstance(error, (BrokenPipeError, ConnectionResetError)):
                    continue  # it had been closed at the other end since the last request
                raise error if isinstance(error, OSError) else ConnectionError(str(error)) from error
        raise AssertionError("the second round returns or raises")

    def watch(self, path: str, version: str = "", seconds: int = 600, **query: str) -> Iterator[dict[str, Any]]:
        """Yield the events of a collection from a resourceVersion on, until the server ends it."""
        connection = self._new(seconds + 30)
        words = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(seconds), **query}
        try:
            connection.request("GET", _target(path, words), None, self._headers(JSON))
            answer = connection.getresponse()
            if answer.status >= 400:
                raise ApiError(answer.status, answer.read().decode(errors="replace"), f"watch {path}")
            while line := answer.readline():
                yield json.loads(line)
        finally:
            connection.close()

    def _headers(self, kind: str) -> dict[str, str]:
        login = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return {"Content-Type": kind, "Accept": JSON, "User-Agent": "cluster-lab", **login}

    def _new(self, timeout: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=self._tls)

    def _connection(self) -> http.client.HTTPSConnection:
        connection: http.client.HTTPSConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._new(60)
        return connection


def _target(path: str, query: Mapping[str, str] | None) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _encoded(body: Any) -> bytes | None:
    if body is None or isinstance(body, bytes):
        return body
    return json.dumps(body).encode()
