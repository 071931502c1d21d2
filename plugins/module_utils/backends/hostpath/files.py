# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies one file of any kind, with all that belongs to it, and says what could not be kept.

As ``cp -a`` does: owner, mode, ACLs, extended attributes, capabilities, holes, times to the nanosecond. Names are
always relative to an open directory and links are never followed, so nothing that is swapped in during a copy leads
outside. Standard library, the doors and core only; called by tree.py and compare.py.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from dataclasses import dataclass, field
from typing import Any, Callable

from ... import linux
from .manifest import escape

#: Files up to this size are read at once; cloning pays only above CLONE_FROM (a reflink costs as much as a small copy).
SMALL = 1 << 20
CLONE_FROM = 64 << 10
_CHUNK = 1 << 20
_RANGE = 64 << 20
#: How often a file that changes while it is read is read before it is called inconsistent.
ATTEMPTS = 3
#: Kernels before 6.13 stamp files with a clock that ticks every 4 to 10 ms: a second change within one tick leaves the
#: same ctime. A file whose last change is not older than this is read again by the next run.
TICK_NS = 20_000_000
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_CLONES = (errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTTY, errno.ENOSYS, errno.EPERM)
_NO_RANGES = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EBADF)
_REFUSED = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSPC, errno.E2BIG, errno.ENOSYS)
_EXAMPLES = 20
#: Stands in the manifest for a device that could not be made. No link's target looks like it: tabs are escaped there.
NOT_KEPT = "\\-"


class Replaced(Exception):
    """What was a regular file a moment ago is none any more."""


@dataclass
class Losses:
    """What privileges or the filesystem did not let us keep: how often, and the first paths as examples."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, path: str) -> None:
        """Count one loss of ``kind``: ownership, mode, xattrs, times, devices, or hardlinks."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        shown = self.examples.setdefault(kind, [])
        if len(shown) < _EXAMPLES:
            shown.append(path)

    def as_result(self) -> dict[str, Any]:
        """Return ``{kind: {count, examples}}``."""
        return {kind: {"count": count, "examples": self.examples[kind]} for kind, count in self.counts.items()}


class Limiter:
    """Keeps a stream of bytes below a rate, by sleeping. ``rate`` is in bytes a second."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._due = clock()

    def spend(self, count: int) -> None:
        """Account for ``count`` bytes, and sleep while they are ahead of the rate."""
        now = self._clock()
        self._due = max(self._due, now - 0.1) + count / self._rate
        if self._due > now:
            time.sleep(self._due - now)


@dataclass
class Copied:
    """One copied file.

    ``st`` is the state of the source that the copy holds, ``consistent`` says whether it held still meanwhile, and
    ``settled`` whether a later change of it is sure to show. ``target`` is what the manifest says in that field.
    ``made`` is the state of the copy, where it was asked for.
    """

    st: os.stat_result
    xattrs: dict[str, bytes]
    checksum: str = "-"
    target: str = "-"
    settled: bool = True
    consistent: bool = True
    written: int = 0
    made: os.stat_result | None = None


class FileCopier:
    """Copies single files into directories of our own. One for each run; it remembers what the filesystems can do.

    Args:
        default_owner: (uid, gid) that a new file gets by itself where copies are made.
        limiter: slows copying down, if given.
        checksum: compute the SHA-256 of what is copied.
    """

    def __init__(self, default_owner: tuple[int, int], limiter: Limiter | None = None, checksum: bool = False) -> None:
        self.losses = Losses()
        #: Says which file is being worked on, for what is counted as lost; the walk sets it.
        self.where: Callable[[], str] = lambda: "?"
        self.cloned = 0
        self._default_owner = default_owner
        self._limiter = limiter
        self._checksum = checksum
        self._may_clone = not checksum
        self._may_range = not checksum
        self._plain = limiter is None and not checksum
        self._noatime = os.O_NOATIME

    def open_source(self, directory: int, name: str) -> int:
        """Open a regular file for reading, without touching its atime where we may. Raises Replaced for other kinds."""
        try:
            return os.open(name, _READ | self._noatime, dir_fd=directory)
        except PermissionError:
            # O_NOATIME is for a file's owner and root only.
            return os.open(name, _READ, dir_fd=directory)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise Replaced from error
            raise

    def small(
        self, source: int, dest: int, name: str, st: os.stat_result, live: bool
    ) -> tuple[dict[str, bytes], os.stat_result] | None:
        """Copy a small file the straight way; return its extended attributes and the state of the copy.

        Returns None, with nothing made, where anything about the file is out of the ordinary: then `regular` copies it.
        Most files of most trees are small, so this way has no call and no check too many. The state of the copy of a
        ``live`` file is of no interest, and is the source's.
        """
        size = st.st_size
        if size > SMALL or st.st_blocks * 512 < size or not self._plain:
            return None
        fd = self.open_source(source, name)
        try:
            # One byte more than there should be: a file that grew meanwhile shows.
            data = os.pread(fd, size + 1, 0)
            xattrs = read_xattrs(fd)
            if live:
                after = os.fstat(fd)
                if after.st_ctime_ns != st.st_ctime_ns or after.st_ino != st.st_ino or after.st_dev != st.st_dev:
                    return None
            if len(data) != size:
                return None
        except OSError as error:
            if error.errno in (errno.ESPIPE, errno.EINVAL, errno.EISDIR):
                raise Replaced from error
            raise
        finally:
            os.close(fd)
        out = os.open(name, _WRITE, st.st_mode & 0o777, dir_fd=dest)
        try:
            if os.write(out, data) != size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._dress(out, st, xattrs)
            return xattrs, st if live else os.fstat(out)
        finally:
            os.close(out)

    def regular(self, source: int, dest: int, name: str, st: os.stat_result, live: bool) -> Copied:
        """Copy the regular file ``name``.

        ``st`` is how it was found in the directory ``source``. A ``live`` source may change meanwhile: then the file is
        read again, and what never held still is marked. Raises Replaced if it is no regular file any more.
        """
        fd = self.open_source(source, name)
        try:
            if live:
                before = os.fstat(fd)
                if not stat.S_ISREG(before.st_mode):
                    raise Replaced
                st = before
            return self._copy_open(fd, dest, name, st, live)
        finally:
            os.close(fd)

    def _copy_open(self, fd: int, dest: int, name: str, st: os.stat_result, live: bool) -> Copied:
        for attempt in range(1, ATTEMPTS + 1):
            if live:
                st = _rested(fd, st)
            started = time.time_ns()
            out = os.open(name, _WRITE, st.st_mode & 0o777, dir_fd=dest)
            try:
                checksum, written = self._content(fd, out, st)
                xattrs = read_xattrs(fd)
                after = os.fstat(fd) if live else st
                same = (after.st_ctime_ns, after.st_mtime_ns, after.st_size) == (
                    st.st_ctime_ns, st.st_mtime_ns, st.st_size,
                )  # fmt: skip
                is_hot = live and started - TICK_NS <= st.st_ctime_ns <= started
                held_still = same and written >= 0 and not is_hot
                if held_still or attempt == ATTEMPTS:
                    if not held_still:
                        # As its line in the manifest will say: cut where it grew, filled with zeros where it shrank.
                        os.ftruncate(out, st.st_size)
                        checksum = "-"
                    self._dress(out, st, xattrs)
                    settled = held_still and st.st_ctime_ns < started - TICK_NS
                    made = None if live else os.fstat(out)
                    return Copied(st, xattrs, checksum, "-", settled, held_still, abs(written), made)
            finally:
                os.close(out)
            os.unlink(name, dir_fd=dest)
            st = after
        raise AssertionError("unreachable")

    def _content(self, fd: int, out: int, st: os.stat_result) -> tuple[str, int]:
        """Copy the bytes; return their checksum (or ``-``) and their number, negative where the file came up short."""
        size = st.st_size
        if size <= SMALL and st.st_blocks * 512 >= size:
            # One byte more than there should be: a file that grew meanwhile shows.
            data = os.pread(fd, size + 1, 0)
            if self._limiter is not None:
                self._limiter.spend(len(data))
            if os.write(out, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            digest = hashlib.sha256(data).hexdigest() if self._checksum else "-"
            return digest, len(data) if len(data) == size else -len(data)
        if size >= CLONE_FROM and self._may_clone and self._clone(fd, out):
            return "-", 0
        return self._extents(fd, out, size)

    def _clone(self, fd: int, out: int) -> bool:
        try:
            linux.ficlone(out, fd)
        except OSError as error:
            if error.errno in _NO_CLONES:
                self._may_clone = False
            elif error.errno not in (errno.EINVAL, errno.ETXTBSY):
                raise
            return False
        self.cloned += 1
        return True

    def _extents(self, fd: int, out: int, size: int) -> tuple[str, int]:
        """Copy a large or sparse file extent by extent, leaving its holes out."""
        digest = hashlib.sha256() if self._checksum else None
        done = hashed = 0
        start = _next_data(fd, 0)
        while start is not None and start < size:
            end = min(_next_hole(fd, start), size)
            if digest is not None:
                _hash_zeros(digest, start - hashed)
                hashed = end
            copied = self._extent(fd, out, start, end, digest)
            done += copied
            if copied < end - start:
                return "-", -done
            start = _next_data(fd, end)
        os.ftruncate(out, size)
        if digest is not None:
            _hash_zeros(digest, size - hashed)
        return digest.hexdigest() if digest is not None else "-", done

    def _extent(self, fd: int, out: int, start: int, end: int, digest: Any) -> int:
        """Copy the bytes from ``start`` to ``end``; return how many there were."""
        at = start
        while at < end:
            count = self._range(fd, out, at, end - at) if digest is None and self._may_range else -1
            if count < 0:
                data = os.pread(fd, min(_CHUNK, end - at), at)
                count = len(data)
                _write_all(out, data, at)
                if digest is not None:
                    digest.update(data)
            if count == 0:
                break
            if self._limiter is not None:
                self._limiter.spend(count)
            at += count
        return at - start

    def _range(self, fd: int, out: int, at: int, count: int) -> int:
        """Copy inside the kernel; return -1 where these filesystems cannot."""
        most = _RANGE if self._limiter is None else _CHUNK
        try:
            return os.copy_file_range(fd, out, min(count, most), at, at)
        except (OSError, AttributeError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_RANGES:
                raise
            self._may_range = False
            return -1

    def _dress(self, out: int, st: os.stat_result, xattrs: dict[str, bytes]) -> None:
        """Give a copy its owner, mode, extended attributes and times, in the order in which none undoes another."""
        mode = wanted = stat.S_IMODE(st.st_mode)
        if (st.st_uid, st.st_gid) != self._default_owner:
            mode = -1
            wanted = self._own(out, st, wanted)
        if xattrs:
            if not wanted & 0o200:
                # Only who may write a file may set its user.* attributes; root may anyway.
                mode = wanted | 0o200
                os.fchmod(out, mode)
            self.set_xattrs(out, xattrs)
        if mode != wanted or wanted & 0o7000:
            os.fchmod(out, wanted)
        os.utime(out, ns=(st.st_atime_ns, st.st_mtime_ns))

    def _own(self, out: int, st: os.stat_result, mode: int) -> int:
        """Set the owner; return the mode that may then be set: without it, no set-user-ID of somebody else."""
        try:
            os.fchown(out, st.st_uid, st.st_gid)
        except PermissionError:
            self.losses.add("ownership", self.where())
            mode &= ~0o6000
            with contextlib.suppress(PermissionError):
                os.fchown(out, -1, st.st_gid)
        return mode

    def set_xattrs(self, where: int | str, xattrs: dict[str, bytes]) -> None:
        """Set extended attributes on an open file or a path, counting those that are refused."""
        follow = isinstance(where, int)
        for attribute, value in xattrs.items():
            try:
                os.setxattr(where, attribute, value, follow_symlinks=follow)
            except OSError as error:
                if error.errno not in _REFUSED or (error.errno == errno.ENOSPC and _is_full(where)):
                    raise
                self.losses.add("xattrs", f"{self.where()} ({attribute})")

    def directory(self, out: int, st: os.stat_result, xattrs: dict[str, bytes]) -> None:
        """Give a copied directory its owner, mode, extended attributes and times, once all in it is there."""
        mode = stat.S_IMODE(st.st_mode)
        if (st.st_uid, st.st_gid) != self._default_owner:
            mode = self._own(out, st, mode)
        self.set_xattrs(out, xattrs)
        os.fchmod(out, mode)
        os.utime(out, ns=(st.st_atime_ns, st.st_mtime_ns))

    def special(self, source: int, dest: int, name: str, st: os.stat_result) -> Copied:
        """Copy a symbolic link, fifo, socket or device.

        Where privileges do not let us make one, that is counted, and its ``target`` says ``NOT_KEPT``.
        """
        kind = stat.S_IFMT(st.st_mode)
        target = "-"
        try:
            if kind == stat.S_IFLNK:
                link = os.readlink(name, dir_fd=source)
                os.symlink(link, name, dir_fd=dest)
                target = escape(link)
            else:
                if kind in (stat.S_IFCHR, stat.S_IFBLK):
                    target = f"{os.major(st.st_rdev)}:{os.minor(st.st_rdev)}"
                os.mknod(name, st.st_mode, st.st_rdev, dir_fd=dest)
        except PermissionError:
            self.losses.add("devices", self.where())
            return Copied(st, {}, target=NOT_KEPT)
        except OSError as error:
            if error.errno == errno.EINVAL and kind == stat.S_IFLNK:
                raise Replaced from error
            raise
        xattrs = read_xattrs(_beside(source, name))
        self._dress_special(dest, name, st, xattrs)
        made = os.stat(name, dir_fd=dest, follow_symlinks=False)
        return Copied(st, xattrs, target=target, made=made)

    def _dress_special(self, dest: int, name: str, st: os.stat_result, xattrs: dict[str, bytes]) -> None:
        if (st.st_uid, st.st_gid) != self._default_owner:
            try:
                os.chown(name, st.st_uid, st.st_gid, dir_fd=dest, follow_symlinks=False)
            except PermissionError:
                self.losses.add("ownership", self.where())
        if not stat.S_ISLNK(st.st_mode):
            # The name is new and in a directory of our own: there is no link to follow.
            os.chmod(name, stat.S_IMODE(st.st_mode), dir_fd=dest)
        if xattrs:
            self.set_xattrs(_beside(dest, name), xattrs)
        os.utime(name, ns=(st.st_atime_ns, st.st_mtime_ns), dir_fd=dest, follow_symlinks=False)


def _is_full(where: int | str) -> bool:
    """Say whether ENOSPC means that: ext4 says so too where attributes are larger than its block."""
    room = os.statvfs(where)
    return room.f_bavail < 16 or (room.f_files > 0 and room.f_favail == 0)


def _beside(directory: int, name: str) -> str:
    """Return a path for the calls on extended attributes, which take no directory descriptor."""
    return f"/proc/self/fd/{directory}/{name}"


def read_xattrs(where: int | str) -> dict[str, bytes]:
    """Return the extended attributes of an open file, or of a path without following it."""
    follow = isinstance(where, int)
    try:
        names = os.listxattr(where, follow_symlinks=follow)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOENT, errno.EPERM, errno.EACCES):
            return {}
        raise
    found = {}
    for name in names:
        if name.startswith("trusted.SGI_ACL_"):
            continue  # as these XFS shows root the ACLs a second time
        try:
            found[name] = os.getxattr(where, name, follow_symlinks=follow)
        except OSError as error:
            # ENODATA: removed since it was listed; the rest: listed, but not for us (trusted.*, security.*).
            if error.errno not in (errno.ENODATA, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP):
                raise
    return found


def _next_data(fd: int, start: int) -> int | None:
    """Return where data begins at or after ``start``, or None where only a hole is left."""
    try:
        return os.lseek(fd, start, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise


def _next_hole(fd: int, start: int) -> int:
    """Return where the data that begins at ``start`` ends."""
    try:
        return os.lseek(fd, start, os.SEEK_HOLE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return start + 1  # the file was cut short meanwhile: reading there will show it
        raise


def _rested(fd: int, st: os.stat_result) -> os.stat_result:
    """Wait until the last change of a file is older than a tick; return its state then.

    The kernel stamps a file when a write begins. Who reads it within that write gets a mixture of old and new bytes,
    and finds the same times before and after.
    """
    left = st.st_ctime_ns + TICK_NS - time.time_ns()
    if not 0 <= left <= TICK_NS:
        return st
    time.sleep(left / 1e9 + 0.001)
    return os.fstat(fd)


def _hash_zeros(digest: Any, count: int) -> None:
    zeros = bytes(min(count, _CHUNK))
    while count > 0:
        digest.update(zeros[:count])
        count -= len(zeros)


def _write_all(out: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(out, view, at)
        view, at = view[count:], at + count


def checksum_of(fd: int) -> str:
    """Return the SHA-256 of an open file's content."""
    digest = hashlib.sha256()
    at = 0
    while True:
        data = os.pread(fd, _CHUNK, at)
        if not data:
            return digest.hexdigest()
        digest.update(data)
        at += len(data)
