# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is done to one guest: its tasks, what they need before and after, and what is found out when a call gets lost.

Each function works on one guest and blocks until it is done; backend.py runs many at once. A task that failed is final,
unless the guest was locked: then it is tried again until ``lock_timeout``. A call whose answer got lost is never made
again before it was looked for, by its task and by what it would have done.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable

from ...core.errors import RestorePointError
from ...deadline import Deadline
from ...pve import PveClient, PveError
from .guests import Guest, read_cluster
from .listing import Listed, Listing, read_listing, way_out
from .metadata import QEMU
from .tasks import StillRunning, TaskWatcher, Upid, parse_upid, succeeded

Report = Callable[[str, Mapping[str, Any]], None]
_LOCKED = re.compile(r"(?:VM|CT) is locked \((?P<lock>[a-z-]+)\)|Failed to obtain guest migration lock")
_MOVED = re.compile(r"Configuration file '\S+' does not exist")
_LOCK_PAUSE, _LONGEST_LOCK_PAUSE = 0.5, 5.0
#: A call that got lost is looked for after these pauses (seconds): lists lag by a moment.
_LOOKS = (0.3, 0.7, 1.5)
_SENDS = 3
#: How far our clock and a node's may be apart where the API does not tell its time, in seconds.
_UNKNOWN_SKEW = 300
_ROUNDING = 2
_NOTED_SECONDS = 60
_STOP_SECONDS = 15.0
_POLL_STATUS = 0.5


@dataclass(frozen=True)
class Done:
    """A task that did its work."""

    upid: str
    status: str
    seconds: float

    def facts(self) -> dict[str, Any]:
        """Return what results say of it."""
        return {"upid": self.upid, "exit_status": self.status}


class TaskFailed(RestorePointError):
    """A task ended with an error. ``status`` is its exit status."""

    def __init__(self, attempt: str, upid: Upid, status: str, remedy: str) -> None:
        words = "its worker was killed (unexpected status)" if status == "unexpected status" else status.strip()
        super().__init__(attempt, f"{words} (task {upid.text} on {upid.node})", remedy)
        self.upid = upid
        self.status = status.strip()


class Operations:
    """What can be done to a guest of one cluster. Safe for several threads, as long as each has a guest of its own.

    Args:
        client: the API.
        watcher: tells when tasks end.
        lock_timeout: seconds to go on trying while a guest is locked.
        run: a word that tells this run from others, written into the snapshots that it takes.
        report: is told of each step.
    """

    def __init__(
        self, client: PveClient, watcher: TaskWatcher, lock_timeout: float, run: str, report: Report | None = None
    ) -> None:
        self.client = client
        self.watcher = watcher
        self.deadline: Deadline = client.deadline
        self.run = run
        self.warnings: list[str] = []
        self._lock_timeout = lock_timeout
        self._report = report
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._resources: tuple[float, dict[str, Guest]] = (0.0, {})

    def step(self, guest: Guest, step: str, **more: Any) -> None:
        """Tell whoever watches how far a guest has got."""
        if self._report is not None:
            with self._lock:
                self._report("guest", {"target": guest.target, "step": step, **guest.facts(), **more})

    # -- reading -------------------------------------------------------------------------------------------------------

    def listing(self, guest: Guest) -> Listing:
        """Return a guest's snapshots; find it again where it has moved."""
        attempt = f"list the snapshots of {guest.words}"
        return read_listing(self.read(guest, attempt, "/snapshot"), guest)

    def read(self, guest: Guest, attempt: str, path: str, **params: Any) -> Any:
        """Read something of a guest; find it again where it has moved."""
        while True:
            node = guest.node
            try:
                return self.client.get(attempt, guest.path + path, **params)
            except PveError as error:
                if not _MOVED.search(error.words) or not self.find_again(guest, node):
                    raise

    def find_again(self, guest: Guest, node: str) -> bool:
        """Ask where a guest is that is not on ``node``; say whether it is elsewhere. One call serves many guests."""
        asked = time.monotonic()
        with self._lock:
            if self._resources[0] < asked - 0.5:
                found = read_cluster(self.client.get("find a guest that moved", "/cluster/resources", type="vm"))
                self._resources = (time.monotonic(), {each.target: each for each in found.guests})
            now = self._resources[1].get(guest.target)
        if now is None or now.node == node:
            return False
        guest.node = now.node
        return True

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def task(
        self,
        guest: Guest,
        attempt: str,
        method: str,
        path: str,
        kind: str,
        remedy: str = "see to that on the node, and try again",
        **params: Any,
    ) -> Done:
        """Make a call that starts a task, and wait for its end.

        Args:
            kind: the type of the task, as UPIDs have it: ``qmsnapshot``.
            remedy: what to do when it fails.

        Raises TaskFailed, StillRunning, PveError.
        """
        started = time.monotonic()
        until = started + self._lock_timeout
        pause = _LOCK_PAUSE
        while True:
            upid = self._begin(guest, attempt, method, path, kind, params)
            status = self.watcher.wait(upid, attempt, has_ended=self.client.transport.foreground)
            if succeeded(status):
                return Done(upid.text, status, round(time.monotonic() - started, 3))
            if _MOVED.search(status) and self.find_again(guest, upid.node):
                continue
            locked = _LOCKED.search(status)
            left = min(until - time.monotonic(), self.deadline.left() - pause)
            if not locked or left <= 0:
                words = remedy
                if locked:
                    words = "wait until that has ended, or set a longer lock_timeout"
                raise TaskFailed(attempt, upid, status, words)
            self.step(guest, "waits", reason=status.strip())
            time.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_LOCK_PAUSE)

    def _begin(self, guest: Guest, attempt: str, method: str, path: str, kind: str, params: Mapping[str, Any]) -> Upid:
        """Make the call and return its task. Never made again before it is known that it was not carried out."""
        for sent in range(_SENDS):
            node, since = guest.node, time.time()
            try:
                upid = parse_upid(self.client.send(attempt, method, guest.path + path, **params), attempt)
            except PveError as error:
                if _MOVED.search(error.words) and self.find_again(guest, node):
                    continue
                if not error.maybe_done:
                    raise
                found = self._look_for(guest, node, kind, since)
                if found is None and sent + 1 < _SENDS and self.deadline.left() > _LOOKS[-1]:
                    continue
                if found is None:
                    raise
                upid = found
            with self._lock:
                self._seen.add(upid.text)
            return upid
        raise PveError(attempt, f"{guest.words} moves from node to node", "wait until it has settled")

    def note_tasks(self, node: str) -> None:
        """Note which tasks a node has had lately, so that none of them is ever taken for one of a call that got lost.

        A start time has the grain of a second, which alone does not tell two tasks of one guest apart.
        """
        skew = self.client.transport.skew
        since = int(time.time() + skew - _NOTED_SECONDS if skew is not None else time.time() - _UNKNOWN_SKEW)
        with contextlib.suppress(PveError):
            params = {"source": "all", "limit": 500, "since": since}
            listed = self.client.get(f"list the tasks of {node}", f"/nodes/{node}/tasks", **params)
            with self._lock:
                self._seen.update(each.text for each in _upids(listed))

    def _look_for(self, guest: Guest, node: str, kind: str, since: float) -> Upid | None:
        """Return the newest task of that type on a guest that began after ``since`` and is not known yet, if any."""
        skew = self.client.transport.skew
        first = int(since - _UNKNOWN_SKEW if skew is None else since + skew - _ROUNDING)
        for pause in _LOOKS:
            time.sleep(min(pause, self.deadline.left()))
            params = {"vmid": guest.vmid, "since": first, "source": "all", "limit": 500}
            with contextlib.suppress(PveError):
                listed = self.client.get(f"look for the task of {guest.words}", f"/nodes/{node}/tasks", **params)
                found = [
                    each for each in _upids(listed) if each.type == kind and each.user == self.client.transport.user
                ]
                with self._lock:
                    found = [each for each in found if each.text not in self._seen]
                if found:
                    return max(found, key=lambda each: each.starttime)
        return None

    # -- snapshots -----------------------------------------------------------------------------------------------------

    def create(self, guest: Guest, name: str, text: str, vmstate: bool, clean: bool) -> tuple[Done, Listed, Listing]:
        """Take a snapshot, and see that it is there; ``text`` is its description with what we write into it.

        ``clean`` says whether to leave nothing of it behind where it fails. Raises RestorePointError.
        """
        attempt = f"take snapshot {name!r} of {guest.words}"
        self.step(guest, "create", snapshot=name)
        params: dict[str, Any] = {"snapname": name, "description": text}
        if vmstate:
            params["vmstate"] = True
        kind = "qmsnapshot" if guest.type == QEMU else "vzsnapshot"
        try:
            done = self.task(guest, attempt, "POST", "/snapshot", kind, **params)
        except RestorePointError as error:
            kept = self._mine(guest, name)
            if kept is not None and kept.snapstate is None and _taken(error):
                done = Done("", "OK", 0.0)  # an answer got lost: the first of our calls was carried out
            elif clean:
                self.step(guest, "failed", reason=str(error))
                raise self._clean_up(guest, name, error) from error
            else:
                self.step(guest, "failed", reason=str(error))
                raise
        listing = self.listing(guest)
        listed = listing.find(name)
        if listed is None or listed.snapstate:
            fault = "it is not there" if listed is None else f"it is not whole ({listed.snapstate})"
            raise PveError(attempt, f"the task ended well, but {fault}", "look at the guest's snapshots")
        if listed.metadata.run != self.run:
            raise PveError(attempt, "somebody else has taken one of that name at the same time", "choose another name")
        self.step(guest, "created", snapshot=name)
        return done, listed, listing

    def _mine(self, guest: Guest, name: str) -> Listed | None:
        """Return the snapshot of that name that this run has taken, if there is one and anybody can tell."""
        with contextlib.suppress(PveError):
            listed = self.listing(guest).find(name)
            if listed is not None and listed.metadata.run == self.run:
                return listed
        return None

    def _clean_up(self, guest: Guest, name: str, error: RestorePointError) -> RestorePointError:
        """Leave nothing behind of a snapshot that could not be taken; return the error, with what is left after all."""
        self.deadline.leave(_STOP_SECONDS)
        if isinstance(error, StillRunning):
            self._stop(guest, error.upid)
        left = self._mine(guest, name)
        if left is None:
            return error
        try:
            if left.snapstate:
                self.unlock(guest)
            self.delete(guest, name, force=bool(left.snapstate))
        except RestorePointError as trouble:
            remedy = f"{way_out(guest, name)} ({trouble.reason})" if left.snapstate else f"remove {name!r} by hand"
            return RestorePointError(error.attempt, f"{error.reason}; {name!r} is left on {guest.words}", remedy)
        return error

    def _stop(self, guest: Guest, upid: str) -> None:
        """Stop a task, which cleans up after itself then, and wait for its end."""
        attempt = f"stop the task of {guest.words}"
        with contextlib.suppress(RestorePointError):
            parsed = parse_upid(upid, attempt)
            self.client.send(attempt, "DELETE", f"/nodes/{parsed.node}/tasks/{upid}")
            self.watcher.wait(parsed, attempt)

    def delete(self, guest: Guest, name: str, force: bool = False) -> Done:
        """Remove a snapshot, and wait for that. Raises RestorePointError, with the way out where it is stuck."""
        attempt = f"remove snapshot {name!r} of {guest.words}"
        self.step(guest, "remove", snapshot=name)
        kind = "qmdelsnapshot" if guest.type == QEMU else "vzdelsnapshot"
        params: dict[str, Any] = {"force": True} if force else {}
        path = f"/snapshot/{name}"
        try:
            done = self.task(guest, attempt, "DELETE", path, kind, **params)
        except RestorePointError as error:
            self.step(guest, "failed", reason=str(error))
            if isinstance(error, StillRunning):
                raise
            with contextlib.suppress(PveError):
                listed = self.listing(guest).find(name)
                if listed is None and _gone(error):
                    return Done("", "OK", 0.0)  # an answer got lost: the first of our calls was carried out
                if listed is not None and listed.snapstate:
                    raise RestorePointError(
                        attempt, f"{error.reason}; it is half deleted now", way_out(guest, name)
                    ) from error
            raise
        self.step(guest, "removed", snapshot=name)
        return done

    def unlock(self, guest: Guest) -> None:
        """Take a lock away that nobody holds any more. Only root@pam with a ticket may, and only for VMs."""
        attempt = f"unlock {guest.words}"
        if guest.type != QEMU:
            raise PveError(
                attempt, "the API has no way for containers", f"run `pct unlock {guest.vmid}` on {guest.node}"
            )
        self.step(guest, "unlock")
        node = guest.node
        try:
            self.client.send(attempt, "PUT", f"{guest.path}/config", delete="lock", skiplock=True)
        except PveError as error:
            if _MOVED.search(error.words) and self.find_again(guest, node):
                self.client.send(attempt, "PUT", f"{guest.path}/config", delete="lock", skiplock=True)
            elif not error.maybe_done:
                raise
        guest.lock = None

    def describe(self, guest: Guest, name: str, text: str) -> None:
        """Set a snapshot's description. Setting it twice does no harm, so a call that got lost is made again."""
        attempt = f"describe snapshot {name!r} of {guest.words}"
        self.step(guest, "describe", snapshot=name)
        until = time.monotonic() + self._lock_timeout
        pauses = iter(_LOOKS)
        while True:
            node = guest.node
            try:
                self.client.send(attempt, "PUT", f"{guest.path}/snapshot/{name}/config", description=text)
                return
            except PveError as error:
                if _MOVED.search(error.words) and self.find_again(guest, node):
                    continue
                if _LOCKED.search(error.words):
                    pause: float | None = 1.0 if time.monotonic() + 1 < until else None
                else:
                    pause = next(pauses, None) if error.maybe_done else None
                if pause is None or pause > self.deadline.left():
                    raise
                time.sleep(pause)

    def roll_back(self, guest: Guest, name: str, start: bool) -> Done:
        """Return a guest to a snapshot, and wait until that is done: not until it runs."""
        attempt = f"return {guest.words} to snapshot {name!r}"
        self.step(guest, "roll_back", snapshot=name)
        kind = "qmrollback" if guest.type == QEMU else "vzrollback"
        params: dict[str, Any] = {"start": True} if start else {}
        try:
            done = self.task(guest, attempt, "POST", f"/snapshot/{name}/rollback", kind, **params)
        except TaskFailed as error:
            self.step(guest, "failed", reason=str(error))
            if "is not most recent snapshot" in error.status:
                raise RestorePointError(
                    attempt, error.reason, "nothing was done; set destroy_newer: true to let the newer ones go"
                ) from error
            now = self._lock_of(guest)
            if now == "rollback":
                way = f"run `{guest.tool} unlock {guest.vmid}` on {guest.node} and return again, or set repair: true"
                raise RestorePointError(
                    attempt, f"{error.reason}; the guest is stopped and half returned", way
                ) from error
            raise
        self.step(guest, "rolled_back", snapshot=name)
        return done

    def _lock_of(self, guest: Guest) -> str | None:
        with contextlib.suppress(PveError, AttributeError):
            status = self.read(guest, f"look at {guest.words}", "/status/current")
            return status.get("lock") or None
        return None

    def wait_running(self, guest: Guest) -> float:
        """Wait until a guest runs; return the seconds. Raises PveError at the deadline."""
        attempt = f"wait until {guest.words} runs"
        started = time.monotonic()
        self.step(guest, "starts")
        while True:
            status = self.read(guest, attempt, "/status/current")
            if isinstance(status, Mapping) and status.get("status") == "running":
                self.step(guest, "runs")
                return round(time.monotonic() - started, 3)
            if self.deadline.left() <= _POLL_STATUS:
                raise PveError(attempt, "it was not running by the deadline", "look at its start task and its console")
            time.sleep(_POLL_STATUS)

    def task_warnings(self, done: Done) -> list[str]:
        """Return the lines of a task's log that are warnings, where its exit status says that there are some."""
        if not done.status.startswith("WARNINGS: "):
            return []
        with contextlib.suppress(PveError, TypeError, KeyError):
            upid = parse_upid(done.upid, "read a task's log")
            log = self.client.get("read a task's log", f"/nodes/{upid.node}/tasks/{upid.text}/log", limit=500)
            return [str(line["t"]) for line in log if str(line["t"]).startswith("WARN")]
        return []


def _upids(listed: Any) -> list[Upid]:
    found = []
    for item in listed if isinstance(listed, list) else ():
        with contextlib.suppress(PveError, AttributeError):
            found.append(parse_upid(item.get("upid"), "read the task list"))
    return found


def _taken(error: RestorePointError) -> bool:
    return "already used" in error.reason


def _gone(error: RestorePointError) -> bool:
    return re.search(r"snapshot '\S+' does not exist", error.reason) is not None
