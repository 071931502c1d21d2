# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Policies on guests of Proxmox VE, run by the agent's own file against the test server, without any other package."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.agent import cli
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.restorepoint.core.plugins.module_utils.engine import pve as engine
from ansible_collections.restorepoint.core.plugins.module_utils.engine.policy import InvalidPolicies, parse_policies
from ansible_collections.restorepoint.core.tests.pve_server import PveServer, faults, scenarios
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.agent.test_agent import TOOL, Host


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The agent as one file."""
    target = tmp_path_factory.mktemp("agent") / "restorepoint.pyz"
    subprocess.run([sys.executable, TOOL, target], check=True, capture_output=True, timeout=120)
    return target


class Guests(Host):
    """A host whose policy takes guests of a server, with a file of credentials."""

    def __init__(self, folder, archive, server):
        super().__init__(folder)
        self.archive, self.server = archive, server
        self.credentials = folder / "credentials.json"
        self.write({"api_user": server.user, "api_password": server.password})
        self.target = {
            "backend": "pve",
            "vmid": ["100-101", "200"],
            "api_host": server.host,
            "api_port": server.port,
            "ca_path": server.ca_path,
            "credentials_file": str(self.credentials),
        }
        self.policy["targets"] = [self.target]

    def write(self, content, mode=0o600):
        self.credentials.write_text(json.dumps(content))
        self.credentials.chmod(mode)

    def call(self, *argv):
        """Run the agent's file with nothing but Python's own library; return its exit code and all that it says."""
        command = [sys.executable, "-I", "-S", self.archive, *self.arguments, *argv]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, env={})
        return done.returncode, done.stdout + ("" if "--json" in argv else done.stderr)

    def names_on(self, vmid):
        return sorted(self.server.guest(vmid).snapshots)


@pytest.fixture
def guests(tmp_path, archive):
    with PveServer() as server:
        server.settings.task_seconds = server.settings.vmstate_seconds = server.settings.start_seconds = 0.004
        scenarios.kinds(server)
        yield Guests(tmp_path, archive, server)


def test_a_policy_takes_lists_prunes_and_returns_guests(guests):
    guests.policy["keep"] = {"last": 1}
    assert guests.call("run", "dev")[0] == 0
    assert guests.call("run", "dev")[0] == 0
    (name,) = guests.names_on(100)
    assert guests.names_on(101) == guests.names_on(200) == [name]
    assert [each["done"] for each in guests.journal] == [{"created": 3}, {"created": 3, "removed": 3}]
    assert {each["target"] for each in guests.json("list")} == {"pve:qemu/100", "pve:qemu/101", "pve:lxc/200"}
    guests.server.guest(101).write("later")
    code, text = guests.call("rollback", "dev", name, "--target", "101", "--yes")
    assert code == 0, text
    assert guests.journal[-1]["targets"] == ["pve:qemu/101"]


def test_a_failure_of_one_guest_leaves_nothing_on_any(guests):
    guests.server.faults.at("POST */lxc/200/snapshot", 1, faults.fail_task("volume:*", "no space left"))
    code, _text = guests.call("run", "dev")
    assert code == cli.FAILED
    assert "no space left" in guests.journal[0]["reason"]
    assert guests.names_on(100) == guests.names_on(101) == guests.names_on(200) == []


def test_credentials_that_others_can_read_are_refused_and_never_shown(guests):
    guests.write({"api_user": "root@pam", "api_password": "very-secret"}, 0o644)
    code, text = guests.call("run", "dev")
    assert code == cli.FAILED
    assert "mode 0644" in text
    assert "very-secret" not in text + json.dumps(guests.journal)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"password": "very-secret"}, "password, which is not known"),
        ({"api_password": ["very-secret"]}, "no mapping of texts"),
        ({"api_password": "very-secret"}, "nobody says as whom"),
        ({"api_user": "root@pam"}, "neither a password nor a token; write one into a file that credentials_file names"),
    ],
)
def test_a_file_that_does_not_serve_is_said(guests, content, words):
    guests.write(content)
    code, text = guests.call("run", "dev")
    assert code == cli.FAILED
    assert words in text
    assert "very-secret" not in text


def test_only_guests_that_the_policy_names_are_returned(guests):
    assert guests.call("run", "dev")[0] == 0
    (name,) = guests.names_on(100)
    assert guests.call("rollback", "dev", name, "--target", "102", "--yes")[0] == cli.USAGE
    del guests.target["vmid"]
    guests.target["type"] = "qemu"
    code, text = guests.call("rollback", "dev", name, "--target", "100", "--yes")
    assert code == cli.USAGE
    assert "does not name its guests by vmid" in text


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({}, "targets[0].vmid: it is missing"),
        ({"vmid": ["x"], "api_host": "pve"}, ""),
        ({"vmid": ["100"]}, "api_host is not set"),
        ({"vmid": ["100"], "api_host": "pve", "api_password": "x"}, "targets[0].api_password: there is no such key"),
        ({"vmid": ["100"], "api_host": "pve", "parallel": 0}, "read parallel: 0"),
        ({"vmid": ["100"], "api_host": "pve", "select": "[]"}, "targets[0].select: there is no such key"),
    ],
)
def test_what_cannot_be_meant_is_named_when_the_policies_are_read(keys, fault):
    policies = {"policies": [{"name": "shop", "targets": [{"backend": "pve", **keys}]}]}
    if not fault:
        assert parse_policies(policies)  # said when it runs, as by the module
        return
    with pytest.raises(InvalidPolicies) as caught:
        parse_policies(policies)
    assert fault.rpartition(": ")[2] in str(caught.value)


def test_secrets_come_from_the_environment_where_there_is_no_file(monkeypatch):
    for variable in engine.SECRETS.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PROXMOX_TOKEN_ID", "ops@pve!agent")
    assert engine._secrets(None) == {"api_token_id": "ops@pve!agent"}
    with pytest.raises(InvalidInput, match="No such file"):
        engine._secrets("/nowhere")
