# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lock between runs, which the kernel lets go of when its holder dies. Standard library and core; called by backends.

It is flock(2) on a file that stays where it is: deleting a lock file lets two runs hold "the" lock, each on a file of
its own. A program that a run has started may outlive it, and goes on changing what the lock is for: it gets the open
file along (`held`, and ``keep`` of process.run), so the lock lasts until both have ended. What the file says (one line
of JSON: pid, host, command, purpose, since) only serves the message for those who wait in vain; whether the lock is
held, the kernel alone decides.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import sys
import time
from types import TracebackType
from typing import Any

from .core.errors import LockTimeout, StoreError
from .core.snapshot import timestamp

#: Where locks lie of storage that has no folder of its own. On tmpfs, and only root can make anything in /run.
HOST_LOCKS = "/run/restorepoint"
_BUSY = (errno.EWOULDBLOCK, errno.EACCES)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
#: How often the file may turn out to have been replaced while it was waited for.
_ATTEMPTS = 10
_FIRST_SLEEP, _LONGEST_SLEEP = 0.02, 0.5
#: Each note is padded to this length and written in one call, so that a shorter one leaves nothing of a longer one.
_NOTE_BYTES = 1024


#: The open files of the locks that this process holds, with their paths.
_HELD: dict[int, str] = {}


def held(name: str | None = None) -> tuple[int, ...]:
    """Return the open files of the locks that this process holds, or of the host lock of that name alone.

    They are for ``keep`` of process.run, for programs that change what the locks are for. Never for one that may leave
    a daemon behind that keeps what it was given: the daemon would hold the lock for good.
    """
    return tuple(fd for fd, path in _HELD.items() if name is None or os.path.basename(path) == f"{name}.lock")


class FileLock:
    """Hold a lock file for the length of a ``with`` block.

    Args:
        path: the lock file; made (mode 0600) where it is missing, never followed where it is a symlink, never deleted.
        timeout_seconds: how long to wait for other holders; 0 tries once.
        purpose: what the lock is wanted for, as a verb phrase: it begins the message of a failure, and tells others.
        shared: hold it together with other shared holders (readers), but not with an exclusive one.

    Entering raises LockTimeout, which names the holder, or StoreError where the file cannot serve as a lock. A process
    that is forked (not executed) inside the block holds the lock as well, until it ends; so does a program that gets
    it with `held`.
    """

    def __init__(self, path: str, timeout_seconds: float, purpose: str, *, shared: bool = False) -> None:
        self.path = path
        self.timeout_seconds = timeout_seconds
        self.purpose = purpose
        self.shared = shared
        self._fd: int | None = None

    def __enter__(self) -> FileLock:
        deadline = time.monotonic() + self.timeout_seconds
        try:
            for _unused in range(_ATTEMPTS):
                fd = self._open()
                if fd is None:
                    return self
                self._fd = self._acquire(fd, deadline)
                if self._fd is not None:
                    _HELD[self._fd] = self.path
                    return self
            raise OSError(errno.ESTALE, "something replaces it again and again")
        except OSError as error:
            raise StoreError(
                self.purpose,
                f"the lock file {self.path} cannot be used: {error.strerror}",
                "make it a plain file that this user may write, on a filesystem that has locks",
            ) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._fd is not None:
            del _HELD[self._fd]
            os.close(self._fd)
            self._fd = None

    def _open(self) -> int | None:
        """Return the open lock file, or None where a reader needs no lock: nobody can write where it cannot be made."""
        flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | flags, 0o600)
        except OSError as error:
            if not self.shared or error.errno not in _READ_ONLY:
                raise
            try:
                fd = os.open(self.path, os.O_RDONLY | flags)
            except FileNotFoundError:
                if error.errno != errno.EROFS:
                    raise error from None
                return None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "it is no plain file")
        return fd

    def _acquire(self, fd: int, deadline: float) -> int | None:
        """Return ``fd``, locked, or None when the file was replaced meanwhile. Closes it in every other case."""
        locked = False
        try:
            self._wait(fd, deadline)
            locked = self._is_in_place(fd)
        finally:
            if not locked:
                os.close(fd)
        if not locked:
            return None
        # On a full disk the note is missing, not the lock.
        with contextlib.suppress(OSError):
            os.pwrite(fd, self._note(), 0)
            os.lseek(fd, 0, os.SEEK_END)  # a program that has it as its stdin reads nothing
        return fd

    def _wait(self, fd: int, deadline: float) -> None:
        operation = (fcntl.LOCK_SH if self.shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
        pause = _FIRST_SLEEP
        while True:
            try:
                fcntl.flock(fd, operation)
                return
            except OSError as error:
                if error.errno not in _BUSY:
                    raise
            left = deadline - time.monotonic()
            if left <= 0:
                raise LockTimeout(
                    self.purpose,
                    f"{_describe(fd)} holds the lock {self.path}",
                    "try again when that run has ended, or wait longer with lock_timeout",
                )
            time.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_SLEEP)

    def _is_in_place(self, fd: int) -> bool:
        """Say whether the file that is locked is still the one that others will find under its name."""
        ours = os.fstat(fd)
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)

    def _note(self) -> bytes:
        """Return who we are, as the line in the file. Arguments of the command are left out: they may hold secrets."""
        note = {
            "pid": os.getpid(),
            "host": os.uname().nodename[:128],
            "command": os.path.basename(sys.argv[0])[:64] or "python",
            "purpose": self.purpose[:64],
            "since": timestamp(int(time.time())),
        }
        return json.dumps(note).encode("ascii").ljust(_NOTE_BYTES - 1) + b"\n"


def host_lock(name: str, timeout_seconds: float, purpose: str, folder: str = HOST_LOCKS) -> FileLock:
    """Return the lock between all runs on this host that change one kind of storage, such as ``lvm``.

    Makes the folder of these locks where it is missing. Raises StoreError where that is not a folder of this user
    alone: who could put other files there could let two runs hold "the" lock.
    """
    remedy = f"run as root, or make {folder} a directory of this user with mode 0700"
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        found = os.lstat(folder)
    except OSError as error:
        raise StoreError(purpose, f"{folder} cannot be made: {error.strerror}", remedy) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise StoreError(purpose, f"{folder} is not a directory that only this user can write to", remedy)
    return FileLock(os.path.join(folder, f"{name}.lock"), timeout_seconds, purpose)


def _describe(fd: int) -> str:
    """Return who holds the lock according to the note in its file, in words.

    The note can be missing, or left by somebody who is gone (of several readers only the last one's remains): then it
    says so instead of blaming a process that has nothing to do with it.
    """
    try:
        note: Any = json.loads(os.pread(fd, _NOTE_BYTES, 0))
        pid, host = int(note["pid"]), _printable(note["host"])
        command, purpose, since = (_printable(note[key]) for key in ("command", "purpose", "since"))
    except (OSError, ValueError, TypeError, KeyError):
        return "a process that left no note"
    if host == os.uname().nodename and not _is_alive(pid):
        return f"a process that left no note, perhaps a program that pid {pid} ({command}) started before it ended,"
    return f"pid {pid} ({command}) on {host}, since {since}, to {purpose},"


def _printable(value: Any) -> str:
    return "".join(character if character.isprintable() else "?" for character in str(value))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
