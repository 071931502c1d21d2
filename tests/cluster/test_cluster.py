# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cluster itself: it behaves as Kubernetes does, and its helpers and faults do what they say."""

from __future__ import annotations

import os
import subprocess
import threading
import time

import pytest

from ansible_collections.restorepoint.core.tests.cluster.lab import (
    CORE,
    NODE,
    PARTS,
    READ,
    SNAPSHOTS,
    WRITE,
    Api,
    ApiError,
    Cluster,
    ClusterFailed,
    Failed,
    contents,
    guarded,
    outside,
    packed,
    unpacked,
)

CONFIG_MAPS = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "create"]}]


def through(cluster, proxy):
    """Return the administrator's client that goes through a proxy."""
    return Api(proxy.address, None, cluster.api.token, tls=cluster.trust)


# What Kubernetes does


def test_a_claim_is_bound_to_a_volume_whose_files_lie_on_disk(cluster, namespace):
    cluster.claim(namespace, "data", {"a": "one", "sub/b": "two"})
    assert cluster.read(namespace, "data") == {"a": "one", "sub/b": "two"}
    assert cluster.volume(namespace, "data")["spec"]["claimRef"]["name"] == "data"


def test_a_claim_made_from_a_snapshot_has_the_bytes_of_that_time(cluster, namespace):
    cluster.claim(namespace, "data", {"a": b"\x00\xff old"})
    before = cluster.read(namespace, "data")
    assert cluster.snapshot(namespace, "data", "snap")["status"]["restoreSize"] == "1Mi"
    cluster.write(namespace, "data", {"a": "new", "b": "later"})
    cluster.claim(namespace, "copy", snapshot="snap")
    assert cluster.read(namespace, "copy") == before
    assert cluster.read(namespace, "data") == {"a": "new", "b": "later"}


def test_a_group_snapshot_has_a_snapshot_of_each_claim_that_its_labels_select(cluster, namespace):
    for name in ("one", "two"):
        cluster.claim(namespace, name, {"name": name}, labels={"app": "shop"})
    cluster.claim(namespace, "other")
    cluster.group_snapshot(namespace, "both", {"app": "shop"})
    members = cluster.api.items(cluster.snapshot_path(namespace))
    assert len(members) == 2
    for place, member in enumerate(members):
        cluster.ready(cluster.snapshot_path(namespace, member["metadata"]["name"]))
        cluster.claim(namespace, f"copy-{place}", snapshot=member["metadata"]["name"])
    assert sorted(cluster.read(namespace, f"copy-{place}")["name"] for place in (0, 1)) == ["one", "two"]


@pytest.mark.parametrize(("policy", "stays"), [("folders", False), ("folders-retain", True)])
def test_a_snapshot_leaves_its_content_behind_only_where_the_class_says_retain(cluster, namespace, policy, stays):
    cluster.claim(namespace, "data", {"a": "one"})
    made = cluster.snapshot(namespace, "data", "snap", snapshot_class=policy)
    content = f"{SNAPSHOTS}/volumesnapshotcontents/{made['status']['boundVolumeSnapshotContentName']}"
    handle = cluster.api.get(content)["status"]["snapshotHandle"]
    cluster.api.delete(cluster.snapshot_path(namespace, "snap"))
    cluster.api.gone(cluster.snapshot_path(namespace, "snap"))
    if stays:
        assert contents(cluster.own.data / "snapshots" / handle) == {"a": "one"}
        assert cluster.api.get(content)["spec"]["deletionPolicy"] == "Retain"
        cluster.api.patch(content, {"spec": {"deletionPolicy": "Delete"}})
        cluster.api.delete(content)
    cluster.api.gone(content)
    assert not (cluster.own.data / "snapshots" / handle).exists()


def test_a_claim_smaller_than_the_snapshot_stays_pending_and_an_event_says_why(cluster, namespace):
    cluster.claim(namespace, "data", size="2Mi")
    cluster.snapshot(namespace, "data", "snap")
    cluster.claim(namespace, "small", size="1Mi", snapshot="snap", wait=False)
    selector = "involvedObject.name=small,reason=ProvisioningFailed"
    events = f"{CORE}/namespaces/{namespace}/events"
    found = cluster.until(lambda: cluster.api.items(events, fieldSelector=selector), "the event")
    assert "is less than the size" in found[0]["message"]
    assert cluster.api.get(cluster.claim_path(namespace, "small"))["status"]["phase"] == "Pending"


def test_a_late_claim_is_bound_once_a_pod_wants_it(cluster, namespace):
    cluster.claim(namespace, "late", storage_class="folders-late", wait=False)
    pod = cluster.pod(namespace, "main", "late")
    time.sleep(1)
    assert cluster.api.get(cluster.claim_path(namespace, "late"))["status"]["phase"] == "Pending"
    with cluster.node(namespace):
        cluster.bound(namespace, "late")
        cluster.api.wait(pod, lambda found: found and found["status"]["phase"] == "Running")


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_the_pods_of_a_workload_run_and_hold_their_claim(cluster, namespace, kind):
    cluster.claim(namespace, "data")
    with cluster.node(namespace):
        path = cluster.deployment(namespace, "web", "data", kind=kind)
        count = "numberReady" if kind == "DaemonSet" else "readyReplicas"
        cluster.api.wait(path, lambda found: found and found["status"].get(count) == 1)
        cluster.api.delete(cluster.claim_path(namespace, "data"))
        time.sleep(1)
        held = cluster.api.get(cluster.claim_path(namespace, "data"))
        assert held["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
        cluster.api.delete(path, propagationPolicy="Background")
        cluster.api.gone(cluster.claim_path(namespace, "data"))


def test_what_a_pod_of_another_cluster_writes_it_reads_back(tmp_path):
    files: dict[str, str | bytes] = {"a": b"\x00\xff\n", "sub/b": "two"}
    for script, payload in ((WRITE, packed(files)), (READ, "")):
        settings = {**os.environ, "PAYLOAD": payload, "FOLDER": str(tmp_path)}
        done = subprocess.run(["sh", "-ec", script], env=settings, capture_output=True, text=True, check=True)
    assert unpacked(done.stdout) == contents(tmp_path) == {"a": "\x00\\xff\n", "sub/b": "two"}


def test_a_cluster_that_only_a_kubeconfig_names_serves_the_modules(cluster, monkeypatch):
    monkeypatch.setenv("LAB_VOLUMES", str(cluster.own.data / "volumes"))
    lab = outside(str(cluster.kubeconfig))
    namespace = lab.make_namespace()
    try:
        with pytest.raises(pytest.skip.Exception, match="control plane of the lab's own"):
            assert lab.own
        lab.claim(namespace, "data", {"a": "old"})
        user = lab.user(namespace, [{"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["list"]}])
        with pytest.raises(Failed, match="this login may not"):
            lab.call("csi_snapshot", namespace=namespace, pvc=["data"], name="one", kubeconfig=user.kubeconfig)
        lab.call("csi_snapshot", namespace=namespace, pvc=["data"], name="one")
        lab.write(namespace, "data", {"a": "new"})
        lab.call("csi_snapshot", namespace=namespace, pvc=["data"], name="one", state="rolled_back")
        assert lab.read(namespace, "data") == {"a": "old"}
    finally:
        lab.remove_namespace(namespace)
        lab.close()


def test_a_user_may_do_what_his_rules_say_and_nothing_else(cluster, namespace):
    user = cluster.user(namespace, CONFIG_MAPS)
    maps = f"{CORE}/namespaces/{namespace}/configmaps"
    user.api.create(maps, {"metadata": {"name": "mine"}})
    with pytest.raises(ApiError) as refused:
        user.api.delete(f"{maps}/mine")
    assert refused.value.status == 403
    assert user.may("get", "", "configmaps", namespace)
    assert not user.may("get", "", "configmaps", "kube-system")


def test_a_user_who_was_removed_is_a_stranger(cluster, namespace):
    user = cluster.user(namespace, CONFIG_MAPS)
    user.revoke()
    with pytest.raises(ApiError) as refused:
        user.api.get(f"{CORE}/namespaces/{namespace}/configmaps")
    assert refused.value.status == 401


# Modules


def test_a_module_finds_the_volume_of_a_claim_on_the_real_server(cluster, namespace):
    cluster.claim(namespace, "data", storage_class="folders")
    with pytest.raises(Failed, match=r"served by the CSI driver .*; use csi_snapshot"):
        cluster.call("hostpath_snapshot_info", pvc="data", namespace=namespace, store="/nonexistent")


def test_a_module_is_killed_at_the_request_that_was_named_or_ends_by_itself(cluster, namespace, proxy):
    options = {"pvc": "none", "namespace": namespace, "store": "/nonexistent", "verb": "GET"}
    assert cluster.dies(proxy, "hostpath_snapshot_info", at=1, after=False, **options)
    with pytest.raises(Failed, match="there is no such claim"):
        cluster.dies(proxy, "hostpath_snapshot_info", at=99, after=False, **options)


# The proxy


def test_the_proxy_passes_on_and_counts(cluster, namespace, proxy):
    api, maps = through(cluster, proxy), f"{CORE}/namespaces/{namespace}/configmaps"
    api.create(maps, {"metadata": {"name": "one"}})
    assert api.get(f"{maps}/one", fieldManager="x")["metadata"]["name"] == "one"
    api.delete(f"{maps}/one")
    assert [proxy.count(verb, "configmaps") for verb in ("POST", "GET", "DELETE", "PATCH")] == [1, 1, 1, 0]
    assert proxy.count(path=f"{maps}/one$") == 2
    assert proxy.requests("GET")[0].query == {"fieldManager": ["x"]}


def test_the_proxy_answers_by_itself_as_often_as_it_is_told(cluster, namespace, proxy):
    api, maps = through(cluster, proxy), f"{CORE}/namespaces/{namespace}/configmaps"
    told = proxy.tell("answer", verb="POST", path="configmaps$", skip=1, times=2, status=429, retry_after=3)
    api.create(maps, {"metadata": {"name": "one"}})
    for _time in range(2):
        status, headers, _body = api.raw("POST", maps, {"metadata": {"name": "two"}})
        assert (status, headers["Retry-After"]) == (429, "3")
    assert told.done == 2
    assert cluster.api.find(f"{maps}/two") is None
    api.create(maps, {"metadata": {"name": "two"}})


@pytest.mark.parametrize(("action", "made"), [("cut_before", False), ("cut_after", True)])
def test_the_proxy_cuts_the_connection_before_or_after_the_request_counts(cluster, namespace, proxy, action, made):
    api, maps = through(cluster, proxy), f"{CORE}/namespaces/{namespace}/configmaps"
    proxy.tell(action, verb="POST", path="configmaps$")
    with pytest.raises(ConnectionError):
        api.create(maps, {"metadata": {"name": "one"}})
    assert (cluster.api.find(f"{maps}/one") is not None) == made
    assert proxy.requests("POST")[0].status == 0
    assert api.items(maps) is not None


def test_the_proxy_delays_and_calls_back(cluster, namespace, proxy):
    api, maps, seen = through(cluster, proxy), f"{CORE}/namespaces/{namespace}/configmaps", []
    proxy.tell("delay", verb="POST", seconds=0.5)
    proxy.tell("call", verb="POST", function=lambda: seen.append(cluster.api.find(f"{maps}/one")))
    proxy.tell("call", verb="POST", after=True, function=lambda: seen.append(cluster.api.find(f"{maps}/one")))
    started = time.monotonic()
    api.create(maps, {"metadata": {"name": "one"}})
    assert time.monotonic() - started >= 0.5
    assert [bool(each) for each in seen] == [False, True]


def test_a_watch_goes_through_the_proxy_event_by_event_until_it_is_closed(cluster, namespace, proxy):
    api, maps = through(cluster, proxy), f"{CORE}/namespaces/{namespace}/configmaps"
    version = api.get(maps)["metadata"]["resourceVersion"]
    events = api.watch(maps, version)
    for name in ("one", "two"):
        cluster.api.create(maps, {"metadata": {"name": name}})
        event = next(each for each in events if each["object"]["metadata"]["name"] == name)
        assert event["type"] == "ADDED"
    threading.Timer(0.3, proxy.close_watches).start()
    assert list(events) == []
    assert proxy.count("WATCH", "configmaps") == 1


def test_the_proxy_ends_a_watch_after_so_many_events(cluster, namespace, proxy):
    api, maps = through(cluster, proxy), f"{CORE}/namespaces/{namespace}/configmaps"
    version = api.get(maps)["metadata"]["resourceVersion"]
    for name in ("one", "two", "three"):
        cluster.api.create(maps, {"metadata": {"name": name}})
    proxy.tell("close", verb="WATCH", events=2)
    assert [each["object"]["metadata"]["name"] for each in api.watch(maps, version)] == ["one", "two"]


def test_the_proxy_ends_a_watch_after_so_many_seconds(cluster, namespace, proxy):
    api, maps = through(cluster, proxy), f"{CORE}/namespaces/{namespace}/configmaps"
    version = api.get(maps)["metadata"]["resourceVersion"]
    proxy.tell("close", verb="WATCH", seconds=0.5)
    started = time.monotonic()
    assert list(api.watch(maps, version)) == []
    assert 0.4 < time.monotonic() - started < 300  # by itself it lasts twice as long


# Its life


def test_a_cluster_goes_when_the_run_that_started_it_was_killed():
    own = Cluster(f"guarded-{os.getpid()}")
    run = subprocess.Popen(["sleep", "600"])
    try:
        own.start(fresh=True)
        guarded(own.name, run.pid)
        time.sleep(1.5)
        assert own.is_running()
        run.kill()
        run.wait()
        deadline = time.monotonic() + 300
        while own.folder.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not own.folder.exists()
        assert [part for part in PARTS if own.pid(part)] == []
    finally:
        run.kill()
        run.wait()
        own.remove()


def test_clusters_of_two_names_run_side_by_side(cluster, fragile):
    mine, other = cluster.own.cluster, fragile.own.cluster
    assert not set(mine.ports.values()) & set(other.ports.values())
    name = cluster.make_namespace()
    try:
        assert fragile.api.find(f"{CORE}/namespaces/{name}") is None
    finally:
        cluster.remove_namespace(name)


def test_a_cluster_whose_part_does_not_start_names_the_log(fragile):
    own = fragile.own.cluster
    own.stop_part("csi-provisioner")
    kept = own.kubeconfig.read_text()
    own.kubeconfig.write_text("no kubeconfig")
    try:
        own.start_part("csi-provisioner")
        with pytest.raises(ClusterFailed, match=r"csi-provisioner ended. The end of .*/csi-provisioner.log:\n"):
            own.wait_for("csi-provisioner", lambda: False)
    finally:
        own.kubeconfig.write_text(kept)
        own.start_part("csi-provisioner")


# Its parts


def test_what_was_asked_while_a_controller_was_down_is_done_when_it_is_back(fragile, fragile_namespace):
    fragile.claim(fragile_namespace, "data", {"a": "one"})
    with fragile.own.without("snapshot-controller"):
        fragile.snapshot(fragile_namespace, "data", "snap", wait=False)
        time.sleep(1)
        assert "status" not in fragile.api.get(fragile.snapshot_path(fragile_namespace, "snap"))
    fragile.ready(fragile.snapshot_path(fragile_namespace, "snap"))


def test_the_api_server_comes_back_with_all_objects_after_it_was_killed(fragile, fragile_namespace):
    fragile.claim(fragile_namespace, "data", {"a": "one"})
    fragile.own.stop("kube-apiserver")
    with pytest.raises(OSError, match=r"[Rr]efused|[Rr]eset|closed"):
        fragile.api.get(f"{CORE}/namespaces")
    fragile.own.start("kube-apiserver")
    assert fragile.read(fragile_namespace, "data") == {"a": "one"}
    fragile.snapshot(fragile_namespace, "data", "snap")


def test_a_fault_of_the_driver_stands_in_the_snapshots_error_until_it_is_gone(fragile, fragile_namespace):
    fragile.claim(fragile_namespace, "data")
    path = fragile.snapshot_path(fragile_namespace, "snap")
    handle = fragile.volume(fragile_namespace, "data")["spec"]["csi"]["volumeHandle"]
    with fragile.own.driver_fault("CreateSnapshot", match=handle, code="exhausted", message="the pool is full"):
        fragile.snapshot(fragile_namespace, "data", "snap", wait=False)
        found = fragile.api.wait(path, lambda each: each and each.get("status", {}).get("error"))
        assert "the pool is full" in found["status"]["error"]["message"]
        assert found["status"]["readyToUse"] is False
    fragile.ready(path)


def test_a_snapshot_that_the_driver_has_not_finished_is_not_ready(fragile, fragile_namespace):
    fragile.claim(fragile_namespace, "data")
    path = fragile.snapshot_path(fragile_namespace, "snap")
    with fragile.own.driver_fault("CreateSnapshot", unready=True):
        fragile.snapshot(fragile_namespace, "data", "snap", wait=False)
        found = fragile.api.wait(path, lambda each: each and each.get("status", {}).get("restoreSize"))
        assert found["status"]["readyToUse"] is False
    fragile.ready(path)


def test_a_cluster_that_is_stopped_and_started_has_what_it_had(fragile, fragile_namespace):
    fragile.claim(fragile_namespace, "data", {"a": "one"})
    fragile.own.cluster.stop()
    assert not fragile.own.cluster.is_running()
    fragile.own.cluster.start()
    assert fragile.own.cluster.is_running()
    fragile.refresh()
    assert fragile.read(fragile_namespace, "data") == {"a": "one"}
    assert fragile.api.get(f"{CORE}/nodes/{NODE}")
