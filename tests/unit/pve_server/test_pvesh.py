# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pvesh of the test server, and its other programs, held to what Proxmox's pvesh.pm and RESTEnvironment.pm do."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from typing import NamedTuple

import pytest

from ansible_collections.restorepoint.core.tests.pve_server import faults
from ansible_collections.restorepoint.core.tests.unit.pve_server.client import ONE

SNAPSHOT = f"{ONE.format(100)}/snapshot"
JSON = ("--output-format", "json")
UPID = re.compile(r'"UPID:pve1:[^"]*:root@pam:"')


class Ran(NamedTuple):
    """What a program printed, and its exit code."""

    out: str
    err: str
    code: int


@pytest.fixture
def pvesh(server):
    """Run pvesh on pve1, with JSON."""

    def run(*argv, node="pve1", program="pvesh", form=JSON):
        command = [os.path.join(server.programs(node), program), *map(str, argv), *(form if program == "pvesh" else ())]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return Ran(done.stdout, done.stderr, done.returncode)

    return run


def test_a_list_is_canonical_json_on_one_line(root, pvesh):
    root.create("s1", description="é")
    ran = pvesh("get", SNAPSHOT)
    found = json.loads(ran.out)
    assert {each["name"] for each in found} == {"s1", "current"}
    assert ran.out == json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    assert (ran.err, ran.code) == ("", 0)


def test_a_task_runs_in_the_foreground_and_its_upid_comes_after_its_output(server, pvesh):
    server.settings.task_seconds = 0.3
    begun = time.monotonic()
    ran = pvesh("create", SNAPSHOT, "--snapname", "s1", "--description", "two words")
    assert time.monotonic() - begun >= 0.3
    first, second = ran.out.splitlines()
    assert first == "snapshotting 'drive-scsi0' (local-zfs:vm-100-disk-0)"
    assert UPID.fullmatch(second)
    assert (ran.err, ran.code) == ("", 0)
    assert server.guest(100).snapshots["s1"]["description"] == "two words"
    status = json.loads(pvesh("get", f"/nodes/pve1/tasks/{json.loads(second)}/status").out)
    assert (status["exitstatus"], status["user"]) == ("OK", "root@pam")


def test_a_task_that_fails_says_so_on_stderr_and_exits_with_zero(root, pvesh):
    root.create("s1")
    ran = pvesh("create", SNAPSHOT, "--snapname", "s1")
    assert UPID.fullmatch(ran.out.strip())
    assert (ran.err, ran.code) == ("snapshot name 's1' already used\n", 0)


def test_a_creation_that_fails_shows_its_clean_up(server, pvesh):
    server.faults.at("POST */snapshot", 1, faults.fail_task("volume:*", "zfs error: out of space"))
    ran = pvesh("create", SNAPSHOT, "--snapname", "s1")
    assert ran.out.splitlines()[1] == "snapshot create failed: starting cleanup"
    assert ran.err == "zfs error: out of space \n"


def test_a_worker_that_is_killed_ends_with_words_of_pveshs_own(server, pvesh):
    server.faults.at("POST */snapshot", 1, faults.kill_task("commit"))
    ran = pvesh("create", SNAPSHOT, "--snapname", "s1")
    assert (ran.err, ran.code) == ("got unexpected control message:  \n", 0)
    assert server.all_tasks()[0].status == "got unexpected control message:  "


def test_warnings_are_told_on_stderr(server, pvesh, monkeypatch):
    def worker(task):
        yield 0
        task.warn("odd")

    from ansible_collections.restorepoint.core.tests.pve_server import operations

    monkeypatch.setattr(operations, "delete", lambda *_: worker)
    ran = pvesh("delete", f"{SNAPSHOT}/s1")
    assert ran.out.splitlines()[0] == "WARN: odd"
    assert ran.err == "Task finished with 1 warning(s)!\n"


def test_a_return_with_start_has_the_guest_running_at_its_end(server, root, pvesh):
    root.create("s1")
    server.settings.start_seconds = 0.3
    assert pvesh("create", f"{SNAPSHOT}/s1/rollback", "--start").code == 0
    assert server.guest(100).running


def test_what_returns_nothing_prints_nothing(root, pvesh):
    root.create("s1")
    assert pvesh("set", f"{SNAPSHOT}/s1/config", "--description", "x") == ("", "", 0)
    assert root.listed()["s1"]["description"] == "x"


def test_quiet_leaves_out_the_upid_alone(pvesh):
    ran = pvesh("create", SNAPSHOT, "--snapname", "s1", "--quiet")
    assert ran.out == "snapshotting 'drive-scsi0' (local-zfs:vm-100-disk-0)\n"


def test_wrong_parameters_are_lines_on_stderr(pvesh):
    ran = pvesh("create", SNAPSHOT, "--snapname", "x")
    first, second = ran.err.splitlines()[:2]
    assert first == "400 Parameter verification failed."
    assert second == "snapname: invalid format - invalid configuration ID 'x'"
    assert (ran.out, ran.code) == ("", 255)


def test_errors_are_proxmoxs_words_on_stderr(pvesh):
    ran = pvesh("get", "/nodes/pve1/qemu/999/snapshot")
    assert ran.err == "Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist\n"
    assert (ran.out, ran.code) == ("", 2)
    ran = pvesh("create", "/foo")
    assert (ran.err, ran.code) == ("No 'create' handler defined for '/foo'\n", 1)


def test_another_node_is_asked_through_ssh(root, pvesh):
    root.create("s1", "/nodes/pve2/qemu/104")
    found = json.loads(pvesh("get", "/nodes/pve2/qemu/104/snapshot").out)
    assert {each["name"] for each in found} == {"s1", "current"}
    ran = pvesh("get", "/nodes/pve2/qemu/104/snapshot", "--noproxy")
    assert (ran.err, ran.code) == ("proxy loop detected - aborting\n", 255)


def test_output_of_another_nodes_task_is_no_json_and_that_fails_in_old_versions(server, pvesh):
    ran = pvesh("create", "/nodes/pve2/qemu/104/snapshot", "--snapname", "s1")
    assert ran.code == 255
    assert ran.err.startswith("malformed JSON string, neither tag, array, object, number, string or atom")
    assert set(server.guest(104).snapshots) == {"s1"}
    server.settings.pvesh_proxy = "lenient"
    ran = pvesh("create", "/nodes/pve2/qemu/104/snapshot", "--snapname", "s2")
    assert (ran.code, ran.err) == (0, "")
    assert re.search(r"UPID:pve2:[^\"\\]*:root@pam:", json.loads(ran.out))


def test_an_error_on_another_node_names_the_command(server, pvesh):
    ran = pvesh("get", "/nodes/pve2/qemu/999/snapshot")
    assert "Configuration file 'nodes/pve2/qemu-server/999.conf' does not exist" in ran.err
    assert "proxy handler failed: command 'ssh -o BatchMode=yes root@pve2 pvesh --noproxy get" in ran.err
    assert ran.code == 255
    server.cluster.nodes["pve2"].online = False
    assert "No route to host" in pvesh("get", "/nodes/pve2/qemu/104/snapshot").err


def test_faults_meet_pvesh_too(server, pvesh):
    server.faults.at("POST */snapshot", 1, faults.drop_after())
    assert pvesh("create", SNAPSHOT, "--snapname", "s1").code == 137
    assert set(server.guest(100).snapshots) == {"s1"}
    server.faults.at("GET */snapshot", 1, faults.status(500, "got timeout"))
    assert pvesh("get", SNAPSHOT) == ("", "got timeout\n", 255)
    assert [str(call) for call in server.calls] == [f"POST {SNAPSHOT}", f"GET {SNAPSHOT}"]


def _begin(server, call, step):
    server.faults.at(call, 1, faults.hang_task(step))
    argv = [os.path.join(server.programs(), "pvesh"), "create", SNAPSHOT, "--snapname", "s1", *JSON]
    running = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not server.all_tasks() and time.monotonic() < deadline:
        time.sleep(0.01)
    return running, server.all_tasks()[0]


def test_a_signal_to_pvesh_is_passed_on_to_the_worker_which_cleans_up(server):
    running, task = _begin(server, "POST */snapshot", "volume:*")
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0
    assert err == "received interrupt \n"
    assert UPID.fullmatch(out.splitlines()[-1])
    assert task.status == "received interrupt "
    assert (server.guest(100).lock, server.guest(100).snapshots) == (None, {})


def test_a_worker_whose_pvesh_was_killed_dies_when_it_next_prints(server):
    running, task = _begin(server, "POST */snapshot", "freeze")
    running.kill()
    running.communicate(timeout=120)
    deadline = time.monotonic() + 120
    while not task.output_lost and time.monotonic() < deadline:
        time.sleep(0.01)
    assert task.output_lost
    server.release(task)
    server.wait_idle()
    assert task.status == "unexpected status"
    assert server.guest(100).lock == "snapshot"


def test_unlock_is_a_nodes_own_program(server, pvesh):
    assert pvesh("unlock", 108, program="qm", node="pve2").code == 2
    assert server.guest(108).lock == "backup"
    assert pvesh("unlock", 108, program="qm") == ("", "", 0)
    assert server.guest(108).lock is None
    server.guest(200).config["lock"] = "snapshot-delete"
    assert pvesh("unlock", 200, program="pct").code == 0
    assert server.guest(200).lock is None


def test_snapshots_are_listed_as_a_tree(server, root, pvesh):
    path = ONE.format(101)
    for name, text in (("t1", "first\nmore"), ("t2", "")):
        root.create(name, path, description=text)
    root.rollback("t1", path)
    root.create("t3", path)
    for number, name in enumerate(("t1", "t2", "t3")):
        server.guest(101).snapshots[name]["snaptime"] = 1_800_000_000 + number
    ran = pvesh("listsnapshot", 101, program="qm")
    lines = [
        re.sub(r" +", " ", re.sub(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", line)) for line in ran.out.splitlines()
    ]
    assert lines == [
        "`-> t1 TIME first",
        " `-> t2 TIME no-description",
        " `-> t3 TIME no-description",
        " `-> current You are here!",
    ]
    assert {line.index("TIME") for line in re.sub(r"20[-\d]+ [:\d]+", "TIME", ran.out).splitlines()[:3]} == {32}


def test_another_process_may_look_at_the_server_and_change_it(server, root, pvesh):
    def control(*argv):
        ran = pvesh(*argv, program="pve-test-server")
        assert ran.code == 0, ran.err
        return json.loads(ran.out) if ran.out else None

    control("add", "qemu", 500, json.dumps({"storage": "local-lvm", "content": "v1"}))
    root.create("s1", ONE.format(500))
    control("write", 500, "v2")
    assert control("guest", 500)["content"] == {"scsi0": "v2"}
    assert set(control("guest", 500)["snapshots"]) == {"s1"}
    control("fault", "POST */snapshot", 1, "fail_task", "volume:*", "zfs error: out of space")
    assert root.create("s2", ONE.format(500)) == "zfs error: out of space "
    control("move", 500, "pve2")
    control("set", "task_seconds", 0.001)
    assert (server.guest(500).node, server.settings.task_seconds) == ("pve2", 0.001)
    assert control("calls")[0] == "POST /access/ticket"
    assert pvesh("nonsense", program="pve-test-server").code == 2
