# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checklist ticks off a real agent with real policies, and names the faults that are planted."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

from .host import Host
from .jobs import LOCAL, Controller, Played


def look(controller: Controller, host: Host, **changes: str) -> Played:
    path = f"{host.folder / 'bin'}:{pathlib.Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    hosts: dict[str, dict[str, Any]] = {"web": {**LOCAL}, "localhost": LOCAL}
    return controller.play("checklist", host.survey(**changes), hosts=hosts, credential={"PATH": path})


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
