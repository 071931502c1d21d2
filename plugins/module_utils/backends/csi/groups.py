# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots of several claims at one instant: a VolumeGroupSnapshot, and its members found for each claim.

The controller (external-snapshotter, groupsnapshot_controller_helper.go) honours only the matchLabels of a selector. So
a caller's selector is used where it is one of equalities; else the claims get a label that stands for their set. The
members are VolumeSnapshots that the controller makes; they get our labels. Called by the backend.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ... import kube_resources as api
from ...core.errors import RestorePointError
from ...kube_login import KubeError
from . import objects
from .operations import Item, Operations
from .preflight import Chosen, choose_class
from .reading import Facts

#: Versions of the API that this was written for, the best first.
VERSIONS = ("v1", "v1beta2", "v1beta1")
_MEMBER_LABEL = "group.restorepoint.core/"
_EQUALITY = re.compile(r"\s*([A-Za-z0-9./_-]+)\s*==?\s*([A-Za-z0-9._-]*)\s*")


def set_id(claims: Sequence[str]) -> str:
    """Return a short name for a set of claims."""
    return hashlib.sha256("\0".join(sorted(claims)).encode()).hexdigest()[:10]


def equalities(selector: str | None) -> dict[str, str] | None:
    """Return a selector of equalities as matchLabels; None for any other one."""
    found: dict[str, str] = {}
    for part in (selector or "").split(","):
        match = _EQUALITY.fullmatch(part)
        if match is None or match[1] in found:
            return None
        found[match[1]] = match[2]
    return found


class Groups:
    """Group snapshots of one namespace, in the version that the cluster serves."""

    def __init__(self, operations: Operations, selector: str | None, class_asked: str | None = None) -> None:
        self._operations = operations
        self._selector = selector
        self._class_asked = class_asked
        self._resource: api.Resource | None = None
        self._classes: list[Item] | None = None

    @property
    def resource(self) -> api.Resource:
        """The kind, in the best version that the cluster serves. Raises KubeError where it serves none."""
        if self._resource is None:
            client = self._operations.client
            served = client.serves(api.GROUP_SNAPSHOT_GROUP)
            version = next((each for each in VERSIONS if each in served), None)
            if version is None:
                known = f"knows them as {', '.join(served)} only" if served else "does not know VolumeGroupSnapshots"
                remedy = "install their CRDs with the role restorepoint.core.csi_snapshots, or leave out group"
                raise KubeError("take a group snapshot", f"{client.host} {known}", remedy, 404)
            self._resource = api.GROUP_SNAPSHOTS.at(version)
        return self._resource

    def choose_class(self, driver: str) -> Chosen:
        """Return the group snapshot class for a driver, or why there is none."""
        if self._classes is None:
            resource = api.GROUP_SNAPSHOT_CLASSES.at(self.resource.version)
            found = self._operations.client.list_objects("list the group snapshot classes", resource)
            self._classes = list(found.items)
        return choose_class(driver, self._classes, self._class_asked, "group snapshot class")

    def selector_for(self, facts: Facts, claims: Sequence[str]) -> tuple[dict[str, str], list[str]]:
        """Return matchLabels that mean exactly these claims, and the claims that lack a label for that."""
        given = equalities(self._selector)
        if given:
            meant = {name for name, item in facts.claims.items() if given.items() <= objects.labels_of(item).items()}
            if meant == set(claims):
                return given, []
        label = {_MEMBER_LABEL + set_id(claims): "true"}
        return label, [name for name in claims if not label.items() <= objects.labels_of(facts.claims[name]).items()]

    def strangers(self, facts: Facts, claims: Sequence[str]) -> list[str]:
        """Return the claims that carry the label of this set without belonging to it."""
        key = _MEMBER_LABEL + set_id(claims)
        return sorted(
            name for name, item in facts.claims.items() if key in objects.labels_of(item) and name not in claims
        )

    def create(
        self, object_called: str, facts: Facts, claims: Sequence[str], class_name: str, meta: Mapping[str, Any]
    ) -> Item:
        """Create the group snapshot of these claims."""
        labels, lacking = self.selector_for(facts, claims)
        for name in lacking:
            attempt = f"label claim {self._operations.target(name)} for a group snapshot"
            self._operations.patch(attempt, api.CLAIMS, name, {"metadata": {"labels": labels}})
        body = {
            "apiVersion": self.resource.api_version,
            "kind": self.resource.kind,
            "metadata": {"name": object_called, **meta},
            "spec": {
                "volumeGroupSnapshotClassName": class_name,
                "source": {"selector": {"matchLabels": labels}},
            },
        }
        return self._operations.create(f"take group snapshot {object_called!r}", self.resource, body)

    def wait(self, group: Item, claims: Sequence[str]) -> dict[str, Item]:
        """Wait until a group and its members are ready, and return the member of each claim.

        Raises RestorePointError when the deadline comes first, or when the group has other members than these.
        """
        operations, name = self._operations, group["metadata"]["name"]
        attempt = f"take group snapshot {name!r}"
        seen = operations.waiter.wait(attempt, self.resource, operations.namespace, {name: _ready_or_gone})
        item = seen.objects[name]
        if item is None or objects.status_of(item).get("readyToUse") is not True:
            raise operations.explained(attempt, self._why_not(item), "see to that, and try again", item)
        return self._members(attempt, name, claims)

    def _why_not(self, item: Item | None) -> str:
        if item is None:
            return "somebody removed it meanwhile"
        said = objects.error_of(item)
        if said:
            return f"the snapshot controller says: {said}"
        if not objects.status_of(item).get("boundVolumeGroupSnapshotContentName"):
            return "no snapshot controller has taken it up: it needs its feature gate CSIVolumeGroupSnapshot"
        return "the driver's csi-snapshotter has not answered: it needs its feature gate CSIVolumeGroupSnapshot"

    def _members(self, attempt: str, name: str, claims: Sequence[str]) -> dict[str, Item]:
        operations = self._operations
        listing = operations.client.list_objects(attempt, api.SNAPSHOTS, operations.namespace)
        members = {
            str(((item.get("spec") or {}).get("source") or {}).get("persistentVolumeClaimName")): item
            for item in listing.items
            if objects.group_of(item) == name
        }
        if set(members) != set(claims):
            reason = (
                f"its members are of {', '.join(sorted(members)) or 'no claim'}, not of {', '.join(sorted(claims))}"
            )
            raise RestorePointError(attempt, reason, "see which claims carry the labels of its selector")
        words = {
            item["metadata"]["name"]: f"the member of {operations.target(claim)}" for claim, item in members.items()
        }
        ready = operations.wait_ready(words)
        errors = [each for each in ready.values() if isinstance(each, RestorePointError)]
        if errors:
            raise errors[0]
        return {
            claim: found
            for claim, item in members.items()
            for found in [ready[item["metadata"]["name"]]]
            if not isinstance(found, RestorePointError)
        }


def _ready_or_gone(item: Item | None) -> bool:
    return item is None or objects.status_of(item).get("readyToUse") is True
