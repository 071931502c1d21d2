# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In-place returns of claims on a real control plane: data on disk, killed after every request, undone, called off."""

from __future__ import annotations

import contextlib
import copy
import itertools
import threading
import time

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.returning import journal as j
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.returning.swap import Return, Swap, Undo
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import NotBegun, RestorePointError
from ansible_collections.restorepoint.core.plugins.module_utils.deadline import Deadline
from ansible_collections.restorepoint.core.tests.cluster.lab import CORE, contents
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.mortal import Killed, Mortal

VOLUMES = f"{CORE}/persistentvolumes"
OLD, TAKEN = {"state": "what came after"}, {"state": "as it was"}


class Ending(Deadline):
    """A deadline that is far off until the test has seen what has to come before it."""

    def __init__(self):
        super().__init__(180.0)

    def come_in(self, seconds):
        self._end = self._clock() + seconds


def mortal(kubeconfig, last=None, heard=False):
    """Return a login that dies before its nth request, or after it without having heard the answer."""
    return Mortal({"kubeconfig": str(kubeconfig)}, last, heard, patience=30.0)


class Shop:
    """A namespace with claims, each with a snapshot, and with other data since."""

    def __init__(self, cluster, namespace, names=("data",), **options):
        self.cluster, self.api, self.namespace, self.names = cluster, cluster.api, namespace, list(names)
        self.snapshots = {}
        # Each step for all of them: the controllers take their time, and take it for many at once.
        for name in names:
            cluster.claim(namespace, name, labels={"app": name}, wait=False, **options)
        for name in names:
            cluster.bound(namespace, name)
            cluster.write(namespace, name, {"state": TAKEN["state"], "name": name})
            cluster.snapshot(namespace, name, f"{name}-before", wait=False)
        for name in names:
            self.snapshots[name] = cluster.taken(namespace, name, f"{name}-before")
            cluster.write(namespace, name, OLD)
        self.first = {name: cluster.volume(namespace, name) for name in names}

    def only(self, name):
        """The same with one claim of it."""
        one = copy.copy(self)
        one.names = [name]
        return one

    def swap(self, last=None, heard=False, deadline=None, kubeconfig=None):
        client = mortal(kubeconfig or self.cluster.kubeconfig, last, heard)
        return Swap(client, self.namespace, deadline or Deadline(180.0), lambda: int(time.time()))

    def returns(self, names=None, **options):
        return [Return(name, "before", self.snapshots[name], 0, **options) for name in names or self.names]

    def survey(self, name="data"):
        claim = self.cluster.api.find(self.cluster.claim_path(self.namespace, name))
        return self.swap().survey({name: claim}, self.api.items(VOLUMES))[name]

    def run(self, last=None, heard=False, **options):
        """Return all claims as a job with a token does; None where it was killed."""
        self.swap().recover()
        todo = [each for each in self.returns(once="job", **options) if "job" not in self.survey(each.claim).returned]
        try:
            return self.swap(last, heard).carry_out(todo)
        except Killed:
            return None

    def mine(self):
        """The volumes that have anything to do with this namespace."""
        return [
            volume
            for volume in self.api.items(VOLUMES)
            if volume["spec"].get("claimRef", {}).get("namespace") == self.namespace
        ]

    def check(self, asides=1, policy="Delete"):
        """Each claim has the snapshot's data, its old volume is an aside with the old data; nothing else is left."""
        for name in self.names:
            assert self.cluster.read(self.namespace, name) == {"state": TAKEN["state"], "name": name}
            claim = self.cluster.bound(self.namespace, name)
            assert claim["metadata"]["labels"] == {"app": name}
            volume = self.cluster.volume(self.namespace, name)
            assert volume["spec"]["persistentVolumeReclaimPolicy"] == policy
            assert volume["metadata"]["name"] != self.first[name]["metadata"]["name"]
            kept = self.survey(name).asides
            assert len(kept) == asides
            if asides:
                assert kept[0].extra["volume"] == self.first[name]["metadata"]["name"]
                assert contents(self.cluster.folder_of(self.first[name])) == {**OLD, "name": name}
        assert sorted(self.claims()) == sorted(self.names)
        assert len(self.mine()) == len(self.names) * (1 + asides)
        assert not [each for each in self.mine() if j.JOURNAL in (each["metadata"].get("annotations") or {})]

    def check_untouched(self):
        for name in self.names:
            assert self.cluster.read(self.namespace, name) == {**OLD, "name": name}
            volume = self.cluster.volume(self.namespace, name)
            assert volume["metadata"]["uid"] == self.first[name]["metadata"]["uid"]
            for part in ("labels", "annotations"):
                assert volume["metadata"].get(part) == self.first[name]["metadata"].get(part)
            assert volume["spec"] == self.first[name]["spec"]
        assert sorted(self.claims()) == sorted(self.names)
        self.cluster.until(lambda: len(self.mine()) == len(self.names), "what was made is removed again")

    def claims(self):
        return [each["metadata"]["name"] for each in self.api.items(self.cluster.claim_path(self.namespace))]


def rounds(cluster, namespace, first, **options):
    """Yield rising numbers, each with a shop of a claim of its own, ``data{number}``, as long as they are wanted."""
    for start in itertools.count(first, 8):
        names = [f"data{number}" for number in range(start, start + 8)]
        shop = Shop(cluster, namespace, names, **options)
        yield from ((number, shop.only(name)) for number, name in enumerate(names, start))


def errors(outcomes):
    return [str(each) for each in outcomes if isinstance(each, RestorePointError)]


def test_a_claim_gets_the_data_of_its_snapshot_and_the_old_volume_stays(cluster, namespace):
    shop = Shop(cluster, namespace)
    swap = shop.swap()
    (outcome,) = swap.carry_out(shop.returns())
    assert not isinstance(outcome, RestorePointError), outcome
    assert outcome["old_volume"] == shop.first["data"]["metadata"]["name"]
    assert outcome["new_volume"] == cluster.volume(namespace, "data")["metadata"]["name"]
    shop.check()


def test_many_claims_are_returned_together_with_at_most_twelve_requests_each(cluster, namespace):
    shop = Shop(cluster, namespace, [f"data-{number}" for number in range(8)])
    swap = shop.swap()
    assert errors(swap.carry_out(shop.returns())) == []
    assert swap._client.requests <= 8 * 12 + 40
    shop.check()


@pytest.mark.parametrize("storage_class", ["folders", "folders-retain"])
@pytest.mark.parametrize("heard", [False, True], ids=["before", "after"])
def test_killed_at_each_request_and_run_again_it_ends_well(cluster, namespace, storage_class, heard):
    """Each round is a claim of its own: killed at its nth request, before or after that counted, and run again."""
    for last, shop in rounds(cluster, namespace, 2, storage_class=storage_class):
        name = f"data{last}"
        outcome = shop.run(last, heard)
        killed = outcome is None
        assert killed or errors(outcome) == []
        # Whatever happened, the old data is there.
        assert contents(cluster.folder_of(shop.first[name])) == {**OLD, "name": name}
        again = shop.run()
        assert errors(again) == []
        policy = "Retain" if storage_class == "folders-retain" else "Delete"
        assert cluster.read(namespace, name) == {"state": TAKEN["state"], "name": name}
        assert cluster.volume(namespace, name)["spec"]["persistentVolumeReclaimPolicy"] == policy
        assert len(shop.survey(name).asides) == 1, f"killed at {last}"
        journals = [each for each in shop.mine() if j.JOURNAL in (each["metadata"].get("annotations") or {})]
        assert not journals, f"killed at {last}"
        if not killed:
            break
    assert last > 14
    each_round = "there is an aside of each round, and what was begun in vain is removed"
    cluster.until(lambda: len(shop.mine()) == len(shop.claims()) + last - 1, each_round)


@pytest.mark.parametrize("verb", ["POST", "PATCH", "DELETE"])
@pytest.mark.parametrize("action", ["cut_before", "cut_after"])
def test_connections_that_are_cut_at_each_request_are_survived(cluster, namespace, proxy, action, verb):
    """Each round is a claim of its own: the nth request of that verb is cut, before or after it was passed on."""
    for skip, shop in itertools.islice(rounds(cluster, namespace, 0), 4 if verb == "PATCH" else 2):
        proxy.heal()
        name = f"data{skip}"
        proxy.tell(action, verb=verb, times=1, skip=skip)
        swap = shop.swap(kubeconfig=cluster.through(proxy))
        assert errors(swap.carry_out(shop.returns())) == []
        assert cluster.read(namespace, name) == {"state": TAKEN["state"], "name": name}
        assert len(shop.survey(name).asides) == 1
        assert contents(cluster.folder_of(shop.first[name])) == {**OLD, "name": name}
    assert not [each for each in shop.mine() if j.JOURNAL in (each["metadata"].get("annotations") or {})]


@pytest.mark.parametrize("storage_class", ["folders", "folders-retain"])
def test_undo_gives_the_old_volume_back_also_when_it_was_killed(cluster, namespace, storage_class):
    killed = True
    for last, shop in rounds(cluster, namespace, 3, storage_class=storage_class):
        name = f"data{last}"
        assert errors(shop.swap().carry_out(shop.returns())) == []
        try:
            outcome = shop.swap(last, heard=last % 2 == 0).undo([Undo(name, once="u")])
            killed = False
        except Killed:
            shop.swap().recover()
            again = [] if "u" in shop.survey(name).returned else [Undo(name, once="u")]
            outcome = shop.swap().undo(again)
        assert errors(outcome) == []
        assert cluster.read(namespace, name) == {**OLD, "name": name}
        volume = cluster.volume(namespace, name)
        assert volume["metadata"]["uid"] == shop.first[name]["metadata"]["uid"]
        assert volume["spec"]["persistentVolumeReclaimPolicy"] == (
            "Retain" if storage_class == "folders-retain" else "Delete"
        )
        assert len(shop.survey(name).asides) == 1, f"killed at {last}"
        if not killed:
            break
    assert last > 9


@pytest.mark.parametrize("storage_class", ["folders", "folders-retain"])
def test_a_return_that_was_killed_before_its_swap_is_called_off_and_leaves_nothing(cluster, namespace, storage_class):
    shop = Shop(cluster, namespace, storage_class=storage_class)
    called_off = 0
    for last in range(3, 40):
        with contextlib.suppress(Killed):
            shop.swap(last, heard=True).carry_out(shop.returns())
        (outcome,) = shop.swap().call_off(["data"])
        if isinstance(outcome, RestorePointError):
            assert "its swap has begun" in str(outcome)
            break
        called_off += outcome["changed"]
        shop.check_untouched()
    assert called_off > 6
    shop.swap().carry_out(shop.returns())
    shop.check(policy="Retain" if storage_class == "folders-retain" else "Delete")


def test_a_pod_that_comes_late_leaves_the_claim_terminating_and_the_next_run_completes_it(cluster, namespace, proxy):
    shop = Shop(cluster, namespace)
    pods, deadline = [], Ending()

    def late():
        pods.append(cluster.pod(namespace, "late", "data"))
        cluster.until(lambda: cluster.api.get(pods[0])["spec"].get("nodeName"), "the pod has a node")
        deadline.come_in(8.0)

    path = "/persistentvolumeclaims/data$"
    proxy.tell("call", verb="DELETE", path=path, function=late)
    with cluster.node(namespace):
        (outcome,) = shop.swap(deadline=deadline, kubeconfig=cluster.through(proxy)).carry_out(shop.returns())
        assert "pod late on node" in str(outcome)
        assert "the next run completes the return" in str(outcome)
        assert cluster.read(namespace, "data") == {**OLD, "name": "data"}
        assert cluster.api.get(cluster.claim_path(namespace, "data"))["metadata"]["deletionTimestamp"]
        assert "its swap has begun" in errors(shop.swap().call_off(["data"]))[0]
        cluster.api.delete(pods[0])
        cluster.until(lambda: cluster.api.find(pods[0]) is None, "the pod is gone")
        (outcome,) = shop.swap().carry_out(shop.returns())
    assert not isinstance(outcome, RestorePointError), outcome
    assert outcome["resumed"]
    shop.check()


def test_a_claim_that_is_made_again_by_somebody_meanwhile_gets_the_new_volume(cluster, namespace, proxy):
    """As a StatefulSet's controller does it: the claim is made from a template as soon as it is missing."""
    shop = Shop(cluster, namespace)
    body = {
        "metadata": {"name": "data", "labels": {"app": "data"}},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
            "storageClassName": "folders",
        },
    }

    def faster():
        cluster.api.create(cluster.claim_path(namespace), body)

    # The second POST of claims is the one that makes the claim again.
    proxy.tell("call", verb="POST", path="/persistentvolumeclaims", function=faster, skip=1)
    (outcome,) = shop.swap(kubeconfig=cluster.through(proxy)).carry_out(shop.returns())
    assert not isinstance(outcome, RestorePointError), outcome
    shop.check()


def test_a_strangers_claim_that_waits_for_any_volume_gets_neither(cluster, namespace):
    shop = Shop(cluster, namespace)
    stop = threading.Event()
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}, "storageClassName": "none"}

    def greedy():
        for number in range(200):
            if stop.is_set():
                return
            cluster.api.create(
                cluster.claim_path(namespace),
                {"metadata": {"name": f"greedy{number}"}, "spec": {**spec, "storageClassName": "folders-late"}},
            )
            time.sleep(0.02)

    thread = threading.Thread(target=greedy)
    thread.start()
    try:
        assert errors(shop.swap().carry_out(shop.returns())) == []
    finally:
        stop.set()
        thread.join()
    names = {each["metadata"]["name"] for each in shop.mine()}
    assert len(names) == 2
    assert {each["spec"]["claimRef"]["name"] for each in shop.mine()} == {"data"}


def test_a_namespace_that_is_deleted_in_the_middle_leaves_the_old_data_retained(cluster, proxy):
    namespace = cluster.make_namespace()
    shop = Shop(cluster, namespace)
    deadline = Ending()

    def remove():
        cluster.remove_namespace(namespace)
        deadline.come_in(15.0)

    proxy.tell("call", verb="DELETE", path="-rb-", function=remove)
    (outcome,) = shop.swap(deadline=deadline, kubeconfig=cluster.through(proxy)).carry_out(shop.returns())
    assert isinstance(outcome, RestorePointError)
    cluster.until(lambda: cluster.api.find(f"{CORE}/namespaces/{namespace}") is None, "the namespace is gone")
    name = shop.first["data"]["metadata"]["name"]
    old = cluster.api.get(f"{VOLUMES}/{name}")
    assert old["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert contents(cluster.folder_of(shop.first["data"])) == {**OLD, "name": "data"}


def test_binding_that_waits_for_a_pod_is_done_by_the_node_of_the_old_volume(cluster, namespace):
    shop = Shop(cluster, namespace, [])
    metadata = {"name": "data", "labels": {"app": "data"}, "annotations": {"volume.kubernetes.io/selected-node": "lab"}}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    spec["storageClassName"] = "folders-late"
    cluster.api.create(cluster.claim_path(namespace), {"metadata": metadata, "spec": spec})
    cluster.bound(namespace, "data")
    cluster.write(namespace, "data", {**TAKEN, "name": "data"})
    shop.names, shop.snapshots["data"] = ["data"], cluster.snapshot(namespace, "data", "data-before")
    cluster.write(namespace, "data", OLD)
    shop.first["data"] = cluster.volume(namespace, "data")
    assert errors(shop.swap().carry_out(shop.returns())) == []
    shop.check()


def test_a_quota_without_room_calls_everything_off(cluster, namespace):
    shop = Shop(cluster, namespace, ["data", "more"])
    quota = {"metadata": {"name": "tight"}, "spec": {"hard": {"persistentvolumeclaims": "3"}}}
    path = f"{CORE}/namespaces/{namespace}/resourcequotas"
    cluster.api.create(path, quota)
    cluster.until(lambda: cluster.api.get(f"{path}/tight").get("status", {}).get("used"), "the quota counts")
    outcomes = shop.swap().carry_out(shop.returns())
    assert "exceeded quota" in str(outcomes)
    assert any(isinstance(each, NotBegun) for each in outcomes)
    shop.check_untouched()


def test_old_volumes_are_removed_by_name_or_at_the_end_of_the_return(cluster, namespace):
    shop = Shop(cluster, namespace, ["data", "more"])
    folders = {name: cluster.folder_of(shop.first[name]) for name in shop.names}
    assert errors(shop.swap().carry_out(shop.returns(["data"]))) == []
    assert errors(shop.swap().carry_out(shop.returns(["more"], keep=False))) == []
    assert not folders["more"].exists()
    (aside,) = shop.survey("data").asides
    assert errors(shop.swap().purge([("data", aside.name)])) == []
    assert not folders["data"].exists()
    shop.check(asides=0)
