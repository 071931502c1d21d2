# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filter restorepoint.core.restore_point_groups: the targets of a host by where they are reached.

Called by the role restore_point.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: restore_point_groups
short_description: Sort the targets of a restore point by where they are reached
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Takes the targets of a host and gives a group for each host that the module M(restorepoint.core.restore_point) has
    to run on. A target says so with C(delegate_to), and with C(become) whether as another user.
  - It is a part of the role P(restorepoint.core.restore_point#role).
options:
  _input:
    description: A list of targets, or the same as JSON or YAML text, as a survey of AWX gives it.
    type: raw
    required: true
  host:
    description: The host that targets without C(delegate_to) lie on.
    type: str
    required: true
positional: host
seealso:
  - module: restorepoint.core.restore_point
"""

EXAMPLES = r"""
- name: Look at the targets, each where it is reached
  restorepoint.core.restore_point:
    name: pre-upgrade
    targets: "{{ item.targets }}"
  check_mode: true
  delegate_to: "{{ item.delegate_to }}"
  loop: "{{ restore_point_targets | restorepoint.core.restore_point_groups(inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: The groups, in the order of the targets.
  type: list
  elements: dict
  sample:
    - delegate_to: localhost
      become: false
      label: "pve on localhost"
      targets: [{"backend": "pve", "vmid": ["101"], "api_host": "pve1.example.org"}]
"""

from collections.abc import Mapping
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean


def restore_point_groups(given: Any, host: str) -> list[dict[str, Any]]:
    """Return the groups of a host's targets; raise AnsibleFilterError where they are no list of mappings."""
    attempt = f"read restore_point_targets of {host}"
    if isinstance(given, str):
        try:
            given = yaml.safe_load(given) or []
        except yaml.YAMLError as error:
            raise AnsibleFilterError(f"Cannot {attempt}: it is no YAML; write a list of mappings.") from error
    if given is None:
        given = []
    if not isinstance(given, list) or not all(isinstance(each, Mapping) for each in given):
        raise AnsibleFilterError(f"Cannot {attempt}: it is no list of mappings; each target names its backend.")
    groups: dict[tuple[str, Any], list[dict[str, Any]]] = {}
    for each in given:
        become = each.get("become")
        become = None if become in (None, "") else boolean(become)
        place = str(each.get("delegate_to") or host)
        target = {key: value for key, value in each.items() if key not in ("delegate_to", "become")}
        groups.setdefault((place, become), []).append(target)
    return [_group(place, become, targets) for (place, become), targets in groups.items()]


def _group(place: str, become: bool | None, targets: list[dict[str, Any]]) -> dict[str, Any]:
    backends = ", ".join(dict.fromkeys(str(each.get("backend")) for each in targets))
    group: dict[str, Any] = {"delegate_to": place, "label": f"{backends} on {place}", "targets": targets}
    return group if become is None else {**group, "become": become}


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Any]:
        return {"restore_point_groups": restore_point_groups}
