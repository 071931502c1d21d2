# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In-place returns of claims on a real control plane: data on disk, killed after every request, undone, called off."""

from __future__ import annotations

import time

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.returning import journal as j
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.returning.swap import Return, Swap
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.watching import Deadline
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import RestorePointError
from ansible_collections.restorepoint.core.plugins.module_utils.kube import KubeClient
from ansible_collections.restorepoint.core.tests.cluster.lab import CORE, contents

VOLUMES = f"{CORE}/persistentvolumes"
OLD, TAKEN = {"state": "what came after"}, {"state": "as it was"}


class Killed(BaseException):
    """What becomes of a run that is killed: nothing of it is carried out any more."""


class Mortal(KubeClient):
    """A login that dies before its nth request, or after it without having heard the answer."""

    def __init__(self, kubeconfig, last=None, heard=False):
        super().__init__({"kubeconfig": str(kubeconfig)}, patience=30.0)
        self._last, self._heard = last, heard

    def _send(self, call, timeout):
        if self._last is not None and self.requests >= self._last:
            if self._heard and self.requests == self._last and call.verb != "watch":
                super()._send(call, timeout)
            raise Killed
        return super()._send(call, timeout)


class Shop:
    """A namespace with claims, each with a snapshot, and with other data since."""

    def __init__(self, cluster, namespace, names=("data",), **options):
        self.cluster, self.api, self.namespace, self.names = cluster, cluster.api, namespace, list(names)
        self.snapshots = {}
        for name in names:
            cluster.claim(namespace, name, {"state": TAKEN["state"], "name": name}, labels={"app": name}, **options)
        for name in names:
            self.snapshots[name] = cluster.snapshot(namespace, name, f"{name}-before")
            cluster.write(namespace, name, OLD)
        self.first = {name: cluster.volume(namespace, name) for name in names}

    def swap(self, last=None, heard=False, seconds=60.0, kubeconfig=None):
        client = Mortal(kubeconfig or self.cluster.kubeconfig, last, heard)
        return Swap(client, self.namespace, Deadline(seconds), lambda: int(time.time()))

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
        """Each claim has the snapshot's data, its old volume is an aside with the old data, nothing else is left."""
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
    last, killed = 2, True
    while killed:
        name = f"data{last}"
        shop = Shop(cluster, namespace, [name], storage_class=storage_class)
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
        last += 1
    assert last > 15
    assert len(shop.mine()) == 2 * len(shop.claims())
