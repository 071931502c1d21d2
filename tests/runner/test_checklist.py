# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checklist ticks off a real agent with real policies, and names the faults that are planted."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from .jobs import CHECKOUT, LOCAL, Controller, Played

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


def look(controller: Controller, host: Host, **changes: str) -> Played:
    path = f"{host.folder / 'bin'}:{pathlib.Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    hosts: dict[str, dict[str, Any]] = {"web": {**LOCAL}, "localhost": LOCAL}
    return controller.play("checklist", host.survey(**changes), hosts=hosts, credential={"PATH": path})


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    """Give a host on which a policy has run and was verified."""
    folder = tmp_path / "host"
    folder.mkdir()
    return Host(folder)


def test_the_list_ticks_what_is_in_order_and_names_what_was_planted(controller: Controller, host: Host) -> None:
    well = look(controller, host).well()
    assert well.changed == 1  # the file with the list
    drill = "web: ✗ drill: nightly: none has succeeded yet"
    apart = f"web: ! store is apart: {host.folder / 'data'}: {host.folder / 'store'} is on the same filesystem"
    assert [line.split(";")[0].split(", and lost")[0] for line in well.artifacts["checklist_to_do"]] == [drill, apart]
    assert well.artifacts["checklist_points"] == well.artifacts["checklist_ticked"] + 2
    written = json.loads((host.folder / "list.json").read_text(encoding="utf-8"))
    assert {point["check"]: point["state"] for point in written["web"]}["last run"] == "ok"
    assert "✓ agent: installed, and of this version" in well.output

    host.agent.write_bytes(host.agent.read_bytes() + b"\n")
    host.policies.chmod(0o644)
    (host.folder / "store").chmod(0o755)
    host.metrics.unlink()
    host.rules.write_text("groups: []\n")
    (host.folder / "bin" / "systemctl").write_text("#!/bin/sh\nexit 1\n")
    strict = look(controller, host, checklist_strict="true")
    assert strict.status == "failed"
    failed = {line.split("✗ ")[1].split(":")[0] for line in strict.artifacts["checklist_to_do"] if "✗" in line}
    assert failed == {"agent", "policies are closed", "store is closed", "metrics", "alerts", "timer", "drill"}


def test_a_host_without_anything_is_told_what_to_install(controller: Controller, tmp_path: pathlib.Path) -> None:
    survey = {
        "target": "",
        "checklist_become": "no",
        "checklist_program": str(tmp_path / "nothing"),
        "checklist_policies_file": str(tmp_path / "policies.json"),
        "checklist_state_folder": "",
        "checklist_metrics": "none",
        "checklist_cluster": "",
    }
    bare = controller.play("checklist", survey, check=True).well()
    assert bare.changed == 0
    assert (
        "localhost: ✗ agent: it is not installed; play restorepoint.core.schedule" in bare.artifacts["checklist_to_do"]
    )
