# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A storage in memory that answers the protocol of core/backend.py, and fails where a test wants it to.

Called by test_plan.py, test_run.py and the tests of bridge/module.py. A target's content is a word; a snapshot keeps
the word of its moment.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.restorepoint.core.plugins.module_utils.core import backend as core
from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import (
    Blocker,
    Change,
    Desired,
    Outcome,
    Situation,
)
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput, RestorePointError
from ansible_collections.restorepoint.core.plugins.module_utils.core.names import aside_name
from ansible_collections.restorepoint.core.plugins.module_utils.core.snapshot import Snapshot

NOW = 1_800_000_000


def broken(what: str = "the disk is on fire") -> RestorePointError:
    """Return a failure, as a backend reports one."""
    return RestorePointError("do it", what, "put it out")


@dataclass
class FakeTarget:
    """One target: what it holds, its snapshots with the words they keep, and what returns have left."""

    content: str = "today"
    snapshots: dict[str, tuple[Snapshot, str]] = field(default_factory=dict)
    asides: dict[str, tuple[Snapshot, str]] = field(default_factory=dict)
    returned: dict[str, int] = field(default_factory=dict)
    clones: dict[str, str] = field(default_factory=dict)
    used_up: dict[str, str] = field(default_factory=dict)
    blockers: tuple[Blocker, ...] = ()

    def kept(self, name: str) -> str | None:
        """Return the word that a snapshot, or an aside, keeps."""
        found = self.snapshots.get(name) or self.asides.get(name)
        return found[1] if found else None


class FakeBackend:
    """The storage. ``failures`` maps (phase, verb, target) to what is raised then; ``calls`` is what was asked for.

    Args:
        newest_only: whether a return loses newer snapshots.
        provable: whether it can prove that a target is what a snapshot holds (Proxmox cannot).
        one_by_one: whether a batch cannot count as one, so that a failure on one target lets the others stand.
        uses_up: whether a return uses its snapshot up (a merge of LVM does).
    """

    name = "fake"

    def __init__(
        self,
        *names: str,
        newest_only: bool = False,
        provable: bool = True,
        one_by_one: bool = False,
        uses_up: bool = False,
        now: int = NOW,
    ) -> None:
        self.newest_only = newest_only
        self.one_by_one = one_by_one
        self.uses_up = uses_up
        self.targets = {name: FakeTarget() for name in names or ("a",)}
        self.warnings: list[str] = []
        self.failures: dict[tuple[str, str, str], BaseException] = {}
        self.calls: list[tuple[str, str, str, str]] = []
        self.finish_warnings: list[str] = []
        self.prepared: list[Change] = []
        self.sessions: list[bool] = []
        self.provable = provable
        self.now = now
        self._before: dict[Change, FakeTarget] = {}

    def add(self, target: str, name: str, content: str = "yesterday", **facts: Any) -> Snapshot:
        """Put a snapshot there, an hour old unless ``created`` says otherwise."""
        facts.setdefault("created", self.now - 3600)
        facts.setdefault("owner", "manual")
        snapshot = Snapshot("fake", target, name, **facts)
        self.targets[target].snapshots[name] = (snapshot, content)
        return snapshot

    def add_aside(self, target: str, created: int, content: str = "before") -> Snapshot:
        """Put there what a return has set aside."""
        snapshot = Snapshot("fake", target, aside_name(created), created)
        self.targets[target].asides[snapshot.name] = (snapshot, content)
        return snapshot

    def view(self, desired: Desired) -> dict[str, dict[str, Any]]:
        """Return what is really there, as a plan's two ends show it, without what returns have set aside."""
        return {name: self._view(target, desired, name) for name, target in self.targets.items()}

    def _view(self, target: FakeTarget, desired: Desired, name: str) -> dict[str, Any]:
        kept = target.snapshots if desired.state == "rolled_back" else {**target.snapshots, **target.asides}
        view: dict[str, Any] = {
            "snapshots": {
                each.name: {"description": each.description, "labels": dict(each.labels)}
                for each, _unused in kept.values()
            }
        }
        if desired.state == "rolled_back":
            same = target.content == target.kept(desired.name or "")
            view["content"] = desired.name if same else f"differs from {desired.name}"
        if desired.state == "cloned":
            clone = desired.clones[name]
            view["clone"] = {clone: target.clones[clone]} if clone in target.clones else None
        return view

    # -- the protocol --------------------------------------------------------------------------------------------------

    def check(self, desired: Desired) -> None:
        """Refuse one name, so that tests can see a refusal."""
        if desired.name == "forbidden":
            raise InvalidInput("use 'forbidden'", "it is forbidden", "choose another name")

    @contextlib.contextmanager
    def session(self, writing: bool) -> Iterator[None]:
        """Note how it was opened."""
        self.sessions.append(writing)
        yield

    def situations(self, desired: Desired) -> Sequence[Situation]:
        """Return what is there."""
        return [self._situation(name, target, desired) for name, target in self.targets.items()]

    def _situation(self, name: str, target: FakeTarget, desired: Desired) -> Situation:
        kept = target.kept(desired.name) if desired.name else None
        same = self.provable and desired.state == "rolled_back" and kept == target.content
        return Situation(
            target=name,
            snapshots=tuple(sorted((each for each, _unused in target.snapshots.values()), key=lambda each: each.order)),
            asides=tuple(each for each, _unused in target.asides.values()),
            blockers=target.blockers,
            unchanged="the same word" if same else None,
            returned=dict(target.returned),
            clone_of=target.clones.get(desired.clones[name]) if desired.state == "cloned" else None,
            newest_only=self.newest_only,
            uses_up=self.uses_up,
            used_up=target.used_up.get(desired.name or ""),
        )

    def estimate(self, changes: Sequence[Change]) -> Sequence[Mapping[str, Any]]:
        """Tell what removing a snapshot would free."""
        return [{"frees_bytes": 4096} if change.verb == core.DESTROY else {} for change in changes]

    def _step(self, phase: str, change: Change) -> None:
        self.calls.append((phase, change.verb, change.target, change.name))
        failure = self.failures.get((phase, change.verb, change.target))
        if failure is not None:
            raise failure

    def prepare(self, change: Change) -> None:
        """Remember what was prepared."""
        self._step("prepare", change)
        self.prepared.append(change)

    def commit(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Make changes of one verb count: all or none, or each for itself."""
        assert len({change.verb for change in changes}) == 1
        if self.one_by_one:
            return [self._commit_one(change) for change in changes]
        for change in changes:
            self._step("commit", change)
        return [self._count(change) for change in changes]

    def _commit_one(self, change: Change) -> Outcome:
        try:
            self._step("commit", change)
        except RestorePointError as error:
            return error
        return self._count(change)

    def _count(self, change: Change) -> Mapping[str, Any]:
        self.prepared.remove(change)
        self._before[change] = copy.deepcopy(self.targets[change.target])
        self._apply(change, self.targets[change.target])
        return {"told": change.name}

    def settle(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Say what came of the wait, or raise what a test wants."""
        return [self._settle_one(change) for change in changes]

    def _settle_one(self, change: Change) -> Outcome:
        try:
            self._step("settle", change)
        except RestorePointError as error:
            return error
        return {}

    def _apply(self, change: Change, target: FakeTarget) -> None:
        if change.verb in (core.CREATE, core.REPLACE):
            made = Snapshot("fake", change.target, change.name, self.now, **self.wanted)
            target.snapshots[change.name] = (made, target.content)
        elif change.verb == core.DESCRIBE:
            snapshot, content = target.snapshots[change.name]
            target.snapshots[change.name] = (replace(snapshot, **change.arguments), content)
        elif change.verb == core.DESTROY:
            (target.snapshots if change.name in target.snapshots else target.asides).pop(change.name)
        elif change.verb == core.CLONE:
            target.clones[change.arguments["clone"]] = change.name
        else:
            self._return(change, target)

    def _return(self, change: Change, target: FakeTarget) -> None:
        if change.arguments["keep_current"]:
            aside = Snapshot("fake", change.target, aside_name(self.now), self.now)
            target.asides[aside.name] = (aside, target.content)
        target.content = target.kept(change.name) or ""
        if self.uses_up:
            del target.snapshots[change.name]
            target.used_up[change.name] = f"{change.name} was merged into it"
        if change.arguments["once"]:
            target.returned[change.arguments["once"]] = self.now

    #: What a new snapshot is described with.
    wanted: Mapping[str, Any] = {}

    def spend(self, target: str, token: str) -> None:
        """Remember a token."""
        self.targets[target].returned[token] = self.now

    def undo(self, change: Change) -> None:
        """Put back what the change took, and take away what it made."""
        self._step("undo", change)
        before, target = self._before.pop(change), self.targets[change.target]
        if change.verb in (core.ROLL_BACK, core.CLONE):
            target.content, target.asides = before.content, before.asides
            target.returned, target.clones = before.returned, before.clones
            return
        for there, was in ((target.snapshots, before.snapshots), (target.asides, before.asides)):
            there.pop(change.name, None)
            if change.name in was:
                there[change.name] = was[change.name]

    def abandon(self, change: Change) -> None:
        """Forget what was prepared."""
        self._step("abandon", change)
        self.prepared.remove(change)

    def finish(self, change: Change) -> Sequence[str]:
        """Give the warnings that a test wants."""
        self._step("finish", change)
        return self.finish_warnings


def described(desired: Desired) -> dict[str, Any]:
    """Return what a snapshot that is made for this is described with."""
    return {
        "owner": desired.owner,
        "policy": desired.policy,
        "description": desired.description or "",
        "labels": dict(desired.labels or {}),
    }
