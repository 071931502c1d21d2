# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From a workload as it stands to the one PATCH that stops it, or brings it back. Pure; called by stopping.py.

Every patch carries the resourceVersion of the object that was looked at: where something has changed since, nothing
happens, and it is looked at anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from .... import kube_resources as api
from ....core.errors import RestorePointError
from .kinds import MARK, WAYS
from .records import Lost, Record, Terms, for_run, read, removed, written

#: What became of a workload that was to be brought back.
STARTED = "started again"
CHANGED = "changed by hand"
NOT_OURS = "not stopped by this run"
GONE = "gone"


def title(resource: api.Resource, workload: Mapping[str, Any]) -> str:
    """Return how a workload is called in messages: ``Deployment shop/web``."""
    metadata = workload.get("metadata") or {}
    return f"{resource.kind} {metadata.get('namespace')}/{metadata.get('name')}"


class NotOurs(RestorePointError):
    """A workload is in the hands of another run, or of nobody who can be known. It was not touched."""


def to_stop(
    resource: api.Resource, workload: Mapping[str, Any], terms: Terms, claims: Collection[str]
) -> dict[str, Any] | None:  # fmt: skip
    """Return the patch that stops a workload and records what it had; None where there is nothing to stop.

    Raises:
        NotOurs: see there.
    """
    way = WAYS[resource]
    record = read(resource, workload)
    reason = why_not(resource, workload, record, terms)
    if reason is not None:
        raise NotOurs(f"stop {title(resource, workload)}", *reason)
    before = record if isinstance(record, Record) else None
    if not way.active(workload):
        if before is None:
            return None
        had: Mapping[str, Any] = before.had  # as a run before this one left it: only the record changes hands
        spec: Mapping[str, Any] = {}
    else:
        # Where it is recorded and yet active, somebody has brought it back: what it has now is what it shall have.
        had = {**(before.had if before else {}), **way.had(workload)}
        spec = way.stop(workload, terms.run)
    return _patch(workload, written(for_run(had, terms, claims, before)), spec)


def why_not(
    resource: api.Resource, workload: Mapping[str, Any], record: Record | Lost | None, terms: Terms
) -> tuple[str, str] | None:  # fmt: skip
    """Return reason and remedy where a workload must be left to whoever has stopped it; None where it need not."""
    if record is None or (isinstance(record, Record) and terms.mine(record)):
        return None
    metadata = workload["metadata"]
    kubectl = f"kubectl -n {metadata['namespace']}"
    if isinstance(record, Lost):
        unlabel = f"{kubectl} label {resource.full_name}/{metadata['name']} {_MARK_OFF}"
        return (
            f"run {record.run} has stopped {title(resource, workload)}, and what it had is not recorded any more",
            f"bring it back by hand and run: {unlabel}",
        )
    way = WAYS[resource]
    return (
        f"run {record.run} has stopped {title(resource, workload)} for {', '.join(record.claims)}",
        f"wait for that run, or where it was killed, repeat it, or bring back {way.words(record.had)} with: "
        f"{kubectl} {way.command(metadata['name'], record.had)}",
    )


_MARK_OFF = f"{MARK}-"


class Start(NamedTuple):
    """What brings a workload back: the patch, None where there is nothing to do, and in a word what it comes to."""

    patch: dict[str, Any] | None
    word: str
    had: Mapping[str, Any]


def to_start(resource: api.Resource, workload: Mapping[str, Any], terms: Terms) -> Start:
    """Return what brings a workload back to what it had; where somebody has done that by hand, only the record goes."""
    record = read(resource, workload)
    if not isinstance(record, Record) or not terms.mine(record):
        return Start(None, NOT_OURS, {})
    way = WAYS[resource]
    word = STARTED if way.untouched(workload) else CHANGED
    return Start(_patch(workload, removed(), way.start(workload, record.had)), word, record.had)


def _patch(workload: Mapping[str, Any], metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {"resourceVersion": workload["metadata"]["resourceVersion"], **metadata}
    return {"metadata": metadata, **({"spec": dict(spec)} if spec else {})}
