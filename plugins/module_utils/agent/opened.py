# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lets the content of a snapshot, or of a clone, be read at a path, mounted so that nothing on it can do harm.

`mounted` puts a filesystem onto an empty directory of the caller, `opened` does that with a snapshot as it is: nothing
is copied or written. What a kill leaves mounted, `release` unmounts. Called by `scratch`, and by exports.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from .. import mounts, process
from ..core.errors import RestorePointError, ToolError
from ..core.snapshot import Snapshot
from ..users import find_users

#: So often a filesystem that is in use is tried again, half a second apart: what has just ended lets it go late.
_ATTEMPTS = 20
_EXT = ("ext2", "ext3", "ext4")
_ROOT = "run it as root"


def filesystem_of(device: str, timeout: float) -> str:
    """Return the type of the filesystem on a device, "" where there is none that is known. Raises ToolError."""
    argv = ["blkid", "--probe", "--usages", "filesystem", "--match-tag", "TYPE", "--output", "value", device]
    attempt = f"see what is on {device}"
    return process.run(argv, timeout=timeout, attempt=attempt, remedy=_ROOT, ok=(0, 2)).stdout.strip()


def mount_options(fstype: str, *, writable: bool = False, executable: bool = False, untouched: bool = False) -> str:
    """Return the options with which a copy of a filesystem is mounted beside its original.

    ``untouched``: not even its journal is played back. A damaged ext filesystem may ask the kernel to panic, in its own
    superblock: ``errors`` takes that back (mount(8)). A copy of XFS has the UUID of the original.
    """
    options = ["rw" if writable else "ro", "nosuid", "nodev", *([] if executable else ["noexec"])]
    if fstype in _EXT:
        options += ["errors=remount-ro", *(["noload"] if untouched and fstype != "ext2" else [])]
    if fstype == "xfs":
        options += ["nouuid", *(["norecovery"] if untouched else [])]
    return ",".join(options)


def mount(source: str, folder: str, fstype: str, options: str, timeout: float) -> None:
    """Mount something on an empty directory. Raises ToolError, and for Btrfs on a device RestorePointError."""
    attempt = f"mount {source}"
    if fstype == "btrfs":
        # The kernel knows filesystems of Btrfs by their UUID: it would show the original in the place of the copy.
        raise RestorePointError(
            attempt, "it is Btrfs, and a copy of that cannot be mounted beside its original", "take it as a subvolume"
        )
    argv = ["mount", "-t", fstype, "-o", options, "--", source, folder]
    process.run(argv, timeout=timeout, attempt=attempt, remedy="see what the kernel's log says of it")


def release(folder: str, timeout: float) -> None:
    """Unmount what is mounted on a directory, if anything is. Raises RestorePointError that names who uses it."""
    for number in range(_ATTEMPTS):
        if not mounts.is_mount_point(mounts.read_mounts(), os.path.realpath(folder)):
            return
        try:
            process.run(["umount", "--", folder], timeout=timeout, attempt=f"unmount {folder}", remedy="try again")
        except ToolError as error:
            if "busy" not in error.reason or number == _ATTEMPTS - 1:
                why = _why(folder, error)
                raise RestorePointError(f"unmount {folder}", why, "end that, and run it again") from error
            time.sleep(0.5)


def _why(folder: str, error: ToolError) -> str:
    with contextlib.suppress(OSError, LookupError, RestorePointError):
        users = find_users(folder).describe()
        if users:
            return "; ".join(users[:5])
    return error.reason


@contextlib.contextmanager
def mounted(source: str, folder: str, fstype: str, options: str, timeout: float) -> Iterator[str]:
    """Mount something on an empty directory for the block, and give that directory."""
    mount(source, folder, fstype, options, timeout)
    try:
        yield folder
    finally:
        release(folder, timeout)


@contextlib.contextmanager
def opened(backend: Any, snapshot: Snapshot, folder: str, timeout: float) -> Iterator[str]:
    """Let the content of one snapshot be read, as it is and read-only; give the path at which it is.

    Args:
        backend: that of the snapshot, such as a member of `running.members` has it.
        snapshot: as that backend tells it, ready.
        folder: an empty directory of the caller, onto which it is mounted where it has to be.
        timeout: seconds for each program.

    Directories and subvolumes are plain folders in their store: that path is given, and nothing is mounted. Raises
    RestorePointError where it cannot be, also for claims and guests.
    """
    if backend.name in ("btrfs", "hostpath"):
        yield backend.stored_path(snapshot)
    elif backend.name == "zfs":
        full, options = f"{snapshot.target}@{snapshot.name}", mount_options("zfs")
        with mounted(full, folder, "zfs", options, timeout) as path:
            yield path
    elif backend.name == "lvm":
        with _active(snapshot, timeout) as device:
            fstype = known_filesystem(device, timeout)
            with mounted(device, folder, fstype, mount_options(fstype, untouched=True), timeout) as path:
                yield path
    else:
        attempt = f"look into {snapshot.name!r} of {snapshot.target}"
        raise RestorePointError(attempt, "only Kubernetes, or Proxmox VE, can open it", "look into it from there")


def known_filesystem(device: str, timeout: float) -> str:
    """Return the type of the filesystem on a device. Raises RestorePointError where there is none."""
    fstype = filesystem_of(device, timeout)
    if not fstype:
        reason = "there is no filesystem on it that blkid knows"
        raise RestorePointError(f"look into {device}", reason, "look at the volume itself")
    return fstype


@contextlib.contextmanager
def _active(snapshot: Snapshot, timeout: float) -> Iterator[str]:
    """Give the device of an LVM snapshot, which is activated where it is not, and then deactivated again."""
    vg = snapshot.target.partition("/")[0]
    volume = f"{vg}/{snapshot.extra['lv']}"
    if snapshot.extra["active"]:
        yield f"/dev/{volume}"
        return
    attempt = f"activate {volume}"
    _lvchange(["--ignoreactivationskip", "--activate", "y", volume], attempt, timeout)
    try:
        yield f"/dev/{volume}"
    finally:
        _lvchange(["--activate", "n", volume], f"deactivate {volume}", timeout)


def _lvchange(arguments: Sequence[str], attempt: str, timeout: float) -> None:
    process.run(["lvchange", "--yes", *arguments], timeout=timeout, attempt=attempt, remedy="look at `lvs -a`")


def make_folder(path: str) -> os.stat_result:
    """Make an empty directory that nobody else may enter (0700); return what tells it from another one.

    Raises RestorePointError.
    """
    try:
        os.mkdir(path, 0o700)
        return os.lstat(path)
    except OSError as error:
        way = "make room there" if error.errno == errno.ENOSPC else "make the directory above it, or name another one"
        raise RestorePointError(f"make {path}", str(error.strerror), way) from error
