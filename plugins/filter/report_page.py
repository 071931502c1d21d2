# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filter restorepoint.core.report_page: what many hosts have reported, as one page.

Thin: core/report_page.py makes the page, core/report_read.py says what is a report. Called by Ansible's templating.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: report_page
short_description: Show the reports of many hosts as one page
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Takes what C(restorepoint report --json) has printed on each host, and gives one page for a browser.
  - The page needs no other file and asks nobody for anything. What is wrong on any host comes first.
  - A host that could not be reached, or that gave no report, is on it as well, with the reason.
  - What comes from hosts is checked before it is shown, and escaped.
options:
  _input:
    description: The result of the task that ran the agent, by the name of each host.
    type: dict
    required: true
  title:
    description: What the page is called.
    type: str
    default: Restore points of all hosts
seealso:
  - plugin: restorepoint.core.report_summary
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Have each host report
  ansible.builtin.command:
    argv: [/usr/local/sbin/restorepoint, report, --json]
  register: health_report
  changed_when: false
  failed_when: false
  ignore_unreachable: true

- name: Write one page of all reports
  ansible.builtin.copy:
    content: "{{ reports | restorepoint.core.report_page }}"
    dest: /var/www/html/restore-points.html
    mode: "0644"
  vars:
    hosts: "{{ ansible_play_hosts_all }}"
    reports: "{{ dict(hosts | zip(hosts | map('extract', hostvars, 'health_report'))) }}"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
_value:
  description: The page, in HTML.
  type: str
  sample: <!DOCTYPE html>...
"""

import json
import time
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.restorepoint.core.plugins.module_utils.core.report import without
from ansible_collections.restorepoint.core.plugins.module_utils.core.report_page import page
from ansible_collections.restorepoint.core.plugins.module_utils.core.report_read import understood
from ansible_collections.restorepoint.core.plugins.module_utils.core.snapshot import timestamp


def report_page(given: Any, title: str = "Restore points of all hosts") -> str:
    """Return the page; raise AnsibleFilterError where there is nothing to show."""
    moment = timestamp(int(time.time()))
    return page(read(given, moment), moment, str(title))


def read(given: Any, moment: str) -> list[dict[str, Any]]:
    """Return the report of each host, by the name that the inventory has for it; raise AnsibleFilterError."""
    if not isinstance(given, Mapping) or not given:
        raise AnsibleFilterError(
            "Cannot show reports: there are none; give a mapping of hosts to the results of their report."
        )
    return [_report(str(host), result, moment) for host, result in sorted(given.items())]


def _report(host: str, result: Any, moment: str) -> dict[str, Any]:
    result = result if isinstance(result, Mapping) else {}
    if result.get("unreachable"):
        return without(host, moment, str(result.get("msg") or "It could not be reached"), "unreachable")
    try:
        found = understood(json.loads(str(result.get("stdout") or "")))
    except InvalidInput as error:
        return without(host, moment, str(error), "no-report")
    except ValueError:
        return without(host, moment, f"It gave no report: {_reason(result)}", "no-report")
    return {**found, "host": host}


def _reason(result: Mapping[str, Any]) -> str:
    """Return what a host has said in the place of a report: its last words."""
    for key in ("stderr", "msg", "stdout"):
        lines = str(result.get(key) or "").strip().splitlines()
        if lines:
            return lines[-1]
    return "nothing was said"


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Any]:
        return {"report_page": report_page}
