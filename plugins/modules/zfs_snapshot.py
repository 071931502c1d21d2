# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore points of ZFS filesystems and volumes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: zfs_snapshot
short_description: Restore points of ZFS filesystems and volumes
version_added: 0.2.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Takes snapshots of ZFS datasets, returns datasets to them, clones them and thins them out.
  - All snapshots that a call takes in one pool are of one instant, however many datasets there are.
  - Nothing is destroyed that was not named. C(-r) and C(-R) are never given to C(zfs destroy) or C(zfs rollback).
extends_documentation_fragment:
  - restorepoint.core.attributes.state
  - restorepoint.core.attributes.actiongroup_zfs
  - restorepoint.core.zfs
  - restorepoint.core.snapshot
  - restorepoint.core.snapshot.keep
  - restorepoint.core.snapshot.asides
attributes:
  idempotent:
    support: full
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled or queried by the module has not changed in a relevant way.
    details:
      - A dataset is returned only if something was written since the snapshot. C(written@NAME) tells, and with C(atime)
        on even reading a file writes.
options:
  state:
    description:
      - V(present), every dataset has a snapshot of this name.
      - V(absent), no dataset has one. Also removes what a return has set aside, by its name.
      - V(rolled_back), the content of every dataset is that of its snapshot.
      - V(cloned), there is a writable copy of the snapshot called O(clone).
      - V(pruned), the rules of O(keep) and O(asides) hold.
      - Before anything is changed, all datasets of a call are checked. What stands in the way of one stops all.
    type: str
    choices: [present, absent, rolled_back, cloned, pruned]
    default: present
  hold:
    description:
      - With O(state=present), the snapshots are held by this tag.
      - With O(state=absent), a hold of this tag is released on the way. Other holds stand in the way.
    type: str
  bookmark:
    description:
      - With O(state=present), there is a bookmark of this name of each snapshot. It is the part after the C(#).
    type: str
  clone:
    description: The names of the clones, one for each dataset, in their order.
    type: list
    elements: str
  mountpoint:
    description: Where the clones are mounted, one path for each, in their order. Inherited when this is not set.
    type: list
    elements: str
    default: []
  properties:
    description: ZFS properties that the clones get.
    type: dict
    default: {}
  destroy_newer:
    description:
      - With O(state=rolled_back), let the snapshots and bookmarks go that are newer than the one returned to.
      - Those that are held or cloned never go. They stand in the way, and are named.
    type: bool
    default: false
  keep_current:
    description:
      - With O(state=rolled_back), keep the present content, and all that is newer than the snapshot, as the dataset
        C({dataset}.aside-{UTC time}).
      - The filesystem is unmounted for a moment, so nobody may use it.
      - M(restorepoint.core.zfs_snapshot_info) lists it, O(state=absent) removes it, and O(state=rolled_back) returns to
        it, by its name such as V(aside-20261122t013000z).
    type: bool
    default: false
  once:
    description:
      - A token, such as a job id or a date. A dataset is returned at most once for each token, so a job that is started
        again by accident does not throw away what came after.
    type: str
  ignore_users:
    description:
      - With O(state=rolled_back), go on although processes use the filesystem, or the volume is open.
      - They may get I/O errors, or write old data over what was returned. With O(keep_current=true) this option does
        not help.
    type: bool
    default: false
  lock_timeout:
    description: How many seconds to wait for another run that changes ZFS on this host.
    type: int
    default: 60
notes:
  - A pool at a time is of one instant. With datasets of several pools RV(spread_seconds) says how far apart they are.
  - Destroying and rolling back cannot be taken back. Where one of several datasets fails there, RV(results) says what
    stands, and the next run does the rest.
  - With O(keep_current=false), a return needs the snapshot to be the newest one.
seealso:
  - module: restorepoint.core.zfs_snapshot_info
  - module: restorepoint.core.zfs_layout
  - plugin: restorepoint.core.retention
    plugin_type: filter
requirements:
  - "python >= 3.9"
  - "OpenZFS >= 2.1 (zfs and zpool)"
"""

EXAMPLES = r"""
- name: Take a restore point of a tree of datasets before an upgrade
  restorepoint.core.zfs_snapshot:
    dataset: tank/services
    recursive: true
    name: pre-upgrade
    description: Before version 2
    hold: upgrade
    max_age: 1h

- name: Return all of it, and keep what is there now
  restorepoint.core.zfs_snapshot:
    dataset: tank/services
    recursive: true
    name: pre-upgrade
    state: rolled_back
    keep_current: true

- name: Return a volume, at most once for this job
  restorepoint.core.zfs_snapshot:
    dataset: tank/vm/disk0
    name: pre-upgrade
    state: rolled_back
    destroy_newer: true
    once: "{{ awx_job_id | default('by hand') }}"

- name: Take every dataset of two pools, every night
  restorepoint.core.zfs_snapshot:
    dataset:
      - tank
      - backup
    recursive: true
    name: "{{ lookup('restorepoint.core.snapshot_name', 'nightly') }}"
    owner: nightly

- name: Keep a week of days and a month of weeks
  restorepoint.core.zfs_snapshot:
    dataset:
      - tank
      - backup
    recursive: true
    owner: nightly
    state: pruned
    keep:
      daily: 7
      weekly: 4
    timezone: Europe/Paris
    asides:
      last: 1

- name: Look at a copy of last night
  restorepoint.core.zfs_snapshot:
    dataset: tank/services/web
    name: pre-upgrade
    state: cloned
    clone: tank/look
    mountpoint: /mnt/look
    properties:
      readonly: true

- name: Remove it, with its hold
  restorepoint.core.zfs_snapshot:
    dataset: tank/services
    recursive: true
    name: pre-upgrade
    state: absent
    hold: upgrade
"""

RETURN = r"""
name:
  description: The name that was asked for.
  returned: always
  type: str
  sample: pre-upgrade
state:
  description: The state that was asked for.
  returned: always
  type: str
  sample: present
results:
  description: What was done on each dataset, or why nothing was.
  returned: always
  type: list
  elements: dict
  contains:
    target:
      description: The dataset.
      type: str
      sample: tank/services
    name:
      description: The snapshot. None where the result is about the dataset as a whole.
      type: str
      sample: pre-upgrade
    action:
      description:
        - What was done. One of V(created), V(replaced), V(described), V(removed), V(rolled_back), V(cloned),
          V(unchanged), V(failed), V(undone) and V(none).
      type: str
      sample: created
    changed:
      description: Whether that changed anything.
      type: bool
      sample: true
    reason:
      description: Why it was done, or why not.
      type: str
      sample: there is no snapshot 'pre-upgrade'
    seconds:
      description: How long it took, together with the others that were changed by the same commands.
      type: float
      sample: 0.31
    snapshot:
      description: The snapshot, as M(restorepoint.core.zfs_snapshot_info) shows it.
      type: dict
      sample: {"name": "pre-upgrade", "created": "2026-11-22T01:30:00Z", "ready": true}
    instant:
      description: When it was taken, in seconds since the epoch. Those of one pool have the same.
      type: float
      sample: 1795311000.25
    frees_together_bytes:
      description:
        - How many bytes are freed by all that this call removes of the dataset, as C(zfs destroy -vp) tells. In check
          mode too. Each result of the dataset has the same number.
        - For an aside, what it uses.
      type: int
      sample: 4500000
    removes_snapshots:
      description: The snapshots that go together with an aside.
      type: list
      elements: str
      sample: [hourly-20261122t013000z]
    aside:
      description: What the content that was there is called now.
      type: dict
      sample: {"name": "aside-20261122t013000z", "dataset": "tank/services.aside-20261122t013000z"}
    clone:
      description: The name of the clone.
      type: str
      sample: tank/look
spread_seconds:
  description: How far apart the snapshots of this call lie. 0 within one pool.
  returned: when more than one was taken
  type: float
  sample: 0.0
decisions:
  description: What the keep rules say of each snapshot, and why.
  returned: O(state=pruned)
  type: list
  elements: dict
  sample: [{"target": "tank/services", "name": "nightly-20261121t013000z", "keep": true, "reason": "daily 2/7"}]
audit:
  description: One record for each change that was made or failed.
  returned: always
  type: list
  elements: dict
  sample:
    - when: "2026-11-22T01:30:00Z"
      who: root (sudo by alice)
      backend: zfs
      target: tank/services
      change: create
      name: pre-upgrade
      outcome: done
diff:
  description:
    - The two ends of what was done, by dataset. What a return sets aside is not in it.
  returned: success, in diff mode
  type: dict
  contains:
    before:
      description: The snapshots of each dataset that changes, with their descriptions and labels.
      type: dict
      sample: {"tank/services": {"snapshots": {}}}
    after:
      description: The same afterwards.
      type: dict
      sample: {"tank/services": {"snapshots": {"pre-upgrade": {"description": "Before version 2", "labels": {}}}}}
blockers:
  description: Every fact that forbids what was asked, on every dataset. Nothing was changed.
  returned: when there is any
  type: list
  elements: dict
  sample:
    - target: tank/services
      reason: pid 4711 (nginx) has access.log open
      remedy: "stop it, or set ignore_users: true"
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.zfs import run_state


def main() -> None:
    run_state()


if __name__ == "__main__":
    main()
