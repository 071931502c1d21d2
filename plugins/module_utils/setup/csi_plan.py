# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be done so that a cluster is as asked for CSI snapshots: steps, or blockers. Pure; csi beside it parses.

Nothing goes backwards, and nothing of somebody else's is replaced. Called by bridge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..kube_resources import CRDS, Resource
from .csi import (
    CLASS_KINDS,
    GROUP,
    GROUP_CRDS,
    SNAPSHOT_CRDS,
    STORAGE,
    ClassKind,
    Cluster,
    Wanted,
    WantedClass,
)
from .csi_manifests import DIGEST, LABEL, ROLE, ManifestObject, differs, rank, served, stored
from .plan import Plan, Request

#: Provisioners that people take for CSI drivers: their volumes are directories, and have no snapshots in Kubernetes.
DIRECTORIES = (
    *("openebs.io/local", "microk8s.io/hostpath", "rancher.io/local-path", "kubernetes.io/no-provisioner"),
    *("k8s.io/minikube-hostpath", "docker.io/hostpath"),
)
#: What a StorageClass cannot change: the API server refuses it.
_FIXED = ("provisioner", "reclaimPolicy", "volumeBindingMode")
_CHECK = "compare it with kubectl get crd"
_REMAKE = "Kubernetes does not change that: choose another name, or remove that class (volumes stay) and run again"


def needs_manifests(wanted: Wanted, cluster: Cluster, digest: str) -> bool:
    """Say whether manifests have to be read: something lacks, or what is ours was made from others."""
    groups = any(each.kind is GROUP for each in wanted.classes) and any(name not in cluster.crds for name in GROUP_CRDS)
    stale = any(_stale(each, digest) for each in _ours(cluster))
    if wanted.crds and (wanted.update or groups or stale or _lacking(cluster)):
        return True
    ours = [each for each in cluster.controllers if each.ours]
    return wanted.controller and (not cluster.controllers or any(each.digest != digest for each in ours))


def _ours(cluster: Cluster) -> list[Mapping[str, Any]]:
    return [each for each in cluster.crds.values() if _labels(each).get(LABEL) == ROLE]


def _stale(item: Mapping[str, Any], digest: str) -> bool:
    return bool(_annotations(item).get(DIGEST) != digest)


def _lacking(cluster: Cluster) -> list[str]:
    """Return the CRDs of snapshots that are not there, or do not serve v1."""
    return [name for name in SNAPSHOT_CRDS if "v1" not in served(cluster.crds.get(name, {}))]


def make_plan(wanted: Wanted, manifests: Sequence[ManifestObject] | None, cluster: Cluster) -> Plan:
    """Return what has to be done.

    Args:
        manifests: the objects of the manifests; None where none are needed (``needs_manifests``).
    """
    plan = Plan()
    crds = [each for each in manifests or () if each.resource == CRDS]
    if wanted.crds:
        _plan_crds(plan, wanted, crds, cluster)
    if wanted.controller:
        _plan_controller(plan, [each for each in manifests or () if each.resource != CRDS], cluster)
    _plan_classes(plan, wanted, crds, cluster)
    return plan


def _plan_crds(plan: Plan, wanted: Wanted, crds: Sequence[ManifestObject], cluster: Cluster) -> None:
    for each in crds:
        present = cluster.crds.get(each.name)
        if present is None:
            body = each.body
            plan.send(each.target, "create CRD", Request("create", CRDS, None, each.name, body), _serving(body))
        else:
            _keep_crd(plan, wanted, each, present)
    planned = {each.name for each in crds}
    for name in _lacking(cluster):
        if name not in planned:
            there = cluster.crds.get(name)
            reason = (
                f"the cluster serves it as {_serving(there)}, not as v1" if there else "the cluster has no such CRD"
            )
            plan.block(f"CRD {name}", reason, "name the file or URL that has it under manifests")


def _serving(crd: Mapping[str, Any]) -> str:
    return "serves " + (", ".join(served(crd)) or "nothing")


def _keep_crd(plan: Plan, wanted: Wanted, each: ManifestObject, present: Mapping[str, Any]) -> None:
    """Leave a CRD alone, or bring it to the manifest's versions; never backwards."""
    have, want = served(present), served(each.body)
    newest = max(map(rank, want))
    newer = [version for version in have if version not in want and rank(version) > newest]
    ours = _labels(present).get(LABEL) == ROLE
    outdated = [version for version in want if version not in have]
    stale = ours and _stale(present, str(_annotations(each.body)[DIGEST]))
    if newer or not (stale or (wanted.update and outdated)):
        if not newer and "v1" in want and "v1" not in have:
            plan.block(
                each.target, f"it {_serving(present)}, and not v1", "set update, after reading its release notes"
            )
        return
    lost = [version for version in stored(present) if version not in {v["name"] for v in each.body["spec"]["versions"]}]
    if lost:
        reason = f"objects may be stored as {', '.join(lost)}, which the new one does not know"
        plan.block(each.target, reason, f"migrate them first, and {_CHECK}")
        return
    if not differs(each.body, present):
        return
    dropped = [version for version in have if version not in want]
    if dropped:
        reason = f"it serves {', '.join(dropped)}, which the new one does not"
        plan.block(each.target, reason, "see that nobody uses that version, and replace the CRD by hand")
        return
    version = {"resourceVersion": (present.get("metadata") or {}).get("resourceVersion")}
    body = {**each.body, "metadata": {**each.body["metadata"], **version}}
    plan.send(
        each.target, "update CRD", Request("patch", CRDS, None, each.name, body), _serving(body), _serving(present)
    )


def _plan_controller(plan: Plan, objects: Sequence[ManifestObject], cluster: Cluster) -> None:
    if any(not each.ours for each in cluster.controllers):
        return  # somebody else runs one: a second one would work against it
    if not objects:
        if not cluster.controllers:
            plan.block("snapshot controller", "none runs in the cluster", "name its manifests under manifests")
        return
    if not any(each.resource.kind == "Deployment" for each in objects):
        plan.block("snapshot controller", "the manifests have no Deployment", "name setup-snapshot-controller.yaml too")
    for each in objects:
        present = cluster.objects.get(each.target)
        if present is None:
            request = Request("create", each.resource, each.namespace, each.name, each.body)
            plan.send(each.target, "create", request, _described(each.body))
        elif differs(each.body, present):
            _change_object(plan, each, present)


def _change_object(plan: Plan, each: ManifestObject, present: Mapping[str, Any]) -> None:
    marks = {"metadata": {name: value for name, value in each.body["metadata"].items()
                          if name not in ("labels", "annotations")}}  # fmt: skip
    if _labels(present).get(LABEL) != ROLE and differs({**each.body, **marks}, present):
        plan.block(
            each.target, "there is one of that name, which somebody else made, and it differs",
            "look what it is for; remove it, or name other manifests",
        )  # fmt: skip
        return
    if each.body.get("roleRef") and differs(each.body["roleRef"], present.get("roleRef")):
        plan.block(each.target, "it binds another role, which Kubernetes does not let anybody change", "remove it")
        return
    request = Request("patch", each.resource, each.namespace, each.name, each.body)
    plan.send(each.target, "update", request, _described(each.body), _described(present))


def _described(body: Mapping[str, Any]) -> str:
    """Return what stands in a diff for an object: of the controller its image, else that it is there."""
    template = ((body.get("spec") or {}).get("template") or {}).get("spec") or {}
    words = [
        f"{each.get('image')} {' '.join(each.get('args') or [])}".strip() for each in template.get("containers") or []
    ]
    replicas = (body.get("spec") or {}).get("replicas")
    mark = str(_annotations(body).get(DIGEST, ""))[:12]
    return f"{replicas} x {', '.join(words)}" if words else f"present{f' ({mark})' if mark else ''}"


def _plan_classes(plan: Plan, wanted: Wanted, crds: Sequence[ManifestObject], cluster: Cluster) -> None:
    planned = {each.name for each in crds}
    # Those that are no default any more come first, so that there are never two.
    for each in sorted(wanted.classes, key=lambda one: one.default is not False):
        resource = _served_resource(each.kind, crds, cluster)
        if each.driver not in (*cluster.drivers, *wanted.expected):
            plan.block(each.target, *_no_driver(each.driver, cluster))
        crd = f"{resource.plural}.{resource.group}"
        if each.kind is not STORAGE and crd not in cluster.crds and not (wanted.crds and crd in planned):
            plan.block(each.target, f"the cluster has no CRD {crd}", "let install_crds make it, or name its manifest")
            continue
        present = cluster.classes.get(resource.kind, {}).get(each.name)
        if each.default:
            _take_default(plan, wanted, each, resource, cluster)
        if present is None:
            _create_class(plan, each, resource)
            continue
        _keep_class(plan, each, present, resource)
        if each.default is not None and each.default != is_default(present, each.kind):
            _mark(plan, each.kind, resource, each.name, is_=each.default)


def _no_driver(driver: str, cluster: Cluster) -> tuple[str, str]:
    there = ", ".join(cluster.drivers) or "none at all"
    reason = f"the cluster has no CSI driver {driver}; there are: {there}"
    if driver in DIRECTORIES:
        return reason, "that provisioner makes directories, without snapshots: use hostpath_snapshot for its claims"
    return reason, "install that driver first, or correct its name"


def _served_resource(kind: ClassKind, crds: Sequence[ManifestObject], cluster: Cluster) -> Resource:
    """Return the resource in the newest version that the cluster serves, or will once the plan is carried out."""
    if kind is STORAGE:
        return kind.resource
    name = f"{kind.resource.plural}.{kind.resource.group}"
    versions = set(served(cluster.crds.get(name, {})))
    versions |= {version for each in crds if each.name == name for version in served(each.body)}
    return kind.resource.at(max(versions, key=rank)) if versions else kind.resource


def _create_class(plan: Plan, each: WantedClass, resource: Resource) -> None:
    metadata: dict[str, Any] = {"name": each.name, "labels": {**each.labels, LABEL: ROLE}}
    if each.default:
        metadata["annotations"] = {each.kind.annotation: "true"}
    body = {
        "apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata,
        **{name: value for name, value in each.body.items() if value not in (None, {}, [])},
    }  # fmt: skip
    plan.send(
        each.target, "create", Request("create", resource, None, each.name, body), _shown(each.body, each.default)
    )


def _shown(body: Mapping[str, Any], default: bool | None) -> str:
    words = [f"{name}={value}" for name, value in body.items() if value not in (None, {}, []) and name != "parameters"]
    words += [f"{name}={value}" for name, value in sorted((body.get("parameters") or {}).items())]
    return ", ".join([*words, *(["default"] if default else [])])


def _keep_class(plan: Plan, each: WantedClass, present: Mapping[str, Any], resource: Resource) -> None:
    """Change what may change of a class that is there; block for what may not."""
    fixed = _FIXED if each.kind is STORAGE else ("driver",)
    other = [name for name in fixed if present.get(name) != each.body[name]]
    for name in other:
        plan.block(each.target, f"its {name} is {present.get(name)}, not {each.body[name]}", _REMAKE)
    wanted, there = each.body["parameters"], present.get("parameters") or {}
    changed = {name for name in {*wanted, *there} if wanted.get(name) != there.get(name)}
    if changed and each.kind is STORAGE:
        values = {name: [each.get(name, "unset") for each in (there, wanted)] for name in sorted(changed)}
        words = ", ".join(f"{name} is {is_}, not {asked}" for name, (is_, asked) in values.items())
        plan.block(each.target, f"of its parameters {words}", _REMAKE)
        return
    patch = {name: value for name, value in each.body.items()
             if name not in (*fixed, "parameters") and (value or None) != (present.get(name) or None)}  # fmt: skip
    if changed:
        patch["parameters"] = {name: wanted.get(name) for name in sorted(changed)}
    labels = {name: value for name, value in each.labels.items() if _labels(present).get(name) != value}
    if labels:
        patch["metadata"] = {"labels": labels}
    if patch and not other:
        before = {name: present.get(name) for name in each.body}
        shown = _shown(each.body, None) + (f", labels {labels}" if labels else "")
        plan.send(
            each.target, "update", Request("patch", resource, None, each.name, patch), shown, _shown(before, None)
        )


def is_default(item: Mapping[str, Any], kind: ClassKind) -> bool:
    """Say whether a class is marked as the default."""
    return bool(_annotations(item).get(kind.annotation) == "true")


def _take_default(plan: Plan, wanted: Wanted, each: WantedClass, resource: Resource, cluster: Cluster) -> None:
    """Take the default from the class that has it, where that is allowed: there are never two."""
    for name, other in sorted(cluster.classes.get(resource.kind, {}).items()):
        same = not each.kind.by_driver or other.get(each.kind.driver) == each.driver
        if name == each.name or not same or not is_default(other, each.kind) or _gives_up(wanted, each.kind, name):
            continue
        if wanted.replace_default:
            _mark(plan, each.kind, resource, name, is_=False)
        else:
            reason = f"it is to be the default, and {name} is that already"
            plan.block(each.target, reason, "leave default out, or set replace_default to take it from the other")


def _gives_up(wanted: Wanted, kind: ClassKind, name: str) -> bool:
    """Say whether the same call takes the default from that class by itself."""
    return any(each.kind is kind and each.name == name and each.default is False for each in wanted.classes)


def _mark(plan: Plan, kind: ClassKind, resource: Resource, name: str, is_: bool) -> None:
    words = ("not the default", "the default")
    body = {"metadata": {"annotations": {kind.annotation: "true" if is_ else "false"}}}
    request = Request("patch", resource, None, name, body)
    plan.send(f"{resource.kind} {name}", "set default", request, words[is_], words[not is_])


def warnings(cluster: Cluster) -> list[str]:
    """Return what should be known and is nothing to be done here: two defaults, two controllers, one that is down."""
    found = []
    for kind in CLASS_KINDS:
        by_scope: dict[str, list[str]] = {}
        for name, item in sorted(cluster.classes.get(kind.resource.kind, {}).items()):
            if is_default(item, kind):
                by_scope.setdefault(str(item.get(kind.driver)) if kind.by_driver else "", []).append(name)
        for scope, names in sorted(by_scope.items()):
            if len(names) > 1:
                of = f" of {scope}" if scope else ""
                found.append(f"There are {len(names)} default classes ({kind.resource.kind}{of}): {', '.join(names)}.")
    if len(cluster.controllers) > 1:
        found.append(f"There are several snapshot controllers: {'; '.join(map(str, cluster.controllers))}.")
    for each in cluster.controllers:
        if not each.ours and each.ready == 0:
            found.append(f"A snapshot controller has no ready pod, so no snapshot gets ready: {each}.")
    return found


def _labels(item: Mapping[str, Any]) -> Mapping[str, Any]:
    return (item.get("metadata") or {}).get("labels") or {}


def _annotations(item: Mapping[str, Any]) -> Mapping[str, Any]:
    return (item.get("metadata") or {}).get("annotations") or {}
