# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Takes snapshots, thick and thin. Called by the backend.

LVM takes one snapshot with one command, so the snapshots of a call lie a little apart. Those of a call of several are
marked as pending until all of them are there. One command then clears the marks, and from its first one on they count:
a run that was killed before leaves nothing but volumes with a mark, which the next one removes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.backend import REPLACE, Change, Desired
from ...core.errors import RestorePointError
from . import tags
from .commands import Lvm
from .names import snapshot_lv
from .options import LvmOptions, LvmTarget
from .report import Volume


@dataclass(frozen=True)
class Making:
    """One snapshot that is to be made. ``extents`` is its size; None for a thin one, which needs none.

    ``final`` is what its LV is called in the end, ``lv`` what until the snapshot that it replaces is gone.
    """

    change: Change
    origin: Volume
    lv: str
    final: str
    extents: int | None
    extent: int
    tags: tuple[str, ...]
    replaces: Volume | None = None

    @property
    def path(self) -> str:
        """Return what commands call it while it is new."""
        return f"{self.origin.vg}/{self.lv}"


def draft(
    change: Change, desired: Desired, target: LvmTarget, origin: Volume, extents: int | None, extent: int, group: str,
    replaces: Volume | None, number: int,
) -> Making:  # fmt: skip
    """Return what has to be made for a change. ``group`` is the same for all changes of a call.

    ``number`` tells it from others of the same second: LVM knows no finer times.
    """
    record: dict[str, Any] = {
        "name": change.name,
        "owner": desired.owner,
        "policy": desired.policy,
        "description": desired.description or "",
        "labels": dict(desired.labels or {}),
        "of": origin.uuid,
        "group": group,
        "number": number,
    }
    if replaces is not None:
        record.update(replaces=replaces.uuid, lv=snapshot_lv(target.lv, change.name))
    final = snapshot_lv(target.lv, change.name)
    lv = temporary_lv(target.lv) if change.verb == REPLACE else final
    return Making(change, origin, lv, final, extents, extent, tuple(tags.encode(tags.SNAPSHOT, record)), replaces)


def temporary_lv(lv: str) -> str:
    """Return a name for an LV that gets its own one later."""
    return f"{lv}.rp-{os.urandom(4).hex()}"


def pending_mark(group: str, vgs: Sequence[str]) -> list[str]:
    """Return the tags of a snapshot that does not count yet: of which call, and in which volume groups to look."""
    return tags.encode(tags.PENDING, {"change": "create", "group": group, "vgs": sorted(set(vgs))})


def take(lvm: Lvm, making: Making, mark: Sequence[str], options: LvmOptions) -> float:
    """Take one snapshot; return the moment at which it was taken, in seconds since the epoch. Raises ToolError.

    LVM freezes the filesystem by itself. Doing that here as well would make it fail, and leave the volume suspended.
    A thin snapshot is read-only: `cloned` gives a writable one. A thick one is as LVM makes it, as there is no clone.
    """
    kind = ["--permission", "r"] if making.extents is None else ["--extents", str(making.extents)]
    before = options.instant()
    lvm.change(
        "lvcreate", "--snapshot", "--name", making.lv, *kind, *tags.arguments([*making.tags, *mark]),
        making.origin.path,
        attempt=f"take snapshot {making.change.name!r} of {making.origin.path}",
        remedy="look at `lvs -a` and `vgs`, mend what it complains about, and run it again",
    )  # fmt: skip
    return round((before + options.instant()) / 2, 3)


def too_small(making: Making, made: Volume | None) -> RestorePointError | None:
    """Return what is wrong with a snapshot that was made, or None: LVM may make a smaller one and call it a success."""
    attempt = f"take snapshot {making.change.name!r} of {making.origin.path}"
    if made is None:
        return RestorePointError(attempt, "it is not there, though lvcreate succeeded", "look at `lvs -a`")
    if making.extents is not None and made.size < making.extents * making.extent:
        reason = f"LVM made it {made.size} bytes large instead of {making.extents * making.extent}"
        return RestorePointError(attempt, reason, "free space in the volume group, or ask for a smaller size")
    return None


def described(volume: Volume, arguments: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the tags to add to a snapshot and to take from it, for another description or other labels."""
    old = volume.record(tags.SNAPSHOT) or {}
    before = tags.encode(tags.SNAPSHOT, old)
    after = tags.encode(tags.SNAPSHOT, {**old, **arguments})
    return [tag for tag in after if tag not in before], [tag for tag in before if tag not in after]
