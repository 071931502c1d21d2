# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Describes a directory tree in every respect, by means of its own, so that two trees can be compared.

It shares no code with the engine that is tested. Called by the tests of this folder.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator
from typing import Any

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_BLOCK = 4096


def snapshot_of(tree: str | bytes | os.PathLike[str]) -> dict[bytes, dict[str, Any]]:
    """Return ``{path below the tree: facts}``; the tree itself is ``b""``. Follows no link.

    Facts are kind and mode, owner, mtime, size, content, data ranges (so holes), extended attributes with ACLs and
    capabilities, link target, device number, and the set of paths that are one file.
    """
    found: dict[bytes, dict[str, Any]] = {}
    groups: dict[tuple[int, int], set[bytes]] = {}
    pending = [(b"", os.open(tree, _DIRECTORY))]
    while pending:
        path, directory = pending.pop()
        found[path] = _facts(os.fstat(directory), _xattrs(directory))
        for name in sorted(os.listdir(f"/proc/self/fd/{directory}".encode())):
            below = path + b"/" + name if path else name
            st = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(st.st_mode):
                pending.append((below, os.open(name, _DIRECTORY, dir_fd=directory)))
                continue
            found[below] = _file(directory, name, st)
            groups.setdefault((st.st_dev, st.st_ino), set()).add(below)
        os.close(directory)
    for names in groups.values():
        for path in names:
            found[path]["one file"] = sorted(names)
    return found


def _facts(st: os.stat_result, xattrs: dict[str, bytes]) -> dict[str, Any]:
    return {
        "mode": oct(st.st_mode),
        "owner": (st.st_uid, st.st_gid),
        "mtime_ns": st.st_mtime_ns,
        "xattrs": xattrs,
    }


def _file(directory: int, name: bytes, st: os.stat_result) -> dict[str, Any]:
    path = b"/proc/self/fd/%d/" % directory + name
    facts = {**_facts(st, _xattrs(path)), "size": st.st_size}
    if stat.S_ISLNK(st.st_mode):
        facts["target"] = os.readlink(name, dir_fd=directory)
    if stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
        facts["device"] = (os.major(st.st_rdev), os.minor(st.st_rdev))
    if stat.S_ISREG(st.st_mode):
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME, dir_fd=directory)
        try:
            ranges = list(_data(fd))
            facts["content"] = _digest(fd, ranges)
            if st.st_blocks * 512 < st.st_size:
                facts["data"] = ranges  # where holes save room, they have to be the same
        finally:
            os.close(fd)
    return facts


def _xattrs(where: int | bytes) -> dict[str, bytes]:
    names = os.listxattr(where, follow_symlinks=isinstance(where, int))
    # As these XFS shows a file's ACLs a second time.
    names = [name for name in names if not name.startswith("trusted.SGI_ACL_")]
    return {name: os.getxattr(where, name, follow_symlinks=isinstance(where, int)) for name in names}


def _data(fd: int) -> Iterator[tuple[int, int]]:
    at = 0
    while True:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return
        at = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, at


def _digest(fd: int, ranges: list[tuple[int, int]]) -> str:
    """Digest a content; zeros count for nothing, whether they are a hole or not."""
    digest = hashlib.sha256()
    for start, end in ranges:
        for at in range(start, end, _BLOCK):
            block = os.pread(fd, min(_BLOCK, end - at), at)
            if block.strip(b"\0"):
                digest.update(b"%d:%d:" % (at, len(block)) + block)
    return digest.hexdigest()


def differences(one: dict[bytes, dict[str, Any]], other: dict[bytes, dict[str, Any]], *ignored: str) -> list[str]:
    """Return in words how two descriptions differ (the first twenty); ``ignored`` are facts that may."""
    found = [f"{path!r} is only in the first" for path in sorted(one.keys() - other.keys())]
    found += [f"{path!r} is only in the second" for path in sorted(other.keys() - one.keys())]
    for path in sorted(one.keys() & other.keys()):
        for fact in sorted((one[path].keys() | other[path].keys()) - set(ignored)):
            mine, theirs = one[path].get(fact), other[path].get(fact)
            if mine != theirs:
                found.append(f"{path[-200:]!r}: {fact} is {mine!r:.200} and {theirs!r:.200}")
    return found[:20]


def assert_same(one: dict[bytes, dict[str, Any]], other: dict[bytes, dict[str, Any]], *ignored: str) -> None:
    """Fail, naming the differences, unless two descriptions are the same."""
    found = differences(one, other, *ignored)
    if found:
        raise AssertionError("the trees differ:\n" + "\n".join(found))


def rsync_differences(one: os.PathLike[str], other: os.PathLike[str], *excluded: str) -> str:
    """Return what rsync would change to make the second tree like the first: a second, independent opinion."""
    command = ["rsync", "-aHAXS", "--numeric-ids", "--checksum", "--delete", "--dry-run", "--itemize-changes"]
    command += [f"--exclude={each}" for each in excluded]
    done = subprocess.run(
        [*command, f"{os.fspath(one)}/", f"{os.fspath(other)}/"], capture_output=True, timeout=120, check=False
    )
    return (done.stdout + done.stderr).decode("utf-8", "replace")
