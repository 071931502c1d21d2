# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a backend is to the rest: the facts it reports and the few things it can be told to do. Pure.

A backend decides nothing. It says what is there (`Situation`), and the plan (`plan.py`) decides; then the run
(`run.py`) tells it change by change, in two phases, so that a failure can be undone:

- ``prepare``: everything slow that can still be given up: copying into a hidden place, checking a hold;
- ``commit``: the moment at which it counts, as short as the storage allows, a batch of like changes at a time;
- ``settle``: waiting until what counts has also taken effect: a merge that drains, a guest that starts;
- ``finish``: what cannot be undone and no longer matters for the outcome: purging what was removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Union

from .errors import RestorePointError
from .snapshot import Snapshot

if TYPE_CHECKING:
    from .retention import RetentionPolicy

CREATE = "create"
REPLACE = "replace"
DESCRIBE = "describe"
DESTROY = "destroy"
ROLL_BACK = "roll_back"
CLONE = "clone"

#: What a change is called in results, once it is done (or would be, in check mode).
DONE = {
    CREATE: "created",
    REPLACE: "replaced",
    DESCRIBE: "described",
    DESTROY: "removed",
    ROLL_BACK: "rolled_back",
    CLONE: "cloned",
}


@dataclass(frozen=True)
class Blocker:
    """A fact that forbids a change.

    ``verbs`` are the changes that it forbids; ``lifted_by`` is the option that allows them all the same, if there is
    one. ``while_used``: it goes away when somebody stops what uses the target.
    """

    target: str
    reason: str
    remedy: str
    verbs: frozenset[str] = frozenset(DONE)
    lifted_by: str | None = None
    while_used: bool = False

    def __str__(self) -> str:
        return f"{self.target}: {self.reason} ({self.remedy})"


@dataclass(frozen=True)
class Situation:
    """What is there, for one target, as far as the desired state needs to know.

    ``unchanged`` says in words why the target's content is proven to be that of the desired snapshot; None where it
    differs or cannot be proven. ``difference`` then names the first difference, where one was looked for. ``returned``
    maps each ``once`` token that was used on this target to when, in seconds since the epoch. ``clone_of`` is the name
    of the snapshot that the wanted clone was made from; None where no such clone is there. ``asides`` are described as
    snapshots.

    ``newest_only``: a return as desired would lose the snapshots that are newer than the wanted one. ``uses_up``: such
    a return uses its snapshot up. ``used_up`` then says in words that, and when, the wanted one was. ``lacking`` holds
    what a backend's own options want of the wanted snapshot, and what it does not have yet, such as a hold.
    """

    target: str
    snapshots: tuple[Snapshot, ...] = ()
    asides: tuple[Snapshot, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    unchanged: str | None = None
    difference: str | None = None
    returned: Mapping[str, int] = field(default_factory=dict)
    clone_of: str | None = None
    warnings: tuple[str, ...] = ()
    newest_only: bool = False
    uses_up: bool = False
    used_up: str | None = None
    lacking: Mapping[str, Any] = field(default_factory=dict)

    def find(self, name: str) -> Snapshot | None:
        """Return the snapshot, or the aside, of that name."""
        for snapshot in (*self.snapshots, *self.asides):
            if snapshot.name == name:
                return snapshot
        return None


@dataclass(frozen=True)
class Desired:
    """What a caller asks for, whatever the backend. Durations are in seconds.

    ``description`` and ``labels`` are None where the caller did not give them: then what is there stays.
    ``allowed`` holds the options that lift blockers, such as ``ignore_users``. ``needed`` are snapshots, by target and
    name, that no keep rule removes, with the reason: a copy elsewhere goes on from them.
    """

    state: str
    name: str | None = None
    owner: str = "manual"
    policy: str | None = None
    description: str | None = None
    labels: Mapping[str, str] | None = None
    max_age: int | None = None
    replace: bool = False
    keep_current: bool = True
    destroy_newer: bool = False
    once: str | None = None
    clones: Mapping[str, str] = field(default_factory=dict)
    allowed: frozenset[str] = frozenset()
    retention: RetentionPolicy | None = None
    asides: RetentionPolicy | None = None
    match: tuple[str, ...] = ()
    needed: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """One step of a plan. ``arguments`` are what the verb needs beside target and name."""

    verb: str
    target: str
    name: str
    reason: str
    arguments: Mapping[str, Any] = field(default_factory=dict, compare=False)


#: What there is to tell of a change, or why it failed.
Outcome = Union[Mapping[str, Any], RestorePointError]


class Backend(Protocol):
    """One kind of storage. Every method raises RestorePointError in one sentence when it fails."""

    name: str
    warnings: list[str]

    def check(self, desired: Desired) -> None:
        """Raise InvalidInput for what cannot be meant, before anything is opened or locked. Touches nothing."""

    def session(self, writing: bool) -> AbstractContextManager[None]:
        """Open what the calls below need, and for ``writing`` lock it and recover what killed runs left."""

    def situations(self, desired: Desired) -> Sequence[Situation]:
        """Return what is there, a situation for each target of the call. Touches nothing."""

    def estimate(self, changes: Sequence[Change]) -> Sequence[Mapping[str, Any]]:
        """Return what can be told of each change before it is made, such as the space it frees. Touches nothing."""

    def prepare(self, change: Change) -> None:
        """Do all that is slow and can be given up. On failure it leaves nothing behind."""

    def commit(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Make prepared changes of one verb count; return what there is to tell of each.

        Raising means that none counts. A storage that cannot make several count as one gives the error of each change
        that failed in the place of what there is to tell; the others count, and the run undoes them or not.
        """

    def settle(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Wait until changes of one verb that count have taken effect; return what more there is to tell of each.

        Interrupts are let through here. An error in an outcome's place fails the run and undoes nothing.
        """

    def spend(self, target: str, token: str) -> None:
        """Remember that a ``once`` token is used up, for a target that already held what was to be returned."""

    def undo(self, change: Change) -> None:
        """Take back a committed change. Raises where the storage cannot."""

    def abandon(self, change: Change) -> None:
        """Give up a prepared change that was not committed."""

    def finish(self, change: Change) -> Sequence[str]:
        """Do what cannot be undone. Returns warnings; the change counts whether this succeeds or not."""


class Immediate:
    """What a backend inherits whose changes take effect as they count, and cost what only making them tells."""

    def estimate(self, changes: Sequence[Change]) -> Sequence[Mapping[str, Any]]:
        """Tell nothing beforehand. See Backend."""
        return [{} for _unused in changes]

    def settle(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Wait for nothing. See Backend."""
        return [{} for _unused in changes]
