# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore points of Proxmox VE guests."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pve_snapshot
short_description: Restore points of Proxmox VE guests, one or a thousand
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Takes snapshots of VMs and containers, returns guests to them, removes them and thins them out.
  - One call takes any number of guests, across the whole cluster, in parallel.
  - Before anything is begun, every guest is asked whether it can work, and all reasons why not are told at once.
  - It waits for the real end of each task and reports its exit status. With O(on_failure=undo), the snapshots that a
    call has made are removed again when one guest fails.
extends_documentation_fragment:
  - restorepoint.core.attributes.state
  - restorepoint.core.attributes.actiongroup_pve
  - restorepoint.core.pve
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
      - Proxmox VE cannot prove that a guest still is what its snapshot is. So O(state=rolled_back) acts each time,
        unless O(once) is given. All other states are idempotent.
options:
  name:
    description:
      - The name of the snapshot. Needed for every O(state) except V(pruned).
      - 2 to 40 characters of C(a-zA-Z0-9_-), beginning with a letter. Proxmox VE reserves C(current), for VMs
        C(pending) and for containers C(vzdump).
      - The lookup P(restorepoint.core.snapshot_name#lookup) makes a name that is valid for every backend.
    type: str
    aliases: [snapname]
  state:
    description:
      - V(present), every guest has a usable snapshot of this name.
      - V(absent), no guest has one. Also removes what a return has kept aside, by its name.
      - V(rolled_back), every guest is returned to its snapshot. A running VM is stopped hard for that.
      - V(pruned), the rules of O(keep) and O(asides) hold.
    type: str
    choices: [present, absent, rolled_back, pruned]
    default: present
  vmstate:
    description:
      - With O(state=present), save the RAM of running VMs too. A stopped VM has none, which is a warning. A container
        cannot save it, which is an error.
    type: bool
    default: false
  force:
    description:
      - When a snapshot is removed, take it out of the guest's configuration even if a volume's snapshot cannot be
        removed, and do not ask whether replication needs it.
    type: bool
    default: false
  start:
    description:
      - With O(state=rolled_back), start the guest afterwards, and wait until it runs. Without it a guest is stopped
        after the return, unless the snapshot has RAM.
    type: bool
    default: false
  destroy_newer:
    description:
      - With O(state=rolled_back), let newer snapshots go where the storage returns only to the newest one (ZFS, and
        qcow2 as a chain of volumes). They are removed from the newest on. Elsewhere they stay.
    type: bool
    default: false
  keep_current:
    description:
      - With O(state=rolled_back), take a snapshot C(aside-{UTC time}) before the return, so that what was there is not
        lost. On storage that returns only to the newest snapshot this is not possible, and an error.
    type: bool
    default: false
  once:
    description:
      - A token, such as a job id or a date. A guest is returned to a snapshot at most once for each token, so a job
        that is started again by accident does not throw away what came after. It is noted in the snapshot's
        description.
    type: str
  only_if_current_parent:
    description:
      - With O(state=rolled_back), go on only if the guest's present state is based on this snapshot, so that no later
        snapshot lies between. It is a guard, and no proof that nothing was written since.
    type: bool
    default: false
  lock_timeout:
    description: How many seconds to wait for a guest that is locked, by a backup or a migration for instance.
    type: int
    default: 60
  repair:
    description:
      - Remove locks and half made or half deleted snapshots that tasks have left behind, on the way to the state.
      - Locks can be removed for VMs only, as C(root@pam) with a password, or with O(transport=pvesh).
      - Be sure that no task works on the guest.
    type: bool
    default: false
notes:
  - Owner and labels are the last line of a snapshot's description, behind C(restorepoint:). Results do not show it. If
    somebody removes it, the snapshot belongs to nobody and is not thinned out.
  - The user needs C(VM.Audit) and C(VM.Snapshot) on the guests, for O(state=rolled_back) at least
    C(VM.Snapshot.Rollback), and for O(start) of VMs C(VM.PowerMgmt).
  - Single disks cannot be left out of a snapshot.
  - Proxmox VE cannot take several guests at one instant. RV(spread_seconds) says how far apart they are.
seealso:
  - module: restorepoint.core.pve_snapshot_info
  - plugin: restorepoint.core.retention
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Take a restore point of every running guest before maintenance
  restorepoint.core.pve_snapshot:
    api_host: pve1.example.com
    api_user: ops@pve
    api_token_id: ansible
    api_token_secret: "{{ vault_pve_secret }}"
    status: running
    name: pre-maintenance
    description: Before the update of November
    max_age: 2h

- name: Take one VM with its RAM
  restorepoint.core.pve_snapshot:
    vmid: 100
    name: before-upgrade
    vmstate: true
  environment:
    PROXMOX_HOST: pve1.example.com
    PROXMOX_USER: root@pam
    PROXMOX_PASSWORD: "{{ vault_pve_password }}"

- name: Return to it, at most once for this job
  restorepoint.core.pve_snapshot:
    api_host: pve1.example.com
    api_user: ops@pve
    api_token_id: ansible
    api_token_secret: "{{ vault_pve_secret }}"
    vmid: 100
    name: before-upgrade
    state: rolled_back
    start: true
    once: "{{ awx_job_id | default('by hand') }}"

- name: Keep a week of days and a month of weeks of what the nightly policy has taken
  restorepoint.core.pve_snapshot:
    transport: pvesh
    tags: prod
    owner: nightly
    state: pruned
    keep:
      daily: 7
      weekly: 4
    timezone: Europe/Paris

- name: Remove a snapshot of all guests with more than 4 GiB of RAM that have one
  restorepoint.core.pve_snapshot:
    transport: pvesh
    select: "[?maxmem > `4294967296`]"
    name: before-upgrade
    state: absent
"""

RETURN = r"""
name:
  description: The name that was asked for.
  returned: always
  type: str
  sample: pre-maintenance
state:
  description: The state that was asked for.
  returned: always
  type: str
  sample: present
guests:
  description: The guests that matched.
  returned: always
  type: list
  elements: dict
  sample:
    - target: qemu/100
      vmid: 100
      guest: web
      node: pve1
      type: qemu
      status: running
      tags: [prod]
      pool: shop
      lock: null
      template: false
results:
  description: What was done on each guest, or why nothing was.
  returned: always
  type: list
  elements: dict
  contains:
    target:
      description: The guest.
      type: str
      sample: qemu/100
    vmid:
      description: Its id.
      type: int
      sample: 100
    guest:
      description: Its name.
      type: str
      sample: web
    node:
      description: The node that it is on.
      type: str
      sample: pve1
    type:
      description: Its type, V(qemu) or V(lxc).
      type: str
      sample: qemu
    name:
      description: The snapshot. None where the result is about the guest as a whole.
      type: str
      sample: pre-maintenance
    action:
      description:
        - What was done. One of V(created), V(replaced), V(described), V(removed), V(rolled_back), V(unchanged),
          V(failed), V(undone) and V(none).
      type: str
      sample: created
    changed:
      description: Whether that changed anything.
      type: bool
      sample: true
    reason:
      description: Why it was done, or why not. A failure has the task's exit status and its UPID.
      type: str
      sample: there is no snapshot 'pre-maintenance'
    seconds:
      description: How long the step took for all guests of the call.
      type: float
      sample: 1.25
    upid:
      description: The task. Empty where the answer to a call was lost, and only its effect was found.
      type: str
      sample: "UPID:pve1:00006125:0003E154:6B024CE9:qmsnapshot:100:root@pam:"
    exit_status:
      description: How the task ended. V(OK), or V(WARNINGS) and their number.
      type: str
      sample: OK
    snapshot:
      description: The snapshot, as M(restorepoint.core.pve_snapshot_info) shows it.
      type: dict
      sample: {"name": "pre-maintenance", "created": "2026-11-22T01:30:00Z", "ready": true}
    instant:
      description: When it was taken, in seconds since the epoch.
      type: float
      sample: 1795311000.0
    was_running:
      description: Whether the guest ran before a return.
      type: bool
      sample: true
    running:
      description: Whether it runs after a return. Only where O(start) was set.
      type: bool
      sample: true
    start_seconds:
      description: How long it took to start.
      type: float
      sample: 3.5
    aside:
      description: What was kept of the state before a return.
      type: dict
      sample: {"name": "aside-20261122t013000z"}
    repaired:
      description: The locks and half made snapshots that were removed on the way.
      type: list
      elements: str
      sample: [lock, half]
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
  sample: [{"target": "qemu/100", "name": "nightly-20261121t013000z", "keep": true, "reason": "daily 2/7"}]
api_calls:
  description: How many calls of the API were made, without the login.
  returned: always
  type: int
  sample: 42
audit:
  description: One record for each change that was made or failed.
  returned: always
  type: list
  elements: dict
  sample:
    - when: "2026-11-22T01:30:00Z"
      who: root (sudo by alice)
      backend: pve
      target: qemu/100
      change: create
      name: pre-maintenance
      outcome: done
diff:
  description: The two ends of what was done, by guest.
  returned: success, in diff mode
  type: dict
  contains:
    before:
      description: The snapshots of each guest that changes, with their descriptions and labels.
      type: dict
      sample: {"qemu/100": {"snapshots": {}}}
    after:
      description: The same afterwards.
      type: dict
      sample: {"qemu/100": {"snapshots": {"pre-maintenance": {"description": "", "labels": {}}}}}
blockers:
  description: Every fact that forbids what was asked, on every guest. Nothing was changed.
  returned: when there is any
  type: list
  elements: dict
  sample:
    - target: qemu/108
      reason: it is locked (backup)
      remedy: wait until that has ended, or set a longer lock_timeout
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.pve import run_state


def main() -> None:
    run_state()


if __name__ == "__main__":
    main()
