# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is there for each dataset of a call, and what stands in the way. Touches nothing. Called by backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...core import backend as core
from ...core.backend import Blocker, Desired, Situation
from ...core.errors import RestorePointError
from ...core.names import is_aside
from ...core.snapshot import Snapshot
from ...mounts import read_mounts
from . import busy
from . import properties as props
from .asides import Aside, asides_of
from .listing import (
    DATASETS,
    Dataset,
    Row,
    by_dataset,
    own_values,
    snapshots_below,
    snapshots_called,
    snapshots_of,
    with_tags,
)
from .names import is_inside, pool_of
from .options import ZfsOptions
from .returning import Tree, group_top, hindrances, read_tree, tops
from .tool import Zfs, parse_number

_RETURNS = frozenset({core.ROLL_BACK})
_CLONES = frozenset({core.CLONE})
_MAKES = frozenset({core.CREATE, core.REPLACE, core.DESCRIBE})
#: From how many datasets on a tree is listed by its roots.
_MANY = 100


class Facts:
    """What was found, for the length of one session. ``targets`` are set by the backend when it has found them."""

    def __init__(self, zfs: Zfs, options: ZfsOptions, roots: Sequence[str]) -> None:
        self.zfs = zfs
        self.options = options
        self.roots = tuple(roots)
        self.targets: list[Dataset] = []
        #: The lines of the snapshots of the call's name, where they were listed together with the datasets.
        self.listed: list[list[str]] | None = None
        self.newer_bookmarks: dict[str, list[str]] = {}
        self._rows: dict[str, list[Row]] = {}
        self._named: dict[str, dict[str, Row]] = {}  # made of _rows where it is asked for
        self._asides: dict[str, list[Aside]] = {}
        self._tree: Tree | None = None
        self._tokens: dict[str, dict[str, Any]] = {}
        self._used_up: dict[str, dict[str, Any]] = {}
        self._begun: dict[str, list[str]] = {}
        self._returned: dict[str, Mapping[str, Any]] = {}

    @property
    def names(self) -> list[str]:
        """The datasets of the call."""
        return [target.name for target in self.targets]

    def row(self, target: str, name: str) -> Row | None:
        """Return a snapshot as it was listed."""
        if target not in self._named:
            self._named[target] = {row.name: row for row in self._rows.get(target, ())}
        return self._named[target].get(name)

    def need_row(self, target: str, name: str) -> Row:
        """Return a snapshot that has to be there."""
        row = self.row(target, name)
        if row is None:
            raise RestorePointError(f"find {target}@{name}", "it is gone", "look at what there is")
        return row

    def aside(self, target: str, name: str) -> Aside | None:
        """Return what was set aside under that name."""
        return next((each for each in self._asides.get(target, ()) if each.name == name), None)

    def situations(self, desired: Desired) -> list[Situation]:
        """Return what is there, a situation for each target."""
        self._read(desired)
        if desired.state == "rolled_back":
            return self._of_returns(desired)
        if desired.state == "cloned":
            return self._of_clones(desired)
        if desired.state == "present":
            return self._of_creations(desired)
        return [self._plain(target.name) for target in self.targets]

    def _read(self, desired: Desired) -> None:
        attempt = f"list the snapshots of {', '.join(self.names[:5])}{' and others' if len(self.targets) > 5 else ''}"
        name = desired.name or ""
        by_name = desired.state in ("present", "absent")
        listed, self.listed = self.listed, None
        if by_name and listed is not None:
            self._rows = by_dataset(self.zfs, self.targets, listed, attempt)
        elif by_name and not is_aside(name):
            self._rows = snapshots_called(self.zfs, self.targets, name, attempt)
        elif desired.state == "pruned" and desired.retention is None:
            self._rows = {}
        elif not by_name:
            self._rows = self._all_rows(attempt)
        if desired.state != "present" or self.options.hold is not None:
            self._rows = with_tags(self.zfs, self._rows, attempt)
        self._named = {}
        if is_aside(name) or desired.asides is not None:
            self._asides = asides_of(self.zfs, self.names, attempt)

    def _all_rows(self, attempt: str) -> dict[str, list[Row]]:
        if self.options.recursive and len(self.targets) > _MANY:
            return snapshots_below(self.zfs, tops(self.roots), self.targets, attempt)
        return snapshots_of(self.zfs, self.targets, attempt)

    def _snapshots(self, target: str) -> tuple[Snapshot, ...]:
        return tuple(row.snapshot(released=self.options.hold) for row in self._rows.get(target, ()))

    def _aside_snapshots(self, target: str) -> tuple[Snapshot, ...]:
        # Those of one return have one name, and go together where a call names it.
        by_name: dict[str, set[str]] = {}
        for each in (each for found in self._asides.values() for each in found):
            by_name.setdefault(each.name, set()).add(each.dataset.name)
        return tuple(each.snapshot(by_name[each.name]) for each in self._asides.get(target, ()))

    def _plain(self, target: str, **facts: Any) -> Situation:
        return Situation(target, self._snapshots(target), self._aside_snapshots(target), **facts)

    # -- present -------------------------------------------------------------------------------------------------------

    def _of_creations(self, desired: Desired) -> list[Situation]:
        bookmarks = self._bookmarks_called(self.options.bookmark) if self.options.bookmark is not None else {}
        return [self._of_creation(target.name, desired, bookmarks.get(target.name)) for target in self.targets]

    def _of_creation(self, target: str, desired: Desired, bookmarked: str | None) -> Situation:
        row = self.row(target, desired.name or "")
        lacking: dict[str, Any] = {}
        blockers: tuple[Blocker, ...] = ()
        if row is not None and self.options.hold is not None and self.options.hold not in (row.tags or ()):
            lacking["hold"] = self.options.hold
        if self.options.bookmark is not None and (row is None or bookmarked != row.guid):
            if bookmarked is not None:
                reason = f"the bookmark {target}#{self.options.bookmark} is there, of another snapshot"
                blockers = (Blocker(target, reason, "choose another name, or remove it with `zfs destroy`", _MAKES),)
            if row is not None:
                lacking["bookmark"] = self.options.bookmark
        return self._plain(target, lacking=lacking, blockers=blockers)

    def _bookmarks_called(self, name: str) -> dict[str, str]:
        """Return the guid of the snapshot that the bookmark of that name was made of, for those that have one."""
        full = [f"{target}#{name}" for target in self.names]
        rows = self.zfs.list_those_there(("name", "guid"), full, f"look for the bookmark {name!r}")
        return {row[0].partition("#")[0]: row[1] for row in rows}

    # -- cloned --------------------------------------------------------------------------------------------------------

    def _of_clones(self, desired: Desired) -> list[Situation]:
        wanted = sorted({*desired.clones.values(), *(each.rpartition("/")[0] for each in desired.clones.values())})
        rows = self.zfs.list_those_there(
            ("name", "origin", "mounted", "canmount"), wanted, "look at the clones", kinds=DATASETS
        )
        there = {row[0]: row for row in rows}
        return [self._of_clone(target.name, desired, there) for target in self.targets]

    def _of_clone(self, target: str, desired: Desired, there: Mapping[str, Sequence[str]]) -> Situation:
        clone = desired.clones[target]
        found = there.get(clone)
        if found is None:
            parent = clone.rpartition("/")[0]
            if parent in there:
                return self._plain(target)
            reason = f"{parent}, in which {clone} would lie, is not there"
            return self._plain(target, blockers=(Blocker(target, reason, f"create {parent} first", _CLONES),))
        dataset, _unused, name = found[1].partition("@")
        if dataset == target:
            # A run that was killed at the end of `zfs clone` has left it unmounted.
            loose = found[2] == "no" and found[3] == "on"
            warnings = (f"{clone} is there, and is not mounted: `zfs mount {clone}` mounts it",) if loose else ()
            return self._plain(target, clone_of=name, warnings=warnings)
        reason = f"{clone} exists, and is no clone of it"
        return self._plain(target, blockers=(Blocker(target, reason, "name another place", _CLONES),))

    # -- rolled_back ---------------------------------------------------------------------------------------------------

    def _of_returns(self, desired: Desired) -> list[Situation]:
        attempt = f"look at what a return of {', '.join(self.names[:5])} meets"
        keys = (props.ONCE, props.ONCE_BEGUN, props.USED_UP, props.RETURNED)
        for target, values in own_values(self.zfs, keys, self.names, attempt).items():
            read = {key: props.decode_json(value, key, target) for key, value in values.items()}
            self._tokens[target] = read.get(props.ONCE, {})
            self._used_up[target] = read.get(props.USED_UP, {})
            self._returned[target] = read.get(props.RETURNED, {})
            if props.ONCE_BEGUN in read:
                self._begun[target] = read[props.ONCE_BEGUN]
        written = self.written_since(desired.name or "", attempt)
        proofs = {name: self._proof(name, desired.name or "", count) for name, count in written.items()}
        pending = [target for target in self.names if proofs.get(target) is None]
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
            for name in self.names
        ]

    def _is_meant(self, target: str, desired: Desired) -> bool:
        """Say whether there is anything to return to, and no token forbids it."""
        known = self.row(target, desired.name or "") or self.aside(target, desired.name or "")
        return known is not None and desired.once not in self._tokens.get(target, {})

    def _of_return(
        self, target: str, desired: Desired, written: int | None, proof: str | None, blockers: tuple[Blocker, ...]
    ) -> Situation:
        name = desired.name or ""
        used_up = None
        if is_aside(name) and self.aside(target, name) is None and name in self._used_up.get(target, {}):
            used_up = f"{name} has become {target} again, and nothing is left of it aside"
        return self._plain(
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
        named = self.names if targets is None else targets
        asked = [target for target in named if self.row(target, name) is not None]
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
        noted, row = self._returned.get(target, {}), self.row(target, name)
        if row is not None and noted.get("guid") == row.guid and noted.get("written") == written:
            return f"nothing was written since the return to it (written@{name} is still {written})"
        return None

    def note_returned(self, targets: Sequence[str], name: str) -> None:
        """Write down what a return itself has written, so that the next run can tell that nothing came after it."""
        attempt = f"note the return to {name!r}"
        for target, written in self.written_since(name, attempt, targets).items():
            if written:
                note = props.encode_json({"guid": self.need_row(target, name).guid, "written": written})
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
            row = self.row(target, name)
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
        row = self.need_row(target, name)
        for other in self._rows.get(target, ()):
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
        longest = max((len(row.name) + 1 for row in self._rows.get(target, ())), default=0)
        for reason, remedy in hindrances(self.zfs, tree, target, targets, aside, longest):
            yield Blocker(target, reason, remedy, _RETURNS)
        inner = [name for name in tree.nodes if is_inside(name, target)]
        places = [mount.mount_point for name in inner for mount in tree.mounts.get(name, ())]
        for place in busy.strangers_inside(read_mounts(), places, tree.nodes):
            yield Blocker(target, f"something else is mounted in it, on {place}", f"unmount {place}", _RETURNS)
        found = self.aside(target, desired.name or "")
        if found is not None:
            yield from self._aside_blockers(target, found, targets)

    def _aside_blockers(self, target: str, found: Aside, targets: Sequence[str]) -> Iterator[Blocker]:
        """An aside goes back as it is: with all that lies in it, and in the place where it was."""
        going = {aside.dataset.name for each in targets if (aside := self.aside(each, found.name)) is not None}
        for child in found.children:
            if child not in going:
                yield Blocker(
                    target, f"{child} lies in {found.dataset.name}", "name its dataset too (recursive: true)", _RETURNS
                )
        if found.mounted:
            remedy = f"unmount it: `zfs unmount {found.dataset.name}`"
            yield Blocker(target, f"{found.dataset.name} is mounted", remedy, _RETURNS)
        parent = target.rpartition("/")[0]
        above = self.aside(parent, found.name) if parent in targets else None
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
        found = [f"{target}.{name}" for target in self.names if "/" in target]
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
