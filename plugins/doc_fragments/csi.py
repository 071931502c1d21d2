# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that the modules of CSI snapshots share, documented once; bridge/csi.py is their spec."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  namespace:
    description: The namespace of the claims.
    type: str
    required: true
  pvc:
    description: The claims (PersistentVolumeClaims), by name.
    type: list
    elements: str
  selector:
    description:
      - A label selector for claims, such as V(app=shop), instead of O(pvc).
      - It is read when the module runs. Claims count in the order of their names.
    type: str
requirements:
  - kubernetes >= 24 (Python package), for logins other than by a token or a client certificate
"""
