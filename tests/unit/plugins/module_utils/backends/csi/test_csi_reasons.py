# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why snapshots, claims and deletions do not go on, from what was seen of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.reasons import (
    BEING_CREATED,
    FINALIZERS,
    GROUP_BEING_CREATED,
    KINDS,
    SELECTED_NODE,
    Around,
    holds,
    newest,
    shortened,
    stuck,
    why,
)

MADE = "2026-11-26T11:00:00Z"
NOW = 1795690800.0 + 60
DRIVER = "disks.example.com"


def item(kind: str, name: str = "it", status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "creationTimestamp": MADE}
    found = {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec}
    return {**found, **({"status": status} if status is not None else {})}


def snapshot(name: str = "it", **status: Any) -> dict[str, Any]:
    return item("VolumeSnapshot", name, status or None, source={"persistentVolumeClaimName": "data"})


def content(status: dict[str, Any] | None = None, **annotations: str) -> dict[str, Any]:
    found = item(
        "VolumeSnapshotContent",
        "content-1",
        status,
        driver=DRIVER,
        volumeSnapshotRef={"namespace": "shop", "name": "it"},
    )
    found["metadata"]["annotations"] = annotations
    return found


def claim(storage: str = "1Gi", phase: str = "Pending", source: str | None = None, **spec: Any) -> dict[str, Any]:
    spec = {"resources": {"requests": {"storage": storage}}, "storageClassName": "fast", **spec}
    if source is not None:
        spec["dataSource"] = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": source}
    return item("PersistentVolumeClaim", "data", {"phase": phase}, **spec)


def event(message: str, reason: str = "Failed", kind: str = "Warning", **more: Any) -> dict[str, Any]:
    found = {
        "type": kind,
        "reason": reason,
        "message": message,
        "lastTimestamp": MADE,
        "involvedObject": {"uid": "uid-it"},
    }
    return {**found, **more}


def deleted(found: dict[str, Any], *finalizers: str) -> dict[str, Any]:
    found["metadata"].update(deletionTimestamp=MADE, finalizers=list(finalizers))
    return found


# Snapshots


def test_a_ready_snapshot_needs_no_explanation():
    assert why(snapshot(readyToUse=True, boundVolumeSnapshotContentName="c"), Around(content={}), NOW) == []


def test_a_snapshot_that_nobody_touches_tells_of_a_snapshot_controller_that_does_not_run():
    assert why(snapshot(), Around(content={}), NOW) == [
        "nothing has touched it in 60 s since it was made, so the snapshot controller does not seem to run; "
        "see kubectl get pods -A | grep snapshot-controller, or install it with the role csi_snapshots"
    ]


def test_a_young_snapshot_is_given_time():
    assert why(snapshot(), Around(content={}), NOW - 55) == []


def test_an_event_shows_that_the_controller_runs():
    assert why(snapshot(), Around(events=[event("no such claim")], content={}), NOW) == ["event Failed: no such claim"]


def test_what_the_snapshot_controller_says_is_passed_on_once():
    said = "claim data is not bound"
    around = Around(events=[event(said, "SnapshotFailed")], content={})
    assert why(snapshot(error={"message": said}), around, NOW) == [f"the snapshot controller says: {said}"]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (content(), "so the csi-snapshotter sidecar of driver disks.example.com does not seem to run"),
        (content(None, **{BEING_CREATED: "yes"}), "the driver disks.example.com was asked for it and has not answered"),
        (
            content(None, **{GROUP_BEING_CREATED: "yes"}),
            "the driver disks.example.com was asked for it and has not answered",
        ),
        (content(status={"error": {"message": "disk full"}}), "the driver disks.example.com says: disk full"),
        (
            content(status={"snapshotHandle": "h", "readyToUse": False}),
            "the storage has taken it and is still at work on it (content content-1); wait longer",
        ),
    ],
)
def test_a_content_tells_how_far_the_driver_has_come(found, words):
    waiting = snapshot(readyToUse=False, boundVolumeSnapshotContentName="content-1")
    told = why(waiting, Around(content=found), NOW)
    assert len(told) == 1
    assert words in told[0]
    assert why(found, Around(), NOW) == told


def test_a_snapshot_whose_content_is_gone_will_not_become_ready():
    bound = snapshot(readyToUse=False, boundVolumeSnapshotContentName="content-1")
    assert "content-1 is gone" in why(bound, Around(content={}), NOW)[0]
    assert why(bound, Around(content=None), NOW) == [], "nothing is said of what may not be looked at"


# Claims


def test_a_bound_claim_needs_no_explanation():
    assert why(claim(phase="Bound"), Around(), NOW) == []


def test_a_claim_that_lost_its_volume_says_so():
    assert why(claim(phase="Lost", volumeName="pv-1"), Around(), NOW) == ["its volume pv-1 is gone"]


def test_a_claim_that_waits_for_its_first_pod_is_not_broken():
    late = {"volumeBindingMode": "WaitForFirstConsumer"}
    waiting = claim()
    waiting["metadata"]["annotations"] = {"volume.kubernetes.io/storage-provisioner": DRIVER}
    around = Around(storage_class=late, events=[event("waiting", "WaitForFirstConsumer", "Normal")])
    assert why(waiting, around, NOW) == [
        "its storage class fast waits for the first pod (WaitForFirstConsumer): it is bound once a pod uses it"
    ]
    waiting["metadata"]["annotations"][SELECTED_NODE] = "node-1"
    assert "has not taken it up" in why(waiting, around, NOW)[0]


def test_a_claim_smaller_than_the_snapshot_says_both_sizes_and_what_the_provisioner_said():
    said = event("requested volume size 1 is less than the size 2", "ProvisioningFailed", count=7)
    around = Around(events=[said], source=snapshot("snap", readyToUse=True, restoreSize="2Gi"), storage_class={"a": 1})
    assert why(claim(source="snap"), around, NOW) == [
        "it asks for 1.0 GiB, and a volume made from snap has at least 2.0 GiB",
        "event ProvisioningFailed (7 times): requested volume size 1 is less than the size 2",
    ]


@pytest.mark.parametrize(
    ("source", "words"),
    [({}, "there is no VolumeSnapshot snap"), (snapshot("snap", readyToUse=False), "is made from is not ready")],
)
def test_a_claim_waits_for_the_snapshot_that_it_is_made_from(source, words):
    assert words in why(claim(source="snap"), Around(source=source), NOW)[0]


def test_a_storage_class_that_is_not_there_or_not_named_is_said():
    assert why(claim(), Around(storage_class={}), NOW) == [
        "there is no storage class fast; make it, or name another one"
    ]
    assert "none is the default" in why(claim(storageClassName=None), Around(), NOW)[0]


def test_a_provisioner_that_does_not_move_is_named():
    waiting = claim()
    waiting["metadata"]["annotations"] = {"volume.kubernetes.io/storage-provisioner": DRIVER}
    only = Around(events=[event("Waiting for a volume", "ExternalProvisioning", "Normal")])
    assert why(waiting, only, NOW) == [
        f"the provisioner {DRIVER} has not taken it up; see that the pod of the driver's controller is up"
    ]
    moving = Around(events=[*only.events, event("is provisioning volume", "Provisioning", "Normal")])
    assert why(waiting, moving, NOW) == ["event Provisioning: is provisioning volume"]


# Deletions


def test_each_finalizer_has_a_sentence_of_its_own_that_says_what_to_do():
    told = [holds(item("VolumeSnapshot", "it", {}), each, Around()) for each in FINALIZERS]
    for finalizer, sentence in zip(FINALIZERS, told):
        assert sentence.startswith(f"{finalizer} holds it: ")
        assert any(word in sentence for word in ("see ", "remove ", "wait ", "stop ", "goes first", "has to go first"))


SNAP = "snapshot.storage.kubernetes.io/"


def test_a_bound_snapshot_names_its_content_and_who_has_to_move():
    leaving = deleted(snapshot(boundVolumeSnapshotContentName="content-1"), f"{SNAP}volumesnapshot-bound-protection")
    idle = why(leaving, Around(content=content(status={})), NOW)
    assert idle == [
        f"{SNAP}volumesnapshot-bound-protection holds it: the snapshot controller has not begun to remove its content "
        "content-1; see that it runs"
    ]
    going = content(status={"error": {"message": "snapshot is busy"}})
    going["metadata"]["deletionTimestamp"] = MADE
    told = why(leaving, Around(content=going), NOW)
    assert "which the csi-snapshotter sidecar of the driver disks.example.com removes" in told[0]
    assert "do not take the finalizer away by hand: the snapshot would stay on the storage" in told[0]
    assert told[1:] == ["the driver says: snapshot is busy"]


def test_a_content_waits_for_its_snapshot_and_then_for_the_storage():
    held = deleted(content(), f"{SNAP}volumesnapshotcontent-bound-protection")
    assert "the VolumeSnapshot shop/it has to go first" in stuck(held, Around())[0]
    held["metadata"]["annotations"] = {f"{SNAP}volumesnapshot-being-deleted": "yes"}
    assert "has to remove the snapshot on the storage first" in stuck(held, Around())[0]


def test_a_source_of_a_restore_names_the_claims_that_are_being_made():
    leaving = deleted(snapshot(), f"{SNAP}volumesnapshot-as-source-protection")
    assert "claim a is being made from it; wait" in stuck(leaving, Around(restoring=["a"]))[0]
    assert "claim a, b are being made from it" in stuck(leaving, Around(restoring=["a", "b"]))[0]
    assert "a claim is being made from it" in stuck(leaving, Around())[0]
    assert "the snapshot controller has not let go of it, although no claim" in stuck(leaving, Around(restoring=[]))[0]


def test_a_member_of_a_group_names_the_group():
    leaving = deleted(snapshot(volumeGroupSnapshotName="all"), f"{SNAP}volumesnapshot-in-group-protection")
    assert "goes only together with the VolumeGroupSnapshot all" in stuck(leaving, Around())[0]


def test_a_claim_in_use_names_its_pods_and_says_when_there_are_none():
    leaving = deleted(claim(phase="Bound"), "kubernetes.io/pvc-protection")
    pods = [f"pod web-{number} on node node-1 is Running" for number in range(7)]
    told = stuck(leaving, Around(pods=pods))[0]
    assert "pod web-0 on node node-1 is Running" in told
    assert "and 2 more; stop or delete what uses it" in told
    assert "no pod names it any more" in stuck(leaving, Around(pods=[]))[0]
    assert "a pod still names it" in stuck(leaving, Around(pods=None))[0]


def test_a_claim_that_is_being_snapshotted_names_the_snapshots():
    leaving = deleted(claim(phase="Bound"), f"{SNAP}pvc-as-source-protection")
    assert "snapshot one, two of it is being taken" in stuck(leaving, Around(taking=["one", "two"]))[0]


def test_a_volume_names_the_claim_or_the_provisioner():
    bound = item("PersistentVolume", "pv", {"phase": "Bound"}, claimRef={"namespace": "shop", "name": "data"})
    assert "bound to the claim shop/data" in stuck(deleted(bound, "kubernetes.io/pv-protection"), Around())[0]
    released = item("PersistentVolume", "pv", {"phase": "Released"}, csi={"driver": DRIVER})
    told = stuck(deleted(released, "external-provisioner.volume.kubernetes.io/finalizer"), Around())[0]
    assert f"the provisioner of the driver {DRIVER} has to remove the volume on the storage first" in told
    attached = stuck(deleted(released, "external-attacher/disks-example-com"), Around())[0]
    assert "disks-example-com still has it attached to a node" in attached


def test_a_finalizer_of_somebody_else_is_named_and_not_guessed_at():
    assert stuck(deleted(snapshot(), "backup.example.com/keep"), Around()) == [
        "backup.example.com/keep holds it: whatever has put that there has to take it away; see what that is, and that "
        "it runs"
    ]


# Events


def test_the_newest_warnings_come_first_and_each_only_once():
    found = newest(
        [
            event("old", lastTimestamp="2026-11-26T10:00:00Z"),
            event("new", lastTimestamp="2026-11-26T12:00:00Z"),
            event("new", lastTimestamp="2026-11-26T12:00:01Z"),
            event("between", lastTimestamp="2026-11-26T11:00:00Z"),
            event("no warning", kind="Normal", lastTimestamp="2026-11-26T13:00:00Z"),
        ]
    )
    assert found == ["event Failed: new", "event Failed: between"]


def test_both_forms_of_an_event_are_understood():
    new = {
        "type": "Warning",
        "reason": "Failed",
        "note": "from events.k8s.io",
        "eventTime": "2026-11-26T10:00:00.500000Z",
        "series": {"count": 3, "lastObservedTime": "2026-11-26T12:30:00.000001Z"},
        "deprecatedCount": 1,
    }
    old = event("from the core", lastTimestamp="2026-11-26T12:29:59Z", eventTime=None)
    assert newest([old, new]) == ["event Failed (3 times): from events.k8s.io", "event Failed: from the core"]


@given(some.text(max_size=600))
def test_a_text_is_one_line_and_not_too_long(text):
    found = shortened(text)
    assert len(found) <= 240
    assert "\n" not in found
    assert found == " ".join(text.split()) or found.endswith("...")


loose = some.recursive(
    some.none() | some.booleans() | some.integers(0, 9) | some.text(max_size=5),
    lambda inner: some.dictionaries(some.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
statuses = some.fixed_dictionaries(
    {},
    optional={
        "readyToUse": some.none() | some.booleans(),
        "error": some.none() | some.fixed_dictionaries({}, optional={"message": some.text(max_size=9)}),
        "boundVolumeSnapshotContentName": some.text(max_size=5),
        "phase": some.sampled_from(["Pending", "Bound", "Lost", "", None]),
        "restoreSize": some.sampled_from(["1Gi", "0", "nonsense"]),
    },
)
specs = some.fixed_dictionaries(
    {},
    optional={
        "source": some.just({"persistentVolumeClaimName": "data"}),
        "storageClassName": some.none() | some.text(max_size=5),
        "dataSource": some.none()
        | some.just({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"}),
        "claimRef": some.none() | loose.filter(lambda each: isinstance(each, dict)),
    },
)


@some.composite
def items(draw: Any) -> dict[str, Any]:
    found = item(draw(some.sampled_from([*KINDS, "Other"])), "it", draw(some.none() | statuses), **draw(specs))
    found["spec"] = draw(some.none() | some.just(found["spec"]))
    if draw(some.booleans()):
        deleted(
            found,
            *draw(some.lists(some.sampled_from([*FINALIZERS, "x/y", "external-attacher/d"]), max_size=3, unique=True)),
        )
    return found


@given(
    items(),
    some.none() | some.just({}) | items(),
    some.none() | some.just({}) | items(),
    some.lists(
        some.builds(event, some.text(max_size=9), some.sampled_from(["Failed", "ExternalProvisioning"])), max_size=3
    ),
)
def test_whatever_was_seen_is_explained_in_lines_and_never_an_error(found, bound, source, events):
    told = why(found, Around(events, bound, source, None, None, None, None), NOW)
    assert all(isinstance(each, str) and each and "\n" not in each for each in told)
    assert len(told) == len(set(told))


def test_what_was_said_before_a_deletion_does_not_explain_it():
    leaving = deleted(snapshot(), "x.example.com/keep")
    before = event("it could not be made", lastTimestamp="2026-11-26T10:00:00Z")
    after = event("it cannot be removed", lastTimestamp="2026-11-26T11:30:00Z")
    made = event("it was made", kind="Normal", lastTimestamp="2026-11-26T11:30:00Z")
    assert why(leaving, Around(events=[before, after, made]), NOW)[1:] == ["event Failed: it cannot be removed"]
