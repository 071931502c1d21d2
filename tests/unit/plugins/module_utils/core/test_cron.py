# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Schedules as cron lines: they mean the same moments to the minute, or are refused."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.cron import cron_lines
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.restorepoint.core.plugins.module_utils.core.schedule import parse_calendar, parse_cron


def lines(*texts, parse=parse_calendar):
    return cron_lines([parse(text) for text in texts], texts)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["daily"], ["0 0 * * *"]),
        (["*-*-* 02:30"], ["30 2 * * *"]),
        (["hourly"], ["0 * * * *"]),
        (["minutely"], ["* * * * *"]),
        (["*:0/15"], ["*/15 * * * *"]),
        (["Mon..Fri 08..20:00"], ["0 8-20 * * 1-5"]),
        (["Sun 18:00"], ["0 18 * * 0"]),
        (["Sat,Sun *-*-* 00/4:00"], ["0 */4 * * 0,6"]),
        (["quarterly"], ["0 0 1 1,4,7,10 *"]),
        (["*-02-29 03:00"], ["0 3 29 2 *"]),
        (["daily", "hourly"], ["0 * * * *"]),
        (["hourly", "monthly"], ["0 * * * *"]),
        (["monthly", "hourly"], ["0 * * * *"]),
        (["*-*-* 02:00", "Sun 02:00"], ["0 2 * * *"]),
        (["*-*-* 02:00", "*-*-* 14:30"], ["0 2 * * *", "30 14 * * *"]),
        (["*-*-1 06:00", "*-*-1,15 06:00"], ["0 6 1,15 * *"]),
    ],
)
def test_a_schedule_becomes_the_lines_that_one_would_write(texts, expected):
    assert lines(*texts) == expected


def test_the_schedule_of_the_production_example_takes_lines_that_do_not_overlap():
    texts = ["Mon..Fri 08..20:00", "Mon..Fri 00/4:00", "Sat,Sun 00/4:00", "*-*-* 02:00"]
    found = lines(*texts)
    assert found == ["0 0,2,4,8-20 * * 1-5", "0 0,2,4,8,12,16,20 * * 0,6"]
    assert lines("*-*-* 02:30", "Mon..Fri 08..20:00") == ["30 2 * * *", "0 8-20 * * 1-5"]


def test_a_cron_line_goes_through_as_it_is_meant():
    assert lines("*/20 8-20 * * 1-5", parse=parse_cron) == ["*/20 8-20 * * 1-5"]
    # One of the two is enough, so neither may be written with a star.
    assert lines("0 0 13 * 5", parse=parse_cron) == ["0 0 13 * 5"]
    assert lines("0 0 1-31 * 5", parse=parse_cron) == ["0 0 * * *"]


def test_where_cron_and_kubernetes_read_a_star_with_a_step_differently_what_was_meant_is_refused():
    # Vixie's cron takes */2 for "any day", so both have to hold; Kubernetes would take one of the two for enough.
    with pytest.raises(InvalidInput, match="and this wants both"):
        lines("0 0 */2 * 5", parse=parse_cron)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("*-*-* 02:00:30", "begins with the minute"),
        ("*-*-* *:*:0/10", "begins with the minute"),
        ("2027-01-01 02:00", "knows no years"),
        ("Fri *-*-13 02:00", "this wants both; give one of the two"),
        ("Mon *-*-1..7 02:00", "this wants both; give one of the two"),
    ],
)
def test_what_cron_cannot_say_is_refused_with_the_reason(text, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        lines(text)
    assert repr(text) in str(caught.value)


def some(least, most, size):
    return st.frozensets(st.integers(least, most), min_size=1, max_size=size)


WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@st.composite
def expressions(draw):
    def listed(numbers):
        return ",".join(str(number) for number in sorted(numbers))

    weekdays = draw(st.one_of(st.just(""), some(0, 6, 7).map(lambda found: ",".join(WEEKDAYS[n] for n in found) + " ")))
    day = draw(st.one_of(st.just("*"), some(1, 31, 4).map(listed)))
    month = draw(st.one_of(st.just("*"), st.just("*"), some(1, 12, 4).map(listed)))
    hour = draw(st.one_of(st.just("*"), st.just("0/6"), some(0, 23, 5).map(listed)))
    minute = draw(st.one_of(st.just("0"), st.just("0/20"), some(0, 59, 3).map(listed)))
    return f"{weekdays}*-{month}-{day} {hour}:{minute}"


def moments(calendars, date):
    return {
        (hour, minute)
        for each in calendars
        if each.has_day(date)
        for hour in each.hours
        for minute in each.minutes
    }  # fmt: skip


@settings(deadline=None)
@given(texts=st.lists(expressions(), min_size=1, max_size=4), start=st.dates(datetime.date(2024, 1, 1)))
def test_the_lines_mean_the_same_moments_as_the_schedule(texts, start):
    assume(start.year < 2190)
    calendars = [parse_calendar(text) for text in texts]
    try:
        found = [parse_cron(line) for line in cron_lines(calendars, texts)]
    except InvalidInput:
        assume(False)
    for number in range(80):
        date = start + datetime.timedelta(days=5 * number)
        assert moments(found, date) == moments(calendars, date), date


@settings(deadline=None)
@given(texts=st.lists(expressions().filter(lambda text: "-*-* " in text), min_size=1, max_size=4))
def test_lines_that_go_by_weekdays_never_fire_at_the_same_minute(texts):
    found = [parse_cron(line) for line in cron_lines([parse_calendar(text) for text in texts], texts)]
    for number in range(7):
        date = datetime.date(2026, 11, 2) + datetime.timedelta(days=number)
        assert sum(len(moments([each], date)) for each in found) == len(moments(found, date))


@settings(deadline=None)
@given(text=expressions())
def test_fields_are_read_back_by_the_rule_of_kubernetes_as_they_were_meant(text):
    try:
        found = lines(text)
    except InvalidInput:
        assume(False)
    for line in found:
        _minute, _hour, day, _month, weekday = line.split()
        assert "*" in (day, weekday)
        assert "/" not in day + weekday
