# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module in a forked process that is killed at a chosen moment, or on a filesystem that lacks something.

A forked process runs the engine as it is; only there the calls that change a filesystem are counted. Called by
test_faults.py and test_scale.py.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import pathlib
import resource
import signal
import time
from dataclasses import dataclass, field
from typing import Any, Callable

from ansible_collections.restorepoint.core.plugins.module_utils import linux, process
from ansible_collections.restorepoint.core.plugins.module_utils.backends.btrfs.backend import BtrfsBackend
from ansible_collections.restorepoint.core.plugins.module_utils.backends.hostpath.backend import HostpathBackend
from ansible_collections.restorepoint.core.tests.lab import driver

#: What changes a filesystem, as the engine calls it.
_CHANGES = (
    "mkdir", "rename", "link", "symlink", "unlink", "rmdir", "mknod", "utime", "chown", "chmod", "fchown", "fchmod",
    "write", "pwrite", "fsync", "ftruncate", "setxattr", "removexattr", "copy_file_range",
)  # fmt: skip
#: From linux/prctl.h.
_PR_SET_CHILD_SUBREAPER = 36
_PHASES = ("check", "session", "situations", "prepare", "commit", "undo", "abandon", "finish")


@dataclass
class Countdown:
    """Counts the calls that change a filesystem; ends the process, as a power cut would, before number ``at``.

    With ``error``, an errno, that call fails instead, and with ``lasting`` so do all after it.
    """

    at: int | None = None
    error: int | None = None
    lasting: bool = False
    phase: str = "session"
    calls: list[tuple[str, str]] = field(default_factory=list)

    def step(self, name: str) -> None:
        """One such call is about to happen."""
        self.calls.append((self.phase, name))
        count = len(self.calls)
        if self.at is None or not (count == self.at or (self.lasting and count > self.at)):
            return
        if self.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(self.error, os.strerror(self.error or 0))

    def install(self) -> None:
        """Count from now on, in this process."""
        for name in _CHANGES:
            setattr(os, name, self._counted(name, getattr(os, name)))
        for name in ("renameat2", "syncfs", "ficlone"):
            setattr(linux, name, self._counted(name, getattr(linux, name)))
        process.run = self._counted("program", process.run)
        plain_open = os.open

        def counted_open(path: Any, flags: int, *rest: Any, **named: Any) -> int:
            if flags & os.O_CREAT:
                self.step("create")
            return plain_open(path, flags, *rest, **named)

        os.open = counted_open
        for backend in (HostpathBackend, BtrfsBackend):
            for name in _PHASES:
                setattr(backend, name, self._phased(name, getattr(backend, name)))

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            self.step(name)
            return function(*given, **named)

        return counted

    def _phased(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def phased(*given: Any, **named: Any) -> Any:
            before, self.phase = self.phase, phase
            try:
                return function(*given, **named)
            finally:
                self.phase = before

        return phased


def no_renameat2() -> None:
    """Be, from now on and in this process, on a filesystem that knows none of the flags of renameat2(2)."""

    def refuse(*_unused: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    linux.renameat2 = refuse  # type: ignore[assignment]


def adopt_orphans() -> None:
    """Become the parent of what a killed child leaves behind: ``PR_SET_CHILD_SUBREAPER`` of prctl(2)."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def children() -> set[int]:
    """Return the processes whose parent this process is."""
    found: set[int] = set()
    for path in pathlib.Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread may have ended meanwhile: its children are another thread's now
            found.update(map(int, path.read_text().split()))
    return found


@dataclass
class Child:
    """A forked process that runs the module once."""

    pid: int
    reader: int
    others: frozenset[int]

    def kill_after(self, seconds: float) -> bool:
        """Kill it after that time, and let a tool that it had started end; say whether it was still running."""
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        killed = self.wait() is None
        while orphans := children() - self.others:
            for pid in orphans:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        return killed

    def wait(self) -> dict[str, Any] | None:
        """Return what it reported, or None where it was killed."""
        with open(self.reader) as stream:
            text = stream.read()
        _unused, status = os.waitpid(self.pid, 0)
        return json.loads(text) if os.WIFEXITED(status) and text else None

    def reported(self) -> dict[str, Any]:
        """Return what it reported, which it has to."""
        report = self.wait()
        assert report is not None
        return report


def start(
    *prepare: Callable[[], object],
    countdown: Countdown | None = None,
    call: Callable[..., driver.Result] = driver.call,
    **options: Any,
) -> Child:
    """Start a module in a forked process, hostpath_snapshot unless told, after what ``prepare`` does in it."""
    reader, writer = os.pipe()
    adopt_orphans()
    others = frozenset(children())
    pid = os.fork()
    if pid:
        os.close(writer)
        return Child(pid, reader, others)
    report: dict[str, Any] = {"failed": True, "msg": "the child could not begin"}
    try:
        os.close(reader)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for each in prepare:
            each()
        if countdown is not None:
            countdown.install()
        try:
            report = dict(call(**options))
        except driver.Failed as error:
            report = error.result
        except BaseException as error:
            report = {"failed": True, "crashed": True, "msg": f"{type(error).__name__}: {error}"}
        report["calls"] = countdown.calls if countdown is not None else []
        report["peak_kib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    finally:
        with open(writer, "w") as stream:
            json.dump(report, stream)
        os._exit(0)


def run(*prepare: Callable[[], object], **options: Any) -> dict[str, Any]:
    """Run the module in a forked process; raise driver.Failed where it fails."""
    report = start(*prepare, **options).reported()
    if report.get("failed"):
        raise driver.Failed(report)
    return report
