# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Schedules of policies as lines for Kubernetes' CronJobs, which know cron lines only. Pure.

The rule of the fields is that of github.com/robfig/cron/v3, which Kubernetes uses: where day of the month and day of
the week are both given, one of the two is enough; a field counts as given unless it is ``*`` alone. Called by
setup/kubernetes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .errors import InvalidInput
from .schedule import Calendar, parse_calendar

_EVERY = parse_calendar("*-*-* *:*:*")
_Minute = tuple[int, int]


@dataclass(frozen=True)
class _Days:
    """On which days: months, days of the month and weekdays (0 is Monday); ``either`` as in Calendar."""

    months: frozenset[int]
    days: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    @property
    def by_weekday(self) -> bool:
        """Say whether the day of the month does not matter."""
        return not self.either and self.days == _EVERY.days

    def within(self, other: _Days) -> bool:
        """Say whether all of these days are certainly among the other ones."""
        if not self.months <= other.months or (self.either and not other.every_day) or other.either:
            return False
        return self.days <= other.days and self.weekdays <= other.weekdays

    @property
    def every_day(self) -> bool:
        return self.by_weekday and self.weekdays == _EVERY.weekdays


def cron_lines(calendars: Sequence[Calendar], texts: Sequence[str]) -> list[str]:
    """Return lines that together mean just the moments of the calendars.

    Lines overlap only where that cannot be helped, so that CronJobs of one policy do not fire at the same minute.

    Args:
        texts: how each calendar was written, for messages.

    Raises:
        InvalidInput: what cron cannot say: seconds, years, a weekday and a day of the month that both have to hold.
    """
    moments: dict[_Days, set[_Minute]] = {}
    for calendar, text in zip(calendars, texts):
        times = {(hour, minute) for hour in calendar.hours for minute in calendar.minutes}
        moments.setdefault(_days(calendar, text), set()).update(times)
    moments = _apart(moments)
    return [line for days, times in moments.items() for line in _lines(days, times)]


def _days(calendar: Calendar, text: str) -> _Days:
    """Return the days of a calendar. Raises InvalidInput for what cron has no words for."""
    reason = None
    if calendar.seconds != frozenset({0}):
        reason, remedy = "a CronJob begins with the minute", "leave the seconds out"
    elif calendar.years != _EVERY.years:
        reason, remedy = "a CronJob knows no years", "leave the year out"
    every_day, every_weekday = calendar.days == _EVERY.days, calendar.weekdays == _EVERY.weekdays
    if reason is None and not (every_day or every_weekday or calendar.either):
        reason = "for a CronJob a weekday or a day of the month is enough, and this wants both"
        remedy = "give one of the two"
    if reason is not None:
        raise InvalidInput(f"put schedule {text!r} into a CronJob", reason, remedy)
    if calendar.either and (every_day or every_weekday):
        return _Days(calendar.months, _EVERY.days, _EVERY.weekdays, False)
    return _Days(calendar.months, calendar.days, calendar.weekdays, calendar.either)


def _apart(moments: dict[_Days, set[_Minute]]) -> dict[_Days, set[_Minute]]:
    """Return the same moments, each once as far as days can be told apart."""
    found: dict[_Days, set[_Minute]] = {}
    for months in dict.fromkeys(days.months for days in moments if days.by_weekday):
        by_weekday: dict[int, set[_Minute]] = {}
        for days, times in moments.items():
            if days.by_weekday and days.months == months:
                for weekday in days.weekdays:
                    by_weekday.setdefault(weekday, set()).update(times)
        found.update(_weekly(months, by_weekday))
    found.update({days: times for days, times in moments.items() if not days.by_weekday})
    order = list(found)
    for days in order:
        for other in order:
            wider = days.within(other) and not (other.within(days) and order.index(days) < order.index(other))
            if other != days and wider:
                found[days] = found[days] - found[other]
    return {days: times for days, times in found.items() if times}


def _weekly(months: frozenset[int], by_weekday: dict[int, set[_Minute]]) -> dict[_Days, set[_Minute]]:
    """Return which weekdays have which times, weekdays of the same times together.

    Times that all seven have stand by themselves where that makes fewer lines, as for "daily at two" beside others.
    """
    each_day: set[_Minute] = set.intersection(*by_weekday.values()) if len(by_weekday) == 7 else set()
    found = [_grouped(months, by_weekday, common) for common in (set(), each_day)]
    return min(found, key=lambda moments: sum(len(_lines(days, times)) for days, times in moments.items()))


def _grouped(
    months: frozenset[int], by_weekday: dict[int, set[_Minute]], common: set[_Minute]
) -> dict[_Days, set[_Minute]]:
    found: dict[_Days, set[_Minute]] = {}
    if common:
        found[_Days(months, _EVERY.days, _EVERY.weekdays, False)] = common
    groups: dict[frozenset[_Minute], set[int]] = {}
    for weekday, times in sorted(by_weekday.items()):
        groups.setdefault(frozenset(times - common), set()).add(weekday)
    for own, weekdays in groups.items():
        if own:
            found[_Days(months, _EVERY.days, frozenset(weekdays), False)] = set(own)
    return found


def _lines(days: _Days, times: Iterable[_Minute]) -> list[str]:
    """Return lines for some times of the same days: one for each set of minutes that hours have in common."""
    by_hour: dict[int, set[int]] = {}
    for hour, minute in times:
        by_hour.setdefault(hour, set()).add(minute)
    hours_of: dict[frozenset[int], set[int]] = {}
    for hour, minutes in by_hour.items():
        hours_of.setdefault(frozenset(minutes), set()).add(hour)
    # Cron counts weekdays from Sunday.
    weekdays = frozenset((number + 1) % 7 for number in days.weekdays)
    tail = (
        _field(days.days, 1, 31, star=not days.either),
        _field(days.months, 1, 12),
        _field(weekdays, 0, 6, star=not days.either),
    )
    return [
        " ".join((_field(minutes, 0, 59), _field(hours, 0, 23), *tail))
        for minutes, hours in sorted(hours_of.items(), key=lambda each: sorted(each[1]))
    ]


def _field(numbers: Iterable[int], least: int, most: int, star: bool = True) -> str:
    """Return a field of a cron line for some numbers: ``*``, ``*/4``, or ranges. ``star`` allows the first two."""
    wanted = sorted(numbers)
    if star and len(wanted) == most - least + 1:
        return "*"
    step = wanted[1] - wanted[0] if len(wanted) > 2 else 0
    # Only of minutes and hours: elsewhere it is a matter of taste whether such a field counts as given.
    if least == 0 and most > 6 and step > 1 and wanted == list(range(0, most + 1, step)):
        return f"*/{step}"
    parts: list[list[int]] = []
    for number in wanted:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(
        f"{part[0]}-{part[-1]}" if len(part) > 2 else ",".join(str(number) for number in part) for part in parts
    )
