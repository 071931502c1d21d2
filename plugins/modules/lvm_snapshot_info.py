# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What restore points of logical volumes there are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lvm_snapshot_info
short_description: Show restore points of LVM volumes, and how full they are
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Lists the snapshots of logical volumes, of some or of all, and the contents that returns have set aside.
  - Shows how full thick snapshots and thin pools are, and whether LVM extends them by itself.
extends_documentation_fragment:
  - restorepoint.core.attributes.info
  - restorepoint.core.attributes.actiongroup_lvm
  - restorepoint.core.lvm
  - restorepoint.core.snapshot.fields
options:
  volume:
    description:
      - The logical volumes, each as C(vg/lv). Paths such as C(/dev/vg/lv) and C(/dev/mapper/vg-lv) are understood.
      - Without this, all volumes of the host are shown that are no snapshots themselves.
    type: list
    elements: str
  name:
    description: Show only snapshots of this name.
    type: str
  used_by:
    description: Name who uses each volume. It means looking at every process.
    type: bool
    default: false
notes:
  - Needs root.
  - Snapshots that others have taken are shown with an owner of None, under the names of their LVs.
seealso:
  - module: restorepoint.core.lvm_snapshot
requirements:
  - "python >= 3.9"
  - "lvm2 >= 2.03"
"""

EXAMPLES = r"""
- name: Show the restore points of two volumes
  restorepoint.core.lvm_snapshot_info:
    volume:
      - vg0/root
      - vg0/var
  register: points

- name: Fail when a snapshot has overflowed, or soon will
  ansible.builtin.assert:
    that:
      - item.ready
      - item.extra.type == 'thin' or item.extra.fill_percent < 80
  loop: "{{ points.snapshots }}"
  loop_control:
    label: "{{ item.target }} {{ item.name }}"

- name: Show every volume of the host and who uses it
  restorepoint.core.lvm_snapshot_info:
    used_by: true
"""

RETURN = r"""
snapshots:
  description: The snapshots, oldest first within each target.
  returned: success
  type: list
  elements: dict
  contains:
    backend:
      description: The kind of storage.
      type: str
      sample: lvm
    target:
      description: The volume, as C(vg/lv).
      type: str
      sample: vg0/data
    name:
      description: The snapshot's name.
      type: str
      sample: pre-upgrade
    created:
      description: When it was taken, in UTC.
      type: str
      sample: "2026-11-22T01:30:00Z"
    owner:
      description: Who took it. None where somebody else did.
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
      description: What removing a thick one gives back to its group. Not known of thin ones, which share their blocks.
      type: int
      sample: 4500000
    referenced_bytes:
      description: The size of the volume for a thick one, what it uses of its pool for a thin one that is active.
      type: int
      sample: 450000000
    parent:
      description: The snapshot it depends on. Snapshots of LVM depend on none.
      type: str
    ready:
      description: Whether it could be returned to. RV(snapshots[].extra) says under C(fault) why not.
      type: bool
      sample: true
    held:
      description: Why it may not be removed, if so.
      type: str
    in_use:
      description: Who uses it, if anybody does.
      type: str
    extra:
      description: What only this backend knows.
      type: dict
      sample: {"type": "thick", "lv": "data.pre-upgrade", "fill_percent": 12.5, "merging": false, "invalid": false}
asides:
  description: The contents that returns have set aside, in the same form.
  returned: success
  type: list
  elements: dict
  sample: []
tree:
  description: The snapshots by target.
  returned: success
  type: dict
  sample: {"vg0/data": [{"name": "pre-upgrade", "created": "2026-11-22T01:30:00Z", "ready": true, "children": []}]}
volumes:
  description: The volumes.
  returned: success
  type: list
  elements: dict
  contains:
    target:
      description: The volume, as C(vg/lv).
      type: str
      sample: vg0/data
    type:
      description: Whether it is V(thick) or V(thin).
      type: str
      sample: thin
    segment_type:
      description: What LVM calls its kind.
      type: str
      sample: thin
    device:
      description: Its device.
      type: str
      sample: /dev/vg0/data
    size_bytes:
      description: How large it is.
      type: int
      sample: 10737418240
    used_bytes:
      description: How much the filesystem on it uses. Known where it is mounted.
      type: int
      sample: 2147483648
    active:
      description: Whether it is active.
      type: bool
      sample: true
    open:
      description: Whether somebody has it open.
      type: bool
      sample: true
    mounted_at:
      description: Where it is mounted.
      type: list
      elements: str
      sample: [/srv/data]
    pool:
      description: The thin pool that it lies in.
      type: str
      sample: pool
    fill_percent:
      description: How much of a thin volume has room in its pool.
      type: float
      sample: 21.5
    health:
      description: What is wrong with it, in LVM's words.
      type: str
      sample: partial
    merge:
      description:
        - The merge into it, if there is one. Its state is V(merging), V(deferred) until an activation, or V(done).
      type: dict
      sample: {"name": "pre-upgrade", "state": "deferred", "percent_left": 12.5}
    used_by:
      description: Who uses it. With O(used_by=true).
      type: list
      elements: str
      sample: ["it is mounted at /srv/data", "pid 4711 (postgres) has base/1 open and 12 other files"]
pools:
  description: The thin pools of their groups.
  returned: success
  type: list
  elements: dict
  sample:
    - pool: vg0/pool
      size_bytes: 10737418240
      data_percent: 21.5
      metadata_percent: 11.3
      health: null
      when_full: queue
      monitored: true
      profile: null
      autoextend_threshold: 70
      autoextend_percent: 20
      autoextends: true
groups:
  description: Their volume groups.
  returned: success
  type: list
  elements: dict
  sample: [{"group": "vg0", "free_bytes": 4294967296, "extent_bytes": 4194304, "missing_disks": 0, "exported": false}]
autoextend:
  description: What C(lvm.conf) says of when LVM extends snapshots and pools by itself. A threshold of 100 means never.
  returned: success
  type: dict
  sample:
    snapshot_autoextend_threshold: 70
    snapshot_autoextend_percent: 20
    thin_pool_autoextend_threshold: 70
    thin_pool_autoextend_percent: 20
    monitoring: 1
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.lvm import run_info


def main() -> None:
    run_info()


if __name__ == "__main__":
    main()
