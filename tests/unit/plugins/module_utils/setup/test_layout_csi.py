# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What csi_layout would do, from options and facts alone: nothing here speaks to a cluster."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.csi_layout import SPEC
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.restorepoint.core.plugins.module_utils.setup import csi, csi_facts
from ansible_collections.restorepoint.core.plugins.module_utils.setup.csi_drivers import KINDS, SETTINGS, classes_of
from ansible_collections.restorepoint.core.plugins.module_utils.setup.csi_manifests import (
    DIGEST,
    LABEL,
    Controller,
    differs,
    digest_of,
    is_controller,
    rank,
    read_manifests,
)
from ansible_collections.restorepoint.core.plugins.module_utils.setup.csi_plan import (
    make_plan,
    needs_manifests,
    warnings,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.setup.csi_cluster import (
    GROUP_KINDS,
    IMAGE,
    SNAPSHOT_KINDS,
    crd,
    deployment,
    documents,
    role,
    snapshot_class,
    storage_class,
)

HOSTPATH = "hostpath.csi.k8s.io"


def row(spec: dict[str, Any], **given: Any) -> dict[str, Any]:
    """Return a row of options with its defaults, as AnsibleModule hands it over."""
    return {**{name: copy.deepcopy(option.get("default")) for name, option in spec.items()}, **given}


def wanted(**given):
    params = row(SPEC, **given)
    for name in ("drivers", "storage_classes", "snapshot_classes", "group_snapshot_classes"):
        params[name] = [row(SPEC[name]["options"], **each) for each in params[name]]
    return csi.parse(params)


def manifests(given=None, options=None, digest="d1"):
    return read_manifests(documents() if given is None else given, options or Controller(), digest)


def ours(item, digest="d1"):
    marked = copy.deepcopy(item)
    marked["metadata"].update({"labels": {LABEL: "csi_snapshots"}, "annotations": {DIGEST: digest}})
    return marked


def found(image=IMAGE, *, mine=False, digest="", ready=2):
    return csi.Found("Deployment kube-system/snapshot-controller", image, "somebody", ready, 2, mine, digest)


def cluster(*crds, **facts):
    named = {each["metadata"]["name"]: {**each, "status": {"storedVersions": []}} for each in crds}
    classes: dict[str, dict[str, Any]] = {"StorageClass": {}, "VolumeSnapshotClass": {}, "VolumeGroupSnapshotClass": {}}
    for item in facts.pop("classes", ()):
        classes[item["kind"]][item["metadata"]["name"]] = item
    return csi.Cluster(**{"drivers": (HOSTPATH,), "crds": named, "classes": classes, **facts})


def plan(asked, there, made=None):
    result = make_plan(asked, made, there)
    return [(each.target, each.action) for each in result.steps], [
        (each.target, each.reason) for each in result.blockers
    ]


def requests(asked, there, made=None):
    return [each.request for each in make_plan(asked, made, there).steps if each.request]


SERVED = [crd(each, "v1") for each in SNAPSHOT_KINDS]


def test_a_bare_cluster_gets_crds_first_and_the_deployment_last():
    steps, blockers = plan(wanted(), cluster(), manifests())
    assert blockers == []
    assert [action for _target, action in steps] == ["create CRD"] * 6 + ["create"] * 2
    assert steps[-1][0] == "Deployment kube-system/snapshot-controller"


def test_a_second_run_needs_no_manifests_and_does_nothing():
    there = cluster(*[ours(each) for each in SERVED], controllers=(found(mine=True, digest="d1"),))
    assert not needs_manifests(wanted(), there, "d1")
    assert plan(wanted(), there) == ([], [])


def test_other_manifests_than_it_was_made_from_are_read_and_put_in_place():
    there = cluster(*[ours(each) for each in SERVED], controllers=(found(mine=True, digest="d1"),),
                    objects={"Deployment kube-system/snapshot-controller": ours(deployment()),
                             "ClusterRole snapshot-controller-runner": ours(role("get"))})  # fmt: skip
    assert needs_manifests(wanted(), there, "d2")
    steps, blockers = plan(wanted(), there, manifests(digest="d2"))
    assert blockers == []
    updated = [target for target, action in steps if action.startswith("update")]
    assert len([each for each in updated if each.startswith("CustomResource")]) == 3
    assert updated[-2:] == ["ClusterRole snapshot-controller-runner", "Deployment kube-system/snapshot-controller"]


def test_a_controller_of_somebody_else_is_left_alone():
    there = cluster(*SERVED, controllers=(found("quay.io/openebs/snapshot-controller:v8.2.0"),))
    assert not needs_manifests(wanted(), there, "d1")
    assert plan(wanted(), there, manifests()) == (
        [(f"CustomResourceDefinition {each}.groupsnapshot.storage.k8s.io", "create CRD") for each in GROUP_KINDS],
        [],
    )


def test_without_manifests_what_lacks_is_named():
    steps, blockers = plan(wanted(), cluster())
    assert steps == []
    assert [target for target, _reason in blockers] == [
        *(f"CRD {each}.snapshot.storage.k8s.io" for each in SNAPSHOT_KINDS),
        "snapshot controller",
    ]


def test_crds_that_serve_v1_are_not_touched_whoever_made_them_and_whatever_they_say():
    old = [crd(each, "v1", "v1beta1") for each in SNAPSHOT_KINDS]
    steps, blockers = plan(wanted(update=True, install_controller=False), cluster(*old), manifests())
    assert ([each for each in steps if "group" not in each[0]], blockers) == ([], [])


def test_a_crd_that_serves_something_newer_is_never_replaced():
    newer = [ours(crd(each, "v2", "v1"), "d0") for each in SNAPSHOT_KINDS]
    steps, blockers = plan(wanted(update=True, install_controller=False), cluster(*newer), manifests())
    assert ([each for each in steps if "group" not in each[0]], blockers) == ([], [])


def test_a_crd_without_v1_blocks_until_an_update_is_asked_for():
    beta = [crd(each, "v1beta1") for each in SNAPSHOT_KINDS]
    both = [crd(each, "v1", "v1beta1") for each in SNAPSHOT_KINDS]
    asked = {"install_controller": False}
    _steps, blockers = plan(wanted(**asked), cluster(*beta), manifests(both))
    assert {reason for _target, reason in blockers} == {"it serves v1beta1, and not v1"}
    steps, blockers = plan(wanted(update=True, **asked), cluster(*beta), manifests(both))
    assert ([action for _target, action in steps], blockers) == (["update CRD"] * 3, [])


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        (crd("volumesnapshots", "v1beta1"), "it serves v1beta1, which the new one does not"),
        (
            {**crd("volumesnapshots", "v1beta1"), "status": {"storedVersions": ["v1alpha1"]}},
            "objects may be stored as v1alpha1, which the new one does not know",
        ),
    ],
)
def test_an_update_that_would_lose_a_version_is_refused(there, reason):
    facts = cluster(*SERVED[:2], controllers=(found(),))
    facts = csi.Cluster(**{**vars(facts), "crds": {**facts.crds, there["metadata"]["name"]: there}})
    _steps, blockers = plan(wanted(update=True), facts, manifests(SERVED))
    assert blockers == [("CustomResourceDefinition volumesnapshots.snapshot.storage.k8s.io", reason)]


def test_something_of_the_same_name_that_differs_is_not_overwritten():
    objects = {"ClusterRole snapshot-controller-runner": role("*")}
    _steps, blockers = plan(wanted(), cluster(objects=objects), manifests())
    assert blockers == [
        (
            "ClusterRole snapshot-controller-runner",
            "there is one of that name, which somebody else made, and it differs",
        )
    ]


def test_something_of_the_same_name_that_is_the_same_is_taken_over():
    objects = {"ClusterRole snapshot-controller-runner": role()}
    steps, blockers = plan(wanted(), cluster(objects=objects), manifests())
    assert ("ClusterRole snapshot-controller-runner", "update") in steps
    assert blockers == []


# Classes


def hostpath(**given):
    return wanted(drivers=[{"kind": "csi_hostpath", **given}])


READY = {"controllers": (found(),)}


def test_a_driver_that_is_not_there_is_refused_with_the_names_of_those_that_are():
    there = cluster(*SERVED, drivers=("a.example.org", "b.example.org"), **READY)
    _steps, blockers = plan(hostpath(), there)
    assert {reason for _target, reason in blockers} == {
        "the cluster has no CSI driver hostpath.csi.k8s.io; there are: a.example.org, b.example.org"
    }
    assert len(blockers) == 2


def test_a_provisioner_of_directories_is_told_from_a_csi_driver():
    asked = wanted(snapshot_classes=[{"name": "openebs", "driver": "openebs.io/local"}])
    blocked = make_plan(asked, None, cluster(*SERVED, drivers=(), **READY)).blockers
    assert [each.remedy for each in blocked] == [
        "that provisioner makes directories, without snapshots: use hostpath_snapshot for its claims"
    ]


def test_classes_are_made_once_the_crds_are_planned():
    steps, blockers = plan(hostpath(group_class=True), cluster(), manifests())
    assert blockers == []
    assert steps[-3:] == [
        ("StorageClass csi-hostpath", "create"),
        ("VolumeSnapshotClass csi-hostpath", "create"),
        ("VolumeGroupSnapshotClass csi-hostpath", "create"),
    ]
    assert requests(hostpath(group_class=True), cluster(), manifests())[-1].resource.version == "v1"


def test_a_group_class_is_made_in_the_newest_version_that_is_served():
    groups = [crd(each, "v1beta1", "v1beta2") for each in GROUP_KINDS]
    last = requests(hostpath(group_class=True), cluster(*SERVED, *groups, **READY))[-1]
    assert last.body["apiVersion"] == "groupsnapshot.storage.k8s.io/v1beta2"


def test_a_class_whose_crd_nobody_makes_is_a_blocker():
    _steps, blockers = plan(hostpath(group_class=True), cluster(*SERVED, **READY))
    assert blockers == [
        (
            "VolumeGroupSnapshotClass csi-hostpath",
            "the cluster has no CRD volumegroupsnapshotclasses.groupsnapshot.storage.k8s.io",
        )
    ]


def test_classes_that_are_as_asked_are_not_touched():
    classes = [storage_class("csi-hostpath"), snapshot_class("csi-hostpath")]
    assert plan(hostpath(), cluster(*SERVED, classes=classes, **READY)) == ([], [])


def test_what_kubernetes_does_not_change_of_a_storage_class_is_a_blocker():
    other = {**storage_class("csi-hostpath", provisioner="x.example.org"), "volumeBindingMode": "WaitForFirstConsumer",
             "parameters": {"pool": "a"}}  # fmt: skip
    _steps, blockers = plan(hostpath(), cluster(*SERVED, classes=[other], **READY))
    assert [reason for target, reason in blockers if target == "StorageClass csi-hostpath"] == [
        "its provisioner is x.example.org, not hostpath.csi.k8s.io",
        "its volumeBindingMode is WaitForFirstConsumer, not Immediate",
        "of its parameters pool is a, not unset",
    ]


def test_what_may_change_of_a_class_is_changed():
    there = [{**storage_class("csi-hostpath"), "allowVolumeExpansion": False},
             {**snapshot_class("csi-hostpath"), "parameters": {"left": "over"}}]  # fmt: skip
    asked = hostpath(deletion_policy="Retain", snapshot_parameters={"snapSize": "20%"})
    made = requests(asked, cluster(*SERVED, classes=there, **READY))
    assert [each.body for each in made] == [
        {"allowVolumeExpansion": True},
        {"deletionPolicy": "Retain", "parameters": {"left": None, "snapSize": "20%"}},
    ]


def test_a_snapshot_class_of_another_driver_is_a_blocker():
    there = cluster(*SERVED, classes=[snapshot_class("csi-hostpath", driver="x")], **READY)
    _steps, blockers = plan(hostpath(storage_class=False), there)
    assert blockers == [("VolumeSnapshotClass csi-hostpath", "its driver is x, not hostpath.csi.k8s.io")]


# Defaults


def test_there_are_never_two_defaults():
    there = cluster(
        *SERVED, classes=[storage_class("old", default=True), snapshot_class("older", default=True)], **READY
    )
    asked = {"default": True, "default_snapshot_class": True}
    _steps, blockers = plan(hostpath(**asked), there)
    assert blockers == [
        ("StorageClass csi-hostpath", "it is to be the default, and old is that already"),
        ("VolumeSnapshotClass csi-hostpath", "it is to be the default, and older is that already"),
    ]
    allowed = wanted(drivers=[{"kind": "csi_hostpath", **asked}], replace_default=True)
    steps, blockers = plan(allowed, there)
    assert blockers == []
    assert steps == [
        ("StorageClass old", "set default"),
        ("StorageClass csi-hostpath", "create"),
        ("VolumeSnapshotClass older", "set default"),
        ("VolumeSnapshotClass csi-hostpath", "create"),
    ]


def test_the_default_of_another_driver_is_no_hindrance():
    there = cluster(*SERVED, classes=[snapshot_class("theirs", default=True, driver="x")], **READY)
    steps, blockers = plan(hostpath(default_snapshot_class=True, storage_class=False), there)
    assert (steps, blockers) == ([("VolumeSnapshotClass csi-hostpath", "create")], [])


def test_who_gives_the_default_up_in_the_same_call_does_so_first():
    there = cluster(*SERVED, classes=[storage_class("old", default=True)], **READY)
    common = {"provisioner": HOSTPATH, "volume_binding_mode": "Immediate"}
    asked = wanted(storage_classes=[{"name": "new", "default": True, **common},
                                    {"name": "old", "default": False, **common}])  # fmt: skip
    assert plan(asked, there) == ([("StorageClass old", "set default"), ("StorageClass new", "create")], [])


def test_two_defaults_in_one_call_cannot_be_meant():
    rows = [{"name": name, "provisioner": HOSTPATH, "default": True} for name in ("a", "b")]
    with pytest.raises(InvalidInput, match="both a and b are to be the default StorageClass"):
        wanted(storage_classes=rows)


def test_two_defaults_and_a_controller_that_is_down_are_told():
    there = cluster(*SERVED, classes=[storage_class("a", default=True), storage_class("b", default=True)],
                    controllers=(found(ready=0),))  # fmt: skip
    assert warnings(there) == [
        "There are 2 default classes (StorageClass): a, b.",
        "A snapshot controller has no ready pod, so no snapshot gets ready: Deployment kube-system/snapshot-controller "
        f"({IMAGE}), set up by somebody.",
    ]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=4, unique_by=lambda each: each[0]),
       st.sampled_from("abcd"), st.booleans())  # fmt: skip
def test_whatever_is_there_carrying_the_plan_out_leaves_at_most_one_more_default_than_none(there, name, replace):
    """After the plan there is one default at most, unless there were several before and nobody may touch them."""
    facts = cluster(*SERVED, classes=[storage_class(each, default) for each, default in there], **READY)
    asked = wanted(replace_default=replace, storage_classes=[
        {"name": name, "provisioner": HOSTPATH, "default": True, "volume_binding_mode": "Immediate"}])  # fmt: skip
    result = make_plan(asked, None, facts)
    if result.blockers:
        assert not replace
        return
    defaults = {each for each, default in there if default}
    for request in requests(asked, facts):
        annotations = (request.body.get("metadata") or {}).get("annotations") or {}
        for value in annotations.values():
            defaults = defaults | {request.name} if value == "true" else defaults - {request.name}
            assert len(defaults) <= max(1, len([1 for _each, default in there if default]))
    assert defaults == {name}


# The sets


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_says_what_it_needs_and_what_it_does_not_know(kind):
    needs = KINDS[kind].needs
    options = SPEC["drivers"]["options"]
    full = {name: 3 if name == "replicas" else "x" for name in needs}
    rows = classes_of(row(options, kind=kind, **full))
    assert all(
        isinstance(value, str) for each in (*rows.storage, *rows.snapshot) for value in each["parameters"].values()
    )
    for name in needs:
        with pytest.raises(InvalidInput, match=f"{name} is not given"):
            classes_of(row(options, kind=kind, **{**full, name: None}))
    strange = next(name for name in SETTINGS if name not in needs + KINDS[kind].takes)
    with pytest.raises(InvalidInput, match=f"it does not know {strange}"):
        classes_of(row(options, kind=kind, **full, **{strange: "x"}))


def test_rook_s_secrets_and_cluster_follow_its_namespace():
    made = classes_of(
        row(SPEC["drivers"]["options"], kind="rook_rbd", pool="replicapool", namespace="ceph", group_class=True)
    )
    assert made.snapshot[0]["parameters"] == {
        "clusterID": "ceph",
        "csi.storage.k8s.io/snapshotter-secret-name": "rook-csi-rbd-provisioner",
        "csi.storage.k8s.io/snapshotter-secret-namespace": "ceph",
    }
    assert made.group[0]["parameters"]["csi.storage.k8s.io/group-snapshotter-secret-namespace"] == "ceph"
    assert made.storage[0]["parameters"]["csi.storage.k8s.io/node-stage-secret-name"] == "rook-csi-rbd-node"


def test_a_driver_without_groups_makes_no_group_class():
    with pytest.raises(InvalidInput, match="has no group snapshots"):
        wanted(drivers=[{"kind": "topolvm", "device_class": "thin", "group_class": True}])


# Manifests


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}},
            "is none of what a snapshot controller needs",
        ),
        ({"kind": "Deployment"}, "no object"),
        (["a list"], "no object"),
        ({**deployment("nginx:1"), "metadata": {"name": "web"}}, "is no snapshot controller"),
        (
            {**crd("volumesnapshots", "v1"), "metadata": {"name": "crontabs.stable.example.com"}},
            "is not one of volume snapshots",
        ),
    ],
)
def test_a_manifest_with_something_else_in_it_is_refused(document, reason):
    with pytest.raises(InvalidInput, match=reason):
        manifests([document])


def test_an_object_that_is_in_the_manifests_twice_is_refused():
    with pytest.raises(InvalidInput, match="is in them twice"):
        manifests([deployment(), deployment()])


def test_empty_documents_and_kustomizations_are_passed_over():
    assert manifests([None, {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}]) == []


def test_options_go_over_the_manifest_of_the_controller():
    options = Controller("mirror/snapshot-controller:v8", 1, ("--v=2", "--feature-gates=CSIVolumeGroupSnapshot=true"))
    spec = manifests([deployment()], options)[0].body["spec"]
    assert spec["replicas"] == 1
    assert spec["template"]["spec"]["containers"][0]["args"] == [
        "--leader-election=true", "--v=2", "--feature-gates=CSIVolumeGroupSnapshot=true"]  # fmt: skip
    assert digest_of(["a"], options) != digest_of(["a"], Controller())
    assert digest_of(["a", "b"], options) == digest_of(["b", "a"], options)


@pytest.mark.parametrize(
    ("image", "is_"),
    [
        (IMAGE, True),
        ("snapshot-controller", True),
        ("localhost:5000/rancher/mirrored-sig-storage-snapshot-controller:v6.2.1", True),
        ("quay.io/openshift/ose-csi-snapshot-controller@sha256:0123", True),
        ("registry.k8s.io/sig-storage/snapshot-validation-webhook:v6", False),
        ("registry.k8s.io/sig-storage/csi-snapshotter:v8", False),
        ("example.org/snapshot-controller-webhook:v1", False),
        ("example.org/snapshot-controller/web:v1", False),
    ],
)
def test_a_controller_is_known_by_its_image(image, is_):
    assert is_controller(image) is is_


def test_versions_are_ordered_as_kubernetes_orders_them():
    names = ["v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "strange"]
    assert sorted(names, key=rank, reverse=True) == names


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
                    max_leaves=8)  # fmt: skip


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=3), st.dictionaries(st.text(min_size=4), JSON, max_size=2))
def test_what_the_server_adds_to_an_object_is_no_difference(body, added):
    assert not differs(body, {**copy.deepcopy(body), **added})


# Whose controller it is


def test_a_container_in_the_pod_of_a_driver_is_found_and_its_manager_named():
    item = deployment(
        "registry.k8s.io/sig-storage/snapshot-controller:v8.2.0", "openebs-lvm-localpv-controller", "openebs"
    )
    item["spec"]["template"]["spec"]["containers"].insert(0, {"name": "plugin", "image": "openebs/lvm-driver:1.7"})
    item["metadata"]["annotations"] = {"meta.helm.sh/release-name": "openebs"}
    item["status"] = {"readyReplicas": 1}
    seen = csi_facts.found_in("Deployment", item)
    assert seen is not None
    assert (seen.where, seen.manager, seen.ready, seen.ours) == (
        "Deployment openebs/openebs-lvm-localpv-controller", "the Helm release openebs", 1, False)  # fmt: skip
    assert csi_facts.found_in("Deployment", deployment("nginx:1")) is None


@pytest.mark.parametrize(
    ("metadata", "manager"),
    [
        ({"labels": {LABEL: "csi_snapshots"}}, "restorepoint.core"),
        ({"labels": {"addonmanager.kubernetes.io/mode": "Reconcile"}}, "the cluster's add-on manager"),
        (
            {"ownerReferences": [{"kind": "ClusterServiceVersion", "name": "csi-operator"}]},
            "ClusterServiceVersion csi-operator",
        ),
        ({"labels": {"app.kubernetes.io/managed-by": "argocd"}}, "argocd"),
        (
            {"managedFields": [{"manager": "status", "subresource": "status"}, {"manager": "kubectl-create"}]},
            "kubectl-create",
        ),
        ({}, ""),
    ],
)
def test_who_set_a_controller_up_is_told_where_that_can_be_seen(metadata, manager):
    assert csi_facts.manager_of(metadata) == manager


@pytest.mark.parametrize(
    ("renewed", "alive"),
    [("2026-11-26T12:00:00.000000Z", True), ("2026-11-26T11:00:00Z", False), (None, False), ("never", False)],
)
def test_a_fresh_lease_tells_of_a_controller_that_cannot_be_seen(renewed, alive):
    lease = {"metadata": {"namespace": "kube-system", "name": csi_facts.LEASE},
             "spec": {"holderIdentity": "node-7", "renewTime": renewed}}  # fmt: skip
    seen = csi_facts.held_lease(lease, 1795694430.0)  # half a minute past noon
    assert (seen is not None) is alive
