# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fast planner must agree, in every decision and every reason, with a slow one written straight from the rules.

The slow one makes a text of every date (strftime, isocalendar), walks whole lists and shares no line with the fast one.
"""

from __future__ import annotations

import datetime
import random
import zoneinfo
from collections.abc import Hashable, Sequence

import pytest
from hypothesis import example, given, settings

from ansible_collections.restorepoint.core.plugins.module_utils.core.retention import Point, RetentionPolicy, decide
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.core.retention_cases import (
    DAY,
    HOUR,
    MOMENTS,
    at,
    cases,
)

ORDER = ["last", "hourly", "daily", "weekly", "monthly", "quarterly", "yearly"]
WORDS = {
    "hourly": "hour",
    "daily": "day",
    "weekly": "week",
    "monthly": "month",
    "quarterly": "quarter",
    "yearly": "year",
}


def period(rule: str, point: Point, zone: datetime.tzinfo) -> Hashable:
    """Which period a snapshot belongs to, as people write it."""
    utc = datetime.datetime.fromtimestamp(point.created, tz=datetime.timezone.utc)
    local = utc.astimezone(zone)
    year, week, _weekday = local.isocalendar()
    return {
        "last": point[:3],
        "hourly": utc.strftime("%Y-%m-%d %H"),
        "daily": local.strftime("%Y-%m-%d"),
        "weekly": f"{year}-W{week}",
        "monthly": local.strftime("%Y-%m"),
        "quarterly": local.strftime("%Y-Q") + str((local.month + 2) // 3),
        "yearly": local.strftime("%Y"),
    }[rule]


def unit(seconds: int) -> str:
    """A duration in its largest whole unit."""
    for name, size in (("w", 7 * DAY), ("d", DAY), ("h", HOUR), ("min", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{name}"
    return f"{seconds}s"


def pin(point: Point, policy: RetentionPolicy, now: int) -> str | None:
    """Rule 2: why a snapshot is left alone."""
    if point.foreign is not None:
        return f"foreign: {point.foreign}"
    if point.held is not None:
        return f"held: {point.held}" if point.held else "held"
    if point.in_use is not None:
        return f"in use: {point.in_use}"
    if not point.ready:
        return "not ready"
    if point.created - now > 300:
        return "dated in the future"
    if policy.min_age and now - point.created < policy.min_age:
        return f"younger than min_age {unit(policy.min_age)}"
    return None


def counted(candidates: Sequence[Point], policy: RetentionPolicy) -> tuple[dict[str, str], dict[str, str]]:
    """Rule 3: the reasons of what the counting rules keep, and of what they remove. Candidates: newest first."""
    zone = zoneinfo.ZoneInfo(policy.timezone)
    keep: dict[str, str] = {}
    passed: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for rule in ORDER:
        if rule not in dict(policy.rules):
            continue
        limit = dict(policy.rules)[rule]
        earlier = [period(rule, point, zone) for point in candidates if point.name in keep]
        filled: list[Hashable] = []
        for point in candidates:
            this = period(rule, point, zone)
            if point.name in keep or point.name in passed:
                continue
            if this in earlier:
                skipped.setdefault(point.name, f"removed: a newer one of its {WORDS[rule]} stays")
            elif this in filled:
                passed[point.name] = f"removed: passed over by {rule}, a newer one of its {WORDS[rule]} stays"
            elif limit != -1 and len(filled) == limit:
                break
            else:
                filled.append(this)
                keep[point.name] = f"{rule} {len(filled)}/{'all' if limit == -1 else limit}"
    return keep, {**skipped, **passed}


def slow(points: Sequence[Point], policy: RetentionPolicy, now: int) -> tuple[dict[str, tuple[bool, str]], bool]:
    """What becomes of each snapshot, and whether the run is refused."""
    result: dict[str, tuple[bool, str]] = {}
    candidates = []
    for point in sorted(points, key=lambda each: each[:3], reverse=True):
        why = pin(point, policy, now)
        if why is None:
            candidates.append(point)
        else:
            result[point.name] = (True, why)
    keep, remove = counted(candidates, policy)
    not_ahead = [point for point in candidates if point.created <= now]
    for place, point in enumerate(candidates):
        result[point.name] = verdict(place, point, policy, now, keep, remove)
        if result[point.name][0]:
            continue
        if place == 0:
            result[point.name] = (True, "newest ready snapshot")
        elif place < policy.min_keep:
            result[point.name] = (True, f"min_keep {place + 1}/{policy.min_keep}")
        elif point in not_ahead[:1]:
            result[point.name] = (True, "newest ready snapshot not dated ahead")
    return braked(result, candidates, policy, now)


def verdict(
    place: int, point: Point, policy: RetentionPolicy, now: int, keep: dict[str, str], remove: dict[str, str]
) -> tuple[bool, str]:
    """Rules 3, 5 and 7 for one candidate, without the floor."""
    age = now - point.created
    if policy.max_age is not None and age > policy.max_age:
        return False, f"removed: older than max_age {unit(policy.max_age)}"
    if point.name in keep:
        return True, keep[point.name]
    if policy.within is not None and age < policy.within:
        return True, f"within {unit(policy.within)}"
    if policy.rules:
        return False, remove.get(point.name, "removed: older than all rules")
    if policy.within is not None:
        return False, f"removed: older than within {unit(policy.within)}"
    return True, "no keep rule" if policy.max_age is None else f"within max_age {unit(policy.max_age)}"


def braked(
    result: dict[str, tuple[bool, str]], candidates: Sequence[Point], policy: RetentionPolicy, now: int
) -> tuple[dict[str, tuple[bool, str]], bool]:
    """Rules 8 and 9: stop the run, and let everything stay."""
    removed = [name for name, (stays, _reason) in result.items() if not stays]
    stale = policy.require_recent is not None and not any(
        now - point.created <= policy.require_recent for point in candidates
    )
    if stale:
        removed = []
        result = {name: (True, "*") if not stays else (True, why) for name, (stays, why) in result.items()}
    refused = False
    if policy.max_delete is not None:
        share = 100 * len(removed) / len(candidates) if candidates else 0
        refused = (share if policy.max_delete.percent else len(removed)) > policy.max_delete.number
    if refused:
        result = {name: (True, "*") if not stays else (True, why) for name, (stays, why) in result.items()}
    return result, refused


def assert_agree(points: Sequence[Point], policy: RetentionPolicy, now: int) -> None:
    """Compare every decision and reason; "*" stands for any reason that tells of a stopped run."""
    plan = decide(points, policy, now)
    expected, refused = slow(points, policy, now)
    assert (plan.refusal is not None) == refused
    assert [decision.name for decision in plan.decisions] == [point.name for point in points]
    for decision in plan.decisions:
        stays, reason = expected[decision.name]
        assert decision.keep == stays, decision
        assert decision.reason == reason or (reason == "*" and decision.reason.startswith("not removed ("))


ACROSS_SAINT_JOHNS_FOLD = [
    Point(at("2009-11-01 02:30:30"), 0, "first-minute-of-sunday"),
    Point(at("2009-11-01 02:40"), 0, "saturday-again"),
    Point(at("2009-11-01 05:00"), 0, "sunday"),
]


@settings(max_examples=300, deadline=None, database=None)
@given(cases())
@example(
    (ACROSS_SAINT_JOHNS_FOLD, RetentionPolicy((("daily", 1), ("monthly", 3)), timezone="America/St_Johns"), 1257800000)
)
def test_the_fast_planner_agrees_with_the_slow_one(case: tuple[list[Point], RetentionPolicy, int]) -> None:
    assert_agree(*case)


@pytest.mark.parametrize(("zone", "oddity"), MOMENTS, ids=str)
def test_the_fast_planner_agrees_on_a_dense_history_across_years(zone: str, oddity: int) -> None:
    """Rare slips show only in long histories, such as periods cut by the end of a rule."""
    chance = random.Random(oddity)
    now = oddity + 400 * DAY
    points = [Point(now - chance.randrange(900 * DAY), 0, f"s{number}") for number in range(1500)]
    points += [Point(oddity + chance.randrange(-2 * DAY, 2 * DAY), 0, f"o{number}") for number in range(300)]
    for rules in (
        (("hourly", 24), ("daily", 7), ("weekly", 4), ("monthly", 6)),
        (("last", 3), ("daily", 400), ("weekly", 3), ("monthly", 5), ("quarterly", 2), ("yearly", -1)),
        (("weekly", 57), ("monthly", 2)),
        (("daily", 1), ("weekly", 1), ("monthly", 40), ("quarterly", 2)),
        (("daily", 9), ("weekly", 1), ("monthly", 40)),
        (("hourly", -1), ("weekly", 2)),
    ):
        assert_agree(points, RetentionPolicy(rules, timezone=zone), now)
