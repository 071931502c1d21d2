# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a caller can ask of this backend beside the desired state. No I/O."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Callable

from ..stored.backend import StoredOptions

#: What becomes of subvolumes that are in a target, but not in the snapshot that it is returned to.
MOVE, ASIDE = "move", "aside"


@dataclass(frozen=True)
class BtrfsOptions(StoredOptions):
    """Options of a call.

    ``recursive`` takes, returns and clones the subvolumes inside a target with it. ``nested`` is MOVE or ASIDE.
    ``clock`` gives the time in seconds with its fractions, for how far apart snapshots lie.
    """

    recursive: bool = False
    nested: str = MOVE
    clock: Callable[[], float] = time.time
