# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A callback plugin of Ansible that kills the control node at one step of a play, and notes all steps.

``RP_KILL`` is ``{task}|{which time}|start`` or ``...|first``: when that task begins, or when the first host is done
with it. ``RP_STEPS`` is a file to which each step is written. Loaded by plays.py through
ANSIBLE_CALLBACK_PLUGINS.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: kill_control_node
type: aggregate
short_description: Kills the control node at one step
description: [For tests.]
"""


class CallbackModule(CallbackBase):
    """What Ansible asks for."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "kill_control_node"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        name, time, moment = (os.environ.get("RP_KILL") or "||").split("|")
        self._at = (name, int(time or 0), moment)
        self._begun: dict[str, int] = {}

    def _step(self, task: Any, moment: str) -> None:
        name = task.get_name().rpartition(" : ")[2]
        if moment == "start":
            self._begun[name] = self._begun.get(name, 0) + 1
        with open(os.environ["RP_STEPS"], "a", encoding="utf-8") as stream:
            stream.write(f"{name}|{self._begun[name]}|{moment}\n")
        if (name, self._begun[name], moment) == self._at:
            os.kill(os.getpid(), signal.SIGKILL)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._step(task, "start")

    def v2_runner_on_ok(self, result: Any) -> None:
        self._step(getattr(result, "task", None) or result._task, "first")
