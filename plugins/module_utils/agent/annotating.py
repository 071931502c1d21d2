# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots that annotations ask for: looks at all pods and claims, takes what is due, removes what is too many.

One broken claim does not hold up the others: it gets an event, and the run ends as a failure. Called by `cli`.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable

from ..audit import AuditLog, current_user
from ..backends.csi.backend import CsiBackend
from ..backends.csi.objects import OWNER as OWNER_LABEL
from ..backends.csi.objects import claim_of, error_of, labels_of, status_of
from ..backends.csi.options import CsiOptions, Selection
from ..core.annotations import OWNER, Claim, Wishes, due, wishes
from ..core.backend import Desired
from ..core.errors import RestorePointError
from ..core.names import automatic_name
from ..core.retention import RetentionPolicy, parse_policy
from ..core.run import RunFailed
from ..core.snapshot import parse_timestamp, timestamp
from ..engine.reach import Reach
from ..kube import KubeClient
from ..kube_login import KubeError, log_in_alone
from ..kube_resources import CLAIMS, EVENTS, PODS, SNAPSHOTS, Resource
from .state import State, new_line

__all__ = ["Annotating", "CsiOptions", "KubeClient", "log_in_alone", "parse_policy"]

#: Seconds for which an API server that is away is asked again.
_PATIENCE = 60.0
_TOLD = 20
#: Reasons of events, in the form that Kubernetes wants.
BAD, FAILED = "InvalidSnapshotAnnotation", "SnapshotFailed"


class Annotating:
    """One run over all claims.

    Args:
        connect: logs in; called with the seconds of patience.
        namespaces: where to look; none for all of the cluster.
        now: seconds since the epoch.
        shield: holds interrupts back.
    """

    def __init__(
        self,
        connect: Callable[[float], KubeClient],
        namespaces: Sequence[str],
        options: CsiOptions,
        timezone: str,
        now: Callable[[], int],
        shield: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        self._connect = connect
        self._client = connect(_PATIENCE)
        self._namespaces: Sequence[str | None] = list(namespaces) or [None]
        self._options = options
        self._timezone = timezone
        self._now = now
        self._shield = shield
        self._claims: dict[Claim, Mapping[str, Any]] = {}
        self._audit = AuditLog(None, current_user())
        self.warnings: list[str] = []
        self.record: dict[str, Any] = {}

    def run(self, state: State, wait: float) -> dict[str, Any]:
        """Do what is due; return the record, which is in the journal as well. Raises LockTimeout, RestorePointError."""
        started, begun = self._now(), time.monotonic()
        self.record = {
            **new_line("annotations", OWNER, started), "outcome": "done", "targets": [], "done": {}, "failures": [],
        }  # fmt: skip
        with state.lock(OWNER, wait):
            try:
                self._work()
            except KeyboardInterrupt as error:
                self.record.update(outcome="interrupted", reason=f"interrupted by {error}")
            except RestorePointError as error:
                self.record.update(outcome="failed", reason=str(error))
            if self.record["failures"] and self.record["outcome"] == "done":
                count = len(self.record["failures"])
                self.record.update(outcome="failed", reason=f"{count} claims could not be taken or pruned")
            self.record["failures"] = self.record["failures"][:_TOLD]
            self.record["seconds"] = round(time.monotonic() - begun, 3)
            self.record["warnings"] = self.warnings[:_TOLD]
            state.append(self.record)
        return self.record

    def plan(self) -> list[dict[str, Any]]:
        """Return for each claim that annotations are about what is asked, and whether a snapshot is due."""
        found, taken, now = self._look(), self._taken(), self._now()
        return [
            {
                "claim": "/".join(claim), "frequency": wish.frequency, "retention": wish.retention,
                "due": self._is_bound(claim) and due(wish, taken.get(claim, ()), now, self._timezone),
            }
            for claim, wish in sorted(found.claims.items())
        ]  # fmt: skip

    # -- looking -------------------------------------------------------------------------------------------------------

    def _listed(self, resource: Resource) -> Iterator[Mapping[str, Any]]:
        for namespace in self._namespaces:
            yield from self._client.list_objects(f"list the {resource.plural}", resource, namespace).items

    def _look(self) -> Wishes:
        claims = list(self._listed(CLAIMS))
        self._claims = {(str(each["metadata"]["namespace"]), str(each["metadata"]["name"])): each for each in claims}
        return wishes(claims, self._listed(PODS))

    def _taken(self) -> dict[Claim, list[int]]:
        """Return when annotated snapshots were made; one with an error does not count, since it may never be one."""
        found: dict[Claim, list[int]] = {}
        for item in self._listed(SNAPSHOTS):
            failed = error_of(item) is not None and status_of(item).get("readyToUse") is not True
            own = labels_of(item).get(OWNER_LABEL) == OWNER and not item["metadata"].get("deletionTimestamp")
            if own and not failed:
                claim = (str(item["metadata"]["namespace"]), str(claim_of(item)))
                found.setdefault(claim, []).append(int(parse_timestamp(item["metadata"]["creationTimestamp"])))
        return found

    def _is_bound(self, claim: Claim) -> bool:
        return status_of(self._claims[claim]).get("phase") == "Bound"

    # -- doing ---------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        found, taken, now = self._look(), self._taken(), self._now()
        for fault in found.faults:
            self._tell(fault.item, BAD, fault.message)
        name = automatic_name(OWNER, now)
        wanted: dict[str, list[str]] = {}
        for claim, wish in sorted(found.claims.items()):
            if self._is_bound(claim) and due(wish, taken.get(claim, ()), now, self._timezone):
                wanted.setdefault(claim[0], []).append(claim[1])
        desired = Desired(state="present", name=name, owner=OWNER, policy=OWNER)
        if wanted:
            self.record["name"] = name
        for namespace, claims in wanted.items():
            self._reach(desired, namespace, claims)
        failed = {each["target"] for each in self.record["failures"]}
        kept: dict[tuple[str, int], list[str]] = {}
        for claim, wish in sorted(found.claims.items()):
            if wish.retention is not None and "/".join(claim) not in failed:
                kept.setdefault((claim[0], wish.retention), []).append(claim[1])
        for (namespace, retention), claims in kept.items():
            self._reach(_pruned(parse_policy({"last": retention}, timezone=self._timezone)), namespace, claims)

    def _reach(self, desired: Desired, namespace: str, claims: Sequence[str]) -> None:
        """Reach it for those claims of a namespace for which nothing stands in the way; note the others."""
        left = list(claims)
        while left:
            backend = CsiBackend(self._connect, Selection(namespace, tuple(left)), self._options, now=self._now)
            reach = Reach(backend, desired, self._now)
            try:
                backend.check(desired)
                with backend.session(writing=True):
                    blocked = {each.target: str(each.reason) for each in reach.plan().blockers}
                    if not blocked:
                        reach.check()
                        reach.carry_out(self._audit, True, self._shield)
            except (RunFailed, RestorePointError) as error:
                blocked = {f"{namespace}/{claim}": str(error) for claim in left if not reach.results}
            finally:
                self.warnings += backend.warnings + reach.warnings
                self._count(reach)
            for target, reason in blocked.items():
                self._failed(target, reason)
            rest = [claim for claim in left if f"{namespace}/{claim}" not in blocked]
            left = rest if blocked and len(rest) < len(left) else []

    def _count(self, reach: Reach) -> None:
        counts = self.record["done"]
        for each in reach.results:
            if each["action"] == "failed":
                self._failed(each["target"], each["reason"])
            elif each["action"] not in ("none", "unchanged"):
                counts[each["action"]] = counts.get(each["action"], 0) + 1
                if each["target"] not in self.record["targets"]:
                    self.record["targets"].append(each["target"])

    def _failed(self, target: str, reason: str) -> None:
        self.record["failures"].append({"target": target, "reason": reason})
        namespace, _slash, name = target.partition("/")
        item = self._claims.get((namespace, name))
        if item is not None:
            self._tell(item, FAILED, reason)

    # -- events --------------------------------------------------------------------------------------------------------

    def _tell(self, item: Mapping[str, Any], reason: str, message: str) -> None:
        """Put an event on an object; one that is there already is counted up. Without the right to, it is a warning."""
        metadata = item["metadata"]
        where = f"{metadata['namespace']}/{metadata['name']}"
        kind = "Pod" if "containers" in (item.get("spec") or {}) else "PersistentVolumeClaim"
        self.warnings.append(f"{kind} {where}: {message}")
        digest = hashlib.sha256(f"{metadata['uid']} {reason} {message}".encode()).hexdigest()[:16]
        now = timestamp(self._now())
        name = f"{metadata['name'][:200]}.{digest}"
        reference = {key: metadata.get(key) for key in ("namespace", "name", "uid", "resourceVersion")}
        body = {
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": metadata["namespace"]},
            "involvedObject": {"apiVersion": "v1", "kind": kind, **reference},
            "reason": reason, "message": message[:1000], "type": "Warning", "count": 1,
            "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": "restorepoint"}, "reportingComponent": "restorepoint.core/agent",
            "reportingInstance": "restorepoint",
        }  # fmt: skip
        attempt = f"put an event on {kind} {where}"
        try:
            self._client.create(attempt, EVENTS, metadata["namespace"], body)
        except KubeError as error:
            if error.word != "AlreadyExists":
                self.warnings.append(str(error))
                return
            self._count_up(attempt, metadata["namespace"], name, now)

    def _count_up(self, attempt: str, namespace: str, name: str, now: str) -> None:
        try:
            there = self._client.get(attempt, EVENTS, namespace, name)
            change = {"count": int(there.get("count") or 1) + 1, "lastTimestamp": now}
            self._client.patch(attempt, EVENTS, namespace, name, change)
        except KubeError as error:
            self.warnings.append(str(error))


def _pruned(retention: RetentionPolicy) -> Desired:
    return Desired(state="pruned", owner=OWNER, retention=retention)
