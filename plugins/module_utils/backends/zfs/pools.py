# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How full the pools of ZFS are. Touches nothing. Called by the agent for its metrics."""

from __future__ import annotations

from collections.abc import Iterable

from ...core.errors import ToolError
from ...core.metrics import Storage
from ...process import DEFAULT_REMEDY
from .tool import Zfs, parse_table

_COLUMNS = ("name", "size", "allocated")


def fills(zfs: Zfs, datasets: Iterable[str]) -> list[Storage]:
    """Return how full the pools of these datasets are. Raises ToolError."""
    attempt = "see how full the pools are"
    pools = sorted({each.split("/", 1)[0] for each in datasets})
    if not pools:
        return []
    done = zfs.run_program("zpool", "list", "-Hp", "-o", ",".join(_COLUMNS), *pools, attempt=attempt)
    return [_storage(row, attempt) for row in parse_table(done.stdout, _COLUMNS, attempt)]


def _storage(row: list[str], attempt: str) -> Storage:
    name, size, allocated = row
    if not (size.isdecimal() and allocated.isdecimal() and int(size) > 0):
        raise ToolError(attempt, f"`zpool list` says that {name} has {allocated} of {size} bytes", DEFAULT_REMEDY)
    return Storage("zfs", name, "data", int(allocated) / int(size), int(size))
