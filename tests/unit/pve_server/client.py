# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small client for the tests of the test server: it shows every answer exactly as it came over the wire."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.parse
from typing import Any, Protocol

from ansible_collections.restorepoint.core.tests.pve_server import PveServer

ONE = "/nodes/pve1/qemu/{}"
BOX = "/nodes/pve1/lxc/{}"


class Server(Protocol):
    """Where to call."""

    host: str
    port: int
    ca_path: str


class Refused(Exception):
    """An answer of 400 or more."""

    def __init__(self, status: int, reason: str, errors: dict[str, str] | None) -> None:
        super().__init__(f"{status} {reason} {errors or ''}")
        self.status, self.reason, self.errors = status, reason, errors


class Client:
    """Logs in with a password, or uses a token; ``run`` waits for a task and returns its exit status."""

    def __init__(self, server: Server, user: str = "root@pam", token: str = "", timeout: float = 120.0) -> None:
        self.server = server
        context = ssl.create_default_context(cafile=server.ca_path)
        self.connection = http.client.HTTPSConnection(server.host, server.port, context=context, timeout=timeout)
        self.headers: dict[str, str] = {}
        self.closed = ""
        if token:
            self.headers = {"Authorization": f"PVEAPIToken={token}"}
        else:
            self.login(user, "secret")

    def login(self, user: str, password: str) -> None:
        """Log in."""
        found = self.call("POST", "/access/ticket", username=user, password=password)
        cookie = f"PVEAuthCookie={urllib.parse.quote(found['ticket'])}"
        self.headers = {"Cookie": cookie, "CSRFPreventionToken": found["CSRFPreventionToken"]}

    def call(self, method: str, path: str, **params: Any) -> Any:
        """Call the API and return ``data``; Refused where it refuses."""
        target, body, headers = f"/api2/json{path}", None, dict(self.headers)
        if params and method in ("POST", "PUT"):
            body = urllib.parse.urlencode(params)
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        elif params:
            target += f"?{urllib.parse.urlencode(params)}"
        self.connection.request(method, target, body, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        self.closed = answer.getheader("Connection", "")
        if answer.status >= 400:
            errors = json.loads(text).get("errors") if text else None
            raise Refused(answer.status, answer.reason, errors)
        return json.loads(text)["data"]

    def get(self, path: str, **params: Any) -> Any:
        """GET."""
        return self.call("GET", path, **params)

    def post(self, path: str, **params: Any) -> Any:
        """POST."""
        return self.call("POST", path, **params)

    def put(self, path: str, **params: Any) -> Any:
        """PUT."""
        return self.call("PUT", path, **params)

    def delete(self, path: str, **params: Any) -> Any:
        """DELETE."""
        return self.call("DELETE", path, **params)

    def run(self, method: str, path: str, **params: Any) -> str:
        """Call a method that starts a task; return the task's exit status."""
        return self.end(self.call(method, path, **params))

    def end(self, upid: str) -> str:
        """Wait for everything, and return a task's exit status."""
        if isinstance(self.server, PveServer):
            self.server.wait_idle()
        found = self.get(f"/nodes/{upid.split(':')[1]}/tasks/{upid}/status")
        assert found["status"] == "stopped"
        return str(found["exitstatus"])

    def log(self, upid: str) -> list[str]:
        """Return a task's log."""
        return [line["t"] for line in self.get(f"/nodes/{upid.split(':')[1]}/tasks/{upid}/log", limit=500)]

    def create(self, name: str, path: str = ONE.format(100), **params: Any) -> str:
        """Take a snapshot; return the exit status."""
        return self.run("POST", f"{path}/snapshot", snapname=name, **params)

    def remove(self, name: str, path: str = ONE.format(100), **params: Any) -> str:
        """Remove a snapshot; return the exit status."""
        return self.run("DELETE", f"{path}/snapshot/{name}", **params)

    def rollback(self, name: str, path: str = ONE.format(100), **params: Any) -> str:
        """Roll back; return the exit status."""
        return self.run("POST", f"{path}/snapshot/{name}/rollback", **params)

    def listed(self, path: str = ONE.format(100)) -> dict[str, dict[str, Any]]:
        """Return the snapshots, by name, with 'current'."""
        return {each["name"]: each for each in self.get(f"{path}/snapshot")}
