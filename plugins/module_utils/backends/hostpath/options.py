# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a caller can ask of this backend beside the desired state, and what it knows of each target. No I/O."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from re import Pattern
from typing import Any

from ...core.errors import InvalidInput
from ..stored.backend import StoredOptions


@dataclass(frozen=True)
class HostTarget:
    """A directory to be snapshotted: its canonical path, and what is known of the claim that it belongs to."""

    path: str
    claim: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HostpathOptions(StoredOptions):
    """Options of a call. ``bandwidth_limit`` is in bytes a second."""

    exclude: tuple[str, ...] = ()
    bandwidth_limit: int | None = None
    checksum: bool = False
    require_consistent: bool = False


def exclude_pattern(patterns: Sequence[str]) -> Pattern[str] | None:
    """Return what matches the paths (relative to the target, without a leading slash) that are left out, if any are.

    A pattern without a slash is matched against each name, at any depth; one with a slash against the whole path from
    the target down. ``*`` and ``?`` do not match a slash, ``**`` does, and ``**/`` stands for any directories or none.
    Raises InvalidInput.
    """
    if not patterns:
        return None
    groups = itertools.count(1)
    alternatives = []
    for pattern in patterns:
        body = pattern.strip("/")
        if not body:
            raise InvalidInput(f"read exclude: {pattern!r}", "the pattern is empty", "leave it out")
        anywhere = "/" not in body and not pattern.startswith("/")
        alternatives.append(_glob(f"**/{body}" if anywhere else body, groups))
    try:
        return re.compile("|".join(f"(?:{each})" for each in alternatives), re.DOTALL)
    except re.error as error:
        listed = ", ".join(patterns)
        raise InvalidInput(
            f"read exclude: {listed}", f"it is no pattern: {error}", "write it as a shell would"
        ) from error


_TOKENS = re.compile(r"((?:(?<=/)|(?<![^/]))\*\*/|\*+|\?|\[[!^]?\]?[^]/]*\])")
_GAPS = {"*": "[^/]*?", "**": ".*?", "**/": "(?:.*?/)??"}


def _glob(pattern: str, groups: Iterator[int]) -> str:
    """Return a regular expression for a pattern; ``groups`` numbers what it has to name.

    Several stars, each free to match more or less, would take ages on a hostile name. But what lies between two stars
    may be settled at the first place where it matches, since the later star can take up whatever the earlier one left:
    so it is put into a lookahead, into which the search does not go back (`fnmatch` does the same). A single star is
    only sure to do that up to the end of its own name, so names are settled first and then what lies between ``**``.
    """
    wide: list[tuple[str, str]] = [("", "")]  # (a gap that may hold slashes, what has to come after it)
    for token in _TOKENS.split(pattern):
        if token == "**/" or (token.startswith("**") and not token.strip("*")):
            wide.append((_GAPS["**/" if token == "**/" else "**"], ""))
        else:
            gap, rest = wide[-1]
            wide[-1] = (gap, rest + token)
    return _settled([(gap, "/".join(_name(each, groups) for each in rest.split("/"))) for gap, rest in wide], groups)


def _name(text: str, groups: Iterator[int]) -> str:
    """Return a regular expression for what lies between two slashes."""
    parts: list[tuple[str, str]] = [("", "")]
    for token in _TOKENS.split(text):
        if token == "*":
            parts.append((_GAPS["*"], ""))
            continue
        if token == "?":
            token = "[^/]"
        elif len(token) > 1 and token.startswith("[") and token.endswith("]"):
            token = _character_class(token[1:-1])
        else:
            token = re.escape(token)
        parts[-1] = (parts[-1][0], parts[-1][1] + token)
    return _settled(parts, groups)


def _settled(parts: Sequence[tuple[str, str]], groups: Iterator[int]) -> str:
    """Join (gap, what comes after it), all but the first and the last settled where they first match."""
    first, last = parts[0], parts[-1]
    middle = []
    for gap, rest in parts[1:-1]:
        name = f"g{next(groups)}"
        middle.append(f"(?=(?P<{name}>{gap}{rest}))(?P={name})")
    return "".join([*first, *middle, *(last if len(parts) > 1 else ())])


def _character_class(body: str) -> str:
    negated = body[:1] in ("!", "^")
    characters = re.sub(r"([\\\[\]^&~|])", r"\\\1", body[1:] if negated else body)
    return f"(?!/)[{'^' if negated else ''}{characters}]"


def check_part(part: str) -> str:
    """Return a part of a target that is to be returned, normalised; raise InvalidInput where it could lead outside."""
    pieces = part.rstrip("/").split("/")
    if part.startswith("/") or not part or any(piece in ("", ".", "..") for piece in pieces):
        raise InvalidInput(
            f"return the part {part!r}",
            "it is no plain path below the target",
            "give it relative, without '.' or '..' in it",
        )
    return "/".join(pieces)


def plain_parts(parts: Sequence[str]) -> tuple[str, ...]:
    """Return parts that are to be returned, each once, and none that lies in another. Raises InvalidInput."""
    plain = dict.fromkeys(check_part(part) for part in parts)
    return tuple(part for part in plain if not any(part.startswith(f"{other}/") for other in plain))
