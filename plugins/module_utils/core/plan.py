# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decides everything, for every backend: desired state and what is there give changes and blockers. Pure.

Check mode prints the plan, a normal run carries it out (`run.py`), and the diff is its two ends. So idempotence, check
mode and safety are written once, here. DESIGN: "States: one meaning on every backend".
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .backend import (
    CLONE,
    CREATE,
    DESCRIBE,
    DESTROY,
    DONE,
    REPLACE,
    ROLL_BACK,
    Blocker,
    Change,
    Desired,
    Situation,
)
from .snapshot import Snapshot, timestamp
from .units import format_duration

if TYPE_CHECKING:
    from .retention import Decision, Point, RetentionPolicy


@dataclass(frozen=True)
class Unchanged:
    """A target (and perhaps one of its snapshots) that already is as asked, and why.

    ``once`` is the token that is thereby used up, if the caller gave one: what a job found done, it must not do later.
    """

    target: str
    name: str | None
    reason: str
    once: str | None = None


@dataclass(frozen=True)
class Plan:
    """The way from what is there to what is asked. With blockers there are no changes."""

    changes: tuple[Change, ...] = ()
    unchanged: tuple[Unchanged, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    warnings: tuple[str, ...] = ()
    decisions: tuple[tuple[str, Decision], ...] = ()


@dataclass
class _Draft:
    desired: Desired
    now: int
    changes: list[Change] = field(default_factory=list)
    unchanged: list[Unchanged] = field(default_factory=list)
    blockers: list[Blocker] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    decisions: list[tuple[str, Decision]] = field(default_factory=list)

    @property
    def name(self) -> str:
        if self.desired.name is None:
            raise ValueError(f"state {self.desired.state} needs a name; the caller has to check that")
        return self.desired.name

    def change(self, verb: str, situation: Situation, name: str, reason: str, **arguments: Any) -> None:
        self.changes.append(Change(verb, situation.target, name, reason, arguments))

    def leave(self, situation: Situation, name: str | None, reason: str, once: str | None = None) -> None:
        self.unchanged.append(Unchanged(situation.target, name, reason, once))

    def block(self, situation: Situation, reason: str, remedy: str) -> None:
        self.blockers.append(Blocker(situation.target, reason, remedy))


def make_plan(desired: Desired, situations: Sequence[Situation], now: int) -> Plan:
    """Return the plan.

    ``now`` is in seconds since the epoch. A blocker of any target blocks the whole call: every blocker of every target
    is in the plan, and no change.
    """
    draft = _Draft(desired, now)
    planners = {
        "present": _plan_present,
        "absent": _plan_absent,
        "rolled_back": _plan_return,
        "cloned": _plan_clone,
        "pruned": _plan_prune,
    }
    for situation in situations:
        draft.warnings.extend(situation.warnings)
    planners[desired.state](draft, situations)
    blockers = [*_standing_in_the_way(draft, situations), *draft.blockers]
    return Plan(
        changes=() if blockers else tuple(draft.changes),
        unchanged=tuple(draft.unchanged),
        blockers=tuple(blockers),
        warnings=tuple(draft.warnings),
        decisions=tuple(draft.decisions),
    )


def _standing_in_the_way(draft: _Draft, situations: Iterable[Situation]) -> list[Blocker]:
    """Return the blockers that backends reported and that forbid a change of this plan."""
    verbs: dict[str, set[str]] = {}
    for change in draft.changes:
        verbs.setdefault(change.target, set()).add(change.verb)
    return [
        blocker
        for situation in situations
        for blocker in situation.blockers
        if verbs.get(situation.target, set()) & blocker.verbs and blocker.lifted_by not in draft.desired.allowed
    ]


def _plan_present(draft: _Draft, situations: Sequence[Situation]) -> None:
    desired, name = draft.desired, draft.name
    there = [situation for situation in situations if situation.find(name)]
    incomplete = 0 < len(there) < len(situations)
    for situation in situations:
        snapshot = situation.find(name)
        if snapshot is None:
            draft.change(CREATE, situation, name, f"there is no snapshot {name!r}")
            continue
        fault = _why_not_enough(draft, snapshot)
        if fault is None and incomplete:
            missing = ", ".join(each.target for each in situations if not each.find(name))
            fault = f"snapshot {name!r} exists here, but not on {missing}, so the set would not be of one instant"
        if fault is None:
            _plan_description(draft, situation, snapshot)
        elif not desired.replace:
            draft.block(situation, fault, "set replace: true to take it anew, or choose another name")
        elif _may_destroy(draft, situation, snapshot):
            draft.change(REPLACE, situation, name, fault)


def _why_not_enough(draft: _Draft, snapshot: Snapshot) -> str | None:
    """Say why a snapshot of the right name does not count, or None if it does."""
    if not snapshot.ready:
        return f"snapshot {snapshot.name!r} is not usable: {snapshot.extra.get('fault', 'not ready')}"
    limit = draft.desired.max_age
    if limit is not None and draft.now - snapshot.created > limit:
        made = timestamp(snapshot.created)
        return f"snapshot {snapshot.name!r} is of {made}, older than max_age {format_duration(limit)}"
    return None


def _plan_description(draft: _Draft, situation: Situation, snapshot: Snapshot) -> None:
    desired = draft.desired
    differs: dict[str, Any] = {}
    if desired.description is not None and desired.description != snapshot.description:
        differs["description"] = desired.description
    if desired.labels is not None and dict(desired.labels) != dict(snapshot.labels):
        differs["labels"] = dict(desired.labels)
    differs.update(situation.lacking)
    if differs:
        draft.change(DESCRIBE, situation, snapshot.name, " and ".join(differs) + " changed", **differs)
    else:
        draft.leave(situation, snapshot.name, f"is there, of {timestamp(snapshot.created)}")


def _may_destroy(draft: _Draft, situation: Situation, snapshot: Snapshot) -> bool:
    """Add the blockers that forbid destroying one snapshot; say whether there were none."""
    if snapshot.held is not None:
        draft.block(situation, f"snapshot {snapshot.name!r} is held: {snapshot.held}", "release the hold first")
    if snapshot.in_use is not None:
        draft.block(situation, f"snapshot {snapshot.name!r} is in use: {snapshot.in_use}", "stop that use first")
    return snapshot.held is None and snapshot.in_use is None


def _plan_absent(draft: _Draft, situations: Sequence[Situation]) -> None:
    for situation in situations:
        snapshot = situation.find(draft.name)
        if snapshot is None:
            draft.leave(situation, draft.name, "is not there")
        elif _may_destroy(draft, situation, snapshot):
            draft.change(DESTROY, situation, snapshot.name, "asked for by name")


def _plan_return(draft: _Draft, situations: Sequence[Situation]) -> None:
    desired = draft.desired
    for situation in situations:
        snapshot = situation.find(draft.name)
        used = situation.returned.get(desired.once) if desired.once is not None else None
        if used is not None:
            draft.leave(situation, draft.name, f"once: {desired.once} was used up by the return of {timestamp(used)}")
        elif situation.used_up is not None:
            draft.leave(situation, draft.name, situation.used_up, desired.once)
        elif snapshot is None:
            draft.block(situation, f"there is no snapshot {draft.name!r}", _what_there_is(situation))
        elif not snapshot.ready:
            fault = snapshot.extra.get("fault", "not ready")
            draft.block(situation, f"snapshot {draft.name!r} is not usable: {fault}", "return to another one")
        elif situation.unchanged is not None:
            why = f"the content is that of the snapshot: {situation.unchanged}"
            draft.leave(situation, draft.name, why, desired.once)
        elif _clear_the_way(draft, situation, snapshot):
            why = f"the content differs: {situation.difference}" if situation.difference else "the content differs"
            draft.change(
                ROLL_BACK,
                situation,
                draft.name,
                why,
                keep_current=desired.keep_current,
                once=desired.once,
                uses_up=situation.uses_up,
            )


def _clear_the_way(draft: _Draft, situation: Situation, snapshot: Snapshot) -> bool:
    """Plan away, or report, the newer snapshots of a storage that returns only to its newest one."""
    if not situation.newest_only:
        return True
    newer = sorted((each for each in situation.snapshots if each.order > snapshot.order), key=lambda each: each.order)
    if newer and not draft.desired.destroy_newer:
        listed = ", ".join(each.name for each in newer)
        draft.block(situation, f"newer snapshots would be lost: {listed}", "set destroy_newer: true to let them go")
        return False
    free = [_may_destroy(draft, situation, each) for each in newer]
    for each in reversed(newer):
        draft.change(DESTROY, situation, each.name, f"newer than {snapshot.name!r}, and destroy_newer is set")
    return all(free)


def _what_there_is(situation: Situation) -> str:
    known = [snapshot.name for snapshot in (*situation.snapshots, *situation.asides)]
    if not known:
        return "it has no snapshots"
    shown = ", ".join(known[-10:])
    return f"it has {shown}" + (f" and {len(known) - 10} older ones" if len(known) > 10 else "")


def _plan_clone(draft: _Draft, situations: Sequence[Situation]) -> None:
    for situation in situations:
        snapshot = situation.find(draft.name)
        clone = draft.desired.clones[situation.target]
        if situation.clone_of == draft.name:
            draft.leave(situation, draft.name, f"{clone} was cloned from it")
        elif situation.clone_of is not None:
            draft.block(
                situation, f"{clone} was cloned from {situation.clone_of!r}", "name another place for the clone"
            )
        elif snapshot is None:
            draft.block(situation, f"there is no snapshot {draft.name!r}", _what_there_is(situation))
        elif not snapshot.ready:
            fault = snapshot.extra.get("fault", "not ready")
            draft.block(situation, f"snapshot {draft.name!r} is not usable: {fault}", "clone another one")
        else:
            draft.change(CLONE, situation, draft.name, f"there is no {clone}", clone=clone)


def _plan_prune(draft: _Draft, situations: Sequence[Situation]) -> None:
    for situation in situations:
        planned = len(draft.changes)
        if draft.desired.retention is not None:
            _prune_by(draft, situation, situation.snapshots, draft.desired.retention, own_only=True)
        if draft.desired.asides is not None:
            _prune_by(draft, situation, situation.asides, draft.desired.asides, own_only=False)
        if len(draft.changes) == planned:
            draft.leave(situation, None, "the keep rules hold")


def _prune_by(
    draft: _Draft, situation: Situation, snapshots: Sequence[Snapshot], policy: RetentionPolicy, own_only: bool
) -> None:
    from .retention import decide  # long, and nothing but pruning needs it

    points = [point(draft.desired, snapshot, own_only) for snapshot in snapshots]
    outcome = decide(points, policy, draft.now)
    # An empty list of asides is the normal case; one of snapshots is worth a word.
    if snapshots or own_only:
        draft.warnings.extend(f"{situation.target}: {warning}" for warning in outcome.warnings)
    if outcome.refusal is not None:
        draft.block(situation, outcome.refusal, "raise max_delete, or look first at what the keep rules remove")
    for decision in outcome.decisions:
        draft.decisions.append((situation.target, decision))
        if not decision.keep:
            draft.change(DESTROY, situation, decision.name, decision.reason)


def belongs(snapshot: Snapshot, owner: str | None, match: Iterable[str]) -> bool:
    """Say whether a snapshot counts as its owner's: it is, or one of the patterns ``match`` fits its name."""
    return snapshot.owner == owner or any(fnmatch.fnmatchcase(snapshot.name, each) for each in match)


def point(desired: Desired, snapshot: Snapshot, own_only: bool) -> Point:
    """Describe a snapshot to the keep rules: only the owner's, and those that match, are candidates."""
    from .retention import Point

    own = belongs(snapshot, desired.owner, desired.match)
    foreign = None if own or not own_only else f"owner {snapshot.owner or 'unknown'}"
    return Point(
        created=snapshot.created,
        sequence=snapshot.sequence,
        name=snapshot.name,
        ready=snapshot.ready,
        held=snapshot.held,
        in_use=snapshot.in_use or desired.needed.get((snapshot.target, snapshot.name)),
        foreign=foreign,
    )


def ends(plan: Plan, situations: Sequence[Situation], desired: Desired) -> dict[str, dict[str, Any]]:
    """Return the two ends of a plan, ``before`` and ``after``, as a diff shows them.

    Each is ``{target: {"snapshots": {name: {description, labels}}, ...}}`` with the targets that change. A snapshot
    that is replaced has ``created`` too: often nothing else tells it from the new one.
    """
    changed = {change.target for change in plan.changes}
    before = {each.target: _view(each, desired) for each in situations if each.target in changed}
    after = {each.target: _view(each, desired) for each in situations if each.target in changed}
    for change in plan.changes:
        _apply(after[change.target], change, desired)
    by_target = {each.target: each for each in situations}
    for change in plan.changes:
        old = by_target[change.target].find(change.name) if change.verb == REPLACE else None
        if old is not None:
            before[change.target]["snapshots"][change.name]["created"] = timestamp(old.created)
            after[change.target]["snapshots"][change.name]["created"] = "now"
    return {"before": before, "after": after}


def _view(situation: Situation, desired: Desired) -> dict[str, Any]:
    view: dict[str, Any] = {
        "snapshots": {
            snapshot.name: {"description": snapshot.description, "labels": dict(snapshot.labels)}
            for snapshot in (*situation.snapshots, *situation.asides)
        }
    }
    if desired.state == "rolled_back":
        view["content"] = f"differs from {desired.name}"
    if desired.state == "cloned":
        view["clone"] = None
    return view


def _apply(view: dict[str, Any], change: Change, desired: Desired) -> None:
    snapshots: dict[str, dict[str, Any]] = view["snapshots"]
    if change.verb in (CREATE, REPLACE):
        snapshots[change.name] = {"description": desired.description or "", "labels": dict(desired.labels or {})}
    elif change.verb == DESCRIBE:
        snapshots[change.name] = {**snapshots[change.name], **change.arguments}
    elif change.verb == DESTROY:
        del snapshots[change.name]
    elif change.verb == ROLL_BACK:
        view["content"] = change.name
        if change.arguments.get("uses_up"):
            del snapshots[change.name]
    elif change.verb == CLONE:
        view["clone"] = {change.arguments["clone"]: change.name}


def predicted(plan: Plan, estimates: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Return the results that carrying out a plan would have, without what only doing it tells.

    ``estimates`` are what the backend can tell of each change beforehand, in the order of the plan's changes.
    """
    done = [
        {"target": each.target, "name": each.name, "action": DONE[each.verb], "changed": True, "reason": each.reason}
        for each in plan.changes
    ]
    for result, estimate in zip(done, estimates):
        result.update(estimate)
    return done + unchanged_results(plan)


def unchanged_results(plan: Plan) -> list[dict[str, Any]]:
    """Return a result for each target that already is as asked."""
    return [
        {"target": each.target, "name": each.name, "action": "unchanged", "changed": False, "reason": each.reason}
        for each in plan.unchanged
    ]
