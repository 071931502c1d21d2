# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows what a store holds: the flat list, the tree, sizes, and whether every file is still as it was. Touches nothing.

Called by the bridge for ``hostpath_snapshot_info``, and by the agent.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from ...core.errors import StoreError
from ...core.snapshot import Snapshot, as_tree
from ..stored import subvolume
from ..stored.remove import DIRECTORY
from . import manifest, usage
from .backend import HostpathBackend
from .verify import Verification

_LISTED = 1000


def describe(
    backend: HostpathBackend, name: str | None = None, sizes: bool = False, verify: bool = False
) -> dict[str, Any]:
    """Return ``snapshots``, ``asides``, ``tree`` and, where asked, ``verified``, for the targets or the whole store.

    Args:
        name: only snapshots of that name.
        sizes: measure what each snapshot holds alone (what removing it would free) and what it shares.
        verify: compare each snapshot with its manifest.

    Raises StoreError where the store is none.
    """
    with backend.session(writing=False):
        if not backend.store.exists():
            raise StoreError(f"look into {backend.store.path}", "there is no store", "take a snapshot first")
        targets = [target.path for target in backend.targets] or backend.known_targets()
        snapshots, asides = [], []
        for target in targets:
            snapshots += [each for each in backend.snapshots(target) if name in (None, each.name)]
            asides += [each for each in backend.asides(target) if name in (None, each.name)]
        results = [{**each.as_result(), **(_sizes(backend, each) if sizes else {})} for each in snapshots]
        found: dict[str, Any] = {
            "snapshots": results,
            "asides": [each.as_result() for each in asides],
            "tree": as_tree(snapshots),
        }
        if verify:
            with backend.store.lock(backend.options.lock_timeout, "verify snapshots", shared=True):
                found["verified"] = [verify_snapshot(backend, each) for each in snapshots]
        return found


def _sizes(backend: HostpathBackend, snapshot: Snapshot) -> dict[str, Any]:
    """Measure a stored tree: files whose every name lies in it are its own, others it shares with its neighbours."""
    if not snapshot.ready:
        return {}
    own, shared = usage.measure(backend.stored_path(snapshot))
    extra = {**snapshot.extra, "shared_bytes": shared}
    if snapshot.extra.get("cloned_files") or snapshot.extra.get("strategy") == "subvolume":
        # Blocks shared by reflinks or between subvolumes are not told apart by link counts.
        return {"extra": {**snapshot.extra, "apparent_bytes": own + shared}}
    return {"size_bytes": own, "extra": extra}


def verify_snapshot(backend: HostpathBackend, snapshot: Snapshot, copy: str | None = None) -> dict[str, Any]:
    """Compare a snapshot with its manifest; return what was found, with every file that differs (the first 1000).

    ``copy`` is where it was laid out again: then that is compared, unless it is a subvolume, which has no manifest.
    """
    result: dict[str, Any] = {"target": snapshot.target, "name": snapshot.name, "ok": False, "faults": []}
    if not snapshot.ready:
        return {**result, "proof": "none", "faults": [{"path": ".", "fault": snapshot.extra["fault"]}]}
    path = backend.stored_path(snapshot)
    if snapshot.extra.get("strategy") == "subvolume":
        return {**result, **_verify_subvolume(path)}
    folder, name = os.path.split(path)
    folder_fd = os.open(folder, DIRECTORY)
    try:
        return {**result, **_verify_tree(folder_fd, name, snapshot, copy)}
    except (OSError, StoreError) as error:
        fault = error.reason if isinstance(error, StoreError) else str(error.strerror)
        return {**result, "proof": "none", "faults": [{"path": f"{name}.manifest", "fault": fault}]}
    finally:
        os.close(folder_fd)


def _verify_tree(folder: int, name: str, snapshot: Snapshot, copy: str | None = None) -> dict[str, Any]:
    if manifest.checksum_of(folder, f"{name}.manifest") != snapshot.extra.get("manifest_sha256"):
        raise StoreError("verify", "it is not the manifest that was written", "keep the tree, and take a new snapshot")
    ignore = frozenset(snapshot.extra.get("not_kept") or ())
    faults: list[dict[str, str]] = []
    count = 0
    stored = os.open(name, DIRECTORY, dir_fd=folder) if copy is None else os.open(copy, DIRECTORY)
    try:
        with manifest.open_manifest(folder, f"{name}.manifest") as stream:
            check = Verification(manifest.read_blocks(stream, name), ignore)
            for path, fault in check.faults(stored):
                count += 1
                if count <= _LISTED:
                    faults.append({"path": path, "fault": fault})
    finally:
        os.close(stored)
    proof = "every byte" if snapshot.extra.get("checksum") else "kind, size, mode, owner, times and attributes"
    return {
        "ok": count == 0,
        "proof": proof,
        "faults": faults,
        "fault_count": count,
        "files": check.files,
        "bytes_read": check.bytes_read,
    }


def _verify_subvolume(path: str) -> dict[str, Any]:
    """A read-only subvolume cannot have changed; Btrfs has checksums of its own, which `btrfs scrub` reads.

    Root could have made it writable for a while, which Btrfs remembers.
    """
    read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY) or not os.access(path, os.W_OK)
    if not stat.S_ISDIR(os.lstat(path).st_mode) or not read_only:
        return {"proof": "none", "faults": [{"path": ".", "fault": "the subvolume is writable"}], "fault_count": 1}
    untouched = subvolume.show(path).is_untouched
    faults = [] if untouched else [{"path": ".", "fault": "the subvolume was written after its creation"}]
    return {"ok": untouched, "proof": "read-only since its creation", "faults": faults, "fault_count": len(faults)}
