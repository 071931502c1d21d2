# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a path is written, so that one place has one name. Called by engine and bridge.

A file of its own: modules of storage without a store carry it along, and not the store.
"""

from __future__ import annotations

import os

from ...core.errors import InvalidInput


def canonical(path: str, what: str) -> str:
    """Return an absolute path without links above its last name. Raises InvalidInput for a relative or strange one."""
    if not path.startswith("/"):
        raise InvalidInput(f"use {path!r} as {what}", "it is relative", "give it from / on")
    if "\0" in path:
        raise InvalidInput(f"use {path!r} as {what}", "it holds a NUL character", "give a path that can exist")
    above, name = os.path.split(path.rstrip("/"))
    if name in ("", ".", ".."):
        return "/" + os.path.realpath(path).lstrip("/")
    # Links are resolved before "..", as the kernel does it. Two slashes at the beginning are one here.
    return os.path.join("/" + os.path.realpath(above or "/").lstrip("/"), name)
