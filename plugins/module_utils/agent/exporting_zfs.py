# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A ZFS dataset on its way into another pool, and the keep rules there. Called by `exporting` and `foreseeing`.

The keep rules of a destination come last, and only for a dataset that has arrived as a whole: where anything failed, or
the destination cannot be reached, nothing is removed. What is removed is this policy's own by the metadata of the copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.copies import decide_copies, in_the_way, needed_there, signed, unsigned
from ..core.errors import InvalidInput, RestorePointError
from ..core.offsite import Destination, Diverged, Point, Step, Steps, steps_to
from ..core.retention import RetentionPlan
from ..core.snapshot import Snapshot
from ..core.units import format_size
from ..offsite import streams, zfs
from ..offsite.copies import copies_in, remove, sign, would_free
from .exporting import Found, points_of

if TYPE_CHECKING:
    from .exporting import Exporting


class Copying:
    """One dataset and its copy at one destination. Asks, and decides what is to be done; changes nothing.

    ``known`` are the bookmarks at the source; they are brought up to date by whoever makes one.
    """

    def __init__(self, destination: Destination, found: Found, known: list[Point], force: bool) -> None:
        self.destination, self.found, self.known, self.force = destination, found, known, force
        self.side = zfs.Side(ssh=destination.params["ssh"])
        self.source = found.target
        self.target = f"{destination.params['dataset']}/{self.source.replace('/', ':')}"
        self.attempt = f"export {self.source} to {self.target}{self.side.place}"

    def look(self) -> zfs.Held | None:
        """Return the copy, None where there is none yet. Raises RestorePointError where there can be none."""
        parent = self.destination.params["dataset"]
        if f"{self.target}/".startswith(f"{self.source}/") and self.side.ssh is None:
            raise InvalidInput(self.attempt, "it would be a part of itself", "name a dataset elsewhere")
        there = self.side.look(self.target)
        if there is None and self.side.look(parent) is None:
            reason = f"there is no {parent}{self.side.place}"
            raise RestorePointError(self.attempt, reason, "create it first, with `zfs create`")
        return there

    def steps(self, there: Sequence[Point] | None) -> Steps:
        """Return the streams that the copy lacks, by its snapshots; None where it is not there.

        Raises RestorePointError where it has gone its own way.
        """
        if there is not None and not there:
            way = "rename it, or destroy it if it is not needed"
            raise RestorePointError(self.attempt, "there is a dataset of that name without any snapshot", way)
        steps = steps_to(
            points_of(self.found, self.known), there or (), self.destination.params["newest_only"], self.force
        )
        if isinstance(steps, Diverged):
            way = "say --force if that may go, or " if steps.forced else ""
            way = f"{way}rename {self.target}{self.side.place}, and a new copy begins"
            raise RestorePointError(self.attempt, steps.reason, way)
        return steps

    def plan(self, copies: Sequence[Snapshot], policy: str, now: int) -> RetentionPlan:
        """Return what becomes of these copies by the keep rules there. Raises RestorePointError where they refuse."""
        rules = self.destination.retention
        if rules is None:
            return RetentionPlan(())
        needed = needed_there(points_of(self.found, self.known), copies, self.destination.name)
        plan = decide_copies(copies, policy, needed, rules, now)
        if plan.refusal is not None:
            way = "raise max_delete, or look first with `restorepoint export --dry-run` at what the keep rules remove"
            raise RestorePointError(f"prune {self.target}{self.side.place}", plan.refusal, way)
        return plan

    def warnings(self, copies: Sequence[Snapshot], plan: RetentionPlan, policy: str) -> list[str]:
        """Return what there is to be told of the copies that stay."""
        where = f"{self.target}{self.side.place}"
        return [f"{where}: {each}" for each in (*plan.warnings, *in_the_way(copies, policy))]


def to_dataset(exporting: Exporting, copying: Copying) -> None:
    """Send what the copy lacks, and then let go of what the destination does not keep. Raises RestorePointError."""
    destination, found = copying.destination, copying.found
    there = copying.look()
    told = exporting.told(found.shown)
    moved, without = 0, False
    if there is not None and there.token:
        here, limit = exporting.here, destination.bandwidth
        moved = zfs.resume(here, copying.side, copying.source, copying.target, there, limit, copying.attempt, told)
        there, without = copying.side.look(copying.target), True  # a stream that goes on brings no properties
    steps = copying.steps(there.points if there is not None else None)
    name = _arrived(exporting, copying, there)
    for number, step in enumerate(steps.steps):
        moved += _send(exporting, copying, step, steps.rollback and not number)
        name = step.point.name
        without = without or not zfs.with_properties(step, destination.params["properties"])
    exporting.tell(destination, found.shown, "exported" if moved else "unchanged", name=name, bytes=moved)
    if without or destination.retention is not None:
        _thin_out(exporting, copying)


def _send(exporting: Exporting, copying: Copying, step: Step, rollback: bool) -> int:
    """Send one stream; return its bytes."""
    destination, found, target = copying.destination, copying.found, copying.target
    origin = exporting.kinds[copying.source]
    with exporting.sending(found.labelled, step):
        send = zfs.sending(copying.source, step, origin.encrypted, destination.params["properties"])
        receive = copying.side.argv(*zfs.receiving(target, copying.source, origin.kind, rollback))
        remedy = "see to that; the next export goes on where it ended"
        told = exporting.told(found.shown)
        moved = streams.pump([send], receive, copying.attempt, remedy, destination.bandwidth, told).bytes
        if _arrived(exporting, copying, copying.side.look(target)) != step.point.name:
            reason = f"{step.point.name} was sent, and has not arrived"
            raise RestorePointError(copying.attempt, reason, "look at both sides with `zfs list -t all`")
    return moved


def _arrived(exporting: Exporting, copying: Copying, there: zfs.Held | None) -> str | None:
    """Return the name of the newest snapshot there, and remember it where it is one of ours."""
    if there is None or not there.points:
        return None
    newest = there.points[-1]
    exporting.remember(copying.destination, copying.found, newest.name, newest.guid, copying.known)
    return newest.name


def _thin_out(exporting: Exporting, copying: Copying) -> None:
    """Have all copies say whose they are, and apply the keep rules to those of this policy."""
    destination, found, side, target = copying.destination, copying.found, copying.side, copying.target
    policy = exporting.record["policy"]
    copies = copies_in(side, target)
    nobodys = [each.name for each in unsigned(copies, found.own)]
    if nobodys:
        sign(side, target, nobodys, policy)
        copies = signed(copies, nobodys, policy)
    plan = copying.plan(copies, policy, exporting.now())
    exporting.warnings += copying.warnings(copies, plan, policy) if destination.retention is not None else []
    reasons = {each.name: each.reason for each in plan.decisions if not each.keep}
    if reasons and exporting.shown:
        size = format_size(would_free(side, target, list(reasons)))
        exporting.shown.tell(f"removing {len(reasons)} from {target}{side.place}", None, [f"frees {size}"])
    for names, freed in remove(side, target, list(reasons)):
        exporting.freed_bytes += freed
        for name in names:
            exporting.tell(destination, found.shown, "forgotten", name=name, reason=reasons[name])
