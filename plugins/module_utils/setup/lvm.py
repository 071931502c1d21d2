# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""LVM as it is asked for: physical volumes, volume groups, thin pools, volumes, their filesystems and mounts.

``parse`` reads the options, ``read`` the host, and ``make_plan`` compares the two and is pure. Called by bridge.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import process
from ..core.errors import InvalidInput, ToolError
from ..core.units import format_size, parse_size
from . import mounting
from .disks import (
    TIMEOUT,
    Disk,
    Signature,
    WantedFile,
    block_doubles,
    checked_path,
    claim,
    parse_files,
    plan_files,
    read_disks,
    read_signatures,
)
from .fstab import Entry
from .mounting import Place
from .plan import Plan, Word, named

PROGRAM = "lvm"
#: What LVM keeps at the head of each physical volume, with its default settings.
_HEAD = 1024**2
#: lvm(8), "VALID NAMES".
_NAME = re.compile(r"[a-zA-Z0-9+_.][a-zA-Z0-9+_.-]{0,126}")
_RESERVED = re.compile(
    r"\.{1,2}|(snapshot|pvmove).*|.*_(c|m|t|r)data.*|.*_(mlog|mimage|pmspare|rimage|rmeta|tmeta|vorigin|corig|cmeta|vdata).*"
)
_SHARE = re.compile(r"(\d{1,3})%(VG|FREE)")
#: Where fsck looks at boot (fsck.xfs and fsck.btrfs do nothing), and what fsadm can grow.
_PASSNO = {"ext4": 2, "xfs": 0, "btrfs": 0}
_GROWS = ("ext4", "xfs")


@dataclass(frozen=True)
class Size:
    """Bytes, or a share in percent ``of`` the group (VG) or of what is free in it (FREE)."""

    number: int
    of: str = ""

    def __str__(self) -> str:
        return f"{self.number}%{self.of}" if self.of else format_size(self.number)

    @property
    def words(self) -> tuple[str, str]:
        """It as arguments of lvcreate."""
        return ("--extents", str(self)) if self.of else ("--size", f"{self.number}b")


@dataclass(frozen=True)
class WantedGroup:
    """A volume group. ``extent`` in bytes, used when it is made."""

    name: str
    devices: tuple[str, ...]
    force: tuple[str, ...]
    extent: int


@dataclass(frozen=True)
class WantedVolume:
    """A volume or, with ``is_pool``, a thin pool. ``pool`` is the thin pool that a thin volume lies in."""

    group: str
    name: str
    size: Size
    is_pool: bool = False
    pool: str | None = None
    metadata: int | None = None
    chunk: int | None = None
    profile: str | None = None
    filesystem: str | None = None
    filesystem_options: tuple[str, ...] = ()
    mount: str | None = None
    mount_options: str = "defaults"

    @property
    def full_name(self) -> str:
        """Its name, with that of its group."""
        return f"{self.group}/{self.name}"

    @property
    def path(self) -> str:
        """Its path in /dev, which LVM keeps for it alone: a UUID stands twice after a return to a thin snapshot."""
        return f"/dev/{self.group}/{self.name}"


@dataclass(frozen=True)
class Wanted:
    """All that is asked for; pools come before volumes."""

    files: tuple[WantedFile, ...]
    groups: tuple[WantedGroup, ...]
    volumes: tuple[WantedVolume, ...]


@dataclass(frozen=True)
class Group:
    """A volume group that is there; sizes in bytes."""

    size: int
    free: int
    extent: int
    missing: int = 0


@dataclass(frozen=True)
class Volume:
    """A logical volume that is there. ``signatures`` is None for one that is not active."""

    size: int
    kind: str
    pool: str = ""
    profile: str = ""
    monitor: str = ""
    signatures: tuple[Signature, ...] | None = ()


@dataclass(frozen=True)
class Host:
    """What is there. ``members`` maps the real path of each physical volume to its group ("" for none)."""

    disks: Mapping[str, Disk]
    members: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)
    systemd: bool = True


def parse(params: Mapping[str, Any]) -> Wanted:
    """Return what the options of lvm_layout ask for; InvalidInput for what cannot be meant."""
    rows = [*params["thin_pools"], *params["volumes"]]
    twice = (
        named(params["volume_groups"], "name") + named(rows, "volume_group", "name") + named(params["files"], "path")
    )
    devices = [device for group in params["volume_groups"] for device in group["devices"]]
    twice += sorted({device for device in devices if devices.count(device) > 1})
    places = [row["mount"] for row in params["volumes"] if row["mount"]]
    twice += sorted({place for place in places if places.count(place) > 1})
    if twice:
        raise InvalidInput("set up LVM", f"{', '.join(twice)} is there twice", "name each once")
    groups = tuple(_group(row) for row in params["volume_groups"])
    pools = tuple(_pool(row) for row in params["thin_pools"])
    volumes = tuple(_volume(row) for row in params["volumes"])
    return Wanted(parse_files(params["files"]), groups, (*pools, *volumes))


def _group(row: Mapping[str, Any]) -> WantedGroup:
    name = _name(row["name"], "a volume group")
    devices = tuple(checked_path(each, "a disk") for each in row["devices"])
    strangers = sorted(set(row["force"]) - set(devices))
    if strangers or not devices:
        raise InvalidInput(
            f"set up the volume group {name}",
            f"force names {', '.join(strangers)}, which is none of its devices" if strangers else "it has no devices",
            "name each disk under devices, and under force those whose content may be lost",
        )
    extent = parse_size(row["extent_size"], "extent_size")
    if extent < 128 * 1024 or extent & (extent - 1):
        raise InvalidInput(
            f"set up the volume group {name}", "extent_size is no power of two from 128K on", "correct it"
        )
    return WantedGroup(name, devices, tuple(row["force"]), extent)


def _pool(row: Mapping[str, Any]) -> WantedVolume:
    metadata, chunk = (
        None if row[key] is None else parse_size(row[key], key) for key in ("metadata_size", "chunk_size")
    )
    return WantedVolume(
        _name(row["volume_group"], "a volume group"), _name(row["name"], "a thin pool"), _size(row),
        is_pool=True, metadata=metadata, chunk=chunk, profile=row["profile"],
    )  # fmt: skip


def _volume(row: Mapping[str, Any]) -> WantedVolume:
    name = _name(row["name"], "a volume")
    attempt = f"set up the volume {row['volume_group']}/{name}"
    size = _size(row)
    if row["thin_pool"] and size.of:
        raise InvalidInput(attempt, "a thin volume has no share of its group", "give its size as a number of bytes")
    if row["mount"] and not row["filesystem"]:
        raise InvalidInput(attempt, "it has a mount point and no filesystem", "name the filesystem")
    return WantedVolume(
        _name(row["volume_group"], "a volume group"), name, size,
        pool=row["thin_pool"], filesystem=row["filesystem"], filesystem_options=tuple(row["filesystem_options"]),
        mount=mounting.checked_place(row["mount"]) if row["mount"] else None, mount_options=row["mount_options"],
    )  # fmt: skip


def _name(name: str, what: str) -> str:
    if not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
        raise InvalidInput(
            f"call {what} {name!r}", "LVM does not allow that name", "use a-z, A-Z, 0-9, and + _ . - inside"
        )
    return name


def _size(row: Mapping[str, Any]) -> Size:
    share = _SHARE.fullmatch(row["size"])
    size = Size(int(share[1]), share[2]) if share else Size(parse_size(row["size"], "size"))
    if not size.number or (size.of and size.number > 100):
        raise InvalidInput(
            f"give {row['name']} the size {row['size']}", "that is no size", "give bytes, or 1 to 100 percent"
        )
    return size


def read(wanted: Wanted) -> Host:
    """Return what is there. Where LVM is not installed, that is no group. Only reads. Raises ToolError."""
    disks = read_disks([device for group in wanted.groups for device in group.devices], wanted.files)
    if process.find_program(PROGRAM) is None:
        return Host(disks, places=_places(wanted), systemd=mounting.has_systemd())
    members = {os.path.realpath(row["pv_name"]): str(row["vg_name"]) for row in _report("pvs", "pv", "pv_name,vg_name")}
    groups = {
        str(row["vg_name"]): Group(
            *(int(row[key]) for key in ("vg_size", "vg_free", "vg_extent_size", "vg_missing_pv_count"))
        )
        for row in _report("vgs", "vg", "vg_name,vg_size,vg_free,vg_extent_size,vg_missing_pv_count")
    }
    fields = "vg_name,lv_name,lv_size,segtype,pool_lv,lv_profile,seg_monitor"
    rows = {f"{row['vg_name']}/{row['lv_name']}": row for row in _report("lvs", "lv", fields)}
    mine = [volume for volume in wanted.volumes if volume.full_name in rows and not volume.is_pool]
    active = [volume for volume in mine if os.path.exists(volume.path)]
    # wipefs answers with names without folders, and volumes of two groups may share one: so dm-N, which is unique.
    nodes = {volume.full_name: os.path.realpath(volume.path) for volume in active}
    signatures = read_signatures(sorted(nodes.values()))
    volumes = {
        name: Volume(
            int(row["lv_size"]), row["segtype"], row["pool_lv"], row["lv_profile"], row["seg_monitor"],
            signatures.get(nodes[name], ()) if name in nodes else None,
        )
        for name, row in rows.items()
    }  # fmt: skip
    return Host(disks, members, groups, volumes, _places(wanted), mounting.has_systemd())


def _report(program: str, part: str, fields: str) -> list[dict[str, Any]]:
    attempt = "read what LVM has"
    argv = [program, "--reportformat", "json", "--units", "b", "--nosuffix", "--options", fields]
    done = process.run(argv, timeout=TIMEOUT, attempt=attempt, remedy="see `lvm fullreport`")
    return parse_report(done.stdout, part, fields.split(","), attempt)


def parse_report(output: str, part: str, fields: Sequence[str], attempt: str) -> list[dict[str, Any]]:
    """Return the rows of a report of LVM in JSON, each of which has all of the fields; ToolError for anything else."""
    try:
        rows: list[dict[str, Any]] = [dict(row) for report in json.loads(output)["report"] for row in report[part]]
        if any(not isinstance(row[each], str) for row in rows for each in fields):
            raise TypeError
    except (ValueError, KeyError, TypeError) as error:
        raise ToolError(
            attempt, f"its answer cannot be read: {output[:300]!r}", "report it, with the answer of `lvm version`"
        ) from error
    return rows


def _places(wanted: Wanted) -> dict[str, Place]:
    return {volume.mount: _place(volume.mount, volume.path) for volume in wanted.volumes if volume.mount}


def _place(mount_point: str, path: str) -> Place:
    number = _number(path)
    return mounting.look(mount_point, lambda mount: mount.device == number, [os.path.realpath(path)])


def _number(path: str) -> str:
    try:
        number = os.stat(path).st_rdev
    except OSError:
        return ""
    return f"{os.major(number)}:{os.minor(number)}"


def make_plan(wanted: Wanted, host: Host) -> Plan:
    """Return what has to be done. Pure but for one thing: whether the folder of a new file is there."""
    plan = Plan()
    block_doubles(plan, [device for group in wanted.groups for device in group.devices], host.disks)
    plan_files(plan, wanted.files, host.disks)
    room: dict[str, _Room] = {name: _Room(group.size, group.free, group.extent) for name, group in host.groups.items()}
    for group in wanted.groups:
        _plan_group(plan, group, host, room)
    for volume in wanted.volumes:
        _plan_volume(plan, volume, wanted, host, room)
    mounts = [
        (Entry(each.path, each.mount, str(each.filesystem), each.mount_options, _PASSNO[str(each.filesystem)]),
         host.places[each.mount])
        for each in wanted.volumes if each.mount
    ]  # fmt: skip
    mounting.plan_mounts(plan, mounts, host.systemd)
    return plan


@dataclass
class _Room:
    """The space of a group while the plan is made, in bytes."""

    size: int
    free: int
    extent: int

    def bytes_of(self, size: Size) -> int:
        if size.of:
            return (self.size if size.of == "VG" else self.free) * size.number // 100 // self.extent * self.extent
        return -(-size.number // self.extent) * self.extent

    def grow(self, disk: Disk) -> None:
        more = max(0, disk.size - _HEAD) // self.extent * self.extent
        self.size, self.free = self.size + more, self.free + more


def _plan_group(plan: Plan, group: WantedGroup, host: Host, room: dict[str, _Room]) -> None:
    present = host.groups.get(group.name)
    if present and present.missing:
        plan.block(group.name, f"{present.missing} of its disks is missing", "connect it, or see vgreduce(8)")
    space = room.setdefault(group.name, _Room(0, 0, group.extent))
    new = [host.disks[path] for path in group.devices if host.members.get(host.disks[path].node or "-") != group.name]
    for disk in new:
        other = host.members.get(disk.node or "-")
        if other:
            plan.block(
                disk.path, f"it belongs to the volume group {other}", "take it out of that group with vgreduce(8) first"
            )
        else:
            claim(plan, disk, f"the volume group {group.name}", disk.path in group.force)
        space.grow(disk)
    devices: list[Word] = [disk.device for disk in new]
    shown = ", ".join(disk.path for disk in new)
    if not present:
        argv: list[Word] = ["vgcreate", "--physicalextentsize", f"{group.extent}b", group.name, *devices]
        plan.run(group.name, "create volume group", argv, f"volume group on {shown}")
    elif new:
        plan.run(
            group.name, "extend volume group", ["vgextend", group.name, *devices], f"also on {shown}", "without them"
        )


def _plan_volume(plan: Plan, volume: WantedVolume, wanted: Wanted, host: Host, room: Mapping[str, _Room]) -> None:
    space = room.get(volume.group)
    if space is None:
        plan.block(volume.full_name, f"there is no volume group {volume.group}", "list it under volume_groups")
        return
    if volume.pool and not _has_pool(volume, wanted, host):
        plan.block(volume.full_name, f"there is no thin pool {volume.group}/{volume.pool}", "list it under thin_pools")
        return
    present = host.volumes.get(volume.full_name)
    if present is None:
        _create(plan, volume, space)
    elif _is_kind(plan, volume, present):
        _resize(plan, volume, present, space)
        _tune_pool(plan, volume, present)
        _keep_filesystem(plan, volume, present)


def _has_pool(volume: WantedVolume, wanted: Wanted, host: Host) -> bool:
    planned = any(each.is_pool and (each.group, each.name) == (volume.group, volume.pool) for each in wanted.volumes)
    there = host.volumes.get(f"{volume.group}/{volume.pool}")
    return planned or (there is not None and there.kind == "thin-pool")


def _create(plan: Plan, volume: WantedVolume, space: _Room) -> None:
    size = space.bytes_of(volume.size)
    if not volume.pool:
        if size > space.free or not size:
            wanted = f"{volume.size} asked for" if size else f"{volume.size} is less than one extent"
            plan.block(
                volume.full_name,
                f"{format_size(space.free)} is free in {volume.group}, {wanted}",
                "make it smaller, or give the group another disk",
            )
        else:
            space.free -= size
    argv: list[Word] = ["lvcreate", "--yes", *([] if volume.is_pool else ["--wipesignatures", "y"])]
    if volume.pool:
        argv += ["--type", "thin", "--thinpool", volume.pool, "--virtualsize", f"{volume.size.number}b"]
    else:
        argv += ["--type", "thin-pool" if volume.is_pool else "linear", *volume.size.words]
    for option, value in (("--poolmetadatasize", volume.metadata), ("--chunksize", volume.chunk)):
        argv += [option, f"{value}b"] if value is not None else []
    argv += ["--metadataprofile", volume.profile] if volume.profile else []
    what = "thin pool" if volume.is_pool else f"thin volume in {volume.pool}" if volume.pool else "volume"
    plan.run(
        volume.full_name, f"create {what}", [*argv, "--name", volume.name, volume.group], f"{what} of {volume.size}"
    )
    if volume.filesystem:
        _format(plan, volume)


def _format(plan: Plan, volume: WantedVolume) -> None:
    argv = [f"mkfs.{volume.filesystem}", "-q", *volume.filesystem_options, volume.path]
    plan.run(volume.full_name, "create filesystem", argv, str(volume.filesystem), "no filesystem")


def _is_kind(plan: Plan, volume: WantedVolume, present: Volume) -> bool:
    """Say whether a volume is of the kind that is asked for; add a blocker if not."""
    if volume.is_pool:
        fits, wanted = present.kind == "thin-pool", "a thin pool"
    elif volume.pool:
        fits, wanted = present.pool == volume.pool, f"a thin volume in {volume.pool}"
    else:
        fits, wanted = present.kind not in ("thin", "thin-pool"), "a volume that is not thin"
    if not fits:
        there = f"{present.kind} in {present.pool}" if present.pool else present.kind
        plan.block(volume.full_name, f"it is there as {there}, not as {wanted}", "choose another name, or remove it")
    return fits


def _resize(plan: Plan, volume: WantedVolume, present: Volume, space: _Room) -> None:
    """Add what makes a volume as large as it is asked to be. Shares of the group count when it is made, not later."""
    if volume.size.of:
        return
    size = space.bytes_of(volume.size)
    was, wanted = format_size(present.size), format_size(size)
    if size < present.size and volume.is_pool:
        return  # dmeventd has extended it, as it should.
    if size < present.size:
        reason = f"it has {was}, more than the {wanted} asked for"
        plan.block(volume.full_name, reason, "volumes are never shrunk here: correct the size")
    elif size > present.size:
        more = size - present.size
        if more > space.free and not volume.pool:
            reason = f"{format_size(space.free)} is free in {volume.group}, {format_size(more)} more is asked for"
            plan.block(volume.full_name, reason, "make it smaller, or give the group another disk")
        if volume.filesystem and volume.filesystem not in _GROWS:
            plan.block(
                volume.full_name, f"{volume.filesystem} is not grown here", "extend it by hand, filesystem and all"
            )
        space.free -= 0 if volume.pool else min(more, space.free)
        resize = ["--resizefs"] if volume.filesystem and present.signatures else []
        argv = ["lvextend", "--yes", *resize, "--size", f"{size}b", volume.full_name]
        plan.run(volume.full_name, "extend volume", argv, wanted, was)


def _tune_pool(plan: Plan, volume: WantedVolume, present: Volume) -> None:
    """Add what gives a thin pool its profile, and has it watched: without dmeventd nothing extends it."""
    if not volume.is_pool:
        return
    if volume.profile and present.profile != volume.profile:
        argv = ["lvchange", "--metadataprofile", volume.profile, volume.full_name]
        plan.run(volume.full_name, "set profile", argv, volume.profile, present.profile or "no profile")
    if present.monitor == "not monitored":
        argv = ["lvchange", "--monitor", "y", volume.full_name]
        plan.run(volume.full_name, "have it watched", argv, "monitored", present.monitor)


def _keep_filesystem(plan: Plan, volume: WantedVolume, present: Volume) -> None:
    if not volume.filesystem:
        return
    if present.signatures is None:
        reason = "it is not active, so nobody can tell what is on it"
        plan.block(volume.full_name, reason, f"activate it: lvchange --activate y {volume.full_name}")
    elif not present.signatures:
        _format(plan, volume)
    elif [each.kind for each in present.signatures] != [volume.filesystem]:
        found = ", ".join(map(str, present.signatures))
        reason = f"there is {found} on it, not {volume.filesystem}"
        plan.block(volume.full_name, reason, "name the filesystem that it has, or wipe it by hand")
