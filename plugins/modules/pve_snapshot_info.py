# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What restore points of Proxmox VE guests there are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pve_snapshot_info
short_description: Show restore points of Proxmox VE guests
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Lists the snapshots of some guests, or of the whole cluster, flat and as a tree.
  - Can show the configuration that each snapshot has stored, and how it differs from the present one.
extends_documentation_fragment:
  - restorepoint.core.attributes.info
  - restorepoint.core.attributes.actiongroup_pve
  - restorepoint.core.pve
  - restorepoint.core.snapshot.fields
options:
  name:
    description: Show only snapshots of this name. The trees stay whole.
    type: str
    aliases: [snapname]
  config:
    description: Show the configuration that each snapshot has stored. It means a call for each snapshot.
    type: bool
    default: false
  compare:
    description: Show how that configuration differs from the present one.
    type: bool
    default: false
  text:
    description: Also give each tree as text, in the layout of C(qm listsnapshot), with times in UTC.
    type: bool
    default: false
notes:
  - Without any option that selects guests, all of the cluster are shown.
seealso:
  - module: restorepoint.core.pve_snapshot
"""

EXAMPLES = r"""
- name: Show every snapshot of the cluster
  restorepoint.core.pve_snapshot_info:
    api_host: pve1.example.com
    api_user: ops@pve
    api_token_id: ansible
    api_token_secret: "{{ vault_pve_secret }}"
    text: true
  register: cluster

- name: Print the trees as qm listsnapshot does
  ansible.builtin.debug:
    msg: "{{ cluster.listing | dict2items | map('join', '\n', attribute='value') }}"

- name: What was changed on a guest's configuration since a snapshot
  restorepoint.core.pve_snapshot_info:
    transport: pvesh
    vmid: 100
    name: before-upgrade
    compare: true
"""

RETURN = r"""
guests:
  description: The guests that matched.
  returned: success
  type: list
  elements: dict
  sample:
    - target: qemu/100
      vmid: 100
      guest: web
      node: pve1
      type: qemu
      status: running
      running: true
      current_parent: before-upgrade
      snapshot_count: 1
      tags: [prod]
      pool: shop
      lock: null
      template: false
snapshots:
  description: Every snapshot, by guest, oldest first.
  returned: success
  type: list
  elements: dict
  contains:
    backend:
      description: The kind of storage, V(pve).
      type: str
      sample: pve
    target:
      description: The guest.
      type: str
      sample: qemu/100
    name:
      description: The name of the snapshot.
      type: str
      sample: before-upgrade
    created:
      description: When it was taken (UTC).
      type: str
      sample: "2026-11-22T01:30:00Z"
    owner:
      description: Who took it. None if it was not taken with this collection.
      type: str
      sample: manual
    policy:
      description: The policy that took it.
      type: str
      sample: nightly
    description:
      description: Its description, without the line that this collection writes into it.
      type: str
      sample: Before version 2
    labels:
      description: Its labels.
      type: dict
      sample: {"change": "CHG0001"}
    size_bytes:
      description: Not known for Proxmox VE.
      type: int
      sample: null
    referenced_bytes:
      description: Not known for Proxmox VE.
      type: int
      sample: null
    parent:
      description: The snapshot that it is based on.
      type: str
      sample: nightly-20261121t013000z
    ready:
      description: Whether one can return to it. RV(snapshots[].extra) says under C(fault) why not.
      type: bool
      sample: true
    held:
      description: Proxmox VE has no holds.
      type: str
      sample: null
    in_use:
      description: Proxmox VE does not tell.
      type: str
      sample: null
    extra:
      description:
        - What only Proxmox VE has. The guest (C(vmid), C(guest), C(node), C(type)), C(vmstate) (with RAM),
          C(current_parent) (the present state is based on it), C(sequence) (the number of its ancestors), and where
          there is one, C(snapstate), C(fault), C(once) and C(aside_of).
      type: dict
      sample: {"vmid": 100, "guest": "web", "node": "pve1", "type": "qemu", "vmstate": false, "current_parent": true}
    config:
      description: The configuration that it has stored. Only with O(config).
      type: dict
      sample: {"cores": 2, "memory": "2048"}
    differences:
      description: Each setting that is another one now. Only with O(compare).
      type: dict
      sample: {"memory": {"snapshot": "2048", "now": "4096"}}
asides:
  description: What returns have kept aside, in the same form.
  returned: success
  type: list
  elements: dict
  sample: []
tree:
  description: The snapshots of each guest as a tree. The present state is called C(current).
  returned: success
  type: dict
  sample:
    qemu/100:
      - name: before-upgrade
        created: "2026-11-22T01:30:00Z"
        description: Before version 2
        ready: true
        children:
          - name: current
            created: null
            description: You are here!
            ready: true
            children: []
listing:
  description: The trees as text.
  returned: with O(text)
  type: dict
  sample: {"qemu/100": "`-> current                                             You are here!"}
api_calls:
  description: How many calls of the API were made, without the login.
  returned: success
  type: int
  sample: 42
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.pve import run_info


def main() -> None:
    run_info()


if __name__ == "__main__":
    main()
