# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a caller can ask of this backend beside the desired state. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Callable


@dataclass(frozen=True)
class ZfsOptions:
    """Options of a call. ``timeout`` (of one command) and ``lock_timeout`` are in seconds.

    ``now`` gives the time, in seconds since the epoch. ``mountpoint`` and ``properties`` are of clones; ``hold`` is the
    tag of a hold on the snapshot, ``bookmark`` the name of a bookmark of it.
    """

    now: Callable[[], float]
    recursive: bool = False
    hold: str | None = None
    bookmark: str | None = None
    mountpoint: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    ignore_users: bool = False
    timeout: float = 600.0
    lock_timeout: float = 60.0
    progress: Callable[..., None] | None = None
