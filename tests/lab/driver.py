# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the modules for the lab's tests: in this process (fast), in one of its own, or as another user.

``call`` and ``info`` go through the real argument spec and bridge. Called by the tests of this folder.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
from typing import Any

from ansible.module_utils import _internal, basic
from ansible.module_utils.common import warnings

from ansible_collections.restorepoint.core.plugins.module_utils.bridge import btrfs, hostpath

MODULES = pathlib.Path(__file__).resolve().parents[2] / "plugins" / "modules"


class Failed(AssertionError):
    """A module failed; ``result`` is what it returned."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__(result.get("msg"))
        self.result = result

    @property
    def reasons(self) -> list[str]:
        """The reasons of the blockers."""
        return [each["reason"] for each in self.result.get("blockers", [])]


class Result(dict[str, Any]):
    """What a module returned."""

    @property
    def only(self) -> dict[str, Any]:
        """The one result there is."""
        (found,) = self["results"]
        return dict(found)

    @property
    def told(self) -> list[tuple[str, str | None, str, bool, str]]:
        """What check mode has to predict: target, name, action, changed and reason of each result."""
        keys = ("target", "name", "action", "changed", "reason")
        return [tuple(each[key] for key in keys) for each in self["results"]]


def arguments(options: dict[str, Any], check_mode: bool = False, diff: bool = False) -> str:
    """Return a module's arguments as it reads them."""
    plain = {key: _plain(value) for key, value in options.items()}
    return json.dumps({"ANSIBLE_MODULE_ARGS": {**plain, "_ansible_check_mode": check_mode, "_ansible_diff": diff}})


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def call(*, check_mode: bool = False, diff: bool = False, **options: Any) -> Result:
    """Run hostpath_snapshot in this process; raise Failed where it fails."""
    return _run(hostpath.run_state, arguments(options, check_mode, diff))


def info(**options: Any) -> Result:
    """Run hostpath_snapshot_info in this process; raise Failed where it fails."""
    return _run(hostpath.run_info, arguments(options))


def btrfs_call(*, check_mode: bool = False, diff: bool = False, **options: Any) -> Result:
    """Run btrfs_snapshot in this process; raise Failed where it fails."""
    return _run(btrfs.run_state, arguments(options, check_mode, diff))


def btrfs_info(**options: Any) -> Result:
    """Run btrfs_snapshot_info in this process; raise Failed where it fails."""
    return _run(btrfs.run_info, arguments(options))


def _run(entry: Any, text: str) -> Result:
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    printed = io.StringIO()
    # A module has its warnings in its result; where a test has loaded what the control node has, they would be shown.
    is_controller, _internal.is_controller = _internal.is_controller, False
    basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE = text.encode("utf-8", "surrogateescape"), "legacy"
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            entry()
    finally:
        basic._ANSIBLE_ARGS = None
        _internal.is_controller = is_controller
        # Ansible collects warnings for the length of a process.
        warnings._global_warnings.clear()
        for each, handler in handlers.items():
            signal.signal(each, handler)
        # A module is a process of its own: the next one begins with the limit that this one began with.
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    return judged(printed.getvalue())


def judged(text: str) -> Result:
    result = Result(json.loads(text))
    if result.get("failed"):
        raise Failed(result)
    return result


def call_as(uid: int, function: Any = None, **options: Any) -> Result:
    """Run hostpath_snapshot (or ``info``) as another user and group, without any other group: in a forked process."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            try:
                found: dict[str, Any] = (function or call)(**options)
            except Failed as error:
                found = error.result
            except BaseException as error:
                found = {"failed": True, "msg": f"{type(error).__name__}: {error}", "crashed": True}
            with open(write, "w") as stream:
                json.dump(found, stream)
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return judged(text)


def start(file: str = "hostpath_snapshot", /, check_mode: bool = False, **options: Any) -> subprocess.Popen[str]:
    """Start the module file in a process of its own, as Ansible does; ``finished`` waits for it."""
    process = subprocess.Popen(
        [sys.executable, str(MODULES / f"{file}.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
    )
    assert process.stdin is not None
    process.stdin.write(arguments(options, check_mode))
    process.stdin.close()
    process.stdin = None
    return process


def finished(process: subprocess.Popen[str], timeout: float = 120) -> Result:
    """Return the result of a module that was started; raise Failed where it failed, also by a traceback."""
    out, err = process.communicate(timeout=timeout)
    if not out.strip():
        raise Failed({"failed": True, "msg": err or f"ended with {process.returncode}", "crashed": True})
    return judged(out)


def module(file: str = "hostpath_snapshot", /, check_mode: bool = False, **options: Any) -> Result:
    """Run the module file in a process of its own, and wait for it."""
    return finished(start(file, check_mode, **options))
