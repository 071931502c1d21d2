# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Returns of one call: what stands in their way, and carrying them out with the workloads stopped meanwhile.

Puts together returning/ (the volumes) and workloads/ (what uses them). The state rolled_back means one of three things
here: a return to a snapshot, taking a return back (to an aside), or calling off one that was interrupted. Called by the
backend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Callable

from ... import kube_resources as api
from ...core.backend import Blocker, Change, Desired, Outcome, Situation
from ...core.errors import Blocked, RestorePointError
from ...core.names import is_aside
from ...core.snapshot import Snapshot, timestamp
from ...kube import Access
from . import objects, preflight
from .operations import Item, Operations
from .options import CsiOptions
from .reading import Facts
from .returning.asides import Survey
from .returning.swap import Return, Swap, Undo
from .workloads import Stopped, Users, Workloads, permissions, run_of

#: The longest that workloads are waited for after a return (seconds).
_READY_SECONDS = 60.0


def wanted_access(namespace: str, desired: Desired, options: CsiOptions) -> dict[Access, frozenset[str]]:
    """Return what a return may have to be allowed beside reading."""
    found: dict[Access, frozenset[str]] = {}
    for resource, where, verbs in (
        (api.CLAIMS, namespace, ("get", "create", "delete", "watch")),
        (api.VOLUMES, None, ("get", "patch", "watch")),
    ):
        found.update({Access(verb, resource, where): preflight.RETURNS for verb in verbs})
    found.update(dict.fromkeys(permissions(namespace, options.stop_workloads), preflight.RETURNS))
    found[Access("list", api.PODS, namespace)] = preflight.READS
    return found


class Returns:
    """The returns of one call."""

    def __init__(
        self,
        operations: Operations,
        facts: Facts,
        options: CsiOptions,
        desired: Desired,
        now: Callable[[], int],
        sleep: Callable[[float], None],
    ) -> None:
        self._operations = operations
        self._facts = facts
        self._options = options
        self._desired = desired
        self.swap = Swap(operations.client, facts.namespace, operations.deadline, now, sleep, operations.why)
        claims = {claim: facts.claims.get(claim) for claim in facts.wanted}
        taking = {
            claim: [item["metadata"]["name"] for item in facts.snapshots.get(claim, ()) if not objects.is_ready(item)]
            for claim in facts.wanted
        }
        self.surveys: Mapping[str, Survey] = self.swap.survey(claims, list(facts.volumes.values()), taking)
        self._targets = [facts.target(claim) for claim in facts.wanted]
        self._workloads = Workloads(
            operations.client,
            run_of(self._targets, desired.name or ""),
            operations.deadline,
            sleep,
            resumes=[facts.target(claim) for claim, each in self.surveys.items() if each.open is not None],
        )
        self._users = Users()
        self._owner_blockers: Mapping[str, list[Blocker]] = {}
        self._stopped: Stopped | None = None
        self._start_error: RestorePointError | None = None
        self._done: dict[Change, Mapping[str, Any]] = {}
        self._undone: dict[Change, RestorePointError | None] | None = None
        self.warnings: list[str] = []
        self.workloads: list[dict[str, Any]] = []

    # -- what is there -------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Ask what stands in the way, for all claims at once."""
        self._users = self._workloads.users(self._targets)
        if self._options.call_off:
            return
        there = [item for each in self._facts.wanted for item in [self._facts.claims.get(each)] if item is not None]
        self._owner_blockers = self.swap.blockers(there)

    def situation(self, claim: str, found: Situation) -> Situation:
        """Add to a claim's situation what concerns returns."""
        survey, target = self.surveys[claim], found.target
        found = replace(
            found, asides=survey.asides, returned=survey.returned, warnings=(*found.warnings, *survey.warnings)
        )
        if self._options.call_off:
            return self._to_call_off(survey, found)
        if self._options.undo:
            found = self._to_undo(survey, found)
        blockers = [
            *found.blockers,
            *survey.blockers,
            *self._owner_blockers.get(claim, ()),
            *self._users.blockers.get(target, ()),
        ]
        volume = self._facts.volume_of(claim)
        if volume is not None and self._facts.driver(claim) is None:
            reason = f"its volume {volume['metadata']['name']} is not of a CSI driver"
            blockers.append(Blocker(target, reason, "use the module of that storage", preflight.RETURNS))
        warnings = (*found.warnings, *self._users.warnings.get(target, ()))
        return replace(found, blockers=tuple(blockers), warnings=warnings)

    def _to_call_off(self, survey: Survey, found: Situation) -> Situation:
        if survey.open is None:
            return replace(found, used_up="no return of it is unfinished")
        return replace(found, snapshots=(_named(found.target, str(self._desired.name)),), blockers=())

    def _to_undo(self, survey: Survey, found: Situation) -> Situation:
        """Show the volume to go back to under the name of the call."""
        aside = self._aside_to_undo(survey)
        name = str(self._desired.name)
        if survey.open is not None and aside is None:
            return replace(found, snapshots=(_named(found.target, name),), asides=())
        if aside is None:
            return replace(found, snapshots=(), blockers=found.blockers)
        if is_aside(str(aside.extra.get("returned_to"))):
            return replace(found, used_up=f"the last return was taken back already, at {timestamp(aside.created)}")
        return replace(found, snapshots=(replace(aside, name=name),), asides=())

    def _aside_to_undo(self, survey: Survey) -> Snapshot | None:
        """Return the newest aside, or the newest that a return to the named snapshot has kept."""
        name = self._desired.name
        meant = [each for each in survey.asides if name in ("last-return", each.name, each.extra.get("returned_to"))]
        back = [each for each in survey.asides if is_aside(str(each.extra.get("returned_to")))]
        newest = max((*meant, *back), key=lambda each: each.order, default=None)
        return newest

    def demand(self, claim: str) -> tuple[str | None, int] | None:
        """Return class and size of the claim that is made meanwhile; None where none is."""
        item = next(iter(self._facts.named(claim).get(self._desired.name or "", ())), None)
        there = self._facts.claims.get(claim)
        if item is None or there is None or self._options.undo or self._options.call_off:
            return None
        return (there.get("spec") or {}).get("storageClassName"), self._size(claim, item)

    def _size(self, claim: str, item: Item) -> int:
        spec = (self._facts.volume_of(claim) or {}).get("spec") or {}
        there = objects.quantity((spec.get("capacity") or {}).get("storage")) or 0
        return max(objects.restore_size(item) or 0, objects.capacity(self._facts.claims.get(claim, {})), there)

    # -- changes -------------------------------------------------------------------------------------------------------

    def foreseen(self, change: Change) -> dict[str, Any]:
        """Return what can be told of a return before it is made."""
        if self._options.call_off:
            return {"action": "called_off"}
        return {}

    def carry_out(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Return claims, and bring the workloads back whatever happened."""
        try:
            outcomes = [self._told(change, each) for change, each in zip(changes, self._swapped(changes))]
        finally:
            self._start_again()
            self.warnings.extend(self.swap.recovered)
            self.swap.recovered.clear()
        for change, outcome in zip(changes, outcomes):
            if not isinstance(outcome, RestorePointError):
                self._done[change] = outcome
        if self._start_error is not None and any(isinstance(each, RestorePointError) for each in outcomes):
            self.warnings.append(str(self._start_error))
        return outcomes

    def _swapped(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        claims = [_claim(change) for change in changes]
        if self._options.call_off:
            outcomes = self.swap.call_off(claims)
            if self._users.left and not any(isinstance(each, RestorePointError) for each in outcomes):
                self._stopped = Stopped(list(self._users.left))  # a killed run had stopped them
            return outcomes
        if self._options.undo or is_aside(changes[0].name):
            return self.swap.undo([self._undo(change) for change in changes], self._stop)
        return self.swap.carry_out([self._return(change) for change in changes], self._stop)

    def _undo(self, change: Change) -> Undo:
        aside = None if self._options.undo else change.name
        if self._options.undo:
            found = self._aside_to_undo(self.surveys[_claim(change)])
            aside = found.name if found is not None else None
        return Undo(_claim(change), aside, change.arguments.get("once"))

    def _return(self, change: Change) -> Return:
        claim = _claim(change)
        item = self._facts.named(claim)[change.name][0]
        return Return(
            claim=claim,
            name=change.name,
            snapshot=item,
            size=self._size(claim, item),
            once=change.arguments.get("once"),
            keep=bool(change.arguments.get("keep_current", True)),
        )

    def _told(self, change: Change, outcome: Outcome) -> Outcome:
        if isinstance(outcome, RestorePointError):
            return outcome
        if self._options.call_off:
            return {"action": "called_off"}
        aside = outcome.get("aside")
        kept = {"name": aside, "volume": outcome.get("old_volume")} if aside else None
        return {"aside": kept, "volume": outcome.get("new_volume"), "resumed": bool(outcome.get("resumed"))}

    def _stop(self, claims: Sequence[str]) -> None:
        """Stop what uses the claims, right before their swap. Raises where something is in the way by now."""
        users = self._workloads.users([self._facts.target(claim) for claim in claims])
        allowed = self._desired.allowed
        blockers = [each for several in users.blockers.values() for each in several if each.lifted_by not in allowed]
        if blockers:
            raise Blocked(f"free the claims in namespace {self._facts.namespace!r}", blockers)
        if self._options.stop_workloads:
            self._operations.step("stops", workloads=len(users.workloads))
            self._stopped = self._workloads.stop(users)

    def _start_again(self) -> None:
        stopped, self._stopped = self._stopped, None
        if stopped is None:
            return
        left = max(0.0, self._operations.deadline.left())
        try:
            seconds = min(_READY_SECONDS, left) if self._options.wait else 0.0
            self.workloads += self._workloads.start_again(stopped, seconds)
        except RestorePointError as error:
            self._start_error = error

    def start_left(self, check_mode: bool) -> list[dict[str, Any]]:
        """Bring back what a killed run had stopped, where this call returns nothing. Raises RestorePointError."""
        left = self._users.left
        if self._done or not left:
            return []
        if check_mode:
            return Stopped(list(left)).report()
        self.workloads += self._workloads.start_again(left)
        return self.workloads

    def settle(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Tell of workloads that could not be brought back."""
        return [self._start_error if self._start_error is not None else {} for _unused in changes]

    def undo(self, change: Change) -> None:
        """Give the claims of this call their old volumes back, all together; the new ones are removed."""
        if self._undone is None:
            self._undone = self._take_back(list(self._done))
        error = self._undone.get(change)
        if error is not None:
            raise error

    def _take_back(self, changes: Sequence[Change]) -> dict[Change, RestorePointError | None]:
        undone: dict[Change, RestorePointError | None] = {}
        going: list[Change] = []
        for change in changes:
            if self._options.call_off or not (self._done[change].get("aside") or {}).get("name"):
                attempt = f"take the return of {change.target} back"
                undone[change] = RestorePointError(attempt, "nothing was kept of what was there", "look at results")
            else:
                going.append(change)
        undos = [
            Undo(_claim(change), str(self._done[change]["aside"]["name"]), forget=change.arguments.get("once"))
            for change in going
        ]
        try:
            outcomes = self.swap.undo(undos, self._stop) if undos else []
        finally:
            self._start_again()
        kept: list[tuple[str, str]] = []
        for change, outcome in zip(going, outcomes):
            undone[change] = outcome if isinstance(outcome, RestorePointError) else None
            if not isinstance(outcome, RestorePointError) and outcome.get("aside"):
                kept.append((_claim(change), str(outcome["aside"])))
        for each in self.swap.purge(kept) if kept else []:
            if isinstance(each, RestorePointError):
                self.warnings.append(str(each))
        return undone

    def spend(self, target: str, token: str) -> None:
        """Remember that a token is used up."""
        item = self._facts.claims.get(target.partition("/")[2])
        if item is not None:
            self.swap.spend(item, token)


def _named(target: str, name: str) -> Snapshot:
    """Return a stand-in for what an unfinished return is about."""
    return Snapshot("csi", target, name, 0)


def _claim(change: Change) -> str:
    return change.target.partition("/")[2]
