# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Btrfs as it is asked for: filesystems, subvolumes, and their mounts.

``parse`` reads the options, ``read`` the host, and ``make_plan`` compares the two and is pure. Called by bridge.

A filesystem is known by its label, on the disks that are named for it. Mounts go by UUID: that of a Btrfs filesystem
stands for all of its disks and subvolumes at once.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import mounts, process
from ..core.errors import InvalidInput, ToolError
from ..lock import held
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
)
from .fstab import Entry
from .mounting import Place
from .plan import Inside, Plan, Word, named

PROGRAM = "btrfs"
#: Where the tops of filesystems are mounted out of sight: a folder whose name begins so, with the pid of the run.
_RUN, _PLACE = "/run", "restorepoint-btrfs-"
_LABEL = re.compile(r"[A-Za-z0-9_.+-]{1,255}")
_LINE = re.compile(r"ID (\d+) gen \d+ (?:cgen \d+ )?(?:parent \d+ )?top level \d+ path (.+)")
#: Of mkfs.btrfs(8), less raid5 and raid6, which its own manual calls unfit for use.
PROFILES = ("single", "dup", "raid0", "raid1", "raid1c3", "raid1c4", "raid10")


@dataclass(frozen=True)
class WantedMount:
    """Where a subvolume ("" for the top of the filesystem) is mounted."""

    subvolume: str
    path: str
    options: str


@dataclass(frozen=True)
class WantedFilesystem:
    """A filesystem. Profiles count when it is made."""

    label: str
    devices: tuple[str, ...]
    force: tuple[str, ...]
    data: str | None
    metadata: str | None
    subvolumes: tuple[str, ...]
    mounts: tuple[WantedMount, ...]


@dataclass(frozen=True)
class Wanted:
    """All that is asked for."""

    files: tuple[WantedFile, ...]
    filesystems: tuple[WantedFilesystem, ...]


@dataclass(frozen=True)
class Host:
    """What is there. ``subvolumes`` holds the paths, from the top, of the subvolumes of each filesystem, by label."""

    disks: Mapping[str, Disk]
    subvolumes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)
    systemd: bool = True


def parse(params: Mapping[str, Any]) -> Wanted:
    """Return what the options of btrfs_layout ask for; InvalidInput for what cannot be meant."""
    filesystems = tuple(map(_filesystem, params["filesystems"]))
    devices = [device for each in filesystems for device in each.devices]
    places = [mount.path for each in filesystems for mount in each.mounts]
    twice = named(params["filesystems"], "label") + named(params["files"], "path")
    twice += sorted({each for given in (devices, places) for each in given if given.count(each) > 1})
    if twice:
        raise InvalidInput("set up Btrfs", f"{', '.join(twice)} is there twice", "name each once")
    return Wanted(parse_files(params["files"]), filesystems)


def _filesystem(row: Mapping[str, Any]) -> WantedFilesystem:
    label = row["label"]
    attempt = f"set up the Btrfs filesystem {label!r}"
    if not _LABEL.fullmatch(label):
        raise InvalidInput(attempt, "that label cannot be used", "use a-z, A-Z, 0-9 and _ . + - in it")
    devices = tuple(checked_path(each, "a disk") for each in row["devices"])
    strangers = sorted(set(row["force"]) - set(devices))
    if strangers or not devices:
        raise InvalidInput(
            attempt,
            f"force names {', '.join(strangers)}, which is none of its devices" if strangers else "it has no devices",
            "name each disk under devices, and under force those whose content may be lost",
        )
    names = [each["name"] for each in row["subvolumes"]]
    for name in names:
        if not name.isprintable() or any(part in ("", ".", "..") for part in name.split("/")) or names.count(name) > 1:
            raise InvalidInput(f"{attempt}, its subvolume {name!r}", "that is no path inside of it, or is there twice",
                               "write it without a slash at its ends")  # fmt: skip
    rows = [{"name": "", **row}, *row["subvolumes"]]
    wanted = tuple(
        WantedMount(each["name"], mounting.checked_place(each["mount"]), each["mount_options"])
        for each in rows if each["mount"]
    )  # fmt: skip
    return WantedFilesystem(
        label, devices, tuple(row["force"]), row["data_profile"], row["metadata_profile"], tuple(sorted(names)), wanted
    )


def read(wanted: Wanted) -> Host:
    """Return what is there. Looks into a filesystem that is not mounted by mounting it read-only, out of sight."""
    disks = read_disks([device for each in wanted.filesystems for device in each.devices], wanted.files)
    subvolumes, places = {}, {}
    for filesystem in wanted.filesystems:
        mine = [disks[path] for path in filesystem.devices]
        nodes = [disk.node for disk in mine if disk.node]
        member = next((disk for disk in mine if signature_of(disk, filesystem.label)), None)
        if member is not None and member.node and process.find_program(PROGRAM):
            subvolumes[filesystem.label] = _subvolumes(member.node, nodes)
        for each in filesystem.mounts:
            places[each.path] = _place(each, nodes)
    return Host(disks, subvolumes, places, mounting.has_systemd())


def signature_of(disk: Disk, label: str) -> Signature | None:
    """Return the signature of the Btrfs filesystem with that label, where the disk has it and no other."""
    found = [each for each in disk.signatures if each.kind == "btrfs" and each.label == label]
    return found[0] if found and len(disk.signatures) == 1 else None


def _place(wanted: WantedMount, nodes: list[str]) -> Place:
    def is_ours(mount: mounts.Mount) -> bool:
        return os.path.realpath(mount.source) in nodes and mount.root == f"/{wanted.subvolume}"

    return mounting.look(wanted.path, is_ours, nodes)


def _subvolumes(node: str, nodes: list[str]) -> frozenset[str]:
    known = [each for each in mounts.read_mounts() if each.fstype == "btrfs" and os.path.realpath(each.source) in nodes]
    # Seen from a subvolume, the list is not of the whole filesystem, nor are its paths from the top.
    tops = [each.mount_point for each in known if each.root == "/"]
    if tops:
        return _list(tops[0])
    # Without replaying its log, looking at a filesystem that nobody has mounted writes nothing to it.
    with mounted_top(node, "ro" if known else "ro,rescue=nologreplay") as top:
        return _list(top)


def _list(place: str) -> frozenset[str]:
    attempt = f"list the subvolumes of {place}"
    done = process.run([PROGRAM, "subvolume", "list", place], timeout=TIMEOUT, attempt=attempt)
    return parse_subvolumes(done.stdout, attempt)


def parse_subvolumes(output: str, attempt: str) -> frozenset[str]:
    """Return the paths that ``btrfs subvolume list`` prints; ToolError for a line in another form."""
    found = [_LINE.fullmatch(line) for line in output.splitlines()]
    if not all(found):
        raise ToolError(attempt, f"its answer cannot be read: {output[:300]!r}", "report it, with `btrfs --version`")
    return frozenset(line[2] for line in found if line)


@contextlib.contextmanager
def mounted_top(node: str, options: str = "rw") -> Iterator[str]:
    """Mount the top of a Btrfs filesystem out of sight, and give the place. Raises ToolError."""
    attempt = f"look into the Btrfs filesystem on {node}"
    place = tempfile.mkdtemp(prefix=f"{_PLACE}{os.getpid()}-", dir=_RUN)
    try:
        argv = ["mount", "-t", "btrfs", "-o", f"subvolid=5,{options}", node, place]
        process.run(argv, timeout=TIMEOUT, attempt=attempt, keep=held())
        try:
            yield place
        finally:
            process.run(["umount", place], timeout=TIMEOUT, attempt=attempt, keep=held())
    finally:
        os.rmdir(place)


def clear_left() -> None:
    """Unmount what killed runs have left mounted out of sight. Call it with the lock held. Raises ToolError."""
    for name in os.listdir(_RUN):
        pid = name[len(_PLACE) :].partition("-")[0]
        if not name.startswith(_PLACE) or not pid.isdigit() or os.path.exists(f"/proc/{pid}"):
            continue
        place = os.path.join(_RUN, name)
        if mounts.is_mount_point(mounts.read_mounts(), place):
            attempt = f"unmount {place}, which a killed run has left"
            process.run(["umount", place], timeout=TIMEOUT, attempt=attempt, keep=held())
        with contextlib.suppress(OSError):  # something that is not ours lies in it, or it is gone already
            os.rmdir(place)


def make_plan(wanted: Wanted, host: Host, new_uuid: Callable[[], str]) -> Plan:
    """Return what has to be done. Pure but for one thing: whether the folder of a new file is there.

    ``new_uuid`` gives the UUID of a filesystem that has to be made.
    """
    plan = Plan()
    block_doubles(plan, [device for each in wanted.filesystems for device in each.devices], host.disks)
    plan_files(plan, wanted.files, host.disks)
    places = []
    for filesystem in wanted.filesystems:
        disks = [host.disks[path] for path in filesystem.devices]
        found = [signature_of(disk, filesystem.label) for disk in disks]
        uuid = next((each.uuid for each in found if each), None) or new_uuid()
        if any(found):
            for disk, signature in zip(disks, found):
                if signature is None or signature.uuid != uuid:
                    plan.block(disk.path, f"the filesystem {filesystem.label} is there, and this disk is no part of it",
                               "disks are not added here: see btrfs-device(8)")  # fmt: skip
        else:
            _make(plan, filesystem, disks, uuid)
        _plan_subvolumes(plan, filesystem, disks[0], host)
        for each in filesystem.mounts:
            where = f"subvol=/{each.subvolume}" if each.subvolume else "subvolid=5"
            entry = Entry(f"UUID={uuid}", each.path, "btrfs", f"{where},{each.options}", 0)
            places.append((entry, host.places[each.path]))
    mounting.plan_mounts(plan, places, host.systemd)
    return plan


def _make(plan: Plan, filesystem: WantedFilesystem, disks: Sequence[Disk], uuid: str) -> None:
    for disk in disks:
        claim(plan, disk, f"the filesystem {filesystem.label}", disk.path in filesystem.force)
    argv: list[Word] = ["mkfs.btrfs", "--quiet", "--label", filesystem.label, "--uuid", uuid]
    for option, profile in (("--data", filesystem.data), ("--metadata", filesystem.metadata)):
        argv += [option, profile] if profile else []
    shown = ", ".join(disk.path for disk in disks)
    argv += [disk.device for disk in disks]
    plan.run(filesystem.label, "create filesystem", argv, f"btrfs on {shown}")


def _plan_subvolumes(plan: Plan, filesystem: WantedFilesystem, disk: Disk, host: Host) -> None:
    present = host.subvolumes.get(filesystem.label, frozenset())
    for name in filesystem.subvolumes:
        if name in present:
            continue
        parent = name.rpartition("/")[0]
        if parent and parent not in present and parent not in filesystem.subvolumes:
            reason = f"there is no subvolume {parent} in {filesystem.label}"
            plan.block(f"{filesystem.label}:{name}", reason, "list that one too")
        argv: list[Word] = ["btrfs", "subvolume", "create", Inside(disk.device, name)]
        plan.run(f"{filesystem.label}:{name}", "create subvolume", argv, "subvolume")
