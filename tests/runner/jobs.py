# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plays of the collection's playbooks as AWX plays them: real ansible-runner, a private folder, variables from surveys.

What surveys give is text, and an optional question without an answer is empty text. The checkout is the project. Called
by the tests of this folder, and by those of tests/cluster.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}

#: What the process of a job does: it takes the arguments of ansible_runner.run, and tells what stands in Played.
RUN = """
import json, pathlib, sys
import ansible_runner

done = ansible_runner.run(**json.load(sys.stdin))
ends = [event["event_data"] for event in done.events if event["event"] == "playbook_on_stats"]
stats = done.stats or {"changed": {}, "failures": {}}
told = {
    "status": done.status,
    "changed": sum(stats["changed"].values()),
    "failed": sum(stats["failures"].values()),
    "artifacts": ends[-1].get("artifact_data") or {} if ends else {},
    "output": pathlib.Path(done.config.artifact_dir, "stdout").read_text(encoding="utf-8"),
}
print(json.dumps(told))
"""


@dataclass
class Played:
    """How a job ended: as AWX sees it. ``artifacts`` is what AWX shows and gives to the next node of a workflow."""

    status: str
    changed: int
    failed: int
    artifacts: dict[str, Any]
    output: str

    def well(self) -> Played:
        """Return it, and fail with its output unless it was successful."""
        assert self.status == "successful", self.output[-6000:]
        return self


class Controller:
    """Starts jobs in a folder, each in one of its own, with the environment of a credential."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    def play(
        self,
        playbook: str,
        survey: Mapping[str, str],
        *,
        hosts: Mapping[str, Mapping[str, Any]] | None = None,
        groups: Mapping[str, Any] | None = None,
        credential: Mapping[str, str] | None = None,
        check: bool = False,
    ) -> Played:
        """Run one playbook of the project, in check mode where asked."""
        assert all(isinstance(value, str) for value in survey.values()), "surveys give text"
        folder = self._folder / uuid.uuid4().hex
        folder.mkdir(mode=0o700)
        inventory = {"all": {"hosts": dict(hosts or {"localhost": LOCAL}), "children": dict(groups or {})}}
        asked = {
            "private_data_dir": str(folder),
            "project_dir": str(CHECKOUT),
            "playbook": f"playbooks/{playbook}.yml",
            "inventory": inventory,
            "extravars": dict(survey),
            "envvars": {**self._environment(), **(credential or {})},
            "cmdline": "--check --diff" if check else "--diff",
            "quiet": True,
            "timeout": 600,
        }
        # It forks, which is not safe in a process with threads, such as one of pytest-xdist.
        command = [sys.executable, "-c", RUN]
        done = subprocess.run(
            command, input=json.dumps(asked), capture_output=True, text=True, timeout=660, check=False
        )
        assert done.returncode == 0, done.stderr[-6000:]
        return Played(**json.loads(done.stdout.splitlines()[-1]))

    def _environment(self) -> dict[str, str]:
        return {
            "ANSIBLE_COLLECTIONS_PATH": os.environ["PYTHONPATH"].split(os.pathsep)[0],
            "ANSIBLE_LOCAL_TEMP": str(self._folder / "tmp"),
            "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_DEPRECATION_WARNINGS": "false",
        }
