# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""csi_layout on a real control plane: from a cluster without CRDs to snapshots that are taken and restored."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import pathlib
from typing import Any

import pytest
import yaml

from ansible_collections.restorepoint.core.tests.cluster.lab import (
    APPS,
    CHECKOUT,
    CORE,
    RBAC,
    SNAPSHOTS,
    Failed,
)

STORAGE = "/apis/storage.k8s.io/v1"
DRIVER = "folders.restorepoint.test"
pytestmark = pytest.mark.skipif(
    bool(os.environ.get("KUBECONFIG_LAB")), reason="needs the driver of the project's cluster"
)
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DEPLOYMENT = f"{APPS}/namespaces/kube-system/deployments/snapshot-controller"
IMAGE = "registry.example.org/sig-storage/snapshot-controller:v8.6.0"
CLASSES = {
    "storage_classes": [{"name": "made", "provisioner": DRIVER, "volume_binding_mode": "Immediate"}],
    "snapshot_classes": [{"name": "made", "driver": DRIVER}],
    "group_snapshot_classes": [{"name": "made", "driver": DRIVER}],
}
TARGETS = [
    *("CustomResourceDefinition",) * 6,
    *("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Deployment"),
    *("StorageClass", "VolumeSnapshotClass", "VolumeGroupSnapshotClass"),
]


def controller():
    """Return the objects of a snapshot controller with the rights that it needs to start."""
    name = {"name": "snapshot-controller"}
    labels = {"app.kubernetes.io/name": "snapshot-controller"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "snapshot-controller-test"}
    rules = [{"apiGroups": ["snapshot.storage.k8s.io"], "resources": ["*"], "verbs": ["*"]}]
    container = {**name, "image": IMAGE, "args": ["--v=5", "--leader-election=true"]}
    template = {"metadata": {"labels": labels}, "spec": {"serviceAccountName": name["name"], "containers": [container]}}
    spec = {"replicas": 2, "minReadySeconds": 35, "selector": {"matchLabels": labels}, "template": template}
    inside = {**name, "namespace": "kube-system"}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": inside},
        {"apiVersion": f"{role['apiGroup']}/v1", "kind": "ClusterRole", "metadata": {"name": role["name"]},
         "rules": rules},
        {"apiVersion": f"{role['apiGroup']}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": role["name"]},
         "roleRef": role, "subjects": [{"kind": "ServiceAccount", **inside}]},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": inside, "spec": spec},
    ]  # fmt: skip


@pytest.fixture(scope="module")
def crds(fragile):
    """Upstream's own CRDs, as paths."""
    found = sorted((fragile.own.cluster.parts / "crds").glob("*.yaml"))
    assert len(found) == 6
    return found


@pytest.fixture
def manifests(crds, tmp_path):
    path = tmp_path / "controller.yaml"
    path.write_text(yaml.safe_dump_all(controller()))
    return [{"source": str(each)} for each in (*crds, path)]


@pytest.fixture
def bare(fragile, crds):
    """The cluster without the kinds of snapshots, and without a snapshot controller; its processes of those stopped."""
    with contextlib.ExitStack() as stack:
        for part in ("snapshot-controller", "csi-snapshotter"):
            stack.enter_context(fragile.own.without(part))
        strip(fragile, crds)
        with fragile.node("kube-system"):
            yield fragile
        strip(fragile, [])
        # The lab is given back what it had, by the module itself.
        fragile.call(
            "csi_layout", manifests=[{"source": str(each)} for each in crds], install_controller=False,
            snapshot_classes=[{"name": "folders", "driver": DRIVER, "default": True}],
        )  # fmt: skip


def strip(lab, crds):
    """Remove whatever the module makes, and wait until it is gone."""
    for path in crds:
        name = yaml.safe_load(path.read_text())["metadata"]["name"]
        if lab.api.find(f"{CRDS}/{name}"):
            lab.api.delete(f"{CRDS}/{name}")
            lab.api.gone(f"{CRDS}/{name}")
    paths = [
        DEPLOYMENT,
        f"{STORAGE}/storageclasses/made",
        f"{CORE}/namespaces/kube-system/serviceaccounts/snapshot-controller",
        f"{RBAC}/clusterroles/snapshot-controller-test",
        f"{RBAC}/clusterrolebindings/snapshot-controller-test",
    ]
    for path in paths:
        if lab.api.find(path):
            lab.api.delete(path)
            lab.api.gone(path)


def kinds(result):
    return [each["target"].partition(" ")[0] for each in result["changes"]]


def test_a_cluster_without_anything_is_set_up_as_foretold_and_then_takes_and_restores_snapshots(
    fragile, fragile_namespace, manifests, bare
):
    fragile.claim(fragile_namespace, "data", {"a": "one"})
    with pytest.raises(Failed) as caught:
        fragile.call("csi_snapshot", namespace=fragile_namespace, pvc=["data"], name="too-early")
    assert "their CRDs are missing" in caught.value.result["msg"]
    assert "with the role restorepoint.core.csi_snapshots" in caught.value.result["msg"]
    asked = {"manifests": manifests, **CLASSES}
    foretold = fragile.call("csi_layout", check_mode=True, **asked)
    assert fragile.api.find(CRDS + "/volumesnapshots.snapshot.storage.k8s.io") is None
    done = fragile.call("csi_layout", **asked)
    assert done["changes"] == foretold["changes"]
    assert kinds(done) == TARGETS
    assert fragile.api.get(DEPLOYMENT)["status"]["readyReplicas"] == 2
    again = fragile.call("csi_layout", **asked)
    assert (again["changed"], [each["ours"] for each in again["controllers"]]) == (False, [True])
    for part in ("snapshot-controller", "csi-snapshotter"):
        fragile.own.start(part)
    snapshot = {"volumeSnapshotClassName": "made", "source": {"persistentVolumeClaimName": "data"}}
    body = {"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"name": "s"},
            "spec": snapshot}  # fmt: skip
    fragile.api.create(fragile.snapshot_path(fragile_namespace), body)
    fragile.ready(fragile.snapshot_path(fragile_namespace, "s"))
    fragile.write(fragile_namespace, "data", {"a": "damaged"})
    fragile.claim(fragile_namespace, "restored", storage_class="made", snapshot="s")
    assert fragile.read(fragile_namespace, "restored") == {"a": "one"}
    fragile.api.delete(fragile.snapshot_path(fragile_namespace, "s"))
    fragile.api.gone(fragile.snapshot_path(fragile_namespace, "s"))
    fragile.until(lambda: not fragile.api.items(f"{SNAPSHOTS}/volumesnapshotcontents"), "the content is gone")
    for part in ("snapshot-controller", "csi-snapshotter"):
        fragile.own.stop(part)


def test_killed_before_each_of_its_writes_and_run_again_it_ends_well(fragile, manifests, crds, bare):
    asked = {"manifests": manifests, **CLASSES}
    with fragile.proxy() as proxy:
        # In the last round it ends by itself, also where it has to ask twice for a class whose kind is new.
        for at in (1, 4, 7, 10, 13, 40):
            strip(fragile, crds)
            died = fragile.dies(proxy, "csi_layout", at=at, after=at % 2 == 0, **asked)
            assert died == (at <= len(TARGETS))
            rest = fragile.call("csi_layout", **asked)
            # The request at which it was killed may have reached the server.
            made = min(at, len(TARGETS))
            assert len(TARGETS) - len(rest["changes"]) in (made - 1, made)
            assert kinds(rest) == TARGETS[len(TARGETS) - len(rest["changes"]) :]
            assert not fragile.call("csi_layout", **asked)["changed"]


def test_a_server_that_is_busy_cut_off_and_started_again_is_borne(fragile, manifests, bare):
    with fragile.proxy() as proxy:
        proxy.tell("answer", verb="POST", path="customresourcedefinitions", times=1, status=429, retry_after=1)
        proxy.tell("cut_after", verb="POST", path="clusterroles$", times=1)
        proxy.tell("answer", verb="GET", path="storageclasses", times=2, status=500)
        done = fragile.call("csi_layout", manifests=manifests, **CLASSES, kubeconfig=fragile.through(proxy))
    assert kinds(done) == TARGETS
    assert not fragile.call("csi_layout", manifests=manifests, **CLASSES)["changed"]


def test_a_controller_that_gets_no_pods_is_an_error_in_kubernetes_words(fragile, manifests, bare):
    quota = f"{CORE}/namespaces/kube-system/resourcequotas"
    fragile.api.create(quota, {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})
    try:
        fragile.until(lambda: fragile.api.get(f"{quota}/none").get("status", {}).get("hard"), "the quota counts")
        with pytest.raises(Failed, match="exceeded quota: none") as raised:
            fragile.call("csi_layout", manifests=manifests, wait_timeout=30)
        assert kinds(raised.value.result) == TARGETS[:10]
    finally:
        fragile.api.delete(f"{quota}/none")


def test_a_crd_gets_the_version_that_it_lacks_and_keeps_its_objects(fragile, manifests, crds, bare):
    fragile.call("csi_layout", manifests=manifests, **CLASSES)
    name = "volumegroupsnapshotclasses.groupsnapshot.storage.k8s.io"
    path = next(each for each in crds if name.split(".", maxsplit=1)[0] in each.name)
    whole = yaml.safe_load(path.read_text())
    old = [each for each in whole["spec"]["versions"] if each["name"] != "v1"]
    labels = {"restorepoint.core/role": None}  # as somebody else made it, some years ago
    fragile.api.patch(f"{CRDS}/{name}", {"metadata": {"labels": labels}, "spec": {"versions": old}})
    fragile.until(lambda: "v1" not in versions(fragile, "groupsnapshot.storage.k8s.io", "volumegroupsnapshotclasses"),
                  "v1 is not served")  # fmt: skip
    assert not fragile.call("csi_layout", manifests=manifests)["changed"]
    done = fragile.call("csi_layout", manifests=manifests, update=True)
    assert [(each["target"].split(" ")[1], each["before"], each["after"]) for each in done["changes"]] == [
        (name, "serves v1beta1, v1beta2", "serves v1, v1beta1, v1beta2")
    ]
    fragile.until(lambda: "v1" in versions(fragile, "groupsnapshot.storage.k8s.io", "volumegroupsnapshotclasses"),
                  "v1 is served")  # fmt: skip
    # The server answers 404 for a moment to a version that it has begun to serve.
    made = "/apis/groupsnapshot.storage.k8s.io/v1/volumegroupsnapshotclasses/made"
    assert fragile.api.wait(made, lambda found: found is not None)["driver"] == DRIVER
    assert not fragile.call("csi_layout", manifests=manifests, update=True)["changed"]


def versions(lab, group, plural):
    return [each["name"] for each in lab.api.get(f"{CRDS}/{plural}.{group}")["spec"]["versions"] if each["served"]]


# Classes, on the shared cluster, whose controller is a process that nobody can see


@pytest.fixture
def classes(cluster):
    """Names of classes that are removed afterwards."""
    names: list[str] = []
    yield names
    for name in names:
        for path in (f"{STORAGE}/storageclasses", f"{SNAPSHOTS}/volumesnapshotclasses"):
            with contextlib.suppress(Exception):
                cluster.api.delete(f"{path}/{name}")


def test_classes_are_made_changed_and_left_alone(cluster, classes):
    classes.append("layout-test")
    row: dict[str, Any] = {"name": "layout-test", "driver": DRIVER}
    told: dict[str, Any] = {"install_controller": False, "snapshot_classes": [row]}
    assert cluster.call("csi_layout", **told)["changed"]
    assert not cluster.call("csi_layout", **told)["changed"]
    row.update(deletion_policy="Retain", parameters={"snapSize": "20%", "thin": True})
    assert cluster.call("csi_layout", **told)["changed"]
    made = cluster.api.get(f"{SNAPSHOTS}/volumesnapshotclasses/layout-test")
    assert (made["deletionPolicy"], made["parameters"]) == ("Retain", {"snapSize": "20%", "thin": "true"})
    row["parameters"] = {}
    assert cluster.call("csi_layout", **told)["changed"]
    assert not cluster.api.get(f"{SNAPSHOTS}/volumesnapshotclasses/layout-test").get("parameters")
    assert not cluster.call("csi_layout", **told)["changed"]


def test_a_driver_that_is_not_there_and_a_second_default_are_refused_together(cluster):
    before = cluster.api.items(f"{STORAGE}/storageclasses")
    rows = [{"name": "layout-default", "provisioner": DRIVER, "default": True}]
    with pytest.raises(Failed) as raised:
        cluster.call("csi_layout", install_controller=False, storage_classes=rows,
                     drivers=[{"kind": "openebs_lvm", "volume_group": "data"}])  # fmt: skip
    assert raised.value.reasons == [
        "it is to be the default, and folders is that already",
        f"the cluster has no CSI driver local.csi.openebs.io; there are: {DRIVER}",
        f"the cluster has no CSI driver local.csi.openebs.io; there are: {DRIVER}",
    ]
    assert len(cluster.api.items(f"{STORAGE}/storageclasses")) == len(before)


def test_what_a_storage_class_cannot_change_is_refused_before_the_server_would(cluster, classes):
    classes.append("layout-fixed")
    row = {"name": "layout-fixed", "provisioner": DRIVER, "parameters": {"a": "1"}}
    cluster.call("csi_layout", install_controller=False, storage_classes=[row])
    assert not cluster.call("csi_layout", install_controller=False, storage_classes=[row])["changed"]
    other = {**row, "parameters": {"a": "2"}, "reclaim_policy": "Retain"}
    with pytest.raises(Failed) as raised:
        cluster.call("csi_layout", install_controller=False, storage_classes=[other])
    assert raised.value.reasons == ["its reclaimPolicy is Delete, not Retain", "of its parameters a is 1, not 2"]
    grown = {**row, "allow_volume_expansion": False, "labels": {"team": "db"}}
    assert cluster.call("csi_layout", install_controller=False, storage_classes=[grown])["changed"]
    made = cluster.api.get(f"{STORAGE}/storageclasses/layout-fixed")
    assert (made["allowVolumeExpansion"], made["metadata"]["labels"]["team"]) == (False, "db")


def test_each_right_that_lacks_is_named_before_anything_is_done(cluster, namespace):
    read = [
        {"apiGroups": ["storage.k8s.io"], "resources": ["csidrivers", "csinodes", "storageclasses"],
         "verbs": ["get", "list"]},
        {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": ["get"]},
        {"apiGroups": ["snapshot.storage.k8s.io", "groupsnapshot.storage.k8s.io"], "resources": ["*"],
         "verbs": ["list"]},
    ]  # fmt: skip
    user = cluster.user(namespace, [], read)
    rows = {"storage_classes": [{"name": "layout-denied", "provisioner": DRIVER}],
            "snapshot_classes": [{"name": "layout-denied", "driver": DRIVER}]}  # fmt: skip
    with pytest.raises(Failed) as raised:
        cluster.call("csi_layout", install_controller=False, kubeconfig=user.kubeconfig, **rows)
    assert raised.value.reasons == [
        "this login may not create on storageclasses.storage.k8s.io",
        "this login may not create on volumesnapshotclasses.snapshot.storage.k8s.io",
    ]
    with pytest.raises(Failed, match="allow list on deployments"):
        cluster.call("csi_layout", kubeconfig=user.kubeconfig, **rows)


def test_a_fresh_lease_is_a_controller_that_is_left_alone(cluster):
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
    with pytest.raises(Failed, match="snapshot controller: none runs in the cluster"):
        cluster.call("csi_layout")
    renewed = datetime.datetime.now(tz=datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": "control-plane-7", "renewTime": renewed, "leaseDurationSeconds": 15}
    cluster.api.create(path, {"metadata": {"name": "snapshot-controller-leader"}, "spec": spec})
    try:
        done = cluster.call("csi_layout")
        assert [each["where"] for each in done["controllers"]] == [
            "control-plane-7, which holds the lease kube-system/snapshot-controller-leader"
        ]
        assert not done["changed"]
    finally:
        cluster.api.delete(f"{path}/snapshot-controller-leader")


def test_the_checksums_of_the_role_are_those_of_upstream_s_crds(cluster):
    releases = yaml.safe_load((CHECKOUT / "roles" / "csi_snapshots" / "vars" / "main.yml").read_text())
    told = {
        pathlib.PurePath(each["source"]).name: each["sha256"] for each in releases["__csi_snapshots_releases"]["8.6.0"]
    }
    for path in sorted((cluster.own.cluster.parts / "crds").glob("*.yaml")):
        assert told[path.name] == hashlib.sha256(path.read_bytes()).hexdigest(), path.name
