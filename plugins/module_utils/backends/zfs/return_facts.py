# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a return of each dataset of a call meets, and what it has to know. Called by backend for returns alone.

Touches nothing, but for the notes of a return that is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...core import backend as core
from ...core.backend import Blocker, Desired, Situation
from ...core.names import is_aside
from ...mounts import read_mounts
from . import busy
from . import properties as props
from .asides import Aside
from .facts import Facts
from .listing import own_values
from .names import is_inside, pool_of
from .returning import Tree, group_top, hindrances, read_tree
from .tool import parse_number

_RETURNS = frozenset({core.ROLL_BACK})


class ReturnFacts:
    """What was found, beside the facts that every call needs."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self.zfs = facts.zfs
        self.options = facts.options
        self.newer_bookmarks: dict[str, list[str]] = {}
        self._tree: Tree | None = None
        self._tokens: dict[str, dict[str, Any]] = {}
        self._used_up: dict[str, dict[str, Any]] = {}
        self._begun: dict[str, list[str]] = {}
        self._returned: dict[str, Mapping[str, Any]] = {}

    def situations(self, desired: Desired) -> list[Situation]:
        """Return what is there, a situation for each target."""
        self._facts.read(desired)
        attempt = f"look at what a return of {', '.join(self._facts.names[:5])} meets"
        keys = (props.ONCE, props.ONCE_BEGUN, props.USED_UP, props.RETURNED)
        for target, values in own_values(self.zfs, keys, self._facts.names, attempt).items():
            read = {key: props.decode_json(value, key, target) for key, value in values.items()}
            self._tokens[target] = read.get(props.ONCE, {})
            self._used_up[target] = read.get(props.USED_UP, {})
            self._returned[target] = read.get(props.RETURNED, {})
            if props.ONCE_BEGUN in read:
                self._begun[target] = read[props.ONCE_BEGUN]
        written = self.written_since(desired.name or "", attempt)
        proofs = {name: self._proof(name, desired.name or "", count) for name, count in written.items()}
        pending = [target for target in self._facts.names if proofs.get(target) is None]
        if pending and not desired.keep_current:
            self._read_bookmarks(pending, desired.name or "", attempt)
        if pending and desired.keep_current:
            self._tree = read_tree(self.zfs, pending)
        blockers: dict[str, list[Blocker]] = {}
        for target in pending:
            if self._is_meant(target, desired):
                blockers[target] = list(self._return_blockers(target, desired, pending))
        return [
            self._of_return(name, desired, written.get(name), proofs.get(name), tuple(blockers.get(name, ())))
            for name in self._facts.names
        ]

    def _is_meant(self, target: str, desired: Desired) -> bool:
        """Say whether there is anything to return to, and no token forbids it."""
        known = self._facts.row(target, desired.name or "") or self._facts.aside(target, desired.name or "")
        return known is not None and desired.once not in self._tokens.get(target, {})

    def _of_return(
        self, target: str, desired: Desired, written: int | None, proof: str | None, blockers: tuple[Blocker, ...]
    ) -> Situation:
        name = desired.name or ""
        used_up = None
        if is_aside(name) and self._facts.aside(target, name) is None and name in self._used_up.get(target, {}):
            used_up = f"{name} has become {target} again, and nothing is left of it aside"
        return self._facts.plain(
            target,
            blockers=blockers,
            unchanged=proof,
            difference=f"{written} bytes were written since" if written else None,
            returned={token: int(at) for token, (at, _unused) in self._tokens.get(target, {}).items()},
            newest_only=not desired.keep_current,
            uses_up=is_aside(name),
            used_up=used_up,
        )

    def written_since(self, name: str, attempt: str, targets: Sequence[str] | None = None) -> dict[str, int]:
        """Return the bytes that were written since the snapshot: 0 proves that nothing has changed, in any way.

        Facts: it is 0 after a rollback and a remount, and not 0 after a file was only read with atime on. What is not
        in the pool yet does not count, so it is brought there first.
        """
        named = self._facts.names if targets is None else targets
        asked = [target for target in named if self._facts.row(target, name) is not None]
        if not asked:
            return {}
        self.zfs.sync(sorted({pool_of(target) for target in asked}), attempt)
        columns = ("name", "value")
        rows = self.zfs.table(
            columns, "get", "-Hp", "-o", ",".join(columns), f"written@{name}", *asked, attempt=attempt
        )
        return {row[0]: parse_number(row[1], f"written@{name} of {row[0]}", attempt) for row in rows}

    def _proof(self, target: str, name: str, written: int) -> str | None:
        """Say why the content is that of the snapshot, or return None where that is not proven.

        Blocks that were written since only become more: whatever is changed, the metadata above it is written anew.
        """
        if written == 0:
            return f"nothing was written since (written@{name} is 0)"
        noted, row = self._returned.get(target, {}), self._facts.row(target, name)
        if row is not None and noted.get("guid") == row.guid and noted.get("written") == written:
            return f"nothing was written since the return to it (written@{name} is still {written})"
        return None

    def note_returned(self, targets: Sequence[str], name: str) -> None:
        """Write down what a return itself has written, so that the next run can tell that nothing came after it."""
        attempt = f"note the return to {name!r}"
        for target, written in self.written_since(name, attempt, targets).items():
            if written:
                note = props.encode_json({"guid": self._facts.need_row(target, name).guid, "written": written})
                self.zfs.run("set", f"{props.RETURNED}={note}", target, attempt=attempt)

    def note_mount_points(self, targets: Sequence[str], name: str) -> None:
        """Note it again where mounting has made a directory: the mount point of a child newer than the snapshot.

        Only where that is all that differs, as `zfs diff` tells: somebody else may have written in the same moment.
        """
        mounted = busy.mounts_by_dataset(read_mounts())
        for target in targets:
            inner = [each for each in self.tree(targets).nodes if each.rpartition("/")[0] == target and each in mounted]
            if not inner or target not in mounted:
                continue
            made = {mounted[each][0].mount_point for each in inner}
            top = mounted[target][0].mount_point
            attempt = f"see what mounting has made in {target}"
            rows = self.zfs.table(("kind", "path"), "diff", "-H", f"{target}@{name}", target, attempt=attempt)
            if rows and all(kind in "+M" and path.rstrip("/") in {*made, top} for kind, path in rows):
                self.note_returned([target], name)

    def _read_bookmarks(self, targets: Sequence[str], name: str, attempt: str) -> None:
        rows = self.zfs.rows(("name", "createtxg"), ["-t", "bookmark", "-d", "1"], targets, attempt)
        for full, txg in rows:
            target, _unused, bookmark = full.partition("#")
            row = self._facts.row(target, name)
            if row is not None and parse_number(txg, f"createtxg of {full}", attempt) > row.txg:
                self.newer_bookmarks.setdefault(target, []).append(bookmark)

    def _return_blockers(self, target: str, desired: Desired, targets: Sequence[str]) -> Iterator[Blocker]:
        name = desired.name or ""
        begun = self._begun.get(target)
        if desired.once is not None and begun is not None and begun[0] == desired.once:
            yield Blocker(
                target,
                f"a run with once: {desired.once} was interrupted at the moment of its return, and as the content has"
                " changed since, nobody can tell whether it took effect",
                "look at it, and if it is to be returned (again), use another token",
                _RETURNS,
            )
        if desired.keep_current:
            yield from self._keeping_blockers(target, desired, targets)
        else:
            yield from self._rollback_blockers(target, name)
        yield from self._users(target, desired, targets)

    def _rollback_blockers(self, target: str, name: str) -> Iterator[Blocker]:
        if is_aside(name):
            reason = f"{name} is a whole dataset, and takes the place of {target}"
            yield Blocker(target, reason, "set keep_current: true", _RETURNS)
            return
        for bookmark in self.newer_bookmarks.get(target, ()):
            yield Blocker(
                target,
                f"the newer bookmark #{bookmark} would be lost",
                "set destroy_newer: true to let it go",
                _RETURNS,
                "destroy_newer",
            )
        row = self._facts.need_row(target, name)
        for other in self._facts.rows(target):
            if other.txg > row.txg and other.snapshot().order < row.snapshot().order:
                yield Blocker(
                    target,
                    f"snapshot {other.name!r} was taken later, when the clock stood earlier, and would be lost",
                    "remove it by its name",
                    _RETURNS,
                )

    def _keeping_blockers(self, target: str, desired: Desired, targets: Sequence[str]) -> Iterator[Blocker]:
        tree = self.tree(targets)
        top = group_top(target, targets)
        aside = f"{top}.aside-{'0' * 8}t{'0' * 6}z-00{target[len(top) :]}"
        longest = max((len(row.name) + 1 for row in self._facts.rows(target)), default=0)
        for reason, remedy in hindrances(self.zfs, tree, target, targets, aside, longest):
            yield Blocker(target, reason, remedy, _RETURNS)
        inner = [name for name in tree.nodes if is_inside(name, target)]
        places = [mount.mount_point for name in inner for mount in tree.mounts.get(name, ())]
        for place in busy.strangers_inside(read_mounts(), places, tree.nodes):
            yield Blocker(target, f"something else is mounted in it, on {place}", f"unmount {place}", _RETURNS)
        found = self._facts.aside(target, desired.name or "")
        if found is not None:
            yield from self._aside_blockers(target, found, targets)

    def _aside_blockers(self, target: str, found: Aside, targets: Sequence[str]) -> Iterator[Blocker]:
        """An aside goes back as it is: with all that lies in it, and in the place where it was."""
        going = {aside.dataset.name for each in targets if (aside := self._facts.aside(each, found.name)) is not None}
        for child in found.children:
            if child not in going:
                yield Blocker(
                    target, f"{child} lies in {found.dataset.name}", "name its dataset too (recursive: true)", _RETURNS
                )
        if found.mounted:
            remedy = f"unmount it: `zfs unmount {found.dataset.name}`"
            yield Blocker(target, f"{found.dataset.name} is mounted", remedy, _RETURNS)
        parent = target.rpartition("/")[0]
        above = self._facts.aside(parent, found.name) if parent in targets else None
        if above is None and parent in targets:
            yield Blocker(target, f"{found.name} does not hold {parent}", "return them one after the other", _RETURNS)

    def _users(self, target: str, desired: Desired, targets: Sequence[str]) -> Iterator[Blocker]:
        """Name those who use it, and with keep_current what lies below: that is moved for a moment, too."""
        mounts = read_mounts()
        mounted = busy.mounts_by_dataset(mounts)
        lifted = None if desired.keep_current else "ignore_users"
        if self.options.ignore_users and lifted is not None:
            return
        remedy = "stop it" if lifted is None else "stop it, or set ignore_users: true"
        names = [target]
        if desired.keep_current:
            others = set(targets) - {target}
            names += [
                name
                for name in self.tree(targets).nodes
                if is_inside(name, target) and name != target
                and not any(is_inside(name, other) for other in others if is_inside(other, target))
            ]  # fmt: skip
        for name in names:
            users = busy.users_of_filesystem(mounted[name]) if name in mounted else iter(())
            for user in users:
                yield Blocker(target, user if name == target else f"{name}: {user}", remedy, _RETURNS, lifted)
        for user in busy.users_of_volume(target, mounts):
            yield Blocker(target, user, remedy, _RETURNS, lifted)

    # -- for the return itself -----------------------------------------------------------------------------------------

    def tree(self, targets: Sequence[str]) -> Tree:
        """Return what a return with keep_current has to know of these datasets."""
        if self._tree is None:
            self._tree = read_tree(self.zfs, targets)
        return self._tree

    def free_aside_name(self, name: str) -> str:
        """Return the first aside name of its kind that nothing in the call's pools has."""
        found = [f"{target}.{name}" for target in self._facts.names if "/" in target]
        number, candidate = 1, name
        while self.zfs.list_those_there(("name",), [each.replace(name, candidate) for each in found], "name the aside"):
            number += 1
            candidate = f"{name}-{number}"
        return candidate

    def properties_after(self, target: str, name: str, once: str | None, at: int) -> dict[str, str]:
        """Return the properties of a dataset that tell later runs that it was returned."""
        values: dict[str, str] = {}
        if once is not None:
            values[props.ONCE] = props.encode_json(props.with_newest(self._tokens.get(target, {}), once, [at, name]))
        if is_aside(name):
            values[props.USED_UP] = props.encode_json(props.with_newest(self._used_up.get(target, {}), name, at))
        return values
