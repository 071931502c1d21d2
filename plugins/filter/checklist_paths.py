# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filter restorepoint.core.checklist_paths: what on a host has to be looked at for its policies.

Thin: core/checklist.py judges. Called by the playbook checklist.yml.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: checklist_paths
short_description: Name the paths that a checklist looks at
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Names the data, the stores and the files with secrets that the policies of a host speak of.
options:
  _input:
    description: Policies, as their file has them.
    type: raw
    required: true
seealso:
  - name: The checklist
    description: Its points, and the variables of the playbook.
    link: https://github.com/restorepoint/core/blob/main/docs/checklist.md
"""

EXAMPLES = r"""
- name: Look at what the policies speak of
  ansible.builtin.stat:
    path: "{{ item }}"
  loop: "{{ restorepoint_policies | restorepoint.core.checklist_paths }}"
"""

RETURN = r"""
_value:
  description: The paths, sorted.
  type: list
  elements: str
  sample: [/srv/web, /var/lib/restorepoints]
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.restorepoint.core.plugins.module_utils.core import checklist


def checklist_paths(policies: Any) -> list[str]:
    """Return the paths; raise AnsibleFilterError for what are no policies."""
    try:
        return checklist.paths(policies)
    except (AttributeError, TypeError) as error:
        raise AnsibleFilterError(f"Cannot read the policies: {error}; give a list of policies.") from error


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"checklist_paths": checklist_paths}
