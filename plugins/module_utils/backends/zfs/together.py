# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots of many datasets destroyed by one command, where that can be done. Called by backend.

`zfs destroy` takes the snapshots of one dataset at a time, and a process for each of a thousand is nearly all that
pruning them costs. A channel program (zfs-program(8), OpenZFS 0.8) does it in one transaction group. Only root may
run one. It is a short cut and decides nothing: whatever it does not say to have destroyed is left to `zfs destroy`,
which says why.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

from ... import process
from ...core.errors import ToolError
from ...lock import held
from .names import pool_of
from .tool import Zfs

#: From so many datasets on it is worth it, and so many fit into one program: its memory and instructions are limited.
LEAST, MOST = 20, 1000
#: What a snapshot alone uses is what goes with it, where no other of the same dataset goes at the same time.
_SCRIPT = """
results = {}
for _, name in ipairs((...)["argv"]) do
    if zfs.exists(name) then
        used = zfs.get_prop(name, "used")
        if zfs.sync.destroy(name) == 0 then
            results[name] = used
        end
    end
end
return results
"""


def destroy_together(zfs: Zfs, wanted: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Destroy the one snapshot each of many datasets; return the datasets for which that was done, and the bytes freed.

    ``wanted`` has the names of snapshots for each dataset. Those with several are left out, and all where it cannot be
    done this way: there is no error that says so.
    """
    single = {f"{target}@{names[0]}": target for target, names in wanted.items() if len(names) == 1}
    if len(single) < LEAST or os.geteuid() != 0:
        return {}
    pools: dict[str, list[str]] = {}
    for full, target in single.items():
        pools.setdefault(pool_of(target), []).append(full)
    done: dict[str, int] = {}
    for pool, names in pools.items():
        for first in range(0, len(names), MOST):
            done.update(_destroyed(zfs, pool, names[first : first + MOST]))
    return {single[full]: freed for full, freed in done.items() if full in single}


def _destroyed(zfs: Zfs, pool: str, names: Sequence[str]) -> dict[str, int]:
    try:
        answer = process.run(
            ["zfs", "program", "-j", pool, "-", *names],
            timeout=zfs.timeout,
            attempt=f"destroy {len(names)} snapshots of pool {pool}",
            input=_SCRIPT,
            keep=held(),
        ).stdout
        told = json.loads(answer)["return"]
        return {str(full): int(used) for full, used in told.items()}
    except (ToolError, AttributeError, KeyError, TypeError, ValueError):
        return {}
