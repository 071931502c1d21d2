# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore points of logical volumes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lvm_snapshot
short_description: Restore points of LVM volumes, thick and thin
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Takes snapshots of logical volumes, returns volumes to them, clones thin ones and thins them out.
  - Room is checked for the whole call before the first snapshot is taken, in the volume group for thick volumes, and in
    data and metadata of the pool for thin ones.
  - LVM freezes the filesystem on a volume by itself while it takes the snapshot. Do not do that around this module. It
    would make LVM fail and leave the volume suspended. Bring applications to rest instead.
extends_documentation_fragment:
  - restorepoint.core.attributes.state
  - restorepoint.core.attributes.actiongroup_lvm
  - restorepoint.core.lvm
  - restorepoint.core.snapshot
  - restorepoint.core.snapshot.keep
  - restorepoint.core.snapshot.asides
attributes:
  idempotent:
    support: partial
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled or queried by the module has not changed in a relevant way.
    details:
      - A return to a thick snapshot uses the snapshot up. A second run finds the record of that in the tags of the
        volume, and changes nothing.
      - A return to a thin snapshot cannot be proven to be needless. It is an event, and acts each time. With O(once) it
        acts once for each token.
options:
  volume:
    description:
      - The logical volumes, each as C(vg/lv). Paths such as C(/dev/vg/lv) and C(/dev/mapper/vg-lv) are understood.
    type: list
    elements: str
    required: true
  state:
    description:
      - V(present), every target has a usable snapshot of this name.
      - V(absent), no target has one. Also removes what a return has set aside, by its name.
      - V(rolled_back), the content of every target is that of its snapshot.
      - V(cloned), there is a writable volume O(clone), made of the thin snapshot. Thick snapshots cannot be cloned.
      - V(pruned), the rules of O(keep) and O(asides) hold.
      - Every target is checked before the first is changed.
    type: str
    choices: [present, absent, rolled_back, cloned, pruned]
    default: present
  size:
    description:
      - How large a thick snapshot is to be. A thin one has no size, and refuses this.
      - A size such as V(2G), or a percentage such as V(20%ORIGIN), V(150%USED) or V(80%FREE).
      - V(100%ORIGIN) is what holds every block of the volume. A snapshot of that size can never overflow, and none is
        made larger.
      - C(%USED) counts what the mounted filesystem uses. C(%FREE) counts the free space of the volume group, and is
        shared by the volumes of one call.
      - Without this option it is V(200%USED), at least V(10%ORIGIN), where the volume is mounted, else V(100%ORIGIN).
      - With O(keep_current=true) it is also the size of the snapshot that keeps the present content.
    type: str
  data_limit:
    description: How full the data of a thin pool may be, in percent, for something new to be made in it.
    type: int
    default: 90
  metadata_limit:
    description: How full the metadata of a thin pool may be, in percent, for something new to be made in it.
    type: int
    default: 80
  clone:
    description:
      - What the clones are called, one name for each target, in their order, as C(lv) or C(vg/lv).
      - A clone is active and writable, and belongs to you. O(state=pruned) does not touch it.
    type: list
    elements: str
  keep_current:
    description:
      - With O(state=rolled_back), keep the content that was there under the LV name C({lv}.aside-{UTC time}).
      - A thin volume is renamed to that. Of a thick one a snapshot is taken first, which needs room.
      - M(restorepoint.core.lvm_snapshot_info) lists it, O(state=absent) removes it, and O(state=rolled_back)
        returns to it, by its name such as V(aside-20261122t013000z).
    type: bool
    default: false
  destroy_newer:
    description:
      - With O(state=rolled_back), go on although newer thick snapshots of the volume are too small for what the merge
        overwrites, and would overflow.
    type: bool
    default: false
  once:
    description:
      - A token, such as a job id or a date. A target is returned at most once for each token, so a job that is started
        again by accident does not throw away what came after.
    type: str
  when_busy:
    description:
      - With O(state=rolled_back), what to do when the volume is mounted, or open in another way.
      - V(refuse) fails, and names mounts and processes.
      - V(defer) goes on. LVM merges a thick snapshot when the volume is next activated, as a rule at a reboot. A thin
        volume is exchanged at once, but what has it mounted sees the old content until it is mounted again.
        RV(results[].deferred) and RV(results[].reboot_required) tell.
    type: str
    choices: [refuse, defer]
    default: refuse
  unmount:
    description:
      - With O(state=rolled_back), unmount the volume first, and mount it again where it was, with the options it had.
      - Processes that use it still stand in the way.
    type: bool
    default: false
  wait:
    description:
      - With O(state=rolled_back), wait until the merge of a thick snapshot has ended. The content is the right one as
        soon as it has begun, but the volume takes no new snapshot before it has ended.
    type: bool
    default: true
  wait_timeout:
    description: How long to wait for that, such as V(30min) or V(2h). A merge that takes longer goes on by itself.
    type: str
    default: 1h
  lock_timeout:
    description: How many seconds to wait for another run that changes logical volumes on the host.
    type: int
    default: 60
notes:
  - Needs root.
  - LVM takes one snapshot with one command. RV(spread_seconds) says how far those of one call lie apart.
  - The LV of a snapshot is called C({lv}.{name}). What it belongs to, and everything else, is in its tags, which begin
    with C(rp.). So LVs may be renamed, and LVs that others have made are never taken for snapshots of this collection.
  - Snapshots that others have taken are shown under the names of their LVs. They can be returned to and removed by
    name, and are pruned only where O(match) names them.
  - A merge lets older and newer thick snapshots of the volume live. A newer one becomes as full as the merged one was.
  - The names of snapshots are made of C(A-Za-z0-9+_.-), and do not begin with a hyphen. LVM takes 127 characters for
    C(vg/lv), a few less where there are hyphens.
seealso:
  - module: restorepoint.core.lvm_snapshot_info
  - module: restorepoint.core.lvm_layout
  - plugin: restorepoint.core.retention
    plugin_type: filter
requirements:
  - "python >= 3.9"
  - "lvm2 >= 2.03"
"""

EXAMPLES = r"""
- name: Take a restore point of root and var before an upgrade
  restorepoint.core.lvm_snapshot:
    volume:
      - vg0/root
      - vg0/var
    name: pre-upgrade
    size: 20%ORIGIN
    description: Before the upgrade to version 2
    max_age: 1h

- name: Return to it, at the next reboot where the volumes are in use
  restorepoint.core.lvm_snapshot:
    volume:
      - vg0/root
      - vg0/var
    name: pre-upgrade
    state: rolled_back
    when_busy: defer
  register: back

- name: Reboot if the return waits for that
  ansible.builtin.reboot:
  when: back.results | selectattr('reboot_required', 'defined') | selectattr('reboot_required') | list | length > 0

- name: Return a thin volume, and keep what is there now
  restorepoint.core.lvm_snapshot:
    volume: vg0/data
    name: pre-upgrade
    state: rolled_back
    keep_current: true
    unmount: true
    once: "{{ awx_job_id | default('by hand') }}"

- name: Look at a copy of last night
  restorepoint.core.lvm_snapshot:
    volume: vg0/data
    name: pre-upgrade
    state: cloned
    clone: data-before

- name: Keep a week of days, and one aside
  restorepoint.core.lvm_snapshot:
    volume: vg0/data
    owner: nightly
    state: pruned
    keep:
      daily: 7
    asides:
      last: 1

- name: Remove the restore point when the upgrade has proven itself
  restorepoint.core.lvm_snapshot:
    volume:
      - vg0/root
      - vg0/var
    name: pre-upgrade
    state: absent
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
      description: The volume, as C(vg/lv).
      type: str
      sample: vg0/root
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
      description: The snapshot, as M(restorepoint.core.lvm_snapshot_info) shows it.
      type: dict
      sample: {"name": "pre-upgrade", "created": "2026-11-22T01:30:00Z", "ready": true}
    instant:
      description: When the snapshot was taken, in seconds since the epoch.
      type: float
      sample: 1795311000.125
    type:
      description: Whether the snapshot is V(thick) or V(thin).
      type: str
      sample: thick
    lv:
      description: The name of its LV.
      type: str
      sample: root.pre-upgrade
    size_bytes:
      description: How large a thick snapshot is.
      type: int
      sample: 4294967296
    freed_bytes:
      description: What removing a thick snapshot gives back to the volume group.
      type: int
      sample: 4294967296
    merge:
      description:
        - How far the return to a thick snapshot is. V(done), V(merging) with O(wait=false), or V(deferred) until the
          volume is next activated.
      type: str
      sample: done
    deferred:
      description: Whether a return takes effect only later, since the volume is in use.
      type: bool
      sample: false
    reboot_required:
      description: Whether a reboot is what makes it take effect.
      type: bool
      sample: false
    takes_effect:
      description: When, and by what, a return that was put off takes effect.
      type: str
      sample: when /srv/data is unmounted and mounted again
    aside:
      description: What the content that was there is called now.
      type: dict
      sample: {"name": "aside-20261122t013000z", "lv": "data.aside-20261122t013000z"}
    clone:
      description: The clone.
      type: str
      sample: vg0/data-before
    device:
      description: The device of the clone.
      type: str
      sample: /dev/vg0/data-before
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
  sample: [{"target": "vg0/root", "name": "nightly-20261121t013000z", "keep": true, "reason": "daily 2/7"}]
audit:
  description: One record for each change that was made or failed.
  returned: always
  type: list
  elements: dict
  sample:
    - when: "2026-11-22T01:30:00Z"
      who: root (sudo by alice)
      backend: lvm
      target: vg0/root
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
      sample: {"vg0/root": {"snapshots": {}}}
    after:
      description: The same afterwards.
      type: dict
      sample: {"vg0/root": {"snapshots": {"pre-upgrade": {"description": "Before version 2", "labels": {}}}}}
blockers:
  description: Every fact that forbids what was asked, on every target. Nothing was changed.
  returned: when there is any
  type: list
  elements: dict
  sample:
    - target: vg0/root
      reason: it is mounted at /srv/data
      remedy: "stop that use, set unmount: true for mounts, or set when_busy: defer"
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.lvm import run_state


def main() -> None:
    run_state()


if __name__ == "__main__":
    main()
