# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The patches that stop a workload and bring it back, as properties over all that people and runs may do between."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.workloads.changes import (
    CHANGED,
    NOT_OURS,
    STARTED,
    NotOurs,
    to_start,
    to_stop,
)
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.workloads.kinds import (
    CONTROLLERS,
    MARK,
    WAYS,
)
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.workloads.records import (
    Lost,
    Record,
    Terms,
    is_run,
    read,
    run_of,
    written,
)
from ansible_collections.restorepoint.core.plugins.module_utils.kube_resources import (
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    REPLICA_SETS,
    STATEFUL_SETS,
    Resource,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.backends.csi.things import (
    cron_job,
    daemon_set,
    deployment,
    replica_set,
    stateful_set,
    thing,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_cluster import merge

NOW = 1000.0
TERMS = Terms("run-1", NOW, NOW + 600)
CLAIM = "shop/data"

replicas = some.integers(min_value=0, max_value=50)
active_replicas = some.integers(min_value=1, max_value=50)
keys = some.sampled_from(["kubernetes.io/os", "disk", "zone"])
selectors = some.none() | some.dictionaries(keys, some.sampled_from(["linux", "ssd", "a"]), max_size=3)


@some.composite
def workloads(draw: Any, count: Any = active_replicas) -> tuple[Resource, dict[str, Any]]:
    kind = draw(some.sampled_from([*WAYS]))
    if kind == CRON_JOBS:
        return kind, cron_job("it", "data")
    if kind == DAEMON_SETS:
        return kind, daemon_set("it", "data", selector=draw(selectors))
    if kind == DEPLOYMENTS:
        return kind, deployment("it", "data", replicas=draw(count))
    if kind == REPLICA_SETS:
        return kind, replica_set("it", "data", replicas=draw(count))
    if kind == CONTROLLERS:
        return kind, thing("ReplicationController", "it", replicas=draw(count))
    retention = draw(some.sampled_from([None, "Retain", "Delete"]))
    more = {"persistentVolumeClaimRetentionPolicy": {"whenScaled": retention, "whenDeleted": "Retain"}}
    return kind, stateful_set("it", "data", draw(count), **(more if retention else {}))


def applied(workload: dict[str, Any], patch: dict[str, Any] | None) -> dict[str, Any]:
    """Return a workload after a patch, as the API server would keep it."""
    changed = copy.deepcopy(workload)
    if patch is None:
        return changed
    assert patch["metadata"]["resourceVersion"] == workload["metadata"]["resourceVersion"]
    merge(changed, patch)
    changed["metadata"]["resourceVersion"] = str(int(workload["metadata"]["resourceVersion"]) + 1)
    return changed


def meaning(workload: dict[str, Any]) -> dict[str, Any]:
    """Return what a workload asks for, without what says the same in another way: empty and missing maps."""

    def slim(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: slim(each) for key, each in value.items() if slim(each) not in ({}, None)}
        return [slim(each) for each in value] if isinstance(value, list) else value

    trimmed = copy.deepcopy(workload)
    trimmed["metadata"].pop("resourceVersion")
    found: dict[str, Any] = slim(trimmed)
    return found


@given(workloads())
def test_stopping_and_starting_leaves_a_workload_as_it_was(found):
    resource, before = found
    stopped = applied(before, to_stop(resource, before, TERMS, [CLAIM]))
    assert not WAYS[resource].active(stopped)
    start = to_start(resource, stopped, TERMS)
    assert start.word == STARTED
    assert meaning(applied(stopped, start.patch)) == meaning(before)


@given(workloads())
def test_the_record_and_the_change_are_one_patch(found):
    resource, before = found
    patch = to_stop(resource, before, TERMS, [CLAIM])
    assert patch is not None
    assert patch["spec"]
    record = read(resource, applied(before, patch))
    assert isinstance(record, Record)
    assert (record.run, record.claims) == ("run-1", (CLAIM,))
    assert record.until >= TERMS.until


@given(workloads(), some.integers(min_value=1, max_value=4))
def test_a_run_that_is_repeated_brings_back_what_the_first_one_found(found, times):
    resource, before = found
    workload = before
    for _unused in range(times):
        workload = applied(workload, to_stop(resource, workload, TERMS, [CLAIM]))
    assert meaning(applied(workload, to_start(resource, workload, TERMS).patch)) == meaning(before)


@given(workloads(), some.booleans())
def test_another_run_takes_over_only_what_it_may(found, allowed):
    resource, before = found
    stopped = applied(before, to_stop(resource, before, TERMS, [CLAIM]))
    other = Terms("run-2", NOW, NOW + 600, takes_over=["run-1"] if allowed else [])
    if not allowed:
        with pytest.raises(NotOurs, match="run run-1 has stopped"):
            to_stop(resource, stopped, other, ["shop/media"])
        assert to_start(resource, stopped, other) == (None, NOT_OURS, {})
        return
    taken = applied(stopped, to_stop(resource, stopped, other, ["shop/media"]))
    assert to_start(resource, taken, TERMS).word == NOT_OURS
    assert meaning(applied(taken, to_start(resource, taken, other).patch)) == meaning(before)


@given(workloads(), some.floats(min_value=0, max_value=5000))
def test_a_run_is_dead_once_the_time_that_it_wrote_has_passed(found, later):
    resource, before = found
    stopped = applied(before, to_stop(resource, before, TERMS, [CLAIM]))
    other = Terms("run-2", NOW + later, NOW + later + 600)
    assert (to_start(resource, stopped, other).word == STARTED) == (later > 601)


@given(some.sampled_from([DEPLOYMENTS, STATEFUL_SETS]), active_replicas, active_replicas, some.booleans())
def test_what_somebody_scales_by_hand_stays_so(resource, had, by_hand, deletes):
    policy = {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete" if deletes else "Retain"}}
    before = deployment("it", replicas=had) if resource == DEPLOYMENTS else stateful_set("it", "data", had, **policy)
    stopped = applied(before, to_stop(resource, before, TERMS, [CLAIM]))
    stopped["spec"]["replicas"] = by_hand
    start = to_start(resource, stopped, TERMS)
    after = applied(stopped, start.patch)
    assert start.word == CHANGED
    assert read(resource, after) is None
    assert meaning(after) == meaning({**before, "spec": {**before["spec"], "replicas": by_hand}})
    # ... and to a run that is repeated it is what the workload has.
    again = applied(stopped, to_stop(resource, stopped, TERMS, [CLAIM]))
    assert meaning(applied(again, to_start(resource, again, TERMS).patch)) == meaning(after)


def test_claims_that_would_be_deleted_with_the_replicas_are_retained_meanwhile():
    before = stateful_set("it", "data", 3, persistentVolumeClaimRetentionPolicy={"whenScaled": "Delete"})
    patch = to_stop(STATEFUL_SETS, before, TERMS, [CLAIM])
    assert patch is not None
    assert patch["spec"] == {"replicas": 0, "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Retain"}}


def test_a_daemon_set_keeps_what_somebody_adds_to_its_node_selector():
    before = daemon_set("it", "data", selector={"disk": "ssd"})
    stopped = applied(before, to_stop(DAEMON_SETS, before, TERMS, [CLAIM]))
    assert stopped["spec"]["template"]["spec"]["nodeSelector"] == {"disk": "ssd", MARK: "run-1"}
    stopped["spec"]["template"]["spec"]["nodeSelector"]["zone"] = "a"
    after = applied(stopped, to_start(DAEMON_SETS, stopped, TERMS).patch)
    assert after["spec"]["template"]["spec"]["nodeSelector"] == {"disk": "ssd", "zone": "a"}


@given(workloads(count=some.just(0)))
def test_what_is_not_running_is_not_touched(found):
    resource, before = found
    patch = to_stop(resource, before, TERMS, [CLAIM])
    assert (patch is None) == (resource not in (CRON_JOBS, DAEMON_SETS))


def test_the_claims_of_one_run_add_up_in_its_record():
    before = deployment("it", "data", "media")
    stopped = applied(before, to_stop(DEPLOYMENTS, before, TERMS, [CLAIM]))
    stopped = applied(stopped, to_stop(DEPLOYMENTS, stopped, TERMS, ["shop/media"]))
    record = read(DEPLOYMENTS, stopped)
    assert isinstance(record, Record)
    assert record.claims == (CLAIM, "shop/media")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        '{"run":"run-1","until":1,"claims":[],"had":{}}',
        '{"run":"run-1","until":1,"claims":[],"had":{"replicas":"3"}}',
        '{"run":"run-1","until":1,"claims":[],"had":{"replicas":true}}',
        '{"run":"run-1","until":1,"claims":[],"had":{"replicas":-1}}',
        '{"run":"run-1","until":null,"claims":[],"had":{"replicas":1}}',
        '{"run":"run-2","until":1,"claims":[],"had":{"replicas":1}}',
    ],
)
def test_a_record_that_does_not_say_what_a_workload_had_is_lost_and_never_guessed(text):
    workload = deployment("it", replicas=0)
    workload["metadata"].update(labels={MARK: "run-1"}, annotations={MARK: text})
    assert read(DEPLOYMENTS, workload) == Lost("run-1")
    with pytest.raises(NotOurs, match="not recorded any more"):
        to_stop(DEPLOYMENTS, workload, TERMS, [CLAIM])
    assert to_start(DEPLOYMENTS, workload, TERMS).patch is None


@given(some.text(max_size=80))
def test_what_can_be_a_run_can_be_a_label_and_a_record(run):
    if is_run(run):
        assert 0 < len(run) <= 63
        workload = deployment("it", replicas=0)
        workload["metadata"].update(written(Record(run, 1, (CLAIM,), {"replicas": 1})))
        assert read(DEPLOYMENTS, workload) == Record(run, 1, (CLAIM,), {"replicas": 1})


@given(some.lists(some.sampled_from(["shop/a", "shop/b", "till/a"])), some.randoms(use_true_random=False))
def test_the_same_call_has_the_same_run_whatever_its_order(targets, chance):
    shuffled = list(targets)
    chance.shuffle(shuffled)
    assert run_of(targets, "nightly") == run_of(shuffled, "nightly")
    assert run_of(targets, "nightly") != run_of([*targets, "shop/c"], "nightly")
    assert run_of(targets, "nightly") != run_of(targets, "hourly")
    assert is_run(run_of(targets, "nightly"))


@pytest.mark.parametrize(
    ("resource", "workload", "words", "command"),
    [
        (DEPLOYMENTS, deployment("it", replicas=1), "1 replica", "scale deployment/it --replicas=1"),
        (STATEFUL_SETS, stateful_set("it", "data", 3), "3 replicas", "scale statefulset/it --replicas=3"),
        (
            CRON_JOBS,
            cron_job("it"),
            "not suspended",
            """patch cronjob/it --type=merge -p '{"spec":{"suspend":false}}'""",
        ),
        (
            DAEMON_SETS,
            daemon_set("it", selector={"disk": "ssd"}),
            "node selector disk=ssd",
            "patch daemonset/it --type=merge -p "
            """'{"spec":{"template":{"spec":{"nodeSelector":{"restorepoint.core/stopped":null}}}}}'""",
        ),
        (DAEMON_SETS, daemon_set("it"), "no node selector", "patch daemonset/it"),
    ],
)
def test_a_person_is_told_what_it_had_and_how_to_bring_it_back(resource, workload, words, command):
    had = WAYS[resource].had(workload)
    assert WAYS[resource].words(had) == words
    assert WAYS[resource].command("it", had).startswith(command)
