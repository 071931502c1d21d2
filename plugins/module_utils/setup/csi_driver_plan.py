# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be done so that a cluster has a CSI driver, and whether it runs. Pure planning, and reading beside it.

A driver that somebody else set up, such as an add-on or a Helm release, is left alone. Called by bridge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..kube import KubeClient
from ..kube_resources import CSI_NODES, DRIVERS, NAMESPACES, STATEFUL_SETS
from .csi_driver import ROLE, SOURCES, WORKLOADS, cannot_restore, images, images_in
from .csi_facts import manager_of
from .csi_manifests import DIGEST, LABEL, ManifestObject, differs
from .plan import Plan, Request

_ATTEMPT = "see whether the cluster has the driver"
_REMAKE = "remove it (volumes stay, pods that start meanwhile wait for it), and run it again"
#: What a StatefulSet can change: the API server refuses the rest.
_STATEFUL = ("replicas", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
             "ordinals", "revisionHistoryLimit")  # fmt: skip
#: What a CSIDriver cannot change.
_DRIVER = ("attachRequired", "volumeLifecycleModes")


@dataclass(frozen=True)
class Found:
    """A driver that the cluster has. ``manager`` is who set it up, as far as that can be told."""

    manager: str
    ours: bool


@dataclass(frozen=True)
class DriverFacts:
    """What is there: the driver, the manifests' objects by their target, and images that run in the cluster."""

    found: Found | None = None
    objects: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    images: tuple[str, ...] = ()


def find(client: KubeClient, driver: str) -> Found | None:
    """Return the driver, as its CSIDriver tells; None where the cluster has none of that name."""
    item = client.find(f"{_ATTEMPT} ({DRIVERS.kind} {driver})", DRIVERS, None, driver)
    if item is None:
        return None
    metadata = item["metadata"]
    ours = (metadata.get("labels") or {}).get(LABEL) == ROLE
    return Found("restorepoint.core" if ours else manager_of(metadata), ours)


def read(client: KubeClient, found: Found | None, objects: Sequence[ManifestObject]) -> DriverFacts:
    """Return what is there of the objects, and of somebody else's driver which images run."""
    there = {}
    for each in objects:
        attempt = f"{_ATTEMPT} ({each.resource.kind} {each.name})"
        present = client.find(attempt, each.resource, each.namespace, each.name)
        if present is not None:
            there[each.target] = present
    theirs: tuple[str, ...] = ()
    if found and not found.ours:
        theirs = tuple(
            image
            for kind in WORKLOADS
            for item in client.list_objects(_ATTEMPT, kind).items
            for image in images_in(item)
        )
    return DriverFacts(found, there, theirs)


def registered(client: KubeClient, driver: str) -> list[str]:
    """Return the nodes on which kubelet knows the driver."""
    return [
        str(node["metadata"]["name"])
        for node in client.list_objects(_ATTEMPT, CSI_NODES).items
        for each in (node.get("spec") or {}).get("drivers") or []
        if each.get("name") == driver
    ]


def make_plan(driver: str, objects: Sequence[ManifestObject], facts: DriverFacts) -> Plan:
    """Return what has to be done. ``objects`` are none where no manifests were named."""
    plan = Plan()
    target = f"CSIDriver {driver}"
    theirs = facts.found is not None and not facts.found.ours
    if not objects and facts.found is None:
        how = SOURCES.get(driver, "name the driver's own manifests under manifests")
        plan.block(target, "the cluster has no such driver", how)
    why = cannot_restore(driver, facts.images if theirs else images(objects))
    if why:
        plan.block(target, why, "set up a newer release, or another driver")
    if not theirs:
        made = [each.name for each in objects if each.resource == DRIVERS]
        if made and driver not in made:
            plan.block(target, f"the manifests are those of {', '.join(made)}", "name that driver, or other manifests")
        for each in objects:
            _plan_object(plan, each, facts.objects.get(each.target))
    return plan


def _plan_object(plan: Plan, each: ManifestObject, present: Mapping[str, Any] | None) -> None:
    if present is None:
        request = Request("create", each.resource, each.namespace, each.name, each.body)
        plan.send(each.target, "create", request, described(each.body))
        return
    metadata = present.get("metadata") or {}
    ours = (metadata.get("labels") or {}).get(LABEL) == ROLE
    if each.resource == NAMESPACES or (metadata.get("annotations") or {}).get(DIGEST) == _digest(each):
        return  # a namespace that is there will do, whoever made it
    plain = {**each.body, "metadata": {"name": each.name}}
    if not ours:
        if differs(plain, present):
            by = manager_of(metadata)
            plan.block(
                each.target, f"there is one of that name, set up by {by or 'somebody else'}, and it differs",
                "look what it is for; remove it, or name other manifests",
            )  # fmt: skip
        return
    fixed = [name for name in _fixed(each) if differs(_member(each.body, name), _member(present, name))]
    if fixed:
        plan.block(each.target, f"its {' and '.join(fixed)} would change, which Kubernetes does not allow", _REMAKE)
        return
    request = Request("patch", each.resource, each.namespace, each.name, each.body)
    plan.send(each.target, "update", request, described(each.body), described(present))


def _digest(each: ManifestObject) -> str:
    return str(each.body["metadata"]["annotations"][DIGEST])


def _fixed(each: ManifestObject) -> list[str]:
    """Return the members of an object that cannot be changed, as dotted paths."""
    if each.resource == DRIVERS:
        return [f"spec.{name}" for name in _DRIVER]
    if each.resource == STATEFUL_SETS:
        return [f"spec.{name}" for name in (each.body.get("spec") or {}) if name not in _STATEFUL]
    return ["spec.selector"] if each.resource in WORKLOADS else ["roleRef"] if "roleRef" in each.body else []


def _member(body: Mapping[str, Any], path: str) -> Any:
    found: Any = body
    for name in path.split("."):
        found = (found or {}).get(name)
    return found


def described(body: Mapping[str, Any]) -> str:
    """Return what stands in a diff for an object: of a workload its images, else a mark of what it is made from."""
    used = list(images_in(body))
    mark = str(((body.get("metadata") or {}).get("annotations") or {}).get(DIGEST, ""))[:12]
    return (f"{', '.join(used)}" if used else "present") + (f" ({mark})" if mark else "")
