# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a snapshot looks like, whatever the backend. Pure: no I/O, no clock, no ansible."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@functools.lru_cache(maxsize=4096)  # a listing has each of them several times
def timestamp(epoch: int) -> str:
    """Return seconds since the epoch as ISO 8601 in UTC, such as ``2026-11-22T01:30:00Z``."""
    moment = datetime.datetime.fromtimestamp(epoch, tz=datetime.timezone.utc)
    return moment.isoformat(timespec="seconds")[: -len("+00:00")] + "Z"


def parse_timestamp(text: str) -> int:
    """Return the seconds since the epoch of an ISO 8601 time that names its offset from UTC.

    Fractions of a second are dropped. Raises ValueError for anything else, also for a time without an offset: what it
    means would depend on the machine that reads it.
    """
    moment = datetime.datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith(("Z", "z")) else text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} does not say its offset from UTC: add Z, or an offset such as +01:00")
    return int(moment.timestamp() // 1)


#: What the common form has, by the names that results show, in their order (``Snapshot.as_result``).
FIELDS = (
    *("backend", "target", "name", "created", "owner", "policy", "description", "labels", "size_bytes"),
    *("referenced_bytes", "parent", "ready", "held", "in_use", "extra"),
)


@dataclass(frozen=True)
class Snapshot:
    """One target at one instant.

    ``created`` is in seconds since the epoch. ``sequence`` is the backend's own monotonic id and breaks ties between
    snapshots of one second (facts/retention: identity is time, id, name). ``size_bytes`` is what removing the snapshot
    would free, where that is known. ``held`` and ``in_use`` hold the reason in words, or None. ``ready`` is False for a
    snapshot that could not be returned to; ``extra`` then says why under ``fault``.
    """

    backend: str
    target: str
    name: str
    created: int
    sequence: int = 0
    owner: str | None = None
    policy: str | None = None
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    size_bytes: int | None = None
    referenced_bytes: int | None = None
    parent: str | None = None
    ready: bool = True
    held: str | None = None
    in_use: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def order(self) -> tuple[int, int, str]:
        """What snapshots of one target are sorted by, oldest first."""
        return (self.created, self.sequence, self.name)

    def as_result(self) -> dict[str, Any]:
        """Return it as modules and the agent show it."""
        return {
            "backend": self.backend,
            "target": self.target,
            "name": self.name,
            "created": timestamp(self.created),
            "owner": self.owner,
            "policy": self.policy,
            "description": self.description,
            "labels": dict(self.labels),
            "size_bytes": self.size_bytes,
            "referenced_bytes": self.referenced_bytes,
            "parent": self.parent,
            "ready": self.ready,
            "held": self.held,
            "in_use": self.in_use,
            "extra": dict(self.extra),
        }


def as_tree(snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    """Return snapshots as ``{target: [{name, created, ready, children: [...]}]}``, oldest first.

    A snapshot whose parent is not there any more stands at the top.
    """
    tree: dict[str, Any] = {}
    nodes: dict[tuple[str, str], dict[str, Any]] = {}
    for snapshot in sorted(snapshots, key=lambda each: each.order):
        node = {"name": snapshot.name, "created": timestamp(snapshot.created), "ready": snapshot.ready, "children": []}
        parent = nodes.get((snapshot.target, snapshot.parent)) if snapshot.parent else None
        siblings = parent["children"] if parent else tree.setdefault(snapshot.target, [])
        siblings.append(node)
        nodes[(snapshot.target, snapshot.name)] = node
    return tree


def with_fields(result: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Return what an info module shows, with only these fields of each snapshot and aside.

    ``result`` has ``snapshots`` and ``asides`` in the common form, and may have a ``tree``. A node of that keeps its
    name and its children, and of the rest what is among the fields. What is no field of the common form stays as it is:
    an option of its own has asked for it.
    """
    dropped = set(FIELDS).difference(fields)
    found = dict(result)
    for key in ("snapshots", "asides"):
        found[key] = [{name: value for name, value in each.items() if name not in dropped} for each in result[key]]
    if "tree" in result:
        found["tree"] = {target: _thinned(nodes, dropped - {"name"}) for target, nodes in result["tree"].items()}
    return found


def _thinned(roots: Sequence[Mapping[str, Any]], dropped: Collection[str]) -> list[dict[str, Any]]:
    """Return nodes of a tree without these keys. Not by recursion: a chain may be as long as somebody likes."""
    thinned: list[dict[str, Any]] = []
    waiting = [(node, thinned) for node in roots]
    while waiting:
        following = []
        for node, siblings in waiting:
            kept = {key: value for key, value in node.items() if key not in dropped}
            kept["children"] = []
            siblings.append(kept)
            following += [(child, kept["children"]) for child in node["children"]]
        waiting = following
    return thinned
