# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controllers of workloads, and a kubelet, for the fake cluster: small ones that make and remove pods.

The real ones are what tests/cluster runs.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.workloads.kinds import MARK
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.backends.csi.things import (
    NAMESPACE,
    owner,
    thing,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_cluster import PLURALS, FakeCluster

PLURALS.setdefault("ReplicationController", "replicationcontrollers")
PLURALS.setdefault("ScaledObject", "scaledobjects")
KUBELET = "test/kubelet"
_MAKERS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController")
_NODES = ("node-1", "node-2")


class Controllers:
    """Makes the pods that workloads ask for. ``hung`` holds names of pods that never end."""

    def __init__(self) -> None:
        self.hung: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, cluster: FakeCluster, word: str, plural: str, item: dict[str, Any]) -> None:
        """Bring the pods in line with the workloads, and finish those that are being deleted."""
        with self._lock:
            if plural == "pods":
                self._end(cluster, word, item)
            for kind in _MAKERS:
                for workload in cluster.all(PLURALS[kind]):
                    self._reconcile(cluster, workload)

    def _end(self, cluster: FakeCluster, word: str, pod: dict[str, Any]) -> None:
        if word != "DELETED" and pod["metadata"].get("deletionTimestamp") and pod["metadata"]["name"] not in self.hung:
            cluster.change(pod, {"metadata": {"finalizers": None}})

    def _reconcile(self, cluster: FakeCluster, workload: dict[str, Any]) -> None:
        wanted = dict(_pods_of(workload))
        pods = [each for each in cluster.all("pods") if _owned(each, workload)]
        for pod in pods:
            name, leaving = pod["metadata"]["name"], pod["metadata"].get("deletionTimestamp")
            if pod["status"]["phase"] == "Running" and name not in wanted and not leaving:
                cluster.remove(pod)
        there = {each["metadata"]["name"] for each in pods}
        for name, pod in wanted.items():
            if name not in there:
                cluster.put(pod)
        current = cluster.find(PLURALS[workload["kind"]], workload["metadata"]["name"])
        if current is not None:
            ready = len(there & set(wanted))
            status = {"readyReplicas": ready, "numberReady": ready, "desiredNumberScheduled": len(wanted)}
            # Of the spec that was looked at: it may have changed since.
            status["observedGeneration"] = workload["metadata"].get("generation", 0)
            if current.get("status") != status:
                cluster.change(current, {"status": status})


def _owned(pod: Mapping[str, Any], workload: Mapping[str, Any]) -> bool:
    return any(each["uid"] == workload["metadata"]["uid"] for each in pod["metadata"].get("ownerReferences", []))


def _pods_of(workload: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the pods that a workload asks for."""
    spec, name = workload["spec"], workload["metadata"]["name"]
    template = spec["template"]["spec"]
    nodes = [] if MARK in template.get("nodeSelector", {}) else _NODES
    names = list(nodes) if workload["kind"] == "DaemonSet" else [str(each) for each in range(spec.get("replicas", 1))]
    for each in names:
        pod = thing("Pod", f"{name}-{each}", nodeName="node-1", volumes=copy.deepcopy(template.get("volumes", [])))
        for made in spec.get("volumeClaimTemplates", []):
            claim = f"{made['metadata']['name']}-{name}-{each}"
            pod["spec"]["volumes"].append({"name": claim, "persistentVolumeClaim": {"claimName": claim}})
        pod["metadata"].update(ownerReferences=[owner(workload)], finalizers=[KUBELET])
        pod["metadata"].pop("uid")
        pod["status"] = {"phase": "Running"}
        yield pod["metadata"]["name"], pod


def names(cluster: FakeCluster) -> list[str]:
    """Return the pods that are there."""
    return sorted(
        each["metadata"]["name"] for each in cluster.all("pods") if each["metadata"]["namespace"] == NAMESPACE
    )
