# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How full the thin pools are in which targets lie, data and metadata. Touches nothing. Called by the agent.

A thick snapshot has its fill in its own ``extra``: it is lost when it overflows, whatever the group has left.
"""

from __future__ import annotations

from ...core.metrics import Storage
from .backend import LvmBackend


def fills(backend: LvmBackend) -> list[Storage]:
    """Return how full the thin pools of the backend's targets are. Raises RestorePointError."""
    pools = {(volume.vg, volume.pool) for volume in map(backend.volume, backend.targets) if volume.pool}
    found = []
    for volume in backend.report.volumes:
        if (volume.vg, volume.name) in pools:
            parts = (("data", volume.data_percent, volume.size), ("metadata", volume.metadata_percent, 0))
            for part, percent, size in parts:
                if percent is not None:
                    found.append(Storage("lvm", volume.path, part, percent / 100, size))
    return found
