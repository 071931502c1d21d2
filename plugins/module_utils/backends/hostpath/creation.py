# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes one snapshot: chooses the best that the filesystem can do, copies, and writes what is known of it beside.

Everything is made under hidden names in the target's folder; the store's batch of renames makes it a snapshot. Called
by the backend.
"""

from __future__ import annotations

import os
from typing import Any

from ... import mounts as mount_table
from ...core.backend import Change, Desired
from ...core.errors import RestorePointError, StoreError
from ...core.snapshot import timestamp
from ..stored import layout, subvolume
from ..stored.making import TOOL, Making, new_file_owner, remedy
from ..stored.remove import DIRECTORY
from ..stored.store import Entry, Folder, Store, read_json, write_json
from . import manifest
from .files import FileCopier, Limiter
from .options import HostpathOptions, HostTarget, exclude_pattern
from .tree import Basis, Take, Tally

_LISTED = 1000
_CAN_SHARE = ("btrfs", "xfs", "bcachefs", "ocfs2", "zfs")


class Creation:
    """Makes the snapshot that a change asks for."""

    def __init__(
        self, store: Store, folder: Folder, target: HostTarget, options: HostpathOptions, desired: Desired
    ) -> None:
        self._store = store
        self._folder = folder
        self._target = target
        self._options = options
        self._desired = desired
        self._mounts = mount_table.read_mounts()
        self.warnings: list[str] = []

    def make(self, change: Change) -> Making:
        """Make it under a hidden name. Raises RestorePointError, with nothing left behind."""
        making = Making(self._folder, f"{layout.NEW}{os.urandom(4).hex()}")
        attempt = f"take snapshot {change.name!r} of {self._target.path}"
        take: Take | None = None
        try:
            created = self._options.now()
            if self._by_subvolume():
                self._snapshot_subvolume(making)
            else:
                take = self._copier(making, attempt)
                self._copy(making, take)
            self._describe(making, change, created)
            self._check_consistent(making, attempt)
        except OSError as error:
            making.give_up()
            where = f" ({take.at[1:]})" if take is not None and take.at != "/" else ""
            raise RestorePointError(attempt, f"{error.strerror}{where}", remedy(error, self._store.path)) from error
        except BaseException:
            making.give_up()
            raise
        return making

    # -- one instant, where the filesystem can -------------------------------------------------------------------------

    def _by_subvolume(self) -> bool:
        if self._options.exclude or self._options.checksum:
            return False  # both mean going through the files
        source = mount_table.containing(self._mounts, self._target.path)
        store = mount_table.containing(self._mounts, self._store.path)
        return subvolume.can_snapshot(
            self._target.path, source.fstype, store.fstype, source.device == store.device
        )  # fmt: skip

    def _snapshot_subvolume(self, making: Making) -> None:
        making.ends = ()
        self._store.sync()  # the same filesystem: what was written and not yet synced would be missing
        subvolume.snapshot(self._target.path, os.path.join(making.folder.path, making.label), read_only=True)
        left_out = {
            *subvolume.inside(self._target.path),
            *(manifest.unescape(path[1:]) for path in self._inner_mounts()),
        }
        left_out = {path for path in left_out if not path.startswith(layout.STAGING)}
        making.report = {"strategy": "subvolume", "inconsistent": [], "left_out": sorted(left_out), "not_kept": {}}

    # -- copies --------------------------------------------------------------------------------------------------------

    def _copier(self, making: Making, attempt: str) -> Take:
        os.mkdir(making.label, 0o700, dir_fd=self._folder.fd)
        limit = self._options.bandwidth_limit
        files = FileCopier(
            new_file_owner(self._folder.fd, making.label),
            Limiter(limit) if limit else None,
            self._options.checksum,
        )
        writer = manifest.Writer(self._folder.fd, f"{making.label}.manifest")
        basis = self._basis()
        if basis is None:
            self._warn_of_lost_sharing()
        return Take(
            files,
            writer,
            exclude_pattern(self._options.exclude),
            self._inner_mounts(),
            self._progress(attempt),
            basis,
            self._options.checksum,
        )

    def _copy(self, making: Making, take: Take) -> None:
        try:
            tally = self._walk(making, take)
        finally:
            try:
                checksum = take.close()
            finally:
                if take.basis is not None:
                    take.basis.close()
        making.report = _report(tally, take.files)
        making.metadata = {"manifest_sha256": checksum}

    def _walk(self, making: Making, take: Take) -> Tally:
        source = os.open(self._target.path, DIRECTORY)
        try:
            dest = os.open(making.label, DIRECTORY, dir_fd=self._folder.fd)
            try:
                return take.copy(source, dest)
            finally:
                os.close(dest)
        finally:
            os.close(source)

    def _basis(self) -> Basis | None:
        """Return what unchanged files can be linked to: what was last returned, or the newest sound snapshot."""
        entries = [each for each in self._store.entries(self._folder) if each.fault is None]
        for entry, name in (*returned_basis(self._folder, entries), *((e, e.name) for e in reversed(entries))):
            if not entry.metadata.get("manifest_sha256"):
                continue
            try:
                return open_basis(self._folder, entry, name)
            except (OSError, StoreError) as error:
                self.warnings.append(f"{self._target.path}: not built on {entry.name}: {error}")
        return None

    def _warn_of_lost_sharing(self) -> None:
        source = mount_table.containing(self._mounts, self._target.path)
        store = mount_table.containing(self._mounts, self._store.path)
        if source.device != store.device and source.fstype in _CAN_SHARE:
            self.warnings.append(
                f"{self._target.path} lies on {source.fstype}, which could share blocks with its snapshots, but the "
                f"store {self._store.path} lies on another filesystem: the first snapshot is a full copy"
            )

    def _inner_mounts(self) -> frozenset[str]:
        found = mount_table.below(self._mounts, self._target.path)
        return frozenset("/" + "/".join(map(manifest.escape, relative.split("/")))
                         for relative in (mount_table.inside(each, self._target.path) for each in found)
                         if relative)  # fmt: skip

    def _progress(self, attempt: str) -> Any:
        tell = self._options.progress
        if tell is None:
            return None
        return lambda tally: tell(attempt, {"files": tally.files, "bytes": tally.bytes})

    # -- what is known of it -------------------------------------------------------------------------------------------

    def _describe(self, making: Making, change: Change, created: int) -> None:
        entries = self._store.entries(self._folder)
        desired = self._desired
        report = making.report
        making.metadata = {
            **making.metadata,
            "format": layout.FORMAT,
            "tool": TOOL,
            "name": change.name,
            "created": timestamp(created),
            "sequence": 1 + max((int(each.metadata.get("sequence", 0)) for each in entries), default=0),
            "source": self._target.path,
            "host": os.uname().nodename,
            "owner": desired.owner,
            "policy": desired.policy,
            "description": desired.description or "",
            "labels": dict(desired.labels or {}),
            "exclude": list(self._options.exclude),
            "checksum": "sha256" if self._options.checksum else None,
            **{key: value for key, value in report.items() if key != "copied_files"},
            **self._target.claim,
        }
        write_json(self._folder.fd, f"{making.label}.json", making.metadata)

    def _check_consistent(self, making: Making, attempt: str) -> None:
        moving = making.report["inconsistent"]
        if moving and self._options.require_consistent:
            shown = ", ".join(moving[:5]) + (f" and {len(moving) - 5} more" if len(moving) > 5 else "")
            raise RestorePointError(
                attempt,
                f"these files did not hold still while they were read: {shown}",
                "stop what writes there first, or leave out require_consistent",
            )


def _report(tally: Tally, files: FileCopier) -> dict[str, Any]:
    return {
        "strategy": "reflink" if files.cloned else "hardlink" if tally.linked_files else "copy",
        "files": tally.files,
        "directories": tally.directories,
        "others": tally.others,
        "bytes": tally.bytes,
        "copied_files": tally.copied_files,
        "copied_bytes": tally.copied_bytes,
        "linked_files": tally.linked_files,
        "cloned_files": files.cloned,
        "inconsistent": sorted(set(tally.inconsistent))[:_LISTED],
        "left_out": tally.left_out[:_LISTED],
        "not_kept": files.losses.as_result(),
    }


def returned_basis(folder: Folder, entries: list[Entry]) -> list[tuple[Entry, str]]:
    """Return the snapshot that was last returned, and the manifest of what that made, if newer than all snapshots."""
    try:
        returned = read_json(folder.fd, f"{layout.RETURNED}.json")
    except StoreError:
        return []
    for entry in entries:
        if entry.name == returned.get("name") and entry.metadata["sequence"] == returned.get("sequence"):
            newest = entries[-1].metadata["sequence"]
            if newest == returned.get("newest"):
                checksum = {"manifest_sha256": returned.get("manifest_sha256"), "checksum": None}
                return [(Entry(entry.name, checksum, None, entry.created), layout.RETURNED)]
    return []


def open_basis(folder: Folder, entry: Entry, name: str) -> Basis:
    """Open the tree of a snapshot, and a manifest, whose checksum must be the one in ``entry``."""
    try:
        found = manifest.checksum_of(folder.fd, f"{name}.manifest")
    except OSError as error:
        raise StoreError(f"use the manifest {name}.manifest", f"{error.strerror}", "verify the snapshot") from error
    if found != entry.metadata["manifest_sha256"]:
        raise StoreError(
            f"use the manifest {name}.manifest", "it is not the one that was written", "verify the snapshot"
        )
    tree = os.open(entry.name, DIRECTORY, dir_fd=folder.fd)
    stream = manifest.open_manifest(folder.fd, f"{name}.manifest")
    blocks = manifest.Blocks(manifest.read_blocks(stream, name))
    return Basis(tree, stream, blocks, entry.metadata.get("checksum") is not None)
