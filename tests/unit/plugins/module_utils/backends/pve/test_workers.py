# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many guests at once: so many of a node, and none is begun after a failure where that is asked for."""

from __future__ import annotations

import functools
import threading
import time

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.pve.workers import Job, in_parallel
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import NotBegun, RestorePointError


class Counter:
    """Counts how many run at once, by node."""

    def __init__(self):
        self.lock = threading.Lock()
        self.now, self.most = {}, {}

    def work(self, node):
        with self.lock:
            self.now[node] = self.now.get(node, 0) + 1
            self.most[node] = max(self.most.get(node, 0), self.now[node])
        time.sleep(0.02)
        with self.lock:
            self.now[node] -= 1
        return node


def test_no_node_has_more_than_it_may_and_outcomes_keep_their_order():
    counter = Counter()
    nodes = [f"pve{number % 3}" for number in range(30)]
    jobs = [Job(node, node, functools.partial(counter.work, node)) for node in nodes]
    assert in_parallel(jobs, 4) == nodes
    assert set(counter.most) == set(nodes)
    assert 1 < max(counter.most.values()) <= 4


def fail():
    raise RestorePointError("do it", "no space", "make room")


@pytest.mark.parametrize("stop", [False, True])
def test_after_a_failure_others_go_on_or_are_not_begun(stop):
    jobs = [Job("pve1", "first", fail), *[Job("pve1", "other", lambda: "done")] * 3]
    first, *others = in_parallel(jobs, 1, stop_on_failure=stop)
    assert first.reason == "no space"
    assert [isinstance(each, NotBegun) if stop else each == "done" for each in others] == [True] * 3


def test_a_defect_of_one_does_not_hide_the_others():
    found = in_parallel([Job("pve1", "first", lambda: 1 / 0), Job("pve1", "second", lambda: "done")], 2)
    assert "ZeroDivisionError" in str(found[0])
    assert "defect" in str(found[0])
    assert found[1] == "done"


def test_nothing_to_do_is_nothing_done():
    assert in_parallel([], 8) == []
