# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connections as pveproxy keeps them, and every fault of a call."""

from __future__ import annotations

import http.client
import json
import threading
import time

import pytest

from ansible_collections.restorepoint.core.tests.pve_server import faults
from ansible_collections.restorepoint.core.tests.unit.pve_server.client import ONE, Client, Refused

SNAPSHOT = f"{ONE.format(100)}/snapshot"
CREATE = "POST */snapshot"
BROKEN = (http.client.RemoteDisconnected, ConnectionError)


def test_a_connection_serves_a_hundred_calls(server, root):
    for _number in range(98):
        root.get("/version")
    assert (root.closed, server.connections) == ("Keep-Alive", 1)
    root.get("/version")
    assert root.closed == "close"
    root.get("/version")
    assert server.connections == 2


def test_a_connection_is_closed_after_a_refusal(server, root):
    with pytest.raises(Refused):
        root.get(f"{SNAPSHOT}/nope/config")
    assert root.closed == "close"
    root.get("/version")
    assert server.connections == 2


def test_a_connection_that_is_idle_is_closed(server, root):
    server.settings.idle_seconds = 0.05
    root.get("/version")

    def ask():
        for seconds in (0.2, 1, 5, 25):  # on a machine that is very busy the server comes to it later
            time.sleep(seconds)
            root.get("/version")

    with pytest.raises(BROKEN):
        ask()


def test_every_call_is_in_the_log(server, root):
    root.get("/cluster/resources", type="vm")
    with pytest.raises(Refused):
        root.post(SNAPSHOT, snapname="x")
    assert [str(call) for call in server.calls] == [
        "POST /access/ticket",
        "GET /cluster/resources",
        "POST /nodes/pve1/qemu/100/snapshot",
    ]
    assert [call.status for call in server.calls] == [200, 200, 400]
    assert server.calls[1].params == {"type": "vm"}
    assert server.calls[2].user == "root@pam"


def test_calls_may_be_json_too(server, root):
    headers = {**root.headers, "Content-Type": "application/json"}
    body = json.dumps({"snapname": "s1", "description": "é", "vmstate": True})
    root.connection.request("POST", f"/api2/json{SNAPSHOT}", body, headers)
    answer = root.connection.getresponse()
    answer.read()
    assert answer.status == 200
    assert server.guest(100).snapshots["s1"]["vmstate"]


def test_a_call_that_is_dropped_before_was_not_carried_out(server, root):
    rule = server.faults.at(CREATE, 1, faults.drop_before())
    with pytest.raises(BROKEN):
        root.post(SNAPSHOT, snapname="s1")
    assert (rule.fired, server.all_tasks(), server.calls[-1].status) == (1, [], 0)
    assert root.create("s1") == "OK"


def test_a_call_that_is_dropped_after_was_carried_out(server, root):
    server.faults.at(CREATE, 1, faults.drop_after())
    with pytest.raises(BROKEN):
        root.post(SNAPSHOT, snapname="s1")
    server.wait_idle()
    assert len(server.all_tasks("qmsnapshot")) == 1
    assert root.create("s1") == "snapshot name 's1' already used"


def test_an_answer_may_be_cut_in_the_middle(server, root):
    server.faults.at(CREATE, 1, faults.cut())
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        root.post(SNAPSHOT, snapname="s1")
    assert len(server.all_tasks("qmsnapshot")) == 1


def test_an_answer_may_be_no_json(server, root):
    server.faults.at("GET /version", 1, faults.garbage())
    with pytest.raises(json.JSONDecodeError):
        root.get("/version")


@pytest.mark.parametrize("code", [500, 502, 503, 504, 595, 596])
def test_a_call_may_be_answered_with_any_status(server, root, code):
    server.faults.at(CREATE, 1, faults.status(code))
    with pytest.raises(Refused) as refused:
        root.post(SNAPSHOT, snapname="s1")
    assert refused.value.status == code
    assert not server.all_tasks()


def test_a_call_may_be_slow_and_holds_nobody_else_up(server, root):
    server.faults.at(CREATE, 1, faults.slow(5))
    begun = time.monotonic()
    thread = threading.Thread(target=root.post, args=(SNAPSHOT,), kwargs={"snapname": "s1"})
    thread.start()
    Client(server).get("/version")
    assert thread.is_alive()
    thread.join()
    assert time.monotonic() - begun >= 5


def test_tickets_may_end_in_the_middle(server, root):
    server.faults.at("GET /version", 2, faults.logout())
    root.get("/version")
    for _number in range(2):
        with pytest.raises(Refused) as refused:
            root.get("/version")
        assert (refused.value.status, refused.value.reason) == (401, "permission denied - invalid PVE ticket")
    root.login("root@pam", "secret")
    assert root.get("/version")


def test_a_right_may_be_lost_in_the_middle(server):
    user = Client(server, "snap@pve")
    server.faults.at(CREATE, 2, faults.revoke("snap@pve", "VM.Snapshot"))
    assert user.create("s1") == "OK"
    with pytest.raises(Refused) as refused:
        user.post(SNAPSHOT, snapname="s2")
    assert refused.value.status == 403


def test_faults_count_only_the_calls_that_fit(server, root):
    rule = server.faults.at("POST */qemu/101/snapshot", 2, faults.status(500, "got timeout"))
    assert root.create("s1") == "OK"
    assert root.create("s1", ONE.format(101)) == "OK"
    assert root.create("s2") == "OK"
    with pytest.raises(Refused) as refused:
        root.create("s2", ONE.format(101))
    assert (refused.value.reason, rule.seen, rule.fired) == ("got timeout", 2, 1)
    assert root.create("s2", ONE.format(101)) == "OK"


def test_a_fault_may_meet_each_call_until_it_is_cleared(server, root):
    server.faults.at("GET *", None, faults.status(503))
    for _number in range(2):
        with pytest.raises(Refused):
            root.get("/version")
    server.faults.clear()
    assert root.get("/version")


@pytest.mark.parametrize("name", faults.ANSWERS)
@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_every_fault_can_meet_every_call_and_the_server_goes_on(server, name, nth):
    rule = server.faults.at("*", nth, faults.ANSWERS[name]())

    def run():
        client = Client(server)
        client.get("/cluster/resources", type="vm")
        return client.end(client.post(SNAPSHOT, snapname="s1"))

    try:
        run()
    except (Refused, json.JSONDecodeError, http.client.HTTPException, ConnectionError):
        assert name != "slow"
    assert rule.fired == 1
    server.wait_idle()
    assert run() in ("OK", "snapshot name 's1' already used")


def test_many_clients_at_once_each_get_their_own_answer(server):
    for vmid in range(300, 332):
        server.add_qemu(vmid)
    found = {}

    def run(vmid):
        client = Client(server)
        upid = client.post(f"{ONE.format(vmid)}/snapshot", snapname="s1")
        found[vmid] = upid.split(":")[6]

    threads = [threading.Thread(target=run, args=(vmid,)) for vmid in range(300, 332)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {vmid: str(vmid) for vmid in range(300, 332)}
