# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filter restorepoint.core.claims_by_host: which host of the inventory each claim belongs on.

Thin: core/placement.py does the work. Called by Ansible's templating.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: claims_by_host
short_description: Tell which host of the inventory each claim of Kubernetes belongs on
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Takes what M(restorepoint.core.hostpath_claims_info) found, and gives the claims of each host.
  - A host is the node of which it has a name or an address. A host is known by its name in the inventory, by
    C(ansible_host), and, where facts were gathered, by its host names and addresses. A node is known by its name, its
    label C(kubernetes.io/hostname) and its addresses. Where nothing whole fits, the first part of names counts.
  - A host that has the variable C(restorepoint_node) is the node of that name, and no other.
  - A claim whose host is not clear is an error, that names all of these claims.
positional: hostvars, hosts
options:
  _input:
    description: The result of M(restorepoint.core.hostpath_claims_info), with its C(claims) and C(nodes).
    type: dict
    required: true
  hostvars:
    description: Ansible's C(hostvars).
    type: dict
    required: true
  hosts:
    description: The hosts that may be nodes, such as C(groups.k8s_nodes). All of the inventory when it is not set.
    type: list
    elements: str
  nodes:
    description:
      - The nodes of claims whose volumes name none, or several, as a mapping from C(namespace/claim) to the node.
    type: dict
    default: {}
seealso:
  - module: restorepoint.core.hostpath_claims_info
  - module: restorepoint.core.hostpath_snapshot
"""

EXAMPLES = r"""
- name: Show what lies where
  ansible.builtin.debug:
    msg: "{{ found | restorepoint.core.claims_by_host(hostvars, groups.k8s_nodes, nodes={'shop/old': 'worker-2'}) }}"
"""

RETURN = r"""
_value:
  description:
    - For each of the hosts the list of its claims, as O(restorepoint.core.hostpath_snapshot#module:claims) takes it. It
      is empty for hosts that have none.
  type: dict
  sample: {"web1": [{"namespace": "shop", "pvc": "data", "pv": "pv-1", "path": "/srv/data", "node": "worker-1"}]}
"""

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.restorepoint.core.plugins.module_utils.core import placement
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput, RestorePointError

_ATTEMPT = "find the hosts of the claims"


def claims_by_host(found: Any, hostvars: Any, hosts: Any = None, nodes: Any = None) -> dict[str, list[dict[str, Any]]]:
    """Return the claims of each host; raise AnsibleFilterError with one sentence."""
    try:
        claims, every = _found(found)
        known = {name: placement.names_of_host(name, hostvars[name]) for name in _hosts(hostvars, hosts)}
        return placement.claims_by_host(claims, every, known, _chosen(nodes))
    except RestorePointError as error:
        raise AnsibleFilterError(str(error)) from None


def _found(found: Any) -> tuple[list[Mapping[str, Any]], list[placement.Node]]:
    if not isinstance(found, Mapping) or "claims" not in found or "nodes" not in found:
        raise InvalidInput(_ATTEMPT, "what came in has no claims and nodes", "give the result of hostpath_claims_info")
    nodes = [placement.Node(str(each["name"]), frozenset(map(str, each["names"]))) for each in found["nodes"]]
    return list(found["claims"]), nodes


def _hosts(hostvars: Any, hosts: Any) -> list[str]:
    if not isinstance(hostvars, Mapping):
        raise InvalidInput(_ATTEMPT, "hostvars is no mapping", "give the variable hostvars")
    names = list(hostvars) if hosts is None else list(hosts)
    unknown = [str(name) for name in names if name not in hostvars]
    if unknown:
        raise InvalidInput(_ATTEMPT, f"{', '.join(unknown)} is no host of the inventory", "give such as groups.all")
    return [str(name) for name in names]


def _chosen(nodes: Any) -> dict[str, str]:
    if nodes is None:
        return {}
    if not isinstance(nodes, Mapping):
        raise InvalidInput(_ATTEMPT, f"nodes is {nodes!r}", "write it as {'namespace/claim': 'node'}")
    return {str(name): str(node) for name, node in nodes.items()}


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Any]:
        return {"claims_by_host": claims_by_host}
