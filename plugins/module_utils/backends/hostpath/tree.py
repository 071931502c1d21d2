# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies a directory tree, down and along in one order, and writes its manifest on the way.

`Take` makes a snapshot of a live directory: unchanged files are hardlinked to the snapshot before, the others copied
and looked at again. `Give` copies a snapshot out again, for a return or a clone, and never hardlinks to the store.
The walk holds one directory's names in memory at a time. Called by the backend; uses files.py and manifest.py.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from re import Pattern
from typing import IO, Callable

from ..stored.layout import STAGING
from ..stored.remove import DIRECTORY
from . import manifest
from .files import ATTEMPTS, TICK_NS, Copied, FileCopier, Replaced, read_xattrs

_FLUSH = 1000
_LINK_REFUSED = (errno.EMLINK, errno.EXDEV, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EOPNOTSUPP)


@dataclass
class Tally:
    """What a walk came across. Bytes are those that the files hold when read; ``copied`` what was really written."""

    files: int = 0
    directories: int = 0
    others: int = 0
    bytes: int = 0
    copied_files: int = 0
    copied_bytes: int = 0
    linked_files: int = 0
    inconsistent: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


@dataclass
class Basis:
    """What a snapshot is compared with: the tree of an earlier one, and a manifest of the live directory then."""

    tree: int  #: an open directory
    stream: IO[str]  #: the manifest, open
    blocks: manifest.Blocks
    checksums: bool = False

    def close(self) -> None:
        """Close both."""
        os.close(self.tree)
        self.stream.close()


@dataclass
class _Frame:
    """One directory that the walk is in."""

    path: str  #: below the target, escaped, beginning with a slash: "/" is the target itself
    source: int
    dest: int
    st: os.stat_result
    xattrs: dict[str, bytes]
    basis: int | None = None
    block: manifest.Block | None = None
    below: list[str] = field(default_factory=list)  #: directories still to be walked, the next one last

    def close(self) -> None:
        for fd in (self.source, self.dest, self.basis):
            if fd is not None and fd >= 0:
                os.close(fd)

    def child(self, name: str) -> str:
        """Return the path of what lies in it."""
        return f"{self.path if self.path != '/' else ''}/{manifest.escape(name)}"


@dataclass(frozen=True)
class _Named:
    """The first name under which a file with several names was copied: its path, its key, the rest of its line."""

    path: str
    key: str
    rest: str


class TreeCopy:
    """The walk itself. What happens to files is for `Take` and `Give`.

    Args:
        files: copies single files.
        writer: where the manifest goes.
        exclude: matches the paths (without a leading slash) that are left out, if given.
        mounts: paths below the target (with a leading slash) at which something else is mounted: kept as empty
            directories, and named in the tally.
        progress: called for each directory with what was done so far.
    """

    live = False

    def __init__(
        self,
        files: FileCopier,
        writer: manifest.Writer,
        exclude: Pattern[str] | None = None,
        mounts: frozenset[str] = frozenset(),
        progress: Callable[[Tally], None] | None = None,
    ) -> None:
        self.tally = Tally()
        self.files = files
        files.where = lambda: manifest.unescape(self.at[1:]) or "."
        self._writer = writer
        self._exclude = exclude
        self._mounts = mounts
        self._progress = progress
        self._frame: _Frame | None = None
        self._name = ""
        self._groups: dict[str, _Named] = {}
        self._root = -1

    @property
    def at(self) -> str:
        """The path that is being worked on, for the message of an error."""
        if self._frame is None or not self._name:
            return self._frame.path if self._frame is not None else "/"
        return self._frame.child(self._name)

    def _now_at(self, frame: _Frame, name: str) -> None:
        self._frame, self._name = frame, name

    def copy(self, source: int, dest: int) -> Tally:
        """Copy the open directory ``source`` into ``dest``, an open and empty directory of our own."""
        self._root = dest
        frames: list[_Frame] = []
        umask = os.umask(0)
        try:
            frames.append(self._open("/", os.dup(source), os.dup(dest), None))
            while frames:
                frame = frames[-1]
                if frame.below:
                    child = self._down(frame, frame.below.pop())
                    if child is not None:
                        frames.append(child)
                    continue
                self._now_at(frame, "")
                self.files.directory(frame.dest, frame.st, frame.xattrs)
                frames.pop().close()
        finally:
            os.umask(umask)
            for frame in frames:
                frame.close()
        return self.tally

    def close(self) -> str:
        """Close the manifest; return its SHA-256."""
        return self._writer.close()

    def _down(self, parent: _Frame, name: str) -> _Frame | None:
        """Enter the directory ``name``; return None if it is none any more, or is not to be entered."""
        path = parent.child(name)
        try:
            source = os.open(name, DIRECTORY, dir_fd=parent.source)
        except OSError as error:
            if self.live and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                # Removed, or something else put in its place, since it was listed: not there at our instant.
                self.tally.inconsistent.append(manifest.unescape(path[1:]))
                return None
            raise
        try:
            os.mkdir(name, 0o700, dir_fd=parent.dest)
            dest = os.open(name, DIRECTORY, dir_fd=parent.dest)
        except OSError:
            os.close(source)
            raise
        return self._open(path, source, dest, self._basis_below(parent, name))

    def _basis_below(self, parent: _Frame, name: str) -> int | None:
        if parent.basis is None:
            return None
        try:
            return os.open(name, DIRECTORY, dir_fd=parent.basis)
        except OSError:
            return None

    def _open(self, path: str, source: int, dest: int, basis: int | None) -> _Frame:
        """Describe a directory that was entered, and copy the files in it."""
        frame = _Frame(path, source, dest, os.fstat(source), {}, basis)
        self._now_at(frame, "")
        try:
            frame.xattrs = read_xattrs(source)
            self._writer.lines([self._line(path, frame.st, manifest.key(frame.st), frame.xattrs)])
            self.tally.directories += 1
            if path in self._mounts:
                self.tally.left_out.append(manifest.unescape(path[1:]))
            else:
                self._fill(frame)
        except BaseException:
            frame.close()
            raise
        if self._progress is not None:
            self._progress(self.tally)
        return frame

    def _fill(self, frame: _Frame) -> None:
        names = manifest.sorted_names(content_names(frame.source, frame.path))
        if self._exclude is not None:
            names = [name for name in names if not self._excluded(frame, name)]
        for lines in self._entries(frame, names):
            self._writer.lines(lines)
        frame.below.reverse()

    def _excluded(self, frame: _Frame, name: str) -> bool:
        path = manifest.unescape(frame.child(name)[1:])
        return self._exclude is not None and self._exclude.fullmatch(path) is not None

    def _entries(self, frame: _Frame, names: list[str]) -> Iterator[list[str]]:
        raise NotImplementedError

    def _line(
        self, label: str, st: os.stat_result, key: str, xattrs: dict[str, bytes], copied: Copied | None = None
    ) -> str:
        """Return a manifest line; ``label`` is the escaped name."""
        digest = manifest.xattr_digest(xattrs) if xattrs else "-"
        if copied is None:
            return f"{label}\t{key}\t-\t{digest}\t-\t-\n"
        target = copied.target
        return f"{label}\t{key}\t{manifest.group(st)}\t{digest}\t{copied.checksum}\t{target}\n"

    def _count(self, st: os.stat_result) -> None:
        if stat.S_ISREG(st.st_mode):
            self.tally.files += 1
            self.tally.bytes += st.st_size
        else:
            self.tally.others += 1

    def _link_to(self, path: str, frame: _Frame, name: str) -> bool:
        """Make ``name`` another name of a file of this copy that came earlier. False where that cannot be."""
        try:
            # The path is one of our own making, below a directory that only we may enter.
            os.link(path[1:], name, src_dir_fd=self._root, dst_dir_fd=frame.dest, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.EMLINK, errno.ENAMETOOLONG):
                self.files.losses.add("hardlinks", manifest.unescape(frame.child(name)[1:]))
                return False
            raise
        return True


class Take(TreeCopy):
    """Makes a snapshot of a directory that may be in use.

    ``basis`` is what unchanged files are hardlinked to, if there is anything. ``checksum`` wants the SHA-256 of every
    file in the manifest.
    """

    live = True

    def __init__(
        self,
        files: FileCopier,
        writer: manifest.Writer,
        exclude: Pattern[str] | None = None,
        mounts: frozenset[str] = frozenset(),
        progress: Callable[[Tally], None] | None = None,
        basis: Basis | None = None,
        checksum: bool = False,
    ) -> None:
        super().__init__(files, writer, exclude, mounts, progress)
        self.basis = basis
        self._checksum = checksum
        # A manifest without checksums cannot stand in for one with them.
        self._may_link = basis is not None and (basis.checksums or not checksum)

    def _open(self, path: str, source: int, dest: int, basis: int | None) -> _Frame:
        if path == "/" and self.basis is not None:
            basis = os.dup(self.basis.tree)
        return super()._open(path, source, dest, basis)

    def _entries(self, frame: _Frame, names: list[str]) -> Iterator[list[str]]:
        """Take the files of one directory, and yield their manifest lines.

        This loop runs once for each file of a tree, mostly unchanged ones, so the common way through it is straight.
        """
        source = frame.source
        block = self.basis.blocks.take(frame.path) if self.basis is not None and self._may_link else None
        old = iter(block.entries if block is not None and frame.basis is not None else ())
        last = next(old, "")
        lines: list[str] = []
        linked = size = 0
        key = manifest.key
        for name, label in manifest.labelled(names):
            try:
                st = os.stat(name, dir_fd=source, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if st.st_mode & 0o170000 == 0o040000:
                frame.below.append(name)
                continue
            prefix = f"{label}\t{key(st)}\t"
            unchanged = last.startswith(prefix)
            if not unchanged and last:
                while last and manifest.line_name(last) < label:
                    last = next(old, "")
                unchanged = last.startswith(prefix)
            if unchanged and self._link(frame, name):
                lines.append(last)
                linked += 1
                size += st.st_size
                if st.st_nlink > 1 or st.st_mode & 0o170000 != 0o100000:
                    self._note_linked(frame, name, st, last)
                last = next(old, "")
            else:
                line = self._copy_small(frame, name, prefix, st) or self._copy(frame, name, label, st)
                if line is not None:
                    lines.append(line)
            if len(lines) >= _FLUSH:
                yield lines
                lines = []
        self.tally.files += linked
        self.tally.linked_files += linked
        self.tally.bytes += size
        yield lines

    def _link(self, frame: _Frame, name: str) -> bool:
        """Take an unchanged file by hardlinking it to the snapshot before. False where that cannot be."""
        try:
            os.link(name, name, src_dir_fd=frame.basis, dst_dir_fd=frame.dest, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _LINK_REFUSED:
                raise
            return False
        return True

    def _note_linked(self, frame: _Frame, name: str, st: os.stat_result, line: str) -> None:
        """See to what is rare among linked files: names of one file, and what is no regular file."""
        if not stat.S_ISREG(st.st_mode):
            self.tally.others += 1
            self.tally.files -= 1
            self.tally.linked_files -= 1
            self.tally.bytes -= st.st_size
        if st.st_nlink > 1:
            self._name_group(frame.child(name), st, line[line.index("\t") :])

    def _copy_small(self, frame: _Frame, name: str, prefix: str, st: os.stat_result) -> str | None:
        """Copy a small file with one name; None, with nothing done, where it is for `_copy`."""
        if st.st_nlink != 1 or st.st_mode & 0o170000 != 0o100000:
            return None
        self._now_at(frame, name)
        if st.st_ctime_ns >= time.time_ns() - TICK_NS:
            return None  # somebody may be writing to it
        try:
            done = self.files.small(frame.source, frame.dest, name, st, live=True)
        except (FileNotFoundError, Replaced):
            return None
        if done is None:
            return None
        tally = self.tally
        tally.files += 1
        tally.copied_files += 1
        tally.bytes += st.st_size
        tally.copied_bytes += st.st_size
        digest = manifest.xattr_digest(done[0]) if done[0] else "-"
        return f"{prefix}-\t{digest}\t-\t-\n"

    def _name_group(self, path: str, st: os.stat_result, rest: str) -> None:
        self._groups.setdefault(manifest.group(st), _Named(path, manifest.key(st), rest))

    def _copy(self, frame: _Frame, name: str, label: str, st: os.stat_result) -> str | None:
        """Copy what is not as it was last time; return its manifest line, or None where it is gone."""
        self._now_at(frame, name)
        path = frame.child(name)
        for _unused in range(ATTEMPTS):
            try:
                return self._join_group(frame, name, label, st) or self._copied_line(
                    path, label, self._copy_once(frame, name, st)
                )
            except FileNotFoundError:
                return None
            except Replaced:
                # Something else was put in its place: look again at what it is now.
                self.tally.inconsistent.append(manifest.unescape(path[1:]))
            try:
                st = os.stat(name, dir_fd=frame.source, follow_symlinks=False)
            except FileNotFoundError:
                return None
            if stat.S_ISDIR(st.st_mode):
                frame.below.append(name)
                return None
        return None

    def _copy_once(self, frame: _Frame, name: str, st: os.stat_result) -> Copied:
        if stat.S_ISREG(st.st_mode):
            return self.files.regular(frame.source, frame.dest, name, st, live=True)
        return self.files.special(frame.source, frame.dest, name, st)

    def _copied_line(self, path: str, label: str, copied: Copied) -> str:
        st = copied.st
        self._count(st)
        if stat.S_ISREG(st.st_mode):
            self.tally.copied_files += 1
            self.tally.copied_bytes += copied.written
        if not copied.consistent:
            self.tally.inconsistent.append(manifest.unescape(path[1:]))
        key = manifest.key(st) if copied.settled else manifest.unsettled_key(st)
        line = self._line(label, st, key, copied.xattrs, copied)
        if st.st_nlink > 1:
            self._name_group(path, st, line[len(label) :])
        return line

    def _join_group(self, frame: _Frame, name: str, label: str, st: os.stat_result) -> str | None:
        """Link a further name of a file that was already taken; None where there is none, or it has changed since."""
        known = self._groups.get(manifest.group(st)) if st.st_nlink > 1 else None
        if known is None:
            return None
        if known.key != manifest.key(st):
            self.tally.inconsistent.append(manifest.unescape(frame.child(name)[1:]))
            return None
        if not self._link_to(manifest.unescape(known.path), frame, name):
            return None
        self._count(st)
        return label + known.rest


class Give(TreeCopy):
    """Copies a snapshot out of the store, where nothing changes meanwhile.

    The manifest it writes describes the copies: their inodes and times, so that a later look at them need not read
    them. ``blocks`` is the snapshot's own manifest. It tells which names were hard links of one file: in the store,
    files share inodes with other snapshots too. Without it the inodes themselves have to do.
    """

    def __init__(
        self,
        files: FileCopier,
        writer: manifest.Writer,
        exclude: Pattern[str] | None = None,
        progress: Callable[[Tally], None] | None = None,
        blocks: manifest.Blocks | None = None,
    ) -> None:
        super().__init__(files, writer, exclude, progress=progress)
        self._blocks = blocks

    def _entries(self, frame: _Frame, names: list[str]) -> Iterator[list[str]]:
        block = self._blocks.take(frame.path) if self._blocks is not None else None
        known: dict[str, list[str]] | None = None
        lines: list[str] = []
        for name in names:
            st = os.stat(name, dir_fd=frame.source, follow_symlinks=False)
            if stat.S_ISDIR(st.st_mode):
                frame.below.append(name)
                continue
            fields = None
            if block is not None and st.st_nlink > 1:
                if known is None:
                    known = _linked_entries(block)
                fields = known.get(manifest.escape(name))
            group = manifest.group(st) if self._blocks is None else fields[manifest.GROUP] if fields else "-"
            lines.append(self._give(frame, name, st, group))
            if len(lines) >= _FLUSH:
                yield lines
                lines = []
        yield lines

    def _give(self, frame: _Frame, name: str, st: os.stat_result, group: str) -> str:
        self._now_at(frame, name)
        label = manifest.escape(name)
        self._count(st)
        if group == "-" and stat.S_ISREG(st.st_mode):
            done = self.files.small(frame.source, frame.dest, name, st, live=False)
            if done is not None:
                self.tally.copied_files += 1
                self.tally.copied_bytes += st.st_size
                digest = manifest.xattr_digest(done[0]) if done[0] else "-"
                return f"{label}\t{manifest.key(done[1])}\t-\t{digest}\t-\t-\n"
        path = frame.child(name)
        first = self._groups.get(group) if group != "-" else None
        if first is not None and self._link_to(manifest.unescape(first.path), frame, name):
            return label + first.rest
        if stat.S_ISREG(st.st_mode):
            copied = self.files.regular(frame.source, frame.dest, name, st, live=False)
            self.tally.copied_files += 1
            self.tally.copied_bytes += copied.written
        else:
            copied = self.files.special(frame.source, frame.dest, name, st)
        made = copied.made if copied.made is not None else st
        # A further link to it will move its ctime, so nothing can be told from that one.
        key = manifest.key(made) if group == "-" and copied.made is not None else manifest.unsettled_key(made)
        digest = manifest.xattr_digest(copied.xattrs)
        rest = f"\t{key}\t{group}\t{digest}\t{copied.checksum}\t{copied.target}\n"
        if group != "-":
            self._groups[group] = _Named(path, key, rest)
        return label + rest


def content_names(directory: int, path: str) -> list[str]:
    """Return the names in an open directory, without what runs of ours made in the top of a target."""
    names = os.listdir(directory)
    return [name for name in names if not name.startswith(STAGING)] if path == "/" else names


def _linked_entries(block: manifest.Block) -> dict[str, list[str]]:
    """Return the fields of those entries of a block that are hard links of one file, by escaped name."""
    entries = (line.split("\t") for line in block.entries)
    return {fields[0]: fields for fields in entries if fields[manifest.GROUP] != "-"}
