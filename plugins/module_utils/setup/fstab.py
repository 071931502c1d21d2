# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lines of /etc/fstab: found by mount point, changed without touching any other. Standard library; called beside it.

The form is that of fstab(5): six fields apart by blanks; blanks inside of one are written as octal numbers.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from dataclasses import dataclass

from ..core.errors import StoreError

FSTAB = "/etc/fstab"
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Entry:
    """What is mounted where. ``passno`` is the order of checking at boot (0: never)."""

    source: str
    path: str
    fstype: str
    options: str
    passno: int

    @property
    def line(self) -> str:
        """The entry as a line of fstab, without its newline."""
        words = (self.source, self.path, self.fstype, self.options)
        return " ".join([*map(_escaped, words), "0", str(self.passno)])


def parse_line(line: str) -> Entry | None:
    """Return what a line of fstab mounts, or None for a comment, an empty line, or one that mounts nothing."""
    # Blanks are spaces and tabs, and no other of Unicode's: those belong to a name.
    fields = [each for each in re.split(r"[ \t\r\n]+", line) if each]
    if len(fields) < 3 or fields[0].startswith("#"):
        return None
    source, path, fstype = (_plain(each) for each in fields[:3])
    options = _plain(fields[3]) if len(fields) > 3 else "defaults"
    passno = int(fields[5]) if len(fields) > 5 and fields[5].isdigit() else 0
    return Entry(source, path, fstype, options, passno)


def find(content: str, path: str) -> Entry | None:
    """Return the entry for a mount point; the last one, where there are several, as mount(8) finds it."""
    entries = [entry for entry in map(parse_line, _lines(content)) if entry and entry.path == path]
    return entries[-1] if entries else None


def replaced(content: str, entry: Entry) -> str:
    """Return fstab with this entry in the place of the one for its mount point, or at the end. Nothing else changes."""
    lines = _lines(content)
    places = [number for number, line in enumerate(lines) if (parse_line(line) or _NOTHING).path == entry.path]
    if places:
        lines[places[-1]] = entry.line + "\n"
        return "".join(lines)
    gap = "\n" if content and not content.endswith("\n") else ""
    return f"{content}{gap}{entry.line}\n"


def read(path: str = FSTAB) -> str:
    """Return the content of fstab; that of one that is missing is empty."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def write(entry: Entry, path: str = FSTAB) -> None:
    """Put an entry into fstab: whole or not at all, with owner, mode and attributes as they were. Raises StoreError."""
    target = os.path.realpath(path)
    content = replaced(read(target), entry)
    temporary = None
    try:
        fd, temporary = tempfile.mkstemp(prefix=".fstab-", dir=os.path.dirname(target))
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(content)
            _like(target, file.fileno())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        raise StoreError(
            f"write {entry.path} into {path}", error.strerror or str(error), "make that file writable, and try again"
        ) from error


def _lines(content: str) -> list[str]:
    """Return the lines with their ends. Only a newline ends one: str.splitlines() knows more, which names may have."""
    return re.findall(r"[^\n]*\n|[^\n]+", content)


def _like(target: str, fd: int) -> None:
    """Give an open file the owner, mode and attributes (SELinux's label) of the one whose place it takes."""
    try:
        found = os.stat(target)
    except FileNotFoundError:
        os.fchmod(fd, 0o644)
        return
    os.fchown(fd, found.st_uid, found.st_gid)
    os.fchmod(fd, found.st_mode & 0o7777)
    with contextlib.suppress(OSError):
        for name in os.listxattr(target):
            os.setxattr(fd, name, os.getxattr(target, name))


def _escaped(word: str) -> str:
    return "".join(f"\\{ord(each):03o}" if each in " \t\n\\#" else each for each in word)


def _plain(word: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found.group(1), 8)), word)


_NOTHING = Entry("", "", "", "", 0)
