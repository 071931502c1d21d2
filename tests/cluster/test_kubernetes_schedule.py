# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Policies run by Kubernetes itself: what kubernetes_schedule_layout makes, and what its CronJobs do, on a real API.

There is no kubelet here. So the command line of a CronJob's container is run as a process, with the token of the
account that its pod would have, the agent from the ConfigMap, and no Python package beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.parse
from typing import Any

import pytest

from ansible_collections.restorepoint.core.tests.cluster.lab import CORE, RBAC, Failed
from ansible_collections.restorepoint.core.tests.cluster.scheduled import BATCH


def test_the_command_line_of_a_cron_job_takes_and_prunes_real_snapshots_as_its_account(schedule):
    cluster, namespace = schedule.cluster, schedule.namespace
    cluster.claims(namespace, ["db", "uploads"])
    result = schedule.set_up(schedule.policy)
    assert [each["name"] for each in result["jobs"]] == [f"{schedule.jobs}/restorepoint-shop"]
    first = schedule.record("restorepoint-shop")
    assert (first["outcome"], first["done"]) == ("done", {"created": 2})
    assert schedule.taken() == ["db", "uploads"]
    cluster.claims(namespace, ["new"])
    second = schedule.record("restorepoint-shop")
    assert second["done"] == {"created": 3, "removed": 2}
    cluster.until(lambda: schedule.taken() == ["db", "new", "uploads"], "the old snapshots are gone")
    _the_job_controller_makes_a_pod_of_it(schedule)
    _rights_are_enough_and_not_more(schedule, "restorepoint-shop", "shop")


def _the_job_controller_makes_a_pod_of_it(schedule):
    """A Job as CronJobs and ``kubectl create job --from`` make it gets a pod: pod security lets it in."""
    api, jobs = schedule.cluster.api, schedule.jobs
    labels = api.get(f"{CORE}/namespaces/{jobs}")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    template = schedule.cron_jobs()["restorepoint-shop"]["spec"]["jobTemplate"]
    api.create(f"{BATCH}/namespaces/{jobs}/jobs", {"metadata": {"name": "by-hand"}, "spec": template["spec"]})
    pods = schedule.cluster.until(
        lambda: api.items(f"{CORE}/namespaces/{jobs}/pods", labelSelector="job-name=by-hand"), "its pod is made"
    )
    container = pods[0]["spec"]["containers"][0]
    # The token is there, and nothing else beside what is mounted on purpose.
    mounted = {each["mountPath"] for each in container["volumeMounts"]}
    assert "/var/run/secrets/kubernetes.io/serviceaccount" in mounted
    assert len(mounted) == 4
    api.delete(f"{BATCH}/namespaces/{jobs}/jobs/by-hand", propagationPolicy="Background")


def _roles(schedule, job):
    """Return the paths of the roles of a job that are there."""
    name = urllib.parse.quote(f"restorepoint:{schedule.jobs}:{job}")
    paths = [f"{RBAC}/clusterroles/{name}", f"{RBAC}/namespaces/{schedule.namespace}/roles/{name}"]
    return [path for path in paths if schedule.cluster.api.find(path) is not None]


def _rights_are_enough_and_not_more(schedule, cron_job, job):
    """Take away one verb after the other: the job fails each time. What is granted is just those verbs."""
    wanted: set[tuple[str, str, str]] = set()
    for path in _roles(schedule, job):
        for verb, group, resource in schedule.without_each_right(path, cron_job, schedule.namespace):
            wanted.add((verb, group, resource))
            code, out, err = schedule.run(cron_job)
            # An event that cannot be made is told, and holds nothing up.
            assert code != 0 or resource == "events", f"it did without {verb} on {resource}: {out}{err}"
            assert resource in out + err
    assert schedule.granted(cron_job, schedule.namespace) == wanted
    assert schedule.run(cron_job)[0] == 0


def test_annotations_are_honoured_with_an_account_that_may_do_just_that(schedule):
    cluster, api, namespace = schedule.cluster, schedule.cluster.api, schedule.namespace
    cluster.claims(namespace, ["db", "uploads", "bad", "plain"])
    frequency, retention = (f"snapshot.alpha.kubernetes.io/{each}" for each in ("frequency", "retention"))
    asked = {"db": {frequency: "monthly", retention: "1"}, "bad": {frequency: "often"}}
    for name, wanted in asked.items():
        api.patch(cluster.claim_path(namespace, name), {"metadata": {"annotations": wanted}})
    api.patch(cluster.pod(namespace, "shop", "uploads"), {"metadata": {"annotations": {frequency: "monthly"}}})
    options = {"snapshot_class": cluster.snapshot_class} if cluster.snapshot_class else {}
    schedule.set_up(annotations={"namespaces": [namespace], **options})
    assert schedule.cron_jobs()["restorepoint-annotations"]["spec"]["schedule"] == "*/15 * * * *"
    # As long as a right lacks nothing is taken, so each run has something to do; the rights on events come last.
    _rights_are_enough_and_not_more(schedule, "restorepoint-annotations", "annotations")
    assert schedule.taken() == ["db", "uploads"]
    assert schedule.record("restorepoint-annotations")["done"] == {}
    (event,) = [
        each for each in api.items(f"{CORE}/namespaces/{namespace}/events")
        if each["reason"] == "InvalidSnapshotAnnotation"
    ]  # fmt: skip
    assert (event["involvedObject"]["kind"], event["involvedObject"]["name"]) == ("PersistentVolumeClaim", "bad")
    assert event["count"] > 1
    cluster.call("csi_snapshot", namespace=namespace, pvc=["db"], name="annotated-more", owner="annotated", **options)
    assert schedule.record("restorepoint-annotations")["done"] == {"removed": 1}
    cluster.until(lambda: schedule.taken() == ["db", "uploads"], "the older one is gone")


def test_what_is_not_wanted_any_more_goes_and_what_changed_is_changed(schedule):
    api, jobs = schedule.cluster.api, schedule.jobs
    other = {**schedule.policy, "name": "hand", "schedule": None}
    busy = {**schedule.policy, "schedule": {"calendar": ["Mon..Fri 08..20:00", "Sat,Sun 00/4:00"]}}
    schedule.set_up(busy, other, retries=0)
    cron = schedule.cron_jobs()
    assert {name: (each["spec"]["schedule"], each["spec"]["suspend"]) for name, each in cron.items()} == {
        "restorepoint-shop": ("0 8-20 * * 1-5", False),
        "restorepoint-shop-2": ("0 */4 * * 0,6", False),
        "restorepoint-hand": ("0 0 1 1 *", True),
    }
    assert all(each["spec"]["concurrencyPolicy"] == "Forbid" for each in cron.values())
    changed = schedule.set_up({**schedule.policy, "timezone": "Europe/Paris"}, tolerations=[{"operator": "Exists"}])
    assert {(each["action"], each["target"].split()[0]) for each in changed["changes"]} == {
        ("change", "CronJob"), ("change", "ConfigMap"), ("remove", "CronJob"), ("remove", "ServiceAccount"),
        ("remove", "Role"), ("remove", "RoleBinding"), ("remove", "ClusterRole"), ("remove", "ClusterRoleBinding"),
    }  # fmt: skip
    (cron_job,) = schedule.cron_jobs().values()
    assert cron_job["spec"]["timeZone"] == "Europe/Paris"
    # What somebody changed by hand comes back, and what is not wanted any more goes from inside an object as well.
    api.patch(f"{BATCH}/namespaces/{jobs}/cronjobs/restorepoint-shop", {"spec": {"suspend": True}})
    schedule.set_up(schedule.policy)
    spec = schedule.cron_jobs()["restorepoint-shop"]["spec"]
    assert spec["suspend"] is False
    assert "tolerations" not in spec["jobTemplate"]["spec"]["template"]["spec"]
    schedule.set_up()
    assert schedule.cron_jobs() == {}
    assert _roles(schedule, "shop") == []
    assert api.find(f"{CORE}/namespaces/{jobs}") is not None


def test_what_is_somebody_elses_stands_in_the_way_and_stays(schedule):
    api, jobs = schedule.cluster.api, schedule.jobs
    api.create(f"{CORE}/namespaces", {"metadata": {"name": jobs}})
    api.create(f"{CORE}/namespaces/{jobs}/configmaps", {"metadata": {"name": "restorepoint-agent"}, "data": {"a": "b"}})
    with pytest.raises(Failed) as caught:
        schedule.set_up(schedule.policy)
    assert "ConfigMap" in caught.value.result["msg"]
    assert "not made for scheduled policies" in caught.value.result["msg"]
    assert schedule.cron_jobs() == {}
    api.delete(f"{CORE}/namespaces/{jobs}/configmaps/restorepoint-agent")
    schedule.set_up(schedule.policy)
    assert "pod-security.kubernetes.io/enforce" not in api.get(f"{CORE}/namespaces/{jobs}")["metadata"]["labels"]


def test_claims_on_directories_get_a_job_on_their_node_that_sees_them_and_has_no_token(schedule):
    api, namespace = schedule.cluster.api, schedule.namespace
    _directory_claim(schedule, "data", "node-1", "/srv/volumes/data")
    _directory_claim(schedule, "logs", "node-2", "/srv/volumes/logs")
    target: dict[str, Any] = {"backend": "hostpath", "namespace": [namespace], "store": "/srv/store"}
    result = schedule.set_up({"name": "dirs", "targets": [target], "schedule": {"calendar": "daily"}})
    assert [(each["node"], each["mounts"]) for each in result["jobs"]] == [
        ("node-1", ["/srv/volumes/data", "/srv/store"]),
        ("node-2", ["/srv/volumes/logs", "/srv/store"]),
    ]
    assert {each["action"] for each in result["changes"]} == {"create"}
    assert not [each for each in result["changes"] if "Role" in each["target"]]
    for cron_job in schedule.cron_jobs().values():
        spec = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False
        (container,) = spec["containers"]
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        read_only = {each["mountPath"]: each.get("readOnly", False) for each in container["volumeMounts"]}
        assert read_only["/srv/store"] is False
    files = api.get(f"{CORE}/namespaces/{schedule.jobs}/configmaps/restorepoint-policies")["data"]
    assert sorted(json.loads(each)["policies"][0]["targets"][0]["path"][0] for each in files.values()) == [
        "/srv/volumes/data",
        "/srv/volumes/logs",
    ]


def test_on_a_host_a_policy_takes_lists_and_returns_claims_with_a_kubeconfig_and_no_package(schedule, tmp_path):
    cluster, namespace = schedule.cluster, schedule.namespace
    cluster.claim(namespace, "db", {"a": "old"})
    schedule.policy["targets"][0]["kubeconfig"] = str(cluster.kubeconfig_for(str(cluster.api.token)))
    (tmp_path / "policies.json").write_text(json.dumps({"policies": [schedule.policy]}))

    def agent(*argv):
        options = ["--policies", str(tmp_path / "policies.json"), "--state", str(tmp_path / "state")]
        command = [sys.executable, "-I", "-S", str(schedule.agent), *options, *argv]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    name = agent("run", "shop", "--json")["name"]
    cluster.write(namespace, "db", {"a": "new"})
    record = agent("rollback", "shop", name, "--yes", "--target", f"{namespace}/db", "--json")
    assert record["done"] == {"rolled_back": 1}
    assert cluster.read(namespace, "db") == {"a": "old"}
    listed = agent("list", "--json")
    assert {each["target"] for each in listed} == {f"csi:{namespace}/db"}
    assert [each["name"] for each in listed if not each["name"].startswith("aside-")] == [name]
    assert len(listed) == 2  # and what was there before the return
    assert [each["ok"] for each in agent("verify", "shop", "--json")] == [True]


def _directory_claim(schedule, name, node, path):
    """Make a claim that is bound to a volume which is a directory of a node."""
    api, namespace = schedule.cluster.api, schedule.namespace
    volume = f"{namespace}-{name}"
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
    common = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    api.create(f"{CORE}/persistentvolumes", {
        "metadata": {"name": volume},
        "spec": {
            **common, "capacity": {"storage": "1Gi"}, "hostPath": {"path": path},
            "claimRef": {"namespace": namespace, "name": name},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        },
    })  # fmt: skip
    api.create(schedule.cluster.claim_path(namespace), {
        "metadata": {"name": name},
        "spec": {**common, "resources": {"requests": {"storage": "1Gi"}}, "volumeName": volume},
    })  # fmt: skip
    schedule.cluster.bound(namespace, name)
