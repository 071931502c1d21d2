# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""awx/configure.yml, played with the real modules of awx.awx against a small AWX of our own."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from .awx_server import TOKEN, AwxServer
from .jobs import CHECKOUT

PLAYBOOKS = [f"playbooks/{path.name}" for path in (CHECKOUT / "playbooks").glob("*.yml")]
#: Playbooks that are not meant for AWX, and why not.
NOT_FOR_AWX = {
    "csi_tour": "it is for somebody who looks at it for the first time",
    "demo": "it is for somebody who looks at it for the first time",
}

NODES = "workflow_job_template_nodes"
STATS = "ansible.builtin.set_stats"


class Unsafe(yaml.SafeLoader):
    """Reads Ansible's !unsafe as text."""


Unsafe.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))  # type: ignore[arg-type]
VARIABLES = yaml.load((CHECKOUT / "awx" / "vars.yml").read_text(encoding="utf-8"), Unsafe)


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
            assert state.surveys.get(("job_templates", number), {"spec": []})["spec"] == template["survey"]
        assert state.named("schedules", "Restore points: checklist, every morning")["enabled"] is True

        before = len(state.changes)
        assert configure(server, collections, tmp_path) == "0"
        assert state.changes[before:] == []

        state.named("schedules", "Restore points: checklist, every morning")["enabled"] = False
        assert configure(server, collections, tmp_path, "--tags", "schedules") == "1"
        assert state.named("schedules", "Restore points: checklist, every morning")["enabled"] is True


def test_every_playbook_has_a_job_template_or_is_not_meant_for_awx() -> None:
    offered = {template["playbook"] for template in VARIABLES["awx_job_templates"]}
    there = {pathlib.Path(path).stem for path in PLAYBOOKS}
    assert there - offered == set(NOT_FOR_AWX)
    assert offered - there == set()
    page = (CHECKOUT / "docs" / "awx.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in NOT_FOR_AWX)


MINE = {"awx_upgrade_template": "Restore points: upgrade with a way back"}


def test_the_workflow_has_its_nodes_and_edges_once(collections: str, tmp_path: pathlib.Path) -> None:
    with AwxServer(PLAYBOOKS) as server:
        state = server.state
        for name in ("checklist", "hosts together", "how all hosts are", "upgrade with a way back"):
            (template,) = (each for each in VARIABLES["awx_job_templates"] if each["name"] == f"Restore points: {name}")
            number = state.add("job_templates", {**template, "playbook": f"playbooks/{template['playbook']}.yml"})["id"]
            state.survey("job_templates", number, {"name": name, "description": "", "spec": template["survey"]})
        state.add("inventories", {"name": VARIABLES["awx_inventory"]["name"]})
        options = ["--tags", "workflow", "-e", json.dumps(MINE)]
        assert configure(server, collections, tmp_path, *options) == "1"
        edges = {
            (state.objects[NODES][start]["identifier"], part, state.objects[NODES][end]["identifier"])
            for (kind, start, part), ends in state.links.items()
            if kind == NODES
            for end in ends
        }
        assert edges == {
            ("check", "success_nodes", "take"),
            ("take", "success_nodes", "upgrade"),
            ("upgrade", "success_nodes", "verify"),
            ("upgrade", "failure_nodes", "roll back"),
            ("verify", "success_nodes", "commit"),
            ("verify", "failure_nodes", "roll back"),
        }
        (workflow,) = state.objects["workflow_job_templates"]
        assert state.surveys["workflow_job_templates", workflow]["spec"] == VARIABLES["awx_workflow"]["survey"]
        before = len(state.changes)
        assert configure(server, collections, tmp_path, *options) == "0"
        assert state.changes[before:] == []


def test_no_artifact_of_a_restore_point_is_called_as_a_variable_that_the_next_job_reads() -> None:
    """AWX gives artifacts to the next job of a workflow as extra variables, which win over all others."""
    told = (CHECKOUT / "roles" / "restore_point" / "tasks" / "tell.yml").read_text(encoding="utf-8")
    (stats,) = (task["ansible.builtin.set_stats"]["data"] for task in yaml.safe_load(told) if STATS in task)
    specs = (CHECKOUT / "roles" / "restore_point" / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    variables = set(yaml.safe_load(specs)["argument_specs"]["main"]["options"])
    assert set(stats) & variables == set()


def header(playbook: str) -> str:
    """Return the comment at the top of a playbook, in which its variables stand."""
    text = (CHECKOUT / "playbooks" / f"{playbook}.yml").read_text(encoding="utf-8")
    return "\n".join(line for line in text.split("---\n", 1)[1].splitlines() if line.startswith("#"))


def defaults(playbook: str, variable: str) -> set[str]:
    """Return the literal defaults that a playbook has for a variable, as text; empty where it reads it without any."""
    files = [CHECKOUT / "playbooks" / f"{playbook}.yml", *(CHECKOUT / "playbooks" / "tasks").glob(f"{playbook}_*.yml")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    assert re.search(rf"\b{variable}\b", re.sub(r"(?m)^#.*$", "", text)), f"{playbook} does not read {variable}"
    found = re.findall(rf"\b{variable} \| default\('?([^'(),]*)'?(?:, true)?\)", text)
    return {value for value in found if value not in ("", "omit", "[]")}


QUESTIONS = [(each["playbook"], question) for each in VARIABLES["awx_job_templates"] for question in each["survey"]]


@pytest.mark.parametrize(
    ("playbook", "question"), QUESTIONS, ids=[f"{name}-{each['variable']}" for name, each in QUESTIONS]
)
def test_each_question_is_one_that_its_playbook_reads_with_the_same_default(
    playbook: str, question: dict[str, Any]
) -> None:
    variable, default = question["variable"], str(question["default"])
    literals = defaults(playbook, variable)
    if not question["required"] or question["type"] == "multiplechoice":
        assert literals in ({default}, set()) if default else not literals
        assert literals or default in ("", "false", "true", "all", "0"), "the playbook has no such default"
    if question["type"] == "multiplechoice" and set(question["choices"]) != {"true", "false"}:
        assert all(re.search(rf"\b{choice}\b", header(playbook)) for choice in question["choices"])
