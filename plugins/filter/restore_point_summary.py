# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filter restorepoint.core.restore_point_summary: what a run of the role restore_point has done, in lines for
people."""

from __future__ import annotations

DOCUMENTATION = r"""
name: restore_point_summary
short_description: Tell in lines what a run of the role restore_point has done
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - It is a part of the role P(restorepoint.core.restore_point#role).
options:
  _input:
    description: What the module M(restorepoint.core.restore_point_gate) has collected, or nothing.
    type: dict
    required: true
  result:
    description: The fact C(restore_point_result) of the role.
    type: dict
    required: true
  notes:
    description: What else there is to say.
    type: list
    elements: str
    default: []
positional: result, notes
seealso:
  - module: restorepoint.core.restore_point
"""

EXAMPLES = r"""
- name: Show what was done
  ansible.builtin.debug:
    msg: "{{ collected | restorepoint.core.restore_point_summary(restore_point_result) }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
  sample:
    - "pre-upgrade: present on 2 hosts, spread over 1.2 seconds"
    - "web1 zfs:tank/shop created"
"""

from collections.abc import Mapping, Sequence
from typing import Any

#: So many lines are shown; a fleet may have thousands.
_SHOWN = 200


def restore_point_summary(done: Mapping[str, Any], result: Mapping[str, Any], notes: Sequence[str] = ()) -> list[str]:
    """Return the lines."""
    hosts = result["hosts"]
    head = f"{result['name'] or 'restore points'}: {result['state']} on {len(hosts)} host{'s' * (len(hosts) != 1)}"
    spread = done.get("spread_seconds")
    if spread is not None:
        head += f", spread over {spread} seconds by the hosts' clocks"
    if not done.get("any_changed"):
        head += ", nothing was to be done"
    lines = [
        f"{host} {each['target']} {each['action']}"
        for host, several in (done.get("results") or {}).items()
        for each in several
        if each.get("changed") or each.get("action") in ("failed", "none")
    ]
    if len(lines) > _SHOWN:
        lines = [*lines[:_SHOWN], f"and {len(lines) - _SHOWN} more"]
    return [head, *notes, *lines]


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Any]:
        return {"restore_point_summary": restore_point_summary}
