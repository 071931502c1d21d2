# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore points of Btrfs subvolumes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: btrfs_snapshot
short_description: Restore points of Btrfs subvolumes
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Takes read-only snapshots of subvolumes into a store, returns subvolumes to them, clones them and thins them out.
  - Subvolumes inside others are named as left out, or taken, returned and cloned with them.
  - A subvolume that is mounted, also as the root of the system, is returned by its name. The result says whether a
    reboot or a new mount is required.
extends_documentation_fragment:
  - restorepoint.core.attributes.state
  - restorepoint.core.attributes.actiongroup_btrfs
  - restorepoint.core.btrfs
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
      - A subvolume is returned only if it differs from the snapshot. That it does not is proven by the transactions
        that Btrfs counts, or else file by file.
options:
  subvolume:
    description:
      - The subvolumes, each an absolute path. A symbolic link is refused. Links above the subvolume are resolved.
    type: list
    elements: path
    required: true
  state:
    description:
      - V(present), every target has a usable snapshot of this name.
      - V(absent), no target has one, and its removal is on disk. Also removes what a return has set aside, by its name.
      - V(rolled_back), the content of every target is that of its snapshot.
      - V(cloned), there is a writable copy of the snapshot at O(clone).
      - V(pruned), the rules of O(keep) and O(asides) hold.
      - Either all targets of a call reach the state or none is changed.
    type: str
    choices: [present, absent, rolled_back, cloned, pruned]
    default: present
  recursive:
    description:
      - With O(state=present), also take the subvolumes inside a target, at any depth. Each is a snapshot of its own, at
        an instant of its own. All of them are one restore point.
      - With O(state=rolled_back) and O(state=cloned), also return, or clone, those that the snapshot holds.
    type: bool
    default: false
  nested:
    description:
      - With O(state=rolled_back), what becomes of subvolumes inside the target that are not returned with it.
      - V(move), they are moved into the same place of the returned content, as they are.
      - V(aside), they stay with the content that is set aside.
    type: str
    choices: [move, aside]
    default: move
  clone:
    description: Where the clones go, one path for each target, in their order. Nothing may be there yet.
    type: list
    elements: path
  keep_current:
    description:
      - With O(state=rolled_back), keep the content that was there under the name C({target}.aside-{UTC time}).
      - M(restorepoint.core.btrfs_snapshot_info) lists it, O(state=absent) removes it, and O(state=rolled_back) returns
        to it, by its name such as V(aside-20261122t013000z).
    type: bool
    default: true
  once:
    description:
      - A token, such as a job id or a date. A target is returned at most once for each token, so a job that is started
        again by accident does not throw away what came after.
    type: str
  ignore_users:
    description:
      - With O(state=rolled_back), go on although processes use the target or something else has it mounted.
      - They go on writing into the content that was set aside, not into the one that was returned.
    type: bool
    default: false
notes:
  - A subvolume is taken at one instant, and the whole filesystem is synced right before. Several subvolumes, and those
    inside others, are taken one after the other. RV(spread_seconds) and RV(results[].nested_spread_seconds) say how far
    apart.
  - Processes and mounts that use a target stand in the way of its return, and are named. Those of the root of the
    running system do not, as they go on with the old content until the reboot.
  - To look at what returns have set aside of mounted subvolumes, the top level of the filesystem is mounted for a
    moment below C(/run/restorepoint), in check mode too. Nothing is written there in check mode.
  - The names of snapshots are 1 to 128 characters of C(A-Za-z0-9._+-), and begin with a letter or digit.
  - Needs root, and C(btrfs) (btrfs-progs) on the host.
seealso:
  - module: restorepoint.core.btrfs_snapshot_info
  - module: restorepoint.core.btrfs_layout
  - module: restorepoint.core.hostpath_snapshot
  - plugin: restorepoint.core.retention
    plugin_type: filter
requirements:
  - "python >= 3.9"
  - btrfs-progs
  - Linux 4.18 or newer
"""

EXAMPLES = r"""
- name: Take a restore point of the system and its data before an upgrade
  restorepoint.core.btrfs_snapshot:
    subvolume:
      - /
      - /srv
    store: /.restorepoints/points
    name: pre-upgrade
    recursive: true
    max_age: 1h

- name: Return to it, and boot into it
  restorepoint.core.btrfs_snapshot:
    subvolume:
      - /
      - /srv
    store: /.restorepoints/points
    name: pre-upgrade
    state: rolled_back
    recursive: true
  register: returned

- name: Boot into what was returned
  ansible.builtin.reboot:
  when: returned.results | selectattr('reboot_required', 'defined') | map(attribute='reboot_required') is any

- name: Keep a week of days, and the last two contents that were set aside
  restorepoint.core.btrfs_snapshot:
    subvolume: /srv/data
    store: /srv/.restorepoints
    owner: nightly
    state: pruned
    keep:
      daily: 7
    asides:
      last: 2

- name: Look at a writable copy
  restorepoint.core.btrfs_snapshot:
    subvolume: /srv/data
    store: /srv/.restorepoints
    name: pre-upgrade
    state: cloned
    clone: /srv/data-before
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
  description: What was done on each target, or why nothing was.
  returned: always
  type: list
  elements: dict
  contains:
    target:
      description: The subvolume.
      type: str
      sample: /srv/web
    name:
      description: The snapshot. None where the result is about the target as a whole.
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
      description: How long it took.
      type: float
      sample: 1.25
    snapshot:
      description: The snapshot, as M(restorepoint.core.btrfs_snapshot_info) shows it.
      type: dict
      sample: {"name": "pre-upgrade", "created": "2026-11-22T01:30:00Z", "ready": true}
    strategy:
      description: How it was returned or cloned. Always V(subvolume).
      type: str
      sample: subvolume
    instant:
      description: When it was taken, in seconds since the epoch.
      type: float
      sample: 1795311000.25
    nested:
      description: The subvolumes inside it that were taken with it, each as a snapshot of its own.
      type: list
      elements: str
      sample: [db, db/log]
    nested_spread_seconds:
      description: How far apart it and those lie.
      type: float
      sample: 0.04
    nested_returned:
      description: The subvolumes inside that were returned with it.
      type: list
      elements: str
      sample: [db, db/log]
    nested_moved:
      description: The subvolumes inside that the snapshot does not hold, and that were moved over as they are.
      type: list
      elements: str
      sample: [srv/cache]
    reboot_required:
      description: Whether it is the root of the running system, so that the return takes effect at the next boot.
      type: bool
      sample: false
    remount_required:
      description: Where else it is mounted. There the return takes effect once it is unmounted and mounted again.
      type: list
      elements: str
      sample: [/data]
    left_out:
      description:
        - The subvolumes inside that the snapshot does not hold. It has empty directories in their places.
      type: list
      elements: str
      sample: [tmp]
    aside:
      description: What the content that was there is called now.
      type: dict
      contains:
        name:
          description: Its name.
          type: str
          sample: aside-20261122t013000z
        path:
          description: Where it lies. For a mounted subvolume that is below a folder that is only there during a run.
          type: str
          sample: /srv/web.aside-20261122t013000z
        filesystem_path:
          description: Where it lies, from the top level of the filesystem.
          type: str
          sample: /srv/web.aside-20261122t013000z
    unseen_users:
      description:
        - Who may use the subvolume and could not be looked at, because this run lacks the privileges for it.
        - Those who use it go on writing into the content that was set aside.
      type: list
      elements: str
      sample: ["processes of other users, which procfs hides (hidepid)"]
    clone:
      description: Where the clone is.
      type: str
      sample: /srv/web-before
spread_seconds:
  description: How far apart the snapshots of this call lie.
  returned: when more than one was taken
  type: float
  sample: 2.0
decisions:
  description: What the keep rules say of each snapshot, and why.
  returned: O(state=pruned)
  type: list
  elements: dict
  sample: [{"target": "/srv/web", "name": "nightly-20261121t013000z", "keep": true, "reason": "daily 2/7"}]
audit:
  description: One record for each change that was made or failed.
  returned: always
  type: list
  elements: dict
  sample:
    - when: "2026-11-22T01:30:00Z"
      who: root (sudo by alice)
      backend: btrfs
      target: /srv/web
      change: create
      name: pre-upgrade
      outcome: done
diff:
  description:
    - The two ends of what was done, by target. What a return sets aside is not in it.
  returned: success, in diff mode
  type: dict
  contains:
    before:
      description: The snapshots of each target that changes, with their descriptions and labels.
      type: dict
      sample: {"/srv/web": {"snapshots": {}}}
    after:
      description: The same afterwards.
      type: dict
      sample: {"/srv/web": {"snapshots": {"pre-upgrade": {"description": "Before version 2", "labels": {}}}}}
blockers:
  description: Every fact that forbids what was asked, on every target. Nothing was changed.
  returned: when there is any
  type: list
  elements: dict
  sample:
    - target: /srv/web
      reason: pid 4711 (nginx) has access.log open
      remedy: "stop it, or set ignore_users: true"
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.btrfs import run_state


def main() -> None:
    run_state()


if __name__ == "__main__":
    main()
