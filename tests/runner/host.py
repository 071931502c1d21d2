# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host of the tests' own, in a folder: the agent, its policies, its state, data and a store."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Mapping

from .jobs import CHECKOUT

#: What systemd says of a timer that is well: there is no systemd here, so its words are written down.
SYSTEMCTL = """#!/bin/sh
[ "$1" = show ] || exit 1
printf 'Id=restorepoint-nightly.timer\\nUnitFileState=enabled\\nActiveState=active\\n'
printf 'NextElapseUSecRealtime=Fri 2036-11-28 00:00:00 UTC\\n'
"""


class Host:
    """A host of our own, in a folder: the agent, its policies, its state, data and a store."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.agent, self.policies, self.state = folder / "restorepoint", folder / "policies.json", folder / "state"
        self.metrics, self.rules = folder / "restorepoint.prom", folder / "rules.yml"
        (folder / "data").mkdir()
        (folder / "data" / "file").write_text("content")
        (folder / "bin").mkdir()
        (folder / "bin" / "systemctl").write_text(SYSTEMCTL)
        (folder / "bin" / "systemctl").chmod(0o755)
        target = {"backend": "hostpath", "path": [str(folder / "data")], "store": str(folder / "store")}
        nightly = {"name": "nightly", "targets": [target], "schedule": {"calendar": "daily"}, "keep": {"last": 3}}
        self.policies.write_text(json.dumps({"policies": [nightly]}))
        self.policies.chmod(0o600)
        build = [sys.executable, str(CHECKOUT / "tools" / "agent.py"), str(self.agent)]
        subprocess.run(build, check=True, capture_output=True, timeout=600)
        self.run("run", "nightly")
        self.run("verify", "nightly")
        self.metrics.write_text(self.run("metrics"))
        self.rules.write_bytes((CHECKOUT / "roles" / "monitoring" / "files" / "restorepoint.rules.yml").read_bytes())

    def run(self, *words: str) -> str:
        """Run the agent."""
        command = [
            sys.executable,
            str(self.agent),
            "--policies",
            str(self.policies),
            "--state",
            str(self.state),
            *words,
        ]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout

    def survey(self, **changes: str) -> Mapping[str, str]:
        """Return the variables, as text."""
        return {
            "target": "web",
            "checklist_become": "false",
            "checklist_strict": "false",
            "checklist_program": str(self.agent),
            "checklist_policies_file": str(self.policies),
            "checklist_state_folder": str(self.state),
            "checklist_metrics": "",
            "checklist_textfile": str(self.metrics),
            "checklist_rules_file": str(self.rules),
            "checklist_file": str(self.folder / "list.json"),
            "checklist_cluster": "",
            **changes,
        }
