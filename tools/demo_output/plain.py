# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the demonstration looks like on a terminal: titles, sentences, one line for each call and each proof.

Ansible loads it as the stdout callback ``plain`` where tools/demo.py names this folder; it is no part of the
collection. Without it, ``ansible-playbook restorepoint.core.demo`` shows the same in Ansible's own dress.
"""

from __future__ import annotations

import shutil
import textwrap
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: plain
type: stdout
short_description: Plain text for the demonstration
description:
  - Shows titles, messages, calls of this collection, and what was proven. Everything else is left out unless it fails.
"""

_OURS = "restorepoint.core."
_WIDTH = min(shutil.get_terminal_size((100, 24)).columns, 100)


def _wrapped(text: str, first: str, rest: str) -> str:
    """Return a line with its indent, broken between words where it is too long for the terminal."""
    if len(first + text) <= _WIDTH:
        return first + text
    return textwrap.fill(text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False)


class CallbackModule(CallbackBase):
    """Prints what a newcomer wants to read, and all there is when something fails."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "plain"

    def __init__(self) -> None:
        super().__init__()
        self._begun = time.monotonic()

    def _say(self, text: str, color: str | None = None) -> None:
        self._display.display(text, color=color)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Print a play's name as the title."""
        self._say(f"\n{play.get_name()}", "bright blue")

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Remember when a task began."""
        self._begun = time.monotonic()

    def v2_runner_on_ok(self, result: Any) -> None:
        """Print what a task has to say, if it is one of those that are shown."""
        task, data = result._task, result._result
        if task.action.endswith("debug"):
            self._title(task.get_name())
            message = data.get("msg", [])
            self._message([message] if isinstance(message, str) else message)
        elif task.action.endswith("assert"):
            self._say(_wrapped(data["msg"], "  proven         ", " " * 17), "green")
        elif task.action.startswith(_OURS):
            self._call(task, data)

    def _title(self, name: str) -> None:
        if name != "Say":
            self._say(f"\n{name}", "bright blue")

    def _message(self, lines: list[str]) -> None:
        for line in "\n".join(lines).splitlines():
            self._say(_wrapped(line, "  ", "    " if line.startswith(("- ", "| ")) else "  "))

    def _call(self, task: Any, data: dict[str, Any]) -> None:
        word = "changed" if data.get("changed") else "no change"
        if task.action.endswith("_info"):
            word = "looked"
        elif task.check_mode and data.get("changed"):
            word = "would change"
        colour = "yellow" if data.get("changed") else "green"
        self._say(f"  {word:13}  {task.get_name()}  ({time.monotonic() - self._begun:.1f} s)", colour)
        for warning in data.get("warnings") or ():
            self._say(_wrapped(warning, "  warning        ", " " * 17), "bright purple")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Print a failure in full, or its message alone where the failure was expected."""
        task, data = result._task, result._result
        if ignore_errors:
            self._say(f"  refused        {task.get_name()}: {data.get('msg')}", "yellow")
            return
        self._say(f"\nFAILED: {task.get_name()}", "red")
        self._say(self._dump_results(data, indent=2), "red")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Print that this host cannot be worked on, and why."""
        self.v2_runner_on_failed(result)
