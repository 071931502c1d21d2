# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lays a snapshot out again for a return or a clone: a Btrfs subvolume where it can be one, else copied file by file.

Called by the backend; `../stored/returning.py` makes the folder, and the exchange.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import Callable

from ... import mounts
from ..stored import layout, subvolume
from ..stored.remove import DIRECTORY
from ..stored.returning import Returning, Swap, open_below
from . import manifest
from .files import FileCopier, Limiter
from .options import HostpathOptions
from .tree import Basis, Give


@dataclass(frozen=True)
class Source:
    """What is returned to: a tree, and its manifest where there is one.

    ``sequence`` tells snapshots of one name apart; ``subvolume`` says that the tree is a Btrfs subvolume.
    """

    name: str
    path: str
    sequence: int = 0
    subvolume: bool = False
    basis: Callable[[], Basis | None] = lambda: None


class Staging:
    """The staging of one return, or clone."""

    def __init__(self, way: Returning, source: Source, options: HostpathOptions) -> None:
        self._way = way
        self._source = source
        self._limiter = Limiter(options.bandwidth_limit) if options.bandwidth_limit else None
        self._progress = options.progress
        self._files: FileCopier | None = None

    def fill(self) -> None:
        """Stage all of it. Raises OSError or RestorePointError."""
        self._way.stage(self._fill)
        self._way.report["not_kept"] = self._files.losses.as_result() if self._files is not None else {}

    def _fill(self, swap: Swap, staging: int, owner: tuple[int, int]) -> None:
        source, way = self._source, self._way
        if source.subvolume and not swap.part and _same_filesystem(source.path, way.staging):
            subvolume.snapshot(source.path, os.path.join(way.staging, swap.staged), read_only=False)
            way.report["strategy"] = "subvolume"
            return
        if self._files is None:
            self._files = FileCopier(owner, self._limiter)
        files = self._files
        tree = os.open(source.path, DIRECTORY)
        try:
            parent = open_below(tree, os.path.dirname(swap.part))
        finally:
            os.close(tree)
        try:
            name = os.path.basename(swap.part) or "."
            st = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(st.st_mode):
                self._stage_file(parent, name, st, swap, files, staging)
                return
            stored = os.open(name, DIRECTORY, dir_fd=parent)
        finally:
            os.close(parent)
        try:
            self._stage_tree(stored, swap, files, staging)
        finally:
            os.close(stored)

    def _stage_file(
        self, parent: int, name: str, st: os.stat_result, swap: Swap, files: FileCopier, staging: int
    ) -> None:
        # Copied under its own name and renamed: what it is called does not matter to what it holds.
        files.where = lambda: swap.part
        umask = os.umask(0)
        try:
            if stat.S_ISREG(st.st_mode):
                copied = files.regular(parent, staging, name, st, live=False)
            else:
                copied = files.special(parent, staging, name, st)
        finally:
            os.umask(umask)
        if copied.made is None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), swap.part)
        os.rename(name, swap.staged, src_dir_fd=staging, dst_dir_fd=staging)

    def _stage_tree(self, stored: int, swap: Swap, files: FileCopier, staging: int) -> None:
        way = self._way
        os.mkdir(swap.staged, 0o700, dir_fd=staging)
        basis = self._source.basis() if not swap.part else None
        name = way.manifest if not swap.part else f"{layout.NEW}{way.identity}.{swap.staged}.manifest"
        writer = manifest.Writer(way.folder.fd, name)
        tell = self._progress
        give = Give(
            files,
            writer,
            progress=(lambda tally: tell(f"return {way.target}", {"files": tally.files})) if tell else None,
            blocks=basis.blocks if basis is not None else None,
        )
        dest = os.open(swap.staged, DIRECTORY, dir_fd=staging)
        try:
            tally = give.copy(stored, dest)
        finally:
            os.close(dest)
            checksum = writer.close()
            if basis is not None:
                basis.close()
        if swap.part:
            os.unlink(name, dir_fd=way.folder.fd)
        else:
            way.checksum = checksum
        way.report["files"] = way.report.get("files", 0) + tally.files
        way.report["copied_bytes"] = way.report.get("copied_bytes", 0) + tally.copied_bytes


def _same_filesystem(one: str, other: str) -> bool:
    """Say whether two directories lie on one Btrfs filesystem, whose subvolumes have device numbers of their own."""
    table = mounts.read_mounts()
    return mounts.containing(table, one).device == mounts.containing(table, other).device
