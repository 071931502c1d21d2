# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an export would do: `export --dry-run`. Looks at both sides and touches neither. Called by `cli`.

It goes the way of the export itself, as far as that looks and decides. What restic's keep rules let go of can be asked
of restic only where it has the newest restore point already.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Callable

from ..core.copies import signed, unsigned, with_those_to_come
from ..core.offsite import Destination, Point, bookmarked, steps_for_files
from ..core.snapshot import Snapshot
from ..engine.exports import RESTIC_KEEP
from ..engine.policy import Policy
from ..offsite import zfs
from ..offsite.copies import copies_in, would_free
from ..offsite.files import Folder
from ..offsite.restic import Repository
from .exporting import CHANGES, Found, Outcomes, chosen, found_targets, points_of
from .exporting_zfs import Copying
from .running import DONE, FAILED, UNCHANGED


class Foreseeing(Outcomes):
    """What an export of a policy would do. ``results`` are those of an export; ``decisions`` those of keep rules."""

    attempt = "look at"

    def __init__(self, policy: Policy, now: Callable[[], int]) -> None:
        super().__init__()
        self._policy, self._now = policy, now
        self._here = zfs.Side()
        self.warnings: list[str] = []
        self.decisions: list[dict[str, Any]] = []
        self._would_free = 0

    def foresee(self, only: Sequence[str], force: bool) -> dict[str, Any]:
        """Return the record that an export would write, as far as it can be known. Raises RestorePointError."""
        destinations = chosen(self._policy, only)
        found = found_targets(self._policy, destinations, self._now, self.warnings)
        for destination in destinations:
            self._to(destination, [each for each in found if each.backend.name in destination.backends], force)
        actions = [each["action"] for each in self.results]
        reasons = [each["reason"] for each in self.results if each["action"] == "failed"]
        changed = any(action in CHANGES for action in actions)
        return {
            "command": "export",
            "policy": self._policy.name,
            "dry_run": True,
            "outcome": FAILED if reasons else DONE if changed else UNCHANGED,
            **({"reason": "; ".join(dict.fromkeys(reasons))} if reasons else {}),
            "done": {action: actions.count(action) for action in dict.fromkeys(actions) if action != "unchanged"},
            "freed_bytes": self._would_free,
            "results": self.results,
            "decisions": self.decisions,
        }

    def _to(self, destination: Destination, found: Sequence[Found], force: bool) -> None:
        having = [each for each in found if each.own]
        lacking = [each.shown for each in found if not each.own]
        self.warnings += [f"{each} has no restore point of {self._policy.name} yet" for each in lacking]
        if destination.kind == "restic":
            self.tried(destination, "*", functools.partial(self._to_repository, destination, having))
            return
        marks = self._here.bookmarks([each.target for each in having]) if having else {}
        for each in having:
            known = marks[each.target]
            work = functools.partial(self._to_file, destination, each, known)
            if destination.kind == "zfs":
                work = functools.partial(self._to_dataset, Copying(destination, each, known, force))
            self.tried(destination, each.shown, work)

    def _exported(self, destination: Destination, found: Found, coming: Sequence[str], last: str | None) -> None:
        name = coming[-1] if coming else last
        action = "exported" if coming else "unchanged"
        self.tell(destination, found.shown, action, name=name, **({"names": list(coming)} if coming else {}))

    # -- zfs -----------------------------------------------------------------------------------------------------------

    def _to_dataset(self, copying: Copying) -> None:
        """Say what would be sent, and what would go there afterwards."""
        found, side, target = copying.found, copying.side, copying.target
        there = copying.look()
        points: list[Point] | None = None if there is None else list(there.points)
        resumed: list[str] = []
        if there is not None and there.token:
            name, possible = zfs.resumable(self._here, side, copying.source, target, there, copying.attempt)
            again = [each for each in points_of(found, ()) if each.name == name and possible]
            resumed = [each.name for each in again]
            last = max((each.txg for each in there.points), default=0)
            # Given up, a first receive leaves nothing at all.
            points = [*there.points, *(Point(each.name, each.guid, last + 1) for each in again)] or None
        steps = copying.steps(points)
        coming = [*resumed, *(each.point.name for each in steps.steps)]
        self._exported(copying.destination, found, coming, points[-1].name if points else None)
        if copying.destination.retention is not None:
            listed = copies_in(side, target) if there is not None else []
            if steps.rollback and steps.steps:
                listed = _up_to(listed, steps.steps[0].base)
            self._let_go(copying, listed, coming)

    def _let_go(self, copying: Copying, listed: Sequence[Snapshot], coming: Sequence[str]) -> None:
        """Apply the keep rules to what will be there."""
        destination, found, policy = copying.destination, copying.found, self._policy.name
        arriving = [each for name in coming for each in found.own if each.name == name]
        nobodys = [each.name for each in unsigned(listed, found.own)]
        copies = with_those_to_come(signed(listed, nobodys, policy), arriving)
        copying.known = _known_after(copying, copies)
        plan = copying.plan(copies, policy, self._now())
        self.warnings += copying.warnings(copies, plan, policy)
        for each in plan.decisions:
            told = {"destination": destination.name, "target": found.shown, "name": each.name}
            self.decisions.append({**told, "keep": each.keep, "reason": each.reason})
            if not each.keep:
                self.tell(destination, found.shown, "forgotten", name=each.name, reason=each.reason)
        going = {each.name for each in plan.decisions if not each.keep}
        self._would_free += would_free(copying.side, copying.target, [e.name for e in listed if e.name in going])

    # -- files and restic ----------------------------------------------------------------------------------------------

    def _to_file(self, destination: Destination, found: Found, known: list[Point]) -> None:
        params = destination.params
        index = Folder(params["path"], found.target).look(self._policy.name)
        parts = index.parts if index else ()
        steps = steps_for_files(points_of(found, known), parts, params["newest_only"], params["whole_after"])
        last = parts[-1].name if parts else None
        self._exported(destination, found, [each.point.name for each in steps.steps], last)

    def _to_repository(self, destination: Destination, found: Sequence[Found]) -> None:
        repository = Repository(destination, self._policy.name, read_only=True)
        kept = {(each.target, each.name) for each in repository.open()}
        new = 0
        for each in found:
            newest = each.own[-1].name
            coming = [] if (each.shown, newest) in kept else [newest]
            new += len(coming)
            self._exported(destination, each, coming, newest)
        if new and destination.params["keep"]:
            self.warnings.append(
                f"{destination.name}: restic can say what its keep rules let go of once it has what is new"
            )
            return
        for _unused in range(repository.forget([each.shown for each in found], RESTIC_KEEP)):
            self.tell(destination, "*", "forgotten")


def _up_to(listed: Sequence[Snapshot], base: Point | None) -> list[Snapshot]:
    """Return what --force leaves: nothing that is newer than what the first stream starts from."""
    kept = [each for each in listed if base is not None and str(each.extra["guid"]) == base.guid]
    return [each for each in listed if kept and each.sequence <= kept[0].sequence]


def _known_after(copying: Copying, copies: Sequence[Snapshot]) -> list[Point]:
    """Return the bookmarks at the source after an export: that of this destination moves to the newest copy, if own."""
    newest = max(copies, key=lambda each: each.sequence, default=None)
    own = {str(each.extra["guid"]) for each in copying.found.own}
    if newest is None or str(newest.extra["guid"]) not in own:
        return copying.known
    name = copying.destination.name
    return [each for each in copying.known if (bookmarked(each.name) or ("",))[0] != name]
