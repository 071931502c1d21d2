# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore drills: the newest restore point of each target of a policy is restored beside it, checked, and taken away.

One target after the other, so that there is one scratch place at a time. Its mark lies in the state folder until it is
gone. Called by `cli`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..core.backend import Situation
from ..core.errors import Blocked, InvalidInput, RestorePointError
from ..core.snapshot import Snapshot, timestamp
from ..engine.drills import DrillRules
from ..engine.policy import Policy, Target, engine
from . import drill_checks as checks
from .running import DONE, FAILED, UNCHANGED, Running, is_due, look
from .scratch import Place, Restored, Scratch, check_filesystem, plan, read_place

#: How long a drill waits for another run of the policy where nobody says, in seconds.
PATIENCE = 600.0
_TOLD = 20
#: What a fault may have of one line of the journal, in characters.
_WORDS = 400


def check(policy: Policy) -> None:
    """Raise InvalidInput for a policy of which a drill cannot be."""
    if any(target.backend == "pve" for target in policy.targets):
        raise InvalidInput(
            f"drill policy {policy.name}",
            "a guest of Proxmox VE could only be restored by copying its disks whole",
            "restore a backup of it under another id, as docs/drills.md says, or drill the other targets by a policy "
            "of their own",
        )


class Drilling(Running):
    """One drill of a policy, from its lock to its line in the journal."""

    def drill(self, wait: float = PATIENCE, if_due: bool = False) -> dict[str, Any]:
        """Drill all targets; return the record, which is in the journal as well."""

        def work() -> None:
            check(self._policy)
            if if_due and not self.is_due():
                self.record.update(outcome=UNCHANGED, reason="it is not due")
                return
            self.record.update(checked=0, faults=0, targets=[], drills=[])
            self.clear()
            for target in self._policy.targets:
                for result in self._targets(target):
                    self._add(result)
            if not self.record["checked"]:
                self._add({"target": self._policy.name, "ok": False, "fault": "there is no target"})

        return self._recorded("drill", work, wait)

    def is_due(self, ahead: int = 0) -> bool:
        """Say whether a moment of its own schedule has passed since the last drill that succeeded was begun."""
        last = self._state.last_of(self._policy.name, "drill")
        return is_due(self._policy.drill_due, last, self._now() + ahead)

    def _remember(self) -> None:
        super()._remember()
        if self.record["command"] == "drill" and self.record["outcome"] == DONE:
            # On a full disk it is not noted, and drilled once more.
            with contextlib.suppress(OSError):
                last = self._state.last_of(self._policy.name, "drill")
                last.write({"started_epoch": self.record["started_epoch"]})

    def foretell(self) -> list[dict[str, Any]]:
        """Return what a drill would restore, and where. Touches nothing."""
        check(self._policy)
        found = []
        for target in self._policy.targets:
            situations, warnings = look(self._policy, [target], self._now)
            self.warnings += warnings
            for situation in situations:
                snapshot = checks.newest(situation.snapshots, self._policy.name, self._policy.match)
                place = plan(target, _own(snapshot), self._rules.scratch, self._state.folder) if snapshot else None
                found.append({
                    "policy": self._policy.name,
                    "target": situation.target,
                    "name": snapshot.name if snapshot else None,
                    "created": timestamp(snapshot.created) if snapshot else None,
                    "place": place.shown.replace(place.token, "TOKEN") if place else None,
                })  # fmt: skip
        return found

    def clear(self) -> bool:
        """Take away what a drill that was killed has left; say whether there was anything. The lock has to be held."""
        mark = self._state.drilled(self._policy.name)
        fields = mark.read()
        if fields is not None:
            Scratch(read_place(fields), self._policy.name, self._now, self._write, self._interrupts.held).remove()
        mark.remove()
        return fields is not None

    @property
    def _rules(self) -> DrillRules:
        return self._policy.drill or DrillRules()

    def _write(self, place: Place) -> None:
        self._state.drilled(self._policy.name).write(vars(place))

    def _add(self, result: Mapping[str, Any]) -> None:
        """Add to the record how one target fared."""
        record = self.record
        record["checked"] += 1
        record["targets"].append(result["target"])
        record["drills"] = [*record["drills"], dict(result)][:_TOLD]
        if not result["ok"]:
            record["faults"] += 1
            words = f"{result['target']}: {result['fault']}"
            record["reason"] = "; ".join([*([record["reason"]] if record.get("reason") else []), words])[:2000]
            record["outcome"] = FAILED
        if result.get("name") and record["name"] is None:
            record["name"] = result["name"]

    def _targets(self, target: Target) -> Iterator[dict[str, Any]]:
        """Drill what one entry of the policy names; what cannot even be looked at has failed as well."""
        try:
            situations, warnings = look(self._policy, [target], self._now)
            self.warnings += warnings
        except RestorePointError as error:
            yield {"target": target.backend, "ok": False, "fault": _short(str(error))}
            return
        for situation in situations:
            yield self._one(target, situation)

    def _one(self, target: Target, situation: Situation) -> dict[str, Any]:
        """Drill one target. Only what keeps the scratch place from being taken away ends the whole drill."""
        result: dict[str, Any] = {"target": situation.target, "name": None, "ok": False}
        begun = time.monotonic()
        faults: list[str] = []
        try:
            snapshot = self._chosen(situation, faults)
            if snapshot is not None:
                result["name"] = snapshot.name
                with self._scratch(target, snapshot) as scratch:
                    faults += self._checked(scratch, snapshot, result, begun)
        except Blocked as error:
            faults.append("; ".join(f"{each.reason} ({each.remedy})" for each in error.blockers))
        except _Stands:
            raise
        except RestorePointError as error:
            faults.append(str(error))
        result["seconds"] = round(time.monotonic() - begun, 3)
        result["ok"] = not faults
        if faults:
            told = faults[: checks.TOLD] + ([f"{len(faults) - checks.TOLD} more"] if len(faults) > checks.TOLD else [])
            result["fault"] = _short("; ".join(told))
        return result

    def _chosen(self, situation: Situation, faults: list[str]) -> Snapshot | None:
        """Return the snapshot to restore; None, and why, where there is none that could be."""
        snapshot = checks.newest(situation.snapshots, self._policy.name, self._policy.match)
        if snapshot is None:
            faults.append("there is no restore point of this policy")
            return None
        if not snapshot.ready:
            faults.append(f"{snapshot.name} is not usable: {snapshot.extra.get('fault', 'not ready')}")
            return None
        too_old = checks.age_fault(snapshot, self._rules, self._now())
        faults += [too_old] if too_old else []
        return _own(snapshot)

    @contextlib.contextmanager
    def _scratch(self, target: Target, snapshot: Snapshot) -> Iterator[Scratch]:
        """Give a scratch place, which is gone at the end, whatever happens."""
        place = plan(target, snapshot, self._rules.scratch, self._state.folder)
        scratch = Scratch(place, self._policy.name, self._now, self._write, self._interrupts.held)
        try:
            yield scratch
        finally:
            with self._interrupts.held():
                try:
                    scratch.remove()
                    self._state.drilled(self._policy.name).remove()
                except RestorePointError as error:
                    raise _Stands(
                        f"take away the scratch place {place.shown}",
                        str(error),
                        f"run `restorepoint recover {self._policy.name}` when that is mended",
                    ) from error

    def _checked(self, scratch: Scratch, snapshot: Snapshot, result: dict[str, Any], begun: float) -> list[str]:
        """Restore, and check what the policy wants checked; return what is wrong."""
        rules, faults = self._rules, []
        restored = scratch.make(snapshot)
        if rules.writable and not restored.own:
            raise RestorePointError(
                f"let the command write to {snapshot.name} of {snapshot.target}",
                "a thick snapshot of LVM is all there is of it, and is only read",
                "leave writable out, or use thin volumes",
            )
        executable = bool(rules.command)
        if restored.fstype or not restored.device:
            restored = scratch.mount(restored, executable, rules.writable)
        elif not rules.command:
            raise RestorePointError(
                f"check {restored.device}",
                "there is no filesystem on it that is known",
                "give a command that checks it",
            )
        result["restore_seconds"] = round(time.monotonic() - begun, 3)
        if rules.fsck and restored.device:
            # Mounting has played the journal of a copy back, as a return would.
            scratch.release()
            fault = check_filesystem(restored, rules.timeout)
            faults += [fault] if fault else []
            again = Restored(**{**vars(restored), "path": ""})
            restored = scratch.mount(again, executable, rules.writable) if restored.fstype else restored
        if restored.path:
            faults += self._content(scratch.place, snapshot, restored, result)
        if rules.command:
            told = {"RESTOREPOINT_TARGET": result["target"], "RESTOREPOINT_NAME": snapshot.name,
                    "RESTOREPOINT_POLICY": self._policy.name}  # fmt: skip
            fault = checks.command_fault(rules, restored, told)
            faults += [fault] if fault else []
        return faults

    def _content(self, place: Place, snapshot: Snapshot, restored: Restored, result: dict[str, Any]) -> Sequence[str]:
        """Check the files of a place; note how many there are."""
        found = checks.walk(restored.path, self._rules.read)
        result.update(files=found.files, bytes=found.bytes)
        faults = [*found.faults, *checks.too_few(found, self._rules)]
        if self._rules.manifest:
            backend = engine(place.backend).backend_of(dict(place.params), self._now, None)
            faults += checks.manifest_faults(backend, snapshot, restored.path)
        return faults


class _Stands(RestorePointError):
    """A scratch place could not be taken away: no other may be made before it is."""


def _own(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot as its backend tells it, without the label that `Several` puts in front of its target."""
    return dataclasses.replace(snapshot, target=snapshot.target.partition(":")[2])


def _short(words: str) -> str:
    return words if len(words) <= _WORDS else words[: _WORDS - 3] + "..."
