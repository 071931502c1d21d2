# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is on a disk, and who uses it: so that none is taken that somebody else needs. Called by lvm, zfs and btrfs.

The kernel tells who uses a disk (sysfs, mounts, swap, and an exclusive open, which fails for whatever else there may
be); ``wipefs --json`` of util-linux reads the signatures from the disk itself, and not from what udev remembers.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import mounts, process
from ..core.errors import InvalidInput, ToolError
from ..core.units import format_size, parse_size
from .plan import Attached, Plan, Word

TIMEOUT = 120.0


@dataclass(frozen=True)
class WantedFile:
    """A file that serves as a disk. ``size`` in bytes."""

    path: str
    size: int


@dataclass(frozen=True)
class Signature:
    """What wipefs found: of a filesystem, a partition table, a member of a pool or array. Empty words where unknown."""

    kind: str
    label: str = ""
    uuid: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.label!r}" if self.label else self.kind


@dataclass(frozen=True)
class Disk:
    """A block device or a file, as it is. ``size`` is in bytes, 0 for one that is missing.

    ``real`` is its path without links; ``device`` is what commands get: for a file its loop device, once it has one.
    ``partitions`` are paths. ``users`` says in words who has it, or a part of it, open.
    """

    path: str
    real: str
    size: int = 0
    kind: str = "missing"
    loop: str | None = None
    signatures: tuple[Signature, ...] = ()
    partitions: tuple[str, ...] = ()
    users: tuple[str, ...] = ()

    @property
    def device(self) -> str | Attached:
        """What a command gets that wants a block device."""
        return (self.loop or Attached(self.path)) if self.kind in ("file", "new file") else self.path

    @property
    def node(self) -> str:
        """The path of the block device in /dev, as programs print it; empty for a file that is not attached."""
        return (self.loop or "") if self.kind in ("file", "new file") else self.real


def parse_files(rows: Iterable[Mapping[str, Any]]) -> tuple[WantedFile, ...]:
    """Return the files that are asked for; InvalidInput for a path or size that cannot be meant."""
    found = tuple(WantedFile(checked_path(row["path"], "a file"), parse_size(row["size"], "size")) for row in rows)
    for file in found:
        if file.size % 4096 or not file.size:
            raise InvalidInput(
                f"use {file.path} as a disk", f"its size, {file.size} bytes, is no multiple of 4096", "choose another"
            )
    return found


def checked_path(path: str, what: str) -> str:
    """Return an absolute path in its plain form; InvalidInput for another."""
    if not path.startswith("/") or os.path.normpath(path) != path or not path.isprintable():
        raise InvalidInput(
            f"use {path!r} as {what}", "it is no absolute path in its plain form", "write it in full, without '..'"
        )
    return path


def read_disks(
    paths: Iterable[str], files: Sequence[WantedFile], *, sys: str = "/sys", proc: str = "/proc"
) -> dict[str, Disk]:
    """Return the disks at these paths, and those files, by path as it was given. Only reads. Raises ToolError."""
    wanted = {file.path: file for file in files}
    disks = {path: _look(path, wanted.get(path), sys, proc) for path in dict.fromkeys([*wanted, *paths])}
    named = sorted({disk.loop or disk.real for disk in disks.values() if disk.kind in ("device", "file")})
    signatures = read_signatures(named)
    return {
        path: Disk(**{**vars(disk), "signatures": signatures.get(disk.loop or disk.real, ())})
        for path, disk in disks.items()
    }


def read_signatures(paths: Sequence[str]) -> dict[str, tuple[Signature, ...]]:
    """Return what wipefs finds on each of these, without doubles. What has none is not among the answers."""
    if not paths:
        return {}
    attempt = f"read what is on {', '.join(paths)}"
    done = process.run(["wipefs", "--json", *paths], timeout=TIMEOUT, attempt=attempt)
    return parse_signatures(done.stdout, paths, attempt)


def parse_signatures(output: str, paths: Sequence[str], attempt: str) -> dict[str, tuple[Signature, ...]]:
    """Return the answer of ``wipefs --json``; where it finds nothing at all, it prints nothing at all."""
    if not output.strip():
        return {}
    by_name = {os.path.basename(path): path for path in paths}
    if len(by_name) < len(paths):
        raise ToolError(attempt, "wipefs names disks without their folder, and two have one name", "rename a file")
    found: dict[str, dict[Signature, None]] = {}
    try:
        for row in json.loads(output)["signatures"]:
            signature = Signature(str(row["type"]), str(row["label"] or ""), str(row["uuid"] or ""))
            found.setdefault(by_name[os.path.basename(row["device"])], {})[signature] = None
    except (ValueError, KeyError, TypeError) as error:
        raise ToolError(
            attempt, f"the answer of wipefs cannot be read: {output[:300]!r}", "report it, with the version of wipefs"
        ) from error
    return {path: tuple(signatures) for path, signatures in found.items()}


def plan_files(plan: Plan, files: Sequence[WantedFile], disks: Mapping[str, Disk], loops: bool = True) -> None:
    """Add what makes the files and, where ``loops``, attaches them to loop devices. Another size is a blocker."""
    for file in files:
        disk = disks[file.path]
        if disk.kind == "new file":
            parent = os.path.dirname(file.path)
            if not os.path.isdir(parent):
                plan.block(file.path, f"there is no directory {parent}", "make it first")
            plan.run(file.path, "create file", _made(file), format_size(file.size))
        elif disk.kind != "file":
            plan.block(file.path, "it is no file", "name one that is, or one that is not there yet")
        elif disk.size != file.size:
            was, wanted = format_size(disk.size), format_size(file.size)
            plan.block(
                file.path,
                f"it has {was} ({disk.size} bytes), not {wanted}",
                "files are not resized: correct its size here",
            )
        if loops and disk.kind in ("file", "new file") and disk.loop is None:
            argv = ["losetup", "--find", "--nooverlap", file.path]
            plan.run(file.path, "attach file", argv, "on a loop device", before="not attached")


def block_doubles(plan: Plan, paths: Iterable[str], disks: Mapping[str, Disk]) -> None:
    """Add a blocker for each disk that is named twice, by whatever paths."""
    seen: dict[str, str] = {}
    for path in paths:
        first = seen.setdefault(disks[path].real, path)
        if first != path:
            plan.block(path, f"it is the same disk as {first}", "name each disk once")


def claim(plan: Plan, disk: Disk, purpose: str, forced: bool) -> None:
    """Add what frees a disk for a purpose, or the blocker that says why it must not be taken.

    Signatures are wiped only from a disk that is forced by its own name; one in use is never taken.
    """
    if disk.kind == "missing":
        plan.block(disk.path, "there is no such disk", "correct the path, or connect it")
        return
    if disk.kind == "thing":
        plan.block(disk.path, "it is no block device", "name a disk, or list the file under files too")
        return
    if disk.users:
        plan.block(
            disk.path, f"it is in use: {', '.join(disk.users)}", f"choose another disk for {purpose}, or free it first"
        )
        return
    if not disk.signatures and not disk.partitions:
        return
    found = ", ".join([*map(str, disk.signatures), *(f"partition {each}" for each in disk.partitions)])
    if not forced:
        plan.block(
            disk.path,
            f"there is something on it: {found}",
            f"choose another disk for {purpose}; if all that is on this one may be lost, name it under force",
        )
        return
    argv: list[Word] = ["wipefs", "--all", *disk.partitions, disk.loop or disk.real]
    plan.run(disk.path, "wipe signatures", argv, "blank", before=found)


def _made(file: WantedFile) -> list[Word]:
    # dd, unlike truncate, refuses with excl a file that has appeared meanwhile.
    return ["dd", "if=/dev/null", f"of={file.path}", "bs=1", "count=0", f"seek={file.size}", "conv=excl", "status=none"]


def _look(path: str, wanted: WantedFile | None, sys: str, proc: str) -> Disk:
    """Return a disk without its signatures."""
    real = os.path.realpath(path)
    try:
        found = os.stat(real)
    except FileNotFoundError:
        return Disk(path, real, wanted.size, "new file") if wanted else Disk(path, real)
    except OSError as error:
        raise ToolError(f"look at {path}", error.strerror or str(error), "correct the path") from error
    if stat.S_ISBLK(found.st_mode):
        return _block(Disk(path, real, kind="device"), found.st_rdev, sys, proc)
    if not stat.S_ISREG(found.st_mode):
        return Disk(path, real, kind="thing")
    if wanted is None:
        return Disk(path, real, kind="thing")
    loop = _loop_of(real, sys)
    disk = Disk(path, real, found.st_size, "file", loop)
    return _block(disk, os.stat(loop).st_rdev, sys, proc) if loop else disk


def _block(disk: Disk, number: int, sys: str, proc: str) -> Disk:
    folder = os.path.realpath(f"{sys}/dev/block/{os.major(number)}:{os.minor(number)}")
    parts = sorted(os.path.dirname(each) for each in glob.glob(f"{glob.escape(folder)}/*/partition"))
    size = disk.size or int(_read(f"{folder}/size")) * 512
    users = [use for place in [folder, *parts] for use in _users(place, proc)]
    node = disk.loop or disk.real
    if not users and _is_claimed(node):
        users.append("a program or the kernel holds it open for itself")
    if _read(f"{folder}/ro").strip() == "1":
        users.append("it can only be read")
    partitions = tuple(f"/dev/{os.path.basename(each)}" for each in parts)
    return Disk(**{**vars(disk), "size": size, "partitions": partitions, "users": tuple(users)})


def _users(folder: str, proc: str) -> list[str]:
    """Return who uses a device or partition, whose folder in sysfs this is."""
    name = os.path.basename(folder)
    number = _read(f"{folder}/dev").strip()
    found = [f"{holder} is built on {name}" for holder in sorted(os.listdir(f"{folder}/holders"))]
    places = {
        mount.mount_point
        for mount in mounts.read_mounts(proc=proc)
        if mount.device == number or os.path.realpath(mount.source) == f"/dev/{name}"
    }
    found += [f"{name} is mounted at {place}" for place in sorted(places)]
    swaps = [os.path.realpath(line.split(" ")[0].split("\t")[0]) for line in _read(f"{proc}/swaps").splitlines()[1:]]
    return [*found, *([f"{name} is swap space"] if f"/dev/{name}" in swaps else [])]


def _is_claimed(node: str) -> bool:
    """Say whether the kernel refuses to give a block device to one program alone. Opening it changes nothing."""
    try:
        os.close(os.open(node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        raise ToolError(
            f"look at {node}", error.strerror or str(error), "run as root, and see the kernel's log"
        ) from error
    return False


def loop_of(path: str) -> str | None:
    """Return the loop device that a file is attached to, or None."""
    return _loop_of(os.path.realpath(path), "/sys")


def _loop_of(real: str, sys: str) -> str | None:
    for place in sorted(glob.glob(f"{sys}/block/loop*/loop/backing_file")):
        if _read(place).rstrip("\n") == real:
            return "/dev/" + os.path.basename(os.path.dirname(os.path.dirname(place)))
    return None


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
