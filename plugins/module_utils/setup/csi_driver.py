# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The manifests of a CSI driver: what they may hold, and how they are fitted to a cluster. Pure; called by bridge.

They come from the driver's own release, or are rendered from its chart. What a cluster has once, or what csi_layout
makes, is left out of them: the kinds of snapshots, the snapshot controller, classes. The paths of kubelet's folder
become those of this cluster: a driver that looks elsewhere is never found by kubelet.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.errors import InvalidInput
from ..kube_resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    CRDS,
    DAEMON_SETS,
    DEPLOYMENTS,
    DRIVERS,
    GROUP_SNAPSHOT_GROUP,
    NAMESPACES,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    SNAPSHOT_GROUP,
    STATEFUL_SETS,
    Resource,
)
from .csi_manifests import DIGEST, LABEL, ManifestObject, is_controller

#: What is ours carries the label with this value.
ROLE = "csi_driver"
#: Where kubelet looks for drivers, unless a distribution has it elsewhere.
KUBELET = "/var/lib/kubelet"
_WEBHOOKS = "admissionregistration.k8s.io"
#: In the order in which they are made: what others refer to comes first.
KINDS = (
    *(CRDS, NAMESPACES, Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False)),
    *(SERVICE_ACCOUNTS, Resource("", "v1", "secrets", "Secret"), CONFIG_MAPS),
    *(CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS, ROLES, ROLE_BINDINGS),
    *(
        Resource("", "v1", "services", "Service"),
        Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    ),
    DRIVERS,
    *(
        Resource(
            _WEBHOOKS, "v1", f"{each.lower()}webhookconfigurations", f"{each}WebhookConfiguration", namespaced=False
        )
        for each in ("Mutating", "Validating")
    ),
    *(DEPLOYMENTS, STATEFUL_SETS, DAEMON_SETS),
)
WORKLOADS = (DEPLOYMENTS, STATEFUL_SETS, DAEMON_SETS)
#: What csi_layout and the user make: a driver's file that has some as well is taken without them.
_CLASSES = ("StorageClass", "VolumeSnapshotClass", "VolumeGroupSnapshotClass")
_HOOK = "helm.sh/hook"
#: Rook's operator writes kubelet's folder into what it makes, and is told it only here.
_ROOK = ("rook-ceph-operator-config", "ROOK_CSI_KUBELET_DIR_PATH")
_REGISTRY = "plugins_registry"
#: kubelet's usual folder as a path of its own, or at the beginning of one; not at the end of another folder's.
_KUBELET = re.compile(r"(?<![\w.-])/var/lib/kubelet(?![\w.-])")


@dataclass(frozen=True)
class Restores:
    """From which release on a driver makes volumes of its snapshots. ``image`` is the last part of its image's name."""

    image: str
    least: tuple[int, ...]
    words: str


#: Drivers whose older releases take snapshots that nobody can restore.
RESTORES = {
    "local.csi.openebs.io": Restores(
        "lvm-driver", (1, 8, 0), "LVM LocalPV restores from 1.8.0 (OpenEBS 4.4) on, and thin volumes only"
    ),
}


_CHART = (
    "render its chart on a machine that has Helm (helm template {0} {0} --repo {1} --namespace {2} --include-crds), "
    "and name the file under manifests"
)
_ROOK_FILES = "name crds.yaml, common.yaml and operator.yaml of a release of Rook (deploy/examples) under manifests"
#: Where the manifests of drivers come from.
SOURCES = {
    "zfs.csi.openebs.io": _CHART.format("zfs-localpv", "https://openebs.github.io/zfs-localpv", "openebs"),
    "local.csi.openebs.io": _CHART.format("lvm-localpv", "https://openebs.github.io/lvm-localpv", "openebs"),
    "topolvm.io": _CHART.format("topolvm", "https://topolvm.github.io/topolvm", "topolvm-system"),
    "rook-ceph.rbd.csi.ceph.com": _ROOK_FILES,
    "rook-ceph.cephfs.csi.ceph.com": _ROOK_FILES,
}


@dataclass(frozen=True)
class DriverManifests:
    """What is to be made, in its order, and what of the manifests is left out, each with the reason."""

    objects: tuple[ManifestObject, ...]
    left_out: tuple[str, ...]


def read_driver(documents: Sequence[Any], kubelet: str, version: str | None) -> DriverManifests:
    """Return what manifests ask for, fitted to a cluster.

    Args:
        documents: the YAML documents.
        kubelet: kubelet's folder on the nodes.
        version: a release of which at least one image has to be; None for any.

    Raises:
        InvalidInput: they hold something that no driver needs, or are for another folder or release.
    """
    found: dict[str, ManifestObject] = {}
    left: list[str] = []
    for document in documents:
        if document is None:
            continue
        why = _why_not(document)
        if why:
            left.append(why)
            continue
        each, without = _object(document, kubelet)
        left += without
        if each is None:
            continue
        if each.target in found:
            raise InvalidInput("read the manifests", f"{each.target} is in them twice", "name each manifest once")
        found[each.target] = each
    for namespace in sorted({str(each.namespace) for each in found.values() if each.namespace}):
        # Helm makes the namespace of a release by itself: it is not in what a chart is rendered to.
        made, _without = _object({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}, kubelet)
        if made:
            found.setdefault(made.target, made)
    order = {resource: place for place, resource in enumerate(KINDS)}
    objects = tuple(sorted(found.values(), key=lambda each: order[each.resource]))
    if version is not None:
        _check_version(objects, version)
    return DriverManifests(objects, tuple(left))


def _why_not(document: Any) -> str:
    """Return what a document is and why it is left out; empty for what is taken."""
    if not isinstance(document, Mapping) or not isinstance(document.get("metadata"), Mapping):
        raise InvalidInput(
            "read the manifests", f"there is something that is no object: {str(document)[:80]!r}",
            "name files with Kubernetes objects in YAML",
        )  # fmt: skip
    kind, metadata = str(document.get("kind")), document["metadata"]
    what = f"{kind} {metadata.get('name')}"
    hook = (metadata.get("annotations") or {}).get(_HOOK)
    if hook:
        return f"{what}: Helm runs it by itself ({hook})"
    if kind in _CLASSES:
        return f"{what}: csi_layout makes classes"
    group = (document.get("spec") or {}).get("group") if kind == CRDS.kind else None
    if group in (SNAPSHOT_GROUP, GROUP_SNAPSHOT_GROUP):
        return f"{what}: csi_layout makes the kinds of snapshots"
    return ""


def _object(document: Mapping[str, Any], kubelet: str) -> tuple[ManifestObject | None, list[str]]:
    kind, version, name = document.get("kind"), document.get("apiVersion"), str(document["metadata"].get("name"))
    resource = next((each for each in KINDS if (each.kind, each.api_version) == (kind, version)), None)
    if resource is None:
        old = any(each.kind == kind for each in KINDS)
        raise InvalidInput(
            "read the manifests", f"{version} {kind} {name} is none of what a CSI driver needs",
            "name the manifests of a newer release" if old
            else "render its chart without it, or set that up by hand and take it out of the file",
        )  # fmt: skip
    body = _moved(copy.deepcopy({key: value for key, value in document.items() if key != "status"}), kubelet)
    namespace = str(body["metadata"].get("namespace") or "default") if resource.namespaced else None
    without = _without_controller(body, f"{kind} {name}") if resource in WORKLOADS else []
    if resource in WORKLOADS:
        if not _pod(body).get("containers"):
            return None, without
        _check_registry(body, f"{kind} {name}", kubelet)
    if kind == CONFIG_MAPS.kind and name == _ROOK[0] and kubelet != KUBELET:
        body["data"] = {**(body.get("data") or {}), _ROOK[1]: kubelet}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()[:40]
    metadata = {key: value for key, value in body["metadata"].items() if value is not None}
    metadata["labels"] = {**(metadata.get("labels") or {}), LABEL: ROLE}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), DIGEST: digest}
    return ManifestObject(resource, namespace, name, {**body, "metadata": metadata}), without


def _moved(value: Any, kubelet: str) -> Any:
    """Return a value in which kubelet's usual folder is this cluster's, wherever text names it."""
    if isinstance(value, str):
        return _KUBELET.sub(lambda _found: kubelet, value)
    if isinstance(value, Mapping):
        return {key: _moved(each, kubelet) for key, each in value.items()}
    return [_moved(each, kubelet) for each in value] if isinstance(value, list) else value


def _pod(body: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = ((body.get("spec") or {}).get("template") or {}).get("spec") or {}
    return found


def _without_controller(body: Mapping[str, Any], what: str) -> list[str]:
    """Take the snapshot controller out of a workload's pods; return what was taken out."""
    pod = _pod(body)
    containers = pod.get("containers") or []
    kept = [each for each in containers if not is_controller(str(each.get("image")))]
    if len(kept) == len(containers):
        return []
    pod["containers"] = kept
    return [f"the snapshot controller in {what}: a cluster has one, and csi_layout sees to it"]


def _check_registry(body: Mapping[str, Any], what: str, kubelet: str) -> None:
    for volume in _pod(body).get("volumes") or []:
        path = str((volume.get("hostPath") or {}).get("path") or "").rstrip("/")
        if path.rpartition("/")[2] == _REGISTRY and path != f"{kubelet}/{_REGISTRY}":
            raise InvalidInput(
                "read the manifests", f"{what} registers at {path}, and kubelet's folder is {kubelet}",
                "render its chart for that folder, or correct kubelet_dir",
            )  # fmt: skip


def images(objects: Sequence[ManifestObject]) -> list[str]:
    """Return the images of all containers."""
    return [image for each in objects if each.resource in WORKLOADS for image in images_in(each.body)]


def images_in(body: Mapping[str, Any]) -> Iterator[str]:
    """Yield the images of a workload's containers."""
    for each in _pod(body).get("containers") or []:
        yield str(each.get("image"))


def _parts(image: str) -> tuple[str, str]:
    """Return the last part of an image's name, and its tag without a leading v; empty where it has none."""
    name, _colon, tag = image.partition("@")[0].rpartition("/")[2].partition(":")
    return name, tag[1:] if re.match(r"v\d", tag) else tag


def _check_version(objects: Sequence[ManifestObject], version: str) -> None:
    found = images(objects)
    if version.lstrip("v") not in (_parts(each)[1] for each in found):
        there = ", ".join(dict.fromkeys(found)) or "none"
        raise InvalidInput(
            "read the manifests", f"none of their images is of release {version}; there are: {there}",
            "name the manifests of that release, or correct version",
        )  # fmt: skip


def cannot_restore(driver: str, used: Sequence[str]) -> str:
    """Return why volumes cannot be made of the snapshots of a driver with these images; empty where nothing is known.

    Source: openebs.io/docs, Local PV LVM, volume restore; github.com/openebs/lvm-localpv pull requests 417, 419, 421.
    """
    known = RESTORES.get(driver)
    if known is None:
        return ""
    for image in used:
        name, tag = _parts(image)
        number = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", tag)
        if name == known.image and number and tuple(int(each or 0) for each in number.groups()) < known.least:
            return f"{image} takes snapshots and cannot restore them: {known.words}"
    return ""


def names_folder(objects: Sequence[ManifestObject], kubelet: str) -> bool:
    """Say whether anything in the manifests names kubelet's folder."""
    return any(kubelet in json.dumps(each.body, default=str) for each in objects)
