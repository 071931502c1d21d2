# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every fault of the test server, at every call of a run: it ends in time, says the truth, leaves nothing half done."""

from __future__ import annotations

import time

import pytest

from ansible_collections.restorepoint.core.tests.pve_server import faults

GUESTS = [100, 101, 200]
#: Of these two, each kind of run makes as many calls and no more; the login is the first.
PAIR = [101, 200]
CALLS = {"present": 15, "absent": 10, "rolled_back": 15}
KINDS = {"present": "snapshot", "absent": "delsnapshot", "rolled_back": "rollback"}
#: No run may hang. Its own timeouts are far shorter, but a busy machine has its own time.
SECONDS = 300


def prepared(pve, state, name="one", guests=None):
    """Bring guests, or all of them, to where a run begins; return its options."""
    guests = guests or GUESTS
    for vmid in guests:
        pve.server.guest(vmid).write("then")
    if state != "present":
        assert "failed" not in pve.state(vmid=guests, name=name)
    for vmid in guests:
        pve.server.guest(vmid).write("now")
    return {"vmid": guests, "name": name, "state": state, "timeout": 60, "start": state == "rolled_back"}


def is_reached(pve, state, vmid, name="one"):
    """Say whether a guest is in the state, as the server has it."""
    guest = pve.server.guest(vmid)
    if state == "rolled_back":
        return set(guest.content.values()) == {"then"}
    return (name in guest.snapshots) == (state == "present")


def judge(pve, state, result, name="one"):
    """Hold a result against what the server has."""
    pve.server.wait_idle()
    for each in result["results"]:
        done = each["action"] in ("created", "removed", "rolled_back")
        assert each["changed"] == done
        assert is_reached(pve, state, each["vmid"], name) == done, each
        assert pve.is_clean(each["vmid"]), each
    if not result.get("failed"):
        assert all(each["changed"] for each in result["results"])


def begun(pve, vmid, kind):
    """Count the tasks of a kind that a guest has had."""
    return len([task for task in pve.server.all_tasks() if task.type[2:] == kind and task.id == str(vmid)])


@pytest.mark.parametrize("state", CALLS)
@pytest.mark.parametrize("fault", faults.ANSWERS)
def test_one_fault_of_a_call_is_overcome_wherever_it_happens(pve, state, fault):
    fired = 0
    for number in range(1, CALLS[state] + 1):
        name = "one" if state == "rolled_back" else f"n{number}"
        options = prepared(pve, state, name, PAIR)
        before = {vmid: begun(pve, vmid, KINDS[state]) for vmid in PAIR}
        rule = pve.server.faults.at("*", number, faults.ANSWERS[fault]())
        started = time.monotonic()
        result = pve.state(**options)
        assert time.monotonic() - started < SECONDS
        assert "failed" not in result, (number, result["msg"])
        assert [each["vmid"] for each in result["results"]] == PAIR
        judge(pve, state, result, name)
        for vmid in PAIR:
            assert begun(pve, vmid, KINDS[state]) == before[vmid] + 1, f"sent twice at call {number}"
        pve.server.faults.clear()
        fired += rule.fired
    assert fired >= CALLS[state] - 4, "a run makes fewer calls than thought: faults were not met"


@pytest.mark.parametrize("call", ["GET */snapshot", "GET */feature", "POST */snapshot", "GET */status"])
@pytest.mark.parametrize("fault", ["dropped before", "garbage", "500", "503", "596"])
def test_what_does_not_pass_ends_in_one_sentence_and_nothing_is_left(pve, call, fault):
    options = prepared(pve, "present")
    pve.server.faults.at(call, None, faults.ANSWERS[fault]())
    started = time.monotonic()
    result = pve.state(**{**options, "timeout": 3})
    pve.server.faults.clear()
    assert time.monotonic() - started < SECONDS
    pve.server.wait_idle()
    if (call, fault) == ("POST */snapshot", "garbage"):
        judge(pve, "present", result)  # each was carried out, and its task was found
        return
    assert result["failed"]
    assert result["msg"].startswith("Cannot ")
    for vmid in GUESTS:
        # Only where even looking was impossible can something be left, and then it is said.
        assert pve.is_clean(vmid)
        assert is_reached(pve, "present", vmid) is False or f"/{vmid}" in result["msg"] or call == "GET */snapshot"


@pytest.mark.parametrize("vmid", [100, 200])
def test_one_guest_that_fails_lets_the_others_be_taken_back(pve, vmid):
    options = prepared(pve, "present")
    pve.server.faults.at(f"POST */{vmid}/snapshot", 1, faults.fail_task("volume:*", "zfs error: out of space"))
    result = pve.state(**options)
    assert "zfs error: out of space (task UPID:" in result["msg"]
    assert {each["vmid"]: each["action"] for each in result["results"]}[vmid] == "failed"
    assert {each["action"] for each in result["results"]} <= {"failed", "undone", "none"}
    judge(pve, "present", result)
    assert not result["changed"]


def test_with_keep_the_others_stay(pve):
    options = prepared(pve, "present")
    pve.server.faults.at("POST */100/snapshot", 1, faults.fail_task("volume:*", "zfs error: out of space"))
    result = pve.state(**options, on_failure="keep")
    assert result["failed"]
    assert result["changed"]
    assert [each["action"] for each in result["results"]] == ["failed", "created", "created"]
    judge(pve, "present", result)


def test_a_failed_task_is_told_without_waiting_for_the_timeout(pve):
    pve.server.faults.at("POST */snapshot", 1, faults.fail_task("volume:*", "no space"))
    started = time.monotonic()
    assert "no space" in pve.state(vmid=[100], name="one", timeout=600)["msg"]
    assert time.monotonic() - started < SECONDS


def test_a_killed_worker_is_cleaned_up_where_the_api_can(pve):
    pve.server.faults.at("POST */100/snapshot", 1, faults.kill_task())
    result = pve.state(vmid=[100, 101], name="one")
    assert "its worker was killed (unexpected status)" in result["msg"]
    judge(pve, "present", result)


def test_a_killed_worker_is_named_with_the_way_out_where_the_api_cannot(pve):
    pve.server.faults.at("POST */200/snapshot", 1, faults.kill_task())
    result = pve.state(vmid=[101, 200], name="one")
    assert "'one' is left on lxc/200 (ct-zfs)" in result["msg"]
    assert "`pct unlock 200` and then `pct delsnapshot 200 one --force` on pve1" in result["msg"]
    assert not is_reached(pve, "present", 101)


def test_a_task_that_hangs_is_stopped_at_the_deadline_and_cleans_up(pve):
    pve.server.faults.at("POST */100/snapshot", 1, faults.hang_task())
    started = time.monotonic()
    result = pve.state(vmid=[100, 101], name="one", timeout=8)  # enough to begin with, on a busy machine
    assert time.monotonic() - started < SECONDS
    assert "had not ended by the deadline" in result["msg"]
    judge(pve, "present", result)


def test_a_removal_that_hangs_is_reported_and_not_stopped(pve):
    prepared(pve, "absent")
    pve.server.faults.at("DELETE */100/*", 1, faults.hang_task())
    result = pve.state(vmid=[100], name="one", state="absent", timeout=8)
    assert "had not ended by the deadline (UPID:" in result["msg"]
    assert "follow that task" in result["msg"]


@pytest.mark.parametrize("number", range(1, 12))
@pytest.mark.parametrize("state", ["present", "rolled_back"])
def test_a_guest_that_moves_is_found_again(pve, state, number):
    options = prepared(pve, state)
    pve.server.faults.at("*", number, faults.move(101, "pve2"))
    result = pve.state(**options)
    assert "failed" not in result, result["msg"]
    judge(pve, state, result)
    assert [each["node"] for each in result["results"] if each["vmid"] == 101] == ["pve2"] or number > 5


def test_a_guest_that_gets_locked_in_between_is_waited_for(pve):
    pve.server.faults.at("POST */101/snapshot", 1, faults.do(lambda cluster: setattr_lock(cluster, "backup")))
    pve.server.faults.at("POST */101/snapshot", 3, faults.do(lambda cluster: cluster.unlock(101)))
    result = pve.state(vmid=[101], name="one", lock_timeout=120)
    assert "failed" not in result, result["msg"]
    assert begun(pve, 101, "snapshot") == 3


def setattr_lock(cluster, lock):
    cluster.guests[101].config["lock"] = lock


def test_a_privilege_that_is_taken_away_in_between_is_named(pve):
    options = {"vmid": [100, 101], "name": "one", "api_user": "snap@pve"}
    pve.server.faults.at("POST */snapshot", 1, faults.revoke("snap@pve", "VM.Snapshot"))
    result = pve.state(**options)
    assert "Permission check failed (/vms/10" in result["msg"]
    assert "VM.Snapshot on /vms/10" in result["msg"]
    assert not any(is_reached(pve, "present", vmid) for vmid in (100, 101))


def test_a_return_that_fails_in_the_middle_is_told_with_the_way_out(pve):
    prepared(pve, "rolled_back")
    pve.server.faults.at("POST */rollback", 1, faults.fail_task("volume:*", "zfs error: dataset is busy"))
    result = pve.state(vmid=[100], name="one", state="rolled_back")
    assert "dataset is busy" in result["msg"]
    assert "`qm unlock 100` on pve1 and return again" in result["msg"]
    again = pve.state(vmid=[100], name="one", state="rolled_back", repair=True)
    assert again["results"][0]["repaired"] == ["lock"]
    judge_content = set(pve.server.guest(100).content.values())
    assert judge_content == {"then"}
    assert pve.is_clean(100)


def test_a_return_of_several_that_fails_is_undone_from_what_was_kept_aside(pve):
    guests = [101, 110]
    for vmid in guests:
        pve.server.guest(vmid).write("then")
    assert pve.state(vmid=guests, name="one")["changed"]
    for vmid in guests:
        pve.server.guest(vmid).write("now")
    pve.server.faults.at("POST */110/snapshot/one/rollback", 1, faults.fail_task("*", "rbd error: in use"))
    result = pve.state(vmid=guests, name="one", state="rolled_back", keep_current=True)
    assert "rbd error: in use" in result["msg"]
    pve.server.wait_idle()
    assert set(pve.server.guest(101).content.values()) == {"now"}
    assert pve.server.guest(101).running
    assert pve.names(101) == ["one"]


def test_task_lists_that_lag_and_repeat_are_understood(pve):
    pve.server.tasks.list_lag, pve.server.tasks.twice = 0.2, True
    pve.server.settings.task_seconds = 0.1
    guests = [100, 101, 102, 106, 107, 110, 111, 200, 202]
    result = pve.state(vmid=guests, name="one", parallel=9)
    assert "failed" not in result, result["msg"]
    assert any(each.path.endswith("/tasks") for each in pve.server.calls)
    assert len(result["results"]) == len(guests)


def test_a_ticket_that_runs_out_is_renewed_once(pve):
    pve.server.faults.at("POST */snapshot", 2, faults.logout())
    assert "failed" not in pve.state(vmid=GUESTS, name="one")
    assert [str(each) for each in pve.server.calls].count("POST /access/ticket") == 2
