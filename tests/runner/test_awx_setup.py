# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""awx/configure.yml, played with the real modules of awx.awx against a small AWX of our own."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest
import yaml

from .awx_server import TOKEN, AwxServer
from .conftest import CHECKOUT

PLAYBOOKS = [f"playbooks/{path.name}" for path in (CHECKOUT / "playbooks").glob("*.yml")]
UPGRADE = "Restore points: upgrade with a way back"


class Unsafe(yaml.SafeLoader):
    """Reads Ansible's !unsafe as text."""


Unsafe.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))  # type: ignore[arg-type]
VARIABLES = yaml.load((CHECKOUT / "awx" / "vars.yml").read_text(encoding="utf-8"), Unsafe)  # noqa: S506


@pytest.fixture(scope="module")
def collections() -> str:
    """Where awx.awx lies; it is fetched once, by a tool of ours."""
    tool = [sys.executable, str(CHECKOUT / "tools" / "awx_collection.py")]
    return subprocess.run(tool, check=True, capture_output=True, text=True, timeout=900).stdout.strip()


def configure(server: AwxServer, collections: str, folder: pathlib.Path, *options: str) -> str:
    """Play it, and return how many tasks have changed something."""
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": collections,
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "CONTROLLER_HOST": server.url,
        "CONTROLLER_OAUTH_TOKEN": TOKEN,
        "SSL_CERT_FILE": str(server.ca),
        "ANSIBLE_NOCOLOR": "true",
    }
    program = str(pathlib.Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "-i", "localhost,", "-e", f"ansible_python_interpreter={sys.executable}", *options]
    done = subprocess.run(
        [*command, str(CHECKOUT / "awx" / "configure.yml")],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert TOKEN not in done.stdout + done.stderr
    found = re.search(r"changed=(\d+)", done.stdout)
    assert found
    return found[1]


def test_awx_is_set_up_once_and_what_somebody_changed_comes_back(collections: str, tmp_path: pathlib.Path) -> None:
    with AwxServer(PLAYBOOKS) as server:
        state = server.state
        configure(server, collections, tmp_path)
        for template in VARIABLES["awx_job_templates"]:
            number = state.named("job_templates", template["name"])["id"]
            assert state.surveys["job_templates", number]["spec"] == template["survey"]
        edges = {
            node: (state.linked(kind, node, "success_nodes"), state.linked(kind, node, "failure_nodes"))
            for kind in ["workflow_job_template_nodes"]
            for node in ("check", "take", "upgrade", "verify", "commit", "return")
        }
        assert edges == {
            "check": (["take"], []),
            "take": (["upgrade"], []),
            "upgrade": (["verify"], ["return"]),
            "verify": (["commit"], ["return"]),
            "commit": ([], []),
            "return": ([], []),
        }
        approval = state.named("workflow_job_template_nodes", "upgrade")["unified_job_template"]
        assert state.objects["workflow_approval_templates"][approval]["name"] == "Upgrade, then approve"
        assert state.named("schedules", "Restore points: checklist, every morning")["enabled"] is True

        before = len(state.changes)
        assert configure(server, collections, tmp_path) == "0"
        # The modules send approvals again each time; AWX finds nothing new in them.
        assert {change.split()[0] for change in state.changes[before:]} <= {"PATCH"}

        state.named("workflow_job_template_nodes", "return")["extra_data"] = {"restore_point_state": "present"}
        state.add("job_templates", {"name": "Mine", "playbook": PLAYBOOKS[0], "organization": 1})
        mine = ["--tags", "workflow", "-e", "awx_upgrade_template=Mine"]
        assert configure(server, collections, tmp_path, *mine) == "1"
        assert state.named("workflow_job_template_nodes", "return")["extra_data"] == {"restore_point_state": "rolled_back"}
        upgrade = state.named("workflow_job_template_nodes", "upgrade")["unified_job_template"]
        assert state.objects["job_templates"][upgrade]["name"] == "Mine"
