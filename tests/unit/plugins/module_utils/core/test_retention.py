# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Retention by example: tables of what stays, the reasons, the brakes, and what a policy may not be."""

from __future__ import annotations

import datetime
import zoneinfo
from typing import Any

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.restorepoint.core.plugins.module_utils.core.retention import (
    DeleteLimit,
    Point,
    RetentionPlan,
    RetentionPolicy,
    decide,
    parse_policy,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.core.retention_cases import DAY, HOUR, at

NOW = at("2026-11-22 00:00")


def epoch(text: str) -> int:
    """Seconds since the epoch; a day alone means noon."""
    return at(text if " " in text else f"{text} 12:00")


def points(*texts: str) -> list[Point]:
    return [Point(epoch(text), 0, text) for text in texts]


def ago(**names: int) -> list[Point]:
    return [Point(NOW - seconds, 0, name) for name, seconds in names.items()]


def stay(plan: RetentionPlan) -> list[str]:
    return [decision.name for decision in plan.decisions if decision.keep]


def reasons(plan: RetentionPlan) -> dict[str, str]:
    return {decision.name: decision.reason for decision in plan.decisions}


def prune(snapshots: list[Point], keep: dict[str, Any] | None, now: int = NOW, **options: Any) -> RetentionPlan:
    return decide(snapshots, parse_policy(keep, **options), now)


# --- As Proxmox prunes -----------------------------------------------------------------------------------------------

TABLE = [
    # what the rules are, what is there, what stays
    ({"last": 2}, "2026-11-01 2026-11-02 2026-11-03", "2026-11-02 2026-11-03"),
    ({"daily": 3}, "2026-11-01 2026-11-05 2026-11-20 2026-11-21", "2026-11-05 2026-11-20 2026-11-21"),
    # Passed over by weekly for 1 December, of the same ISO week, the 29th is not taken up by monthly.
    (
        {"daily": 1, "weekly": 1, "monthly": 1},
        "2019-11-22 2019-11-29 2019-12-01 2019-12-04",
        "2019-11-22 2019-12-01 2019-12-04",
    ),
    # 30 November is skipped by weekly, since daily kept one of its week; being undecided, it is the one of November.
    ({"daily": 1, "weekly": 1, "monthly": 1}, "2026-10-31 2026-11-30 2026-12-03", "2026-10-31 2026-11-30 2026-12-03"),
    ({"daily": 1, "weekly": 1, "monthly": 1}, "2026-11-29 2026-11-30 2026-12-03", "2026-11-29 2026-12-03"),
    # What last keeps covers its day, its week, its month: the coarser rules go further back.
    (
        {"last": 1, "daily": 1, "monthly": 1},
        "2026-09-30 2026-10-31 2026-11-19 2026-11-20",
        "2026-10-31 2026-11-19 2026-11-20",
    ),
    # ISO weeks: 29 December 2025 is of week 1 of 2026, so it is covered by 4 January.
    ({"weekly": 2}, "2025-12-28 2025-12-29 2026-01-04", "2025-12-28 2026-01-04"),
    # A year keeps its newest; the one that weekly kept covers 2026.
    ({"weekly": 1, "yearly": 2}, "2023-05-01 2024-12-31 2025-01-01 2026-01-05", "2024-12-31 2025-01-01 2026-01-05"),
    ({"quarterly": 2}, "2026-03-31 2026-04-01 2026-06-30 2026-07-01", "2026-06-30 2026-07-01"),
    ({"monthly": -1}, "2024-01-01 2024-01-31 2025-06-06", "2024-01-31 2025-06-06"),
    # A rule of 0 is as if it were not given.
    ({"daily": 0, "last": 1}, "2026-11-01 2026-11-02", "2026-11-02"),
    ({"daily": 0}, "2026-11-01 2026-11-02", "2026-11-01 2026-11-02"),
]


@pytest.mark.parametrize(("keep", "there", "expected"), TABLE)
def test_what_stays_is_what_proxmox_keeps(keep: dict[str, Any], there: str, expected: str) -> None:
    assert stay(prune(points(*there.split()), keep, now=at("2027-01-01 00:00"))) == expected.split()


def test_each_rule_stops_only_at_the_first_snapshot_of_one_period_too_many() -> None:
    """Monday, 30 November was passed over for 3 December: as a last of November it must not come back."""
    plan = prune(
        points("2026-10-31", "2026-11-30", "2026-12-03"), {"weekly": 1, "monthly": 2}, now=at("2026-12-04 00:00")
    )
    assert stay(plan) == ["2026-10-31", "2026-12-03"]
    assert reasons(plan)["2026-11-30"] == "removed: passed over by weekly, a newer one of its week stays"


def test_two_snapshots_of_one_second_are_two() -> None:
    twins = [Point(NOW - HOUR, 7, "older"), Point(NOW - HOUR, 8, "newer"), Point(NOW - 2 * DAY, 1, "before")]
    assert stay(prune(twins, {"last": 2})) == ["older", "newer"]
    assert stay(prune(twins, {"last": 1})) == ["newer"]
    assert stay(prune(twins, {"daily": 2})) == ["newer", "before"]


def test_names_break_the_last_tie() -> None:
    assert stay(prune([Point(NOW, 0, "b"), Point(NOW, 0, "a")], {"last": 1})) == ["b"]


def test_days_begin_in_the_zone_of_the_policy() -> None:
    around_midnight = points("2026-11-20 22:30", "2026-11-20 23:30")
    assert stay(prune(around_midnight, {"daily": 5})) == ["2026-11-20 23:30"]
    assert stay(prune(around_midnight, {"daily": 5}, timezone="Europe/Paris")) == [
        "2026-11-20 22:30",
        "2026-11-20 23:30",
    ]


def test_hours_are_utc_hours_in_every_zone() -> None:
    half_hours = points("2026-11-20 10:05", "2026-11-20 10:55", "2026-11-20 11:05")
    assert stay(prune(half_hours, {"hourly": 9}, timezone="Asia/Kathmandu")) == ["2026-11-20 10:55", "2026-11-20 11:05"]


# --- Ages and the floor ----------------------------------------------------------------------------------------------


def test_within_rescues_and_never_takes_a_slot() -> None:
    plan = prune(ago(a=HOUR, b=2 * HOUR, c=30 * HOUR, d=5 * DAY), {"daily": 2, "within": "3h"})
    assert reasons(plan) == {
        "a": "daily 1/2",
        "b": "within 3h",
        "c": "daily 2/2",
        "d": "removed: older than all rules",
    }


def test_within_holds_what_is_younger_and_not_what_is_just_as_old() -> None:
    plan = prune(ago(a=0, b=DAY - 1, c=DAY), {"within": "1d"})
    assert reasons(plan) == {"a": "within 1d", "b": "within 1d", "c": "removed: older than within 1d"}


def test_max_age_removes_even_what_a_rule_kept() -> None:
    plan = prune(ago(a=DAY, b=30 * DAY, c=30 * DAY + 1), {"daily": -1, "max_age": "30d"})
    assert reasons(plan) == {"a": "daily 1/all", "b": "daily 2/all", "c": "removed: older than max_age 30d"}


def test_max_age_alone_lets_all_younger_ones_stay() -> None:
    plan = prune(ago(a=DAY, b=DAY + 1, c=31 * DAY), {"max_age": "30d"})
    assert reasons(plan) == {
        "a": "within max_age 30d",
        "b": "within max_age 30d",
        "c": "removed: older than max_age 30d",
    }


def test_max_age_stops_at_the_floor() -> None:
    old = ago(a=100 * DAY, b=101 * DAY, c=102 * DAY)
    assert reasons(prune(old, {"max_age": "30d"}, min_keep=2)) == {
        "a": "newest ready snapshot",
        "b": "min_keep 2/2",
        "c": "removed: older than max_age 30d",
    }
    assert stay(prune(old, {"max_age": "30d"}, min_keep=0)) == ["a"]


def test_min_keep_holds_the_newest_and_pinned_ones_do_not_count_for_it() -> None:
    held = Point(NOW - HOUR, 0, "held", held="legal")
    plan = prune([*ago(a=2 * HOUR, b=3 * HOUR, c=4 * HOUR), held], {"daily": 1}, min_keep=2)
    assert reasons(plan) == {
        "a": "daily 1/1",
        "b": "min_keep 2/2",
        "c": "removed: passed over by daily, a newer one of its day stays",
        "held": "held: legal",
    }


def test_one_dated_a_little_ahead_does_not_cost_the_one_taken_just_now() -> None:
    plan = prune(ago(ahead=-200, now=0, before=DAY), {"last": 1})
    assert stay(plan) == ["ahead", "now"]
    assert reasons(plan)["now"] == "newest ready snapshot not dated ahead"


def test_a_policy_without_a_rule_keeps_everything_and_warns() -> None:
    for keep in (None, {}, {"last": None, "within": None}, {"daily": 0}):
        plan = prune(ago(a=DAY, b=9999 * DAY), keep)
        assert reasons(plan) == {"a": "no keep rule", "b": "no keep rule"}
        assert plan.warnings == ("the policy has no keep rule, so everything stays",)


# --- What is left alone ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"held": "legal"}, "held: legal"),
        ({"held": ""}, "held"),
        ({"in_use": "clone x"}, "in use: clone x"),
        ({"foreign": "owner x"}, "foreign: owner x"),
        ({"ready": False}, "not ready"),
        ({"created": NOW + 301}, "dated in the future"),
        ({"created": NOW - 59 * 60}, "younger than min_age 1h"),
        ({"foreign": "owner x", "held": "legal", "ready": False}, "foreign: owner x"),
        ({"held": "legal", "ready": False}, "held: legal"),
    ],
)
def test_a_pinned_snapshot_stays_with_one_reason_and_uses_no_slot(facts: dict[str, Any], reason: str) -> None:
    pinned = Point(**{"created": NOW - 2 * HOUR, "sequence": 0, "name": "pinned", **facts})
    plan = prune([pinned, *ago(a=3 * HOUR, b=4 * HOUR)], {"last": 1}, min_age="1h")
    assert reasons(plan) == {"pinned": reason, "a": "last 1/1", "b": "removed: older than all rules"}


def test_min_age_pins_what_is_younger_and_not_what_is_just_as_old() -> None:
    plan = prune(ago(a=HOUR - 1, b=HOUR, c=HOUR + 1), {"last": 1}, min_age="1h")
    assert reasons(plan) == {"a": "younger than min_age 1h", "b": "last 1/1", "c": "removed: older than all rules"}


def test_future_and_unready_snapshots_are_reported_and_those_of_others_are_not() -> None:
    odd = [Point(NOW + DAY, 0, f"f{number}") for number in range(5)]
    odd.append(Point(NOW - DAY, 0, "half", ready=False))
    odd.append(Point(NOW - DAY, 0, "theirs", ready=False, foreign="owner x"))
    assert prune([*odd, *ago(a=HOUR)], {"last": 1}).warnings == (
        "not ready, so left alone: half",
        "dated in the future, so left alone: f0, f1, f2 and 2 more",
    )


def test_a_covered_snapshot_says_which_newer_one_makes_it_needless() -> None:
    plan = prune(ago(a=HOUR, b=2 * HOUR, c=3 * HOUR, d=30 * HOUR), {"last": 1, "daily": 2})
    assert reasons(plan) == {
        "a": "last 1/1",
        "b": "removed: a newer one of its day stays",
        "c": "removed: a newer one of its day stays",
        "d": "daily 1/2",
    }


# --- What stops a run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "refused"), [(3, False), (2, True), (0, True), ("75%", False), ("74%", True)])
def test_max_delete_stops_a_run_that_would_remove_more(limit: Any, refused: bool) -> None:
    there = [*ago(a=1, b=2, c=3, d=4), Point(NOW - 5, 0, "theirs", foreign="owner x")]
    plan = prune(there, {"last": 1}, max_delete=limit)
    if not refused:
        assert (plan.refusal, stay(plan)) == (None, ["a", "theirs"])
        return
    assert plan.refusal == f"3 of 4 snapshots would go, and max_delete allows {limit}"
    assert stay(plan) == ["a", "b", "c", "d", "theirs"]
    assert reasons(plan)["b"] == f"not removed ({plan.refusal}): older than all rules"
    assert reasons(plan)["a"] == "last 1/1"


def test_nothing_to_remove_is_within_any_limit() -> None:
    assert prune(ago(a=1), {"last": 1}, max_delete=0).refusal is None
    assert prune([Point(NOW, 0, "x", held="legal")], {"last": 1}, max_delete="0%").refusal is None


def test_an_empty_list_removes_nothing_and_warns() -> None:
    assert prune([], {"last": 1}, require_recent="1h") == RetentionPlan(
        (), ("there is no snapshot at all, so nothing is removed",), None
    )


def test_two_snapshots_of_one_name_stop_the_run() -> None:
    plan = prune([*ago(a=1, b=2), Point(NOW - DAY, 0, "b")], {"last": 1})
    assert plan.refusal == "the list has two snapshots called b, so it is not known which of them would go"
    assert all(decision.keep for decision in plan.decisions)


def test_an_outage_does_not_eat_the_history() -> None:
    history = ago(a=2 * HOUR, b=3 * HOUR)
    assert stay(prune(history, {"last": 1}, require_recent="2h")) == ["a"]
    plan = prune(history, {"last": 1}, require_recent="1h")
    why = "the newest ready snapshot is of 2026-11-21T22:00:00Z, older than require_recent 1h"
    assert plan.warnings == (f"nothing is removed: {why}",)
    assert plan.refusal is None
    assert reasons(plan) == {"a": "last 1/1", "b": f"not removed ({why}): older than all rules"}


def test_require_recent_asks_for_a_ready_snapshot_of_its_own() -> None:
    foreign = Point(NOW, 0, "foreign", foreign="owner x")
    unready = Point(NOW, 0, "unready", ready=False)
    assert stay(prune([foreign, unready, *ago(a=DAY, b=2 * DAY)], {"last": 1}, require_recent="1h")) == [
        "foreign",
        "unready",
        "a",
        "b",
    ]
    plan = prune([foreign], {"last": 1}, require_recent="1h")
    assert plan.warnings == (
        "nothing is removed: there is no ready snapshot of its own, and require_recent asks for one",
    )


# --- The policy ------------------------------------------------------------------------------------------------------


def test_a_policy_is_read_in_full() -> None:
    keep = {"yearly": -1, "daily": 7, "last": "3", "weekly": 0, "monthly": None, "within": "2d", "max_age": "52w"}
    assert parse_policy(
        keep, timezone="Europe/Paris", min_keep=2, min_age="1h", max_delete="20 %", require_recent="36h"
    ) == RetentionPolicy(
        rules=(("last", 3), ("daily", 7), ("yearly", -1)),
        within=2 * DAY,
        max_age=364 * DAY,
        timezone="Europe/Paris",
        min_keep=2,
        min_age=HOUR,
        max_delete=DeleteLimit(20, percent=True),
        require_recent=36 * HOUR,
    )


@pytest.mark.parametrize(
    ("keep", "options", "words"),
    [
        ({"dayly": 7}, {}, "there is no keep rule called dayly; the keep rules are last, hourly, daily, weekly"),
        ({7: 7}, {}, "there is no keep rule called 7"),
        ([("daily", 7)], {}, "is not a mapping"),
        ("daily=7", {}, "is not a mapping"),
        ({"daily": -2}, {}, "read keep.daily: -2"),
        ({"daily": "-2"}, {}, "read keep.daily: -2"),
        ({"daily": True}, {}, "read keep.daily: True"),
        ({"daily": False}, {}, "read keep.daily: False"),
        ({"daily": 7.0}, {}, "read keep.daily: 7.0"),
        ({"daily": "seven"}, {}, "write 0, a positive number, or -1 for all"),
        ({"daily": "7d"}, {}, "read keep.daily: 7d"),
        ({"daily": ""}, {}, "read keep.daily"),
        ({"daily": "\u0667"}, {}, "read keep.daily"),
        ({"daily": [7]}, {}, "read keep.daily"),
        ({"within": 7}, {}, "read keep.within: 7: it is not a duration"),
        ({"within": "-1d"}, {}, "it is not a duration"),
        ({"within": "0d"}, {}, "it is no time at all"),
        ({"within": True}, {}, "it is not a duration"),
        ({"max_age": "1 month"}, {}, "read keep.max_age: 1 month"),
        ({"max_age": "0s"}, {}, "it is no time at all"),
        ({}, {"min_keep": -1}, "read min_keep: -1"),
        ({}, {"min_keep": None}, "read min_keep: None"),
        ({}, {"min_age": "1y"}, "read min_age: 1y"),
        ({}, {"max_delete": -1}, "read max_delete: -1"),
        ({}, {"max_delete": "101%"}, "write at most 100%"),
        ({}, {"max_delete": "2.5%"}, "read max_delete: 2.5%"),
        ({}, {"max_delete": 0.5}, "read max_delete: 0.5"),
        ({}, {"max_delete": True}, "read max_delete: True"),
        ({}, {"require_recent": "soon"}, "read require_recent: soon"),
        ({}, {"require_recent": "0h"}, "it is no time at all"),
        ({}, {"require_recent": "1h", "min_age": "2h"}, "nothing could ever be removed"),
        (
            {},
            {"timezone": "Europe/Pariss"},
            "use the time zone 'Europe/Pariss': the time zone database does not know it",
        ),
        ({}, {"timezone": "Europe"}, "the time zone database does not know it"),
        ({}, {"timezone": "../../etc/passwd"}, "the time zone database does not know it"),
        ({}, {"timezone": "/etc/localtime"}, "the time zone database does not know it"),
        ({}, {"timezone": ""}, "it is not the name of a time zone"),
        ({}, {"timezone": None}, "it is not the name of a time zone"),
        ({}, {"timezone": 1}, "it is not the name of a time zone"),
    ],
)
def test_what_is_wrong_with_a_policy_is_said_in_one_sentence(keep: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_policy(keep, **options)
    assert words in str(caught.value)
    assert str(caught.value).startswith("Cannot ")


def test_without_a_time_zone_database_utc_works_and_others_name_tzdata(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_database(key: str) -> datetime.tzinfo:
        raise zoneinfo.ZoneInfoNotFoundError(f"No time zone found with key {key}")

    monkeypatch.setattr(zoneinfo, "ZoneInfo", no_database)
    assert stay(prune(ago(a=1, b=2), {"daily": 1})) == ["a"]
    with pytest.raises(InvalidInput, match="no time zone database; install its tzdata package"):
        parse_policy({"daily": 1}, timezone="Europe/Paris")
