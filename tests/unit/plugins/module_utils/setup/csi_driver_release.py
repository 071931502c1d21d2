# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests of a CSI driver for tests, in short: in the shape of those of OpenEBS and csi-driver-host-path."""

from __future__ import annotations

from typing import Any

RBAC = "rbac.authorization.k8s.io"


def pod(image: str, kubelet: str = "/var/lib/kubelet", controller: str | None = None) -> dict[str, Any]:
    """Return the spec of a driver's pod: driver, registrar, and a snapshot controller where one is named."""
    registrar = {
        "name": "registrar",
        "image": "registry.example.org/sig-storage/csi-node-driver-registrar:v2.13.0",
        "args": ["--v=5", f"--kubelet-registration-path={kubelet}/plugins/made/csi.sock"],
        "volumeMounts": [{"name": "registration", "mountPath": "/registration"}],
    }
    plugin = {
        "name": "plugin",
        "image": image,
        "securityContext": {"privileged": True},
        "env": [{"name": "SOCKET", "value": f"unix://{kubelet}/plugins/made/csi.sock"}],
        "volumeMounts": [{"name": "pods", "mountPath": f"{kubelet}/", "mountPropagation": "Bidirectional"}],
    }
    containers = [registrar, plugin]
    if controller:
        containers.append({"name": "snapshot-controller", "image": controller})
    volumes = [
        {"name": "registration", "hostPath": {"path": f"{kubelet}/plugins_registry/", "type": "DirectoryOrCreate"}},
        {"name": "pods", "hostPath": {"path": f"{kubelet}/", "type": "Directory"}},
        {"name": "keys", "hostPath": {"path": "/home/keys", "type": "DirectoryOrCreate"}},
    ]
    return {"serviceAccountName": "made", "containers": containers, "volumes": volumes}


def workload(kind: str, namespace: str, image: str, name: str = "made", **more: Any) -> dict[str, Any]:
    """Return a workload; ``more`` goes to `pod`."""
    labels = {"app": f"{name}-{kind.lower()}"}
    spec: dict[str, Any] = {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod(image, **more)},
    }
    if kind != "DaemonSet":
        spec["replicas"] = 1
    if kind == "StatefulSet":
        spec["serviceName"] = name
    metadata = {"name": f"{name}-{kind.lower()}", "namespace": namespace}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}


def crd(name: str = "madevolumes", group: str = "made.example.org") -> dict[str, Any]:
    """Return a kind of the driver's own."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    names = {"plural": name, "singular": name[:-1], "kind": name.capitalize(), "listKind": f"{name.capitalize()}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{name}.{group}", "creationTimestamp": None},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
        "status": {"conditions": [], "storedVersions": []},
    }


def documents(
    driver: str, namespace: str, image: str = "registry.example.org/made-driver:2.1.0"
) -> list[dict[str, Any]]:
    """Return the documents of a release, with all that a release has and that is left out."""
    role = {"apiGroup": RBAC, "kind": "ClusterRole", "name": f"made-{namespace}"}
    rules = [{"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["get", "list"]}]
    account = {"kind": "ServiceAccount", "name": "made", "namespace": namespace}
    controller = "registry.example.org/sig-storage/snapshot-controller:v8.2.0"
    return [
        workload("DaemonSet", namespace, image),
        workload("Deployment", namespace, image, controller=controller),
        {"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": driver},
         "spec": {"attachRequired": False, "podInfoOnMount": True}},
        {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": role["name"]},
         "roleRef": role, "subjects": [account]},
        {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": role["name"]}, "rules": rules},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "made", "namespace": namespace}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made", "namespace": namespace},
         "data": {"run": "#!/bin/sh\nexec /var/lib/kubelet/run\n"}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        crd(),
        crd("volumesnapshots", "snapshot.storage.k8s.io"),
        {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "made"},
         "provisioner": driver},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "try", "annotations": {"helm.sh/hook": "test"}}},
    ]  # fmt: skip
