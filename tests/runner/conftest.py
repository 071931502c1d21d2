# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures: a controller that starts jobs, and the test server of Proxmox VE."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from .host import Host
from .jobs import LOCAL, Controller

TOP = "ansible_collections.restorepoint.core"


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


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    """Give a host on which a policy has run and was verified."""
    folder = tmp_path / "host"
    folder.mkdir()
    return Host(folder)
