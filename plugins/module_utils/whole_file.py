# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Puts a file in the place of another: whoever reads it sees the old one, or the new one whole. Standard library."""

from __future__ import annotations

import contextlib
import os


def put(path: str, content: bytes, mode: int, meanwhile: str) -> None:
    """Have ``path`` hold ``content``, on the disk when it returns.

    ``meanwhile`` is the name in the same folder under which it is written. What a writer that was killed has left
    there goes: two writers at once need different ones, or a lock. Raises OSError, and then nothing has changed.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(meanwhile)
        fd = os.open(meanwhile, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as stream:
            stream.write(content)
            os.fchmod(fd, mode)
            stream.flush()
            os.fsync(fd)
        os.replace(meanwhile, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(meanwhile)
        raise
