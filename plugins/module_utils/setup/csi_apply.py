# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carries a plan for a cluster out, and waits until it has taken effect. Called by bridge; csi beside it plans.

A step that fails ends it. What was done stands: it is what was asked for, and the next run goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ..core.errors import RestorePointError
from ..kube import RUN, Access, KubeClient
from ..kube_login import KubeError
from ..kube_resources import CRDS, DEPLOYMENTS, PODS
from .csi_manifests import LABEL, ROLE
from .plan import Plan, Request, Step

#: Seconds between two looks.
_PAUSE = 1.0


class NotReady(RestorePointError):
    """What was set up did not become ready in time. What was done stands."""


@dataclass
class Applier:
    """Sends the steps of a plan to one cluster.

    Args:
        client: the login.
        seconds: how long to wait, for the CRDs and for the controller each.
    """

    client: KubeClient
    seconds: float
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def block_denied(self, plan: Plan) -> None:
        """Add a blocker for each thing that the steps need and this login may not do, so that none stops halfway."""
        needed: dict[Access, str] = {}
        for step in plan.steps:
            if step.request:
                each = step.request
                needed.setdefault(Access(each.verb, each.resource, each.namespace), step.target)
        for access in self.client.denied(list(needed)):
            plan.block(needed[access], f"this login may not {access}", "allow it, or log in as somebody who may")

    def carry_out(self, plan: Plan, done: list[Step]) -> None:
        """Take all steps in their order, and add each to ``done`` once it is. Raises RestorePointError."""
        crds: list[str] = []
        for step in plan.steps:
            if step.request is None:
                continue
            if step.request.resource == CRDS:
                crds.append(step.request.name)
            elif crds:
                self._established(crds)
                crds = []
            self._send(step.request, f"{step.action} {step.target}", self.clock() + self.seconds)
            done.append(step)
        self._established(crds)

    def _send(self, request: Request, attempt: str, end: float) -> None:
        while True:
            try:
                if request.verb == "create":
                    self.client.create(attempt, request.resource, request.namespace, self._marked(request.body))
                elif request.verb == "delete":
                    uid = str(request.body["metadata"]["uid"])
                    self.client.delete(attempt, request.resource, request.namespace, request.name, uid)
                else:
                    self.client.patch(attempt, request.resource, request.namespace, request.name, request.body)
                return
            except KubeError as error:
                # One of several API servers may not have heard of a new kind yet.
                if error.status != 404 or request.verb != "create" or self.clock() >= end:
                    raise
            self.sleep(_PAUSE)

    def _marked(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a body with the mark by which a create knows its own object after a lost answer."""
        metadata = dict(body["metadata"])
        metadata["annotations"] = {**(metadata.get("annotations") or {}), RUN: self.client.run}
        return {**body, "metadata": metadata}

    def _established(self, names: Sequence[str]) -> None:
        end = self.clock() + self.seconds
        waiting = list(names)
        while waiting:
            name = waiting[0]
            item = self.client.get(f"wait for the CRD {name}", CRDS, None, name)
            if condition(item, "Established") == "True":
                waiting.pop(0)
                continue
            if self.clock() >= end:
                reason = why_not(item, "NamesAccepted") or "it is not established"
                raise NotReady(
                    f"wait for the CRD {name}", f"{reason} after {self.seconds:g} s", "see kubectl describe crd"
                )
            self.sleep(_PAUSE)

    def wait_for_controller(self) -> list[dict[str, Any]]:
        """Wait until every controller of ours is ready; return the Deployments. Raises NotReady with what pods say."""
        end = self.clock() + self.seconds
        attempt = "wait for the snapshot controller"
        while True:
            found = list(self.client.list_objects(attempt, DEPLOYMENTS, selector=f"{LABEL}={ROLE}").items)
            late = [each for each in found if not is_ready(each)]
            if not late:
                return found
            if self.clock() >= end:
                raise self._not_ready(attempt, late[0])
            self.sleep(_PAUSE)

    def _not_ready(self, attempt: str, item: Mapping[str, Any]) -> NotReady:
        metadata = item["metadata"]
        labels = (item["spec"].get("selector") or {}).get("matchLabels") or {}
        selector = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
        pods = self.client.list_objects(attempt, PODS, metadata["namespace"], selector).items
        said = [f"{pod['metadata']['name']}: {trouble}" for pod in pods for trouble in troubles(pod)]
        reason = "; ".join(said) or why_not(item, "Progressing", "ReplicaFailure") or "it has no ready pod"
        where = f"{metadata['namespace']}/{metadata['name']}"
        return NotReady(
            f"wait {self.seconds:g} s for the Deployment {where}",
            reason,
            f"see kubectl --namespace {metadata['namespace']} describe deployment,pods, and run it again",
        )


def is_ready(item: Mapping[str, Any]) -> bool:
    """Say whether a Deployment runs as it was last asked for."""
    status, wanted = item.get("status") or {}, int((item.get("spec") or {}).get("replicas", 1))
    seen = int(status.get("observedGeneration") or 0) >= int(item["metadata"].get("generation") or 0)
    counts = [int(status.get(name) or 0) for name in ("readyReplicas", "updatedReplicas")]
    return seen and all(count >= wanted for count in counts)


def condition(item: Mapping[str, Any], kind: str) -> str | None:
    """Return the status of a condition of an object, None where it has no such one."""
    conditions = (item.get("status") or {}).get("conditions") or []
    return next((str(each.get("status")) for each in conditions if each.get("type") == kind), None)


def why_not(item: Mapping[str, Any], *kinds: str) -> str:
    """Return the messages of conditions of an object that tell of trouble."""
    conditions = (item.get("status") or {}).get("conditions") or []
    bad = {"ReplicaFailure": "True"}
    return "; ".join(
        str(each.get("message") or each.get("reason"))
        for each in conditions
        if each.get("type") in kinds and each.get("status") == bad.get(str(each.get("type")), "False")
    )


def troubles(pod: Mapping[str, Any]) -> list[str]:
    """Return what keeps a pod from being ready, in Kubernetes' words."""
    status = pod.get("status") or {}
    waiting = [(each.get("state") or {}).get("waiting") or {} for each in status.get("containerStatuses") or []]
    said = [f"{each.get('reason')} {each.get('message') or ''}".strip() for each in waiting if each]
    said += [why_not(pod, "PodScheduled")] if condition(pod, "PodScheduled") == "False" else []
    return said or ([f"it is {status.get('phase', 'Pending')}"] if condition(pod, "Ready") != "True" else [])
