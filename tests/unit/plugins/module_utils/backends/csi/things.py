# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Workloads and pods as the API shows them, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NAMESPACE = "shop"
VERSIONS = {
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "ReplicaSet": "apps/v1",
    "ReplicationController": "v1",
    "Job": "batch/v1",
    "CronJob": "batch/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "ScaledObject": "keda.sh/v1alpha1",
    "Pod": "v1",
}


def owner(item: dict[str, Any], controller: bool = True) -> dict[str, Any]:
    """Return the reference by which an object is owned."""
    metadata = item["metadata"]
    found = {"apiVersion": item["apiVersion"], "kind": item["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    return {**found, "controller": True} if controller else found


def thing(kind: str, name: str, *, by: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return an object of a kind; ``by`` is its controller, ``more`` its spec."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": NAMESPACE,
        "uid": f"uid-{kind}-{name}",
        "resourceVersion": "7",
    }
    if by is not None:
        metadata["ownerReferences"] = [owner(by)]
    return {"apiVersion": VERSIONS.get(kind, "example.com/v1"), "kind": kind, "metadata": metadata, "spec": dict(more)}


def spec_of(*claims: str) -> dict[str, Any]:
    """Return the spec of a pod that names claims."""
    return {"volumes": [{"name": each, "persistentVolumeClaim": {"claimName": each}} for each in claims]}


def template(*claims: str) -> dict[str, Any]:
    """Return a pod template that names claims."""
    return {"metadata": {"labels": {"app": "it"}}, "spec": spec_of(*claims)}


def pod(
    name: str,
    *claims: str,
    by: dict[str, Any] | None = None,
    phase: str = "Running",
    node: str | None = "node-1",
    deleted: bool = False,
    finalizers: Sequence[str] = (),
) -> dict[str, Any]:
    """Return a pod that names claims."""
    found = thing("Pod", name, by=by, **spec_of(*claims), **({"nodeName": node} if node else {}))
    found["status"] = {"phase": phase}
    if deleted:
        found["metadata"]["deletionTimestamp"] = "2026-11-26T11:00:00Z"
    if finalizers:
        found["metadata"]["finalizers"] = list(finalizers)
    return found


def deployment(name: str, *claims: str, replicas: int | None = 2, **more: Any) -> dict[str, Any]:
    """Return a Deployment whose template names claims."""
    return thing("Deployment", name, replicas=replicas, template=template(*claims), **more)


def replica_set(name: str, *claims: str, by: dict[str, Any] | None = None, replicas: int = 2) -> dict[str, Any]:
    """Return a ReplicaSet whose template names claims."""
    return thing("ReplicaSet", name, by=by, replicas=replicas, template=template(*claims))


def stateful_set(name: str, made: str, replicas: int = 2, **more: Any) -> dict[str, Any]:
    """Return a StatefulSet that makes a claim for each pod."""
    templates = [{"metadata": {"name": made}, "spec": {}}]
    return thing("StatefulSet", name, replicas=replicas, template=template(), volumeClaimTemplates=templates, **more)


def daemon_set(name: str, *claims: str, selector: dict[str, str] | None = None) -> dict[str, Any]:
    """Return a DaemonSet whose template names claims."""
    pods = template(*claims)
    if selector is not None:
        pods["spec"]["nodeSelector"] = dict(selector)
    return thing("DaemonSet", name, template=pods)


def job(
    name: str, *claims: str, by: dict[str, Any] | None = None, ended: str | None = None, **more: Any
) -> dict[str, Any]:
    """Return a Job whose template names claims; ``ended`` is Complete or Failed."""
    found = thing("Job", name, by=by, template=template(*claims), **more)
    if ended:
        found["status"] = {"conditions": [{"type": ended, "status": "True"}]}
    return found


def cron_job(name: str, *claims: str, suspend: bool = False) -> dict[str, Any]:
    """Return a CronJob whose template names claims."""
    return thing("CronJob", name, suspend=suspend, jobTemplate={"spec": {"template": template(*claims)}})


def autoscaler(kind: str, target: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a HorizontalPodAutoscaler, or KEDA's ScaledObject, of a workload."""
    aim = {"apiVersion": target["apiVersion"], "kind": target["kind"], "name": target["metadata"]["name"]}
    return thing(kind, f"scale-{aim['name']}", scaleTargetRef=aim, **more)
