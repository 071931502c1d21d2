# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Jobs and CronJobs tell of runs: counters never fall, and a policy stands as the worst of its nodes does."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.job_runs import (
    NODE,
    POLICY,
    added,
    nothing_seen,
    standing,
)
from ansible_collections.restorepoint.core.plugins.module_utils.core.snapshot import timestamp

NOW = 1795305600


def job(uid, begun, end="Complete", *, node="", policy="shop", reason="", seconds=10):
    conditions = [{"type": end, "status": "True", "reason": reason, "lastTransitionTime": timestamp(begun + seconds)}]
    marks = {POLICY: policy, **({NODE: node} if node else {})}
    status = {"startTime": timestamp(begun), "conditions": conditions if end else []}
    return {"metadata": {"uid": uid, "labels": marks}, "status": status}


def cron_job(success=None, *, node="", policy="shop"):
    status = {} if success is None else {"lastSuccessfulTime": timestamp(success)}
    return {"metadata": {"labels": {POLICY: policy, **({NODE: node} if node else {})}}, "status": status}


def runs(kept, *cron_jobs):
    return standing(kept, cron_jobs)["shop"]["commands"]["run"]


def test_a_run_is_known_by_its_begin_and_its_end():
    found = runs(added(nothing_seen(), [job("1", NOW)]), cron_job(NOW + 10))
    assert (found["attempt"], found["success"], found["succeeded"], found["seconds"]) == (NOW, NOW, True, 10.0)


def test_one_that_failed_does_not_move_the_last_success():
    kept = added(nothing_seen(), [job("1", NOW), job("2", NOW + 60, "Failed")])
    found = runs(kept, cron_job(NOW + 10))
    assert (found["attempt"], found["success"], found["succeeded"]) == (NOW + 60, NOW, False)
    assert found["outcomes"] == {"done": 1, "failed": 1}


def test_one_that_was_stopped_for_its_deadline_was_killed_and_one_under_way_is_none():
    kept = added(nothing_seen(), [job("1", NOW, "Failed", reason="DeadlineExceeded"), job("2", NOW + 60, "")])
    assert runs(kept, cron_job())["outcomes"] == {"killed": 1}


def test_a_job_that_is_gone_still_counts_and_still_is_how_it_stands():
    kept = added(nothing_seen(), [job("1", NOW), job("2", NOW + 60, "Failed")])
    kept = added(json.loads(json.dumps(kept)), [job("1", NOW)])
    found = runs(kept, cron_job(NOW + 10))
    assert found["outcomes"] == {"done": 1, "failed": 1}
    assert (found["attempt"], found["success"], found["succeeded"]) == (NOW + 60, NOW, False)


def test_what_the_cron_job_says_serves_where_the_job_was_never_seen():
    found = runs(nothing_seen(), cron_job(NOW + 10))
    assert (found["attempt"], found["success"], found["succeeded"]) == (NOW + 10, NOW + 10, True)
    kept = added(nothing_seen(), [job("1", NOW)])
    assert runs(kept, cron_job(NOW + 3600))["success"] == NOW + 3600


def test_a_policy_that_never_ran_has_not_failed_and_never_succeeded():
    found = runs(nothing_seen(), cron_job())
    assert (found["attempt"], found["success"]) == (0, 0)


def test_a_policy_on_several_nodes_stands_as_the_worst_of_them():
    kept = added(
        nothing_seen(), [job("1", NOW, node="a"), job("2", NOW + 5, "Failed", node="b"), job("3", NOW + 9, node="a")]
    )
    found = runs(kept, cron_job(node="a"), cron_job(node="b"))
    assert (found["attempt"], found["success"], found["succeeded"]) == (NOW + 9, 0, False)
    # Two lines of one schedule on one node are one place; a node that it left does not matter.
    found = runs(kept, cron_job(node="a"), cron_job(NOW + 19, node="a"))
    assert (found["success"], found["succeeded"]) == (NOW + 9, True)


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans(), st.integers(0, 9)), max_size=12), st.data())
def test_counters_never_fall_whatever_jobs_are_there_at_each_look(given_jobs, data):
    every = [
        job(str(number), NOW + begun, "Complete" if good else "Failed", node=f"n{node % 3}")
        for number, (begun, good, node) in enumerate(given_jobs)
    ]
    kept, before, first = nothing_seen(), 0, 0
    # A Job comes, stays for some looks, and goes for good.
    for end in range(len(every) + 1):
        first = data.draw(st.integers(first, end))
        kept = added(kept, every[first:end])
        outcomes = kept["tally"].get("shop", {"commands": {"run": {"outcomes": {}}}})["commands"]["run"]["outcomes"]
        count = sum(outcomes.values())
        assert count >= before
        before = count
    assert before <= len(every)
