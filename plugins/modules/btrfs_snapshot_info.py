# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What restore points of Btrfs subvolumes there are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: btrfs_snapshot_info
short_description: Show and verify restore points of Btrfs subvolumes
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Lists the snapshots in a store, of some subvolumes or of all, and the contents that returns have set aside.
  - Can tell what each of them holds alone, and can prove that each is what was taken.
extends_documentation_fragment:
  - restorepoint.core.attributes.info
  - restorepoint.core.attributes.actiongroup_btrfs
  - restorepoint.core.btrfs
  - restorepoint.core.snapshot.fields
options:
  subvolume:
    description: Show only those of these subvolumes, each an absolute path. Without it the whole store is shown.
    type: list
    elements: path
  name:
    description: Show only snapshots of this name.
    type: str
  sizes:
    description:
      - Tell what removing each snapshot would free, and what it refers to, with the subvolumes taken with it.
      - Where quotas are on, the quota groups tell it at once. Elsewhere every extent is looked at, which takes a while.
        RV(snapshots[].extra) says which under C(measured_by).
    type: bool
    default: false
  verify:
    description:
      - Say of each snapshot whether it is the one that was taken, read-only, and never written to since.
      - That its blocks are as they were written is for C(btrfs scrub) to say.
    type: bool
    default: false
seealso:
  - module: restorepoint.core.btrfs_snapshot
requirements:
  - "python >= 3.9"
  - btrfs-progs
  - Linux 4.18 or newer
"""

EXAMPLES = r"""
- name: Show every snapshot in a store, and what each holds alone
  restorepoint.core.btrfs_snapshot_info:
    store: /srv/.restorepoints
    sizes: true
  register: store

- name: Prove that a snapshot is what was taken
  restorepoint.core.btrfs_snapshot_info:
    store: /srv/.restorepoints
    subvolume: /srv/data
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
      sample: btrfs
    target:
      description: The subvolume.
      type: str
      sample: /srv/web
    name:
      description: The snapshot's name.
      type: str
      sample: pre-upgrade
    created:
      description: When it was taken, in UTC.
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
      description: What removing it would free. Known with O(sizes=true).
      type: int
      sample: 4500000
    referenced_bytes:
      description: How many bytes it refers to. Known with O(sizes=true).
      type: int
      sample: 450000000
    parent:
      description: The snapshot it depends on. Snapshots of subvolumes depend on none.
      type: str
    ready:
      description: Whether it could be returned to. RV(snapshots[].extra) says under C(fault) why not.
      type: bool
      sample: true
    held:
      description: Why it may not be removed, if so.
      type: str
    in_use:
      description: Who uses it, if anybody does. An aside that is still mounted is in use.
      type: str
    extra:
      description: What only this backend knows.
      type: dict
      sample: {"uuid": "1b4e28ba-2fa1-41d2-883f-0016d3cca427", "generation": 4711, "nested": [], "left_out": ["db"]}
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
  description: Whether each snapshot is what was taken.
  returned: O(verify=true)
  type: list
  elements: dict
  contains:
    target:
      description: The subvolume.
      type: str
      sample: /srv/web
    name:
      description: The snapshot.
      type: str
      sample: pre-upgrade
    ok:
      description: Whether it, and each subvolume taken with it, is what was taken.
      type: bool
      sample: false
    proof:
      description: What was compared.
      type: str
      sample: the UUID it was given, read-only, and not written to since
    fault:
      description: What is wrong with it, if anything is.
      type: str
      sample: its subvolume was made writable
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.btrfs import run_info


def main() -> None:
    run_info()


if __name__ == "__main__":
    main()
