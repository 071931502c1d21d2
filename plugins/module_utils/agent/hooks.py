# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hooks around the taking of snapshots, as a stack, and the watchdog that thaws when the agent itself cannot.

Before-hooks run in order. After-hooks run in reverse, only for those whose before-hook succeeded, and always:

- after a failure, a timeout and an interrupt by `Hooks`;
- after a kill by the watchdog, a process of its own that sees a pipe end;
- after a kill of both (a machine that lost power, a cgroup that was emptied) by the next run, from the mark.

A before-hook that was under way when the agent died may have succeeded, so its after-hook runs as well. Called by
`running`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any, Callable

from .. import process
from ..core.errors import InvalidInput, RestorePointError, ToolError
from ..engine.policy import Hook
from ..lock import FileLock
from .state import Mark

#: How long a filesystem may stay frozen, and an application quiesced, whatever the snapshots still need: in seconds.
HOLD_SECONDS = 300
_REMEDY = "mend what it complains about, and run the policy again"
_THAW_ATTEMPTS = 3


def before(hook: Hook) -> None:
    """Do what a hook does before the snapshots. Raises ToolError."""
    attempt = f"run the hook {hook.name!r} before the snapshots"
    if hook.kind == "command":
        if hook.before:
            process.run(hook.before, timeout=hook.timeout, attempt=attempt, remedy=_REMEDY)
        return
    try:
        done = process.run(
            ["fsfreeze", "--freeze", hook.path], timeout=hook.timeout, attempt=attempt, remedy=_REMEDY, ok=(0, 1)
        )
    except RestorePointError:
        # It may have come through, or still do, although it was not waited for.
        with contextlib.suppress(RestorePointError):
            after(hook)
        raise
    if done.rc:
        raise ToolError(attempt, done.stderr.strip()[-500:] or "fsfreeze failed", _REMEDY)


def after(hook: Hook) -> None:
    """Do what a hook does after the snapshots. A filesystem that is not frozen counts as thawed. Raises ToolError."""
    attempt = f"run the hook {hook.name!r} after the snapshots"
    if hook.kind == "command":
        if hook.after:
            process.run(hook.after, timeout=hook.timeout, attempt=attempt, remedy=_REMEDY)
        return
    for number in range(_THAW_ATTEMPTS):
        try:
            done = process.run(
                ["fsfreeze", "--unfreeze", hook.path], timeout=hook.timeout, attempt=attempt, remedy=_REMEDY, ok=(0, 1)
            )
            if done.rc == 0 or "Invalid argument" in done.stderr:
                return
            trouble = done.stderr.strip()[-500:]
        except ToolError as error:
            trouble = error.reason
        time.sleep(0.2 * number)
    raise ToolError(attempt, f"{hook.path} is not thawed: {trouble}", f"run `fsfreeze -u {hook.path}` at once")


def check(hooks: Sequence[Hook], written: Sequence[str]) -> None:
    """Raise InvalidInput where a filesystem would be frozen that the run itself has to write to.

    ``written`` are folders that it writes to: stores, and the agent's own.
    """
    for hook in hooks:
        if hook.kind != "fsfreeze":
            continue
        attempt = f"use the hook {hook.name!r}"
        try:
            device = os.stat(hook.path).st_dev
        except OSError as error:
            raise InvalidInput(attempt, f"{hook.path}: {error.strerror}", "name a directory that is there") from error
        for folder in written:
            if os.stat(_that_is_there(folder)).st_dev == device:
                raise InvalidInput(
                    attempt,
                    f"{folder} is on the filesystem of {hook.path}, and has to be written to meanwhile",
                    "put it on another filesystem, or quiesce the application with a command instead",
                )


def _that_is_there(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


class Hooks:
    """The hooks of one run.

    Args:
        hooks: in the order of the policy.
        lock: the path of the lock that the watchdog holds while it lives.
        thawed: where the watchdog notes what it did.
        note: called with the numbers of the hooks that may be in force, before each before-hook.
        shield: a context in which interrupts wait.

    ``outcomes`` says of each hook what became of it.
    """

    def __init__(
        self,
        hooks: Sequence[Hook],
        lock: str,
        thawed: Mark,
        note: Callable[[Sequence[int]], None],
        shield: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        self._hooks = tuple(hooks)
        self._lock = lock
        self._thawed = thawed
        self._note = note
        self._shield = shield
        self.outcomes: list[dict[str, Any]] = []
        self.expired = False
        #: The after-hooks that failed.
        self.failures: list[RestorePointError] = []

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        """Run the before-hooks, the block, and the after-hooks in reverse. Raises what a before-hook raises."""
        if not self._hooks:
            yield
            return
        with _Watchdog(self._hooks, self._lock, self._thawed) as watchdog:
            done: list[int] = []
            try:
                for number, hook in enumerate(self._hooks):
                    self._before(number, hook, done, watchdog)
                with self._limited():
                    yield
            finally:
                with self._shield():
                    self._after(done, watchdog)

    def _before(self, number: int, hook: Hook, done: list[int], watchdog: _Watchdog) -> None:
        outcome: dict[str, Any] = {"name": hook.name, "before": "failed", "after": "not needed"}
        self.outcomes.append(outcome)
        with self._shield():
            # What is known of a hook and what was done may not come apart.
            self._note([*done, number])
            watchdog.tell(f"+{number}\n")
            try:
                before(hook)
            except RestorePointError:
                watchdog.tell(f"-{number}\n")
                raise
            outcome["before"] = "done"
            done.append(number)

    def _after(self, done: list[int], watchdog: _Watchdog) -> None:
        while done:
            number = done.pop()
            try:
                after(self._hooks[number])
                self.outcomes[number]["after"] = "done"
            except RestorePointError as error:
                self.outcomes[number]["after"] = f"failed: {error}"
                self.failures.append(error)
            watchdog.tell(f"-{number}\n")

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        """Interrupt the run where it keeps what is quiesced for too long."""

        def expire(*_unused: object) -> None:
            self.expired = True
            os.kill(os.getpid(), signal.SIGTERM)

        earlier = signal.signal(signal.SIGALRM, expire)
        signal.setitimer(signal.ITIMER_REAL, HOLD_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, earlier)


class _Watchdog:
    """A process that runs the after-hooks when the agent dies, or hangs for far too long.

    It is forked before anything is quiesced, so that it needs nothing from the disk then.
    """

    def __init__(self, hooks: Sequence[Hook], lock: str, thawed: Mark) -> None:
        self._hooks = hooks
        self._lock = lock
        self._thawed = thawed
        self._pipe = -1
        self._pid = 0

    def __enter__(self) -> _Watchdog:
        self._thawed.remove()
        reading, self._pipe = os.pipe()
        ready, said_ready = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            try:
                self._be_it(reading, said_ready)
            finally:
                os._exit(0)
        os.close(reading)
        os.close(said_ready)
        alive = os.read(ready, 1)
        os.close(ready)
        if not alive:
            raise ToolError("quiesce the targets", "the watchdog that would thaw them did not start", _REMEDY)
        return self

    def __exit__(self, *_unused: object) -> None:
        with contextlib.suppress(OSError):
            os.write(self._pipe, b"end\n")
        os.close(self._pipe)
        os.waitpid(self._pid, 0)

    def tell(self, line: str) -> None:
        """Say that the after-hook of a number is needed from now on (+), or is not any more (-)."""
        try:
            os.write(self._pipe, line.encode("ascii"))
        except OSError as error:
            if line.startswith("+"):
                raise ToolError("quiesce the targets", "the watchdog that would thaw them is gone", _REMEDY) from error

    def _be_it(self, reading: int, said_ready: int) -> None:
        os.setsid()
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(each, signal.SIG_IGN)
        # Locks and pipes of the agent must not live on in here.
        keep = sorted((0, 1, 2, reading, said_ready))
        for low, high in zip(keep, [*keep[1:], os.sysconf("SC_OPEN_MAX")]):
            os.closerange(low + 1, min(high, 65536))
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nowhere, number)
        with FileLock(self._lock, 10, "watch over hooks"):
            os.write(said_ready, b".")
            os.close(said_ready)
            needed = _listen(reading, HOLD_SECONDS + 2 * sum(hook.timeout for hook in self._hooks))
            if needed:
                outcomes = thaw(self._hooks, needed)
                with contextlib.suppress(OSError):
                    self._thawed.write({"hooks": outcomes})


def _listen(pipe: int, limit: float) -> list[int]:
    """Return which after-hooks are needed when the pipe ends or time is over; none after the word that all is well."""
    deadline, text = time.monotonic() + limit, b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            break
        chunk = os.read(pipe, 4096)
        if not chunk:
            break
        text += chunk
    needed: list[int] = []
    for line in text.decode("ascii").splitlines():
        if line == "end":
            return []
        if line.startswith("+"):
            needed.append(int(line[1:]))
        elif int(line[1:]) in needed:
            needed.remove(int(line[1:]))
    return needed


def thaw(hooks: Sequence[Hook], needed: Sequence[int]) -> list[dict[str, Any]]:
    """Run the after-hooks of these numbers in reverse; return what became of each."""
    outcomes = []
    for number in reversed(needed):
        try:
            after(hooks[number])
            outcomes.append({"number": number, "name": hooks[number].name, "after": "done"})
        except RestorePointError as error:
            outcomes.append({"number": number, "name": hooks[number].name, "after": f"failed: {error}"})
    return outcomes
