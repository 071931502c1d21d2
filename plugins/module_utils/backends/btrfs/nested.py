# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The subvolumes inside one that is returned: which are returned with it, and which have to be moved over.

A snapshot holds the subvolumes inside its source as empty directories. Those that were taken with it are snapshots of
their own, beside it. Those that were not must not vanish when the content around them is returned: they are moved from
the old content into the same place of the new one. Btrfs lets a writable subvolume be renamed into another subvolume,
also over the empty directory that stands for it. Called by the backend and by returning.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...core.backend import Blocker
from ...core.names import is_aside
from ..stored import layout, subvolume
from ..stored.backend import RETURNS
from ..stored.remove import DIRECTORY
from ..stored.returning import open_below


def members_of(metadata: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what is known of each subvolume that was taken with a snapshot, by its path, in the order of taking."""
    return {each["path"]: each for each in metadata.get("nested") or ()}


def stored_paths(tree: str, members: Iterable[str]) -> dict[str, str]:
    """Return where the snapshot of each member lies, by its path; "" is the snapshot around them."""
    return {"": tree, **{path: f"{tree}.nested/{number}" for number, path in enumerate(members)}}


def without_ours(inside: Sequence[str]) -> list[str]:
    """Return subvolumes without what returns of subvolumes in a target have made there, and what lies in that."""
    return [path for path in inside if not any(_is_ours(each) for each in path.split("/"))]


def _is_ours(name: str) -> bool:
    return name.startswith(layout.STAGING) or is_aside(name.rpartition(".")[2])


def to_move(inside: Sequence[str], members: Iterable[str]) -> list[str]:
    """Return which of the subvolumes in a target, outermost first, have to be moved over: those in others follow."""
    taken, moved = set(members), set[str]()
    for path in inside:
        if path not in taken and not any(path.startswith(f"{each}/") for each in moved):
            moved.add(path)
    return [path for path in inside if path in moved]


def place_blockers(
    shown: str, target: str, moves: Sequence[str], stored: Mapping[str, str], remedy: str
) -> Iterator[Blocker]:
    """Yield why subvolumes cannot be moved over into what lies, or will be laid out, as ``stored`` says."""
    for path in moves:
        if subvolume.show(os.path.join(target, path)).read_only:
            yield Blocker(shown, f"the subvolume {path} in it is read-only, and Btrfs moves only writable ones", remedy,
                          RETURNS)  # fmt: skip
            continue
        outer = max((each for each in stored if not each or path.startswith(f"{each}/")), key=len)
        fault = _fault(stored[outer], path[len(outer) :].lstrip("/"))
        if fault is not None:
            yield Blocker(shown, f"the subvolume {path} in it is not in the snapshot, where {fault}", remedy, RETURNS)


def _fault(tree: str, path: str) -> str | None:
    """Say why nothing can be moved to a path in a stored tree, or return None."""
    above, name = os.path.split(path)
    root = os.open(tree, DIRECTORY)
    try:
        directory = open_below(root, above)
    except OSError:
        return f"there is no directory {above}"
    finally:
        os.close(root)
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            return "a file has its name"
        fd = os.open(name, DIRECTORY, dir_fd=directory)
        try:
            return "a directory that is not empty has its name" if os.listdir(fd) else None
        finally:
            os.close(fd)
    except FileNotFoundError:
        return None
    finally:
        os.close(directory)


def uuid_at(root: str, path: str) -> str | None:
    """Return the UUID of the subvolume at a path below a root; None where there is none. Follows no link."""
    try:
        with _directory(root, os.path.dirname(path)) as directory:
            if not subvolume.is_subvolume(directory.fd, os.path.basename(path)):
                return None
        return subvolume.show(os.path.join(root, path)).uuid
    except OSError:
        return None


def move(old_root: str, new_root: str, path: str) -> None:
    """Move the subvolume at a path below one root to the same path below another, over an empty directory there."""
    name = os.path.basename(path)
    with _directory(old_root, os.path.dirname(path)) as old, _directory(new_root, os.path.dirname(path)) as new:
        if not subvolume.is_subvolume(old.fd, name):
            raise OSError(errno.ENOENT, "no subvolume is there any more", os.path.join(old_root, path))
        with same_times(old.fd), same_times(new.fd):
            os.rename(name, name, src_dir_fd=old.fd, dst_dir_fd=new.fd)


@contextlib.contextmanager
def same_times(directory: int) -> Iterator[None]:
    """Let what comes and goes in an open directory not show in its times: they belong to the content."""
    st = os.fstat(directory)
    yield
    os.utime(directory, ns=(st.st_atime_ns, st.st_mtime_ns))


def replace(root: str, path: str, source: str) -> None:
    """Put a writable snapshot of ``source`` at a path below a root, where an empty directory stands for it."""
    name = os.path.basename(path)
    with _directory(root, os.path.dirname(path)) as above, same_times(above.fd):
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(name, dir_fd=above.fd)
        subvolume.snapshot(source, os.path.join(root, path), read_only=False)


class _directory:
    """The directory at a path below a root, open, reached through no link."""

    def __init__(self, root: str, path: str) -> None:
        fd = os.open(root, DIRECTORY)
        try:
            self.fd = open_below(fd, path)
        finally:
            os.close(fd)

    def __enter__(self) -> _directory:
        return self

    def __exit__(self, *_unused: object) -> None:
        os.close(self.fd)
