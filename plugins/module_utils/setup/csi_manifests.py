# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The manifests of snapshot CRDs and snapshot controller: what they may hold, and how they are marked as ours. Pure.

A manifest is somebody's file with the power to change a whole cluster. So only the kinds that upstream's own manifests
have are taken, and of CRDs only those of the two snapshot groups. Called by csi beside it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.errors import InvalidInput
from ..kube_resources import (
    CRDS,
    DEPLOYMENTS,
    GROUP_SNAPSHOT_GROUP,
    NAMESPACES,
    SNAPSHOT_GROUP,
    Resource,
)

_RBAC = "rbac.authorization.k8s.io"
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
#: In the order in which they are made: what others refer to comes first.
KINDS = (
    CRDS,
    NAMESPACES,
    SERVICE_ACCOUNTS,
    Resource(_RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False),
    Resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    Resource(_RBAC, "v1", "roles", "Role"),
    Resource(_RBAC, "v1", "rolebindings", "RoleBinding"),
    DEPLOYMENTS,
)
#: What is ours carries this label; the annotation says from which manifests, and with which options, it was made.
LABEL = "restorepoint.core/role"
ROLE = "csi_snapshots"
DIGEST = "restorepoint.core/manifests"
#: The last part of an image that is a snapshot controller, under whatever name it is mirrored; no webhook.
_CONTROLLER = re.compile(r"(^|[/-])snapshot-controller$")
_IGNORED = ("Kustomization",)


@dataclass(frozen=True)
class ManifestObject:
    """One object of a manifest, marked as ours."""

    resource: Resource
    namespace: str | None
    name: str
    body: Mapping[str, Any]

    @property
    def target(self) -> str:
        """How it is called in results."""
        place = f"{self.namespace}/" if self.namespace else ""
        return f"{self.resource.kind} {place}{self.name}"


@dataclass(frozen=True)
class Controller:
    """What is asked of the controller beside what its manifest says; None and () for that."""

    image: str | None = None
    replicas: int | None = None
    arguments: tuple[str, ...] = ()


def is_controller(image: str) -> bool:
    """Say whether a container with this image is a snapshot controller."""
    name = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    return bool(_CONTROLLER.search(name))


def digest_of(checksums: Iterable[str], controller: Controller) -> str:
    """Return a mark for manifests of these SHA-256 sums (in any order) and these options."""
    told = [sorted(checksums), controller.image, controller.replicas, list(controller.arguments)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:40]


def read_manifests(documents: Sequence[Any], controller: Controller, digest: str) -> list[ManifestObject]:
    """Return the objects of manifests in the order in which they are made; InvalidInput for what they must not hold."""
    found: dict[tuple[str, str | None, str], ManifestObject] = {}
    for document in documents:
        if document is None or (isinstance(document, Mapping) and document.get("kind") in _IGNORED):
            continue
        each = _object(document, controller, digest)
        key = (each.resource.kind, each.namespace, each.name)
        if key in found:
            raise InvalidInput("read the manifests", f"{each.target} is in them twice", "name each manifest once")
        found[key] = each
    order = {resource: place for place, resource in enumerate(KINDS)}
    return sorted(found.values(), key=lambda each: order[each.resource])


def _object(document: Any, controller: Controller, digest: str) -> ManifestObject:
    if not isinstance(document, Mapping) or not isinstance(document.get("metadata"), Mapping):
        raise InvalidInput(
            "read the manifests", f"there is something that is no object: {str(document)[:80]!r}",
            "name files with Kubernetes objects in YAML",
        )  # fmt: skip
    kind, name = document.get("kind"), str(document["metadata"].get("name"))
    resource = next(
        (each for each in KINDS if each.kind == kind and each.api_version == document.get("apiVersion")), None
    )
    if resource is None:
        kinds = ", ".join(each.kind for each in KINDS)
        reason = f"{document.get('apiVersion')} {kind} {name} is none of what a snapshot controller needs ({kinds})"
        raise InvalidInput("read the manifests", reason, "name the manifests of external-snapshotter")
    namespace = str(document["metadata"].get("namespace") or "default") if resource.namespaced else None
    body = copy.deepcopy(dict(document))
    body.pop("status", None)
    if resource == CRDS:
        _check_crd(name, body)
    if resource == DEPLOYMENTS:
        _fit(name, body, controller)
    metadata = body["metadata"]
    metadata["labels"] = {**(metadata.get("labels") or {}), LABEL: ROLE}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), DIGEST: digest}
    return ManifestObject(resource, namespace, name, body)


def _check_crd(name: str, body: Mapping[str, Any]) -> None:
    spec = body.get("spec") or {}
    if spec.get("group") not in (SNAPSHOT_GROUP, GROUP_SNAPSHOT_GROUP) or not name.endswith(f".{spec['group']}"):
        raise InvalidInput(
            "read the manifests", f"the CRD {name} is not one of volume snapshots",
            f"name only those of {SNAPSHOT_GROUP} and {GROUP_SNAPSHOT_GROUP}",
        )  # fmt: skip
    if not served(body):
        raise InvalidInput("read the manifests", f"the CRD {name} serves no version", "name the CRD of a release")


def served(crd: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the versions that a CRD serves, in the order it lists them."""
    versions = (crd.get("spec") or {}).get("versions") or []
    return tuple(str(each["name"]) for each in versions if each.get("served"))


def stored(crd: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the versions of a CRD in which objects may lie in the database."""
    return tuple((crd.get("status") or {}).get("storedVersions") or [])


def rank(version: str) -> tuple[int, int, int]:
    """Return what sorts versions by age: v1beta1 before v1beta2, v1 after both, v2 after that."""
    found = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if not found:
        return (0, 0, 0)
    return (int(found[1]), {"alpha": 0, "beta": 1, None: 2}[found[2]], int(found[3] or 0))


def _fit(name: str, body: dict[str, Any], controller: Controller) -> None:
    """Put the options over the Deployment of the controller; InvalidInput for a Deployment that is none."""
    spec = body.get("spec") or {}
    containers = ((spec.get("template") or {}).get("spec") or {}).get("containers") or []
    chosen = [each for each in containers if is_controller(str(each.get("image")))]
    if not chosen:
        raise InvalidInput(
            "read the manifests", f"the Deployment {name} is no snapshot controller",
            "name setup-snapshot-controller.yaml of external-snapshotter",
        )  # fmt: skip
    if controller.image:
        chosen[0]["image"] = controller.image
    if controller.replicas is not None:
        spec["replicas"] = controller.replicas
    names = {argument.partition("=")[0] for argument in controller.arguments}
    kept = [each for each in chosen[0].get("args") or [] if str(each).partition("=")[0] not in names]
    chosen[0]["args"] = [*kept, *controller.arguments]


def differs(wanted: Any, present: Any) -> bool:
    """Say whether something wanted is not there. What the server added to it by itself is no difference."""
    if isinstance(wanted, Mapping):
        if not isinstance(present, Mapping):
            return bool(wanted)
        return any(differs(value, present.get(name)) for name, value in wanted.items())
    if isinstance(wanted, list):
        if not isinstance(present, list):
            return bool(wanted)
        return len(wanted) != len(present) or any(differs(*pair) for pair in zip(wanted, present))
    return bool(wanted != present) and not (wanted in ("", None) and present in ("", None))
