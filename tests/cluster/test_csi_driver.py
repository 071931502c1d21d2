# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""csi_driver_layout and csi_class_test on a real control plane: from a cluster without the driver to restored data."""

from __future__ import annotations

import contextlib
import hashlib
import signal
from typing import Any

import pytest
import yaml

from ansible_collections.restorepoint.core.tests.cluster.lab import CORE, RBAC, SNAPSHOTS, Failed, contents
from ansible_collections.restorepoint.core.tests.cluster.node import NODE
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.setup import csi_driver_release

STORAGE = "/apis/storage.k8s.io/v1"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DRIVER = "folders.restorepoint.test"
MICROK8S = "/var/snap/microk8s/common/var/lib/kubelet"
OLD, NEW = {"a": "as it was", "deep/b": "two"}, {"a": "damaged"}


class Place:
    """A namespace for a driver's pods, its manifests as a file, and a node on which its pods run and register."""

    def __init__(self, lab, namespace, folder):
        self.lab, self.namespace, self.path = lab, namespace, folder / "driver.yaml"
        self.documents = csi_driver_release.documents(DRIVER, namespace)
        self.write()

    def write(self):
        self.path.write_text(yaml.safe_dump_all(self.documents))

    def asked(self, **more):
        return {"driver": DRIVER, "manifests": [{"source": str(self.path)}], "wait_timeout": 120, **more}

    def get(self, kind):
        return self.lab.api.get(f"/apis/apps/v1/namespaces/{self.namespace}/{kind}s/made-{kind}")

    @contextlib.contextmanager
    def registered(self):
        """Let kubelet know the driver, as the registrar in its pod would bring about."""
        node = {"name": DRIVER, "nodeID": NODE, "topologyKeys": []}
        self.lab.api.create(f"{STORAGE}/csinodes", {"metadata": {"name": NODE}, "spec": {"drivers": [node]}})
        try:
            yield
        finally:
            self.lab.api.delete(f"{STORAGE}/csinodes/{NODE}")
            self.lab.api.gone(f"{STORAGE}/csinodes/{NODE}")


@pytest.fixture
def place(fragile, fragile_namespace, tmp_path):
    """A cluster without the driver's object; its process goes on, as nothing looks at that object but ourselves."""
    fragile.api.delete(f"{STORAGE}/csidrivers/{DRIVER}")
    fragile.api.gone(f"{STORAGE}/csidrivers/{DRIVER}")
    yield Place(fragile, fragile_namespace, tmp_path)
    for path in (f"{RBAC}/clusterroles", f"{RBAC}/clusterrolebindings"):
        with contextlib.suppress(Exception):
            fragile.api.delete(f"{path}/made-{fragile_namespace}")
    for path in (f"{CRDS}/madevolumes.made.example.org", f"{STORAGE}/csidrivers/{DRIVER}"):
        if fragile.api.find(path):
            fragile.api.delete(path)
            fragile.api.gone(path)
    fragile.api.create(f"{STORAGE}/csidrivers", {"metadata": {"name": DRIVER}, "spec": {"attachRequired": False}})


def kinds(result):
    return [each["target"].partition(" ")[0] for each in result["changes"]]


TARGETS = [
    *("CustomResourceDefinition", "ServiceAccount", "ConfigMap", "ClusterRole", "ClusterRoleBinding"),
    *("CSIDriver", "Deployment", "DaemonSet"),
]


def test_a_driver_is_set_up_as_foretold_waited_for_and_then_restores_data_in_a_class_that_waits_for_pods(place):
    lab, namespace = place.lab, place.namespace
    asked = place.asked(kubelet_dir=MICROK8S, version="2.1.0")
    foretold = lab.call("csi_driver_layout", check_mode=True, diff=True, **asked)
    assert lab.api.find(f"{STORAGE}/csidrivers/{DRIVER}") is None
    with lab.node(namespace):
        done = lab.call("csi_driver_layout", diff=True, wait_nodes=False, **asked)
        assert (done["changes"], done["diff"]) == (foretold["changes"], foretold["diff"])
        assert (kinds(done), done["nodes"]) == (TARGETS, [])
        with pytest.raises(Failed, match=rf"no node knows it.*set up for {MICROK8S}; set kubelet_dir to"):
            lab.call("csi_driver_layout", **{**asked, "wait_timeout": 1})
    with lab.node(namespace), place.registered():
        again = lab.call("csi_driver_layout", **asked)
        assert (again["changed"], again["ours"], again["nodes"]) == (False, True, [NODE])
        pod = place.get("daemonset")["spec"]["template"]["spec"]
        assert [each["hostPath"]["path"] for each in pod["volumes"]] == [
            f"{MICROK8S}/plugins_registry/", f"{MICROK8S}/", "/home/keys",
        ]  # fmt: skip
        assert len(place.get("deployment")["spec"]["template"]["spec"]["containers"]) == 2
        # A newer release changes what it brings, and nothing else.
        for document in place.documents[:2]:
            document["spec"]["template"]["spec"]["containers"][1]["image"] = "registry.example.org/made-driver:2.2.0"
        place.write()
        newer = lab.call("csi_driver_layout", **{**asked, "version": "v2.2.0"})
        assert kinds(newer) == ["Deployment", "DaemonSet"]
        tested = prove(lab, namespace, "folders-late")
        assert (tested["driver"], tested["node"]) == (DRIVER, NODE)


def prove(lab, namespace, storage_class, **more):
    """Run the test of a class, with data in the claim, damaged after the snapshot; compare what the copy has."""
    seen: list[Any] = []
    base = f"restorepoint-test-{storage_class}"
    with lab.proxy() as proxy:
        writes, restores = "/volumesnapshots$", "/persistentvolumeclaims$"
        proxy.tell("call", verb="POST", path=writes, function=lambda: lab.write(namespace, base, OLD))
        proxy.tell("call", verb="POST", path=restores, skip=1, function=lambda: lab.write(namespace, base, NEW))
        removes = f"/persistentvolumeclaims/{base}-restored$"
        proxy.tell("call", verb="DELETE", path=removes, function=lambda: seen.extend(
            contents(lab.folder(namespace, each)) for each in (base, f"{base}-restored")))  # fmt: skip
        result = lab.call("csi_class_test", storage_class=storage_class, namespace=namespace, size="1Mi",
                          kubeconfig=lab.through(proxy), **more)  # fmt: skip
    assert seen == [{**OLD, **NEW}, OLD]
    assert [each["step"] for each in result["steps"]] == ["claim", "snapshot", "restore", "removal"]
    assert result["restored_bytes"] == 1 << 20
    assert left(lab, namespace) == ([], [], [])
    return result


def left(lab, namespace):
    """Return what there is of claims, their volumes, and snapshots."""
    volumes = [
        each["metadata"]["name"] for each in lab.api.items(f"{CORE}/persistentvolumes")
        if each["spec"].get("claimRef", {}).get("namespace") == namespace
    ]  # fmt: skip
    return (
        [each["metadata"]["name"] for each in lab.api.items(lab.claim_path(namespace))],
        volumes,
        lab.snapshots(namespace),
    )


def test_classes_that_retain_are_tested_and_nothing_is_left_of_it(fragile, fragile_namespace):
    before = set(contents(fragile.own.data))
    prove(fragile, fragile_namespace, "folders-retain", snapshot_class="folders-retain")
    contents_left = [each["metadata"]["name"] for each in fragile.api.items(f"{SNAPSHOTS}/volumesnapshotcontents")
                     if each["spec"]["volumeSnapshotRef"]["namespace"] == fragile_namespace]  # fmt: skip
    assert contents_left == []
    assert set(contents(fragile.own.data)) <= before


def test_a_driver_whose_pods_do_not_start_is_named_with_what_kubernetes_says(place):
    lab = place.lab
    quota = f"{CORE}/namespaces/{place.namespace}/resourcequotas"
    lab.api.create(
        quota, {"metadata": {"name": "none"}, "spec": {"hard": {"count/deployments.apps": "5", "pods": "0"}}}
    )
    lab.until(lambda: lab.api.get(f"{quota}/none").get("status", {}).get("hard"), "the quota counts")
    assert kinds(lab.call("csi_driver_layout", **place.asked(wait=False))) == TARGETS
    for kind in ("ReplicaSet", "DaemonSet"):
        lab.until(lambda kind=kind: failures(lab, place.namespace, kind), f"the {kind} gets no pods")
    # The event may come before the controller has counted.
    lab.until(lambda: place.get("daemonset")["status"].get("desiredNumberScheduled") == 1, "the DaemonSet counts")

    def is_told():
        conditions = place.get("deployment")["status"].get("conditions") or ()
        return any(each["type"] == "ReplicaFailure" for each in conditions)

    lab.until(is_told, "the Deployment is told")
    with pytest.raises(Failed) as raised:
        lab.call("csi_driver_layout", **place.asked(wait_timeout=1))
    said, where = str(raised.value), place.namespace
    assert f"Cannot wait 1 s for the driver {DRIVER}: Deployment {where}/made-deployment: 0 of 1 pods are ready" in said
    assert f"DaemonSet {where}/made-daemonset: 0 of 1 pods are ready" in said
    assert said.count("exceeded quota: none") >= 2
    assert f"see kubectl --namespace {where} describe pods, and run it again" in said


def failures(lab, namespace, kind):
    """Return the events that tell that a controller cannot make pods."""
    events = lab.api.items(f"{CORE}/namespaces/{namespace}/events")
    return [each for each in events if (each["reason"], each["involvedObject"]["kind"]) == ("FailedCreate", kind)]


def test_what_cannot_be_is_refused_before_anything_is_made(place):
    lab = place.lab
    refused: list[tuple[dict[str, Any], str]] = [
        ({"manifests": []}, "the cluster has no such driver"),
        ({"driver": "other.example.org"}, f"the manifests are those of {DRIVER}"),
        ({"version": "9.9.9"}, "none of their images is of release 9.9.9"),
        ({"manifests": [{"source": str(place.path), "sha256": "0" * 64}]}, "its SHA-256 sum is"),
        ({"kubelet_dir": "kubelet"}, "it is no absolute path"),
    ]
    for more, words in refused:
        with pytest.raises(Failed, match=words):
            lab.call("csi_driver_layout", **place.asked(**more))
    assert lab.api.find(f"{CRDS}/madevolumes.made.example.org") is None
    right = hashlib.sha256(place.path.read_bytes()).hexdigest()
    asked = place.asked(manifests=[{"source": str(place.path), "sha256": right}], wait=False)
    assert kinds(lab.call("csi_driver_layout", **asked)) == TARGETS
    # Another selector cannot be, and the server would say so halfway.
    place.documents[0]["spec"]["selector"]["matchLabels"]["more"] = "x"
    place.documents[0]["spec"]["template"]["metadata"]["labels"]["more"] = "x"
    place.documents[6]["data"]["run"] = "other"
    place.write()
    with pytest.raises(Failed, match=r"its spec\.selector would change"):
        lab.call("csi_driver_layout", **place.asked(wait=False))
    found = lab.api.get(f"{CORE}/namespaces/{place.namespace}/configmaps/made")
    assert found["data"]["run"] != "other"


def test_a_driver_that_somebody_else_set_up_is_left_alone(fragile, tmp_path):
    done = fragile.call("csi_driver_layout", driver=DRIVER, wait_nodes=False,
                        manifests=[{"source": "https://mirror.invalid/x.yaml", "sha256": "0" * 64}])  # fmt: skip
    assert (done["changed"], done["ours"], done["downloads"]) == (False, False, [])
    assert done["manager"]


def test_a_test_that_fails_says_why_and_leaves_nothing(fragile, fragile_namespace):
    where = {"storage_class": "folders", "namespace": fragile_namespace, "size": "1Mi"}
    with (
        fragile.own.driver_fault("CreateSnapshot", code="internal", message="the pool is full"),
        pytest.raises(Failed, match=r"take a snapshot of claim .* within 20 s.*the pool is full"),
    ):
        fragile.call("csi_class_test", timeout=20, **where)
    # The sidecar comes back to a creation that failed in its own time, and removes only then.
    fragile.until(lambda: left(fragile, fragile_namespace) == ([], [], []), "nothing is left", seconds=240)
    reasons = []
    for more in ({"storage_class": "none"}, {"storage_class": "folders-late"}, {"snapshot_class": "none"}):
        with pytest.raises(Failed) as raised:
            fragile.call("csi_class_test", **{**where, **more})
        reasons += raised.value.reasons
    assert reasons == [
        "the cluster has no such StorageClass",
        f"it makes volumes on a pod's node, and no node knows the driver {DRIVER}",
        f"the driver {DRIVER} has no VolumeSnapshotClass none; there are: folders, folders-retain",
    ]
    assert fragile.call("csi_class_test", check_mode=True, **where)["steps"] == []
    assert left(fragile, fragile_namespace) == ([], [], [])


def test_a_killed_test_is_cleaned_up_by_the_next_and_an_interrupted_one_by_itself(fragile, fragile_namespace):
    where = {"storage_class": "folders", "namespace": fragile_namespace, "size": "1Mi"}
    with fragile.proxy() as proxy:
        # Its third write makes the copy.
        assert fragile.dies(proxy, "csi_class_test", at=3, after=True, **where)
        assert left(fragile, fragile_namespace)[2]
        fragile.call("csi_class_test", **where)
        assert left(fragile, fragile_namespace) == ([], [], [])
        running: list[Any] = []
        proxy.tell("call", verb="POST", path="/volumesnapshots$", after=True,
                   function=lambda: running[0].send_signal(signal.SIGTERM))  # fmt: skip
        running.append(fragile.start("csi_class_test", kubeconfig=fragile.through(proxy), **where))
        with pytest.raises(Failed, match="the test was interrupted"):
            fragile.finished(running[0])
    assert left(fragile, fragile_namespace) == ([], [], [])
