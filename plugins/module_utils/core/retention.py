# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which snapshots stay and which go, with one reason for each. Pure: time is an argument.

The counting rules (last, hourly, ... yearly) work exactly as Proxmox VE (PVE::Storage::Plugin, prune_mark_backup_group)
and Proxmox Backup Server (pbs-datastore, prune.rs) prune, with three differences: two snapshots of one second are two,
hour buckets are UTC hours, and the time zone is the policy's own instead of the machine's.

``parse_policy`` turns what a person wrote into a checked policy; ``decide`` applies it to the snapshots of one target.
Called by core/plan.py and the retention filter. Imports nothing outside core but the standard library. A slow and
obvious version in tests/unit/plugins/module_utils/core/test_retention_twin.py must always agree with this one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .errors import InvalidInput
from .periods import Periods, zone
from .snapshot import timestamp
from .units import format_duration, parse_duration

#: The counting rules, finest first: the order in which they are applied.
RULES = ("last", "hourly", "daily", "weekly", "monthly", "quarterly", "yearly")
KEEP_OPTIONS = (*RULES, "within", "max_age")
ALL = -1
#: Clocks differ a little. A snapshot dated later than this many seconds from now is wrong, and is left alone.
FUTURE_TOLERANCE = 300

_PERIOD_WORD = {
    "hourly": "hour",
    "daily": "day",
    "weekly": "week",
    "monthly": "month",
    "quarterly": "quarter",
    "yearly": "year",
}
_REMOVED = "removed: "
_BEYOND_ALL_RULES = _REMOVED + "older than all rules"


# --- The policy ------------------------------------------------------------------------------------------------------


class DeleteLimit(NamedTuple):
    """The most snapshots that one run may remove: a count, or a percentage of the candidates."""

    number: int
    percent: bool

    def allows(self, removals: int, candidates: int) -> bool:
        """Say whether that many removals of that many candidates are within the limit."""
        return removals * 100 <= self.number * candidates if self.percent else removals <= self.number

    def __str__(self) -> str:
        return f"{self.number}%" if self.percent else str(self.number)


@dataclass(frozen=True)
class RetentionPolicy:
    """Checked keep rules. Durations are in seconds.

    ``rules`` holds the counting rules with their counts, finest first, -1 meaning all; rules with a count of 0 are
    left out, as if they had not been given.
    """

    rules: tuple[tuple[str, int], ...] = ()
    within: int | None = None
    max_age: int | None = None
    timezone: str = "UTC"
    min_keep: int = 1
    min_age: int = 0
    max_delete: DeleteLimit | None = None
    require_recent: int | None = None

    @property
    def has_no_rule(self) -> bool:
        """Whether nothing says what may go, so that everything stays."""
        return not self.rules and self.within is None and self.max_age is None


def parse_policy(
    keep: Mapping[str, Any] | None,
    timezone: str = "UTC",
    min_keep: int = 1,
    min_age: str | None = None,
    max_delete: int | str | None = None,
    require_recent: str | None = None,
) -> RetentionPolicy:
    """Return the policy that a person wrote, checked.

    Args:
        keep: counts by rule name (-1 means all; 0 and None count as not given), and the durations within and max_age.
        timezone: the IANA zone in which days, weeks, months, quarters and years begin.
        min_keep: how many of the newest candidates always stay. The newest one does in any case.
        min_age: a duration; younger snapshots are never removed.
        max_delete: a count, or a percentage of the candidates such as "20%".
        require_recent: a duration; nothing is removed where the newest ready candidate is older.

    Raises InvalidInput for anything that is not exactly that.
    """
    options = _known_options(keep)
    policy = RetentionPolicy(
        rules=tuple((rule, count) for rule, count in ((rule, _keep_count(rule, options)) for rule in RULES) if count),
        within=_positive_duration(options.get("within"), "keep.within"),
        max_age=_positive_duration(options.get("max_age"), "keep.max_age"),
        timezone=_known_zone(timezone),
        min_keep=_whole_number(min_keep, "min_keep", least=0),
        min_age=0 if min_age is None else parse_duration(min_age, "min_age"),
        max_delete=_delete_limit(max_delete),
        require_recent=_positive_duration(require_recent, "require_recent"),
    )
    if policy.require_recent is not None and policy.require_recent < policy.min_age:
        raise InvalidInput(
            "use these keep rules",
            f"require_recent {require_recent} is shorter than min_age {min_age}, so nothing could ever be removed",
            "make require_recent longer than min_age",
        )
    return policy


def _known_options(keep: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if keep is None:
        return {}
    remedy = f"the keep rules are {', '.join(KEEP_OPTIONS)}"
    if not isinstance(keep, Mapping):
        raise InvalidInput("use these keep rules", f"{keep!r} is not a mapping of rules to numbers", remedy)
    unknown = sorted(str(name) for name in keep if name not in KEEP_OPTIONS)
    if unknown:
        raise InvalidInput("use these keep rules", f"there is no keep rule called {', '.join(unknown)}", remedy)
    return keep


def _keep_count(rule: str, options: Mapping[str, Any]) -> int:
    value = options.get(rule)
    return 0 if value is None else _whole_number(value, f"keep.{rule}", least=ALL)


def _whole_number(value: Any, option: str, least: int) -> int:
    """Return a whole number, also one written as text, which is how Ansible passes on ``-e daily=7``."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]+", value.strip()):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return int(value)
    allowed = "0, a positive number, or -1 for all" if least == ALL else "0 or a positive number"
    raise InvalidInput(f"read {option}: {value}", "it is not a number that can be used here", f"write {allowed}")


def _positive_duration(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    seconds = parse_duration(text, option)
    if seconds == 0:
        raise InvalidInput(f"read {option}: {text}", "it is no time at all", "write a longer duration, or leave it out")
    return seconds


def _delete_limit(value: Any) -> DeleteLimit | None:
    if value is None:
        return None
    percentage = re.fullmatch(r"([0-9]{1,3})\s*%", value.strip()) if isinstance(value, str) else None
    if percentage is None:
        return DeleteLimit(_whole_number(value, "max_delete", least=0), percent=False)
    if int(percentage.group(1)) > 100:
        raise InvalidInput(f"read max_delete: {value}", "it is more than all", "write at most 100%")
    return DeleteLimit(int(percentage.group(1)), percent=True)


def _known_zone(name: Any) -> str:
    """Return the name of a time zone if this machine knows it."""
    attempt = f"use the time zone {name!r}"
    remedy = "write an IANA name such as Europe/Paris or UTC"
    if not isinstance(name, str) or not name:
        raise InvalidInput(attempt, "it is not the name of a time zone", remedy)
    if _zone_is_there(name):
        return name
    if not _zone_is_there("Etc/UTC"):
        raise InvalidInput(
            attempt,
            "this machine has no time zone database",
            "install its tzdata package (or tzdata from PyPI for this Python), or use timezone UTC",
        )
    raise InvalidInput(attempt, "the time zone database does not know it", remedy)


def _zone_is_there(name: str) -> bool:
    try:
        zone(name)
    except (KeyError, ValueError, OSError):
        # An unknown zone is a KeyError; a folder of the database, such as "Europe", an OSError; a path that leaves it
        # a ValueError.
        return False
    return True


# --- The decision ----------------------------------------------------------------------------------------------------


class Point(NamedTuple):
    """A snapshot of one target, as far as retention looks at it.

    ``created`` is in seconds since the epoch; (created, sequence, name) is the order. ``held``, ``in_use`` and
    ``foreign`` hold the reason in words ("legal", "clone x", "owner y"; "" where there is none to give), or None.
    """

    created: int
    sequence: int
    name: str
    ready: bool = True
    held: str | None = None
    in_use: str | None = None
    foreign: str | None = None


class Decision(NamedTuple):
    """What becomes of one snapshot, and why."""

    name: str
    keep: bool
    reason: str


@dataclass(frozen=True)
class RetentionPlan:
    """What becomes of the snapshots of one target.

    ``decisions`` stand in the order of the input. ``refusal`` says why the run must stop, in words that follow
    "Cannot prune x:"; with one, every decision is to keep.
    """

    decisions: tuple[Decision, ...]
    warnings: tuple[str, ...] = ()
    refusal: str | None = None


def decide(points: Sequence[Point], policy: RetentionPolicy, now: int) -> RetentionPlan:
    """Return what becomes of each snapshot of one target at ``now`` (seconds since the epoch).

    Candidates are the snapshots that nothing pins. Only they use slots, count for min_keep, max_delete and
    require_recent, and can go. The result does not depend on the order of ``points``.
    """
    if not points:
        return RetentionPlan((), ("there is no snapshot at all, so nothing is removed",))
    candidates, pinned, warnings = _split(points, policy, now)
    verdicts = _judge([candidate[0] for candidate in candidates], policy, now)
    if policy.has_no_rule:
        warnings.append("the policy has no keep rule, so everything stays")
    stale = _staleness(candidates, policy, now)
    if stale:
        verdicts.stop(stale)
        warnings.append(f"nothing is removed: {stale}")
    refusal = _refusal(points, verdicts, policy)
    if refusal:
        verdicts.stop(refusal)
    return RetentionPlan(_in_input_order(points, candidates, pinned, verdicts), tuple(warnings), refusal)


#: (created, sequence, name, index in the input): sorts by the identity of snapshots.
_Candidate = tuple[int, int, str, int]


def _split(
    points: Sequence[Point], policy: RetentionPolicy, now: int
) -> tuple[list[_Candidate], dict[int, str], list[str]]:
    """Return the candidates from newest to oldest, why the others are pinned (by index), and what to warn of."""
    latest = now - policy.min_age if policy.min_age else now + FUTURE_TOLERANCE
    candidates: list[_Candidate] = []
    pinned: dict[int, str] = {}
    for index, (created, sequence, name, ready, held, in_use, foreign) in enumerate(points):
        if created <= latest and ready and held is None and in_use is None and foreign is None:
            candidates.append((created, sequence, name, index))
        else:
            pinned[index] = _pin(points[index], policy, now)
    candidates.sort(reverse=True)
    return candidates, pinned, _pin_warnings(points, pinned)


_NOT_READY = "not ready"
_FUTURE = "dated in the future"


def _pin(point: Point, policy: RetentionPolicy, now: int) -> str:
    """Return why a snapshot is not a candidate. The first fact that holds is given."""
    for label, words in (("foreign", point.foreign), ("held", point.held), ("in use", point.in_use)):
        if words is not None:
            return f"{label}: {words}" if words else label
    if not point.ready:
        return _NOT_READY
    if point.created > now + FUTURE_TOLERANCE:
        return _FUTURE
    return f"younger than min_age {format_duration(policy.min_age)}"


def _pin_warnings(points: Sequence[Point], pinned: Mapping[int, str]) -> list[str]:
    warnings = []
    for reason in (_NOT_READY, _FUTURE):
        names = sorted(points[index].name for index, why in pinned.items() if why == reason)
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            warnings.append(f"{reason}, so left alone: {', '.join(names[:3])}{more}")
    return warnings


class _Verdicts:
    """What is decided so far about each candidate. Candidates are numbered from the newest."""

    def __init__(self, count: int, kept: bool, reason: str) -> None:
        self.kept = [kept] * count
        self.reasons = [reason] * count

    def keep(self, place: int, reason: str) -> None:
        self.kept[place] = True
        self.reasons[place] = reason

    def remove(self, place: int, reason: str) -> None:
        self.kept[place] = False
        self.reasons[place] = _REMOVED + reason

    def removals(self) -> list[int]:
        return [place for place, kept in enumerate(self.kept) if not kept]

    def stop(self, why: str) -> None:
        """Let everything stay after all, and say what would have been the reason to go."""
        for place in self.removals():
            self.keep(place, f"not removed ({why}): {self.reasons[place][len(_REMOVED) :]}")


def _judge(times: Sequence[int], policy: RetentionPolicy, now: int) -> _Verdicts:
    """Apply the policy to the candidates, given by their times from the newest to the oldest."""
    if policy.rules:
        verdicts = _Verdicts(len(times), False, _BEYOND_ALL_RULES)
        _apply_counting_rules(Periods(times, policy.timezone), policy, verdicts)
    elif policy.within is not None:
        verdicts = _Verdicts(len(times), False, f"{_REMOVED}older than within {format_duration(policy.within)}")
    elif policy.max_age is not None:
        verdicts = _Verdicts(len(times), True, f"within max_age {format_duration(policy.max_age)}")
    else:
        verdicts = _Verdicts(len(times), True, "no keep rule")
    _apply_ages(times, policy, now, verdicts)
    _apply_floor(times, policy, now, verdicts)
    return verdicts


def _apply_counting_rules(periods: Periods, policy: RetentionPolicy, verdicts: _Verdicts) -> None:
    waiting = list(range(len(verdicts.kept)))
    kept: list[int] = []
    for rule, limit in policy.rules:
        covered = set(periods.of(rule, kept))
        waiting = _apply_rule(rule, limit, periods, covered, waiting, kept, verdicts)


def _apply_rule(
    rule: str,
    limit: int,
    periods: Periods,
    covered: set[int],
    waiting: list[int],
    kept: list[int],
    verdicts: _Verdicts,
) -> list[int]:
    """Walk from the newest to the oldest of those that wait; return those that this rule leaves undecided.

    ``covered`` are the periods of what earlier rules kept. What this rule keeps is added to ``kept``. As in Proxmox VE,
    the walk ends at the first snapshot of one period too many, not as soon as the last slot is taken: the older ones
    of that last period are decided too, and no coarser rule may take them up.
    """
    reasons = verdicts.reasons
    word = _PERIOD_WORD.get(rule, "")
    passed_over = f"{_REMOVED}passed over by {rule}, a newer one of its {word} stays"
    of_covered = f"{_REMOVED}a newer one of its {word} stays"
    slots = "all" if limit == ALL else limit
    taken: set[int] = set()
    left: list[int] = []
    for walked, (place, period) in enumerate(zip(waiting, periods.of(rule, waiting))):
        if period in taken:
            reasons[place] = passed_over
        elif period in covered:
            left.append(place)
            if reasons[place] is _BEYOND_ALL_RULES:  # the first rule that skips it has a newer one; later ones may not
                reasons[place] = of_covered
        elif len(taken) == limit:
            return left + waiting[walked:]
        else:
            taken.add(period)
            kept.append(place)
            verdicts.keep(place, f"{rule} {len(taken)}/{slots}")
    return left


def _apply_ages(times: Sequence[int], policy: RetentionPolicy, now: int, verdicts: _Verdicts) -> None:
    """Rescue what is young enough for ``within``, then remove what is too old for ``max_age``, whatever kept it."""
    if policy.within is not None:
        reason = f"within {format_duration(policy.within)}"
        for place, time in enumerate(times):
            if now - time >= policy.within:
                break
            if not verdicts.kept[place]:
                verdicts.keep(place, reason)
    if policy.max_age is not None:
        reason = f"older than max_age {format_duration(policy.max_age)}"
        for place in range(len(times) - 1, -1, -1):
            if now - times[place] <= policy.max_age:
                break
            verdicts.remove(place, reason)


def _apply_floor(times: Sequence[int], policy: RetentionPolicy, now: int, verdicts: _Verdicts) -> None:
    """Keep the newest candidate, and min_keep of the newest.

    Where clocks differ, an older snapshot may be dated a little ahead of now and pass for the newest; so the newest one
    that is not dated ahead stays too, or a snapshot taken just now could go in the run that follows it.
    """
    for place in range(min(policy.min_keep, len(times))):
        if not verdicts.kept[place]:
            verdicts.keep(place, f"min_keep {place + 1}/{policy.min_keep}" if place else "newest ready snapshot")
    not_ahead = next((place for place, time in enumerate(times) if time <= now), 0)
    for place in {0, not_ahead} if times else ():
        if not verdicts.kept[place]:
            verdicts.keep(place, "newest ready snapshot" if place == 0 else "newest ready snapshot not dated ahead")


# --- What stops a run ------------------------------------------------------------------------------------------------


def _staleness(candidates: Sequence[_Candidate], policy: RetentionPolicy, now: int) -> str | None:
    """Return why require_recent does not hold, or None where it does."""
    if policy.require_recent is None:
        return None
    if not candidates:
        return "there is no ready snapshot of its own, and require_recent asks for one"
    newest = candidates[0][0]
    if now - newest <= policy.require_recent:
        return None
    return (
        f"the newest ready snapshot is of {timestamp(newest)}, "
        f"older than require_recent {format_duration(policy.require_recent)}"
    )


def _refusal(points: Sequence[Point], verdicts: _Verdicts, policy: RetentionPolicy) -> str | None:
    """Return why this run must not remove what it would, or None where it may."""
    if len({point.name for point in points}) < len(points):
        name = Counter(point.name for point in points).most_common(1)[0][0]
        return f"the list has two snapshots called {name}, so it is not known which of them would go"
    removals, candidates = len(verdicts.removals()), len(verdicts.kept)
    if policy.max_delete is None or policy.max_delete.allows(removals, candidates):
        return None
    return f"{removals} of {candidates} snapshots would go, and max_delete allows {policy.max_delete}"


def _in_input_order(
    points: Sequence[Point], candidates: Sequence[_Candidate], pinned: Mapping[int, str], verdicts: _Verdicts
) -> tuple[Decision, ...]:
    kept = [True] * len(points)
    reasons = [""] * len(points)
    for index, reason in pinned.items():
        reasons[index] = reason
    for (_created, _sequence, _name, index), keep, reason in zip(candidates, verdicts.kept, verdicts.reasons):
        kept[index] = keep
        reasons[index] = reason
    return tuple(map(Decision, [point.name for point in points], kept, reasons))
