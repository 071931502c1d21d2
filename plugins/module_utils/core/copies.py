# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which copies of snapshots stay at a ZFS destination and which go, and what it will hold after an export. Pure.

A copy is a policy's own where its metadata says so, never by its name: what somebody else has put there is not ours to
remove. What the next export starts from never goes, whatever the keep rules say. Called by agent/exporting.py and
agent/foreseeing.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from .backend import Desired
from .offsite import Point, bookmarked
from .plan import point
from .retention import Decision, RetentionPlan, RetentionPolicy, decide
from .snapshot import Snapshot


def unsigned(there: Sequence[Snapshot], own: Sequence[Snapshot]) -> list[Snapshot]:
    """Return the copies of these snapshots that do not say whose they are: not every stream carries that.

    A copy is known by its guid. One that names another owner is left to him, even if its snapshot here is ours.
    """
    guids = {str(each.extra["guid"]) for each in own}
    return [each for each in there if each.owner is None and str(each.extra["guid"]) in guids]


def signed(there: Sequence[Snapshot], names: Sequence[str], owner: str) -> list[Snapshot]:
    """Return the copies as they are once those of these names say whose they are."""
    return [replace(each, owner=owner, policy=owner) if each.name in names else each for each in there]


def with_those_to_come(there: Sequence[Snapshot], coming: Sequence[Snapshot]) -> list[Snapshot]:
    """Return what a destination holds once these snapshots have arrived: without holds and clones, and newer by order.

    ``coming`` are snapshots of the source. Their transaction groups mean nothing in another pool.
    """
    last = max((each.sequence for each in there), default=0)
    arrived = [
        replace(each, sequence=last + number, held=None, in_use=None, size_bytes=None)
        for number, each in enumerate(coming, 1)
    ]
    return [*there, *arrived]


def needed_there(source: Sequence[Point], there: Sequence[Snapshot], destination: str) -> dict[str, str]:
    """Return the copies that no keep rule removes, with the reason, by name.

    They are the newest one there, which a receive starts from, or goes on from where it was cut off; the newest one
    that both sides have; and those of which a bookmark of this destination is left at the source.
    """
    guids = {each.guid for each in source}
    marked = {each.guid for each in source if each.bookmark and (bookmarked(each.name) or ("",))[0] == destination}
    ordered = sorted(there, key=lambda each: each.sequence)
    common = [each for each in ordered if str(each.extra["guid"]) in guids]
    found = {each.name: "the newest one there, from which the next export goes on" for each in ordered[-1:]}
    found.update(
        {each.name: "a bookmark at the source is of it" for each in common if str(each.extra["guid"]) in marked}
    )
    found.update({each.name: "the last one that both sides have" for each in common[-1:]})
    return found


def decide_copies(
    there: Sequence[Snapshot], owner: str, needed: Mapping[str, str], rules: RetentionPolicy, now: int
) -> RetentionPlan:
    """Return what becomes of each copy of one dataset at ``now`` (seconds since the epoch).

    What is ``needed`` takes its place among the others, and stays where the rules would let it go.
    """
    desired = Desired(state="pruned", owner=owner)
    outcome = decide([point(desired, each, own_only=True) for each in there], rules, now)
    decisions = [
        Decision(each.name, True, needed[each.name]) if not each.keep and each.name in needed else each
        for each in outcome.decisions
    ]
    return RetentionPlan(tuple(decisions), outcome.warnings, outcome.refusal)


def in_the_way(there: Sequence[Snapshot], owner: str) -> list[str]:
    """Return in words which of an owner's copies cannot go because of a hold or a clone there."""
    return [
        f"{each.name} stays, whatever the keep rules say: {'held: ' + each.held if each.held else each.in_use}"
        for each in there
        if each.owner == owner and (each.held or each.in_use)
    ]
