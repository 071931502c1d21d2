# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore points of Kubernetes claims on CSI volumes: answers the protocol of core/backend.py.

What is in the other files, from the bottom up: `objects` (what the API's objects look like), `watching` (waiting for
many of them), `reading` (what is there), `preflight` (why something would fail), `operations` (create, wait, remove),
`groups` (several claims at one instant), `making` (snapshots, imports and clones of one call),
`returns` (of claims to snapshots, with returning/ and workloads/). Called by the bridge.

Each claim is a target, ``namespace/claim``. All of a call are created first and waited for together, so that they lie
as close as the storage lets them, and so that waiting costs one watch.

What is about returns, and about explaining what does not go on, is imported when it is needed: it is more than half of
this folder, and Python compiles a module's files anew in each run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable

from ... import kube_resources as api
from ...core import backend as core
from ...core.backend import Blocker, Change, Desired, Outcome, Situation
from ...core.claim_names import check_request
from ...core.errors import Blocked, InvalidInput, RestorePointError, StoreError
from ...core.names import is_aside
from ...core.snapshot import Snapshot
from ...deadline import Deadline
from ...kube import Access, KubeClient
from ...kube_login import KubeError
from . import objects, preflight
from .groups import Groups, equalities
from .making import Making
from .operations import Item, Operations
from .options import SECONDS_EACH, CsiOptions, Selection
from .reading import Facts, Needs, read, snapshots_of

if TYPE_CHECKING:
    from .explain import Explain
    from .returns import Returns

#: Seconds for which an API server that is away is asked again, at most; no longer than the timeout.
PATIENCE = 60.0
#: Taking back what failed gets at least so many seconds more.
LEAST_UNDO_SECONDS = 60.0


class CsiBackend:
    """Claims of one namespace. Use it inside ``session``, which logs in.

    Args:
        connect: makes the client, given the seconds for which a server that is away is asked again. Called by
            ``session``, after everything that can be checked without it.
        selection: which claims are meant.
        now: gives the time in seconds since the epoch.
    """

    name = "csi"

    def __init__(
        self,
        connect: Callable[[float], KubeClient],
        selection: Selection,
        options: CsiOptions,
        now: Callable[[], int] = lambda: int(time.time()),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connect = connect
        self.selection = selection
        self.options = options
        self._now = now
        self._sleep = sleep
        self.warnings: list[str] = []
        self._desired = Desired(state="present")
        self.facts = Facts(selection.namespace)
        self._client: KubeClient | None = None
        self._operations: Operations | None = None
        self._writing = False
        self._making: Making | None = None
        self._returns: Returns | None = None

    def check(self, desired: Desired) -> None:
        """Raise InvalidInput for what cannot be meant. Asks nobody. See core/backend.py."""
        self._desired = desired
        options, names = self.options, self.selection.names
        check_request(self.selection.namespace, names, self.selection.selector)
        objects.check_metadata(options.object_labels, options.object_annotations)
        if desired.name is not None and desired.state == "present":
            objects.check_new_name(desired.name, names)
            if is_aside(desired.name):
                raise InvalidInput(
                    f"use {desired.name!r} as a snapshot's name", "asides are called so", "choose another name"
                )
        elif desired.name is not None:
            objects.check_name(desired.name)
        if options.timeout < 1:
            raise InvalidInput(f"read timeout: {options.timeout:g}", "it is too small", "give 1 or more seconds")
        if options.import_handle is not None and (desired.state != "present" or len(names) != 1 or options.group):
            raise InvalidInput(
                f"import {options.import_handle!r}",
                "an import is the snapshot of one claim",
                "name one claim in pvc, with state: present and without group",
            )
        for clone in desired.clones.values():
            check_request(self.selection.namespace, [clone], None)

    @contextlib.contextmanager
    def session(self, writing: bool) -> Iterator[None]:
        """Log in, for the time of a block. There is nothing to lock: every object is changed by its version or uid."""
        self._client = self._connect(min(PATIENCE, self.options.timeout))
        deadline = Deadline(self.options.timeout)
        self._writing = writing
        self._operations = Operations(
            self._client, self.selection.namespace, deadline, self._explain, self.options.progress, self._sleep
        )
        yield

    def _explain(self) -> Explain:
        from .explain import Explain

        return Explain(self.client, now=self._now)

    @property
    def client(self) -> KubeClient:
        """The login, inside a session."""
        if self._client is None:
            raise RuntimeError("the backend is used outside of its session")
        return self._client

    @property
    def operations(self) -> Operations:
        """What can be done, inside a session."""
        if self._operations is None:
            raise RuntimeError("the backend is used outside of its session")
        return self._operations

    @property
    def making(self) -> Making:
        """What this call makes, once it is known what is there."""
        if self._making is None:
            raise RuntimeError("nothing was looked at yet")
        return self._making

    @property
    def returns(self) -> Returns:
        """The returns of this call, once it is known what is there."""
        if self._returns is None:
            raise RuntimeError("nothing was looked at yet")
        return self._returns

    @property
    def requests(self) -> int:
        """How many requests were sent."""
        return self._client.requests if self._client is not None else 0

    # -- what is there -------------------------------------------------------------------------------------------------

    def situations(self, desired: Desired) -> Sequence[Situation]:
        """Return what is there. See core/backend.py."""
        asides = self._means_asides(desired)
        needed = preflight.wanted_access(self.selection.namespace, desired, self.options, asides)
        if desired.state == "rolled_back":
            from .returns import wanted_access

            needed.update(wanted_access(self.selection.namespace, desired, self.options))
        denied = self._denied(needed)
        must_exist = desired.state == "present" and self.options.import_handle is None
        must_match = desired.state in ("present", "rolled_back", "cloned")
        needs = preflight.needs_of(desired, self.options, asides)
        if desired.state == "rolled_back" and not self.options.call_off:
            self._recover()
        self.facts = facts = read(self.client, self.selection, needs, must_exist, must_match)
        self.warnings += [
            f"claim {facts.target(each)} is left out: it is not bound, or being deleted" for each in facts.left_out
        ]
        self.operations.deadline.postpone(SECONDS_EACH * max(0, len(facts.wanted) - 1))
        groups = Groups(self.operations, self.selection.selector, self.options.group_snapshot_class)
        self._making = Making(self.operations, facts, self.options, self._meta(desired), groups)
        if desired.state == "rolled_back":
            self._add_missing()
            if not denied and not self.options.call_off:
                self._await_sources()
        if desired.state == "rolled_back" or asides:
            from .returns import Returns

            self._returns = Returns(self.operations, facts, self.options, desired, self._now, self._sleep)
        if desired.state == "rolled_back":
            self.returns.look()
        self._await_others(desired)
        found = [self._situation(claim, desired) for claim in facts.wanted]
        more = self._blockers_of_the_call(found, desired, denied, needed)
        return [_with_blockers(each, more.get(each.target, [])) for each in found]

    def _recover(self) -> None:
        """Complete or call off what dead runs have left of returns, but in check mode."""
        if not self._writing:
            return
        from .returning.swap import Swap

        operations = self.operations
        namespace, deadline, why = self.selection.namespace, operations.deadline, operations.why
        swap = Swap(self.client, namespace, deadline, self._now, self._sleep, why)
        try:
            self.warnings.extend(swap.recover(list(self.selection.names) or None))
        except RestorePointError as error:
            self.warnings.append(str(error))

    def _await_sources(self) -> None:
        """Wait until snapshots of the claims are taken: a moment longer than these are ready, claims cannot go."""
        facts = self.facts
        held = [claim for claim in facts.wanted if objects.is_held_as_source(facts.claims.get(claim))]
        if not held:
            return
        for name, item in self.operations.wait_let_go(held).items():
            facts.claims.pop(name, None)
            if item is not None:
                facts.claims[name] = item
        if any(objects.is_held_as_source(facts.claims.get(claim)) for claim in held):
            facts.snapshots = snapshots_of(self.client, facts.namespace)  # for saying which

    def _add_missing(self) -> None:
        """Add claims that a selector means and that are missing in the middle of a return."""
        from .returning.asides import open_journal

        wanted = equalities(self.selection.selector)
        for volume in self.facts.volumes.values() if wanted else ():
            with contextlib.suppress(StoreError):
                journal = open_journal(volume)
                if journal is None or journal.namespace != self.selection.namespace:
                    continue
                missing = journal.claim not in self.facts.claims
                if missing and (wanted or {}).items() <= dict(journal.labels).items():
                    self.facts.wanted = sorted({*self.facts.wanted, journal.claim})

    def _denied(self, needed: Mapping[Access, frozenset[str]]) -> list[Access]:
        """Return what is not allowed. Raises Blocked where not even reading is, with all that is missing."""
        try:
            denied = self.client.denied(list(needed))
        except KubeError as error:
            if error.status != 403:
                raise
            return []  # this login may not ask: each request will tell
        if any(not needed[each] for each in denied):
            remedy = "allow it with a Role or ClusterRole and its binding"
            here = self.selection.namespace
            blockers = [Blocker(here, f"this login may not {each}", remedy) for each in denied]
            raise Blocked(f"work on claims of namespace {here!r}", blockers)
        return denied

    def _means_asides(self, desired: Desired) -> bool:
        named = desired.name is not None and is_aside(desired.name)
        return desired.asides is not None or (named and desired.state == "absent")

    def _await_others(self, desired: Desired) -> None:
        """Wait for snapshots of the wanted name that another call has made and that are not ready yet."""
        if desired.state not in ("present", "cloned") or not self.options.wait or desired.name is None:
            return
        waiting = {}
        for claim in self.facts.wanted:
            item = self.making.current(claim, desired.name)
            going = item is not None and not item["metadata"].get("deletionTimestamp")
            if item is not None and going and not objects.is_ready(item) and objects.error_of(item) is None:
                waiting[item["metadata"]["name"]] = f"snapshot {desired.name!r} of {self.facts.target(claim)}"
        if not waiting:
            return
        found = self.operations.wait_ready(waiting)
        for items in self.facts.snapshots.values():
            for index, item in enumerate(items):
                seen = found.get(item["metadata"]["name"])
                if seen is not None and not isinstance(seen, RestorePointError):
                    items[index] = seen

    def _situation(self, claim: str, desired: Desired) -> Situation:
        facts, target = self.facts, self.facts.target(claim)
        restoring = facts.restoring
        snapshots = tuple(
            sorted(
                (
                    objects.as_snapshot(target, items[0], name, self._counts_as_ready(items[0], desired), restoring)
                    for name, items in facts.named(claim).items()
                ),
                key=lambda each: each.order,
            )
        )
        blockers: list[Blocker] = []
        clone_of = None
        if desired.state == "present":
            blockers.extend(self.making.blockers(claim))
        elif desired.state == "cloned":
            blockers.extend(preflight.cloning_blockers(facts, claim, desired, self.options))
            clone_of = self._clone_of(claim, desired)
        elif desired.state in ("absent", "pruned"):
            blockers.extend(self.making.removal_blockers(claim, desired.name))
        found = Situation(
            target,
            snapshots=snapshots,
            blockers=tuple(blockers),
            clone_of=clone_of,
            lacking=self._lacking(claim, desired),
        )
        if desired.state == "rolled_back":
            return self.returns.situation(claim, found)
        if self._returns is not None:
            return dataclasses.replace(found, asides=self._returns.surveys[claim].asides)
        return found

    def _counts_as_ready(self, item: Item, desired: Desired) -> bool | None:
        """Without wait, a snapshot that is still being made counts as present."""
        if desired.state != "present" or self.options.wait or item["metadata"].get("deletionTimestamp"):
            return None
        return True if objects.error_of(item) is None else None

    def _clone_of(self, claim: str, desired: Desired) -> str | None:
        """Return from which of the claim's snapshots the wanted clone was made, if it is there and a clone."""
        there = self.facts.claims.get(desired.clones[self.facts.target(claim)])
        source = objects.source_of(there) if there is not None else None
        if source is None:
            return None
        for name, items in self.facts.named(claim).items():
            if any(item["metadata"]["name"] == source for item in items):
                return name
        return f"volumesnapshot/{source}"

    def _lacking(self, claim: str, desired: Desired) -> dict[str, Any]:
        """Return what the backend's own options want of the wanted snapshot, and it does not have."""
        item = self.making.current(claim, desired.name) if desired.state == "present" and desired.name else None
        if item is None:
            return {}
        lacking: dict[str, Any] = {}
        options = self.options
        if not options.object_labels.items() <= objects.labels_of(item).items():
            lacking["object_labels"] = dict(options.object_labels)
        if not options.object_annotations.items() <= objects.annotations_of(item).items():
            lacking["object_annotations"] = dict(options.object_annotations)
        content = self.facts.contents.get(str(objects.status_of(item).get("boundVolumeSnapshotContentName")))
        policy = (content or {}).get("spec", {}).get("deletionPolicy")
        if options.deletion_policy is not None and policy not in (None, options.deletion_policy):
            lacking["deletion_policy"] = options.deletion_policy
        if desired.name is not None and objects.is_ready(item) and self.making.leftovers(claim, desired.name):
            lacking["leftovers"] = []
        return lacking

    def _blockers_of_the_call(
        self,
        found: Sequence[Situation],
        desired: Desired,
        denied: Sequence[Access],
        needed: Mapping[Access, frozenset[str]],
    ) -> dict[str, list[Blocker]]:
        """Return blockers that are about the call as a whole; each stands with the first target that it concerns."""
        more: dict[str, list[Blocker]] = {}
        for verbs in {needed[each] for each in denied}:
            concerned = [each for each in found if self._may_change(each, desired, verbs)][:1] or list(found[:1])
            for situation in concerned:
                those = [each for each in denied if needed[each] == verbs]
                more.setdefault(situation.target, []).extend(preflight.denied_blockers(situation.target, those, needed))
        if desired.state == "rolled_back":
            claims = {each.target: self.returns.demand(each.target.partition("/")[2]) for each in found}
            sizes = [each for each in claims.values() if each is not None]
            for target in [target for target, each in claims.items() if each is not None][:1]:
                blockers = preflight.quota_blockers(self.facts, target, sizes, preflight.RETURNS)
                more.setdefault(target, []).extend(blockers)
        if desired.state == "cloned":
            wanting = [each for each in found if each.clone_of is None and each.find(desired.name or "") is not None]
            demands = [self._demand(each.target) for each in wanting]
            for situation in wanting[:1]:
                blockers = preflight.quota_blockers(self.facts, situation.target, demands, preflight.CLONES)
                more.setdefault(situation.target, []).extend(blockers)
        return more

    def _may_change(self, situation: Situation, desired: Desired, verbs: frozenset[str]) -> bool:
        there = situation.find(desired.name) is not None if desired.name is not None else bool(situation.snapshots)
        if verbs & {core.CREATE, core.REPLACE}:
            return not there or desired.replace
        if core.CLONE in verbs:
            return situation.clone_of is None
        return there

    def _demand(self, target: str) -> tuple[str | None, int]:
        claim = target.partition("/")[2]
        item = self.making.current(claim, self._desired.name or "")
        size = preflight.clone_size(self.facts, claim, item or {}, self.options)
        return preflight.clone_class(self.facts, claim, self.options), size

    def _meta(self, desired: Desired) -> objects.Meta:
        options = self.options
        return objects.Meta(
            name=desired.name or "",
            owner=desired.owner,
            policy=desired.policy,
            description=desired.description or "",
            labels=dict(desired.labels or {}),
            object_labels=options.object_labels,
            object_annotations=options.object_annotations,
        )

    # -- changes -------------------------------------------------------------------------------------------------------

    def estimate(self, changes: Sequence[Change]) -> Sequence[Mapping[str, Any]]:
        """Tell the names of the objects that would be made. See core/backend.py."""
        return [
            self.returns.foreseen(change) if change.verb == core.ROLL_BACK else self.making.foreseen(change)
            for change in changes
        ]

    def prepare(self, change: Change) -> None:
        """Create what can still be given up. See core/backend.py."""
        self.making.prepare(change)

    def commit(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Wait until what was created counts, or make the other changes, all of a verb together."""
        acts: dict[str, Callable[[Sequence[Change]], Sequence[Outcome]]] = {
            core.CREATE: self.making.complete,
            core.REPLACE: self.making.complete,
            core.CLONE: self.making.complete_clones,
            core.DESCRIBE: self.making.describe,
            core.DESTROY: self._destroy,
            core.ROLL_BACK: self._roll_back,
        }
        return acts[changes[0].verb](changes)

    def _roll_back(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        try:
            return self.returns.carry_out(changes)
        finally:
            self._take_warnings()

    def _take_warnings(self) -> None:
        self.warnings.extend(self.returns.warnings)
        self.returns.warnings.clear()

    def _destroy(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Remove snapshots and asides, each kind together."""
        asides = [each for each in changes if self._is_aside(each)]
        others = [each for each in changes if not self._is_aside(each)]
        outcomes: dict[Change, Outcome] = {}
        if asides:
            wanted = [(each.target.partition("/")[2], each.name) for each in asides]
            for change, outcome in zip(asides, self.returns.swap.purge(wanted)):
                outcomes[change] = outcome
        if others:
            outcomes.update(zip(others, self.making.destroy(others)))
        return [outcomes[change] for change in changes]

    def _is_aside(self, change: Change) -> bool:
        if self._returns is None or not is_aside(change.name):
            return False
        survey = self._returns.surveys[change.target.partition("/")[2]]
        return any(each.name == change.name for each in survey.asides)

    def settle(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Tell of workloads that could not be brought back. See core/backend.py."""
        if changes and changes[0].verb == core.ROLL_BACK:
            return self.returns.settle(changes)
        return [{} for _unused in changes]

    def spend(self, target: str, token: str) -> None:
        """Remember a token. See core/backend.py."""
        self.returns.spend(target, token)

    def undo(self, change: Change) -> None:
        """Take a change back; the objects that this call made are removed all together."""
        self.operations.deadline.leave(LEAST_UNDO_SECONDS)
        if change.verb == core.ROLL_BACK:
            try:
                self.returns.undo(change)
            finally:
                self._take_warnings()
        else:
            self.making.undo(change)

    def abandon(self, change: Change) -> None:
        """Give up what was prepared. See core/backend.py."""
        self.operations.deadline.leave(LEAST_UNDO_SECONDS)
        self.making.abandon(change)

    def finish(self, change: Change) -> Sequence[str]:
        """Remove what was replaced. See core/backend.py."""
        return self.making.finish(change)

    def more_results(self) -> dict[str, Any]:
        """Return what the result of the call says beside its changes."""
        found = self._returns.workloads if self._returns is not None else []
        return {"workloads": found} if found else {}

    def start_left(self, check_mode: bool) -> bool:
        """Bring back workloads that a killed run had stopped; say whether there were any. Raises RestorePointError."""
        if self._returns is None or self._desired.state != "rolled_back":
            return False
        return bool(self._returns.start_left(check_mode))

    def look(self, contents: bool) -> Facts:
        """Return what is there, for showing it."""
        self.facts = read(self.client, self.selection, Needs(contents=contents), must_exist=False, must_match=False)
        return self.facts

    def listed_asides(self) -> list[Snapshot]:
        """Return what returns kept aside of the claims that are meant."""
        from .returning.asides import survey
        from .returning.journal import NAMESPACE

        try:
            selector = f"{NAMESPACE}={self.selection.namespace}"
            volumes = self.client.list_objects(
                "list the volumes that returns kept", api.VOLUMES, selector=selector
            ).items
        except KubeError as error:
            if error.status != 403:
                raise
            self.warnings.append(f"asides are not shown: {error}")
            return []
        claims = {claim: self.facts.claims.get(claim) for claim in self.facts.wanted}
        found = survey(self.selection.namespace, claims, volumes)
        return [aside for claim in self.facts.wanted for aside in found[claim].asides]

    def listed(self) -> list[Snapshot]:
        """Return every snapshot of the claims that are meant, in the common form, oldest first for each claim."""
        found: list[Snapshot] = []
        for claim in self.facts.wanted:
            target = self.facts.target(claim)
            own = [
                objects.as_snapshot(target, item, name, None, self.facts.restoring)
                for name, items in self.facts.named(claim).items()
                for item in items[:1]
            ]
            found += sorted(own, key=lambda each: each.order)
        return found


def _with_blockers(situation: Situation, more: Sequence[Blocker]) -> Situation:
    if not more:
        return situation
    return dataclasses.replace(situation, blockers=(*situation.blockers, *more))
