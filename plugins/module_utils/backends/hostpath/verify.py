# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks a stored tree against its manifest, file by file.

Without checksums it proves kind, size, mode, owner, times and attributes; with them every byte. It names all that
differs. Called by the backend for ``hostpath_snapshot_info`` with ``verify``; uses manifest.py and files.py.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Callable

from ..stored.remove import DIRECTORY
from . import manifest
from .files import NOT_KEPT, checksum_of, read_xattrs

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass
class _Frame:
    path: str
    fd: int
    unseen: set[str] = field(default_factory=set)  #: directories that no block of the manifest has named yet


class Verification:
    """One snapshot being checked. ``ignore`` holds what could not be kept at its creation (see files.Losses)."""

    def __init__(self, blocks: Iterator[manifest.Block], ignore: frozenset[str] = frozenset()) -> None:
        self._blocks = blocks
        self._ignore = ignore
        self.files = 0
        self.bytes_read = 0

    def faults(self, stored: int) -> Iterator[tuple[str, str]]:
        """Yield (path, fault) for each file that is not what the manifest says. ``stored`` is an open directory."""
        frames: list[_Frame] = []
        try:
            for block in self._blocks:
                while frames and not _is_below(block.path, frames[-1].path):
                    yield from _leave(frames.pop())
                frame = self._enter(block, frames, stored)
                if frame is None:
                    yield (_shown(block.path), "the directory is missing")
                    continue
                frames.append(frame)
                yield from self._directory(block, frame)
            while frames:
                yield from _leave(frames.pop())
        finally:
            for frame in frames:
                os.close(frame.fd)

    def _enter(self, block: manifest.Block, frames: list[_Frame], stored: int) -> _Frame | None:
        if block.path == "/":
            return _Frame("/", os.dup(stored))
        parent_path, _unused, label = block.path.rpartition("/")
        if not frames or frames[-1].path != (parent_path or "/"):
            return None  # its parent is missing too
        name = manifest.unescape(label)
        frames[-1].unseen.discard(name)
        try:
            return _Frame(block.path, os.open(name, DIRECTORY, dir_fd=frames[-1].fd))
        except OSError:
            return None

    def _directory(self, block: manifest.Block, frame: _Frame) -> Iterator[tuple[str, str]]:
        fault = self._line_fault(block.line, os.fstat(frame.fd), lambda: read_xattrs(frame.fd))
        if fault is not None:
            yield (_shown(block.path), fault)
        found = set(os.listdir(frame.fd))
        for line in block.entries:
            fields = line.rstrip("\n").split("\t")
            name = manifest.unescape(fields[0])
            found.discard(name)
            fault = self._entry(frame.fd, name, fields, line)
            if fault is not None:
                yield (_shown(f"{block.path.rstrip('/')}/{fields[0]}"), fault)
        for name in found:
            if _is_directory(frame.fd, name):
                frame.unseen.add(name)
            else:
                yield (_shown(f"{block.path.rstrip('/')}/{manifest.escape(name)}"), "is not in the manifest")

    def _entry(self, directory: int, name: str, fields: list[str], line: str) -> str | None:
        if fields[manifest.TARGET] == NOT_KEPT:
            return None
        self.files += 1
        try:
            st = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return "is missing"
        path = f"/proc/self/fd/{directory}/{name}"
        fault = self._line_fault(line, st, lambda: read_xattrs(path))
        if fault is not None:
            return fault
        if stat.S_ISLNK(st.st_mode) and manifest.escape(os.readlink(name, dir_fd=directory)) != fields[manifest.TARGET]:
            return "points elsewhere"
        if stat.S_ISREG(st.st_mode) and fields[manifest.CHECKSUM] != "-":
            return self._bytes(directory, name, fields[manifest.CHECKSUM])
        return None

    def _bytes(self, directory: int, name: str, wanted: str) -> str | None:
        try:
            fd = os.open(name, _READ, dir_fd=directory)
            try:
                found = checksum_of(fd)
                self.bytes_read += os.fstat(fd).st_size
            finally:
                os.close(fd)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        return None if found == wanted else "has other content than its checksum says"

    def _line_fault(self, line: str, st: os.stat_result, xattrs: Callable[[], dict[str, bytes]]) -> str | None:
        fields = line.rstrip("\n").split("\t")
        mode = int(fields[manifest.MODE], 8)
        if stat.S_IFMT(mode) != stat.S_IFMT(st.st_mode):
            return "is of another kind"
        if not stat.S_ISDIR(mode) and int(fields[manifest.SIZE]) != st.st_size:
            return f"has {st.st_size} bytes instead of {fields[manifest.SIZE]}"
        if int(fields[manifest.MTIME]) != st.st_mtime_ns:
            return "was modified"
        if "ownership" not in self._ignore:
            if (fields[manifest.UID], fields[manifest.GID]) != (str(st.st_uid), str(st.st_gid)):
                return f"belongs to {st.st_uid}:{st.st_gid} instead of {fields[manifest.UID]}:{fields[manifest.GID]}"
            if stat.S_IMODE(mode) != stat.S_IMODE(st.st_mode):
                return f"has mode {stat.S_IMODE(st.st_mode):04o} instead of {stat.S_IMODE(mode):04o}"
        if "xattrs" not in self._ignore and manifest.xattr_digest(xattrs()) != fields[manifest.XATTRS]:
            return "has other extended attributes"
        return None


def _is_below(path: str, parent: str) -> bool:
    return path.startswith(parent if parent == "/" else parent + "/")


def _leave(frame: _Frame) -> Iterator[tuple[str, str]]:
    os.close(frame.fd)
    for name in sorted(frame.unseen):
        yield (_shown(f"{frame.path.rstrip('/')}/{manifest.escape(name)}"), "is not in the manifest")


def _is_directory(directory: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def _shown(path: str) -> str:
    return "." if path == "/" else manifest.unescape(path[1:])
