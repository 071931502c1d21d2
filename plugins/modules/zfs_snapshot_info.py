# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What restore points of ZFS filesystems and volumes there are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: zfs_snapshot_info
short_description: Show restore points of ZFS filesystems and volumes
version_added: 0.2.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Lists the snapshots of some datasets, or of all below them, and the contents that returns have set aside.
extends_documentation_fragment:
  - restorepoint.core.attributes.info
  - restorepoint.core.attributes.actiongroup_zfs
  - restorepoint.core.zfs
  - restorepoint.core.snapshot.fields
options:
  name:
    description: Show only snapshots of this name.
    type: str
  owner:
    description: Show only snapshots of this owner, such as V(manual).
    type: str
  properties:
    description:
      - ZFS properties to show of each snapshot, such as V(written), V(compressratio) or V(logicalreferenced). They are
        in RV(snapshots[].extra) under C(properties), with exact numbers.
      - That is a second look at every snapshot.
    type: list
    elements: str
    default: []
  holds:
    description: Name the tags of holds. Without this option RV(snapshots[].held) says how many there are.
    type: bool
    default: false
  asides:
    description: Also show what returns have set aside. That is a look at every dataset of the pool.
    type: bool
    default: true
  tree:
    description:
      - Also return RV(tree).
      - It says of each snapshot once more what RV(snapshots) says. Without it, Ansible needs a quarter less to return
        thousands of them.
    type: bool
    default: true
notes:
  - The whole list is one C(zfs list). It costs what C(zfs list -t snapshot) costs.
  - With O(fields) that say no more than which snapshots there are, OpenZFS 2.2 and newer need not look at each of them.
seealso:
  - module: restorepoint.core.zfs_snapshot
requirements:
  - "python >= 3.9"
  - "OpenZFS >= 2.1 (zfs and zpool)"
"""

EXAMPLES = r"""
- name: List every snapshot of a pool, as `zfs list -t snapshot -o name,used` does
  restorepoint.core.zfs_snapshot_info:
    dataset: tank
    recursive: true
    fields: [target, name, size_bytes]
    tree: false
    asides: false
  register: tank

- name: Name those that would free the most
  ansible.builtin.debug:
    msg: "{{ (tank.snapshots | sort(attribute='size_bytes', reverse=true))[:10] | map(attribute='name') | list }}"

- name: Show how much was written between them, and who holds them
  restorepoint.core.zfs_snapshot_info:
    dataset: tank/services
    properties:
      - written
      - compressratio
    holds: true
"""

RETURN = r"""
snapshots:
  description: The snapshots, oldest first within each dataset.
  returned: success
  type: list
  elements: dict
  contains:
    backend:
      description: The kind of storage.
      type: str
      sample: zfs
    target:
      description: The dataset.
      type: str
      sample: tank/services
    name:
      description: The snapshot's name, which is the part after the C(@).
      type: str
      sample: pre-upgrade
    created:
      description: When it was taken, in UTC.
      type: str
      sample: "2026-11-22T01:30:00Z"
    owner:
      description: Who took it. None where that is not known.
      type: str
      sample: manual
    policy:
      description: The policy that took it, if one did.
      type: str
      sample: nightly
    description:
      description: What it is for.
      type: str
      sample: Before version 2
    labels:
      description: Its labels.
      type: dict
      sample: {"app": "web"}
    size_bytes:
      description: What removing it alone would free (C(used)).
      type: int
      sample: 4500000
    referenced_bytes:
      description: How much its content takes.
      type: int
      sample: 450000000
    parent:
      description: The snapshot it depends on. Snapshots of ZFS depend on none.
      type: str
    ready:
      description: Whether it could be returned to. A snapshot of ZFS always can.
      type: bool
      sample: true
    held:
      description: Why it may not be removed, if so.
      type: str
      sample: tag upgrade
    in_use:
      description: What was cloned from it, if anything was.
      type: str
      sample: cloned as tank/look
    extra:
      description:
        - What only this backend knows. C(createtxg) and C(guid) of the snapshot, its C(holds) and C(clones), and the
          C(properties) that were asked for.
        - Of an aside, its C(dataset), the snapshot that was C(returned_to), and its C(snapshots).
      type: dict
      sample: {"createtxg": 4711, "guid": "13346846293184715113", "clones": ["tank/look"]}
asides:
  description: The contents that returns have set aside, in the same form.
  returned: success
  type: list
  elements: dict
  sample: []
tree:
  description: The snapshots by dataset.
  returned: success, unless O(tree=false)
  type: dict
  sample: {"tank/services": [{"name": "pre-upgrade", "created": "2026-11-22T01:30:00Z", "ready": true, "children": []}]}
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.zfs import run_info


def main() -> None:
    run_info()


if __name__ == "__main__":
    main()
