# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The test server as a process of its own."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest

from ansible_collections.restorepoint.core.tests.unit.pve_server.client import Client

PACKAGE = "ansible_collections.restorepoint.core.tests.pve_server"
#: The folder above ansible_collections, as this file was reached.
TOP = str(pathlib.Path(__file__).absolute().parents[3])


@dataclass
class Described:
    """What Client needs to know of a server."""

    host: str
    port: int
    ca_path: str


@pytest.fixture
def process(tmp_path):
    """Start it with arguments; gives what it told, and the process."""
    inner = tmp_path / "ansible_collections" / "restorepoint"
    inner.mkdir(parents=True)
    (inner / "core").symlink_to(TOP)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    started = []

    def start(*arguments):
        argv = [sys.executable, "-m", PACKAGE, "--until-eof", "--max-seconds", "60", *arguments]
        pipe = subprocess.PIPE
        running = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=tmp_path)
        started.append(running)
        assert running.stdout
        return json.loads(running.stdout.readline()), running

    yield start
    for running in started:
        running.communicate(timeout=120)
        assert running.returncode == 0


def client_of(told):
    """Return a client of a server of which it was told."""
    return Client(Described(told["host"], told["port"], told["ca_path"]))


def test_it_serves_a_fleet_and_tells_where(process, tmp_path):
    ready = tmp_path / "ready.json"
    options = ["--guests", "12", "--nodes", "4", "--archived", "30", "--ready-file", str(ready)]
    told, _running = process("--scenario", "fleet", *options)
    assert json.loads(ready.read_text()) == told
    client = client_of(told)
    found = client.get("/cluster/resources", type="vm")
    assert len(found) == 12
    assert {each["node"] for each in found} == {"pve1", "pve2", "pve3", "pve4"}
    assert {each["type"] for each in found} == {"qemu", "lxc"}
    assert len(client.get("/nodes/pve3/tasks", limit=500)) == 30


def test_its_pvesh_needs_no_credential(process):
    told, _running = process("--scenario", "kinds")
    pvesh = os.path.join(told["programs"]["pve2"], "pvesh")
    argv = [pvesh, "get", "/nodes/pve2/qemu/104/snapshot", "--output-format", "json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout)[0]["name"] == "current"


def test_it_ends_with_sigterm_and_leaves_nothing(process):
    told, running = process("--scenario", "empty")
    running.send_signal(signal.SIGTERM)
    assert running.wait(10) == 0
    assert not os.path.exists(told["programs"]["pve1"])
    assert not os.path.exists(told["ca_path"])
