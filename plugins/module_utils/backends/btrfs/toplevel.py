# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The top level of a Btrfs filesystem, mounted in a hidden place for as long as a run needs it.

A subvolume that is mounted cannot change places with another one at its mount point. Its name lies in the top level of
the filesystem, or below, which is often mounted nowhere. So it is mounted in a folder that only root can enter. Several
runs may need it at once: each holds a shared lock, and the last one to leave unmounts it. A run that is killed leaves
it mounted, for the next one to use and to unmount. Called by the backend.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Sequence

from ... import linux, mounts, process
from ...core.errors import StoreError
from ...lock import HOST_LOCKS
from ..stored.remove import DIRECTORY

_TIMEOUT = 120.0
#: The size of struct btrfs_ioctl_fs_info_args of linux/btrfs.h; the UUID stands after max_id and num_devices.
_FS_INFO, _FSID = 1024, slice(16, 32)
_PREFIX = "btrfs-"


def is_inside(path: str) -> bool:
    """Say whether a path was written down while a top level was mounted."""
    return path.startswith(f"{HOST_LOCKS}/{_PREFIX}")


class TopLevel:
    """The top level of the filesystem that ``inside``, a path, lies on. Making one touches nothing."""

    def __init__(self, inside: str, folder: str = HOST_LOCKS) -> None:
        self._inside = inside
        self._folder = folder
        self._lock = -1
        self.path = ""

    def open(self) -> str:
        """Mount it, unless it is; return where. Raises StoreError or ToolError."""
        if self._lock < 0:
            attempt = f"reach the top level of the filesystem of {self._inside}"
            try:
                self._open(attempt)
            except OSError as error:
                self.close()
                raise StoreError(attempt, f"{error.strerror} ({error.filename})", "mend that and try again") from error
            except BaseException:
                self.close()
                raise
        return self.path

    def _open(self, attempt: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)
        st = os.lstat(self._folder)
        if not stat.S_ISDIR(st.st_mode) or st.st_uid != os.geteuid() or st.st_mode & 0o022:
            remedy = "look who made it, and give it to root with mode 0700"
            raise StoreError(attempt, f"{self._folder} is not a folder that only root can write to", remedy)
        path = os.path.join(self._folder, f"{_PREFIX}{_filesystem_id(self._inside)}")
        self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        # Who mounts it holds the lock alone for that moment: two mounts on one place would hide one another.
        fcntl.flock(self._lock, fcntl.LOCK_EX if not _is_mounted(path) else fcntl.LOCK_SH)
        if not _is_mounted(path):
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._mount(path, attempt)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        self.path = path

    def _mount(self, path: str, attempt: str) -> None:
        if _is_mounted(path):
            return
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        source = mounts.containing(mounts.read_mounts(), self._inside).source
        argv = ["mount", "-t", "btrfs", "-o", "subvolid=5,noatime,nosuid,nodev", "--", source, path]
        process.run(argv, timeout=_TIMEOUT, attempt=attempt)

    def close(self) -> None:
        """Unmount it, unless somebody else needs it. What cannot be unmounted stays for the next run to unmount."""
        if self._lock < 0:
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self.path and _is_mounted(self.path):
                process.run(
                    ["umount", "--", self.path], timeout=_TIMEOUT, attempt=f"unmount {self.path}", ok=range(256)
                )
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
        finally:
            os.close(self._lock)
            self._lock, self.path = -1, ""


def _is_mounted(path: str) -> bool:
    return mounts.is_mount_point(mounts.read_mounts(), path)


def _filesystem_id(path: str) -> str:
    fd = os.open(path, DIRECTORY)
    try:
        answer = fcntl.ioctl(fd, linux.ioctl_read(0x94, 31, _FS_INFO), bytes(_FS_INFO))
    finally:
        os.close(fd)
    return answer[_FSID].hex()


def other_mount_points(table: Sequence[mounts.Mount], device: str, path: str) -> list[str]:
    """Return where a subvolume, given by its path in the filesystem of a device, is mounted itself, sorted."""
    return sorted({each.mount_point for each in table if (each.device, each.root) == (device, path)})
