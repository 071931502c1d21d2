# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that zfs_snapshot and zfs_snapshot_info share; bridge/zfs.py is their spec."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  dataset:
    description:
      - The filesystems and volumes, each by its name, such as V(tank/services). One that is named twice is one.
      - One that is not there is an error in every state. A name that was mistyped must not pass for a snapshot that is
        absent.
    type: list
    elements: str
    required: true
  recursive:
    description:
      - Also mean all filesystems and volumes below those that are named. Each is a target with a result of its own.
      - What a return has set aside is left out.
    type: bool
    default: false
  timeout:
    description: How many seconds one command of ZFS may take. One that takes longer is stopped.
    type: int
    default: 600
"""
