# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The moment at which a call has to have ended, shared by all that waits in it. Standard library only."""

from __future__ import annotations

import time
from typing import Callable


class Deadline:
    """A moment after which nothing is waited for. ``seconds`` is how far off it is now, by a clock that never jumps."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """Return the seconds that are left, 0 when there are none."""
        return max(0.0, self._end - self._clock())

    def part(self, seconds: float) -> Deadline:
        """Return a moment so many seconds from now, by the same clock; it may be later than this one."""
        return Deadline(seconds, self._clock)

    def postpone(self, seconds: float) -> None:
        """Put it off by so many seconds."""
        self._end += seconds

    def leave(self, seconds: float) -> None:
        """Let there be at least so many seconds left."""
        self._end = max(self._end, self._clock() + seconds)
