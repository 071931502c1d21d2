# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore points of several kinds of storage of one host. The role of this name leads several hosts together."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_point
short_description: Restore points over several kinds of storage, all or nothing
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Takes one restore point of several targets of a host, of any kinds of storage, under one name. Returns to it,
    removes it and thins out.
  - All targets are checked before the first is touched. If one fails while the restore point is taken, what the call
    has made on the others is removed again.
  - The role P(restorepoint.core.restore_point#role) leads several hosts together, and calls this module.
extends_documentation_fragment:
  - restorepoint.core.attributes
  - restorepoint.core.attributes.state
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
      - With O(state=rolled_back), thin LVM, CSI and Proxmox VE cannot prove that nothing has changed since. There a
        return acts each time, unless O(once) is given.
options:
  state:
    description:
      - V(present), every target has a usable snapshot of this name.
      - V(absent), no target has one.
      - V(rolled_back), the content of every target is that of its snapshot.
      - V(pruned), the rules of O(keep) and O(asides) hold.
    type: str
    choices: [present, absent, rolled_back, pruned]
    default: present
  targets:
    description:
      - What the restore point is of. Each has a C(backend), which is C(zfs), C(lvm), C(btrfs), C(hostpath), C(csi) or
        C(pve), and options of that backend's module with the same meaning and defaults. The guide lists them.
      - Targets of one backend, and of one store, stand in one entry.
      - All values may be text, as surveys of AWX give them; lists then have commas.
      - C(pve) and C(csi) speak to an API with Python's own library, from wherever the module runs. Where C(pve) names
        no C(api_host) or credentials, the environment variables C(PROXMOX_*) are read.
    type: list
    elements: dict
    required: true
  destroy_newer:
    description:
      - With O(state=rolled_back), let newer snapshots go where the storage returns only to the newest one.
    type: bool
    default: false
  keep_current:
    description:
      - With O(state=rolled_back), keep what was there aside. Without this option that is done where it costs nothing,
        on C(hostpath), C(btrfs) and C(csi).
    type: bool
  once:
    description: A token. Each target is returned to a snapshot at most once for each token.
    type: str
  stage:
    description:
      - Which part of the work of several hosts this is. The role sets it.
      - V(whole) is a call of one host for itself. V(begin) marks what is taken as unfinished, or with
        O(state=rolled_back) only marks that a return begins. V(finish) takes that mark off. V(undo) removes what the
        run O(run) has made and not finished, and nothing else.
    type: str
    choices: [whole, begin, finish, undo]
    default: whole
  run:
    description: The token of the run over several hosts. The role sets it.
    type: str
  hosts:
    description: A digest of the hosts that the restore point is of. The role sets it.
    type: str
  anew:
    description: With O(stage=begin), what is there under this name does not count. The role sets it.
    type: bool
    default: false
  assume_stopped:
    description: In check mode, look as if nobody used the targets. The role sets it where hooks will stop them.
    type: bool
    default: false
notes:
  - A snapshot that the role has taken carries C(restorepoint.*) labels. They are not shown among C(labels) here, and
    stay when labels are changed. The info modules of the backends show them.
seealso:
  - module: restorepoint.core.zfs_snapshot
  - module: restorepoint.core.lvm_snapshot
  - module: restorepoint.core.btrfs_snapshot
  - module: restorepoint.core.hostpath_snapshot
  - module: restorepoint.core.csi_snapshot
  - module: restorepoint.core.pve_snapshot
"""

EXAMPLES = r"""
- name: Take a restore point of a database and its configuration
  restorepoint.core.restore_point:
    name: pre-upgrade
    max_age: 1h
    targets:
      - backend: zfs
        dataset: [tank/db]
      - backend: hostpath
        path: [/etc/postgresql]
        store: /var/lib/restorepoint-store

- name: Return to it, both or none
  restorepoint.core.restore_point:
    name: pre-upgrade
    state: rolled_back
    once: "{{ awx_job_id | default('by-hand') }}"
    targets:
      - backend: zfs
        dataset: [tank/db]
      - backend: hostpath
        path: [/etc/postgresql]
        store: /var/lib/restorepoint-store
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
  description: What was done on each target, or why nothing was. The module of its backend describes what else is told.
  returned: always
  type: list
  elements: dict
  contains:
    target:
      description: The target, with its backend in front.
      type: str
      sample: zfs:tank/db
    name:
      description: The snapshot. None where the result is about the target as a whole.
      type: str
      sample: pre-upgrade
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
      description: Why it was done, or why not.
      type: str
      sample: there is no snapshot 'pre-upgrade'
parts:
  description: What was found of each target before anything was done.
  returned: when it was looked at
  type: list
  elements: dict
  contains:
    target:
      description: The target, with its backend in front.
      type: str
      sample: zfs:tank/db
    place:
      description: Where it lies. The machine, or the API that is spoken to.
      type: str
      sample: "pve1.example.org:8006"
    exists:
      description: Whether it has a snapshot of this name.
      type: bool
      sample: true
    run:
      description: The run over several hosts that took it.
      type: str
      sample: 20261122t013000z-0f1e2d
    hosts:
      description: Of how many hosts the restore point is, and a digest of their names.
      type: str
      sample: "3:0f1e2d3c4b5a"
    unfinished:
      description: Whether the run that took it has not ended.
      type: bool
      sample: false
    returning:
      description: The token of a return that has not ended.
      type: str
      sample: 20261122t020000z-3c4b5a
    labels:
      description: The labels of its snapshot, without those of this module.
      type: dict
      sample: {"app": "shop"}
spread_seconds:
  description: How far apart the snapshots of this call lie.
  returned: when more than one was taken
  type: float
  sample: 0.4
decisions:
  description: What the keep rules say of each snapshot, and why.
  returned: O(state=pruned)
  type: list
  elements: dict
  sample: [{"target": "zfs:tank/db", "name": "nightly-20261121t013000z", "keep": true, "reason": "daily 2/7"}]
audit:
  description: One record for each change that was made or failed.
  returned: always
  type: list
  elements: dict
  sample:
    - when: "2026-11-22T01:30:00Z"
      who: root (sudo by alice)
      backend: restore_point
      target: zfs:tank/db
      change: create
      name: pre-upgrade
      outcome: done
diff:
  description: The two ends of what was done, by target.
  returned: success, in diff mode
  type: dict
  contains:
    before:
      description: The snapshots of each target that changes, with their descriptions and labels.
      type: dict
      sample: {"zfs:tank/db": {"snapshots": {}}}
    after:
      description: The same afterwards.
      type: dict
      sample: {"zfs:tank/db": {"snapshots": {"pre-upgrade": {"description": "", "labels": {}}}}}
blockers:
  description: Every fact that forbids what was asked, on every target. Nothing was changed.
  returned: when there is any
  type: list
  elements: dict
  sample:
    - target: zfs:tank/db
      reason: "newer snapshots would be lost: hourly-20261122t020000z"
      remedy: set destroy_newer to let them go
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.restore_point import run_state


def main() -> None:
    run_state()


if __name__ == "__main__":
    main()
