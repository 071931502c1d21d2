# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must hold for every policy and every history (facts of retention: invariants), as properties."""

from __future__ import annotations

import datetime
import random
import zoneinfo
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.retention import (
    RULES,
    DeleteLimit,
    Point,
    RetentionPlan,
    RetentionPolicy,
    decide,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.core.retention_cases import (
    DAY,
    HOUR,
    MINUTE,
    cases,
    histories,
)

Case = tuple[list[Point], RetentionPolicy, int]
PINNED = ("foreign", "held", "in use", "not ready", "dated in the future", "younger than min_age")
many = settings(max_examples=150, deadline=None, database=None)


def kept(plan: RetentionPlan) -> set[str]:
    return {decision.name for decision in plan.decisions if decision.keep}


def candidates_of(case: Case) -> list[Point]:
    """Those whose reason is none of the pins, newest first."""
    points, policy, now = case
    plain = replace(policy, require_recent=None, max_delete=None)
    decisions = decide(points, plain, now).decisions
    found = [point for point, decision in zip(points, decisions) if not decision.reason.startswith(PINNED)]
    return sorted(found, key=lambda point: point[:3], reverse=True)


@many
@given(cases())
def test_there_is_one_decision_with_a_reason_for_each_snapshot_in_the_order_of_the_input(case: Case) -> None:
    points, policy, now = case
    decisions = decide(points, policy, now).decisions
    assert [decision.name for decision in decisions] == [point.name for point in points]
    for decision in decisions:
        assert decision.reason
        assert decision.keep != decision.reason.startswith("removed: ")


@many
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(case: Case, chance: random.Random) -> None:
    points, policy, now = case
    shuffled = list(points)
    chance.shuffle(shuffled)
    one, other = decide(points, policy, now), decide(shuffled, policy, now)
    assert sorted(one.decisions) == sorted(other.decisions)
    assert (one.warnings, one.refusal) == (other.warnings, other.refusal)


@many
@given(cases(brakes=False))
def test_pruning_twice_equals_pruning_once(case: Case) -> None:
    points, policy, now = case
    first = kept(decide(points, policy, now))
    assert kept(decide([point for point in points if point.name in first], policy, now)) == first


@many
@given(histories(), st.sampled_from(RULES), st.integers(1, 12), st.integers(1, 12))
def test_with_a_single_rule_a_larger_number_keeps_a_superset(
    history: tuple[str, int, list[Point]], rule: str, number: int, more: int
) -> None:
    zone, now, points = history
    few = decide(points, RetentionPolicy(((rule, number),), timezone=zone), now)
    many_more = decide(points, RetentionPolicy(((rule, number + more),), timezone=zone), now)
    everything = decide(points, RetentionPolicy(((rule, -1),), timezone=zone), now)
    assert kept(few) <= kept(many_more) <= kept(everything)


@many
@given(cases(brakes=False))
def test_no_more_stay_than_the_rules_within_and_min_keep_allow(case: Case) -> None:
    points, policy, now = case
    if not policy.rules and policy.within is None:
        return
    candidates = candidates_of(case)
    stay = kept(decide(points, policy, now)) & {point.name for point in candidates}
    slots = sum(len(candidates) if count == -1 else count for _rule, count in policy.rules)
    young = sum(1 for point in candidates if policy.within is not None and now - point.created < policy.within)
    # Even with min_keep 0 the newest stays.
    assert len(stay) <= slots + young + max(policy.min_keep, 1)


@many
@given(cases())
def test_the_newest_candidates_stay(case: Case) -> None:
    points, policy, now = case
    newest = {point.name for point in candidates_of(case)[: max(policy.min_keep, 1)]}
    assert newest <= kept(decide(points, policy, now))


@many
@given(cases())
def test_pinned_snapshots_stay(case: Case) -> None:
    points, policy, now = case
    stay = kept(decide(points, policy, now))
    for point in points:
        words = (point.held, point.in_use, point.foreign)
        young = policy.min_age > 0 and now - point.created < policy.min_age
        if not point.ready or any(word is not None for word in words) or point.created > now + 5 * MINUTE or young:
            assert point.name in stay


@many
@given(
    cases(),
    st.sampled_from(["future", "held", "in_use", "not ready", "foreign"]),
    st.integers(-900 * DAY, 300),
)
def test_adding_a_pinned_future_or_foreign_snapshot_changes_nothing_for_the_others(
    case: Case, kind: str, offset: int
) -> None:
    points, policy, now = case
    if not points:
        return
    added = {
        "future": Point(now + 301 + abs(offset), 0, "added"),
        "held": Point(now + offset, 9, "added", held="legal"),
        "in_use": Point(now + offset, 9, "added", in_use="mount /mnt"),
        "not ready": Point(now + offset, 9, "added", ready=False),
        "foreign": Point(now + offset, 9, "added", foreign="owner y"),
    }[kind]
    before, after = decide(points, policy, now), decide([*points, added], policy, now)
    assert after.decisions[:-1] == before.decisions
    assert after.decisions[-1].keep
    assert after.refusal == before.refusal


@many
@given(cases())
def test_a_snapshot_taken_just_now_is_never_pruned_by_the_run_that_follows_it(case: Case) -> None:
    """Also where others of the same second are there, or are dated a little ahead by another clock."""
    points, policy, now = case
    taken = Point(now, 3, "taken-now")
    assert decide([*points, taken], policy, now).decisions[-1].keep


@many
@given(cases(brakes=False), st.integers(0, 20))
def test_a_run_that_max_delete_stops_removes_nothing(case: Case, limit: int) -> None:
    points, policy, now = case
    free = decide(points, policy, now)
    gone = len(points) - len(kept(free))
    stopped = decide(points, replace(policy, max_delete=DeleteLimit(limit, percent=False)), now)
    assert (stopped.refusal is not None) == (gone > limit)
    assert kept(stopped) == (kept(free) if gone <= limit else {point.name for point in points})


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Paris", datetime.date(2026, 10, 25), 25),
        ("Europe/Paris", datetime.date(2026, 3, 29), 23),
        ("America/New_York", datetime.date(2026, 11, 1), 25),
        ("America/New_York", datetime.date(2026, 3, 8), 23),
        ("America/Sao_Paulo", datetime.date(2018, 2, 17), 25),
    ],
    ids=str,
)
def test_a_day_of_25_hours_keeps_25_hourly_ones_and_is_one_day(zone: str, day: datetime.date, hours: int) -> None:
    tz = zoneinfo.ZoneInfo(zone)
    midnight = datetime.datetime.combine(day, datetime.time(), tzinfo=tz)
    begin = int(midnight.timestamp())
    points = [Point(begin + hour * HOUR, 0, f"h{hour}") for hour in range(hours)]
    now = points[-1].created + 10
    hourly = RetentionPolicy((("hourly", 48),), timezone=zone)
    daily = RetentionPolicy((("daily", 7),), timezone=zone)
    assert len(kept(decide(points, hourly, now))) == hours
    assert kept(decide(points, daily, now)) == {f"h{hours - 1}"}
    next_day = Point(begin + hours * HOUR, 0, "next")
    assert kept(decide([*points, next_day], daily, next_day.created)) == {f"h{hours - 1}", "next"}
