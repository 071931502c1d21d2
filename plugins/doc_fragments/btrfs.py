# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that btrfs_snapshot and btrfs_snapshot_info share; bridge/btrfs.py is their spec."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  store:
    description:
      - The folder for the snapshots, an absolute path on the same filesystem, outside of every target. It is made, with
        mode 0700, when it is missing.
      - It may not lie in the subvolume that is taken, but it may in another one that is mounted below it.
    type: path
    required: true
  lock_timeout:
    description: How many seconds to wait for another run that uses the same store.
    type: int
    default: 60
"""
