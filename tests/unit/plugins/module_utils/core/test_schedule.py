# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Schedules: what OnCalendar and cron lines mean, and the last moment at which one should have acted."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.restorepoint.core.plugins.module_utils.core.periods import zone
from ansible_collections.restorepoint.core.plugins.module_utils.core.schedule import (
    Calendar,
    latest,
    parse_calendar,
    parse_cron,
)

BERLIN = "Europe/Berlin"


def at(text, timezone="UTC"):
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=zone(timezone)).timestamp())


@pytest.mark.parametrize(
    ("text", "now", "last"),
    [
        ("hourly", "2026-11-26T12:34:56", "2026-11-26T12:00:00"),
        ("daily", "2026-11-26T00:00:00", "2026-11-26T00:00:00"),
        ("weekly", "2026-11-26T12:00:00", "2026-11-23T00:00:00"),
        ("quarterly", "2026-11-26T12:00:00", "2026-10-01T00:00:00"),
        ("Mon..Fri 08..20:00", "2026-11-28T12:00:00", "2026-11-27T20:00:00"),
        ("Mon..Fri *-*-* 08..20:00:00", "2026-11-27T12:59:59", "2026-11-27T12:00:00"),
        ("Monday,Sun 20:30", "2026-11-26T12:00:00", "2026-11-23T20:30:00"),
        ("*-*-* 00/4:00", "2026-11-26T15:59:00", "2026-11-26T12:00:00"),
        ("*-02-29 03:00", "2026-11-26T12:00:00", "2024-02-29T03:00:00"),
        ("2025-*-1..7 00:00", "2026-11-26T12:00:00", "2025-12-07T00:00:00"),
        ("12-24", "2026-11-26T12:00:00", "2025-12-24T00:00:00"),
        ("*:0/15", "2026-11-26T12:14:59", "2026-11-26T12:00:00"),
        ("*:*:30", "2026-11-26T12:14:29", "2026-11-26T12:13:30"),
    ],
)
def test_a_calendar_acts_last_when_systemd_would(text, now, last):
    assert parse_calendar(text).latest(at(now), "UTC") == at(last)


@pytest.mark.parametrize(
    ("text", "now", "last"),
    [
        ("0 8-20 * * 1-5", "2026-11-28T12:00:00", "2026-11-27T20:00:00"),
        ("*/15 * * * *", "2026-11-26T12:44:00", "2026-11-26T12:30:00"),
        ("0 20 * * 7", "2026-11-26T12:00:00", "2026-11-22T20:00:00"),
        ("0 20 * * sun", "2026-11-26T12:00:00", "2026-11-22T20:00:00"),
        ("0 0 1 jan *", "2026-11-26T12:00:00", "2026-01-01T00:00:00"),
        ("0 0 13 * fri", "2026-11-26T12:00:00", "2026-11-20T00:00:00"),
        ("0 0 25 * fri", "2026-11-26T12:00:00", "2026-11-25T00:00:00"),
        ("@monthly", "2026-11-26T12:00:00", "2026-11-01T00:00:00"),
    ],
)
def test_a_cron_line_acts_last_when_cron_would(text, now, last):
    assert parse_cron(text).latest(at(now), "UTC") == at(last)


@pytest.mark.parametrize(
    "text",
    ["", "Mon..Fry 8:00", "25:00", "*-13-01", "Fri..Mon 8:00", "*-*~1", "daily UTC", "8:00 Mon", "1 8:00", "*:0/0",
     "*-*-* 8", "Mon *-*-*-* 8:00", "8:00:00.5", "12:00 Europe/Berlin"],
)  # fmt: skip
def test_what_is_no_calendar_here_is_refused_with_its_text(text):
    with pytest.raises(InvalidInput) as caught:
        parse_calendar(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["", "* * * *", "60 * * * *", "* * 0 * *", "* * * * 8", "@reboot", "5-1 * * * *"])
def test_what_is_no_cron_line_is_refused(text):
    with pytest.raises(InvalidInput):
        parse_cron(text)


def test_a_moment_that_the_clocks_leave_out_comes_an_hour_later_and_one_that_they_repeat_comes_once():
    half_past_two = parse_calendar("02:30")
    spring, autumn = at("2026-03-29T12:00:00", BERLIN), at("2026-10-25T12:00:00", BERLIN)
    assert half_past_two.latest(spring, BERLIN) == at("2026-03-29T03:30:00", BERLIN)
    assert half_past_two.latest(autumn, BERLIN) == at("2026-10-25T00:30:00")
    assert half_past_two.latest(at("2026-10-25T01:45:00"), BERLIN) == at("2026-10-25T00:30:00")


def test_of_several_the_last_one_counts_and_without_any_there_is_none():
    both = [parse_calendar("daily"), parse_calendar("Sun 20:00")]
    assert latest(both, at("2026-11-22T21:00:00"), "UTC") == at("2026-11-22T20:00:00")
    assert latest([], at("2026-11-22T21:00:00"), "UTC") is None
    assert parse_calendar("2100-01-01").latest(at("2026-11-22T21:00:00"), "UTC") is None


def some(numbers):
    return st.frozensets(st.sampled_from(numbers), min_size=1, max_size=6)


CALENDARS = st.builds(
    Calendar, some(range(7)), st.just(frozenset(range(1970, 2200))), st.just(frozenset(range(1, 13))),
    some(range(1, 32)), some(range(24)), some(range(60)), st.just(frozenset({0})), st.booleans(),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(CALENDARS, st.integers(at("2026-01-01T00:00:00"), at("2026-12-31T00:00:00")), st.sampled_from(["UTC", BERLIN]))
def test_it_agrees_with_walking_back_minute_by_minute(calendar, now, timezone):
    tz = zone(timezone)
    walk = now - now % 60
    slow = None
    for moment in range(walk, walk - 9 * 86400, -60):
        local = datetime.datetime.fromtimestamp(moment, tz=tz)
        right = calendar.has_day(local.date()) and local.hour in calendar.hours and local.minute in calendar.minutes
        if right and local.fold == 0:  # the second time that a local time comes is not meant
            slow = moment
            break
    fast = calendar.latest(now, timezone)
    if slow is not None and fast != slow:
        # The walk never sees a local time that the clocks leave out.
        assert fast is not None
        assert fast > slow
        assert datetime.datetime.fromtimestamp(fast, tz=tz).date() == datetime.date(2026, 3, 29)
    elif slow is None:
        assert fast is None or fast <= walk - 9 * 86400 or timezone == BERLIN
