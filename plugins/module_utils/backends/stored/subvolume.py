# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Btrfs subvolumes: the one kind of directory that can be taken at one instant, and at no cost.

Uses the `btrfs` program (btrfs-progs); without it, or elsewhere than on Btrfs, snapshots are copies. Called by the
store and the backend.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Sequence
from typing import NamedTuple

from ... import linux, mounts, process
from ...core.errors import ToolError
from ...lock import held

#: The inode number of a subvolume's root directory (BTRFS_FIRST_FREE_OBJECTID in btrfs_tree.h).
_ROOT_INODE = 256
_TIMEOUT = 600.0
#: struct btrfs_ioctl_get_subvol_info_args of linux/btrfs.h: treeid, name, parent_id, dirid, generation, flags, three
#: UUIDs, four transids, four times and what is reserved.
_INFO = struct.Struct("=Q256sQQQQ16s16s16sQQQQ64s64x")
_READ_ONLY = 1  #: BTRFS_ROOT_SUBVOL_RDONLY of linux/btrfs_tree.h
#: The size of struct btrfs_ioctl_get_subvol_rootref_args: min_treeid, 255 pairs of treeid and dirid, their number; and
#: of btrfs_ioctl_ino_lookup_user_args: dirid, treeid, name (256), path.
_REFS = 4096


class Subvolume(NamedTuple):
    """What Btrfs knows of a subvolume.

    ``changed`` is the transaction in which anything in it, or in what it is a snapshot of, was last changed; ``made``
    the one at whose end it was made. (Its generation tells less: taking a snapshot of it moves that.) ``number`` is its
    id, as mount options and `btrfs subvolume list` have it.
    """

    uuid: str
    parent_uuid: str
    changed: int
    made: int
    number: int = 0
    read_only: bool = False

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was written to it since it was made."""
        return self.changed <= self.made


def is_subvolume(directory: int, name: str) -> bool:
    """Say whether ``name`` in an open directory is a Btrfs subvolume: one has a device number of its own."""
    try:
        st = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(st.st_mode) and st.st_ino == _ROOT_INODE and st.st_dev != os.fstat(directory).st_dev


def is_root(path: str) -> bool:
    """Say whether a path is the root of a Btrfs subvolume, be it mounted there or not."""
    return os.lstat(path).st_ino == _ROOT_INODE and mounts.containing(mounts.read_mounts(), path).fstype == "btrfs"


def inside(path: str) -> list[str]:
    """Return the paths, below a subvolume, of the subvolumes in it: a snapshot of it holds them as empty directories.

    Raises OSError (BTRFS_IOC_GET_SUBVOL_ROOTREF and BTRFS_IOC_INO_LOOKUP_USER, Linux 4.18).
    """
    found, least = [], 0
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while True:
            answer = bytearray(_REFS)
            struct.pack_into("=Q", answer, 0, least)
            try:
                fcntl.ioctl(fd, linux.ioctl_both(0x94, 61, _REFS), answer)
                count = answer[_REFS - 8]
            except OSError as error:
                if error.errno != errno.EOVERFLOW:
                    raise
                count = 255  # and there are more
            references = [struct.unpack_from("=QQ", answer, 8 + 16 * each) for each in range(count)]
            found += [_path_inside(fd, *each) for each in references]
            if count < 255:
                return sorted(found)
            least = references[-1][0] + 1
    finally:
        os.close(fd)


def _path_inside(fd: int, tree: int, directory: int) -> str:
    question = bytearray(_REFS)
    struct.pack_into("=QQ", question, 0, directory, tree)
    fcntl.ioctl(fd, linux.ioctl_both(0x94, 62, _REFS), question)
    name, path = (bytes(each).split(b"\0", 1)[0] for each in (question[16:272], question[272:]))
    return os.fsdecode(path + name)


def can_snapshot(target: str, fstype: str, store_fstype: str, same_filesystem: bool) -> bool:
    """Say whether a target can be taken as a subvolume snapshot into its store.

    Btrfs lets every user take snapshots of a subvolume of theirs, but only root delete them.
    """
    if not (fstype == store_fstype == "btrfs" and same_filesystem) or os.geteuid() != 0:
        return False
    return os.stat(target).st_ino == _ROOT_INODE and process.find_program("btrfs") is not None


def tree(path: str) -> list[str]:
    """Return the paths, below a subvolume, of all subvolumes in it at any depth, each after the one it lies in.

    Those that something else is mounted over are passed over: no path leads to them. Raises OSError.
    """
    found: list[str] = []
    table = mounts.read_mounts()
    for name in inside(path):
        child = os.path.join(path, name)
        if not _is_hidden(table, path, child):
            found += [name, *(os.path.join(name, each) for each in tree(child))]
    return found


def _is_hidden(table: Sequence[mounts.Mount], path: str, child: str) -> bool:
    one, other = mounts.filesystem_path(table, path), mounts.filesystem_path(table, child)
    relative = mounts.inside(child, path) or ""
    return other != (one[0], mounts.joined(one[1], relative))


def snapshot(source: str, dest: str, read_only: bool) -> None:
    """Make ``dest`` a snapshot of the subvolume ``source``.

    Raises ToolError, and FileExistsError where there is something: the tool would put the snapshot into a directory of
    that name, and a second run into the first snapshot.
    """
    if os.path.lexists(dest):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), dest)
    argv = ["btrfs", "subvolume", "snapshot", *(["-r"] if read_only else []), "--", source, dest]
    process.run(argv, timeout=_TIMEOUT, attempt=f"take a subvolume snapshot of {source}", keep=held())


def delete_subvolume(path: str) -> None:
    """Delete a subvolume, with those in it, and wait until that is on disk. Raises OSError or ToolError."""
    argv = ["btrfs", "subvolume", "delete", "--commit-after", "--"]
    argv += [os.path.join(path, each) for each in reversed(tree(path))]
    process.run([*argv, path], timeout=_TIMEOUT, attempt=f"delete the subvolume {path}", keep=held())


def set_read_only(path: str) -> None:
    """Make a subvolume read-only. Raises ToolError."""
    argv = ["btrfs", "property", "set", "-ts", path, "ro", "true"]
    process.run(argv, timeout=_TIMEOUT, attempt=f"make the subvolume {path} read-only", keep=held())


def default_number(path: str) -> int:
    """Return the id of the subvolume that a mount without subvol= or subvolid= gets. Raises ToolError."""
    attempt = f"ask for the default subvolume of {path}"
    said = process.run(["btrfs", "subvolume", "get-default", path], timeout=_TIMEOUT, attempt=attempt).stdout
    found = re.match(r"ID (\d+) ", said)
    if found is None:
        raise ToolError(attempt, f"btrfs printed {said[:200]!r}, which names no id", "report it, with its version")
    return int(found.group(1))


def set_default(path: str) -> None:
    """Make a subvolume the default one. Raises ToolError."""
    argv = ["btrfs", "subvolume", "set-default", path]
    process.run(argv, timeout=_TIMEOUT, attempt=f"make {path} the default subvolume", keep=held())


def show(path: str) -> Subvolume:
    """Return the facts of a subvolume (BTRFS_IOC_GET_SUBVOL_INFO, Linux 4.18). Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        answer = fcntl.ioctl(fd, linux.ioctl_read(0x94, 60, _INFO.size), bytes(_INFO.size))
    finally:
        os.close(fd)
    fields = _INFO.unpack(answer)
    uuid, parent_uuid, changed, made = fields[6], fields[7], fields[9], fields[10]
    return Subvolume(_text(uuid), _text(parent_uuid), changed, made, fields[0], bool(fields[5] & _READ_ONLY))


def _text(uuid: bytes) -> str:
    digits = uuid.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def proof_of_equality(target: str, stored: str) -> str | None:
    """Say why a live subvolume is proven to be what a snapshot of it holds; None where that is not proven.

    A snapshot is made at the end of a transaction: what is written to its source afterwards belongs to a later one,
    which shows once the filesystem is synced. (Reading counts as writing where it moves an atime.)
    """
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        linux.syncfs(fd)
    finally:
        os.close(fd)
    try:
        live, kept = show(target), show(stored)
    except OSError:
        return None  # no such call before Linux 4.18: then the files are compared
    if not kept.is_untouched:
        return None
    if live.uuid == kept.parent_uuid and live.changed <= kept.made:
        return f"nothing was written to the subvolume since transaction {live.changed}, before the snapshot was taken"
    if live.parent_uuid == kept.uuid and live.is_untouched:
        return "nothing was written to the subvolume since it was returned"
    return None
