# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who uses a claim, and stopping them for the time of a return in place.

- ``kinds``: how each kind of workload is stopped and brought back; ``records``: what is written on it
- ``pods``: which claims a pod names and keeps; ``using``: from all that is in a namespace to users and blockers
- ``changes``: the one PATCH that stops, or brings back; ``waiting``: until the pods have gone
- ``edge``: does it, through the door
"""

from __future__ import annotations

from .edge import Stopped, Workloads, permissions, pods_of
from .records import run_of
from .using import STOP, Users, Workload

__all__ = ["STOP", "Stopped", "Users", "Workload", "Workloads", "permissions", "pods_of", "run_of"]
