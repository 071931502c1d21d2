# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be done so that the objects of scheduled policies are as wanted: steps, or blockers. Pure.

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
_ATTEMPT = "see what the cluster has for scheduled policies"
#: Members of objects that hold what is wanted; what the server added there by itself may go with a change.
_CONTENT = ("spec", "data", "binaryData", "rules", "subjects")


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


def read(client: KubeClient, namespace: str, wanted: Sequence[Object]) -> list[There]:
    """Return all that is ours for the jobs of a namespace, and whatever else has the name of something wanted.

    Raises KubeError.
    """
    found = {}
    for resource in KINDS:
        for item in client.list_objects(_ATTEMPT, resource, selector=f"{LABEL}={namespace}").items:
            there = There(resource, item)
            found[there.key] = there
    for each in wanted:
        if (each.resource, each.namespace, each.name) not in found:
            present = client.find(_ATTEMPT, each.resource, each.namespace, each.name)
            if present is not None:
                there = There(each.resource, present)
                found[there.key] = there
    return list(found.values())


def make_plan(namespace: str, wanted: Sequence[Object], there: Sequence[There]) -> Plan:
    """Return the steps from what is there to what is wanted."""
    plan = Plan()
    found = {each.key: each.item for each in there}
    keys = {(each.resource, each.namespace, each.name) for each in wanted}
    for each in wanted:
        _have(plan, namespace, each, found.get((each.resource, each.namespace, each.name)))
    # CronJobs first, so that none starts without its account; the namespace stays.
    gone = [each for each in there if each.key not in keys and each.resource != NAMESPACES]
    for one in sorted(gone, key=lambda each: (-KINDS.index(each.resource), str(each.key[1:]))):
        resource, where, name = one.key
        if _ours(one.item, namespace):
            body = {"metadata": {"uid": one.item["metadata"]["uid"]}}
            plan.send(
                target_of(resource, where, name), "remove", Request("delete", resource, where, name, body), "absent",
                _words(one.item),
            )  # fmt: skip
    return plan


def _have(plan: Plan, namespace: str, wanted: Object, item: Mapping[str, Any] | None) -> None:
    body = _digested(wanted.body)
    if item is None:
        request = Request("create", wanted.resource, wanted.namespace, wanted.name, body)
        plan.send(wanted.target, "create", request, _words(body))
        return
    if not _ours(item, namespace):
        if wanted.resource != NAMESPACES:
            plan.block(
                wanted.target, "there is one already, and it was not made for these policies",
                "remove it, or choose another namespace for the jobs",
            )  # fmt: skip
        return
    # What is in a list does not say its kind.
    if not differs({name: value for name, value in body.items() if name not in ("apiVersion", "kind")}, item):
        return
    patch = _patch(body, item)
    request = Request("patch", wanted.resource, wanted.namespace, wanted.name, patch)
    plan.send(wanted.target, "change", request, _words(body), _words(item))


def _ours(item: Mapping[str, Any], namespace: str) -> bool:
    return bool((item["metadata"].get("labels") or {}).get(LABEL) == namespace)


def _digested(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with the sum of what is wanted: so that what is not wanted any more is seen as well."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
    metadata = {**body["metadata"], "annotations": {DIGEST: digest}}
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
    if "binaryData" in shown:
        sums = {key: hashlib.sha256(value.encode()).hexdigest()[:16] for key, value in shown["binaryData"].items()}
        shown["binaryData"] = sums
    return json.dumps(shown, sort_keys=True)
