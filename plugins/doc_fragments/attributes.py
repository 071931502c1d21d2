# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What modules of this collection can do under check mode, diff and a second run, documented once."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
  diff_mode:
    description:
      - Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled or queried by the module has not changed in a relevant way.
"""

    STATE = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
    details:
      - Predicts exactly what a normal run would do, with the same results.
  diff_mode:
    support: full
    description:
      - Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
"""

    INFO = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
    details:
      - This module does not modify anything.
  diff_mode:
    support: N/A
    description:
      - Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
  idempotent:
    support: full
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled or queried by the module has not changed in a relevant way.
"""

    ACTIONGROUP_HOSTPATH = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/restorepoint.core.hostpath) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - restorepoint.core.hostpath
"""

    ACTIONGROUP_BTRFS = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/restorepoint.core.btrfs) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - restorepoint.core.btrfs
"""

    ACTIONGROUP_CSI = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/restorepoint.core.csi) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - restorepoint.core.csi
"""

    ACTIONGROUP_PVE = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/restorepoint.core.pve) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - restorepoint.core.pve
"""

    ACTIONGROUP_LVM = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/restorepoint.core.lvm) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - restorepoint.core.lvm
"""

    ACTIONGROUP_ZFS = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/restorepoint.core.zfs) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - restorepoint.core.zfs
"""
