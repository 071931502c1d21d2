# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What forbids a change: the state of a volume, its group and its pool, room, and who uses it. Called by the backend.

Everything is looked at for the whole call, before the first command that changes something.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ...core import backend as core
from ...core.backend import Blocker
from ...core.units import format_size
from . import busy, sizes
from .options import DEFER, LvmOptions
from .report import Group, Report, Volume
from .sizes import Size

TAKES = frozenset({core.CREATE, core.REPLACE})
RETURNS = frozenset({core.ROLL_BACK})
CLONES = frozenset({core.CLONE})
MAKES = TAKES | RETURNS | CLONES


def health(target: Volume, group: Group) -> Iterator[Blocker]:
    """Yield what is wrong with a volume or its group, so that nothing may be made of it."""
    path = target.path
    if group.missing_pvs:
        yield Blocker(
            path,
            f"the volume group {group.name} misses {group.missing_pvs} of its disks",
            f"bring them back, or see `vgreduce --removemissing {group.name}`",
            MAKES,
        )
    if group.exported:
        yield Blocker(path, f"the volume group {group.name} is exported", f"vgimport {group.name} first", MAKES)
    if target.health:
        yield Blocker(path, f"LVM says of it: {target.health}", "look at `lvs -a -o +lv_health_status`", MAKES)
    if target.suspended:
        yield Blocker(path, "it is suspended", f"resume it: dmsetup resume, or lvchange --refresh {path}", MAKES)
    if target.merge_failed:
        remedy = (
            f"mend the disks that its log names, and activate it anew: `lvchange -an {path}`, `lvchange -ay {path}`"
        )
        yield Blocker(path, "the kernel has given the merge of a snapshot into it up", remedy, MAKES)
    elif target.merging:
        remedy = "wait until that has ended, or activate it anew where the merge waits for that"
        yield Blocker(path, "a snapshot is being merged into it", remedy, MAKES)


def kind(target: Volume) -> Iterator[Blocker]:
    """Yield why LVM has no snapshots of a volume of this kind."""
    what = None
    if target.is_thick_snapshot:
        what = "it is itself a thick snapshot, and LVM has no snapshots of those"
    elif target.segtype in ("thin-pool", "cache-pool", "vdo-pool"):
        what = f"it is a {target.segtype}, and LVM has no snapshots of those"
    elif target.hidden or "private" in target.roles:
        what = "it is a part of another volume"
    if what is not None:
        yield Blocker(target.path, what, "name the volume that holds the data", MAKES)


def pool(target: Volume, report: Report, options: LvmOptions) -> Iterator[Blocker]:
    """Yield why nothing new may be made in the thin pool of a volume."""
    found = report.find(target.vg, target.pool) if target.is_thin else None
    if found is None:
        return
    remedy = f"extend it with lvextend {found.path}, remove snapshots, or raise "
    if found.health or found.check_needed:
        fault = found.health or "it needs a check"
        yield Blocker(target.path, f"the thin pool {found.path} is not well: {fault}", "repair it first", MAKES)
    if (found.data_percent or 0.0) > options.data_limit:
        reason = (
            f"the data of the thin pool {found.path} is {found.data_percent:g} % full, above {options.data_limit} %"
        )
        yield Blocker(target.path, reason, remedy + "data_limit", MAKES)
    if (found.metadata_percent or 0.0) > options.metadata_limit:
        full = f"{found.metadata_percent:g} % full, above {options.metadata_limit} %"
        reason = f"the metadata of the thin pool {found.path} is {full}"
        yield Blocker(
            target.path, reason, remedy.replace("lvextend ", "lvextend --poolmetadatasize ") + "metadata_limit", MAKES
        )


def thick_sizes(
    targets: Sequence[Volume], report: Report, size: Size | None
) -> tuple[dict[str, int], list[Blocker]]:  # fmt: skip
    """Return how many extents a thick snapshot of each volume gets, by its path, and why there is no room for all."""
    found: dict[str, int] = {}
    blockers: list[Blocker] = []
    sharing: dict[str, int] = {}
    for target in targets:
        sharing[target.vg] = sharing.get(target.vg, 0) + 1
    for target in targets:
        group = report.groups[target.vg]
        used = busy.used_bytes(target.device) if size is None or size.of == sizes.USED else None
        if size is not None and size.of == sizes.USED and used is None:
            remedy = "mount it, or give size in bytes or as %ORIGIN"
            blockers.append(Blocker(target.path, "size is in %USED, and it is not mounted", remedy, TAKES | RETURNS))
        found[target.path] = sizes.extents(
            size, target.size, group.extent, group.free_extents, sharing[target.vg], used
        )
    return found, blockers + _no_room(targets, report, found)


def _no_room(targets: Sequence[Volume], report: Report, found: Mapping[str, int]) -> list[Blocker]:
    blockers = []
    for vg, group in report.groups.items():
        mine = [target for target in targets if target.vg == vg]
        needed = sum(found[target.path] for target in mine)
        if needed > group.free_extents:
            reason = (
                f"the snapshots of this call need {format_size(needed * group.extent)} in the volume group {vg}, "
                f"which has {format_size(group.free_extents * group.extent)} free"
            )
            remedy = "free space there, extend it with vgextend, or ask for a smaller size"
            blockers += [Blocker(target.path, reason, remedy, TAKES | RETURNS) for target in mine]
    return blockers


def number_of_lvs(targets: Sequence[Volume], report: Report) -> Iterator[Blocker]:
    """Yield why a group cannot hold so many more volumes (vgcreate --maxlogicalvolumes)."""
    for vg, group in report.groups.items():
        mine = [target for target in targets if target.vg == vg]
        if group.max_lv and mine and group.lv_count + len(mine) > group.max_lv:
            reason = f"the volume group {vg} may hold {group.max_lv} volumes, and has {group.lv_count}"
            for target in mine:
                yield Blocker(target.path, reason, f"remove some, or vgchange --logicalvolume 0 {vg}", TAKES)


def overflows(target: Volume, snapshot: Volume, members: Sequence[Volume]) -> Iterator[Blocker]:
    """Yield which newer thick snapshots a merge would make overflow.

    A merge writes into the origin what the snapshot holds, and each newer sibling has to keep what is overwritten
    there: it ends as full as the merged one was. An older one holds all of that already.
    """
    for sibling in members:
        newer = sibling.created >= snapshot.created and sibling.uuid != snapshot.uuid
        if newer and sibling.is_thick_snapshot and not sibling.invalid and snapshot.used > sibling.size:
            yield Blocker(
                target.path,
                f"the merge writes up to {format_size(snapshot.used)}, and the newer snapshot {sibling.name} of "
                f"{format_size(sibling.size)} would overflow and be lost",
                f"extend it with lvextend {sibling.path}, or set destroy_newer: true",
                RETURNS,
                "destroy_newer",
            )


def users(target: Volume, snapshot: Volume, thick: bool, options: LvmOptions) -> Iterator[Blocker]:
    """Yield who stands in the way of a return by having the volume, or a thick snapshot, open."""
    if options.when_busy == DEFER:
        return
    mounts = busy.mounted(target.device)
    remedy = "stop that use, or set when_busy: defer"
    if options.unmount:
        for fault in busy.why_not_unmountable(mounts):
            yield Blocker(target.path, fault, "unmount that by hand, or set when_busy: defer", RETURNS, while_used=True)
    else:
        remedy = "stop that use, set unmount: true for mounts, or set when_busy: defer"
    found = busy.users_of(target.device, mounts if options.unmount else ())
    for user in found:
        yield Blocker(target.path, user, remedy, RETURNS, while_used=True)
    if target.is_open and not found and not mounts:
        yield Blocker(target.path, "the kernel says that somebody has it open", remedy, RETURNS, while_used=True)
    if thick and snapshot.is_open:
        shown = busy.users_of(snapshot.device) or ["somebody has it open"]
        for user in shown:
            reason = f"the snapshot {snapshot.path}: {user}"
            yield Blocker(target.path, reason, "stop that use", RETURNS, while_used=True)
