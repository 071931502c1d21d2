# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waits for tasks: one list of a node's tasks stands for the status of each. Called by operations.py.

The rules are measured (docs/pve.md): the list for five or more pending tasks, single questions below; ``source=all``
with a ``limit`` well above the number of tasks; ``since`` from the UPIDs themselves, so that clocks do not matter; a
task that the list does not show, or that is overdue, is asked for by itself, and so is each before it is given up. A
task that failed is final at once, and one that ends exactly at the deadline has ended.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...core.errors import RestorePointError
from ...deadline import Deadline
from ...pve import PveClient, PveError

FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.25, 1.0, 1.5
LIST_FROM = 5
_LEAST_LIMIT = 200
_OVERDUE = 20.0
#: A list may not show a task yet that is younger than this, in seconds.
_LAG = 1.0
#: What a list says of a task that has not ended, if it says anything.
_RUNNING = ("", "RUNNING", "running")
#: UPID:node:pid:pstart:starttime:type:id:user: (pve-common, UPID.pm)
_UPID = re.compile(
    r"UPID:(?P<node>[^:\s]+):(?P<pid>[0-9A-Fa-f]{8,9}):(?P<pstart>[0-9A-Fa-f]{8,9}):(?P<start>[0-9A-Fa-f]{8,9})"
    r":(?P<type>[^:\s]+):(?P<id>[^:\s]*):(?P<user>[^:\s]+):"
)


@dataclass(frozen=True)
class Upid:
    """The name of a task. ``starttime`` is in seconds since the epoch, by the node's clock."""

    text: str
    node: str
    starttime: int
    type: str
    id: str
    user: str


def parse_upid(text: Any, attempt: str) -> Upid:
    """Return a UPID in its parts; raise PveError for what is none."""
    found = _UPID.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise PveError(
            attempt, f"the API answered {text!r}, which names no task", "look at the node's task log", maybe_done=True
        )
    return Upid(text, found["node"], int(found["start"], 16), found["type"], found["id"], found["user"])


def succeeded(status: str) -> bool:
    """Say whether an exit status is that of a task that did its work, if with warnings."""
    return status == "OK" or status.startswith("WARNINGS: ")


class StillRunning(RestorePointError):
    """A task has not ended by the deadline, or nobody can tell."""

    def __init__(self, attempt: str, upid: str, reason: str) -> None:
        super().__init__(attempt, f"{reason} ({upid})", "follow that task on its node, then look at the guest")
        self.upid = upid


@dataclass
class _Waiting:
    upid: Upid
    since: float
    asked: float
    ended: threading.Event = field(default_factory=threading.Event)
    status: str | None = None
    error: PveError | None = None


class TaskWatcher:
    """Tells threads when their tasks have ended. A thread for each node asks while tasks are pending there."""

    def __init__(self, client: PveClient, deadline: Deadline) -> None:
        self._client = client
        self._deadline = deadline
        self._lock = threading.Lock()
        self._nodes: dict[str, dict[str, _Waiting]] = {}
        self._closed = threading.Event()

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()

    def wait(self, upid: Upid, attempt: str, has_ended: bool = False) -> str:
        """Return a task's exit status, once it has ended; raise StillRunning at the deadline.

        ``has_ended`` says that it is known to have, and only the status is wanted.
        """
        if has_ended:
            status = self._ask(upid)
            if status is not None:
                return status
        now = time.monotonic()
        waiting = _Waiting(upid, now, now)
        with self._lock:
            pending = self._nodes.setdefault(upid.node, {})
            pending[upid.text] = waiting
            if len(pending) == 1:
                threading.Thread(target=self._watch, args=(upid.node,), daemon=True).start()
        waiting.ended.wait(self._deadline.left())
        with self._lock:
            self._nodes.get(upid.node, {}).pop(upid.text, None)
        return self._outcome(waiting, attempt)

    def _outcome(self, waiting: _Waiting, attempt: str) -> str:
        if waiting.status is not None:
            return waiting.status
        reason = "the task had not ended by the deadline"
        if waiting.error is not None:
            reason = f"its task cannot be asked for: {waiting.error.words}"
        with contextlib.suppress(PveError):
            status = self._ask(waiting.upid)
            if status is not None:
                return status
        raise StillRunning(attempt, waiting.upid.text, reason)

    def _ask(self, upid: Upid) -> str | None:
        """Return the exit status of one task, None while it runs."""
        path = f"/nodes/{upid.node}/tasks/{upid.text}/status"
        found = self._client.get(f"ask for task {upid.text}", path)
        try:
            return str(found["exitstatus"] or "unexpected status") if found["status"] == "stopped" else None
        except (KeyError, TypeError):
            return None

    def _watch(self, node: str) -> None:
        """Ask for a node's pending tasks until there are none."""
        pause = FIRST_PAUSE
        while not self._closed.wait(pause):
            with self._lock:
                pending = dict(self._nodes.get(node, {}))
                if not pending:
                    self._nodes.pop(node, None)
                    return
            ended = self._poll(node, pending)
            pause = FIRST_PAUSE if ended else min(pause * GROWTH, LONGEST_PAUSE)

    def _poll(self, node: str, pending: Mapping[str, _Waiting]) -> bool:
        """Ask once for each pending task; say whether any has ended."""
        listed = len(pending) >= LIST_FROM
        known = self._listed(node, pending) if listed else {}
        now = time.monotonic()
        any_ended = False
        for text, waiting in pending.items():
            status = known.get(text)
            overdue = now - waiting.since > _OVERDUE and now - waiting.asked > _OVERDUE / 2
            absent = text not in known and (not listed or now - waiting.since > _LAG)
            if status is None and (absent or overdue):
                waiting.asked = now
                status = self._single(waiting)
            if status is not None or waiting.error is not None:
                waiting.status = status
                waiting.ended.set()
                any_ended = True
        return any_ended

    def _listed(self, node: str, pending: Mapping[str, _Waiting]) -> dict[str, str | None]:
        """Return what the node's list says of the pending tasks: None is running. Empty where it cannot be read."""
        since = min(each.upid.starttime for each in pending.values())
        limit = max(_LEAST_LIMIT, 4 * len(pending))
        try:
            found = self._client.get(
                f"list the tasks of {node}", f"/nodes/{node}/tasks", source="all", limit=limit, since=since
            )
            return dict(_states(found, pending))
        except PveError:
            return {}

    def _single(self, waiting: _Waiting) -> str | None:
        try:
            return self._ask(waiting.upid)
        except PveError as error:
            if error.status in (400, 401, 403):
                waiting.error = error
            return None  # what passes is asked again until the deadline


def _states(found: Any, pending: Mapping[str, Any]) -> Iterable[tuple[str, str | None]]:
    """Yield (UPID, exit status or None) of tasks that are waited for; where one is there twice, the last counts."""
    if not isinstance(found, list):
        return
    for item in found:
        text = item.get("upid") if isinstance(item, Mapping) else None
        if text in pending:
            status = str(item.get("status") or "")
            yield str(text), None if status in _RUNNING else status
