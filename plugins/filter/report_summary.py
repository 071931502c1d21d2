# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filter restorepoint.core.report_summary: how many hosts are well, and which are not.

Thin: the filter report_page reads the reports. Called by Ansible's templating.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: report_summary
short_description: Sum up the reports of many hosts
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Takes what C(restorepoint report --json) has printed on each host, and gives a few numbers and names.
  - It holds no text that a host has written, so it may be passed on, such as to other jobs of a workflow in AWX.
options:
  _input:
    description: The result of the task that ran the agent, by the name of each host.
    type: dict
    required: true
seealso:
  - plugin: restorepoint.core.report_page
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Pass on how the fleet is
  ansible.builtin.set_stats:
    data:
      restore_points: "{{ reports | restorepoint.core.report_summary }}"
    per_host: false
  vars:
    hosts: "{{ ansible_play_hosts_all }}"
    reports: "{{ dict(hosts | zip(hosts | map('extract', hostvars, 'health_report'))) }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: How all hosts are. A host is in one of the lists.
  type: dict
  sample:
    status: critical
    hosts: 4
    policies: 5
    targets: 9
    restore_points: 240
    problems: 3
    ok: [db2, web1]
    warning: []
    critical: [db1]
    unknown: []
    unreachable: [db3]
"""

import time
from typing import Any

from ansible_collections.restorepoint.core.plugins.filter.report_page import read
from ansible_collections.restorepoint.core.plugins.module_utils.core.report_words import LEVELS, worst
from ansible_collections.restorepoint.core.plugins.module_utils.core.snapshot import timestamp


def report_summary(given: Any) -> dict[str, Any]:
    """Return the summary; raise AnsibleFilterError where there is nothing to sum up."""
    reports = read(given, timestamp(int(time.time())))
    policies = [policy for each in reports for policy in each["policies"]]
    lists: dict[str, list[str]] = {name: [] for name in (*LEVELS, "unreachable")}
    for each in reports:
        kinds = {problem["kind"] for problem in each["problems"]}
        lists["unreachable" if "unreachable" in kinds else each["status"]].append(each["host"])
    return {
        "status": worst(each["status"] for each in reports),
        "hosts": len(reports),
        "policies": len(policies),
        "targets": sum(each["target_count"] for each in policies),
        "restore_points": sum(each["snapshot_count"] for each in policies),
        "problems": sum(len(each["problems"]) for each in reports),
        **lists,
    }


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Any]:
        return {"report_summary": report_summary}
