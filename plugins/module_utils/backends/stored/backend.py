# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What backends have in common whose snapshots lie in a store: a folder of trees with their metadata beside them.

The store itself, its journal, and returns by an exchange are in the other files: `layout` (names), `remove`,
`subvolume` (Btrfs), `store`, `making` (a snapshot that is not there yet), `returning`. With them, what is here answers
the protocol of core/backend.py. How a snapshot is taken, and laid out again, is for the backends: hostpath, btrfs.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ... import linux
from ... import mounts as mount_table
from ...core import backend as core
from ...core.backend import Blocker, Change, Desired, Immediate
from ...core.errors import InvalidInput, RestorePointError, StoreError
from ...core.names import aside_name, is_aside
from ...core.snapshot import Snapshot
from ...users import find_users
from . import layout, returning
from .making import Making, remedy
from .returning import Removing, Returning, Swap, failed
from .store import FULL, Entry, Folder, Rename, Store, discard, names_in, read_json, write_json

#: Changes that a blocker of a return, or of anything that lays a snapshot out again, forbids.
RETURNS = frozenset({core.ROLL_BACK})
COPIES = frozenset({core.ROLL_BACK, core.CLONE})


@dataclass(frozen=True)
class StoredOptions:
    """Options of a call that all backends with a store have.

    ``now`` gives the time, in seconds since the epoch; ``paths`` are the parts to be returned (relative to the target),
    none means all of it; ``lock_timeout`` is in seconds.
    """

    now: Callable[[], int]
    paths: tuple[str, ...] = ()
    ignore_users: bool = False
    lock_timeout: float = 60.0
    progress: Callable[[str, Mapping[str, Any]], None] | None = None


class StoredBackend(Immediate):
    """Targets, by their canonical paths, and one store. Use it inside ``session``, which locks the store."""

    name = "stored"
    #: How a record of a return is read, and completed by the run after a kill.
    returning: type[Returning] = Returning

    def __init__(self, paths: Iterable[str], store: str, options: StoredOptions) -> None:
        self.paths = tuple(paths)
        self.store = Store(store, self.name)
        self.options = options
        self.warnings: list[str] = []
        self._folders: dict[str, Folder] = {}
        self._unseen: dict[str, set[str]] = {}  #: by target, who may use it and could not be looked at
        self._desired = Desired(state="present")
        self._makings: dict[Change, Making] = {}
        self._returns: dict[Change, Returning] = {}
        self._removals: dict[Change, Removing] = {}
        self._old: dict[Change, str] = {}
        self._descriptions: dict[Change, Mapping[str, Any]] = {}

    # -- for the backends ----------------------------------------------------------------------------------------------

    def _make(self, change: Change, folder: Folder) -> Making:
        """Take the snapshot that a change asks for, under a hidden name. Raises RestorePointError."""
        raise NotImplementedError

    def _fill(self, change: Change, folder: Folder, under_way: Returning) -> None:
        """Stage what a change returns, or clones. Raises OSError or RestorePointError."""
        raise NotImplementedError

    def _begin(self, change: Change, folder: Folder, place: str) -> Returning:
        """Return the record of a return to, or a clone at, ``place``; nothing is written yet."""
        return self._returning(change, folder, place)

    def _place(self, target: str) -> str:
        """Return the path at which a target can change places with another directory."""
        return target

    # -- opening -------------------------------------------------------------------------------------------------------

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
                    done += returning.recover(folder, self.returning)
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
        found = [self._aside(target, record) for record in records if returning.is_the_aside(record)]
        return tuple(sorted(found, key=lambda snapshot: snapshot.order))

    def _aside(self, target: str, record: Mapping[str, Any]) -> Snapshot:
        extra = {"aside": True, **{key: record[key] for key in ("path", "parts", "returned_to")}}
        return Snapshot(self.name, target, record["name"], record["created"], extra=extra)

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

    def _users(self, path: str) -> Iterator[Blocker]:
        if self.options.ignore_users or not os.path.isdir(path):
            return
        for place in [os.path.join(path, part) for part in self.options.paths] or [path]:
            users = find_users(place)
            self._unseen.setdefault(path, set()).update(users.unseen)
            for user in users.describe():
                yield Blocker(path, user, "stop it, or set ignore_users: true", RETURNS, "ignore_users")

    # -- changes -------------------------------------------------------------------------------------------------------

    def prepare(self, change: Change) -> None:
        """Do all that is slow. See core/backend.py."""
        if change.verb in (core.CREATE, core.REPLACE):
            self._makings[change] = self._make(change, self._make_folder(change))
        elif change.verb in COPIES:
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
        place = change.arguments.get("clone") or self._place(change.target)
        attempt = (
            f"return {change.target} to {change.name!r}"
            if change.verb == core.ROLL_BACK
            else f"clone {change.name!r} of {change.target} to {place}"
        )
        under_way: Returning | None = None
        try:
            under_way = self._begin(change, folder, place)
            self._fill(change, folder, under_way)
        except BaseException as error:
            if under_way is not None:
                with contextlib.suppress(OSError, RestorePointError):  # it may not hide the error; the next run does it
                    under_way.abandon()
            if isinstance(error, OSError):
                raise failed(attempt, error, place, self.options.paths) from error
            raise
        self._returns[change] = under_way

    def _returning(self, change: Change, folder: Folder, place: str) -> Returning:
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
        return self.returning(
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
            for end in ("", ".json", *layout.BESIDE)
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
                for end in (*layout.BESIDE, ".json", "")
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
                for end in ("", ".json", *layout.BESIDE):
                    discard(folder.fd, label + end, folder.path)
            self._makings.pop(change, None)
        except OSError as error:
            return [f"{change.target}: {change.name!r} is done, but what is left of it could not be removed: {error}"]
        return []


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


def _free_aside(folder: Folder, name: str) -> str:
    """Return the first name of its kind that no aside of the same second has."""
    there = set(names_in(folder.fd))
    number, candidate = 1, name
    while f".{candidate}.json" in there:
        number += 1
        candidate = f"{name}-{number}"
    return candidate
