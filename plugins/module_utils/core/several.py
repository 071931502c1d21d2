# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several backends as one, so that a restore point over all of them is all or nothing. Pure but for the backends.

It answers the protocol of `backend`. Each target carries its backend's name in front: ``zfs:tank/data``. Plan and run
need not know: all targets are checked before the first is touched, and what one backend did is undone when another one
fails. Called by the agent.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Callable

from .backend import Backend, Change, Desired, Outcome, Situation
from .errors import NotBegun, RestorePointError


@dataclasses.dataclass(frozen=True)
class Member:
    """One of the backends, a label of its own for its targets, and whether its returns keep the content by default.

    ``place`` is what it locks: the same of every policy and run. Without one it is the label.
    """

    label: str
    backend: Backend
    keep_current: bool = False
    place: str = ""


class Several:
    """Backends as one. Labels have to differ; each change goes to the backend whose label its target carries.

    Args:
        members: the backends.
        keep_current: whether returns keep what was there; None leaves that to each member's default.
    """

    name = "several"

    def __init__(self, members: Iterable[Member], keep_current: bool | None = None) -> None:
        self.members = tuple(members)
        self._by_label = {member.label: member for member in self.members}
        if len(self._by_label) != len(self.members):
            raise ValueError("two members have the same label")
        self._keep_current = keep_current
        self.warnings: list[str] = []

    def _desired(self, member: Member, desired: Desired) -> Desired:
        keep = member.keep_current if self._keep_current is None else self._keep_current
        return dataclasses.replace(desired, keep_current=keep)

    def _of(self, change: Change) -> tuple[Member, Change]:
        """Return whose change it is, and what it is called there."""
        label, target = self._split(change.target)
        member = self._by_label[label]
        return member, self._own(member, change, target)

    def _named(self, label: str, target: str) -> str:
        """Return what a member's target is called here; `_split` takes it apart again."""
        return f"{label}:{target}"

    def _split(self, target: str) -> tuple[str, str]:
        label, _colon, own = target.partition(":")
        return label, own

    def _own(self, member: Member, change: Change, target: str) -> Change:
        """Return a change as its member knows it."""
        arguments = dict(change.arguments)
        if "keep_current" in arguments:
            arguments["keep_current"] = self._desired(member, Desired(state="rolled_back")).keep_current
        return dataclasses.replace(change, target=target, arguments=arguments)

    def check(self, desired: Desired) -> None:
        """Let every member check. See Backend."""
        for member in self.members:
            member.backend.check(self._desired(member, desired))

    @contextlib.contextmanager
    def session(self, writing: bool) -> Iterator[None]:
        """Open all of them, always in the order of what they lock, so that two runs cannot wait for each other."""
        try:
            with contextlib.ExitStack() as stack:
                for member in sorted(self.members, key=lambda each: each.place or each.label):
                    stack.enter_context(member.backend.session(writing))
                yield
        finally:
            for member in self.members:
                self.warnings += member.backend.warnings
                member.backend.warnings = []

    def situations(self, desired: Desired) -> Sequence[Situation]:
        """Return what is there, of all members. See Backend."""
        return [
            self._labelled(member.label, situation)
            for member in self.members
            for situation in member.backend.situations(self._desired(member, desired))
        ]

    def _each(
        self, changes: Sequence[Change], call: Callable[[Backend, Sequence[Change]], Sequence[Any]]
    ) -> Sequence[Any]:
        """Call each member with its changes; return what they say, in the order of the changes."""
        shares: dict[str, list[int]] = {}
        translated = [self._of(change) for change in changes]
        for index, (member, _unused) in enumerate(translated):
            shares.setdefault(member.label, []).append(index)
        found: dict[int, Any] = {}
        for label, indexes in shares.items():
            said = call(self._by_label[label].backend, [translated[index][1] for index in indexes])
            found.update(zip(indexes, said))
        return [found[index] for index in range(len(changes))]

    def estimate(self, changes: Sequence[Change]) -> Sequence[Mapping[str, Any]]:
        """Return what each member can tell beforehand. See Backend."""
        return self._each(changes, lambda backend, share: backend.estimate(share))

    def prepare(self, change: Change) -> None:
        """See Backend."""
        member, own = self._of(change)
        member.backend.prepare(own)

    def commit(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Let one member after the other make its share count; after a failure, those that follow do not begin."""
        failed: list[RestorePointError] = []

        def commit(backend: Backend, share: Sequence[Change]) -> Sequence[Outcome]:
            if failed:
                return [
                    NotBegun(f"change {each.target}", f"another target had failed: {failed[0].reason}")
                    for each in share
                ]
            try:
                outcomes = backend.commit(share)
            except RestorePointError as error:
                outcomes = [error] * len(share)
            failed.extend(each for each in outcomes if isinstance(each, RestorePointError))
            return outcomes

        return self._each(changes, commit)

    def settle(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Wait for all of them; the failure of one is no reason not to wait for the others. See Backend."""

        def settle(backend: Backend, share: Sequence[Change]) -> Sequence[Outcome]:
            try:
                return backend.settle(share)
            except RestorePointError as error:
                return [error] * len(share)

        return self._each(changes, settle)

    def spend(self, target: str, token: str) -> None:
        """See Backend."""
        label, own = self._split(target)
        self._by_label[label].backend.spend(own, token)

    def undo(self, change: Change) -> None:
        """See Backend."""
        member, own = self._of(change)
        member.backend.undo(own)

    def abandon(self, change: Change) -> None:
        """See Backend."""
        member, own = self._of(change)
        member.backend.abandon(own)

    def finish(self, change: Change) -> Sequence[str]:
        """See Backend."""
        member, own = self._of(change)
        return member.backend.finish(own)

    def _labelled(self, label: str, situation: Situation) -> Situation:
        def labelled(target: str) -> str:
            return self._named(label, target)

        return dataclasses.replace(
            situation,
            target=labelled(situation.target),
            snapshots=tuple(dataclasses.replace(each, target=labelled(each.target)) for each in situation.snapshots),
            asides=tuple(dataclasses.replace(each, target=labelled(each.target)) for each in situation.asides),
            blockers=tuple(dataclasses.replace(each, target=labelled(each.target)) for each in situation.blockers),
        )
