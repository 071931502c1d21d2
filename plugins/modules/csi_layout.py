# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A cluster set up for CSI snapshots as it is asked for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: csi_layout
short_description: Set up CRDs, snapshot controller and classes for CSI snapshots
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Makes what a Kubernetes cluster needs for snapshots of CSI volumes and does not have yet. That is the CRDs, the
    snapshot controller, and classes.
  - A snapshot controller that somebody else runs is recognised and left alone. So are CRDs that serve C(v1) already,
    whoever made them. RV(controllers) tells what was found.
  - One call reads everything, plans everything, and only then begins. All blockers are named at once.
  - The role P(restorepoint.core.csi_snapshots#role) calls it with the manifests of a release.
extends_documentation_fragment:
  - restorepoint.core.attributes.state
  - restorepoint.core.kubernetes
attributes:
  idempotent:
    support: full
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled or queried by the module has not changed in a relevant way.
options:
  manifests:
    description:
      - The manifests of CRDs and controller, as C(external-snapshotter) publishes them. They are read only when
        something lacks, or when what this module made was made from others; so a second run downloads nothing.
      - They may hold CRDs of the two snapshot groups, a Deployment of a snapshot controller, its namespace, its service
        account, and roles with their bindings. Anything else is refused.
    type: list
    elements: dict
    default: []
    suboptions:
      source:
        description: An absolute path on the host that runs the module, or a URL.
        type: str
        required: true
      sha256:
        description: Its SHA-256 sum. A URL needs one. What has another sum is refused.
        type: str
  install_crds:
    description: Whether to make CRDs that lack.
    type: bool
    default: true
  install_controller:
    description:
      - Whether to set up a snapshot controller where none is found.
      - Set it to V(false) in a cluster whose controller runs in a control plane that cannot be seen. Only a fresh lease
        C(snapshot-controller-leader), or an add-on manager's label on the CRDs, tells of such a one.
    type: bool
    default: true
  update:
    description:
      - Whether CRDs that are there get versions of O(manifests) that they do not serve yet.
      - One that serves a newer version than the manifest is never replaced. Neither is one that serves a version which
        would be gone, nor one that may still store objects in a version that the manifest does not know.
    type: bool
    default: false
  controller_image:
    description: The image of the controller instead of the manifest's, such as one of your own registry.
    type: str
  controller_replicas:
    description: How many controllers run instead of as many as the manifest says. One of them leads.
    type: int
  controller_arguments:
    description:
      - Arguments for the controller. Each takes the place of the manifest's argument of the same name.
      - V(--feature-gates=CSIVolumeGroupSnapshot=true) is needed for group snapshots.
    type: list
    elements: str
    default: []
  drivers:
    description:
      - Classes for drivers whose parameters this module knows. Each makes a VolumeSnapshotClass and a StorageClass.
      - The driver itself has to be in the cluster already.
    type: list
    elements: dict
    default: []
    suboptions:
      kind:
        description:
          - The kind of driver.
          - V(openebs_lvm) needs O(drivers[].volume_group), V(openebs_zfs) O(drivers[].pool), V(openebs_mayastor)
            O(drivers[].replicas), V(topolvm) O(drivers[].device_class), V(rook_rbd) O(drivers[].pool), V(rook_cephfs)
            O(drivers[].filesystem).
          - V(ceph_rbd) needs O(drivers[].cluster_id), O(drivers[].pool), O(drivers[].secret) and
            O(drivers[].namespace); V(ceph_cephfs) needs O(drivers[].filesystem) in place of the pool.
          - V(csi_hostpath), the driver for tests, needs nothing.
        type: str
        required: true
        choices:
          - csi_hostpath
          - openebs_lvm
          - openebs_zfs
          - openebs_mayastor
          - rook_rbd
          - rook_cephfs
          - ceph_rbd
          - ceph_cephfs
          - topolvm
      name:
        description: What its classes are called. Each kind has a name of its own, such as V(openebs-lvm).
        type: str
      driver:
        description:
          - The driver's name in the cluster, where it is not the usual one, such as V(ceph.rbd.csi.ceph.com) where
            Rook's operator runs in the namespace V(ceph).
        type: str
      volume_group:
        description: For V(openebs_lvm), the volume group on the nodes.
        type: str
      pool:
        description: For V(openebs_zfs) the pool or dataset, for Ceph's kinds the pool.
        type: str
      device_class:
        description: For V(topolvm), the device class. Only one of a thin pool has snapshots.
        type: str
      cluster_id:
        description: The id of the Ceph cluster. With Rook it is its namespace.
        type: str
      filesystem:
        description: For V(rook_cephfs) and V(ceph_cephfs), the name of the CephFS.
        type: str
      fs_type:
        description:
          - The filesystem in volumes, such as V(xfs). The driver's own default when it is not set. For V(openebs_zfs)
            V(zfs) makes datasets, and anything else zvols.
        type: str
      namespace:
        description: The namespace of Ceph's secrets. With Rook V(rook-ceph) when it is not set.
        type: str
      secret:
        description: For V(ceph_rbd) and V(ceph_cephfs), the name of the Secret with Ceph's credentials.
        type: str
      thin:
        description: For OpenEBS' kinds, whether volumes are thin. The driver's own default when it is not set.
        type: bool
      replicas:
        description: For V(openebs_mayastor), how many copies there are of the data.
        type: int
      storage_class:
        description: Whether to make a StorageClass.
        type: bool
        default: true
      group_class:
        description: Whether to make a VolumeGroupSnapshotClass. V(csi_hostpath) and Ceph's kinds have those.
        type: bool
        default: false
      default:
        description:
          - Whether the StorageClass is the default of the cluster. It is left as it is when this is not set.
        type: bool
      default_snapshot_class:
        description: Whether the VolumeSnapshotClass is the default of its driver. As it is when this is not set.
        type: bool
      deletion_policy:
        description: Whether what lies in the storage goes with its VolumeSnapshot.
        type: str
        choices: [Delete, Retain]
        default: Delete
      reclaim_policy:
        description: Whether a volume goes with its claim.
        type: str
        choices: [Delete, Retain]
        default: Delete
      volume_binding_mode:
        description: When volumes are made. What suits the kind when it is not set.
        type: str
        choices: [WaitForFirstConsumer, Immediate]
      parameters:
        description: More parameters for the StorageClass. They go over what the kind makes.
        type: dict
        default: {}
      snapshot_parameters:
        description: More parameters for the VolumeSnapshotClass, such as V(snapSize) of V(openebs_lvm).
        type: dict
        default: {}
  storage_classes:
    description:
      - StorageClasses for any other CSI driver. One that is there and has another provisioner, other parameters,
        another reclaim policy or binding mode is a blocker, for Kubernetes does not change these.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      provisioner:
        description: The CSI driver.
        type: str
        required: true
      default:
        description: Whether it is the default of the cluster. It is left as it is when this is not set.
        type: bool
      reclaim_policy:
        description: Whether a volume goes with its claim.
        type: str
        choices: [Delete, Retain]
        default: Delete
      volume_binding_mode:
        description: When volumes are made.
        type: str
        choices: [WaitForFirstConsumer, Immediate]
        default: WaitForFirstConsumer
      allow_volume_expansion:
        description: Whether claims may grow.
        type: bool
        default: true
      mount_options:
        description: With which options volumes are mounted.
        type: list
        elements: str
        default: []
      parameters:
        description: All of its parameters.
        type: dict
        default: {}
      labels:
        description: Labels that it has. Others stay.
        type: dict
        default: {}
  snapshot_classes:
    description: VolumeSnapshotClasses for any other CSI driver.
    type: list
    elements: dict
    default: []
    suboptions: &snapshot_class
      name:
        description: Its name.
        type: str
        required: true
      driver:
        description: The CSI driver. A class of that name for another driver is a blocker.
        type: str
        required: true
      deletion_policy:
        description: Whether what lies in the storage goes with its snapshot object. It counts for new snapshots.
        type: str
        choices: [Delete, Retain]
        default: Delete
      default:
        description: Whether it is the default of its driver. It is left as it is when this is not set.
        type: bool
      parameters:
        description: All of its parameters.
        type: dict
        default: {}
      labels:
        description: Labels that it has. Others stay.
        type: dict
        default: {}
  group_snapshot_classes:
    description: VolumeGroupSnapshotClasses. They are made in the newest version that the cluster serves.
    type: list
    elements: dict
    default: []
    suboptions: *snapshot_class
  replace_default:
    description:
      - Whether a class that is to be the default takes that from the one that is. Without it, that is a blocker, so
        that there are never two.
    type: bool
    default: false
  expected_drivers:
    description:
      - Drivers whose classes are made though the cluster does not show them yet, because they are set up afterwards.
    type: list
    elements: str
    default: []
  wait_timeout:
    description:
      - How many seconds to wait until the CRDs are established, and then until the controller's pods are ready.
    type: int
    default: 180
notes:
  - Nothing is ever removed. Whatever it makes has the label C(restorepoint.core/role=csi_snapshots).
  - A class for a driver that the cluster does not have is refused, with the names of those it has.
  - It needs to read CSIDrivers, CSINodes, CRDs, StorageClasses and, unless O(install_controller=false), workloads and
    leases of all namespaces. What the changes need on top of that is asked for beforehand.
  - Should a step fail, those before it stand, and the next run goes on from there.
seealso:
  - module: restorepoint.core.hostpath_snapshot
    description: For volumes that are directories, which no CSI driver serves.
requirements:
  - "python >= 3.9"
  - "kubernetes >= 24, for logins other than by a token or a client certificate"
"""

EXAMPLES = r"""
- name: Set a cluster with OpenEBS up for snapshots
  restorepoint.core.csi_layout:
    manifests:
      - source: /srv/mirror/external-snapshotter/crds.yaml
      - source: /srv/mirror/external-snapshotter/rbac-snapshot-controller.yaml
      - source: /srv/mirror/external-snapshotter/setup-snapshot-controller.yaml
        sha256: 920166ff9001203e9def2504903eb196cd1da55d520f022807cc6ac82ef8eeba
    drivers:
      - kind: openebs_lvm
        volume_group: data
        thin: true
        default_snapshot_class: true
      - kind: openebs_zfs
        pool: tank/volumes

- name: Only make classes, in a managed cluster
  restorepoint.core.csi_layout:
    install_crds: false
    install_controller: false
    snapshot_classes:
      - name: keep
        driver: rook-ceph.rbd.csi.ceph.com
        deletion_policy: Retain
        parameters:
          clusterID: rook-ceph
          csi.storage.k8s.io/snapshotter-secret-name: rook-csi-rbd-provisioner
          csi.storage.k8s.io/snapshotter-secret-namespace: rook-ceph
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
      sample: VolumeSnapshotClass openebs-lvm
    action:
      description: What was done with it.
      type: str
      sample: create
    before:
      description: How it was.
      type: str
      sample: absent
    after:
      description: How it is.
      type: str
      sample: driver=local.csi.openebs.io, deletionPolicy=Delete, default
controllers:
  description:
    - The snapshot controllers that ran before anything was done, or a sign of one that cannot be seen.
    - Empty with O(install_controller=false), for then nobody looked.
  returned: always
  type: list
  elements: dict
  contains:
    where:
      description: The workload, or what tells of one.
      type: str
      sample: StatefulSet openebs/openebs-lvm-localpv-controller
    image:
      description: Its image; empty where that cannot be seen.
      type: str
      sample: registry.k8s.io/sig-storage/snapshot-controller:v8.2.0
    manager:
      description: Who set it up, as far as that can be told.
      type: str
      sample: the Helm release openebs
    ours:
      description: Whether this module did.
      type: bool
      sample: false
    ready:
      description: How many of its pods are ready.
      type: int
      sample: 1
drivers_found:
  description: The CSI drivers of the cluster.
  returned: always
  type: list
  elements: str
  sample: [local.csi.openebs.io]
downloads:
  description: The URLs that were downloaded. Each had the sum that was asked for.
  returned: always
  type: list
  elements: str
  sample: []
blockers:
  description: All facts that forbid what was asked. Nothing was changed.
  returned: when something stands in the way
  type: list
  elements: dict
  contains:
    target:
      description: What cannot be as it was asked for.
      type: str
      sample: StorageClass fast
    reason:
      description: Why not.
      type: str
      sample: "the cluster has no CSI driver topolvm.io; there are: local.csi.openebs.io"
    remedy:
      description: What to do about it.
      type: str
      sample: install that driver first, or correct its name
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.csi_layout import run


def main() -> None:
    run()


if __name__ == "__main__":
    main()
