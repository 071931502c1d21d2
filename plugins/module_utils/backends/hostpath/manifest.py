# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The manifest of a directory snapshot: one line for each file, so that the next run finds what changed.

It is text, in the order of the walk, and is written and read as a stream. ``docs/store-format.md`` describes it for
people. Lines are compared as text: a file is unchanged if its line begins with the same key as last time, so most lines
of a manifest are never taken apart. Standard library and core only; called by the other files of this backend.

    restorepoint-manifest 1
    /                <fields>       a directory: a slash, then its path below the target
    name             <fields>       what lies in it, sorted; a name cannot begin with a slash
    /sub             <fields>

Fields are separated by tabs: inode, ctime, size, mtime, mode, uid, gid, group, xattrs, checksum, target. Times are in
nanoseconds since the epoch. A ctime of ``-`` matches nothing: the file did not hold still, or too little time had
passed since its last change to be sure that a later one would show.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import IO

from ...core.errors import StoreError

HEADER = "restorepoint-manifest 1\n"
#: Which field is which, after a split of the line at tabs (0 is the name).
INODE, CTIME, SIZE, MTIME, MODE, UID, GID, GROUP, XATTRS, CHECKSUM, TARGET = range(1, 12)
FIELDS = 12
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_KEY = "%d\t%d\t%d\t%d\t%o\t%d\t%d"
_KEY_FIELDS = attrgetter("st_ino", "st_ctime_ns", "st_size", "st_mtime_ns", "st_mode", "st_uid", "st_gid")
_UNESCAPES = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}


def escape(name: str) -> str:
    """Return a name without tabs and line ends, which separate fields and lines."""
    if "\\" not in name and name.isprintable():
        return name
    return "".join(_ESCAPES.get(character, character) for character in name)


def unescape(text: str) -> str:
    """Return the name that ``escape`` was given."""
    if "\\" not in text:
        return text
    parts = iter(text)
    return "".join(_UNESCAPES[next(parts)] if character == "\\" else character for character in parts)


def sorted_names(names: list[str]) -> list[str]:
    """Return names in the manifest's order: that of their escaped forms."""
    if not _are_plain(names):
        return sorted(names, key=escape)
    names.sort()
    return names


def labelled(names: list[str]) -> Iterable[tuple[str, str]]:
    """Yield each name with its escaped form."""
    return zip(names, names if _are_plain(names) else map(escape, names))


def _are_plain(names: list[str]) -> bool:
    """Say whether no name needs escaping."""
    joined = "/".join(names)
    return joined.isprintable() and "\\" not in joined


def key(st: os.stat_result) -> str:
    """Return what tells whether a file is the one that was seen before, unchanged.

    Any change of content, owner, mode or extended attributes moves the ctime, which no program can set.
    """
    # Twice as fast as an f-string, and this is done for every file of every tree.
    return _KEY % _KEY_FIELDS(st)


def unsettled_key(st: os.stat_result) -> str:
    """Return a key that no later stat matches, so that the next run reads the file again."""
    return f"{st.st_ino}\t-\t{st.st_size}\t{st.st_mtime_ns}\t{st.st_mode:o}\t{st.st_uid}\t{st.st_gid}"


def group(st: os.stat_result) -> str:
    """Return what the names of one hard-linked file have in common, or ``-`` for a file with one name."""
    return "-" if st.st_nlink == 1 else f"{st.st_dev}:{st.st_ino}"


def xattr_digest(attributes: dict[str, bytes]) -> str:
    """Return a short digest of extended attributes, or ``-`` where there are none."""
    if not attributes:
        return "-"
    digest = hashlib.sha256()
    for name in sorted(attributes):
        value = attributes[name]
        digest.update(f"{len(name)}:{name}:{len(value)}:".encode("utf-8", "surrogateescape") + value)
    return digest.hexdigest()[:16]


def line_name(line: str) -> str:
    """Return the escaped name (or the directory's path, with its slash) that a line begins with."""
    return line[: line.index("\t")]


@dataclass
class Block:
    """One directory of a manifest: its own line, and the lines of what lies in it, directories apart."""

    path: str  #: below the target, escaped, with a slash at its beginning: "/" is the target itself
    line: str
    entries: list[str] = field(default_factory=list)

    @property
    def parts(self) -> list[str]:
        """What blocks are ordered by: the walk goes down before it goes on."""
        return self.path.split("/")


def read_blocks(stream: IO[str], name: str) -> Iterator[Block]:
    """Yield the directories of a manifest, in its order. Raises StoreError for what is no manifest of this version."""
    if stream.readline() != HEADER:
        raise StoreError(
            f"read the manifest {name}", "it does not begin as one", "verify the snapshot, or take a new one"
        )
    block: Block | None = None
    for line in stream:
        if line[0] == "/":
            if block is not None:
                yield block
            block = Block(line_name(line), line)
        elif block is None or line.count("\t") != FIELDS - 1:
            raise StoreError(f"read the manifest {name}", f"it has the line {line[:80]!r}", "verify the snapshot")
        else:
            block.entries.append(line)
    if block is not None:
        yield block


class Blocks:
    """Blocks read alongside a walk that goes in the same order: ``take`` gives the one of a path, if there is one."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks = blocks
        self._next = next(blocks, None)

    def take(self, path: str) -> Block | None:
        """Return the block of ``path``, passing over those that come before it."""
        wanted = path.split("/")
        while self._next is not None and self._next.path != path and self._next.parts < wanted:
            self._next = next(self._blocks, None)
        if self._next is None or self._next.path != path:
            return None
        found, self._next = self._next, next(self._blocks, None)
        return found

    @property
    def ahead(self) -> Block | None:
        """The block that comes next."""
        return self._next


class Writer:
    """Writes a manifest to a new file, and its checksum beside."""

    def __init__(self, directory_fd: int, name: str) -> None:
        fd = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory_fd
        )
        self._file = os.fdopen(fd, "wb", buffering=1 << 18)
        self._digest = hashlib.sha256()
        self._write(HEADER)

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "surrogateescape")
        self._digest.update(data)
        self._file.write(data)

    def lines(self, lines: list[str]) -> None:
        """Write lines, each with its line end."""
        self._write("".join(lines))

    def close(self) -> str:
        """Finish the file and return its SHA-256."""
        self._file.close()
        return self._digest.hexdigest()


def open_manifest(directory_fd: int, name: str) -> IO[str]:
    """Open a manifest for reading, never through a link."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
    return open(fd, encoding="utf-8", errors="surrogateescape", newline="\n")


def checksum_of(directory_fd: int, name: str) -> str:
    """Return the SHA-256 of a manifest as it lies in the store."""
    digest = hashlib.sha256()
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
    with open(fd, "rb") as stream:
        for chunk in iter(lambda: stream.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()
