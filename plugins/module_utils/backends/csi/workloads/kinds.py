# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How each kind of workload is stopped, told to be stopped, and brought back. Pure.

Deployments, StatefulSets, ReplicaSets and ReplicationControllers get 0 replicas; a DaemonSet a node selector that no
node has; a CronJob is suspended. Each way knows what has to be recorded to bring back what the workload had, and sees
whether somebody has changed it by hand since. Imports the names of resources only; called by the files beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from .... import kube_resources as api
from .. import objects

CONTROLLERS = api.Resource("", "v1", "replicationcontrollers", "ReplicationController")
SCALED_OBJECTS = api.Resource("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject")

#: Label (the run) and annotation (the record) of a stopped workload, and the key of a DaemonSet's node selector.
#: Both, because a Deployment's annotations are copied to its ReplicaSets, and come back from there with
#: ``kubectl rollout undo``; its labels are not. A record without the label is such a copy.
MARK = objects.PREFIX + "stopped"


class Way(Protocol):
    """How one kind is stopped."""

    def active(self, workload: Mapping[str, Any]) -> bool:
        """Say whether it makes pods as it stands."""

    def had(self, workload: Mapping[str, Any]) -> dict[str, Any]:
        """Return what must be recorded before it is stopped."""

    def stop(self, workload: Mapping[str, Any], run: str) -> dict[str, Any]:
        """Return the merge patch of its spec that stops it."""

    def untouched(self, workload: Mapping[str, Any]) -> bool:
        """Say whether a stopped one still stands as it was left."""

    def start(self, workload: Mapping[str, Any], had: Mapping[str, Any]) -> dict[str, Any]:
        """Return the merge patch of its spec that brings it back, but for what somebody has changed since."""

    def words(self, had: Mapping[str, Any]) -> str:
        """Say in words what it had."""

    def command(self, name: str, had: Mapping[str, Any]) -> str:
        """Return the arguments of kubectl with which a person brings it back."""

    def ready(self, workload: Mapping[str, Any]) -> bool:
        """Say whether it is up again."""


def replicas_of(workload: Mapping[str, Any]) -> int:
    """Return how many pods are asked for; the API server fills in 1 where nobody said."""
    found = (workload.get("spec") or {}).get("replicas")
    return 1 if found is None else int(found)


def _observed(workload: Mapping[str, Any]) -> bool:
    """Say whether its controller has seen its present spec."""
    wanted = (workload.get("metadata") or {}).get("generation") or 0
    return int((workload.get("status") or {}).get("observedGeneration") or 0) >= int(wanted)


class Replicas:
    """Stopped by 0 replicas.

    A StatefulSet may say that claims are deleted when it is scaled down (persistentVolumeClaimRetentionPolicy). The
    same patch then says that they are retained.
    """

    def __init__(self, word: str) -> None:
        self._word = word

    def active(self, workload: Mapping[str, Any]) -> bool:
        """See Way."""
        return replicas_of(workload) > 0

    def had(self, workload: Mapping[str, Any]) -> dict[str, Any]:
        """See Way."""
        had: dict[str, Any] = {"replicas": replicas_of(workload)}
        retention = (workload.get("spec") or {}).get("persistentVolumeClaimRetentionPolicy") or {}
        if retention.get("whenScaled") == "Delete":
            had["when_scaled"] = "Delete"
        return had

    def stop(self, workload: Mapping[str, Any], run: str) -> dict[str, Any]:
        """See Way."""
        retention = {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Retain"}}
        return {"replicas": 0, **(retention if "when_scaled" in self.had(workload) else {})}

    def untouched(self, workload: Mapping[str, Any]) -> bool:
        """See Way."""
        return replicas_of(workload) == 0

    def start(self, workload: Mapping[str, Any], had: Mapping[str, Any]) -> dict[str, Any]:
        """See Way."""
        patch: dict[str, Any] = {"replicas": had["replicas"]} if self.untouched(workload) else {}
        retention = (workload.get("spec") or {}).get("persistentVolumeClaimRetentionPolicy") or {}
        if "when_scaled" in had and retention.get("whenScaled") == "Retain":
            patch["persistentVolumeClaimRetentionPolicy"] = {"whenScaled": had["when_scaled"]}
        return patch

    def words(self, had: Mapping[str, Any]) -> str:
        """See Way."""
        return f"{had['replicas']} replica{'' if had['replicas'] == 1 else 's'}"

    def command(self, name: str, had: Mapping[str, Any]) -> str:
        """See Way."""
        return f"scale {self._word}/{name} --replicas={had['replicas']}"

    def ready(self, workload: Mapping[str, Any]) -> bool:
        """See Way."""
        return _observed(workload) and int((workload.get("status") or {}).get("readyReplicas") or 0) >= replicas_of(
            workload
        )


class Nodes:
    """Stopped by a node selector that no node has. What else the selector holds is not touched."""

    def active(self, workload: Mapping[str, Any]) -> bool:
        """See Way."""
        status = workload.get("status") or {}
        settled = _observed(workload) and "desiredNumberScheduled" in status
        return MARK not in _selector(workload) and not (settled and not status["desiredNumberScheduled"])

    def had(self, workload: Mapping[str, Any]) -> dict[str, Any]:
        """See Way."""
        return {"node_selector": {key: value for key, value in _selector(workload).items() if key != MARK}}

    def stop(self, workload: Mapping[str, Any], run: str) -> dict[str, Any]:
        """See Way."""
        return {"template": {"spec": {"nodeSelector": {MARK: run}}}}

    def untouched(self, workload: Mapping[str, Any]) -> bool:
        """See Way."""
        return MARK in _selector(workload)

    def start(self, workload: Mapping[str, Any], had: Mapping[str, Any]) -> dict[str, Any]:
        """See Way."""
        return {"template": {"spec": {"nodeSelector": {MARK: None}}}} if self.untouched(workload) else {}

    def words(self, had: Mapping[str, Any]) -> str:
        """See Way."""
        selector = ",".join(f"{key}={value}" for key, value in sorted(had["node_selector"].items()))
        return f"node selector {selector}" if selector else "no node selector"

    def command(self, name: str, had: Mapping[str, Any]) -> str:
        """See Way."""
        patch = f'{{"spec":{{"template":{{"spec":{{"nodeSelector":{{"{MARK}":null}}}}}}}}}}'
        return f"patch daemonset/{name} --type=merge -p '{patch}'"

    def ready(self, workload: Mapping[str, Any]) -> bool:
        """See Way."""
        status = workload.get("status") or {}
        return _observed(workload) and int(status.get("numberReady") or 0) >= int(
            status.get("desiredNumberScheduled") or 0
        )


def _selector(workload: Mapping[str, Any]) -> Mapping[str, str]:
    return template_of(workload).get("nodeSelector") or {}


class Suspension:
    """Stopped by suspending it: it starts no more jobs. Those that run are not touched."""

    def active(self, workload: Mapping[str, Any]) -> bool:
        """See Way."""
        return not self.untouched(workload)

    def had(self, workload: Mapping[str, Any]) -> dict[str, Any]:
        """See Way."""
        return {"suspend": False}

    def stop(self, workload: Mapping[str, Any], run: str) -> dict[str, Any]:
        """See Way."""
        return {"suspend": True}

    def untouched(self, workload: Mapping[str, Any]) -> bool:
        """See Way."""
        return bool((workload.get("spec") or {}).get("suspend"))

    def start(self, workload: Mapping[str, Any], had: Mapping[str, Any]) -> dict[str, Any]:
        """See Way."""
        return {"suspend": False} if self.untouched(workload) else {}

    def words(self, had: Mapping[str, Any]) -> str:
        """See Way."""
        return "not suspended"

    def command(self, name: str, had: Mapping[str, Any]) -> str:
        """See Way."""
        return f'patch cronjob/{name} --type=merge -p \'{{"spec":{{"suspend":false}}}}\''

    def ready(self, workload: Mapping[str, Any]) -> bool:
        """See Way."""
        return True


#: What can be stopped, in the order in which it is: first what makes others. It is brought back the other way round.
WAYS: dict[api.Resource, Way] = {
    api.CRON_JOBS: Suspension(),
    api.DEPLOYMENTS: Replicas("deployment"),
    api.STATEFUL_SETS: Replicas("statefulset"),
    api.DAEMON_SETS: Nodes(),
    api.REPLICA_SETS: Replicas("replicaset"),
    CONTROLLERS: Replicas("replicationcontroller"),
}
#: What is listed to find out to whom a pod belongs.
OWNERS: tuple[api.Resource, ...] = (*WAYS, api.JOBS)
#: What is listed besides where something can be stopped.
SCALERS: tuple[api.Resource, ...] = (api.AUTOSCALERS, SCALED_OBJECTS)
LISTED: tuple[api.Resource, ...] = (api.PODS, *OWNERS, *SCALERS)


def template_of(workload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the spec of the pods that a workload makes."""
    spec = workload.get("spec") or {}
    job = (spec.get("jobTemplate") or {}).get("spec") or spec
    template: Mapping[str, Any] = (job.get("template") or {}).get("spec") or {}
    return template
