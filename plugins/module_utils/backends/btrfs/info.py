# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows what a store of Btrfs snapshots holds: the flat list, the tree, sizes, and whether all is as it was taken.

Changes nothing. Called by the bridge for ``btrfs_snapshot_info``, and by the agent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ... import process
from ...core.errors import StoreError, ToolError
from ...core.snapshot import Snapshot, as_tree
from ..stored import subvolume
from .backend import BtrfsBackend

_TIMEOUT = 600.0
_REMEDY = "look into it with the btrfs tool itself"


def describe(
    backend: BtrfsBackend, name: str | None = None, sizes: bool = False, verify: bool = False
) -> dict[str, Any]:
    """Return ``snapshots``, ``asides``, ``tree`` and, where asked, ``verified``, for the targets or the whole store.

    Args:
        name: only snapshots of that name.
        sizes: tell what each holds alone (what removing it would free) and what it refers to.
        verify: say of each snapshot whether it is what was taken, read-only and never written to since.

    Raises StoreError where the store is none, ToolError where btrfs does not tell sizes.
    """
    with backend.session(writing=False):
        if not backend.store.exists():
            raise StoreError(f"look into {backend.store.path}", "there is no store", "take a snapshot first")
        snapshots: list[Snapshot] = []
        asides: list[Snapshot] = []
        for target in backend.paths or backend.known_targets():
            snapshots += [each for each in backend.snapshots(target) if name in (None, each.name)]
            asides += [each for each in backend.asides(target) if name in (None, each.name)]
        measure = _Sizes(backend) if sizes else None
        found: dict[str, Any] = {
            "snapshots": [_shown(each, measure) for each in snapshots],
            "asides": [_shown(each, measure) for each in asides],
            "tree": as_tree(snapshots),
        }
        if verify:
            found["verified"] = [_verified(each) for each in snapshots]
        return found


def _shown(snapshot: Snapshot, measure: _Sizes | None) -> dict[str, Any]:
    result = snapshot.as_result()
    return {**result, **measure.of(snapshot)} if measure is not None and snapshot.ready else result


def _verified(snapshot: Snapshot) -> dict[str, Any]:
    fault = None if snapshot.ready else snapshot.extra["fault"]
    proof = "the UUID it was given, read-only, and not written to since" if fault is None else "none"
    return {"target": snapshot.target, "name": snapshot.name, "ok": fault is None, "proof": proof, "fault": fault}


class _Sizes:
    """What subvolumes take: by their quota groups where quotas are on, which costs nothing, else by their extents."""

    def __init__(self, backend: BtrfsBackend) -> None:
        self._backend = backend
        self._groups = quota_groups(backend.store.path)

    def of(self, snapshot: Snapshot) -> dict[str, Any]:
        """Return ``size_bytes`` and ``referenced_bytes`` of a snapshot, with the subvolumes taken with it."""
        exclusive = referenced = 0
        for path in self._backend.places_of(snapshot):
            known = self._groups.get(subvolume.show(path).number)
            one = known if known is not None else extents(path)
            referenced, exclusive = referenced + one[0], exclusive + one[1]
        by = "quota groups" if self._groups else "extents"
        return {
            "size_bytes": exclusive,
            "referenced_bytes": referenced,
            "extra": {**snapshot.extra, "measured_by": by},
        }


def quota_groups(path: str) -> dict[int, tuple[int, int]]:
    """Return (referenced, exclusive) bytes by the number of the subvolume; nothing where quotas are not on.

    An older btrfs, which does not print JSON here, counts as one without quotas. Raises ToolError.
    """
    attempt = f"read the quota groups of the filesystem of {path}"
    argv = ["btrfs", "--format", "json", "qgroup", "show", "--raw", "--sync", path]
    said = process.run(argv, timeout=_TIMEOUT, attempt=attempt, remedy=_REMEDY, ok=(0, 1))
    if said.rc:
        if any(words in said.stderr for words in ("quotas not enabled", "quota not enabled", "unsupported")):
            return {}
        raise ToolError(attempt, said.stderr.strip()[-500:] or "it printed nothing", _REMEDY)
    return parse_quota_groups(said.stdout, attempt)


def parse_quota_groups(text: str, attempt: str) -> dict[int, tuple[int, int]]:
    """Return the groups of level 0 in the JSON of ``btrfs qgroup show``. Raises ToolError for what is none."""
    try:
        rows = json.loads(text)["qgroup-show"]
        found = {}
        for row in rows:
            level, number = str(row["qgroupid"]).split("/")
            if level == "0":
                found[int(number)] = (_bytes(row, "referenced"), _bytes(row, "exclusive"))
        return found
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ToolError(attempt, f"btrfs printed what cannot be parsed: {error!r}", _REMEDY) from error


def _bytes(row: Mapping[str, Any], key: str) -> int:
    value = int(row[key])
    if value < 0:
        raise ValueError(f"{key} is {value}")
    return value


def extents(path: str) -> tuple[int, int]:
    """Return (referenced, exclusive) bytes by looking at every extent of a subvolume. Raises ToolError."""
    attempt = f"measure {path}"
    argv = ["btrfs", "filesystem", "du", "--raw", "--summarize", path]
    return parse_extents(process.run(argv, timeout=_TIMEOUT, attempt=attempt, remedy=_REMEDY).stdout, attempt)


def parse_extents(text: str, attempt: str) -> tuple[int, int]:
    """Return (total, exclusive) from what ``btrfs filesystem du --raw --summarize`` prints. Raises ToolError."""
    lines = [line.split(None, 3) for line in text.splitlines() if line.strip()]
    try:
        header, row = lines
        if header != ["Total", "Exclusive", "Set", "shared  Filename"] or not all(map(str.isdecimal, row[:2])):
            raise ValueError(text[:200])
        return int(row[0]), int(row[1])
    except ValueError as error:
        raise ToolError(attempt, f"btrfs printed what cannot be parsed: {error}", _REMEDY) from error
