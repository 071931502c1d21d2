# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lines of cron said to systemd: the same moments, whatever the line."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.restorepoint.core.plugins.module_utils.core.oncalendar import from_cron
from ansible_collections.restorepoint.core.plugins.module_utils.core.schedule import parse_calendar, parse_cron

_DAYS = [datetime.date(2027, 1, 1) + datetime.timedelta(days=number) for number in range(4 * 366)]


@pytest.mark.parametrize(
    ("line", "expressions"),
    [
        ("@daily", ("*-*-* 00:00:00",)),
        ("*/15 * * * *", ("*-*-* *:00/15:00",)),
        ("0 8-20 * * 1-5", ("Mon..Fri *-*-* 08..20:00:00",)),
        ("30 2 * * 0", ("Sun *-*-* 02:30:00",)),
        ("0 0 1,2,15 */6 *", ("*-01,07-01,02,15 00:00:00",)),
        ("15 3 1 * mon", ("*-*-01 03:15:00", "Mon *-*-* 03:15:00")),
    ],
)
def test_a_line_becomes_what_a_person_would_write(line, expressions):
    assert from_cron(line) == expressions


@st.composite
def fields(draw, least, most):
    """A field of cron: everything, steps, a span, or numbers."""
    first = draw(st.integers(least, most))
    last = draw(st.integers(first, most))
    step = draw(st.integers(1, most))
    numbers = draw(st.lists(st.integers(least, most), min_size=1, max_size=5))
    return draw(
        st.sampled_from(["*", f"*/{step}", f"{first}-{last}", f"{first}-{last}/{step}", ",".join(map(str, numbers))])
    )


LINES = st.tuples(fields(0, 59), fields(0, 23), fields(1, 31), fields(1, 12), fields(0, 7)).map(" ".join)


@given(LINES)
def test_systemd_is_told_the_moments_of_cron_and_no_others(line):
    cron = parse_cron(line)
    told = [parse_calendar(text) for text in from_cron(line)]
    for each in told:
        assert (each.hours, each.minutes, each.seconds) == (cron.hours, cron.minutes, cron.seconds)
    for day in _DAYS:
        assert any(each.has_day(day) for each in told) == cron.has_day(day), day


def test_what_is_no_line_of_cron_is_refused():
    with pytest.raises(InvalidInput, match="is no minute"):
        from_cron("61 * * * *")
