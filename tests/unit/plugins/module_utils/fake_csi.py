# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controllers of CSI snapshots for fake_cluster.py: what snapshot controller and provisioner do, in short.

`Csi` makes snapshots ready, fails those of claims in ``broken``, ignores those in ``ignored``, binds claims, and
takes finalizers off when nothing is in the way. It was seen on a real control plane; tests/cluster hold it to that.
"""

from __future__ import annotations

from typing import Any

from .fake_cluster import FakeCluster

DRIVER = "hostpath.csi.k8s.io"
BOUND = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection"
SNAPSHOT_API = "snapshot.storage.k8s.io/v1"
GROUP_API = "groupsnapshot.storage.k8s.io/v1"


def snapshot_class(
    name: str = "csi", driver: str = DRIVER, default: bool = True, policy: str = "Delete"
) -> dict[str, Any]:
    annotations = {"snapshot.storage.kubernetes.io/is-default-class": "true"} if default else {}
    return {
        "apiVersion": SNAPSHOT_API,
        "kind": "VolumeSnapshotClass",
        "metadata": {"name": name, "annotations": annotations},
        "driver": driver,
        "deletionPolicy": policy,
    }


def storage_class(name: str = "csi", later: bool = False) -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": DRIVER,
        "volumeBindingMode": "WaitForFirstConsumer" if later else "Immediate",
    }


def group_class(name: str = "csi-group") -> dict[str, Any]:
    return {
        "apiVersion": GROUP_API,
        "kind": "VolumeGroupSnapshotClass",
        "metadata": {"name": name, "annotations": {"groupsnapshot.storage.kubernetes.io/is-default-class": "true"}},
        "driver": DRIVER,
        "deletionPolicy": "Delete",
    }


class Csi:
    """The controllers. Pass it to FakeCluster; ``up`` says whether they run."""

    def __init__(self) -> None:
        self.broken: dict[str, str] = {}
        self.ignored: set[str] = set()
        self.up = True

    def __call__(self, cluster: FakeCluster, word: str, plural: str, item: dict[str, Any]) -> None:
        act = getattr(self, f"_{plural}", None)
        if act is None or not self.up:
            return
        if word == "DELETED":
            if plural == "volumesnapshots":
                self._snapshot_gone(cluster, item)
            if plural == "volumegroupsnapshots":
                for each in cluster.all("volumesnapshots"):
                    if any(
                        owner["uid"] == item["metadata"]["uid"] for owner in each["metadata"].get("ownerReferences", [])
                    ):
                        cluster.remove(each)
            return
        act(cluster, item)

    def _volumesnapshots(self, cluster: FakeCluster, item: dict[str, Any]) -> None:
        metadata, status = item["metadata"], item.get("status") or {}
        if metadata.get("deletionTimestamp"):
            held = [each for each in metadata.get("finalizers") or [] if not each.startswith("snapshot.storage")]
            if len(held) != len(metadata.get("finalizers") or []):
                cluster.change(item, {"metadata": {"finalizers": held or None}})
            return
        source = item["spec"]["source"]
        claim = source.get("persistentVolumeClaimName")
        if status.get("readyToUse") or claim in self.ignored or metadata.get("ownerReferences"):
            return
        if claim in self.broken:
            if not status.get("error"):
                cluster.change(item, {"status": {"readyToUse": False, "error": {"message": self.broken[claim]}}})
            return
        content = source.get("volumeSnapshotContentName") or f"snapcontent-{metadata['uid']}"
        there = cluster.find("persistentvolumeclaims", str(claim), metadata["namespace"])
        if claim is not None and there is None:
            return
        if claim is not None:
            self._content(cluster, item, content)
        size = (there or {}).get("spec", {}).get("resources", {}).get("requests", {}).get("storage", "1Gi")
        cluster.change(item, {"metadata": {"finalizers": [BOUND]}, "status": _ready(item, content, size)})

    def _content(self, cluster: FakeCluster, item: dict[str, Any], name: str) -> None:
        classes = {each["metadata"]["name"]: each for each in cluster.all("volumesnapshotclasses")}
        chosen = classes[item["spec"]["volumeSnapshotClassName"]]
        cluster.put(
            {
                "apiVersion": SNAPSHOT_API,
                "kind": "VolumeSnapshotContent",
                "metadata": {"name": name},
                "spec": {
                    "deletionPolicy": chosen["deletionPolicy"],
                    "driver": chosen["driver"],
                    "source": {"volumeHandle": "handle"},
                    "volumeSnapshotRef": {key: item["metadata"][key] for key in ("namespace", "name", "uid")},
                },
                "status": {"readyToUse": True, "snapshotHandle": f"handle-{name}"},
            }
        )

    def _snapshot_gone(self, cluster: FakeCluster, item: dict[str, Any]) -> None:
        content = cluster.find(
            "volumesnapshotcontents", (item.get("status") or {}).get("boundVolumeSnapshotContentName", "")
        )
        if content is not None and content["spec"]["deletionPolicy"] == "Delete":
            cluster.remove(content)

    def _persistentvolumeclaims(self, cluster: FakeCluster, item: dict[str, Any]) -> None:
        metadata = item["metadata"]
        if metadata.get("deletionTimestamp"):
            cluster.change(item, {"metadata": {"finalizers": None}})
            return
        source = item["spec"].get("dataSource") or {}
        storage = cluster.find("storageclasses", item["spec"].get("storageClassName", ""))
        if item["status"].get("phase") == "Bound" or storage is None or storage["volumeBindingMode"] != "Immediate":
            return
        if source and cluster.find("volumesnapshots", source["name"], metadata["namespace"]) is None:
            return
        name, size = f"pvc-{metadata['uid']}", item["spec"]["resources"]["requests"]["storage"]
        cluster.put(volume_of(item, name))
        status = {"phase": "Bound", "capacity": {"storage": size}}
        cluster.change(item, {"spec": {"volumeName": name}, "status": status})

    def _volumegroupsnapshots(self, cluster: FakeCluster, item: dict[str, Any]) -> None:
        metadata = item["metadata"]
        if metadata.get("deletionTimestamp") or (item.get("status") or {}).get("readyToUse"):
            return
        wanted = item["spec"]["source"]["selector"]["matchLabels"]
        owner = {
            "apiVersion": item["apiVersion"],
            "kind": item["kind"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
        for claim in cluster.all("persistentvolumeclaims"):
            labels = claim["metadata"].get("labels") or {}
            if claim["metadata"]["namespace"] != metadata["namespace"] or not wanted.items() <= labels.items():
                continue
            name = f"snapshot-{metadata['uid']}-{claim['metadata']['name']}"
            member = {
                "apiVersion": SNAPSHOT_API,
                "kind": "VolumeSnapshot",
                "metadata": {"name": name, "namespace": metadata["namespace"], "ownerReferences": [owner]},
                "spec": {"source": {"persistentVolumeClaimName": claim["metadata"]["name"]}},
            }
            status = {**_ready(item, f"content-{name}", "1Gi"), "volumeGroupSnapshotName": metadata["name"]}
            cluster.put({**member, "status": status})
        bound = {"readyToUse": True, "boundVolumeGroupSnapshotContentName": f"groupcontent-{metadata['uid']}"}
        cluster.change(item, {"status": bound})


def _ready(item: dict[str, Any], content: str, size: str) -> dict[str, Any]:
    return {
        "readyToUse": True,
        "boundVolumeSnapshotContentName": content,
        "creationTime": item["metadata"]["creationTimestamp"],
        "restoreSize": size,
        "error": None,
    }


def volume_of(claim: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the volume of a claim, of our driver."""
    metadata = claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "finalizers": []},
        "spec": {
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "claimRef": {key: metadata.get(key) for key in ("namespace", "name", "uid")},
            "csi": {"driver": DRIVER, "volumeHandle": name},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": claim["spec"].get("storageClassName"),
        },
        "status": {"phase": "Bound"},
    }
