# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is mounted where, from /proc/PID/mountinfo. Standard library and core only; called by backends and users.py.

Only ``read_mounts`` reads anything; the rest is questions to what it returned. Paths are str as ``os`` gives them
(bytes that are no text as surrogate escapes), absolute and free of symlinks: who asks resolves them first.

The device here is the filesystem's own, which is not always what stat(2) calls st_dev: every btrfs subvolume has an
st_dev of its own. So places are compared as (device, path inside the filesystem), both from mountinfo.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from .core.errors import ToolError

_ESCAPE = re.compile(rb"\\([0-7]{3})")
_DEVICE = re.compile(r"\d+:\d+")


class Mount(NamedTuple):
    """One line of mountinfo, as proc_pid_mountinfo(5) describes it.

    ``device`` is "major:minor"; ``root`` is the folder of the filesystem that is mounted, ``mount_point`` where, as
    seen from the root directory of the process; ``options`` are the mount's, ``super_options`` the filesystem's.
    """

    mount_id: int
    parent_id: int
    device: str
    root: str
    mount_point: str
    fstype: str
    source: str
    options: str
    super_options: str


def read_mounts(pid: int | str = "self", proc: str = "/proc") -> tuple[Mount, ...]:
    """Return the mounts that a process sees, in the order in which they were made.

    Raises OSError as open and read do (FileNotFoundError for a process that is gone), ToolError for a line that cannot
    be parsed.
    """
    path = f"{proc}/{pid}/mountinfo"
    with open(path, "rb", buffering=0) as file:
        return parse(file.read(), path)


def parse(content: bytes, path: str) -> tuple[Mount, ...]:
    """Return the mounts in the content of the mountinfo file of that path; ToolError for a line that is none."""
    return tuple(_parse_line(line, path) for line in content.split(b"\n") if line)


def table_lines(path: str) -> list[list[str]]:
    """Return the fields of each line of a table such as fstab(5) or /proc/swaps; none where there is no such file.

    Only blanks and tabs stand between fields; those inside one are octal numbers, which are undone. Comments are left
    out. Raises OSError.
    """
    try:
        with open(path, "rb") as file:
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    split = [[_text(each) for each in re.split(rb"[ \t\r]+", line) if each] for line in lines]
    return [fields for fields in split if fields and not fields[0].startswith("#")]


def inside(path: str, folder: str) -> str | None:
    """Return ``path`` relative to ``folder`` ("" for the folder itself), or None where it does not lie in it."""
    if path == folder:
        return ""
    prefix = folder if folder.endswith("/") else folder + "/"
    return path[len(prefix) :] if path.startswith(prefix) else None


def joined(folder: str, relative: str) -> str:
    """Return the path of something in a folder; the inverse of ``inside``."""
    return f"{folder.rstrip('/')}/{relative}" if relative else folder


def containing(mounts: Sequence[Mount], path: str) -> Mount:
    """Return the mount that a path leads to.

    Goes down as the kernel does: from the root to the first mount point on the way, and on from there. So of two
    mounts on one place the later one wins, and one that lies hidden under another is not found. Raises LookupError
    where no mount covers the path (in a chroot that is no mount point).
    """
    path = _normal(path)
    covering = [mount for mount in mounts if inside(path, mount.mount_point) is not None]
    known = {mount.mount_id for mount in mounts}
    steps = [mount for mount in covering if mount.parent_id not in known or mount.parent_id == mount.mount_id]
    found = None
    while steps:
        shortest = min(len(mount.mount_point) for mount in steps)
        found = [mount for mount in steps if len(mount.mount_point) == shortest][-1]
        covering = [mount for mount in covering if mount is not found]
        steps = [mount for mount in covering if mount.parent_id == found.mount_id]
    if found is None:
        raise LookupError(f"no mount covers {path}")
    return found


def filesystem_path(mounts: Sequence[Mount], path: str) -> tuple[str, str]:
    """Return where a path really lies: the device, and the path from the top of the filesystem on it."""
    path = _normal(path)
    mount = containing(mounts, path)
    return mount.device, joined(mount.root, inside(path, mount.mount_point) or "")


def below(mounts: Sequence[Mount], path: str) -> list[str]:
    """Return the mount points strictly inside a directory, sorted, each once."""
    return sorted({mount.mount_point for mount in mounts if inside(mount.mount_point, _normal(path))})


def is_mount_point(mounts: Sequence[Mount], path: str) -> bool:
    """Say whether something is mounted exactly there (also a directory bound to itself), and not hidden."""
    try:
        return containing(mounts, path).mount_point == _normal(path)
    except LookupError:
        return False


def _normal(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"not an absolute path: {path!r}")
    return "/" + os.path.normpath(path).lstrip("/")


def _parse_line(line: bytes, path: str) -> Mount:
    """Return a line as a Mount.

    It reads ``36 35 98:0 /root /point options optional... - type source super-options``: any number of optional
    fields, even none, end with the lone hyphen. Blanks inside a field are escaped. A source may be empty, which leaves
    two blanks side by side: the fields are not simply whatever stands between white space.
    """
    fields = line.split(b" ")
    try:
        separator = fields.index(b"-", 6)
        fstype, source, *super_options = fields[separator + 1 :]
        mount = Mount(
            mount_id=int(fields[0]),
            parent_id=int(fields[1]),
            device=_text(fields[2]),
            root=_text(fields[3]),
            mount_point=_text(fields[4]),
            fstype=_text(fstype),
            source=_text(source),
            options=_text(fields[5]),
            super_options=_text(b" ".join(super_options)),
        )
        if not _DEVICE.fullmatch(mount.device) or not mount.mount_point.startswith("/") or not mount.root:
            raise ValueError
    except ValueError:
        raise ToolError(
            f"read the mounts in {path}",
            f"this line is not in the form that proc_pid_mountinfo(5) describes: {line[:300]!r}",
            "report it, with the line and the kernel's version",
        ) from None
    return mount


def _text(field: bytes) -> str:
    """Return a field as a path or word; the kernel writes blank, tab, newline, backslash and # as octal numbers."""
    if b"\\" in field:
        field = _ESCAPE.sub(lambda found: bytes([int(found.group(1), 8) & 0xFF]), field)
    return os.fsdecode(field)
