# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who uses a claim: from what lies in a namespace to workloads that can be stopped, and what stands in the way."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.workloads.kinds import (
    CONTROLLERS,
    SCALED_OBJECTS,
)
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.workloads.records import (
    Record,
    Terms,
    written,
)
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.workloads.using import (
    Seen,
    Users,
    merged,
    users_of,
)
from ansible_collections.restorepoint.core.plugins.module_utils.kube_resources import (
    AUTOSCALERS,
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    JOBS,
    REPLICA_SETS,
    STATEFUL_SETS,
    Resource,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.backends.csi.things import (
    NAMESPACE,
    autoscaler,
    cron_job,
    daemon_set,
    deployment,
    job,
    owner,
    pod,
    replica_set,
    stateful_set,
    thing,
)

RESOURCES = {
    each.kind: each
    for each in (
        *(DEPLOYMENTS, STATEFUL_SETS, DAEMON_SETS, REPLICA_SETS, CONTROLLERS, JOBS, CRON_JOBS),
        *(AUTOSCALERS, SCALED_OBJECTS),
    )
}
TERMS = Terms("run-1", now=1000.0, until=2000.0)


def seen(*items: dict[str, Any], unseen: tuple[Resource, ...] = ()) -> Seen:
    pods = [each for each in items if each["kind"] == "Pod"]
    objects: dict[Resource, list[dict[str, Any]]] = {}
    for each in items:
        if each["kind"] in RESOURCES:
            objects.setdefault(RESOURCES[each["kind"]], []).append(each)
    return Seen(NAMESPACE, pods, objects, frozenset(unseen))


def found(*items: dict[str, Any], claims: tuple[str, ...] = ("data",), **more: Any) -> Users:
    return users_of(seen(*items, **more), claims, TERMS)


def titles(users: Users) -> list[str]:
    return [each.title for each in users.workloads]


def hard(users: Users, claim: str = "data") -> list[str]:
    """Return the blockers that no option lifts."""
    return [str(each) for each in users.blockers[f"{NAMESPACE}/{claim}"] if each.lifted_by is None]


def soft(users: Users, claim: str = "data") -> list[str]:
    return [str(each) for each in users.blockers[f"{NAMESPACE}/{claim}"] if each.lifted_by == "stop_workloads"]


def test_a_pod_is_traced_through_its_replica_set_to_its_deployment():
    web = deployment("web", "data")
    group = replica_set("web-abc", "data", by=web)
    users = found(web, group, pod("web-1", "data", by=group), pod("web-2", "data", by=group))
    assert titles(users) == ["Deployment shop/web"]
    assert users.workloads[0].pods == ("web-1", "web-2")
    assert hard(users) == []
    assert soft(users) == [
        "shop/data: Deployment shop/web uses it (pods web-1, web-2) (stop it, or set stop_workloads: true)"
    ]


def test_many_pods_are_counted_and_not_all_named():
    web = deployment("web", "data")
    users = found(web, *(pod(f"web-{number}", "data", by=web) for number in range(6)))
    assert "(pods web-0, web-1, web-2 and 3 more)" in soft(users)[0]


@pytest.mark.parametrize(
    ("workload", "title"),
    [
        (deployment("a", "data"), "Deployment shop/a"),
        (replica_set("a", "data"), "ReplicaSet shop/a"),
        (thing("ReplicationController", "a", replicas=1), "ReplicationController shop/a"),
        (daemon_set("a", "data"), "DaemonSet shop/a"),
        (stateful_set("a", "other"), "StatefulSet shop/a"),
    ],
)
def test_each_kind_of_workload_is_found_by_a_pod_of_it(workload, title):
    users = found(workload, pod("a-1", "data", by=workload))
    assert titles(users) == [title]
    assert hard(users) == []


@pytest.mark.parametrize("phase", ["Running", "Pending", "Unknown"])
def test_an_unscheduled_pod_is_a_user_as_well(phase):
    users = found(pod("p", "data", phase=phase, node=None))
    assert "pod p without a node" in hard(users)[0]


def test_a_pod_that_names_another_claim_is_no_user():
    assert found(pod("p", "data-2"), deployment("web", "dat")).blockers == {"shop/data": ()}


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_pod_that_had_a_node_keeps_the_claim(phase):
    users = found(pod("p", "data", phase=phase))
    assert hard(users) == []
    assert soft(users) == [
        f"shop/data: pod p on node node-1 has finished ({phase}), and Kubernetes keeps a claim for as long as a pod "
        "names it (delete that pod (kubectl -n shop delete pod p), or set stop_workloads: true)"
    ]
    assert [each["metadata"]["name"] for each in users.finished] == ["p"]


def test_a_finished_pod_that_never_had_a_node_keeps_nothing():
    assert found(pod("p", "data", phase="Failed", node=None)) == found()


def test_a_bare_pod_blocks_and_no_option_lifts_that():
    assert hard(found(pod("p", "data"))) == [
        "shop/data: pod p on node node-1 is Running, and nothing would bring it back "
        "(delete it (kubectl -n shop delete pod p), and make it again after)"
    ]


def test_a_bare_pod_on_its_way_out_can_be_waited_for():
    users = found(pod("p", "data", deleted=True, finalizers=["example.com/slow"]))
    assert hard(users) == []
    assert "is being deleted since 2026-11-26T11:00:00Z and is held by example.com/slow" in soft(users)[0]


def test_a_running_job_blocks_and_its_cron_job_is_to_be_suspended():
    nightly = cron_job("nightly", "data")
    tonight = job("nightly-1", "data", by=nightly)
    users = found(nightly, tonight, pod("nightly-1-x", "data", by=tonight))
    assert titles(users) == ["CronJob shop/nightly"]
    assert hard(users) == [
        "shop/data: Job shop/nightly-1 runs (pod nightly-1-x on node node-1 is Running) "
        "(wait until it has finished, or delete it (kubectl -n shop delete job nightly-1))"
    ]


def test_a_job_between_two_pods_blocks_as_well():
    assert "Job shop/once is not finished" in hard(found(job("once", "data")))[0]


@pytest.mark.parametrize(
    "done", [job("j", "data", ended="Complete"), job("j", "data", ended="Failed"), job("j", "data", suspend=True)]
)
def test_a_job_that_has_ended_or_is_suspended_is_no_user(done):
    assert found(done) == found()


def test_a_pod_that_leaves_an_ended_job_is_waited_for():
    done = job("j", "data", ended="Failed")
    users = found(done, pod("j-1", "data", by=done, deleted=True))
    assert hard(users) == []
    assert "is being deleted" in soft(users)[0]


def test_a_cron_job_that_uses_the_claim_is_found_without_any_job():
    assert titles(found(cron_job("nightly", "data"))) == ["CronJob shop/nightly"]
    assert titles(found(cron_job("nightly", "data", suspend=True))) == []


def test_what_is_about_to_make_pods_is_a_user_and_what_has_no_replicas_is_not():
    users = found(deployment("new", "data"), deployment("none", "data", replicas=0))
    assert titles(users) == ["Deployment shop/new"]
    assert "Deployment shop/new uses it, and is about to make a pod" in soft(users)[0]


def test_replicas_that_nobody_wrote_are_one():
    assert titles(found(deployment("web", "data", replicas=None))) == ["Deployment shop/web"]


def test_a_daemon_set_for_which_there_is_no_node_is_no_user():
    idle = daemon_set("logs", "data")
    idle["metadata"]["generation"] = 3
    idle["status"] = {"observedGeneration": 3, "desiredNumberScheduled": 0}
    assert titles(found(idle)) == []
    idle["status"]["observedGeneration"] = 2
    assert titles(found(idle)) == ["DaemonSet shop/logs"]


@pytest.mark.parametrize(
    ("claim", "used"),
    [
        ("data-db-0", True),
        ("data-db-1", True),
        ("data-db-2", False),
        ("data-db-01", False),
        ("data-db", False),
        ("data-db-x", False),
        ("other-db-0", False),
    ],
)
def test_a_stateful_set_uses_the_claims_that_it_makes_for_the_pods_it_has(claim, used):
    users = found(stateful_set("db", "data"), claims=(claim,))
    assert titles(users) == (["StatefulSet shop/db"] if used else [])


def test_a_stateful_set_may_number_its_pods_from_elsewhere():
    late = stateful_set("db", "data", ordinals={"start": 5})
    assert titles(found(late, claims=("data-db-6",))) == ["StatefulSet shop/db"]
    assert titles(found(late, claims=("data-db-0",))) == []


def test_the_workload_of_an_operator_blocks_and_names_the_operators_resource():
    database = thing("PostgresCluster", "main")
    made = stateful_set("main", "data")
    made["metadata"]["ownerReferences"] = [owner(database)]
    users = found(made, pod("main-0", "data", by=made))
    assert titles(users) == []
    assert hard(users) == [
        "shop/data: pod main-0 on node node-1 is Running belongs to PostgresCluster main (example.com/v1), which would "
        "start it again (stop it the way that PostgresCluster is stopped, and start it again after)"
    ]
    assert "StatefulSet shop/main belongs to PostgresCluster main" in hard(
        found(made, claims=("data-main-0",)), "data-main-0"
    )[0]  # fmt: skip


def test_a_replica_set_of_something_unknown_blocks():
    rollout = thing("Rollout", "web")
    group = replica_set("web-abc", "data", by=rollout)
    assert "belongs to Rollout web (example.com/v1)" in hard(found(group, pod("web-1", "data", by=group)))[0]


def test_a_static_pod_blocks_and_the_remedy_is_on_its_node():
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1", "uid": "n"}}
    assert "static pod of node node-1" in hard(found(pod("p", "data", by=node)))[0]


def test_a_pod_whose_owner_is_gone_is_said_to_go_soon():
    assert "which is gone" in hard(found(pod("p", "data", by=deployment("web"))))[0]


def test_a_kind_that_may_not_be_listed_is_named_where_a_pod_belongs_to_it_and_warned_of_where_not():
    group = replica_set("web-abc", "data")
    users = found(pod("p", "data", by=group), unseen=(REPLICA_SETS,))
    assert "allow list on replicasets.apps in namespace shop" in hard(users)[0]
    assert found(unseen=(REPLICA_SETS,)).warnings["shop/data"] == (
        "this login may not list replicasets.apps in namespace shop: they were not looked at",
    )


def test_a_claim_of_an_ephemeral_volume_goes_with_its_pod_and_so_blocks():
    short = pod("job-x")
    short["spec"]["volumes"] = [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}}]
    users = found(short, claims=("job-x-scratch",))
    assert "is deleted with it" in hard(users, "job-x-scratch")[0]


def test_several_claims_of_one_workload_and_several_workloads_of_one_claim():
    web, worker = deployment("web", "data", "media"), deployment("worker", "data")
    users = found(web, worker, pod("w", "data", "media", by=web), claims=("data", "media"))
    assert {each.name: each.targets for each in users.workloads} == {
        "web": ("shop/data", "shop/media"),
        "worker": ("shop/data",),
    }
    assert len(soft(users, "data")) == 2
    assert len(soft(users, "media")) == 1


def test_an_old_pod_of_a_deployment_counts_though_its_template_names_the_claim_no_more():
    web = deployment("web")
    old = replica_set("web-old", "data", by=web, replicas=1)
    assert titles(found(web, old, pod("web-1", "data", by=old))) == ["Deployment shop/web"]


def test_references_that_go_in_circles_end():
    one, two = deployment("one", "data"), deployment("two", "data")
    one["metadata"]["ownerReferences"], two["metadata"]["ownerReferences"] = [owner(two)], [owner(one)]
    assert titles(found(one, two, pod("p", "data", by=one))) == []


# Autoscalers


def test_an_autoscaler_that_does_nothing_at_no_replicas_is_no_matter():
    web = deployment("web", "data")
    users = found(web, autoscaler("HorizontalPodAutoscaler", web, minReplicas=2))
    assert hard(users) == []
    assert users.warnings["shop/data"] == ()


def test_an_autoscaler_that_starts_from_no_replicas_blocks():
    web, other = deployment("web", "data"), deployment("other")
    users = found(
        web,
        autoscaler("HorizontalPodAutoscaler", web, minReplicas=0),
        autoscaler("HorizontalPodAutoscaler", other, minReplicas=0),
    )
    assert len(hard(users)) == 1
    assert "HorizontalPodAutoscaler scale-web has minReplicas 0" in hard(users)[0]


def test_keda_is_warned_of_unless_it_is_paused():
    web = deployment("web", "data")
    scaled = autoscaler("ScaledObject", web)
    assert "KEDA's ScaledObject scale-web may start Deployment shop/web" in found(web, scaled).warnings["shop/data"][0]
    scaled["metadata"]["annotations"] = {"autoscaling.keda.sh/paused-replicas": "0"}
    assert found(web, scaled).warnings["shop/data"] == ()


def test_keda_takes_a_deployment_where_no_kind_is_named():
    web = deployment("web", "data")
    scaled = thing("ScaledObject", "short", scaleTargetRef={"name": "web"})
    assert found(web, scaled).warnings["shop/data"] != ()


@pytest.mark.parametrize(
    ("labels", "annotations", "who"),
    [
        ({"argocd.argoproj.io/instance": "shop"}, {}, "Argo CD"),
        ({}, {"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:shop/web"}, "Argo CD"),
        ({"kustomize.toolkit.fluxcd.io/name": "shop"}, {}, "Flux"),
    ],
)
def test_tools_that_may_undo_the_stop_are_warned_of(labels, annotations, who):
    web = deployment("web", "data")
    web["metadata"].update(labels=labels, annotations=annotations)
    assert found(web).warnings["shop/data"] == (
        f"{who} may start Deployment shop/web while it is stopped: pause it where it does so",
    )


# Records


def recorded(item: dict[str, Any], run: str, until: int = 1500, **had: Any) -> dict[str, Any]:
    item["metadata"].update(written(Record(run, until, ("shop/data",), had)))
    return item


def test_a_workload_that_another_run_holds_blocks_and_no_option_lifts_that():
    users = found(recorded(deployment("web", "data", replicas=0), "run-2", replicas=3))
    assert titles(users) == []
    assert hard(users) == [
        "shop/data: run run-2 has stopped Deployment shop/web for shop/data (wait for that run, or where it was "
        "killed, repeat it, or bring back 3 replicas with: kubectl -n shop scale deployment/web --replicas=3)"
    ]


@pytest.mark.parametrize(("run", "until"), [("run-1", 1500), ("run-2", 999)])
def test_what_a_killed_run_has_stopped_is_left_to_its_successor_and_blocks_nothing(run, until):
    users = found(recorded(deployment("web", "data", replicas=0), run, until, replicas=3))
    assert [each.title for each in users.left] == ["Deployment shop/web"]
    assert users.blockers["shop/data"] == ()


def test_a_stateful_set_that_a_killed_run_has_stopped_is_known_by_the_replicas_that_it_had():
    users = found(recorded(stateful_set("db", "data", replicas=0), "run-1", replicas=2), claims=("data-db-1",))
    assert [each.title for each in users.left] == ["StatefulSet shop/db"]


def test_what_was_stopped_and_runs_again_is_a_user_like_any_other():
    assert len(soft(found(recorded(deployment("web", "data"), "run-1", replicas=3)))) == 1


def test_a_record_that_cannot_be_read_blocks():
    web = recorded(deployment("web", "data", replicas=0), "run-1", replicas=3)
    web["metadata"]["annotations"] = {}
    assert "what it had is not recorded any more" in hard(found(web))[0]
    assert "kubectl -n shop label deployments.apps/web restorepoint.core/stopped-" in hard(found(web))[0]


def test_a_copy_of_a_record_without_the_label_means_nothing():
    web = recorded(deployment("web", "data", replicas=0), "run-2", replicas=3)
    web["metadata"]["labels"] = {}
    assert found(web) == found()


def test_what_was_found_in_several_namespaces_is_stopped_with_cron_jobs_first():
    users = merged([found(deployment("web", "data")), found(cron_job("nightly", "data"))])
    assert titles(users) == ["CronJob shop/nightly", "Deployment shop/web"]
