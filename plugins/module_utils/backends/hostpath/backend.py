# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore points of directories: answers the protocol of core/backend.py.

What is in the other files, from the bottom up: `manifest` (the list of files), `files` (one file), `tree` (the walk),
`compare`, `verify`, `usage`, `creation` and `staging`. What all backends with a store have in common is in `../stored`.
Called by the bridge and the agent, through core/run.py.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
from collections.abc import Iterator, Sequence

from ... import mounts as mount_table
from ...core.backend import Blocker, Change, Desired, Situation
from ...core.errors import InvalidInput, RestorePointError, StoreError
from ...core.names import is_aside
from ...core.snapshot import Snapshot
from ...core.units import format_size
from ..stored import layout, returning, subvolume
from ..stored.backend import COPIES, RETURNS, StoredBackend, check_returnable, check_side_by_side
from ..stored.making import Making
from ..stored.remove import DIRECTORY
from ..stored.returning import Returning
from ..stored.store import Folder, check_apart
from . import manifest, usage
from .compare import Comparison
from .creation import Creation, open_basis, returned_basis
from .options import HostpathOptions, HostTarget, exclude_pattern, plain_parts
from .staging import Source, Staging
from .tree import Basis

#: What a call says of a file that went away, or became one of another kind, since its directory was read.
_MOVED = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ESPIPE, errno.EINVAL, errno.EISDIR}
)
#: Filesystems on which a copy of a large file takes no room.
_REFLINKS = ("btrfs", "xfs", "bcachefs")


class HostpathBackend(StoredBackend):
    """Directories and one store. Use it inside ``session``, which locks the store and closes what was opened."""

    name = "hostpath"
    options: HostpathOptions

    def __init__(self, targets: Sequence[HostTarget], store: str, options: HostpathOptions) -> None:
        self.targets = tuple(targets)
        self._by_path = {target.path: target for target in self.targets}
        super().__init__(self._by_path, store, options)

    def check(self, desired: Desired) -> None:
        """Raise InvalidInput, or StoreError, for what cannot be meant. Touches nothing."""
        self._desired = desired
        for target in self.targets:
            check_apart(target.path, self.store.path)
        exclude_pattern(self.options.exclude)
        self.options = dataclasses.replace(self.options, paths=plain_parts(self.options.paths))
        there_is_a_store = self.store.exists()
        if desired.state == "present":
            layout.check_new_name(desired.name or "")
            for target in self.targets:
                # A run that was killed may have left none at this moment: then `session` brings it back.
                if not there_is_a_store or os.path.lexists(target.path):
                    check_directory(target.path)
        elif desired.name is not None and not is_aside(desired.name):
            layout.check_name(desired.name)
        for target in self.targets if desired.state == "rolled_back" else ():
            check_returnable(target.path, bool(self.options.paths))
        if desired.state == "rolled_back":
            check_side_by_side([target.path for target in self.targets])

    # -- what is there -------------------------------------------------------------------------------------------------

    def situations(self, desired: Desired) -> Sequence[Situation]:
        """Return what is there. See core/backend.py."""
        for target in self.targets if desired.state == "present" else ():
            check_directory(target.path)
        if not self.store.exists():
            return [Situation(target.path) for target in self.targets]
        return [self._situation(target, desired) for target in self.targets]

    def _situation(self, target: HostTarget, desired: Desired) -> Situation:
        folder = self._folder(target.path)
        snapshots = self.snapshots(target.path)
        asides = self.asides(target.path)
        warnings = [f"{target.path}: snapshot {each.name!r} is not usable: {each.extra['fault']}"
                    for each in snapshots if not each.ready]  # fmt: skip
        situation = Situation(target.path, snapshots, asides, warnings=tuple(warnings))
        snapshot = situation.find(desired.name) if desired.name else None
        unchanged, difference, returned, clone_of = None, None, {}, None
        blockers: tuple[Blocker, ...] = ()
        if desired.state == "rolled_back" and folder is not None:
            returned = returning.known_tokens(folder)
            if snapshot is not None and snapshot.ready and desired.once not in returned:
                unchanged, difference = self._compare(folder, target, snapshot)
                blockers = () if unchanged else tuple(self._return_blockers(target, snapshot, desired))
        if desired.state == "cloned":
            clone_of, blockers = self._clone_facts(target, folder, desired, snapshot)
        return Situation(
            target.path, snapshots, asides, blockers, unchanged, difference, returned, clone_of, tuple(warnings)
        )

    # -- proof that nothing changed ------------------------------------------------------------------------------------

    def _compare(self, folder: Folder, target: HostTarget, snapshot: Snapshot) -> tuple[str | None, str | None]:
        """Say why the target is proven to hold what the snapshot holds, or else what differs first."""
        stored = self._tree_of(target.path, snapshot)
        if not os.path.isdir(target.path):
            return None, "the directory is missing"
        is_subvolume = snapshot.extra.get("strategy") == "subvolume"
        try:
            if is_subvolume and not self.options.paths and os.stat(target.path).st_ino == 256:
                proof = subvolume.proof_of_equality(target.path, stored)
                if proof is not None:
                    return proof, None
            if self.options.paths:
                differs = self._parts_difference(target.path, stored)
            else:
                differs = self._difference(folder, target.path, snapshot, stored, is_subvolume)
        except OSError as error:
            if error.errno not in _MOVED:
                raise RestorePointError(
                    f"compare {target.path} with snapshot {snapshot.name!r}",
                    f"{error.strerror} ({error.filename})" if error.filename else str(error.strerror),
                    "run as root, or as the user that may read all of it",
                ) from error
            differs = f"{error.filename or 'something in it'} was replaced while it was compared"
        return (None, differs) if differs else ("every file has the same content, attributes and times", None)

    def _difference(
        self, folder: Folder, target: str, snapshot: Snapshot, stored: str, same_inodes: bool
    ) -> str | None:
        basis = self._vouching_manifest(folder, snapshot)
        exclude = exclude_pattern(snapshot.extra.get("exclude") or ())
        mounts = frozenset("/" + manifest.escape(path) for path in snapshot.extra.get("left_out") or ())
        comparison = Comparison(basis.blocks if basis else None, exclude, mounts, same_inodes)
        live_fd = os.open(target, DIRECTORY)
        try:
            stored_fd = os.open(stored, DIRECTORY)
            try:
                return comparison.difference(live_fd, stored_fd)
            finally:
                os.close(stored_fd)
        finally:
            os.close(live_fd)
            if basis is not None:
                basis.close()

    def _parts_difference(self, target: str, stored: str) -> str | None:
        for part in self.options.paths:
            above, name = os.path.split(part)
            try:
                live, kept = _open_part(target, above), _open_part(stored, above)
            except OSError:
                return f"{part} is missing"
            try:
                differs = _part_difference(live, kept, name)
            finally:
                os.close(live)
                os.close(kept)
            if differs is not None:
                return differs
        return None

    def _vouching_manifest(self, folder: Folder, snapshot: Snapshot) -> Basis | None:
        """Open the manifest that describes the target as it was with this content: of the return to it, or its own."""
        entries = [each for each in self.store.entries(folder) if each.fault is None]
        mine = [each for each in entries if each.name == snapshot.name]
        own = [(each, each.name) for each in mine if each.metadata.get("manifest_sha256")]
        returned = [(each, name) for each, name in returned_basis(folder, entries) if each.name == snapshot.name]
        for entry, name in (*returned, *own):
            try:
                return open_basis(folder, entry, name)
            except (OSError, StoreError):
                continue  # then every byte is compared
        return None

    # -- what stands in the way ----------------------------------------------------------------------------------------

    def _return_blockers(self, target: HostTarget, snapshot: Snapshot, desired: Desired) -> Iterator[Blocker]:
        path = target.path
        mounts = mount_table.read_mounts()
        parts = self.options.paths
        if not parts and mount_table.is_mount_point(mounts, path):
            yield Blocker(
                path,
                "it is a mount point, and a mount point cannot change places with another directory",
                "return parts of it with paths, or unmount it and return the directory below",
                RETURNS,
            )
        for inner in mount_table.below(mounts, path):
            if _concerns(path, parts, inner):
                yield Blocker(path, f"something is mounted in it, on {inner}", f"unmount {inner}", RETURNS)
        yield from self._part_blockers(target, snapshot)
        left_out = [*(snapshot.extra.get("exclude") or ()), *(snapshot.extra.get("left_out") or ())]
        if not desired.keep_current and left_out and not parts:
            yield Blocker(
                path,
                f"the snapshot left out {', '.join(left_out)}, which would be lost",
                "leave keep_current on",
                RETURNS,
            )
        yield from self._room(path, os.path.dirname(path), snapshot)
        yield from self._users(path)

    def _part_blockers(self, target: HostTarget, snapshot: Snapshot) -> Iterator[Blocker]:
        stored = self._tree_of(target.path, snapshot)
        known = snapshot.extra.get("parts") or ()
        if known and not self.options.paths:
            yield Blocker(
                target.path,
                f"{snapshot.name} holds only parts: {', '.join(known)}",
                "name them with paths",
                RETURNS,
            )
        for part in self.options.paths:
            above, name = os.path.split(part)
            for root, missing in ((stored, "is not in the snapshot"), (target.path, "has no directory to go to")):
                try:
                    fd = _open_part(root, above)
                except OSError:
                    yield Blocker(target.path, f"{part} {missing}", "name another part, or the one above it", RETURNS)
                    break
                try:
                    there = name in os.listdir(fd)
                finally:
                    os.close(fd)
                if root == stored and not there:
                    yield Blocker(target.path, f"{part} {missing}", "name another part", RETURNS)
                    break

    def _room(self, target: str, where: str, snapshot: Snapshot) -> Iterator[Blocker]:
        needed = snapshot.referenced_bytes
        if needed is None or self.options.paths or not os.path.isdir(where):
            return
        if mount_table.containing(mount_table.read_mounts(), where).fstype in _REFLINKS:
            return  # a copy may take no room there; if it does, the copy itself fails in time
        room = os.statvfs(where)
        free = room.f_bavail * room.f_frsize
        if needed > free:
            needed = usage.measure(self.stored_path(snapshot)).total  # holes need no room
        if needed > free:
            yield Blocker(
                target,
                f"a copy of the snapshot needs {format_size(needed)}, and {where} has {format_size(free)} left",
                "free space there, or return parts of it with paths",
                COPIES,
            )

    def _clone_facts(
        self, target: HostTarget, folder: Folder | None, desired: Desired, snapshot: Snapshot | None
    ) -> tuple[str | None, tuple[Blocker, ...]]:
        clone = desired.clones[target.path]
        check_apart(clone, self.store.path)
        record = returning.known_clones(folder).get(clone) if folder is not None else None
        try:
            os.lstat(clone)
        except FileNotFoundError:
            if not os.path.isdir(os.path.dirname(clone)):
                raise InvalidInput(f"clone to {clone}", "the directory above it is missing", "make it first") from None
            return None, tuple(self._room(target.path, os.path.dirname(clone), snapshot)) if snapshot else ()
        if record is not None and returning.is_identical(clone, record):
            return str(record["name"]), ()
        blocker = Blocker(target.path, f"{clone} exists, and is no clone of it", "name another place", COPIES)
        return None, (blocker,)

    # -- changes -------------------------------------------------------------------------------------------------------

    def _make(self, change: Change, folder: Folder) -> Making:
        creation = Creation(self.store, folder, self._by_path[change.target], self.options, self._desired)
        try:
            return creation.make(change)
        finally:
            self.warnings += creation.warnings

    def _fill(self, change: Change, folder: Folder, under_way: Returning) -> None:
        Staging(under_way, self._source(folder, change), self.options).fill()

    def _source(self, folder: Folder, change: Change) -> Source:
        found = Situation(change.target, self.snapshots(change.target), self.asides(change.target)).find(change.name)
        if found is None:
            raise StoreError(f"find {change.name!r} of {change.target}", "it is gone", "look at what there is")
        entries = {each.name: each for each in self.store.entries(folder)}

        def basis() -> Basis | None:
            entry = entries.get(change.name)
            if entry is None or not entry.metadata.get("manifest_sha256"):
                return None
            try:
                return open_basis(folder, entry, entry.name)
            except (OSError, StoreError) as error:
                self.warnings.append(f"{change.target}: {error}; the tree itself is used")
                return None

        return Source(
            change.name,
            self._tree_of(change.target, found),
            subvolume=subvolume.is_root(self._tree_of(change.target, found)),
            basis=basis,
        )


def check_directory(path: str) -> None:
    """Raise InvalidInput unless there is a directory of that canonical path."""
    try:
        st = os.lstat(path)
    except OSError as error:
        raise InvalidInput(
            f"take a snapshot of {path}", f"{error.strerror}", "name a directory that is there"
        ) from error
    if not stat.S_ISDIR(st.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(st.st_mode) else "no directory"
        raise InvalidInput(f"take a snapshot of {path}", f"it is {kind}", "name the directory itself")


def _concerns(target: str, parts: Sequence[str], inner: str) -> bool:
    """Say whether a mount point inside the target lies in what is returned."""
    places = [os.path.join(target, part) for part in parts] or [target]
    return any(mount_table.inside(inner, place) is not None for place in places)


def _open_part(root: str, above: str) -> int:
    fd = os.open(root, DIRECTORY)
    try:
        return returning.open_below(fd, above)
    finally:
        os.close(fd)


def _part_difference(live: int, stored: int, name: str) -> str | None:
    try:
        kinds = [stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode) for fd in (live, stored)]
    except FileNotFoundError:
        return f"{name} is missing"
    if kinds == [True, True]:
        one = os.open(name, DIRECTORY, dir_fd=live)
        try:
            other = os.open(name, DIRECTORY, dir_fd=stored)
            try:
                return Comparison().difference(one, other)
            finally:
                os.close(other)
        finally:
            os.close(one)
    return Comparison().file_difference(live, stored, name) if kinds == [False, False] else f"{name} is of another kind"
