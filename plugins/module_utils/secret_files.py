# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that hold a password: only their owner may read them. Standard library and core only.

Called by whatever hands such a file to a program, or reads one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection

from .core.errors import InvalidInput

_MOST = 64 * 1024


def check(path: str, attempt: str, owners: Collection[int] = ()) -> None:
    """Raise InvalidInput unless a file is there that only root, this user or ``owners`` (uids) can read and write."""
    os.close(_opened(path, attempt, owners))


def read(path: str, attempt: str) -> str:
    """Return what such a file holds. Raises InvalidInput, which never tells the content."""
    fd = _opened(path, attempt, ())
    try:
        return os.read(fd, _MOST).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(attempt, f"{path} cannot be read as text", "look at that file") from error
    finally:
        os.close(fd)


def _opened(path: str, attempt: str, owners: Collection[int]) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidInput(attempt, f"{path}: {error.strerror}", "make that file, with mode 0600") from error
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        reason = "is no regular file"
    elif found.st_uid not in {0, os.geteuid(), *owners}:
        reason = "belongs to another user"
    elif found.st_mode & 0o077:
        reason = f"has mode {stat.S_IMODE(found.st_mode):04o}, and others than its owner can read or write it"
    else:
        return fd
    os.close(fd)
    raise InvalidInput(attempt, f"{path} {reason}", f"run `chmod 0600 {path}`, and see that its owner is the agent's")
