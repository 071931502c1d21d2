# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What restore points of directories there are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hostpath_snapshot_info
short_description: Show and verify restore points of directories
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Lists the snapshots in a store, of some directories or of all, and the contents that returns have set aside.
  - Can measure what each of them holds alone, and can compare each with its manifest.
extends_documentation_fragment:
  - restorepoint.core.attributes.info
  - restorepoint.core.attributes.actiongroup_hostpath
  - restorepoint.core.hostpath
  - restorepoint.core.kubernetes
  - restorepoint.core.snapshot.fields
options:
  name:
    description: Show only snapshots of this name.
    type: str
  sizes:
    description:
      - Measure what removing each snapshot would free, and what it shares with others. It means looking at every file.
    type: bool
    default: false
  verify:
    description:
      - Compare each snapshot with its manifest and name every file that differs.
      - It proves kind, size, mode, owner, times and attributes, and where the snapshot was taken with C(checksum) every
        byte. RV(verified[].proof) says which.
    type: bool
    default: false
notes:
  - With neither O(path) nor O(namespace) the whole store is shown.
seealso:
  - module: restorepoint.core.hostpath_snapshot
requirements:
  - "python >= 3.9"
  - "kubernetes >= 24, with O(namespace), for logins other than by a token or a client certificate"
"""

EXAMPLES = r"""
- name: Show every snapshot in a store
  restorepoint.core.hostpath_snapshot_info:
    store: /srv/.restorepoints
  register: store

- name: Name those that are older than a day
  ansible.builtin.debug:
    msg: "{{ store.snapshots | selectattr('created', 'lt', limit) | map(attribute='name') | list }}"
  vars:
    limit: "{{ '%Y-%m-%dT%H:%M:%SZ' | strftime(now().timestamp() | int - 86400, utc=true) }}"

- name: Prove that a snapshot is as it was written
  restorepoint.core.hostpath_snapshot_info:
    store: /srv/.restorepoints
    path: /srv/web
    name: pre-upgrade
    verify: true
  register: proof
  failed_when: not (proof.verified | map(attribute='ok') is all)
"""

RETURN = r"""
snapshots:
  description: The snapshots, oldest first within each target.
  returned: success
  type: list
  elements: dict
  contains:
    backend:
      description: The kind of storage.
      type: str
      sample: hostpath
    target:
      description: The directory.
      type: str
      sample: /srv/web
    name:
      description: The snapshot's name.
      type: str
      sample: pre-upgrade
    created:
      description: When it was begun, in UTC.
      type: str
      sample: "2026-11-22T01:30:00Z"
    owner:
      description: Who took it.
      type: str
      sample: manual
    policy:
      description: The policy that took it, if one did.
      type: str
      sample: nightly
    description:
      description: What it is for.
      type: str
      sample: Before version 2
    labels:
      description: Its labels.
      type: dict
      sample: {"app": "web"}
    size_bytes:
      description: What removing it would free. Known with O(sizes=true), and not where blocks are shared by reflinks.
      type: int
      sample: 4500000
    referenced_bytes:
      description: How many bytes its files hold.
      type: int
      sample: 450000000
    parent:
      description: The snapshot it depends on. Snapshots of directories depend on none.
      type: str
    ready:
      description: Whether it could be returned to. RV(snapshots[].extra) says under C(fault) why not.
      type: bool
      sample: true
    held:
      description: Why it may not be removed, if so.
      type: str
    in_use:
      description: Who uses it, if anybody does.
      type: str
    extra:
      description: What only this backend knows.
      type: dict
      sample: {"strategy": "hardlink", "files": 100000, "source": "/srv/web", "host": "node1"}
asides:
  description: The contents that returns have set aside, in the same form.
  returned: success
  type: list
  elements: dict
  sample: []
tree:
  description: The snapshots by target.
  returned: success
  type: dict
  sample: {"/srv/web": [{"name": "pre-upgrade", "created": "2026-11-22T01:30:00Z", "ready": true, "children": []}]}
verified:
  description: What comparing each snapshot with its manifest has found.
  returned: O(verify=true)
  type: list
  elements: dict
  contains:
    target:
      description: The directory.
      type: str
      sample: /srv/web
    name:
      description: The snapshot.
      type: str
      sample: pre-upgrade
    ok:
      description: Whether all of it is as it was written.
      type: bool
      sample: false
    proof:
      description: What was compared.
      type: str
      sample: every byte
    faults:
      description: The files that differ, and how. The first 1000.
      type: list
      elements: dict
      sample: [{"path": "conf/site.yml", "fault": "has other content than its checksum says"}]
    fault_count:
      description: How many differ.
      type: int
      sample: 1
    files:
      description: How many files were looked at.
      type: int
      sample: 100000
    bytes_read:
      description: How many bytes were read for that.
      type: int
      sample: 450000000
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.hostpath import run_info


def main() -> None:
    run_info()


if __name__ == "__main__":
    main()
