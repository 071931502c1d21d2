# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The door to Proxmox VE: what is repeated and what is not, pvesh's ways, and logins that cannot be meant."""

from __future__ import annotations

import stat
import sys
import time

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils import pve
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput, MissingLibrary
from ansible_collections.restorepoint.core.plugins.module_utils.deadline import Deadline
from ansible_collections.restorepoint.core.plugins.module_utils.pve import (
    Connection,
    HttpsTransport,
    Lost,
    PveClient,
    PveError,
    PveshTransport,
    Refused,
)
from ansible_collections.restorepoint.core.tests.pve_server import PveServer


class Transport:
    """Gives one answer after the other; an exception is raised."""

    user, foreground, skew = "root@pam", False, None

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = []

    def call(self, method, path, params, timeout):
        self.calls.append((method, path, dict(params)))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def client(transport, seconds=60.0):
    return PveClient(transport, 5.0, Deadline(seconds), sleep=lambda seconds: None)


LOST, NOT_SENT = Lost("the connection failed", maybe_done=True), Lost("no connection", maybe_done=False)


@pytest.mark.parametrize(
    "error", [LOST, NOT_SENT, Refused(595, "No route"), Refused(500, "got timeout"), Refused(503, "")]
)
def test_reading_is_repeated_after_what_may_pass(error):
    assert client(Transport(error, error, {"a": 1})).get("read it", "/a") == {"a": 1}


@pytest.mark.parametrize(
    "error", [Refused(403, "denied"), Refused(500, "does not exist"), Lost("x", False, final=True)]
)
def test_reading_is_not_repeated_after_what_does_not_pass(error):
    transport = Transport(error)
    with pytest.raises(PveError):
        client(transport).get("read it", "/a")
    assert len(transport.calls) == 1


@pytest.mark.parametrize(("error", "maybe"), [(LOST, True), (Refused(596, "gone"), True), (Refused(403, "no"), False)])
def test_a_change_is_made_once_and_it_is_said_whether_it_may_have_happened(error, maybe):
    transport = Transport(error)
    with pytest.raises(PveError) as found:
        client(transport).send("change it", "POST", "/a")
    assert (len(transport.calls), found.value.maybe_done) == (1, maybe)


def test_a_change_that_was_not_sent_is_made_again():
    assert client(Transport(NOT_SENT, NOT_SENT, "UPID")).send("change it", "POST", "/a") == "UPID"


def test_nothing_is_repeated_beyond_the_deadline():
    transport = Transport(*[LOST] * 9)
    with pytest.raises(PveError):
        client(transport, seconds=0.3).get("read it", "/a")
    assert len(transport.calls) == 2


def test_a_missing_privilege_is_named_with_its_place():
    transport = Transport(Refused(403, "Permission check failed (/vms/100, VM.Snapshot|VM.Snapshot.Rollback)"))
    with pytest.raises(PveError, match=r"VM\.Snapshot or VM\.Snapshot\.Rollback on /vms/100"):
        client(transport).send("return it", "POST", "/a")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"user": "root"}, "has no realm"),
        ({"user": "root@pam"}, "neither a password nor a token"),
        ({"user": "root@pam", "token_id": "x"}, "api_token_id lacks api_token_secret"),
        ({"user": "root@pam", "password": "x", "ca_path": "/nowhere"}, "ca_path /nowhere cannot be read"),
    ],
)
def test_a_login_that_cannot_be_meant_is_refused_before_anybody_is_asked(given, says):
    with pytest.raises(InvalidInput, match=says):
        HttpsTransport(Connection("pve.example", **given))


@pytest.mark.parametrize("package", ["requests", "proxmoxer"])
def test_a_missing_package_is_named(monkeypatch, package):
    for name in [each for each in sys.modules if each.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.core", None)
    with pytest.raises(MissingLibrary) as found:
        HttpsTransport(Connection("pve.example", "root@pam", "x"))
    assert found.value.library == package


def test_a_connection_does_not_show_its_secrets():
    shown = repr(Connection("pve.example", "root@pam", password="hunter2", token_secret="hunter3", otp="123456"))
    assert shown == "Connection(root@pam at pve.example)"


@pytest.fixture
def https():
    """A transport to a test server, and the server."""
    with PveServer() as server:
        server.add_qemu(100, name="web")
        connection = Connection(server.host, server.user, server.password, port=server.port, ca_path=server.ca_path)
        yield HttpsTransport(connection), server


@pytest.mark.parametrize("ahead", [0, 86400, -86400])
def test_one_login_serves_all_and_its_clock_is_noted(https, ahead):
    transport, server = https
    server.cluster.tasks.clock = lambda: time.time() + ahead
    for _unused in range(3):
        assert transport.call("GET", "/version", {}, 5.0)["release"]
    assert [str(each) for each in server.calls].count("POST /access/ticket") == 1
    assert transport.skew == pytest.approx(ahead, abs=60)


def test_an_old_ticket_is_renewed_before_it_runs_out(https, monkeypatch):
    transport, server = https
    transport.call("GET", "/version", {}, 5.0)
    monkeypatch.setattr(pve, "RENEW_AGE", -1.0)
    transport.call("GET", "/version", {}, 5.0)
    assert [str(each) for each in server.calls].count("POST /access/ticket") == 2


def test_refusals_have_the_servers_words(https):
    transport, _server = https
    with pytest.raises(Refused) as found:
        transport.call("POST", "/nodes/pve1/qemu/100/snapshot", {"snapname": "1bad"}, 5.0)
    assert found.value.status == 400
    assert "snapname: invalid format - invalid configuration ID '1bad'" in found.value.words


@pytest.fixture
def pvesh(tmp_path, monkeypatch):
    """Put a pvesh on PATH that does what a test says, and return the transport."""

    def make(script):
        program = tmp_path / "pvesh"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return PveshTransport()

    return make


UPID = "UPID:pve1:00006125:0003E154:6B024CE9:qmsnapshot:100:root@pam:"


def test_pvesh_prints_the_log_and_then_the_task(pvesh):
    transport = pvesh(f"echo \"snapshotting 'drive-scsi0'\"; echo '\"{UPID}\"'; echo 'no space' >&2")
    assert transport.call("POST", "/nodes/pve1/qemu/100/snapshot", {"snapname": "one"}, 5.0) == UPID


def test_pvesh_gets_arguments_and_no_shell(pvesh):
    transport = pvesh('printf \'["%s"]\' "$*"')
    (found,) = transport.call("GET", "/a", {"x": "b $(c); d", "flag": True}, 5.0)
    assert found == "get /a --output-format json --x b $(c); d --flag 1"


@pytest.mark.parametrize(
    ("script", "error", "says"),
    [
        ("echo '400 Parameter verification failed.' >&2; exit 255", Refused, "Parameter verification failed"),
        ("echo 'VM is locked (backup)' >&2; exit 255", Refused, "VM is locked"),
        ("echo 'proxy handler failed: malformed JSON string' >&2; exit 255", Lost, "malformed JSON"),
        ("kill -9 $$", Lost, "pvesh ended"),
        ("sleep 30", Lost, "did not end within"),
    ],
)
def test_failures_of_pvesh_are_told_apart(pvesh, script, error, says):
    with pytest.raises(error, match=says):
        pvesh(script).call("POST", "/a", {}, 1.0 if script.startswith("sleep") else 60.0)


def test_what_is_no_json_is_never_nothing(pvesh):
    with pytest.raises(Lost, match="no JSON"):
        pvesh("echo hello").call("GET", "/a", {}, 5.0)
    assert pvesh("true").call("PUT", "/a", {}, 5.0) is None


def test_without_pvesh_the_way_out_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PveError, match="run the task on a node of the cluster"):
        PveshTransport("pvesh-that-is-not-there")
