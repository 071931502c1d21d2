# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The objects by which Kubernetes runs policies, the rights among them, and the plan from what is there to them."""

from __future__ import annotations

import copy
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.options import CsiOptions
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.preflight import wanted_access
from ansible_collections.restorepoint.core.plugins.module_utils.core import backend as core
from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import Desired
from ansible_collections.restorepoint.core.plugins.module_utils.kube_resources import CRON_JOBS, NAMESPACES
from ansible_collections.restorepoint.core.plugins.module_utils.setup.kubernetes_objects import (
    LABEL,
    Job,
    Settings,
    node_suffix,
    objects,
)
from ansible_collections.restorepoint.core.plugins.module_utils.setup.kubernetes_plan import There, make_plan
from ansible_collections.restorepoint.core.plugins.module_utils.setup.kubernetes_rights import Needs, together

SETTINGS = Settings("jobs", "python:3.13")
SHOP = Job("shop", "shop", ("0 2 * * *",), "UTC", ("run", "shop", "--json"), "{}", Needs(("shop", "db")))
DIRS = Job(
    "dirs-n1", "dirs", ("0 3 * * *",), "UTC", ("run", "dirs", "--json"), "{}", None, "node-1", ("/srv/a",), ("/s",)
)  # fmt: skip


def of_kind(found, kind):
    return [each for each in found if each.resource.kind == kind]


# -- rights ------------------------------------------------------------------------------------------------------------


def rules(needs):
    return {
        (verb, group, resource)
        for rule in (*needs.inside, *needs.cluster)
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("deletion_policy", [None, "Retain"])
def test_rights_are_those_that_the_backend_asks_for_to_take_and_prune(group, deletion_policy):
    options = CsiOptions(group=group, deletion_policy=deletion_policy)
    asked = set()
    for state in ("present", "pruned"):
        needed = wanted_access("shop", Desired(state=state, name="x" if state == "present" else None), options, False)
        # A run makes new snapshots, and changes no description of old ones.
        asked |= {
            (each.verb, each.resource.group, each.resource.plural)
            for each, verbs in needed.items()
            if verbs != frozenset({core.DESCRIBE})
        }
    needs = Needs(("shop",), group, deletion_policy is not None)
    assert rules(needs) == asked


def test_without_namespaces_all_rights_hold_in_the_whole_cluster():
    everywhere = Needs((), annotations=True)
    assert rules(everywhere) == rules(Needs(("a",), annotations=True))
    assert {tuple(rule["resources"]) for rule in everywhere.inside} <= {
        tuple(rule["resources"]) for rule in everywhere.cluster
    }


def test_what_several_targets_need_is_needed_together():
    found = together([Needs(("b",), group=True), Needs(("a", "b"), contents=True)])
    assert found == Needs(("a", "b"), True, True)


# -- objects -----------------------------------------------------------------------------------------------------------


def test_a_policy_on_claims_gets_an_account_with_a_role_in_each_of_its_namespaces():
    found = objects(SETTINGS, [SHOP], b"agent")
    assert [each.target for each in found] == [
        "Namespace jobs",
        "ServiceAccount jobs/restorepoint-shop",
        "ConfigMap jobs/restorepoint-agent",
        "ConfigMap jobs/restorepoint-policies",
        "ClusterRole restorepoint:jobs:shop",
        "ClusterRoleBinding restorepoint:jobs:shop",
        "Role shop/restorepoint:jobs:shop",
        "Role db/restorepoint:jobs:shop",
        "RoleBinding shop/restorepoint:jobs:shop",
        "RoleBinding db/restorepoint:jobs:shop",
        "CronJob jobs/restorepoint-shop",
    ]
    assert {each.body["metadata"]["labels"][LABEL] for each in found} == {"jobs"}
    (binding,) = of_kind(found, "ClusterRoleBinding")
    assert binding.body["subjects"] == [{"kind": "ServiceAccount", "name": "restorepoint-shop", "namespace": "jobs"}]


def pod(found):
    return of_kind(found, "CronJob")[0].body["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_a_pod_may_do_nothing_but_its_work():
    spec = pod(objects(SETTINGS, [SHOP], b"agent"))
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [each for each in spec["volumes"] if "hostPath" in each] == []
    writable = [each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")]
    assert writable == ["/var/lib/restorepoint"]
    assert {each.body["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] for each in of_kind(
        objects(SETTINGS, [SHOP], b"agent"), "Namespace"
    )} == {"restricted"}  # fmt: skip


def test_a_pod_for_directories_sees_them_read_only_on_their_node_without_a_token():
    found = objects(SETTINGS, [DIRS], b"agent")
    assert not [each for each in found if "Role" in each.resource.kind]
    spec = pod(found)
    assert spec["nodeSelector"] == {"kubernetes.io/hostname": "node-1"}
    assert spec["automountServiceAccountToken"] is False
    assert [each["hostPath"] for each in spec["volumes"] if "hostPath" in each] == [
        {"path": "/srv/a", "type": "Directory"},
        {"path": "/s", "type": "DirectoryOrCreate"},
    ]
    mounts = {each["mountPath"]: each.get("readOnly", False) for each in spec["containers"][0]["volumeMounts"]}
    assert (mounts["/srv/a"], mounts["/s"]) == (True, False)
    capabilities = spec["containers"][0]["securityContext"]["capabilities"]
    assert capabilities["drop"] == ["ALL"]
    assert "SYS_ADMIN" not in capabilities["add"]


def test_several_lines_become_several_cron_jobs_and_none_a_suspended_one():
    many = dataclasses.replace(SHOP, lines=("0 2 * * *", "30 4 * * 1"))
    hand = dataclasses.replace(SHOP, name="hand", lines=())
    found = of_kind(objects(SETTINGS, [many, hand], b""), "CronJob")
    assert [(each.name, each.body["spec"]["schedule"], each.body["spec"]["suspend"]) for each in found] == [
        ("restorepoint-shop", "0 2 * * *", False),
        ("restorepoint-shop-2", "30 4 * * 1", False),
        ("restorepoint-hand", "0 0 1 1 *", True),
    ]


@given(
    policy=st.from_regex(r"[a-z][a-z0-9-]{0,21}[a-z0-9]", fullmatch=True),
    node=st.text(min_size=1, max_size=253),
    lines=st.integers(1, 9),
)
def test_names_fit_kubernetes(policy, node, lines):
    job = dataclasses.replace(DIRS, name=f"{policy}-{node_suffix(node)}", policy=policy, lines=("0 2 * * *",) * lines)
    for each in of_kind(objects(SETTINGS, [job], b""), "CronJob"):
        assert len(each.name) <= 52  # Kubernetes adds 11 characters for each Job


# -- the plan ----------------------------------------------------------------------------------------------------------


def steps_of(wanted, there):
    """Return the steps of a plan, each with its request, which all have."""
    return [(each, each.request) for each in make_plan("jobs", wanted, there).steps if each.request is not None]


def served(wanted):
    """Return objects as a server lists them: without their kind, with members of its own."""
    found = []
    for step, request in steps_of(wanted, []):
        item = copy.deepcopy(dict(request.body))
        del item["kind"], item["apiVersion"]
        item["metadata"].update(uid=f"uid-{step.target}", resourceVersion="7")
        if request.resource == CRON_JOBS:
            template = item["spec"]["jobTemplate"]["spec"]["template"]["spec"]
            template.update(dnsPolicy="ClusterFirst", schedulerName="default-scheduler")
            template["containers"][0]["terminationMessagePath"] = "/dev/termination-log"
        found.append(There(request.resource, item))
    return found


def test_what_is_as_wanted_is_left_alone():
    wanted = objects(SETTINGS, [SHOP, DIRS], b"agent")
    assert make_plan("jobs", wanted, served(wanted)).steps == []


def test_what_was_changed_by_hand_and_what_is_not_wanted_any_more_is_put_right():
    wanted = objects(dataclasses.replace(SETTINGS, tolerations=({"operator": "Exists"},)), [SHOP], b"agent")
    there = served(wanted)
    less = objects(SETTINGS, [SHOP], b"agent")
    ((step, request),) = steps_of(less, there)
    assert (step.action, step.target) == ("change", "CronJob jobs/restorepoint-shop")
    template = request.body["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert template["tolerations"] is None
    assert template["dnsPolicy"] is None  # the server fills it in again
    cron_job = next(each.item for each in there if each.resource == CRON_JOBS)
    cron_job["spec"]["suspend"] = True
    assert len(make_plan("jobs", wanted, there).steps) == 1


def test_what_is_not_wanted_goes_from_the_last_to_the_first_but_for_the_namespace():
    steps = steps_of([], served(objects(SETTINGS, [SHOP], b"agent")))
    assert {step.action for step, _request in steps} == {"remove"}
    assert [request.resource.kind for _step, request in steps] == [
        *("CronJob", "RoleBinding", "RoleBinding", "Role", "Role", "ClusterRoleBinding", "ClusterRole"),
        *("ConfigMap", "ConfigMap", "ServiceAccount"),
    ]


def test_what_has_our_names_and_not_our_label_is_a_blocker_but_a_namespace_may_be_anybodys():
    wanted = objects(SETTINGS, [SHOP], b"agent")
    there = served(wanted)
    for each in there:
        each.item["metadata"]["labels"].pop(LABEL)
    plan = make_plan("jobs", wanted, there)
    assert plan.steps == []
    assert len(plan.blockers) == len(wanted) - 1
    assert "Namespace jobs" not in {each.target for each in plan.blockers}
    assert make_plan("jobs", [], there).steps == []


def test_what_belongs_to_the_jobs_of_another_namespace_is_somebody_elses():
    there = served(objects(SETTINGS, [SHOP], b"agent"))
    assert make_plan("other", [], there).steps == []


def test_a_new_agent_changes_one_object_and_shows_no_content():
    there = served(objects(SETTINGS, [SHOP], b"agent"))
    (step,) = make_plan("jobs", objects(SETTINGS, [SHOP], b"another"), there).steps
    assert step.target == "ConfigMap jobs/restorepoint-agent"
    assert "YW5vdGhlcg" not in step.after
    assert step.before != step.after


def test_without_jobs_nothing_is_made():
    assert objects(SETTINGS, [], b"") == []
    assert NAMESPACES not in {each.resource for each in objects(SETTINGS, [], b"")}
