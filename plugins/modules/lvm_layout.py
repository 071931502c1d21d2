# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""LVM set up as it is asked for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lvm_layout
short_description: Set up volume groups, thin pools and volumes with their filesystems
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Makes volume groups, thin pools and volumes, their filesystems, their lines in C(/etc/fstab), and mounts them.
  - One call reads everything, plans everything, and only then begins. So check mode predicts the whole, even on a host
    where nothing is there yet.
  - The role P(restorepoint.core.lvm#role) calls it, and sets up what belongs around it.
extends_documentation_fragment:
  - restorepoint.core.attributes.state
  - restorepoint.core.layout
options:
  volume_groups:
    description: The volume groups. Disks that are listed and not yet in the group are added to it.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The group's name.
        type: str
        required: true
      devices:
        description: Its disks, as absolute paths of block devices or of O(files).
        type: list
        elements: path
        required: true
      force:
        description: Those of its disks whose content may be lost. It counts for a disk that is not in the group yet.
        type: list
        elements: path
        default: []
      extent_size:
        description: The size of its extents, a power of two. It counts when the group is made.
        type: str
        default: 4M
  thin_pools:
    description: The thin pools.
    type: list
    elements: dict
    default: []
    suboptions:
      volume_group:
        description: The group that it lies in.
        type: str
        required: true
      name:
        description: The pool's name.
        type: str
        required: true
      size:
        description:
          - Its size, such as V(20G), V(50%VG) or V(80%FREE). A pool that is smaller is extended. One that is larger
            stays, since pools are extended by themselves when they fill up.
          - Percentages count when the pool is made, and not later.
          - Leave room in the group, for a copy of the metadata and for the pool to grow.
        type: str
        required: true
      metadata_size:
        description: The size of its metadata. LVM chooses when this is not set. It counts when the pool is made.
        type: str
      chunk_size:
        description: The size of its chunks. LVM chooses when this is not set. It counts when the pool is made.
        type: str
      profile:
        description: The metadata profile, a file in C(/etc/lvm/profile), that says when the pool is extended.
        type: str
  volumes:
    description: The volumes, thin ones too.
    type: list
    elements: dict
    default: []
    suboptions:
      volume_group:
        description: The group that it lies in.
        type: str
        required: true
      name:
        description: The volume's name.
        type: str
        required: true
      size:
        description:
          - Its size, such as V(20G), V(50%VG) or V(80%FREE), for a thin volume always a number of bytes. A volume that
            is smaller is extended together with its filesystem (ext4 and XFS), one that is larger is an error.
          - Percentages count when the volume is made, and not later.
          - Leave room in the group for snapshots.
        type: str
        required: true
      thin_pool:
        description: The thin pool that a thin volume lies in.
        type: str
      filesystem:
        description: The filesystem, made where nothing is on the volume. Another one that is there is an error.
        type: str
        choices: [ext4, xfs, btrfs]
      filesystem_options:
        description: Arguments for the program that makes the filesystem.
        type: list
        elements: str
        default: []
      mount:
        description:
          - Where it is mounted, now and at boot. In C(/etc/fstab) it is called C(/dev/vg/lv), since its UUID stands
            twice after a return to a thin snapshot.
          - A directory that is missing is made. One that holds something is refused, as that would be hidden.
        type: path
      mount_options:
        description: Options for the mount, with commas between them.
        type: str
        default: defaults
seealso:
  - module: restorepoint.core.lvm_snapshot
  - module: restorepoint.core.zfs_layout
  - module: restorepoint.core.btrfs_layout
requirements:
  - "python >= 3.9"
  - LVM 2.03 or newer
"""

EXAMPLES = r"""
- name: Keep MicroK8s' volumes on a volume of their own
  restorepoint.core.lvm_layout:
    volume_groups:
      - name: microk8s-vg
        devices: [/dev/sdb]
    volumes:
      - volume_group: microk8s-vg
        name: microk8s-data
        size: 20G
        filesystem: ext4
        mount: /var/snap/microk8s/common/default-storage

- name: The same in a thin pool, on a disk whose content may be lost
  restorepoint.core.lvm_layout:
    volume_groups:
      - name: fast
        devices: [/dev/sdc]
        force: [/dev/sdc]
    thin_pools:
      - volume_group: fast
        name: pool
        size: 80%VG
    volumes:
      - volume_group: fast
        name: data
        thin_pool: pool
        size: 100G
        filesystem: xfs
        mount: /srv/data
        mount_options: noatime
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
      sample: data/web
    action:
      description: What was done with it.
      type: str
      sample: create volume
    before:
      description: How it was.
      type: str
      sample: absent
    after:
      description: How it is.
      type: str
      sample: volume of 20.0 GiB
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

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.layout import run_lvm


def main() -> None:
    run_lvm()


if __name__ == "__main__":
    main()
