# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carries out a plan through a backend: prepare, commit, settle, finish; undo on failure. Pure but for the backend.

Called by the bridge and by the agent. The clock, the audit record and what holds interrupts back are arguments.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Callable

from .backend import DONE, Backend, Change, Outcome
from .errors import NotBegun, RestorePointError
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

    def carry_out(self, plan: Plan, estimates: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
        """Carry out ``plan`` and return a result for each change and each unchanged target.

        ``estimates`` are what the backend could tell of each change beforehand; the results tell it too. Raises
        RunFailed, with those results, if any change failed.
        """
        results = self.results = [
            {"target": each.target, "name": each.name, "action": "none", "changed": False, "reason": each.reason}
            for each in plan.changes
        ]
        for result, estimate in zip(results, estimates):
            result.update(estimate)
        results += unchanged_results(plan)
        prepared: dict[int, None] = {}  # a set that keeps its order
        committed: list[int] = []
        try:
            self._prepare(plan.changes, results, prepared)
            self._commit(plan.changes, results, prepared, committed)
        except BaseException:
            # Also on an interrupt: nothing half done is left for the next run to find.
            self._take_back(plan.changes, results, prepared, committed)
            raise
        try:
            self._settle(plan.changes, results, committed)
        finally:
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

    def _prepare(self, changes: Sequence[Change], results: list[dict[str, Any]], prepared: dict[int, None]) -> None:
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
            prepared[index] = None

    def _commit(
        self, changes: Sequence[Change], results: list[dict[str, Any]], prepared: dict[int, None], committed: list[int]
    ) -> None:
        for _unused, batch in groupby(list(prepared), key=lambda index: changes[index].verb):
            indexes = self._still_wanted(list(batch), changes, prepared)
            if not indexes:
                continue
            with self._shield():
                started = self._clock()
                outcomes = self._outcomes([changes[index] for index in indexes])
                seconds = round(self._clock() - started, 3)
                for index, outcome in zip(indexes, outcomes):
                    results[index]["seconds"] = round(results[index]["seconds"] + seconds, 3)
                    self._note(changes[index], outcome, results[index])
                    if isinstance(outcome, RestorePointError):
                        self._abandon(changes[index])
                    else:
                        committed.append(index)
                    del prepared[index]
                errors = [outcome for outcome in outcomes if isinstance(outcome, RestorePointError)]
                if errors and not self._keep_partial:
                    cause = next((each for each in errors if not isinstance(each, NotBegun)), errors[0])
                    self._take_back(changes, results, prepared, committed)
                    raise RunFailed(cause, results, self.warnings) from cause

    def _outcomes(self, batch: Sequence[Change]) -> Sequence[Outcome]:
        """Commit a batch; an error of the batch is that of each of its changes."""
        try:
            return self._backend.commit(batch)
        except RestorePointError as error:
            return [error] * len(batch)

    def _note(self, change: Change, outcome: Outcome, result: dict[str, Any]) -> None:
        if isinstance(outcome, RestorePointError):
            self._failed(change, outcome, result)
            return
        result.update({"action": DONE[change.verb], "changed": True, **outcome})
        self.audit.append(self._record(change, "done"))

    def _settle(self, changes: Sequence[Change], results: list[dict[str, Any]], committed: Sequence[int]) -> None:
        """Wait for what counts to take effect. A change that does not is a failure, and stands all the same."""
        for _unused, group in groupby(committed, key=lambda index: changes[index].verb):
            indexes = list(group)
            batch = [changes[index] for index in indexes]
            try:
                outcomes: Sequence[Outcome] = self._backend.settle(batch)
            except RestorePointError as error:
                outcomes = [error] * len(batch)
            for index, outcome in zip(indexes, outcomes):
                if isinstance(outcome, RestorePointError):
                    results[index]["reason"] = str(outcome)
                    self.audit.append(self._record(changes[index], f"done, but: {outcome}"))
                    self._first_failure = self._first_failure or outcome
                else:
                    results[index].update(outcome)

    def _still_wanted(self, indexes: list[int], changes: Sequence[Change], prepared: dict[int, None]) -> list[int]:
        """Give up the changes of failed targets: newer snapshots must not go for a return that will not be."""
        wanted = [index for index in indexes if changes[index].target not in self._failed_targets]
        for index in set(indexes) - set(wanted):
            del prepared[index]
            self._abandon(changes[index])
        return wanted

    def _failed(self, change: Change, error: RestorePointError, result: dict[str, Any]) -> None:
        self._failed_targets.add(change.target)
        if self._first_failure is None or isinstance(self._first_failure, NotBegun):
            self._first_failure = error
        if isinstance(error, NotBegun):
            result.update({"action": "none", "reason": str(error)})
            return
        result.update({"action": "failed", "reason": str(error)})
        self.audit.append(self._record(change, f"failed: {error}"))

    def _take_back(
        self, changes: Sequence[Change], results: list[dict[str, Any]], prepared: dict[int, None], committed: list[int]
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
            index, _unused = prepared.popitem()
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
