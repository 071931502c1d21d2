# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Workloads that use claims are found, stopped and brought back, on the controllers of a real control plane."""

from __future__ import annotations

import time

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.workloads import (
    Workloads,
    permissions,
    pods_of,
)
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.workloads.kinds import MARK
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import RestorePointError
from ansible_collections.restorepoint.core.plugins.module_utils.deadline import Deadline
from ansible_collections.restorepoint.core.tests.cluster.lab import APPS, CORE, pod_spec
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.mortal import Killed, Mortal

BATCH = "/apis/batch/v1"
HPAS = "/apis/autoscaling/v2"
#: A schedule that starts no pod of its own among those that are counted, at whatever hour the tests run.
NEVER = "0 3 29 2 *"


def mortal(kubeconfig, last=None, heard=False):
    """Return a login that dies before its nth request, or after it without having heard the answer."""
    return Mortal({"kubeconfig": str(kubeconfig)}, last, heard, patience=30.0)


class Shop:
    """A namespace with a claim, and the workloads of each kind that use it."""

    def __init__(self, cluster, namespace):
        self.cluster, self.api, self.namespace = cluster, cluster.api, namespace
        self.target = f"{namespace}/data"
        cluster.claim(namespace, "data")

    def path(self, plural, name="", group=APPS):
        return f"{group}/namespaces/{self.namespace}/{plural}{'/' if name else ''}{name}"

    def cron_job(self, name, suspend=False, schedule=NEVER):
        job = {"template": {"spec": {**pod_spec("data"), "restartPolicy": "Never"}}, "backoffLimit": 0}
        spec = {"schedule": schedule, "suspend": suspend, "jobTemplate": {"spec": job}}
        self.api.create(self.path("cronjobs", group=BATCH), {"metadata": {"name": name}, "spec": spec})
        return self.path("cronjobs", name, BATCH)

    def job(self, name):
        spec = {"template": {"spec": {**pod_spec("data"), "restartPolicy": "Never"}}, "backoffLimit": 0}
        self.api.create(self.path("jobs", group=BATCH), {"metadata": {"name": name}, "spec": spec})
        return self.path("jobs", name, BATCH)

    def all_kinds(self):
        """Make one of each kind and wait for their pods; return the paths."""
        make = self.cluster.deployment
        paths = [
            make(self.namespace, "web", "data", replicas=2),
            make(self.namespace, "db", "data", kind="StatefulSet"),
            make(self.namespace, "logs", "data", kind="DaemonSet"),
            self.cron_job("nightly"),
        ]
        self.up(4)
        return paths

    def up(self, count):
        self.cluster.until(lambda: len(self.pods("Running")) == count, f"{count} pods run")

    def pods(self, phase=None):
        found = self.api.items(self.path("pods", group=CORE))
        return [
            each["metadata"]["name"]
            for each in found
            if phase in (None, each["status"].get("phase")) and not each["metadata"].get("deletionTimestamp")
        ]

    def specs(self, paths):
        """Return what is asked for, without what Kubernetes itself counts."""
        return [self.api.get(path)["spec"] for path in paths]

    def marked(self, paths):
        found = [self.api.get(path)["metadata"] for path in paths]
        return [each["name"] for each in found if MARK in each.get("labels", {}) or MARK in each.get("annotations", {})]

    def workloads(self, run="run-1", seconds=180.0, client=None, **more):
        return Workloads(client or mortal(self.cluster.kubeconfig), run, Deadline(seconds), **more)


@pytest.fixture
def shop(cluster, namespace):
    return Shop(cluster, namespace)


def test_each_kind_is_stopped_until_its_pods_are_gone_and_brought_back(shop):
    with shop.cluster.node(shop.namespace, grace=0.5):
        paths = shop.all_kinds()
        before = shop.specs(paths)
        one = shop.workloads()
        users = one.users([shop.target])
        assert [each.title.split("/")[-1] for each in users.workloads] == ["nightly", "web", "db", "logs"]
        assert {each.lifted_by for each in users.blockers[shop.target]} == {"stop_workloads"}
        stopped = one.stop(users)
        assert pods_of(mortal(shop.cluster.kubeconfig), [shop.target]) == {shop.target: []}
        assert len(shop.marked(paths)) == 4
        time.sleep(1)
        assert shop.pods() == []
        reports = one.start_again(stopped, wait_ready=180.0)
        assert [each["ready"] for each in reports] == [True] * 4
        assert shop.specs(paths) == before
        assert shop.marked(paths) == []
        shop.up(4)
        assert one.users([shop.target]).left == ()


def test_a_claim_is_free_once_its_workloads_are_stopped(shop):
    """What a return in place needs: the old claim goes at once, whatever had used it, finished pods as well."""
    with shop.cluster.node(shop.namespace, grace=0.2) as node:
        shop.all_kinds()
        shop.job("once")
        shop.up(5)
        job_pod = next(each for each in shop.pods() if each.startswith("once"))
        node.finish(job_pod)
        job = shop.path("jobs", "once", BATCH)
        shop.api.wait(job, lambda found: found and found["status"].get("succeeded") == 1)
        one = shop.workloads()
        users = one.users([shop.target])
        assert [each.reason for each in users.blockers[shop.target] if job_pod in each.reason] == [
            f"pod {job_pod} on node lab has finished (Succeeded), and Kubernetes keeps a claim for as long as a pod "
            "names it"
        ]
        stopped = one.stop(users)
        assert stopped.removed_pods == [f"{shop.namespace}/{job_pod}"]
        shop.api.delete(shop.cluster.claim_path(shop.namespace, "data"))
        shop.api.gone(shop.cluster.claim_path(shop.namespace, "data"))


def test_kubernetes_keeps_a_claim_for_a_finished_pod_that_had_a_node_and_not_for_a_pod_without_one(shop):
    """Why finished pods are removed, and why pods without a node are waited for by us: Kubernetes does neither."""
    with shop.cluster.node(shop.namespace) as node:
        pod = shop.cluster.pod(shop.namespace, "done", "data")
        shop.up(1)
        node.finish("done")
    claim = shop.cluster.claim_path(shop.namespace, "data")
    shop.api.delete(claim)
    time.sleep(2)
    assert shop.api.get(claim)["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    shop.api.delete(pod, gracePeriodSeconds=0)
    shop.api.gone(claim)
    shop.cluster.claim(shop.namespace, "data")
    shop.cluster.pod(shop.namespace, "waiting", "data")
    shop.api.delete(claim)
    shop.api.gone(claim)


def test_a_stateful_set_that_deletes_the_claims_it_is_scaled_down_from_keeps_them_meanwhile(shop):
    templates = [
        {
            "metadata": {"name": "files"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
        }
    ]
    labels = {"app": "db"}
    pod = {"containers": [{"name": "main", "image": "none", "volumeMounts": [{"name": "files", "mountPath": "/f"}]}]}
    spec = {
        "replicas": 2,
        "serviceName": "db",
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {**pod, "terminationGracePeriodSeconds": 1}},
        "volumeClaimTemplates": templates,
        "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Retain"},
    }
    path = shop.path("statefulsets", "db")
    with shop.cluster.node(shop.namespace):
        shop.api.create(shop.path("statefulsets"), {"metadata": {"name": "db"}, "spec": spec})
        shop.up(2)
        claims = [f"{shop.namespace}/files-db-{number}" for number in range(2)]
        uids = [shop.api.get(shop.cluster.claim_path(*each.split("/")))["metadata"]["uid"] for each in claims]
        one = shop.workloads()
        stopped = one.stop(one.users(claims))
        time.sleep(2)
        one.start_again(stopped, wait_ready=30.0)
        shop.up(2)
        assert shop.api.get(path)["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"] == "Delete"
        found = [shop.api.get(shop.cluster.claim_path(*each.split("/")))["metadata"] for each in claims]
        assert [each["uid"] for each in found] == uids
        assert not any(each.get("deletionTimestamp") for each in found)


def test_an_autoscaler_leaves_a_stopped_workload_alone_and_is_not_touched(shop):
    with shop.cluster.node(shop.namespace):
        web = shop.cluster.deployment(shop.namespace, "web", "data", replicas=3)
        aim = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
        spec = {"scaleTargetRef": aim, "minReplicas": 2, "maxReplicas": 5}
        path = shop.path("horizontalpodautoscalers", "web", HPAS)
        shop.api.create(shop.path("horizontalpodautoscalers", group=HPAS), {"metadata": {"name": "web"}, "spec": spec})
        shop.up(3)
        before = shop.api.get(path)["spec"]
        one = shop.workloads()
        stopped = one.stop(one.users([shop.target]))

        def disabled(found):
            conditions = (found or {}).get("status", {}).get("conditions", [])
            return [each for each in conditions if each["reason"] == "ScalingDisabled"]

        shop.api.wait(path, disabled)
        assert shop.api.get(web)["spec"]["replicas"] == 0
        one.start_again(stopped, wait_ready=30.0)
        assert shop.api.get(web)["spec"]["replicas"] == 3
        assert shop.api.get(path)["spec"] == before


def test_a_rollback_does_not_bring_a_record_back(shop):
    """The annotation of a Deployment is copied to its ReplicaSet, and comes from there with kubectl rollout undo."""
    with shop.cluster.node(shop.namespace):
        web = shop.cluster.deployment(shop.namespace, "web", "data", replicas=1)
        shop.up(1)
        one = shop.workloads()
        stopped = one.stop(one.users([shop.target]))
        group = shop.api.items(shop.path("replicasets"))[0]
        shop.cluster.until(
            lambda: MARK in shop.api.items(shop.path("replicasets"))[0]["metadata"]["annotations"], "it is copied"
        )
        one.start_again(stopped, wait_ready=30.0)
        copied = shop.api.get(shop.path("replicasets", group["metadata"]["name"]))["metadata"]
        assert MARK not in copied.get("labels", {})
        # What kubectl rollout undo does with the annotations of the ReplicaSet that it goes back to.
        shop.api.patch(web, {"metadata": {"annotations": {MARK: copied["annotations"][MARK]}}, "spec": {"replicas": 0}})
        shop.cluster.until(lambda: not shop.pods(), "it is scaled down by hand")
        assert shop.workloads().users([shop.target]).left == ()


def test_bare_pods_and_running_jobs_block_and_nothing_lifts_that(shop):
    with shop.cluster.node(shop.namespace):
        shop.cluster.pod(shop.namespace, "alone", "data")
        shop.job("once")
        shop.up(2)
        found = shop.workloads().users([shop.target]).blockers[shop.target]
        assert {each.lifted_by for each in found} == {None}
        assert any("pod alone on node lab is Running" in each.reason for each in found)
        assert any(f"Job {shop.namespace}/once runs" in each.reason for each in found)


def test_the_job_of_a_cron_job_is_found_and_the_cron_job_suspended(shop):
    with shop.cluster.node(shop.namespace) as node:
        nightly = shop.cron_job("nightly")
        metadata = shop.api.get(nightly)["metadata"]
        owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly", "uid": metadata["uid"]}
        spec = {"template": {"spec": {**pod_spec("data"), "restartPolicy": "Never"}}}
        made = {"metadata": {"name": "nightly-1", "ownerReferences": [{**owner, "controller": True}]}, "spec": spec}
        shop.api.create(shop.path("jobs", group=BATCH), made)
        shop.up(1)
        one = shop.workloads()
        users = one.users([shop.target])
        assert [each.name for each in users.workloads] == ["nightly"]
        assert any("Job" in each.reason and each.lifted_by is None for each in users.blockers[shop.target])
        for pod in shop.pods():
            node.finish(pod)
        shop.api.wait(
            shop.path("jobs", "nightly-1", BATCH), lambda found: found and found["status"].get("succeeded") == 1
        )
        stopped = one.stop(one.users([shop.target]))
        assert shop.api.get(nightly)["spec"]["suspend"] is True
        one.start_again(stopped)
        assert shop.api.get(nightly)["spec"]["suspend"] is False


# Killed, and run again


@pytest.mark.parametrize("heard", [False, True], ids=["before", "after"])
def test_killed_at_any_request_and_run_again_everything_is_as_it_was(shop, heard):
    with shop.cluster.node(shop.namespace):
        paths = shop.all_kinds()
        before = shop.specs(paths)
        for last in range(100):
            shop.up(4)
            client = mortal(shop.cluster.kubeconfig, last, heard)
            one = shop.workloads(client=client)
            try:
                one.start_again(one.stop(one.users([shop.target])))
                break
            except Killed:
                again = shop.workloads()
                # Every second time nothing is stopped anew: what is left is only brought back.
                users = again.users([shop.target])
                again.start_again(again.stop(users) if last % 2 else users.left)
            assert shop.specs(paths) == before
            assert shop.marked(paths) == []
        else:
            pytest.fail("the run never came to its end")
        assert shop.specs(paths) == before
        assert last >= 15


# Two at once, and people


def test_of_two_runs_at_once_the_second_one_refuses_and_the_first_one_ends_well(shop):
    with shop.cluster.node(shop.namespace):
        paths = shop.all_kinds()
        before = shop.specs(paths)
        one, two = shop.workloads("run-1"), shop.workloads("run-2")
        late = two.users([shop.target])
        stopped = one.stop(one.users([shop.target]))
        with pytest.raises(RestorePointError, match="run run-1 has stopped CronJob"):
            two.stop(late)
        blockers = two.users([shop.target]).blockers[shop.target]
        assert len(blockers) == 4
        assert {each.lifted_by for each in blockers} == {None}
        assert shop.pods() == []
        one.start_again(stopped, wait_ready=30.0)
        assert shop.specs(paths) == before


def test_what_somebody_scales_meanwhile_stays_so(shop):
    with shop.cluster.node(shop.namespace):
        web = shop.cluster.deployment(shop.namespace, "web", "data", replicas=3)
        shop.up(3)
        one = shop.workloads()
        stopped = one.stop(one.users([shop.target]))
        shop.api.patch(f"{web}/scale", {"spec": {"replicas": 1}})
        assert [each["outcome"] for each in one.start_again(stopped)] == ["changed by hand"]
        assert shop.api.get(web)["spec"]["replicas"] == 1
        assert shop.marked([web]) == []


def test_pods_that_hang_are_named_and_all_is_brought_back(shop):
    with shop.cluster.node(shop.namespace):
        paths = shop.all_kinds()
        before = shop.specs(paths)
        stuck = next(each for each in shop.pods() if each.startswith("web"))
        held = {"metadata": {"finalizers": ["example.com/slow"]}}
        shop.api.patch(shop.path("pods", stuck, CORE), held)
        one = shop.workloads(seconds=20.0)
        with pytest.raises(RestorePointError) as caught:
            one.stop(one.users([shop.target]))
        assert f"pod {stuck} on node lab is being deleted since" in str(caught.value)
        assert "held by example.com/slow" in str(caught.value)
        assert shop.specs(paths) == before
        assert shop.marked(paths) == []
        shop.api.patch(shop.path("pods", stuck, CORE), {"metadata": {"finalizers": None}})
        shop.up(4)


# What goes wrong with the server


def test_a_busy_server_and_cut_connections_are_survived(shop, proxy):
    with shop.cluster.node(shop.namespace, grace=1.0):
        paths = shop.all_kinds()
        before = shop.specs(paths)
        client = mortal(shop.cluster.through(proxy))
        one = shop.workloads(client=client)
        proxy.tell("answer", verb="GET", path="deployments", times=2, status=429, retry_after=1)
        users = one.users([shop.target])
        proxy.tell("cut_after", verb="PATCH", path="deployments")
        proxy.tell("cut_before", verb="PATCH", path="statefulsets")
        proxy.tell("answer", verb="PATCH", path="daemonsets", times=1, status=500)
        proxy.tell("close", verb="WATCH", path="pods", times=2, seconds=0.1)
        stopped = one.stop(users)
        proxy.tell("cut_after", verb="PATCH", path="statefulsets")
        one.start_again(stopped, wait_ready=60.0)
        assert shop.specs(paths) == before
        assert shop.marked(paths) == []


RULES = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch", "delete"]},
    {"apiGroups": ["", "apps", "batch"], "resources": ["replicationcontrollers"], "verbs": ["get", "list", "patch"]},
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["list"]},
    {"apiGroups": ["batch"], "resources": ["cronjobs"], "verbs": ["get", "list", "patch"]},
    {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["list"]},
    {
        "apiGroups": ["apps"],
        "resources": ["deployments", "statefulsets", "daemonsets", "replicasets"],
        "verbs": ["get", "list", "patch"],
    },
]


def test_the_rights_that_are_asked_for_are_enough_and_a_missing_one_is_named(shop):
    wanted = {(each.resource.group, each.resource.plural, each.verb) for each in permissions(shop.namespace, stop=True)}
    given = {
        (group, plural, verb)
        for rule in RULES
        for group in rule["apiGroups"]
        for plural in rule["resources"]
        for verb in rule["verbs"]
    }
    assert wanted <= given
    with shop.cluster.node(shop.namespace):
        paths = shop.all_kinds()
        before = shop.specs(paths)
        user = shop.cluster.user(shop.namespace, RULES)
        client = mortal(user.kubeconfig)
        assert client.denied(permissions(shop.namespace, stop=True)) == []
        one = shop.workloads(client=client)
        users = one.users([shop.target])
        assert users.warnings[shop.target] == ()
        one.start_again(one.stop(users))
        assert shop.specs(paths) == before
        few = shop.cluster.user(shop.namespace, RULES[:5])
        client = mortal(few.kubeconfig)
        denied = client.denied(permissions(shop.namespace, stop=True))
        assert f"patch on deployments.apps in namespace {shop.namespace}" in [str(each) for each in denied]
        blockers = shop.workloads(client=client).users([shop.target]).blockers[shop.target]
        assert any("allow list on replicasets.apps" in each.remedy for each in blockers)
