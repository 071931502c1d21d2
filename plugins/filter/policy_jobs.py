# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filter restorepoint.core.policy_jobs: what a scheduler has to know of policies.

Thin: engine/jobs.py does the work. Called by Ansible's templating.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: policy_jobs
short_description: Tell what a scheduler has to know of policies
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Takes policies and gives the jobs that M(restorepoint.core.schedule_layout) makes units for.
  - Lines of cron become expressions of systemd with the same moments.
  - Policies with faults are an error that names every fault with its place.
options:
  _input:
    description: A list of policies, or a mapping with them under C(policies). The guide describes their format.
    type: raw
    required: true
seealso:
  - module: restorepoint.core.schedule_layout
  - plugin: restorepoint.core.policies
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Make a service and a timer for each policy
  restorepoint.core.schedule_layout:
    jobs: "{{ restorepoint_policies | restorepoint.core.policy_jobs }}"
"""

RETURN = r"""
_value:
  description: A job for each policy, with the options of O(restorepoint.core.schedule_layout#module:jobs).
  type: list
  elements: dict
  sample:
    - name: production
      description: The shop
      calendar: ["Mon..Fri 08..20:00 Europe/Paris"]
      timezone: Europe/Paris
      hook_seconds: 120
      paths: [/etc/shop, /var/lib/restorepoint-store]
      own_programs: true
      drill:
        calendar: ["Sun 03:30 Europe/Paris"]
        paths: [/etc/shop, /var/lib/restorepoint-store]
        own_programs: true
      export: null
"""

from typing import Any

from ansible_collections.restorepoint.core.plugins.filter.policies import read
from ansible_collections.restorepoint.core.plugins.module_utils.engine.jobs import job


def policy_jobs(given: Any) -> list[dict[str, Any]]:
    """Return a job for each policy; raise AnsibleFilterError with every fault."""
    _document, found = read(given)
    return [job(each) for each in found]


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Any]:
        return {"policy_jobs": policy_jobs}
