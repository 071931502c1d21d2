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
import dataclasses
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any, Callable

from ..core.errors import InvalidInput, RestorePointError, ToolError
from ..engine.policy import Hook
from ..lock import FileLock
from . import hook_programs
from .hook_programs import REMEDY, Lost
from .state import Mark

#: How long a filesystem may stay frozen, and an application quiesced, whatever the snapshots still need: in seconds.
HOLD_SECONDS = 300
_DATABASES = ("postgresql", "mariadb", "mysql")


def before(hook: Hook) -> Any:
    """Do what a hook does before the snapshots; return what it holds until its after-hook. Raises RestorePointError."""
    return _kind(hook).before(hook)


def after(hook: Hook, held: Any = None) -> None:
    """Do what a hook does after the snapshots. ``held`` is missing in another process. Raises RestorePointError."""
    _kind(hook).after(hook, held)


def _kind(hook: Hook) -> Any:
    """Return the module that does the work of a hook; each is imported where it is needed, and before a watchdog is."""
    if hook.kind in _DATABASES:
        from . import hook_databases

        return hook_databases
    if hook.kind == "workload":
        from . import hook_workloads

        return hook_workloads
    return hook_programs


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

    ``hooks`` are the same with a token each, by which another process finds what they hold. ``outcomes`` says of each
    hook what became of it; ``lost`` is set where something was let go before its time, so that what was taken is not of
    one state.
    """

    def __init__(
        self,
        hooks: Sequence[Hook],
        lock: str,
        thawed: Mark,
        note: Callable[[Sequence[int]], None],
        shield: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        self.hooks = tuple(dataclasses.replace(each, token=os.urandom(16).hex()) for each in hooks)
        self._held: dict[int, Any] = {}
        self._lock = lock
        self._thawed = thawed
        self._note = note
        self._shield = shield
        self.outcomes: list[dict[str, Any]] = []
        self.expired = False
        #: The after-hooks that failed.
        self.failures: list[RestorePointError] = []
        self.lost = False

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        """Run the before-hooks, the block, and the after-hooks in reverse. Raises what a before-hook raises."""
        if not self.hooks:
            yield
            return
        for each in self.hooks:
            _kind(each)  # what is imported is there when the disk may be frozen
        with _Watchdog(self.hooks, self._lock, self._thawed) as watchdog:
            done: list[int] = []
            try:
                for number, hook in enumerate(self.hooks):
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
                self._held[number] = before(hook)
            except RestorePointError:
                watchdog.tell(f"-{number}\n")
                raise
            outcome["before"] = "done"
            done.append(number)

    def _after(self, done: list[int], watchdog: _Watchdog) -> None:
        while done:
            number = done.pop()
            try:
                after(self.hooks[number], self._held.pop(number, None))
                self.outcomes[number]["after"] = "done"
            except RestorePointError as error:
                self.lost = self.lost or isinstance(error, Lost)
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
            raise ToolError("quiesce the targets", "the watchdog that would thaw them did not start", REMEDY)
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
                raise ToolError("quiesce the targets", "the watchdog that would thaw them is gone", REMEDY) from error

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
