# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a destination holds of a policy, and its return into a new dataset or an empty folder. Called by `cli`.

Nothing that exists is ever received over. What is received is proven first, as far as the destination can: files by
their SHA-256, restic by reading back what it wrote. A dataset bears a mark until all of it is there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from typing import Any, Callable

from ..core.errors import InvalidInput, LockTimeout, RestorePointError
from ..core.offsite import Index, Step
from ..core.snapshot import timestamp
from ..engine.policy import Policy
from ..interrupts import Interrupts
from ..offsite import streams, zfs
from ..offsite.files import Folder, datasets_in
from ..offsite.restic import Kept, Repository
from .exporting import chosen
from .running import DONE, FAILED, INTERRUPTED
from .state import State, new_line

#: What lies in a folder while an import into it is under way.
UNDER_WAY = ".restorepoint-import"


class Importing:
    """A destination of a policy, to look at and to restore from."""

    def __init__(self, state: State, policy: Policy, destination: str, now: Callable[[], int]) -> None:
        (self._destination,) = chosen(policy, [destination])
        self._state, self._policy, self._now = state, policy, now
        self._here = zfs.Side()

    # -- looking -------------------------------------------------------------------------------------------------------

    def holdings(self) -> list[dict[str, Any]]:
        """Return what is there: target, name, created, bytes where known. Raises RestorePointError."""
        look = {"zfs": self._list_zfs, "file": self._list_files, "restic": self._list_restic}[self._destination.kind]
        return look()

    def _list_zfs(self) -> list[dict[str, Any]]:
        side = zfs.Side(ssh=self._destination.params["ssh"])
        return [
            {
                "target": f"zfs:{source}",
                "name": point.name,
                "created": None,
                "bytes": None,
                "place": f"{name}@{point.name}",
            }
            for source, (name, held) in side.copies(self._destination.params["dataset"]).items()
            for point in held.points
        ]

    def _list_files(self) -> list[dict[str, Any]]:
        found = []
        for dataset in datasets_in(self._destination.params["path"]):
            folder = Folder(self._destination.params["path"], dataset)
            index = folder.index()
            for part in index.parts if index else ():
                place = os.path.join(folder.path, part.file)
                row = {"target": f"zfs:{dataset}", "name": part.name, "created": timestamp(part.created)}
                found.append({**row, "bytes": part.bytes, "place": place})
        return found

    def _list_restic(self) -> list[dict[str, Any]]:
        return [
            {
                "target": each.target,
                "name": each.name,
                "created": timestamp(each.created),
                "bytes": None,
                "place": each.id,
            }
            for each in Repository(self._destination, self._policy.name).kept()
        ]

    # -- restoring -----------------------------------------------------------------------------------------------------

    def restore(self, target: str, name: str, into: str, interrupts: Interrupts) -> dict[str, Any]:
        """Restore one target, with or without its backend before it, as ``name`` has it; return the record.

        Raises InvalidInput, and LockTimeout where another import of the policy is under way.
        """
        begun = time.monotonic()
        record = {**new_line("import", self._policy.name, self._now()), "name": name}
        record.update(targets=[target], destination=self._destination.name, into=into)
        work = {"zfs": self._from_zfs, "file": self._from_files, "restic": self._from_restic}[self._destination.kind]
        with self._state.lock(f"{self._policy.name}.import", 0.0):
            try:
                work(target, name, into)
                record["outcome"] = DONE
            except KeyboardInterrupt as error:
                record.update(outcome=INTERRUPTED, reason=f"interrupted by {error}")
            except (InvalidInput, LockTimeout):
                raise
            except RestorePointError as error:
                record.update(outcome=FAILED, reason=str(error))
            except OSError as error:
                record.update(outcome=FAILED, reason=f"{error.filename or into}: {error.strerror}")
            with interrupts.held():
                record["seconds"] = round(time.monotonic() - begun, 3)
                self._state.append(record)
        return record

    def _attempt(self, target: str, name: str) -> str:
        return f"import {name} of {target} from {self._destination.name}"

    def _missing(self, target: str, name: str) -> RestorePointError:
        return InvalidInput(self._attempt(target, name), "it is not there", "see what is there, without --name")

    def _new_dataset(self, into: str, attempt: str) -> None:
        """Raise unless a dataset of that name could be made."""
        from ..backends.zfs.names import check_dataset

        check_dataset(into)
        if self._here.look(into) is None:
            return
        marks = self._here.table(
            ("name", "value"), "get", "-Hp", "-o", "name,value", zfs.IMPORTING, into, attempt=attempt
        )
        if any(value != "-" for _name, value in marks):
            reason, way = "an import into it was interrupted", f"remove what it left with `zfs destroy -r {into}`"
            raise InvalidInput(attempt, f"{into}: {reason}", way)
        raise InvalidInput(attempt, f"{into} exists", "name a new dataset")

    def _receive(
        self, sends: Sequence[Sequence[str]], receive: Sequence[str], into: str, attempt: str, guids: Sequence[str]
    ) -> None:
        """Receive one stream after the other, the last of which brings the last guid; what is not whole goes."""
        try:
            for number, send in enumerate(sends):
                argv = zfs.importing(into, receive, whole=not number)
                remedy = "see to that; nothing is left of this import"
                streams.pump([send], argv, attempt, remedy, self._destination.bandwidth)
            there = self._here.look(into)
            if there is None or not there.points or there.points[-1].guid != guids[-1]:
                raise RestorePointError(attempt, "what arrived is not what was asked for", "look at `zfs list -t all`")
            self._here.run("inherit", zfs.IMPORTING, into, attempt=attempt)
        except BaseException:
            with contextlib.suppress(RestorePointError):
                self._take_back(into, guids, attempt)
            raise

    def _take_back(self, into: str, guids: Sequence[str], attempt: str) -> None:
        """Remove what was received: it was not there before, and holds nothing but what was sent."""
        there = self._here.look(into)
        if there is not None and there.points and {each.guid for each in there.points} <= set(guids):
            self._here.run("destroy", "-r", into, attempt=attempt)

    def _from_zfs(self, target: str, name: str, into: str) -> None:
        attempt = self._attempt(target, name)
        side = zfs.Side(ssh=self._destination.params["ssh"])
        source, held = side.copies(self._destination.params["dataset"]).get(_plain(target), ("", None))
        point = next((each for each in held.points if each.name == name), None) if held else None
        if held is None or point is None:
            raise self._missing(target, name)
        self._new_dataset(into, attempt)
        send = zfs.sending(source, Step(point), held.encrypted, properties=True)
        received = []
        if held.encrypted:
            # With -b the key's place is missing in a raw stream, upon which `zfs receive` (2.1) aborts in the middle.
            received = ["-x", "readonly", "-x", zfs.SOURCE, *(["-x", "canmount"] if held.kind == "filesystem" else [])]
        else:
            # What was received with it, and not what makes a copy of it, such as readonly.
            send.insert(2, "-b")
        received += zfs.unmounted(held.kind)
        self._receive([side.argv(*send)], received, into, attempt, [point.guid])

    def _from_files(self, target: str, name: str, into: str) -> None:
        attempt = self._attempt(target, name)
        folder = Folder(self._destination.params["path"], _plain(target))
        index: Index | None = folder.index()
        parts = index.find(name) if index else ()
        if index is None or not parts:
            raise self._missing(target, name)
        self._new_dataset(into, attempt)
        folder.prove(parts)
        sends, guids = [folder.reading(each) for each in parts], [each.guid for each in parts]
        self._receive(sends, zfs.unmounted(index.kind), into, attempt, guids)

    def _from_restic(self, target: str, name: str, into: str) -> None:
        repository = Repository(self._destination, self._policy.name)
        found = [
            each for each in repository.kept() if each.name == name and target in (each.target, _plain(each.target))
        ]
        if not found:
            raise self._missing(target, name)
        attempt = self._attempt(target, name)
        if not os.path.isabs(into) or not os.path.isdir(into) or os.listdir(into):
            raise InvalidInput(attempt, f"{into} is no empty folder", "name an empty folder by its absolute path")
        _restore(repository, found[-1], into)


def _restore(repository: Repository, kept: Kept, into: str) -> None:
    """Restore beside, inside of the folder, and then move it to its place: by renames, which cost no room."""
    scratch = os.path.join(into, UNDER_WAY)
    os.mkdir(scratch, 0o700)
    try:
        repository.restore(kept, scratch)
        top = os.path.join(scratch, kept.path.strip("/"))
        found = os.lstat(top)
        for each in os.listdir(top):
            os.rename(os.path.join(top, each), os.path.join(into, each))
        os.chown(into, found.st_uid, found.st_gid)
        shutil.copystat(top, into)
        shutil.rmtree(scratch)
        os.utime(into, ns=(found.st_atime_ns, found.st_mtime_ns))
    except BaseException:
        # Moves go back nowhere: with the scratch folder there, nobody takes it for whole.
        if os.listdir(into) == [UNDER_WAY]:
            shutil.rmtree(scratch, ignore_errors=True)
        raise


def _plain(target: str) -> str:
    """Return a target without the name of its backend."""
    backend, colon, rest = target.partition(":")
    return rest if colon and backend in ("zfs", "btrfs", "hostpath", "lvm") else target
