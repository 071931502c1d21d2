# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module csi_layout against a small API server over HTTPS: whole runs, check mode, second runs, and what fails."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading

import pytest
import yaml

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.csi_layout import SPEC
from ansible_collections.restorepoint.core.plugins.modules import csi_layout
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_cluster import FakeCluster
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_kube import TOKEN
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.setup.csi_cluster import (
    SNAPSHOT_KINDS,
    bare,
    crd,
    deployment,
    documents,
    driver,
    kubelet,
    storage_class,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.documented import (
    differences,
    faults,
    missing,
    options,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.running import run

HOSTPATH = {"kind": "csi_hostpath", "default": True, "default_snapshot_class": True, "group_class": True}


@pytest.fixture
def cluster(certificate):
    with bare(FakeCluster(certificate, kubelet)) as fake:
        fake.put(driver())
        yield fake


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "external-snapshotter.yaml"
    path.write_text(yaml.safe_dump_all(documents()))
    return path


def go(cluster, **given):
    login = {"host": cluster.url, "api_key": TOKEN, "ca_cert": str(cluster.certificate)}
    return run(csi_layout, **{"wait_timeout": 60, **login, **given})


def everything(manifest, **more):
    return {"manifests": [{"source": str(manifest)}], "drivers": [HOSTPATH], **more}


def test_every_option_is_documented_as_it_is():
    assert list(differences(SPEC, options(csi_layout))) == []


def test_examples_name_options_that_there_are(cluster):
    for task in yaml.safe_load(csi_layout.EXAMPLES):
        result = go(cluster, check_mode=True, **task["restorepoint.core.csi_layout"])
        assert "parameters" not in result["msg"]
        assert "the cluster has no CSI driver" in result["msg"] or "/srv/mirror" in result["msg"]


def test_a_bare_cluster_is_set_up_as_check_mode_foretold_and_a_second_run_changes_nothing(cluster, manifest):
    documented = yaml.safe_load(csi_layout.RETURN)
    before = len(cluster.objects)
    foretold = go(cluster, check_mode=True, **everything(manifest))
    assert foretold["changed"]
    assert len(cluster.objects) == before
    done = go(cluster, **everything(manifest))
    assert done["changes"] == foretold["changes"]
    assert [each["action"] for each in done["changes"]] == ["create CRD"] * 6 + ["create"] * 5
    assert missing(done, documented) == []
    assert list(faults({**done, "diff": None}, {**documented, "diff": {"type": "dict"}})) == []
    manifest.unlink()  # what is recorded is enough; but a file that is named has to be there
    assert "No such file" in go(cluster, **everything(manifest))["msg"]
    manifest.write_text(yaml.safe_dump_all(documents()))
    again = go(cluster, **everything(manifest))
    assert (again["changed"], again["changes"]) == (False, [])
    assert [each["ours"] for each in again["controllers"]] == [True]
    marks = cluster.find("volumesnapshotclasses", "csi-hostpath")["metadata"]["annotations"]
    assert marks["snapshot.storage.kubernetes.io/is-default-class"] == "true"
    assert cluster.find("volumegroupsnapshotclasses", "csi-hostpath")["apiVersion"] == "groupsnapshot.storage.k8s.io/v1"


def test_another_image_is_rolled_out_and_nothing_else(cluster, manifest):
    go(cluster, **everything(manifest))
    image = "mirror.example.org/snapshot-controller:v8.6.0"
    result = go(cluster, **everything(manifest, controller_image=image))
    assert result["changed"]
    container = cluster.find("deployments", "snapshot-controller")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == image
    assert not go(cluster, **everything(manifest, controller_image=image))["changed"]


def test_a_controller_of_openebs_is_recognised_and_left_alone(cluster, manifest):
    for each in SNAPSHOT_KINDS:
        cluster.put(crd(each, "v1"))
    theirs = deployment("quay.io/sig-storage/snapshot-controller:v8.2.0", "openebs-zfs", "openebs")
    theirs["metadata"]["annotations"] = {"meta.helm.sh/release-name": "openebs"}
    cluster.put(theirs)
    result = go(cluster, manifests=[{"source": str(manifest)}])
    assert not result["changed"]
    assert [(each["where"], each["manager"], each["ours"]) for each in result["controllers"]] == [
        ("Deployment openebs/openebs-zfs", "the Helm release openebs", False)
    ]
    assert len(cluster.all("deployments")) == 1


def test_blockers_are_all_named_and_nothing_is_touched(cluster, manifest):
    cluster.put(storage_class("theirs", default=True))
    before = len(cluster.objects)
    asked = {**everything(manifest), "drivers": [HOSTPATH, {"kind": "topolvm", "device_class": "thin"}]}
    result = go(cluster, **asked)
    assert result["failed"]
    assert list(faults(result, yaml.safe_load(csi_layout.RETURN))) == []
    assert [each["target"] for each in result["blockers"]] == [
        "StorageClass csi-hostpath",
        "StorageClass topolvm",
        "VolumeSnapshotClass topolvm",
    ]
    assert "there are: hostpath.csi.k8s.io" in result["msg"]
    assert len(cluster.objects) == before


def test_what_this_login_may_not_do_is_known_before_anything_is_done(cluster, manifest):
    cluster.forbidden.add(("create", "deployments"))
    before = len(cluster.objects)
    result = go(cluster, **everything(manifest))
    assert [(each["target"], each["reason"]) for each in result["blockers"]] == [
        (
            "Deployment kube-system/snapshot-controller",
            "this login may not create on deployments.apps in namespace kube-system",
        )
    ]
    assert len(cluster.objects) == before


def test_a_lost_answer_is_no_failure_and_nothing_is_made_twice(cluster, manifest):
    cluster.lose = 3
    assert go(cluster, **everything(manifest))["changed"]
    assert cluster.lose == 0
    assert not go(cluster, **everything(manifest))["changed"]


def test_a_run_that_fails_halfway_is_completed_by_the_next_one(cluster, manifest):
    allowed = cluster.answer

    def refuse_deployments(request):
        if request.method == "POST" and request.path.endswith("/deployments"):
            return 500, {}, {"kind": "Status", "message": "no room", "code": 500}
        return allowed(request)

    cluster.answer = refuse_deployments
    result = go(cluster, **everything(manifest))
    assert result["failed"]
    assert "no room" in result["msg"]
    assert [each["action"] for each in result["changes"]] == ["create CRD"] * 6 + ["create"]
    cluster.answer = allowed
    rest = go(cluster, **everything(manifest))
    assert [each["target"].partition(" ")[0] for each in rest["changes"]] == [
        "Deployment", "StorageClass", "VolumeSnapshotClass", "VolumeGroupSnapshotClass"]  # fmt: skip


def test_a_controller_that_does_not_start_is_an_error_in_the_words_of_its_pods(certificate, manifest):
    def broken(cluster, word, plural, item):
        if plural == "deployments" and word == "ADDED":
            waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"'}
            labels = item["spec"]["template"]["metadata"]["labels"]
            cluster.put(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": "snapshot-controller-1", "namespace": "kube-system", "labels": labels},
                    "status": {"containerStatuses": [{"state": {"waiting": waiting}}]},
                }
            )
        elif plural != "deployments":
            kubelet(cluster, word, plural, item)

    with bare(FakeCluster(certificate, broken)) as fake:
        result = go(fake, manifests=[{"source": str(manifest)}], wait_timeout=6)
    assert result["failed"]
    assert 'snapshot-controller-1: ImagePullBackOff Back-off pulling image "x"' in result["msg"]
    assert len(result["changes"]) == 8


def test_a_crd_that_is_never_established_is_an_error_in_the_server_s_words(certificate, manifest):
    def stubborn(cluster, word, plural, item):
        if plural == "customresourcedefinitions" and word == "ADDED":
            taken = {"type": "NamesAccepted", "status": "False", "message": '"volumesnapshots" is already in use'}
            cluster.change(item, {"status": {"conditions": [taken]}})

    with bare(FakeCluster(certificate, stubborn)) as fake:
        result = go(fake, manifests=[{"source": str(manifest)}], wait_timeout=6)
    assert '"volumesnapshots" is already in use after 6 s' in result["msg"]


# Where manifests come from


@pytest.fixture
def mirror(manifest):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_unused):
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(manifest.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{manifest.name}"
        server.shutdown()


def sum_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_url_is_downloaded_once_and_said(cluster, manifest, mirror):
    asked = {"manifests": [{"source": mirror, "sha256": sum_of(manifest)}]}
    assert go(cluster, **asked)["downloads"] == [mirror]
    manifest.unlink()
    again = go(cluster, **asked)
    assert (again["changed"], again["downloads"]) == (False, [])


@pytest.mark.parametrize(
    ("source", "sha256", "words"),
    [
        ("{url}", None, "it is a URL without sha256"),
        ("{url}", "0" * 64, "not 0000000000000000000000000000000000000000000000000000000000000000"),
        ("{url}", "xyz", "'xyz' is no SHA-256 sum"),
        ("{url}.gone", "0" * 64, "404"),
        ("{path}", "0" * 64, "not 0000000000000000000000000000000000000000000000000000000000000000"),
        ("{path}.gone", None, "No such file or directory"),
        ("crds.yaml", None, "it is neither an absolute path nor a URL"),
    ],
)
def test_a_source_that_cannot_be_trusted_or_had_is_a_sentence(cluster, manifest, mirror, source, sha256, words):
    before = len(cluster.objects)
    named = source.format(url=mirror, path=manifest)
    result = go(cluster, manifests=[{"source": named, "sha256": sha256}])
    assert result["failed"]
    assert words in result["msg"]
    assert result["msg"].startswith("Cannot ")
    assert len(cluster.objects) == before


def test_what_is_no_yaml_is_a_sentence(cluster, manifest):
    manifest.write_text("a: b: c")
    assert "mapping values are not allowed" in go(cluster, manifests=[{"source": str(manifest)}])["msg"]
