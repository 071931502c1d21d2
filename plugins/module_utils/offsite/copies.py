# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The copies that a ZFS destination holds of one dataset: listed with their owners, signed, and removed.

All of it works here and over ssh, where one command is one argument: so names go in parts that fit. Decides nothing.
Called by the agent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from ..backends.zfs.changes import destroy_freeing, freed_by
from ..backends.zfs.listing import Dataset, own_values, snapshots_of, with_tags
from ..backends.zfs.properties import OWNER
from ..core.snapshot import Snapshot
from .zfs import Side

#: So many names of at most 256 bytes, each with its dataset, fit into one argument (128 KiB), quoted as well.
AT_ONCE = 200
_T = TypeVar("_T")


def copies_in(side: Side, target: str) -> list[Snapshot]:
    """Return the snapshots of a dataset there, the oldest first, each with the owner that is written on itself.

    An owner counts that came with the stream, or was set there since; one that is inherited does not.
    Raises ToolError, also where there is no such dataset.
    """
    attempt = f"list the copies in {target}{side.place}"
    listed = snapshots_of(side, [Dataset(target, "filesystem")], attempt)[target]
    held = [row for row in listed if row.holds]
    for part in _parts(held):
        tagged = {row.name: row for row in with_tags(side, {target: part}, attempt)[target]}
        listed = [tagged.get(row.name, row) for row in listed]
    owners = own_values(side, (OWNER,), [target], attempt, "-d", "1", "-t", "snapshot", received=True)
    found = [row.snapshot() for row in listed]
    return [_owned(each, owners.get(f"{target}@{each.name}", {}).get(OWNER)) for each in found]


def _owned(snapshot: Snapshot, owner: str | None) -> Snapshot:
    return replace(snapshot, owner=owner, policy=None if owner in (None, "manual") else owner)


def sign(side: Side, target: str, names: Sequence[str], owner: str) -> None:
    """Write on these copies whose they are. Raises ToolError."""
    for part in _parts(names):
        side.change_many(
            ["set", f"{OWNER}={owner}"],
            [f"{target}@{each}" for each in part],
            f"note on copies in {target}{side.place} whose they are",
        )


def would_free(side: Side, target: str, names: Sequence[str]) -> int:
    """Return the bytes that removing these copies would free there, as ZFS reckons for each part. Touches nothing."""
    return sum(freed_by(side, target, part) for part in _parts(names))


def remove(side: Side, target: str, names: Sequence[str]) -> Iterator[tuple[Sequence[str], int]]:
    """Remove copies, part by part; yield what is gone and the bytes that it freed.

    A part goes as a whole or not at all. Raises ToolError, with the tool's own words: a hold or a clone that came
    since they were listed, say.
    """
    for part in _parts(names):
        yield part, destroy_freeing(side, target, part, f"remove old copies from {target}{side.place}")


def _parts(found: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for first in range(0, len(found), AT_ONCE):
        yield found[first : first + AT_ONCE]
