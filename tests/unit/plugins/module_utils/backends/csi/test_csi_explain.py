# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is looked up to explain an object: only what is needed, and without ever raising."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.explain import Explain
from ansible_collections.restorepoint.core.plugins.module_utils.kube import Listing
from ansible_collections.restorepoint.core.plugins.module_utils.kube_login import KubeError

NOW = 1795690800.0 + 60
MADE = "2026-11-26T11:00:00Z"


class Answers:
    """A login to a server that has these objects, by plural and name, and refuses some plurals of some groups."""

    def __init__(self, *items: tuple[str, dict[str, Any]], refused: dict[str, int] | None = None) -> None:
        self._items = items
        self._refused = refused or {}
        self.asked: list[str] = []

    def _check(self, attempt: str, resource: Any) -> None:
        status = self._refused.get(resource.full_name, self._refused.get("*", 0))
        if status:
            raise KubeError(attempt, "refused", "ask for it", status)

    def get(self, attempt: str, resource: Any, namespace: Any = None, name: str = "") -> dict[str, Any]:
        self.asked.append(f"{resource.full_name}/{name}")
        self._check(attempt, resource)
        for plural, item in self._items:
            if (plural, item["metadata"]["name"]) == (resource.full_name, name):
                return item
        raise KubeError(attempt, "not found", "make it", 404)

    def list_objects(self, attempt: str, resource: Any, namespace: Any = None, **narrow: Any) -> Listing:
        self.asked.append(f"{resource.full_name} in {namespace} {narrow.get('fields') or ''}".strip())
        self._check(attempt, resource)
        return Listing(tuple(item for plural, item in self._items if plural == resource.full_name), "1")


def thing(kind: str, name: str, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "creationTimestamp": MADE}
    return {"kind": kind, "apiVersion": "v1", "metadata": metadata, **more}


def explain(answers: Answers) -> Explain:
    return Explain(answers, now=lambda: NOW)  # type: ignore[arg-type]


def event(about: str, said: str) -> dict[str, Any]:
    found = {"type": "Warning", "reason": "Failed", "message": said, "involvedObject": {"uid": f"uid-{about}"}}
    return {"metadata": {"name": said}, "lastTimestamp": MADE, **found}


def test_a_snapshot_is_explained_by_its_events_and_the_content_that_it_would_have():
    answers = Answers(("events", event("one", "no such claim")), ("events", event("two", "another")))
    assert explain(answers).why([thing("VolumeSnapshot", "one")]) == {"uid-one": ["event Failed: no such claim"]}
    assert answers.asked == [
        "events in shop involvedObject.uid=uid-one",
        "volumesnapshotcontents.snapshot.storage.k8s.io/snapcontent-uid-one",
    ]


def test_the_events_of_many_objects_are_listed_once_and_only_some_are_looked_at_more_closely():
    answers = Answers(*(("events", event(f"s{number}", f"fault {number}")) for number in range(20)))
    found = explain(answers).why([thing("VolumeSnapshot", f"s{number}") for number in range(20)])
    assert found["uid-s19"] == ["event Failed: fault 19"]
    assert sum(each.startswith("events") for each in answers.asked) == 1
    assert len(answers.asked) <= 6


def test_events_are_read_in_whichever_group_may_be_listed():
    new = {**event("one", ""), "note": "from the new group", "regarding": {"uid": "uid-one"}}
    new.pop("involvedObject")
    answers = Answers(("events.events.k8s.io", new), refused={"events": 403})
    assert explain(answers).events(thing("VolumeSnapshot", "one")) == ["event Failed: from the new group"]
    assert answers.asked[-1] == "events.events.k8s.io in shop regarding.uid=uid-one"


def test_events_of_what_is_in_no_namespace_are_looked_for_in_the_default_one():
    volume = thing("PersistentVolume", "pv")
    volume["metadata"].pop("namespace")
    answers = Answers()
    assert explain(answers).why([volume]) == {"uid-pv": []}
    assert answers.asked == ["events in default involvedObject.uid=uid-pv"]


@pytest.mark.parametrize("status", [403, 404, 500, 0])
@pytest.mark.parametrize("leaving", [False, True])
@pytest.mark.parametrize("kind", ["VolumeSnapshot", "VolumeGroupSnapshot", "PersistentVolumeClaim", "Other"])
def test_whatever_is_refused_is_left_out_and_nothing_is_raised(kind, leaving, status):
    found = thing(kind, "one", status={"boundVolumeGroupSnapshotContentName": "c"}, spec={"storageClassName": "fast"})
    if leaving:
        found["metadata"].update(deletionTimestamp=MADE, finalizers=["kubernetes.io/pvc-protection"])
    answers = Answers(refused={"*": status} if status else {"none": 1})
    told = explain(answers).why([found])["uid-one"]
    assert len(told) <= 1
    assert all(("pvc-protection" in each) == leaving for each in told)


def test_a_claim_that_cannot_go_names_the_pods_and_the_snapshots_that_keep_it():
    pod = thing("Pod", "web-1", spec={"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}], "nodeName": "n"})
    pod["status"] = {"phase": "Succeeded"}
    taking = thing("VolumeSnapshot", "now", spec={"source": {"persistentVolumeClaimName": "data"}})
    answers = Answers(("pods", pod), ("volumesnapshots.snapshot.storage.k8s.io", taking))
    claim = thing("PersistentVolumeClaim", "data")
    protections = ["kubernetes.io/pvc-protection", "snapshot.storage.kubernetes.io/pvc-as-source-protection"]
    claim["metadata"].update(deletionTimestamp=MADE, finalizers=protections)
    told = explain(answers).why([claim])["uid-data"]
    assert "pod web-1 on node n has finished (Succeeded); stop or delete what uses it" in told[0]
    assert "snapshot now of it is being taken" in told[1]


def test_a_snapshot_that_cannot_go_names_the_claims_that_are_being_made_from_it():
    source = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "one"}
    making = thing("PersistentVolumeClaim", "copy", spec={"dataSource": source}, status={"phase": "Pending"})
    made = thing("PersistentVolumeClaim", "old", spec={"dataSource": source}, status={"phase": "Bound"})
    answers = Answers(("persistentvolumeclaims", making), ("persistentvolumeclaims", made))
    leaving = thing("VolumeSnapshot", "one")
    finalizer = "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection"
    leaving["metadata"].update(deletionTimestamp=MADE, finalizers=[finalizer])
    told = explain(answers).why([leaving])["uid-one"]
    assert told == [f"{finalizer} holds it: claim copy is being made from it; wait until that is bound, or remove it"]


def test_what_is_said_of_the_content_is_said_of_its_snapshot():
    content = thing("VolumeSnapshotContent", "snapcontent-uid-one", spec={"driver": "d"})
    answers = Answers(
        ("volumesnapshotcontents.snapshot.storage.k8s.io", content),
        ("events", event("snapcontent-uid-one", "the array is busy")),
    )
    leaving = thing("VolumeSnapshot", "one")
    leaving["metadata"].update(deletionTimestamp=MADE, finalizers=["x.example.com/keep"])
    assert explain(answers).why([leaving])["uid-one"][1:] == ["event Failed: the array is busy"]


def test_a_snapshot_of_a_claim_that_is_not_there_says_so():
    taken = thing("VolumeSnapshot", "one", spec={"source": {"persistentVolumeClaimName": "none"}})
    told = explain(Answers()).why([taken])["uid-one"]
    assert told[0] == "there is no claim none in its namespace, of which it is taken"
