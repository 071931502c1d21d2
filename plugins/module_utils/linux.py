# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The calls to the Linux kernel that Python 3.9 does not offer. Standard library only; called by backends.

Nothing is loaded before the first call that needs it. Every call raises OSError as the functions of ``os`` do; what an
errno means for a restore point is for the caller to say. Names are str or bytes; a str is encoded as the file system
wants it (os.fsencode), so that names that are no UTF-8 pass through unharmed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
import resource
from typing import Any, Callable, Union

Name = Union[str, bytes]

#: From linux/fcntl.h: a relative name is relative to the working directory.
AT_FDCWD = -100
#: From linux/fs.h.
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

# From the kernel's syscall tables (arch/*/entry/syscalls/*.tbl, asm-generic/unistd.h), by what uname calls the machine.
_SYSCALLS = {
    "x86_64": {"renameat2": 316, "syncfs": 306, "ioprio_set": 251},
    "i686": {"renameat2": 353, "syncfs": 344, "ioprio_set": 289},
    "aarch64": {"renameat2": 276, "syncfs": 267, "ioprio_set": 30},
    "armv7l": {"renameat2": 382, "syncfs": 373, "ioprio_set": 314},
    "ppc64le": {"renameat2": 357, "syncfs": 348, "ioprio_set": 273},
    "s390x": {"renameat2": 347, "syncfs": 338, "ioprio_set": 282},
    "riscv64": {"renameat2": 276, "syncfs": 267, "ioprio_set": 30},
}
# A 32-bit Python on a 64-bit kernel speaks the 32-bit table, though uname names the 64-bit machine.
_NARROW = {"x86_64": "i686", "i386": "i686", "i586": "i686", "aarch64": "armv7l", "armv8l": "armv7l"}

# From linux/ioprio.h: the class stands above bit 13; "process" 0 is the calling thread.
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_IDLE = 3 << 13

# From linux/sched.h and linux/mount.h.
_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18


def renameat2(olddirfd: int, old: Name, newdirfd: int, new: Name, flags: int) -> None:
    """Rename ``old`` (relative to ``olddirfd``) to ``new``, as renameat2(2).

    Raises OSError with both names: EXDEV across mounts (also two mounts of one filesystem), EBUSY for a mount point,
    EINVAL where the filesystem does not know the flag, ENOSYS where the kernel or this machine's table lacks the call.
    """
    source, destination = _c_name(old), _c_name(new)
    if _kernel_call("renameat2")(olddirfd, source, newdirfd, destination, flags) != 0:
        raise _os_error(ctypes.get_errno(), old, new)


def exchange(one: Name, other: Name, *, one_dirfd: int = AT_FDCWD, other_dirfd: int = AT_FDCWD) -> None:
    """Let two names that both exist change places in one step: at no moment is either of them missing."""
    renameat2(one_dirfd, one, other_dirfd, other, RENAME_EXCHANGE)


def rename_noreplace(old: Name, new: Name, *, old_dirfd: int = AT_FDCWD, new_dirfd: int = AT_FDCWD) -> None:
    """Rename, but raise FileExistsError where the new name is taken (rename(2) would replace an empty directory)."""
    renameat2(old_dirfd, old, new_dirfd, new, RENAME_NOREPLACE)


def syncfs(fd: int) -> None:
    """Write everything of the filesystem that holds ``fd`` to its disk, also what other processes wrote there."""
    if _kernel_call("syncfs")(fd) != 0:
        raise _os_error(ctypes.get_errno())


def ficlone(dst_fd: int, src_fd: int) -> None:
    """Let the file ``dst_fd`` share all blocks of ``src_fd``, as ioctl_ficlone(2).

    Raises OSError: EOPNOTSUPP or ENOTTY where the filesystem has no reflinks, EXDEV across filesystems, EINVAL or
    ETXTBSY for files that cannot be cloned.
    """
    fcntl.ioctl(dst_fd, _ficlone_request(os.uname().machine), src_fd)


def set_idle_priority() -> bool:
    """Let this process give way to all others: niceness 19, and disk I/O only when nobody else wants any.

    Returns whether the I/O class was accepted (a container's seccomp profile may forbid it); the niceness always is.
    Both hold for the calling thread and what it starts afterwards, so this belongs before the first thread.
    """
    os.nice(19)
    try:
        result = _kernel_call("ioprio_set")(_IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)
    except OSError:
        return False
    return bool(result == 0)


def unshare_mounts() -> None:
    """Give this process, and what it starts, mounts of its own: they are gone when it ends, however that happens.

    What others mount meanwhile is not seen. Raises OSError: EPERM where this user may not.
    """
    if _kernel_call("unshare")(_CLONE_NEWNS) != 0:
        raise _os_error(ctypes.get_errno())
    if _kernel_call("mount")(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None) != 0:
        raise _os_error(ctypes.get_errno())


def raise_open_file_limit(wanted: int = 65536) -> int:
    """Raise the number of files this process may have open towards ``wanted``, as far as the hard limit lets it.

    Never lowers it. Returns the limit that holds now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    goal = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if goal <= soft:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
    except (OSError, ValueError):
        return soft
    return goal


@functools.cache
def _kernel_call(name: str) -> Callable[..., Any]:
    """Return libc's function of that name, or a call by number where libc has none (glibc before 2.28, musl)."""
    found = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if found is not None:
        function: Callable[..., Any] = found
        return function
    return _call_by_number(_syscall_number(name, os.uname().machine, ctypes.sizeof(ctypes.c_void_p)))


def _call_by_number(number: int) -> Callable[..., Any]:
    """Return a function that makes the system call of that number: -1 and errno on failure, as libc's own."""
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long

    def call(*arguments: int | bytes) -> int:
        # syscall() takes its arguments as longs: an int would leave the upper half of its register undefined.
        longs = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
        return int(syscall(ctypes.c_long(number), *longs))

    return call


def _syscall_number(name: str, machine: str, pointer_bytes: int) -> int:
    """Return the number of a system call on a machine; raise OSError (ENOSYS) for an unknown machine."""
    table = _SYSCALLS.get(_NARROW.get(machine, machine) if pointer_bytes == 4 else machine)
    if table is None:
        raise OSError(errno.ENOSYS, f"{name} is not known for a {machine} machine")
    return table[name]


def ioctl_read(kind: int, number: int, size: int) -> int:
    """Return the request _IOR(kind, number, size) of linux/ioctl.h for this machine."""
    shift = 29 if os.uname().machine.startswith("ppc") else 30
    return 2 << shift | size << 16 | kind << 8 | number


def ioctl_both(kind: int, number: int, size: int) -> int:
    """Return the request _IOWR(kind, number, size) of linux/ioctl.h for this machine."""
    write = 4 << 29 if os.uname().machine.startswith("ppc") else 1 << 30
    return write | ioctl_read(kind, number, size)


def _ficlone_request(machine: str) -> int:
    """Return FICLONE of linux/fs.h, _IOW(0x94, 9, int); PowerPC encodes an ioctl's direction in its own way."""
    return 0x80049409 if machine.startswith("ppc") else 0x40049409


def _c_name(name: Name) -> bytes:
    """Return a name as C wants it. C would cut it at a NUL and then rename another file, so that is refused."""
    encoded = os.fsencode(name)
    if b"\0" in encoded:
        raise ValueError(f"a file name cannot hold a NUL character: {name!r}")
    return encoded


def _os_error(number: int, filename: Name | None = None, other: Name | None = None) -> OSError:
    """Return the error as ``os`` would raise it: with the subclass for its number and the names it is about."""
    return OSError(number, os.strerror(number), filename, None, other)
