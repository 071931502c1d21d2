# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What journals add up to: nothing is lost or counted twice, wherever the older part is cut off."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.history import COMMANDS, OUTCOMES, tally


def line(started, outcome="done", command="run", policy="shop", **more):
    return {"policy": policy, "command": command, "outcome": outcome, "started_epoch": started, **more}


lines = st.builds(
    line,
    started=st.integers(1, 10**6),
    outcome=st.sampled_from(OUTCOMES),
    command=st.sampled_from(COMMANDS),
    policy=st.sampled_from(["shop", "mail"]),
    seconds=st.floats(0, 100),
    done=st.fixed_dictionaries({}, optional={"created": st.integers(0, 9), "removed": st.integers(0, 9)}),
    bytes=st.integers(0, 99),
)


@given(st.lists(lines, max_size=20), st.integers(0, 20))
def test_it_makes_no_difference_where_the_older_lines_were_cut_off(records, cut):
    older = json.loads(json.dumps(tally(records[:cut])))
    assert tally(records[cut:], older) == tally(records)


@given(st.lists(lines, max_size=10), lines)
def test_no_line_makes_a_number_smaller(records, more):
    before, after = tally(records), tally([*records, more])
    for policy, entry in before.items():
        for name in ("created", "removed", "copied_bytes", "freed_bytes"):
            assert after[policy][name] >= entry[name]
        for command, run in entry["commands"].items():
            later = after[policy]["commands"][command]
            assert later["success"] >= run["success"]
            assert all(later["outcomes"][outcome] >= count for outcome, count in run["outcomes"].items())


def test_an_earlier_tally_is_not_changed():
    before = tally([line(1)])
    kept = json.dumps(before)
    tally([line(2)], before)
    assert json.dumps(before) == kept


def test_the_last_attempt_and_the_last_success_are_told_apart():
    run = tally([line(1, seconds=2.5), line(2, "failed", seconds=0.5)])["shop"]["commands"]["run"]
    assert (run["attempt"], run["success"], run["succeeded"], run["seconds"]) == (2, 1, False, 0.5)


def test_the_line_of_a_killed_run_that_comes_late_is_not_the_latest():
    run = tally([line(9), line(5, "killed")])["shop"]["commands"]["run"]
    assert (run["attempt"], run["succeeded"], run["outcomes"]) == (9, True, {"done": 1, "killed": 1})


def test_a_run_that_found_the_policy_busy_is_counted_and_tells_nothing_else():
    run = tally([line(1), line(2, "busy")])["shop"]["commands"]["run"]
    assert (run["attempt"], run["succeeded"], run["outcomes"]["busy"]) == (1, True, 1)


def test_what_is_no_line_of_ours_is_passed_over():
    foreign = [{}, {"policy": 7}, line(1, "well"), line(1, command="reboot"), {**line(1), "policy": None}]
    assert tally(foreign) == {}
    assert tally([line("soon", done="much", seconds="long")])["shop"]["commands"]["run"]["attempt"] == 0
