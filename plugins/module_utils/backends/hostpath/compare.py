# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Says whether a live directory is what a snapshot holds, and where it is not.

The manifest saves the reading: a file whose inode, ctime, size and owner are still those of its line has not changed
since. Whatever differs there is compared itself, attribute by attribute and byte by byte, so that the answer "equal"
is proven and not believed. Called by the backend; uses manifest.py and files.py.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from re import Pattern

from ..stored.remove import DIRECTORY
from . import manifest
from .files import NOT_KEPT, read_xattrs
from .tree import content_names

_CHUNK = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass
class _Pair:
    """The same directory, live and stored."""

    path: str
    live: int
    stored: int
    below: list[str] = field(default_factory=list)

    def child(self, name: str) -> str:
        return f"{self.path if self.path != '/' else ''}/{manifest.escape(name)}"

    def close(self) -> None:
        os.close(self.live)
        os.close(self.stored)


class Comparison:
    """Compares a live directory with the stored tree of a snapshot, down to the first difference.

    Args:
        blocks: a manifest that describes the live directory as it was when it held just this content, if there is one.
        exclude: paths that the snapshot leaves out, and so this comparison too.
        mounts: paths (with a leading slash) that the snapshot holds as empty directories.
        same_inodes: the stored tree is a Btrfs snapshot, in which an unchanged file has the inode and ctime of the live
            one.
    """

    def __init__(
        self,
        blocks: manifest.Blocks | None = None,
        exclude: Pattern[str] | None = None,
        mounts: frozenset[str] = frozenset(),
        same_inodes: bool = False,
    ) -> None:
        self._same_inodes = same_inodes
        self._blocks = blocks
        self._exclude = exclude
        self._mounts = mounts
        self._stored_of: dict[tuple[int, int], tuple[int, int]] = {}
        self._live_of: dict[tuple[int, int], tuple[int, int]] = {}
        self._alone: dict[int, set[int]] = {}  #: by device, stored files that stand for one name of the live side

    def difference(self, live: int, stored: int) -> str | None:
        """Return the first difference in words, or None where there is none. Both are open directories."""
        pairs = [_Pair("/", os.dup(live), os.dup(stored))]
        try:
            found = self._enter(pairs[0])
            while pairs and found is None:
                pair = pairs[-1]
                if not pair.below:
                    pairs.pop().close()
                    continue
                name = pair.below.pop()
                pairs.append(self._down(pair, name))
                found = self._enter(pairs[-1])
        finally:
            for pair in pairs:
                pair.close()
        return found

    def file_difference(self, live: int, stored: int, name: str) -> str | None:
        """Return how a single file differs; both are open directories, in which ``name`` is no directory."""
        pair = _Pair("/", live, stored)
        try:
            st = os.stat(name, dir_fd=live, follow_symlinks=False)
        except FileNotFoundError:
            return f"{name} is missing"
        fault = self._file(pair, name, st)
        return None if fault is None else f"{name} {fault}"

    def _down(self, pair: _Pair, name: str) -> _Pair:
        live = os.open(name, DIRECTORY, dir_fd=pair.live)
        try:
            return _Pair(pair.child(name), live, os.open(name, DIRECTORY, dir_fd=pair.stored))
        except OSError:
            os.close(live)
            raise

    def _enter(self, pair: _Pair) -> str | None:
        """Compare one directory and all in it that is no directory."""
        if pair.path in self._mounts:
            return None
        fault = _attributes(os.fstat(pair.live), os.fstat(pair.stored))
        if fault is None and read_xattrs(pair.live) != read_xattrs(pair.stored):
            fault = "has other extended attributes"
        if fault is not None:
            return f"{_shown(pair.path)} {fault}"
        block = self._blocks.take(pair.path) if self._blocks is not None else None
        names = self._listed(pair, pair.live, exclude=True)
        stored = self._listed(pair, pair.stored, exclude=False)
        if names != stored:
            difference = self._which_name(pair, block, set(names), set(stored))
            if difference is not None:
                return difference
        return self._entries(pair, block.entries if block is not None else [], names)

    def _listed(self, pair: _Pair, fd: int, exclude: bool) -> list[str]:
        names = manifest.sorted_names(content_names(fd, pair.path))
        if not exclude or self._exclude is None:
            return names
        matches = self._exclude.fullmatch
        return [name for name in names if not matches(manifest.unescape(pair.child(name)[1:]))]

    def _which_name(self, pair: _Pair, block: manifest.Block | None, live: set[str], stored: set[str]) -> str | None:
        for name in sorted(stored - live):
            return f"{_shown(pair.child(name))} is missing"
        unkept = _not_kept(block.entries) if block is not None else set()
        for name in sorted(live - stored - unkept):
            return f"{_shown(pair.child(name))} is not in the snapshot"
        return None

    def _entries(self, pair: _Pair, old: list[str], names: list[str]) -> str | None:
        position, count = 0, len(old)
        for name in names:
            st = os.stat(name, dir_fd=pair.live, follow_symlinks=False)
            label = manifest.escape(name)
            if stat.S_ISDIR(st.st_mode):
                pair.below.append(name)
                if not _is_directory(pair.stored, name):
                    return f"{_shown(pair.child(name))} is a directory"
                continue
            prefix = f"{label}\t{manifest.key(st)}\t"
            while position < count and not old[position].startswith(prefix):
                if manifest.line_name(old[position]) >= label:
                    break
                position += 1
            if position < count and old[position].startswith(prefix):
                position += 1
                continue
            fault = self._file(pair, name, st)
            if fault is not None:
                return f"{_shown(pair.child(name))} {fault}"
        pair.below.reverse()
        return None

    def _file(self, pair: _Pair, name: str, live: os.stat_result) -> str | None:
        """Compare a file that the manifest could not vouch for."""
        try:
            stored = os.stat(name, dir_fd=pair.stored, follow_symlinks=False)
        except FileNotFoundError:
            return None  # a device that could not be kept; _which_name has seen to the rest
        if self._same_inodes and manifest.key(live) == manifest.key(stored):
            return None
        fault = _attributes(live, stored)
        if fault is not None:
            return fault
        if not self._same_group(live, stored):
            return "is linked to other files than in the snapshot"
        kind = stat.S_IFMT(live.st_mode)
        if kind == stat.S_IFLNK and os.readlink(name, dir_fd=pair.live) != os.readlink(name, dir_fd=pair.stored):
            return "points elsewhere"
        if kind in (stat.S_IFCHR, stat.S_IFBLK) and live.st_rdev != stored.st_rdev:
            return "is another device"
        return _content(pair, name) if kind == stat.S_IFREG else _path_xattrs(pair, name)

    def _same_group(self, live: os.stat_result, stored: os.stat_result) -> bool:
        """Say whether names that are one file on one side are one file on the other."""
        other = (stored.st_dev, stored.st_ino)
        if live.st_nlink == 1:
            if stored.st_nlink == 1:
                return True
            # Most files of a store have further names in other snapshots. A million of them have to fit into memory.
            seen = self._alone.setdefault(stored.st_dev, set())
            is_new = stored.st_ino not in seen and other not in self._live_of
            seen.add(stored.st_ino)
            return is_new
        if stored.st_ino in self._alone.get(stored.st_dev, ()):
            return False
        one = (live.st_dev, live.st_ino)
        return self._stored_of.setdefault(one, other) == other and self._live_of.setdefault(other, one) == one


def _attributes(live: os.stat_result, stored: os.stat_result) -> str | None:
    if stat.S_IFMT(live.st_mode) != stat.S_IFMT(stored.st_mode):
        return "is of another kind"
    if not stat.S_ISDIR(live.st_mode) and live.st_size != stored.st_size:
        return f"has {live.st_size} bytes instead of {stored.st_size}"
    if live.st_mtime_ns != stored.st_mtime_ns:
        return "was modified at another time"
    if live.st_mode != stored.st_mode:
        return f"has mode {stat.S_IMODE(live.st_mode):04o} instead of {stat.S_IMODE(stored.st_mode):04o}"
    if (live.st_uid, live.st_gid) != (stored.st_uid, stored.st_gid):
        return f"belongs to {live.st_uid}:{live.st_gid} instead of {stored.st_uid}:{stored.st_gid}"
    return None


def _content(pair: _Pair, name: str) -> str | None:
    """Compare two regular files byte by byte, and their extended attributes."""
    live = os.open(name, _READ, dir_fd=pair.live)
    try:
        stored = os.open(name, _READ, dir_fd=pair.stored)
        try:
            if read_xattrs(live) != read_xattrs(stored):
                return "has other extended attributes"
            at = 0
            while True:
                data = os.pread(live, _CHUNK, at)
                if data != os.pread(stored, _CHUNK, at):
                    return f"has other content (after byte {at})"
                if not data:
                    return None
                at += len(data)
        finally:
            os.close(stored)
    finally:
        os.close(live)


def _path_xattrs(pair: _Pair, name: str) -> str | None:
    live, stored = (read_xattrs(f"/proc/self/fd/{fd}/{name}") for fd in (pair.live, pair.stored))
    return None if live == stored else "has other extended attributes"


def _is_directory(directory: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _not_kept(entries: Iterable[str]) -> set[str]:
    """Return the names of devices that the snapshot's maker was not allowed to make."""
    fields = (line.rstrip("\n").split("\t") for line in entries if NOT_KEPT in line)
    return {manifest.unescape(each[0]) for each in fields if each[manifest.TARGET] == NOT_KEPT}


def _shown(path: str) -> str:
    return "the directory itself" if path == "/" else manifest.unescape(path[1:])
