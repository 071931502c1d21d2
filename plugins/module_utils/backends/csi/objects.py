# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the objects of CSI snapshots look like: building and reading them. Pure; called by the rest of this backend.

Labels say which snapshot an object is and whose; annotations hold what labels cannot. A snapshot of ours is a
VolumeSnapshot ``{claim}-{name}``; every other one of the claim is known by its object's name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ... import kube_resources as api
from ...core.errors import InvalidInput
from ...core.snapshot import Snapshot, parse_timestamp
from ...kube import RUN

PREFIX = "restorepoint.core/"
NAME = PREFIX + "name"
OWNER = PREFIX + "owner"
#: Annotations. CLAIM says whose snapshot it is where the source does not: of imported ones.
CLAIM = PREFIX + "claim"
POLICY = PREFIX + "policy"
DESCRIPTION = PREFIX + "description"
LABELS = PREFIX + "labels"
#: Its number among those of its claim: Kubernetes tells when a snapshot was cut in whole seconds only.
NUMBER = PREFIX + "number"
#: On a claim: of which snapshot object it is a clone.
CLONE_OF = PREFIX + "clone-of"
#: The finalizer of the snapshot controller on a claim of which a snapshot is being taken.
AS_SOURCE = "snapshot.storage.kubernetes.io/pvc-as-source-protection"
DEFAULT_SNAPSHOT_CLASS = "snapshot.storage.kubernetes.io/is-default-class"
DEFAULT_GROUP_CLASS = "groupsnapshot.storage.kubernetes.io/is-default-class"
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_OBJECT = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([eE][+-]?\d+|[KMGTPE]i|[numkMGTPE]|)")
_SUFFIXES: dict[str, Decimal] = {
    "": Decimal(1),
    **{suffix: Decimal(10) ** power for suffix, power in (("n", -9), ("u", -6), ("m", -3), ("k", 3), ("M", 6))},
    **{suffix: Decimal(10) ** power for suffix, power in (("G", 9), ("T", 12), ("P", 15), ("E", 18))},
    **{f"{letter}i": Decimal(1024) ** (power + 1) for power, letter in enumerate("KMGTPE")},
}


def quantity(text: Any) -> int | None:
    """Return a Kubernetes quantity such as ``1Gi`` or ``1.5e9`` in whole units, rounded up; None for what is none."""
    found = _QUANTITY.fullmatch(str(text).strip()) if text is not None else None
    if not found:
        return None
    number, suffix = found.groups()
    # 1E is a suffix, 1E3 an exponent.
    exact = Decimal(number) * _SUFFIXES[suffix] if suffix in _SUFFIXES else Decimal(number + suffix)
    whole = int(exact)
    return whole + (1 if exact > whole else 0)


def check_name(name: str) -> None:
    """Raise InvalidInput for a name that no snapshot can have, ours or another's."""
    attempt = f"use {name!r} as a snapshot's name"
    if not _NAME.fullmatch(name) and not (len(name) <= 253 and _OBJECT.fullmatch(name)):
        raise InvalidInput(attempt, "Kubernetes does not allow it", "use a-z, 0-9, '-' and '.', at most 63 of them")


def check_new_name(name: str, claims: Sequence[str]) -> None:
    """Raise InvalidInput for a name that no new snapshot of these claims can have."""
    attempt = f"use {name!r} as a snapshot's name"
    if not _NAME.fullmatch(name):
        raise InvalidInput(attempt, "Kubernetes does not allow it", "use a-z, 0-9, '-' and '.', at most 63 of them")
    for claim in claims:
        # Room for what tells a second object of the same name apart (see `another_name`).
        if len(object_name(claim, name)) > 253 - 8:
            raise InvalidInput(attempt, f"with claim {claim!r} before it, it is too long", "choose a shorter name")


def check_metadata(labels: Mapping[str, str], annotations: Mapping[str, str]) -> None:
    """Raise InvalidInput for labels and annotations of objects that Kubernetes refuses, or that are ours."""
    for kind, given in (("label", labels), ("annotation", annotations)):
        for key, value in given.items():
            attempt = f"put {kind} {key!r} on a snapshot"
            if not _KEY.fullmatch(key):
                raise InvalidInput(attempt, "that is no name of one", "write it as example.org/name")
            if key.startswith(PREFIX):
                raise InvalidInput(attempt, f"{PREFIX} is this collection's own", "choose another prefix")
            if kind == "label" and not _VALUE.fullmatch(value):
                raise InvalidInput(attempt, f"{value!r} is no value of a label", "use at most 63 letters, digits, -_.")


def object_name(claim: str, name: str) -> str:
    """Return what the VolumeSnapshot of a claim is called."""
    return f"{claim}-{name}"


def another_name(claim: str, name: str, run: str) -> str:
    """Return what a second VolumeSnapshot of the same claim and name is called, while the first is still there."""
    return f"{object_name(claim, name)}-{run[:6]}"


@dataclass(frozen=True)
class Meta:
    """What we write about a snapshot. ``object_labels`` and ``object_annotations`` are the caller's, for the object."""

    name: str
    owner: str
    policy: str | None
    description: str
    labels: Mapping[str, str]
    object_labels: Mapping[str, str]
    object_annotations: Mapping[str, str]

    def metadata(self, claim: str, run: str, number: int) -> dict[str, Any]:
        """Return labels and annotations for the snapshot of a claim, which is the ``number``-th of it."""
        annotations = {CLAIM: claim, RUN: run, NUMBER: str(number), **self.object_annotations}
        if self.policy is not None:
            annotations[POLICY] = self.policy
        if self.description:
            annotations[DESCRIPTION] = self.description
        if self.labels:
            annotations[LABELS] = as_json(self.labels)
        return {"labels": {**self.object_labels, NAME: self.name, OWNER: self.owner}, "annotations": annotations}


def as_json(value: Mapping[str, str]) -> str:
    """Return a mapping as the text of an annotation."""
    return json.dumps(dict(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def volume_snapshot(object_called: str, claim: str, snapshot_class: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return a VolumeSnapshot to create."""
    return {
        "apiVersion": api.SNAPSHOTS.api_version,
        "kind": api.SNAPSHOTS.kind,
        "metadata": {"name": object_called, **meta},
        "spec": {"volumeSnapshotClassName": snapshot_class, "source": {"persistentVolumeClaimName": claim}},
    }


@dataclass(frozen=True)
class Import:
    """A snapshot of the storage that is to be known to Kubernetes: its handle, driver, class and deletion policy."""

    handle: str
    driver: str
    snapshot_class: str
    deletion_policy: str
    block: bool = False


def imported(
    object_called: str, namespace: str, content: str, what: Import, meta: Mapping[str, Any], run: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a pre-provisioned VolumeSnapshotContent and its VolumeSnapshot, to create in this order."""
    reference = {"kind": api.SNAPSHOTS.kind, "apiVersion": api.SNAPSHOTS.api_version}
    body = {
        "apiVersion": api.CONTENTS.api_version,
        "kind": api.CONTENTS.kind,
        "metadata": {"name": content, "annotations": {RUN: run}},
        "spec": {
            "deletionPolicy": what.deletion_policy,
            "driver": what.driver,
            "source": {"snapshotHandle": what.handle},
            "sourceVolumeMode": "Block" if what.block else "Filesystem",
            "volumeSnapshotClassName": what.snapshot_class,
            "volumeSnapshotRef": {**reference, "name": object_called, "namespace": namespace},
        },
    }
    snapshot = {
        "apiVersion": api.SNAPSHOTS.api_version,
        "kind": api.SNAPSHOTS.kind,
        "metadata": {"name": object_called, **meta},
        "spec": {"volumeSnapshotClassName": what.snapshot_class, "source": {"volumeSnapshotContentName": content}},
    }
    return body, snapshot


def clone_claim(
    name: str, snapshot: Mapping[str, Any], claim: Mapping[str, Any], storage_class: str | None, size: int, run: str
) -> dict[str, Any]:
    """Return a PersistentVolumeClaim to create from a VolumeSnapshot; size in bytes."""
    spec: dict[str, Any] = {
        "accessModes": list((claim.get("spec") or {}).get("accessModes") or ["ReadWriteOnce"]),
        "volumeMode": (claim.get("spec") or {}).get("volumeMode") or "Filesystem",
        "resources": {"requests": {"storage": str(size)}},
        "dataSource": {
            "apiGroup": api.SNAPSHOT_GROUP,
            "kind": api.SNAPSHOTS.kind,
            "name": snapshot["metadata"]["name"],
        },
    }
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    of = {CLONE_OF: snapshot["metadata"]["name"], RUN: run}
    return {
        "apiVersion": api.CLAIMS.api_version,
        "kind": api.CLAIMS.kind,
        "metadata": {"name": name, "annotations": of},
        "spec": spec,
    }


# Reading


def labels_of(item: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels of an object."""
    return dict((item.get("metadata") or {}).get("labels") or {})


def annotations_of(item: Mapping[str, Any]) -> dict[str, str]:
    """Return the annotations of an object."""
    return dict((item.get("metadata") or {}).get("annotations") or {})


def status_of(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the status of an object, which may be missing altogether."""
    return item.get("status") or {}


def claim_of(snapshot: Mapping[str, Any]) -> str | None:
    """Return the claim that a VolumeSnapshot was taken of; None where nothing says."""
    source = (snapshot.get("spec") or {}).get("source") or {}
    return source.get("persistentVolumeClaimName") or annotations_of(snapshot).get(CLAIM)


def is_held_as_source(claim: Mapping[str, Any] | None) -> bool:
    """Say whether a claim is kept because a snapshot of it is being taken; not of one that is being deleted."""
    if claim is None or claim["metadata"].get("deletionTimestamp"):
        return False
    return AS_SOURCE in (claim["metadata"].get("finalizers") or [])


def is_ready(snapshot: Mapping[str, Any] | None) -> bool:
    """Say whether a VolumeSnapshot can be used."""
    if snapshot is None or snapshot["metadata"].get("deletionTimestamp"):
        return False
    return status_of(snapshot).get("readyToUse") is True


def error_of(item: Mapping[str, Any]) -> str | None:
    """Return the last error that a controller has noted. It may be waited out: the controller tries again."""
    error = status_of(item).get("error") or {}
    return str(error.get("message")) if error.get("message") else None


def restore_size(snapshot: Mapping[str, Any]) -> int | None:
    """Return the least size (bytes) of a volume made from a VolumeSnapshot, where that is known."""
    return quantity(status_of(snapshot).get("restoreSize"))


def capacity(claim: Mapping[str, Any]) -> int:
    """Return the size (bytes) of a claim's volume, or what it asks for."""
    requested = (((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}).get("storage")
    return max(quantity((status_of(claim).get("capacity") or {}).get("storage")) or 0, quantity(requested) or 0)


def driver_of(volume: Mapping[str, Any]) -> str | None:
    """Return the CSI driver of a volume, also of one that was migrated to CSI; None for another kind of volume."""
    csi = (volume.get("spec") or {}).get("csi") or {}
    return csi.get("driver") or annotations_of(volume).get("pv.kubernetes.io/migrated-to")


def created(item: Mapping[str, Any]) -> int:
    """Return when a snapshot was cut, in seconds since the epoch; when its object was made where that is unknown."""
    moment = status_of(item).get("creationTime") or item["metadata"].get("creationTimestamp")
    return parse_timestamp(str(moment)) if moment else 0


def number_of(snapshot: Mapping[str, Any]) -> int:
    """Return a snapshot's number among those of its claim; 0 for foreign ones, and those of before there were any."""
    text = annotations_of(snapshot).get(NUMBER, "")
    return int(text) if _NUMBER.fullmatch(text) else 0


def fault_of(snapshot: Mapping[str, Any]) -> str:
    """Say why a VolumeSnapshot is not usable."""
    if snapshot["metadata"].get("deletionTimestamp"):
        finalizers = ", ".join(snapshot["metadata"].get("finalizers") or []) or "none"
        return f"it is being deleted (finalizers: {finalizers})"
    return error_of(snapshot) or "it is not ready yet"


def as_snapshot(
    target: str,
    snapshot: Mapping[str, Any],
    name: str,
    ready: bool | None = None,
    restoring: Mapping[str, str] | None = None,
) -> Snapshot:
    """Return a VolumeSnapshot in the common form, under ``name``.

    Args:
        ready: overrides what its status says.
        restoring: the claims that wait to be made from a snapshot, by the snapshot's object.
    """
    metadata, status = snapshot["metadata"], status_of(snapshot)
    usable = is_ready(snapshot) if ready is None else ready
    size = restore_size(snapshot)
    extra: dict[str, Any] = {
        "object": metadata["name"],
        "uid": metadata.get("uid"),
        "class": (snapshot.get("spec") or {}).get("volumeSnapshotClassName"),
        "content": status.get("boundVolumeSnapshotContentName"),
        "group": group_of(snapshot),
        "restore_size": size,
        "object_labels": {key: value for key, value in labels_of(snapshot).items() if not key.startswith(PREFIX)},
    }
    if not usable:
        extra["fault"] = fault_of(snapshot)
    waiting = (restoring or {}).get(metadata["name"])
    annotations = annotations_of(snapshot)
    return Snapshot(
        backend="csi",
        target=target,
        name=name,
        created=created(snapshot),
        sequence=number_of(snapshot),
        owner=labels_of(snapshot).get(OWNER),
        policy=annotations.get(POLICY),
        description=annotations.get(DESCRIPTION, ""),
        labels=read_labels(annotations.get(LABELS)),
        referenced_bytes=size,
        ready=usable,
        in_use=f"claim {waiting} is being made from it" if waiting else None,
        extra=extra,
    )


def read_labels(text: str | None) -> dict[str, str]:
    """Return the labels that an annotation holds; none where somebody wrote something else into it."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def group_of(snapshot: Mapping[str, Any]) -> str | None:
    """Return the VolumeGroupSnapshot that a VolumeSnapshot belongs to."""
    name = status_of(snapshot).get("volumeGroupSnapshotName")
    if name:
        return str(name)
    owners = snapshot["metadata"].get("ownerReferences") or []
    return next((str(each["name"]) for each in owners if each.get("kind") == "VolumeGroupSnapshot"), None)


def by_name(snapshots: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return one claim's VolumeSnapshots by the names they are known under, the one that counts first in each list.

    Several objects have one name while one takes the place of another. The newest usable one counts, else the newest.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    foreign = []
    for snapshot in snapshots:
        name = labels_of(snapshot).get(NAME)
        if name:
            found.setdefault(name, []).append(snapshot)
        else:
            foreign.append(snapshot)
    for each in found.values():
        each.sort(
            key=lambda item: (is_ready(item), created(item), number_of(item), item["metadata"]["name"]), reverse=True
        )
    for snapshot in foreign:
        name = snapshot["metadata"]["name"]
        found.setdefault(f"volumesnapshot/{name}" if name in found else name, []).append(snapshot)
    return found


def source_of(claim: Mapping[str, Any]) -> str | None:
    """Return the VolumeSnapshot that a claim is, or was, made from."""
    spec = claim.get("spec") or {}
    for source in (spec.get("dataSourceRef"), spec.get("dataSource")):
        if source and source.get("kind") == api.SNAPSHOTS.kind and source.get("apiGroup") == api.SNAPSHOT_GROUP:
            return str(source["name"])
    return None
