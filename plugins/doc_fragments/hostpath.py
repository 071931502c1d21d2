# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that hostpath_snapshot and hostpath_snapshot_info share; bridge/hostpath.py is their spec."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  path:
    description:
      - The directories, each an absolute path. A symbolic link is refused. Links above the directory are resolved.
    type: list
    elements: path
  pvc:
    description:
      - Persistent volume claims of O(namespace), instead of O(path). Their directories and nodes are asked of the
        Kubernetes API, never guessed from the names of folders.
      - The claim must be bound to a C(hostPath) or C(local) volume on the host that the module runs on.
    type: list
    elements: str
  namespace:
    description:
      - The namespace of the claims. Without O(pvc) and O(selector), every claim in it is meant.
    type: str
  selector:
    description: A label selector for claims of O(namespace), such as V(app=web,tier!=cache).
    type: str
  node_name:
    description:
      - What Kubernetes calls the host that the module runs on. Its host name when this is not set.
    type: str
  other_nodes:
    description:
      - What becomes of claims whose volumes lie on other nodes. With V(skip), each node takes its own when the same
        claims are given to all, and a node that has none changes nothing.
      - With V(skip), a volume that names no node is an error.
    type: str
    choices: [fail, skip]
    default: fail
  claims:
    description:
      - Claims whose directories are known already, instead of O(path). The filter
        P(restorepoint.core.claims_by_host#filter) gives the list for each host, so that neither the Kubernetes API nor
        the C(kubernetes) package is needed on the node.
      - An empty list means that there is nothing to do on this host.
    type: list
    elements: dict
    suboptions:
      namespace:
        description: The claim's namespace.
        type: str
        required: true
      pvc:
        description: The claim's name.
        type: str
        required: true
      pv:
        description: The name of its volume.
        type: str
        required: true
      path:
        description: The volume's directory on this host.
        type: path
        required: true
      node:
        description: What Kubernetes calls this host.
        type: str
        required: true
      nodes:
        description: Not needed. It is there because the filter passes it on.
        type: list
        elements: str
      kind:
        description: Not needed.
        type: str
      uid:
        description: Not needed.
        type: str
      storage_class:
        description: Not needed.
        type: str
  store:
    description:
      - The folder for the snapshots, an absolute path outside of every target. It is made, with mode 0700, when it is
        missing.
      - On the filesystem of the target it can share blocks with it. On another disk it survives the loss of the first.
    type: path
    required: true
  lock_timeout:
    description: How many seconds to wait for another run that uses the same store.
    type: int
    default: 60
"""
