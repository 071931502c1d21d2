# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a caller can ask of this backend beside the desired state. No I/O."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

from .sizes import Size

REFUSE, DEFER = "refuse", "defer"


@dataclass(frozen=True)
class LvmTarget:
    """A logical volume to be snapshotted."""

    vg: str
    lv: str

    def __str__(self) -> str:
        return f"{self.vg}/{self.lv}"


@dataclass(frozen=True)
class LvmOptions:
    """Options of a call. Times are in seconds, limits in percent.

    ``now`` gives the time since the epoch. ``data_limit`` and ``metadata_limit`` are how full a thin pool may be for
    something new to be made in it.
    """

    now: Callable[[], int]
    size: Size | None = None
    data_limit: int = 90
    metadata_limit: int = 80
    when_busy: str = REFUSE
    unmount: bool = False
    wait: bool = True
    wait_timeout: float = 3600.0
    lock_timeout: float = 60.0
    command_timeout: float = 300.0
    progress: Callable[[str, Mapping[str, Any]], None] | None = None
    sleep: Callable[[float], None] = field(default=time.sleep)
    clock: Callable[[], float] = field(default=time.monotonic)
    instant: Callable[[], float] = field(default=time.time)
