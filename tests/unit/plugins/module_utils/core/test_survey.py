# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One target in numbers: what is counted, what counts as overdue, and what several targets are together."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import Situation
from ansible_collections.restorepoint.core.plugins.module_utils.core.retention import parse_policy
from ansible_collections.restorepoint.core.plugins.module_utils.core.snapshot import Snapshot
from ansible_collections.restorepoint.core.plugins.module_utils.core.survey import (
    Survey,
    from_fields,
    merged,
    survey,
)

NOW = 1795305600  # 2026-11-22 00:00 UTC
HOUR, DAY = 3600, 86400


def snap(age, owner="shop", **more):
    """A snapshot that is so many seconds old."""
    return Snapshot(backend="zfs", target="zfs:tank/shop", name=f"s{age}", created=NOW - age, owner=owner, **more)


def look(*snapshots, keep=None, due=NOW, match=(), asides=(), **rules):
    situation = Situation("zfs:tank/shop", tuple(snapshots), asides=tuple(asides))
    return survey(situation, "shop", parse_policy(keep, **rules), match, NOW, due)


def test_a_target_without_snapshots_is_all_zero():
    found = look(keep={"daily": 7})
    assert found == Survey("tank/shop", {"policy": 0, "manual": 0, "other": 0}, kept={"daily": 0})


def test_snapshots_are_counted_by_whose_they_are_and_the_rest_is_about_the_policy_s_own():
    found = look(
        snap(10, size_bytes=5, held="tag x"),
        snap(20, size_bytes=7, in_use="cloned as c"),
        snap(30, ready=False),
        snap(1, "manual", size_bytes=100, held="tag y"),
        snap(2, "other-policy", ready=False),
        snap(3, None),
        asides=[snap(50)],
    )
    assert found.owners == {"policy": 3, "manual": 1, "other": 2}
    assert (found.held, found.in_use, found.not_ready, found.asides) == (1, 1, 1, 1)
    assert (found.size_bytes, found.size_unknown) == (12, 1)
    assert (NOW - found.oldest, NOW - found.newest) == (20, 10)


def test_what_cannot_be_returned_to_is_not_the_newest():
    assert look(snap(DAY), snap(10, ready=False)).newest == NOW - DAY


def test_a_snapshot_from_the_future_is_not_the_newest_and_says_how_far_ahead_it_is():
    found = look(snap(DAY), snap(-HOUR))
    assert (found.newest, found.ahead, found.ahead_seconds) == (NOW - DAY, 1, HOUR)


def test_clocks_that_differ_a_little_are_no_future():
    found = look(snap(-60))
    assert (found.newest, found.ahead, found.ahead_seconds) == (NOW + 60, 0, 60)


def test_the_slots_of_each_keep_rule_are_counted():
    found = look(*(snap(hours * HOUR + 1) for hours in range(72)), keep={"hourly": 24, "daily": 7})
    assert found.kept == {"hourly": 24, "daily": 2}


def test_what_the_last_due_run_had_to_remove_is_overdue():
    snapshots = [snap(age * DAY + 60) for age in range(5)]
    assert look(*snapshots, keep={"last": 2}, due=NOW - 30).overdue == 3
    assert look(*snapshots[:2], keep={"last": 2}, due=NOW - 30).overdue == 0


def test_what_will_have_to_go_at_the_next_run_is_not_overdue():
    taken_since = [snap(10), snap(20 * HOUR), snap(40 * HOUR)]
    assert look(*taken_since, keep={"last": 2}, due=NOW - HOUR).overdue == 0


@pytest.mark.parametrize("rules", [{"max_delete": 1}, {"require_recent": "1h"}])
def test_what_a_safety_stops_from_going_is_overdue_all_the_same(rules):
    snapshots = [snap((age + 1) * DAY) for age in range(5)]
    assert look(*snapshots, keep={"last": 2}, **rules).overdue == 3


def test_without_a_keep_rule_nothing_is_overdue():
    assert look(*(snap(age * DAY) for age in range(5))).overdue == 0


def test_the_fullest_thick_snapshot_counts_whoever_took_it():
    found = look(
        snap(10, extra={"type": "thick", "fill_percent": 12.5}),
        snap(20, "manual", extra={"type": "thick", "fill_percent": 75.0}),
        snap(30, extra={"type": "thin", "fill_percent": 99.0}),
    )
    assert found.fullest == 0.75
    assert look(snap(30, extra={"type": "thin", "fill_percent": 99.0})).fullest is None


counts = st.integers(0, 1000)
surveys = st.builds(
    Survey,
    target=st.text(max_size=5),
    owners=st.fixed_dictionaries({"policy": counts, "manual": counts, "other": counts}),
    not_ready=counts,
    held=counts,
    overdue=counts,
    size_bytes=counts,
    oldest=counts,
    newest=counts,
    ahead_seconds=counts,
    kept=st.fixed_dictionaries({"daily": counts}),
    fullest=st.none() | st.floats(0, 1),
)


@given(st.lists(surveys, min_size=1, max_size=6))
def test_of_several_targets_counts_are_added_and_of_the_rest_the_worst_counts(several):
    found = merged(several, "all")
    assert found.target == "all"
    assert found.overdue == sum(each.overdue for each in several)
    assert found.owners["manual"] == sum(each.owners["manual"] for each in several)
    assert found.newest == min(each.newest for each in several)
    assert found.kept["daily"] == min(each.kept["daily"] for each in several)
    assert found.ahead_seconds == max(each.ahead_seconds for each in several)
    assert all(
        found.fullest is not None and found.fullest >= each.fullest for each in several if each.fullest is not None
    )


@given(surveys)
def test_a_survey_comes_through_json_as_it_was(one):
    assert from_fields(json.loads(json.dumps(dataclasses.asdict(one)))) == one
