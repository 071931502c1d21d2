# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of csi_layout speak of: manifests as upstream's, and a cluster that establishes and starts them."""

from __future__ import annotations

import copy
from typing import Any

from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils import fake_cluster
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_cluster import FakeCluster

fake_cluster.PLURALS.update(
    {
        "CustomResourceDefinition": "customresourcedefinitions",
        "CSIDriver": "csidrivers",
        "CSINode": "csinodes",
        "Lease": "leases",
        "ClusterRole": "clusterroles",
    }
)
SNAPSHOT_KINDS = ("volumesnapshotclasses", "volumesnapshotcontents", "volumesnapshots")
GROUP_KINDS = ("volumegroupsnapshotclasses", "volumegroupsnapshotcontents", "volumegroupsnapshots")
IMAGE = "registry.k8s.io/sig-storage/snapshot-controller:v8.5.0"


def crd(plural: str, *versions: str, stored: str | None = None, **metadata: Any) -> dict[str, Any]:
    """Return a CRD of one of the two groups that serves these versions."""
    group = "groupsnapshot.storage.k8s.io" if "group" in plural else "snapshot.storage.k8s.io"
    keep = stored or versions[0]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}", **metadata},
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": {"plural": plural, "kind": plural.capitalize()},
            "versions": [{"name": each, "served": True, "storage": each == keep} for each in versions],
        },
    }


def deployment(image: str = IMAGE, name: str = "snapshot-controller", namespace: str = "kube-system") -> dict[str, Any]:
    """Return the Deployment of a snapshot controller."""
    labels = {"app.kubernetes.io/name": name}
    container = {"name": name, "image": image, "args": ["--v=5", "--leader-election=true"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def role(*verbs: str) -> dict[str, Any]:
    """Return the controller's ClusterRole."""
    rule = {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": list(verbs or ("get", "list"))}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "snapshot-controller-runner"},
        "rules": [rule],
    }


def documents(*, groups: bool = True) -> list[dict[str, Any]]:
    """Return the documents of a release."""
    kinds = [crd(each, "v1") for each in SNAPSHOT_KINDS]
    kinds += [crd(each, "v1", "v1beta1", "v1beta2", stored="v1beta2") for each in GROUP_KINDS] if groups else []
    return [deployment(), role(), *kinds]


def driver(name: str = "hostpath.csi.k8s.io") -> dict[str, Any]:
    """Return a CSIDriver."""
    return {"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": name}}


def storage_class(name: str, default: bool = False, provisioner: str = "hostpath.csi.k8s.io") -> dict[str, Any]:
    """Return a StorageClass as the API shows it."""
    marks = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": marks},
        "provisioner": provisioner,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
        "allowVolumeExpansion": True,
    }


def snapshot_class(name: str, default: bool = False, driver: str = "hostpath.csi.k8s.io") -> dict[str, Any]:
    """Return a VolumeSnapshotClass as the API shows it."""
    marks = {"snapshot.storage.kubernetes.io/is-default-class": "true"} if default else {}
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotClass",
        "metadata": {"name": name, "annotations": marks},
        "driver": driver,
        "deletionPolicy": "Delete",
    }


def kubelet(cluster: FakeCluster, word: str, plural: str, item: dict[str, Any]) -> None:
    """Establish CRDs and start Deployments, as a cluster does."""
    if word == "DELETED":
        return
    if plural == "customresourcedefinitions" and not item.get("status"):
        stored = [each["name"] for each in item["spec"]["versions"] if each["storage"]]
        status = {"conditions": [{"type": "Established", "status": "True"}], "storedVersions": stored}
        group = item["spec"]["group"]
        cluster.groups[group] = tuple(each["name"] for each in item["spec"]["versions"])
        cluster.change(item, {"status": status})
    if plural == "deployments":
        wanted = {"readyReplicas": item["spec"]["replicas"], "updatedReplicas": item["spec"]["replicas"]}
        if (item.get("status") or {}).get("readyReplicas") != wanted["readyReplicas"]:
            cluster.change(item, {"status": wanted})


def bare(cluster: FakeCluster) -> FakeCluster:
    """Take the snapshot kinds out of a fake cluster, and add the groups that csi_layout speaks to."""
    cluster.groups = {name: versions for name, versions in cluster.groups.items() if "snapshot" not in name}
    for group in ("apiextensions.k8s.io", "rbac.authorization.k8s.io", "coordination.k8s.io"):
        cluster.groups[group] = ("v1",)
    return cluster


def without(item: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return a copy of an object without some of its members."""
    return {name: copy.deepcopy(value) for name, value in item.items() if name not in names}
