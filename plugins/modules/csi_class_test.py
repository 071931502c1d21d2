# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The proof that a storage class takes snapshots and restores them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: csi_class_test
short_description: Test that a storage class takes and restores CSI snapshots
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Makes a claim, takes its snapshot, restores that into a second claim, compares the two, and removes it all again.
  - It does not need a pod. A class that waits for the first pod is told a node by the annotation
    C(volume.kubernetes.io/selected-node), as a scheduler would.
  - What it compares is that the copy is a volume of its own, of the same driver, and large enough. What lies in the
    volumes is not compared, for nothing is written into them.
extends_documentation_fragment:
  - restorepoint.core.attributes
  - restorepoint.core.kubernetes
attributes:
  check_mode:
    support: full
    details:
      - In check mode it looks for all that forbids the test, and makes nothing. Classes that lack are only warned of,
        as tasks before it may be about to make them.
  diff_mode:
    support: N/A
  idempotent:
    support: full
options:
  storage_class:
    description: The StorageClass.
    type: str
    required: true
  snapshot_class:
    description: The VolumeSnapshotClass. Without it, the default of the class's driver, or the only one.
    type: str
  namespace:
    description: The namespace of the claims and the snapshot. It has to be there.
    type: str
    default: default
  size:
    description: The size of the claims.
    type: str
    default: 1Gi
  node:
    description: The node, for a class that waits for the first pod. Without it, the first that knows the driver.
    type: str
  timeout:
    description: How many seconds to wait, for each step.
    type: int
    default: 300
notes:
  - What it makes is called C(restorepoint-test-) and the class's name, and has the label
    C(restorepoint.core/role=class_test). What a killed run left is removed by the next one. So do not test one class
    twice at the same time in one namespace.
  - Its own volumes and snapshot are removed from the storage even where the classes retain them.
seealso:
  - module: restorepoint.core.csi_layout
  - module: restorepoint.core.csi_snapshot
requirements:
  - "python >= 3.9"
  - "kubernetes >= 24"
"""

EXAMPLES = r"""
- name: See that snapshots of this class can be restored
  restorepoint.core.csi_class_test:
    storage_class: openebs-zfs
"""

RETURN = r"""
driver:
  description: The driver of the class.
  returned: success
  type: str
  sample: zfs.csi.openebs.io
snapshot_class:
  description: The VolumeSnapshotClass.
  returned: success
  type: str
  sample: openebs-zfs
node:
  description: The node that was chosen; empty where the class does not wait for a pod.
  returned: success
  type: str
  sample: node-1
restored_bytes:
  description: The size of the copy; 0 in check mode.
  returned: success
  type: int
  sample: 1073741824
steps:
  description: What was done, in its order; nothing in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    step:
      description: V(claim), V(snapshot), V(restore) or V(removal).
      type: str
      sample: restore
    seconds:
      description: How long it took.
      type: float
      sample: 2.5
blockers:
  description: All facts that forbid the test. Nothing was made.
  returned: when something stands in the way
  type: list
  elements: dict
  contains:
    target:
      description: What cannot be tested.
      type: str
      sample: StorageClass openebs-zfs
    reason:
      description: Why not.
      type: str
      sample: the cluster has no such StorageClass
    remedy:
      description: What to do about it.
      type: str
      sample: make it, or correct the name
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.csi_class_test import run


def main() -> None:
    run()


if __name__ == "__main__":
    main()
