# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A keep_current return that is under way: its marks on the datasets, and the two ways out. Called by returning.

A return is recorded on the datasets before anything moves, so that after a kill or a power cut the next run knows what
was begun. Until its last step is announced (phase ``mounting``) nobody can have seen the returned content, and it is
taken back; from then on it is completed. Both go by what is there, step by step, and can be interrupted in turn.

For a dataset D that is returned, X is the dataset with the content that was there: it is called D, then D.aside-TIME.
N is the one with the returned content: a clone of X's snapshot, or an earlier aside.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core.errors import RestorePointError, ToolError
from ...mounts import read_mounts
from . import properties as props
from .busy import mounts_by_dataset
from .listing import DATASETS, own_values
from .names import is_inside
from .tool import Zfs

BEGUN, MOUNTING = "begun", "mounting"
_COLUMNS = ("name", "type", "origin", "canmount", "mountpoint", "encryptionroot", "keystatus", "sharenfs", "sharesmb")
#: Properties that reserve room; they are taken from what is set aside, and given to what is returned.
RESERVATIONS = ("reservation", "refreservation")


@dataclass(frozen=True)
class Node:
    """A dataset, with what a return has to know of it. A value that there is not is ``-``."""

    name: str
    kind: str
    origin: str
    canmount: str
    mountpoint: str
    encryptionroot: str
    keystatus: str
    sharenfs: str
    sharesmb: str

    @property
    def is_filesystem(self) -> bool:
        return self.kind == "filesystem"

    @property
    def is_key_root(self) -> bool:
        return self.encryptionroot == self.name

    @property
    def is_shared(self) -> bool:
        return self.sharenfs not in ("off", props.NONE) or self.sharesmb not in ("off", props.NONE)


def nodes_below(zfs: Zfs, roots: Sequence[str], attempt: str) -> dict[str, Node]:
    """Return the datasets at and below these roots, by name."""
    rows = zfs.rows(_COLUMNS, ["-t", DATASETS, "-r"], roots, attempt)
    return {row[0]: Node(*row) for row in rows}


@dataclass
class Part:
    """One returned dataset. ``of`` is D; ``old`` and ``new`` are what X and N are called at this moment.

    ``back`` is what N was called when it was an aside. ``record`` is what X's property says of it.
    """

    of: str
    old: str | None = None
    new: str | None = None
    back: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Unfinished:
    """One return, of one or several datasets. ``mounted`` holds what was mounted before it, and how, by D's names."""

    zfs: Zfs
    identity: str
    phase: str
    parts: dict[str, Part]
    mounted: dict[str, Any]

    @property
    def attempt(self) -> str:
        return f"recover the return of {', '.join(list(self.parts)[:5])}"

    # -- back ----------------------------------------------------------------------------------------------------------

    def take_back(self) -> None:
        """Bring everything where it was. Raises RestorePointError; the marks then stay, for the next run."""
        nodes = self._nodes()
        for part in self._moved(deepest=False):
            self._give_back_snapshots(part, nodes)
        for part in self._moved(deepest=True):
            self._take_children_back(part, nodes)
            if part.new is not None and part.back is None:
                # Without -r: what somebody has added meanwhile keeps it, and this says so.
                self.zfs.run("destroy", part.new, attempt=self.attempt)
                part.new = None
        self._rename_tops_back()
        self._restore_properties()
        self.mount()
        self.clear(asides=True)

    def _moved(self, deepest: bool) -> list[Part]:
        moved = [part for part in self.parts.values() if part.old is not None and part.old != part.of]
        return sorted(moved, key=lambda part: part.of.count("/"), reverse=deepest)

    def _give_back_snapshots(self, part: Part, nodes: Mapping[str, Node]) -> None:
        """Let X be the origin again, if N has become it."""
        old = nodes.get(part.old or "")
        if old is not None and old.origin.startswith(f"{part.of}@"):
            self.zfs.run("promote", old.name, attempt=self.attempt)

    def _take_children_back(self, part: Part, nodes: Mapping[str, Node]) -> None:
        news = {each.of for each in self.parts.values()}
        for name, node in nodes.items():
            if name.rpartition("/")[0] == part.of and name not in news and part.new == part.of:
                rename(self.zfs, node, f"{part.old}{name[len(part.of) :]}", self.attempt)

    def _rename_tops_back(self) -> None:
        moved = self._moved(deepest=False)
        for part in moved:
            if part.old == part.of:
                continue  # it came with the one above it
            nodes = self._nodes()
            if part.back is not None and part.new == part.of:
                rename(self.zfs, nodes[part.of], part.back, self.attempt)
                self._renamed("new", part.of, part.back)
            if part.old in nodes:
                old = part.old
                rename(self.zfs, nodes[old], part.of, self.attempt)
                self._renamed("old", old, part.of)

    def _renamed(self, which: str, old: str, new: str) -> None:
        for part in self.parts.values():
            name = getattr(part, which)
            if name is not None and is_inside(name, old):
                setattr(part, which, new + name[len(old) :])

    def _restore_properties(self) -> None:
        nodes = self._nodes()
        for part in self.parts.values():
            node = nodes.get(part.of)
            if node is None:
                continue
            canmount = part.record.get("canmount")
            if canmount and node.is_filesystem and node.canmount != canmount:
                self.zfs.run("set", f"canmount={canmount}", part.of, attempt=self.attempt)
            self._set_reservations(part)
            self._load_key(part, node)

    def _set_reservations(self, part: Part) -> None:
        reserved = [f"{key}={value}" for key, value in part.record.get("reserved", {}).items()]
        if reserved:
            self.zfs.run("set", *reserved, part.of, attempt=self.attempt)

    def _load_key(self, part: Part, node: Node) -> None:
        """Load a key again that was loaded before: a promotion moves the encryption root, and its key is forgotten."""
        if part.record.get("key") and node.is_key_root and node.keystatus == "unavailable":
            self.zfs.run("load-key", part.of, attempt=self.attempt)

    # -- on ------------------------------------------------------------------------------------------------------------

    def announce(self) -> None:
        """Write down that from now on the return is completed and not taken back."""
        self.phase = MOUNTING
        mark = props.encode_json({"id": self.identity, "phase": MOUNTING})
        olds = [part.old for part in self.parts.values() if part.old is not None]
        self.zfs.change_many(["set", f"{props.RETURN}={mark}"], olds, self.attempt)

    def complete(self) -> list[str]:
        """Let the returned content be mounted as the one before it was; return what could not be done, in words."""
        nodes = self._nodes()
        wanted: dict[str, list[str]] = {}
        for part in self.parts.values():
            node, canmount = nodes.get(part.of), part.record.get("canmount")
            if node is not None and canmount and node.is_filesystem and node.canmount != canmount:
                wanted.setdefault(canmount, []).append(part.of)
            if node is not None:
                self._load_key(part, node)
        for canmount, names in wanted.items():
            self.zfs.change_many(["set", f"canmount={canmount}"], names, self.attempt)
        return self.mount(nodes)

    def mount(self, nodes: Mapping[str, Node] | None = None) -> list[str]:
        """Mount what was mounted before and is not now, from the top down, and share it again where it is shared."""
        there = mounts_by_dataset(read_mounts())
        wanted = [name for name in self.mounted if name not in there]
        if wanted and nodes is None:
            nodes = self._nodes()
        troubles: list[str] = []
        for name in sorted(wanted, key=lambda each: each.count("/")):
            how = self.mounted[name]
            if isinstance(how, list):
                arguments = ["-t", "zfs", *(["-o", how[1]] if how[1] else []), name, how[0]]
                self.zfs.run_program("mount", *arguments, attempt=f"mount {name} again")
            else:
                self.zfs.run("mount", name, attempt=f"mount {name} again")
            node = (nodes or {}).get(name)
            if node is not None and node.is_shared:
                try:
                    self.zfs.run("share", name, attempt=f"share {name} again")
                except ToolError as error:
                    troubles.append(str(error))
        return troubles

    def clear(self, asides: bool) -> None:
        """Take the marks off; with ``asides`` also what says that X is one."""
        nodes = self._nodes()
        olds = [part.old for part in self.parts.values() if part.old in nodes]
        news = [part.new for part in self.parts.values() if part.new is not None and part.new in nodes]
        if asides:
            recorded = [part.old for part in self.parts.values() if part.old in nodes and part.record]
            self._inherit(props.ASIDE, recorded)
        else:
            self._inherit(props.ASIDE, [part.new for part in self.parts.values() if part.back and part.new in nodes])
        marked = [self._where(name) for name in self.mounted]
        self._inherit(props.MOUNTED, [name for name in marked if name in nodes])
        # The marks of what is called D go last: there the next run looks for them. It is X where all went back.
        for names in (news, olds) if asides else (olds, news):
            self._inherit(props.RETURN, names)

    def _where(self, name: str) -> str:
        """Return the dataset that carries the note of how D was mounted: X, which may be called otherwise now."""
        part = self.parts.get(name)
        return part.old if part is not None and part.old is not None else name

    def _inherit(self, key: str, names: Iterable[str | None]) -> None:
        given = [name for name in names if name]
        if given:
            self.zfs.change_many(["inherit", key], given, self.attempt)

    def _nodes(self) -> dict[str, Node]:
        """Return what is there now, at and below all of D, X and N."""
        names = {each for part in self.parts.values() for each in (part.of, part.old, part.new, part.back) if each}
        rows = self.zfs.list_those_there(_COLUMNS, _outermost(names), self.attempt, "-r", kinds=DATASETS)
        nodes = {row[0]: Node(*row) for row in rows}
        foreign = [name for name in self.mounted if name not in nodes and name not in self.parts]
        if foreign:
            rows = self.zfs.list_those_there(_COLUMNS, foreign, self.attempt, kinds=DATASETS)
            nodes.update({row[0]: Node(*row) for row in rows})
        return nodes


def rename(zfs: Zfs, node: Node, name: str, attempt: str) -> None:
    """Rename a dataset without mounting anything elsewhere; volumes have no mounts, and no -u."""
    options = ["-u"] if node.is_filesystem else []
    zfs.run("rename", *options, node.name, name, attempt=attempt)


def find_unfinished(zfs: Zfs, pools: Iterable[str], attempt: str) -> list[Unfinished]:
    """Return the returns that are under way in these pools, and in those that they reach into."""
    looked_at: set[str] = set()
    pending = set(pools)
    marks: dict[str, dict[str, str]] = {}
    while pending:
        keys = (props.RETURN, props.ASIDE, props.MOUNTED)
        marks.update(own_values(zfs, keys, sorted(pending), attempt, "-r", "-t", DATASETS))
        looked_at |= pending
        named = {
            pool
            for name, values in marks.items()
            if props.RETURN in values
            for pool in props.decode_json(values[props.RETURN], props.RETURN, name).get("pools", ())
        }
        pending = named - looked_at
        if pending:
            there = zfs.list_those_there(("name",), sorted(pending), attempt, kinds=DATASETS)
            pending = {row[0] for row in there}  # a pool that is exported or lost must not stand in the way of others
    return _gathered(zfs, marks)


def _gathered(zfs: Zfs, marks: Mapping[str, Mapping[str, str]]) -> list[Unfinished]:
    found: dict[str, Unfinished] = {}
    for name, values in marks.items():
        if props.RETURN not in values:
            continue
        mark = props.decode_json(values[props.RETURN], props.RETURN, name)
        identity = mark["id"]
        unfinished = found.setdefault(identity, Unfinished(zfs, identity, BEGUN, {}, {}))
        _add_part(unfinished, name, mark, values)
        if mark.get("phase") == MOUNTING:
            unfinished.phase = MOUNTING
    for unfinished in found.values():
        if all(part.old is None for part in unfinished.parts.values()):
            unfinished.phase = MOUNTING  # X is marked first, and cleared first once N is mounted
        _add_mounts(unfinished, marks)
    return list(found.values())


def _add_part(unfinished: Unfinished, name: str, mark: Mapping[str, Any], values: Mapping[str, str]) -> None:
    if "of" in mark:
        part = unfinished.parts.setdefault(mark["of"], Part(mark["of"]))
        part.new, part.back = name, mark.get("back")
        return
    record = props.decode_json(values[props.ASIDE], props.ASIDE, name) if props.ASIDE in values else {}
    if record.get("id") != unfinished.identity:
        record = {}
    of = record.get("of", name)
    part = unfinished.parts.setdefault(of, Part(of))
    part.old, part.record = name, record


def _add_mounts(unfinished: Unfinished, marks: Mapping[str, Mapping[str, str]]) -> None:
    olds = {part.old: part.of for part in unfinished.parts.values() if part.old is not None}
    for name, values in marks.items():
        if props.MOUNTED not in values:
            continue
        how = props.decode_json(values[props.MOUNTED], props.MOUNTED, name)
        if how.get("id") != unfinished.identity:
            continue
        unfinished.mounted[_before(name, olds)] = how.get("by_hand") or True


def _before(name: str, olds: Mapping[str, str]) -> str:
    """Return what a dataset was called before the return, and will be again: it may lie in what is set aside."""
    above = [old for old in olds if is_inside(name, old)]
    if not above:
        return name
    nearest = max(above, key=len)
    return olds[nearest] + name[len(nearest) :]


def recover(zfs: Zfs, pools: Iterable[str], attempt: str) -> list[str]:
    """Complete or take back the returns that killed runs left; return what was done, in words."""
    done = []
    for unfinished in find_unfinished(zfs, pools, attempt):
        names = ", ".join(sorted(unfinished.parts))
        if unfinished.phase == MOUNTING:
            troubles = unfinished.complete()
            unfinished.clear(asides=False)
            done.append(f"a return of {names} that was interrupted has been completed")
            done += troubles
        else:
            unfinished.take_back()
            done.append(f"a return of {names} that was interrupted has been taken back: nothing was lost")
    return done


def take_back_after(unfinished: Unfinished, error: BaseException) -> None:
    """Take back what has failed; where that fails too, raise an error that tells both."""
    try:
        with contextlib.suppress(RestorePointError):
            # What is there now is what the marks say, and not what this run believes.
            pools = {name.partition("/")[0] for name in unfinished.parts}
            for each in find_unfinished(unfinished.zfs, sorted(pools), unfinished.attempt):
                if each.identity == unfinished.identity:
                    unfinished = each
        unfinished.take_back()
    except RestorePointError as second:
        raise RestorePointError(
            f"return {', '.join(sorted(unfinished.parts))}",
            f"{error}; and taking back what was begun failed as well: {second.reason}",
            "mend that and run it again: the next run takes it back first",
        ) from error


def _outermost(names: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for name in sorted(names):
        if not any(is_inside(name, other) for other in kept):
            kept.append(name)
    return kept
