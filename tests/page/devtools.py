# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Headless Chromium, driven over two pipes by its DevTools protocol. Standard library.

Pages come from files. The browser may reach no network, and a page that tries to is a page that complains.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tools"))

from chromium import Browser

#: Far longer than anything here takes on any machine.
LONG = 240.0
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic",
    "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars", "--remote-debugging-pipe",
    "--force-color-profile=srgb",
)  # fmt: skip


class Devtools:
    """One browser with one page. ``complaints`` is what the page has said: messages, errors, what was refused."""

    def __init__(self, writing: int, reading: int) -> None:
        self._writing, self._reading = writing, reading
        self._said = bytearray()
        self._number = 0
        self._events: list[dict[str, Any]] = []
        self._session = ""
        self.complaints: list[str] = []

    def open_page(self) -> None:
        """Make a page, and listen to it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return what a method gives. Raises AssertionError with its words where it fails."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._writing, data) :]
        while True:
            found = self._next()
            if found.get("id") == self._number:
                assert "error" not in found, f"{method}: {found['error']}"
                result: dict[str, Any] = found["result"]
                return result
            self._note(found)

    def wait_for(self, event: str, **params: Any) -> dict[str, Any]:
        """Return the first event of that name, and with these parameters, that has not been waited for yet."""
        while True:
            for number, each in enumerate(self._events):
                if each["method"] == event and params.items() <= each["params"].items():
                    return self._events.pop(number)
            self._note(self._next())

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + LONG
        while b"\0" not in self._said:
            ready, _out, _bad = select.select([self._reading], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "Chromium says nothing any more"
            chunk = os.read(self._reading, 1 << 20)
            assert chunk, "Chromium has ended"
            self._said += chunk
        line, _end, rest = bytes(self._said).partition(b"\0")
        self._said = bytearray(rest)
        found: dict[str, Any] = json.loads(line)
        return found

    def _note(self, found: dict[str, Any]) -> None:
        method, params = found.get("method"), found.get("params", {})
        self._events.append(found)
        if method == "Runtime.consoleAPICalled":
            self.complaints.append(f"console.{params['type']}: {params['args']}")
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(f"exception: {params['exceptionDetails']}")
        elif method == "Log.entryAdded":
            self.complaints.append(f"log: {params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent" and params["request"]["url"].split(":")[0] not in ("file", "data"):
            self.complaints.append(f"asked for {params['request']['url']}")
        elif method == "Network.loadingFailed":
            self.complaints.append(f"refused: {params.get('blockedReason') or params['errorText']}")

    # -- what tests do with a page -------------------------------------------------------------------------------------

    def show(self, page: pathlib.Path, width: int, height: int, scheme: str, scale: float = 1.0) -> None:
        """Open a page as a screen of that size and a person of that taste (light, dark) see it."""
        self.complaints.clear()
        self._events.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale,
                  mobile=width < 600)  # fmt: skip
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        loading = self.call("Page.navigate", url=page.as_uri())["loaderId"]
        # That of the page before, even of the empty one, may come late.
        self.wait_for("Page.lifecycleEvent", loaderId=loading, name="load")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def screenshot(self, whole: bool = False) -> bytes:
        """Return a picture (PNG) of what is to be seen, or of the whole page."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"])


@contextlib.contextmanager
def running(browser: Browser, folder: pathlib.Path) -> Iterator[Devtools]:
    """Start a browser whose profile lies in a folder; end it, and all that it has started, afterwards."""
    to_browser, ours_out = os.pipe()
    ours_in, from_browser = os.pipe()
    # The browser reads from 3 and writes to 4: a small program of our own puts the pipes there.
    code = "import os,sys; a,b=int(sys.argv[1]),int(sys.argv[2]); c=os.dup(b) if b==3 else b; os.dup2(a,3); " \
           "os.dup2(c,4); os.execv(sys.argv[3], sys.argv[3:])"  # fmt: skip
    command = [sys.executable, "-c", code, str(to_browser), str(from_browser), str(browser.program), *_FLAGS]
    environ = {**os.environ, **browser.environ, "HOME": str(folder), "TZ": "UTC"}
    with open(folder / "chromium.log", "wb") as log:
        process = subprocess.Popen(
            [*command, f"--user-data-dir={folder / 'profile'}"], pass_fds=(to_browser, from_browser), env=environ,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    os.close(to_browser)
    os.close(from_browser)
    try:
        found = Devtools(ours_out, ours_in)
        found.open_page()
        yield found
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(LONG)
        os.close(ours_out)
        os.close(ours_in)
