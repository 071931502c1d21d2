# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why an object of CSI does not go on, from what was seen of it and around it. Pure; explain.py fetches and asks.

Objects are what the API shows; the answers are sentences without a capital and a full stop, to stand in a message. The
finalizers, and who takes them away, are those of external-snapshotter 8 (pkg/utils/util.go), external-provisioner 6
(pkg/controller/controller.go), the attacher (external-attacher/DRIVER) and Kubernetes' own protection controllers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ... import kube_resources as api
from ...core.snapshot import parse_timestamp
from ...core.units import format_size
from . import objects

Item = Mapping[str, Any]
_SNAPSHOT = "snapshot.storage.kubernetes.io/"
_GROUP = "groupsnapshot.storage.kubernetes.io/"
_PROVISIONER = "provisioner.storage.kubernetes.io/"
#: The sidecar writes it on a content before it asks the driver.
BEING_CREATED = f"{_SNAPSHOT}volumesnapshot-being-created"
GROUP_BEING_CREATED = f"{_GROUP}volumegroupsnapshot-being-created"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
#: How long (seconds) a controller that runs may take before it has touched a new object.
PATIENCE = 10
_LONGEST = 240
_MOST_EVENTS = 2
_MOST_NAMES = 5
#: A claim's event that its controller writes in any case: it says only that somebody else has to act.
_WAITS = ("ExternalProvisioning", "WaitForFirstConsumer", "WaitForPodScheduled")


@dataclass(frozen=True)
class Around:
    """What was found beside an object; None is what was not looked for, or may not be looked at.

    ``content`` is what a snapshot is bound to, an empty mapping where there is none. ``source`` is the VolumeSnapshot
    that a claim is made from, or the claim that a snapshot is taken of, empty where there is none. ``storage_class``
    likewise. ``pods`` say in words which pods
    keep a claim. ``restoring`` are claims that are being made from a snapshot, ``taking`` the snapshots that are being
    taken of a claim.
    """

    events: Sequence[Item] = ()
    content: Item | None = None
    source: Item | None = None
    storage_class: Item | None = None
    pods: Sequence[str] | None = None
    restoring: Sequence[str] | None = None
    taking: Sequence[str] | None = None


def why(item: Item, around: Around, now: float) -> list[str]:
    """Return why an object does not go on: being deleted, not ready, not bound. Nothing for one that has no need to."""
    if (item.get("metadata") or {}).get("deletionTimestamp"):
        found = [*stuck(item, around), *_driver_error(item, around)]
    else:
        explained = _EXPLAINED.get(str(item.get("kind")))
        found = list(explained(item, around, now)) if explained is not None else []
    told = " ".join(found)
    events = around.events
    deleted = (item.get("metadata") or {}).get("deletionTimestamp")
    if deleted:
        # How it was made does not matter any more. The clocks of controllers are not those of the API server.
        since = _seconds(deleted) - PATIENCE
        events = [each for each in events if each.get("type") == "Warning" and _moment(each) >= since]
    return [*found, *(each for each in newest(events) if each.partition(": ")[2] not in told)]


# Events


def newest(events: Iterable[Item], most: int = _MOST_EVENTS) -> list[str]:
    """Return the newest warnings among events in words, the newest first; other events where there are no warnings.

    Both forms of an event are understood, that of the core and that of events.k8s.io.
    """
    known = sorted(events, key=_moment, reverse=True)
    telling = [each for each in known if each.get("type") == "Warning"]
    telling = telling or [each for each in known if each.get("reason") not in _WAITS]
    found: dict[str, None] = {}
    for each in telling:
        count = int((each.get("series") or {}).get("count") or each.get("count") or each.get("deprecatedCount") or 1)
        times = f" ({count} times)" if count > 1 else ""
        said = shortened(each.get("message") or each.get("note") or "no message")
        found.setdefault(f"event {each.get('reason') or 'of no reason'}{times}: {said}")
    return list(found)[:most]


def concerns(event: Item, uid: str) -> bool:
    """Say whether an event is about the object of that uid."""
    return (event.get("involvedObject") or event.get("regarding") or {}).get("uid") == uid


def _moment(event: Item) -> float:
    series = event.get("series") or {}
    stamps = (
        series.get("lastObservedTime"),
        event.get("lastTimestamp") or event.get("deprecatedLastTimestamp"),
        event.get("eventTime"),
        (event.get("metadata") or {}).get("creationTimestamp"),
    )
    return max((_seconds(each) for each in stamps), default=0.0)


def _seconds(stamp: Any) -> float:
    """Return a moment as the API writes it, in seconds since the epoch; 0 for none."""
    whole, _dot, fraction = str(stamp or "").rstrip("Z").partition(".")
    try:
        return parse_timestamp(f"{whole}Z") + (float(f"0.{fraction}") if fraction.isdigit() else 0.0)
    except ValueError:
        return 0.0


def shortened(text: Any) -> str:
    """Return a text in one line, and not the whole of a long one."""
    line = " ".join(str(text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


# Not ready


def _unready(snapshot: Item, around: Around, now: float) -> Iterator[str]:
    """Yield why a VolumeSnapshot or a VolumeGroupSnapshot is not ready."""
    if objects.is_ready(snapshot):
        return
    status = objects.status_of(snapshot)
    said = objects.error_of(snapshot)
    if said:
        yield f"the snapshot controller says: {shortened(said)}"
    bound = status.get("boundVolumeSnapshotContentName") or status.get("boundVolumeGroupSnapshotContentName")
    claim = objects.claim_of(snapshot)
    if claim and around.source is not None and not around.source and not bound:
        yield f"there is no claim {claim} in its namespace, of which it is taken"
    if around.content:
        yield from _unready_content(around.content, around, now)
    elif not said and not bound:
        yield from _untouched(snapshot, around, now)
    elif bound and around.content is not None:
        yield f"its content {bound} is gone, so it will not become ready; remove it and take a new one"


def _untouched(snapshot: Item, around: Around, now: float) -> Iterator[str]:
    metadata = snapshot["metadata"]
    age = now - _seconds(metadata.get("creationTimestamp"))
    if age < PATIENCE or around.events:
        return
    yield (
        f"nothing has touched it in {age:.0f} s since it was made, so the snapshot controller does not seem to run; "
        "see kubectl get pods -A | grep snapshot-controller, or install it with the role csi_snapshots"
    )


def _unready_content(content: Item, around: Around, now: float) -> Iterator[str]:
    """Yield why the content of a snapshot is not ready."""
    status, spec, name = objects.status_of(content), content.get("spec") or {}, content["metadata"]["name"]
    if status.get("readyToUse"):
        return
    said = objects.error_of(content)
    if said:
        yield f"the driver {spec.get('driver')} says: {shortened(said)}"
        return
    if status.get("snapshotHandle") or status.get("volumeGroupSnapshotHandle"):
        yield f"the storage has taken it and is still at work on it (content {name}); wait longer"
    elif BEING_CREATED in objects.annotations_of(content) or GROUP_BEING_CREATED in objects.annotations_of(content):
        yield f"the driver {spec.get('driver')} was asked for it and has not answered; see its controller's log"
    elif not status and now - _seconds(content["metadata"].get("creationTimestamp")) >= PATIENCE:
        yield (
            f"nothing has touched its content {name}, so the csi-snapshotter sidecar of driver {spec.get('driver')} "
            "does not seem to run; see that the pod of the driver's controller is up and has it"
        )


def _unbound(claim: Item, around: Around, now: float) -> Iterator[str]:
    """Yield why a claim is not bound."""
    phase = objects.status_of(claim).get("phase")
    if phase == "Bound":
        return
    spec = claim.get("spec") or {}
    if phase == "Lost":
        yield f"its volume {spec.get('volumeName')} is gone"
        return
    yield from _class_faults(claim, around)
    yield from _source_faults(claim, around)
    failed = any(each.get("type") == "Warning" for each in around.events)
    asked = objects.annotations_of(claim).get("volume.kubernetes.io/storage-provisioner")
    touched = any(each.get("reason") not in _WAITS for each in around.events)
    age = now - _seconds(claim["metadata"].get("creationTimestamp"))
    if asked and not failed and not touched and age >= PATIENCE and not _waits_for_pod(claim, around):
        yield f"the provisioner {asked} has not taken it up; see that the pod of the driver's controller is up"


def _waits_for_pod(claim: Item, around: Around) -> bool:
    waits = (around.storage_class or {}).get("volumeBindingMode") == "WaitForFirstConsumer"
    return waits and SELECTED_NODE not in objects.annotations_of(claim)


def _class_faults(claim: Item, around: Around) -> Iterator[str]:
    name = (claim.get("spec") or {}).get("storageClassName")
    if name is None and not (claim.get("spec") or {}).get("volumeName"):
        yield f"it names no storage class, and none is the default ({_DEFAULT_CLASS}: 'true')"
    elif name and around.storage_class is not None and not around.storage_class:
        yield f"there is no storage class {name}; make it, or name another one"
    elif _waits_for_pod(claim, around):
        yield f"its storage class {name} waits for the first pod (WaitForFirstConsumer): it is bound once a pod uses it"


def _source_faults(claim: Item, around: Around) -> Iterator[str]:
    name = objects.source_of(claim)
    if name is None or around.source is None:
        return
    if not around.source:
        yield f"there is no VolumeSnapshot {name} in its namespace, which it is made from"
        return
    if not objects.is_ready(around.source):
        yield f"the VolumeSnapshot {name} that it is made from is not ready"
    needed = objects.restore_size(around.source)
    asked = objects.quantity((((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}).get("storage"))
    if needed is not None and asked is not None and asked < needed:
        yield f"it asks for {format_size(asked)}, and a volume made from {name} has at least {format_size(needed)}"


_EXPLAINED: dict[str, Callable[[Item, Around, float], Iterator[str]]] = {
    api.SNAPSHOTS.kind: _unready,
    api.GROUP_SNAPSHOTS.kind: _unready,
    api.CONTENTS.kind: _unready_content,
    api.GROUP_CONTENTS.kind: _unready_content,
    api.CLAIMS.kind: _unbound,
}


# Stuck deletions


def stuck(item: Item, around: Around) -> list[str]:
    """Return for each finalizer of an object that is being deleted who has to go first, and what to do."""
    return [holds(item, each, around) for each in (item.get("metadata") or {}).get("finalizers") or []]


def holds(item: Item, finalizer: str, around: Around) -> str:
    """Return the sentence for one finalizer."""
    known = _FINALIZERS.get(finalizer)
    if known is not None:
        return f"{finalizer} holds it: {known(item, around)}"
    if finalizer.startswith("external-attacher/"):
        driver = finalizer.partition("/")[2]
        return f"{finalizer} holds it: {driver} still has it attached to a node; see kubectl get volumeattachments"
    return f"{finalizer} holds it: whatever has put that there has to take it away; see what that is, and that it runs"


def _named(found: Sequence[str] | None, otherwise: str) -> str:
    """Return what was found, named, or other words where nothing was found or looked for."""
    if not found:
        return otherwise
    more = f" and {len(found) - _MOST_NAMES} more" if len(found) > _MOST_NAMES else ""
    return ", ".join(found[:_MOST_NAMES]) + more


def _by_hand(what: str) -> str:
    return f"do not take the finalizer away by hand: {what} would stay on the storage"


def _bound_snapshot(item: Item, around: Around) -> str:
    """volumesnapshot-bound-protection: the snapshot controller takes it away once the content has gone or is kept."""
    status, content = objects.status_of(item), around.content
    name = status.get("boundVolumeSnapshotContentName") or f"snapcontent-{item['metadata'].get('uid')}"
    if content is None or not content:
        return f"its content {name} has to go first, which the snapshot controller sees to; see that it runs"
    if not content["metadata"].get("deletionTimestamp"):
        # It marks, and for policy Delete deletes, the content before anything else.
        return f"the snapshot controller has not begun to remove its content {name}; see that it runs"
    driver = (content.get("spec") or {}).get("driver")
    first = f"its content {name} has to go first, which the csi-snapshotter sidecar of the driver {driver} removes"
    return f"{first}; see that it runs and what its log says, and {_by_hand('the snapshot')}"


def _bound_content(item: Item, around: Around) -> str:
    """volumesnapshotcontent-bound-protection: the sidecar takes it away once the snapshot and its data have gone."""
    spec = item.get("spec") or {}
    reference = spec.get("volumeSnapshotRef") or spec.get("volumeGroupSnapshotRef") or {}
    snapshot = f"{reference.get('namespace')}/{reference.get('name')}"
    kind = "VolumeGroupSnapshot" if "volumeGroupSnapshotRef" in spec else "VolumeSnapshot"
    remover = f"the csi-snapshotter sidecar of the driver {spec.get('driver')}"
    if not any(key.endswith("-being-deleted") for key in objects.annotations_of(item)):
        return f"the {kind} {snapshot} has to go first; remove that, and {remover} removes this"
    return (
        f"{remover} has to remove the snapshot on the storage first; see that it runs, and {_by_hand('the snapshot')}"
    )


def _snapshot_source(_item: Item, around: Around) -> str:
    """volumesnapshot-as-source-protection: every snapshot has it, and the snapshot controller takes it away."""
    if around.restoring is not None and not around.restoring:
        return "the snapshot controller has not let go of it, although no claim is being made from it; see that it runs"
    claims = _named(around.restoring, "a claim is")
    word = "are" if around.restoring and len(around.restoring) > 1 else "is"
    which = claims if not around.restoring else f"claim {claims} {word}"
    return f"{which} being made from it; wait until that is bound, or remove it"


def _in_group(item: Item, _around: Around) -> str:
    owners = (item.get("metadata") or {}).get("ownerReferences") or []
    named = objects.status_of(item).get("volumeGroupSnapshotName")
    group = named or next((each.get("name") for each in owners if each.get("kind") == api.GROUP_SNAPSHOTS.kind), None)
    called = f"the VolumeGroupSnapshot {group}" if group else "its VolumeGroupSnapshot"
    return f"it is one of a group, and goes only together with {called}; remove that one, with all of its snapshots"


def _bound_group(item: Item, _around: Around) -> str:
    name = objects.status_of(item).get("boundVolumeGroupSnapshotContentName")
    content = f"its content {name}" if name else "its content"
    return f"{content} and its snapshots have to go first, which the snapshot controller sees to; see that it runs"


def _claim_used(_item: Item, around: Around) -> str:
    if around.pods is not None and not around.pods:
        return "no pod names it any more, so kube-controller-manager has not looked yet; see that it runs"
    return f"{_named(around.pods, 'a pod still names it')}; stop or delete what uses it, finished pods as well"


def _claim_source(_item: Item, around: Around) -> str:
    which = f"snapshot {_named(around.taking, '')} of it is" if around.taking else "a snapshot of it is"
    return f"{which} being taken; wait until that is ready, or remove it"


def _claim_cloned(_item: Item, _around: Around) -> str:
    return "another claim is being cloned from it; wait until that is bound, or remove it"


def _volume_bound(item: Item, _around: Around) -> str:
    reference = (item.get("spec") or {}).get("claimRef") or {}
    if objects.status_of(item).get("phase") == "Bound":
        return f"it is bound to the claim {reference.get('namespace')}/{reference.get('name')}, which has to go first"
    return "it is not bound any more, so kube-controller-manager has not looked yet; see that it runs"


def _volume_provisioned(item: Item, _around: Around) -> str:
    driver = ((item.get("spec") or {}).get("csi") or {}).get("driver")
    remover = f"the provisioner of the driver {driver}" if driver else "its provisioner"
    first = f"{remover} has to remove the volume on the storage first"
    return f"{first}; see that it runs and what its log says, and {_by_hand('the volume')}"


_FINALIZERS: dict[str, Callable[[Item, Around], str]] = {
    f"{_SNAPSHOT}volumesnapshot-bound-protection": _bound_snapshot,
    f"{_SNAPSHOT}volumesnapshotcontent-bound-protection": _bound_content,
    f"{_SNAPSHOT}volumesnapshot-as-source-protection": _snapshot_source,
    f"{_PROVISIONER}volumesnapshot-as-source-protection": _snapshot_source,
    f"{_SNAPSHOT}volumesnapshot-in-group-protection": _in_group,
    f"{_GROUP}volumegroupsnapshot-bound-protection": _bound_group,
    f"{_GROUP}volumegroupsnapshotcontent-bound-protection": _bound_content,
    objects.AS_SOURCE: _claim_source,
    f"{_PROVISIONER}cloning-protection": _claim_cloned,
    "kubernetes.io/pvc-protection": _claim_used,
    "kubernetes.io/pv-protection": _volume_bound,
    "external-provisioner.volume.kubernetes.io/finalizer": _volume_provisioned,
    "kubernetes.io/pv-controller": _volume_provisioned,
    "foregroundDeletion": lambda _item, _around: "what it owns goes first; see what names it in its ownerReferences",
}
FINALIZERS = tuple(_FINALIZERS)
#: Kinds of which something can be told.
KINDS = (
    api.SNAPSHOTS.kind,
    api.GROUP_SNAPSHOTS.kind,
    api.CONTENTS.kind,
    api.GROUP_CONTENTS.kind,
    api.CLAIMS.kind,
    api.VOLUMES.kind,
)


def _driver_error(item: Item, around: Around) -> Iterator[str]:
    """Yield what the driver said last, where something on the storage has to be removed."""
    for each in (item, around.content or {}):
        said = objects.error_of(each)
        if said:
            yield f"the driver says: {shortened(said)}"
            return
