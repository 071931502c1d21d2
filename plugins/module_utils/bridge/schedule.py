# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of schedule_layout, and its run. Called by that module.

May import ansible and what lies below.
"""

from __future__ import annotations

import os
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ..core.errors import InvalidInput
from ..lock import host_lock
from ..setup import systemd, systemd_host
from ..setup.plan import Plan, Step
from .layout import run_layout, unblocked

_LOCK_SECONDS = 60.0
_TEXTS: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
_EXTRA: dict[str, Any] = {
    "type": "dict",
    "options": {"calendar": _TEXTS, "paths": _TEXTS, "own_programs": {"type": "bool", "default": False}},
}

SPEC: dict[str, Any] = {
    "jobs": {
        "type": "list", "elements": "dict", "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "description": {"type": "str", "default": ""},
            "calendar": _TEXTS,
            "timezone": {"type": "str", "default": "UTC"},
            "hook_seconds": {"type": "int", "default": 0},
            "paths": _TEXTS,
            "own_programs": {"type": "bool", "default": False},
            "drill": _EXTRA,
            "export": _EXTRA,
        },
    },
    "program": {"type": "str", "default": "/usr/local/sbin/restorepoint"},
    "policies_file": {"type": "str", "default": "/etc/restorepoint/policies.json"},
    "state_folder": {"type": "str", "default": "/var/lib/restorepoint"},
    "randomized_delay": {"type": "str", "default": "1min"},
    "persistent": {"type": "bool", "default": True},
    "catch_up": {"type": "bool", "default": True},
    "nice": {"type": "int", "default": 10},
    "io_class": {"type": "str", "default": "idle", "choices": ["idle", "best-effort"]},
    "wait": {"type": "int", "default": 3600},
    "on_failure": _TEXTS,
    "harden": {"type": "bool", "default": True},
}  # fmt: skip


def run_schedule() -> NoReturn:
    """Run schedule_layout."""
    module = AnsibleModule(SPEC, supports_check_mode=True)

    def plan() -> Plan:
        jobs, settings = systemd.parse(module.params)
        known = systemd_host.version()
        wanted = systemd.units(jobs, settings, known)
        found = systemd_host.read(wanted, known)
        made = systemd.make_plan(wanted, found, systemd_host.FOLDER)
        new = any(isinstance(step, systemd.FileStep) and step.content is not None for step in made.steps)
        if new and not made.blockers and _has_agent(module, settings.program):
            calendar = [each for job in jobs for work in systemd.works(job) for each in work.calendar]
            systemd_host.object_to(wanted, list(dict.fromkeys(calendar)), known, made)
        return unblocked("the units of policies", made)

    def act(done: list[Step]) -> Plan:
        with host_lock("systemd", _LOCK_SECONDS, "make units"):
            found = plan()
            systemd_host.carry_out(found, done)
            return found

    run_layout(module, plan, act, {})


def _has_agent(module: AnsibleModule, program: str) -> bool:
    """Say whether the agent is there, without which systemd would object to each unit; needed outside check mode."""
    if os.access(program, os.X_OK):
        return True
    if not module.check_mode:
        raise InvalidInput("make units", f"there is no program {program}", "install the agent with the role agent")
    module.warn("The agent is not installed here yet: systemd was not asked about these units.")
    return False
