# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be done so that storage is as asked: steps, or blockers. Pure. Called by lvm, zfs, btrfs, csi.

A plan is made once, from facts, for check mode and for a normal run alike. Steps are data, so that tests read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from ..core.backend import Blocker
from ..kube_resources import Resource
from .fstab import Entry


@dataclass(frozen=True)
class Attached:
    """In a command: the loop device of a file. Which one that is, is known only once the file has been attached."""

    path: str

    def __str__(self) -> str:
        return f"(the loop device of {self.path})"


@dataclass(frozen=True)
class Inside:
    """In a command: a path from the top of the Btrfs filesystem on a device, which is mounted out of sight for it."""

    device: str | Attached
    path: str

    def __str__(self) -> str:
        return f"/{self.path}"


Word = Union[str, Attached, Inside]


@dataclass(frozen=True)
class Request:
    """One change of an object in a Kubernetes cluster.

    ``create``, ``patch``, which merges the body into it, or ``delete``, of the object whose metadata the body has.
    """

    verb: str
    resource: Resource
    namespace: str | None
    name: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """One change of the host, or of a cluster.

    ``action`` says what is done, as a verb phrase; ``before`` and ``after`` are its two ends, for the diff. It is done
    by a command (``argv``), by a line in fstab (``entry``), or by a request to a cluster, never by two of them.
    """

    target: str
    action: str
    before: str
    after: str
    argv: tuple[Word, ...] = ()
    entry: Entry | None = None
    request: Request | None = None

    def as_result(self) -> dict[str, str]:
        """Return it as a module's result shows it."""
        return {"target": self.target, "action": self.action, "before": self.before, "after": self.after}


@dataclass
class Plan:
    """The steps in their order, and all that forbids them. With one blocker, no step is taken."""

    steps: list[Step] = field(default_factory=list)
    blockers: list[Blocker] = field(default_factory=list)

    def run(self, target: str, action: str, argv: Sequence[Word], after: str, before: str = "absent") -> None:
        """Add a step that is a command."""
        self.steps.append(Step(target, action, before, after, tuple(argv)))

    def write(self, target: str, before: str, entry: Entry) -> None:
        """Add a step that is a line in fstab."""
        self.steps.append(Step(target, "write fstab", before, entry.line, entry=entry))

    def send(self, target: str, action: str, request: Request, after: str, before: str = "absent") -> None:
        """Add a step that is a request to a cluster."""
        self.steps.append(Step(target, action, before, after, request=request))

    def block(self, target: str, reason: str, remedy: str) -> None:
        """Add a blocker."""
        self.blockers.append(Blocker(target, reason, remedy))

    def diff(self) -> dict[str, str]:
        """Return the two ends of all steps, as Ansible shows them."""
        return {
            end: "".join(f"{step.target}: {getattr(step, end)}\n" for step in self.steps) for end in ("before", "after")
        }


def named(rows: Sequence[Mapping[str, Any]], *keys: str) -> list[str]:
    """Return what is named twice in a list of options, as the values of those keys joined by a slash."""
    names = ["/".join(str(row[key]) for key in keys) for row in rows]
    return sorted({name for name in names if names.count(name) > 1})
