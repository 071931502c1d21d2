# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How large a thick snapshot is to be, and whether there is room. Pure.

A thick snapshot holds the chunks of its origin that were overwritten since. Its disk layout (the kernel's
dm-exception-store, "persistent"): a chunk of header, then metadata areas of one chunk that describe, in 16 bytes each,
as many chunks of data as fit. Larger than for every chunk of the origin it need not be: LVM cuts it down to that,
silently, and such a snapshot can never overflow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...core.errors import InvalidInput
from ...core.units import parse_size

ORIGIN, FREE, USED, BYTES = "ORIGIN", "FREE", "USED", "BYTES"
_PERCENTAGE = re.compile(r"(\d+(?:\.\d+)?)\s*%\s*(ORIGIN|FREE|USED)", re.IGNORECASE)
#: The chunk of a thick snapshot unless another is asked for (lvcreate(8), --chunksize).
CHUNK = 4096
_EXCEPTION = 16
#: What a snapshot gets that nobody gave a size: room for the filesystem to be rewritten twice, but not less than this.
DEFAULT_USED, DEFAULT_FLOOR = 200.0, 10.0


@dataclass(frozen=True)
class Size:
    """A size as it was asked for: ``amount`` bytes, or percent of what ``of`` says."""

    of: str
    amount: float


def parse(text: str) -> Size:
    """Return a size such as ``2G``, ``20%ORIGIN``, ``80%FREE`` or ``150%USED``. Raises InvalidInput."""
    found = _PERCENTAGE.fullmatch(text.strip())
    if found:
        size = Size(found.group(2).upper(), float(found.group(1)))
    elif "%" in text:
        remedy = "write it as 20%ORIGIN, 80%FREE or 150%USED"
        raise InvalidInput(f"read size: {text}", "it does not say of what it is a percentage", remedy)
    else:
        size = Size(BYTES, parse_size(text, "size"))
    if size.amount <= 0:
        raise InvalidInput(f"read size: {text}", "a snapshot without room is lost at the first write", "give it room")
    if size.of == FREE and size.amount > 100:
        raise InvalidInput(f"read size: {text}", "there is no more than 100%FREE", "give less, or a part of ORIGIN")
    return size


def largest(origin_bytes: int, chunk: int = CHUNK) -> int:
    """Return how many bytes hold every chunk of an origin, with what describes them."""
    chunks = -(-origin_bytes // chunk)
    return (2 + chunks + -(-chunks // (chunk // _EXCEPTION))) * chunk


def extents(
    size: Size | None, origin_bytes: int, extent: int, free_extents: int, sharing: int, used_bytes: int | None
) -> int:
    """Return how many extents a snapshot gets, at least one and never more than are of use.

    Args:
        size: what was asked for; None for the default.
        origin_bytes: the size of the volume.
        extent: bytes in an extent.
        free_extents: how many are free in the group, of which ``sharing`` snapshots of one call share a %FREE.
        used_bytes: what the filesystem on the volume uses, None where it is not mounted; then %USED must not be asked.
    """
    full = -(-largest(origin_bytes) // extent)
    if size is None:
        if used_bytes is None:
            return full
        wanted = max(used_bytes * DEFAULT_USED / 100, origin_bytes * DEFAULT_FLOOR / 100)
    elif size.of == BYTES:
        wanted = size.amount
    elif size.of == ORIGIN:
        wanted = largest(origin_bytes) * size.amount / 100
    elif size.of == FREE:
        return max(1, min(full, int(free_extents * size.amount / 100) // max(1, sharing)))
    else:
        wanted = (used_bytes or 0) * size.amount / 100
    return max(1, min(full, -(-int(wanted) // extent)))
