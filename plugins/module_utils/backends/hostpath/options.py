# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a caller can ask of this backend beside the desired state, and what it knows of each target. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Pattern, Sequence

from ...core.errors import InvalidInput


@dataclass(frozen=True)
class HostTarget:
    """A directory to be snapshotted: its canonical path, and what is known of the claim that it belongs to."""

    path: str
    claim: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HostpathOptions:
    """Options of a call. ``bandwidth_limit`` is in bytes a second, ``lock_timeout`` in seconds.

    ``paths`` are the parts to be returned (relative to the target); none means all of it. ``now`` gives the time, in
    seconds since the epoch.
    """

    now: Callable[[], int]
    exclude: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    bandwidth_limit: int | None = None
    checksum: bool = False
    require_consistent: bool = False
    ignore_users: bool = False
    lock_timeout: float = 60.0
    progress: Callable[[str, Mapping[str, Any]], None] | None = None


def exclude_pattern(patterns: Sequence[str]) -> Pattern[str] | None:
    """Return what matches the paths (relative to the target, without a leading slash) that are left out, if any are.

    A pattern without a slash is matched against each name, at any depth; one with a slash against the whole path from
    the target down. ``*`` and ``?`` do not match a slash, ``**`` does. Raises InvalidInput.
    """
    if not patterns:
        return None
    alternatives = []
    for pattern in patterns:
        body = _glob(pattern.strip("/"))
        alternatives.append(body if "/" in pattern.strip("/") or pattern.startswith("/") else f"(?:.*/)?{body}")
    try:
        return re.compile("|".join(f"(?:{each})" for each in alternatives), re.DOTALL)
    except re.error as error:
        listed = ", ".join(patterns)
        raise InvalidInput(f"read exclude: {listed}", f"it is no pattern: {error}", "write it as a shell would") from error


def _glob(pattern: str) -> str:
    if not pattern:
        raise InvalidInput("read exclude", "a pattern is empty", "leave it out")
    parts = []
    for part in re.split(r"(\*\*|\*|\?|\[[^]]*\])", pattern):
        if part == "**":
            parts.append(".*")
        elif part == "*":
            parts.append("[^/]*")
        elif part == "?":
            parts.append("[^/]")
        elif part.startswith("[") and part.endswith("]"):
            parts.append(_character_class(part[1:-1]))
        else:
            parts.append(re.escape(part))
    return "".join(parts)


def _character_class(body: str) -> str:
    negated, characters = body.startswith(("!", "^")), body.lstrip("!^")
    return f"(?!/)[{'^' if negated else ''}{characters.replace(chr(92), chr(92) * 2).replace('[', chr(92) + '[')}]"


def check_part(part: str) -> str:
    """Return a part of a target that is to be returned, normalised; raise InvalidInput where it could lead outside."""
    pieces = part.rstrip("/").split("/")
    if part.startswith("/") or not part or any(piece in ("", ".", "..") for piece in pieces):
        raise InvalidInput(
            f"return the part {part!r}", "it is no plain path below the target", "give it relative, without . and .."
        )
    return "/".join(pieces)
