# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When a policy is due: OnCalendar expressions of systemd.time(7), and cron lines of five fields. Pure.

The schedulers are systemd, cron and Kubernetes. This only checks what they will be given, and tells the last moment at
which they should have acted, so that a run that was missed can be caught up once. Called by engine/policy.py and the
agent.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .errors import InvalidInput
from .periods import zone

_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_SHORTHANDS = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": "*-01,07-01 00:00:00",
    "yearly": "*-01-01 00:00:00",
    "annually": "*-01-01 00:00:00",
}
_CRON_SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIRST_YEAR, _LAST_YEAR = 1970, 2199
#: 29 February comes every four years, and once in eight around 2100; on a given weekday every 28 or 40.
_LONGEST_SEARCH_DAYS = 41 * 366


@dataclass(frozen=True)
class Calendar:
    """Moments that come again and again, in local time. ``weekdays`` are 0 (Monday) to 6.

    ``either``: a day of the month or a weekday is enough, as cron has it where both are given.
    """

    weekdays: frozenset[int]
    years: frozenset[int]
    months: frozenset[int]
    days: frozenset[int]
    hours: frozenset[int]
    minutes: frozenset[int]
    seconds: frozenset[int]
    either: bool = False

    def has_day(self, date: datetime.date) -> bool:
        """Say whether there is a moment on that day."""
        by_day, by_weekday = date.day in self.days, date.weekday() in self.weekdays
        right = by_day or by_weekday if self.either else by_day and by_weekday
        return right and date.month in self.months and date.year in self.years

    def latest(self, now: int, timezone: str) -> int | None:
        """Return the last moment that is not after ``now``, both in seconds since the epoch; None where there is none.

        A local time that a change of clocks leaves out counts as that much later; one that it repeats, as the first.
        """
        tz = zone(timezone)
        today = datetime.datetime.fromtimestamp(now, tz=tz).date()
        for back in range(_LONGEST_SEARCH_DAYS):
            date = today - datetime.timedelta(days=back)
            if self.has_day(date):
                found = [moment for hour in self.hours for moment in self._in_hour(date, hour, now, tz)]
                if found:
                    return max(found)
        return None

    def _in_hour(self, date: datetime.date, hour: int, now: int, tz: datetime.tzinfo) -> list[int]:
        """Return the last moment of that hour that is not after ``now``, if there is one."""
        for minute in sorted(self.minutes, reverse=True):
            for second in sorted(self.seconds, reverse=True):
                local = datetime.datetime(date.year, date.month, date.day, hour, minute, second, tzinfo=tz)
                moment = int(local.timestamp())
                if moment <= now:
                    return [moment]
        return []


def latest(calendars: Iterable[Calendar], now: int, timezone: str) -> int | None:
    """Return the last moment of any of them that is not after ``now``."""
    found = [moment for each in calendars for moment in [each.latest(now, timezone)] if moment is not None]
    return max(found) if found else None


def parse_calendar(text: str) -> Calendar:
    """Return what an OnCalendar expression means: ``Mon..Fri 08..20:00``, ``*-*-* 02:00``, ``daily``.

    Raises InvalidInput for what is none, and for what is not supported here: fractions of seconds, days counted from
    the end of a month, and a time zone, which the policy has already.
    """
    words = _SHORTHANDS.get(text.strip().lower(), text).split()
    weekdays = words.pop(0) if words and words[0][:1].isalpha() else "*"
    date = words.pop(0) if words and ("-" in words[0] or "~" in words[0]) else "*-*-*"
    time = words.pop(0) if words and ":" in words[0] else "00:00:00"
    if words or not text.strip():
        extra = f"{words[0]!r} is neither weekdays, a date nor a time" if words else "it is empty"
        raise _refused(text, "calendar", f"{extra} (the time zone is the policy's)")
    year, month, day = _date_parts(text, date)
    hour, minute, second = _time_parts(text, time)
    read = _Reader(text, "calendar", "..")
    return Calendar(
        read.field("weekday", weekdays, 0, 6, _WEEKDAYS),
        read.field("year", year, _FIRST_YEAR, _LAST_YEAR),
        read.field("month", month, 1, 12),
        read.field("day", day, 1, 31),
        read.field("hour", hour, 0, 23),
        read.field("minute", minute, 0, 59),
        read.field("second", second, 0, 59),
    )


def parse_cron(text: str) -> Calendar:
    """Return what a cron line means: minute, hour, day of the month, month, day of the week. Raises InvalidInput."""
    fields = _CRON_SHORTHANDS.get(text.strip().lower(), text).split()
    if len(fields) != 5:
        raise _refused(text, "cron", f"it has {len(fields)} fields and not five")
    read = _Reader(text, "cron", "-")
    minute, hour, day, month, weekday = fields
    # cron counts weekdays from Sunday, and takes 7 for Sunday as well.
    names = ("sun", *_WEEKDAYS[:6], "sun")
    return Calendar(
        frozenset((number + 6) % 7 for number in read.field("weekday", weekday, 0, 7, names)),
        frozenset(range(_FIRST_YEAR, _LAST_YEAR + 1)),
        read.field("month", month, 1, 12, ("", *_MONTHS)),
        read.field("day", day, 1, 31),
        read.field("hour", hour, 0, 23),
        read.field("minute", minute, 0, 59),
        frozenset({0}),
        either=not day.startswith("*") and not weekday.startswith("*"),
    )


def _refused(text: str, kind: str, reason: str) -> InvalidInput:
    example = "Mon..Fri 08..20:00" if kind == "calendar" else "0 8-20 * * 1-5"
    return InvalidInput(f"read {kind} {text!r}", reason, f"write it as in {example!r}")


def _date_parts(text: str, date: str) -> Sequence[str]:
    if "~" in date:
        raise _refused(text, "calendar", "days counted from the end of a month are not supported")
    parts = date.split("-")
    if len(parts) == 2:
        parts = ["*", *parts]
    if len(parts) != 3:
        raise _refused(text, "calendar", f"{date!r} is no date")
    return parts


def _time_parts(text: str, time: str) -> Sequence[str]:
    parts = time.split(":")
    if len(parts) == 2:
        parts.append("00")
    if len(parts) != 3:
        raise _refused(text, "calendar", f"{time!r} is no time")
    return parts


@dataclass(frozen=True)
class _Reader:
    """Reads the fields of one expression, in which ``until`` stands between the ends of a range."""

    text: str
    kind: str
    until: str

    def field(self, what: str, words: str, least: int, most: int, names: Sequence[str] = ()) -> frozenset[int]:
        """Return the numbers that a field means. Raises InvalidInput."""
        numbers: set[int] = set()
        for item in words.split(","):
            numbers.update(self._item(what, item, least, most, names))
        return frozenset(numbers)

    def _item(self, what: str, item: str, least: int, most: int, names: Sequence[str]) -> Iterable[int]:
        span, slash, step = item.partition("/")
        first, dots, last = span.partition(self.until)
        if slash and not re.fullmatch("[1-9][0-9]{0,3}", step):
            raise _refused(self.text, self.kind, f"{step!r} is no step of the {what}")
        if first == "*" and not dots:
            begin, end = least, most
        else:
            begin = self._number(what, first, least, most, names)
            end = self._number(what, last, least, most, names) if dots else (most if slash else begin)
        if end < begin:
            raise _refused(self.text, self.kind, f"the {what} {span!r} ends before it begins")
        return range(begin, end + 1, int(step) if slash else 1)

    def _number(self, what: str, word: str, least: int, most: int, names: Sequence[str]) -> int:
        lower = word.lower()
        for number, name in enumerate(names):
            if name and (lower == name or (len(lower) > 3 and _LONG_NAMES.get(lower) == name)):
                return number
        # systemd knows weekdays by their names only.
        by_number = self.kind == "cron" or not names
        if not by_number or not re.fullmatch("[0-9]{1,4}", word) or not least <= int(word) <= most:
            raise _refused(self.text, self.kind, f"{word!r} is no {what}")
        return int(word)


_LONG_NAMES = {
    **{f"{name}day": name for name in ("mon", "fri", "sun")},
    **{"tuesday": "tue", "wednesday": "wed", "thursday": "thu", "saturday": "sat"},
}
