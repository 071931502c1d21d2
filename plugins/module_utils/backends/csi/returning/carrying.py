# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carries out the steps of returns, each for all claims before the next: one list and one watch wait for all of them.

Called by swap.py. It looks, has steps.py decide, and acts. A request that is overtaken (409) is followed by a new look.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .... import kube_resources as api
from ....core.errors import RestorePointError
from ....deadline import Deadline
from ....kube import KubeClient
from ....kube_login import KubeError
from .. import objects
from ..watching import Waiter, Wanted, Watched
from . import changes, steps
from . import journal as j
from .journal import Journal
from .owners import Owners
from .steps import Next, Problem, Scene
from .world import World, going

Object = Mapping[str, Any]
#: Says of objects, by uid, why they are not as wanted: events, finalizers.
Why = Callable[[Sequence[Object]], Mapping[str, Sequence[str]]]
#: After so many steps of one return something else is at work on it.
_MOST_STEPS = 200
#: Where several claims are waited for after their swap began, those that are ready go on after so many seconds.
_SLICE = 1.0
_REST = 0.3
#: So long (seconds) a volume that is being made is waited for when its return is called off.
_ON_ITS_WAY = 10.0


def no_reasons(_objects: Sequence[Object]) -> Mapping[str, Sequence[str]]:
    """Know no reasons."""
    return {}


@dataclass
class Case:
    """One return on its way. ``opened``: its journal is on the old volume. ``error`` ends it."""

    journal: Journal
    attempt: str
    opened: bool = False
    resumed: bool = False
    error: RestorePointError | None = None
    swapping: bool = False
    taken: int = 0
    patient: bool = False
    waited: str = ""


class Carrier:
    """Leads returns from step to step. See the module."""

    def __init__(
        self,
        client: KubeClient,
        world: World,
        owners: Owners,
        deadline: Deadline,
        sleep: Callable[[float], None],
        why: Why,
    ) -> None:
        self._client = client
        self._world = world
        self._owners = owners
        self._deadline = deadline
        self._sleep = sleep
        self._why = why
        self._acts: dict[str, Callable[[Case, Scene], None]] = {
            steps.CREATE_TEMPORARY: self._create_temporary,
            steps.DELETE_TEMPORARY: lambda case, scene: self._delete(case, scene.temporary),
            steps.DELETE_CLAIM: lambda case, scene: self._delete(case, scene.claim),
            steps.CREATE_CLAIM: self._create_claim,
            steps.RETAIN_OLD: lambda case, scene: self._patch(case, scene.old, changes.retain),
            steps.RETAIN_NEW: self._retain_new,
            steps.RESERVE: lambda case, _scene: self._unclaimed(case, changes.reserve),
            steps.MARK: lambda case, scene: self._patch(case, scene.old, changes.mark),
            steps.CLOSE_NEW: lambda case, scene: self._patch(case, scene.new, changes.close_new, case.journal),
            steps.CLOSE_OLD: lambda case, scene: self._patch(case, scene.old, changes.close_old, case.journal),
            steps.REMOVE_OLD: lambda case, scene: self._patch(case, scene.old, changes.remove_old),
            steps.CALL_OFF: lambda case, scene: self._patch(case, scene.old, changes.call_off),
            steps.DISCARD_NEW: lambda case, _scene: self._unclaimed(case, changes.discard_new),
            steps.ASIDE_AGAIN: lambda case, scene: self._patch(case, scene.new, changes.aside_again, case.journal),
            steps.RELEASE_OLD: self._release_old,
        }

    def carry(self, cases: Sequence[Case], decide: Callable[[Scene], Next], until: Collection[str] = ()) -> None:
        """Lead each case on until it is done, its next step is one of ``until``, or it has an error."""
        patience = _SLICE
        while True:
            due = self._due(cases, decide, until)
            if not due:
                return
            acting = [(case, step) for case, step in due if step not in steps.WAITS]
            if acting:
                self._act(acting)
                patience = _SLICE
            else:
                self._wait(due, patience)
                patience *= 2

    def look(self, cases: Sequence[Case]) -> None:
        """Look at everything anew, where there are cases."""
        if cases:
            self._guarded(cases, self._world.look)

    def ready(self, cases: Sequence[Case]) -> None:
        """Look once more before the swap: a case whose claim is still used has an error."""
        for case, step in self._due(cases, steps.next_step, ()):
            if step == steps.CHECK_PODS:
                self._guarded([case], lambda: self._world.look_for_pods([each.journal.claim for each in cases]))
        self._due(cases, steps.next_step, ())

    # Deciding

    def _due(
        self, cases: Sequence[Case], decide: Callable[[Scene], Next], until: Collection[str]
    ) -> list[tuple[Case, str]]:
        due = []
        for case in cases:
            if case.error is not None:
                continue
            try:
                step = decide(self._world.scene(case.journal))
            except RestorePointError as error:
                self._fail(case, error.reason, error.remedy)
                continue
            if isinstance(step, Problem):
                self._fail(case, step.reason, step.remedy)
            elif step != steps.DONE and step not in until:
                due.append((case, step))
        return due

    def _fail(self, case: Case, reason: str, remedy: str) -> None:
        if case.swapping or self.stage(case) == j.SWAPPING:
            remedy += f"; the next run completes the return, and volume {case.journal.old} holds the old data"
        case.error = RestorePointError(case.attempt, reason, remedy)

    def stage(self, case: Case) -> str | None:
        """Return how far a return has come, as its old volume was last seen."""
        old = self._world.volumes.get(case.journal.old)
        return None if old is None or j.id_of(old) != case.journal.id else j.stage_of(old)

    # Acting

    def _act(self, due: Sequence[tuple[Case, str]]) -> None:
        lookers = [case for case, step in due if step == steps.CHECK_PODS]
        if lookers:
            self._guarded(lookers, lambda: self._world.look_for_pods([case.journal.claim for case in lookers]))
        # First all that are behind: so that each step is done for all claims before the next one.
        behind = min((_ORDER.index(step) for _case, step in due if step != steps.CHECK_PODS), default=None)
        unready = [case for case, step in due if step == steps.DELETE_TEMPORARY and not case.patient]
        if unready and self._let_come(unready):
            return
        stale = False
        for case, step in due:
            if behind is not None and step == _ORDER[behind]:
                stale = self._step(case, step) or stale
        if stale:
            self._guarded([case for case, _step in due], self._world.look)

    def _let_come(self, cases: Sequence[Case]) -> bool:
        """Wait a little for volumes that are on their way, before their claims go; return whether it was waited.

        A provisioner that is at work makes the volume also when its claim has gone meanwhile. Of a storage class with
        Retain nobody would ever remove it.
        """
        wanted: dict[str, Wanted] = {}
        for case in cases:
            case.patient = True
            claim = self._world.claims.get(case.journal.temporary)
            if claim is not None and objects.status_of(claim).get("phase") == "Pending":
                wanted[case.journal.temporary] = _bound_or_lost
        if not wanted:
            return False
        seen = self._listen(cases, api.CLAIMS, wanted, self._deadline.part(_ON_ITS_WAY))
        if seen is not None:
            self._world.take(seen.objects)
            self._guarded(cases, self._world.look_at_volumes)
        return True

    def _step(self, case: Case, step: str) -> bool:
        """Do one step of one case; return whether somebody else was faster, so that a new look is needed."""
        case.taken += 1
        if case.taken > _MOST_STEPS:
            self._fail(case, f"it does not get beyond: {step}", "see who else changes its volumes, and run again")
            return False
        case.swapping = case.swapping or step in steps.SWAP
        try:
            self._acts[step](case, self._world.scene(case.journal))
        except KubeError as error:
            if error.status in (404, 409):
                return True
            self._fail(case, f"to {step} failed: {error.reason}", error.remedy)
        except RestorePointError as error:
            self._fail(case, error.reason, error.remedy)
        return False

    def _guarded(self, cases: Sequence[Case], look: Callable[[], None]) -> None:
        try:
            look()
        except RestorePointError as error:
            for case in cases:
                if case.error is None:
                    self._fail(case, error.reason, error.remedy)

    def _patch(self, case: Case, volume: Object | None, build: Callable[..., dict[str, Any]], *more: Any) -> None:
        if volume is None:
            raise KubeError(case.attempt, "the volume is gone", "run again", 404)
        name = str(volume["metadata"]["name"])
        body = build(*more, volume)
        self._world.volumes[name] = self._client.patch(case.attempt, api.VOLUMES, None, name, body)

    def _unclaimed(self, case: Case, build: Callable[..., dict[str, Any]]) -> None:
        """Change whose the new volume is, if no claim has come to it meanwhile.

        A claim that somebody has made again may be bound to it since claims were last looked at. So the claim is looked
        up after the volume: either it is seen, or the volume is another one by then, and the patch is refused.
        """
        journal, new = case.journal, self._world.scene(case.journal).new
        if ((new or {}).get("spec") or {}).get("claimRef", {}).get("name") == journal.claim:
            self._world.look_at_claim(journal.claim)
            if steps.wants(self._world.claims.get(journal.claim), new):
                return  # decide again, with what is seen now
        self._patch(case, new, build, journal)

    def _retain_new(self, case: Case, scene: Scene) -> None:
        uid = str(scene.temporary["metadata"]["uid"]) if scene.temporary is not None else ""
        if scene.labelled is not None:
            self._patch(case, scene.new, changes.retain)
            return
        self._patch(case, scene.new, lambda volume: changes.retain_new(case.journal, volume, uid))

    def _release_old(self, case: Case, scene: Scene) -> None:
        """Let go of the old volume. It gets its reclaim policy back only while it is the claim's; else it is kept."""
        build = changes.release_old if steps.claim_kept(scene) else changes.close_old
        self._patch(case, scene.old, build, case.journal)

    def _create_temporary(self, case: Case, _scene: Scene) -> None:
        self._create(case, changes.temporary_claim(case.journal))

    def _create_claim(self, case: Case, scene: Scene) -> None:
        if scene.new is None:
            raise KubeError(case.attempt, "the new volume is gone", "run again", 404)
        # With an owner that went meanwhile, the claim would be removed as garbage: it is made without that one.
        gone = {str(owner["uid"]) for owner in self._owners.gone(case.journal.owners)}
        self._create(case, changes.claim_again(case.journal, str(scene.new["metadata"]["name"]), gone))

    def _create(self, case: Case, body: dict[str, Any]) -> None:
        made = self._client.create(case.attempt, api.CLAIMS, case.journal.namespace, body)
        self._world.claims[made["metadata"]["name"]] = made

    def _delete(self, case: Case, claim: Object | None) -> None:
        if claim is None:
            raise KubeError(case.attempt, "the claim is gone", "run again", 404)
        name = str(claim["metadata"]["name"])
        uid = str(claim["metadata"]["uid"])
        answer = self._client.delete(case.attempt, api.CLAIMS, case.journal.namespace, name, uid)
        if answer is None:
            raise KubeError(case.attempt, f"claim {name} is another one by now", "run again", 409)
        self._world.claims[name] = going(dict(claim))

    # Waiting

    def _wait(self, due: Sequence[tuple[Case, str]], patience: float) -> None:
        kinds = sorted({_WAITS[step][0].plural for _case, step in due})
        mine = [(case, step) for case, step in due if _WAITS[step][0].plural == kinds[0]]
        resource = _WAITS[mine[0][1]][0]
        wanted: dict[str, Wanted] = {}
        for case, step in mine:
            name = _awaited(case, step, self._world)
            wanted[name] = _as_wanted(step, self._known(resource, name))
        seen = self._listen([case for case, _step in mine], resource, wanted, self._slice(mine, kinds, patience))
        if seen is None:
            return
        if resource is api.CLAIMS:
            self._world.take(seen.objects)
        self._guarded([case for case, _step in due], self._world.look_at_volumes)
        self._rest(mine, seen)
        if seen.waiting and self._deadline.left() <= 0:
            self._too_late([(case, step) for case, step in mine if _awaited(case, step, self._world) in seen.waiting])

    def _rest(self, waited: Sequence[tuple[Case, str]], seen: Watched) -> None:
        """Rest a little where what was waited for came and did not lead on: never ask in a tight loop."""
        again = [case for case, step in waited if case.waited == step and not seen.waiting]
        for case, step in waited:
            case.waited = step
        for case in again:
            case.taken += 1
            if case.taken > _MOST_STEPS:
                self._fail(case, f"it does not get beyond: {case.waited}", "see who else changes it, and run again")
        if again:
            self._sleep(_REST)

    def _known(self, resource: api.Resource, name: str) -> Object | None:
        return (self._world.claims if resource is api.CLAIMS else self._world.volumes).get(name)

    def _slice(self, mine: Sequence[tuple[Case, str]], kinds: Sequence[str], patience: float) -> Deadline:
        """Return for how long to wait: for a part of the time where those that are ready are in a hurry."""
        hurry = len(mine) > 1 and any(case.swapping for case, _step in mine)
        return self._deadline.part(min(self._deadline.left(), patience)) if hurry or len(kinds) > 1 else self._deadline

    def _listen(
        self, cases: Sequence[Case], resource: api.Resource, wanted: Mapping[str, Wanted], deadline: Deadline
    ) -> Watched | None:
        namespace = cases[0].journal.namespace
        where, selector = (namespace, None) if resource is api.CLAIMS else (None, f"{j.NAMESPACE}={namespace}")
        waiter = Waiter(self._client, deadline, self._sleep)
        try:
            return waiter.wait(f"wait for claims in namespace {namespace}", resource, where, wanted, selector)
        except RestorePointError as error:
            for case in cases:
                self._fail(case, error.reason, error.remedy)
            return None

    def _too_late(self, late: Sequence[tuple[Case, str]]) -> None:
        """Say of each case why it was waited for in vain."""
        stuck = [case.journal.claim for case, step in late if step in (steps.WAIT_CLAIM_GONE,)]
        temporary = [case.journal.temporary for case, step in late if step == steps.WAIT_TEMPORARY_GONE]
        if stuck or temporary:
            self._guarded([case for case, _step in late], lambda: self._world.look_for_pods([*stuck, *temporary]))
        for case, step in late:
            if case.error is not None:
                continue
            name = _awaited(case, step, self._world)
            resource = _WAITS[step][0]
            reason, remedy = self._reason(resource, name, self._known(resource, name), step)
            self._fail(case, reason, remedy)

    def _reason(self, resource: api.Resource, name: str, item: Object | None, step: str) -> tuple[str, str]:
        what = f"claim {name}" if resource is api.CLAIMS else f"volume {name}"
        phase = str(objects.status_of(item or {}).get("phase") or "unknown")
        users = self._world.users(name) if resource is api.CLAIMS else ()
        said = [*users, *self.reasons(item)]
        metadata = (item or {}).get("metadata") or {}
        if not said and metadata.get("deletionTimestamp") and metadata.get("finalizers"):
            said = [f"it waits for {', '.join(metadata['finalizers'])}"]
        reason = f"in time there was no end to: {step} ({what}, phase {phase})" + "".join(f"; {each}" for each in said)
        if users:
            return reason, "stop what uses it (stop_workloads does), and run again"
        return reason, "give a longer timeout, or see to it, and run again"

    def reasons(self, item: Object | None) -> list[str]:
        """Return why an object is not as wanted, where that can be told."""
        if item is None:
            return []
        return [str(each) for each in self._why([item]).get(str(item["metadata"].get("uid")), ())]

    def still_there(self, name: str, item: Object | None) -> RestorePointError:
        """Return the error that a volume is not gone in time."""
        reason, remedy = self._reason(api.VOLUMES, name, item, steps.WAIT_OLD_GONE)
        return RestorePointError(f"remove volume {name}", reason, remedy)


#: What is waited for: the kind of object, and its name by journal and scene.
_WAITS: dict[str, tuple[api.Resource, Callable[[Journal, Scene], str]]] = {
    steps.WAIT_NEW: (api.CLAIMS, lambda journal, _scene: journal.temporary),
    steps.WAIT_TEMPORARY_GONE: (api.CLAIMS, lambda journal, _scene: journal.temporary),
    steps.WAIT_CLAIM_GONE: (api.CLAIMS, lambda journal, _scene: journal.claim),
    steps.WAIT_BOUND: (api.CLAIMS, lambda journal, _scene: journal.claim),
    steps.WAIT_OLD_GONE: (api.VOLUMES, lambda journal, _scene: journal.old),
    steps.WAIT_NEW_GONE: (api.VOLUMES, lambda _journal, scene: str((scene.new or {})["metadata"]["name"])),
}
_ORDER = (
    *(steps.CALL_OFF, steps.CREATE_TEMPORARY, steps.RETAIN_OLD, steps.RETAIN_NEW, steps.DISCARD_NEW),
    *(steps.ASIDE_AGAIN, steps.DELETE_TEMPORARY, steps.RESERVE, steps.MARK, steps.DELETE_CLAIM, steps.CREATE_CLAIM),
    *(steps.CLOSE_NEW, steps.CLOSE_OLD, steps.REMOVE_OLD, steps.RELEASE_OLD),
)


def _awaited(case: Case, step: str, world: World) -> str:
    return _WAITS[step][1](case.journal, world.scene(case.journal))


def _as_wanted(step: str, known: Object | None) -> Wanted:
    """Return what an object has to be for a wait to end. One of another uid is another object."""
    uid = (known or {}).get("metadata", {}).get("uid")
    if step in (steps.WAIT_NEW, steps.WAIT_BOUND):
        return _bound_or_lost

    def gone(item: dict[str, Any] | None) -> bool:
        return item is None or item["metadata"].get("uid") != uid

    return gone


def _bound_or_lost(item: dict[str, Any] | None) -> bool:
    """Say whether waiting for a claim to be bound is over: it is, or it is gone, or it is going."""
    if item is None or item["metadata"].get("deletionTimestamp"):
        return True
    return objects.status_of(item).get("phase") in ("Bound", "Lost")
