# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows logical volumes, their snapshots and asides, and what LVM does before they are full. Touches nothing.

Called by the bridge for ``lvm_snapshot_info``.
"""

from __future__ import annotations

from typing import Any

from ...core.snapshot import as_tree
from . import busy, tags
from .backend import LvmBackend
from .report import Group, Report, Volume
from .view import View

_THRESHOLDS = (
    "snapshot_autoextend_threshold", "snapshot_autoextend_percent", "thin_pool_autoextend_threshold",
    "thin_pool_autoextend_percent", "monitoring",
)  # fmt: skip


def describe(backend: LvmBackend, name: str | None = None, used_by: bool = False) -> dict[str, Any]:
    """Return ``snapshots``, ``asides``, ``tree``, ``volumes``, ``pools``, ``groups`` and ``autoextend``.

    Args:
        backend: the backend; without targets, every volume of the host is described that could be one.
        name: only snapshots of that name.
        used_by: name who uses each volume, which means looking at every process.

    Raises RestorePointError.
    """
    report = backend.report
    seen = View(report)
    targets = [backend.volume(target) for target in backend.targets] or _all_targets(seen)
    snapshots, asides = [], []
    for target in targets:
        snapshots += [each for each, _unused in seen.snapshots(target) if name in (None, each.name)]
        asides += [each for each, _unused in seen.asides(target) if name in (None, each.name)]
    vgs = {target.vg for target in targets}
    pools = [each for each in report.volumes if each.segtype == "thin-pool" and each.vg in vgs]
    autoextend = backend.lvm.settings(_THRESHOLDS)
    return {
        "snapshots": [each.as_result() for each in snapshots],
        "asides": [each.as_result() for each in asides],
        "tree": as_tree(snapshots),
        "volumes": [_volume(backend, seen, target, used_by) for target in targets],
        "pools": [_pool(backend, each, autoextend) for each in pools],
        "groups": [_group(group) for group in report.groups.values() if group.name in vgs],
        "autoextend": autoextend,
    }


def _all_targets(seen: View) -> list[Volume]:
    """Return the volumes that hold data of their own: no snapshots, asides, parts, pools, nor half of a change."""
    report: Report = seen.report
    asides = {
        str(each.get("uuid"))
        for volume in report.volumes
        for each in volume.records.get(tags.WAS, ())
        if "uuid" in each
    }
    return [
        each
        for each in report.volumes
        if not each.hidden
        and "private" not in each.roles
        and not each.is_thick_snapshot
        and each.uuid not in asides
        and not ({tags.SNAPSHOT, tags.ASIDE} & set(each.records))
        and not (seen.is_pending(each) and each.records.keys() & {tags.PENDING} and ".rp-" in each.name)
        and not _is_foreign_snapshot(each)
    ]


def _is_foreign_snapshot(volume: Volume) -> bool:
    """Say whether somebody else's thin snapshot is just that: LVM leaves those inactive, unlike a volume in use."""
    return "thinsnapshot" in volume.roles and volume.skip_activation and not volume.active


def _volume(backend: LvmBackend, seen: View, target: Volume, used_by: bool) -> dict[str, Any]:
    merging = seen.merging(target)
    found: dict[str, Any] = {
        "target": target.path,
        "type": "thin" if target.is_thin else "thick",
        "segment_type": target.segtype,
        "device": f"/dev/{target.path}",
        "size_bytes": target.size,
        "used_bytes": busy.used_bytes(target.device),
        "active": target.active,
        "open": target.is_open,
        "mounted_at": [each.mount_point for each in busy.mounted(target.device)],
        "pool": target.pool or None,
        "fill_percent": target.data_percent if target.is_thin else None,
        "health": target.health or None,
        "merge": None,
    }
    if merging is not None:
        state = backend.lvm.merge_state(target, merging[1])
        found["merge"] = {"name": merging[0].name, "state": state, "percent_left": merging[1].data_percent}
    if used_by:
        found["used_by"] = busy.users_of(target.device)
    return found


def _pool(backend: LvmBackend, pool: Volume, autoextend: dict[str, int]) -> dict[str, Any]:
    settings = backend.lvm.settings(_THRESHOLDS, pool.profile) if pool.profile else autoextend
    threshold = settings["thin_pool_autoextend_threshold"]
    return {
        "pool": pool.path,
        "size_bytes": pool.size,
        "data_percent": pool.data_percent,
        "metadata_percent": pool.metadata_percent,
        "health": pool.health or None,
        "when_full": pool.when_full or None,
        "monitored": pool.monitored == "monitored",
        "profile": pool.profile or None,
        "autoextend_threshold": threshold,
        "autoextend_percent": settings["thin_pool_autoextend_percent"],
        # LVM reads 100 as never, and only its monitor extends anything.
        "autoextends": threshold < 100 and pool.monitored == "monitored",
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "group": group.name,
        "free_bytes": group.free_extents * group.extent,
        "extent_bytes": group.extent,
        "missing_disks": group.missing_pvs,
        "exported": group.exported,
    }
