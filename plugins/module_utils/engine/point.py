# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host's part of a restore point: several backends as one, whose snapshots carry what the other hosts have to know.

`core/restore_points.py` says what the labels mean. Plan and run do not see them: here they are taken off what is shown,
and written with what is changed. Called by the bridge.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Callable

from ..core.backend import DESCRIBE, Blocker, Change, Desired, Situation
from ..core.restore_points import (
    HOSTS,
    POINT,
    RETURNING,
    RUN,
    UNFINISHED,
    Part,
    own_labels,
    users_labels,
)
from ..core.several import Member, Several
from ..core.snapshot import Snapshot
from .policy import Target, engine
from .reach import Reach

#: What a run over several hosts does in one call. ``whole`` is a call of one host for itself.
WHOLE, BEGIN, FINISH, UNDO = "whole", "begin", "finish", "undo"
STAGES = (WHOLE, BEGIN, FINISH, UNDO)
#: What targets may say beside the options of policies: what matters for returns, and for one call only.
MORE_OPTIONS = {
    "zfs": ("ignore_users",),
    "lvm": ("when_busy", "unmount", "wait", "wait_timeout"),
    "btrfs": ("ignore_users",),
    "hostpath": ("ignore_users",),
    "csi": ("stop_workloads",),
    "pve": ("start", "api_password", "api_token_id", "api_token_secret"),
}
#: Backends whose returns keep what was there unless told otherwise, because it costs nothing.
_KEEPING = ("btrfs", "hostpath", "csi")
#: Options that lift blockers that go away as well when what uses a target is stopped.
_USE = ("ignore_users", "stop_workloads")
_MARK = "mark"


@dataclass(frozen=True)
class Wish:
    """What a call wants beside the desired state.

    ``state`` is the caller's: a mark is written by a plan for another one. ``run`` and ``hosts`` are written on what is
    taken. ``once`` is the token of a return. ``anew``: what is there of that name does not count. ``assume_stopped``:
    look as if nobody used the targets, which counts in check mode only.
    """

    state: str
    stage: str = WHOLE
    run: str | None = None
    hosts: str | None = None
    once: str | None = None
    anew: bool = False
    assume_stopped: bool = False

    @property
    def marks(self) -> bool:
        """Whether only the mark of a return is written, or taken off."""
        return self.state == "rolled_back" and self.stage in (BEGIN, FINISH)


def members(
    targets: Sequence[Target], now: Callable[[], int], report: Callable[..., None] | None = None
) -> tuple[list[Member], dict[str, frozenset[str]], dict[str, str]]:
    """Return the backends of targets, which options each of them has that lift blockers, and where each lies.

    Raises InvalidInput.
    """
    found: list[Member] = []
    lifts: dict[str, frozenset[str]] = {}
    places: dict[str, str] = {}
    for target in targets:
        made = engine(target.backend)
        number = sum(each.label.split("-")[0] == target.backend for each in found)
        label = f"{target.backend}-{number + 1}" if number else target.backend
        place = f"{target.backend}:{target.params.get('store') or ''}"
        backend = made.backend_of(target.params, now, report)
        found.append(Member(label, backend, target.backend in _KEEPING, place))
        lifts[label] = frozenset(option for option in made.LIFTING if target.params.get(option))
        places[label] = elsewhere(target)
    return found, lifts, places


def elsewhere(target: Target) -> str:
    """Return where a target lies that is spoken to over an API; nothing for one that lies on the host itself."""
    params = target.params
    if target.backend == "pve" and params["transport"] == "https":
        return f"{params['api_host']}:{params['api_port'] or 8006}"
    if target.backend == "csi":
        return f"{params['kubeconfig'] or 'the default cluster'} {params['context'] or ''}".strip()
    return ""


class Point(Several):
    """The targets of a host as one.

    Args:
        members: the backends.
        lifts: which options of each member, by its label, lift blockers.
        wish: what the call wants.
        keep_current: whether returns keep what was there; None leaves that to each member's default.
    """

    name = "restore_point"

    def __init__(
        self,
        members: Iterable[Member],
        lifts: Mapping[str, frozenset[str]],
        wish: Wish,
        keep_current: bool | None = None,
    ) -> None:
        super().__init__(members, keep_current)
        self._lifts = lifts
        self._wish = wish
        self._there: dict[str, Snapshot | None] = {}

    # -- what is there -------------------------------------------------------------------------------------------------

    def _desired(self, member: Member, desired: Desired) -> Desired:
        found = super()._desired(member, desired)
        wish = self._wish
        labels = found.labels
        if wish.state == "present" and wish.stage == BEGIN:
            labels = {**(labels or {}), **self._new_labels(desired.name or "")}
        return dataclasses.replace(found, labels=labels, allowed=desired.allowed | self._lifts[member.label])

    def _new_labels(self, name: str) -> dict[str, str]:
        given = {POINT: name, RUN: self._wish.run, HOSTS: self._wish.hosts, UNFINISHED: "yes"}
        return {key: value for key, value in given.items() if value}

    def situations(self, desired: Desired) -> Sequence[Situation]:
        """Return what is there, without our labels, but with what they mean. See Backend."""
        found = super().situations(desired)
        self._there = {each.target: each.find(desired.name) if desired.name else None for each in found}
        if self._wish.marks:
            found = [each for each in found if self._there[each.target] is not None]
        return [self._shown(each, desired) for each in found]

    def parts(self, places: Mapping[str, str], here: str) -> list[Part]:
        """Return what was found of each target, once `situations` was asked. ``here`` names this machine."""
        found = []
        for target, snapshot in self._there.items():
            own = own_labels(snapshot.labels) if snapshot else {}
            label, named = self._split(target)
            kind = label.split("-")[0]
            found.append(
                Part(
                    target=f"{kind}:{named}",
                    place=places[label] or here,
                    exists=snapshot is not None,
                    run=own.get(RUN),
                    hosts=own.get(HOSTS),
                    unfinished=UNFINISHED in own,
                    returning=own.get(RETURNING),
                    labels=users_labels(snapshot.labels) if snapshot else {},
                )
            )
        return found

    @property
    def may_replace(self) -> bool:
        """Whether all there is of that name was left by a run that died, or is to be taken anew; after `situations`."""
        if (
            self._wish.state != "present"
            or self._wish.stage in (FINISH, UNDO)
            or (self._is_whole() and not self._wish.anew)
        ):
            return False
        there = [own_labels(each.labels) for each in self._there.values() if each is not None]
        return bool(there) and (self._wish.anew or all(UNFINISHED in own for own in there))

    def _is_whole(self) -> bool:
        """Say whether all targets have their part, of one run."""
        there = list(self._there.values())
        return all(there) and len({own_labels(each.labels).get(RUN) for each in there if each}) == 1

    def _shown(self, situation: Situation, desired: Desired) -> Situation:
        wish = self._wish
        label, _target = self._split(situation.target)
        blockers = tuple(each for each in situation.blockers if not self._is_lifted(each, self._lifts[label]))
        snapshots = [self._snapshot(each, desired) for each in situation.snapshots]
        if wish.stage == UNDO:
            snapshots = [each for each in snapshots if each is not None]
        lacking = dict(situation.lacking)
        mark = self._lacking_mark(self._there[situation.target])
        if mark is not None:
            lacking[_MARK] = mark
        if wish.stage == FINISH and wish.state == "present" and self._there[situation.target] is None:
            remedy = "find out who removed it, and take the restore point anew"
            blockers += (Blocker(situation.target, f"the snapshot {desired.name!r} is gone", remedy),)
        return dataclasses.replace(
            situation, snapshots=tuple(each for each in snapshots if each), blockers=blockers, lacking=lacking
        )

    def _is_lifted(self, blocker: Blocker, lifts: frozenset[str]) -> bool:
        if self._wish.assume_stopped and (blocker.lifted_by in _USE or blocker.while_used):
            return True
        return blocker.lifted_by is not None and blocker.lifted_by in lifts

    def _lacking_mark(self, snapshot: Snapshot | None) -> str | None:
        """Say in a word what its mark has to become; None where it is right."""
        if snapshot is None:
            return None
        wish, own = self._wish, own_labels(snapshot.labels)
        if wish.state == "present" and UNFINISHED in own:
            return "finished" if wish.stage == FINISH or (self._is_whole() and not wish.anew) else None
        if wish.marks and wish.stage == BEGIN and own.get(RETURNING) != wish.once:
            return f"returning {wish.once}"
        if wish.marks and wish.stage == FINISH and RETURNING in own:
            return "returned"
        return None

    def _snapshot(self, snapshot: Snapshot, desired: Desired) -> Snapshot | None:
        """Return a snapshot as plan and keep rules have to see it; None for one that is not this call's to touch."""
        wish, own = self._wish, own_labels(snapshot.labels)
        shown = dataclasses.replace(snapshot, labels=users_labels(snapshot.labels))
        if wish.stage == UNDO and not (UNFINISHED in own and own.get(RUN) == wish.run):
            return None
        fault = self._fault(shown, own, desired)
        if fault is not None:
            shown = dataclasses.replace(shown, ready=False, extra={**shown.extra, "fault": fault})
        if RETURNING in own and wish.state in ("absent", "pruned"):
            shown = dataclasses.replace(shown, in_use="a return to it has not ended: finish that first")
        return shown

    def _fault(self, snapshot: Snapshot, own: Mapping[str, str], desired: Desired) -> str | None:
        """Say why a snapshot does not count, or None."""
        wish = self._wish
        if wish.stage in (FINISH, UNDO):
            return None
        if wish.state == "present":
            if snapshot.name != desired.name:
                return None
            if wish.anew:
                return "it is to be taken anew on all hosts"
            if UNFINISHED in own and not self._is_whole():
                return "the run that took it died before all targets had theirs"
            return None
        if UNFINISHED in own and wish.state in ("rolled_back", "pruned"):
            return "the run that took it died before all hosts had theirs"
        return None

    # -- what is changed -----------------------------------------------------------------------------------------------

    def _own(self, member: Member, change: Change, target: str) -> Change:
        arguments = dict(change.arguments)
        mark = arguments.pop(_MARK, None)
        if change.verb == DESCRIBE and (mark is not None or "labels" in arguments):
            snapshot = self._there[change.target]
            there = snapshot.labels if snapshot else {}
            own = own_labels(there)
            if mark in ("finished", "returned"):
                own.pop(UNFINISHED if mark == "finished" else RETURNING, None)
            elif mark is not None:
                own[RETURNING] = self._wish.once or ""
            arguments["labels"] = {**arguments.get("labels", users_labels(there)), **own}
        return super()._own(member, dataclasses.replace(change, arguments=arguments), target)


class PointReach(Reach):
    """Reaches a state of a host's part. What a run that died has left may be replaced, and nothing else."""

    def look(self) -> Sequence[Situation]:
        """Return what is there. Where only leftovers are, look again at what replacing them takes."""
        found = super().look()
        point = self.backend
        if isinstance(point, Point) and point.may_replace and not self.desired.replace:
            self.desired = dataclasses.replace(self.desired, replace=True)
            return super().look()
        return found
