# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random histories and policies, for the tests of retention. Imports hypothesis; called by test_retention_*.py."""

from __future__ import annotations

import datetime
from typing import Any

from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.retention import (
    RULES,
    DeleteLimit,
    Point,
    RetentionPolicy,
)

MINUTE, HOUR, DAY = 60, 3600, 86400


def at(text: str) -> int:
    """Return the seconds since the epoch of a UTC time such as ``2026-11-22 01:30``."""
    return int(datetime.datetime.fromisoformat(text + "+00:00").timestamp())


#: A zone, and a moment at which its clocks did something that retention could get wrong.
MOMENTS = [
    ("UTC", at("2024-02-29 23:59:59")),
    ("UTC", at("2020-12-31 23:30")),  # ISO year and calendar year differ
    ("UTC", at("2026-12-01 00:00")),  # a month begins in the middle of a week
    ("Europe/Paris", at("2026-03-29 01:00")),
    ("Europe/Paris", at("2026-10-25 01:00")),
    ("America/New_York", at("2026-03-08 07:00")),
    ("America/New_York", at("2026-11-01 06:00")),
    ("Australia/Lord_Howe", at("2026-04-04 15:00")),  # half an hour, in the southern autumn
    ("Australia/Lord_Howe", at("2026-10-03 15:30")),
    ("America/Sao_Paulo", at("2018-02-18 02:00")),  # midnight goes back to 23:00
    ("America/Sao_Paulo", at("2018-11-04 03:00")),  # a day without a midnight
    ("Pacific/Apia", at("2011-12-30 10:00")),  # 30 December 2011 does not exist
    ("Asia/Kathmandu", at("1985-12-31 18:30")),  # +5:30 becomes +5:45
    ("America/St_Johns", at("2009-11-01 02:31")),  # 00:01 goes back to 23:01: the day before comes again
    ("America/St_Johns", at("2009-03-08 03:31")),
    ("Africa/Monrovia", at("1972-01-07 00:44:30")),  # an offset with seconds in it
    ("Asia/Gaza", at("2011-08-01 00:00")),  # back and forth within weeks
]


@st.composite
def histories(draw: Any, largest: int = 40) -> tuple[str, int, list[Point]]:
    """Draw a zone, a present moment near one of its oddities, and snapshots dense around both."""
    zone, oddity = draw(st.sampled_from(MOMENTS))
    now = oddity + draw(st.one_of(st.integers(0, 4 * HOUR), st.integers(0, 50 * DAY), st.integers(0, 900 * DAY)))
    near_oddity = st.integers(-130, 130).map(lambda minutes: oddity + minutes * MINUTE)
    times = st.one_of(
        near_oddity,
        st.integers(-30, 30).map(lambda hours: oddity + hours * HOUR),
        st.integers(-40, 40).map(lambda days: oddity + days * DAY - 1),
        st.integers(0, 3 * DAY).map(lambda ago: now - ago),
        st.integers(0, 60).map(lambda days: now - days * DAY),
        st.integers(0, 3 * 366 * DAY).map(lambda ago: now - ago),
        st.integers(-300, 0).map(lambda ago: now - ago),
    )
    seconds = draw(st.lists(times, max_size=largest))
    points = []
    for number, created in enumerate(seconds):
        points.append(Point(created, draw(st.integers(0, 2)), f"s{number}", **draw(PINS)))
    return zone, now, points


#: Mostly free; sometimes pinned by one or several facts.
PINS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.just({}),
    st.just({}),
    st.fixed_dictionaries(
        {},
        optional={
            "ready": st.just(False),
            "held": st.sampled_from(["legal", ""]),
            "in_use": st.just("clone x"),
            "foreign": st.just("owner y"),
        },
    ),
)

DURATIONS = st.one_of(
    st.integers(1, 48).map(lambda hours: hours * HOUR), st.integers(1, 800).map(lambda days: days * DAY)
)
COUNTING_RULES = st.dictionaries(st.sampled_from(RULES), st.sampled_from([-1, 1, 1, 2, 3, 4, 7]), max_size=5).map(
    lambda keep: tuple((rule, keep[rule]) for rule in RULES if rule in keep)
)


@st.composite
def policies(draw: Any, zone: str, brakes: bool = True) -> RetentionPolicy:
    """Draw a policy for that zone; with ``brakes``, also one that may stop the run."""
    limits = st.builds(DeleteLimit, st.integers(0, 60), st.booleans())
    return RetentionPolicy(
        rules=draw(COUNTING_RULES),
        within=draw(st.none() | DURATIONS),
        max_age=draw(st.none() | st.none() | DURATIONS),
        timezone=zone,
        min_keep=draw(st.integers(0, 4)),
        min_age=draw(st.sampled_from([0, 0, MINUTE, HOUR, 3 * DAY])),
        max_delete=draw(st.none() | limits) if brakes else None,
        require_recent=draw(st.none() | DURATIONS) if brakes else None,
    )


@st.composite
def cases(draw: Any, brakes: bool = True) -> tuple[list[Point], RetentionPolicy, int]:
    """Draw what decide() takes."""
    zone, now, points = draw(histories())
    return points, draw(policies(zone, brakes)), now
