# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The objects by which Kubernetes has its restore points watched, and their plan beside that of the jobs."""

from __future__ import annotations

import copy
import dataclasses

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.options import CsiOptions
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.preflight import wanted_access
from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import Desired
from ansible_collections.restorepoint.core.plugins.module_utils.core.retention import RetentionPolicy
from ansible_collections.restorepoint.core.plugins.module_utils.kube_resources import CONFIG_MAPS, NAMESPACES
from ansible_collections.restorepoint.core.plugins.module_utils.setup.kubernetes_objects import (
    Job,
    PodSettings,
    Settings,
)
from ansible_collections.restorepoint.core.plugins.module_utils.setup.kubernetes_objects import (
    objects as objects_of_jobs,
)
from ansible_collections.restorepoint.core.plugins.module_utils.setup.kubernetes_plan import There, make_plan
from ansible_collections.restorepoint.core.plugins.module_utils.setup.kubernetes_rights import Needs
from ansible_collections.restorepoint.core.plugins.module_utils.setup.kubernetes_watch import (
    MARK,
    OPERATOR,
    Watch,
    family,
    objects,
)

WATCH = Watch(
    pods=PodSettings("jobs", "python:3.13"),
    policies="{}",
    needs=Needs(("shop", "db")),
    instance="kubernetes",
    interval="60s",
    timeout="30s",
    operator=OPERATOR,
    labels={"release": "lab"},
    groups=[{"name": "g", "rules": []}],
    dashboard="{}",
    dashboard_namespace="grafana",
    dashboard_labels={"grafana_dashboard": "1"},
)
SHOP = Job("shop", "shop", ("0 2 * * *",), "UTC", ("run", "shop", "--json"), "{}", Needs(("shop", "db")))


def of_kind(found, kind):
    return [each for each in found if each.resource.kind == kind]


def plan(wanted, there, operator=OPERATOR):
    return make_plan("jobs", wanted, there, family(operator))


def served(steps):
    """Return objects that these steps make, as a server lists them."""
    found = []
    for step in steps:
        item = copy.deepcopy(dict(step.request.body))
        item["metadata"].update(uid=f"uid-{step.target}", resourceVersion="7")
        found.append(There(step.request.resource, item))
    return found


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("deletion_policy", [None, "Retain"])
def test_the_account_may_read_what_the_backend_reads_and_change_nothing(group, deletion_policy):
    options = CsiOptions(group=group, deletion_policy=deletion_policy)
    desired = Desired(state="pruned", retention=RetentionPolicy(), asides=RetentionPolicy())
    asked = {
        (each.verb, each.resource.group, each.resource.plural)
        for each, verbs in wanted_access("shop", desired, options, True).items()
        if not verbs
    }
    inside, cluster = Needs(("shop",), group, deletion_policy is not None).reading
    granted = {
        (verb, group_, resource)
        for rule in (*inside, *cluster)
        for verb in rule["verbs"]
        for group_ in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert granted == asked
    assert {verb for verb, _group, _resource in granted} == {"list"}


def test_all_that_is_made_bears_the_mark_but_for_the_namespace_which_is_that_of_the_jobs():
    found = objects(WATCH, b"agent")
    unmarked = [each.target for each in found if each.body["metadata"]["labels"].get(MARK) != "jobs"]
    assert unmarked == ["Namespace jobs"]
    (namespace,) = of_kind(found, "Namespace")
    assert namespace == objects_of_jobs(Settings("jobs", "python:3.13"), [SHOP], b"")[0]


def test_the_pod_may_do_nothing_but_look_and_answers_whether_it_lives():
    (deployment,) = of_kind(objects(WATCH, b"agent"), "Deployment")
    spec = deployment.body["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    pod = spec["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")] == [
        "/var/lib/restorepoint"
    ]
    assert container["livenessProbe"]["httpGet"] == container["readinessProbe"]["httpGet"]
    (service,) = of_kind(objects(WATCH, b"agent"), "Service")
    assert service.body["spec"]["selector"].items() <= spec["template"]["metadata"]["labels"].items()
    assert service.body["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]


@pytest.mark.parametrize("changed", [{"policies": '{"new": 1}'}, {"agent": b"new"}])
def test_new_policies_and_a_new_agent_begin_a_new_pod(changed):
    def template(**more):
        agent = more.pop("agent", b"agent")
        (found,) = of_kind(objects(dataclasses.replace(WATCH, **more), agent), "Deployment")
        return found.body["spec"]["template"]

    assert template(**changed) != template()
    assert template() == template()


def test_without_claims_nothing_is_granted_but_to_see_the_jobs():
    found = objects(dataclasses.replace(WATCH, needs=None), b"agent")
    (role,) = [each for each in found if each.resource.kind in ("Role", "ClusterRole")]
    assert role.namespace == "jobs"
    assert [rule["resources"] for rule in role.body["rules"]] == [["cronjobs"], ["jobs"]]


def test_what_is_as_wanted_is_left_alone_and_the_whole_goes_but_for_the_namespace():
    wanted = objects(WATCH, b"agent")
    there = served(plan(wanted, []).steps)
    assert plan(wanted, there).steps == []
    gone = plan([], there)
    assert [step.action for step in gone.steps] == ["remove"] * (len(wanted) - 1)
    assert gone.steps[0].request.resource == OPERATOR[1]
    assert NAMESPACES not in {step.request.resource for step in gone.steps}


def test_what_is_of_the_jobs_is_left_to_them_and_theirs_to_us():
    jobs = objects_of_jobs(Settings("jobs", "python:3.13"), [SHOP], b"agent")
    theirs = served(make_plan("jobs", jobs, []).steps)
    ours = served(plan(objects(WATCH, b"agent"), []).steps)
    assert make_plan("jobs", jobs, [*theirs, *(each for each in ours if each.key != theirs[0].key)]).steps == []
    assert plan(objects(WATCH, b"agent"), [*ours[1:], *theirs]).steps == []
    # The namespace that a watch has made is the jobs' to change: theirs let in other pods.
    directories = dataclasses.replace(SHOP, reads=("/srv",), needs=None)
    wanted = objects_of_jobs(Settings("jobs", "python:3.13"), [directories], b"agent")
    (step,) = [each for each in make_plan("jobs", wanted, ours[:1]).steps if each.target == "Namespace jobs"]
    assert step.action == "change"


def test_an_object_of_our_name_without_the_mark_is_a_blocker():
    wanted = objects(WATCH, b"agent")
    there = served(plan(wanted, []).steps)
    for each in there:
        each.item["metadata"]["labels"].pop(MARK, None)
    found = plan(wanted, there)
    assert len(found.blockers) == len(wanted) - 1
    assert "not made for watching the restore points of namespace jobs" in found.blockers[0].reason


def test_a_dashboard_is_shown_by_its_sum():
    large = objects(dataclasses.replace(WATCH, dashboard='{"a": "' + "b" * 20000 + '"}'), b"agent")
    steps = [each for each in plan(large, []).steps if each.request.resource == CONFIG_MAPS]
    assert len(steps) == 2
    assert all("bbbb" not in each.after for each in steps)
