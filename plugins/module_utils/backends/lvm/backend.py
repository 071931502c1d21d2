# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore points of logical volumes: answers the protocol of core/backend.py.

What is in the other files, from the bottom up: `names`, `tags`, `sizes` and `report` (pure), `commands` (the tools),
`busy` (who uses a volume), `view` (which volume is what), `obstacles` (what forbids a change), `creating`, `merging`
(thick returns), `switching` (thin returns), `recovery` (after a kill). Here they are put together. Called by the
bridge, through core/run.py.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...core import backend as core
from ...core.backend import Blocker, Change, Desired, Outcome, Situation
from ...core.errors import InvalidInput, RestorePointError
from ...core.names import aside_name, is_aside
from ...core.snapshot import Snapshot
from ...lock import host_lock
from . import busy, commands, creating, merging, names, obstacles, recovery, switching, tags, view
from .commands import DEFERRED, MERGED, MERGING, Lvm
from .creating import Making
from .options import DEFER, LvmOptions, LvmTarget
from .report import Report, Volume
from .switching import Switch
from .view import View

#: Above this a thick snapshot or a pool is worth a warning, in percent.
NEARLY_FULL = 80.0


class LvmBackend:
    """Some logical volumes. Use it inside ``session``."""

    name = "lvm"

    def __init__(self, targets: Sequence[LvmTarget], options: LvmOptions) -> None:
        self.targets = tuple(targets)
        self.options = options
        self.lvm = Lvm(options.command_timeout)
        self.warnings: list[str] = []
        self._desired = Desired(state="present")
        self._report: Report | None = None
        self._extents: dict[str, int] = {}
        self._switches: dict[Change, Switch] = {}
        self._merges: dict[Change, tuple[Volume, Volume]] = {}
        self._asides: dict[Change, Making] = {}
        self._unmounted: dict[Change, list[dict[str, str]]] = {}  # what could not be mounted again
        self._made: dict[Change, Making] = {}
        self._old_tags: dict[Change, tuple[str, list[str], list[str]]] = {}

    def check(self, desired: Desired) -> None:
        """Raise InvalidInput for what cannot be meant. Touches nothing."""
        self._desired = desired
        name = desired.name
        if desired.state == "present" and name is not None:
            names.check_name(name)
            if is_aside(name):
                raise InvalidInput(
                    f"take snapshot {name!r}", "what returns set aside is called like that", "choose another name"
                )
        for target in self.targets:
            if desired.state == "present":
                for lv in (names.snapshot_lv(target.lv, name or ""), creating.temporary_lv(target.lv)):
                    names.check_new_lv(target.vg, lv, f"take snapshot {name!r} of {target}")
            elif desired.state == "rolled_back":
                for lv in (f"{target.lv}.{aside_name(0)}-2", creating.temporary_lv(target.lv)):
                    names.check_new_lv(target.vg, lv, f"return {target} to {name!r}")
        if self.options.unmount and self.options.when_busy == DEFER:
            raise InvalidInput(
                "return volumes with unmount and when_busy: defer",
                "what is unmounted need not be put off",
                "set one of them",
            )

    @contextlib.contextmanager
    def session(self, writing: bool) -> Iterator[None]:
        """Lock, and recover what killed runs left, for ``writing``. `check` comes first."""
        vgs = sorted({target.vg for target in self.targets})
        with contextlib.ExitStack() as stack:
            if writing:
                stack.enter_context(host_lock("lvm", self.options.lock_timeout, "change logical volumes"))
                report = self._look(vgs)
                more = recovery.other_groups(report)
                done = recovery.recover(
                    self.lvm, self._look([*vgs, *sorted(more)]) if more else report, self.options.command_timeout
                )
                self.warnings += done
                if done or more:
                    self._report = None
            yield

    def _look(self, vgs: Sequence[str]) -> Report:
        self._report = self.lvm.report(vgs)
        return self._report

    @property
    def report(self) -> Report:
        """What there is, as last looked at."""
        return self._report or self._look(sorted({target.vg for target in self.targets}))

    # -- what is there -------------------------------------------------------------------------------------------------

    def situations(self, desired: Desired) -> Sequence[Situation]:
        """Return what is there. See core/backend.py."""
        seen = View(self.report)
        volumes = [self.volume(target) for target in self.targets]
        common: dict[str, list[Blocker]] = {volume.path: [] for volume in volumes}
        for blocker in self._room(volumes, seen, desired):
            common[blocker.target].append(blocker)
        return [self._situation(volume, seen, desired, common[volume.path]) for volume in volumes]

    def volume(self, target: LvmTarget) -> Volume:
        """Return the volume of a target. Raises RestorePointError where it is not there."""
        found = self.report.find(target.vg, target.lv)
        if found is not None:
            return found
        for volume in self.report.volumes:
            mark = volume.record(tags.PENDING)
            if mark is not None and mark.get("change") == switching.RETURN and mark.get("target") == target.lv:
                raise RestorePointError(
                    f"find the volume {target}",
                    f"a return of it was interrupted, and {volume.path} has not got its name yet",
                    "run any change of it without check mode, which completes that",
                )
        there = [each.name for each in self.report.volumes if each.vg == target.vg and not each.hidden]
        shown = ", ".join(there[:10]) + (f" and {len(there) - 10} more" if len(there) > 10 else "")
        raise RestorePointError(
            f"find the volume {target}", "there is no such logical volume", f"the group has {shown or 'none'}"
        )

    def _room(self, volumes: Sequence[Volume], seen: View, desired: Desired) -> list[Blocker]:
        """Return why there is no room for the thick snapshots of this call, and remember how large they get."""
        name = desired.name or ""
        if desired.state == "present":
            thick = [each for each in volumes if not each.is_thin and self._is_to_be_taken(seen, each, desired)]
        elif desired.state == "rolled_back" and desired.keep_current:
            pairs = [(each, seen.find(each, name)) for each in volumes]
            thick = [each for each, found in pairs if found is not None and found[1].is_thick_snapshot]
        else:
            return []
        # What cannot have a snapshot at all is told so, and not that there is no room for one.
        thick = [each for each in thick if not any(obstacles.kind(each))]
        self._extents, blockers = obstacles.thick_sizes(thick, self.report, self.options.size)
        return blockers + list(obstacles.number_of_lvs(thick, self.report))

    def _is_to_be_taken(self, seen: View, volume: Volume, desired: Desired) -> bool:
        return desired.replace or seen.find(volume, desired.name or "") is None

    def _situation(self, target: Volume, seen: View, desired: Desired, common: Sequence[Blocker]) -> Situation:
        snapshots = seen.snapshots(target)
        asides = seen.asides(target)
        wanted = seen.find(target, desired.name) if desired.name else None
        blockers = [*common, *obstacles.kind(target)]
        clone_of, used_up, returned = None, None, {}
        if desired.state == "present":
            blockers += self._creation_blockers(target, desired, wanted)
        elif desired.state == "rolled_back":
            returned = view.spent_tokens(seen, target)
            used_up = self._used_up(target, seen, desired.name or "", wanted)
            if wanted is not None and used_up is None and desired.once not in returned:
                members = [volume for _unused, volume in (*snapshots, *asides)]
                blockers += self._return_blockers(target, desired, *wanted, members)
        elif desired.state == "cloned":
            clone_of, found = self._clone_facts(target, desired, wanted)
            blockers += found
        return Situation(
            target.path,
            tuple(snapshot for snapshot, _unused in snapshots),
            tuple(snapshot for snapshot, _unused in asides),
            tuple(blockers),
            returned=returned,
            clone_of=clone_of,
            warnings=tuple(self._fill_warnings(target, snapshots)),
            uses_up=wanted is not None and wanted[1].is_thick_snapshot,
            used_up=used_up,
        )

    def _fill_warnings(self, target: Volume, snapshots: Sequence[tuple[Snapshot, Volume]]) -> Iterator[str]:
        for snapshot, volume in snapshots:
            if not snapshot.ready and not volume.merging:
                yield f"{target.path}: snapshot {snapshot.name!r} is not usable: {snapshot.extra['fault']}"
            elif volume.is_thick_snapshot and not volume.merging and (volume.data_percent or 0.0) > NEARLY_FULL:
                room = f"{volume.data_percent:g} % full, and is lost when it overflows"
                yield f"{target.path}: snapshot {snapshot.name!r} is {room}: extend it with lvextend {volume.path}"
        found = self.report.find(target.vg, target.pool) if target.is_thin else None
        for what, percent in (("data", found and found.data_percent), ("metadata", found and found.metadata_percent)):
            if found is not None and (percent or 0.0) > NEARLY_FULL:
                yield f"{target.path}: the {what} of the thin pool {found.path} is {percent:g} % full"
        for volume in (target, *(volume for _unused, volume in snapshots)):
            if volume.damage is not None:
                yield f"{volume.path}: {volume.damage}: it is treated as somebody else's"

    def _creation_blockers(
        self, target: Volume, desired: Desired, wanted: tuple[Snapshot, Volume] | None
    ) -> Iterator[Blocker]:
        yield from obstacles.health(target, self.report.groups[target.vg])
        if target.is_thin:
            yield from obstacles.pool(target, self.report, self.options)
            if self.options.size is not None:
                yield Blocker(
                    target.path, "it is thin, and a thin snapshot has no size", "leave size out", obstacles.TAKES
                )
        final = names.snapshot_lv(target.name, desired.name or "")
        there = self.report.find(target.vg, final)
        if there is not None and (wanted is None or wanted[1] is not there) and not View(self.report).is_pending(there):
            yield Blocker(
                target.path,
                f"there is a volume {there.path}, which is not this snapshot",
                "rename that one, or choose another name",
                obstacles.TAKES,
            )

    def _used_up(self, target: Volume, seen: View, name: str, wanted: tuple[Snapshot, Volume] | None) -> str | None:
        """Say that, and when, the wanted thick snapshot was used up by a merge, or is just now."""
        if target.merge_failed or (wanted is not None and not wanted[1].merging):
            return None
        state = self.lvm.merge_state(target, wanted[1]) if wanted is not None else MERGED
        if wanted is not None and state == MERGING:
            left = wanted[1].data_percent
            return "it is being merged now" + (f", with {left:g} % left to copy" if left is not None else "")
        if state == DEFERRED:
            return f"its merge waits: {merging.how_it_starts(target.path)}"
        record = view.merge_record(target, name)
        if record is not None:
            return view.merged_since(record)
        return "a merge has just used it up" if wanted is not None else None

    def _return_blockers(
        self, target: Volume, desired: Desired, snapshot: Snapshot, volume: Volume, members: Sequence[Volume]
    ) -> Iterator[Blocker]:
        thick = volume.is_thick_snapshot
        yield from obstacles.health(target, self.report.groups[target.vg])
        if target.merge_failed:
            return
        if thick and volume.origin_uuid != target.uuid:
            yield Blocker(
                target.path,
                f"{volume.path} is a thick snapshot of {volume.vg}/{volume.origin}, which a return has set aside",
                "return to a thin one",
                obstacles.RETURNS,
            )
        if thick:
            yield from obstacles.overflows(target, volume, members)
            needed, given = volume.used, self._extents.get(target.path, 0) * self.report.groups[target.vg].extent
            if desired.keep_current and given < needed:
                yield Blocker(
                    target.path,
                    f"the snapshot that keeps the present content would have {given} bytes, and the merge writes up to "
                    f"{needed}",
                    "give a larger size, or leave keep_current off",
                    obstacles.RETURNS,
                )
        else:
            yield from obstacles.pool(target, self.report, self.options)
            if self.options.when_busy == DEFER and target.is_open and not desired.keep_current:
                yield Blocker(
                    target.path,
                    "it is in use, and what has it open goes on using the old content, which cannot be removed then",
                    "set keep_current: true",
                    obstacles.RETURNS,
                )
        yield from obstacles.users(target, volume, thick, self.options)

    def _clone_facts(
        self, target: Volume, desired: Desired, wanted: tuple[Snapshot, Volume] | None
    ) -> tuple[str | None, list[Blocker]]:
        vg, lv = names.parse_volume(desired.clones[target.path])
        there = self.report.find(vg, lv)
        record = there.record(tags.CLONE) if there is not None else None
        if record is not None and record.get("of") in View(self.report).identity(target):
            return str(record.get("name")), []
        blockers = list(obstacles.health(target, self.report.groups[target.vg]))
        if there is not None:
            reason = f"{there.path} exists, and is no clone of it"
            blockers.append(Blocker(target.path, reason, "name another place", obstacles.CLONES))
        if wanted is not None and wanted[1].is_thick_snapshot:
            blockers.append(
                Blocker(
                    target.path,
                    f"{wanted[1].path} is a thick snapshot, and LVM has no snapshots of those",
                    "mount the snapshot itself, read-only, to look at it",
                    obstacles.CLONES,
                )
            )
        return None, blockers + list(obstacles.pool(target, self.report, self.options))

    # -- changes -------------------------------------------------------------------------------------------------------

    def estimate(self, changes: Sequence[Change]) -> Sequence[Mapping[str, Any]]:
        """Tell sizes, and what would be put off. See core/backend.py."""
        return [self._estimate(change) for change in changes]

    def _estimate(self, change: Change) -> Mapping[str, Any]:
        target = self._target(change)
        if change.verb in (core.CREATE, core.REPLACE):
            if target.is_thin:
                return {"type": "thin"}
            return {"type": "thick", "size_bytes": self._extents[target.path] * self.report.groups[target.vg].extent}
        found = View(self.report).find(target, change.name)
        if found is None or change.verb not in (core.DESTROY, core.ROLL_BACK):
            return {}
        volume = found[1]
        if change.verb == core.DESTROY:
            return {"freed_bytes": volume.size} if volume.is_thick_snapshot else {}
        if volume.is_thick_snapshot:
            waits = (target.is_open or volume.is_open) and not self.options.unmount
            return merging.put_off(target) if waits else {"deferred": False, "reboot_required": False}
        points = [] if self.options.unmount else [each.mount_point for each in busy.mounted(target.device)]
        return switching.effect(points, target.is_open and not self.options.unmount)

    def _target(self, change: Change) -> Volume:
        for target in self.targets:
            if str(target) == change.target:
                return self.volume(target)
        raise RestorePointError(f"find the volume {change.target}", "it is not of this call", "report this")

    def _snapshot(self, change: Change) -> Volume:
        found = View(self.report).find(self._target(change), change.name)
        if found is None:
            raise RestorePointError(f"find {change.name!r} of {change.target}", "it is gone", "look at `lvs -a`")
        return found[1]

    def prepare(self, change: Change) -> None:
        """Make what a return needs beside the volume. See core/backend.py."""
        if change.verb != core.ROLL_BACK:
            return
        target, snapshot = self._target(change), self._snapshot(change)
        mounts = busy.mounted(target.device) if self.options.unmount else []
        at = self.options.now()
        aside = self._free_aside(target, at)
        if snapshot.is_thick_snapshot:
            if change.arguments["keep_current"]:
                self._asides[change] = self._take_aside(change, target, snapshot, aside, at)
            self._merges[change] = (target, snapshot)
            return
        keep = bool(change.arguments["keep_current"])
        switch = Switch(target, snapshot, creating.temporary_lv(target.name), f"{target.name}.{aside}", keep, mounts)
        record = merging.return_record(change, snapshot, at, "copy")
        try:
            switching.stage(self.lvm, switch, self.report, record, at, aside)
        except BaseException:
            with contextlib.suppress(RestorePointError):
                if self.lvm.report([target.vg]).find(target.vg, switch.lv) is not None:
                    self.lvm.change("lvremove", switch.new_path, attempt=f"give up the return of {target.path}")
            raise
        self._switches[change] = switch

    def _free_aside(self, target: Volume, at: int) -> str:
        """Return the first name of its kind that no aside of the same second has."""
        number, name = 1, aside_name(at)
        while self.report.find(target.vg, f"{target.name}.{name}") is not None:
            number += 1
            name = f"{aside_name(at)}-{number}"
        return name

    def _take_aside(self, change: Change, target: Volume, snapshot: Volume, name: str, at: int) -> Making:
        """Take the snapshot that keeps the present content; it counts when the merge has begun."""
        record = {"name": name, "of": target.uuid, "at": at, "returned_to": change.name}
        mark = tags.encode(tags.PENDING, {"change": recovery.ASIDE, "merge": snapshot.uuid})
        lv = f"{target.name}.{name}"
        extent = self.report.groups[target.vg].extent
        making = Making(
            change, target, lv, lv, self._extents[target.path], extent, tuple(tags.encode(tags.ASIDE, record))
        )
        creating.take(self.lvm, making, mark, self.options)
        return making

    def commit(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Make changes of one verb count. See core/backend.py."""
        verb = changes[0].verb
        if verb in (core.CREATE, core.REPLACE):
            return self._commit_snapshots(changes)
        if verb == core.DESTROY:
            return self._commit_removals(changes)
        one = {core.DESCRIBE: self._describe, core.CLONE: self._clone, core.ROLL_BACK: self._return}[verb]
        outcomes: list[Outcome] = []
        for change in changes:
            try:
                outcomes.append(one(change))
            except RestorePointError as error:
                outcomes.append(error)
        return outcomes

    def _commit_snapshots(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        group = os.urandom(8).hex()
        seen = View(self.report)
        makings = [self._draft(change, group, seen) for change in changes]
        # One command cannot be killed half way: a single snapshot needs no mark, unless it replaces another.
        alone = len(makings) == 1 and makings[0].replaces is None
        mark = [] if alone else creating.pending_mark(group, [making.origin.vg for making in makings])
        outcomes: dict[Change, Outcome] = {}
        for making in makings:
            try:
                outcomes[making.change] = {"instant": creating.take(self.lvm, making, mark, self.options)}
                self._made[making.change] = making
            except RestorePointError as error:
                outcomes[making.change] = error
        report = self._look(sorted({making.origin.vg for making in makings}))
        for making in makings:
            if making.change in self._made:
                wrong = creating.too_small(making, report.find(making.origin.vg, making.lv))
                if wrong is not None:
                    outcomes[making.change] = wrong
        good = [making for making in makings if not isinstance(outcomes[making.change], RestorePointError)]
        if mark and good:
            paths = [making.path for making in good]
            try:
                self.lvm.change("lvchange", *tags.arguments(remove=mark), *paths, attempt="let the new snapshots count")
            except RestorePointError:
                for making in makings:
                    self.abandon(making.change)
                raise
        return [self._told(making, outcomes[making.change]) for making in makings]

    def _draft(self, change: Change, group: str, seen: View) -> Making:
        target = next(each for each in self.targets if str(each) == change.target)
        origin = self.volume(target)
        extents = None if origin.is_thin else self._extents[origin.path]
        replaces = self._snapshot(change) if change.verb == core.REPLACE else None
        extent = self.report.groups[origin.vg].extent
        number = seen.next_number(origin)
        return creating.draft(change, self._desired, target, origin, extents, extent, group, replaces, number)

    def _told(self, making: Making, outcome: Outcome) -> Outcome:
        """Return a report with the snapshot as the report that was just read shows it."""
        if isinstance(outcome, RestorePointError):
            return outcome
        made = self.report.find(making.origin.vg, making.lv)
        told: dict[str, Any] = {**outcome, "type": "thin" if making.extents is None else "thick", "lv": making.final}
        if made is not None:
            shown = view.as_snapshot(self.volume(LvmTarget(making.origin.vg, making.origin.name)), made).as_result()
            told["snapshot"] = {**shown, "extra": {**shown["extra"], "lv": making.final}}
            if making.extents is not None:
                told["size_bytes"] = made.size
        return told

    def _commit_removals(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Remove with one command for each group; what that does not remove, whatever it says, is told one by one."""
        volumes = {change: self._snapshot(change) for change in changes}
        vgs = sorted({volume.vg for volume in volumes.values()})
        failures: dict[str, RestorePointError] = {}
        for vg in vgs:
            paths = [volume.path for volume in volumes.values() if volume.vg == vg]
            try:
                self.lvm.change("lvremove", *paths, attempt=f"remove {', '.join(paths)}")
            except RestorePointError as error:
                failures[vg] = error
        left = self._look(vgs)
        outcomes: list[Outcome] = []
        for volume in volumes.values():
            if left.by_uuid(volume.uuid) is not None:
                outcomes.append(failures.get(volume.vg) or _not_removed(volume))
            else:
                outcomes.append({"freed_bytes": volume.size} if volume.is_thick_snapshot else {})
        return outcomes

    def _describe(self, change: Change) -> Mapping[str, Any]:
        volume = self._snapshot(change)
        if volume.record(tags.SNAPSHOT) is None:
            raise RestorePointError(
                f"describe {change.name!r} of {change.target}",
                "somebody else has taken it, so it has no description",
                "leave description and labels out",
            )
        add, remove = creating.described(volume, change.arguments)
        attempt = f"describe {change.name!r} of {change.target}"
        self.lvm.change("lvchange", *tags.arguments(add, remove), volume.path, attempt=attempt)
        self._old_tags[change] = (volume.path, add, remove)
        self._look(sorted({target.vg for target in self.targets}))
        return {"snapshot": view.as_snapshot(self._target(change), self._snapshot(change)).as_result()}

    def _clone(self, change: Change) -> Mapping[str, Any]:
        """Make a writable volume of a thin snapshot, active as a volume is."""
        snapshot, target = self._snapshot(change), self._target(change)
        vg, lv = names.parse_volume(str(change.arguments["clone"]))
        record = {"name": change.name, "of": target.uuid, "uuid": snapshot.uuid, "at": self.options.now()}
        self.lvm.change(
            "lvcreate", "--snapshot", "--name", lv, "--setactivationskip", "n", "--activate", "y", "--permission", "rw",
            *tags.arguments(tags.encode(tags.CLONE, record)), snapshot.path,
            attempt=f"clone {change.name!r} of {change.target} to {vg}/{lv}",
        )  # fmt: skip
        return {"clone": f"{vg}/{lv}", "device": f"/dev/{vg}/{lv}"}

    def _return(self, change: Change) -> Mapping[str, Any]:
        if change in self._merges:
            return self._merge(change)
        switch = self._switches[change]
        switching.place(self.lvm, switch, self.options.command_timeout)
        points = [each.mount_point for each in busy.mounted(switch.target.device)] if not switch.mounts else []
        told = dict(switching.effect(points, switch.target.is_open and not switch.mounts))
        if switch.keep:
            told["aside"] = {"name": switch.aside[len(switch.target.name) + 1 :], "lv": switch.aside}
        return told

    def _merge(self, change: Change) -> Mapping[str, Any]:
        """Begin a merge. The record of it comes first: a run that is killed in between merges, and knows it."""
        target, snapshot = self._merges[change]
        record = merging.return_record(change, snapshot, self.options.now(), "merge")
        mounts = busy.mounted(target.device) if self.options.unmount else []
        mark = {"change": recovery.MERGE, "mounts": busy.note(mounts), "boot": busy.boot_id()}
        add = [*tags.encode(tags.RETURN, record), *(tags.encode(tags.PENDING, mark) if mounts else [])]
        remove = merging.superfluous(target, change.name, self.report)
        attempt = f"return {target.path} to snapshot {change.name!r}"
        self.lvm.change("lvchange", *tags.arguments(add, remove), target.path, attempt=attempt)
        failures: list[RestorePointError] = []
        try:
            with busy.unmounted(mounts, target.path, self.options.command_timeout, failures):
                merging.begin(self.lvm, target, snapshot, change)
        except RestorePointError as error:
            found = self.lvm.report([target.vg]).by_uuid(snapshot.uuid)
            if found is not None and not found.merging:
                # The mark of what is not mounted again stays: the next run does it.
                self.warnings += map(str, failures)
                add = tags.encode(tags.RETURN, record) if failures else add
                self.lvm.change("lvchange", *tags.arguments(remove=add), target.path, attempt=attempt)
                raise
            # Taking nothing back is the truth.
            self.warnings.append(f"{target.path}: the merge has begun, although this was said: {error}")
        if failures:
            self._unmounted[change] = busy.note(mounts)
        aside = self._asides.get(change)
        return {"aside": {"name": aside.lv[len(target.name) + 1 :], "lv": aside.lv}} if aside is not None else {}

    def settle(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Wait until merges have drained. See core/backend.py."""
        outcomes: list[Outcome] = [{} for _unused in changes]
        waiting = [index for index, change in enumerate(changes) if change in self._merges]
        if waiting:
            waits = merging.Waiting(self.lvm, self.options)
            found = waits.wait([(changes[index], *self._merges[changes[index]]) for index in waiting])
            for index, outcome in zip(waiting, found):
                outcomes[index] = outcome
        for index, change in enumerate(changes):
            if change in self._unmounted:
                outcomes[index] = self._mounted_at_last(change, outcomes[index])
        return outcomes

    def _mounted_at_last(self, change: Change, outcome: Outcome) -> Outcome:
        """Mount what could not be mounted right after a merge had begun; where that is so still, it fails."""
        target, _unused = self._merges[change]
        try:
            busy.mount_again(self._unmounted[change], target.path, self.options.command_timeout)
        except RestorePointError as error:
            if not isinstance(outcome, RestorePointError):
                return error
            self.warnings.append(str(error))
        else:
            del self._unmounted[change]
        return outcome

    def spend(self, target: str, token: str) -> None:
        """Remember that a token is used up. See core/backend.py."""
        volume = next(self.volume(each) for each in self.targets if str(each) == target)
        if token in view.spent_tokens(View(self.report), volume):
            return
        record = {"name": self._desired.name, "uuid": "", "at": self.options.now(), "once": token, "how": "found"}
        words = tags.arguments(tags.encode(tags.RETURN, record))
        self.lvm.change("lvchange", *words, volume.path, attempt=f"remember once: {token} for {target}")

    def undo(self, change: Change) -> None:
        """Take back what was committed. See core/backend.py."""
        attempt = f"take back the change of {change.name!r} on {change.target}"
        if change in self._made:
            self.lvm.change("lvremove", self._made.pop(change).path, attempt=attempt)
        elif change in self._switches:
            switching.take_back(self.lvm, self._switches.pop(change), self.options.command_timeout)
        elif change in self._old_tags:
            path, added, removed = self._old_tags.pop(change)
            self.lvm.change("lvchange", *tags.arguments(removed, added), path, attempt=attempt)
        elif change.verb == core.CLONE:
            vg, lv = names.parse_volume(str(change.arguments["clone"]))
            self.lvm.change("lvremove", f"{vg}/{lv}", attempt=attempt)
        elif change.verb == core.ROLL_BACK:
            raise RestorePointError(attempt, "LVM cannot stop a merge", "take it from a backup if that was wrong")
        else:
            raise RestorePointError(attempt, "LVM cannot bring back what was removed", "look at what is left")

    def abandon(self, change: Change) -> None:
        """Give up what was prepared. See core/backend.py."""
        attempt = f"give up what was begun for {change.name!r} on {change.target}"
        if change in self._made:
            self.lvm.change("lvremove", self._made.pop(change).path, attempt=attempt)
        aside = self._asides.pop(change, None)
        if aside is not None:
            self.lvm.change("lvremove", aside.path, attempt=attempt)
        switch = self._switches.pop(change, None)
        if switch is not None and self.lvm.report([switch.target.vg]).find(switch.target.vg, switch.lv) is not None:
            self.lvm.change("lvremove", switch.new_path, attempt=attempt)

    def finish(self, change: Change) -> Sequence[str]:
        """Remove what was replaced, and the marks of changes under way. See core/backend.py."""
        making = self._made.pop(change, None)
        if making is not None and making.replaces is not None:
            report = self.lvm.report([making.origin.vg])
            new, old = report.find(making.origin.vg, making.lv), report.by_uuid(making.replaces.uuid)
            if new is not None:
                recovery.complete_replacement(self.lvm, new, old, making.final, report)
        switch = self._switches.pop(change, None)
        aside = self._asides.pop(change, None)
        merge = self._merges.pop(change, None)
        if switch is not None or aside is not None or (merge is not None and self.options.unmount):
            self._clear_marks(change, switch, aside)
        return []

    def _clear_marks(self, change: Change, switch: Switch | None, aside: Making | None) -> None:
        target = next(each for each in self.targets if str(each) == change.target)
        report = self.lvm.report([target.vg])
        there = report.find(target.vg, target.lv)
        if switch is not None and there is not None:
            switching.finish(self.lvm, switch, there)
        elif there is not None and change not in self._unmounted:
            switching.clear(self.lvm, there, f"complete the return of {target}")
        kept = report.find(target.vg, aside.lv) if aside is not None else None
        if kept is not None:
            switching.clear(self.lvm, kept, f"complete the return of {target}")


def _not_removed(volume: Volume) -> RestorePointError:
    attempt = f"remove {volume.path}"
    return RestorePointError(attempt, "lvremove ended well, but the volume is still there", commands.REMEDY)
