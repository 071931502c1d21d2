# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that lvm_snapshot and lvm_snapshot_info share; bridge/lvm.py is their spec."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  command_timeout:
    description:
      - How many seconds each command of LVM may take. One that takes longer is stopped and named, such as one that
        waits for another tool's lock or for a disk that does not answer.
    type: int
    default: 300
"""
