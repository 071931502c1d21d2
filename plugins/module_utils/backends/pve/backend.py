# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore points of Proxmox VE guests: answers the protocol of core/backend.py.

What is in the other files, from the bottom up: `metadata` (the last line of a description), `guests` (who is meant),
`listing` (the API's list, and the tree), `preflight` (why something would fail), `tasks` (when a task has ended),
`workers` (many guests at once), `operations` (what is done to one guest). Here they are put together. Called by the
bridge.

Each guest is a target, ``qemu/100``. A batch cannot count as one: guests are done in parallel, and the error of each
that failed stands in the place of its report.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ...core import backend as core
from ...core.backend import Change, Desired, Immediate, Outcome, Situation
from ...core.errors import InvalidInput, NotBegun, RestorePointError
from ...core.names import aside_name
from ...core.snapshot import Snapshot
from ...deadline import Deadline
from ...pve import PveClient, PveError, Transport
from . import guests as selecting
from . import preflight
from .guests import Cluster, Guest, Selection, read_cluster
from .listing import Listed, Listing, as_snapshot, is_kept_aside
from .metadata import QEMU, Metadata, check_name, compose
from .operations import Operations, Report
from .preflight import Asked, Facts, Permissions
from .tasks import TaskWatcher
from .workers import Job, in_parallel

_LOCK_POLL = 2.0
_LEAST_UNDO_SECONDS = 60.0
#: What may be planned for each state.
_VERBS = {
    "present": frozenset({core.CREATE, core.REPLACE, core.DESCRIBE}),
    "absent": frozenset({core.DESTROY}),
    "rolled_back": frozenset({core.ROLL_BACK}),
    "pruned": frozenset({core.DESTROY}),
}


@dataclass(frozen=True)
class PveOptions:
    """What a call may set beside guests and state. ``timeout``, ``api_timeout`` and ``lock_timeout`` in seconds.

    ``can_unlock``: the API lets this login take locks away. ``undoes``: what failed is to be taken back.
    """

    vmstate: bool = False
    force: bool = False
    start: bool = False
    only_if_current_parent: bool = False
    repair: bool = False
    can_unlock: bool = False
    undoes: bool = True
    parallel: int = 8
    lock_timeout: float = 60.0
    timeout: float = 3600.0
    api_timeout: float = 30.0
    progress: Report | None = None


class PveBackend(Immediate):
    """Guests of one cluster. Use it inside ``session``, which logs in.

    Args:
        connect: makes the transport: called by ``session``, after everything that can be checked without it.
        selection: which guests are meant.
        now: gives the time in seconds since the epoch.
    """

    name = "pve"

    def __init__(
        self,
        connect: Callable[[], Transport],
        selection: Selection,
        options: PveOptions,
        now: Callable[[], int] = lambda: int(time.time()),
    ) -> None:
        self._connect = connect
        self._selection = selection
        self.options = options
        self._now = now
        self.warnings: list[str] = []
        self.guests: dict[str, Guest] = {}
        self.cluster = Cluster()
        self._run = os.urandom(4).hex()
        self._listings: dict[str, Listing] = {}
        self._desired = Desired(state="present")
        self._asides: dict[str, str] = {}
        self._waited: set[str] = set()
        self._noted: set[str] = set()
        self._committed: dict[Change, None] = {}
        self._undone: dict[Change, RestorePointError | None] = {}
        self._operations: Operations | None = None

    @property
    def operations(self) -> Operations:
        """What can be done to a guest, inside a session."""
        if self._operations is None:
            raise RuntimeError("the backend is used outside of its session")
        return self._operations

    def check(self, desired: Desired) -> None:
        """Raise InvalidInput for what cannot be meant. Asks nobody. See core/backend.py."""
        self._desired = desired
        selecting.check(self._selection)
        if desired.name is not None:
            check_name(desired.name, f"use {desired.name!r} as a snapshot's name")
        compose(desired.description or "", self._metadata(desired))
        for option, value, least in (("parallel", self.options.parallel, 1), ("timeout", self.options.timeout, 1)):
            if value < least:
                raise InvalidInput(f"read {option}: {value:g}", "it is too small", f"give {least} or more")

    @contextlib.contextmanager
    def session(self, writing: bool) -> Iterator[None]:
        """Log in, for the time of a block. There is nothing to lock: Proxmox VE locks each guest for each task."""
        deadline = Deadline(self.options.timeout)
        client = PveClient(self._connect(), self.options.api_timeout, deadline)
        watcher = TaskWatcher(client, deadline)
        self._operations = Operations(client, watcher, self.options.lock_timeout, self._run, self.options.progress)
        try:
            yield
        finally:
            watcher.close()

    @property
    def calls(self) -> int:
        """How many calls of the API were made."""
        return self._operations.client.calls if self._operations else 0

    # -- what is there -------------------------------------------------------------------------------------------------

    def find_guests(self) -> list[Guest]:
        """Ask for the cluster's resources, and return the guests that are meant. Raises RestorePointError."""
        # Without a type the answer has the storages too, of which a return wants to know the kind.
        words = {} if self._desired.state == "rolled_back" else {"type": "vm"}
        client = self.operations.client
        self.cluster = read_cluster(client.get("read the cluster's resources", "/cluster/resources", **words))
        chosen = selecting.select(self.cluster, self._selection)
        self.guests = {guest.target: guest for guest in chosen}
        return chosen

    def situations(self, desired: Desired) -> Sequence[Situation]:
        """Return what is there. See core/backend.py."""
        chosen = self.find_guests()
        if not chosen:
            return []
        permissions = self._permissions()
        chains = self._chains(desired)
        facts = self.for_each(chosen, lambda guest: self._facts(guest, desired, chains))
        found = [self._situation(each, desired, permissions) for each in facts]
        if self._waits_for(facts, found, desired):
            # Whoever held a lock may have changed anything.
            again = {each.guest.target: each.guest for each in facts if each.guest.target in self._waited}
            read = self.for_each(list(again.values()), lambda guest: self._facts(guest, desired, chains))
            anew = {each.guest.target: each for each in read}
            facts = [anew.get(each.guest.target, each) for each in facts]
            found = [self._situation(each, desired, permissions) for each in facts]
        self._listings = {each.guest.target: each.listing for each in facts}
        return found

    def for_each(self, chosen: Sequence[Guest], read: Callable[[Guest], Any]) -> list[Any]:
        """Read something of each guest, several at once; raise one error that names all that could not be read."""
        jobs = [Job(guest.node, guest.words, lambda guest=guest: read(guest)) for guest in chosen]  # type: ignore[misc]
        found = in_parallel(jobs, self.options.parallel)
        errors = [each for each in found if isinstance(each, RestorePointError)]
        if len(errors) == 1:
            raise errors[0]
        if errors:
            listed = "; ".join(f"{guest.words}: {each.reason}" for guest, each in zip(chosen, found)
                               if isinstance(each, RestorePointError))  # fmt: skip
            raise PveError(f"read {len(errors)} of {len(chosen)} guests", listed, errors[0].remedy)
        return found

    def _permissions(self) -> Permissions:
        """Ask what the user may do. Where that cannot be asked, each call will tell."""
        user = self.operations.client.transport.user
        if user == "root@pam":
            return Permissions(user=user)
        try:
            found = self.operations.client.get("ask for the user's permissions", "/access/permissions")
        except PveError as error:
            if error.status == 401:
                raise
            return Permissions(user=user)
        return Permissions(found if isinstance(found, dict) else None, user)

    def _waits_for(self, facts: Sequence[Facts], found: Sequence[Situation], desired: Desired) -> bool:
        """Give those who work on a guest until ``lock_timeout`` to end; say whether anybody was waited for.

        Not where nothing is to be done to the guest, where something else stands in the way of the call in any case, or
        where a lock was left behind by a task that is no more.
        """
        acts = [each for each in facts if self._may_act(each, desired)]
        locked = [each.guest for each in acts if each.guest.lock and not self._will_unlock(each.guest)]
        others = [
            blocker
            for each, situation in zip(facts, found)
            for blocker in situation.blockers
            if each in acts and not preflight.is_lock(blocker) and blocker.verbs & _VERBS[desired.state]
        ]
        if not locked or others or all(self._is_left_behind(guest) for guest in locked):
            return False
        self._waited = {guest.target for guest in locked}
        client = self.operations.client
        until = time.monotonic() + min(self.options.lock_timeout, client.deadline.left())
        while any(guest.lock for guest in locked) and time.monotonic() < until:
            self.operations.step(locked[0], "waits", reason=f"{len(locked)} guests are locked")
            time.sleep(min(_LOCK_POLL, max(0.0, until - time.monotonic())))
            answer = client.get("look at the guests' locks", "/cluster/resources", type="vm")
            now = {guest.target: guest for guest in read_cluster(answer).guests}
            for guest in locked:
                if guest.target in now:
                    guest.lock, guest.node = now[guest.target].lock, now[guest.target].node
        return True

    def _may_act(self, facts: Facts, desired: Desired) -> bool:
        """Say whether anything may have to be done to a guest. What the plan says then is another matter."""
        snapshot = facts.listing.find(desired.name) if desired.name else None
        if desired.state == "present":
            return (
                snapshot is None
                or desired.replace
                or desired.description not in (None, snapshot.description)
                or (desired.labels is not None and dict(desired.labels) != dict(snapshot.metadata.labels))
            )
        if desired.state == "pruned":
            return bool(facts.listing.snapshots)
        return snapshot is not None and (desired.once is None or desired.once not in snapshot.metadata.once)

    def _will_unlock(self, guest: Guest) -> bool:
        options = self.options
        return guest.lock in preflight.LEFT_BEHIND and self._may_repair(guest) and options.repair

    def _may_repair(self, guest: Guest) -> bool:
        return self.options.can_unlock and guest.type == QEMU

    def _is_left_behind(self, guest: Guest) -> bool:
        """Say whether a lock is one that a task has left behind, and nobody can be waited for."""
        client = self.operations.client
        if guest.lock not in preflight.LEFT_BEHIND or client.transport.user != "root@pam":
            return False  # others' tasks are not shown to everybody
        path = f"/nodes/{guest.node}/tasks"
        with contextlib.suppress(PveError):
            found = client.get(f"look for tasks of {guest.words}", path, vmid=guest.vmid, source="active", limit=50)
            return all(str(each.get("status") or "") not in ("", "RUNNING") for each in found)
        return False

    def _chains(self, desired: Desired) -> frozenset[str]:
        """Return the storages whose qcow2 files are chains. Older releases have none, and not everybody may ask."""
        if desired.state != "rolled_back":
            return frozenset()
        try:
            found = self.operations.client.get("ask for the storages", "/storage")
            return frozenset(each["storage"] for each in found if each.get("snapshot-as-volume-chain"))
        except (PveError, KeyError, TypeError, AttributeError):
            return frozenset()

    def _facts(self, guest: Guest, desired: Desired, chains: frozenset[str]) -> Facts:
        """Ask what the plan and the preflight need to know of one guest, and no more."""
        operations = self.operations
        listing = operations.listing(guest)
        wanted = listing.find(desired.name) if desired.name else None
        makes = desired.state == "present" and (wanted is None or desired.replace)
        returns = desired.state == "rolled_back" and wanted is not None
        feature, config, wanted_config = None, None, None
        if (makes or (returns and desired.keep_current)) and not guest.template:
            answer = operations.read(guest, f"ask what {guest.words} can do", "/feature", feature="snapshot")
            feature = (
                bool(int(answer["hasFeature"])) if isinstance(answer, Mapping) and "hasFeature" in answer else None
            )
            if feature is False or (self.options.vmstate and guest.type == QEMU):
                config = operations.read(guest, f"read the configuration of {guest.words}", "/config")
        if returns:
            attempt = f"read snapshot {desired.name!r} of {guest.words}"
            wanted_config = operations.read(guest, attempt, f"/snapshot/{desired.name}/config")
        return Facts(guest, listing, feature, config, wanted_config, chains)

    def _situation(self, facts: Facts, desired: Desired, permissions: Permissions) -> Situation:
        guest, listing = facts.guest, facts.listing
        asked = Asked(
            vmstate=self.options.vmstate,
            start=self.options.start,
            only_if_current_parent=self.options.only_if_current_parent,
            repair=self.options.repair,
            can_unlock=self._may_repair(guest),
            status=self._selection.status,
        )
        shown = [each for each in listing.snapshots if not self._goes_anyway(guest, each, desired)]
        snapshot = listing.find(desired.name) if desired.name else None
        volumes = preflight.newest_only(facts, self.cluster) if desired.state == "rolled_back" else []
        return Situation(
            guest.target,
            snapshots=tuple(as_snapshot(guest, each, listing) for each in shown if not is_kept_aside(each)),
            asides=tuple(as_snapshot(guest, each, listing) for each in shown if is_kept_aside(each)),
            blockers=tuple(preflight.blockers(facts, desired, asked, permissions, self.cluster)),
            returned=dict(snapshot.metadata.once) if snapshot is not None else {},
            warnings=tuple(preflight.mentions(listing, guest, desired, asked)),
            newest_only=bool(volumes),
        )

    def _goes_anyway(self, guest: Guest, listed: Listed, desired: Desired) -> bool:
        """Say whether a half made snapshot is removed on the way: then the plan need not know of it."""
        if not listed.snapstate or not self.options.repair or not self._repairable(guest):
            return False
        return desired.state in ("present", "rolled_back") and not (
            desired.state == "rolled_back" and listed.name == desired.name
        )

    def _repairable(self, guest: Guest) -> bool:
        """Say whether half made snapshots of a guest can be removed: with a lock in the way, only where it can go."""
        return guest.lock is None or self._may_repair(guest)

    # -- changes -------------------------------------------------------------------------------------------------------

    def prepare(self, change: Change) -> None:
        """Do nothing: what is slow here is a task, and those run in parallel, in commit."""

    def commit(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Make changes, in parallel across guests and one after the other on each. See core/backend.py."""
        for node in sorted({self.guests[change.target].node for change in changes} - self._noted):
            self._noted.add(node)
            self.operations.note_tasks(node)
        return self._spread(changes, self._commit_one, self.options.undoes)

    def _spread(self, changes: Sequence[Change], act: Callable[[Change], Any], stop_on_failure: bool) -> list[Outcome]:
        by_target: dict[str, list[int]] = {}
        for index, change in enumerate(changes):
            by_target.setdefault(change.target, []).append(index)

        def job(target: str, indexes: Sequence[int]) -> Job:
            guest = self.guests[target]
            return Job(guest.node, guest.words, lambda: self._in_order([changes[each] for each in indexes], act))

        found = in_parallel([job(*each) for each in by_target.items()], self.options.parallel, stop_on_failure)
        outcomes: list[Outcome] = [{}] * len(changes)
        for indexes, result in zip(by_target.values(), found):
            # An error of the job as a whole is NotBegun, or a defect; one of a change stands in its own place.
            several = [result] * len(indexes) if isinstance(result, RestorePointError) else result.outcomes
            for index, outcome in zip(indexes, several):
                outcomes[index] = outcome
        return outcomes

    def _in_order(self, changes: Sequence[Change], act: Callable[[Change], Any]) -> _Sequence | RestorePointError:
        """Make one guest's changes; after one that fails, the others of it are not begun."""
        outcomes: list[Any] = []
        failure: RestorePointError | None = None
        for change in changes:
            if failure is not None:
                words = self.guests[change.target].words
                outcomes.append(NotBegun(f"go on with {words}", f"the step before it failed: {failure.reason}"))
                continue
            try:
                outcomes.append(act(change))
            except RestorePointError as error:
                failure = error
                outcomes.append(error)
        return outcomes[0] if len(outcomes) == 1 and failure is not None else _Sequence(outcomes)

    def _commit_one(self, change: Change) -> Mapping[str, Any]:
        acts = {
            core.CREATE: self._create,
            core.REPLACE: self._replace,
            core.DESCRIBE: self._describe,
            core.DESTROY: self._destroy,
            core.ROLL_BACK: self._roll_back,
        }
        guest = self.guests[change.target]
        if self.operations.deadline.left() <= 0:
            raise NotBegun(f"begin with {guest.words}", "the timeout had run out")
        facts = {**self._repair(guest, change), **acts[change.verb](guest, change), **guest.facts()}
        self._committed[change] = None
        return facts

    def _repair(self, guest: Guest, change: Change) -> dict[str, Any]:
        """Remove what killed or failed tasks have left of a guest, where that was asked for and is in the way."""
        if not self.options.repair or not self._repairable(guest):
            return {}
        done: list[str] = []
        if guest.lock in preflight.LEFT_BEHIND:
            self.operations.unlock(guest)
            done.append("lock")
        for each in self._listings[guest.target].broken:
            if each.name != change.name or change.verb == core.CREATE:
                self.operations.delete(guest, each.name, force=True)
                done.append(each.name)
        return {"repaired": done} if done else {}

    def _create(self, guest: Guest, change: Change) -> dict[str, Any]:
        return self._take(guest, change.name, compose(self._desired.description or "", self._metadata(self._desired)))

    def _take(self, guest: Guest, name: str, text: str, vmstate: bool | None = None) -> dict[str, Any]:
        """Take a snapshot and return what results say of it."""
        ram = self.options.vmstate if vmstate is None else vmstate
        ram = ram and self._listings[guest.target].running
        done, listed, listing = self.operations.create(guest, name, text, ram, clean=self.options.undoes)
        self._note_warnings(guest, self.operations.task_warnings(done))
        if ram and not listed.vmstate:
            self._note_warnings(guest, [f"{name!r} was taken without RAM: the VM has stopped meanwhile"])
        snapshot = as_snapshot(guest, listed, listing)
        return {**done.facts(), "snapshot": snapshot.as_result(), "instant": float(listed.snaptime)}

    def _note_warnings(self, guest: Guest, found: Sequence[str]) -> None:
        self.warnings.extend(f"{guest.words}: {each}" for each in found)

    def _metadata(self, desired: Desired, **more: Any) -> Metadata:
        return Metadata(desired.owner, desired.policy, dict(desired.labels or {}), run=self._run, **more)

    def _replace(self, guest: Guest, change: Change) -> dict[str, Any]:
        """Take a new snapshot of the name of one that is there. None can be renamed, so another one bridges the gap."""
        old = self._listings[guest.target].find(change.name)
        text = compose(self._desired.description or "", self._metadata(self._desired))
        bridge = f"new-{self._run}"
        self._take(guest, bridge, text, vmstate=False)
        try:
            self.operations.delete(guest, change.name, force=self.options.force or bool(old and old.snapstate))
        except RestorePointError:
            with contextlib.suppress(RestorePointError):
                self.operations.delete(guest, bridge)
            raise
        try:
            facts = self._take(guest, change.name, text)
        except RestorePointError as error:
            reason = f"{error.reason}; the old one is gone, and what was new is in snapshot {bridge!r}"
            raise RestorePointError(error.attempt, reason, error.remedy) from error
        try:
            self.operations.delete(guest, bridge)
        except RestorePointError as error:
            self._note_warnings(guest, [f"snapshot {bridge!r} is left: {error}"])
        return facts

    def _describe(self, guest: Guest, change: Change) -> dict[str, Any]:
        listed = self._old(guest, change.name)
        metadata = listed.metadata
        if "labels" in change.arguments:
            metadata = dataclasses.replace(metadata, labels=change.arguments["labels"])
        text = compose(change.arguments.get("description", listed.description), metadata)
        self.operations.describe(guest, change.name, text)
        return {}

    def _old(self, guest: Guest, name: str) -> Listed:
        listed = self._listings[guest.target].find(name)
        if listed is None:
            raise RestorePointError(
                f"change snapshot {name!r} of {guest.words}", "it is not there", "look at the guest"
            )
        return listed

    def _destroy(self, guest: Guest, change: Change) -> dict[str, Any]:
        listed = self._old(guest, change.name)
        half = bool(listed.snapstate) and self.options.repair
        return self.operations.delete(guest, change.name, force=self.options.force or half).facts()

    def _roll_back(self, guest: Guest, change: Change) -> dict[str, Any]:
        listing = self._listings[guest.target]
        facts: dict[str, Any] = {"was_running": listing.running}
        if change.arguments["keep_current"]:
            facts["aside"] = self._keep_aside(guest, change.name)
        try:
            done = self.operations.roll_back(guest, change.name, self.options.start)
        except RestorePointError:
            self._drop_aside(guest)
            raise
        self._note_warnings(guest, self.operations.task_warnings(done))
        once = change.arguments["once"]
        if once is not None:
            self._spend(guest, change.name, once)
        return {**facts, **done.facts()}

    def _keep_aside(self, guest: Guest, name: str) -> dict[str, Any]:
        """Take a snapshot of what is there before a return."""
        aside = aside_name(self._now())
        while self._listings[guest.target].find(aside):
            stem, _unused, number = aside.partition("z-")
            aside = f"{stem.rstrip('z')}z-{int(number or 1) + 1}"
        text = compose(f"What was there before the return to {name}", self._metadata(self._desired, aside_of=name))
        self._take(guest, aside, text, vmstate=False)
        self._asides[guest.target] = aside
        return {"name": aside}

    def _drop_aside(self, guest: Guest) -> None:
        """Remove what was kept aside for a return that did not begin. One that began needs it: then a lock is left."""
        aside = self._asides.get(guest.target)
        if aside is None or not self.options.undoes:
            return
        try:
            self.operations.delete(guest, aside)
            del self._asides[guest.target]
        except RestorePointError as error:
            self._note_warnings(guest, [f"what was there before is kept as {aside!r}: {error.reason}"])

    def spend(self, target: str, token: str) -> None:
        """Remember a token. See core/backend.py."""
        if self._desired.name is not None:
            self._spend(self.guests[target], self._desired.name, token)

    def _spend(self, guest: Guest, name: str, token: str) -> None:
        listed = self._old(guest, name)
        once = {**listed.metadata.once, token: self._now()}
        try:
            text = compose(listed.description, dataclasses.replace(listed.metadata, once=once))
            self.operations.describe(guest, name, text)
        except RestorePointError as error:
            self._note_warnings(
                guest, [f"it was returned, but that once: {token} is used up could not be noted: {error}"]
            )

    def settle(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Wait for guests that start after a return. See core/backend.py."""
        starts = self.options.start and bool(changes) and changes[0].verb == core.ROLL_BACK
        if not starts:
            return [{} for _unused in changes]

        def wait(change: Change) -> Mapping[str, Any]:
            return {"start_seconds": self.operations.wait_running(self.guests[change.target]), "running": True}

        return self._spread(changes, wait, stop_on_failure=False)

    def undo(self, change: Change) -> None:
        """Take a change back. A run that takes one back takes all of them back, so that is done for all at once."""
        if change not in self._undone:
            self.operations.deadline.leave(max(_LEAST_UNDO_SECONDS, self.options.timeout))
            changes = list(self._committed)
            outcomes = self._spread(changes, self._undo_one, stop_on_failure=False)
            for each, outcome in zip(changes, outcomes):
                self._undone[each] = outcome if isinstance(outcome, RestorePointError) else None
            self._committed.clear()
        error = self._undone.get(change)
        if error is not None:
            raise error

    def _undo_one(self, change: Change) -> Mapping[str, Any]:
        guest = self.guests[change.target]
        self.operations.step(guest, "undo", snapshot=change.name)
        if change.verb == core.CREATE:
            self.operations.delete(guest, change.name)
        elif change.verb == core.DESCRIBE:
            self.operations.describe(guest, change.name, self._old(guest, change.name).raw)
        elif change.verb == core.ROLL_BACK and guest.target in self._asides:
            self._return_to_aside(guest)
        else:
            raise RestorePointError(
                f"undo what was done to {guest.words}", "Proxmox VE keeps nothing of what was there", "look at results"
            )
        return {}

    def _return_to_aside(self, guest: Guest) -> None:
        """Bring back what a return had kept aside; the guest runs again if it ran."""
        aside = self._asides.pop(guest.target)
        running = self._listings[guest.target].running
        self.operations.roll_back(guest, aside, running)
        if running:
            self.operations.wait_running(guest)
        self.operations.delete(guest, aside)

    def abandon(self, change: Change) -> None:
        """Do nothing: nothing is prepared. See core/backend.py."""

    def finish(self, change: Change) -> Sequence[str]:
        """Do nothing. See core/backend.py."""
        return ()


@dataclass(frozen=True)
class _Sequence:
    """The outcomes of one guest's changes, in their order."""

    outcomes: Sequence[Any]


def snapshots_of(guest: Guest, listing: Listing) -> list[Snapshot]:
    """Return a guest's snapshots in the common form, oldest first, what returns kept aside too."""
    return [as_snapshot(guest, each, listing) for each in listing.snapshots]
