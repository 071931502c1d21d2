# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs in the guest: modules and programs, as one process that has everything imported already.

It reads a JSON object a line from stdin and answers with one a line on stdout. A module runs in a forked child, as it
would run in a process of its own: what it changes in itself is gone with it. Started by machine.py over ssh, with the
folder of the collections and of ansible in sys.path.

    {"call": MODULE, "arguments": TEXT}           -> {"out": TEXT}      the module's own output
    {"run": [WORD...], "input": TEXT, "timeout": SECONDS} -> {"out", "err", "rc"}
    {"start": [WORD...], "input": TEXT, "environment": {...}} -> {"pid"}
    {"wait": PID, "timeout": SECONDS}             -> {"out", "err", "rc"}  rc is None: it has not ended yet
    {"signal": PID, "number": N}                  -> {}
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
from typing import IO, Any

MODULES = "ansible_collections.restorepoint.core.plugins.modules."
#: What a process started here may not see of ours.
STARTED: dict[int, tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]] = {}


def call(request: dict[str, Any]) -> dict[str, Any]:
    """Run a module in a child; what it printed comes through a file, which has no limit as a pipe has."""
    module = importlib.import_module(MODULES + request["call"])
    from ansible.module_utils import basic

    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape") as told:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                basic._ANSIBLE_ARGS = request["arguments"].encode("utf-8", "surrogateescape")
                basic._ANSIBLE_PROFILE = "legacy"
                with contextlib.redirect_stdout(told):
                    try:
                        module.main()
                    except SystemExit:
                        code = 0
                told.flush()
            except BaseException as error:
                told.write(json.dumps({"failed": True, "crashed": True, "msg": f"{type(error).__name__}: {error}"}))
                told.flush()
            finally:
                os._exit(code)
        os.waitpid(child, 0)
        told.seek(0)
        return {"out": told.read()}


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Run a program to its end."""
    text = request.get("input")
    given = None if text is None else text.encode("utf-8", "surrogateescape")
    try:
        done = subprocess.run(
            request["run"], input=given, stdin=subprocess.DEVNULL if given is None else None, capture_output=True,
            timeout=request.get("timeout", 120), check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"out": "", "err": str(error), "rc": -1}
    return {"out": plain(done.stdout), "err": plain(done.stderr), "rc": done.returncode}


def start(request: dict[str, Any]) -> dict[str, Any]:
    """Start a program; its output goes to files, so that it never waits for a reader."""
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - `wait` reads and closes them
    with tempfile.TemporaryFile() as given:
        given.write(request.get("input", "").encode("utf-8", "surrogateescape"))
        given.seek(0)
        process = subprocess.Popen(
            request["start"], stdin=given, stdout=out, stderr=err, start_new_session=True,
            env={**os.environ, **request.get("environment", {})},
        )  # fmt: skip
    STARTED[process.pid] = (process, out, err)
    return {"pid": process.pid}


def wait(request: dict[str, Any]) -> dict[str, Any]:
    """Wait for what was started."""
    process, out, err = STARTED[request["wait"]]
    try:
        code = process.wait(request.get("timeout", 120))
    except subprocess.TimeoutExpired:
        return {"out": "", "err": "", "rc": None}
    del STARTED[request["wait"]]
    texts = []
    for stream in (out, err):
        stream.seek(0)
        texts.append(plain(stream.read()))
        stream.close()
    return {"out": texts[0], "err": texts[1], "rc": code}


def send_signal(request: dict[str, Any]) -> dict[str, Any]:
    """Send a signal to the process group of what was started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(request["signal"], request["number"])
    return {}


def plain(output: bytes) -> str:
    """Return output as text that JSON can carry."""
    return output.decode("utf-8", "surrogateescape")


HANDLERS = {"call": call, "run": run, "start": start, "wait": wait, "signal": send_signal}


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
