# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proxmox VE over the standard library alone: what it says of each failure is what the door `pve` goes by."""

from __future__ import annotations

import socket
import time

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils import pve, pve_http
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.restorepoint.core.plugins.module_utils.deadline import Deadline
from ansible_collections.restorepoint.core.plugins.module_utils.pve import Connection, Lost, PveError, Refused
from ansible_collections.restorepoint.core.plugins.module_utils.pve_http import PlainTransport
from ansible_collections.restorepoint.core.tests.pve_server import PveServer, faults

SNAPSHOTS = "/nodes/pve1/qemu/100/snapshot"
SECRET = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def server():
    with PveServer() as found:
        found.settings.task_seconds = 0.004
        found.add_qemu(100, name="web")
        yield found


def transport(server, **changed):
    given = {
        "host": server.host,
        "user": server.user,
        "password": server.password,
        "port": server.port,
        "ca_path": server.ca_path,
        **changed,
    }
    return PlainTransport(Connection(**given))


def tickets(server):
    return [str(each) for each in server.calls].count("POST /access/ticket")


def test_a_snapshot_is_taken_described_listed_and_removed(server):
    made = transport(server)
    description = "one\ntwo é & three=3"
    assert made.call("POST", SNAPSHOTS, {"snapname": "s1", "description": description, "vmstate": False}, 60)
    server.wait_idle()
    found = {each["name"]: each for each in made.call("GET", SNAPSHOTS, {}, 60)}
    assert found["s1"]["description"].rstrip("\n") == description
    assert made.call("PUT", f"{SNAPSHOTS}/s1/config", {"description": "other"}, 60) is None
    assert made.call("DELETE", f"{SNAPSHOTS}/s1", {"force": True}, 60).startswith("UPID:")
    server.wait_idle()
    assert [each["name"] for each in made.call("GET", SNAPSHOTS, {}, 60)] == ["current"]
    assert tickets(server) == 1
    assert made.user == "root@pam"


@pytest.mark.parametrize("ahead", [0, 86400, -86400])
def test_how_far_the_servers_clock_is_ahead_is_noted(server, ahead):
    server.cluster.tasks.clock = lambda: time.time() + ahead
    made = transport(server)
    made.call("GET", "/version", {}, 60)
    assert made.skew == pytest.approx(ahead, abs=60)


def test_what_is_asked_for_goes_along_when_reading(server):
    transport(server).call("GET", "/cluster/resources", {"type": "vm"}, 60)
    assert "type=vm" in str(server.calls[-1]) or server.calls[-1].params == {"type": "vm"}


def test_refusals_have_the_servers_words(server):
    for name, words in (
        ("current", "unable to use snapshot name 'current' (reserved name)"),
        ("1bad", "snapname: invalid format - invalid configuration ID '1bad'"),
    ):
        with pytest.raises(Refused) as found:
            transport(server).call("POST", SNAPSHOTS, {"snapname": name}, 60)
        assert words in found.value.words


def test_a_token_needs_no_login(server):
    server.access.add_token("root@pam", "full", separated=False, secret=SECRET)
    made = transport(server, password=None, token_id="full", token_secret=SECRET)
    assert made.call("GET", "/version", {}, 60)["release"]
    assert made.user == "root@pam!full"
    assert tickets(server) == 0
    wrong = transport(server, password=None, token_id="root@pam!full", token_secret="wrong")
    with pytest.raises(Refused) as found:
        wrong.call("GET", "/version", {}, 60)
    assert found.value.status == 401
    assert tickets(server) == 0


def test_a_wrong_password_is_said_and_not_shown(server):
    with pytest.raises(PveError, match="root@pam was not let in") as found:
        transport(server, password="not-this-one").call("GET", "/version", {}, 60)
    assert "not-this-one" not in str(found.value)


def test_an_old_ticket_is_renewed_and_one_that_has_ended_is_replaced(server):
    now = [0.0]
    connection = Connection(server.host, server.user, server.password, port=server.port, ca_path=server.ca_path)
    made = PlainTransport(connection, lambda: now[0])
    made.call("GET", "/version", {}, 60)
    now[0] = pve.RENEW_AGE + 1
    made.call("GET", "/version", {}, 60)
    assert tickets(server) == 2
    server.faults.at("GET /version", 1, faults.logout())
    assert made.call("GET", "/version", {}, 60)["release"]
    assert tickets(server) == 3


def test_a_certificate_that_is_not_trusted_is_final_and_the_way_out_is_named(server):
    with pytest.raises(Lost, match="is not trusted") as found:
        transport(server, ca_path=None).call("GET", "/version", {}, 60)
    assert (found.value.maybe_done, found.value.final) == (False, True)
    assert "pve-root-ca.pem" in found.value.remedy
    assert transport(server, ca_path=None, validate_certs=False).call("GET", "/version", {}, 60)
    with pytest.raises(InvalidInput, match="ca_path"):
        transport(server, ca_path="/nowhere/ca.pem")


@pytest.mark.parametrize(
    ("fault", "error", "maybe"),
    [
        (faults.drop_before(), Lost, True),
        (faults.drop_after(), Lost, True),
        (faults.cut(), Lost, True),
        (faults.garbage(), Lost, True),
        (faults.status(596), Refused, None),
        (faults.status(503), Refused, None),
    ],
    ids=["dropped before", "dropped after", "cut", "garbage", "596", "503"],
)
def test_each_fault_of_a_call_is_told_as_what_it_is(server, fault, error, maybe):
    made = transport(server)
    made.call("GET", "/version", {}, 60)
    server.faults.at(f"POST {SNAPSHOTS}", 1, fault)
    with pytest.raises(error) as found:
        made.call("POST", SNAPSHOTS, {"snapname": "s1"}, 60)
    assert maybe is None or found.value.maybe_done is maybe


def test_reading_goes_on_after_what_may_pass(server):
    made = pve.PveClient(transport(server), 30.0, Deadline(300), sleep=lambda seconds: None)
    for fault in (faults.drop_before(), faults.cut(), faults.garbage(), faults.status(595)):
        server.faults.clear()
        server.faults.at("GET /version", 1, fault)
        assert made.get("read the version", "/version")["release"]


def test_where_nobody_listens_nothing_has_been_done():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        made = PlainTransport(Connection("127.0.0.1", "root@pam", "x", port=port))
        with pytest.raises(Lost) as found:
            made.call("GET", "/version", {}, 60)
    assert (found.value.maybe_done, found.value.final) == (False, False)


def test_an_answer_that_does_not_come_is_not_waited_for(server):
    made = transport(server)
    made.call("GET", "/version", {}, 60)
    server.faults.at("GET /version", 1, faults.slow(600))
    with pytest.raises(Lost, match="did not answer in time"):
        made.call("GET", "/version", {}, 1)


def test_a_redirect_is_not_followed(server, monkeypatch):
    made = transport(server)
    monkeypatch.setattr(made, "_exchanged", lambda *_unused: (302, "Found", b""))
    with pytest.raises(Lost, match="HTTP 302") as found:
        made._made("GET", "/version", {}, 60, {})
    assert found.value.final


def test_nothing_but_the_standard_library_is_needed():
    assert not {"requests", "proxmoxer"} & set(vars(pve_http))
