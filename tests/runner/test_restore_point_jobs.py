# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook restore_point, as the jobs of a workflow of AWX: text from surveys, and artifacts of the job before."""

from __future__ import annotations

import pathlib
from typing import Any

from .jobs import LOCAL, Controller


def fleet(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Make two hosts, each with a directory of its own."""
    hosts: dict[str, dict[str, Any]] = {}
    for name in ("web", "db"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("before")
        target = {"backend": "hostpath", "path": [str(folder / name)], "store": str(folder / "stores" / name)}
        hosts[name] = {**LOCAL, "ansible_become": False, "restore_point_targets": [target]}
    return hosts


def contents(folder: pathlib.Path) -> list[str]:
    """Return what lies in the hosts' directories."""
    return [(folder / name / "file").read_text() for name in ("web", "db")]


def test_a_workflow_takes_a_restore_point_and_its_next_job_returns_to_it(
    controller: Controller, tmp_path: pathlib.Path
) -> None:
    hosts = fleet(tmp_path)
    survey = {
        "target": "",
        "restore_point": "pre-upgrade",
        "point_owner": "",
        "point_max_age": "1h",
        "point_replace": "true",
        "point_destroy_newer": "false",
        "point_keep_last": "",
    }
    foretold = controller.play("restore_point", {**survey, "point_state": ""}, hosts=hosts, check=True).well()
    assert not (tmp_path / "stores").exists()
    taken = controller.play("restore_point", {**survey, "point_state": "present"}, hosts=hosts).well()
    assert taken.artifacts["restore_point"] == "pre-upgrade"
    assert sorted(taken.artifacts["restore_point_hosts"]) == ["db", "web"]
    assert set(taken.artifacts) == set(foretold.artifacts)
    for name in ("web", "db"):
        (tmp_path / name / "file").write_text("spoilt")
    # What AWX gives to the next job: the artifacts as well, and the workflow's own answers over them.
    following = {**{name: str(value) for name, value in taken.artifacts.items()}, **survey}
    controller.play("restore_point", {**following, "point_state": "rolled_back"}, hosts=hosts).well()
    assert contents(tmp_path) == ["before", "before"]
    gone = controller.play("restore_point", {**following, "point_state": "absent"}, hosts=hosts).well()
    assert gone.artifacts["restore_point_changed"] is True
    assert contents(tmp_path) == ["before", "before"]


def test_what_is_needed_is_asked_for(controller: Controller) -> None:
    refused = controller.play("restore_point", {"point_state": "absent", "restore_point": ""})
    assert refused.status == "failed"
    assert "Set restore_point to the name of a restore point" in refused.output
