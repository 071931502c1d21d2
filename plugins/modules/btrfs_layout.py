# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Btrfs set up as it is asked for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: btrfs_layout
short_description: Set up Btrfs filesystems, subvolumes and their mounts
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Makes Btrfs filesystems and subvolumes, their lines in C(/etc/fstab), and mounts them.
  - One call reads everything, plans everything, and only then begins. So check mode predicts the whole, even on a host
    where nothing is there yet.
  - The role P(restorepoint.core.btrfs#role) calls it, and sets up what belongs around it.
extends_documentation_fragment:
  - restorepoint.core.attributes.state
  - restorepoint.core.layout
options:
  filesystems:
    description:
      - The filesystems. One is known by its label, on the disks that are named for it.
      - Disks are never added to a filesystem that is there.
    type: list
    elements: dict
    default: []
    suboptions:
      label:
        description: The filesystem's label.
        type: str
        required: true
      devices:
        description: Its disks, as absolute paths of block devices or of O(files).
        type: list
        elements: path
        required: true
      force:
        description: Those of its disks whose content may be lost. It counts when the filesystem is made.
        type: list
        elements: path
        default: []
      data_profile:
        description: How data is spread over the disks. It counts when the filesystem is made.
        type: str
        choices: [single, dup, raid0, raid1, raid1c3, raid1c4, raid10]
      metadata_profile:
        description: How metadata is spread over the disks. It counts when the filesystem is made.
        type: str
        choices: [single, dup, raid0, raid1, raid1c3, raid1c4, raid10]
      mount:
        description:
          - Where the top of the filesystem is mounted, now and at boot. It need not be mounted anywhere.
          - A directory that is missing is made. One that holds something is refused, as that would be hidden.
        type: path
      mount_options:
        description: Options for that mount, with commas between them.
        type: str
        default: defaults
      subvolumes:
        description: Its subvolumes. List parents as well.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: The subvolume, as a path from the top of the filesystem, such as V(@data).
            type: str
            required: true
          mount:
            description: Where it is mounted, now and at boot, if anywhere.
            type: path
          mount_options:
            description: Options for that mount, with commas between them.
            type: str
            default: defaults
seealso:
  - module: restorepoint.core.btrfs_snapshot
  - module: restorepoint.core.lvm_layout
  - module: restorepoint.core.zfs_layout
requirements:
  - "python >= 3.9"
  - btrfs-progs 5.4 or newer
"""

EXAMPLES = r"""
- name: Keep MicroK8s' volumes on a subvolume of their own
  restorepoint.core.btrfs_layout:
    filesystems:
      - label: microk8s
        devices: [/dev/sdb]
        mount: /srv/btrfs
        subvolumes:
          - name: "@default-storage"
            mount: /var/snap/microk8s/common/default-storage
            mount_options: noatime,compress=zstd

- name: A filesystem in a file, for a lab
  restorepoint.core.btrfs_layout:
    files:
      - path: /var/lib/lab.img
        size: 1G
    filesystems:
      - label: lab
        devices: [/var/lib/lab.img]
        mount: /srv/lab
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
      sample: data:@web
    action:
      description: What was done with it.
      type: str
      sample: create subvolume
    before:
      description: How it was.
      type: str
      sample: absent
    after:
      description: How it is.
      type: str
      sample: subvolume
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

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.layout import run_btrfs


def main() -> None:
    run_btrfs()


if __name__ == "__main__":
    main()
