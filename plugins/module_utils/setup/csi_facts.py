# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a Kubernetes cluster has for CSI snapshots already, and who set it up. Only reads; called by bridge.

A snapshot controller is known by the image of its container, wherever it runs: OpenEBS puts one into the pod of its
driver, distributions rename it. Where none is seen, a fresh lease or an add-on manager's mark on the CRDs tells of one
in a control plane that cannot be seen.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..kube import KubeClient
from ..kube_login import KubeError
from ..kube_resources import (
    CRDS,
    CSI_NODES,
    DAEMON_SETS,
    DEPLOYMENTS,
    DRIVERS,
    GROUP_SNAPSHOT_CLASSES,
    LEASES,
    SNAPSHOT_CLASSES,
    STATEFUL_SETS,
    STORAGE_CLASSES,
    Resource,
)
from .csi import GROUP_CRDS, SNAPSHOT_CRDS, Cluster, Found
from .csi_manifests import DIGEST, LABEL, ROLE, ManifestObject, is_controller, rank, served

#: The name of the lease by which upstream's controllers elect a leader.
LEASE = "snapshot-controller-leader"
#: Seconds for which a lease that was not renewed still tells of a controller: it may be restarting.
_FRESH = 300.0
_ADDON = "addonmanager.kubernetes.io/mode"
_ATTEMPT = "see what the cluster has for snapshots"


def read(client: KubeClient, controllers: bool, now: float) -> Cluster:
    """Return what is there.

    Args:
        controllers: whether to look for snapshot controllers: it takes reading all workloads.
        now: the time, in seconds since the epoch.

    Raises:
        KubeError: something may not be read, or the server is away.
    """
    crds = {}
    for name in (*SNAPSHOT_CRDS, *GROUP_CRDS):
        found = client.find(f"{_ATTEMPT} ({CRDS.kind} {name})", CRDS, None, name)
        if found is not None:
            crds[name] = found
    nodes = client.list_objects(_ATTEMPT, CSI_NODES).items
    drivers = {str(each["metadata"]["name"]) for each in client.list_objects(_ATTEMPT, DRIVERS).items}
    drivers |= {str(one["name"]) for each in nodes for one in (each.get("spec") or {}).get("drivers") or []}
    return Cluster(
        drivers=tuple(sorted(drivers)),
        crds=crds,
        controllers=_controllers(client, crds, now) if controllers else (),
        classes={each.kind: _classes(client, each, crds) for each in
                 (STORAGE_CLASSES, SNAPSHOT_CLASSES, GROUP_SNAPSHOT_CLASSES)},
    )  # fmt: skip


def read_objects(client: KubeClient, manifests: Sequence[ManifestObject]) -> dict[str, Mapping[str, Any]]:
    """Return what is there of the manifests' objects but the CRDs, by their target."""
    found: dict[str, Mapping[str, Any]] = {}
    for each in manifests:
        if each.resource == CRDS:
            continue
        attempt = f"{_ATTEMPT} ({each.resource.kind} {each.name})"
        present = client.find(attempt, each.resource, each.namespace, each.name)
        if present is not None:
            found[each.target] = present
    return found


def _classes(client: KubeClient, resource: Resource, crds: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    if resource != STORAGE_CLASSES:
        versions = served(crds.get(f"{resource.plural}.{resource.group}", {}))
        if not versions:
            return {}
        resource = resource.at(max(versions, key=rank))
    try:
        items = client.list_objects(_ATTEMPT, resource).items
    except KubeError as error:
        if error.status != 404:  # a CRD that is not established yet
            raise
        items = ()
    return {str(each["metadata"]["name"]): each for each in items}


def _controllers(client: KubeClient, crds: Mapping[str, Mapping[str, Any]], now: float) -> tuple[Found, ...]:
    seen: list[Found] = []
    for resource in (DEPLOYMENTS, STATEFUL_SETS, DAEMON_SETS):
        for item in client.list_objects(_ATTEMPT, resource).items:
            found = found_in(resource.kind, item)
            if found:
                seen.append(found)
    if seen:
        return tuple(seen)
    fields = f"metadata.name={LEASE}"
    leases = client.list_objects(_ATTEMPT, LEASES, fields=fields).items
    held = [each for each in (held_lease(lease, now) for lease in leases) if each]
    if held:
        return tuple(held)
    kept = any(_ADDON in ((each.get("metadata") or {}).get("labels") or {}) for each in crds.values())
    if kept:
        where = "in a control plane that cannot be seen, for an add-on manager keeps the CRDs"
        return (Found(where, "", "the cluster's add-on manager", 1, 1, ours=False),)
    return ()


def found_in(kind: str, item: Mapping[str, Any]) -> Found | None:
    """Return the snapshot controller in a workload, or None where it has no such container."""
    metadata, spec, status = item.get("metadata") or {}, item.get("spec") or {}, item.get("status") or {}
    containers = ((spec.get("template") or {}).get("spec") or {}).get("containers") or []
    image = next((str(each["image"]) for each in containers if is_controller(str(each.get("image")))), None)
    if image is None:
        return None
    daemons = kind == DAEMON_SETS.kind
    return Found(
        where=f"{kind} {metadata.get('namespace')}/{metadata.get('name')}",
        image=image,
        manager=manager_of(metadata),
        ready=int(status.get("numberReady" if daemons else "readyReplicas") or 0),
        replicas=int((status.get("desiredNumberScheduled") if daemons else spec.get("replicas")) or 0),
        ours=(metadata.get("labels") or {}).get(LABEL) == ROLE,
        digest=str((metadata.get("annotations") or {}).get(DIGEST, "")),
    )


def manager_of(metadata: Mapping[str, Any]) -> str:
    """Return who set something up, as far as its metadata tells; empty where it does not."""
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    release = annotations.get("meta.helm.sh/release-name")
    owners = [f"{each.get('kind')} {each.get('name')}" for each in metadata.get("ownerReferences") or []]
    writers = [str(each.get("manager")) for each in metadata.get("managedFields") or [] if not each.get("subresource")]
    told: tuple[tuple[bool, Callable[[], str]], ...] = (
        (labels.get(LABEL) == ROLE, lambda: "restorepoint.core"),
        (bool(release), lambda: f"the Helm release {release}"),
        (_ADDON in labels, lambda: "the cluster's add-on manager"),
        (bool(owners), lambda: owners[0]),
        ("app.kubernetes.io/managed-by" in labels, lambda: str(labels["app.kubernetes.io/managed-by"])),
        (bool(writers), lambda: writers[0]),
    )
    return next((words() for holds, words in told if holds), "")


def held_lease(lease: Mapping[str, Any], now: float) -> Found | None:
    """Return the controller that holds a lease, or None where nobody has renewed it lately."""
    metadata, spec = lease.get("metadata") or {}, lease.get("spec") or {}
    holder, renewed = spec.get("holderIdentity"), _seconds(spec.get("renewTime"))
    if not holder or renewed is None or now - renewed > _FRESH:
        return None
    where = f"{holder}, which holds the lease {metadata.get('namespace')}/{metadata.get('name')}"
    return Found(where, "", "", 1, 1, ours=False)


def _seconds(moment: Any) -> float | None:
    """Return the seconds since the epoch of an RFC 3339 time with or without fractions; None for none."""
    try:
        parsed = datetime.datetime.strptime(str(moment).partition(".")[0].rstrip("Z"), "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        return None
    return parsed.replace(tzinfo=datetime.timezone.utc).timestamp()
