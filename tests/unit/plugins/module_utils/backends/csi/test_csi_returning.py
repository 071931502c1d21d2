# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In-place returns on a simulated cluster: killed anywhere, with controllers in any order, data is never lost."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.returning import journal as j
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.returning.swap import (
    Outcome,
    Return,
    Swap,
)
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.watching import Deadline
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import RestorePointError
from ansible_collections.restorepoint.core.plugins.module_utils.kube import KubeClient
from ansible_collections.restorepoint.core.plugins.module_utils.kube_resources import CLAIMS, PODS, VOLUMES

from .simulated import Clock, Killed, Simulated

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
        found = self.cluster.find(CLAIMS, NAMESPACE, name)
        assert found is not None, f"claim {name} is missing"
        return found

    def volume_of(self, name: str) -> dict[str, Any]:
        found = self.cluster.find(VOLUMES, None, self.claim(name)["spec"]["volumeName"])
        assert found is not None
        return found

    def with_data(self, data: str) -> list[dict[str, Any]]:
        return [each for each in self.cluster.all(VOLUMES) if each["data"] == data]

    def survey(self, name: str) -> Any:
        claim = self.cluster.find(CLAIMS, NAMESPACE, name)
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


@settings(max_examples=400)
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
