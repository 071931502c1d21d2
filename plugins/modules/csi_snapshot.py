# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore points of Kubernetes claims on CSI volumes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: csi_snapshot
short_description: Restore points of Kubernetes claims on CSI volumes
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Takes VolumeSnapshots of claims, removes them, thins them out, makes new claims from them, and returns claims to
    them in place.
  - One call takes any number of claims of a namespace. All snapshots are created first and then waited for with one
    watch, until each is ready. O(group=true) takes them at one instant.
  - Before anything is touched, everything that would fail is told at once, missing permissions too.
  - Works with every CSI driver that has a snapshot class, such as Ceph and Rook, OpenEBS, TopoLVM and csi-hostpath.
extends_documentation_fragment:
  - restorepoint.core.attributes.state
  - restorepoint.core.attributes.actiongroup_csi
  - restorepoint.core.csi
  - restorepoint.core.kubernetes
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
      - Nothing proves that a claim still is what its snapshot is. So O(state=rolled_back) acts each time, unless
        O(once) is given. All other states are idempotent.
options:
  name:
    description:
      - The name of the snapshot. Needed for every O(state) except V(pruned), and for V(rolled_back) with neither
        O(undo) nor O(call_off).
      - At most 63 characters of C(a-z0-9.-). The VolumeSnapshot is called C({claim}-{name}). One that something else
        has made is known by the name of its object.
      - The lookup P(restorepoint.core.snapshot_name#lookup) makes a name that is valid for every backend.
    type: str
  state:
    description:
      - V(present), every claim has a snapshot of this name that is ready.
      - V(absent), no claim has one. Also removes what a return has kept aside, by its name.
      - V(rolled_back), every claim has the content of its snapshot. A new volume is made from it and proven, then the
        claim is bound to that one. The old volume is retained as an aside.
      - V(cloned), a claim with the name from O(clone) was made from the snapshot.
      - V(pruned), the rules of O(keep) and O(asides) hold.
    type: str
    choices: [present, absent, rolled_back, cloned, pruned]
    default: present
  snapshot_class:
    description:
      - The VolumeSnapshotClass for new snapshots. Without it, the default class of the volume's driver is taken, or the
        only one that it has.
    type: str
  deletion_policy:
    description:
      - What is to happen to the snapshot on the storage when the VolumeSnapshot is removed.
      - Where the class says otherwise, it is set on each VolumeSnapshotContent. Without this option, that of the class
        holds.
    type: str
    choices: [Delete, Retain]
  group:
    description:
      - With O(state=present), take all claims at one instant, with one VolumeGroupSnapshot in the version that the
        cluster serves. The driver has to be able to, and needs a VolumeGroupSnapshotClass.
      - Where O(selector) consists of equalities, it is used. Else the claims get a label of ours that stands for their
        set.
      - The snapshots of a group are removed together only.
    type: bool
    default: false
  group_snapshot_class:
    description:
      - The VolumeGroupSnapshotClass for O(group=true). Without it, the default class of the driver is taken, or the
        only one that it has.
    type: str
  object_labels:
    description: Kubernetes labels for the objects of snapshots, beside our own. Others that are there stay.
    type: dict
    default: {}
  object_annotations:
    description: Kubernetes annotations for the objects of snapshots, beside our own. Others that are there stay.
    type: dict
    default: {}
  import_handle:
    description:
      - With O(state=present) and one claim, make this snapshot of the storage known to Kubernetes instead of taking a
        new one. It is the driver's own name for it.
      - Makes a VolumeSnapshotContent and a VolumeSnapshot. Where the claim is gone, O(snapshot_class) tells the driver.
    type: str
  clone:
    description:
      - With O(state=cloned), the names of the claims to make, one for each of O(pvc), in the same order and namespace.
    type: list
    elements: str
  storage_class:
    description: With O(state=cloned), the storage class of the new claims. Without it, that of the claim.
    type: str
  size:
    description:
      - With O(state=cloned), the size of the new claims, such as V(10G) in powers of 1024. Without it, that of the
        claim. It cannot be smaller than the snapshot needs.
    type: str
  once:
    description:
      - A token, such as a job id or a date. A claim is returned at most once for each token, so a job that is started
        again by accident does not throw away what came after.
    type: str
  keep_current:
    description:
      - With O(state=rolled_back), keep the old volume as an aside. Without it, the old volume is removed when the new
        one is in place.
    type: bool
    default: true
  stop_workloads:
    description:
      - With O(state=rolled_back), scale down the Deployments, StatefulSets and DaemonSets that use the claims before
        the volumes are changed, and bring them back to the replicas they had. Without it, a claim in use is an error.
      - Bare pods, running Jobs and what unknown operators run are errors in any case.
    type: bool
    default: false
  undo:
    description:
      - With O(state=rolled_back), take the last return back. The claim gets its old volume again, and what it has now
        is kept aside.
    type: bool
    default: false
  call_off:
    description:
      - With O(state=rolled_back), give up a return that was interrupted before the claim was changed, and remove what
        it had made.
    type: bool
    default: false
  wait:
    description:
      - Whether to wait until snapshots are ready and clones are bound. A claim of a storage class that binds on first
        use is not waited for.
    type: bool
    default: true
  timeout:
    description:
      - How many seconds to wait in all. Each claim after the first adds 5 seconds.
      - Errors that the controllers report are waited out, because they try again. The last one is told at the end.
    type: int
    default: 300
notes:
  - Owner and name are labels of the VolumeSnapshot, C(restorepoint.core/owner) and C(restorepoint.core/name). The rest
    is in annotations with the same prefix.
  - The list of permissions that each state needs is in the guide to this backend.
  - A snapshot class or storage class can be made with the role P(restorepoint.core.csi_snapshots#role).
seealso:
  - module: restorepoint.core.csi_snapshot_info
  - module: restorepoint.core.hostpath_snapshot
  - plugin: restorepoint.core.retention
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Take a restore point of two claims before an upgrade
  restorepoint.core.csi_snapshot:
    namespace: shop
    pvc: [db, uploads]
    name: pre-upgrade
    description: Before the upgrade to 4.2
    max_age: 2h

- name: Take all claims of an application at one instant
  restorepoint.core.csi_snapshot:
    namespace: shop
    selector: app=shop
    name: "{{ lookup('restorepoint.core.snapshot_name', 'nightly') }}"
    owner: nightly
    group: true

- name: Look into a copy
  restorepoint.core.csi_snapshot:
    namespace: shop
    pvc: [db]
    name: pre-upgrade
    state: cloned
    clone: [db-look]

- name: Return to it, at most once for this job
  restorepoint.core.csi_snapshot:
    namespace: shop
    pvc: [db, uploads]
    name: pre-upgrade
    state: rolled_back
    stop_workloads: true
    once: "{{ awx_job_id | default('by hand') }}"

- name: Take that return back
  restorepoint.core.csi_snapshot:
    namespace: shop
    pvc: [db, uploads]
    state: rolled_back
    undo: true
    stop_workloads: true

- name: Keep a week of days and a month of weeks, and one old volume of each claim
  restorepoint.core.csi_snapshot:
    namespace: shop
    selector: app=shop
    owner: nightly
    state: pruned
    keep:
      daily: 7
      weekly: 4
    asides:
      last: 1

- name: Make a snapshot known that was found on the storage
  restorepoint.core.csi_snapshot:
    namespace: shop
    pvc: [db]
    name: found
    import_handle: 0001-0009-rook-ceph-0000000000000001-7c2a
    deletion_policy: Retain
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
  description: What was done on each claim, or why nothing was.
  returned: always
  type: list
  elements: dict
  contains:
    target:
      description: The claim, with its namespace.
      type: str
      sample: shop/db
    name:
      description: The snapshot. None where the result is about the claim as a whole.
      type: str
      sample: pre-upgrade
    action:
      description:
        - What was done. One of V(created), V(replaced), V(described), V(removed), V(rolled_back),
          V(called_off), V(cloned), V(unchanged), V(failed), V(undone) and V(none).
      type: str
      sample: created
    changed:
      description: Whether that changed anything.
      type: bool
      sample: true
    reason:
      description: Why it was done, or why not. A failure has what the controllers said, and events.
      type: str
      sample: there is no snapshot 'pre-upgrade'
    seconds:
      description: How long the step took for all claims of the call.
      type: float
      sample: 2.1
    object:
      description: The name of the VolumeSnapshot.
      type: str
      sample: db-pre-upgrade
    snapshot_class:
      description: The class of a new snapshot.
      type: str
      sample: csi-hostpath
    group:
      description: The name of the VolumeGroupSnapshot.
      type: str
      sample: pre-upgrade-1f0c7a9b3d
    snapshot:
      description: The snapshot, as M(restorepoint.core.csi_snapshot_info) shows it.
      type: dict
      sample: {"name": "pre-upgrade", "created": "2026-11-22T01:30:00Z", "ready": true}
    instant:
      description: When it was taken, in seconds since the epoch.
      type: float
      sample: 1795311000.0
    clone:
      description: The claim that was made from the snapshot.
      type: str
      sample: db-look
    size_bytes:
      description: Its size.
      type: int
      sample: 1073741824
    phase:
      description: Its phase, V(Bound), or V(Pending) where it was not waited for.
      type: str
      sample: Bound
    volume:
      description: Its volume. After a return, the claim's new one.
      type: str
      sample: pvc-2a9b8a57-9d6a-4c06-9bd1-6a7a4dd1bb8c
    aside:
      description: What was kept of the content before a return, its name and the volume. None where nothing was kept.
      type: dict
      sample: {"name": "aside-20261122t013000z", "volume": "pvc-77f0c1de-1f0b-4a8b-8a3f-0d1f3f0f5f1e"}
    resumed:
      description: Whether this completed a return that an earlier run had begun.
      type: bool
      sample: false
workloads:
  description: The workloads that were stopped, and what became of each afterwards.
  returned: when any were
  type: list
  elements: dict
  sample:
    - kind: Deployment
      namespace: shop
      name: web
      had: {"replicas": 3}
      targets: [shop/db]
      outcome: started again
      ready: true
spread_seconds:
  description: How far apart the snapshots of this call lie.
  returned: when more than one was taken
  type: float
  sample: 1.0
decisions:
  description: What the keep rules say of each snapshot, and why.
  returned: O(state=pruned)
  type: list
  elements: dict
  sample: [{"target": "shop/db", "name": "nightly-20261121t013000z", "keep": true, "reason": "daily 2/7"}]
api_calls:
  description: How many requests were sent to the Kubernetes API.
  returned: when the API was asked
  type: int
  sample: 14
audit:
  description: One record for each change that was made or failed.
  returned: always
  type: list
  elements: dict
  sample:
    - when: "2026-11-22T01:30:00Z"
      who: root (sudo by alice)
      backend: csi
      target: shop/db
      change: create
      name: pre-upgrade
      outcome: done
diff:
  description: The two ends of what was done, by claim.
  returned: success, in diff mode
  type: dict
  contains:
    before:
      description: The snapshots of each claim that changes, with their descriptions and labels.
      type: dict
      sample: {"shop/db": {"snapshots": {}}}
    after:
      description: The same afterwards.
      type: dict
      sample: {"shop/db": {"snapshots": {"pre-upgrade": {"description": "", "labels": {}}}}}
blockers:
  description: Every fact that forbids what was asked, on every claim. Nothing was changed.
  returned: when there is any
  type: list
  elements: dict
  sample:
    - target: shop/db
      reason: there is no snapshot class for driver hostpath.csi.k8s.io
      remedy: make one, with the module restorepoint.core.csi_layout for instance
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.csi import run_state


def main() -> None:
    run_state()


if __name__ == "__main__":
    main()
