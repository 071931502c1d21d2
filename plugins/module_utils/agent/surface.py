# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the command line has, read from its parser: commands, options, and what can stand where. No I/O.

Called by `completion` and `manual`, so that both say what the parser takes, whoever adds a command to it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

#: What a value is, by the command and the name of its argument; of any command where the command is "".
_HINTS = {
    ("", "policy"): "policies",
    ("rollback", "name"): "names",
    ("rollback", "target"): "targets",
    ("verify", "name"): "names",
}
_METAVARS = {"FILE": "file", "DIRECTORY": "directory"}


@dataclass(frozen=True)
class Argument:
    """One option, or one place of a command.

    ``flags`` is empty for a place. ``value`` is how its value is called, empty for an option that takes none. ``hint``
    says what completes the value: ``policies``, ``names`` or ``targets`` (of the policy), ``file``, ``directory``.
    """

    flags: tuple[str, ...]
    value: str
    words: str
    hint: str
    choices: tuple[str, ...] = ()
    optional: bool = True
    many: bool = False


@dataclass(frozen=True)
class Command:
    """One command; with the name "" the program itself, whose options stand before the command."""

    name: str
    words: str
    options: tuple[Argument, ...]
    places: tuple[Argument, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """Every form of every option."""
        return tuple(flag for option in self.options for flag in option.flags)


def commands_of(parser: argparse.ArgumentParser) -> tuple[Command, ...]:
    """Return what a parser takes: first the program itself, then its commands in their order."""
    found = [_command("", parser.description or "", parser)]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            words = {each.dest: each.help or "" for each in action._choices_actions}
            found += [_command(name, words.get(name, ""), made) for name, made in action.choices.items()]
    return tuple(found)


def valued(commands: tuple[Command, ...]) -> tuple[str, ...]:
    """Return every form of every option that takes a value, whatever its command."""
    found = (flag for each in commands for option in each.options if option.value for flag in option.flags)
    return tuple(dict.fromkeys(found))


def _command(name: str, words: str, parser: argparse.ArgumentParser) -> Command:
    arguments = tuple(_arguments(name, parser))
    options = tuple(each for each in arguments if each.flags)
    return Command(name, words, options, tuple(each for each in arguments if not each.flags))


def _arguments(command: str, parser: argparse.ArgumentParser) -> Iterator[Argument]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            continue
        takes = action.nargs != 0
        value = str(action.metavar or action.dest.upper()) if takes else ""
        hint = _HINTS.get((command, action.dest), _HINTS.get(("", action.dest), _METAVARS.get(value, "")))
        yield Argument(
            flags=tuple(action.option_strings),
            value=value,
            words=action.help or "",
            hint=hint if takes else "",
            choices=tuple(map(str, action.choices or ())),
            optional=bool(action.option_strings) or action.nargs in ("*", "?"),
            many=action.nargs == "*" or isinstance(action, argparse._AppendAction),
        )
