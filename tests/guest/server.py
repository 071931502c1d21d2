# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs in the guest: modules and programs, as one process that has everything imported already.

It reads a JSON object a line from stdin and answers with one a line on stdout. A module runs in a forked child, as it
would run in a process of its own: what it changes in itself is gone with it. Started by machine.py over ssh, with the
folder of the collections and of ansible in sys.path.

    {"call": MODULE, "arguments": TEXT}           -> {"out": TEXT}      the module's own output
    {"run": [WORD...], "input": TEXT, "timeout": SECONDS} -> {"out", "err", "rc"}
    {"start": MODULE, "arguments": TEXT, "environment": {...}} -> {"pid"}  in a session of its own
    {"wait": PID, "timeout": SECONDS}             -> {"out", "rc"}  rc is None: it has not ended yet
    {"signal": PID, "number": N}                  -> {}
    {"write": [{"path", "content", "mode"}...]}   -> {"written"}        through to the disk; their folders are made
    {"read": PATH}                                -> {"out", "err", "rc"}
    {"exists": PATH}                              -> {"exists"}
    {"until": PATH, "lines": N, "timeout": SECONDS} -> {"out"}  the file, once it has so many lines; null: it never had

The last four start no process: that takes longest here.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from types import ModuleType
from typing import Any, NoReturn

MODULES = "ansible_collections.restorepoint.core.plugins.modules."
STARTED: dict[int, Child] = {}


def call(request: dict[str, Any]) -> dict[str, Any]:
    """Run a module in a child; what it printed comes through a file, which has no limit as a pipe has."""
    child = Child(request["call"], request["arguments"])
    child.wait(None)
    return {"out": child.out()}


class Child:
    """A module in a forked process, which has everything imported already. ``environment`` comes on top of ours."""

    def __init__(self, name: str, arguments: str, environment: dict[str, str] | None = None) -> None:
        module = importlib.import_module(MODULES + name)
        self._told = tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115 - see out
        self.pid = os.fork()
        if self.pid == 0:
            self._become(module, arguments, environment)

    def _become(self, module: ModuleType, arguments: str, environment: dict[str, str] | None) -> NoReturn:
        from ansible.module_utils import basic

        code = 1
        try:
            if environment is not None:
                os.setsid()
                os.environ.update(environment)
            basic._ANSIBLE_ARGS = arguments.encode("utf-8", "surrogateescape")
            basic._ANSIBLE_PROFILE = "legacy"
            with contextlib.redirect_stdout(self._told):
                try:
                    module.main()
                except SystemExit:
                    code = 0
            self._told.flush()
        except BaseException as error:
            crash = {"failed": True, "crashed": True, "msg": f"{type(error).__name__}: {error}"}
            self._told.write(json.dumps(crash))
            self._told.flush()
        finally:
            os._exit(code)

    def wait(self, seconds: float | None) -> int | None:
        """Wait until it has ended: its exit code (-N: by signal N), or None where that takes longer."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, 0 if deadline is None else os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if deadline is not None and time.monotonic() >= deadline:
                return None
            time.sleep(0.02)

    def out(self) -> str:
        """Return what it printed, once it has ended."""
        with self._told:
            self._told.seek(0)
            return self._told.read()


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Run a program to its end."""
    text = request.get("input")
    given = None if text is None else text.encode("utf-8", "surrogateescape")
    try:
        done = subprocess.run(
            request["run"], input=given, stdin=subprocess.DEVNULL if given is None else None, capture_output=True,
            timeout=request.get("timeout", 600), check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"out": "", "err": str(error), "rc": -1}
    return {"out": plain(done.stdout), "err": plain(done.stderr), "rc": done.returncode}


def start(request: dict[str, Any]) -> dict[str, Any]:
    """Start a module, and do not wait for it."""
    child = Child(request["start"], request["arguments"], request.get("environment", {}))
    STARTED[child.pid] = child
    return {"pid": child.pid}


def wait(request: dict[str, Any]) -> dict[str, Any]:
    """Wait for what was started."""
    child = STARTED[request["wait"]]
    code = child.wait(request.get("timeout", 600))
    if code is None:
        return {"out": "", "rc": None}
    del STARTED[child.pid]
    return {"out": child.out(), "rc": code}


def read(request: dict[str, Any]) -> dict[str, Any]:
    """Read a file."""
    try:
        with open(request["read"], "rb") as file:
            return {"out": plain(file.read()), "err": "", "rc": 0}
    except OSError as error:
        return {"out": "", "err": str(error), "rc": 1}


def exists(request: dict[str, Any]) -> dict[str, Any]:
    """Say whether there is anything of that name."""
    return {"exists": os.path.lexists(request["exists"])}


def until(request: dict[str, Any]) -> dict[str, Any]:
    """Wait until a file has so many whole lines."""
    deadline = time.monotonic() + request["timeout"]
    while True:
        found = read({"read": request["until"]})
        if found["rc"] == 0 and found["out"].count("\n") >= request["lines"]:
            return {"out": found["out"]}
        if time.monotonic() >= deadline:
            return {"out": None}
        time.sleep(0.1)


def write(request: dict[str, Any]) -> dict[str, Any]:
    """Write files, through to the disk."""
    for each in request["write"]:
        os.makedirs(os.path.dirname(each["path"]), exist_ok=True)
        descriptor = os.open(each["path"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, each["mode"])
        with open(descriptor, "wb") as file:
            file.write(each["content"].encode("utf-8", "surrogateescape"))
            file.flush()
            os.fsync(file.fileno())
    return {"written": len(request["write"])}


def send_signal(request: dict[str, Any]) -> dict[str, Any]:
    """Send a signal to the process group of what was started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(request["signal"], request["number"])
    return {}


def plain(output: bytes) -> str:
    """Return output as text that JSON can carry."""
    return output.decode("utf-8", "surrogateescape")


HANDLERS = {
    "call": call, "run": run, "start": start, "wait": wait, "signal": send_signal, "write": write, "read": read,
    "exists": exists, "until": until,
}  # fmt: skip


def main() -> None:
    """Answer until stdin ends. Nothing but answers goes to the stdout that we were started with."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="surrogateescape")
    os.dup2(2, 1)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding="utf-8", errors="surrogateescape")
    for line in sys.stdin:
        request = json.loads(line)
        handler = next(HANDLERS[verb] for verb in HANDLERS if verb in request)
        answers.write(json.dumps(handler(request)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
