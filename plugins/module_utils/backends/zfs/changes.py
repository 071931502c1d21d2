# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots that are made, described, replaced and destroyed, in batches. Called by backend.

One `zfs snapshot` takes all that it is given in one transaction group, in one pool: all of them or none, at one
instant. So all that a call makes in a pool is made by one command, as far as its names fit into one.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Callable

from ...core.errors import RestorePointError, ToolError
from . import properties as props
from .listing import DATASETS, Dataset, Row, own_values, snapshots_called
from .names import OLD, pool_of
from .tool import NOT_DONE, Zfs, batches, lists, parse_reclaim

_NOTHING_TO_DESTROY = "could not find any snapshots to destroy"
_DESTROYED = "destroy\t"


class Taking:
    """Snapshots of one name, of several datasets, that are taken in one go.

    ``replaced`` are those of the datasets whose snapshot of that name has to go. ``instants`` tells, when it is done,
    in which second of the clock (with fractions) the snapshot of each dataset was taken; ``commands`` how many commands
    each pool took.
    """

    def __init__(
        self, zfs: Zfs, name: str, targets: Sequence[str], replaced: Iterable[str], given: Mapping[str, str],
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.zfs = zfs
        self.name = name
        self.targets = tuple(targets)
        self.replaced = tuple(replaced)
        self.given = given
        self.clock = clock
        self.identity = os.urandom(6).hex()
        self.instants: dict[str, float] = {}
        self.commands: dict[str, int] = {}

    @property
    def old(self) -> str:
        """What a snapshot that is replaced is called until it goes."""
        return OLD + self.identity

    @property
    def attempt(self) -> str:
        shown = ", ".join(self.targets[:5]) + (" and others" if len(self.targets) > 5 else "")
        return f"take snapshot {self.name!r} of {shown}"

    def take(self) -> None:
        """Take all of them; on a failure take none, and bring back what was to be replaced."""
        moved: list[str] = []
        try:
            self._move_old_away(moved)
            for pool in sorted({pool_of(target) for target in self.targets}):
                self._take_in(pool)
        except BaseException:
            self._take_back(moved)
            raise

    def _move_old_away(self, moved: list[str]) -> None:
        if self.replaced:
            mark = props.encode_json({"id": self.identity, "name": self.name})
            self.zfs.change_many(["set", f"{props.REPLACING}={mark}"], self.replaced, self.attempt)
        for target in self.replaced:
            self.zfs.run("rename", f"{target}@{self.name}", f"{target}@{self.old}", attempt=self.attempt)
            moved.append(target)

    def _take_in(self, pool: str) -> None:
        options = [option for key, value in self.given.items() for option in ("-o", f"{key}={value}")]
        names = [f"{target}@{self.name}" for target in self.targets if pool_of(target) == pool]
        for batch in batches(names, taken=sum(len(os.fsencode(each)) + 9 for each in options)):
            instant = self.clock()
            try:
                self.zfs.run("snapshot", *options, *batch, attempt=self.attempt)
            except ToolError:
                if not self._were_made(batch, instant):
                    raise
            self.commands[pool] = self.commands.get(pool, 0) + 1
            self.instants.update({each.partition("@")[0]: instant for each in batch})

    def _were_made(self, names: Sequence[str], since: float) -> bool:
        """Say whether a command that failed (it was too slow, or killed) has made its snapshots after all."""
        datasets = [Dataset(each.partition("@")[0], "filesystem", inherits=True) for each in names]
        found = snapshots_called(self.zfs, datasets, self.name, self.attempt)
        rows = [row for each in found.values() for row in each]
        return len(rows) == len(names) and all(
            row.created >= int(since) and dict(row.own) == dict(self.given) for row in rows
        )

    def _take_back(self, moved: Sequence[str]) -> None:
        for target in self.instants:
            destroy(self.zfs, target, [self.name], self.attempt)
        for target in moved:
            self.zfs.run("rename", f"{target}@{self.old}", f"{target}@{self.name}", attempt=self.attempt)
        if self.replaced:
            self.zfs.change_many(["inherit", props.REPLACING], self.replaced, self.attempt)

    def undo(self, target: str) -> None:
        """Remove one that was taken, and bring back what it has replaced."""
        destroy(self.zfs, target, [self.name], self.attempt)
        if target in self.replaced:
            self.zfs.run("rename", f"{target}@{self.old}", f"{target}@{self.name}", attempt=self.attempt)
            self.zfs.run("inherit", props.REPLACING, target, attempt=self.attempt)

    def finish(self, target: str) -> None:
        """Destroy for good what was replaced."""
        if target in self.replaced:
            destroy(self.zfs, target, [self.old], f"destroy the snapshot of {target} that was replaced")
            self.zfs.run("inherit", props.REPLACING, target, attempt=self.attempt)


def recover_replacements(zfs: Zfs, pools: Iterable[str], attempt: str) -> list[str]:
    """Complete or take back what a killed run was replacing; return what was done, in words."""
    marks = own_values(zfs, (props.REPLACING,), sorted(pools), attempt, "-r", "-t", DATASETS)
    done = []
    for target, values in marks.items():
        mark = props.decode_json(values[props.REPLACING], props.REPLACING, target)
        old, name = f"{target}@{OLD}{mark['id']}", f"{target}@{mark['name']}"
        there = {row[0] for row in zfs.list_those_there(("name",), [old, name], attempt)}
        if old in there and name in there:
            destroy(zfs, target, [OLD + mark["id"]], attempt)
            done.append(f"{target}: snapshot {mark['name']!r} has been replaced, as an interrupted run had begun")
        elif old in there:
            zfs.run("rename", old, name, attempt=attempt)
            done.append(f"{target}: snapshot {mark['name']!r}, which an interrupted run had moved away, is back")
        zfs.run("inherit", props.REPLACING, target, attempt=attempt)
    return done


def destroy(zfs: Zfs, target: str, names: Sequence[str], attempt: str) -> None:
    """Destroy snapshots of one dataset by their names; those that are gone already are no error.

    Never a range: what somebody else takes meanwhile must not go with it. A list is destroyed as a whole or not at all,
    where one of it is held or cloned. What `zfs` names as destroyed is believed; where it ends well and does not name
    one, that is looked for. Raises ToolError where any is left.
    """
    named: set[str] = set()
    for text in _destructions(zfs, ["-vp"], target, names, attempt):
        named.update(line[len(_DESTROYED) :] for line in text.split("\n") if line.startswith(_DESTROYED))
    _prove_gone(zfs, target, names, named, attempt)


def destroy_freeing(zfs: Zfs, target: str, names: Sequence[str], attempt: str) -> int:
    """Destroy snapshots as ``destroy`` does, and return the bytes that this frees.

    Also raises ToolError for an answer that cannot be read; they may be gone then.
    """
    freed = 0
    named: set[str] = set()
    for text in _destructions(zfs, ["-vp"], target, names, attempt):
        destroyed, reclaimed = parse_reclaim(text, attempt)
        named.update(destroyed)
        freed += reclaimed
    _prove_gone(zfs, target, names, named, attempt)
    return freed


def _prove_gone(zfs: Zfs, target: str, names: Sequence[str], named: Collection[str], attempt: str) -> None:
    """Look for those that `zfs` has not named as destroyed: they were gone already, or it has not done it."""
    doubtful = [name for name in names if f"{target}@{name}" not in named]
    left = left_of(zfs, target, doubtful, attempt) if doubtful else []
    if left:
        shown = ", ".join(left[:5]) + (" and others" if len(left) > 5 else "")
        raise ToolError(attempt, f"`zfs destroy` ended well, but has not destroyed {shown}", NOT_DONE)


def left_of(zfs: Zfs, target: str, names: Sequence[str], attempt: str) -> list[str]:
    """Return which of these snapshots are still there."""
    rows = zfs.list_those_there(("name",), [f"{target}@{name}" for name in names], attempt)
    return [row[0].partition("@")[2] for row in rows]


def freed_by(zfs: Zfs, target: str, names: Sequence[str]) -> int:
    """Return how many bytes destroying these snapshots of one dataset would free together. Touches nothing."""
    attempt = f"see what destroying snapshots of {target} would free"
    return sum(parse_reclaim(text, attempt)[1] for text in _destructions(zfs, ["-nvp"], target, names, attempt))


def _destructions(zfs: Zfs, options: Sequence[str], target: str, names: Sequence[str], attempt: str) -> Iterator[str]:
    """Run `zfs destroy` in as few commands as the names need; yield what each prints that has found any."""
    for batch in lists(names):
        try:
            yield zfs.run("destroy", *options, f"{target}@{','.join(batch)}", attempt=attempt).stdout
        except ToolError as error:
            if _NOTHING_TO_DESTROY not in error.reason:
                raise


class Describing:
    """Descriptions, labels, holds and bookmarks that snapshots of one name get. Remembers how to take them back."""

    def __init__(self, zfs: Zfs) -> None:
        self.zfs = zfs
        self._undo: dict[str, list[Callable[[], object]]] = {}

    def describe(self, rows: Mapping[str, Row], given: Mapping[str, str]) -> None:
        """Set properties of these snapshots (by their datasets)."""
        full = [row.full for row in rows.values()]
        for target, row in rows.items():
            self._remember(target, lambda row=row: self._restore(row, given))  # type: ignore[misc]
        pairs = [f"{key}={value}" for key, value in given.items()]
        self.zfs.change_many(["set", *pairs], full, f"describe {', '.join(full[:5])}")

    def _restore(self, row: Row, given: Mapping[str, str]) -> None:
        attempt = f"bring back the description of {row.full}"
        for key in given:
            if key in row.own:
                self.zfs.run("set", f"{key}={row.own[key]}", row.full, attempt=attempt)
            else:
                self.zfs.run("inherit", key, row.full, attempt=attempt)

    def hold(self, names: Mapping[str, str], tag: str) -> None:
        """Put a hold on these snapshots (full names, by their datasets)."""
        for target, full in names.items():
            self._remember(
                target,
                lambda full=full: self.zfs.run("release", tag, full, attempt=f"release {full}"),  # type: ignore[misc]
            )
        self.zfs.change_many(["hold", tag], names.values(), f"hold {', '.join(list(names.values())[:5])}")

    def bookmark(self, target: str, snapshot: str, name: str) -> None:
        """Make a bookmark of a snapshot."""
        full = f"{target}#{name}"
        self.zfs.run("bookmark", f"{target}@{snapshot}", full, attempt=f"make the bookmark {full}")
        self._remember(target, lambda: self.zfs.run("destroy", full, attempt=f"remove the bookmark {full}"))

    def undo(self, target: str) -> None:
        """Take back what was done to the snapshot of one dataset; all of it is tried."""
        trouble: RestorePointError | None = None
        for step in reversed(self._undo.pop(target, [])):
            try:
                step()
            except RestorePointError as error:
                trouble = trouble or error
        if trouble is not None:
            raise trouble

    def _remember(self, target: str, step: Callable[[], object]) -> None:
        self._undo.setdefault(target, []).append(step)
