# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks for clusters, as jobs of AWX on a real control plane: text from surveys, check mode, artifacts."""

from __future__ import annotations

import json
import os
import sys

import pytest

from ansible_collections.restorepoint.core.tests.cluster.lab import CHECKOUT, User
from ansible_collections.restorepoint.core.tests.runner.jobs import Controller

DRIVER = "folders.restorepoint.test"
pytestmark = pytest.mark.skipif(
    bool(os.environ.get("KUBECONFIG_LAB")), reason="needs the driver of the project's cluster"
)


@pytest.fixture
def play(cluster, tmp_path):
    """Play a playbook as a job with the credential of the administrator, or of the kubeconfig that is named."""

    def run(playbook, survey, kubeconfig=None, **options):
        login = {"K8S_AUTH_KUBECONFIG": str(kubeconfig or cluster.kubeconfig)}
        return Controller(tmp_path).play(playbook, survey, credential=login, **options)

    return run


def test_claims_are_taken_returned_copied_and_pruned_as_jobs_foretell(cluster, namespace, play):
    cluster.claim(namespace, "db", {"a": "one"})
    claims = {"csi_namespace": namespace, "csi_claims": " db", "csi_selector": ""}
    taking = {**claims, "restore_point": "before", "csi_owner": "", "csi_group": "false", "csi_max_age": ""}
    expected = {"restore_point": "before", "restore_point_claims": [f"{namespace}/db"]}
    foretold = play("csi_take_restore_point", taking, check=True).well()
    assert (foretold.changed, foretold.artifacts) == (1, expected)
    assert cluster.snapshots(namespace) == []
    taken = play("csi_take_restore_point", taking).well()
    assert (taken.changed, taken.artifacts) == (1, expected)
    cluster.write(namespace, "db", {"a": "two"})

    returning = {**claims, "restore_point": "before", "csi_stop_workloads": "", "csi_undo": "false"}
    foretold = play("csi_roll_back_claims", returning, check=True).well()
    assert list(foretold.artifacts["csi_returned_claims"]) == [f"{namespace}/db"]
    copying = {**claims, "restore_point": "before", "csi_suffix": ""}
    foretold = play("csi_restore_into_new_claims", copying, check=True).well()
    assert foretold.artifacts == {"csi_restored_claims": ["db-restored"]}
    pruning = {**claims, "csi_owner": "maintenance", "csi_keep_last": "1", "csi_keep_daily": "", "csi_keep_asides": ""}
    foretold = play("csi_prune_by_policy", pruning, check=True).well()
    assert (foretold.changed, foretold.artifacts["csi_pruned_changed"]) == (0, False)
    assert cluster.read(namespace, "db") == {"a": "two"}


def test_policies_and_classes_for_a_cluster_are_text_and_only_foretold(cluster, namespace, play):
    policy = {
        "name": "nightly",
        "targets": [{"backend": "csi", "namespace": namespace}],
        "schedule": {"cron": "@daily"},
    }
    survey = {"policies": json.dumps([policy]), "kube_annotations": "false", "kube_connection": ""}
    foretold = play("kubernetes_schedule", survey, check=True).well()
    assert foretold.artifacts == {"kubernetes_jobs": ["restorepoint/restorepoint-nightly"]}
    driver = f"{{kind: csi_hostpath, driver: {DRIVER}, name: jobs-{namespace}}}"
    asked = {"csi_driver": driver, "csi_connection": "", "csi_snapshots_install_controller": "false"}
    foretold = play("csi_set_up_cluster", asked, check=True).well()
    assert f"StorageClass jobs-{namespace}" in " ".join(foretold.artifacts["csi_set_up_changes"])
    assert cluster.api.find(f"/apis/storage.k8s.io/v1/storageclasses/jobs-{namespace}") is None


def test_the_checklist_ticks_a_cluster_off_and_names_what_it_lacks(cluster, namespace, play):
    survey = {
        "target": "none_of_them",
        "checklist_cluster": "true",
        "checklist_controller": "no",  # it runs beside the cluster here
        "checklist_namespace": namespace,
    }
    well = play("checklist", {**survey, "csi_driver": ""}).well()
    assert (well.changed, well.artifacts["checklist_ticked"], well.artifacts["checklist_to_do"]) == (0, 2, [])
    driver = f"{{kind: csi_hostpath, driver: {DRIVER}, name: jobs-{namespace}}}"
    lacking = play("checklist", {**survey, "csi_driver": driver}).well()
    (line,) = lacking.artifacts["checklist_to_do"]
    assert f"create StorageClass jobs-{namespace}" in line
    assert line.endswith("; play restorepoint.core.csi_set_up_cluster")
    nobody = User(cluster, namespace, "default").kubeconfig
    denied = play("checklist", {**survey, "checklist_strict": "true"}, kubeconfig=nobody)
    assert denied.status == "failed"
    assert "give the account the rights of docs/security.md" in denied.artifacts["checklist_to_do"][1]


#: A check of a claim, by its files on disk: it is told the cluster, the claim and what file "a" has to hold.
LOOK = """
import pathlib, sys
tools, name, claim, wanted = sys.argv[1:]
sys.path.insert(0, tools)
from cluster import Cluster
found, (namespace, claim) = Cluster(name), claim.split("/")
volume = found.api().get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}")["spec"]["volumeName"]
handle = found.api().get(f"/api/v1/persistentvolumes/{volume}")["spec"]["csi"]["volumeHandle"]
text = (found.data / "volumes" / handle / "a").read_text()
sys.exit(0 if text == wanted else f"{claim} holds {text}, not {wanted}")
"""


def looking_for(cluster, folder, text):
    """Return a command, as a survey has it, that checks what lies in the claim of a drill."""
    (folder / "look.py").write_text(LOOK)
    tools = str(CHECKOUT / "tools")
    return json.dumps([sys.executable, str(folder / "look.py"), tools, cluster.own.cluster.name, "{claim}", text])


def claims(cluster, namespace):
    return sorted(each["metadata"]["name"] for each in cluster.api.items(cluster.claim_path(namespace)))


def test_a_drill_restores_a_claim_beside_it_checks_what_lies_there_and_removes_it(cluster, namespace, play, tmp_path):
    cluster.claim(namespace, "db", {"a": "one"})
    cluster.call("csi_snapshot", namespace=namespace, pvc=["db"], name="before", kubeconfig=str(cluster.kubeconfig))
    cluster.write(namespace, "db", {"a": "damaged"})
    survey = {"csi_namespace": namespace, "csi_claims": " db,", "restore_point": "", "csi_owner": ""}
    foretold = play("csi_drill", survey, check=True).well()
    (each,) = foretold.artifacts["csi_drilled"]
    assert (foretold.changed, each["target"], each["name"]) == (0, f"csi:{namespace}/db", "before")
    metrics = tmp_path / "drill.prom"
    kept = {"csi_drill_state": str(tmp_path / "state"), "csi_drill_metrics": str(metrics), "csi_max_age": "1d"}
    done = play("csi_drill", {**survey, **kept, "csi_drill_command": looking_for(cluster, tmp_path, "one")}).well()
    (each,) = done.artifacts["csi_drilled"]
    assert (each["ok"], each["name"], done.artifacts["csi_drilled_faults"]) == (True, "before", 0)
    assert each["seconds"] >= each["restore_seconds"] > 0
    assert 'command="drill"' in metrics.read_text()
    assert (claims(cluster, namespace), cluster.read(namespace, "db")) == (["db"], {"a": "damaged"})


def test_a_drill_that_finds_something_else_fails_says_what_and_leaves_nothing(cluster, namespace, tmp_path):
    cluster.claim(namespace, "db", {"a": "spoilt"})
    cluster.call("csi_snapshot", namespace=namespace, pvc=["db"], name="before", kubeconfig=str(cluster.kubeconfig))
    administrator = cluster.own.cluster
    token = {
        "K8S_AUTH_HOST": administrator.server,
        "K8S_AUTH_API_KEY": administrator.token,
        "K8S_AUTH_SSL_CA_CERT": str(administrator.ca),
        "K8S_AUTH_VERIFY_SSL": "True",
        "TMPDIR": str(tmp_path),
    }
    survey = {"csi_namespace": namespace, "csi_claims": "", "restore_point": "before", "csi_drill_wait": "120"}
    told = {**survey, "csi_drill_command": looking_for(cluster, tmp_path, "one")}
    failed = Controller(tmp_path).play("csi_drill", told, credential=token)
    assert (failed.status, failed.artifacts["csi_drilled_faults"]) == ("failed", 1)
    assert "holds spoilt, not one" in failed.artifacts["csi_drilled"][0]["fault"]
    assert administrator.token not in failed.output
    assert claims(cluster, namespace) == ["db"]
    assert list(tmp_path.glob("restorepoint-drill.*")) == []
