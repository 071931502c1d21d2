# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What this process has open, for tests that nothing is left behind.

By what it is, and not by how much: connections of servers that earlier tests of this process had close at any time.
"""

from __future__ import annotations

import contextlib
import os


def opened() -> set[str]:
    """Return the files, pipes and sockets that are open, as the kernel names them."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the folder itself, or what another thread closes
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return found
