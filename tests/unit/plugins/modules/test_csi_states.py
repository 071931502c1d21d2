# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every state of csi_snapshot, against an API server on loopback with controllers imitated."""

from __future__ import annotations

import threading

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.objects import NUMBER
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_csi import (
    DRIVER,
    snapshot_class,
    storage_class,
)

AS_SOURCE = "snapshot.storage.kubernetes.io/pvc-as-source-protection"
BOTH = ["db", "uploads"]


def results(result):
    return {each["target"]: each["action"] for each in result["results"]}


def foreign(csi, name="by-velero", claim="db"):
    return csi.server.put(
        {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshot",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"source": {"persistentVolumeClaimName": claim}, "volumeSnapshotClassName": "csi"},
        }
    )


# present


def test_snapshots_are_taken_ready_and_described(csi):
    result = csi.done(pvc=BOTH, name="pre", description="Before", labels={"ticket": 4711}, owner="nightly")
    assert results(result) == {"shop/db": "created", "shop/uploads": "created"}
    assert csi.snapshots() == ["db-pre", "uploads-pre"]
    found = csi.server.find("volumesnapshots", "db-pre")
    assert found["metadata"]["labels"] == {"restorepoint.core/name": "pre", "restorepoint.core/owner": "nightly"}
    assert found["spec"]["volumeSnapshotClassName"] == "csi"
    shown = csi.info(pvc=["db"])["snapshots"][0]
    assert (shown["name"], shown["description"], shown["labels"]) == ("pre", "Before", {"ticket": "4711"})
    assert (shown["owner"], shown["policy"], shown["ready"]) == ("nightly", "nightly", True)
    assert shown["referenced_bytes"] == 2**30


def test_a_selector_means_the_claims_that_match(csi):
    csi.add("cache")
    csi.done(selector="app=shop", name="pre")
    assert csi.snapshots() == ["db-pre", "uploads-pre"]


def test_a_hundred_claims_cost_little_more_than_a_request_each(csi):
    names = [f"data-{number:03d}" for number in range(100)]
    csi.add(*names)
    before = len(csi.server.requests)
    result = csi.state(pvc=names, name="pre")
    assert set(results(result).values()) == {"created"}
    spent = len(csi.server.requests) - before
    assert result["api_calls"] == spent
    assert spent <= 100 * 1.5 + 10
    before = len(csi.server.requests)
    assert not csi.state(pvc=names, name="pre")["changed"]
    assert len(csi.server.requests) - before <= 12


def test_when_one_fails_what_was_made_is_removed_again(csi):
    csi.csi.broken["uploads"] = "the storage is full"
    result = csi.state(pvc=BOTH, name="pre", timeout=6)
    assert "take snapshot 'pre' of shop/uploads within" in result["msg"]
    assert "the snapshot controller says: the storage is full" in result["msg"]
    assert results(result) == {"shop/db": "undone", "shop/uploads": "failed"}
    assert not result["changed"]
    assert csi.snapshots() == []


def test_on_failure_keep_leaves_what_there_is(csi):
    csi.csi.broken["uploads"] = "the storage is full"
    result = csi.state(pvc=BOTH, name="pre", timeout=6, on_failure="keep")
    assert result["failed"]
    assert result["changed"]
    assert results(result) == {"shop/db": "created", "shop/uploads": "failed"}
    assert csi.snapshots() == ["db-pre", "uploads-pre"]


def test_an_error_that_passes_is_waited_out(csi):
    csi.csi.broken["db"] = "try later"

    def heal():
        csi.csi.broken.clear()
        csi.server.change(csi.server.find("volumesnapshots", "db-pre"), {"status": {"error": None}})

    timer = threading.Timer(0.7, heal)
    timer.start()
    assert results(csi.state(pvc=["db"], name="pre"))["shop/db"] == "created"
    timer.join()


def test_without_a_controller_the_message_says_so(csi):
    csi.csi.up = False
    result = csi.state(pvc=["db"], name="pre", timeout=1)
    assert "no snapshot controller has taken it up" in result["msg"]
    assert "restorepoint.core.csi_snapshots" in result["msg"]
    assert csi.snapshots() == []


def test_without_wait_a_snapshot_that_is_being_made_counts(csi):
    csi.csi.up = False
    assert csi.done(pvc=["db"], name="pre", wait=False)["changed"]
    csi.csi.up = True
    csi.server.change(csi.server.find("volumesnapshots", "db-pre"), {"metadata": {"labels": {"x": "y"}}})
    result = csi.state(pvc=["db"], name="pre")
    assert not result["changed"]
    assert not result.get("failed")


def test_a_snapshot_that_fails_for_good_blocks_and_replace_takes_it_anew(csi):
    csi.csi.broken["db"] = "no space"
    csi.state(pvc=["db"], name="pre", timeout=1, on_failure="keep")
    result = csi.state(pvc=["db"], name="pre", timeout=1)
    assert "snapshot 'pre' is not usable: no space (set replace: true" in result["msg"]
    csi.csi.broken.clear()
    result = csi.state(pvc=["db"], name="pre", replace=True)
    assert results(result) == {"shop/db": "replaced"}
    (name,) = csi.snapshots()
    assert name.startswith("db-pre-")


def test_max_age_and_replace(csi):
    csi.done(pvc=["db"], name="pre")
    csi.server.change(
        csi.server.find("volumesnapshots", "db-pre"), {"status": {"creationTime": "2026-01-01T00:00:00Z"}}
    )
    assert "older than max_age 2h" in csi.state(pvc=["db"], name="pre", max_age="2h")["msg"]
    assert results(csi.done(pvc=["db"], name="pre", max_age="2h", replace=True)) == {"shop/db": "replaced"}
    assert len(csi.snapshots()) == 1
    # And once more, back under its first name.
    item = csi.server.all("volumesnapshots")[0]
    csi.server.change(item, {"status": {"creationTime": "2026-01-01T00:00:00Z"}})
    csi.done(pvc=["db"], name="pre", max_age="2h", replace=True)
    assert csi.snapshots() == ["db-pre"]


def test_what_a_killed_replacement_left_is_removed_by_the_next_run(csi):
    csi.done(pvc=["db"], name="pre")
    old = csi.server.find("volumesnapshots", "db-pre")
    new = {**old, "metadata": {**old["metadata"], "name": "db-pre-abc", "uid": "uid-new"}}
    new["status"] = {**old["status"], "creationTime": "2030-01-01T00:00:00Z"}
    csi.server.put(new)
    assert csi.done(pvc=["db"], name="pre")["changed"]
    assert csi.snapshots() == ["db-pre-abc"]


def test_description_labels_and_object_metadata_change_in_place(csi):
    csi.done(pvc=["db"], name="pre", description="one", object_labels={"team": "a"})
    result = csi.done(
        pvc=["db"], name="pre", description="two", labels={"x": "y"}, object_labels={"team": "b"},
        object_annotations={"example.org/why": "because"},
    )  # fmt: skip
    assert results(result) == {"shop/db": "described"}
    found = csi.server.find("volumesnapshots", "db-pre")["metadata"]
    assert found["labels"]["team"] == "b"
    assert found["annotations"]["example.org/why"] == "because"
    assert csi.info()["snapshots"][0]["description"] == "two"
    csi.done(pvc=["db"], name="pre", description="", labels={})
    assert (csi.info()["snapshots"][0]["description"], csi.info()["snapshots"][0]["labels"]) == ("", {})


def test_a_deletion_policy_other_than_the_class_says_is_set_on_the_content(csi):
    csi.done(pvc=["db"], name="pre", deletion_policy="Retain")
    assert [each["spec"]["deletionPolicy"] for each in csi.server.all("volumesnapshotcontents")] == ["Retain"]
    assert results(csi.done(pvc=["db"], name="pre", deletion_policy="Delete")) == {"shop/db": "described"}
    csi.done(pvc=["db"], name="pre", state="absent")
    csi.server.lag = 0
    assert wait_for(lambda: csi.server.all("volumesnapshotcontents") == [])


def wait_for(condition, seconds=20.0):
    pause = threading.Event()
    for _unused in range(int(seconds / 0.05)):
        if condition():
            return True
        pause.wait(0.05)
    return False


# Classes and other blockers


def test_the_class_is_the_default_of_the_driver(csi):
    csi.server.put(snapshot_class("other", default=False))
    csi.server.put(snapshot_class("strange", driver="csi.example.org"))
    csi.done(pvc=["db"], name="pre")
    csi.done(pvc=["db"], name="two", snapshot_class="other")
    classes = [each["spec"]["volumeSnapshotClassName"] for each in csi.server.all("volumesnapshots")]
    assert sorted(classes) == ["csi", "other"]


@pytest.mark.parametrize(
    ("classes", "options", "says"),
    [
        ([], {}, f"there is no snapshot class for driver {DRIVER}"),
        ([("a", False), ("b", False)], {}, "none is its default (name one of them: a, b)"),
        ([("a", True), ("b", True)], {}, "has several default snapshot classes: a, b"),
        ([("a", True)], {"snapshot_class": "x"}, "there is no snapshot class 'x' (choose one of this driver's: a)"),
        ([("a", True)], {"snapshot_class": "strange"}, "is of driver csi.example.org, and the volume of"),
    ],
)
def test_a_class_that_is_missing_or_not_clear_blocks_before_anything(csi, classes, options, says):
    csi.server.remove(csi.server.find("volumesnapshotclasses", "csi"))
    csi.server.put(snapshot_class("strange", driver="csi.example.org"))
    for name, default in classes:
        csi.server.put(snapshot_class(name, default=default))
    result = csi.state(pvc=BOTH, name="pre", **options)
    assert says in result["msg"]
    assert len(result["blockers"]) == 2
    assert csi.snapshots() == []


def test_the_only_class_of_a_driver_needs_not_be_its_default(csi):
    csi.server.change(csi.server.find("volumesnapshotclasses", "csi"), {"metadata": {"annotations": None}})
    csi.done(pvc=["db"], name="pre")


def test_claims_that_cannot_be_snapshotted_are_all_named_at_once(csi):
    csi.add("local", "gone")
    csi.server.change(csi.server.find("persistentvolumes", "pv-shop-local"), {"spec": {"csi": None, "local": {}}})
    csi.server.change(csi.server.find("persistentvolumeclaims", "gone"), {"spec": {"volumeName": None}})
    result = csi.state(pvc=["db", "local", "gone"], name="pre")
    assert {each["target"] for each in result["blockers"]} == {"shop/local", "shop/gone"}
    assert "is not of a CSI driver" in result["msg"]
    assert "it has no volume" in result["msg"]
    assert csi.snapshots() == []


def test_only_some_claims_with_the_snapshot_are_no_set(csi):
    csi.done(pvc=["db"], name="pre")
    assert "not on shop/uploads, so the set would not be of one instant" in csi.state(pvc=BOTH, name="pre")["msg"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pvc": ["dat"]}, "there is no such claim; choose one of those in the namespace: db, uploads"),
        ({"pvc": ["db"], "namespace": "Shop"}, "that is no name of a namespace"),
        ({"pvc": ["../x"]}, "is no name of a claim"),
        ({"selector": "app=nobody"}, "matches none"),
        ({"pvc": []}, "pvc is empty"),
        ({"name": "Pre"}, "Kubernetes does not allow it"),
        ({"name": "a" * 64}, "at most 63"),
        ({"name": "aside-20261122t013000z"}, "asides are called so"),
        ({"timeout": 0}, "give 1 or more seconds"),
        ({"object_labels": {"a b": "c"}}, "that is no name of one"),
        ({"object_labels": {"a": "b c"}}, "is no value of a label"),
        ({"object_labels": {"restorepoint.core/name": "x"}}, "this collection's own"),
        ({"state": "cloned", "clone": ["a", "b"]}, "there are 1 claims and 2 different names"),
        ({"state": "cloned", "clone": ["other/a"]}, "in the snapshot's own namespace only"),
        ({"state": "cloned", "clone": ["db-copy"], "size": "big"}, "it is not a size"),
        ({"undo": True}, "set state: rolled_back"),
        ({"import_handle": "x", "pvc": BOTH}, "an import is the snapshot of one claim"),
        ({"api_key": "expired"}, "does not accept the credentials"),
        ({"host": "https://127.0.0.1:9"}, "cannot be reached"),
    ],
)
def test_bad_input_is_one_sentence_and_touches_nothing(csi, options, says):
    given = {"pvc": ["db"], "name": "pre", "timeout": 1, **options}
    if "selector" in given:
        del given["pvc"]
    login = {key: given.pop(key) for key in ("api_key", "host") if key in given}
    csi._login = lambda kept=csi._login: {**kept(), **login}
    result = csi.state(**given)
    assert result["failed"]
    assert says in result["msg"]
    assert "\n" not in result["msg"]
    writes = [each for each in csi.server.requests if each.method != "GET" and "selfsubject" not in each.path]
    assert writes == []


def test_without_the_crds_the_role_that_installs_them_is_named(csi):
    del csi.server.groups["snapshot.storage.k8s.io"]
    result = csi.state(pvc=["db"], name="pre")
    assert "does not know VolumeSnapshots: their CRDs are missing" in result["msg"]
    assert "role restorepoint.core.csi_snapshots" in result["msg"]
    assert "restorepoint.core.csi_snapshots" in csi.info()["msg"]


def test_crds_of_an_old_version_are_told(csi):
    csi.server.groups["snapshot.storage.k8s.io"] = ("v1beta1",)
    assert "as v1beta1 only, not as v1" in csi.state(pvc=["db"], name="pre")["msg"]


# Permissions


@pytest.mark.parametrize(
    ("options", "denied"),
    [
        ({}, [("list", "persistentvolumeclaims"), ("list", "volumesnapshots"), ("list", "persistentvolumes"),
              ("list", "volumesnapshotclasses"), ("create", "volumesnapshots"), ("watch", "volumesnapshots"),
              ("delete", "volumesnapshots")]),
        ({"deletion_policy": "Retain"}, [("list", "volumesnapshotcontents"), ("patch", "volumesnapshotcontents")]),
        ({"group": True}, [("create", "volumegroupsnapshots"), ("watch", "volumegroupsnapshots"),
                           ("patch", "volumesnapshots"), ("patch", "persistentvolumeclaims"),
                           ("list", "volumegroupsnapshotclasses")]),
        ({"state": "absent", "name": "old"}, [("delete", "volumesnapshots"), ("watch", "volumesnapshots")]),
        ({"state": "cloned", "name": "old", "clone": ["copy"], "pvc": ["db"]},
         [("create", "persistentvolumeclaims"), ("watch", "persistentvolumeclaims"), ("list", "storageclasses"),
          ("list", "resourcequotas")]),
    ],
)  # fmt: skip
def test_each_permission_that_is_missing_is_named_before_anything_is_touched(csi, options, denied):
    csi.done(pvc=BOTH, name="old")
    before = csi.snapshots()
    for each in denied:
        csi.server.forbidden = {each}
        result = csi.state(**{"pvc": BOTH, "name": "pre", **options})
        assert f"this login may not {each[0]} on {each[1]}" in result["msg"]
        assert csi.snapshots() == before
    csi.server.forbidden = set(denied)
    message = csi.state(**{"pvc": BOTH, "name": "pre", **options})["msg"]
    assert all(f"may not {verb} on {what}" in message for verb, what in denied)


def test_who_may_only_read_is_told_that_nothing_is_to_be_done(csi):
    csi.done(pvc=BOTH, name="pre")
    csi.server.forbidden = {(verb, "volumesnapshots") for verb in ("create", "delete", "patch", "watch")}
    result = csi.state(pvc=BOTH, name="pre")
    assert not result.get("failed"), result["msg"]
    assert not result["changed"]


def test_who_may_not_ask_what_is_allowed_is_told_by_the_requests(csi):
    csi.server.forbidden = {("create", "selfsubjectaccessreviews"), ("create", "volumesnapshots")}
    assert "forbids it" in csi.state(pvc=["db"], name="pre")["msg"]


# absent


def test_snapshots_are_removed_and_waited_for(csi):
    csi.done(pvc=BOTH, name="pre")
    assert results(csi.done(pvc=BOTH, name="pre", state="absent")) == {"shop/db": "removed", "shop/uploads": "removed"}
    assert csi.snapshots() == []


def test_foreign_snapshots_are_shown_and_removed_by_the_name_of_their_object(csi):
    foreign(csi)
    assert wait_for(lambda: csi.info()["snapshots"][0]["ready"])
    shown = csi.info()["snapshots"][0]
    assert (shown["name"], shown["owner"]) == ("by-velero", None)
    csi.done(pvc=["db"], name="by-velero", state="absent")
    assert csi.snapshots() == []


def test_snapshots_of_a_claim_that_is_gone_can_be_removed(csi):
    csi.done(pvc=["db"], name="pre")
    csi.server.remove(csi.server.find("persistentvolumeclaims", "db"))
    assert wait_for(lambda: csi.server.find("persistentvolumeclaims", "db") is None)
    assert [each["phase"] for each in csi.info()["claims"] if each["pvc"] == "db"] == ["absent"]
    csi.done(pvc=["db"], name="pre", state="absent")
    assert csi.snapshots() == []


def test_a_snapshot_that_does_not_go_is_told_with_its_finalizers(csi):
    csi.done(pvc=["db"], name="pre")
    item = csi.server.find("volumesnapshots", "db-pre")
    csi.server.change(item, {"metadata": {"finalizers": ["example.org/backup"]}})
    result = csi.state(pvc=["db"], name="pre", state="absent", timeout=1)
    assert "it is still there (finalizers: example.org/backup)" in result["msg"]
    assert results(result) == {"shop/db": "failed"}


def test_what_holds_a_snapshot_stands_in_the_message_with_the_way_out(csi):
    csi.done(pvc=["db"], name="pre")
    item = csi.server.find("volumesnapshots", "db-pre")
    csi.server.change(item, {"metadata": {"finalizers": ["example.org/backup"]}})
    removed = csi.state(pvc=["db"], name="pre", state="absent", timeout=1)
    assert "example.org/backup holds it: whatever has put that there" in removed["msg"]


def test_a_snapshot_that_a_claim_is_being_made_from_is_not_removed(csi):
    csi.server.put(storage_class("slow", later=True))
    csi.done(pvc=["db"], name="pre")
    result = csi.done(pvc=["db"], name="pre", state="cloned", clone=["copy"], storage_class="slow")
    assert result["results"][0]["phase"] == "Pending"
    result = csi.state(pvc=["db"], name="pre", state="absent")
    assert "snapshot 'pre' is in use: claim copy is being made from it" in result["msg"]


# cloned


def test_a_clone_is_made_bound_and_of_the_size_of_the_claim(csi):
    csi.add("big", size="3Gi")
    csi.done(pvc=["db", "big"], name="pre")
    result = csi.done(pvc=["db", "big"], name="pre", state="cloned", clone=["db-copy", "big-copy"])
    assert [each["phase"] for each in result["results"]] == ["Bound", "Bound"]
    spec = csi.server.find("persistentvolumeclaims", "big-copy")["spec"]
    assert spec["resources"]["requests"]["storage"] == str(3 * 2**30)
    assert spec["dataSource"]["name"] == "big-pre"
    assert spec["storageClassName"] == "csi"


def test_a_clone_can_be_larger_and_of_another_class(csi):
    csi.server.put(storage_class("fast"))
    csi.done(pvc=["db"], name="pre")
    csi.done(pvc=["db"], name="pre", state="cloned", clone=["copy"], size="2G", storage_class="fast")
    spec = csi.server.find("persistentvolumeclaims", "copy")["spec"]
    assert (spec["resources"]["requests"]["storage"], spec["storageClassName"]) == (str(2 * 2**30), "fast")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": "100M"}, "the clone would be 100.0 MiB, and the snapshot needs 1.0 GiB"),
        ({"storage_class": "nowhere"}, "there is no storage class 'nowhere' (choose one of: csi)"),
        ({"clone": ["uploads"]}, "there is a claim uploads, and it is no clone"),
        ({"name": "nope"}, "there is no snapshot 'nope' (it has pre)"),
    ],
)
def test_a_clone_that_cannot_be_is_told_before(csi, options, says):
    csi.done(pvc=["db"], name="pre")
    result = csi.state(**{"pvc": ["db"], "name": "pre", "state": "cloned", "clone": ["copy"], **options})
    assert says in result["msg"]
    assert csi.server.find("persistentvolumeclaims", "copy") is None


def test_a_clone_of_another_snapshot_is_not_taken_for_it(csi):
    csi.done(pvc=["db"], name="one")
    csi.done(pvc=["db"], name="two")
    csi.done(pvc=["db"], name="one", state="cloned", clone=["copy"])
    assert "copy was cloned from 'one'" in csi.state(pvc=["db"], name="two", state="cloned", clone=["copy"])["msg"]


def test_a_quota_without_room_for_all_clones_is_told_before(csi):
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small", "namespace": "shop"},
        "status": {"hard": {"requests.storage": "4Gi"}, "used": {"requests.storage": "3Gi"}},
    }
    csi.server.put(quota)
    csi.done(pvc=BOTH, name="pre")
    result = csi.state(pvc=BOTH, name="pre", state="cloned", clone=["a", "b"])
    assert "quota small allows 4Gi of requests.storage, and 3Gi are used" in result["msg"]
    assert "2.0 GiB more are needed" in result["msg"]
    csi.done(pvc=["db"], name="pre", state="cloned", clone=["a"])


def test_when_one_clone_fails_the_others_are_removed_again(csi):
    csi.done(pvc=BOTH, name="pre")
    # What it is made from goes while the clone waits.
    gone = csi.server.find("volumesnapshots", "uploads-pre")
    csi.server.objects.pop(("snapshot.storage.k8s.io", "volumesnapshots", "shop", "uploads-pre"))
    csi.server.put({**gone, "metadata": {**gone["metadata"], "name": "uploads-pre-x"}})
    csi.csi._persistentvolumeclaims = slow(csi.csi._persistentvolumeclaims, "copy-b")
    result = csi.state(pvc=BOTH, name="pre", state="cloned", clone=["copy-a", "copy-b"], timeout=6)
    assert "it is not bound (phase Pending)" in result["msg"]
    assert results(result) == {"shop/db": "undone", "shop/uploads": "failed"}
    assert csi.server.find("persistentvolumeclaims", "copy-a") is None


def slow(act, name):
    def acts(cluster, item):
        if item["metadata"]["name"] != name or item["metadata"].get("deletionTimestamp"):
            act(cluster, item)

    return acts


# pruned


def test_the_keep_rules_hold_for_ones_own_snapshots_only(csi):
    for number in range(4):
        name = f"nightly-{number}"
        csi.done(pvc=["db"], name=name, owner="nightly")
        item = csi.server.find("volumesnapshots", f"db-{name}")
        csi.server.change(item, {"status": {"creationTime": f"2026-01-0{number + 1}T00:00:00Z"}})
    csi.done(pvc=["db"], name="mine")
    foreign(csi)
    csi.done(pvc=["db"], state="pruned", owner="nightly", keep={"last": 2})
    assert csi.snapshots() == ["by-velero", "db-mine", "db-nightly-2", "db-nightly-3"]


def test_snapshots_of_one_second_keep_the_order_in_which_they_were_taken(csi):
    for name in ("c", "a", "b"):
        csi.done(pvc=["db"], name=name)
        item = csi.server.find("volumesnapshots", f"db-{name}")
        csi.server.change(item, {"status": {"creationTime": "2026-01-01T00:00:00Z"}})
    assert [each["name"] for each in csi.info(pvc=["db"])["snapshots"]] == ["c", "a", "b"]
    csi.done(pvc=["db"], state="pruned", keep={"last": 1})
    assert csi.snapshots() == ["db-b"]
    csi.done(pvc=["db"], name="a")
    csi.server.change(csi.server.find("volumesnapshots", "db-a"), {"status": {"creationTime": "2026-01-01T00:00:00Z"}})
    csi.done(pvc=["db"], state="pruned", keep={"last": 1})
    assert csi.snapshots() == ["db-a"]


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "many", "9" * 19, "\u0663"])
def test_a_number_that_somebody_else_wrote_counts_as_none(csi, text):
    csi.done(pvc=["db"], name="a")
    csi.server.change(csi.server.find("volumesnapshots", "db-a"), {"metadata": {"annotations": {NUMBER: text}}})
    csi.done(pvc=["db"], name="b")
    assert csi.server.find("volumesnapshots", "db-b")["metadata"]["annotations"][NUMBER] == "1"


# rolled_back


def held(csi, name="db"):
    """Let a finalizer keep a claim, as the snapshot controller does while a snapshot of it is being taken."""
    item = csi.server.find("persistentvolumeclaims", name)
    return csi.server.change(item, {"metadata": {"finalizers": ["kubernetes.io/pvc-protection", AS_SOURCE]}})


def test_a_return_waits_for_a_snapshot_that_is_being_taken(csi):
    csi.done(pvc=["db"], name="pre")
    item = held(csi)
    asked_before = len(csi.server.requests)

    def let_go():
        assert wait_for(lambda: any("watch" in each.query for each in csi.server.requests[asked_before:]), 60)
        csi.server.change(item, {"metadata": {"finalizers": ["kubernetes.io/pvc-protection"]}})

    waiter = threading.Thread(target=let_go)
    waiter.start()
    result = csi.state(check_mode=True, pvc=["db"], name="pre", state="rolled_back", timeout=120)
    waiter.join()
    assert not result.get("failed"), result["msg"]
    assert results(result) == {"shop/db": "rolled_back"}


def test_a_claim_that_stays_held_blocks_a_return_and_the_snapshot_is_named(csi):
    csi.done(pvc=["db"], name="pre")
    csi.csi.up = False
    csi.state(pvc=["db"], name="late", wait=False)
    held(csi)
    result = csi.state(pvc=["db"], name="pre", state="rolled_back", timeout=1)
    assert (
        f"its deletion would wait for {AS_SOURCE}, which stays until snapshot db-late of it is ready" in result["msg"]
    )
    assert "wait until that is ready, or remove it" in result["msg"]
    assert csi.server.find("persistentvolumeclaims", "db")["metadata"].get("deletionTimestamp") is None


# Groups


@pytest.mark.parametrize("version", ["v1", "v1beta2", "v1beta1"])
def test_a_group_is_taken_in_the_version_that_the_cluster_serves(csi, version):
    csi.server.groups["groupsnapshot.storage.k8s.io"] = (version,)
    result = csi.done(pvc=BOTH, name="pre", group=True)
    (group,) = csi.server.all("volumegroupsnapshots")
    assert group["apiVersion"] == f"groupsnapshot.storage.k8s.io/{version}"
    assert {each["group"] for each in result["results"]} == {group["metadata"]["name"]}
    assert sorted(each["target"] for each in csi.info(name="pre")["snapshots"]) == ["shop/db", "shop/uploads"]
    csi.done(pvc=BOTH, name="pre", state="absent")
    assert wait_for(lambda: csi.snapshots() == [])
    assert csi.server.all("volumegroupsnapshots") == []


def test_a_group_uses_a_selector_of_equalities_and_labels_nothing(csi):
    csi.done(selector="app=shop", name="pre", group=True)
    (group,) = csi.server.all("volumegroupsnapshots")
    assert group["spec"]["source"]["selector"] == {"matchLabels": {"app": "shop"}}
    assert csi.server.find("persistentvolumeclaims", "db")["metadata"]["labels"] == {"app": "shop"}


def test_a_group_is_removed_whole_or_not_at_all(csi):
    csi.done(pvc=BOTH, name="pre", group=True)
    result = csi.state(pvc=["db"], name="pre", state="absent")
    assert "is one of group" in result["msg"]
    assert "with shop/uploads (name those claims too)" in result["msg"]
    assert len(csi.snapshots()) == 2


def test_a_group_is_replaced_whole(csi):
    csi.done(pvc=BOTH, name="pre", group=True)
    for item in csi.server.all("volumesnapshots"):
        csi.server.change(item, {"status": {"creationTime": "2026-01-01T00:00:00Z"}})
    result = csi.done(pvc=BOTH, name="pre", group=True, replace=True, max_age="1h")
    assert set(results(result).values()) == {"replaced"}
    assert len(csi.server.all("volumegroupsnapshots")) == 1
    assert wait_for(lambda: len(csi.snapshots()) == 2)


def test_a_cluster_without_group_snapshots_is_told(csi):
    del csi.server.groups["groupsnapshot.storage.k8s.io"]
    assert "does not know VolumeGroupSnapshots" in csi.state(pvc=BOTH, name="pre", group=True)["msg"]


def test_a_group_that_fails_is_removed(csi):
    csi.csi._volumegroupsnapshots = lambda cluster, item: None
    result = csi.state(pvc=BOTH, name="pre", group=True, timeout=1)
    assert "no snapshot controller has taken it up" in result["msg"]
    assert csi.server.all("volumegroupsnapshots") == []


# Imports


def test_a_handle_is_imported_once(csi):
    csi.done(pvc=["db"], name="found", import_handle="h-1", deletion_policy="Retain")
    (content,) = csi.server.all("volumesnapshotcontents")
    assert content["spec"]["source"] == {"snapshotHandle": "h-1"}
    assert (content["spec"]["driver"], content["spec"]["deletionPolicy"]) == (DRIVER, "Retain")
    shown = csi.info(contents=True)["snapshots"][0]
    assert (shown["target"], shown["name"], shown["extra"]["handle"]) == ("shop/db", "found", "h-1")
    assert "that handle is known already" in csi.state(pvc=["db"], name="two", import_handle="h-1")["msg"]


def test_a_handle_is_imported_for_a_claim_that_is_gone(csi):
    result = csi.state(pvc=["lost"], name="found", import_handle="h-1")
    assert "set snapshot_class to one of the driver" in result["msg"]
    csi.done(pvc=["lost"], name="found", import_handle="h-1", snapshot_class="csi")


def test_an_import_that_fails_leaves_neither_content_nor_snapshot(csi):
    csi.csi.ignored.add(None)
    result = csi.state(pvc=["db"], name="found", import_handle="h-1", timeout=1)
    assert result["failed"]
    assert csi.snapshots() == []
    assert csi.server.all("volumesnapshotcontents") == []


# A server that fails


@pytest.mark.parametrize("state", ["present", "absent", "cloned"])
def test_a_server_that_fails_now_and_then_does_no_harm(csi, state):
    options = {"pvc": BOTH, "name": "pre", "state": state, "timeout": 60}
    if state != "present":
        csi.done(pvc=BOTH, name="pre")
    if state == "cloned":
        options["clone"] = ["copy-a", "copy-b"]
    csi.server.faults = [(503, {}), (429, {"Retry-After": "1"}), (500, {})]
    csi.server.lose = 2
    csi.server.cut_watches = 2
    result = csi.state(**options)
    assert not result.get("failed"), result["msg"]
    assert len(csi.snapshots()) == (0 if state == "absent" else 2)
    assert not csi.state(**options)["changed"]


def test_a_failure_in_the_middle_of_creating_takes_all_back(csi):
    csi.csi.up = False
    names = [f"data-{number}" for number in range(5)]
    csi.add(*names)
    foreign(csi, name="data-3-pre", claim="db")  # in the way of the fourth, under a name of ours
    csi.server.objects[("snapshot.storage.k8s.io", "volumesnapshots", "other", "x")] = {
        "metadata": {"name": "x", "namespace": "other", "uid": "x"}, "spec": {"source": {}}
    }  # fmt: skip
    result = csi.state(pvc=names, name="pre", timeout=3)
    assert result["failed"]
    assert csi.snapshots() == ["data-3-pre", "x"]
