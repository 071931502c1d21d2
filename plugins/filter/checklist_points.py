# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filter restorepoint.core.checklist_points: what was gathered on a host, judged point by point.

Thin: core/checklist.py judges. Called by the playbook checklist.yml.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: checklist_points
short_description: Judge a host point by point
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Judges what the playbook C(checklist.yml) has gathered on a host.
options:
  _input:
    description: What was gathered, as the playbook gathers it.
    type: dict
    required: true
seealso:
  - name: The checklist
    description: Its points, and the variables of the playbook.
    link: https://github.com/restorepoint/core/blob/main/docs/checklist.md
"""

EXAMPLES = r"""
- name: Judge
  ansible.builtin.set_fact:
    checklist_points: "{{ checklist_facts | restorepoint.core.checklist_points }}"
"""

RETURN = r"""
_value:
  description: The points. C(state) is V(ok), V(failed), V(warning) or V(unknown); C(line) is for people to read.
  type: list
  elements: dict
  sample:
    - check: agent
      subject: ""
      state: ok
      found: installed, and of this version
      todo: ""
      line: "\u2713 agent: installed, and of this version"
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.restorepoint.core.plugins.module_utils.core import checklist


def checklist_points(facts: Any) -> list[dict[str, str]]:
    """Return the points; raise AnsibleFilterError where something was not gathered."""
    try:
        return [{**point.data(), "line": point.line()} for point in checklist.points(facts)]
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"Cannot judge the host: {error!r}; gather it as checklist.yml does.") from error


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"checklist_points": checklist_points}
