# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is there in a namespace, as far as a call needs to know: few lists, whatever the number of claims.

Called by the backend; speaks through the door.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ... import kube_resources as api
from ...core.claim_names import check_request, missing_claim
from ...core.errors import InvalidInput
from ...kube import KubeClient
from ...kube_login import KubeError
from . import objects
from .options import Selection

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Needs:
    """What has to be read beside claims and snapshots."""

    volumes: bool = False
    classes: bool = False
    contents: bool = False
    storage_classes: bool = False
    quotas: bool = False


@dataclass
class Facts:
    """What was found. ``wanted`` are the claims that are meant, there or not; the rest is by name."""

    namespace: str
    wanted: list[str] = field(default_factory=list)
    claims: dict[str, Item] = field(default_factory=dict)
    volumes: dict[str, Item] = field(default_factory=dict)
    snapshots: dict[str, list[Item]] = field(default_factory=dict)
    classes: list[Item] = field(default_factory=list)
    contents: dict[str, Item] = field(default_factory=dict)
    storage_classes: dict[str, Item] = field(default_factory=dict)
    quotas: list[Item] = field(default_factory=list)
    #: Claims of a call that means every claim, which have nothing that could be taken: not bound, or being deleted.
    left_out: list[str] = field(default_factory=list)

    def target(self, claim: str) -> str:
        """Return what a claim is called in plans and results."""
        return f"{self.namespace}/{claim}"

    def named(self, claim: str) -> dict[str, list[Item]]:
        """Return a claim's VolumeSnapshots by the names they are known under."""
        return objects.by_name(self.snapshots.get(claim, ()))

    def volume_of(self, claim: str) -> Item | None:
        """Return the volume that a claim is bound to, where volumes were read and it is there."""
        spec = self.claims.get(claim, {}).get("spec") or {}
        return self.volumes.get(str(spec.get("volumeName")))

    def driver(self, claim: str) -> str | None:
        """Return the CSI driver of a claim's volume."""
        volume = self.volume_of(claim)
        return objects.driver_of(volume) if volume is not None else None

    @property
    def restoring(self) -> dict[str, str]:
        """The claims that wait to be made from a snapshot, by the snapshot's object."""
        waiting = {}
        for name, claim in self.claims.items():
            source = objects.source_of(claim)
            if source is not None and objects.status_of(claim).get("phase") == "Pending":
                waiting[source] = name
        return waiting

    @property
    def objects(self) -> dict[str, Item]:
        """Every VolumeSnapshot of the namespace, by the name of its object."""
        return {item["metadata"]["name"]: item for each in self.snapshots.values() for item in each}


def read(client: KubeClient, selection: Selection, needs: Needs, must_exist: bool, must_match: bool) -> Facts:
    """Return what is there.

    Args:
        must_exist: a claim that is named and not there is an error; else it counts if it has snapshots, or nothing.
        must_match: a selector that matches none is an error.

    Raises:
        InvalidInput (a name that no cluster can hold, a claim that is not there, a selector that matches none),
        KubeError (refused, unreachable, or without the kinds of CSI snapshots).
    """
    namespace = selection.namespace
    names = check_request(namespace, selection.names, selection.selector)
    facts = Facts(namespace)
    facts.claims = _named(client, f"list the claims of namespace {namespace!r}", api.CLAIMS, namespace)
    facts.snapshots = snapshots_of(client, namespace)
    facts.wanted = names or _selected(client, selection, facts, must_match)
    for name in names:
        if name not in facts.claims and must_exist:
            raise missing_claim(namespace, name, facts.claims)
    if needs.volumes:
        facts.volumes = _named(client, "list the volumes", api.VOLUMES)
    if needs.classes:
        facts.classes = list(_named(client, "list the snapshot classes", api.SNAPSHOT_CLASSES).values())
    if needs.contents:
        facts.contents = _named(client, "list the contents of snapshots", api.CONTENTS)
    if needs.storage_classes:
        facts.storage_classes = _named(client, "list the storage classes", api.STORAGE_CLASSES)
    if needs.quotas:
        facts.quotas = list(
            _named(client, f"list the quotas of namespace {namespace!r}", api.QUOTAS, namespace).values()
        )
    return facts


def snapshots_of(client: KubeClient, namespace: str) -> dict[str, list[Item]]:
    """Return the VolumeSnapshots of a namespace by their claim."""
    found: dict[str, list[Item]] = {}
    for snapshot in _snapshots(client, namespace):
        found.setdefault(objects.claim_of(snapshot) or "", []).append(snapshot)
    return found


def _selected(client: KubeClient, selection: Selection, facts: Facts, must_match: bool) -> list[str]:
    """Return the claims that a selector means, or all of the namespace."""
    if selection.selector is None and must_match:
        return _every(facts)
    if selection.selector is None:
        return sorted({*facts.claims, *(claim for claim in facts.snapshots if claim)})
    attempt = f"list the claims of namespace {selection.namespace!r}"
    found = sorted(_named(client, attempt, api.CLAIMS, selection.namespace, selection.selector))
    if not found and must_match:
        raise InvalidInput(
            f"find claims in namespace {selection.namespace!r}",
            f"the selector {selection.selector!r} matches none",
            "compare it with the output of kubectl get pvc --show-labels",
        )
    return found


def _every(facts: Facts) -> list[str]:
    """Return all claims that hold something; the others are left out."""
    found: list[str] = []
    for name, claim in sorted(facts.claims.items()):
        bound = objects.status_of(claim).get("phase") == "Bound" and not claim["metadata"].get("deletionTimestamp")
        (found if bound else facts.left_out).append(name)
    if not found:
        others = f"only {', '.join(facts.left_out)}, not bound or being deleted" if facts.left_out else "none"
        raise InvalidInput(
            f"find claims in namespace {facts.namespace!r}",
            f"there are {others}",
            "see kubectl get pvc, or take this namespace out",
        )
    return found


def _named(
    client: KubeClient, attempt: str, resource: api.Resource, namespace: str | None = None, selector: str | None = None
) -> dict[str, Item]:
    listing = client.list_objects(attempt, resource, namespace, selector)
    return {str(item["metadata"]["name"]): item for item in listing.items}


def _snapshots(client: KubeClient, namespace: str) -> Sequence[Item]:
    """List the VolumeSnapshots; a server without that kind is told from a namespace without any."""
    attempt = f"list the snapshots of namespace {namespace!r}"
    try:
        return client.list_objects(attempt, api.SNAPSHOTS, namespace).items
    except KubeError as error:
        if error.status != 404:
            raise
    versions = client.serves(api.SNAPSHOT_GROUP)
    if versions and api.SNAPSHOTS.version not in versions:
        reason = f"{client.host} knows VolumeSnapshots as {', '.join(versions)} only, not as {api.SNAPSHOTS.version}"
    else:
        reason = f"{client.host} does not know VolumeSnapshots: their CRDs are missing"
    remedy = "install CRDs and snapshot controller with the role restorepoint.core.csi_snapshots"
    raise KubeError(attempt, reason, remedy, 404)
