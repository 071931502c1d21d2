# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is there for each dataset of a call, and what stands in the way. Touches nothing. Called by backend.

What returns alone have to know is in return_facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...core import backend as core
from ...core.backend import Blocker, Desired, Situation
from ...core.errors import RestorePointError
from ...core.names import is_aside
from ...core.snapshot import Snapshot
from .asides import Aside, asides_of
from .listing import (
    DATASETS,
    Dataset,
    Row,
    by_dataset,
    snapshots_below,
    snapshots_called,
    snapshots_of,
    with_tags,
)
from .names import tops
from .options import ZfsOptions
from .tool import Zfs

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
        self._rows: dict[str, list[Row]] = {}
        self._named: dict[str, dict[str, Row]] = {}  # made of _rows where it is asked for
        self._asides: dict[str, list[Aside]] = {}

    @property
    def names(self) -> list[str]:
        """The datasets of the call."""
        return [target.name for target in self.targets]

    def row(self, target: str, name: str) -> Row | None:
        """Return a snapshot as it was listed."""
        if target not in self._named:
            self._named[target] = {row.name: row for row in self._rows.get(target, ())}
        return self._named[target].get(name)

    def rows(self, target: str) -> Sequence[Row]:
        """Return the snapshots of a dataset as they were listed, oldest first."""
        return self._rows.get(target, ())

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
        self.read(desired)
        if desired.state == "cloned":
            return self._of_clones(desired)
        if desired.state == "present":
            return self._of_creations(desired)
        return [self.plain(target.name) for target in self.targets]

    def read(self, desired: Desired) -> None:
        """List the snapshots and asides that the state is about."""
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

    def plain(self, target: str, **facts: Any) -> Situation:
        """Return the situation of a target, with its snapshots and asides, and these facts."""
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
        return self.plain(target, lacking=lacking, blockers=blockers)

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
                return self.plain(target)
            reason = f"{parent}, in which {clone} would lie, is not there"
            return self.plain(target, blockers=(Blocker(target, reason, f"create {parent} first", _CLONES),))
        dataset, _unused, name = found[1].partition("@")
        if dataset == target:
            # A run that was killed at the end of `zfs clone` has left it unmounted.
            loose = found[2] == "no" and found[3] == "on"
            warnings = (f"{clone} is there, and is not mounted: `zfs mount {clone}` mounts it",) if loose else ()
            return self.plain(target, clone_of=name, warnings=warnings)
        reason = f"{clone} exists, and is no clone of it"
        return self.plain(target, blockers=(Blocker(target, reason, "name another place", _CLONES),))
