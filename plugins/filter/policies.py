# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filter restorepoint.core.policies: policies checked as a whole, before anything is installed.

Thin: engine/policy.py holds the rules. Called by Ansible's templating.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: policies
short_description: Check policies as a whole
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Takes the policies of a variable and gives them as the file has them that the agent reads.
  - Every fault of every policy is named with its place, in one error.
  - No host is looked at. Whether a dataset is there is seen when a policy runs.
options:
  _input:
    description: A list of policies, or a mapping with them under C(policies). The guide describes their format.
    type: raw
    required: true
seealso:
  - plugin: restorepoint.core.policy_jobs
    plugin_type: filter
"""

EXAMPLES = r"""
- name: See that the policies are sound
  ansible.builtin.debug:
    msg: "{{ restorepoint_policies | restorepoint.core.policies }}"
  vars:
    restorepoint_policies:
      - name: production
        targets:
          - backend: zfs
            dataset: [tank/shop]
        schedule: {calendar: daily}
        keep: {daily: 7}
"""

RETURN = r"""
_value:
  description: The policies under C(policies), unchanged.
  type: dict
  sample:
    policies:
      - name: production
        targets:
          - backend: zfs
            dataset: [tank/shop]
        schedule: {calendar: daily}
        keep: {daily: 7}
"""

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import RestorePointError
from ansible_collections.restorepoint.core.plugins.module_utils.engine.policy import Policy, parse_policies


def policies(given: Any) -> dict[str, Any]:
    """Return the policies as the file has them; raise AnsibleFilterError with every fault."""
    document, _unused = read(given)
    return document


def read(given: Any) -> tuple[dict[str, Any], list[Policy]]:
    """Return the policies as plain data, and as they are understood; raise AnsibleFilterError with every fault."""
    data = _plain(given)
    document = {"policies": data} if isinstance(data, list) else data
    try:
        # A host without any is a host from which all have been taken away.
        return document, ([] if document == {"policies": []} else parse_policies(document))
    except RestorePointError as error:
        raise AnsibleFilterError(str(error)) from None


def _plain(value: Any) -> Any:
    """Return what Ansible hands over as plain data: its own kinds of text and lists are none for everybody."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, bool) or value is None:
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return str(value)


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Any]:
        return {"policies": policies}
