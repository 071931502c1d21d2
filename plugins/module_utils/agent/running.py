# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One policy at work: its targets as one backend, its run with hooks and journal. Called by `cli`.

Nothing here asks anybody or prints anything; what there is to tell is in the record that each run returns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Callable

from ..audit import AuditLog
from ..core.backend import Desired, Situation
from ..core.errors import Blocked, InvalidInput, LockTimeout, RestorePointError
from ..core.names import automatic_name
from ..core.retention import RetentionPolicy
from ..core.run import RunFailed
from ..core.several import Member, Several
from ..engine.policy import TARGET_OPTION, Hook, Policy, Target, engine
from ..engine.reach import Reach
from ..interrupts import Interrupts
from ..lock import FileLock
from . import hooks as hook_stack
from .progress import Shown, Watched
from .state import Mark, State, new_line

#: Outcomes of a run, as the journal names them.
DONE, UNCHANGED, FAILED, BLOCKED = "done", "unchanged", "failed", "blocked"
BUSY, INTERRUPTED, KILLED, RUNNING = "busy", "interrupted", "killed", "running"
#: How many failures one line of the journal tells in words.
_TOLD = 20
#: Backends whose returns keep what was there unless told otherwise, because it costs nothing.
_KEEPING = ("btrfs", "hostpath", "csi")
#: Backends that can compare a snapshot with what was noted when it was taken.
_COMPARING = ("btrfs", "hostpath")


def members(
    policy: Policy,
    targets: Sequence[Target],
    now: Callable[[], int],
    report: Callable[..., None] | None = None,
    **given: Any,
) -> list[Member]:
    """Return the backends of targets of a policy, for one call; ``given`` are options that hold for all that know them.

    ``report`` is told what long work has done.

    Raises InvalidInput.
    """
    found: list[Member] = []
    for target in targets:
        made = engine(target.backend)
        known = {**made.TARGET_SPEC, **made.OPTION_SPEC}
        params = {**target.params, **{key: value for key, value in given.items() if key in known}}
        label = target.backend
        number = sum(each.label.split("-")[0] == label for each in found)
        label = f"{label}-{number + 1}" if number else label
        place = f"{target.backend}:{params.get('store') or ''}"
        found.append(Member(label, made.backend_of(params, now, report), target.backend in _KEEPING, place))
    return found


def chosen(policy: Policy, names: Sequence[str]) -> tuple[Target, ...]:
    """Return the targets of a policy, or of them those that are named. Raises InvalidInput for a name that is none."""
    if not names:
        return policy.targets
    found, missing = [], set(names)
    for target in policy.targets:
        option = TARGET_OPTION[target.backend]
        if target.params.get("namespace"):
            matched, claims = _chosen_claims(target, names)
            missing -= matched
            found += claims
            continue
        if target.backend == "pve":
            matched, guests = _chosen_guests(target, names)
            missing -= matched
            found += guests
            continue
        wanted = [each for each in target.params[option] if {each, f"{target.backend}:{each}"} & set(names)]
        missing -= {form for each in wanted for form in (each, f"{target.backend}:{each}")}
        if wanted:
            found.append(Target(target.backend, {**target.params, option: wanted}))
    if missing:
        raise InvalidInput(
            f"use {', '.join(sorted(missing))}", f"policy {policy.name} has no such target", "name one of its own"
        )
    return tuple(found)


def _chosen_guests(target: Target, names: Sequence[str]) -> tuple[set[str], list[Target]]:
    """Return which names, an id or ``qemu/100``, are guests of a target that names its guests by their ids.

    Raises InvalidInput where the target chooses them in another way: only Proxmox VE knows them then.
    """
    ids = {name: re.fullmatch(r"(pve:)?((qemu|lxc)/)?([0-9]+)", name) for name in names}
    wanted = {name: int(found[4]) for name, found in ids.items() if found}
    if wanted and (target.params["guest"] or not target.params["vmid"]):
        attempt = f"use {', '.join(sorted(wanted))}"
        raise InvalidInput(attempt, "the policy does not name its guests by vmid", "return all, or use pve_snapshot")
    from ..backends.pve.guests import words

    spans = [each.partition("-") for each in words(target.params["vmid"])]
    inside = {
        name: vmid
        for name, vmid in wanted.items()
        if any(int(first) <= vmid <= int(last or first) for first, _dash, last in spans)
    }
    vmids = sorted({str(vmid) for vmid in inside.values()})
    return set(inside), [Target(target.backend, {**target.params, "vmid": vmids})] if vmids else []


def _chosen_claims(target: Target, names: Sequence[str]) -> tuple[set[str], list[Target]]:
    """Return which names, ``namespace/claim``, may be claims of a target, and these claims: one target a namespace."""
    matched: set[str] = set()
    claims: dict[str, list[str]] = {}
    prefix, allowed = f"{target.backend}:", target.params["pvc"]
    for name in names:
        plain = name[len(prefix) :] if name.startswith(prefix) else name
        namespace, _slash, claim = plain.partition("/")
        if claim and namespace in target.params["namespace"] and (not allowed or claim in allowed):
            matched.add(name)
            claims.setdefault(namespace, []).append(claim)
    found = [
        Target(target.backend, {**target.params, "namespace": [namespace], "pvc": chosen, "selector": None})
        for namespace, chosen in claims.items()
    ]
    return matched, found


def everything(policy: Policy) -> Desired:
    """Return what makes backends look at all snapshots and asides: they leave out those for which there is no rule."""
    return Desired(state="pruned", owner=policy.name, retention=RetentionPolicy(), asides=RetentionPolicy())


def look(policy: Policy, targets: Sequence[Target], now: Callable[[], int]) -> tuple[Sequence[Situation], list[str]]:
    """Return what is there of each target, and warnings. Touches nothing."""
    several = Several(members(policy, targets, now))
    desired = everything(policy)
    several.check(desired)
    with several.session(writing=False):
        found = several.situations(desired)
    return found, several.warnings


def proven_unchanged(policy: Policy, now: Callable[[], int]) -> tuple[str | None, list[str]]:
    """Return the name of the policy's newest restore point if every target is proven to hold just that; and warnings.

    What cannot be proven counts as changed.
    """
    try:
        situations, warnings = look(policy, policy.targets, now)
        common: set[str] | None = None
        newest: list[str] = []
        for situation in situations:
            own = [each for each in situation.snapshots if each.owner == policy.name and each.ready]
            names = {each.name for each in own}
            common = names if common is None else common & names
            newest += [max(own, key=lambda each: each.order).name] if own else []
        if not common or len(set(newest)) != 1 or newest[0] not in common:
            return None, warnings
        desired = Desired(state="rolled_back", name=newest[0], owner=policy.name)
        several = Several(members(policy, policy.targets, now))
        several.check(desired)
        with several.session(writing=False):
            same = all(each.unchanged is not None for each in several.situations(desired))
        return (newest[0] if same else None), warnings + several.warnings
    except RestorePointError as error:
        return None, [f"whether anything changed could not be told: {error}"]


def is_due(last_due: Callable[[int], int | None], last: Mark, now: int) -> bool:
    """Say whether a moment of a schedule has passed since what is noted in ``last`` as the last one that succeeded."""
    due = last_due(now)
    begun = int((last.read() or {}).get("started_epoch", -1))
    return due is not None and not due <= begun <= now


class Running:
    """One run of a policy, from its lock to its line in the journal.

    Args:
        state: the agent's folder.
        policy: what to run.
        now: seconds since the epoch.
        interrupts: installed already; holds signals back where they must wait.
        shown: shows how far long work has got.
    """

    def __init__(
        self, state: State, policy: Policy, now: Callable[[], int], interrupts: Interrupts, shown: Shown | None = None
    ) -> None:
        self._state = state
        self._policy = policy
        self._now = now
        self._interrupts = interrupts
        self._shown = shown
        self._mark = state.mark(policy.name)
        self._last = state.last(policy.name)
        self._stack: hook_stack.Hooks | None = None
        self._named: dict[str, str] = {}
        self.warnings: list[str] = []
        self.decisions: list[dict[str, Any]] = []
        self.record: dict[str, Any] = {}

    def run(self, wait: float = 0.0, if_due: bool = False) -> dict[str, Any]:
        """Take what is due and prune; return the record, which is in the journal as well."""

        def work() -> None:
            if if_due and not self.is_due():
                self.record["outcome"], self.record["reason"] = UNCHANGED, "it is not due"
                return
            if self._policy.only_if_changed:
                name, warnings = proven_unchanged(self._policy, self._now)
                self.warnings += warnings
                if name is not None:
                    self.record["outcome"] = UNCHANGED
                    self.record["reason"] = f"nothing has changed since {name}"
            if self.record["outcome"] == RUNNING:
                self._take(self._name(self._policy.name), self._policy.name)
            self._prune()

        return self._recorded("run", work, wait)

    def create(self, name: str | None, description: str | None, wait: float = 0.0) -> dict[str, Any]:
        """Take a restore point by hand, which no keep rule removes; return the record."""
        return self._recorded("create", lambda: self._take(name or self._name("manual"), "manual", description), wait)

    def prune(self, dry_run: bool, wait: float = 0.0) -> dict[str, Any]:
        """Let go what the keep rules do not keep; return the record. A dry run touches nothing, the journal neither."""
        if not dry_run:
            return self._recorded("prune", self._prune, wait)
        self.record = self._begin("prune")
        self._reach(self._pruned(), (), dry_run=True)
        self.record["outcome"] = DONE
        return self.record

    def rollback(self, desired: Desired, targets: Sequence[Target], wait: float = 0.0, **given: Any) -> dict[str, Any]:
        """Return targets to a restore point; return the record."""

        def work() -> None:
            self.record["name"] = desired.name
            self._reach(desired, targets, **given)

        return self._recorded("rollback", work, wait)

    def is_due(self, ahead: int = 0) -> bool:
        """Say whether a moment of the schedule has passed since the last run that succeeded was begun.

        A run of the future was noted by a clock that was wrong, and proves nothing. ``ahead`` seconds from now count.
        """
        return is_due(self._policy.last_due, self._last, self._now() + ahead)

    def recover(self) -> None:
        """Bring to an end what a killed run left: thaw, and write its line. The policy's lock has to be held."""
        mark = self._mark.read()
        if mark is None:
            self._mark.remove()
            return
        record = mark["record"]
        if record["outcome"] == RUNNING:
            with FileLock(self._state.hook_lock(self._policy.name), 600, "see what the watchdog has done"):
                done = (self._state.thawed(self._policy.name).read() or {}).get("hooks", [])
            settled = {each["number"] for each in done if each["after"] == "done"}
            left = [number for number in mark["needed"] if number not in settled]
            done += hook_stack.thaw([_hook(each) for each in mark["hooks"]], left)
            record.update(outcome=KILLED, hooks=done, reason="it was killed, or the machine went down")
            for each in done:
                if each["after"] != "done":
                    self.warnings.append(each["after"])
        self._state.append(record)
        self._mark.remove()
        self._state.thawed(self._policy.name).remove()

    # -- the frame of every run ----------------------------------------------------------------------------------------

    def _begin(self, command: str) -> dict[str, Any]:
        return {**new_line(command, self._policy.name, self._now()), "outcome": RUNNING}

    def _recorded(self, command: str, work: Callable[[], None], wait: float) -> dict[str, Any]:
        self.record, begun = self._begin(command), time.monotonic()
        try:
            with self._state.lock(self._policy.name, wait):
                self.recover()
                self._note(())
                self._last.write(self._last.read() or {})  # room for it is taken now, while there is some
                self._guarded(work)
                self._end(begun)
        except LockTimeout as error:
            self.record.update(outcome=BUSY, reason=str(error), seconds=round(time.monotonic() - begun, 3))
            self._state.append(self.record)
        except OSError as error:
            attempt = f"keep the journal in {self._state.folder}"
            raise RestorePointError(attempt, str(error.strerror), "make room there, and look what was done") from error
        return self.record

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do the work, and note how it ended."""
        try:
            work()
            if self.record["outcome"] == RUNNING:
                self.record["outcome"] = DONE
        except KeyboardInterrupt as error:
            expired = self._stack is not None and self._stack.expired
            self.record["outcome"] = FAILED if expired else INTERRUPTED
            limit = f"the targets were quiesced for longer than {hook_stack.HOLD_SECONDS} s"
            self.record["reason"] = limit if expired else f"interrupted by {error}"
        except Blocked as error:
            self.record.update(outcome=BLOCKED, reason=str(error))
        except (RunFailed, RestorePointError) as error:
            self.record.update(outcome=FAILED, reason=str(error))
        if self._stack is not None:
            self.record["hooks"] = self._stack.outcomes
            if self._stack.failures:
                reasons = [self.record.get("reason"), *map(str, self._stack.failures)]
                self.record.update(outcome=FAILED, reason="; ".join(each for each in reasons if each))

    def _end(self, begun: float) -> None:
        """Write the line, and forget the mark; where the disk has no room for the line, the mark takes it."""
        with self._interrupts.held():
            self.record["seconds"] = round(time.monotonic() - begun, 3)
            self.record["warnings"] = self.warnings[:_TOLD]
            self._remember()
            try:
                self._state.append(self.record)
            except OSError:
                short = {**self.record, "targets": len(self.record.get("targets", ())), "warnings": []}
                short.pop("drills", None)
                self._mark.write({"record": short})
                raise
            self._mark.remove()

    def _remember(self) -> None:
        """Keep when the last run that succeeded was begun, and the last automatic name of each owner."""
        last = self._last.read() or {}
        if self.record["outcome"] in (DONE, UNCHANGED) and self.record["command"] == "run":
            last["started_epoch"] = self.record["started_epoch"]
        last["names"] = {**last.get("names", {}), **self._named}
        self._last.write(last)

    def _note(self, needed: Sequence[int]) -> None:
        hooks = [dataclasses.asdict(each) for each in (self._stack.hooks if self._stack else ())]
        self._mark.write({"record": self.record, "needed": list(needed), "hooks": hooks})

    def _name(self, owner: str) -> str:
        """Return the name of this run's restore point; not that of the last run, should that be of the same second."""
        last = (self._last.read() or {}).get("names", {}).get(owner)
        while (name := automatic_name(owner, self._now())) == last:
            time.sleep(0.05)
        self._named[owner] = name
        return name

    # -- the work ------------------------------------------------------------------------------------------------------

    def _take(self, name: str, owner: str, description: str | None = None) -> None:
        policy = self._policy
        self.record["name"] = name
        written = [self._state.folder, *(each.params["store"] for each in policy.targets if each.params.get("store"))]
        hook_stack.check(policy.hooks, written)
        desired = Desired(
            state="present",
            name=name,
            owner=owner,
            policy=None if owner == "manual" else owner,
            description=policy.description if description is None else description,
            labels=policy.labels,
        )
        self._stack = hook_stack.Hooks(
            policy.hooks,
            self._state.hook_lock(policy.name),
            self._state.thawed(policy.name),
            self._note,
            self._interrupts.held,
        )
        self._reach(desired, policy.targets, around=self._stack.around)
        if self._stack.lost:
            # It is not what it was meant to be, and must not be taken for it.
            self._reach(Desired(state="absent", name=name, owner=owner), policy.targets)

    def _pruned(self) -> Desired:
        policy = self._policy
        needed = {}
        if policy.exports:
            from .exporting import needed as needed_by_exports

            needed = needed_by_exports(self._state, policy, policy.targets)
        return Desired(state="pruned", owner=policy.name, retention=policy.retention, match=policy.match, needed=needed)

    def _prune(self) -> None:
        if not self._policy.retention.has_no_rule:
            self._reach(self._pruned(), ())

    def _reach(
        self,
        desired: Desired,
        targets: Sequence[Target],
        dry_run: bool = False,
        around: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        **given: Any,
    ) -> None:
        """Reach what is desired.

        ``around`` is entered when all locks are held and all is looked at: what is quiesced must not wait for another
        run, which may itself wait to write to what is frozen.
        """
        keep_current = given.pop("keep_current", None)
        told: list[Watched] = []

        def report(stage: str, fields: Mapping[str, Any], *, always: bool = False) -> None:
            told[0].report(stage, fields, always=always)

        shows = report if self._shown else None
        every = members(self._policy, targets or self._policy.targets, self._now, shows, **given)
        several = Several(every, keep_current)
        if self._shown:
            told.append(Watched(several, self._shown))
        reach = Reach(told[0] if told else several, desired, self._now)
        try:
            several.check(desired)
            with several.session(writing=not dry_run):
                reach.plan()
                self.decisions = reach.decisions
                reach.check()
                if dry_run:
                    reach.predict()
                else:
                    with around():
                        reach.carry_out(AuditLog(None, self.record["who"]), False, self._interrupts.held)
        finally:
            if self._shown:
                self._shown.clear()
            self.warnings += several.warnings + reach.warnings
            self._tell(reach)

    def _tell(self, reach: Reach) -> None:
        """Add to the record what was done, in numbers, and which targets failed and why."""
        record = self.record
        if reach.desired.state != "pruned" or "targets" not in record:
            record["targets"] = list(dict.fromkeys(each["target"] for each in reach.results))
        counts: dict[str, int] = record.setdefault("done", {})
        for each in reach.results:
            if each["action"] not in ("none", "unchanged"):
                counts[each["action"]] = counts.get(each["action"], 0) + 1
        record["bytes"] = record.get("bytes", 0) + _sum(reach.results, "copied_bytes")
        record["freed_bytes"] = record.get("freed_bytes", 0) + _sum(reach.results, "freed_bytes")
        failures = [
            {"target": each["target"], "reason": each["reason"]} for each in reach.results if each["action"] == "failed"
        ]
        if failures:
            record["failures"] = failures[:_TOLD]
        if reach.spread_seconds is not None:
            record["spread_seconds"] = reach.spread_seconds


def _sum(results: Iterable[Mapping[str, Any]], key: str) -> int:
    return sum(int(each[key]) for each in results if isinstance(each.get(key), int))


def _hook(fields: Mapping[str, Any]) -> Hook:
    """Return a hook as a mark has it: as it was when the run began, whatever the policies say now."""
    return Hook(**{**fields, "before": tuple(fields["before"]), "after": tuple(fields["after"])})


def verify(policy: Policy, name: str | None, now: Callable[[], int]) -> list[dict[str, Any]]:
    """Return for each snapshot whether it is as it was taken, and by which proof.

    Directories and subvolumes are compared with what was noted. ZFS and LVM tell only whether a snapshot is usable:
    what they store has its own check, such as ``zpool scrub``.
    """
    found: list[dict[str, Any]] = []
    for member in members(policy, policy.targets, now):
        backend: Any = member.backend
        if member.label.split("-")[0] in _COMPARING and backend.store.exists():
            import importlib

            kind = member.label.split("-")[0]
            info = importlib.import_module(f"..backends.{kind}.info", __package__)
            results = info.describe(backend, name=name, verify=True)["verified"]
            found += [{**each, "target": f"{member.label}:{each['target']}"} for each in results]
            continue
        several = Several([member])
        desired = everything(policy)
        with contextlib.ExitStack() as stack:
            several.check(desired)
            stack.enter_context(several.session(writing=False))
            for situation in several.situations(desired):
                found += [
                    {
                        "target": situation.target,
                        "name": each.name,
                        "ok": each.ready,
                        "proof": "the storage lists it as usable",
                        "faults": [] if each.ready else [{"path": ".", "fault": each.extra.get("fault", "not ready")}],
                    }
                    for each in situation.snapshots
                    if name in (None, each.name)
                ]
    return found
