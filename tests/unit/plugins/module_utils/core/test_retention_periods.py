# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the integer calendar takes for granted about time zones and dates, proven against the zone database itself."""

from __future__ import annotations

import datetime
import importlib.util
import os
import struct
import zoneinfo
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.periods import Offsets, Periods
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.core.retention_cases import DAY, MOMENTS, at

FIRST, LAST = at("1970-01-01 00:00"), at("2040-01-01 00:00")


def zone_file(name: str) -> bytes:
    """Read the file that zoneinfo reads for a zone: the system's, else that of the tzdata package."""
    roots = [Path(root) for root in zoneinfo.TZPATH]
    package = importlib.util.find_spec("tzdata")
    if package is not None and package.origin is not None:
        roots.append(Path(package.origin).parent / "zoneinfo")
    return next(root / name for root in roots if os.path.isfile(root / name)).read_bytes()


def transitions(data: bytes) -> tuple[list[tuple[int, int]], str]:
    """Return (moment, offset from then on) of a TZif file (RFC 8536, version 2 or later), and its rule for later."""
    _utc, _std, _leap, count, types, letters = struct.unpack(">6l", data[20:44])
    second = 44 + count * 5 + types * 6 + letters + _leap * 8 + _std + _utc
    isut, isstd, leap, count, types, letters = struct.unpack(">6l", data[second + 20 : second + 44])
    body = data[second + 44 :]
    moments = struct.unpack(f">{count}q", body[: count * 8])
    kinds = body[count * 8 : count * 9]
    offsets = [struct.unpack(">l", body[count * 9 + kind * 6 :][:4])[0] for kind in range(types)]
    footer = body[count * 9 + types * 6 + letters + leap * 12 + isstd + isut :]
    return [(moment, offsets[kind]) for moment, kind in zip(moments, kinds)], footer.strip(b"\n").decode()


def distinct_zones() -> Iterator[tuple[str, bytes]]:
    seen = set()
    for name in sorted(zoneinfo.available_timezones()):
        data = zone_file(name)
        if data not in seen:
            seen.add(data)
            yield name, data


def test_no_zone_hides_a_change_of_its_offset_within_one_utc_day() -> None:
    """Two ends of a UTC day with the same offset mean that offset all day long, in every zone from 1970 to 2040."""
    walked = 0
    for name, data in distinct_zones():
        offsets = Offsets(zoneinfo.ZoneInfo(name))
        changes = defaultdict(set)
        for moment, offset in transitions(data)[0]:
            if FIRST <= moment < LAST:
                changes[moment // DAY].add(offset)
        for utc_day, inside in changes.items():
            steady = offsets[utc_day]
            assert steady is None or inside == {steady}, (name, utc_day)
            walked += 1
    assert walked > 5000


def test_no_rule_for_the_years_to_come_hides_a_change_of_offset() -> None:
    """Such a rule changes the offset twice a year; both changes must show at the ends of their days."""
    rules: dict[str, tuple[str, int]] = {}
    for name, data in distinct_zones():
        explicit, footer = transitions(data)
        if "," in footer:
            rules.setdefault(footer, (name, max([moment for moment, _offset in explicit], default=FIRST)))
    assert len(rules) > 20
    for name, last in rules.values():
        offsets = Offsets(zoneinfo.ZoneInfo(name))
        first_year = datetime.datetime.fromtimestamp(last, tz=datetime.timezone.utc).year + 1
        for year in range(max(first_year, 2007), 2040):
            days = range(at(f"{year}-01-01 00:00") // DAY, at(f"{year + 1}-01-01 00:00") // DAY)
            assert sum(offsets[day] is None for day in days) == 2, (name, year)


@settings(max_examples=300, deadline=None, database=None)
@given(st.sampled_from(MOMENTS), st.integers(-400 * DAY, 400 * DAY) | st.integers(-2 * DAY, 2 * DAY))
def test_periods_are_those_of_the_calendar(moment: tuple[str, int], distance: int) -> None:
    zone, oddity = moment
    time = oddity + distance
    local = datetime.datetime.fromtimestamp(time, tz=zoneinfo.ZoneInfo(zone))
    monday = datetime.date(1969, 12, 29)
    found = {rule: next(Periods([time], zone).of(rule, [0])) for rule in ("daily", "weekly", "monthly", "quarterly")}
    assert datetime.date(1970, 1, 1) + datetime.timedelta(days=found["daily"]) == local.date()
    assert (monday + datetime.timedelta(weeks=found["weekly"])).isocalendar()[:2] == local.isocalendar()[:2]
    assert found["monthly"] == local.year * 12 + local.month - 1
    assert found["quarterly"] == local.year * 4 + (local.month - 1) // 3
    assert next(Periods([time], zone).of("yearly", [0])) == local.year
    assert next(Periods([time], zone).of("hourly", [0])) == time // 3600


@pytest.mark.parametrize(("zone", "time"), MOMENTS, ids=str)
def test_the_offset_is_exact_to_the_second_where_clocks_change(zone: str, time: int) -> None:
    for second in range(time - 90, time + 90):
        local = datetime.datetime.fromtimestamp(second, tz=zoneinfo.ZoneInfo(zone))
        day = next(Periods([second], zone).of("daily", [0]))
        assert datetime.date(1970, 1, 1) + datetime.timedelta(days=day) == local.date()
