# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Off-site copies: which streams bring a destination up to date, and what an index of files says. Pure.

A stream is one snapshot of one ZFS dataset: whole, or the increment from an older one. A snapshot is known by its guid,
which a replica and a bookmark of it share; names may be anybody's. Called by offsite/ and the agent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Union

from .errors import InvalidInput

if TYPE_CHECKING:
    from .retention import RetentionPolicy

#: How bookmarks that exports make begin. They hold the destination's name, and the snapshot's.
BOOKMARK = "restorepoint-export."
INDEX_FORMAT = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]{1,20}")
_FILE = re.compile(r"[0-9]{4,}-[^/]+")


@dataclass(frozen=True)
class Destination:
    """Where a policy exports to: one of ``KINDS`` in engine/exports.py. ``params`` has the keys of its kind.

    ``backends`` are those whose targets go there. ``bandwidth`` is in bytes a second, None where there is no limit.
    ``retention`` says which copies stay in a ZFS destination; None where all of them do.
    """

    kind: str
    name: str
    backends: tuple[str, ...]
    bandwidth: int | None = None
    idle: bool = True
    params: Mapping[str, Any] = field(default_factory=dict)
    retention: RetentionPolicy | None = None


@dataclass(frozen=True)
class Point:
    """A snapshot, or a bookmark of one, of a dataset. ``name`` is what stands behind the @ or #."""

    name: str
    guid: str
    txg: int
    own: bool = False
    bookmark: bool = False

    @property
    def mark(self) -> str:
        """Its name with the sign that ZFS puts before it."""
        return f"{'#' if self.bookmark else '@'}{self.name}"


@dataclass(frozen=True)
class Step:
    """One stream: the snapshot that it brings, and the one that it starts from; None for a whole one."""

    point: Point
    base: Point | None = None


@dataclass(frozen=True)
class Steps:
    """The streams that bring a destination up to date, in order; none where it has the newest already."""

    steps: tuple[Step, ...] = ()
    rollback: bool = False


@dataclass(frozen=True)
class Diverged:
    """The destination holds something else. ``forced`` says whether ``--force`` may take it back to a common state."""

    reason: str
    forced: bool


def bookmark_name(destination: str, snapshot: str) -> str:
    """Return how the bookmark of what a destination holds is called."""
    return f"{BOOKMARK}{destination}.{snapshot}"


def bookmarked(name: str) -> tuple[str, str] | None:
    """Return the destination and the snapshot that a bookmark of ours names; None for any other bookmark."""
    if not name.startswith(BOOKMARK):
        return None
    destination, dot, snapshot = name[len(BOOKMARK) :].partition(".")
    return (destination, snapshot) if dot and destination and snapshot else None


def steps_to(
    source: Sequence[Point], there: Sequence[Point], newest_only: bool = False, force: bool = False
) -> Union[Steps, Diverged]:  # noqa: UP007 - Python 3.9
    """Return the streams for a dataset that is received elsewhere.

    Args:
        source: snapshots and bookmarks of the source. Only ``own`` snapshots are sent; any may be the base.
        there: the snapshots of the destination, or none where the dataset is not there.
        newest_only: leave out what lies between.
        force: whatever is newer than the last common snapshot there may go.
    """
    own = _own(source)
    if not there:
        return Steps(_chain(own[-1:], None))
    bases = _bases(source)
    ordered = sorted(there, key=lambda each: each.txg)
    common = [each for each in ordered if each.guid in bases]
    if not common:
        shown = ", ".join(each.name for each in ordered[-3:])
        return Diverged(f"it holds no snapshot that there is here as well (it has {shown})", forced=False)
    newest, last = ordered[-1], common[-1]
    if newest is not last and not force:
        later = ", ".join(each.name for each in ordered if each.txg > last.txg)
        return Diverged(f"it has {later}, newer than {last.name}, the last one that there is here as well", forced=True)
    base = bases[last.guid]
    wanted = [each for each in own if each.txg > base.txg]
    return Steps(_chain(wanted[-1:] if newest_only else wanted, base), rollback=newest is not last)


def steps_for_files(
    source: Sequence[Point], parts: Sequence[Part], newest_only: bool = False, whole_after: int | None = None
) -> Steps:
    """Return the streams for a folder of files that has these parts already: a new chain where the last one ends.

    It ends where its last snapshot is gone here, bookmark and all, or where it has ``whole_after`` increments.
    """
    own = _own(source)
    chain = chains(parts)[-1] if parts else ()
    base = _bases(source).get(chain[-1].guid) if chain else None
    if base is None:
        return Steps(_chain(own[-1:], None))
    wanted = [each for each in own if each.txg > base.txg]
    wanted = wanted[-1:] if newest_only else wanted
    if wanted and whole_after is not None and len(chain) - 1 + len(wanted) > whole_after:
        return Steps(_chain(wanted[-1:], None))
    return Steps(_chain(wanted, base))


def _own(source: Iterable[Point]) -> list[Point]:
    return sorted((each for each in source if each.own and not each.bookmark), key=lambda each: each.txg)


def _bases(source: Iterable[Point]) -> dict[str, Point]:
    """Return what a stream may start from, by guid: the snapshot itself rather than a bookmark of it."""
    found: dict[str, Point] = {}
    for each in source:
        if each.guid not in found or not each.bookmark:
            found[each.guid] = each
    return found


def _chain(points: Sequence[Point], base: Point | None) -> tuple[Step, ...]:
    steps = []
    for point in points:
        steps.append(Step(point, base))
        base = point
    return tuple(steps)


# -- the index of a folder of files ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One file. ``base`` is the guid that its stream starts from, None where it is whole. Sizes are in bytes."""

    file: str
    name: str
    guid: str
    sha256: str
    bytes: int
    compression: str
    created: int
    base: str | None = None
    raw: bool = False


@dataclass(frozen=True)
class Index:
    """What a folder holds of one dataset, in the order in which it came."""

    dataset: str
    policy: str
    parts: tuple[Part, ...] = ()
    kind: str = "filesystem"

    def find(self, name: str) -> tuple[Part, ...]:
        """Return the files that make up a snapshot, the whole one first; none where it is not there."""
        for chain in reversed(chains(self.parts)):
            for number, part in enumerate(chain):
                if part.name == name:
                    return chain[: number + 1]
        return ()


def chains(parts: Sequence[Part]) -> list[tuple[Part, ...]]:
    """Return the parts as chains: each begins with a whole stream."""
    found: list[tuple[Part, ...]] = []
    for part in parts:
        if part.base is None:
            found.append((part,))
        else:
            found[-1] = (*found[-1], part)
    return found


def outdated(parts: Sequence[Part], keep: int) -> tuple[Part, ...]:
    """Return the files that may go where the last ``keep`` chains stay; never those of the last one."""
    return tuple(part for chain in chains(parts)[: -max(1, keep)] for part in chain)


def write_index(index: Index) -> bytes:
    """Return an index as its file holds it."""
    data = {"format": INDEX_FORMAT, **asdict(index)}
    return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode("ascii")


def read_index(text: str, place: str) -> Index:
    """Return what an index says. Raises InvalidInput where it is damaged, or of another version."""
    attempt = f"read the index {place}"
    remedy = "bring it back from a copy, or move the folder away and begin a new one"
    try:
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("format") != INDEX_FORMAT:
            raise InvalidInput(attempt, f"it is no index of format {INDEX_FORMAT}", remedy)
        texts = [data[key] for key in ("dataset", "policy", "kind")]
        parts = tuple(_part(each) for each in data["parts"])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(attempt, f"it is damaged: {error}", remedy) from error
    if not all(isinstance(each, str) for each in texts):
        raise InvalidInput(attempt, "it is damaged: it does not say of what it is", remedy)
    last: Part | None = None
    for part in parts:
        if part.base is not None and (last is None or last.guid != part.base):
            raise InvalidInput(attempt, f"it is damaged: {part.file} does not follow what stands before it", remedy)
        last = part
    return Index(texts[0], texts[1], parts, texts[2])


def _part(data: Mapping[str, Any]) -> Part:
    part = Part(**data)
    sound = (
        all(isinstance(each, str) for each in (part.file, part.name, part.compression))
        and bool(_FILE.fullmatch(part.file))
        and bool(_SHA256.fullmatch(part.sha256))
        and bool(_NUMBER.fullmatch(part.guid))
        and (part.base is None or bool(_NUMBER.fullmatch(part.base)))
        and all(isinstance(each, int) and not isinstance(each, bool) for each in (part.bytes, part.created))
        and isinstance(part.raw, bool)
    )
    if not sound:
        raise ValueError(f"{part.file!r} is described in another way")
    return part


# -- restic ------------------------------------------------------------------------------------------------------------


def restic_line(words: Iterable[str]) -> str:
    """Return a command as restic takes one: a text that it splits at blanks, with quotes around whole words.

    It is no shell's: quotes inside of a word split it, and a backslash takes the quote after it along (restic,
    internal/backend/shell_split.go). Raises InvalidInput for a word that cannot be told to it.
    """
    return " ".join(map(_restic_word, words))


def _restic_word(word: str) -> str:
    if word and not re.search(r"""[\s'"\\]""", word):
        return word
    for quote in ("'", '"'):
        if word and quote not in word and not word.endswith("\\"):
            return f"{quote}{word}{quote}"
    raise InvalidInput(
        f"hand {word!r} to restic", "restic cannot read such a word", "leave out what is no letter, or use a script"
    )


# -- what the agent tells ----------------------------------------------------------------------------------------------


def needed_names(bookmarks: Iterable[tuple[str, str]], destinations: Iterable[str]) -> dict[tuple[str, str], str]:
    """Return the snapshots that increments start from, with the reason to keep each, by dataset and name.

    ``bookmarks`` are datasets and names of their bookmarks. Those of other destinations than these count no more.
    """
    wanted = set(destinations)
    found: dict[tuple[str, str], str] = {}
    for dataset, name in bookmarks:
        known = bookmarked(name)
        if known is not None and known[0] in wanted:
            found[(dataset, known[1])] = f"the last one that {known[0]} holds as well"
    return found
