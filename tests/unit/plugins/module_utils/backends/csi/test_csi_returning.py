# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In-place returns on a simulated cluster: killed anywhere, with controllers in any order, data is never lost."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.returning import journal as j
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.returning import steps
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.returning.swap import (
    Outcome,
    Return,
    Swap,
    Undo,
)
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import NotBegun, RestorePointError
from ansible_collections.restorepoint.core.plugins.module_utils.deadline import Deadline
from ansible_collections.restorepoint.core.plugins.module_utils.kube import KubeClient
from ansible_collections.restorepoint.core.plugins.module_utils.kube_resources import CLAIMS, PODS, VOLUMES
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_cluster import merge
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.mortal import Killed

from .simulated import Clock, Simulated

NAMESPACE = "shop"
GIGABYTE = 2**30


class Shop:
    """A namespace with claims, each with data of its own on a volume, and a snapshot of each."""

    def __init__(self, names: Sequence[str] = ("data",), seed: int = 0, policy: str = "Delete") -> None:
        self.clock = Clock()
        self.cluster = Simulated(random.Random(seed), self.clock)
        self.names = list(names)
        for name in names:
            self.add(name, policy)
        self.cluster.precious = {f"old {name}" for name in names}

    def add(self, name: str, policy: str) -> None:
        spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "volumeMode": "Filesystem"}
        claim = {
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "labels": {"app": name},
                "annotations": {
                    "note": "kept",
                    "pv.kubernetes.io/bind-completed": "yes",
                    "volume.kubernetes.io/selected-node": "node1",
                },
            },
            "spec": {**spec, "resources": {"requests": {"storage": "1Gi"}}, "volumeName": f"pv-{name}"},
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
        }
        uid = self.cluster.put(CLAIMS, NAMESPACE, claim)["metadata"]["uid"]
        volume = {
            "metadata": {"name": f"pv-{name}", "labels": {"theirs": "yes"}},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "storageClassName": "fast",
                "persistentVolumeReclaimPolicy": policy,
                "csi": {"driver": "sim", "volumeHandle": f"handle-{name}"},
                "claimRef": {"namespace": NAMESPACE, "name": name, "uid": uid},
            },
            "status": {"phase": "Bound"},
            "data": f"old {name}",
        }
        self.cluster.put(VOLUMES, None, volume)

    def swap(self, seconds: float = 600) -> Swap:
        """A new run, as a process would have it."""
        client = cast(KubeClient, self.cluster)
        deadline = Deadline(seconds, self.clock)
        return Swap(client, NAMESPACE, deadline, lambda: int(self.clock.now), self.clock.sleep)

    def returns(self, **options: Any) -> list[Return]:
        return [self.wanted(name, **options) for name in self.names]

    def wanted(self, name: str, snapshot: str = "s1", **options: Any) -> Return:
        item = {"metadata": {"name": f"{name}-{snapshot}", "uid": f"uid-of-{name}-{snapshot}"}}
        return Return(name, snapshot, item, GIGABYTE, **options)

    def claim(self, name: str) -> dict[str, Any]:
        found = self.cluster.item(CLAIMS, NAMESPACE, name)
        assert found is not None, f"claim {name} is missing"
        return found

    def volume_of(self, name: str) -> dict[str, Any]:
        found = self.cluster.item(VOLUMES, None, self.claim(name)["spec"]["volumeName"])
        assert found is not None
        return found

    def with_data(self, data: str) -> list[dict[str, Any]]:
        return [each for each in self.cluster.all(VOLUMES) if each["data"] == data]

    def survey(self, name: str) -> Any:
        claim = self.cluster.item(CLAIMS, NAMESPACE, name)
        return self.swap().survey({name: claim}, self.cluster.all(VOLUMES))[name]

    def pod(self, claim: str, **spec: Any) -> None:
        volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]
        pod = {"metadata": {"name": f"user-of-{claim}", "namespace": NAMESPACE}, "spec": {"volumes": volumes, **spec}}
        self.cluster.put(PODS, NAMESPACE, {**pod, "status": {"phase": "Running"}})

    def killed(self, at: int, after: bool, act: Callable[[], Any]) -> Any:
        """Carry out something and be killed at its request number ``at``; None when it was killed."""
        self.cluster.kill_at, self.cluster.kill_after = self.cluster.requests + at, after
        try:
            return act()
        except Killed:
            return None
        finally:
            self.cluster.kill_at = None

    def check_returned(self, policy: str = "Delete", snapshot: str = "s1") -> None:
        """Each claim has the snapshot's data and is what it was; the old volume is kept; nothing else is left."""
        self.cluster.settle()
        for name in self.names:
            claim, volume = self.claim(name), self.volume_of(name)
            assert self.cluster.data_of(name) == f"snapshot {name}-{snapshot}"
            assert volume["spec"]["persistentVolumeReclaimPolicy"] == policy
            assert claim["metadata"].get("labels", {}).get("app") == name
            assert claim["metadata"]["annotations"].get("note") == "kept"
            assert j.JOURNAL not in volume["metadata"].get("annotations", {})
        assert {each["metadata"]["name"] for each in self.cluster.all(CLAIMS)} - self.cluster.strangers == set(
            self.names
        )

    def check_asides(self, count: int) -> None:
        for name in self.names:
            (old,) = self.with_data(f"old {name}")
            assert old["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
            assert old["metadata"]["labels"]["theirs"] == "yes"
            assert len(self.survey(name).asides) == count
        assert len(self.cluster.all(VOLUMES)) == len(self.names) * (1 + count) + len(self.cluster.strangers)


def raised(outcomes: Sequence[Outcome]) -> list[str]:
    return [str(each) for each in outcomes if isinstance(each, RestorePointError)]


def test_a_return_gives_the_claim_the_data_of_the_snapshot_and_keeps_the_old_volume() -> None:
    shop = Shop()
    (outcome,) = shop.swap().carry_out(shop.returns())
    assert not isinstance(outcome, RestorePointError), outcome
    assert outcome["old_volume"] == "pv-data"
    assert outcome["new_volume"] == shop.volume_of("data")["metadata"]["name"]
    shop.check_returned()
    shop.check_asides(1)
    (aside,) = shop.survey("data").asides
    assert (aside.name, aside.target, aside.extra["volume"]) == (outcome["aside"], "shop/data", "pv-data")


def test_many_claims_cost_at_most_twelve_requests_each_and_a_few_for_all() -> None:
    shop = Shop([f"data{number}" for number in range(20)])
    outcomes = shop.swap().carry_out(shop.returns())
    assert raised(outcomes) == []
    assert shop.cluster.requests <= 20 * 12 + 40
    shop.check_returned()


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**16),
    names=st.sampled_from([("data",), ("data", "more"), ("data", "data-2", "logs")]),
    kills=st.lists(st.tuples(st.integers(0, 45), st.booleans()), max_size=3),
    policy=st.sampled_from(["Delete", "Retain"]),
    class_policy=st.sampled_from(["Delete", "Retain"]),
    late=st.booleans(),
    forgets=st.booleans(),
    recreates=st.booleans(),
    keep=st.booleans(),
)
def test_killed_anywhere_and_run_again_it_ends_with_the_snapshots_data_and_the_old_data_kept(
    seed: int,
    names: Sequence[str],
    kills: Sequence[tuple[int, bool]],
    policy: str,
    class_policy: str,
    late: bool,
    forgets: bool,
    recreates: bool,
    keep: bool,
) -> None:
    shop = Shop(names, seed, policy)
    cluster = shop.cluster
    cluster.class_policy, cluster.late_binding, cluster.forgets = class_policy, late, forgets
    _stranger(shop)
    if recreates:
        cluster.recreates = {name: _as_a_set_makes_it(shop, name) for name in names}
    if not keep:
        cluster.excused = {f"old {name}": name for name in names}

    def run() -> list[Outcome]:
        # A job that is started again has its token: the plan leaves out what it was used on.
        shop.swap().recover()
        todo = [each for each in shop.returns(once="job1", keep=keep) if "job1" not in shop.survey(each.claim).returned]
        return shop.swap().carry_out(todo)

    for at, after in kills:
        outcomes = shop.killed(at, after, run)
        assert outcomes is None or raised(outcomes) == []
    assert raised(run()) == []
    shop.check_returned(policy)
    if keep:
        shop.check_asides(1)
    else:
        assert not any(shop.with_data(f"old {name}") for name in names)
    assert not [each for each in cluster.all(VOLUMES) if j.JOURNAL in each["metadata"].get("annotations", {})]


def _stranger(shop: Shop) -> None:
    """Somebody's claim that takes any volume that is free."""
    shop.cluster.strangers = {"stranger"}
    spec = {"storageClassName": "other", "resources": {"requests": {"storage": "1Gi"}}}
    annotations = {"volume.kubernetes.io/selected-node": "node1"}
    metadata = {"name": "stranger", "namespace": NAMESPACE, "annotations": annotations}
    shop.cluster.put(CLAIMS, NAMESPACE, {"metadata": metadata, "spec": spec})


def _as_a_set_makes_it(shop: Shop, name: str) -> dict[str, Any]:
    claim = shop.claim(name)
    spec = {key: value for key, value in claim["spec"].items() if key != "volumeName"}
    kept = {key: claim["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
    return {"metadata": kept, "spec": spec}


# Undone, called off, purged


def test_undo_gives_the_old_volume_back_and_keeps_the_one_that_was_returned_to() -> None:
    shop = Shop(policy="Delete")
    shop.swap().carry_out(shop.returns(once="job1"))
    shop.clock.sleep(5)
    (outcome,) = shop.swap().undo([Undo("data")])
    assert not isinstance(outcome, RestorePointError), outcome
    shop.cluster.settle()
    assert shop.cluster.data_of("data") == "old data"
    assert shop.volume_of("data")["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    (aside,) = shop.survey("data").asides
    assert aside.extra["volume"] == outcome["old_volume"]
    # The job's token stays used up: started again by accident, it does not return a second time.
    assert "job1" in shop.survey("data").returned


def test_a_return_that_is_taken_back_with_its_call_gives_its_token_back() -> None:
    shop = Shop()
    shop.swap().carry_out(shop.returns(once="job1"))
    assert raised(shop.swap().undo([Undo("data", forget="job1")])) == []
    assert shop.survey("data").returned == {}


@settings(max_examples=80)
@given(
    seed=st.integers(0, 2**16),
    kills=st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=2),
    recreates=st.booleans(),
    policy=st.sampled_from(["Delete", "Retain"]),
)
def test_an_undo_that_was_killed_anywhere_ends_with_the_old_data_when_it_is_run_again(
    seed: int, kills: Sequence[tuple[int, bool]], recreates: bool, policy: str
) -> None:
    shop = Shop(("data", "more"), seed, policy)
    _stranger(shop)
    assert raised(shop.swap().carry_out(shop.returns())) == []
    shop.clock.sleep(5)
    if recreates:
        shop.cluster.recreates = {name: _as_a_set_makes_it(shop, name) for name in shop.names}
    # A killed run's successor has its token, so that what was undone is not undone a second time.
    for at, after in [*kills, (10**6, False)]:
        shop.swap().recover()
        todo = [Undo(name, once="u") for name in shop.names if "u" not in shop.survey(name).returned]
        outcomes = shop.killed(at, after, functools.partial(shop.swap().undo, todo))
        assert outcomes is None or raised(outcomes) == []
    shop.cluster.settle()
    for name in shop.names:
        assert shop.cluster.data_of(name) == f"old {name}"
        assert shop.volume_of(name)["spec"]["persistentVolumeReclaimPolicy"] == policy
        assert len(shop.survey(name).asides) == 1


@settings(max_examples=80)
@given(
    seed=st.integers(0, 2**16),
    at=st.integers(2, 45),
    after=st.booleans(),
    off=st.integers(0, 20),
    class_policy=st.sampled_from(["Delete", "Retain"]),
)
def test_a_killed_return_is_called_off_or_completed_and_nothing_is_left_of_it(
    seed: int, at: int, after: bool, off: int, class_policy: str
) -> None:
    shop = Shop(("data", "more"), seed)
    shop.cluster.class_policy = class_policy
    _stranger(shop)
    before = {name: shop.volume_of(name)["metadata"].copy() for name in shop.names}
    shop.killed(at, after, lambda: shop.swap().carry_out(shop.returns()))
    shop.killed(off, after, lambda: shop.swap().call_off(shop.names))
    outcomes = shop.swap().call_off(shop.names)
    shop.cluster.settle()
    assert all("its swap has begun" in each or "already" in each for each in raised(outcomes))
    shop.clock.now += 3600
    shop.swap().recover()
    shop.cluster.settle()
    for name in shop.names:
        volume = shop.volume_of(name)
        assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
        if shop.cluster.data_of(name) == f"old {name}":
            assert volume["metadata"]["labels"] == before[name]["labels"]
            assert not volume["metadata"].get("annotations")
            assert len([each for each in shop.cluster.all(VOLUMES) if name in each["data"].split()[-1]]) == 1
        else:
            assert shop.cluster.data_of(name) == f"snapshot {name}-s1"
            assert len(shop.survey(name).asides) == 1
    assert len(shop.cluster.all(CLAIMS)) == len(shop.names) + 1


@settings(max_examples=120)
@given(
    seed=st.integers(0, 2**16),
    at=st.integers(0, 40),
    other=st.sampled_from(["same", "off", "recover"]),
    recreates=st.booleans(),
)
@example(seed=1427, at=10, other="off", recreates=False)
def test_another_run_in_the_middle_of_a_return_loses_nothing(seed: int, at: int, other: str, recreates: bool) -> None:
    shop = Shop(("data", "more"), seed)
    _stranger(shop)
    if recreates:
        shop.cluster.recreates = {name: _as_a_set_makes_it(shop, name) for name in shop.names}
    acts: dict[str, Callable[[], Any]] = {
        "same": lambda: shop.swap().carry_out(shop.returns(once="x")),
        "off": lambda: shop.swap().call_off(shop.names),
        "recover": lambda: shop.swap().recover(),
    }
    shop.cluster.meanwhile_at, shop.cluster.meanwhile = at, acts[other]
    shop.swap().carry_out(shop.returns(once="x"))
    shop.cluster.meanwhile = None
    shop.clock.now += 3600
    shop.swap().recover()
    shop.swap().carry_out([each for each in shop.returns(once="x") if "x" not in shop.survey(each.claim).returned])
    shop.clock.now += 3600
    shop.swap().recover()
    shop.check_returned()
    assert not [each for each in shop.cluster.all(VOLUMES) if j.JOURNAL in each["metadata"].get("annotations", {})]
    for name in shop.names:
        assert len(shop.with_data(f"old {name}")) == 1


def test_asides_are_removed_by_name_and_waited_for() -> None:
    shop = Shop()
    shop.swap().carry_out(shop.returns())
    (aside,) = shop.survey("data").asides
    shop.cluster.precious = set()
    assert shop.swap().purge([("data", aside.name), ("data", "aside-20200101t000000z")]) == [
        {"volume": "pv-data"},
        {"volume": None},
    ]
    assert shop.with_data("old data") == []
    assert shop.cluster.data_of("data") == "snapshot data-s1"


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("job", ["purge", "spend"])
def test_a_volume_that_a_controller_changes_at_any_request_is_looked_at_again(job: str, at: int) -> None:
    shop = Shop()
    shop.swap().carry_out(shop.returns())
    (aside,) = shop.survey("data").asides
    shop.cluster.precious, swap, claim = set(), shop.swap(), shop.claim("data")
    volume = "pv-data" if job == "purge" else claim["spec"]["volumeName"]
    shop.cluster.meanwhile_at = shop.cluster.requests + at
    shop.cluster.meanwhile = lambda: shop.cluster.change(VOLUMES, None, volume, {"metadata": {"labels": {"a": "b"}}})
    if job == "purge":
        assert swap.purge([("data", aside.name)]) == [{"volume": "pv-data"}]
    else:
        swap.spend(claim, "token")
        assert "token" in shop.survey("data").returned


def test_an_aside_that_is_called_bound_a_moment_longer_than_it_is_can_be_removed() -> None:
    shop = Shop()
    assert raised(shop.swap().carry_out(shop.returns())) == []
    shop.cluster.rests = True
    merge(shop.cluster.objects[(VOLUMES.plural, None, "pv-data")], {"status": {"phase": "Bound"}})
    (aside,) = shop.survey("data").asides
    assert (aside.in_use, aside.extra["phase"]) == (None, "Bound")
    shop.cluster.rests, shop.cluster.precious = False, set()
    assert shop.swap().purge([("data", aside.name)]) == [{"volume": "pv-data"}]


def test_an_aside_that_somebody_has_bound_is_in_use_and_not_removed() -> None:
    shop = Shop()
    assert raised(shop.swap().carry_out(shop.returns())) == []
    reference = {"namespace": NAMESPACE, "name": "other", "uid": "uid-of-other"}
    shop.cluster.rests = True
    merge(
        shop.cluster.objects[(VOLUMES.plural, None, "pv-data")],
        {"spec": {"claimRef": reference}, "status": {"phase": "Bound"}},
    )
    (aside,) = shop.survey("data").asides
    assert aside.in_use == "a claim is bound to it"
    (outcome,) = shop.swap().purge([("data", aside.name)])
    assert "a claim is bound to its volume pv-data; remove that claim first." in str(outcome)
    assert len(shop.with_data("old data")) == 1


# What stands in the way


def test_where_one_volume_is_not_made_in_time_nothing_of_the_call_counts() -> None:
    shop = Shop(("data", "more"))
    shop.cluster.driver_works = False
    outcomes = shop.swap().carry_out(shop.returns())
    words = "in time there was no end to: wait for the new volume"
    assert [words in each for each in raised(outcomes)] == [True, True]
    shop.cluster.settle()
    assert [shop.cluster.data_of(name) for name in shop.names] == ["old data", "old more"]
    assert len(shop.cluster.all(VOLUMES)) == len(shop.cluster.all(CLAIMS)) == 2
    assert shop.survey("data").open is None


def test_workloads_that_cannot_be_stopped_call_everything_off() -> None:
    shop = Shop(("data", "more"))

    def refuse(_claims: Sequence[str]) -> None:
        raise RestorePointError("stop workloads", "they run", "stop them")

    outcomes = shop.swap().carry_out(shop.returns(), refuse)
    assert [isinstance(each, NotBegun) and "they run" in str(each) for each in outcomes] == [True, True]
    shop.cluster.settle()
    assert shop.cluster.data_of("data") == "old data"
    assert len(shop.cluster.all(VOLUMES)) == 2


def test_a_claim_that_a_pod_uses_does_not_let_go_and_the_return_is_called_off() -> None:
    shop = Shop()
    (outcome,) = shop.swap().carry_out(shop.returns(), lambda _claims: shop.pod("data", nodeName="node1"))
    assert "pod user-of-data" in str(outcome)
    shop.cluster.settle()
    assert shop.cluster.data_of("data") == "old data"
    assert len(shop.cluster.all(VOLUMES)) == 1


def test_a_late_pod_leaves_the_claim_terminating_and_the_next_run_completes_it() -> None:
    shop = Shop()
    for request in range(60):  # at the request that deletes the claim, a pod comes up
        shop = Shop(seed=request)
        shop.cluster.meanwhile_at = request
        shop.cluster.meanwhile = lambda shop=shop: shop.pod("data", nodeName="node1")
        (outcome,) = shop.swap(seconds=30).carry_out(shop.returns())
        claim = shop.claim("data") if shop.cluster.item(CLAIMS, NAMESPACE, "data") else None
        if claim and claim["metadata"].get("deletionTimestamp"):
            break
    else:
        pytest.fail("no pod was late")
    assert "pod user-of-data on node node1" in str(outcome)
    assert "the next run completes the return, and volume pv-data holds the old data" in str(outcome)
    assert "its swap has begun" in raised(shop.swap().call_off(["data"]))[0]
    shop.cluster.remove(PODS, NAMESPACE, "user-of-data")
    (outcome,) = shop.swap().carry_out(shop.returns())
    assert not isinstance(outcome, RestorePointError), outcome
    assert outcome["resumed"]
    shop.check_returned()


@pytest.mark.parametrize(
    ("phase", "reference", "claim", "taken"),
    [
        ("Released", {"name": "data", "uid": "u1"}, "u2", False),
        ("Bound", {"name": "data", "uid": "u1"}, "u1", True),
        ("Bound", {"name": "data", "uid": "u1"}, "u2", False),  # called so a moment longer than it is
        ("Bound", {"name": "data", "uid": "u1"}, None, False),
        ("Bound", {"name": "data"}, "u2", True),
        ("Bound", {"name": "other", "uid": "u1"}, "u2", True),
    ],
)
def test_a_volume_is_taken_where_it_is_bound_to_a_claim_that_is_not_gone(
    phase: str, reference: dict[str, Any], claim: str | None, taken: bool
) -> None:
    volume = {"spec": {"claimRef": {"namespace": NAMESPACE, **reference}}, "status": {"phase": phase}}
    there = None if claim is None else {"metadata": {"uid": claim}}
    assert steps.is_taken(volume, NAMESPACE, "data", there) is taken


def test_a_volume_that_somebody_has_bound_is_not_given_back() -> None:
    shop = Shop()
    assert raised(shop.swap().carry_out(shop.returns())) == []
    kept = str(shop.survey("data").asides[0].extra["volume"])
    reference = {"namespace": NAMESPACE, "name": "other", "uid": "uid-of-other"}
    shop.cluster.rests = True
    merge(
        shop.cluster.objects[(VOLUMES.plural, None, kept)],
        {"spec": {"claimRef": reference}, "status": {"phase": "Bound"}},
    )
    (outcome,) = shop.swap().undo([Undo("data")])
    assert "is not retained any more, or in use" in str(outcome)


def test_an_owner_that_went_meanwhile_is_left_out_of_the_claim() -> None:
    shop = Shop()
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "uid-of-db"}
    shop.cluster.owners = {"db": "uid-of-db"}
    shop.cluster.change(CLAIMS, NAMESPACE, "data", {"metadata": {"ownerReferences": [owner]}})
    outcomes = shop.swap().carry_out(shop.returns(), lambda _claims: shop.cluster.owners.clear())
    assert raised(outcomes) == []
    assert "ownerReferences" not in shop.claim("data")["metadata"]
    shop.check_returned()


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"metadata": {"finalizers": ["kubernetes.io/pvc-protection", "example.org/hold"]}}, "example.org/hold"),
        ({"metadata": {"deletionTimestamp": "2026-11-26T00:00:00Z"}}, "being deleted"),
        ({"status": {"phase": "Pending"}}, "not bound"),
        ({"spec": {"storageClassName": None}}, "no storage class"),
        (
            {
                "metadata": {
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "u"}]
                }
            },
            "its owner StatefulSet db is gone",
        ),
    ],
)
def test_what_forbids_a_return_is_said_before_anything_is_touched(patch: dict[str, Any], words: str) -> None:
    shop = Shop()
    shop.cluster.rests = True
    key = (CLAIMS.plural, NAMESPACE, "data")
    merge(shop.cluster.objects[key], patch)
    (outcome,) = shop.swap().carry_out(shop.returns())
    assert words in str(outcome)
    assert shop.cluster.written == []
    claim = shop.claim("data")
    blockers = [*shop.survey("data").blockers, *shop.swap().blockers([claim])["data"]]
    assert any(words in each.reason for each in blockers)


def test_a_return_of_another_aim_waits_for_the_first_while_that_may_be_alive_and_calls_it_off_then() -> None:
    shop = Shop()
    shop.killed(9, True, lambda: shop.swap(seconds=300).carry_out(shop.returns()))
    assert shop.survey("data").open is not None
    other = [shop.wanted("data", "s2")]
    (outcome,) = shop.swap().carry_out(other)
    assert "a return to s1 has begun and is not finished" in str(outcome)
    assert "or call it off" in str(outcome)
    shop.clock.now += 400
    swap = shop.swap()
    assert raised(swap.carry_out(other)) == []
    assert "was called off" in swap.recovered[0]
    shop.check_returned(snapshot="s2")
    shop.check_asides(1)


def test_a_second_return_of_the_same_second_makes_a_second_aside() -> None:
    shop = Shop()
    shop.swap().carry_out(shop.returns())
    shop.swap().carry_out([shop.wanted("data", "s2")])
    first, second = shop.survey("data").asides
    assert first.name != second.name
    assert {first.extra["volume"], second.extra["volume"]} > {"pv-data"}


def test_a_lost_answer_in_the_middle_is_looked_into_by_the_next_run() -> None:
    for number in range(2, 30):
        shop = Shop()
        shop.cluster.fail_at = number
        first = shop.swap().carry_out(shop.returns(once="x"))
        shop.cluster.fail_at = None
        shop.swap().recover()
        if "x" not in shop.survey("data").returned:
            assert raised(first), f"request {number}"
            assert raised(shop.swap().carry_out(shop.returns(once="x"))) == []
        shop.check_returned()
        shop.check_asides(1)


def test_a_token_is_remembered_on_the_volume_without_a_return() -> None:
    shop = Shop()
    shop.swap().spend(shop.claim("data"), "job7")
    assert set(shop.survey("data").returned) == {"job7"}
    shop.swap().carry_out(shop.returns(once="job8"))
    assert set(shop.survey("data").returned) == {"job7", "job8"}
