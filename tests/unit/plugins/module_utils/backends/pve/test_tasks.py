# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When tasks have ended: the list for many, single questions for few, and no task is lost."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.pve import tasks
from ansible_collections.restorepoint.core.plugins.module_utils.deadline import Deadline
from ansible_collections.restorepoint.core.plugins.module_utils.pve import PveClient, PveError, Refused


def upid(number, node="pve1"):
    return f"UPID:{node}:{number:08X}:0003E154:6B024CE9:qmsnapshot:{number}:root@pam:"


class Node:
    """Answers for tasks: ``ends`` says when each has ended, from ``started`` on; ``hidden`` are not in the list."""

    user, foreground, skew = "root@pam", False, 0.0

    def __init__(self, ends, hidden=(), lists=True):
        self.ends, self.hidden, self.lists = ends, hidden, lists
        self.started = time.monotonic()
        self.asked = []

    def call(self, method, path, params, timeout):
        if path.endswith("/tasks"):
            self.asked.append(dict(params))
            if not self.lists:
                raise Refused(403, "Permission check failed")
            return [{"upid": text, **self._state(text, "status")} for text in self.ends if text not in self.hidden]
        text = path.split("/")[4]
        self.asked.append(text)
        state = self._state(text, "exitstatus")
        return {"status": "stopped" if state["exitstatus"] else "running", **state}

    def _state(self, text, key):
        after, status = self.ends[text]
        return {key: status if time.monotonic() - self.started >= after else ""}


def waited(node, seconds=60.0, together=False):
    """Wait for all tasks at once; return what each came to. ``together``: time begins when all are waited for."""
    node.started = math.inf if together else node.started
    deadline = Deadline(seconds)
    watcher = tasks.TaskWatcher(PveClient(node, 5.0, deadline), deadline)
    found: dict[str, Any] = {}

    def wait(text):
        try:
            found[text] = watcher.wait(tasks.parse_upid(text, "wait"), "wait")
        except tasks.StillRunning as error:
            found[text] = error

    threads = [threading.Thread(target=wait, args=(text,)) for text in node.ends]
    for each in threads:
        each.start()
    while together and len(watcher._nodes.get("pve1", ())) < len(threads):
        time.sleep(0.01)
    node.started = time.monotonic() if together else node.started
    for each in threads:
        each.join()
    watcher.close()
    return found


@pytest.mark.parametrize("count", [1, 4, 5, 30])
def test_each_task_gets_its_own_exit_status(count):
    ends = {upid(number): (0.1, "OK" if number % 2 else "no space") for number in range(1, count + 1)}
    node = Node(ends)
    assert waited(node, together=True) == {text: status for text, (_after, status) in ends.items()}
    lists = [each for each in node.asked if isinstance(each, dict)]
    assert bool(lists) == (count >= tasks.LIST_FROM)
    for each in lists:
        assert (each["source"], each["since"]) == ("all", 0x6B024CE9)
        assert each["limit"] >= 200


def test_a_list_stands_for_many_single_questions():
    node = Node({upid(number): (0.5, "OK") for number in range(1, 31)})
    waited(node, together=True)
    assert len(node.asked) < 10


def test_a_task_that_the_list_does_not_show_is_asked_for_itself():
    ends = {upid(number): (0.0 if number == 1 else 1.6, "OK") for number in range(1, 8)}
    node = Node(ends, hidden={upid(1)})
    assert set(waited(node).values()) == {"OK"}
    assert upid(1) in node.asked


def test_where_the_list_is_refused_each_is_asked_for():
    node = Node({upid(number): (0.0, "OK") for number in range(1, 8)}, lists=False)
    assert set(waited(node).values()) == {"OK"}


def test_a_task_that_ends_at_the_deadline_has_ended():
    node = Node({upid(1): (0.39, "OK")})
    assert waited(node, 0.4) == {upid(1): "OK"}


def test_a_task_that_does_not_end_is_reported_with_its_upid():
    error = waited(Node({upid(1): (99, "OK")}), 0.5)[upid(1)]
    assert isinstance(error, tasks.StillRunning)
    assert upid(1) in str(error)
    assert "had not ended by the deadline" in str(error)


def test_of_a_task_that_is_listed_twice_the_last_counts():
    text = upid(1)
    listed = [{"upid": text, "status": "RUNNING"}, {"upid": text, "status": "OK"}, {"upid": "other"}, "nonsense"]
    assert dict(tasks._states(listed, {text: None})) == {text: "OK"}


@pytest.mark.parametrize("text", [None, 5, "", "UPID:pve1:1:2:3:t:i:u:", f"{upid(1)}x", "upid:pve1"])
def test_what_names_no_task_is_an_error(text):
    with pytest.raises(PveError, match="names no task"):
        tasks.parse_upid(text, "take it")


def test_a_token_is_part_of_the_user():
    found = tasks.parse_upid("UPID:pve1:00006125:0003E154:6B024CE9:qmsnapshot:102:root@pam!full:", "read")
    assert (found.node, found.type, found.id, found.user, found.starttime) == (
        "pve1", "qmsnapshot", "102", "root@pam!full", 0x6B024CE9,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("status", "well"), [("OK", True), ("WARNINGS: 2", True), ("unexpected status", False), ("zfs error ", False)]
)
def test_warnings_are_a_success(status, well):
    assert tasks.succeeded(status) == well
