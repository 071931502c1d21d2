# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows what snapshots claims have: the flat list, the tree, what returns kept aside. Touches nothing.

Called by the bridge for ``csi_snapshot_info``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.snapshot import as_tree
from . import objects
from .backend import CsiBackend
from .reading import Facts


def describe(backend: CsiBackend, name: str | None = None, contents: bool = False) -> dict[str, Any]:
    """Return ``claims``, ``snapshots``, ``asides`` and ``tree``, of the claims that the backend's selection means.

    Args:
        name: only snapshots of that name; the tree is whole.
        contents: handle, driver and deletion policy of each snapshot too, from its content.
    """
    with backend.session(writing=False):
        facts = backend.look(contents)
        snapshots, asides = backend.listed(), backend.listed_asides()
    results = [each.as_result() for each in snapshots if name in (None, each.name)]
    if contents:
        for result in results:
            result["extra"].update(_content(facts.contents.get(str(result["extra"]["content"])) or {}))
    return {
        "claims": [_claim(facts, claim) for claim in facts.wanted],
        "snapshots": results,
        "asides": [each.as_result() for each in asides if name in (None, each.name)],
        "tree": as_tree(snapshots),
    }


def _claim(facts: Facts, name: str) -> dict[str, Any]:
    claim = facts.claims.get(name)
    spec = (claim or {}).get("spec") or {}
    return {
        "target": facts.target(name),
        "namespace": facts.namespace,
        "pvc": name,
        "phase": objects.status_of(claim).get("phase") if claim is not None else "absent",
        "storage_class": spec.get("storageClassName"),
        "volume": spec.get("volumeName"),
        "capacity_bytes": objects.capacity(claim) if claim is not None else None,
    }


def _content(content: Mapping[str, Any]) -> dict[str, Any]:
    spec, status = content.get("spec") or {}, content.get("status") or {}
    return {
        "driver": spec.get("driver"),
        "deletion_policy": spec.get("deletionPolicy"),
        "handle": status.get("snapshotHandle") or (spec.get("source") or {}).get("snapshotHandle"),
    }
