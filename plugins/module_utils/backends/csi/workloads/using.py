# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From what lies in a namespace to who uses its claims: what can be stopped, and what stands in the way. Pure.

A pod belongs to the workload at the end of its controllers (ownerReferences). What is not one of Kubernetes' own kinds,
such as the custom resource of an operator, would start again what was stopped, so it blocks. Workloads without pods
count where they are about to make some: their template names the claim. Called by the edge beside it (edge.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .... import kube_resources as api
from ....core.backend import ROLL_BACK, Blocker
from .changes import title, why_not
from .kinds import OWNERS, SCALED_OBJECTS, SCALERS, WAYS, replicas_of, template_of
from .pods import claims_made, claims_named, describe, ephemeral_claims, finished, keeps, leaving, name_of, uses
from .records import Record, Terms, read

STOP = "stop_workloads"
_RETURN = frozenset({ROLL_BACK})
#: So many pods of a workload are named in a message.
_NAMED_PODS = 3


@dataclass(frozen=True)
class Seen:
    """What was found in a namespace. ``unseen`` are the kinds that this login may not list."""

    namespace: str
    pods: Sequence[Mapping[str, Any]]
    objects: Mapping[api.Resource, Sequence[Mapping[str, Any]]]
    unseen: frozenset[api.Resource] = frozenset()


@dataclass(frozen=True)
class Workload:
    """A workload that uses targets and can be stopped, as last seen. ``pods`` are those of its pods that use them."""

    resource: api.Resource
    object: Mapping[str, Any] = field(compare=False)
    uid: str
    targets: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()
    record: Record | None = None

    @property
    def title(self) -> str:
        """How it is called in messages."""
        return title(self.resource, self.object)

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.object["metadata"]["namespace"])

    @property
    def name(self) -> str:
        """Its name."""
        return name_of(self.object)


@dataclass(frozen=True)
class Users:
    """Who uses targets. See the edge's ``users``; ``finished`` are pods that have run, and keep claims all the same."""

    targets: tuple[str, ...] = ()
    workloads: tuple[Workload, ...] = ()
    finished: tuple[Mapping[str, Any], ...] = ()
    blockers: Mapping[str, tuple[Blocker, ...]] = field(default_factory=dict)
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def left(self) -> tuple[Workload, ...]:
        """Those that a run before this one has stopped and left so, and that this one may bring back."""
        return tuple(each for each in self.workloads if each.record is not None)


def merged(parts: Sequence[Users]) -> Users:
    """Return what was found in several namespaces as one."""
    order = list(WAYS)
    workloads = sorted((each for part in parts for each in part.workloads), key=lambda each: order.index(each.resource))
    return Users(
        tuple(target for part in parts for target in part.targets),
        tuple(workloads),
        tuple(pod for part in parts for pod in part.finished),
        {target: found for part in parts for target, found in part.blockers.items()},
        {target: found for part in parts for target, found in part.warnings.items()},
    )


def users_of(seen: Seen, claims: Sequence[str], terms: Terms) -> Users:
    """Return who uses the claims of one namespace."""
    search = _Search(seen, claims, terms)
    for claim in claims:
        search.pods_of(claim)
        search.templates_of(claim)
    return search.result()


@dataclass(frozen=True)
class _Unknown:
    """A controller that was not found, or is of a kind that is nothing to us."""

    owner: Mapping[str, Any]


class _Search:
    """What is found out about the claims of one namespace."""

    def __init__(self, seen: Seen, claims: Sequence[str], terms: Terms) -> None:
        self._seen = seen
        self._terms = terms
        self._owners = {
            str(each["metadata"]["uid"]): (resource, each)
            for resource in OWNERS
            for each in seen.objects.get(resource, ())
        }
        self._targets = {claim: f"{seen.namespace}/{claim}" for claim in claims}
        self._blockers: dict[str, dict[Blocker, None]] = {claim: {} for claim in claims}
        self._warnings: dict[str, dict[str, None]] = {claim: {} for claim in claims}
        self._users: dict[str, dict[str, list[str]]] = {}
        self._finished: dict[str, Mapping[str, Any]] = {}

    # Finding

    def pods_of(self, claim: str) -> None:
        """Trace each pod that keeps a claim to what has made it."""
        for pod in self._seen.pods:
            if not keeps(pod) or not uses(pod, claim):
                continue
            if claim in ephemeral_claims(pod):
                reason = f"it was made for {describe(pod)}, and is deleted with it"
                self._block(claim, reason, "return to a new claim instead")
            elif finished(pod):
                self._finished[name_of(pod)] = pod
                remedy = f"delete that pod (kubectl -n {self._seen.namespace} delete pod {name_of(pod)})"
                reason = f"{describe(pod)}, and Kubernetes keeps a claim for as long as a pod names it"
                self._block(claim, reason, f"{remedy}, or set {STOP}: true", STOP)
            else:
                self._trace(claim, pod)

    def templates_of(self, claim: str) -> None:
        """Find what will make pods that name a claim, though it has none now."""
        for resource, workload in self._owners.values():
            top = _controller(workload) is None or isinstance(self._top(resource, workload), _Unknown)
            if not top or not self._active(resource, workload) or not _names(resource, workload, claim):
                continue
            if resource == api.JOBS:
                self._block_job(claim, workload, None)
            else:
                self._add(claim, resource, workload, None)

    def _active(self, resource: api.Resource, workload: Mapping[str, Any]) -> bool:
        if resource == api.JOBS:
            return _unfinished(workload)
        return WAYS[resource].active(workload) or read(resource, workload) is not None

    def _trace(self, claim: str, pod: Mapping[str, Any]) -> None:
        owner = _controller(pod)
        found = self._owners.get(str(owner.get("uid"))) if owner else None
        if leaving(pod) and (not owner or (found and found[0] == api.JOBS and not _unfinished(found[1]))):
            self._block(claim, describe(pod), f"wait until it has gone, or set {STOP}: true, which waits", STOP)
        elif owner and found and found[0] == api.JOBS:
            self._block_job(claim, found[1], pod)
        elif owner and found:
            top = self._top(*found)
            if isinstance(top, _Unknown):
                self._block_unknown(claim, top.owner, describe(pod))
            else:
                self._add(claim, *top, pod)
        elif owner:
            self._block_unknown(claim, owner, describe(pod))
        else:
            remedy = f"delete it (kubectl -n {self._seen.namespace} delete pod {name_of(pod)}), and make it again after"
            self._block(claim, f"{describe(pod)}, and nothing would bring it back", remedy)

    def _top(
        self, resource: api.Resource, workload: Mapping[str, Any]
    ) -> tuple[api.Resource, Mapping[str, Any]] | _Unknown:
        """Return what stands at the end of a workload's controllers."""
        seen: set[str] = set()
        while True:
            owner = _controller(workload)
            if owner is None:
                return resource, workload
            uid = str(owner.get("uid"))
            found = self._owners.get(uid)
            if found is None or uid in seen:
                return _Unknown(owner)
            seen.add(uid)
            resource, workload = found

    # Saying

    def _add(
        self, claim: str, resource: api.Resource, workload: Mapping[str, Any], pod: Mapping[str, Any] | None
    ) -> None:
        """Take a workload for a user of a claim, if it may be touched."""
        top = self._top(resource, workload)
        if isinstance(top, _Unknown):
            self._block_unknown(claim, top.owner, title(resource, workload))
            return
        uid = str(workload["metadata"]["uid"])
        record = read(resource, workload)
        taken = why_not(resource, workload, record, self._terms)
        if taken is not None:
            self._block(claim, *taken)
            return
        pods = self._users.setdefault(uid, {}).setdefault(claim, [])
        if pod is not None:
            pods.append(name_of(pod))

    def _block(self, claim: str, reason: str, remedy: str, lifted_by: str | None = None) -> None:
        self._blockers[claim][Blocker(self._targets[claim], reason, remedy, _RETURN, lifted_by)] = None

    def _block_job(self, claim: str, job: Mapping[str, Any], pod: Mapping[str, Any] | None) -> None:
        """Say that a job runs; and stop the CronJob that has made it, if there is one, from making more."""
        what = title(api.JOBS, job)
        reason = f"{what} runs ({describe(pod)})" if pod is not None else f"{what} is not finished"
        remedy = (
            f"wait until it has finished, or delete it (kubectl -n {self._seen.namespace} delete job {name_of(job)})"
        )
        self._block(claim, reason, remedy)
        top = self._top(api.JOBS, job)
        if isinstance(top, _Unknown):
            self._block_unknown(claim, top.owner, what)
        elif top[0] == api.CRON_JOBS:
            self._add(claim, *top, None)

    def _block_unknown(self, claim: str, owner: Mapping[str, Any], what: str) -> None:
        kind, name, version = owner.get("kind"), owner.get("name"), str(owner.get("apiVersion"))
        for resource in WAYS:
            if kind == resource.kind and version == resource.api_version:
                if resource in self._seen.unseen:
                    remedy = (
                        f"allow list on {resource.full_name} in namespace {self._seen.namespace}, or stop it by hand"
                    )
                    self._block(claim, f"{what} belongs to {kind} {name}, which may not be looked at", remedy)
                else:
                    remedy = "run this again in a minute, or delete it by hand"
                    reason = f"{what} belongs to {kind} {name}, which is gone, so Kubernetes is about to remove it"
                    self._block(claim, reason, remedy)
                return
        if kind == "Node" and version == "v1":
            remedy = f"move its manifest out of the kubelet's folder on node {name}"
            self._block(claim, f"{what} is a static pod of node {name}", remedy)
            return
        remedy = f"stop it the way that {kind} is stopped, and start it again after"
        self._block(claim, f"{what} belongs to {kind} {name} ({version}), which would start it again", remedy)

    # The result

    def result(self) -> Users:
        """Return all that was found."""
        workloads = []
        for uid, using in self._users.items():
            resource, found = self._owners[uid]
            pods = tuple(dict.fromkeys(name for names in using.values() for name in names))
            record = read(resource, found)
            targets = tuple(self._targets[claim] for claim in using)
            workload = Workload(resource, found, uid, targets, pods, record if isinstance(record, Record) else None)
            workloads.append(workload)
            for claim, names in using.items():
                self._judge(claim, workload, names)
        for claim in self._targets:
            self._warn_unseen(claim)
        named = {claim: self._targets[claim] for claim in self._targets}
        return Users(
            tuple(named.values()),
            tuple(workloads),
            tuple(self._finished.values()),
            {named[claim]: tuple(found) for claim, found in self._blockers.items()},
            {named[claim]: tuple(found) for claim, found in self._warnings.items()},
        )

    def _judge(self, claim: str, workload: Workload, pods: Sequence[str]) -> None:
        """Say what has to be allowed before a workload is stopped, and what may get in the way of that."""
        if workload.record is None or pods or WAYS[workload.resource].active(workload.object):
            reason = f"{workload.title} uses it{_counted(pods)}"
            self._block(claim, reason, f"stop it, or set {STOP}: true", STOP)
        for name in self._autoscalers(api.AUTOSCALERS, workload, zero=True):
            reason = (
                f"HorizontalPodAutoscaler {name} has minReplicas 0: it may start {workload.title} while it is stopped"
            )
            self._block(claim, reason, "set its minReplicas to 1 for that time")
        for name in self._autoscalers(SCALED_OBJECTS, workload, zero=False):
            pause = "pause it with the annotation autoscaling.keda.sh/paused-replicas: '0'"
            self._warnings[claim][
                f"KEDA's ScaledObject {name} may start {workload.title} while it is stopped: {pause}"
            ] = None
        for keeper in _keepers(workload.object):
            warning = f"{keeper} may start {workload.title} while it is stopped: pause it where it does so"
            self._warnings[claim][warning] = None

    def _autoscalers(self, kind: api.Resource, workload: Workload, zero: bool) -> Iterator[str]:
        for each in self._seen.objects.get(kind, ()):
            target = (each.get("spec") or {}).get("scaleTargetRef") or {}
            group = str(target.get("apiVersion") or "apps/v1").rpartition("/")[0]
            aim = (target.get("kind") or "Deployment", target.get("name"), group)
            if aim != (workload.resource.kind, workload.name, workload.resource.group):
                continue
            annotations = (each.get("metadata") or {}).get("annotations") or {}
            if zero and (each.get("spec") or {}).get("minReplicas") != 0:
                continue
            if not zero and any(key.startswith("autoscaling.keda.sh/paused") for key in annotations):
                continue
            yield name_of(each)

    def _warn_unseen(self, claim: str) -> None:
        missing = [each.full_name for each in (*OWNERS, *SCALERS) if each in self._seen.unseen]
        if missing:
            where = f"in namespace {self._seen.namespace}"
            warning = f"this login may not list {', '.join(missing)} {where}: they were not looked at"
            self._warnings[claim][warning] = None


def _controller(item: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the reference to what manages an object."""
    for owner in (item.get("metadata") or {}).get("ownerReferences") or []:
        if owner.get("controller"):
            found: Mapping[str, Any] = owner
            return found
    return None


def _unfinished(job: Mapping[str, Any]) -> bool:
    """Say whether a Job runs, or will: it has not ended and is not suspended."""
    conditions = (job.get("status") or {}).get("conditions") or []
    ended = any(each.get("type") in ("Complete", "Failed") and each.get("status") == "True" for each in conditions)
    return not ended and not (job.get("spec") or {}).get("suspend")


def _names(resource: api.Resource, workload: Mapping[str, Any], claim: str) -> bool:
    """Say whether the pods that a workload makes use a claim."""
    if claim in claims_named(template_of(workload)):
        return True
    if resource != api.STATEFUL_SETS:
        return False
    first = int(((workload.get("spec") or {}).get("ordinals") or {}).get("start") or 0)
    record = read(resource, workload)
    count = record.had["replicas"] if isinstance(record, Record) else 0
    last = first + max(replicas_of(workload), count)
    found = (pattern.fullmatch(claim) for pattern in claims_made(workload))
    return any(first <= int(match[1]) < last for match in found if match)


def _counted(pods: Sequence[str]) -> str:
    if not pods:
        return ", and is about to make a pod"
    more = f" and {len(pods) - _NAMED_PODS} more" if len(pods) > _NAMED_PODS else ""
    return f" (pod{'' if len(pods) == 1 else 's'} {', '.join(pods[:_NAMED_PODS])}{more})"


def _keepers(workload: Mapping[str, Any]) -> Iterator[str]:
    """Yield which tools keep a workload as it is written elsewhere, by the marks that they leave on it."""
    metadata = workload.get("metadata") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    if "argocd.argoproj.io/tracking-id" in annotations or "argocd.argoproj.io/instance" in labels:
        yield "Argo CD"
    if "kustomize.toolkit.fluxcd.io/name" in labels or "helm.toolkit.fluxcd.io/name" in labels:
        yield "Flux"
    for owner in metadata.get("ownerReferences") or []:
        if not owner.get("controller"):
            yield f"{owner.get('kind')} {owner.get('name')}, which owns it,"
