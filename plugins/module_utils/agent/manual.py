# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The manual page, in roff, made from the parser of the command line. No I/O. Called by `cli`."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator, Mapping

from .surface import Argument, Command, commands_of

_ABOUT = (
    "restorepoint takes restore points of directories, volumes and datasets as policies say, lets them go by their "
    "keep rules, and returns to them. It is the engine of the Ansible collection restorepoint.core as one file, for "
    "hosts without Ansible. It is no scheduler: units of systemd, CronJobs or a line of cron start it."
)
_FILES = (
    ("{policies}", "The policies, in JSON."),
    ("{state}", "The state folder: locks, marks of runs under way, journal.jsonl with one line for each run."),
)
_ENVIRONMENT = (
    ("RESTOREPOINT_POLICIES", "The file of policies, where --policies is not given."),
    ("RESTOREPOINT_STATE", "The state folder, where --state is not given."),
)


def page(parser: argparse.ArgumentParser, exits: Mapping[int, str], policies: str, state: str) -> str:
    """Return the page.

    ``exits`` says what each exit code means; ``policies`` and ``state`` are the places of these files by default.
    """
    top, *commands = commands_of(parser)
    lines = ['.TH RESTOREPOINT 8 "" "restorepoint.core" "System administration"', ".SH NAME"]
    lines += [_text("restorepoint - restore points by policies"), ".SH SYNOPSIS", ".B restorepoint"]
    lines += [".RI [ options ]", ".I command", ".RI [ arguments ]"]
    lines += [".SH DESCRIPTION", _text(_ABOUT), ".SH OPTIONS", "They stand before the command."]
    lines += _tagged(top.options)
    lines.append(".SH COMMANDS")
    for each in commands:
        lines += _command(each)
    lines.append(".SH EXIT STATUS")
    for code, words in exits.items():
        lines += [".TP", f".B {code}", _text(words)]
    for title, entries in (("ENVIRONMENT", _ENVIRONMENT), ("FILES", _FILES)):
        lines.append(f".SH {title}")
        for name, words in entries:
            lines += [".TP", f".B {_text(name.format(policies=policies, state=state))}", _text(words)]
    lines += [".SH SEE ALSO", ".BR systemd.timer (5),", ".BR zfs (8),", ".BR lvm (8),", ".BR btrfs (8)"]
    return "\n".join(part for line in lines for part in _short(line)) + "\n"


def _command(command: Command) -> Iterator[str]:
    yield f".SS {_text(command.name)}"
    yield f".B restorepoint {_text(command.name)}"
    for option in command.options:
        if "-h" not in option.flags:
            yield _synopsis(option)
    for place in command.places:
        yield _synopsis(place)
    yield ".PP"
    yield _text(_sentence(command.words))
    yield from _tagged(each for each in command.options if "-h" not in each.flags)


def _tagged(options: Iterator[Argument] | tuple[Argument, ...]) -> Iterator[str]:
    for option in options:
        yield ".TP"
        flags = ", ".join(rf"\fB{_text(flag)}\fR" for flag in option.flags)
        yield flags + (rf" \fI{_text(option.value)}\fR" if option.value else "")
        yield _text(_sentence(option.words))


def _synopsis(argument: Argument) -> str:
    value = rf"\fI{_text('|'.join(argument.choices) or argument.value)}\fR"
    shown = rf"\fB{_text(argument.flags[-1])}\fR" if argument.flags else ""
    shown = " ".join(each for each in (shown, value if argument.value else "") if each)
    dots = " ..." if argument.many else ""
    return f"[{shown}]{dots}" if argument.optional else f"{shown}{dots}"


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".")


def _short(line: str) -> list[str]:
    """Return a line as lines that fit an editor. Requests stay whole."""
    return [line] if line.startswith((".", "\\f", "[")) else textwrap.wrap(line, 78, break_on_hyphens=False)


def _text(words: str) -> str:
    """Return words as roff shows them: a hyphen is a hyphen, and no line begins with a request."""
    shown = words.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{shown}" if shown[:1] in (".", "'") else shown
