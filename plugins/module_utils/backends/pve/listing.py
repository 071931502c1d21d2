# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What snapshots a guest has: reads the API's list, and shows it as a tree. Pure; called by all of this folder.

The list comes in random order. Its last element is no snapshot but the present state, called current. A snapshot with a
``snapstate`` is half made or half deleted, and so is not there for anybody who wants to return to it.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core.names import is_aside
from ...core.snapshot import Snapshot
from ...pve import PveError
from .guests import Guest
from .metadata import Metadata, split

_HALF = {
    "prepare": "it is half made (snapstate prepare)",
    "delete": "it is half deleted (snapstate delete)",
}


@dataclass(frozen=True)
class Listed:
    """A snapshot as the API lists it. ``depth`` counts its ancestors."""

    name: str
    snaptime: int
    raw: str
    description: str
    metadata: Metadata
    parent: str | None = None
    vmstate: bool = False
    snapstate: str | None = None
    depth: int = 0


@dataclass(frozen=True)
class Listing:
    """A guest's snapshots, oldest first, and its present state: ``running`` is of this moment."""

    snapshots: tuple[Listed, ...] = ()
    parent: str | None = None
    running: bool = False
    digest: str | None = None
    by_name: Mapping[str, Listed] = field(default_factory=dict)

    def find(self, name: str) -> Listed | None:
        """Return the snapshot of that name."""
        return self.by_name.get(name)

    @property
    def broken(self) -> tuple[Listed, ...]:
        """Those that are half made or half deleted."""
        return tuple(each for each in self.snapshots if each.snapstate)


def read_listing(answer: Any, guest: Guest) -> Listing:
    """Read the answer of .../snapshot; raise PveError for what is none."""
    try:
        items = {str(item["name"]): item for item in answer}
        current = items.pop("current")
        found = [_listed(name, item, _depth(name, items)) for name, item in items.items()]
        found.sort(key=lambda each: (each.snaptime, each.depth, each.name))
        return Listing(
            snapshots=tuple(found),
            parent=current.get("parent") or None,
            running=bool(int(current.get("running") or 0)),
            digest=current.get("digest"),
            by_name={each.name: each for each in found},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PveError(
            f"list the snapshots of {guest.words}",
            f"the list cannot be read ({type(error).__name__}: {error})",
            "check that this is a Proxmox VE API",
        ) from None


def _listed(name: str, item: Mapping[str, Any], depth: int) -> Listed:
    raw = str(item.get("description") or "").rstrip("\n")
    description, metadata = split(raw)
    return Listed(
        name=name,
        snaptime=int(item.get("snaptime") or 0),
        raw=raw,
        description=description,
        metadata=metadata,
        parent=item.get("parent") or None,
        vmstate=bool(int(item.get("vmstate") or 0)),
        snapstate=item.get("snapstate") or None,
        depth=depth,
    )


def _depth(name: str, items: Mapping[str, Mapping[str, Any]]) -> int:
    """Count a snapshot's ancestors: within one second, which is all that snaptime tells, they are the older ones."""
    seen = {name}
    parent = str(items[name].get("parent"))
    while parent in items and parent not in seen:
        seen.add(parent)
        parent = str(items[parent].get("parent"))
    return len(seen) - 1


def way_out(guest: Guest, snapshot: str) -> str:
    """Return what to do about a half made or half deleted snapshot."""
    delete = f"{guest.tool} delsnapshot {guest.vmid} {snapshot} --force"
    return f"run `{guest.tool} unlock {guest.vmid}` and then `{delete}` on {guest.node}, or set repair: true"


def as_snapshot(guest: Guest, listed: Listed, listing: Listing) -> Snapshot:
    """Return a snapshot in the common form."""
    extra: dict[str, Any] = {
        **guest.facts(),
        "vmstate": listed.vmstate,
        "current_parent": listing.parent == listed.name,
        "sequence": listed.depth,
    }
    if listed.metadata.once:
        extra["once"] = dict(listed.metadata.once)
    if listed.metadata.aside_of:
        extra["aside_of"] = listed.metadata.aside_of
    if listed.snapstate:
        half = _HALF.get(listed.snapstate, f"its snapstate is {listed.snapstate}")
        extra.update(snapstate=listed.snapstate, fault=f"{half}: {way_out(guest, listed.name)}")
    return Snapshot(
        backend="pve",
        target=guest.target,
        name=listed.name,
        created=listed.snaptime,
        sequence=listed.depth,
        owner=listed.metadata.owner,
        policy=listed.metadata.policy,
        description=listed.description,
        labels=dict(listed.metadata.labels),
        parent=listed.parent,
        ready=listed.snapstate is None,
        extra=extra,
    )


def is_kept_aside(listed: Listed) -> bool:
    """Say whether a snapshot is one that a return has made of what was there before."""
    return is_aside(listed.name) and listed.metadata.aside_of is not None


def tree_of(listing: Listing) -> list[dict[str, Any]]:
    """Return the roots of the tree, each ``{name, created, description, ready, children}``; the present is a leaf."""
    nodes: dict[str, dict[str, Any]] = {}
    for each in listing.snapshots:
        nodes[each.name] = {
            "name": each.name,
            "created": _time(each.snaptime),
            "description": each.description,
            "ready": each.snapstate is None,
            "children": [],
        }
    roots: list[dict[str, Any]] = []
    for each in listing.snapshots:
        above = nodes.get(each.parent or "")
        (above["children"] if above else roots).append(nodes[each.name])
    here: dict[str, Any] = {
        "name": "current",
        "created": None,
        "description": "You are here!",
        "ready": True,
        "children": [],
    }
    above = nodes.get(listing.parent or "")
    (above["children"] if above else roots).append(here)
    return roots


def _time(epoch: int) -> str:
    moment = datetime.datetime.fromtimestamp(epoch, tz=datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def rendered(roots: Sequence[Mapping[str, Any]]) -> str:
    """Return a tree as text, in the layout of ``qm listsnapshot``, with times in UTC.

    The layout is that of pve-guest-common's GuestHelpers.pm: four blanks for each level before the arrow, names padded
    so that times line up, the time in 23 columns, and the first line of the description. Children go by time, the
    present state last. Not by recursion: a chain may be as long as somebody likes.
    """
    lines = []
    waiting = [(0, node) for node in reversed(roots)]
    while waiting:
        level, node = waiting.pop()
        prefix = " " * (4 * level) + "`->"
        created = str(node["created"] or "").replace("T", " ").rstrip("Z")
        description = (str(node["description"] or "").split("\n", 1)[0]) or "no-description"
        lines.append(f"{prefix} {node['name']:<{max(0, 30 - len(prefix))}} {created:<23} {description}")
        waiting += [(level + 1, child) for child in reversed(node["children"])]
    return "\n".join(lines)
