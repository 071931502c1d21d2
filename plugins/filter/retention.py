# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filter restorepoint.core.retention: what the keep rules would do to a list of snapshots, as a playbook has it.

Thin: core/preview.py does the work. Called by Ansible's templating.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: retention
short_description: Show which snapshots the keep rules would keep, and why
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Gives a list of snapshots back with what the keep rules would do to each of them. Nothing is removed.
  - It is the same code that O(restorepoint.core.hostpath_snapshot#module:state=pruned) uses, so that rules can be tried
    out before they are used. It works with snapshots of any kind.
  - The counting rules work as in Proxmox VE. They are applied from the finest to the coarsest, each from the newest
    snapshot to the oldest, and a coarser rule passes over periods that a finer one has covered.
  - Snapshots that are held, in use, not ready, dated more than five minutes ahead, younger than O(min_age), or that
    belong to another owner always stay and use up no slot.
  - Each target is planned apart.
positional: keep
options:
  _input:
    description:
      - The snapshots, as mappings. What the info modules return can be used as it is.
      - Each has a C(name), and C(created) in ISO 8601 with its offset from UTC.
      - Each may have C(target) and C(backend), C(owner), C(sequence) (a number that orders snapshots of one second),
        C(ready), and C(held) and C(in_use), which are true or false or a reason in words.
    type: list
    elements: dict
    required: true
  keep:
    description:
      - How many snapshots stay by each rule. V(-1) keeps one of every period; V(0) is the same as leaving the rule out.
      - Without any rule everything stays, and a warning says so.
    type: dict
    required: true
    suboptions:
      last:
        description: How many of the newest snapshots stay.
        type: int
      hourly:
        description: For how many hours the newest snapshot of the hour stays. Hours are those of UTC.
        type: int
      daily:
        description: For how many days the newest snapshot of the day stays.
        type: int
      weekly:
        description: For how many ISO weeks the newest snapshot of the week stays.
        type: int
      monthly:
        description: For how many months the newest snapshot of the month stays.
        type: int
      quarterly:
        description: For how many quarters the newest snapshot of the quarter stays.
        type: int
      yearly:
        description: For how many years the newest snapshot of the year stays.
        type: int
      within:
        description: Everything younger than this stays, such as V(48h), whatever the counts say.
        type: str
      max_age:
        description:
          - Everything older than this goes, even if another rule would keep it.
          - Given alone, everything younger stays.
        type: str
  timezone:
    description: The time zone in which days, weeks, months, quarters and years begin, such as V(Europe/Paris).
    type: str
    default: UTC
  now:
    description: The moment to plan for, in ISO 8601 with its offset from UTC. The default is the present.
    type: str
  min_keep:
    description: So many of the newest snapshots stay, whatever the rules say. The newest one stays in any case.
    type: int
    default: 1
  min_age:
    description: Snapshots younger than this are never removed, such as V(1h).
    type: str
  max_delete:
    description:
      - Fail when the rules would remove more than this from one target.
      - A number, or a percentage of the snapshots that could go, such as V(20%).
    type: str
  require_recent:
    description: Remove nothing from a target whose newest usable snapshot is older than this, such as V(2d).
    type: str
  owner:
    description:
      - Thin out only the snapshots of this owner. All others stay.
      - Without this option, the snapshots of each owner are planned apart. Those without the key C(owner) are planned
        together. Those whose C(owner) is null or empty were taken by somebody else, and stay.
    type: str
  match:
    description:
      - Also thin out snapshots of other owners whose name matches one of these patterns, such as V(pre-upgrade-*).
    type: list
    elements: str
    default: []
seealso:
  - plugin: restorepoint.core.snapshot_name
    plugin_type: lookup
  - module: restorepoint.core.hostpath_snapshot
"""

EXAMPLES = r"""
- name: Show what 24 hourly and 7 daily snapshots would leave of a list
  ansible.builtin.debug:
    msg: "{{ snapshots | restorepoint.core.retention(keep={'hourly': 24, 'daily': 7}, timezone='Europe/Paris') }}"
  vars:
    snapshots:
      - name: hourly-20261121t220000z
        created: '2026-11-21T22:00:00Z'
      - name: hourly-20261121t230000z
        created: '2026-11-21T23:00:00Z'
        held: legal

- name: List what is there
  restorepoint.core.hostpath_snapshot_info:
    store: /backup/store
  register: there

- name: Name what would go, and why
  ansible.builtin.debug:
    msg: "{{ item.target }}: {{ item.name }} ({{ item.reason }})"
  loop: "{{ there.snapshots | restorepoint.core.retention(keep=rules) | rejectattr('keep') }}"
  loop_control:
    label: "{{ item.name }}"
  vars:
    rules:
      daily: 7
      weekly: 4
      within: 48h

- name: Stop here when the rules would take more than a fifth
  ansible.builtin.set_fact:
    outlook: "{{ there.snapshots | restorepoint.core.retention({'daily': 7}, owner='nightly', max_delete='20%') }}"
"""

RETURN = r"""
_value:
  description:
    - The same mappings in the same order, each with two more keys. All other keys are left as they are.
  type: list
  elements: dict
  contains:
    keep:
      description: Whether the snapshot would stay.
      type: bool
      sample: true
    reason:
      description: Why it would stay or go.
      type: str
      sample: daily 3/7
"""

import time
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput, RestorePointError
from ansible_collections.restorepoint.core.plugins.module_utils.core.preview import preview, read_moment
from ansible_collections.restorepoint.core.plugins.module_utils.core.retention import parse_policy


def retention(
    snapshots: Any,
    keep: Any,
    timezone: str = "UTC",
    now: Any = None,
    min_keep: Any = 1,
    min_age: str | None = None,
    max_delete: Any = None,
    require_recent: str | None = None,
    owner: str | None = None,
    match: Any = (),
) -> list[dict[str, Any]]:
    """Return the snapshots with ``keep`` and ``reason``; raise AnsibleFilterError with one sentence."""
    try:
        policy = parse_policy(keep, timezone, min_keep, min_age, max_delete, require_recent)
        found, warnings = preview(snapshots, policy, _moment(now), _owner(owner), _globs(match))
    except RestorePointError as error:
        raise AnsibleFilterError(str(error)) from None
    for warning in warnings:
        Display().warning(f"retention: {warning}")
    return found


def _moment(now: Any) -> int:
    if now is None:
        return int(time.time())
    try:
        return read_moment(now)
    except ValueError as error:
        raise InvalidInput(f"read now: {now}", str(error), "write it as 2026-11-22T00:00:00Z") from None


def _owner(owner: Any) -> str | None:
    if owner is None or (isinstance(owner, str) and owner):
        return owner
    raise InvalidInput(f"read owner: {owner!r}", "it is not the name of an owner", "name one, or leave it out")


def _globs(match: Any) -> list[str]:
    globs = [match] if isinstance(match, str) else match
    if isinstance(globs, (list, tuple)) and all(isinstance(glob, str) for glob in globs):
        return list(globs)
    raise InvalidInput(f"read match: {match!r}", "it is not a list of patterns", "write such as ['pre-upgrade-*']")


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Any]:
        return {"retention": retention}
