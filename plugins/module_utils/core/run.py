# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carries out a plan through a backend: prepare all, commit all, finish; undo on failure. Pure but for the backend.

Called by the bridge and by the agent. The clock, the audit record and what holds interrupts back are arguments.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Callable

from .backend import DONE, Backend, Change
from .errors import RestorePointError
from .plan import Plan, unchanged_results

Record = Callable[[Change, str], Mapping[str, Any]]


class RunFailed(Exception):
    """A plan could not be carried out whole. ``results`` says for each target what was done, or why not."""

    def __init__(self, cause: RestorePointError, results: list[dict[str, Any]], warnings: list[str]) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.results = results
        self.warnings = warnings


class Run:
    """One plan being carried out.

    Args:
        backend: the storage.
        record: writes the audit line of a change and its outcome, and returns it.
        clock: seconds from any fixed point, for the seconds that a change took.
        keep_partial: on a failure leave what succeeded (``on_failure: keep``) instead of undoing it.
        shield: a context in which an interrupt waits, for the moments at which changes count or are undone: what was
            done and what is known of it may not come apart.

    ``results`` has one for each change, as far as it has got, and one for each unchanged target.
    """

    def __init__(
        self,
        backend: Backend,
        record: Record,
        clock: Callable[[], float],
        keep_partial: bool,
        shield: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._backend = backend
        self._record = record
        self._clock = clock
        self._keep_partial = keep_partial
        self._shield = shield
        self._first_failure: RestorePointError | None = None
        self._failed_targets: set[str] = set()
        self.results: list[dict[str, Any]] = []
        self.audit: list[Mapping[str, Any]] = []
        self.warnings: list[str] = []

    def carry_out(self, plan: Plan) -> list[dict[str, Any]]:
        """Carry out ``plan`` and return a result for each change and each unchanged target.

        Raises RunFailed, with those results, if any change failed.
        """
        results = self.results = [
            {"target": each.target, "name": each.name, "action": "none", "changed": False, "reason": each.reason}
            for each in plan.changes
        ]
        results += unchanged_results(plan)
        prepared: list[int] = []
        committed: list[int] = []
        try:
            self._prepare(plan.changes, results, prepared)
            self._commit(plan.changes, results, prepared, committed)
        except BaseException:
            # Also on an interrupt: nothing half done is left for the next run to find.
            self._take_back(plan.changes, results, prepared, committed)
            raise
        self._finish(plan.changes, committed)
        self._spend_tokens(plan)
        if self._first_failure is not None:
            raise RunFailed(self._first_failure, results, self.warnings)
        return results

    def _spend_tokens(self, plan: Plan) -> None:
        for each in plan.unchanged:
            if each.once is not None:
                try:
                    self._backend.spend(each.target, each.once)
                except RestorePointError as error:
                    self.warnings.append(str(error))

    def _prepare(self, changes: Sequence[Change], results: list[dict[str, Any]], prepared: list[int]) -> None:
        for index, change in enumerate(changes):
            started = self._clock()
            try:
                self._backend.prepare(change)
            except RestorePointError as error:
                self._failed(change, error, results[index])
                if self._keep_partial:
                    continue
                self._take_back(changes, results, prepared, [])
                raise RunFailed(error, results, self.warnings) from error
            results[index]["seconds"] = round(self._clock() - started, 3)
            prepared.append(index)

    def _commit(
        self, changes: Sequence[Change], results: list[dict[str, Any]], prepared: list[int], committed: list[int]
    ) -> None:
        for _unused, batch in groupby(list(prepared), key=lambda index: changes[index].verb):
            indexes = self._still_wanted(list(batch), changes, prepared)
            if not indexes:
                continue
            with self._shield():
                try:
                    reports = self._backend.commit([changes[index] for index in indexes])
                except RestorePointError as error:
                    for index in indexes:
                        self._failed(changes[index], error, results[index])
                        self._abandon(changes[index])
                        prepared.remove(index)
                    if self._keep_partial:
                        continue
                    self._take_back(changes, results, prepared, committed)
                    raise RunFailed(error, results, self.warnings) from error
                for index, report in zip(indexes, reports):
                    committed.append(index)
                    prepared.remove(index)
                    results[index].update({"action": DONE[changes[index].verb], "changed": True, **report})
                    self.audit.append(self._record(changes[index], "done"))

    def _still_wanted(self, indexes: list[int], changes: Sequence[Change], prepared: list[int]) -> list[int]:
        """Give up the changes of failed targets: newer snapshots must not go for a return that will not be."""
        wanted = [index for index in indexes if changes[index].target not in self._failed_targets]
        for index in set(indexes) - set(wanted):
            prepared.remove(index)
            self._abandon(changes[index])
        return wanted

    def _failed(self, change: Change, error: RestorePointError, result: dict[str, Any]) -> None:
        self._failed_targets.add(change.target)
        result.update({"action": "failed", "reason": str(error)})
        self.audit.append(self._record(change, f"failed: {error}"))
        self._first_failure = self._first_failure or error

    def _take_back(
        self, changes: Sequence[Change], results: list[dict[str, Any]], prepared: list[int], committed: list[int]
    ) -> None:
        """Undo what was committed, newest first, and abandon what was only prepared. No failure ends it early."""
        while committed:
            with self._shield():
                index = committed.pop()
                change = changes[index]
                try:
                    self._backend.undo(change)
                except Exception as error:
                    self.warnings.append(f"{DONE[change.verb]} {change.name} on {change.target} stands: {error}")
                    self.audit.append(self._record(change, f"not undone: {error}"))
                    self._finish(changes, [index])
                    continue
                results[index].update({"action": "undone", "changed": False})
                self.audit.append(self._record(change, "undone"))
        while prepared:
            index = prepared.pop()
            results[index].update({"action": "none"})
            self._abandon(changes[index])

    def _abandon(self, change: Change) -> None:
        try:
            self._backend.abandon(change)
        except Exception as error:
            self.warnings.append(str(error))

    def _finish(self, changes: Sequence[Change], committed: Sequence[int]) -> None:
        for index in committed:
            try:
                self.warnings.extend(self._backend.finish(changes[index]))
            except Exception as error:
                self.warnings.append(str(error))
