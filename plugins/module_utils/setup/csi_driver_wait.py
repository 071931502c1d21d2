# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waits until a CSI driver runs: its pods are ready, and kubelet knows it. Called by bridge.

A wait that ends says of everything that is not ready what it is, and what the cluster says of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ..kube import KubeClient
from ..kube_resources import DAEMON_SETS, DRIVERS, PODS
from .csi_apply import NotReady, is_ready, troubles, why_not
from .csi_driver import WORKLOADS
from .csi_driver_plan import registered
from .csi_manifests import ManifestObject

_PAUSE = 1.0
_MOST_PODS = 3


@dataclass
class DriverWaiter:
    """Waits for one driver.

    Args:
        client: the login.
        driver: its name.
        kubelet: kubelet's folder, for what is said when kubelet does not find it.
        events: gives the newest events of an object, in words.
        seconds: how long to wait, for everything together.
        nodes: whether at least one node has to know it.
    """

    client: KubeClient
    driver: str
    kubelet: str
    events: Callable[[Mapping[str, Any]], Sequence[str]]
    seconds: float
    nodes: bool = True
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    @property
    def _attempt(self) -> str:
        return f"wait {self.seconds:g} s for the driver {self.driver}"

    def wait(self, objects: Sequence[ManifestObject]) -> list[str]:
        """Wait until all workloads among the objects are ready and the driver is known; return the nodes that know it.

        Raises:
            NotReady: something was not ready in time.
            KubeError: the cluster cannot be asked.
        """
        end = self.clock() + self.seconds
        workloads = [each for each in objects if each.resource in WORKLOADS]
        while True:
            late = [item for item in map(self._look, workloads) if not runs(item)]
            missing = None if late else self._missing()
            known = [] if late or missing else registered(self.client, self.driver)
            if not late and not missing and (known or not self.nodes):
                return known
            if self.clock() >= end:
                raise self._not_ready(late, missing)
            self.sleep(_PAUSE)

    def _look(self, each: ManifestObject) -> Mapping[str, Any]:
        item = self.client.get(self._attempt, each.resource, each.namespace, each.name)
        return {"kind": each.resource.kind, **item}

    def _missing(self) -> str | None:
        if self.client.find(self._attempt, DRIVERS, None, self.driver) is None:
            return f"there is no CSIDriver {self.driver} yet, which its operator makes"
        return None

    def _not_ready(self, late: Sequence[Mapping[str, Any]], missing: str | None) -> NotReady:
        said = [self._why(item) for item in late] + ([missing] if missing else [])
        remedy = f"see kubectl describe csidriver {self.driver}, and the log of its operator"
        if late:
            namespaces = sorted({str(item["metadata"]["namespace"]) for item in late})
            remedy = f"see kubectl --namespace {namespaces[0]} describe pods"
        elif not missing:
            said = [
                "its pods are ready, and no node knows it: kubelet finds a driver in its own folder only, "
                f"and the driver was set up for {self.kubelet}"
            ]
            remedy = "set kubelet_dir to kubelet's folder (MicroK8s: /var/snap/microk8s/common/var/lib/kubelet)"
        return NotReady(self._attempt, "; ".join(said), f"{remedy}, and run it again")

    def _why(self, item: Mapping[str, Any]) -> str:
        """Return which workload is not ready, and what its pods and events say."""
        metadata = item["metadata"]
        labels = (item["spec"].get("selector") or {}).get("matchLabels") or {}
        selector = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
        pods = [
            pod for pod in self.client.list_objects(self._attempt, PODS, metadata["namespace"], selector).items
            if troubles(pod)
        ]  # fmt: skip
        words = [
            f"{pod['metadata']['name']}: {', '.join([*troubles(pod), *self.events(pod)])}" for pod in pods[:_MOST_PODS]
        ]
        words += [f"and {len(pods) - _MOST_PODS} more pods"] if len(pods) > _MOST_PODS else []
        told = [why_not(item, "Progressing", "ReplicaFailure"), *self.events(item)]
        words += [each for each in dict.fromkeys(told) if each]
        ready, wanted = counts(item)
        none = (
            "no node takes its pods"
            if item["kind"] == DAEMON_SETS.kind and not wanted
            else f"{ready} of {wanted} pods are ready"
        )
        return f"{item['kind']} {metadata['namespace']}/{metadata['name']}: {', '.join([none, *words])}"


def counts(item: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many pods of a workload are ready, and how many there should be."""
    status, spec = item.get("status") or {}, item.get("spec") or {}
    if item["kind"] == DAEMON_SETS.kind:
        return int(status.get("numberReady") or 0), int(status.get("desiredNumberScheduled") or 0)
    return int(status.get("readyReplicas") or 0), int(spec.get("replicas", 1))


def runs(item: Mapping[str, Any]) -> bool:
    """Say whether a workload runs as it was last asked for; a DaemonSet that has no node does not."""
    if item["kind"] != DAEMON_SETS.kind:
        return is_ready(item)
    status = item.get("status") or {}
    seen = int(status.get("observedGeneration") or 0) >= int(item["metadata"].get("generation") or 0)
    ready, wanted = counts(item)
    return seen and wanted > 0 and min(ready, int(status.get("updatedNumberScheduled") or 0)) >= wanted
