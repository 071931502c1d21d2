# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Completion for bash, zsh and fish, made from the parser of the command line. No I/O. Called by `cli`.

The scripts know commands and options by themselves. For the names of policies, restore points and targets they ask the
agent (`restorepoint completion policies`), with the ``--policies`` and ``--state`` of the line. What it answers is only
compared and offered, never expanded by a shell: names of others' snapshots may be anything.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence

from .surface import Argument, Command, commands_of, valued

_HEADER = "Completion for restorepoint. Made by `restorepoint completion {shell}`; do not edit."
#: What the agent is asked for.
_ASKED = ("policies", "names", "targets")


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """Return the script for a shell: ``bash``, ``zsh`` or ``fish``."""
    made: dict[str, Callable[[tuple[Command, ...]], Iterable[str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    return "\n".join(made[shell](commands_of(parser))) + "\n"


def _quoted(text: str) -> str:
    """Return a text in single quotes, as bash and zsh read them."""
    return "'" + text.replace("'", "'\\''") + "'"


# -- bash --------------------------------------------------------------------------------------------------------------

_BASH = r"""
_restorepoint_offer() {
    # Offers the lines that it reads and that begin with $1. compgen -W would expand them.
    local line
    while IFS= read -r line; do
        if [[ $line == "$1"* ]]; then
            COMPREPLY+=("$(printf '%q' "$line")")
        fi
    done
}

_restorepoint_value() {
    # Offers values: $1 is what they are, $2 the word so far, $3 the policy.
    local line
    case $1 in
        file)
            compopt -o filenames
            while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$2")
            ;;
        directory)
            compopt -o filenames
            while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -d -- "$2")
            ;;
        policies) _restorepoint_offer "$2" < <("${agent[@]}" completion policies 2>/dev/null) ;;
        names|targets) _restorepoint_offer "$2" < <("${agent[@]}" completion "$1" "$3" 2>/dev/null) ;;
    esac
}

_restorepoint() {
    local current=${COMP_WORDS[COMP_CWORD]} pending='' word line i value
    local -a agent=("${COMP_WORDS[0]/#\~/$HOME}") places=()
    COMPREPLY=()
    [[ $current == '=' ]] && current=''
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
            @VALUED@)
                value=$((i + 1))
                [[ ${COMP_WORDS[value]} == '=' && $value -lt $COMP_CWORD ]] && ((value++))
                if ((value >= COMP_CWORD)); then
                    pending=$word
                elif ((${#places[@]} == 0)); then
                    agent+=("$word" "${COMP_WORDS[value]/#\~/$HOME}")
                fi
                i=$value
                ;;
            -*) ;;
            *) places+=("$word") ;;
        esac
    done
    case "${places[0]} $pending" in
@VALUES@
    esac
    [[ -n $pending ]] && return
    if [[ $current == -* ]]; then
        case ${places[0]} in
@OPTIONS@
        esac
        return
    fi
    case "${places[0]} ${#places[@]}" in
@PLACES@
    esac
}

complete -F _restorepoint restorepoint"""


def _bash(commands: tuple[Command, ...]) -> Iterable[str]:
    def offered(words: Sequence[str]) -> str:
        return f"""_restorepoint_offer "$current" <<< $'{chr(92)}n'{_quoted(chr(10).join(words))}"""

    def completed(argument: Argument) -> str:
        if argument.choices:
            return offered(argument.choices)
        return f'_restorepoint_value {argument.hint} "$current" "${{places[1]}}"' if argument.hint else ":"

    values, options, places = [], [], []
    for each in commands:
        for option in each.options:
            if option.value:
                patterns = "|".join(_quoted(f"{each.name} {flag}") for flag in option.flags)
                values.append(f"        {patterns}) {completed(option)} ;;")
        options.append(f"            {_quoted(each.name)}) {offered(each.flags)} ;;")
        for number, place in enumerate(each.places):
            pattern = _quoted(f"{each.name} ") + "*" if place.many else _quoted(f"{each.name} {number + 1}")
            places.append(f"        {pattern}) {completed(place)} ;;")
    names = [each.name for each in commands if each.name]
    places.insert(0, f"        ' 0') {offered(names)} ;;")
    text = _BASH.replace("@VALUED@", "|".join(valued(commands))).replace("@VALUES@", "\n".join(values))
    yield "# " + _HEADER.format(shell="bash")
    yield text.replace("@OPTIONS@", "\n".join(options)).replace("@PLACES@", "\n".join(places))


# -- zsh ---------------------------------------------------------------------------------------------------------------

_ZSH = r"""
_restorepoint_ask() {
    # Offers what the agent answers: $1 is what is asked for.
    local -a found places
    local word skip=
    for word in "${(@)words[2,CURRENT-1]}"; do
        if [[ -n $skip ]]; then
            skip=
            continue
        fi
        case $word in
            (@VALUED@) skip=1 ;;
            (-*) ;;
            (*) places+=("$word") ;;
        esac
    done
    found=("${(@f)$("${(@)restorepoint_agent}" completion $1 ${places[1]} 2>/dev/null)}")
    found=("${(@)found:#}")
    compadd -a found
}

_restorepoint() {
    local curcontext=$curcontext state line
    local -A opt_args
    local -a restorepoint_agent commands
    restorepoint_agent=("${words[1]/#\~/$HOME}")
    _arguments -C @OPTIONS@ '1:command:->command' '*::argument:->argument'
    local flag
    for flag in @OUTER@; do
        [[ -n ${opt_args[$flag]} ]] && restorepoint_agent+=("$flag" "${opt_args[$flag]/#\~/$HOME}")
    done
    case $state in
        (command)
            commands=(
@COMMANDS@
            )
            _describe -t commands command commands
            ;;
        (argument)
            case ${words[1]} in
@CASES@
            esac
            ;;
    esac
}

if [[ ${funcstack[1]} == _restorepoint ]]; then
    _restorepoint "$@"
else
    compdef _restorepoint restorepoint
fi"""


def _zsh(commands: tuple[Command, ...]) -> Iterable[str]:
    def escaped(text: str) -> str:
        return "".join(f"\\{each}" if each in "[]:\\" else each for each in text)

    def completed(argument: Argument) -> str:
        if argument.choices:
            return f"({' '.join(argument.choices)})"
        known = {"file": "_files", "directory": "_files -/", **{each: f" _restorepoint_ask {each}" for each in _ASKED}}
        return known.get(argument.hint, " ")

    def arguments(command: Command) -> Iterable[str]:
        for option in command.options:
            for flag in option.flags:
                form = f"{'*' if option.many else ''}{flag}{'=' if option.value and flag.startswith('--') else ''}"
                value = f":{option.value.lower()}:{completed(option)}" if option.value else ""
                yield _quoted(f"{form}[{escaped(option.words)}]{value}")
        for number, place in enumerate(command.places, 1):
            yield _quoted(f"{'*' if place.many else number}:{place.value.lower()}:{completed(place)}")

    top, *others = commands
    outer = [flag for option in top.options if option.value for flag in option.flags]
    cases = [f"                ({each.name}) _arguments {' '.join(arguments(each))} ;;" for each in others]
    described = [f"                {_quoted(each.name + ':' + escaped(each.words))}" for each in others]
    text = _ZSH.replace("@VALUED@", "|".join(valued(commands))).replace("@OPTIONS@", " ".join(arguments(top)))
    yield "#compdef restorepoint"
    yield "# " + _HEADER.format(shell="zsh")
    text = text.replace("@OUTER@", " ".join(outer)).replace("@COMMANDS@", "\n".join(described))
    yield text.replace("@CASES@", "\n".join(cases))


# -- fish --------------------------------------------------------------------------------------------------------------

_FISH = r"""
function __restorepoint_places
    # Prints the command and what stands in its places so far.
    set -l words (commandline -opc)
    set -e words[1]
    set -l skip 0
    for word in $words
        if test $skip = 1
            set skip 0
            continue
        end
        switch $word
            case @VALUED@
                set skip 1
            case '-*'
            case '*'
                echo $word
        end
    end
end

function __restorepoint_at --argument-names command least most
    # Whether that command is being typed, with so many of its places filled.
    set -l places (__restorepoint_places)
    set -l filled (math (count $places) - 1)
    if test -z "$command"
        test $filled = -1
        return
    end
    test "$places[1]" = "$command"; and test $filled -ge $least; and test $filled -le $most
end

function __restorepoint_ask --argument-names what
    set -l words (commandline -opc)
    set -l places (__restorepoint_places)
    set -l agent (string replace -r '^~' $HOME -- $words[1])
    set -e words[1]
    set -l skip
    for word in $words
        if test -n "$skip"
            set -a agent $skip (string replace -r '^~' $HOME -- $word)
            set skip
            continue
        end
        switch $word
            case @OUTER@
                set skip $word
            case @OUTER_EQUALS@
                set -a agent $word
            case '*'
                contains -- $word $places; and break
        end
    end
    $agent completion $what $places[2] 2>/dev/null
end

complete -c restorepoint -f"""


def _fish(commands: tuple[Command, ...]) -> Iterable[str]:
    def quoted(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def completed(argument: Argument) -> str:
        if argument.choices:
            return f" -a {quoted(' '.join(argument.choices))}"
        if argument.hint in _ASKED:
            return f" -a {quoted(f'(__restorepoint_ask {argument.hint})')}"
        return {"file": " -F", "directory": " -a '(__fish_complete_directories)'"}.get(argument.hint, "")

    top = commands[0]
    outer = [flag for option in top.options if option.value for flag in option.flags]
    text = _FISH.replace("@VALUED@", " ".join(valued(commands))).replace("@OUTER@", " ".join(outer))
    yield "# " + _HEADER.format(shell="fish")
    yield text.replace("@OUTER_EQUALS@", " ".join(f"'{flag}=*'" for flag in outer))
    for each in commands:
        start = f"complete -c restorepoint -n {quoted(f'__restorepoint_at {quoted(each.name)} 0 99')}"
        for option in each.options:
            forms = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags)
            yield f"{start} {forms} -d {quoted(option.words)}{' -r' + completed(option) if option.value else ''}"
        for number, place in enumerate(each.places):
            at = f"__restorepoint_at {each.name} {number} {99 if place.many else number}"
            yield f"complete -c restorepoint -n {quoted(at)}{completed(place)}"
        if each.name:
            where = quoted("__restorepoint_at ''")
            yield f"complete -c restorepoint -n {where} -a {each.name} -d {quoted(each.words)}"
