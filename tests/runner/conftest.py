# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plays of the collection's playbooks as AWX plays them: real ansible-runner, a private folder, variables from surveys.

What surveys give is text, and an optional question without an answer is empty text. The checkout is the project.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ansible_runner  # type: ignore[import-not-found]  # only the session runner has it
import pytest

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
TOP = "ansible_collections.restorepoint.core"
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}


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
        done = ansible_runner.run(
            private_data_dir=str(folder),
            project_dir=str(CHECKOUT),
            playbook=f"playbooks/{playbook}.yml",
            inventory=inventory,
            extravars=dict(survey),
            envvars={**self._environment(), **(credential or {})},
            cmdline="--check --diff" if check else "--diff",
            quiet=True,
            timeout=600,
        )
        artifacts: dict[str, Any] = {}
        for event in done.events:
            if event["event"] == "playbook_on_stats":
                artifacts = event["event_data"].get("artifact_data") or {}
        stats = done.stats or {"changed": {}, "failures": {}}
        counts = [sum(stats[name].values()) for name in ("changed", "failures")]
        output = pathlib.Path(done.config.artifact_dir, "stdout").read_text(encoding="utf-8")
        return Played(done.status, counts[0], counts[1], artifacts, output)

    def _environment(self) -> dict[str, str]:
        return {
            "ANSIBLE_COLLECTIONS_PATH": os.environ["PYTHONPATH"].split(os.pathsep)[0],
            "ANSIBLE_LOCAL_TEMP": str(self._folder / "tmp"),
            "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_DEPRECATION_WARNINGS": "false",
        }


@pytest.fixture
def controller(tmp_path: pathlib.Path) -> Controller:
    """Give a controller whose jobs lie in the test's own folder."""
    return Controller(tmp_path)


@dataclass
class Proxmox:
    """The test server: the credential that AWX would inject, and its nodes with their programs."""

    credential: dict[str, str]
    nodes: dict[str, dict[str, Any]]
    tool: str

    def guest(self, vmid: int) -> str:
        """Return what the server knows of a guest, as text."""
        return self._run("guest", str(vmid))

    def write(self, vmid: int, text: str) -> None:
        """Change a guest's content."""
        self._run("write", str(vmid), text)

    def _run(self, *words: str) -> str:
        return subprocess.run([self.tool, *words], check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.fixture(scope="module")
def proxmox() -> Iterator[Proxmox]:
    """Serve a Proxmox VE of our own for one file of tests; it ends when its stdin does."""
    command = [sys.executable, "-m", f"{TOP}.tests.pve_server", "--until-eof"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        told = json.loads(process.stdout.readline())
        names = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password", "CA_PATH": "ca_path"}
        nodes = {
            name: {**LOCAL, "ansible_remote_tmp": f"{folder}/.tmp", "pve_node_name": name, "pve_path": folder}
            for name, folder in told["programs"].items()
        }
        first, *_others = told["programs"].values()
        tool = str(pathlib.Path(first, "pve-test-server"))
        yield Proxmox({f"PROXMOX_{name}": str(told[key]) for name, key in names.items()}, nodes, tool)
        assert process.stdin
        process.stdin.close()
        process.wait(60)
