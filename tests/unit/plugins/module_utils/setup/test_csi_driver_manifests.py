# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests of CSI drivers: what is taken, left out, moved and refused, and what is planned of them."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.restorepoint.core.plugins.module_utils.setup import csi_driver
from ansible_collections.restorepoint.core.plugins.module_utils.setup.csi_driver import cannot_restore, read_driver
from ansible_collections.restorepoint.core.plugins.module_utils.setup.csi_driver_plan import (
    DriverFacts,
    Found,
    make_plan,
)
from ansible_collections.restorepoint.core.plugins.module_utils.setup.csi_driver_wait import runs
from ansible_collections.restorepoint.core.plugins.module_utils.setup.csi_manifests import DIGEST, LABEL
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.setup.csi_driver_release import (
    crd,
    documents,
    workload,
)

DRIVER = "made.csi.example.org"
MICROK8S = "/var/snap/microk8s/common/var/lib/kubelet"
OURS = Found("restorepoint.core", ours=True)


def read(kubelet=csi_driver.KUBELET, version=None, given=None):
    return read_driver(documents(DRIVER, "made") if given is None else given, kubelet, version)


def there(objects):
    """Return objects as the API shows them once they are made."""
    return {each.target: copy.deepcopy(dict(each.body)) for each in objects}


def plan(objects, facts=None, driver=DRIVER):
    return make_plan(driver, objects, facts or DriverFacts())


def reasons(made):
    return [each.reason for each in made.blockers]


# What is taken


def test_what_others_refer_to_comes_first_and_what_a_cluster_has_once_is_left_out():
    found = read()
    assert [each.resource.kind for each in found.objects] == [
        *("CustomResourceDefinition", "Namespace", "ServiceAccount", "ConfigMap", "ClusterRole", "ClusterRoleBinding"),
        *("CSIDriver", "Deployment", "DaemonSet"),
    ]
    assert list(found.left_out) == [
        "the snapshot controller in Deployment made-deployment: a cluster has one, and csi_layout sees to it",
        "CustomResourceDefinition volumesnapshots.snapshot.storage.k8s.io: csi_layout makes the kinds of snapshots",
        "StorageClass made: csi_layout makes classes",
        "Pod try: Helm runs it by itself (test)",
    ]
    assert not any("snapshot-controller" in image for image in csi_driver.images(found.objects))
    assert all(each.body["metadata"]["labels"][LABEL] == "csi_driver" for each in found.objects)
    assert all("status" not in each.body for each in found.objects)
    assert None not in found.objects[0].body["metadata"].values()


def test_a_workload_that_is_a_snapshot_controller_and_nothing_else_is_left_out_whole():
    alone = workload("Deployment", "made", "registry.example.org/sig-storage/snapshot-controller:v8.2.0")
    alone["spec"]["template"]["spec"]["containers"].pop(0)
    assert read(given=[alone]).objects == ()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({**crd(), "apiVersion": "apiextensions.k8s.io/v1beta1"}, "newer release"),
        ({"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": "x"}}, "without it"),
        ({"apiVersion": "v1", "kind": "List", "items": []}, "no object"),
        ("text", "no object"),
    ],
)
def test_what_no_driver_needs_is_refused(document, words):
    with pytest.raises(InvalidInput, match=words):
        read(given=[document])


def test_a_chart_s_namespace_which_helm_would_make_is_made_first():
    rendered = [each for each in documents(DRIVER, "made") if each["kind"] != "Namespace"]
    assert [each.target for each in read(given=rendered).objects] == [each.target for each in read().objects]


def test_what_is_there_twice_is_refused_and_empty_documents_are_passed_over():
    assert read(given=[None]).objects == ()
    with pytest.raises(InvalidInput, match="is in them twice"):
        read(given=[crd(), crd()])


def test_the_release_is_held_to_an_image():
    assert read(version="2.1.0").objects == read(version="v2.1.0").objects
    assert read(version="2.13.0").objects  # the registrar's: any image may be what is meant
    with pytest.raises(InvalidInput, match=r"of release 2\.2\.0; there are: .*made-driver:2\.1\.0"):
        read(version="2.2.0")


# kubelet's folder


def test_every_path_of_kubelet_s_folder_moves_to_microk8s_and_no_other():
    text = json.dumps([dict(each.body) for each in read(MICROK8S).objects])
    assert text.count(MICROK8S) == text.count("/var/lib/kubelet") == 11
    assert '"/home/keys"' in text
    assert f"exec {MICROK8S}/run" in text


@given(st.sampled_from(["", "/snap/x", "/mnt", "a", "unix://", "--path=", "=", '"', " "]),
       st.sampled_from(["", "/", "/pods", "s", "-old", ".d", ":ro", '"', " x"]))  # fmt: skip
def test_only_that_very_folder_is_moved(before, after):
    whole = not before[-1:].isalnum() and after[:1] not in ("s", "-", ".")
    moved = csi_driver._moved({"x": [f"{before}/var/lib/kubelet{after}"]}, MICROK8S)["x"][0]
    assert moved == f"{before}{MICROK8S if whole else '/var/lib/kubelet'}{after}"
    assert csi_driver._moved(moved, MICROK8S) == moved


def test_a_driver_rendered_for_another_folder_is_refused():
    rendered = workload("DaemonSet", "made", "x:1", kubelet="/var/lib/k0s/kubelet")
    with pytest.raises(InvalidInput, match="registers at /var/lib/k0s/kubelet/plugins_registry, and kubelet's folder"):
        read(given=[rendered])
    assert read("/var/lib/k0s/kubelet", given=[rendered]).objects
    assert read(MICROK8S, given=[workload("DaemonSet", "made", "x:1", kubelet=MICROK8S)]).objects


def test_rook_s_operator_is_told_the_folder_only_where_it_is_another():
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rook-ceph-operator-config"}}
    told = read(MICROK8S, given=[settings]).objects[-1]
    assert told.body["data"] == {"ROOK_CSI_KUBELET_DIR_PATH": MICROK8S}
    assert "data" not in read(given=[settings]).objects[-1].body
    assert csi_driver.names_folder([told], MICROK8S)
    assert not csi_driver.names_folder(read(given=[crd()]).objects, MICROK8S)


# Restoring


@pytest.mark.parametrize(
    ("image", "refused"),
    [
        ("docker.io/openebs/lvm-driver:1.7.0", True),
        ("openebs/lvm-driver:1.7", True),
        ("mirror.example.org:5000/x/lvm-driver:v1.6.2@sha256:abc", True),
        ("openebs/lvm-driver:1.8.0", False),
        ("openebs/lvm-driver:1.10.1", False),
        ("openebs/lvm-driver:2.0", False),
        ("openebs/lvm-driver:develop", False),
        ("registry.k8s.io/sig-storage/csi-provisioner:v1.0.0", False),
    ],
)
def test_a_release_of_lvm_localpv_that_cannot_restore_is_refused(image, refused):
    assert bool(cannot_restore("local.csi.openebs.io", [image])) == refused
    assert cannot_restore("zfs.csi.openebs.io", [image]) == ""


def test_it_is_refused_of_manifests_and_of_what_somebody_else_runs():
    image = "openebs/lvm-driver:1.7.0"
    given = documents("local.csi.openebs.io", "made", image)
    said = "openebs/lvm-driver:1.7.0 takes snapshots and cannot restore them"
    assert reasons(plan(read(given=given).objects, driver="local.csi.openebs.io"))[0].startswith(said)
    theirs = DriverFacts(Found("the Helm release openebs", ours=False), images=(image,))
    assert reasons(plan((), theirs, "local.csi.openebs.io"))[0].startswith(said)


# The plan


def test_everything_is_made_and_then_nothing():
    objects = read().objects
    made = plan(objects)
    assert [(step.target, step.action) for step in made.steps] == [(each.target, "create") for each in objects]
    again = plan(objects, DriverFacts(OURS, there(objects)))
    assert (again.steps, again.blockers) == ([], [])


def test_of_a_driver_of_somebody_else_s_nothing_is_touched():
    made = plan(read().objects, DriverFacts(Found("the Helm release openebs", ours=False)))
    assert (made.steps, made.blockers) == ([], [])


def test_another_folder_changes_the_objects_that_name_it_and_no_others():
    made = plan(read(MICROK8S).objects, DriverFacts(OURS, there(read().objects)))
    assert [step.target.partition(" ")[0] for step in made.steps] == ["ConfigMap", "Deployment", "DaemonSet"]
    assert {step.action for step in made.steps} == {"update"}
    assert all(step.before != step.after for step in made.steps)


def test_an_object_of_somebody_else_s_is_kept_where_it_is_the_same_and_refused_where_it_differs():
    objects = read().objects
    facts = there(objects)
    for item in facts.values():
        item["metadata"] = {"name": item["metadata"]["name"], "annotations": {"meta.helm.sh/release-name": "other"}}
    assert (plan(objects, DriverFacts(None, facts)).steps, reasons(plan(objects, DriverFacts(None, facts)))) == ([], [])
    facts["ConfigMap made/made"]["data"] = {"run": "other"}
    facts["Namespace made"]["spec"] = {"finalizers": ["kubernetes"]}
    assert reasons(plan(objects, DriverFacts(None, facts))) == [
        "there is one of that name, set up by the Helm release other, and it differs"
    ]


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("CSIDriver", ("spec", "attachRequired")),
        ("Deployment", ("spec", "selector")),
        ("DaemonSet", ("spec", "selector")),
        ("ClusterRoleBinding", ("roleRef",)),
        ("StatefulSet", ("spec", "serviceName")),
    ],
)
def test_what_kubernetes_does_not_change_is_a_blocker(kind, path):
    given = [*documents(DRIVER, "made"), workload("StatefulSet", "made", "x:1")]
    old = read(given=given).objects
    facts = there(old)
    item = next(each for each in facts.values() if each["kind"] == kind)
    holder = item
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = {"other": "value"} if isinstance(holder[path[-1]], dict) else "other"
    item["metadata"]["annotations"] = {DIGEST: "another"}
    made = plan(old, DriverFacts(OURS, facts))
    assert reasons(made) == [f"its {'.'.join(path)} would change, which Kubernetes does not allow"]


def test_a_stateful_set_may_get_other_pods():
    old = read(given=[workload("StatefulSet", "made", "x:1")]).objects
    new = read(given=[workload("StatefulSet", "made", "x:2")]).objects
    made = make_plan(DRIVER, new, DriverFacts(OURS, there(old)))
    assert ([step.action for step in made.steps], reasons(made)) == (["update"], [])


def test_manifests_of_another_driver_and_none_at_all_are_refused():
    assert reasons(plan((), DriverFacts())) == ["the cluster has no such driver"]
    for driver in csi_driver.SOURCES:
        assert "under manifests" in plan((), driver=driver).blockers[0].remedy
    assert reasons(plan(read().objects, driver="other")) == [f"the manifests are those of {DRIVER}"]


# Whether it runs


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ({}, False),
        ({"observedGeneration": 2, "desiredNumberScheduled": 0}, False),
        ({"observedGeneration": 2, "desiredNumberScheduled": 2, "numberReady": 2, "updatedNumberScheduled": 2}, True),
        ({"observedGeneration": 2, "desiredNumberScheduled": 2, "numberReady": 2, "updatedNumberScheduled": 1}, False),
        ({"observedGeneration": 2, "desiredNumberScheduled": 2, "numberReady": 1, "updatedNumberScheduled": 2}, False),
        ({"observedGeneration": 1, "desiredNumberScheduled": 1, "numberReady": 1, "updatedNumberScheduled": 1}, False),
    ],
)
def test_a_daemon_set_runs_when_each_node_has_its_newest_pod_and_there_is_a_node(status, ready):
    assert runs({"kind": "DaemonSet", "metadata": {"generation": 2}, "spec": {}, "status": status}) == ready
