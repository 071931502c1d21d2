# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filter restorepoint.core.checklist_to_do: what is not in order, host by host.

Thin: core/checklist.py judges. Called by the playbook checklist.yml.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: checklist_to_do
short_description: Name what is not in order
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Names the points of all hosts that are not ticked, each with its host in front.
options:
  _input:
    description: The points by host, as P(restorepoint.core.checklist_points#filter) gives them.
    type: dict
    required: true
seealso:
  - name: The checklist
    description: Its points, and the variables of the playbook.
    link: https://github.com/restorepoint/core/blob/main/docs/checklist.md
"""

EXAMPLES = r"""
- name: Name what is to be done
  ansible.builtin.debug:
    msg: "{{ {'web': checklist_points} | restorepoint.core.checklist_to_do }}"
"""

RETURN = r"""
_value:
  description: A line for each, in the order of the hosts.
  type: list
  elements: str
  sample: ["web: \u2717 agent: it is not installed; play restorepoint.core.schedule"]
"""

from typing import Any

from ansible.errors import AnsibleFilterError


def checklist_to_do(hosts: Any) -> list[str]:
    """Return the lines; raise AnsibleFilterError for what are no points."""
    try:
        return [f"{host}: {point['line']}" for host in hosts for point in hosts[host] if point["state"] != "ok"]
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError(
            f"Cannot name what is to be done: {error!r}; give a list of points for each host."
        ) from error


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"checklist_to_do": checklist_to_do}
