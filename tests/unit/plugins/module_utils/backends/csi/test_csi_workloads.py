# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Workloads stopped and brought back over HTTPS, with everything that may go wrong on the way.

The API server is the fake one, its controllers are imitated; tests/cluster does the same on real ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.workloads import (
    Workloads,
    permissions,
    pods_of,
)
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.workloads.changes import (
    CHANGED,
    GONE,
    NOT_OURS,
    STARTED,
    NotOurs,
)
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.workloads.kinds import MARK
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput, RestorePointError
from ansible_collections.restorepoint.core.plugins.module_utils.deadline import Deadline
from ansible_collections.restorepoint.core.plugins.module_utils.kube_login import KubeError
from ansible_collections.restorepoint.core.plugins.module_utils.kube_resources import PODS
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils import mortal
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.backends.csi.fake_controllers import (
    Controllers,
    names,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.backends.csi.things import (
    autoscaler,
    cron_job,
    daemon_set,
    deployment,
    pod,
    replica_set,
    stateful_set,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_cluster import FakeCluster
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_kube import TOKEN
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.mortal import Killed

TARGET = "shop/data"


@pytest.fixture
def controllers():
    return Controllers()


@pytest.fixture
def server(certificate, controllers):
    with FakeCluster(certificate, controllers, lag=0.0) as fake:
        yield fake


class Mortal(mortal.Mortal):
    """A login to the fake cluster that may die."""

    def __init__(self, server: FakeCluster, last: int | None = None, heard: bool = False) -> None:
        options = {"host": server.url, "api_key": TOKEN, "ca_cert": str(server.certificate)}
        super().__init__(options, last, heard, timeout=30.0, sleep=lambda seconds: None)


def workloads(
    server: FakeCluster, run: str = "run-1", seconds: float = 60.0, client: Any = None, **more: Any
) -> Workloads:
    return Workloads(client or Mortal(server), run, Deadline(seconds), sleep=lambda seconds: None, **more)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what controllers do in their own time."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def put(server: FakeCluster, *items: dict[str, Any], pods: int) -> None:
    """Put workloads into the cluster and wait for their pods."""
    for item in items:
        server.put({**item, "metadata": {**item["metadata"], "generation": 1}})
    until(lambda: len(names(server)) == pods)


def asked(server: FakeCluster, word: str, start: int = 0) -> int:
    return sum(each.method == word for each in server.requests[start:])


def marks(server: FakeCluster) -> list[str]:
    """Return which workloads carry anything of ours."""
    kinds = ("deployments", "statefulsets", "daemonsets", "replicasets", "cronjobs")
    return [
        each["metadata"]["name"]
        for kind in kinds
        for each in server.all(kind)
        if MARK in each["metadata"].get("labels", {}) or MARK in each["metadata"].get("annotations", {})
    ]


KINDS: list[tuple[str, dict[str, Any], int]] = [
    ("deployments", deployment("web", "data", replicas=3), 3),
    ("replicasets", replica_set("web", "data", replicas=2), 2),
    ("daemonsets", daemon_set("web", "data", selector={"disk": "ssd"}), 2),
    ("daemonsets", daemon_set("web", "data"), 2),
    ("cronjobs", cron_job("web", "data"), 0),
]


@pytest.mark.parametrize(("plural", "workload", "count"), KINDS)
def test_a_workload_is_stopped_until_its_pods_are_gone_and_brought_back(server, plural, workload, count):
    put(server, workload, pods=count)
    before = server.find(plural, "web")["spec"]
    one = workloads(server)
    stopped = one.stop(one.users([TARGET]))
    assert names(server) == []
    assert [each["name"] for each in stopped.report()] == ["web"]
    reports = one.start_again(stopped, wait_ready=60.0)
    assert [(each["outcome"], each["ready"]) for each in reports] == [(STARTED, True)]
    until(lambda: len(names(server)) == count)
    after = server.find(plural, "web")["spec"]
    if plural == "daemonsets":
        after["template"]["spec"]["nodeSelector"] = after["template"]["spec"]["nodeSelector"] or None
        before["template"]["spec"].setdefault("nodeSelector", None)
    assert after == before
    assert marks(server) == []


def test_a_stateful_set_is_stopped_by_one_of_the_claims_that_it_makes(server):
    put(server, stateful_set("db", "data", 2), pods=2)
    one = workloads(server)
    stopped = one.stop(one.users(["shop/data-db-1"]))
    assert names(server) == []
    one.start_again(stopped)
    until(lambda: names(server) == ["db-0", "db-1"])


def test_all_workloads_of_many_claims_cost_few_requests(server):
    put(server, *(deployment(f"web-{each}", f"data-{each}", replicas=1) for each in range(10)), pods=10)
    client = Mortal(server)
    one = workloads(server, client=client)
    users = one.users([f"shop/data-{each}" for each in range(10)])
    assert client.requests <= 11
    start = len(server.requests)
    stopped = one.stop(users)
    # A conflict with a controller that writes a status costs two requests more.
    assert asked(server, "GET", start) <= 12
    assert asked(server, "PATCH", start) <= 20
    start = len(server.requests)
    one.start_again(stopped)
    assert asked(server, "PATCH", start) <= 20


def test_looking_touches_nothing(server):
    put(server, deployment("web", "data"), cron_job("nightly", "data"), pods=2)
    users = workloads(server).users([TARGET])
    assert [each.title for each in users.workloads] == ["CronJob shop/nightly", "Deployment shop/web"]
    assert {each.method for each in server.requests} == {"GET"}


def test_other_namespaces_are_left_alone(server):
    put(server, deployment("web", "data"), pods=2)
    assert workloads(server).users(["till/data"]).workloads == ()


def test_finished_pods_that_keep_a_claim_are_removed_and_named(server):
    put(server, deployment("web", "data", replicas=1), pods=1)
    server.put(pod("backup-1", "data", phase="Succeeded"))
    server.put(pod("backup-2", "other", phase="Succeeded"))
    one = workloads(server)
    stopped = one.stop(one.users([TARGET]))
    assert stopped.removed_pods == ["shop/backup-1"]
    assert names(server) == ["backup-2"]


def test_the_pods_that_keep_a_claim_are_told_in_words(server):
    server.put(pod("a", "data"))
    server.put(pod("b", "data", phase="Failed", node=None))
    found = pods_of(Mortal(server), [TARGET, "shop/media", "till/data"])
    assert found == {TARGET: ["pod a on node node-1 is Running"], "shop/media": [], "till/data": []}


# Killed, and run again


def scene(server: FakeCluster) -> dict[str, Any]:
    put(
        server,
        deployment("web", "data", replicas=2),
        daemon_set("logs", "data", selector={"disk": "ssd"}),
        cron_job("nightly", "data"),
        pods=4,
    )
    return specs(server)


def specs(server: FakeCluster) -> dict[str, Any]:
    return {kind: server.all(kind)[0]["spec"] for kind in ("deployments", "daemonsets", "cronjobs")}


def whole_run(server: FakeCluster, client: Any) -> None:
    one = workloads(server, client=client)
    one.start_again(one.stop(one.users([TARGET])))


def killed_everywhere(server: FakeCluster, heard: bool, repair: Callable[[], None]) -> None:
    """Kill a run at each of its requests in turn, and see that what comes after leaves all as it was."""
    before = scene(server)
    for last in range(100):
        until(lambda: len(names(server)) == 4)
        try:
            whole_run(server, Mortal(server, last, heard))
            killed = False
        except Killed:
            killed = True
            repair()
        assert specs(server) == before
        assert marks(server) == []
        if not killed:
            assert last >= 15, "the run was not killed often"
            return
    pytest.fail("the run never came to its end")


@pytest.mark.parametrize("heard", [False, True], ids=["before", "after"])
def test_killed_at_any_request_and_run_again_everything_is_as_it_was(server, heard):
    killed_everywhere(server, heard, lambda: whole_run(server, Mortal(server)))


@pytest.mark.parametrize("heard", [False, True], ids=["before", "after"])
def test_killed_at_any_request_the_next_run_finds_what_is_left_without_stopping_anything(server, heard):
    def repair() -> None:
        one = workloads(server)
        one.start_again(one.users([TARGET]).left)

    killed_everywhere(server, heard, repair)


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_answers_that_are_lost_do_no_harm(server, lost):
    before = scene(server)
    one = workloads(server)
    users = one.users([TARGET])
    server.lose = lost
    stopped = one.stop(users)
    server.lose = lost
    one.start_again(stopped)
    assert specs(server) == before
    assert marks(server) == []


# Two runs at once


def test_of_two_runs_that_start_at_once_the_second_one_refuses_and_leaves_the_first_alone(server):
    scene(server)
    one, two = workloads(server, "run-1"), workloads(server, "run-2")
    users = two.users([TARGET])
    stopped = one.stop(one.users([TARGET]))
    between = specs(server)
    with pytest.raises(
        NotOurs, match=r"Cannot stop CronJob shop/nightly: run run-1 has stopped .* for shop/data; wait"
    ):
        two.stop(users)
    assert specs(server) == between
    assert {each["outcome"] for each in one.start_again(stopped)} == {STARTED}


def test_a_run_that_refuses_brings_back_what_it_has_stopped_itself(server):
    put(server, deployment("a", "data", replicas=1), deployment("b", "data", "media", replicas=1), pods=2)
    one, two = workloads(server, "run-1"), workloads(server, "run-2")
    users = two.users([TARGET])
    one.stop(one.users(["shop/media"]))
    with pytest.raises(NotOurs, match="Deployment shop/b"):
        two.stop(users)
    assert server.find("deployments", "a")["spec"]["replicas"] == 1
    assert marks(server) == ["b"]


def test_a_second_run_sees_the_first_one_before_it_touches_anything(server):
    scene(server)
    one = workloads(server, "run-1")
    one.stop(one.users([TARGET]))
    users = workloads(server, "run-2").users([TARGET])
    assert users.workloads == ()
    assert {each.lifted_by for each in users.blockers[TARGET]} == {None}


def test_a_run_whose_workloads_were_taken_over_says_so_and_changes_nothing(server):
    scene(server)
    one, two = workloads(server, "run-1"), workloads(server, "run-2", takes_over=["run-1"])
    stopped = one.stop(one.users([TARGET]))
    again = two.stop(two.users([TARGET]))
    assert {each["outcome"] for each in one.start_again(stopped)} == {NOT_OURS}
    assert names(server) == []
    assert {each["outcome"] for each in two.start_again(again)} == {STARTED}


def test_a_dead_run_is_succeeded_by_any_other_once_its_time_is_over(server):
    before = scene(server)
    one = workloads(server, "run-1", now=lambda: 1000.0)
    one.stop(one.users([TARGET]))
    early = workloads(server, "run-2", now=lambda: 1500.0)
    assert early.users([TARGET]).left == ()
    late = workloads(server, "run-2", now=lambda: 1700.0)
    late.start_again(late.users([TARGET]).left)
    assert specs(server) == before


def test_who_ends_an_unfinished_return_brings_back_what_was_stopped_for_it_and_nothing_else(server):
    put(server, deployment("a", "data", replicas=1), deployment("b", "data", "media", replicas=1), pods=2)
    one = workloads(server, "run-1")
    one.stop(one.users(["shop/data", "shop/media"]))
    ends = workloads(server, "run-2", resumes=["shop/data"])
    ends.start_again(ends.users(["shop/data"]).left)
    assert marks(server) == ["b"], "b was stopped for media as well, whose return is not ended here"
    ends = workloads(server, "run-2", resumes=["shop/data", "shop/media"])
    ends.start_again(ends.users(["shop/data"]).left)
    assert marks(server) == []


# People


def test_what_somebody_scales_meanwhile_is_left_so_and_said(server):
    put(server, deployment("web", "data", replicas=3), pods=3)
    one = workloads(server)
    stopped = one.stop(one.users([TARGET]))
    server.change(server.find("deployments", "web"), {"spec": {"replicas": 1}})
    reports = one.start_again(stopped)
    assert [(each["had"], each["outcome"]) for each in reports] == [({"replicas": 3}, CHANGED)]
    assert server.find("deployments", "web")["spec"]["replicas"] == 1
    assert marks(server) == []


def test_what_somebody_removes_meanwhile_is_gone_and_one_of_the_same_name_is_left_alone(server):
    put(server, deployment("a", "data", replicas=1), deployment("b", "data", replicas=1), pods=2)
    one = workloads(server)
    stopped = one.stop(one.users([TARGET]))
    for name in ("a", "b"):
        server.remove(server.find("deployments", name))
    new = deployment("b", "data", replicas=0)
    new["metadata"]["uid"] = "another"
    server.put(new)
    assert {each["outcome"] for each in one.start_again(stopped)} == {GONE}
    assert server.find("deployments", "b")["spec"]["replicas"] == 0


def test_who_starts_a_workload_while_its_pods_are_waited_for_is_told_of(server, controllers):
    put(server, deployment("web", "data", replicas=1), pods=1)
    controllers.hung = {"web-0"}
    one = workloads(server, seconds=1.0)
    users = one.users([TARGET])

    class Meddler(Mortal):
        def watch(self, *args: Any, **more: Any) -> Any:
            server.change(server.find("deployments", "web"), {"spec": {"replicas": 4}})
            return super().watch(*args, **more)

    one = workloads(server, seconds=1.0, client=Meddler(server))
    with pytest.raises(RestorePointError, match=r"somebody has started Deployment shop/web again \(4 replicas\)"):
        one.stop(users)
    assert server.find("deployments", "web")["spec"]["replicas"] == 4
    assert marks(server) == []


# What goes wrong


def test_pods_that_hang_are_named_with_node_and_finalizers_and_all_is_brought_back(server, controllers):
    before = scene(server)
    controllers.hung = {"web-1"}
    one = workloads(server, seconds=6.0)  # in which the others go
    with pytest.raises(RestorePointError) as caught:
        one.stop(one.users([TARGET]))
    said = str(caught.value)
    assert said.startswith("Cannot free shop/data in time: pod web-1 on node node-1 is being deleted since 2026-")
    assert "and is held by test/kubelet; see that their nodes are up" in said
    assert specs(server) == before
    assert marks(server) == []


def test_watches_that_end_and_versions_that_are_forgotten_are_survived(server, controllers):
    before = scene(server)
    server.cut_watches = 2
    one = workloads(server)
    users = one.users([TARGET])
    controllers.hung = {"web-1"}

    class Forgetful(Mortal):
        watches = 0

        def watch(self, *args: Any, **more: Any) -> Any:
            self.watches += 1
            if self.watches == 3:
                server.forget()
                controllers.hung = set()
                controllers(server, "MODIFIED", "pods", server.find("pods", "web-1"))
            return super().watch(*args, **more)

    client = Forgetful(server)
    one = workloads(server, client=client)
    stopped = one.stop(users)
    assert client.watches >= 3
    one.start_again(stopped)
    assert specs(server) == before


def test_a_server_that_is_away_while_pods_are_waited_for_is_waited_for(server, controllers):
    put(server, deployment("web", "data", replicas=1), pods=1)
    one = workloads(server)
    users = one.users([TARGET])
    away = [KubeError("wait", "it is away", "wait", 503, transient=True)] * 6

    class Away(Mortal):
        def list_objects(self, attempt: str, resource: Any, *args: Any, **more: Any) -> Any:
            if resource == PODS and away:
                raise away.pop()
            return super().list_objects(attempt, resource, *args, **more)

    one = workloads(server, client=Away(server))
    one.start_again(one.stop(users))
    assert away == []
    assert server.find("deployments", "web")["spec"]["replicas"] == 1


def test_a_workload_that_changes_all_the_time_is_an_error_in_the_end(server):
    put(server, deployment("web", "data", replicas=1), pods=1)
    one = workloads(server)
    users = one.users([TARGET])

    class Busy(Mortal):
        def patch(self, *args: Any, **more: Any) -> Any:
            raise KubeError("patch", "the object has been modified", "try again", 409, "Conflict")

    busy = workloads(server, client=Busy(server))
    with pytest.raises(
        RestorePointError, match="Cannot stop Deployment shop/web: something else changes it all the time"
    ):
        busy.stop(users)
    stopped = one.stop(users)
    remedy = "kubectl -n shop scale deployment/web --replicas=1"
    with pytest.raises(RestorePointError, match=remedy):
        busy.start_again(stopped)


def test_one_that_cannot_be_brought_back_does_not_keep_the_others(server):
    put(server, deployment("a", "data", replicas=1), deployment("b", "data", replicas=1), pods=2)
    one = workloads(server)
    stopped = one.stop(one.users([TARGET]))

    class Refusing(Mortal):
        def patch(self, attempt: str, resource: Any, namespace: Any, name: str, *args: Any, **more: Any) -> Any:
            if name == "b":
                raise KubeError(attempt, "the server forbids it", "allow patch", 403)
            return super().patch(attempt, resource, namespace, name, *args, **more)

    refusing = workloads(server, client=Refusing(server))
    with pytest.raises(RestorePointError, match="Cannot start Deployment shop/b again: the server forbids it"):
        refusing.start_again(stopped)
    assert server.find("deployments", "a")["spec"]["replicas"] == 1
    assert marks(server) == ["b"]
    one.start_again(one.users([TARGET]).left)
    assert marks(server) == []


def test_a_record_that_is_dropped_on_the_way_in_is_an_error_and_nothing_stays_stopped(server):
    put(server, deployment("web", "data", replicas=2), pods=2)

    class Webhook(Mortal):
        """Sees an answer without the record, as where an admission webhook removes what it does not know."""

        def patch(self, *args: Any, **more: Any) -> Any:
            answer = super().patch(*args, **more)
            answer["metadata"].pop("labels", None)
            return answer

    one = workloads(server, client=Webhook(server))
    with pytest.raises(RestorePointError, match="admission webhook"):
        one.stop(one.users([TARGET]))
    assert server.find("deployments", "web")["spec"]["replicas"] == 2


def test_kinds_that_may_not_be_listed_are_warned_of_and_pods_that_may_not_are_an_error(server):
    put(server, deployment("web", "data"), pods=2)
    server.forbidden = {("list", "cronjobs"), ("list", "horizontalpodautoscalers")}
    users = workloads(server).users([TARGET])
    assert "may not list cronjobs.batch, horizontalpodautoscalers.autoscaling" in users.warnings[TARGET][0]
    server.forbidden = {("list", "pods")}
    with pytest.raises(KubeError, match="allow list on pods in namespace shop"):
        workloads(server).users([TARGET])


def test_groups_that_a_server_does_not_have_are_no_matter_and_keda_is_asked_where_it_is(server):
    web = deployment("web", "data")
    put(server, web, pods=2)
    del server.groups["autoscaling"]
    assert workloads(server).users([TARGET]).warnings == {TARGET: ()}
    server.groups["keda.sh"] = ("v1alpha1",)
    server.put(autoscaler("ScaledObject", web))
    assert "KEDA's ScaledObject scale-web" in workloads(server).users([TARGET]).warnings[TARGET][0]


def test_whether_workloads_are_ready_is_not_told_where_they_may_not_be_watched(server):
    put(server, deployment("web", "data", replicas=1), pods=1)
    one = workloads(server)
    stopped = one.stop(one.users([TARGET]))
    server.forbidden = {("list", "deployments"), ("watch", "deployments")}
    (report,) = one.start_again(stopped, wait_ready=5.0)
    assert report["outcome"] == STARTED
    assert "ready" not in report


def test_a_run_that_cannot_be_a_label_is_refused(server):
    with pytest.raises(InvalidInput, match="cannot be a label"):
        workloads(server, "no label!")


def test_an_interrupt_while_pods_are_waited_for_brings_all_back(server, controllers):
    before = scene(server)
    controllers.hung = {"web-1"}
    users = workloads(server).users([TARGET])

    class Interrupted(Mortal):
        def watch(self, *args: Any, **more: Any) -> Any:
            raise KeyboardInterrupt("SIGTERM")

    with pytest.raises(KeyboardInterrupt):
        workloads(server, client=Interrupted(server)).stop(users)
    assert specs(server) == before
    assert marks(server) == []


def test_the_permissions_that_are_asked_for_are_those_that_are_used(server):
    scene(server)
    one = workloads(server)
    one.start_again(one.stop(one.users([TARGET])))
    allowed = {(each.verb, each.resource.plural) for each in permissions("shop", stop=True)}
    used = set()
    for each in server.requests:
        parts = each.path.split("/namespaces/shop/")[-1].split("/")
        verb = {"PATCH": "patch", "DELETE": "delete"}.get(each.method, "get" if len(parts) > 1 else "list")
        if "/namespaces/" in each.path:
            used.add(("watch" if each.query.get("watch") else verb, parts[0]))
    assert used <= allowed
    assert ("patch", "deployments") in used
    assert [(each.verb, each.resource.plural) for each in permissions("shop", stop=False)] == [("list", "pods")]
