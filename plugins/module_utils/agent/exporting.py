# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One export of a policy: what its destinations lack is brought there, with a line in the journal. Called by `cli`.

It has a lock of its own, since a run must not wait for a slow line. What it is sending is noted in its mark: the keep
rules leave that alone, also after a kill, so that the next export can go on. Each destination and each target is tried,
whatever becomes of the others.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any, Callable

from ..core.backend import Desired
from ..core.errors import InvalidInput, LockTimeout, RestorePointError
from ..core.offsite import (
    Destination,
    Diverged,
    Index,
    Point,
    Step,
    bookmarked,
    needed_names,
    steps_for_files,
    steps_to,
)
from ..core.retention import RetentionPolicy
from ..core.snapshot import Snapshot
from ..core.units import format_size
from ..engine.policy import Policy, Target
from ..interrupts import Interrupts
from ..offsite import streams, zfs
from ..offsite.files import Folder
from .progress import Shown
from .running import BUSY, DONE, FAILED, INTERRUPTED, KILLED, RUNNING, UNCHANGED, is_due, members
from .state import State, new_line

#: How many names a mark holds, and how many failures a line.
_MOST_NAMES, _TOLD = 200, 20


class Found:
    """A target as an export sees it: its backend, and the policy's own usable snapshots of it, the oldest first."""

    def __init__(self, label: str, backend: Any, target: str, snapshots: Sequence[Snapshot], policy: str) -> None:
        self.backend = backend
        #: What runs of the policy call it.
        self.labelled = f"{label}:{target}"
        self.target = target
        self.all = snapshots
        own = [each for each in snapshots if each.owner == policy and each.ready]
        self.own = sorted(own, key=lambda each: each.order)

    @property
    def shown(self) -> str:
        """What results call it."""
        return f"{self.backend.name}:{self.target}"

    def find(self, name: str) -> Snapshot:
        """Return one of its own snapshots, which is there."""
        return next(each for each in self.own if each.name == name)


def found_targets(
    policy: Policy, destinations: Sequence[Destination], now: Callable[[], int], warnings: list[str]
) -> list[Found]:
    """Return what goes to these destinations, with what there is of each. Touches nothing. Raises RestorePointError."""
    wanted = {backend for each in destinations for backend in each.backends}
    targets = [each for each in policy.targets if each.backend in wanted]
    desired = Desired(state="pruned", owner=policy.name, retention=RetentionPolicy())
    found: list[Found] = []
    for member in members(policy, targets, now):
        backend: Any = member.backend
        backend.check(desired)
        with backend.session(writing=False):
            situations = backend.situations(desired)
        warnings += backend.warnings
        found += [Found(member.label, backend, each.target, each.snapshots, policy.name) for each in situations]
    return found


def needed(state: State, policy: Policy, targets: Sequence[Target]) -> dict[tuple[str, str], str]:
    """Return the snapshots of these targets that the keep rules leave alone, with the reason, by target and name.

    They are the last ones that a destination holds as well, and those that an export is sending, or was when it was
    killed. Raises ToolError.
    """
    streamed = [each.name for each in policy.exports if each.kind in ("zfs", "file")]
    found: dict[tuple[str, str], str] = {}
    datasets = [name for each in targets if each.backend == "zfs" for name in each.params["dataset"]]
    if streamed and datasets:
        recursive = any(each.params["recursive"] for each in targets if each.backend == "zfs")
        marks = zfs.Side().all_bookmarks(datasets, recursive)
        found = {(f"zfs:{dataset}", name): why for (dataset, name), why in needed_names(marks, streamed).items()}
    mark = state.mark(f"{policy.name}.export").read() if policy.exports else None
    for target, name in (mark or {}).get("sending", ()):
        found[(target, name)] = "an export is sending it, or goes on with it"
    return found


class Exporting:
    """One export of a policy, from its lock to its line in the journal. See Running for the arguments."""

    def __init__(
        self, state: State, policy: Policy, now: Callable[[], int], interrupts: Interrupts, shown: Shown | None = None
    ) -> None:
        self._state, self._policy, self._now = state, policy, now
        self._interrupts, self._shown = interrupts, shown
        self._mark = state.mark(f"{policy.name}.export")
        self._here = zfs.Side()
        self._kinds: dict[str, zfs.Held] = {}
        self.warnings: list[str] = []
        self.record: dict[str, Any] = {}
        self.results: list[dict[str, Any]] = []

    def is_due(self, ahead: int = 0) -> bool:
        """Say whether a moment of its schedule has passed since the last export that succeeded was begun."""
        last = self._state.last_of(self._policy.name, "export")
        return is_due(self._policy.export_due, last, self._now() + ahead)

    def export(self, only: Sequence[str], force: bool, wait: float, if_due: bool = False) -> dict[str, Any]:
        """Bring what they lack to the destinations of these names, or to all; return the record.

        Raises InvalidInput where there is no such destination.
        """
        destinations = chosen(self._policy, only)
        begun = time.monotonic()
        self.record = {**new_line("export", self._policy.name, self._now()), "outcome": RUNNING}
        try:
            with self._state.lock(f"{self._policy.name}.export", wait):
                self._recover()
                self._mark.write({"record": self.record, "sending": self._sending()})
                if if_due and not self.is_due():
                    self.record.update(outcome=UNCHANGED, reason="it is not due")
                else:
                    self._guarded(destinations, force)
                self._end(begun, everywhere=not only)
        except LockTimeout as error:
            self.record.update(outcome=BUSY, reason=str(error), seconds=round(time.monotonic() - begun, 3))
            self._state.append(self.record)
        return self.record

    def _sending(self) -> list[Any]:
        return list((self._mark.read() or {}).get("sending", ()))

    def recover(self) -> bool:
        """Write the line of an export that was killed; say whether there was one. None is while one is under way."""
        with contextlib.suppress(LockTimeout), self._state.lock(f"{self._policy.name}.export", 0.0):
            return self._recover()
        return False

    def _recover(self) -> bool:
        record = (self._mark.read() or {}).get("record")
        if record:
            record.update(outcome=KILLED, reason="it was killed, or the machine went down; the next export goes on")
            self._state.append(record)
            # What it was sending stays, so that the next one can go on with it.
            self._mark.write({"record": None, "sending": self._sending()})
        return bool(record)

    def _guarded(self, destinations: Sequence[Destination], force: bool) -> None:
        try:
            if any(each.idle for each in destinations):
                from ..linux import set_idle_priority

                set_idle_priority()
            found = found_targets(self._policy, destinations, self._now, self.warnings)
            for destination in destinations:
                self._to(destination, [each for each in found if each.backend.name in destination.backends], force)
            failed = [each for each in self.results if each["action"] == "failed"]
            moved = any(each["action"] == "exported" for each in self.results)
            self.record["outcome"] = FAILED if failed else DONE if moved else UNCHANGED
            if failed:
                self.record["reason"] = "; ".join(dict.fromkeys(each["reason"] for each in failed[:_TOLD]))
        except KeyboardInterrupt as error:
            self.record.update(outcome=INTERRUPTED, reason=f"interrupted by {error}")
        except RestorePointError as error:
            self.record.update(outcome=FAILED, reason=str(error))
        except OSError as error:
            self.record.update(outcome=FAILED, reason=f"{error.filename or 'the disk'}: {error.strerror}")
        finally:
            if self._shown:
                self._shown.clear()

    def _end(self, begun: float, everywhere: bool) -> None:
        with self._interrupts.held():
            self.record["seconds"] = round(time.monotonic() - begun, 3)
            self.record["targets"] = list(dict.fromkeys(each["target"] for each in self.results))
            self.record["sent_bytes"] = sum(each.get("bytes", 0) for each in self.results)
            counts: dict[str, int] = {}
            for each in self.results:
                if each["action"] != "unchanged":
                    counts[each["action"]] = counts.get(each["action"], 0) + 1
            self.record["done"] = counts
            self.record["destinations"] = self._summed()
            self.record["warnings"] = self.warnings[:_TOLD]
            if everywhere and self.record["outcome"] in (DONE, UNCHANGED):
                with contextlib.suppress(OSError):
                    last = self._state.last_of(self._policy.name, "export")
                    last.write({"started_epoch": self.record["started_epoch"]})
            self._state.append(self.record)
            # What was not sent stays until it is: an interrupted receive goes on with it.
            left = self._sending() if self.record["outcome"] in (FAILED, INTERRUPTED) else []
            self._mark.write({"record": None, "sending": left}) if left else self._mark.remove()

    def _summed(self) -> list[dict[str, Any]]:
        """Return how each destination ended, in one line for each."""
        found: dict[str, dict[str, Any]] = {}
        for each in self.results:
            line = found.setdefault(each["destination"], {"destination": each["destination"], "outcome": UNCHANGED})
            if each["action"] == "failed":
                line["outcome"] = FAILED
            elif each["action"] == "exported" and line["outcome"] == UNCHANGED:
                line["outcome"] = DONE
        return list(found.values())

    # -- one destination -----------------------------------------------------------------------------------------------

    def _to(self, destination: Destination, found: Sequence[Found], force: bool) -> None:
        if destination.kind == "restic":
            from .exporting_restic import to_repository

            self._tried(destination, "*", lambda: to_repository(self, destination, found))
            return
        datasets = [each.target for each in found]
        marks = self._here.bookmarks(datasets) if found else {}
        self._kinds = self._here.kinds(datasets) if found else {}
        send = self._to_file if destination.kind == "file" else self._to_zfs
        for each in found:
            if not each.own:
                self.warnings.append(f"{each.shown} has no restore point of {self._policy.name} yet")
                continue
            self._tried(destination, each.shown, functools.partial(send, destination, each, marks[each.target], force))

    def _tried(self, destination: Destination, target: str, work: Callable[[], None]) -> None:
        """Do it; a failure is noted, and the others go on."""
        try:
            work()
        except RestorePointError as error:
            self.tell(destination, target, "failed", reason=str(error))
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            self.tell(destination, target, "failed", reason=f"Cannot export {target}: {place}{error.strerror}.")

    def tell(self, destination: Destination, target: str, action: str, **more: Any) -> None:
        """Note what became of a target."""
        self.results.append({"destination": destination.name, "target": target, "action": action, **more})

    @contextlib.contextmanager
    def sending(self, target: str, step: Step) -> Iterator[None]:
        """Note what is being sent, and forget it when it has arrived. A failure leaves the note."""
        others = [each for each in self._sending() if each[0] != target]
        points = [each for each in (step.base, step.point) if each is not None and not each.bookmark]
        names = [*others, *([target, each.name] for each in points)][-_MOST_NAMES:]
        self._mark.write({"record": self.record, "sending": names})
        yield
        self._mark.write({"record": self.record, "sending": others})

    @contextlib.contextmanager
    def reading(self, target: str, name: str) -> Iterator[None]:
        """Note what is being read, so that no keep rule takes it away meanwhile."""
        others = self._sending()
        self._mark.write({"record": self.record, "sending": [*others, [target, name]]})
        try:
            yield
        finally:
            self._mark.write({"record": self.record, "sending": others})

    def told(self, target: str) -> Callable[[int], None]:
        """Return what shows how far a stream has got."""
        shown = self._shown

        def tell(count: int) -> None:
            if shown:
                shown.tell(f"exporting {target}", None, [format_size(count)])

        return tell

    def _to_zfs(self, destination: Destination, found: Found, known: list[Point], force: bool) -> None:
        source, params = found.target, destination.params
        side = zfs.Side(ssh=params["ssh"])
        target = f"{params['dataset']}/{source.replace('/', ':')}"
        attempt = f"export {source} to {target}{side.place}"
        if f"{target}/".startswith(f"{source}/") and side.ssh is None:
            raise InvalidInput(attempt, "it would be a part of itself", "name a dataset elsewhere")
        origin = self._kinds[source]
        there = side.look(target)
        if there is None and side.look(params["dataset"]) is None:
            reason = f"there is no {params['dataset']}{side.place}"
            raise RestorePointError(attempt, reason, "create it first, with `zfs create`")
        moved = 0
        if there is not None and there.token:
            told = self.told(found.shown)
            moved = zfs.resume(self._here, side, source, target, there, destination.bandwidth, attempt, told)
            there = side.look(target)
        if there is not None and not there.points:
            way = "rename it, or destroy it if it is not needed"
            raise RestorePointError(attempt, "there is a dataset of that name without any snapshot", way)
        name = self._arrived(destination, found, there, known)
        steps = steps_to(_points(found, known), there.points if there else (), params["newest_only"], force)
        if isinstance(steps, Diverged):
            way = "say --force if that may go, or " if steps.forced else ""
            raise RestorePointError(attempt, steps.reason, f"{way}rename {target}{side.place}, and a new copy begins")
        for number, step in enumerate(steps.steps):
            with self.sending(found.labelled, step):
                send = zfs.sending(source, step, origin.encrypted, params["properties"])
                receive = side.argv(*zfs.receiving(target, source, origin.kind, steps.rollback and not number))
                remedy = "see to that; the next export goes on where it ended"
                told = self.told(found.shown)
                moved += streams.pump([send], receive, attempt, remedy, destination.bandwidth, told).bytes
                name = self._arrived(destination, found, side.look(target), known)
                if name != step.point.name:
                    way = "look at both sides with `zfs list -t all`"
                    raise RestorePointError(attempt, f"{step.point.name} was sent, and has not arrived", way)
        self.tell(destination, found.shown, "exported" if moved else "unchanged", name=name, bytes=moved)

    def _arrived(
        self, destination: Destination, found: Found, there: zfs.Held | None, known: list[Point]
    ) -> str | None:
        """Return the name of the newest snapshot there, and remember it where it is one of ours."""
        if there is None or not there.points:
            return None
        newest = there.points[-1]
        self._remember(destination, found, newest.name, newest.guid, known)
        return newest.name

    def _remember(self, destination: Destination, found: Found, name: str, guid: str, known: list[Point]) -> None:
        ours = [each for each in found.own if each.name == name and str(each.extra["guid"]) == guid]
        if ours:
            point = Point(name, guid, int(ours[0].extra["createtxg"]))
            self._here.remember(found.target, destination.name, point, known)

    def _to_file(self, destination: Destination, found: Found, known: list[Point], force: bool) -> None:
        source, params = found.target, destination.params
        attempt = f"export {source} to {params['path']}"
        origin = self._kinds[source]
        folder = Folder(params["path"], source)
        folder.make()
        index = folder.index() or Index(source, self._policy.name, kind=origin.kind)
        if index.policy != self._policy.name:
            raise RestorePointError(attempt, f"{folder.path} is of policy {index.policy}", "name another folder")
        after = params["whole_after"]
        steps = steps_for_files(_points(found, known), index.parts, params["newest_only"], after)
        moved = 0
        self._noted(destination, found, index, known)
        for step in steps.steps:
            with self.sending(found.labelled, step):
                index = self._write(folder, index, step, found, destination, origin.encrypted)
                moved += index.parts[-1].bytes
                self._noted(destination, found, index, known)
        name = index.parts[-1].name if index.parts else None
        index, _unused = folder.thin_out(index, params["chains"])
        self.tell(destination, found.shown, "exported" if moved else "unchanged", name=name, bytes=moved)

    def _noted(self, destination: Destination, found: Found, index: Index, known: list[Point]) -> None:
        """Remember the last snapshot in a folder, where it is still here."""
        if index.parts:
            self._remember(destination, found, index.parts[-1].name, index.parts[-1].guid, known)

    def _write(
        self, folder: Folder, index: Index, step: Step, found: Found, destination: Destination, raw: bool
    ) -> Index:
        params = destination.params
        send = zfs.sending(found.target, step, raw, params["properties"])
        created = found.find(step.point.name).created
        told = self.told(found.shown)
        return folder.write(index, step, send, params["compression"], created, raw, destination.bandwidth, told)


def chosen(policy: Policy, only: Sequence[str]) -> list[Destination]:
    """Return the destinations of a policy, or those of these names. Raises InvalidInput."""
    known = {each.name: each for each in policy.exports}
    if not known:
        raise InvalidInput(f"export policy {policy.name}", "it has no key export", "see docs/offsite.md")
    for name in only:
        if name not in known:
            raise InvalidInput(f"use destination {name}", "there is none", f"name one of {', '.join(known)}")
    return [known[name] for name in only] if only else list(known.values())


def _points(found: Found, known: Sequence[Point]) -> list[Point]:
    """Return what streams of a dataset may carry and start from."""
    names = {each.name for each in found.own}
    points = [
        Point(each.name, str(each.extra["guid"]), int(each.extra["createtxg"]), own=each.name in names)
        for each in found.all
    ]
    return [*points, *(each for each in known if bookmarked(each.name))]
