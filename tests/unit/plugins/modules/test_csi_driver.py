# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""csi_driver_layout and csi_class_test against a small API server over HTTPS: their documentation, and whole runs."""

from __future__ import annotations

import pytest
import yaml

from ansible_collections.restorepoint.core.plugins.module_utils.bridge import csi_class_test as class_bridge
from ansible_collections.restorepoint.core.plugins.module_utils.bridge import csi_driver_layout as driver_bridge
from ansible_collections.restorepoint.core.plugins.modules import csi_class_test, csi_driver_layout
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils import fake_cluster, fake_csi
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_cluster import FakeCluster
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_kube import TOKEN
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.setup.csi_cluster import bare, kubelet
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.setup.csi_driver_release import documents
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.documented import (
    differences,
    faults,
    missing,
    options,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.running import run

DRIVER = "made.csi.example.org"
MODULES = [(csi_driver_layout, driver_bridge.SPEC), (csi_class_test, class_bridge.SPEC)]
fake_cluster.PLURALS.update({"CSINode": "csinodes", "CSIDriver": "csidrivers"})


@pytest.mark.parametrize(("module", "spec"), MODULES, ids=["csi_driver_layout", "csi_class_test"])
def test_every_option_is_documented_as_it_is_and_examples_name_options(module, spec):
    assert list(differences(spec, options(module))) == []
    for task in yaml.safe_load(module.EXAMPLES):
        (told,) = (value for name, value in task.items() if name.startswith("restorepoint.core."))
        assert set(told) <= set(spec)


def go(cluster, module=csi_driver_layout, **given):
    login = {"host": cluster.url, "api_key": TOKEN, "ca_cert": str(cluster.certificate)}
    result = run(module, **{**login, **given})
    documented = yaml.safe_load(module.RETURN)
    assert list(faults(result, {**documented, "diff": {"type": "dict"}})) == []
    assert result.get("failed") or missing(result, documented) == []
    return result


def everything_runs(cluster, word, plural, item):
    """Establish kinds, start pods, and let kubelet find the driver."""
    kubelet(cluster, word, plural, item)
    if plural == "daemonsets" and not item.get("status"):
        cluster.put({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "node-1"},
                     "spec": {"drivers": [{"name": DRIVER, "nodeID": "node-1"}]}})  # fmt: skip
        status = {"desiredNumberScheduled": 1, "numberReady": 1, "updatedNumberScheduled": 1}
        cluster.change(item, {"status": status})


@pytest.fixture
def cluster(certificate):
    with bare(FakeCluster(certificate, everything_runs)) as fake:
        yield fake


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "driver.yaml"
    path.write_text(yaml.safe_dump_all(documents(DRIVER, "made")))
    return path


def test_a_driver_is_made_as_foretold_and_a_second_run_changes_nothing(cluster, manifest):
    asked = {"driver": DRIVER, "manifests": [{"source": str(manifest)}], "wait_timeout": 60}
    foretold = go(cluster, check_mode=True, **asked)
    assert not cluster.objects
    cluster.lose = 2
    done = go(cluster, **asked)
    assert (done["changes"], done["nodes"]) == (foretold["changes"], ["node-1"])
    again = go(cluster, **asked)
    assert (again["changed"], again["ours"], again["manager"]) == (False, True, "restorepoint.core")


def test_what_this_login_may_not_do_and_what_lacks_is_known_before_anything_is_done(cluster, manifest):
    cluster.forbidden.add(("create", "daemonsets"))
    result = go(cluster, driver=DRIVER, manifests=[{"source": str(manifest)}])
    assert [each["reason"] for each in result["blockers"]] == [
        "this login may not create on daemonsets.apps in namespace made"
    ]
    assert "the cluster has no such driver" in go(cluster, driver=DRIVER)["msg"]
    assert not cluster.objects


def test_a_file_in_which_nothing_names_kubelet_s_folder_is_warned_of(cluster, tmp_path):
    path = tmp_path / "driver.yaml"
    path.write_text(
        yaml.safe_dump({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": DRIVER}})
    )
    result = go(
        cluster, driver=DRIVER, manifests=[{"source": str(path)}], kubelet_dir="/else/kubelet/", wait_nodes=False
    )
    assert "Nothing in the manifests names kubelet's folder, /else/kubelet" in str(result["warnings"])


class Storage(fake_csi.Csi):
    """The controllers, and a provisioner that removes volumes and looks at the node that a claim was told."""

    def __call__(self, cluster, word, plural, item):
        if (word, plural) == ("DELETED", "persistentvolumeclaims"):
            volume = cluster.find("persistentvolumes", item["spec"].get("volumeName", ""))
            if volume and volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
                cluster.remove(volume)
        super().__call__(cluster, word, plural, item)


@pytest.fixture
def storage(certificate):
    with FakeCluster(certificate, Storage()) as fake:
        for item in (fake_csi.snapshot_class(), fake_csi.storage_class()):
            fake.put(item)
        yield fake


def test_a_class_is_tested_and_nothing_is_left(storage):
    before = len(storage.objects)
    done = go(storage, csi_class_test, storage_class="csi", timeout=60)
    assert [each["step"] for each in done["steps"]] == ["claim", "snapshot", "restore", "removal"]
    assert (done["restored_bytes"], done["snapshot_class"], done["node"], done["changed"]) == (
        1 << 30,
        "csi",
        "",
        False,
    )
    assert len(storage.objects) == before


def test_rights_that_lack_other_things_of_its_names_and_nonsense_are_refused(storage):
    storage.forbidden.add(("patch", "persistentvolumes"))
    storage.put({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {}, "status": {},
                 "metadata": {"name": "restorepoint-test-csi", "namespace": "default"}})  # fmt: skip
    result = go(storage, csi_class_test, storage_class="csi")
    assert [each["reason"] for each in result["blockers"]] == [
        "there is a PersistentVolumeClaim default/restorepoint-test-csi, which is not the test's",
        "this login may not patch on persistentvolumes",
    ]
    assert "no quantity" in go(storage, csi_class_test, storage_class="csi", size="much")["msg"]
    assert "1 or more" in go(storage, csi_class_test, storage_class="csi", timeout=0)["msg"]


def test_a_copy_that_is_the_same_volume_is_no_copy(storage):
    def one_volume(cluster, word, plural, item):
        if plural == "persistentvolumes" and word == "ADDED":
            cluster.change(item, {"spec": {"csi": {"volumeHandle": "one"}}})

    storage._controllers.insert(0, one_volume)
    result = go(storage, csi_class_test, storage_class="csi", timeout=60)
    assert "it has the volume that the snapshot was taken of" in result["msg"]
    assert not storage.all("persistentvolumeclaims")


def test_two_snapshot_classes_without_a_default_have_to_be_told_apart(storage):
    for name in ("second", "third"):
        storage.put(fake_csi.snapshot_class(name, default=False))
    storage.change(storage.find("volumesnapshotclasses", "csi"), {"metadata": {"annotations": None}})
    result = go(storage, csi_class_test, storage_class="csi")
    assert "to take cannot be told; there are: csi, second, third" in result["msg"]
    assert (
        go(storage, csi_class_test, storage_class="csi", snapshot_class="third", timeout=60)["snapshot_class"]
        == "third"
    )
