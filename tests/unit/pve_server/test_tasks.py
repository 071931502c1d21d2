# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tasks: their UPIDs, status and logs, and the lists of a node with their limits and their lag."""

from __future__ import annotations

import re
import time

import pytest

from ansible_collections.restorepoint.core.tests.pve_server import PveServer, faults
from ansible_collections.restorepoint.core.tests.unit.pve_server.client import BOX, ONE, Client, Refused

SNAPSHOT = f"{ONE.format(100)}/snapshot"
TASKS = "/nodes/pve1/tasks"


class Clock:
    """A clock that stands until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    """A clock for ``slow_server``."""
    return Clock()


@pytest.fixture
def still(clock):
    """A server whose time stands still, with guests 100 and 101; tasks take 10 s."""
    with PveServer(clock=clock) as found:
        found.settings.task_seconds = 10
        found.settings.idle_seconds = 600
        found.add_qemu(100)
        found.add_qemu(101)
        yield found


def test_a_upid_has_proxmoxs_form(root):
    upid = root.post(SNAPSHOT, snapname="s1")
    form = r"UPID:pve1:[0-9A-F]{8,9}:[0-9A-F]{8,9}:[0-9A-F]{8}:qmsnapshot:100:root@pam:"
    assert re.fullmatch(form, upid)
    assert abs(int(upid.split(":")[4], 16) - time.time()) < 600


@pytest.mark.parametrize(("path", "mark"), [(ONE.format(101), "qm"), (BOX.format(202), "vz")])
def test_types_tell_what_a_task_does(server, root, path, mark):
    root.create("s1", path)
    root.rollback("s1", path, start=1)
    root.remove("s1", path)
    assert [each.type for each in server.all_tasks()] == [
        f"{mark}{what}" for what in ("snapshot", "rollback", "start", "delsnapshot")
    ]


def test_a_task_takes_its_time_and_ends_when_it_should(still, clock):
    root = Client(still)
    upid = root.post(SNAPSHOT, snapname="s1")
    clock.now += 9.9
    assert root.get(f"{TASKS}/{upid}/status")["status"] == "running"
    assert "exitstatus" not in root.get(f"{TASKS}/{upid}/status")
    clock.now += 100
    found = root.get(f"{TASKS}/{upid}/status")
    assert (found["status"], found["exitstatus"], found["type"], found["id"]) == ("stopped", "OK", "qmsnapshot", "100")
    (entry,) = root.get(TASKS)
    assert entry["endtime"] - entry["starttime"] == 10


def test_warnings_are_a_success_of_their_own(server, root):
    def worker(task):
        yield 0
        task.warn("something is odd")

    with server.frozen() as cluster:
        task = cluster.tasks.start("pve1", "qmsnapshot", 100, "root@pam", worker, [])
    assert root.end(task.upid) == "WARNINGS: 1"
    assert root.log(task.upid) == ["WARN: something is odd", "TASK WARNINGS: 1"]


@pytest.mark.parametrize(
    ("upid", "words"),
    [
        ("nonsense", "unable to parse worker upid"),
        ("UPID:pve1:00006125:0003E154:6B024CE9:qmsnapshot:102:root@pam:", "no such task"),
    ],
)
def test_a_task_that_is_not_there_is_a_wrong_parameter(root, upid, words):
    with pytest.raises(Refused) as refused:
        root.get(f"{TASKS}/{upid}/status")
    assert (refused.value.status, refused.value.errors) == (400, {"upid": words})


def test_a_task_is_known_on_its_node_alone(root):
    upid = root.post(SNAPSHOT, snapname="s1")
    with pytest.raises(Refused) as refused:
        root.get(f"/nodes/pve2/tasks/{upid}/status")
    assert refused.value.errors == {"upid": "no such task"}


def test_a_log_shows_fifty_lines_unless_told_otherwise(server, root):
    task = server.tasks.archive("pve1", "vzdump", 100, "root@pam", 60)
    task.log = [f"line {number}" for number in range(80)]
    assert len(root.get(f"{TASKS}/{task.upid}/log")) == 50
    assert len(root.get(f"{TASKS}/{task.upid}/log", limit=500)) == 80
    assert root.get(f"{TASKS}/{task.upid}/log", start=79) == [{"n": 80, "t": "line 79"}]


def test_a_list_shows_fifty_archived_tasks_unless_told_otherwise(server, root):
    for number in range(80):
        server.tasks.archive("pve1", "vzdump", 100, "root@pam", 1000 - number)
    server.faults.at("POST */snapshot", 1, faults.hang_task())
    upid = root.post(SNAPSHOT, snapname="s1")
    assert len(root.get(TASKS)) == 50
    assert [each["upid"] for each in root.get(TASKS, source="active")] == [upid]
    everything = root.get(TASKS, source="all", limit=200)
    assert len(everything) == 81
    assert (everything[0]["upid"], everything[0]["status"]) == (upid, "RUNNING")
    assert "endtime" not in everything[0]
    assert everything[1]["starttime"] > everything[2]["starttime"]
    assert len(root.get(TASKS, source="all", limit=10, start=75)) == 6
    assert root.get(TASKS, limit=0) == []


def test_a_list_may_be_narrowed_down(server, root):
    server.tasks.archive("pve1", "vzdump", 100, "root@pam", 5000)
    bad = server.tasks.archive("pve1", "vzdump", 101, "snap@pve", 100, "job errors")
    good = root.post(SNAPSHOT, snapname="s1")
    server.wait_idle()

    def upids(**params):
        return [each["upid"] for each in root.get(TASKS, **params)]

    assert upids(since=int(time.time()) - 1000) == [good, bad.upid]
    assert upids(typefilter="qmsnapshot") == [good]
    assert upids(vmid=101) == [bad.upid]
    assert upids(errors=1) == [bad.upid]
    assert upids(statusfilter="error") == [bad.upid]
    assert upids(userfilter="snap@") == [bad.upid]
    assert upids(until=int(time.time()) - 50, since=int(time.time()) - 1000) == [bad.upid]


def test_a_list_may_be_behind_while_the_task_itself_is_not(still, clock):
    still.tasks.list_lag = 0.05
    root = Client(still)
    upid = root.post(SNAPSHOT, snapname="s1")
    clock.now += 10.01
    assert root.get(f"{TASKS}/{upid}/status")["exitstatus"] == "OK"
    assert [each["status"] for each in root.get(TASKS, source="all")] == ["RUNNING"]
    assert root.get(TASKS) == []
    clock.now += 0.1
    assert [each["status"] for each in root.get(TASKS, source="all")] == ["OK"]


def test_a_list_may_show_a_task_twice_and_the_last_one_counts(still, clock):
    still.tasks.list_lag, still.tasks.twice = 0.05, True
    root = Client(still)
    root.post(SNAPSHOT, snapname="s1")
    clock.now += 10.01
    assert [each["status"] for each in root.get(TASKS, source="all")] == ["RUNNING", "OK"]


def test_a_new_task_may_be_missing_in_a_list(still, clock):
    still.tasks.list_delay = 0.05
    root = Client(still)
    root.post(SNAPSHOT, snapname="s1")
    assert root.get(TASKS, source="all") == []
    clock.now += 0.06
    assert len(root.get(TASKS, source="all")) == 1


def test_the_clusters_list_is_cut(server, root):
    for number in range(80):
        server.tasks.archive("pve1", "vzdump", 100, "root@pam", 1000 - number)
    assert len(root.get("/cluster/tasks")) == 25


def test_each_guest_may_have_its_own_time(still, clock):
    still.guest(101).seconds = 1
    root = Client(still)
    upids = [root.post(f"{ONE.format(vmid)}/snapshot", snapname="s1") for vmid in (100, 101)]
    clock.now += 2
    assert [root.get(f"{TASKS}/{upid}/status")["status"] for upid in upids] == ["running", "stopped"]


def test_a_worker_that_is_killed_has_an_unexpected_status(still):
    root = Client(still)
    upid = root.post(SNAPSHOT, snapname="s1")
    still.kill(still.tasks.by_upid[upid])
    assert root.get(f"{TASKS}/{upid}/status")["exitstatus"] == "unexpected status"
    assert still.guest(100).lock == "snapshot"
    assert root.get(TASKS)[0]["status"] == "unexpected status"


def test_a_thousand_archived_tasks_cost_little(server, root):
    for number in range(1100):
        server.tasks.archive("pve1", "vzdump", 100, "root@pam", 2000 - number)
    root.get(TASKS, source="all", limit=2000)
    begun = time.process_time()
    for _number in range(20):
        root.get(TASKS, source="all", limit=200, since=int(time.time()))
    assert (time.process_time() - begun) / 20 < 0.02
