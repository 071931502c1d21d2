# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ZFS set up as it is asked for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: zfs_layout
short_description: Set up ZFS pools, datasets and their properties
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Makes pools and datasets, sets properties where they differ, and mounts what should be mounted.
  - One call reads everything, plans everything, and only then begins. So check mode predicts the whole, even on a host
    where nothing is there yet.
  - The role P(restorepoint.core.zfs#role) calls it, and sets up what belongs around it.
extends_documentation_fragment:
  - restorepoint.core.attributes.state
  - restorepoint.core.layout
options:
  pools:
    description: The pools. Disks are never added to a pool that is there, since that changes it for ever.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The pool's name.
        type: str
        required: true
      vdevs:
        description: The groups of disks that it is made of.
        type: list
        elements: dict
        required: true
        suboptions:
          type:
            description: The kind of the group. V(stripe) is one without redundancy.
            type: str
            choices: [stripe, mirror, raidz, raidz1, raidz2, raidz3, log, cache, special, spare]
            default: stripe
          devices:
            description: Its disks, as absolute paths of block devices or of O(files). Files need no loop device.
            type: list
            elements: path
            required: true
      force:
        description: Those of its disks whose content may be lost. It counts when the pool is made.
        type: list
        elements: path
        default: []
      properties:
        description: Properties of the pool itself, such as C(ashift) or C(autotrim).
        type: dict
        default: {}
  datasets:
    description:
      - The filesystems and volumes. List parents as well, and under the pool's own name its top dataset.
      - One whose mount point holds something is refused, as that would be hidden.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The dataset, such as V(tank/data).
        type: str
        required: true
      size:
        description: Makes it a volume, of this size. One that is smaller is extended, one that is larger is an error.
        type: str
      sparse:
        description: Make a volume without reserving its space. It counts when the volume is made.
        type: bool
        default: false
      properties:
        description:
          - Its properties, those of users too, such as C(com.sun:auto-snapshot). They are set where their values
            differ, inherited or not.
          - V(true) and V(false) mean V(on) and V(off), except in properties of users.
          - Some, such as C(encryption), count only when the dataset is made. Where they differ, that is an error.
        type: dict
        default: {}
seealso:
  - module: restorepoint.core.zfs_snapshot
  - module: restorepoint.core.lvm_layout
  - module: restorepoint.core.btrfs_layout
requirements:
  - "python >= 3.9"
  - OpenZFS 2.0 or newer
"""

EXAMPLES = r"""
- name: Keep MicroK8s' volumes on a dataset of their own
  restorepoint.core.zfs_layout:
    pools:
      - name: tank
        vdevs:
          - type: mirror
            devices: [/dev/disk/by-id/ata-one, /dev/disk/by-id/ata-two]
        properties: {ashift: 12, autotrim: true}
    datasets:
      - name: tank
        properties: {mountpoint: none, compression: lz4, atime: false}
      - name: tank/microk8s
        properties:
          mountpoint: /var/snap/microk8s/common/default-storage
          com.sun:auto-snapshot: true

- name: Add a volume for a guest
  restorepoint.core.zfs_layout:
    datasets:
      - name: tank/guest
        size: 32G
        sparse: true
        properties: {volblocksize: 16K}
"""

RETURN = r"""
changes:
  description: What was done, or in check mode would be, in its order.
  returned: always
  type: list
  elements: dict
  contains:
    target:
      description: What was changed.
      type: str
      sample: tank/data
    action:
      description: What was done with it.
      type: str
      sample: create dataset
    before:
      description: How it was.
      type: str
      sample: absent
    after:
      description: How it is.
      type: str
      sample: filesystem with compression=lz4
blockers:
  description: All facts that forbid what was asked. Nothing was changed.
  returned: when something stands in the way
  type: list
  elements: dict
  contains:
    target:
      description: What cannot be as it was asked for.
      type: str
      sample: /dev/sdb
    reason:
      description: Why not.
      type: str
      sample: "there is something on it: ext4 'backup'"
    remedy:
      description: What to do about it.
      type: str
      sample: choose another disk for the volume group data, or name it under force
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.layout import run_zfs


def main() -> None:
    run_zfs()


if __name__ == "__main__":
    main()
