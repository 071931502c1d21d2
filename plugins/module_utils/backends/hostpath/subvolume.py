# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Btrfs subvolumes: the one kind of directory that can be taken at one instant, and at no cost.

Uses the `btrfs` program (btrfs-progs); without it, or elsewhere than on Btrfs, snapshots are copies. Called by the
store and the backend.
"""

from __future__ import annotations

import os
import re
import stat
from typing import NamedTuple

from ... import linux, process
from ...core.errors import ToolError

#: The inode number of a subvolume's root directory (BTRFS_FIRST_FREE_OBJECTID in btrfs_tree.h).
_ROOT_INODE = 256
_TIMEOUT = 600.0
_FIELD = re.compile(r"^\t([A-Za-z ]+):\s*(.*?)\s*$", re.MULTILINE)


class Subvolume(NamedTuple):
    """What `btrfs subvolume show` tells. Generations count the filesystem's transactions."""

    uuid: str
    parent_uuid: str
    generation: int
    generation_at_creation: int


def is_subvolume(directory: int, name: str) -> bool:
    """Say whether ``name`` in an open directory is a Btrfs subvolume: one has a device number of its own."""
    try:
        st = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(st.st_mode) and st.st_ino == _ROOT_INODE and st.st_dev != os.fstat(directory).st_dev


def can_snapshot(target: str, fstype: str, store_fstype: str, same_filesystem: bool) -> bool:
    """Say whether a target can be taken as a subvolume snapshot into its store."""
    if not (fstype == store_fstype == "btrfs" and same_filesystem):
        return False
    return os.stat(target).st_ino == _ROOT_INODE and process.find_program("btrfs") is not None


def snapshot(source: str, dest: str, read_only: bool) -> None:
    """Make ``dest`` a snapshot of the subvolume ``source``. Raises ToolError."""
    argv = ["btrfs", "subvolume", "snapshot", *(["-r"] if read_only else []), "--", source, dest]
    process.run(argv, timeout=_TIMEOUT, attempt=f"take a subvolume snapshot of {source}")


def delete_subvolume(path: str) -> None:
    """Delete a subvolume and wait until that is on disk."""
    argv = ["btrfs", "subvolume", "delete", "--commit-after", "--", path]
    process.run(argv, timeout=_TIMEOUT, attempt=f"delete the subvolume {path}")


def show(path: str) -> Subvolume:
    """Return the facts of a subvolume. Raises ToolError also for an answer that cannot be parsed."""
    attempt = f"look at the subvolume {path}"
    answer = process.run(["btrfs", "subvolume", "show", "--", path], timeout=_TIMEOUT, attempt=attempt).stdout
    fields = dict(_FIELD.findall(answer))
    try:
        return Subvolume(
            uuid=fields["UUID"],
            parent_uuid=fields["Parent UUID"],
            generation=int(fields["Generation"]),
            generation_at_creation=int(fields["Gen at creation"]),
        )
    except (KeyError, ValueError) as error:
        raise ToolError(attempt, f"cannot parse what btrfs answered ({error}): {answer!r}", "report this") from error


def proof_of_equality(target: str, stored: str) -> str | None:
    """Say why a live subvolume is proven to be what a snapshot of it holds; None where that is not proven.

    A snapshot is made in the same transaction in which its source was last written; a source that has been written
    since has a higher generation once the filesystem is synced. (Reading counts as writing where it moves an atime.)
    """
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        linux.syncfs(fd)
    finally:
        os.close(fd)
    live, kept = show(target), show(stored)
    if live.uuid == kept.parent_uuid and live.generation == kept.generation_at_creation:
        return f"the subvolume is still of generation {live.generation}"
    if live.parent_uuid == kept.uuid and live.generation == live.generation_at_creation:
        return "the subvolume has not been written since it was returned"
    return None
