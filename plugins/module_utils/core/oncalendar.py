# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Moments as OnCalendar expressions of systemd.time(7): how a cron line is said to systemd. Pure.

Called by engine/jobs.py.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Callable

from .schedule import Calendar, parse_cron

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_EVERY_DAY, _EVERY_WEEKDAY, _EVERY_MONTH = range(1, 32), range(7), range(1, 13)


def from_cron(line: str) -> tuple[str, ...]:
    """Return the OnCalendar expressions that have the moments of a cron line, without a time zone.

    There are two where the line has both a day of the month and a weekday, of which for cron either is enough. Raises
    InvalidInput.
    """
    found = parse_cron(line)
    if found.either:
        return _expression(found, found.days, _EVERY_WEEKDAY), _expression(found, _EVERY_DAY, found.weekdays)
    return (_expression(found, found.days, found.weekdays),)


def _expression(calendar: Calendar, days: Collection[int], weekdays: Collection[int]) -> str:
    date = f"*-{_field(calendar.months, _EVERY_MONTH)}-{_field(days, _EVERY_DAY)}"
    time = f"{_field(calendar.hours, range(24))}:{_field(calendar.minutes, range(60))}"
    words = [date, f"{time}:{_field(calendar.seconds, range(60))}"]
    if set(weekdays) != set(_EVERY_WEEKDAY):
        words.insert(0, ",".join(_span(run, lambda number: _WEEKDAYS[number]) for run in _runs(sorted(weekdays))))
    return " ".join(words)


def _field(numbers: Collection[int], every: range) -> str:
    """Return a field: ``*``, ``00/5`` for steps up to the end, or numbers and spans of them."""
    ordered = sorted(numbers)
    if ordered == list(every):
        return "*"
    step = ordered[1] - ordered[0] if len(ordered) > 2 else 0
    if step > 1 and ordered == list(range(ordered[0], every.stop, step)):
        return f"{ordered[0]:02}/{step}"
    return ",".join(_span(run, "{:02}".format) for run in _runs(ordered))


def _runs(ordered: Sequence[int]) -> list[list[int]]:
    """Return the numbers in runs of which each is one more than the one before."""
    runs: list[list[int]] = []
    for number in ordered:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def _span(run: Sequence[int], name: Callable[[int], str]) -> str:
    if len(run) == 1:
        return name(run[0])
    return f"{name(run[0])}{'..' if len(run) > 2 else ','}{name(run[-1])}"
