# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tasks of the test server: workers, their UPIDs, logs, lists and ends, after Proxmox's RESTEnvironment and API2/Tasks.

A worker is a generator: each ``yield`` is a pause in seconds, an exception its failure. There is no thread: every call
of the API first runs what is due, with the time at which it was due, so that a task takes its real duration and costs
nothing while it waits. Standard library only; operations.py holds the workers, api.py shows the lists.
"""

from __future__ import annotations

import heapq
import itertools
import json
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

Worker = Generator[float, None, None]
FOREVER = float("inf")
_UPID = re.compile(
    r"UPID:(?P<node>[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?):(?P<pid>[0-9A-Fa-f]{8,9}):(?P<pstart>[0-9A-Fa-f]{8,9}):"
    r"(?P<starttime>[0-9A-Fa-f]{8}):(?P<type>[^:\s]+):(?P<id>[^:\s]*):(?P<user>[^:\s]+):"
)
_PSTART_HZ = 100


class TaskDied(Exception):
    """A worker's own error; its words become the exit status."""


class TaskKilled(Exception):
    """The worker was killed: nothing of it runs any more, and its exit status is 'unexpected status'."""


@dataclass
class StepFault:
    """What befalls a task before a step (a pattern such as ``volume:*``).

    ``how``: ``fail`` with the message, ``warn`` with it and go on, ``slow``, ``hang``, or ``kill`` its worker.
    """

    step: str
    how: str
    message: str = ""
    seconds: float = 0.0


@dataclass(eq=False)
class Task:
    """One task. ``status`` is None while it runs, then OK, 'WARNINGS: n', the error, or 'unexpected status'."""

    upid: str
    node: str
    pid: int
    pstart: int
    starttime: int
    type: str
    id: str
    user: str
    tokenid: str | None = None
    started: float = 0.0
    status: str | None = None
    ended: float | None = None
    log: list[str] = field(default_factory=list)
    warnings: int = 0
    faults: list[StepFault] = field(default_factory=list)
    #: Steps it has begun, for tests.
    steps: list[str] = field(default_factory=list)
    worker: Worker | None = None
    #: Set when whoever read its output has gone: printing kills it then (SIGPIPE).
    output_lost: bool = False
    _fragment: str = ""

    def say(self, line: str) -> None:
        """Print a line into its log."""
        if self.output_lost:
            raise TaskKilled
        self.log.append(line)

    def warn(self, line: str) -> None:
        """Print a warning that counts: it ends with 'WARNINGS: n'."""
        self.warnings += 1
        self.say(f"WARN: {line}")

    def entry(self) -> dict[str, Any]:
        """Return it as lists and its status begin."""
        shown: dict[str, Any] = {
            "upid": self.upid,
            "node": self.node,
            "pid": self.pid,
            "pstart": self.pstart,
            "starttime": self.starttime,
            "type": self.type,
            "id": self.id,
            "user": self.user,
        }
        if self.tokenid:
            shown["tokenid"] = self.tokenid
        return shown

    def fragment(self) -> str:
        """Return its entry in a list, as JSON, once it has ended."""
        if not self._fragment:
            shown = {**self.entry(), "endtime": int(self.ended or 0), "status": self.status}
            self._fragment = json.dumps(shown, separators=(",", ":"))
        return self._fragment

    def running_fragment(self) -> str:
        """Return its entry in a list while it runs."""
        return json.dumps({**self.entry(), "status": "RUNNING"}, separators=(",", ":"))


class Tasks:
    """All tasks of the cluster. ``list_lag`` and ``list_delay`` are seconds by which a node's list is behind.

    For ``list_lag`` an ended task is still shown as running (with ``twice`` it is listed a second time, with its end);
    for ``list_delay`` a new one is not shown yet.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.now = clock()
        self.list_lag = 0.0
        self.list_delay = 0.0
        self.twice = False
        self.by_upid: dict[str, Task] = {}
        self.active: dict[str, list[Task]] = {}
        self.archived: dict[str, list[Task]] = {}
        self._due: list[tuple[float, int, Task]] = []
        self._order = itertools.count()
        self._pids = itertools.count(0x6000)
        self._booted = int(self.now) - 2540

    def start(
        self, node: str, kind: str, ident: object, user: str, worker: Callable[[Task], Worker], faults: list[StepFault]
    ) -> Task:
        """Start a worker and return its task."""
        pid, begun = next(self._pids), int(self.now)
        pstart = int((self.now - self._booted) * _PSTART_HZ)
        upid = f"UPID:{node}:{pid:08X}:{pstart:08X}:{begun:08X}:{kind}:{ident}:{user}:"
        name, _mark, token = user.partition("!")
        task = Task(upid, node, pid, pstart, begun, kind, str(ident), name, token or None, self.now, faults=faults)
        task.worker = worker(task)
        self.by_upid[upid] = task
        self.active.setdefault(node, []).append(task)
        self._advance_task(task)
        return task

    def archive(self, node: str, kind: str, ident: object, user: str, seconds_ago: float, status: str = "OK") -> Task:
        """Put a task of the past into a node's list."""
        pid, ended = next(self._pids), self.now - seconds_ago
        begun = int(ended) - 1
        upid = f"UPID:{node}:{pid:08X}:{0x1000 + pid:08X}:{begun:08X}:{kind}:{ident}:{user}:"
        task = Task(upid, node, pid, 0x1000 + pid, begun, kind, str(ident), user, None, begun, status, ended)
        task.log = ["TASK OK" if status == "OK" else f"TASK ERROR: {status}"]
        self.by_upid[upid] = task
        self.archived.setdefault(node, []).append(task)
        return task

    def advance(self) -> None:
        """Run everything that is due by now, in the order in which it was due."""
        limit = self.clock()
        while self._due and self._due[0][0] <= limit:
            due, _order, task = heapq.heappop(self._due)
            self.now = max(self.now, due)
            if task.status is None:
                self._advance_task(task)
        self.now = max(self.now, limit)

    def next_due(self) -> float | None:
        """Return when something happens next, or None where nothing is under way that will end by itself."""
        return self._due[0][0] if self._due else None

    def _advance_task(self, task: Task) -> None:
        if task.worker is None:
            return
        try:
            pause = next(task.worker)
            while pause == 0:
                pause = next(task.worker)
        except StopIteration:
            self._end(task, f"WARNINGS: {task.warnings}" if task.warnings else "OK")
        except TaskKilled:
            self._end(task, "unexpected status")
        except TaskDied as error:
            # As fork_worker writes it: the last newline goes, each other becomes a space.
            words = str(error)
            self._end(task, (words[:-1] if words.endswith("\n") else words).replace("\n", " "))
        else:
            if pause != FOREVER:
                heapq.heappush(self._due, (self.now + pause, next(self._order), task))

    def _end(self, task: Task, status: str) -> None:
        task.status, task.ended, task.worker = status, self.now, None
        if status == "OK":
            task.log.append("TASK OK")
        elif status.startswith("WARNINGS: "):
            task.log.append(f"TASK {status}")
        elif status != "unexpected status":
            task.log.append(f"TASK ERROR: {status}")
        self.active[task.node].remove(task)
        self.archived.setdefault(task.node, []).append(task)

    def stop(self, task: Task) -> None:
        """Interrupt a worker, as ``DELETE /nodes/N/tasks/UPID`` does."""
        if task.worker is None or task.status is not None:
            return
        try:
            pause = task.worker.throw(TaskDied("received interrupt\n"))
        except (TaskDied, StopIteration):
            self._end(task, "received interrupt")
        except TaskKilled:
            self._end(task, "unexpected status")
        else:
            heapq.heappush(self._due, (self.now + pause, next(self._order), task))

    def kill(self, task: Task) -> None:
        """Kill a worker with SIGKILL: what it had written stays, its locks too (workers clean up on TaskDied only)."""
        if task.status is None:
            self._end(task, "unexpected status")

    def release(self, task: Task) -> None:
        """Let a worker that hangs go on, without more faults."""
        task.faults.clear()
        heapq.heappush(self._due, (self.now, next(self._order), task))

    def listed(self, node: str, source: str) -> list[tuple[Task, str | None]]:
        """Return a node's tasks as its list shows them: with their status, or None for one that still runs.

        The active ones come first, in the order of their starts, then the archived ones, the newest first.
        """
        archived, lagging, now = self.archived.get(node, []), [], self.now
        split = len(archived)
        while self.list_lag and split and (archived[split - 1].ended or 0) > now - self.list_lag:
            split -= 1
            lagging.append(archived[split])
        found: list[tuple[Task, str | None]] = []
        if source in ("active", "all"):
            fresh = self.active.get(node, [])
            found = [(task, None) for task in [*lagging, *fresh] if task.started <= now - self.list_delay]
        if source in ("archive", "all"):
            if self.twice:
                split = len(archived)
            found.extend((task, task.status) for task in reversed(archived[:split]))
        return found

    def parse(self, upid: str) -> dict[str, str] | None:
        """Return the fields of a UPID, or None where it is none."""
        found = _UPID.fullmatch(upid)
        return found.groupdict() if found else None
