# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands in for a scheduler and a kubelet: the pods of one namespace come and go as if they ran on a node.

A pod is bound to the node once its claims are, then its status says Running and Ready. One that is deleted goes at
once, or after ``grace`` seconds. No container runs. Used through `Lab.node`.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys
import threading
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))

from cluster_api import CORE, STORAGE, Api, ApiError

NODE = "lab"
_SELECTED = "volume.kubernetes.io/selected-node"


class Node:
    """The stand-in, as a context manager; a thread looks at the pods ten times a second."""

    def __init__(self, api: Api, namespace: str, grace: float = 0.0) -> None:
        self.api, self.namespace, self.grace = api, namespace, grace
        self._deleted: dict[str, float] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Node:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._end.set()
        self._thread.join(30)

    def finish(self, pod: str, phase: str = "Succeeded") -> None:
        """Let a pod end, so that its Job does."""
        self.api.patch(f"{self._pods}/{pod}/status", {"status": {"phase": phase}})

    @property
    def _pods(self) -> str:
        return f"{CORE}/namespaces/{self.namespace}/pods"

    def _run(self) -> None:
        while not self._end.wait(0.1):
            # The API server may be away, or an object may have changed: the next round looks again.
            with contextlib.suppress(OSError, ApiError):
                for pod in self.api.items(self._pods):
                    with contextlib.suppress(ApiError):
                        self._see_to(pod)

    def _see_to(self, pod: dict[str, Any]) -> None:
        metadata, status = pod["metadata"], pod.get("status", {})
        path = f"{self._pods}/{metadata['name']}"
        if metadata.get("deletionTimestamp"):
            since = self._deleted.setdefault(metadata["uid"], time.monotonic())
            if time.monotonic() - since >= self.grace:
                self.api.delete(path, gracePeriodSeconds=0, preconditions={"uid": metadata["uid"]})
        elif not pod["spec"].get("nodeName"):
            if all(self._claim_is_bound(name) for name in _claims(pod)):
                target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
                self.api.create(f"{path}/binding", {"metadata": {"name": metadata["name"]}, "target": target})
        elif status.get("phase") == "Pending":
            self.api.patch(f"{path}/status", {"status": _running(pod)})

    def _claim_is_bound(self, name: str) -> bool:
        """Say whether a claim is bound; one that waits for its first consumer is told the node."""
        path = f"{CORE}/namespaces/{self.namespace}/persistentvolumeclaims/{name}"
        claim = self.api.find(path)
        if claim is None or claim["metadata"].get("deletionTimestamp"):
            return False
        if claim["status"].get("phase") == "Bound":
            return True
        if _SELECTED not in (claim["metadata"].get("annotations") or {}) and claim["spec"].get("storageClassName"):
            found = self.api.find(f"{STORAGE}/storageclasses/{claim['spec']['storageClassName']}")
            if found and found.get("volumeBindingMode") == "WaitForFirstConsumer":
                self.api.patch(path, {"metadata": {"annotations": {_SELECTED: NODE}}})
        return False


def _claims(pod: dict[str, Any]) -> list[str]:
    volumes = pod["spec"].get("volumes") or []
    return [each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each]


def _running(pod: dict[str, Any]) -> dict[str, Any]:
    """Return the status of a pod whose containers all run."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    kinds = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    conditions = [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in kinds]
    containers = [
        {
            "name": each["name"],
            "ready": True,
            "started": True,
            "restartCount": 0,
            "image": each["image"],
            "imageID": each["image"],
            "state": {"running": {"startedAt": now}},
        }
        for each in pod["spec"]["containers"]
    ]
    return {"phase": "Running", "startTime": now, "conditions": conditions, "containerStatuses": containers}
