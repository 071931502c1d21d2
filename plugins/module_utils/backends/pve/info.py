# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows what snapshots guests have: the flat list, the tree, and what was stored of the configuration. Touches nothing.

Called by the bridge for ``pve_snapshot_info``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.names import is_aside
from .backend import PveBackend, snapshots_of
from .guests import Guest
from .listing import Listing, is_kept_aside, rendered, tree_of

#: What a configuration has that is not the guest's: of a snapshot, or of the present moment.
_NOT_SETTINGS = (
    *("description", "digest", "lock", "parent", "running-nets-host-mtu", "runningcpu", "runningmachine"),
    *("snapstate", "snaptime", "vmstate"),
)


def describe(
    backend: PveBackend, name: str | None = None, config: bool = False, compare: bool = False, text: bool = False
) -> dict[str, Any]:
    """Return ``guests``, ``snapshots``, ``asides`` and ``tree``, of the guests that the backend's selection means.

    Args:
        name: only snapshots of that name; the tree is whole.
        config: the configuration that each snapshot has stored, under ``config``.
        compare: how that differs from the present one, under ``differences``.
        text: the tree as ``qm listsnapshot`` shows it, under ``listing``.
    """
    with backend.session(writing=False):
        chosen = backend.find_guests()
        listings = backend.for_each(chosen, lambda guest: _look(backend, guest, name, config or compare, compare))
    snapshots: list[dict[str, Any]] = []
    asides: list[dict[str, Any]] = []
    for guest, (listing, configs, present) in zip(chosen, listings):
        for snapshot in snapshots_of(guest, listing):
            if name not in (None, snapshot.name):
                continue
            result = snapshot.as_result()
            if config:
                result["config"] = settings(configs[snapshot.name])
            if compare:
                result["differences"] = differences(configs[snapshot.name], present)
            listed = listing.find(snapshot.name)
            (asides if is_aside(snapshot.name) and is_kept_aside(listed) else snapshots).append(result)
    trees = {guest.target: tree_of(listing) for guest, (listing, _unused, _present) in zip(chosen, listings)}
    found: dict[str, Any] = {
        "guests": [guest_result(guest, listing) for guest, (listing, _unused, _present) in zip(chosen, listings)],
        "snapshots": snapshots,
        "asides": asides,
        "tree": trees,
    }
    if text:
        found["listing"] = {target: rendered(roots) for target, roots in trees.items()}
    return found


def _look(
    backend: PveBackend, guest: Guest, name: str | None, with_config: bool, compare: bool
) -> tuple[Listing, dict[str, Any], Mapping[str, Any]]:
    operations = backend.operations
    listing = operations.listing(guest)
    wanted = [each.name for each in listing.snapshots if name in (None, each.name)] if with_config else []
    configs = {
        each: operations.read(guest, f"read snapshot {each!r} of {guest.words}", f"/snapshot/{each}/config")
        for each in wanted
    }
    present: Mapping[str, Any] = {}
    if compare and wanted:
        present = operations.read(guest, f"read the configuration of {guest.words}", "/config", current=True)
    return listing, configs, present


def guest_result(guest: Guest, listing: Listing | None = None) -> dict[str, Any]:
    """Return a guest that matched, as results show it; with its listing, whether it runs at this moment."""
    found: dict[str, Any] = {
        "target": guest.target,
        **guest.facts(),
        "status": guest.status,
        "tags": list(guest.tags),
        "pool": guest.pool,
        "lock": guest.lock,
        "template": guest.template,
    }
    if listing is not None:
        found.update(running=listing.running, current_parent=listing.parent, snapshot_count=len(listing.snapshots))
    return found


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a configuration is the guest's own."""
    return {key: value for key, value in sorted(config.items()) if key not in _NOT_SETTINGS}


def differences(stored: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each setting that differs, as ``{setting: {"snapshot": ..., "now": ...}}``; None is not set."""
    then, now = settings(stored), settings(present)
    return {
        key: {"snapshot": then.get(key), "now": now.get(key)}
        for key in sorted(set(then) | set(now))
        if str(then.get(key)) != str(now.get(key))
    }
