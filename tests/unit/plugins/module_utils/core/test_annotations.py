# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Annotations that ask for snapshots: what they mean, whose they are, and when a snapshot is due."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.annotations import (
    FREQUENCIES,
    FREQUENCY,
    RETENTION,
    Wish,
    due,
    wishes,
)

HOUR, DAY = 3600, 86400


def annotated(frequency=None, retention=None):
    given = {FREQUENCY: frequency, RETENTION: retention}
    return {name: value for name, value in given.items() if value is not None}


def claim(name, frequency=None, retention=None, namespace="shop"):
    return {"metadata": {"name": name, "namespace": namespace, "annotations": annotated(frequency, retention)}}


def pod(name, *claims, frequency="daily", retention="7", namespace="shop", **changes):
    volumes = [{"name": f"v-{each}", "persistentVolumeClaim": {"claimName": each}} for each in claims]
    metadata = {"name": name, "namespace": namespace, "annotations": annotated(frequency, retention)}
    spec = {"volumes": volumes, "containers": []}
    return {"metadata": metadata, "spec": spec, "status": {"phase": "Running"}, **changes}


def test_the_pod_of_the_manual_asks_for_the_claim_that_it_mounts():
    found = wishes([claim("postgres-pvc")], [pod("database", "postgres-pvc", frequency="hourly", retention="24")])
    assert found.claims == {("shop", "postgres-pvc"): Wish("hourly", 24)}
    assert found.faults == []


def test_what_stands_on_the_claim_goes_before_what_pods_ask_for():
    found = wishes([claim("a", "monthly", "2"), claim("b", "weekly")], [pod("p", "a", "b", "not-there")])
    assert found.claims == {("shop", "a"): Wish("monthly", 2), ("shop", "b"): Wish("weekly", None)}


def test_a_pod_asks_for_claims_of_its_own_namespace_only():
    found = wishes([claim("a"), claim("a", namespace="other")], [pod("p", "a")])
    assert list(found.claims) == [("shop", "a")]


def test_the_claim_of_an_ephemeral_volume_is_meant_as_well():
    one = pod("p")
    one["spec"]["volumes"] = [{"name": "cache", "ephemeral": {"volumeClaimTemplate": {}}}, {"name": "x"}]
    assert list(wishes([claim("p-cache")], [one]).claims) == [("shop", "p-cache")]


@pytest.mark.parametrize(
    "over", [{"status": {"phase": "Succeeded"}}, {"status": {"phase": "Failed"}}]
)  # fmt: skip
def test_a_pod_that_is_over_asks_for_nothing(over):
    assert wishes([claim("a")], [pod("p", "a", **over)]).claims == {}


def test_what_is_being_deleted_asks_for_nothing():
    gone, ended = claim("a", "daily"), pod("p", "b")
    for each in (gone, ended):
        each["metadata"]["deletionTimestamp"] = "2026-11-26T12:00:00Z"
    assert wishes([gone, claim("b")], [ended]).claims == {}


def test_where_pods_ask_for_different_things_most_often_and_longest_kept_holds_and_is_told():
    found = wishes([claim("a")], [pod("p1", "a"), pod("p2", "a", frequency="hourly", retention="3")])
    assert found.claims == {("shop", "a"): Wish("hourly", 7)}
    (fault,) = found.faults
    assert fault.item["metadata"]["name"] == "p2"
    assert "another pod asks for other snapshots of claim a: hourly, 7 kept holds" in fault.message
    same = wishes([claim("a")], [pod("p1", "a"), pod("p2", "a")])
    assert same.faults == []


@pytest.mark.parametrize(
    ("frequency", "retention", "words"),
    [
        ("often", "1", "frequency is 'often', and has to be one of hourly, daily, weekly, monthly"),
        ("Daily", None, "has to be one of"),
        ("", None, "has to be one of"),
        ("x" * 300, None, "'" + "x" * 40 + "...'"),
        (None, "7", "frequency is not: no snapshots are taken"),
        ("daily", "0", "has to be a number from 1 to 1000"),
        ("daily", "-1", "has to be a number"),
        ("daily", "7d", "retention is '7d', and has to be a number from 1 to 1000: no snapshots are"),
        ("daily", "", "has to be a number"),
        ("daily", "1001", "has to be a number"),
        ("daily", "\u0667", "has to be a number"),
        ("daily", "9" * 5000, "has to be a number"),
    ],
)
def test_what_cannot_be_understood_asks_for_nothing_and_is_told_on_its_object(frequency, retention, words):
    bad = claim("a", frequency, retention)
    # Not even what a pod asks for: whoever wrote on the claim meant something else.
    found = wishes([bad, claim("b")], [pod("p", "a", "b")])
    assert found.claims == {("shop", "b"): Wish("daily", 7)}
    (fault,) = found.faults
    assert fault.item is bad
    assert words in fault.message
    assert len(fault.message) < 300


def test_faults_of_pods_are_told_as_well():
    found = wishes([claim("a")], [pod("p", "a", frequency="often")])
    assert found.claims == {}
    assert [each.item["metadata"]["name"] for each in found.faults] == ["p"]


def at(text, zone=datetime.timezone.utc):
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=zone).timestamp())


@pytest.mark.parametrize(
    ("frequency", "taken", "now", "expected"),
    [
        ("hourly", "2026-11-26T11:59:59", "2026-11-26T12:00:00", True),
        ("hourly", "2026-11-26T12:00:10", "2026-11-26T12:59:59", False),
        ("daily", "2026-11-25T23:59:00", "2026-11-26T00:00:00", True),
        ("daily", "2026-11-26T00:00:00", "2026-11-26T23:59:59", False),
        ("weekly", "2026-11-22T23:00:00", "2026-11-23T00:15:00", True),
        ("weekly", "2026-11-23T00:00:00", "2026-11-29T23:45:00", False),
        ("monthly", "2026-10-31T23:00:00", "2026-11-01T00:00:00", True),
        ("monthly", "2026-11-01T00:00:00", "2026-11-30T23:45:00", False),
    ],
)
def test_one_is_due_in_each_period_that_has_none(frequency, taken, now, expected):
    assert due(Wish(frequency, None), [at(taken)], at(now), "UTC") is expected


def test_days_begin_in_the_time_zone():
    taken, now = [at("2026-11-25T12:00:00")], at("2026-11-25T23:30:00")
    assert not due(Wish("daily", None), taken, now, "UTC")
    assert due(Wish("daily", None), taken, now, "Europe/Paris")


def test_without_any_one_is_due_and_one_from_the_future_is_waited_for():
    assert due(Wish("monthly", None), [], 0, "UTC")
    assert not due(Wish("hourly", None), [at("2026-11-26T12:00:00")], at("2026-11-20T12:00:00"), "UTC")


@given(
    frequency=st.sampled_from(FREQUENCIES),
    runs=st.lists(st.integers(0, 120 * DAY), min_size=1, max_size=60).map(sorted),
    zone=st.sampled_from(["UTC", "Europe/Paris", "America/New_York", "Asia/Kolkata"]),
)
def test_whenever_runs_come_none_is_taken_twice_and_none_that_was_missed_is_left_out(frequency, runs, zone):
    start = at("2026-09-15T07:20:00")
    taken: list[int] = []
    for run in runs:
        now = start + run
        if due(Wish(frequency, None), taken, now, zone):
            taken.append(now)
        # In the period of this run there is one now; a second look finds nothing to do.
        assert not due(Wish(frequency, None), taken, now, zone)
    local = [datetime.datetime.fromtimestamp(each, _zone(zone)) for each in taken]
    keys = {
        "hourly": lambda each: int(each.timestamp()) // HOUR,
        "daily": lambda each: each.date(),
        "weekly": lambda each: each.isocalendar()[:2],
        "monthly": lambda each: (each.year, each.month),
    }[frequency]
    assert len({keys(each) for each in local}) == len(taken)
    every = {keys(datetime.datetime.fromtimestamp(start + run, _zone(zone))) for run in runs}
    assert len(every) == len(taken)


def _zone(name):
    import zoneinfo

    return zoneinfo.ZoneInfo(name)
