# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why things do not go on, as said of the objects and events of a real control plane."""

from __future__ import annotations

import time

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.explain import Explain
from ansible_collections.restorepoint.core.plugins.module_utils.core.snapshot import parse_timestamp
from ansible_collections.restorepoint.core.plugins.module_utils.kube import KubeClient
from ansible_collections.restorepoint.core.tests.cluster.lab import CORE, SNAPSHOTS, Failed

#: As if so many seconds had passed, so that no test has to wait for them.
LATER = 30
BOUND = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection"


def told(lab, path, age=None):
    """Return what is said of the object at a path: LATER, or when it is so many seconds old."""
    found = lab.api.get(path)
    now = time.time() + LATER if age is None else parse_timestamp(found["metadata"]["creationTimestamp"]) + age
    explain = Explain(KubeClient({"kubeconfig": str(lab.kubeconfig)}), now=lambda: now)
    return explain.why([found])[found["metadata"]["uid"]]


def says(lab, path, *words):
    """Wait until all of the words are said of an object."""
    seen: list[str] = []

    def all_said():
        seen[:] = told(lab, path)
        return all(any(word in each for each in seen) for word in words)

    try:
        lab.until(all_said, "it is said")
    except TimeoutError:
        pytest.fail(f"not all of {words} in {seen}")
    return list(seen)


def protected(lab, path):
    """Wait until a snapshot is ready, and stays until its content is gone: that comes after it is ready."""
    lab.ready(path)
    lab.api.wait(path, lambda each: each and BOUND in each["metadata"].get("finalizers", []))


def content_path(lab, path):
    found = lab.api.wait(path, lambda each: each and each.get("status", {}).get("boundVolumeSnapshotContentName"))
    return f"{SNAPSHOTS}/volumesnapshotcontents/{found['status']['boundVolumeSnapshotContentName']}"


# Not ready


def test_a_snapshot_of_no_claim_says_what_the_controller_says(cluster, namespace):
    cluster.snapshot(namespace, "none", "snap", wait=False)
    says(cluster, cluster.snapshot_path(namespace, "snap"), "the snapshot controller says", "there is no claim none")


def test_ready_snapshots_and_bound_claims_need_no_explanation(cluster, namespace):
    cluster.claim(namespace, "data")
    cluster.snapshot(namespace, "data", "snap")
    assert not [each for each in told(cluster, cluster.claim_path(namespace, "data")) if not each.startswith("event")]
    assert not [each for each in told(cluster, cluster.snapshot_path(namespace, "snap")) if "event" not in each]


def test_a_claim_smaller_than_the_snapshot_says_both_sizes(cluster, namespace):
    cluster.claim(namespace, "data", size="2Mi")
    cluster.snapshot(namespace, "data", "snap")
    cluster.claim(namespace, "small", size="1Mi", snapshot="snap", wait=False)
    path = cluster.claim_path(namespace, "small")
    found = says(
        cluster, path, "it asks for 1.0 MiB, and a volume made from snap has at least 2.0 MiB", "less than the size"
    )
    assert sum(each.startswith("event ProvisioningFailed") for each in found) == 1


def test_a_late_claim_a_missing_class_and_a_missing_snapshot_are_told_apart(cluster, namespace):
    cluster.claim(namespace, "late", storage_class="folders-late", wait=False)
    says(cluster, cluster.claim_path(namespace, "late"), "folders-late waits for the first pod")
    cluster.claim(namespace, "wrong", storage_class="none", wait=False)
    says(cluster, cluster.claim_path(namespace, "wrong"), "there is no storage class none")
    cluster.claim(namespace, "lost", snapshot="none", wait=False)
    says(cluster, cluster.claim_path(namespace, "lost"), "there is no VolumeSnapshot none in its namespace")


# Deletions that hang


def test_a_claim_in_use_names_the_pod_and_goes_with_it(cluster, namespace):
    cluster.claim(namespace, "data")
    path = cluster.claim_path(namespace, "data")
    with cluster.node(namespace):
        pod = cluster.pod(namespace, "main", "data")
        cluster.api.wait(pod, lambda found: found and found["status"]["phase"] == "Running")
        cluster.api.delete(path)
        says(cluster, path, "kubernetes.io/pvc-protection holds it: pod main on node lab is Running; stop or delete")
        cluster.api.delete(pod)
        cluster.api.gone(path)


def test_a_volume_that_is_bound_names_its_claim(cluster, namespace):
    cluster.claim(namespace, "data")
    path = f"{CORE}/persistentvolumes/{cluster.volume(namespace, 'data')['metadata']['name']}"
    cluster.api.delete(path)
    says(
        cluster,
        path,
        f"kubernetes.io/pv-protection holds it: it is bound to the claim {namespace}/data, which has to go first",
    )
    cluster.api.delete(cluster.claim_path(namespace, "data"))
    cluster.api.gone(path)


def test_a_content_that_is_removed_before_its_snapshot_names_the_snapshot(cluster, namespace):
    cluster.claim(namespace, "data")
    cluster.snapshot(namespace, "data", "snap")
    snapshot = cluster.snapshot_path(namespace, "snap")
    path = content_path(cluster, snapshot)
    cluster.api.wait(path, lambda each: each and each["metadata"].get("finalizers"))
    cluster.api.delete(path)
    says(cluster, path, f"the VolumeSnapshot {namespace}/snap has to go first; remove that")
    cluster.api.delete(snapshot)
    cluster.api.gone(path)


def test_a_member_of_a_group_names_the_group(cluster, namespace):
    cluster.claim(namespace, "one", labels={"app": "shop"})
    cluster.group_snapshot(namespace, "both", {"app": "shop"})
    member = cluster.snapshot_path(namespace, cluster.snapshots(namespace)[0])
    cluster.api.delete(member)
    says(cluster, member, "goes only together with the VolumeGroupSnapshot both")
    cluster.api.delete(cluster.group_path(namespace, "both"))
    cluster.api.gone(member)


def test_a_finalizer_of_somebody_else_is_named(cluster, namespace):
    cluster.claim(namespace, "data")
    path = cluster.claim_path(namespace, "data")
    cluster.api.patch(path, {"metadata": {"finalizers": ["backup.example.com/keep"]}})
    cluster.api.delete(path)
    says(cluster, path, "backup.example.com/keep holds it: whatever has put that there")
    cluster.api.patch(path, {"metadata": {"finalizers": None}})
    cluster.api.gone(path)


# Parts that do not run, and a driver that fails


def test_without_the_snapshot_controller_nothing_touches_a_snapshot_and_that_is_said(fragile, fragile_namespace):
    fragile.claim(fragile_namespace, "data")
    path = fragile.snapshot_path(fragile_namespace, "snap")
    with fragile.own.without("snapshot-controller"):
        fragile.snapshot(fragile_namespace, "data", "snap", wait=False)
        assert told(fragile, path, age=2) == []
        found = says(fragile, path, "the snapshot controller does not seem to run")
        assert len(found) == 1
    protected(fragile, path)
    with fragile.own.without("snapshot-controller"):
        fragile.api.delete(path)
        says(fragile, path, "the snapshot controller has not begun to remove its content")
    fragile.api.gone(path)


def test_without_the_sidecar_a_content_is_not_touched_and_that_is_said(fragile, fragile_namespace):
    fragile.claim(fragile_namespace, "data")
    path = fragile.snapshot_path(fragile_namespace, "snap")
    with fragile.own.without("csi-snapshotter"):
        fragile.snapshot(fragile_namespace, "data", "snap", wait=False)
        content = content_path(fragile, path)
        words = "the csi-snapshotter sidecar of driver folders.restorepoint.test does not seem to run"
        says(fragile, path, words)
        says(fragile, content, words)
    protected(fragile, path)
    with fragile.own.without("csi-snapshotter"):
        fragile.api.delete(path)
        says(fragile, path, "which the csi-snapshotter sidecar of the driver folders.restorepoint.test removes")
        says(fragile, content, "has to remove the snapshot on the storage first")
    fragile.api.gone(path)
    fragile.api.gone(content)


def test_without_the_provisioner_a_claim_is_not_taken_up_and_that_is_said(fragile, fragile_namespace):
    path = fragile.claim_path(fragile_namespace, "data")
    with fragile.own.without("csi-provisioner"):
        fragile.claim(fragile_namespace, "data", wait=False)
        says(fragile, path, "the provisioner folders.restorepoint.test has not taken it up")
    fragile.bound(fragile_namespace, "data")
    volume = f"{CORE}/persistentvolumes/{fragile.volume(fragile_namespace, 'data')['metadata']['name']}"
    with fragile.own.without("csi-provisioner"):
        fragile.api.delete(path)
        fragile.api.gone(path)
        fragile.api.delete(volume)
        says(fragile, volume, "the provisioner of the driver folders.restorepoint.test has to remove the volume")
    fragile.api.gone(volume)


def test_what_the_driver_says_is_passed_on(fragile, fragile_namespace):
    fragile.claim(fragile_namespace, "data")
    path = fragile.snapshot_path(fragile_namespace, "snap")
    with fragile.own.driver_fault("CreateSnapshot", code="exhausted", message="no room on the array"):
        fragile.snapshot(fragile_namespace, "data", "snap", wait=False)
        says(fragile, path, "no room on the array")
    protected(fragile, path)
    with fragile.own.driver_fault("DeleteSnapshot", code="internal", message="the array is busy"):
        fragile.api.delete(path)
        says(fragile, path, "which the csi-snapshotter sidecar", "event SnapshotDeleteError")
    fragile.api.gone(path)
    claim = fragile.claim_path(fragile_namespace, "more")
    with fragile.own.driver_fault("CreateVolume", code="exhausted", message="no room for volumes"):
        fragile.claim(fragile_namespace, "more", wait=False)
        says(fragile, claim, "event ProvisioningFailed", "no room for volumes")


def test_a_snapshot_that_is_still_being_taken_holds_its_claim(fragile, fragile_namespace):
    fragile.claim(fragile_namespace, "data")
    path = fragile.snapshot_path(fragile_namespace, "snap")
    claim = fragile.claim_path(fragile_namespace, "data")
    with fragile.own.driver_fault("CreateSnapshot", unready=True):
        fragile.snapshot(fragile_namespace, "data", "snap", wait=False)
        says(fragile, path, "the storage has taken it and is still at work on it")
        fragile.api.delete(claim)
        says(fragile, claim, "pvc-as-source-protection holds it: snapshot snap of it is being taken")


def test_a_return_waits_for_a_snapshot_that_is_being_taken_and_names_one_that_never_is(fragile, fragile_namespace):
    made = fragile.claim(fragile_namespace, "data", {"a": "old"})
    fragile.snapshot(fragile_namespace, "data", "early")
    fragile.write(fragile_namespace, "data", {"a": "new"})
    options = {"namespace": fragile_namespace, "pvc": ["data"], "name": "early", "state": "rolled_back"}
    path = fragile.snapshot_path(fragile_namespace, "late")
    with fragile.own.driver_fault("CreateSnapshot", unready=True):
        fragile.snapshot(fragile_namespace, "data", "late", wait=False)
        says(fragile, path, "still at work on it")
        with pytest.raises(Failed) as caught:
            fragile.call("csi_snapshot", timeout=15, **options)
        assert "pvc-as-source-protection, which stays until snapshot late of it is ready" in caught.value.result["msg"]
        there = fragile.api.get(fragile.claim_path(fragile_namespace, "data"))
        assert there["metadata"]["uid"] == made["metadata"]["uid"]
        assert "deletionTimestamp" not in there["metadata"]
        assert fragile.read(fragile_namespace, "data") == {"a": "new"}
    fragile.call("csi_snapshot", timeout=180, **options)  # it waits, as the driver is asked again in a while
    assert fragile.api.get(path)["status"]["readyToUse"]
    assert fragile.read(fragile_namespace, "data") == {"a": "old"}


def test_a_snapshot_from_which_a_claim_is_being_made_names_the_claim(fragile, fragile_namespace):
    fragile.claim(fragile_namespace, "data")
    fragile.snapshot(fragile_namespace, "data", "snap")
    path = fragile.snapshot_path(fragile_namespace, "snap")
    with fragile.own.driver_fault("CreateVolume", code="unavailable", message="not now"):
        fragile.claim(fragile_namespace, "copy", snapshot="snap", wait=False)
        says(fragile, fragile.claim_path(fragile_namespace, "copy"), "not now")
        fragile.api.delete(path)
        says(fragile, path, "volumesnapshot-as-source-protection holds it: claim copy is being made from it")
