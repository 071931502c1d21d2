# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the claims of a cluster lie."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hostpath_claims_info
short_description: Show on which nodes, and in which directories, the claims of a Kubernetes cluster lie
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Asks the Kubernetes API for claims, their volumes and the nodes. Nothing is guessed from the names of folders.
  - Run it once, on the control node. The filter P(restorepoint.core.claims_by_host#filter) then tells which host of the
    inventory each claim belongs on, and M(restorepoint.core.hostpath_snapshot) takes them there.
  - It knows volumes of the kinds C(hostPath) and C(local), as MicroK8s, local-path-provisioner, OpenEBS' local volumes
    and people make them.
extends_documentation_fragment:
  - restorepoint.core.attributes.info
  - restorepoint.core.kubernetes
options:
  namespace:
    description: The namespaces of the claims.
    type: list
    elements: str
    required: true
  pvc:
    description: The names of claims. Each has to be in every one of the namespaces.
    type: list
    elements: str
  selector:
    description: A label selector for claims, such as V(app=web,tier!=cache). Without both, every claim is meant.
    type: str
notes:
  - It needs to get and list claims and volumes. Where it may not list nodes, it says so, and only the names that
    volumes give to nodes are known.
seealso:
  - module: restorepoint.core.hostpath_snapshot
  - plugin: restorepoint.core.claims_by_host
    plugin_type: filter
requirements:
  - "python >= 3.9"
  - "kubernetes >= 24, for logins other than by a token or a client certificate"
"""

EXAMPLES = r"""
- name: Find the volumes of a shop
  restorepoint.core.hostpath_claims_info:
    namespace: shop
    selector: app=shop
    kubeconfig: ~/.kube/config
  register: found
  delegate_to: localhost
  run_once: true

- name: Take on each node what lies there
  restorepoint.core.hostpath_snapshot:
    claims: "{{ (found | restorepoint.core.claims_by_host(hostvars, ansible_play_hosts_all))[inventory_hostname] }}"
    store: /srv/restorepoints
    name: "{{ restore_point }}"
"""

RETURN = r"""
claims:
  description: The claims whose volumes are directories of nodes.
  returned: success
  type: list
  elements: dict
  contains:
    namespace:
      description: The claim's namespace.
      type: str
      sample: shop-prod
    pvc:
      description: The claim's name.
      type: str
      sample: data
    pv:
      description: The name of its volume.
      type: str
      sample: pvc-8f1c7f0e-0b8a-4a35-8d1b-6f3c1a2b9d10
    path:
      description: The directory.
      type: str
      sample: /var/snap/microk8s/common/default-storage/shop-prod-data-pvc-8f1c7f0e
    nodes:
      description: The nodes on which it may lie, by the volume's node affinity. Empty where that names none.
      type: list
      elements: str
      sample: [worker-1]
    kind:
      description: The kind of the volume, C(hostPath) or C(local).
      type: str
      sample: hostPath
    uid:
      description: The claim's uid.
      type: str
      sample: 5c2c9f3e-4f0a-4c7e-9d0c-2a1b3c4d5e6f
    storage_class:
      description: The volume's storage class; empty where it has none.
      type: str
      sample: microk8s-hostpath
others:
  description: The claims that have no such directory.
  returned: success
  type: list
  elements: dict
  contains:
    namespace:
      description: The claim's namespace.
      type: str
      sample: shop-prod
    pvc:
      description: The claim's name.
      type: str
      sample: cache
    reason:
      description: Why not.
      type: str
      sample: its volume 'pvc-1' is served by the CSI driver rbd.csi.ceph.com
    remedy:
      description: What to do about it.
      type: str
      sample: use csi_snapshot, which handles CSI volumes
nodes:
  description: The nodes of the cluster; empty where they may not be listed.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The node's name.
      type: str
      sample: worker-1
    names:
      description: All its names and addresses, in small letters.
      type: list
      elements: str
      sample: [10.0.0.11, worker-1]
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.hostpath import run_claims_info


def main() -> None:
    run_claims_info()


if __name__ == "__main__":
    main()
