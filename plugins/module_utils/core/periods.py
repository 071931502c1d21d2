# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which hour, day, week, month, quarter and year a moment falls into, as integers. Pure; called by retention.

Integers, because a plan that makes a text of each moment (strftime) costs about three times as much. Hours are UTC
hours; days and longer begin in the policy's time zone; weeks are ISO weeks. zoneinfo reads the machine's time zone
database.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Callable, Optional

_HOUR = 3600
_DAY = 86400
_EPOCH_ORDINAL = datetime.date(1970, 1, 1).toordinal()


def zone(name: str) -> datetime.tzinfo:
    """Return the IANA zone of that name; raises what zoneinfo.ZoneInfo raises."""
    # UTC is the default and must work on a machine without a time zone database.
    if name == "UTC":
        return datetime.timezone.utc
    import zoneinfo  # a tenth of what starting the engine costs, and only keep rules need it

    return zoneinfo.ZoneInfo(name)


class Offsets(dict[int, Optional[int]]):
    """By UTC day: the zone's offset in seconds all through that day, or None where it changes within the day.

    Comparing the two ends of a day is enough as long as no zone leaves its offset and comes back within one UTC day;
    a test walks the time zone database to prove it.
    """

    def __init__(self, tz: datetime.tzinfo) -> None:
        super().__init__()
        self._tz = tz

    def __missing__(self, utc_day: int) -> int | None:
        first = self.at(utc_day * _DAY)
        self[utc_day] = offset = first if first == self.at((utc_day + 1) * _DAY) else None
        return offset

    def at(self, moment: int) -> int:
        """Return the offset at that very second."""
        offset = datetime.datetime.fromtimestamp(moment, tz=self._tz).utcoffset()
        return int(offset.total_seconds()) if offset is not None else 0


@functools.lru_cache(maxsize=8)
def _offsets(timezone: str) -> Offsets:
    """Return the offsets of a zone, shared by all targets of a run."""
    return Offsets(zone(timezone))


class _ByDay(dict[int, int]):
    """By local day number: the number of the longer period that this day belongs to."""

    def __init__(self, number: Callable[[int], int]) -> None:
        super().__init__()
        self._number = number

    def __missing__(self, day: int) -> int:
        self[day] = number = self._number(day)
        return number


def _month(day: int) -> int:
    date = datetime.date.fromordinal(day + _EPOCH_ORDINAL)
    return date.year * 12 + date.month - 1


_LONGER_PERIODS = {
    "daily": _ByDay(lambda day: day),
    "weekly": _ByDay(lambda day: (day + 3) // 7),  # ISO weeks begin on Monday; day 0 was a Thursday
    "monthly": _ByDay(_month),
    "quarterly": _ByDay(lambda day: _month(day) // 3),
    "yearly": _ByDay(lambda day: _month(day) // 12),
}


class Periods:
    """Tells which hour, day, week and so on each candidate falls into. Candidates are numbered from the newest."""

    def __init__(self, times: Sequence[int], timezone: str) -> None:
        self._times = times
        self._offsets = _offsets(timezone)

    def of(self, rule: str, places: Iterable[int]) -> Iterator[int]:
        """Yield the period of each of these candidates under a rule; lazily, since a rule stops when it is full."""
        if rule == "last":
            return iter(places)  # each snapshot is a period of its own
        if rule == "hourly":
            return (self._times[place] // _HOUR for place in places)
        return map(_LONGER_PERIODS[rule].__getitem__, self._local_days(places))

    def _local_days(self, places: Iterable[int]) -> Iterator[int]:
        """Yield the local day number of each candidate; day 0 is 1 January 1970."""
        times, offsets = self._times, self._offsets
        for place in places:
            time = times[place]
            offset = offsets[time // _DAY]
            if offset is None:
                offset = offsets.at(time)
            yield (time + offset) // _DAY
