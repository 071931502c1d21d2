# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run writes on a workload that it stops, and what the next one makes of it. Pure; called by the files beside.

The record goes with the change in one PATCH: there is no moment at which a workload is stopped and nobody knows what it
had. It names the run and until when that run may take: before that moment nobody else touches the workload, after it
anybody who returns one of its claims may take over, as the run is dead.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .... import kube_resources as api
from .kinds import MARK, WAYS

#: What Kubernetes lets the value of a label be.
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Record:
    """Who stopped a workload, for which claims (targets), until when (seconds since the epoch), and what it had."""

    run: str
    until: int
    claims: tuple[str, ...]
    had: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lost:
    """A workload bears the label of a run, but the record cannot be read (any more)."""

    run: str


@dataclass(frozen=True)
class Terms:
    """On whose behalf it is asked: the run, the time, its deadline, and whose records it may take over.

    These are the records of the runs ``takes_over``, and what was stopped for none but the claims ``resumes``.
    """

    run: str
    now: float
    until: float
    takes_over: Collection[str] = ()
    resumes: Collection[str] = ()

    def mine(self, record: Record) -> bool:
        """Say whether a record is this run's, or one that it may take over."""
        if record.run == self.run or record.run in self.takes_over or record.until < self.now:
            return True
        return bool(record.claims) and set(record.claims) <= set(self.resumes)


def run_of(targets: Collection[str], name: str) -> str:
    """Return an id for the return of targets to a snapshot: the same whenever the same is asked for again."""
    text = "\n".join([name, *sorted(set(targets))])
    return f"return-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def is_run(run: str) -> bool:
    """Say whether that can be the id of a run."""
    return _LABEL.fullmatch(run) is not None


def read(resource: api.Resource, workload: Mapping[str, Any]) -> Record | Lost | None:
    """Return the record on a workload; None where nobody has stopped it."""
    metadata = workload.get("metadata") or {}
    run = (metadata.get("labels") or {}).get(MARK)
    if run is None:
        return None
    try:
        record = _parsed((metadata.get("annotations") or {})[MARK])
        WAYS[resource].words(record.had)
    except (KeyError, TypeError, ValueError, AttributeError):
        return Lost(str(run))
    return record if record.run == run else Lost(str(run))


def _parsed(text: str) -> Record:
    value = json.loads(text)
    had = value["had"]
    replicas = had.get("replicas", 0)
    if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 0:
        raise ValueError("replicas is no number of pods")
    claims = tuple(str(each) for each in value["claims"])
    return Record(str(value["run"]), int(value["until"]), claims, had)


def written(record: Record) -> dict[str, Any]:
    """Return the merge patch of the metadata that writes a record."""
    value = {"run": record.run, "until": record.until, "claims": list(record.claims), "had": dict(record.had)}
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return {"labels": {MARK: record.run}, "annotations": {MARK: text}}


def removed() -> dict[str, Any]:
    """Return the merge patch of the metadata that removes a record."""
    return {"labels": {MARK: None}, "annotations": {MARK: None}}


def for_run(had: Mapping[str, Any], terms: Terms, claims: Collection[str], before: Record | None) -> Record:
    """Return the record that a run writes: its own claims, and those of a record of its own that stands already."""
    kept = before.claims if before is not None and before.run == terms.run else ()
    record = Record(terms.run, int(terms.until) + 1, tuple(sorted({*claims, *kept})), dict(had))
    return replace(record, until=max(record.until, before.until)) if kept and before else record
