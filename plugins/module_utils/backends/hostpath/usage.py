# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measures the room that a tree takes on its disk, at any depth. Standard library only; called by the backend."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from ..stored.remove import DIRECTORY


class Usage(NamedTuple):
    """Bytes on disk: ``own`` of files that have all their names in the tree, ``shared`` of files with others elsewhere.

    Blocks that several files share (reflinks, subvolumes) count for each of them.
    """

    own: int
    shared: int

    @property
    def total(self) -> int:
        """What a copy of the tree would take."""
        return self.own + self.shared


def measure(path: str) -> Usage:
    """Return what a tree takes; each file counts once, whatever the number of its names. Raises OSError."""
    own = shared = 0
    # By device and inode, how many names of a file were not seen: plain numbers, as there may be a million of them.
    unseen: dict[int, dict[int, int]] = {}
    for st in _files(path):
        size = st.st_blocks * 512
        if st.st_nlink == 1:
            own += size
            continue
        names = unseen.setdefault(st.st_dev, {})
        if st.st_ino not in names:
            shared += size
        left = names.get(st.st_ino, st.st_nlink) - 1
        if left:
            names[st.st_ino] = left
        else:
            names.pop(st.st_ino, None)
            own, shared = own + size, shared - size
    return Usage(own, shared)


def _files(path: str) -> Iterator[os.stat_result]:
    """Yield what is known of each file of a tree, at any depth: a path to it could be too long."""
    frames = [os.open(path, DIRECTORY)]
    below: list[list[str]] = []
    try:
        while frames:
            if len(below) < len(frames):
                below.append([])
                with os.scandir(frames[-1]) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            below[-1].append(entry.name)
                        else:
                            yield entry.stat(follow_symlinks=False)
            elif below[-1]:
                frames.append(os.open(below[-1].pop(), DIRECTORY, dir_fd=frames[-1]))
            else:
                below.pop()
                os.close(frames.pop())
    finally:
        for fd in frames:
            os.close(fd)
