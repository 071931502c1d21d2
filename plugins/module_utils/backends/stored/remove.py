# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removes directory trees: never through a link, at any depth, also where a directory forbids writing.

Standard library only; called by the store and the backends.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

#: How directories of ours are opened: never through a link.
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    """Give the directory at a path, open, never through a link in its last name."""
    fd = os.open(path, DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def remove_tree(parent: int, name: str) -> None:
    """Remove what is called ``name`` in the open directory ``parent``, with all in it.

    What is not there is no error: a run that was killed may have removed a part. Raises OSError.
    """
    try:
        st = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(st.st_mode):
        os.unlink(name, dir_fd=parent)
        return
    frames = [(name, _enter(parent, name))]
    below = [_empty(frames[0][1])]
    try:
        while frames:
            if below[-1]:
                child = below[-1].pop()
                frames.append((child, _enter(frames[-1][1], child)))
                below.append(_empty(frames[-1][1]))
                continue
            done, fd = frames.pop()
            below.pop()
            os.close(fd)
            os.rmdir(done, dir_fd=frames[-1][1] if frames else parent)
    finally:
        for _unused, fd in frames:
            os.close(fd)


def _enter(parent: int, name: str) -> int:
    """Open a directory so that its files can be removed, whatever its mode says."""
    try:
        fd = os.open(name, DIRECTORY, dir_fd=parent)
    except PermissionError:
        _unlock(parent, name)
        return os.open(name, DIRECTORY, dir_fd=parent)
    if os.fstat(fd).st_mode & 0o300 != 0o300:
        with contextlib.suppress(PermissionError):  # then removing in it says why
            os.fchmod(fd, 0o700)
    return fd


def _unlock(parent: int, name: str) -> None:
    # O_PATH holds the directory without reading it, so what is changed is not what a link points to.
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{fd}", 0o700)
    finally:
        os.close(fd)


def _empty(directory: int) -> list[str]:
    """Remove all that is no directory from an open one; return the names of the directories in it."""
    below = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=directory)
    return below
