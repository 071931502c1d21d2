# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From policies to jobs in a cluster: where each runs, what it sees and may do, and what cannot run there."""

from __future__ import annotations

import json

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.kubernetes_jobs import (
    READERS,
    annotations_job,
    jobs_of,
)
from ansible_collections.restorepoint.core.plugins.module_utils.core.claims import ClaimError, ClaimVolume
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.restorepoint.core.plugins.module_utils.engine.policy import (
    TARGET_OPTION,
    InvalidPolicies,
    parse_policies,
)
from ansible_collections.restorepoint.core.plugins.module_utils.setup.kubernetes_rights import Needs

CSI = {"backend": "csi", "namespace": ["shop", "db"]}
DIRS = {"backend": "hostpath", "namespace": "files", "store": "/srv/store"}


def volume(name, *nodes):
    return ClaimVolume("files", name, f"pv-{name}", f"/srv/{name}", nodes, "hostPath", f"uid-{name}")


class Claims:
    """Answers where claims lie, and keeps what it was asked."""

    def __init__(self, *volumes):
        self.volumes, self.asked = volumes, []

    def __call__(self, namespaces, names, selector):
        self.asked.append((list(namespaces), list(names), selector))
        return self.volumes


def policy(*targets, name="shop", **keys):
    return {"name": name, "targets": list(targets), "schedule": {"calendar": "daily"}, **keys}


def blockers(*policies, resolve=None):
    found = jobs_of(policies, resolve or Claims())
    assert found.jobs == []
    return [each.reason for each in found.blockers]


def files(job):
    """Return the targets in a job's file of policies, which the agent has to be able to read."""
    data = json.loads(job.policies)
    assert parse_policies(data)
    return data["policies"][0]["targets"]


def test_claims_on_csi_volumes_need_no_node_and_the_rights_in_their_namespaces():
    (job,) = jobs_of([policy(CSI, timezone="Europe/Paris")], Claims()).jobs
    assert (job.name, job.lines, job.timezone) == ("shop", ("0 0 * * *",), "Europe/Paris")
    assert job.needs == Needs(("db", "shop"))
    assert (job.node, job.reads, job.writes) == (None, (), ())
    assert job.command == ("run", "shop", "--json")
    assert files(job) == [CSI]


def test_groups_and_deletion_policies_need_more_rights():
    (job,) = jobs_of([policy({**CSI, "group": True, "deletion_policy": "Retain"})], Claims()).jobs
    assert job.needs == Needs(("db", "shop"), group=True, contents=True)


def test_claims_on_directories_make_a_job_for_each_node_that_sees_just_its_own():
    claims = Claims(volume("a", "node-1"), volume("b", "node-2"), volume("c", "node-1"))
    target = {**DIRS, "selector": "app=x", "checksum": True}
    first, second = jobs_of([policy(target)], claims).jobs
    assert claims.asked == [(["files"], [], "app=x")]
    assert (first.node, first.reads, first.writes) == ("node-1", ("/srv/a", "/srv/c"), ("/srv/store",))
    assert (second.node, second.reads) == ("node-2", ("/srv/b",))
    assert first.needs is None
    assert first.name != second.name
    assert files(first) == [
        {"backend": "hostpath", "path": ["/srv/a", "/srv/c"], "store": "/srv/store", "checksum": True}
    ]


def test_directories_may_be_named_with_their_node():
    target = {"backend": "hostpath", "path": ["/etc/shop"], "store": "/srv/store", "node_name": "node-3"}
    (job,) = jobs_of([policy(target)], Claims()).jobs
    assert (job.node, job.reads) == ("node-3", ("/etc/shop",))
    assert files(job)[0]["path"] == ["/etc/shop"]


def test_claims_on_one_node_and_on_csi_volumes_make_one_restore_point():
    (job,) = jobs_of([policy(CSI, DIRS)], Claims(volume("a", "node-1"))).jobs
    assert (job.node, job.needs) == ("node-1", Needs(("db", "shop")))
    assert [each["backend"] for each in files(job)] == ["csi", "hostpath"]
    reasons = blockers(policy(CSI, DIRS), resolve=Claims(volume("a", "node-1"), volume("b", "node-2")))
    assert reasons == [
        "its directories lie on several nodes (node-1, node-2), so its CSI volumes would be taken several times"
    ]


@pytest.mark.parametrize(
    ("nodes", "target", "words"),
    [
        ((), {}, "claim files/a lies on no node that its volume names"),
        (("node-1", "node-2"), {}, "claim files/a lies on several nodes"),
        (("node-1",), {"node_name": "node-2"}, "claim files/a lies on node node-1, not on node-2"),
        (("node-1",), {"node_name": "node-2", "other_nodes": "skip"}, "none of its claims lies on that node"),
    ],
)
def test_a_claim_whose_node_is_not_clear_is_a_blocker(nodes, target, words):
    assert blockers(policy({**DIRS, **target}), resolve=Claims(volume("a", *nodes))) == [words]


def test_a_volume_without_a_node_lies_where_the_target_says():
    (job,) = jobs_of([policy({**DIRS, "node_name": "node-9"})], Claims(volume("a"))).jobs
    assert job.node == "node-9"


def test_a_claim_that_is_no_directory_is_a_blocker_in_the_words_of_whoever_looked():
    def resolve(namespaces, names, selector):
        raise ClaimError("resolve claim files/a", "it is a volume of CSI driver x", "use csi_snapshot")

    assert blockers(policy(DIRS), resolve=resolve) == ["it is a volume of CSI driver x"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (policy({"backend": "zfs", "dataset": ["tank/a"]}), "a pod does not reach targets of zfs"),
        (policy({"backend": "lvm", "volume": ["vg/a"]}, CSI), "a pod does not reach targets of lvm"),
        (policy({**CSI, "kubeconfig": "/root/.kube/config"}), "it names a kubeconfig"),
        (policy({**CSI, "context": "lab"}), "it names a kubeconfig"),
        (policy(CSI, drill={}, drill_schedule={"cron": "@weekly"}), "it has drill_schedule, and no job of the cluster"),
        (policy(CSI, hooks=[{"kind": "command", "before": ["true"]}]), "hooks (command) might stay in force for ever"),
        (policy(CSI, schedule={"calendar": "Fri *-*-13 02:00"}), "a weekday or a day of the month is enough"),
        (policy({"backend": "hostpath", "path": ["/a"], "store": "/s"}), "directories without their node"),
    ],
)
def test_what_cannot_run_in_a_pod_is_refused_with_the_reason(given, words):
    (reason,) = blockers(given)
    assert words in reason


def test_all_that_forbids_is_told_at_once_and_what_is_sound_is_still_planned():
    found = jobs_of([policy(CSI, name="good"), policy({"backend": "zfs", "dataset": ["t/a"]}, name="bad")], Claims())
    assert [each.name for each in found.jobs] == ["good"]
    assert [each.target for each in found.blockers] == ["policy bad"]


def test_every_backend_of_policies_is_sent_along_with_the_module():
    assert {each.__name__.rpartition(".")[2] for each in READERS} == set(TARGET_OPTION)


def test_faults_of_policies_are_named_with_their_places():
    with pytest.raises(InvalidPolicies) as caught:
        jobs_of([{**policy(CSI), "kep": {}}], Claims())
    assert "policies[0].kep" in str(caught.value)
    assert jobs_of([], Claims()).jobs == []


@pytest.mark.parametrize("name", ["annotated", "annotations"])
def test_names_that_annotations_use_are_not_for_policies(name):
    (reason,) = blockers(policy(CSI, name=name))
    assert "annotations" in reason


def test_the_job_for_annotations_says_where_to_look():
    options = {"calendar": "*:0/15", "timezone": "Europe/Paris", "namespaces": ["a", "b"], "snapshot_class": "fast"}
    job = annotations_job(options)
    assert job.lines == ("*/15 * * * *",)
    assert job.command == (
        *("annotations", "--json", "--timezone", "Europe/Paris", "--namespace", "a", "--namespace", "b"),
        *("--snapshot-class", "fast"),
    )
    assert job.needs == Needs(("a", "b"), annotations=True)
    everywhere = annotations_job({**options, "namespaces": [], "snapshot_class": None})
    assert everywhere.command == ("annotations", "--json", "--timezone", "Europe/Paris")
    with pytest.raises(InvalidInput, match="a CronJob begins with the minute"):
        annotations_job({**options, "calendar": "*:*:30"})
