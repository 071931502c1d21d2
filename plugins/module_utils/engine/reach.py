# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One desired state being reached through a backend: look, plan, foresee or carry out.

Called by the bridge and the agent. The caller opens the backend's session around it, and shows what comes of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Callable

from ..audit import AuditLog
from ..core.backend import Backend, Change, Desired, Situation
from ..core.errors import Blocked
from ..core.plan import Plan, ends, make_plan, predicted
from ..core.run import Run
from ..core.snapshot import parse_timestamp, timestamp

#: What each state is, as the attempt of a message.
ATTEMPTS = {
    "present": "make snapshot {name!r} present",
    "absent": "remove snapshot {name!r}",
    "rolled_back": "return to snapshot {name!r}",
    "cloned": "clone snapshot {name!r}",
    "pruned": "prune",
}


class Reach:
    """The way to a desired state, and what came of it.

    Args:
        backend: the storage, checked, and with its session open while `plan`, `predict` and `carry_out` are called.
        desired: what is asked for.
        now: seconds since the epoch.

    ``results``, ``audit`` and ``warnings`` hold what there is to tell as far as it has got, also after a failure.
    """

    def __init__(self, backend: Backend, desired: Desired, now: Callable[[], int]) -> None:
        self.backend = backend
        self.desired = desired
        self._now = now
        self._plan = Plan()
        self._situations: Sequence[Situation] = ()
        self._estimates: Sequence[Mapping[str, Any]] = ()
        self.results: list[dict[str, Any]] = []
        self.audit: list[Mapping[str, Any]] = []
        self.warnings: list[str] = []

    def plan(self) -> Plan:
        """Look at what is there, and plan. Raises Blocked, with all blockers, or what the backend raises."""
        self._situations = self.look()
        self._plan = make_plan(self.desired, self._situations, self._now())
        self.warnings += self._plan.warnings
        return self._plan

    def look(self) -> Sequence[Situation]:
        """Return what is there."""
        return self.backend.situations(self.desired)

    def check(self) -> None:
        """Raise Blocked where anything stands in the way; else learn what the changes will cost."""
        if self._plan.blockers:
            raise Blocked(ATTEMPTS[self.desired.state].format(name=self.desired.name), self._plan.blockers)
        self._estimates = self.backend.estimate(self._plan.changes)

    def predict(self) -> None:
        """Say what carrying it out would do."""
        self.results = predicted(self._plan, self._estimates)

    def carry_out(
        self, audit: AuditLog, keep_partial: bool, shield: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Do it. ``keep_partial`` and ``shield`` are those of core/run.py. Raises RunFailed."""

        def record(change: Change, outcome: str) -> Mapping[str, Any]:
            return audit.record(
                timestamp(self._now()), change.target, change.verb, change.name, outcome, backend=self.backend.name,
                reason=change.reason,
            )  # fmt: skip

        run = Run(self.backend, record, time.monotonic, keep_partial, shield)
        try:
            run.carry_out(self._plan, self._estimates)
        finally:
            self.results, self.audit = run.results, run.audit
            self.warnings += run.warnings

    @property
    def changed(self) -> bool:
        """Whether anything was changed, or would be."""
        return any(each["changed"] for each in self.results)

    @property
    def decisions(self) -> list[dict[str, Any]]:
        """What the keep rules say of each snapshot, and why."""
        return [
            {"target": target, "name": each.name, "keep": each.keep, "reason": each.reason}
            for target, each in self._plan.decisions
        ]

    @property
    def spread_seconds(self) -> float | None:
        """How far apart the members of a set lie, where the storage cannot take them at one instant."""
        instants = sorted(
            each.get("instant", parse_timestamp(each["snapshot"]["created"]))
            for each in self.results
            if each["action"] in ("created", "replaced") and "snapshot" in each
        )
        return round(instants[-1] - instants[0], 3) if len(instants) > 1 else None

    def diff(self) -> dict[str, dict[str, Any]]:
        """Return the two ends of what was done, or would be."""
        return ends(self._plan, self._situations, self.desired)
