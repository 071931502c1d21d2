# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A report at a terminal, or as plain text: what is wrong first, in colour where it is wanted. Pure.

The first line is the one that checks of the Nagios kind show. Called by the agent.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .report_words import (
    CRITICAL,
    OK,
    UNKNOWN,
    WARNING,
    age,
    clock,
    count_words,
    keep_words,
    kind_of,
    longest_age,
    marks_of,
    reason_words,
    rule_words,
    run_words,
    runs_of,
    scaled,
    seconds_of,
    several,
    span,
    visible,
)
from .units import format_size

_NARROWEST, _WIDEST_LINE = 20, 60
_COLOURS = {OK: "32", WARNING: "33", CRITICAL: "1;31", UNKNOWN: "35", "title": "1", "quiet": "2"}
#: What stands for a restore point on a line of time, in Unicode and in ASCII, the plainest first.
_SIGNS = {
    True: {"": "\N{MIDDLE DOT}", "kept": "\N{BLACK SQUARE}", "other": "\N{BLACK SQUARE}", "manual": "\N{BLACK DIAMOND}",
           "going": "\N{WHITE SQUARE}", "broken": "\N{MULTIPLICATION SIGN}"},
    False: {"": ".", "kept": "o", "other": "o", "manual": "m", "going": "-", "broken": "x"},
}  # fmt: skip
_RANK = ("", "other", "kept", "manual", "going", "broken")


@dataclass(frozen=True)
class Look:
    """How a terminal is written to. ``width`` is in columns; ``full`` lists every restore point with its reason."""

    width: int = 100
    colour: bool = False
    unicode: bool = True
    full: bool = False

    def paint(self, style: str, text: str) -> str:
        """Return a text in a colour."""
        return f"\x1b[{_COLOURS[style]}m{text}\x1b[0m" if self.colour and text else text


def first_line(report: Mapping[str, Any]) -> str:
    """Return the line that says it all. A ``|`` would begin numbers there, so it has none."""
    words = f"RESTOREPOINT {report['status'].upper()} - {visible(report['summary'])}"
    return words.replace("|", "/")


def check_line(report: Mapping[str, Any]) -> str:
    """Return the first line with numbers behind it, as monitoring plugins write them."""
    policies = report["policies"]
    numbers = {
        "problems": len(report["problems"]),
        "policies": len(policies),
        "targets": sum(each["target_count"] for each in policies),
        "restorepoints": sum(each["snapshot_count"] for each in policies),
    }
    return f"{first_line(report)} | {' '.join(f'{name}={value}' for name, value in numbers.items())}"


def text(report: Mapping[str, Any], look: Look) -> str:
    """Return a report as lines, each ended by a newline. Only the first one may be wider than the terminal."""
    lines = [look.paint(report["status"], first_line(report)), *_body(report, look)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _body(report: Mapping[str, Any], look: Look) -> Iterator[str]:
    now = seconds_of(report["generated"]) or 0
    words = f"{visible(report['host'])}, {clock(report['generated'])}, looked for {report['seconds']:.1f} s"
    yield from _wrapped(words, look, style="quiet")
    if report["problems"]:
        yield ""
        yield look.paint("title", "What is wrong")
        for each in report["problems"]:
            place = " ".join(visible(part) for part in (each["policy"], each["target"]) if part)
            words = f"{place}: {visible(each['text'])}" if place else visible(each["text"])
            yield from _labelled(each["level"], words, look, each["level"], 10)
    if report["storages"]:
        yield ""
        yield look.paint("title", "Storage")
        for each in report["storages"]:
            yield from _storage(each, look)
    for policy in report["policies"]:
        yield ""
        yield from _policy(policy, now, look)


def _wrapped(words: str, look: Look, indent: int = 0, style: str = "", first: int | None = None) -> Iterator[str]:
    """Yield lines that fit; a word that does not is broken."""
    width = max(_NARROWEST, look.width)
    begin = " " * (indent if first is None else first)
    for line in textwrap.wrap(words, width, initial_indent=begin, subsequent_indent=" " * min(indent, width // 2)):
        yield look.paint(style, line) if style else line


def _labelled(label: str, words: str, look: Look, style: str = "quiet", room: int = 10) -> Iterator[str]:
    """Yield a label in a column of its own and words beside it; below it where the terminal is narrow."""
    if look.width < 50:
        yield "  " + look.paint(style, label)
        yield from _wrapped(words, look, 4)
        return
    first, *rest = list(_wrapped(words, look, room + 3)) or [""]
    yield f"  {look.paint(style, label.ljust(room))} {first.lstrip()}"
    yield from rest


def _storage(each: Mapping[str, Any], look: Look) -> Iterator[str]:
    part = f" {each['part']}" if each["backend"] == "lvm" else ""
    cells = 20 if look.width >= 60 else 10
    full = max(0, min(cells, round(each["fill"] * cells)))
    signs = ("\N{FULL BLOCK}", "\N{LIGHT SHADE}") if look.unicode else ("#", "-")
    filled = look.paint(each["status"], signs[0] * full) + signs[1] * (cells - full)
    size = f" of {format_size(each['size_bytes'])}" if each["size_bytes"] else ""
    yield from _wrapped(f"{visible(each['storage'])}{part} ({each['backend']})", look, 2)
    yield f"    {filled} {each['fill']:.0%}{size}"


def _policy(policy: Mapping[str, Any], now: int, look: Look) -> Iterator[str]:
    yield f"{look.paint('title', visible(policy['name']))}  {look.paint(policy['status'], policy['status'])}"
    if policy["description"]:
        yield from _wrapped(visible(policy["description"]), look, 2, "quiet")
    if policy["schedule"]:
        due = f"; last due {age(policy['due'], now)}" if policy["due"] else ""
        lines = visible(", ".join(policy["schedule"]))
        yield from _labelled("schedule", f"{lines} ({visible(policy['timezone'])}){due}", look)
    yield from _labelled("keep", keep_words(policy["keep"]), look)
    for command, run in runs_of(policy):
        yield from _labelled(command, run_words(run, now), look)
    for each in policy["backends"]:
        if not each["up"]:
            yield from _labelled(each["backend"], f"not seen: {visible(each['reason'])}", look, UNKNOWN)
    for each in policy["targets"]:
        yield from _target(each, now, look)
    missing = policy["target_count"] - len(policy["targets"])
    if missing > 0:
        yield from _wrapped(f"and {several(missing, 'more target')}", look, 2, "quiet")


def _target(target: Mapping[str, Any], now: int, look: Look) -> Iterator[str]:
    name = f"{target['backend']}:{visible(target['target'])}"
    style = target["status"] if target["status"] != OK else "title"
    yield from _wrapped(name, look, 2, style)
    yield from _wrapped(count_words(target, now), look, 4)
    if target["keep"]:
        yield from _wrapped("keeps " + ", ".join(map(rule_words, target["keep"])), look, 4)
    if target["snapshots"]:
        yield from _line_of_time(target, now, look)
    for note in target["notes"]:
        yield from _wrapped(visible(note), look, 4, WARNING)
    going = [visible(each["name"]) for each in target["snapshots"] if not each["keep"]]
    if target["removals"]:
        shown = ", ".join(going[:5]) + (", ..." if target["removals"] > len(going[:5]) else "")
        yield from _wrapped(f"pruning now would remove {target['removals']}: {shown}", look, 4)
    if look.full:
        yield from _snapshots(target, now, look)


def _snapshots(target: Mapping[str, Any], now: int, look: Look) -> Iterator[str]:
    signs = _SIGNS[look.unicode]
    for each in target["snapshots"]:
        marks = marks_of(each)
        words = (
            f"{visible(each['name'])}, {age(each['created'], now)}: {visible('; '.join([reason_words(each), *marks]))}"
        )
        style = {"broken": WARNING, "going": "quiet"}.get(kind_of(each), "")
        yield from _wrapped(f"{signs[kind_of(each)]} {words}", look, 8, style, first=6)
    if target["omitted"]:
        yield from _wrapped(f"and {target['omitted']} older ones", look, 6, "quiet")


def _line_of_time(target: Mapping[str, Any], now: int, look: Look) -> Iterator[str]:
    """Yield a line from the oldest restore point to now, the last hours as wide as months."""
    longest = longest_age(target, now)
    label = f"{span(longest)} "
    cells = min(_WIDEST_LINE, look.width - 4 - len(label) - 5)
    if cells < 8:
        return
    signs: Sequence[str] = _cells(target, now, longest, cells)
    line = "".join(_SIGNS[look.unicode][kind] for kind in signs)
    yield f"    {look.paint('quiet', label)}{line}{look.paint('quiet', ' now')}"


def _cells(target: Mapping[str, Any], now: int, longest: int, count: int) -> list[str]:
    """Return what kind each cell of a line of time shows: of several restore points the one that matters most."""
    found = [""] * count
    for each in target["snapshots"]:
        place = scaled(now - (seconds_of(each["created"]) or now), longest)
        cell = min(count - 1, int(place * count))
        found[cell] = max(found[cell], kind_of(each), key=_RANK.index)
    return found
