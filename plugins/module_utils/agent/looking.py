# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looks at the targets of policies for metrics and reports, each in a process of its own that has a deadline.

A pool that hangs, a directory on a server that is gone: what looks at it may never come back, and no signal may end it.
So whoever waits is not who looks. What was not seen by the deadline is down, and all else is shown as it is.
Called by `metrics` and `reporting`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import selectors
import signal
import time
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, NoReturn

from ..core.backend import Situation
from ..core.errors import RestorePointError, StoreError
from ..core.metrics import Look, Storage
from ..core.report import detail
from ..core.several import Several
from ..core.snapshot import Snapshot
from ..core.survey import from_fields, survey
from ..engine.policy import Policy, Target
from .running import everything, members
from .state import State

#: How many look at the same time.
_AT_ONCE = 4
#: How long one that has passed its deadline may take to stop its tools, before it is killed.
_GRACE = 30.0
_CHUNK = 1 << 16
_DAY = 86400


class Task(NamedTuple):
    """Targets to look at: those of one policy on one backend, and in one store; and the agent's folder."""

    policy: Policy
    target: Target
    folder: str = ""


class _Looking(NamedTuple):
    """A process that looks, what it has said so far, and until when it may."""

    task: Task
    pid: int
    said: bytearray
    begun: float


def looks(
    tasks: Sequence[Task],
    now: Callable[[], int],
    timeout: float,
    look: Callable[[Task, Callable[[], int]], dict[str, Any]] | None = None,
) -> tuple[list[Look], list[str]]:
    """Return what was seen, in the order of the tasks, and why what was not.

    Args:
        tasks: what to look at.
        now: seconds since the epoch.
        timeout: seconds for each; `_AT_ONCE` run at the same time.
        look: what each process does; `_seen` unless it is given.
    """
    waiting = list(enumerate(tasks))[::-1]
    found: dict[int, Look] = {}
    reasons: dict[int, str] = {}
    late: list[int] = []
    running: dict[int, tuple[int, _Looking]] = {}
    with selectors.DefaultSelector() as selector:
        while waiting or running:
            while waiting and len(running) < _AT_ONCE:
                number, task = waiting.pop()
                fd, looking = _begin(task, now, look or _seen, list(running))
                running[fd] = (number, looking)
                selector.register(fd, selectors.EVENT_READ)
            nearest = min(each.begun for _number, each in running.values()) + timeout - time.monotonic()
            ready = {key.fd for key, _event in selector.select(max(0.0, nearest))}
            for fd, (number, looking) in list(running.items()):
                chunk = os.read(fd, _CHUNK) if fd in ready else None
                looking.said.extend(chunk or b"")
                seconds = time.monotonic() - looking.begun
                if chunk == b"":
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(looking.pid, 0)
                    found[number], reasons[number] = _understood(looking, seconds)
                elif seconds >= timeout:
                    late.append(looking.pid)
                    found[number] = _down(looking.task, seconds)
                    reasons[number] = f"it did not end within {timeout:g} s"
                else:
                    continue
                selector.unregister(fd)
                os.close(fd)
                del running[fd]
    _stop(late)
    found = {number: dataclasses.replace(each, reason=reasons.get(number, "")) for number, each in found.items()}
    told = [
        f"{tasks[number].policy.name}, {tasks[number].target.backend}: {why}"
        for number, why in sorted(reasons.items())
        if why
    ]
    return [found[number] for number in range(len(tasks))], told


def _begin(
    task: Task, now: Callable[[], int], look: Callable[[Task, Callable[[], int]], dict[str, Any]], others: list[int]
) -> tuple[int, _Looking]:
    """Start a process that looks; return where to read what it says."""
    reading, writing = os.pipe()
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _look(task, now, look, writing, [reading, *others])
    os.close(writing)
    return reading, _Looking(task, pid, bytearray(), begun)


def _look(
    task: Task,
    now: Callable[[], int],
    look: Callable[[Task, Callable[[], int]], dict[str, Any]],
    writing: int,
    others: list[int],
) -> NoReturn:
    """Look, say what was seen, and end. Nothing of the parent is tidied up here: it is not ours."""
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _interrupted)
        for fd in others:
            os.close(fd)
        try:
            said = look(task, now)
        except (RestorePointError, OSError, ValueError) as error:
            said = {"error": str(error)}
        with open(writing, "wb") as stream:
            stream.write(json.dumps(said).encode("ascii"))
        code = 0
    finally:
        os._exit(code)


def _interrupted(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt  # ends what a tool is waited for with, and so the tool


def in_detail(task: Task, now: Callable[[], int]) -> dict[str, Any]:
    """Return what there is of the targets with all snapshots, for a report. Raises RestorePointError."""
    return _seen(task, now, detailed=True)


def _seen(task: Task, now: Callable[[], int], detailed: bool = False) -> dict[str, Any]:
    """Return what there is of the targets, as JSON can hold it. Raises RestorePointError."""
    policy, target, _folder = task
    found = members(policy, [target], now)
    several = Several(found)
    desired = everything(policy)
    moment = now()
    due = policy.last_due(moment)
    several.check(desired)
    with several.session(writing=False):
        situations = _spared(task, several.situations(desired))
        surveys = [
            survey(each, policy.name, policy.retention, policy.match, moment, moment - _DAY if due is None else due)
            for each in situations
        ]
        fills = [fill for member in found for fill in storages(target.backend, member.backend)]
    return {
        "surveys": [dataclasses.asdict(each) for each in surveys],
        "storages": [dataclasses.asdict(each) for each in fills],
        "details": [
            detail(each, policy.name, policy.retention, policy.match, moment)
            for each in (situations if detailed else ())
        ],
    }


def _spared(task: Task, situations: Sequence[Situation]) -> Sequence[Situation]:
    """Return what is there, and as in use what exports still need: a prune passes it over, so it is not late."""
    policy, target, folder = task
    if not policy.exports or not folder:
        return situations
    from .exporting import needed

    try:
        needs = needed(State(folder), policy, [target])
    except StoreError:
        return situations  # Whoever asked says that the folder cannot be used.

    def spared(snapshot: Snapshot) -> Snapshot:
        why = snapshot.in_use or needs.get((snapshot.target, snapshot.name))
        return dataclasses.replace(snapshot, in_use=why)

    return [dataclasses.replace(each, snapshots=tuple(map(spared, each.snapshots))) for each in situations]


def storages(kind: str, backend: Any) -> list[Storage]:
    """Return how full the storage of a backend is, where it has one of this host. Raises RestorePointError, OSError."""
    if kind == "zfs":
        pools = importlib.import_module("..backends.zfs.pools", __package__)
        return list(pools.fills(backend.zfs, [each.name for each in backend.targets]))
    if kind == "lvm":
        pools = importlib.import_module("..backends.lvm.pools", __package__)
        return list(pools.fills(backend))
    store = getattr(backend, "store", None)
    return [] if store is None else [_filesystem(kind, store.path)]


def _filesystem(kind: str, store: str) -> Storage:
    """Return how full the filesystem of a store is, as df counts it: what only root may use is not free."""
    folder = store
    while not os.path.lexists(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    found = os.statvfs(folder)
    used = found.f_blocks - found.f_bfree
    return Storage(kind, store, "data", used / max(1, used + found.f_bavail), found.f_blocks * found.f_frsize)


def _understood(looking: _Looking, seconds: float) -> tuple[Look, str]:
    """Return what a process has said, and why that is nothing."""
    try:
        said = json.loads(bytes(looking.said))
        if "error" not in said:
            surveys = tuple(map(from_fields, said["surveys"]))
            fills = tuple(Storage(**each) for each in said["storages"])
            place = (looking.task.policy.name, looking.task.target.backend)
            return Look(*place, True, seconds, surveys, fills, tuple(said.get("details", ()))), ""
        reason = str(said["error"])
    except ValueError:
        reason = "what looked at it ended in the middle"
    return _down(looking.task, seconds), reason


def _down(task: Task, seconds: float) -> Look:
    return Look(task.policy.name, task.target.backend, False, seconds)


def _stop(pids: list[int]) -> None:
    """End processes. One that waits for a disk that does not answer is left behind rather than waited for."""
    for number, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, 1.0)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + patience
        while pids and time.monotonic() < deadline:
            pids = [pid for pid in pids if not _ended(pid)]
            time.sleep(0.02 if pids else 0)


def _ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
