# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks for hosts with the agent, as jobs of AWX: text from surveys, check mode, artifacts."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

from .host import Host
from .jobs import LOCAL, Controller


def agent(host: Host) -> list[str]:
    """Return the agent's command line, as a host's variables have it."""
    return [sys.executable, str(host.agent), "--policies", str(host.policies), "--state", str(host.state)]


def test_a_drill_is_foretold_then_made_and_one_that_fails_names_its_host(controller: Controller, host: Host) -> None:
    hosts: dict[str, dict[str, Any]] = {"localhost": LOCAL, "web": {**LOCAL, "drill_agent": agent(host)}}
    survey = {"target": "web", "drill_policies": " nightly,", "drill_wait": "60", "drill_become": "false"}
    foretold = controller.play("drill", survey, hosts=hosts, check=True).well()
    assert (foretold.changed, foretold.artifacts["drill_failed_hosts"]) == (0, [])
    assert "web: would drill" in foretold.output
    done = controller.play("drill", survey, hosts=hosts).well()
    assert done.artifacts["drill_failed_hosts"] == []
    assert done.artifacts["drill_hosts"]["web"]["drills"]
    (saved,) = (path for path in (host.folder / "store").rglob("file") if path.read_text() == "content")
    saved.write_text("CONTENT")
    failed = controller.play("drill", survey, hosts=hosts)
    assert (failed.status, failed.artifacts["drill_failed_hosts"]) == ("failed", ["web"])


def test_a_page_of_all_hosts_is_written_and_the_fleet_can_be_not_well_enough(
    controller: Controller, host: Host, tmp_path: pathlib.Path
) -> None:
    hosts = {"localhost": LOCAL, "web": LOCAL, "bare": {**LOCAL, "health_policies_file": str(tmp_path / "nothing")}}
    hosts["web"] = {**LOCAL, "health_policies_file": str(host.policies)}
    place = {"health_state_folder": str(host.state), "health_page": str(tmp_path / "page.html")}
    for name in ("web", "bare"):
        hosts[name] = {**hosts[name], "health_program": str(host.agent)}
    survey = {**place, "target": "web,bare", "health_become": "no", "health_fail_on": "", "health_timeout": ""}
    path = {"PATH": f"{pathlib.Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"}
    foretold = controller.play("health", survey, hosts=hosts, credential=path, check=True).well()
    assert not (tmp_path / "page.html").exists()
    assert foretold.artifacts["restore_points"]["status"] != "ok"
    strict = controller.play("health", {**survey, "health_fail_on": "warning"}, hosts=hosts, credential=path)
    assert (strict.status, strict.artifacts) == ("failed", foretold.artifacts)
    assert "<html" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_storage_that_was_not_named_is_asked_for(controller: Controller) -> None:
    refused = controller.play("microk8s_storage", {"target": "", "storage": "", "disk": "", "size": ""}, check=True)
    assert refused.status == "failed"
    assert "Say which storage" in refused.output
