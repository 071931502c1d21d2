# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A CSI driver set up from its own manifests."""

from __future__ import annotations

DOCUMENTATION = r"""
module: csi_driver_layout
short_description: Set up a CSI driver from its own manifests, and wait until it runs
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Makes the objects of a CSI driver that a cluster does not have yet, and waits until its pods are ready and nodes
    know it.
  - The manifests are the driver's own, of a release or rendered from its chart. Helm is not needed where it is called.
  - A driver that somebody else set up, such as an add-on or a Helm release, is recognised and left alone.
  - The role P(restorepoint.core.microk8s_storage#role) calls it.
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
  driver:
    description: The name of the driver, as its CSIDriver has it, such as V(zfs.csi.openebs.io).
    type: str
    required: true
  manifests:
    description:
      - The driver's manifests. They may be left out where the driver is there already.
      - Classes, CRDs of snapshots, hooks of Helm, and a snapshot controller in the driver's pod are left out of them;
        RV(left_out) tells. M(restorepoint.core.csi_layout) makes these, since a cluster has them once.
      - They may hold what a driver needs to run, such as CRDs, accounts, roles, workloads. Anything else is refused.
    type: list
    elements: dict
    default: []
    suboptions:
      source:
        description: An absolute path on the host that runs the module, or a URL. A URL is downloaded in each run.
        type: str
        required: true
      sha256:
        description: Its SHA-256 sum. A URL needs one. What has another sum is refused.
        type: str
  kubelet_dir:
    description:
      - The folder of kubelet on the nodes. Wherever the manifests name V(/var/lib/kubelet), they get this one instead.
      - For MicroK8s it is V(/var/snap/microk8s/common/var/lib/kubelet).
    type: str
    default: /var/lib/kubelet
  version:
    description: The release of which at least one image in O(manifests) has to be. Others are refused.
    type: str
  wait:
    description: Whether to wait until the driver runs.
    type: bool
    default: true
  wait_nodes:
    description: Whether at least one node has to know the driver.
    type: bool
    default: true
  wait_timeout:
    description: How many seconds to wait for everything together.
    type: int
    default: 300
notes:
  - Nothing is ever removed. Whatever it makes has the label C(restorepoint.core/role=csi_driver), and an annotation
    with a digest of what it was made from. A change by hand is not noticed until the manifests or options change.
  - A driver that would not restore its snapshots is refused, as far as its images tell. That is LVM LocalPV before
    1.8.0.
  - Should a step fail, those before it stand, and the next run goes on from there.
seealso:
  - module: restorepoint.core.csi_layout
  - module: restorepoint.core.csi_class_test
requirements:
  - "python >= 3.9"
  - "kubernetes >= 24"
"""

EXAMPLES = r"""
- name: Set up OpenEBS ZFS LocalPV in MicroK8s
  restorepoint.core.csi_driver_layout:
    driver: zfs.csi.openebs.io
    version: 2.11.1
    kubelet_dir: /var/snap/microk8s/common/var/lib/kubelet
    manifests:
      - source: /srv/mirror/zfs-localpv-2.11.1.yaml

- name: Wait for a driver that an add-on set up
  restorepoint.core.csi_driver_layout:
    driver: rook-ceph.rbd.csi.ceph.com
    wait_timeout: 900
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
      sample: DaemonSet openebs/zfs-localpv-node
    action:
      description: What was done with it.
      type: str
      sample: create
    before:
      description: How it was.
      type: str
      sample: absent
    after:
      description: How it is. Of a workload its images, and a digest of what it was made from.
      type: str
      sample: openebs/zfs-driver:2.11.1 (3f0c2d9be1a4)
manager:
  description: Who set up the driver that was there before, as far as that can be told. Empty where there was none.
  returned: always
  type: str
  sample: the Helm release openebs
ours:
  description: Whether this module had set up the driver that was there before.
  returned: always
  type: bool
  sample: false
left_out:
  description: What of the manifests was left out, and why.
  returned: always
  type: list
  elements: str
  sample: ["StorageClass openebs-zfspv: csi_layout makes classes"]
nodes:
  description: The nodes that know the driver. Empty in check mode, and where nobody waited for it.
  returned: always
  type: list
  elements: str
  sample: [node-1]
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
      sample: CSIDriver local.csi.openebs.io
    reason:
      description: Why not.
      type: str
      sample: the cluster has no such driver
    remedy:
      description: What to do about it.
      type: str
      sample: name the driver's own manifests under manifests
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.csi_driver_layout import run


def main() -> None:
    run()


if __name__ == "__main__":
    main()
