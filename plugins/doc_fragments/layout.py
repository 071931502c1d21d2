# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options and notes that lvm_layout, zfs_layout and btrfs_layout share; bridge/layout.py is their spec."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  files:
    description:
      - Files that serve as disks, for a lab. One that is missing is made, sparse. Its folder must be there.
      - List its path under the devices as well.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The file, as an absolute path.
        type: path
        required: true
      size:
        description: Its size, such as V(4G), a multiple of 4096 bytes. A file of another size is an error.
        type: str
        required: true
attributes:
  idempotent:
    support: full
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled or queried by the module has not changed in a relevant way.
notes:
  - A disk on which there is a signature (a filesystem, a partition table, a member of LVM, ZFS or an array) is refused,
    unless it is named under C(force). A disk that is in use is refused in any case. All blockers are named at once, and
    with one of them nothing is changed.
  - It makes, extends and corrects. It never removes, shrinks or replaces anything.
  - Should a step fail, those before it stand, and the next run goes on from there.
  - In check mode, programs that are not installed yet are a warning. It shows what would be done on a
    host without them.
"""
