# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore points of directories: answers the protocol of core/backend.py.

What is in the other files, from the bottom up: `layout` (names), `manifest` (the list of files), `files` (one file),
`tree` (the walk), `compare`, `verify`, `usage` and `remove`, `subvolume` (Btrfs), `store` (the folder of snapshots),
`creation` and `returning`. Here they are put together. Called by the bridge and the agent, through core/run.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ... import linux
from ... import mounts as mount_table
from ...core import backend as core
from ...core.backend import Blocker, Change, Desired, Immediate, Situation
from ...core.errors import InvalidInput, RestorePointError, StoreError
from ...core.names import aside_name, is_aside
from ...core.snapshot import Snapshot
from ...core.units import format_size
from ...users import find_users
from . import layout, manifest, returning, subvolume, usage
from .compare import Comparison
from .creation import Creation, Making, open_basis, remedy, returned_basis
from .options import HostpathOptions, HostTarget, exclude_pattern, plain_parts
from .returning import Removing, Returning, Source, Swap, failed
from .store import FULL, Entry, Folder, Rename, Store, check_apart, discard, names_in, read_json, write_json
from .tree import DIRECTORY, Basis

_RETURNS = frozenset({core.ROLL_BACK})
_COPIES = frozenset({core.ROLL_BACK, core.CLONE})
#: What a call says of a file that went away, or became one of another kind, since its directory was read.
_MOVED = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ESPIPE, errno.EINVAL, errno.EISDIR}
)
#: Filesystems on which a copy of a large file takes no room.
_REFLINKS = ("btrfs", "xfs", "bcachefs")


class HostpathBackend(Immediate):
    """Directories and one store. Use it inside ``session``, which locks the store and closes what was opened."""

    name = "hostpath"

    def __init__(self, targets: Sequence[HostTarget], store: str, options: HostpathOptions) -> None:
        self.targets = tuple(targets)
        self.store = Store(store)
        self.options = options
        self.warnings: list[str] = []
        self._by_path = {target.path: target for target in self.targets}
        self._folders: dict[str, Folder] = {}
        self._unseen: dict[str, set[str]] = {}  #: by target, who may use it and could not be looked at
        self._desired = Desired(state="present")
        self._makings: dict[Change, Making] = {}
        self._returns: dict[Change, Returning] = {}
        self._removals: dict[Change, Removing] = {}
        self._old: dict[Change, str] = {}
        self._descriptions: dict[Change, Mapping[str, Any]] = {}

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

    @contextlib.contextmanager
    def session(self, writing: bool) -> Iterator[None]:
        """Open the store; for ``writing`` lock it, and recover what killed runs left. `check` comes first."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            linux.raise_open_file_limit()
            makes = writing and self._desired.state == "present"
            if makes:
                self.store.make_directory()
            if makes or (writing and self.store.exists()):
                stack.enter_context(self.store.writing(self.options.lock_timeout))
                if makes:
                    self.store.make()
                self.warnings += self._recover()
                loose = self.store.loose_mode()
                if loose:
                    self.warnings.append(
                        f"others may look into the store {self.store.path} (mode {loose}): set it to 0700"
                    )
                stack.push(self._clean_up)
            yield

    def _clean_up(self, kind: type[BaseException] | None, *_unused: object) -> None:
        """After a failure, leave as little behind as after a kill and the next run."""
        if kind is not None and not self.store.in_doubt:
            with contextlib.suppress(OSError, RestorePointError):
                self.store.recover()

    def _recover(self) -> list[str]:
        """Complete or remove what runs before left; return what was done, in words. Raises StoreError."""
        try:
            done = []
            for path in self.known_targets():
                folder = self._folder(path)
                if folder is not None:
                    done += returning.recover(folder)
            return done + self.store.recover()
        except OSError as error:
            raise StoreError(
                f"use the store {self.store.path}", f"{error.strerror} ({error.filename})", "mend that and try again"
            ) from error

    def known_targets(self) -> list[str]:
        """Return the directories that the store has snapshots of; folders that are nobody's are named in warnings."""
        faults: list[str] = []
        found = list(self.store.targets(faults))
        self.warnings += [each for each in faults if each not in self.warnings]
        return found

    def _close(self) -> None:
        for folder in self._folders.values():
            folder.close()
        self._folders.clear()
        self.store.close()

    def _folder(self, path: str, make: bool = False) -> Folder | None:
        if path not in self._folders:
            folder = self.store.folder(path, make)
            if folder is None:
                return None
            self._folders[path] = folder
        return self._folders[path]

    # -- what is there -------------------------------------------------------------------------------------------------

    def situations(self, desired: Desired) -> Sequence[Situation]:
        """Return what is there. See core/backend.py."""
        for target in self.targets if desired.state == "present" else ():
            check_directory(target.path)
        if not self.store.exists():
            return [Situation(target.path) for target in self.targets]
        return [self._situation(target, desired) for target in self.targets]

    def snapshots(self, target: str) -> tuple[Snapshot, ...]:
        """Return the snapshots of a target, oldest first, also those that are corrupt."""
        folder = self._folder(target) if self.store.exists() else None
        return tuple(entry.snapshot(target) for entry in self.store.entries(folder)) if folder is not None else ()

    def asides(self, target: str) -> tuple[Snapshot, ...]:
        """Return the content that returns have set aside, oldest first."""
        folder = self._folder(target) if self.store.exists() else None
        if folder is None:
            return ()
        records, faults = returning.aside_records(folder)
        self.warnings += [fault for fault in faults if fault not in self.warnings]
        found = [_aside(target, record) for record in records if _is_the_aside(record)]
        return tuple(sorted(found, key=lambda snapshot: snapshot.order))

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
        if is_subvolume and not self.options.paths and os.stat(target.path).st_ino == 256:
            proof = subvolume.proof_of_equality(target.path, stored)
            if proof is not None:
                return proof, None
        try:
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

    def stored_path(self, snapshot: Snapshot) -> str:
        """Return where the tree of a snapshot, or of an aside, lies."""
        return self._tree_of(snapshot.target, snapshot)

    def _tree_of(self, target: str, snapshot: Snapshot) -> str:
        if is_aside(snapshot.name):
            return str(snapshot.extra["path"])
        folder = self._folder(target)
        if folder is None:
            raise StoreError(f"find {snapshot.name!r} of {target}", "its folder is gone", "look into the store")
        return os.path.join(folder.path, snapshot.name)

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
                _RETURNS,
            )
        for inner in mount_table.below(mounts, path):
            if _concerns(path, parts, inner):
                yield Blocker(path, f"something is mounted in it, on {inner}", f"unmount {inner}", _RETURNS)
        yield from self._part_blockers(target, snapshot)
        left_out = [*(snapshot.extra.get("exclude") or ()), *(snapshot.extra.get("left_out") or ())]
        if not desired.keep_current and left_out and not parts:
            yield Blocker(
                path,
                f"the snapshot left out {', '.join(left_out)}, which would be lost",
                "leave keep_current on",
                _RETURNS,
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
                _RETURNS,
            )
        for part in self.options.paths:
            above, name = os.path.split(part)
            for root, missing in ((stored, "is not in the snapshot"), (target.path, "has no directory to go to")):
                try:
                    fd = _open_part(root, above)
                except OSError:
                    yield Blocker(target.path, f"{part} {missing}", "name another part, or the one above it", _RETURNS)
                    break
                try:
                    there = name in os.listdir(fd)
                finally:
                    os.close(fd)
                if root == stored and not there:
                    yield Blocker(target.path, f"{part} {missing}", "name another part", _RETURNS)
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
                _COPIES,
            )

    def _users(self, path: str) -> Iterator[Blocker]:
        if self.options.ignore_users or not os.path.isdir(path):
            return
        for place in [os.path.join(path, part) for part in self.options.paths] or [path]:
            users = find_users(place)
            self._unseen.setdefault(path, set()).update(users.unseen)
            for user in users.describe():
                yield Blocker(path, user, "stop it, or set ignore_users: true", _RETURNS, "ignore_users")

    def _clone_facts(
        self, target: HostTarget, folder: Folder | None, desired: Desired, snapshot: Snapshot | None
    ) -> tuple[str | None, tuple[Blocker, ...]]:
        clone = desired.clones[target.path]
        check_apart(clone, self.store.path)
        record = returning.known_clones(folder).get(clone) if folder is not None else None
        try:
            st = os.lstat(clone)
        except FileNotFoundError:
            if not os.path.isdir(os.path.dirname(clone)):
                raise InvalidInput(f"clone to {clone}", "the directory above it is missing", "make it first") from None
            return None, tuple(self._room(target.path, os.path.dirname(clone), snapshot)) if snapshot else ()
        if record is not None and record["inode"] == st.st_ino:
            return str(record["name"]), ()
        blocker = Blocker(target.path, f"{clone} exists, and is no clone of it", "name another place", _COPIES)
        return None, (blocker,)

    # -- changes -------------------------------------------------------------------------------------------------------

    def prepare(self, change: Change) -> None:
        """Copy what has to be copied. See core/backend.py."""
        if change.verb in (core.CREATE, core.REPLACE):
            folder = self._make_folder(change)
            creation = Creation(self.store, folder, self._by_path[change.target], self.options, self._desired)
            try:
                self._makings[change] = creation.make(change)
            finally:
                self.warnings += creation.warnings
        elif change.verb in _COPIES:
            self._stage(change)

    def _make_folder(self, change: Change) -> Folder:
        try:
            folder = self._folder(change.target, make=True)
        except OSError as error:
            attempt = f"take snapshot {change.name!r} of {change.target}"
            raise RestorePointError(attempt, str(error.strerror), remedy(error, self.store.path)) from error
        if folder is None:
            raise StoreError(f"make a folder for {change.target}", "it is gone at once", "look into the store")
        return folder

    def _need_folder(self, target: str) -> Folder:
        folder = self._folder(target)
        if folder is None:
            raise StoreError(f"find the snapshots of {target}", "its folder is gone", "look into the store")
        return folder

    def _stage(self, change: Change) -> None:
        folder = self._need_folder(change.target)
        place = change.arguments.get("clone", change.target)
        attempt = (
            f"return {change.target} to {change.name!r}"
            if change.verb == core.ROLL_BACK
            else f"clone {change.name!r} of {change.target} to {place}"
        )
        under_way: Returning | None = None
        try:
            under_way = self._begin(change, folder, place)
            under_way.stage(self._source(folder, change), self.options)
        except BaseException as error:
            if under_way is not None:
                with contextlib.suppress(OSError, RestorePointError):  # it may not hide the error; the next run does it
                    under_way.abandon()
            if isinstance(error, OSError):
                raise failed(attempt, error, place, self.options.paths) from error
            raise
        self._returns[change] = under_way

    def _begin(self, change: Change, folder: Folder, place: str) -> Returning:
        identity = os.urandom(4).hex()
        parts = self.options.paths if change.verb == core.ROLL_BACK else ()
        # Nothing can be renamed across mounts, nor from one Btrfs subvolume into another.
        inside = bool(parts) and os.stat(place).st_dev != os.stat(os.path.dirname(place)).st_dev
        inside = inside or mount_table.is_mount_point(mount_table.read_mounts(), place)
        beside = place if inside else os.path.dirname(place)
        at = self.options.now()
        keep = change.verb == core.ROLL_BACK and change.arguments["keep_current"]
        aside = _free_aside(folder, aside_name(at)) if keep else None
        entries = [each for each in self.store.entries(folder) if each.fault is None]
        return Returning(
            folder=folder,
            kind=returning.RETURN if change.verb == core.ROLL_BACK else returning.CLONE,
            target=place,
            identity=identity,
            staging=os.path.join(beside, f"{layout.STAGING}{identity}"),
            beside=os.stat(beside).st_ino,
            aside=aside,
            aside_path=os.path.join(place, f"{layout.STAGING}{aside}") if inside else f"{place}.{aside}",
            snapshot=change.name,
            sequence=next((each.metadata["sequence"] for each in entries if each.name == change.name), 0),
            newest=entries[-1].metadata["sequence"] if entries else 0,
            once=change.arguments.get("once"),
            at=at,
            swaps=[Swap(part, str(number)) for number, part in enumerate(parts or ("",))],
        )

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

    def commit(self, changes: Sequence[Change]) -> Sequence[Mapping[str, Any]]:
        """Make changes of one verb count. See core/backend.py."""
        verb = changes[0].verb
        try:
            if verb in (core.CREATE, core.REPLACE):
                return self._commit_snapshots(changes)
            if verb == core.DESTROY:
                return self._commit_removals(changes)
            if verb == core.DESCRIBE:
                return self._commit_descriptions(changes)
            return self._commit_swaps(changes)
        except OSError as error:
            raise RestorePointError(
                f"complete what was begun in {self.store.path}",
                f"{error.strerror} ({error.filename})" if error.filename else str(error.strerror),
                "mend that and try again: nothing was lost",
            ) from error

    def _commit_snapshots(self, changes: Sequence[Change]) -> list[Mapping[str, Any]]:
        self.store.sync()
        renames: list[Rename] = []
        for change in changes:
            making = self._makings[change]
            if change.verb == core.REPLACE:
                renames += self._move_away(change)
            renames += making.renames(change.name)
        self.store.apply(renames)
        return [self._created(change) for change in changes]

    def _created(self, change: Change) -> Mapping[str, Any]:
        making = self._makings[change]
        entry = Entry(change.name, making.metadata, None, self.options.now())
        for each in self.store.entries(making.folder):
            if each.name == change.name:
                entry = each
        return {**making.report, "snapshot": entry.snapshot(change.target).as_result()}

    def _move_away(self, change: Change) -> list[Rename]:
        """Return the steps that take a snapshot out of sight; `finish` then removes it, `undo` brings it back."""
        folder = self._need_folder(change.target)
        label = self._old[change] = f"{layout.OLD}{os.urandom(4).hex()}"
        there = set(names_in(folder.fd))
        return [
            Rename(f"{folder.name}/{change.name}{end}", f"{folder.name}/{label}{end}")
            for end in ("", ".json", ".manifest")
            if change.name + end in there
        ]

    def _commit_removals(self, changes: Sequence[Change]) -> list[Mapping[str, Any]]:
        renames: list[Rename] = []
        moved: list[Change] = []
        try:
            for change in changes:
                if is_aside(change.name):
                    self._remove_aside(change)
                    moved.append(change)
                else:
                    renames += self._move_away(change)
            if renames:
                self._apply_removals(changes, renames)
        except BaseException:
            for change in reversed(moved):
                self._removals.pop(change).undo()
            raise
        return [{} for _unused in changes]

    def _apply_removals(self, changes: Sequence[Change], renames: Sequence[Rename]) -> None:
        try:
            self.store.apply(renames)
        except OSError as error:
            if error.errno not in FULL or self.store.in_doubt:
                raise
            # A full disk may not even let a file be renamed (XFS). The manifests of what is to go make some room.
            for change in changes:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{change.name}.manifest", dir_fd=self._need_folder(change.target).fd)
            self.store.sync()
            self.store.apply([step for step in renames if not step.old.endswith(".manifest")])

    def _remove_aside(self, change: Change) -> None:
        folder = self._need_folder(change.target)
        removing = Removing(folder, read_json(folder.fd, f".{change.name}.json"))
        removing.commit()
        self._removals[change] = removing

    def _commit_descriptions(self, changes: Sequence[Change]) -> list[Mapping[str, Any]]:
        done: list[Change] = []
        try:
            reports = []
            for change in changes:
                reports.append(self._commit_description(change))
                done.append(change)
            return reports
        except BaseException:
            for change in reversed(done):
                self._undo_description(change)
            raise

    def _undo_description(self, change: Change) -> None:
        write_json(self._need_folder(change.target).fd, f"{change.name}.json", self._descriptions.pop(change))

    def _commit_description(self, change: Change) -> Mapping[str, Any]:
        folder = self._need_folder(change.target)
        metadata = read_json(folder.fd, f"{change.name}.json")
        self._descriptions[change] = metadata
        write_json(folder.fd, f"{change.name}.json", {**metadata, **change.arguments})
        for snapshot in self.snapshots(change.target):
            if snapshot.name == change.name:
                return {"snapshot": snapshot.as_result()}
        return {}

    def _commit_swaps(self, changes: Sequence[Change]) -> list[Mapping[str, Any]]:
        done: list[Change] = []
        try:
            for change in changes:
                try:
                    self.warnings += self._returns[change].swap()
                except OSError as error:
                    raise failed(f"return {change.target}", error, change.target, self.options.paths) from error
                done.append(change)
        except BaseException:
            for change in reversed(done):
                self._returns[change].swap_back()
            raise
        return [self._returned(change) for change in changes]

    def _returned(self, change: Change) -> Mapping[str, Any]:
        under_way = self._returns[change]
        report = dict(under_way.report)
        if change.verb == core.CLONE:
            return {**report, "clone": under_way.target}
        if under_way.aside is not None and os.path.lexists(under_way.aside_path):
            report["aside"] = {"name": under_way.aside, "path": under_way.aside_path}
        if self._unseen.get(change.target):
            report["unseen_users"] = sorted(self._unseen[change.target])
        return report

    def spend(self, target: str, token: str) -> None:
        """Remember that a token is used up. See core/backend.py."""
        folder = self._need_folder(target)
        try:
            returning.remember_token(folder, token, self.options.now())
        except OSError as error:
            reason = f"{error.strerror} ({folder.path})"
            raise StoreError(f"remember once: {token} for {target}", reason, "mend that and run it again") from error

    def undo(self, change: Change) -> None:
        """Take back what was committed. See core/backend.py."""
        try:
            if change in self._returns:
                self._returns[change].swap_back()
                self._returns.pop(change).abandon()
            elif change in self._removals:
                self._removals.pop(change).undo()
            elif change in self._descriptions:
                self._undo_description(change)
            else:
                self._undo_renames(change)
        except OSError as error:
            raise RestorePointError(
                f"take back the change of {change.name!r} on {change.target}",
                f"{error.strerror} ({error.filename})",
                "look at what is there before trying again",
            ) from error

    def _undo_renames(self, change: Change) -> None:
        making = self._makings.pop(change, None)
        renames: list[Rename] = []
        if making is not None:
            renames += [Rename(step.new, step.old) for step in reversed(making.renames(change.name))]
        label = self._old.pop(change, None)
        if label is not None:
            folder = self._need_folder(change.target)
            there = set(names_in(folder.fd))
            renames += [
                Rename(f"{folder.name}/{label}{end}", f"{folder.name}/{change.name}{end}")
                for end in (".manifest", ".json", "")
                if label + end in there
            ]
        self.store.apply(renames)
        if making is not None:
            making.discard()

    def abandon(self, change: Change) -> None:
        """Give up what was prepared. See core/backend.py."""
        if change in self._makings:
            making = self._makings.pop(change)
            if not self.store.in_doubt:  # else the next run completes it
                making.discard()
        if change in self._returns:
            self._returns.pop(change).abandon()

    def finish(self, change: Change) -> Sequence[str]:
        """Remove for good what was removed, and write down what was returned. See core/backend.py."""
        try:
            if change in self._returns:
                self._returns.pop(change).finish()
            if change in self._removals:
                self._removals.pop(change).finish()
            if change in self._old:
                folder = self._need_folder(change.target)
                label = self._old.pop(change)
                for end in ("", ".json", ".manifest"):
                    discard(folder.fd, label + end, folder.path)
            self._makings.pop(change, None)
        except OSError as error:
            return [f"{change.target}: {change.name!r} is done, but what is left of it could not be removed: {error}"]
        return []


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


def check_returnable(path: str, parts: bool) -> None:
    """Raise InvalidInput unless a directory of that path is there, or could be put there."""
    try:
        st = os.lstat(path)
    except FileNotFoundError:
        if parts or not os.path.isdir(os.path.dirname(path)):
            missing = path if parts else os.path.dirname(path)
            raise InvalidInput(f"return {path}", f"{missing} is missing", "make it first") from None
        return
    except OSError as error:
        raise InvalidInput(f"return {path}", f"{error.strerror}", "name a directory that is there") from error
    if not stat.S_ISDIR(st.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(st.st_mode) else "no directory"
        raise InvalidInput(f"return {path}", f"it is {kind}", "move it out of the way first")


def check_side_by_side(paths: Sequence[str]) -> None:
    """Raise InvalidInput where one of the targets of a return lies in another, and would change places with it."""
    for inner in paths:
        for outer in paths:
            if inner.startswith(f"{outer.rstrip('/')}/") and inner != outer:
                raise InvalidInput(
                    f"return {outer} and {inner} in one call", "one lies in the other", "return one after the other"
                )


def canonical(path: str, what: str) -> str:
    """Return an absolute path without links above its last name. Raises InvalidInput for a relative or strange one."""
    if not path.startswith("/"):
        raise InvalidInput(f"use {path!r} as {what}", "it is relative", "give it from / on")
    if "\0" in path:
        raise InvalidInput(f"use {path!r} as {what}", "it holds a NUL character", "give a path that can exist")
    above, name = os.path.split(path.rstrip("/"))
    if name in ("", ".", ".."):
        return "/" + os.path.realpath(path).lstrip("/")
    # Links are resolved before "..", as the kernel does it. Two slashes at the beginning are one here.
    return os.path.join("/" + os.path.realpath(above or "/").lstrip("/"), name)


def _is_the_aside(record: Mapping[str, Any]) -> bool:
    try:
        return bool(os.lstat(record["path"]).st_ino == record["inode"])
    except OSError:
        return False


def _aside(target: str, record: Mapping[str, Any]) -> Snapshot:
    extra = {"aside": True, "path": record["path"], "parts": record["parts"], "returned_to": record["returned_to"]}
    return Snapshot("hostpath", target, record["name"], record["created"], extra=extra)


def _free_aside(folder: Folder, name: str) -> str:
    """Return the first name of its kind that no aside of the same second has."""
    there = set(names_in(folder.fd))
    number, candidate = 1, name
    while f".{candidate}.json" in there:
        number += 1
        candidate = f"{name}-{number}"
    return candidate


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
