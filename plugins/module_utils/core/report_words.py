# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a report says things: levels, ages, moments, and texts that came from somewhere else. Pure.

Called by `report`, and by the pages and terminals that show what it has found.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from .snapshot import parse_timestamp
from .units import format_duration, format_size

OK, WARNING, CRITICAL, UNKNOWN = "ok", "warning", "critical", "unknown"
#: The calmest first. What nobody knows may be bad, and what is known to be bad is worse.
LEVELS = (OK, WARNING, UNKNOWN, CRITICAL)
#: What checks of the Nagios kind end with.
CODES = {OK: 0, WARNING: 1, CRITICAL: 2, UNKNOWN: 3}
_UNITS = ((365 * 86400, "y"), (30 * 86400, "mo"), (7 * 86400, "w"), (86400, "d"), (3600, "h"), (60, "min"))


def worst(levels: Iterable[str]) -> str:
    """Return the worst of these levels; ok where there is none."""
    return max(levels, key=LEVELS.index, default=OK)


def span(seconds: float) -> str:
    """Return a time that has passed for people, in one unit that has room for it: ``45 s``, ``26 h``, ``9 d``."""
    for size, unit in _UNITS:
        if seconds >= 2 * size or (seconds >= size and unit in ("min", "y")):
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def seconds_of(moment: Any) -> int | None:
    """Return a moment of a report in seconds since the epoch; None for none."""
    return parse_timestamp(moment) if isinstance(moment, str) and moment else None


def age(moment: Any, now: int) -> str:
    """Return how long ago a moment of a report was, such as ``3 h ago``; ``never`` for none."""
    then = seconds_of(moment)
    if then is None:
        return "never"
    return f"{span(now - then)} ago" if then <= now else f"in {span(then - now)}"


def clock(moment: Any) -> str:
    """Return a moment of a report as people read it: ``2026-11-26 02:00 UTC``; ``never`` for none."""
    return f"{moment[:10]} {moment[11:16]} UTC" if isinstance(moment, str) and moment else "never"


def several(count: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``1 snapshot``, ``2 snapshots``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def visible(text: Any) -> str:
    """Return a text as a page can hold it: bytes of a path that are no UTF-8, and control characters, as escapes.

    Letters of every script stay. Marks that turn the direction of what follows do not: by them a name can be made to
    look like another one.
    """
    found = str(text).encode("utf-8", "backslashreplace").decode("utf-8")
    if found.isprintable():
        return found
    return "".join(_seen(each) for each in found)


def _seen(letter: str) -> str:
    if letter == " " or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return letter
    number = ord(letter)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def rule_words(rule: Mapping[str, Any]) -> str:
    """Return how full a keep rule is: ``daily 3 of 7``; of one that keeps all ``daily 3``."""
    expected = rule["expected"]
    return f"{rule['rule']} {rule['present']}" + (f" of {expected}" if expected is not None else "")


def scaled(seconds: float, longest: float) -> float:
    """Return where an age lies on a line from ``longest`` (0) to now (1). The last hours have as much room as months.

    Keep rules thin out with age, and so does the line: an equal share of restore points lies on each part of it.
    """
    span_of_all = math.log1p(max(longest, 86400) / 900)
    return 1 - math.log1p(min(max(seconds, 0), max(longest, 86400)) / 900) / span_of_all


def longest_age(target: Mapping[str, Any], now: int) -> int:
    """Return the age in seconds of the oldest restore point that a report lists of a target, at least a day."""
    ages = [now - (seconds_of(each["created"]) or now) for each in target["snapshots"]]
    return max([86400, *ages])


def kind_of(snapshot: Mapping[str, Any]) -> str:
    """Return what there is to see of a snapshot at once: ``broken``, ``going``, ``manual``, ``other`` or ``kept``."""
    if not snapshot["ready"]:
        return "broken"
    if not snapshot["keep"]:
        return "going"
    return {"manual": "manual", "other": "other"}.get(snapshot["whose"], "kept")


def keep_words(keep: Mapping[str, Any]) -> str:
    """Return the keep rules of a policy in words."""
    found = [
        f"{rule} {format_duration(value) if rule in ('within', 'max_age') else value}" for rule, value in keep.items()
    ]
    return ", ".join(found) or "everything: there is no keep rule"


def runs_of(policy: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any] | None]]:
    """Return what became of each command of a policy; of some also where they never ran."""
    last = policy["last"]
    names = ["run", *(each for each in last if each not in ("run", "verify", "drill")), "verify", "drill"]
    return [(name, last.get(name)) for name in names]


def run_words(run: Mapping[str, Any] | None, now: int) -> str:
    """Return how the last run of a command ended, and when the last one succeeded."""
    if run is None:
        return "never"
    took = f", took {run['seconds']:.1f} s" if run["seconds"] else ""
    if run["succeeded"]:
        return f"{age(run['success'], now)}{took}"
    success = f"the last that succeeded {age(run['success'], now)}" if run["success"] else "none ever succeeded"
    return f"failed {age(run['attempt'], now)}; {success}"


def count_words(target: Mapping[str, Any], now: int) -> str:
    """Return how many restore points a target has, from when, and how large they are."""
    counts = target["counts"]
    words = [several(counts["policy"], "restore point")]
    if target["newest"]:
        words.append(f"newest {age(target['newest'], now)}, oldest {age(target['oldest'], now)}")
    more = [
        f"{counts[name]} {words}" for name, words in (("manual", "by hand"), ("other", "of others")) if counts[name]
    ]
    for name, said in (("not_ready", "not usable"), ("held", "held"), ("in_use", "in use")):
        more += [f"{target[name]} {said}"] if target[name] else []
    more += [several(len(target["asides"]), "aside")] if target["asides"] else []
    if target["size_bytes"]:
        at_least = "at least " if target["size_unknown"] else ""
        words.append(f"{at_least}{format_size(target['size_bytes'])}")
    return ", ".join([*words, *more])


def marks_of(snapshot: Mapping[str, Any]) -> list[str]:
    """Return what else there is to say of a snapshot than why it stays or goes."""
    found = [f"not usable: {snapshot['fault']}"] if not snapshot["ready"] else []
    for name, words in (("held", "held"), ("in_use", "in use")):
        # A policy of another owner has no reason to say so, and the reason says it already where it is why it stays.
        if snapshot[name] is not None and not snapshot["reason"].startswith(words):
            found.append(f"{words}: {snapshot[name]}" if snapshot[name] else words)
    return found


def reason_words(snapshot: Mapping[str, Any]) -> str:
    """Return why a snapshot stays or goes, for somebody who does not know how the keep rules say it."""
    if snapshot["reason"].startswith("foreign: "):
        whose = f"it belongs to {snapshot['owner']}" if snapshot["owner"] else "nobody knows whose it is"
        words = "it was taken by hand" if snapshot["whose"] == "manual" else whose
        return f"{words}, so no keep rule of this policy removes it"
    return str(snapshot["reason"])
