# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be done so that objects of scheduled policies, or of a watch, are as wanted: steps, or blockers. Pure.

What is there and not ours is a blocker, but for the namespace, which may be somebody else's and then stays as it is.
What is ours and not wanted any more goes. ``read`` looks. Called by bridge.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..kube import KubeClient
from ..kube_resources import NAMESPACES, Resource
from .csi_manifests import differs
from .kubernetes_objects import KINDS, LABEL, Object, target_of
from .plan import Plan, Request

DIGEST = "restorepoint.core/wanted"
#: Texts that are longer are shown by their sum.
_LONG = 16384
#: Members of objects that hold what is wanted; what the server added there by itself may go with a change.
_CONTENT = ("spec", "data", "binaryData", "rules", "subjects")


@dataclass(frozen=True)
class Family:
    """Objects that are made together.

    Args:
        label: what they bear, with the namespace that they are for as its value.
        kinds: what they may be, in the order in which they are made.
        purpose: what they are for, in words.
    """

    label: str = LABEL
    kinds: tuple[Resource, ...] = KINDS
    purpose: str = "scheduled policies"


@dataclass(frozen=True)
class There:
    """One object that is there."""

    resource: Resource
    item: Mapping[str, Any]

    @property
    def key(self) -> tuple[Resource, str | None, str]:
        """What tells it apart."""
        metadata = self.item["metadata"]
        return self.resource, metadata.get("namespace"), str(metadata["name"])


def read(client: KubeClient, namespace: str, wanted: Sequence[Object], family: Family = Family()) -> list[There]:
    """Return all of a family for a namespace, and whatever else has the name of something wanted.

    Raises KubeError.
    """
    found = {}
    attempt = f"see what the cluster has for {family.purpose}"
    for resource in family.kinds:
        for item in client.list_objects(attempt, resource, selector=f"{family.label}={namespace}").items:
            there = There(resource, item)
            found[there.key] = there
    for each in wanted:
        if (each.resource, each.namespace, each.name) not in found:
            present = client.find(attempt, each.resource, each.namespace, each.name)
            if present is not None:
                there = There(each.resource, present)
                found[there.key] = there
    return list(found.values())


def make_plan(namespace: str, wanted: Sequence[Object], there: Sequence[There], family: Family = Family()) -> Plan:
    """Return the steps from what is there to what is wanted."""
    plan = Plan()
    found = {each.key: each.item for each in there}
    keys = {(each.resource, each.namespace, each.name) for each in wanted}
    for each in wanted:
        _have(plan, (family, namespace), each, found.get((each.resource, each.namespace, each.name)))
    # CronJobs first, so that none starts without its account; the namespace stays.
    unwanted = [each for each in there if each.key not in keys and each.resource != NAMESPACES]
    gone = [each for each in unwanted if _ours(each.item, (family, namespace))]
    for one in sorted(gone, key=lambda each: (-family.kinds.index(each.resource), str(each.key[1:]))):
        resource, where, name = one.key
        body = {"metadata": {"uid": one.item["metadata"]["uid"]}}
        request = Request("delete", resource, where, name, body)
        plan.send(target_of(resource, where, name), "remove", request, "absent", _words(one.item))
    return plan


def _have(plan: Plan, whose: tuple[Family, str], wanted: Object, item: Mapping[str, Any] | None) -> None:
    body = _digested(wanted.body)
    if item is None:
        request = Request("create", wanted.resource, wanted.namespace, wanted.name, body)
        plan.send(wanted.target, "create", request, _words(body))
        return
    if not _ours(item, whose):
        if wanted.resource != NAMESPACES:
            reason = f"there is one already, and it was not made for {whose[0].purpose} of namespace {whose[1]}"
            plan.block(wanted.target, reason, "remove it, or choose another namespace")
        return
    # What is in a list does not say its kind.
    if not differs({name: value for name, value in body.items() if name not in ("apiVersion", "kind")}, item):
        return
    patch = _patch(body, item)
    request = Request("patch", wanted.resource, wanted.namespace, wanted.name, patch)
    plan.send(wanted.target, "change", request, _words(body), _words(item))


def _ours(item: Mapping[str, Any], whose: tuple[Family, str]) -> bool:
    family, namespace = whose
    return bool((item["metadata"].get("labels") or {}).get(family.label) == namespace)


def _digested(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with the sum of what is wanted: so that what is not wanted any more is seen as well."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
    annotations = {**body["metadata"].get("annotations", {}), DIGEST: digest}
    metadata = {**body["metadata"], "annotations": annotations}
    return {**body, "metadata": metadata}


def _patch(body: Mapping[str, Any], item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch that leaves in the content of an object just what is wanted; the server fills the rest."""
    metadata = {key: body["metadata"][key] for key in ("labels", "annotations")}
    content = {name: _only(body.get(name), item.get(name)) for name in _CONTENT if name in body or name in item}
    if body["kind"] == "Namespace":
        content = {}
    return {"metadata": metadata, **content}


def _only(wanted: Any, present: Any) -> Any:
    if not isinstance(wanted, Mapping) or not isinstance(present, Mapping):
        return wanted
    gone = {name: None for name in present if name not in wanted}
    return {**gone, **{name: _only(value, present.get(name)) for name, value in wanted.items()}}


def _words(item: Mapping[str, Any]) -> str:
    """Return an object in few words, for the diff: its content, large things by their sum."""
    shown = {name: item[name] for name in _CONTENT if item.get(name)}
    for name, length in (("binaryData", 0), ("data", _LONG)):
        if name in shown:
            shown[name] = {key: _sum(value) if len(value) > length else value for key, value in shown[name].items()}
    return json.dumps(shown, sort_keys=True)


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
