# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What datasets, snapshots and holds there are, as `zfs` shows them. Touches nothing. Called by all of this folder.

One `zfs list` costs the same whatever its columns are: what takes time is that the kernel looks at every snapshot. So a
listing is one command, and asks for all that is cheap. User properties inherit, and only those that a snapshot has
itself count: where a dataset, or one above it, has one as well, a second command asks for the source of each. OpenZFS
2.2 and newer know names and transaction groups without that look, so who wants no more of a listing says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core.snapshot import Snapshot
from . import properties as props
from .tool import Zfs, batches, parse_number, parse_table

DATASETS = "filesystem,volume"
_DATASET = ("name", "type", *props.OF_SNAPSHOTS, props.ASIDE, *props.MARKS)
_SNAPSHOT = ("name", "creation", "createtxg", "guid", "used", "referenced", "userrefs", "clones", *props.OF_SNAPSHOTS)
_BOTH = tuple(dict.fromkeys((*_DATASET, *_SNAPSHOT)))
#: What `zfs list` has to be asked for each field of the common form; any other needs no more than a name.
_FOR_FIELD: dict[str, tuple[str, ...]] = {
    "created": ("creation",),
    "owner": (props.OWNER,),
    "policy": (props.OWNER,),
    "description": (props.DESCRIPTION,),
    "labels": (props.LABELS,),
    "size_bytes": ("used",),
    "referenced_bytes": ("referenced",),
    "held": ("userrefs",),
    "in_use": ("clones",),
    "extra": ("guid", "clones"),
}
#: What a column that was not asked for counts as.
_UNASKED = {column: props.NONE if column in ("clones", *props.OF_SNAPSHOTS) else "0" for column in _SNAPSHOT}


@dataclass(frozen=True)
class Dataset:
    """A filesystem or volume. ``inherits`` says that snapshots of it may show metadata that is not their own.

    ``marked``: it, or one above it, has the mark of a change that is under way. ``aside``: it is, or lies in, what a
    return has set aside.
    """

    name: str
    kind: str
    inherits: bool = False
    marked: bool = False
    aside: bool = False


@dataclass(frozen=True)
class Row:
    """One snapshot, as it was listed; ``own`` are those of our properties that are set on the snapshot itself."""

    dataset: str
    name: str
    created: int
    txg: int
    guid: str
    used: int
    referenced: int
    holds: int
    clones: tuple[str, ...] = ()
    own: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] | None = None

    @property
    def full(self) -> str:
        """What ZFS calls it."""
        return f"{self.dataset}@{self.name}"

    def snapshot(self, released: str | None = None, parent: str | None = None, **extra: Any) -> Snapshot:
        """Return it in the common form. A hold of the tag ``released`` does not count."""
        owner = self.own.get(props.OWNER)
        return Snapshot(
            backend="zfs",
            target=self.dataset,
            name=self.name,
            created=self.created,
            sequence=self.txg,
            owner=owner,
            policy=None if owner in (None, "manual") else owner,
            description=props.decode_text(self.own.get(props.DESCRIPTION, "")),
            labels=(props.labels_of(self.own[props.LABELS]) or {}) if props.LABELS in self.own else {},
            size_bytes=self.used,
            referenced_bytes=self.referenced,
            parent=parent,
            held=self._held(released),
            in_use=f"cloned as {', '.join(self.clones)}" if self.clones else None,
            extra={"createtxg": self.txg, "guid": self.guid, **extra},
        )

    def _held(self, released: str | None) -> str | None:
        if not self.holds:
            return None
        if self.tags is None:
            return "1 hold" if self.holds == 1 else f"{self.holds} holds"
        others = [tag for tag in self.tags if tag != released]
        return "tag " + ", ".join(others) if others else None


def datasets_below(zfs: Zfs, names: Sequence[str], recursive: bool) -> list[Dataset]:
    """Return those of these datasets that are there, and where ``recursive`` all below them, each once."""
    attempt = f"find {', '.join(names[:5])}" + (" and others" if len(names) > 5 else "")
    rows = zfs.list_those_there(_DATASET, names, attempt, *(["-r"] if recursive else []), kinds=DATASETS)
    return list({row[0]: _dataset(row) for row in rows}.values())


def datasets_with(zfs: Zfs, names: Sequence[str], snapshot: str) -> tuple[list[Dataset], list[list[str]]]:
    """Return those of these datasets that are there, and the lines of those of their snapshots of that name.

    It is one command, and so one process less than one for each; ``by_dataset`` reads the lines.
    """
    attempt = f"find {', '.join(names[:5])}" + (" and others" if len(names) > 5 else "")
    wanted = [full for name in names for full in (name, f"{name}@{snapshot}")]
    lines = zfs.list_those_there(_BOTH, wanted, attempt, kinds=f"{DATASETS},snapshot")
    datasets, snapshots = [], []
    for line in lines:
        known = dict(zip(_BOTH, line))
        if "@" in known["name"]:
            snapshots.append([known[column] for column in _SNAPSHOT])
        else:
            datasets.append(_dataset([known[column] for column in _DATASET]))
    return datasets, snapshots


def _dataset(row: Sequence[str]) -> Dataset:
    name, kind, *values = row
    known = len(props.OF_SNAPSHOTS)
    return Dataset(
        name,
        kind,
        inherits=any(value != props.NONE for value in values[:known]),
        aside=values[known] != props.NONE,
        marked=any(value != props.NONE for value in values[known + 1 :]),
    )


def columns_for(fields: Iterable[str]) -> tuple[str, ...]:
    """Return what a listing has to ask for to tell these fields of the common form, and to put it in order."""
    needed = {column for each in fields for column in _FOR_FIELD.get(each, ())}
    return tuple(column for column in _SNAPSHOT if column in {"name", "createtxg", *needed})


def snapshots_of(
    zfs: Zfs, wanted: Sequence[Dataset], attempt: str, columns: Sequence[str] = _SNAPSHOT
) -> dict[str, list[Row]]:
    """Return all snapshots of these datasets, oldest first, by dataset; of rows, these columns are true."""
    rows = _rows(zfs, columns, ["-t", "snapshot", "-d", "1"], [each.name for each in wanted], attempt)
    return by_dataset(zfs, wanted, rows, attempt, columns)


def snapshots_below(
    zfs: Zfs, roots: Sequence[str], wanted: Sequence[Dataset], attempt: str, columns: Sequence[str] = _SNAPSHOT
) -> dict[str, list[Row]]:
    """Return the same, listed by the roots that they lie in: for trees too large to name."""
    rows = _rows(zfs, columns, ["-t", "snapshot", "-r"], roots, attempt)
    names = {each.name for each in wanted}
    rows = [row for row in {row[0]: row for row in rows}.values() if row[0].partition("@")[0] in names]
    return by_dataset(zfs, wanted, rows, attempt, columns)


def snapshots_called(zfs: Zfs, wanted: Sequence[Dataset], name: str, attempt: str) -> dict[str, list[Row]]:
    """Return the snapshots of that name, of those of these datasets that have one."""
    rows = zfs.list_those_there(_SNAPSHOT, [f"{each.name}@{name}" for each in wanted], attempt)
    return by_dataset(zfs, wanted, rows, attempt)


def _rows(
    zfs: Zfs, columns: Sequence[str], arguments: Sequence[str], names: Sequence[str], attempt: str
) -> list[list[str]]:
    """Return lines with all columns, of which only these were asked for."""
    rows = zfs.rows(columns, arguments, names, attempt)
    if len(columns) == len(_SNAPSHOT):
        return rows
    places = [columns.index(each) if each in columns else -1 for each in _SNAPSHOT]
    blanks = [_UNASKED[each] for each in _SNAPSHOT]
    return [[blank if place < 0 else row[place] for place, blank in zip(places, blanks)] for row in rows]


def by_dataset(
    zfs: Zfs,
    wanted: Sequence[Dataset],
    rows: Iterable[Sequence[str]],
    attempt: str,
    columns: Sequence[str] = _SNAPSHOT,
) -> dict[str, list[Row]]:
    """Return the snapshots that these lines show, oldest first, by dataset."""
    found: dict[str, list[Row]] = {each.name: [] for each in wanted}
    doubtful = {each.name for each in wanted if each.inherits and not set(props.OF_SNAPSHOTS).isdisjoint(columns)}
    for fields in rows:
        row = _row(fields, attempt)
        found[row.dataset].append(row)
    for dataset in doubtful:
        found[dataset] = _with_own_properties(zfs, found[dataset], attempt)
    for listed in found.values():
        listed.sort(key=lambda row: (row.created, row.txg, row.name))
    return found


def _row(fields: Sequence[str], attempt: str) -> Row:
    full, creation, txg, guid, used, referenced, holds, clones, *own = fields
    dataset, _unused, name = full.partition("@")
    return Row(
        dataset,
        name,
        created=parse_number(creation, f"creation of {full}", attempt),
        txg=parse_number(txg, f"createtxg of {full}", attempt),
        guid=str(parse_number(guid, f"guid of {full}", attempt)),
        used=parse_number(used, f"used of {full}", attempt),
        referenced=parse_number(referenced, f"referenced of {full}", attempt),
        holds=parse_number(holds, f"userrefs of {full}", attempt),
        clones=tuple(clones.split(",")) if clones not in ("", props.NONE) else (),
        own={key: value for key, value in zip(props.OF_SNAPSHOTS, own) if value != props.NONE},
    )


def _with_own_properties(zfs: Zfs, rows: Sequence[Row], attempt: str) -> list[Row]:
    """Return the rows with only those properties that are set on the snapshot itself."""
    own = own_values(zfs, props.OF_SNAPSHOTS, [row.full for row in rows], attempt, received=True)
    return [_replaced(row, own=own.get(row.full, {})) for row in rows]


def own_values(
    zfs: Zfs, names: Sequence[str], of: Sequence[str], attempt: str, *options: str, received: bool = False
) -> dict[str, dict[str, str]]:
    """Return the values that are set on these datasets or snapshots themselves, by dataset and property.

    ``received``: those that came with a stream count as well. What a replica received of a change under way does not.
    """
    columns = ("name", "property", "value")
    source = "local,received" if received else "local"
    found: dict[str, dict[str, str]] = {}
    for batch in batches(of):
        arguments = ["get", "-Hp", "-o", ",".join(columns), "-s", source, *options, ",".join(names), *batch]
        for name, key, value in zfs.table(columns, *arguments, attempt=attempt):
            found.setdefault(name, {})[key] = value
    return found


def with_tags(zfs: Zfs, found: Mapping[str, Sequence[Row]], attempt: str) -> dict[str, list[Row]]:
    """Return the rows with the tags of their holds, asked of those that have any."""
    held = [row.full for rows in found.values() for row in rows if row.holds]
    tags = holds(zfs, held, attempt) if held else {}
    return {
        dataset: [_replaced(row, tags=tuple(tags.get(row.full, ()))) if row.holds else row for row in rows]
        for dataset, rows in found.items()
    }


def holds(zfs: Zfs, snapshots: Sequence[str], attempt: str) -> dict[str, list[str]]:
    """Return the tags of the holds on these snapshots."""
    found: dict[str, list[str]] = {}
    for batch in batches(snapshots):
        printed = zfs.run("holds", "-H", *batch, attempt=attempt).stdout
        for name, tag, _unused in parse_table(printed, ("name", "tag", "timestamp"), attempt):
            found.setdefault(name, []).append(tag)
    return found


def _replaced(row: Row, **values: Any) -> Row:
    return Row(**{**row.__dict__, **values})
