# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Returns that keep the present content: what stands in their way, and their steps. Called by backend.

The present dataset is renamed to ``D.aside-TIME``, a clone of the snapshot takes its place and is promoted, so that it
depends on nothing. Children that are not returned themselves go back under the new dataset. `unfinished` has the marks
that make each step safe against kills, and the ways out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core.errors import ToolError
from ...mounts import Mount, read_mounts
from . import properties as props
from .busy import automounts, mounts_by_dataset
from .grants import grant_again
from .listing import own_values
from .names import LONGEST, is_inside, pool_of, tops
from .tool import Zfs
from .unfinished import BEGUN, RESERVATIONS, Node, Part, Unfinished, nodes_below, rename, take_back_after

#: Properties that a clone has from its snapshot, or that cannot be given to it at once.
_NOT_GIVEN = frozenset(
    {
        *("canmount", "volsize", "keylocation", "keyformat", "pbkdf2iters", "encryption", "casesensitivity"),
        *("normalization", "utf8only", "volblocksize", "version", *RESERVATIONS),
    }
)
_OF_RUNS = frozenset({props.ASIDE, props.RETURN, props.MOUNTED, props.REPLACING, props.ONCE_BEGUN, props.RETURNED})


@dataclass(frozen=True)
class Tree:
    """The datasets of a call and all below them, with the properties that the returned ones have themselves."""

    nodes: Mapping[str, Node]
    own: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    mounts: Mapping[str, Sequence[Mount]] = field(default_factory=dict)


def read_tree(zfs: Zfs, targets: Sequence[str]) -> Tree:
    """Return what a return of these datasets has to know."""
    attempt = f"look at {', '.join(targets[:5])}"
    nodes = nodes_below(zfs, tops(targets), attempt)
    own = own_values(zfs, ("all",), targets, attempt, received=True)
    return Tree(nodes, own, mounts_by_dataset(read_mounts()))


def group_top(target: str, targets: Sequence[str]) -> str:
    """Return the dataset that is renamed for this one: the furthest up that is reached over returned ones alone."""
    wanted = set(targets)
    while target.rpartition("/")[0] in wanted:
        target = target.rpartition("/")[0]
    return target


def hindrances(
    zfs: Zfs, tree: Tree, target: str, targets: Sequence[str], aside: str, longest_end: int
) -> Iterator[tuple[str, str]]:
    """Yield (reason, remedy) for what makes a return with keep_current impossible.

    ``aside`` is what the present content would be called, ``longest_end`` the length of its longest ``@snapshot``.
    """
    if "/" not in target:
        yield "it is the pool's top dataset, which ZFS cannot rename", "leave keep_current off, or return what is below"
        return
    longest = max(len(name) for name in tree.nodes if is_inside(name, target)) - len(target)
    if len(aside) + max(longest, longest_end) > LONGEST:
        yield f"the names in {aside} would be longer than ZFS allows", "leave keep_current off"
    node = tree.nodes[target]
    if node.keystatus == "unavailable":
        yield "its encryption key is not loaded", "load it with `zfs load-key`"
    elif node.is_key_root:
        yield from _key_hindrances(zfs, target, tree.own.get(target, {}).get("keylocation", "prompt"))


def _key_hindrances(zfs: Zfs, target: str, location: str) -> Iterator[tuple[str, str]]:
    """A promotion makes the kernel forget the key of an encryption root, so it must be possible to load it again."""
    if location == "prompt":
        yield (
            "its key must be loaded again on the way, and keylocation=prompt wants somebody to type it",
            "put the key into a file and set keylocation to it, or leave keep_current off",
        )
        return
    try:
        zfs.run("load-key", "-n", target, attempt=f"test the key of {target}")
    except ToolError as error:
        yield f"its key, which must be loaded again on the way, cannot be: {error.reason}", "mend keylocation"


@dataclass(frozen=True)
class Wish:
    """One dataset to be returned: to a snapshot of its own, or to an earlier aside (``back`` is its dataset)."""

    target: str
    name: str
    back: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)


class Returning:
    """One return of one or several datasets, all or none. ``aside`` is the name, such as aside-20261122t013000z.

    ``used_by``: properties to be set on a dataset that takes the place of an earlier aside.
    """

    def __init__(self, zfs: Zfs, tree: Tree, wishes: Sequence[Wish], aside: str, at: int) -> None:
        self.zfs = zfs
        self.tree = tree
        self.wishes = {wish.target: wish for wish in wishes}
        self.aside = aside
        self.at = at
        self.warnings: list[str] = []
        self._order = sorted(self.wishes, key=lambda name: (name.count("/"), name))
        self._names = list(self.wishes)
        self.unfinished = Unfinished(
            zfs, os.urandom(8).hex(), BEGUN, {name: Part(name, old=name) for name in self._order}, {}
        )

    def aside_of(self, target: str) -> str:
        """Return the dataset in which the present content of a target will be."""
        top = group_top(target, self._names)
        return f"{top}.{self.aside}{target[len(top) :]}"

    def carry_out(self) -> None:
        """Do all of it but the mounting; on a failure bring everything back and raise."""
        try:
            self._record()
            self._unmount()
            self._move_away()
            self._put_in_place()
            self._bring_children()
            self._complete_properties()
        except BaseException as error:
            take_back_after(self.unfinished, error)
            raise

    def _attempt(self, target: str) -> str:
        return f"return {target} to {self.wishes[target].name!r}"

    def _record(self) -> None:
        identity = self.unfinished.identity
        pools = sorted({pool_of(name) for name in self._names})
        mark = props.encode_json({"id": identity, "phase": BEGUN, "pools": pools})
        self.zfs.change_many(["set", f"{props.RETURN}={mark}"], self._order, "note a return that begins")
        for target in self._order:
            record = self._record_of(target)
            self.unfinished.parts[target].record = record
            self.zfs.run("set", f"{props.ASIDE}={props.encode_json(record)}", target, attempt=self._attempt(target))
            back = self.wishes[target].back
            if back is not None:
                note = props.encode_json({"id": identity, "of": target, "back": back})
                self.zfs.run("set", f"{props.RETURN}={note}", back, attempt=self._attempt(target))
                self.unfinished.parts[target].new = self.unfinished.parts[target].back = back
        self._record_mounts(identity)

    def _record_of(self, target: str) -> dict[str, Any]:
        node, own = self.tree.nodes[target], self.tree.own.get(target, {})
        record: dict[str, Any] = {
            "id": self.unfinished.identity,
            "of": target,
            "name": self.aside,
            "at": self.at,
            "returned_to": self.wishes[target].name,
        }
        if node.is_filesystem:
            record["canmount"] = node.canmount
        if node.is_key_root:
            record["key"] = True
        reserved = {key: own[key] for key in RESERVATIONS if own.get(key, "0") not in ("0", "none", props.NONE)}
        if reserved:
            record["reserved"] = reserved
        return record

    def _record_mounts(self, identity: str) -> None:
        plain: list[str] = []
        for name, node in self.tree.nodes.items():
            mounted = self.tree.mounts.get(name)
            if not mounted:
                continue
            by_hand = self._mounted_by_hand(node, mounted[0])
            self.unfinished.mounted[name] = by_hand or True
            if by_hand:
                note = props.encode_json({"id": identity, "by_hand": by_hand})
                self.zfs.run("set", f"{props.MOUNTED}={note}", name, attempt=f"note how {name} is mounted")
            else:
                plain.append(name)
        if plain:
            note = props.encode_json({"id": identity})
            self.zfs.change_many(["set", f"{props.MOUNTED}={note}"], plain, "note what is mounted")

    def _mounted_by_hand(self, node: Node, mount: Mount) -> list[str] | None:
        """Return where and how something is mounted that `zfs mount` would not mount there: a legacy mount point."""
        if node.mountpoint == mount.mount_point and node.canmount != "off":
            return None
        return [mount.mount_point, mount.options]

    def _unmount(self) -> None:
        for place in automounts(read_mounts(), self.tree.nodes):
            self.zfs.run_program("umount", place, attempt=f"unmount the snapshot on {place}")
        # A dataset that is mounted inside another one has the longer path.
        mounted = {name: self.tree.mounts[name][0].mount_point for name in self.unfinished.mounted}
        for name in sorted(mounted, key=lambda each: mounted[each].count("/"), reverse=True):
            if mounted[name] == "/":
                raise ToolError(f"unmount {name}", "it is the root of the system", "return it from a rescue system")
            if isinstance(self.unfinished.mounted[name], list):
                self.zfs.run_program("umount", mounted[name], attempt=f"unmount {name}")
            else:  # which takes its shares back as well
                self.zfs.run("unmount", name, attempt=f"unmount {name}")

    def _move_away(self) -> None:
        for top in [name for name in self._order if self._is_top(name)]:
            rename(self.zfs, self.tree.nodes[top], self.aside_of(top), self._attempt(top))
            for part in self.unfinished.parts.values():
                if group_top(part.of, self._names) == top:
                    part.old = self.aside_of(part.of)
        hidden = [self.aside_of(name) for name in self._order if self.tree.nodes[name].canmount == "on"]
        if hidden:
            self.zfs.change_many(["set", "canmount=noauto"], hidden, "keep asides from being mounted")
        for target in self._order:
            reserved = self.unfinished.parts[target].record.get("reserved")
            if reserved:
                aside = self.aside_of(target)
                self.zfs.run("set", *[f"{key}=none" for key in reserved], aside, attempt=self._attempt(target))

    def _is_top(self, target: str) -> bool:
        return group_top(target, self._names) == target

    def _put_in_place(self) -> None:
        for target in self._order:
            wish, part = self.wishes[target], self.unfinished.parts[target]
            if wish.back is None:
                self._clone(target, wish)
                part.new = target
            elif self._is_top(target):
                rename(self.zfs, self._node_called(wish.back, target), target, self._attempt(target))
                self._note_back(target, wish.back)
        for target in self._order:
            if self._depends_on_aside(target):
                self.zfs.run("promote", target, attempt=self._attempt(target))
            if self.tree.nodes[target].is_key_root:
                self.zfs.run("load-key", target, attempt=self._attempt(target))

    def _node_called(self, name: str, target: str) -> Node:
        return Node(**{**self.tree.nodes[target].__dict__, "name": name})

    def _note_back(self, top: str, back: str) -> None:
        for part in self.unfinished.parts.values():
            if part.back is not None and is_inside(part.back, back):
                part.new = top + part.back[len(back) :]

    def _depends_on_aside(self, target: str) -> bool:
        """Say whether a dataset is a clone of what was set aside; an earlier aside may be one of something else."""
        if self.wishes[target].back is None:
            return True
        (row,) = self.zfs.rows(("name", "origin"), ["-t", "filesystem,volume"], [target], self._attempt(target))
        return row[1].startswith(f"{self.aside_of(target)}@")

    def _clone(self, target: str, wish: Wish) -> None:
        node, own = self.tree.nodes[target], self.tree.own.get(target, {})
        given = {key: value for key, value in own.items() if key not in _NOT_GIVEN and key not in _OF_RUNS}
        given.update(wish.properties)
        given[props.RETURN] = props.encode_json({"id": self.unfinished.identity, "of": target})
        if node.is_filesystem:
            given["canmount"] = "off" if node.canmount == "off" else "noauto"
        options = [option for key, value in given.items() for option in ("-o", f"{key}={value}")]
        source = f"{self.aside_of(target)}@{wish.name}"
        self.zfs.run("clone", *options, source, target, attempt=self._attempt(target))

    def _bring_children(self) -> None:
        """Move the children that are not returned from what was set aside to where they were."""
        for name, node in self.tree.nodes.items():
            parent = name.rpartition("/")[0]
            if parent in self.wishes and name not in self.wishes:
                moved = Node(**{**node.__dict__, "name": f"{self.aside_of(parent)}{name[len(parent) :]}"})
                rename(self.zfs, moved, name, f"keep {name}")

    def _complete_properties(self) -> None:
        for target in self._order:
            wish, record = self.wishes[target], self.unfinished.parts[target].record
            if wish.back is not None and wish.properties:
                pairs = [f"{key}={value}" for key, value in wish.properties.items()]
                self.zfs.run("set", *pairs, target, attempt=self._attempt(target))
            for key, value in record.get("reserved", {}).items():
                self.zfs.run("set", f"{key}={value}", target, attempt=self._attempt(target))
            if wish.back is None:
                self._grant(target)

    def _grant(self, target: str) -> None:
        """Grant again what was granted; what cannot be is no reason to fail, and is named."""
        try:
            grant_again(self.zfs, self.aside_of(target), target)
        except ToolError as error:
            self.warnings.append(f"{error} The grants stand on {self.aside_of(target)}.")

    def settle(self) -> None:
        """Mount the returned content: from here on the return is completed, whatever happens."""
        self.unfinished.announce()
        self.warnings += self.unfinished.complete()

    def finish(self) -> None:
        """Take the marks off."""
        self.unfinished.clear(asides=False)

    def undo(self) -> None:
        """Bring everything back, after all of it was done and before it was settled."""
        self.unfinished.take_back()
