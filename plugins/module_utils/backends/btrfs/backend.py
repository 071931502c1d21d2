# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore points of Btrfs subvolumes: answers the protocol of core/backend.py.

The store, its journal and the exchange are those of `../stored`. In this folder, from the bottom up: `options`,
`toplevel` (the filesystem's top level, for subvolumes that are mounted), `nested` (subvolumes inside others),
`returning`, `info`. Called by the bridge and the agent, through core/run.py.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ... import mounts as mount_table
from ... import process
from ...core import backend as core
from ...core.backend import Blocker, Change, Desired, Situation
from ...core.errors import InvalidInput, RestorePointError, StoreError, ToolError
from ...core.names import is_aside
from ...core.snapshot import Snapshot, timestamp
from ..hostpath.compare import Comparison
from ..hostpath.manifest import escape
from ..stored import layout, returning, subvolume
from ..stored.backend import COPIES, RETURNS, StoredBackend, check_returnable, check_side_by_side
from ..stored.making import TOOL, Making, remedy
from ..stored.remove import opened
from ..stored.returning import RETURN, Returning
from ..stored.store import Folder, read_json, write_json
from . import nested, toplevel
from .options import ASIDE, BtrfsOptions
from .returning import SubvolumeReturning, fill_with, made_of

_TAKES = frozenset({core.CREATE, core.REPLACE})
_TOP_LEVEL = 5  #: BTRFS_FS_TREE_OBJECTID: the subvolume that has no name, and so cannot be renamed
_FSTAB, _COMMAND_LINE, _SWAPS = "/etc/fstab", "/proc/cmdline", "/proc/swaps"
#: The way out for what the tool says when it fails.
_REMEDIES = {
    "Text file busy": "a swap file in it is in use: put swap files into a subvolume of their own, or turn that one off",
    "No space left on device": "prune the store; `btrfs filesystem usage` tells whether data or metadata is full",
    "Disk quota exceeded": "raise the limit with `btrfs qgroup limit`, or prune the store",
    "Read-only file system": "mount it writable; if Btrfs itself made it read-only, look at the kernel's log first",
}


class BtrfsBackend(StoredBackend):
    """Subvolumes and one store on the same filesystem. Use it inside ``session``."""

    name = "btrfs"
    returning = SubvolumeReturning
    options: BtrfsOptions

    def __init__(self, paths: Sequence[str], store: str, options: BtrfsOptions) -> None:
        super().__init__(paths, store, options)
        self._top: toplevel.TopLevel | None = None
        self._plans: dict[str, dict[str, Any]] = {}  #: by target, what a return means for the subvolumes in it

    # -- opening -------------------------------------------------------------------------------------------------------

    def check(self, desired: Desired) -> None:
        """Raise InvalidInput, or StoreError, for what cannot be meant. Touches nothing."""
        self._desired = desired
        if os.geteuid() != 0:
            raise InvalidInput("use Btrfs snapshots", "only root can delete them", "run as root (become: true)")
        if process.find_program("btrfs") is None:
            raise InvalidInput("use Btrfs snapshots", "the program btrfs is not there", "install btrfs-progs")
        there_is_a_store = self.store.exists()
        self._check_places(desired)
        if desired.state == "present":
            layout.check_new_name(desired.name or "")
            for path in self.paths:
                # A run that was killed may have left none at this moment: then `session` brings it back.
                if not there_is_a_store or os.path.lexists(path):
                    check_subvolume(path)
        elif desired.name is not None and not is_aside(desired.name):
            layout.check_name(desired.name)
        if desired.state == "rolled_back":
            for path in self.paths:
                check_returnable(path, False)
                if os.path.lexists(path):
                    check_subvolume(path)
            check_side_by_side(self.paths)

    def _check_places(self, desired: Desired) -> None:
        table = mount_table.read_mounts()
        store = mount_table.filesystem_path(table, self.store.path)
        if mount_table.containing(table, self.store.path).fstype != "btrfs":
            raise InvalidInput(
                f"keep Btrfs snapshots in {self.store.path}", "it does not lie on Btrfs", "name a folder on Btrfs"
            )
        for path in (*self.paths, *desired.clones.values()):
            device, place = mount_table.filesystem_path(table, path)
            attempt = f"keep snapshots of {path} in {self.store.path}"
            if device != store[0]:
                raise InvalidInput(
                    attempt,
                    "they lie on two filesystems",
                    "name a store, and clones, on the subvolume's own filesystem",
                )
            if mount_table.inside(store[1], place) is not None:
                raise InvalidInput(
                    attempt,
                    "the store lies inside the subvolume",
                    "make a subvolume beside it for the store, and mount that where the store is to be seen",
                )
            if mount_table.inside(place, store[1]) is not None:
                raise InvalidInput(attempt, "it lies inside the store", "name a store beside it")

    def _close(self) -> None:
        super()._close()
        if self._top is not None:
            self._top.close()
            self._top = None

    def _top_level(self) -> str:
        """Return where the filesystem's top level is mounted for this session."""
        if self._top is None:
            self._top = toplevel.TopLevel(self.store.path)
        return self._top.open()

    def _recover(self) -> list[str]:
        for path in self.known_targets():
            folder = self._folder(path)
            if folder is not None:
                self._reach_records(folder)
        return super()._recover()

    def _reach_records(self, folder: Folder) -> None:
        """Mount the top level where what was written down of returns lies there."""
        records = [*returning.aside_records(folder)[0], *returning.pending_records(folder)]
        places = [str(each.get("path") or each.get("staging") or "") for each in records]
        if any(toplevel.is_inside(each) for each in places):
            self._top_level()

    # -- what is there -------------------------------------------------------------------------------------------------

    def situations(self, desired: Desired) -> Sequence[Situation]:
        """Return what is there. See core/backend.py."""
        found = []
        for path in self.paths:
            if desired.state == "present":
                check_subvolume(path)
            try:
                found.append(self._situation(path, desired))
            except OSError as error:
                where = f" ({error.filename})" if error.filename else ""
                raise RestorePointError(
                    f"look at {path} and its snapshots", f"{error.strerror}{where}", "mend that and try again"
                ) from error
        return found

    def snapshots(self, target: str) -> tuple[Snapshot, ...]:
        """Return the snapshots of a target, oldest first; those that are not what was taken say so."""
        return tuple(self._judged(each) for each in super().snapshots(target))

    def _judged(self, snapshot: Snapshot) -> Snapshot:
        fault = self._fault(snapshot) if snapshot.ready else None
        if fault is None:
            return snapshot
        return dataclasses.replace(snapshot, ready=False, extra={**snapshot.extra, "fault": fault})

    def _fault(self, snapshot: Snapshot) -> str | None:
        """Say why a snapshot, or one of a subvolume in it, is not as it was taken."""
        members = nested.members_of(snapshot.extra)
        known = {"": snapshot.extra.get("uuid"), **{path: each["uuid"] for path, each in members.items()}}
        for path, place in nested.stored_paths(self._tree_of(snapshot.target, snapshot), members).items():
            what = f"the snapshot of {path} in it" if path else "its subvolume"
            try:
                found = subvolume.show(place) if subvolume.is_root(place) else None
            except OSError as error:
                return f"{what} cannot be read: {error.strerror}"
            if found is None or found.uuid != known[path]:
                return f"{what} is not the one that was taken"
            if not (found.read_only and found.is_untouched):
                return f"{what} was made writable" if not found.read_only else f"{what} was written to"
        return None

    def asides(self, target: str) -> tuple[Snapshot, ...]:
        """Return the content that returns have set aside, oldest first."""
        folder = self._folder(target) if self.store.exists() else None
        if folder is None:
            return ()
        self._reach_records(folder)
        return super().asides(target)

    def _aside(self, target: str, record: Mapping[str, Any]) -> Snapshot:
        snapshot = super()._aside(target, record)
        device, path = mount_table.filesystem_path(mount_table.read_mounts(), str(record["path"]))
        where = toplevel.other_mount_points(mount_table.read_mounts(), device, path)
        in_use = f"it is mounted at {', '.join(where)}" if where else None
        return dataclasses.replace(snapshot, in_use=in_use, extra={**snapshot.extra, "filesystem_path": path})

    def _situation(self, target: str, desired: Desired) -> Situation:
        situation = Situation(target)
        if self.store.exists():
            snapshots, asides = self.snapshots(target), self.asides(target)
            warnings = [f"{target}: snapshot {each.name!r} is not usable: {each.extra['fault']}"
                        for each in snapshots if not each.ready]  # fmt: skip
            situation = Situation(target, snapshots, asides, warnings=tuple(warnings))
        if desired.state == "present":
            return self._to_be_taken(situation, desired)
        snapshot = situation.find(desired.name) if desired.name else None
        folder = self._folder(target) if self.store.exists() else None
        if desired.state == "rolled_back" and folder is not None:
            return self._to_be_returned(situation, folder, snapshot, desired)
        if desired.state == "cloned":
            clone_of, blockers = self._clone_facts(target, folder, desired, snapshot)
            return dataclasses.replace(situation, clone_of=clone_of, blockers=blockers)
        return situation

    def _to_be_taken(self, situation: Situation, desired: Desired) -> Situation:
        blockers = tuple(
            Blocker(situation.target, f"the swap file {path} in it is in use, and Btrfs refuses a snapshot of that",
                    "put swap files into a subvolume of their own, or turn it off", _TAKES)
            for path in _swap_files_in(situation.target)
        )  # fmt: skip
        found = situation.find(desired.name or "")
        if found is not None and found.ready and self.options.recursive:
            inside = nested.without_ours(subvolume.tree(situation.target))
            missing = [each for each in inside if each not in nested.members_of(found.extra)]
            if missing:
                fault = f"it does not hold the subvolume {missing[0]}, and recursive is set"
                lesser = dataclasses.replace(found, ready=False, extra={**found.extra, "fault": fault})
                snapshots = tuple(lesser if each is found else each for each in situation.snapshots)
                situation = dataclasses.replace(situation, snapshots=snapshots)
        return dataclasses.replace(situation, blockers=blockers)

    # -- proof that nothing changed ------------------------------------------------------------------------------------

    def _to_be_returned(
        self, situation: Situation, folder: Folder, snapshot: Snapshot | None, desired: Desired
    ) -> Situation:
        returned = returning.known_tokens(folder)
        situation = dataclasses.replace(situation, returned=returned)
        if snapshot is None or not snapshot.ready or desired.once in returned:
            return situation
        target = situation.target
        place = self._place(target) if os.path.lexists(target) else target
        unchanged, difference = self._compare(folder, target, place, snapshot)
        if unchanged is not None:
            pending = place != target and _identity(place) != _identity(target)
            unchanged += "; it takes effect when it is next mounted" if pending else ""
            return dataclasses.replace(situation, unchanged=unchanged)
        blockers = tuple(self._return_blockers(target, place, snapshot, desired))
        return dataclasses.replace(situation, difference=difference, blockers=blockers)

    def _compare(self, folder: Folder, target: str, place: str, snapshot: Snapshot) -> tuple[str | None, str | None]:
        """Say why the target is proven to hold what the snapshot holds, or else what differs."""
        if not os.path.lexists(place):
            return None, "the subvolume is missing"
        stored = self._stored(snapshot)
        try:
            record = read_json(folder.fd, f"{layout.RETURNED}.json")
        except StoreError:
            record = {}
        entry = (snapshot.name, snapshot.sequence)
        made = made_of(record) if (record.get("name"), record.get("sequence")) == entry else {}
        proof = None
        for path in ("", *self._members(snapshot)):
            kept = stored[path]
            live = os.path.join(place, path) if path else place
            what = f"the subvolume {path} in it" if path else "the subvolume"
            if nested.uuid_at(place, path) is None if path else not subvolume.is_root(place):
                return None, f"{what} is missing"
            found = subvolume.proof_of_equality(live, kept) or _proof_of_return(live, kept, made.get(path))
            if found is None:
                # Reading counts as writing where it moves an atime, so that it was written to may mean nothing.
                differs = _difference(live, kept, subvolume.tree(live))
                if differs is not None:
                    return None, f"in {what}, {differs}"
                found = "every file has the same content, attributes and times"
            proof = proof or found
        return proof, None

    def _stored(self, snapshot: Snapshot) -> dict[str, str]:
        """Return where a snapshot, or an aside, and each subvolume taken with it lie; "" is the one around them."""
        tree = self._tree_of(snapshot.target, snapshot)
        if is_aside(snapshot.name):
            return {"": tree, **{path: os.path.join(tree, path) for path in subvolume.tree(tree)}}
        return nested.stored_paths(tree, nested.members_of(snapshot.extra))

    def places_of(self, snapshot: Snapshot) -> tuple[str, ...]:
        """Return where a snapshot, or an aside, and the subvolumes taken with it lie."""
        return tuple(self._stored(snapshot).values())

    def _members(self, snapshot: Snapshot) -> list[str]:
        """Return the subvolumes in a snapshot, or an aside, that are returned, or cloned, with it."""
        return [path for path in self._stored(snapshot) if path] if self.options.recursive else []

    def _place(self, target: str) -> str:
        """Return the path by which a target can be renamed: its own, or through the top level where it is mounted."""
        table = mount_table.read_mounts()
        if not mount_table.is_mount_point(table, target):
            return target
        path = mount_table.containing(table, target).root
        if path == "/":
            return target  # the top level itself: `_return_blockers` says so
        place = self._top_level() + path
        folder = self._folder(target) if self.store.exists() else None
        for record in returning.aside_records(folder)[0] if folder is not None else ():
            if record["path"] == place:  # returned, and not mounted anew since
                return place[: -len(f".{record['name']}")]
        return place

    # -- what stands in the way ----------------------------------------------------------------------------------------

    def _return_blockers(self, target: str, place: str, snapshot: Snapshot, desired: Desired) -> Iterator[Blocker]:
        def block(reason: str, way_out: str) -> Blocker:
            return Blocker(target, reason, way_out, RETURNS)

        plan = self._plans[target] = {"members": self._members(snapshot), "moves": [], "mounted": []}
        if not os.path.lexists(place):
            return
        table = mount_table.read_mounts()
        if subvolume.show(place).number == _TOP_LEVEL:
            yield block(
                "it is the top level of its filesystem, which has no name and cannot change places",
                "keep such data in a subvolume of its own, or bring single files back from the snapshot",
            )
            return
        if subvolume.show(place).read_only:
            yield block("it is read-only", f"make it writable: btrfs property set -ts {target} ro false")
        plan["mounted"] = _mounted(table, place, target)
        is_mounted = place != target
        if not is_mounted:
            for inner in mount_table.below(table, target):
                yield block(f"something is mounted in it, on {inner}", f"unmount {inner}")
        yield from self._nested_blockers(target, place, snapshot, plan)
        if plan["mounted"]:
            if not desired.keep_current:
                yield block(
                    f"it is mounted at {', '.join(plan['mounted'])}, so what is there cannot be removed yet",
                    "leave keep_current on, and remove what was set aside once it is not mounted any more",
                )
            yield from _fixed_by_number(target, plan["mounted"], subvolume.show(place).number)
        if "/" not in plan["mounted"]:
            yield from self._users(target)

    def _nested_blockers(self, target: str, place: str, snapshot: Snapshot, plan: dict[str, Any]) -> Iterator[Blocker]:
        inside = subvolume.tree(place)
        if self.options.recursive and nested.without_ours(inside) and not plan["members"]:
            yield Blocker(
                target,
                f"{snapshot.name!r} was taken without recursive, and does not hold "
                f"{', '.join(nested.without_ours(inside))}",
                "leave out recursive, and they stay as they are",
                RETURNS,
            )
            return
        moves = nested.to_move(inside, plan["members"])
        if self.options.nested == ASIDE:
            if moves and not self._desired.keep_current:
                yield Blocker(
                    target,
                    f"the subvolumes {', '.join(moves)} in it are not in the snapshot, and would be lost",
                    "leave keep_current on, or let them be moved over (nested: move)",
                    RETURNS,
                )
            return
        plan["moves"] = moves
        way_out = "move it elsewhere, or set nested: aside to leave it with the content that is set aside"
        if moves and plan["mounted"]:
            yield Blocker(
                target,
                f"it is mounted, so the subvolumes {', '.join(moves)} in it, which are not in the snapshot, cannot be "
                "moved over before the next mount",
                "take snapshots with recursive: true, or set nested: aside to leave them with what is set aside",
                RETURNS,
            )
            return
        stored = self._stored(snapshot)
        kept = {path: stored[path] for path in ("", *plan["members"])}
        yield from nested.place_blockers(target, place, moves, kept, way_out)

    def _clone_facts(
        self, target: str, folder: Folder | None, desired: Desired, snapshot: Snapshot | None
    ) -> tuple[str | None, tuple[Blocker, ...]]:
        clone = desired.clones[target]
        record = returning.known_clones(folder).get(clone) if folder is not None else None
        if not os.path.lexists(clone):
            if not os.path.isdir(os.path.dirname(clone)):
                raise InvalidInput(f"clone to {clone}", "the directory above it is missing", "make it first")
            if self.options.recursive and snapshot is not None and not nested.members_of(snapshot.extra):
                left = snapshot.extra.get("left_out") or ()
                if left:
                    reason = f"{snapshot.name!r} was taken without recursive, and does not hold {', '.join(left)}"
                    return None, (Blocker(target, reason, "leave out recursive", COPIES),)
            return None, ()
        if record is not None and returning.is_identical(clone, record):
            return str(record["name"]), ()
        return None, (Blocker(target, f"{clone} exists, and is no clone of it", "name another place", COPIES),)

    def estimate(self, changes: Sequence[Change]) -> Sequence[Mapping[str, Any]]:
        """Tell what a return means for the subvolumes in its target, and whether it needs a reboot."""
        return [self._outlook(each) if each.verb == core.ROLL_BACK else {} for each in changes]

    def _outlook(self, change: Change) -> Mapping[str, Any]:
        plan = self._plans[change.target]
        return {
            "nested_returned": list(plan["members"]),
            "nested_moved": list(plan["moves"]),
            "reboot_required": "/" in plan["mounted"],
            "remount_required": [each for each in plan["mounted"] if each != "/"],
        }

    # -- changes -------------------------------------------------------------------------------------------------------

    def _make(self, change: Change, folder: Folder) -> Making:
        making = Making(folder, f"{layout.NEW}{os.urandom(4).hex()}", ends=())
        attempt = f"take snapshot {change.name!r} of {change.target}"
        try:
            self._take(making, change, attempt)
        except OSError as error:
            making.give_up()
            where = f" ({error.filename})" if error.filename else ""
            raise RestorePointError(attempt, f"{error.strerror}{where}", remedy(error, self.store.path)) from error
        except BaseException as error:
            making.give_up()
            if isinstance(error, ToolError):
                raise _with_way_out(attempt, error) from error
            raise
        return making

    def _take(self, making: Making, change: Change, attempt: str) -> None:
        """Take the subvolume, and where asked those in it, each at its own instant, one right after the other."""
        inside = subvolume.tree(change.target)
        members = nested.without_ours(inside) if self.options.recursive else []
        place = os.path.join(making.folder.path, making.label)
        if members:
            making.ends = (layout.NESTED,)
            os.mkdir(f"{making.label}{layout.NESTED}", 0o700, dir_fd=making.folder.fd)
        # What was only just written is in the snapshot once it is on disk.
        self.store.sync()
        taken = []
        for path, dest in nested.stored_paths(place, members).items():
            source = os.path.join(change.target, path) if path else change.target
            instant = self.options.clock()
            subvolume.snapshot(source, dest, read_only=True)
            taken.append((path, instant, subvolume.show(source), subvolume.show(dest)))
        for path, _instant, source_is, kept in taken:
            if kept.parent_uuid != source_is.uuid:
                what = os.path.join(change.target, path) if path else change.target
                raise RestorePointError(attempt, f"{what} was replaced meanwhile", "run this again")
        self._describe(making, change, taken, [each for each in inside if each not in members])

    def _describe(
        self,
        making: Making,
        change: Change,
        taken: Sequence[tuple[str, float, subvolume.Subvolume, subvolume.Subvolume]],
        left_out: Sequence[str],
    ) -> None:
        entries = self.store.entries(making.folder)
        desired = self._desired
        (_root, instant, source, kept), *others = taken
        instants = [each[1] for each in taken]
        facts = {
            "strategy": "subvolume",
            "uuid": kept.uuid,
            "source_uuid": source.uuid,
            "source_read_only": source.read_only,
            "generation": kept.made,
            "instant": instant,
            "spread_seconds": round(max(instants) - min(instants), 3),
            "nested": [
                {"path": path, "uuid": each.uuid, "source_uuid": origin.uuid, "read_only": origin.read_only}
                for path, _instant, origin, each in others
            ],
            "left_out": list(left_out),
        }
        making.metadata = {
            "format": layout.FORMAT,
            "tool": TOOL,
            "name": change.name,
            "created": timestamp(int(instant)),
            "sequence": 1 + max((int(each.metadata.get("sequence", 0)) for each in entries), default=0),
            "source": change.target,
            "host": os.uname().nodename,
            "owner": desired.owner,
            "policy": desired.policy,
            "description": desired.description or "",
            "labels": dict(desired.labels or {}),
            **facts,
        }
        write_json(making.folder.fd, f"{making.label}.json", making.metadata)
        making.report = {
            "instant": instant,
            "left_out": facts["left_out"],
            "nested": [each[0] for each in others],
            "nested_spread_seconds": facts["spread_seconds"],
        }

    def _begin(self, change: Change, folder: Folder, place: str) -> Returning:
        way = self._returning(change, folder, place)
        plan = self._plans.get(change.target, {}) if way.kind == RETURN else {}
        moves = {path: nested.uuid_at(place, path) for path in plan.get("moves", ())}
        is_there = way.kind == RETURN and os.path.lexists(place)
        default = subvolume.default_number(self.store.path) if is_there else None
        way.extra = {
            "shown": change.target if way.kind == RETURN else place,
            "members": [],
            "moves": moves,
            "default": default if is_there and subvolume.show(place).number == default else None,
            "made": {},
            "kept": {},
        }
        return way

    def _fill(self, change: Change, folder: Folder, under_way: Returning) -> None:
        found = Situation(change.target, self.snapshots(change.target), self.asides(change.target)).find(change.name)
        if found is None:
            raise StoreError(f"find {change.name!r} of {change.target}", "it is gone", "look at what there is")
        stored, members, known = self._stored(found), self._members(found), nested.members_of(found.extra)
        if is_aside(found.name):
            read_only = [path for path in members if subvolume.show(stored[path]).read_only]
        else:
            read_only = [path for path in members if known[path].get("read_only")]
        self.store.sync()
        under_way.extra["members"] = members
        under_way.extra["kept"] = {path: subvolume.show(stored[path]).changed for path in ("", *members)}
        try:
            under_way.stage(fill_with(members, stored, read_only, under_way.staging))
        except ToolError as error:
            raise _with_way_out(under_way.attempt, error) from error
        under_way.report["strategy"] = "subvolume"

    def _returned(self, change: Change) -> Mapping[str, Any]:
        report = dict(super()._returned(change))
        if "aside" in report:
            place = report["aside"]["path"]
            device_path = mount_table.filesystem_path(mount_table.read_mounts(), place)[1]
            report["aside"]["filesystem_path"] = device_path
        plan = self._plans.get(change.target) if change.verb == core.ROLL_BACK else None
        if plan and plan["mounted"]:
            where = ", ".join(plan["mounted"])
            way_out = "reboot" if "/" in plan["mounted"] else f"unmount and mount {where}"
            self.warnings.append(f"{change.target}: the old content stays mounted at {where} until you {way_out}")
        return report


def check_subvolume(path: str) -> None:
    """Raise InvalidInput unless there is a Btrfs subvolume of that canonical path."""
    attempt = f"use {path} as a subvolume"
    try:
        st = os.lstat(path)
        is_root = stat.S_ISDIR(st.st_mode) and subvolume.is_root(path)
    except OSError as error:
        raise InvalidInput(attempt, f"{error.strerror}", "name a subvolume that is there") from error
    if stat.S_ISLNK(st.st_mode):
        raise InvalidInput(attempt, "it is a symbolic link", "name the subvolume itself")
    if not is_root:
        raise InvalidInput(
            attempt,
            "it is no Btrfs subvolume",
            "name one (btrfs subvolume list shows them), or use hostpath_snapshot for other directories",
        )


def _proof_of_return(live: str, kept: str, made: Mapping[str, Any] | None) -> str | None:
    """Say why a subvolume is as a return has made it from what is kept, or return None."""
    if made is None or subvolume.show(kept).changed > made["kept"]:
        return None
    found = subvolume.show(live)
    if found.uuid != made["uuid"] or found.changed > made["changed"]:
        return None
    return f"nothing was written to it since transaction {found.changed}, in which it was returned"


def _difference(live: str, kept: str, inside: Sequence[str]) -> str | None:
    """Return the first difference between a subvolume and what is kept, in words, but not in subvolumes inside it."""
    one, other = subvolume.show(live), subvolume.show(kept)
    same_inodes = other.parent_uuid == one.uuid or one.parent_uuid == other.uuid
    direct = [each for each in inside if not any(each.startswith(f"{outer}/") for outer in inside)]
    new = [re.escape(each) for each in direct if not os.path.lexists(os.path.join(kept, each))]
    stand_ins = frozenset("/" + "/".join(map(escape, each.split("/"))) for each in direct)
    comparison = Comparison(None, re.compile("|".join(new)) if new else None, stand_ins, same_inodes)
    try:
        with opened(live) as live_fd, opened(kept) as kept_fd:
            return comparison.difference(live_fd, kept_fd)
    except OSError as error:
        return f"{error.filename or 'something in it'} was replaced while it was compared"


def _identity(path: str) -> str:
    return subvolume.show(path).uuid


def _mounted(table: Sequence[mount_table.Mount], place: str, target: str) -> list[str]:
    """Return where the subvolume is mounted itself, the target's own mount point too."""
    device, path = mount_table.filesystem_path(table, place)
    found = toplevel.other_mount_points(table, device, path)
    if place != target and target not in found:
        found.append(target)  # returned, and not mounted anew since
    return found


def _fixed_by_number(target: str, mounted: Sequence[str], number: int) -> Iterator[Blocker]:
    """Yield where a mount is written down by the subvolume's id, which stays with the old content."""
    places = []
    for fields in mount_table.table_lines(_FSTAB):
        if len(fields) > 3 and fields[1] in mounted and f"subvolid={number}" in fields[3].split(","):
            places.append(_FSTAB)
    words = [word for line in mount_table.table_lines(_COMMAND_LINE) for word in line]
    for word in words if "/" in mounted else ():
        if word.startswith("rootflags=") and f"subvolid={number}" in word[len("rootflags=") :].split(","):
            places.append("the kernel's command line")
    for place in places:
        yield Blocker(
            target,
            f"{place} mounts it by subvolid={number}, which stays with the old content",
            "name it by subvol=PATH there",
            RETURNS,
        )


def _swap_files_in(target: str) -> list[str]:
    """Return the swap files in use that lie in a subvolume itself, not in one inside it."""
    device = os.stat(target).st_dev
    found = []
    for path, *_unused in mount_table.table_lines(_SWAPS)[1:]:
        inner = mount_table.inside(path, target)
        try:
            if inner and os.stat(path).st_dev == device:
                found.append(inner)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
    return found


def _with_way_out(attempt: str, error: ToolError) -> RestorePointError:
    way_out = next((way for words, way in _REMEDIES.items() if words in error.reason), error.remedy)
    return ToolError(attempt, error.reason, way_out)
