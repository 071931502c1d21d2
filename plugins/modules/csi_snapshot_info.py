# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What restore points of Kubernetes claims there are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: csi_snapshot_info
short_description: Show restore points of Kubernetes claims on CSI volumes
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Lists the VolumeSnapshots of some claims, or of a whole namespace, flat and as a tree, and the old volumes that
    returns have kept aside.
extends_documentation_fragment:
  - restorepoint.core.attributes.info
  - restorepoint.core.attributes.actiongroup_csi
  - restorepoint.core.csi
  - restorepoint.core.kubernetes
  - restorepoint.core.snapshot.fields
options:
  name:
    description: Show only snapshots of this name. The trees stay whole.
    type: str
  contents:
    description:
      - Show driver, handle and deletion policy of each snapshot too, under RV(snapshots[].extra). It needs permission
        to list VolumeSnapshotContents.
    type: bool
    default: false
notes:
  - Without O(pvc) and O(selector), all claims of the namespace are shown, and those that are gone and have snapshots.
seealso:
  - module: restorepoint.core.csi_snapshot
"""

EXAMPLES = r"""
- name: Show every snapshot of a namespace
  restorepoint.core.csi_snapshot_info:
    namespace: shop
  register: shop

- name: Say what there is to return to
  ansible.builtin.debug:
    msg: "{{ shop.snapshots | map(attribute='name') | unique | sort }}"

- name: Which snapshot of the storage is behind it
  restorepoint.core.csi_snapshot_info:
    namespace: shop
    pvc: [db]
    name: pre-upgrade
    contents: true
"""

RETURN = r"""
claims:
  description: The claims that matched.
  returned: success
  type: list
  elements: dict
  contains:
    target:
      description: The claim, with its namespace, as snapshots name it.
      type: str
      sample: shop/db
    namespace:
      description: Its namespace.
      type: str
      sample: shop
    pvc:
      description: Its name.
      type: str
      sample: db
    phase:
      description: Its phase, or V(absent) for one that is gone and has snapshots.
      type: str
      sample: Bound
    storage_class:
      description: Its storage class.
      type: str
      sample: csi-hostpath
    volume:
      description: Its volume.
      type: str
      sample: pvc-2a9b8a57-9d6a-4c06-9bd1-6a7a4dd1bb8c
    capacity_bytes:
      description: Its size.
      type: int
      sample: 1073741824
snapshots:
  description: The snapshots, those of a claim from the oldest to the newest.
  returned: success
  type: list
  elements: dict
  contains:
    backend:
      description: Always V(csi).
      type: str
      sample: csi
    target:
      description: The claim.
      type: str
      sample: shop/db
    name:
      description: The name of the snapshot. The object's name where something else has made it.
      type: str
      sample: pre-upgrade
    created:
      description: When it was taken.
      type: str
      sample: "2026-11-22T01:30:00Z"
    owner:
      description: Who took it. None where something else did.
      type: str
      sample: manual
    policy:
      description: The policy that took it.
      type: str
      sample: null
    description:
      description: What somebody wrote about it.
      type: str
      sample: Before the upgrade to 4.2
    labels:
      description: Its labels.
      type: dict
      sample: {"ticket": "4711"}
    size_bytes:
      description: What removing it would free. Kubernetes does not tell.
      type: int
      sample: null
    referenced_bytes:
      description: The least size of a volume that is made from it.
      type: int
      sample: 1073741824
    parent:
      description: Always none. Kubernetes does not tell.
      type: str
      sample: null
    ready:
      description: Whether it can be used.
      type: bool
      sample: true
    held:
      description: Why it must not be removed. Always none.
      type: str
      sample: null
    in_use:
      description: Which claim is being made from it.
      type: str
      sample: null
    extra:
      description:
        - The object's name C(object) and C(uid), its C(class), C(content), C(group), C(restore_size) and
          C(object_labels), and with O(contents=true) also C(driver), C(handle) and C(deletion_policy). Where it cannot
          be used, C(fault) says why.
      type: dict
      sample: {"object": "db-pre-upgrade", "class": "csi-hostpath", "group": null, "restore_size": 1073741824}
asides:
  description: The old volumes that returns have kept, in the same form.
  returned: success
  type: list
  elements: dict
  sample: [{"target": "shop/db", "name": "aside-20261122t013000z", "ready": true}]
tree:
  description: Name, time and readiness of the snapshots of each claim, and what is based on each.
  returned: success
  type: dict
  sample: {"shop/db": [{"name": "pre-upgrade", "created": "2026-11-22T01:30:00Z", "ready": true, "children": []}]}
api_calls:
  description: How many requests were sent to the Kubernetes API.
  returned: success
  type: int
  sample: 3
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.csi import run_info


def main() -> None:
    run_info()


if __name__ == "__main__":
    main()
