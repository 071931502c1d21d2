# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All methods of the API that the test server has. Standard library only; called by server.py."""

from __future__ import annotations

from . import methods_cluster, methods_guests, methods_tasks
from .calls import Router
from .guests import LXC, QEMU


def router() -> Router:
    """Return the methods of the API."""
    found = Router()
    methods_cluster.add(found)
    methods_tasks.add(found)
    for kind in (QEMU, LXC):
        methods_guests.add(found, kind)
    return found
