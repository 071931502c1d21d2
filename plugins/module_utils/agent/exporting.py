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
    Index,
    Point,
    Step,
    bookmarked,
    needed_names,
    steps_for_files,
)
from ..core.retention import RetentionPolicy
from ..core.snapshot import Snapshot
from ..core.units import format_size
from ..engine.policy import Policy, Target
from ..interrupts import Interrupts
from ..offsite import zfs
from ..offsite.files import Folder
from .progress import Shown
from .running import BUSY, DONE, FAILED, INTERRUPTED, KILLED, RUNNING, UNCHANGED, is_due, members
from .state import State, new_line

#: How many names a mark holds, and how many failures a line.
_MOST_NAMES, _TOLD = 200, 20
#: What became of a target, where that has changed its destination.
CHANGES = ("exported", "forgotten")


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


class Outcomes:
    """What became of each target at each destination, in ``results``."""

    #: What is attempted, for the message where a target fails.
    attempt = "export"

    def __init__(self) -> None:
        self.results: list[dict[str, Any]] = []

    def tried(self, destination: Destination, target: str, work: Callable[[], None]) -> None:
        """Do it; a failure is noted, and the others go on."""
        try:
            work()
        except RestorePointError as error:
            self.tell(destination, target, "failed", reason=str(error))
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            reason = f"Cannot {self.attempt} {target}: {place}{error.strerror}."
            self.tell(destination, target, "failed", reason=reason)

    def tell(self, destination: Destination, target: str, action: str, **more: Any) -> None:
        """Note what became of a target."""
        self.results.append({"destination": destination.name, "target": target, "action": action, **more})


class Exporting(Outcomes):
    """One export of a policy, from its lock to its line in the journal. See Running for the arguments."""

    def __init__(
        self, state: State, policy: Policy, now: Callable[[], int], interrupts: Interrupts, shown: Shown | None = None
    ) -> None:
        super().__init__()
        self._state, self._policy, self.now = state, policy, now
        self._interrupts, self.shown = interrupts, shown
        self._mark = state.mark(f"{policy.name}.export")
        self.here = zfs.Side()
        self.kinds: dict[str, zfs.Held] = {}
        self.warnings: list[str] = []
        self.record: dict[str, Any] = {}
        self.freed_bytes = 0

    def is_due(self, ahead: int = 0) -> bool:
        """Say whether a moment of its schedule has passed since the last export that succeeded was begun."""
        last = self._state.last_of(self._policy.name, "export")
        return is_due(self._policy.export_due, last, self.now() + ahead)

    def export(self, only: Sequence[str], force: bool, wait: float, if_due: bool = False) -> dict[str, Any]:
        """Bring what they lack to the destinations of these names, or to all; return the record.

        Raises InvalidInput where there is no such destination.
        """
        destinations = chosen(self._policy, only)
        begun = time.monotonic()
        self.record = {**new_line("export", self._policy.name, self.now()), "outcome": RUNNING}
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
            found = found_targets(self._policy, destinations, self.now, self.warnings)
            for destination in destinations:
                self._to(destination, [each for each in found if each.backend.name in destination.backends], force)
            failed = [each for each in self.results if each["action"] == "failed"]
            changed = any(each["action"] in CHANGES for each in self.results)
            self.record["outcome"] = FAILED if failed else DONE if changed else UNCHANGED
            if failed:
                self.record["reason"] = "; ".join(dict.fromkeys(each["reason"] for each in failed[:_TOLD]))
        except KeyboardInterrupt as error:
            self.record.update(outcome=INTERRUPTED, reason=f"interrupted by {error}")
        except RestorePointError as error:
            self.record.update(outcome=FAILED, reason=str(error))
        except OSError as error:
            self.record.update(outcome=FAILED, reason=f"{error.filename or 'the disk'}: {error.strerror}")
        finally:
            if self.shown:
                self.shown.clear()

    def _end(self, begun: float, everywhere: bool) -> None:
        with self._interrupts.held():
            self.record["seconds"] = round(time.monotonic() - begun, 3)
            self.record["targets"] = list(dict.fromkeys(each["target"] for each in self.results))
            self.record["sent_bytes"] = sum(each.get("bytes", 0) for each in self.results)
            self.record["freed_bytes"] = self.freed_bytes
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
            elif each["action"] in CHANGES and line["outcome"] == UNCHANGED:
                line["outcome"] = DONE
        return list(found.values())

    # -- one destination -----------------------------------------------------------------------------------------------

    def _to(self, destination: Destination, found: Sequence[Found], force: bool) -> None:
        if destination.kind == "restic":
            from .exporting_restic import to_repository

            self.tried(destination, "*", lambda: to_repository(self, destination, found))
            return
        datasets = [each.target for each in found]
        marks = self.here.bookmarks(datasets) if found else {}
        self.kinds = self.here.kinds(datasets) if found else {}
        for each in found:
            if not each.own:
                self.warnings.append(f"{each.shown} has no restore point of {self._policy.name} yet")
                continue
            known = marks[each.target]
            send = functools.partial(self._to_file, destination, each, known)
            if destination.kind == "zfs":
                from .exporting_zfs import Copying, to_dataset

                send = functools.partial(to_dataset, self, Copying(destination, each, known, force))
            self.tried(destination, each.shown, send)

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
        shown = self.shown

        def tell(count: int) -> None:
            if shown:
                shown.tell(f"exporting {target}", None, [format_size(count)])

        return tell

    def remember(self, destination: Destination, found: Found, name: str, guid: str, known: list[Point]) -> None:
        """Bookmark what a destination holds now, where it is one of our own. Brings ``known`` up to date."""
        ours = [each for each in found.own if each.name == name and str(each.extra["guid"]) == guid]
        if ours:
            point = Point(name, guid, int(ours[0].extra["createtxg"]))
            self.here.remember(found.target, destination.name, point, known)

    def _to_file(self, destination: Destination, found: Found, known: list[Point]) -> None:
        source, params = found.target, destination.params
        origin = self.kinds[source]
        folder = Folder(params["path"], source)
        index = folder.look(self._policy.name) or Index(source, self._policy.name, kind=origin.kind)
        folder.make()
        after = params["whole_after"]
        steps = steps_for_files(points_of(found, known), index.parts, params["newest_only"], after)
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
            self.remember(destination, found, index.parts[-1].name, index.parts[-1].guid, known)

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


def points_of(found: Found, known: Sequence[Point]) -> list[Point]:
    """Return what streams of a dataset may carry and start from."""
    names = {each.name for each in found.own}
    points = [
        Point(each.name, str(each.extra["guid"]), int(each.extra["createtxg"]), own=each.name in names)
        for each in found.all
    ]
    return [*points, *(each for each in known if bookmarked(each.name))]
