# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows what snapshots and asides there are: the flat list, the tree, and what a person asks for. Touches nothing.

Called by the bridge for ``zfs_snapshot_info``, and by the agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...core.snapshot import FIELDS, Snapshot, as_tree
from .asides import asides_of
from .backend import ZfsBackend
from .listing import Row, columns_for, snapshots_below, snapshots_of, with_tags
from .names import tops
from .tool import Zfs, batches


def describe(
    backend: ZfsBackend,
    name: str | None = None,
    owner: str | None = None,
    properties: Sequence[str] = (),
    holds: bool = False,
    asides: bool = True,
    tree: bool = True,
    fields: Sequence[str] = FIELDS,
) -> dict[str, Any]:
    """Return ``snapshots``, ``asides`` and ``tree`` of the backend's datasets.

    Args:
        name: only snapshots of that name.
        owner: only those of that owner.
        properties: ZFS properties that ``extra`` shows of each, as `zfs get -p` does. They are asked for one by one.
        holds: name the tags of holds. Without it, ``held`` says how many there are.
        asides: look for what returns have set aside, which means looking at every dataset of the pools.
        tree: return the tree as well, which says the same once more.
        fields: which fields of the common form are true in the result; what only others need is not read.
    """
    attempt = "show snapshots"
    backend.whole_pools = asides
    columns = columns_for([*fields, *(["held"] if holds else []), *(["owner"] if owner is not None else [])])
    with backend.session(writing=False):
        targets, zfs = backend.targets, backend.zfs
        if backend.options.recursive:
            found = snapshots_below(zfs, tops(backend.roots), targets, attempt, columns)
        else:
            found = snapshots_of(zfs, targets, attempt, columns)
        rows = {target: [row for row in each if name in (None, row.name)] for target, each in found.items()}
        if holds:
            rows = with_tags(zfs, rows, attempt)
        names = [each.name for each in targets]
        kept = asides_of(zfs, names, attempt, among=backend.set_aside) if asides else {}
        snapshots = _snapshots(rows, _asked(zfs, rows, properties, attempt))
        snapshots = [each for each in snapshots if owner in (None, each.owner)]
        shown = [aside.snapshot(()) for each in targets for aside in kept.get(each.name, ())]
        return {
            "snapshots": [each.as_result() for each in snapshots],
            "asides": [each.as_result() for each in shown if name in (None, each.name)],
            **({"tree": as_tree(snapshots)} if tree else {}),
        }


def _snapshots(rows: Mapping[str, Sequence[Row]], asked: Mapping[str, Mapping[str, str]]) -> list[Snapshot]:
    return [row.snapshot(None, None, **_extra(row, asked)) for each in rows.values() for row in each]


def _extra(row: Row, asked: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if row.tags:
        extra["holds"] = list(row.tags)
    if row.clones:
        extra["clones"] = list(row.clones)
    if row.full in asked:
        extra["properties"] = dict(asked[row.full])
    return extra


def _asked(
    zfs: Zfs, rows: Mapping[str, Sequence[Row]], properties: Sequence[str], attempt: str
) -> dict[str, dict[str, str]]:
    """Return the properties that a person has asked for, by snapshot; those that ZFS does not know are an error."""
    if not properties:
        return {}
    names = [row.full for each in rows.values() for row in each]
    columns = ("name", "property", "value")
    found: dict[str, dict[str, str]] = {}
    for batch in batches(names):
        arguments = ["get", "-Hp", "-o", ",".join(columns), ",".join(properties), *batch]
        for full, key, value in zfs.table(columns, *arguments, attempt=attempt):
            found.setdefault(full, {})[key] = value
    return found
