# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The door to Kubernetes: creating, changing, removing and watching, against a real HTTPS server on loopback.

With both ways to a server: the kubernetes package, and the standard library alone.
"""

from __future__ import annotations

import json
import threading
import time

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils import kube
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.watching import Waiter
from ansible_collections.restorepoint.core.plugins.module_utils.deadline import Deadline
from ansible_collections.restorepoint.core.plugins.module_utils.kube_login import (
    KubeError,
    log_in_alone,
    log_in_with_package,
)
from ansible_collections.restorepoint.core.plugins.module_utils.kube_resources import (
    CLAIMS,
    GROUP_SNAPSHOT_GROUP,
    PODS,
    SNAPSHOT_GROUP,
    SNAPSHOTS,
    VOLUMES,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_cluster import FakeCluster
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_kube import TOKEN


@pytest.fixture
def server(certificate):
    with FakeCluster(certificate) as fake:
        yield fake


@pytest.fixture(params=["kubernetes package", "standard library"])
def client(request, server, tmp_path):
    if request.param == "kubernetes package":
        options = {"host": server.url, "api_key": TOKEN, "ca_cert": str(server.certificate)}
        return kube.KubeClient(options, timeout=30.0, sleep=lambda seconds: None, log_in=log_in_with_package)
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(server.kubeconfig()))
    return kube.KubeClient({"kubeconfig": str(path)}, timeout=30.0, sleep=lambda seconds: None, log_in=log_in_alone)


def snapshot(name="one", run="r1", **spec):
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name, "namespace": "shop", "annotations": {kube.RUN: run}, "labels": {"app": "shop"}},
        "spec": spec or {"source": {"persistentVolumeClaimName": "data"}},
    }


def make(client, **given):
    return client.create("make it", SNAPSHOTS, "shop", snapshot(**given))


def test_what_is_created_can_be_read_listed_changed_and_removed(server, client):
    made = make(client)
    assert client.get("read it", SNAPSHOTS, "shop", "one") == made
    assert client.list_objects("list them", SNAPSHOTS, "shop", selector="app=shop").items == (made,)
    assert client.list_objects("list them", SNAPSHOTS, "shop", selector="app=x").items == ()
    body = {"metadata": {"labels": {"app": None, "tier": "db"}, "resourceVersion": made["metadata"]["resourceVersion"]}}
    changed = client.patch("change it", SNAPSHOTS, "shop", "one", body)
    assert changed["metadata"]["labels"] == {"tier": "db"}
    assert client.delete("remove it", SNAPSHOTS, "shop", "one", made["metadata"]["uid"]) is not None
    assert server.all("volumesnapshots") == []
    assert client.requests == len(server.requests)


def test_a_patch_of_an_old_version_is_a_conflict_and_changes_nothing(server, client):
    made = make(client)
    client.patch("change it", SNAPSHOTS, "shop", "one", {"metadata": {"labels": {"a": "1"}}})
    body = {"metadata": {"labels": {"a": "2"}, "resourceVersion": made["metadata"]["resourceVersion"]}}
    with pytest.raises(KubeError) as caught:
        client.patch("change it", SNAPSHOTS, "shop", "one", body)
    assert (caught.value.status, caught.value.word) == (409, "Conflict")
    assert server.find("volumesnapshots", "one")["metadata"]["labels"]["a"] == "1"


def test_another_object_of_the_same_name_is_not_removed(server, client):
    make(client)
    assert client.delete("remove it", SNAPSHOTS, "shop", "one", "uid-of-another") is None
    assert client.delete("remove it", SNAPSHOTS, "shop", "two", "uid-of-another") is None
    assert len(server.all("volumesnapshots")) == 1


def test_a_create_whose_answer_was_lost_counts_once(server, client):
    server.lose = 1
    made = make(client)
    assert made["metadata"]["name"] == "one"
    assert [each.method for each in server.requests] == ["POST", "POST", "GET"]


def test_a_strangers_object_is_not_taken_for_ones_own(server, client):
    make(client, run="theirs")
    server.faults = [(500, {})]
    with pytest.raises(KubeError) as caught:
        make(client, run="ours")
    assert caught.value.word == "AlreadyExists"


def test_an_object_that_was_there_before_is_an_error_even_of_the_same_run(client):
    make(client)
    with pytest.raises(KubeError, match="already exists"):
        make(client)


def test_a_patch_whose_answer_was_lost_counts(server, client):
    made = make(client)
    server.lose = 1
    body = {"metadata": {"labels": {"a": "1"}, "resourceVersion": made["metadata"]["resourceVersion"]}}
    assert client.patch("change it", SNAPSHOTS, "shop", "one", body)["metadata"]["labels"]["a"] == "1"


def test_a_removal_whose_answer_was_lost_counts(server, client):
    made = make(client)
    server.lose = 1
    assert client.delete("remove it", SNAPSHOTS, "shop", "one", made["metadata"]["uid"]) is None
    assert server.all("volumesnapshots") == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_writes_are_repeated_when_the_server_is_busy(server, client, status):
    server.faults = [(status, {})] * 2
    assert make(client)["metadata"]["name"] == "one"
    assert len(server.all("volumesnapshots")) == 1


def test_patience_decides_how_long_a_broken_server_is_asked(server):
    options = {"host": server.url, "api_key": TOKEN, "ca_cert": str(server.certificate)}
    pauses: list[float] = []
    patient = kube.KubeClient(options, timeout=30.0, sleep=pauses.append, patience=11.0)
    server.faults = [(503, {})] * 99
    with pytest.raises(KubeError) as caught:
        make(patient)
    assert caught.value.transient
    assert 11.0 <= sum(pauses) < 14.0


def test_versions_of_a_group_are_those_the_server_has(server, client):
    server.groups[GROUP_SNAPSHOT_GROUP] = ("v1beta2", "v1beta1")
    assert client.serves(GROUP_SNAPSHOT_GROUP) == ("v1beta2", "v1beta1")
    del server.groups[SNAPSHOT_GROUP]
    assert client.serves(SNAPSHOT_GROUP) == ()


def test_what_is_not_allowed_is_found_before_it_is_tried(server, client):
    server.forbidden = {("delete", "volumesnapshots"), ("get", "pods/log")}
    wanted = [
        kube.Access("create", SNAPSHOTS, "shop"),
        kube.Access("delete", SNAPSHOTS, "shop"),
        kube.Access("get", PODS, "shop"),
        kube.Access("get", PODS, "shop", subresource="log"),
        kube.Access("list", VOLUMES),
    ]
    denied = client.denied(wanted)
    assert [str(each) for each in denied] == [
        "delete on volumesnapshots.snapshot.storage.k8s.io in namespace shop",
        "get on pods/log in namespace shop",
    ]


# Watching


def wait(server, wanted, seconds=30.0, **more):
    options = {"host": server.url, "api_key": TOKEN, "ca_cert": str(server.certificate)}
    client = kube.KubeClient(options, timeout=30.0, sleep=lambda seconds: None)
    return Waiter(client, Deadline(seconds), lambda seconds: None).wait("wait", SNAPSHOTS, "shop", wanted, **more)


def ready(item):
    return item is not None and item.get("status", {}).get("readyToUse") is True


def later(server, name, after=0.1, **status):
    timer = threading.Timer(after, lambda: server.change(server.find("volumesnapshots", name), {"status": status}))
    timer.start()
    return timer


def test_a_hundred_objects_are_waited_for_with_one_list_and_one_watch(server, client):
    names = [f"s{number}" for number in range(100)]
    for name in names:
        make(client, name=name)
    before = len(server.requests)

    def work():
        while not any(each.query.get("watch") for each in server.requests[before:]):
            time.sleep(0.01)
        for name in names:
            server.change(server.find("volumesnapshots", name), {"status": {"readyToUse": True}})

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    found = wait(server, dict.fromkeys(names, ready))
    assert found.waiting == ()
    assert [name for name, each in found.objects.items() if ready(each)] == names
    assert len(server.requests) - before == 2
    worker.join()


def test_a_wait_ends_at_its_deadline_and_says_what_was_seen(server, client):
    make(client, name="a")
    make(client, name="b")
    later(server, "a", 0.05, readyToUse=True).join()
    found = wait(server, {"a": ready, "b": ready, "c": ready}, seconds=1.0)
    assert found.waiting == ("b", "c")
    assert found.objects["c"] is None
    assert ready(found.objects["a"])


def test_what_was_ready_and_is_so_no_longer_is_waited_for(server, client):
    make(client, name="a")
    make(client, name="b")
    later(server, "a", 0.0, readyToUse=True).join()

    def change():  # one after the other, also where the machine comes late to both
        for name, is_ready in (("a", False), ("b", True)):
            server.change(server.find("volumesnapshots", name), {"status": {"readyToUse": is_ready}})

    timer = threading.Timer(0.1, change)
    timer.start()
    assert wait(server, {"a": ready, "b": ready}, seconds=3.0).waiting == ("a",)
    timer.join()


def test_an_object_that_goes_is_seen_to_go(server, client):
    make(client, name="a")
    timer = threading.Timer(0.1, lambda: server.remove(server.find("volumesnapshots", "a")))
    timer.start()
    assert wait(server, {"a": lambda item: item is None}).waiting == ()
    timer.join()


@pytest.mark.parametrize("way", ["cut", "forgotten", "busy"])
def test_a_watch_that_ends_is_taken_up_again(server, client, way):
    make(client, name="a")
    server.cut_watches = 3 if way == "cut" else 0
    if way == "forgotten":
        threading.Timer(0.05, server.forget).start()
    if way == "busy":
        server.faults = [(429, {}), (500, {}), (503, {})]
    timer = later(server, "a", 0.3, readyToUse=True)
    assert wait(server, {"a": ready}).waiting == ()
    timer.join()


def test_a_watch_that_is_forbidden_is_said(server, client):
    make(client, name="a")
    server.forbidden.add(("watch", "volumesnapshots"))
    with pytest.raises(KubeError, match=r"allow watch on volumesnapshots.snapshot.storage.k8s.io in namespace shop"):
        wait(server, {"a": ready})


def test_a_kind_that_the_server_does_not_have_is_said(server):
    del server.groups[SNAPSHOT_GROUP]
    with pytest.raises(KubeError) as caught:
        wait(server, {"a": ready})
    assert caught.value.status == 404


def test_a_server_that_never_comes_back_ends_the_wait_with_its_last_words(server):
    server.faults = [(503, {})] * 9999
    with pytest.raises(KubeError, match="answered 503"):
        wait(server, {"a": ready}, seconds=0.3)


def test_waiting_for_nothing_asks_nobody(server):
    assert wait(server, {}).waiting == ()
    assert server.requests == []


def test_a_patch_that_is_merged_already_is_known():
    found = {"metadata": {"labels": {"a": "1"}}, "spec": {"x": 1}}
    assert kube.merged_already(found, {"metadata": {"labels": {"a": "1", "b": None}}})
    assert not kube.merged_already(found, {"metadata": {"labels": {"a": "2"}}})
    assert not kube.merged_already(found, {"spec": {"y": {"z": 1}}})
    assert CLAIMS.path("shop", "data") == "/api/v1/namespaces/shop/persistentvolumeclaims/data"
