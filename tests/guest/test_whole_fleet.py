# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An upgrade that breaks every kind of storage at once is taken back on all hosts, whoever dies on the way."""

from __future__ import annotations

import os

import pytest

from ansible_collections.restorepoint.core.tests import signals
from ansible_collections.restorepoint.core.tests.cluster.lab import running
from ansible_collections.restorepoint.core.tests.guest.fleet import Fleet
from ansible_collections.restorepoint.core.tests.lab.filesystems import Lab
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.pve_cluster import guests_of_each_kind

signals.as_usual()


@pytest.fixture(scope="module")
def cluster():
    """A real API server; one that RP_CLUSTER names and that runs is left running."""
    with running(os.environ.get("RP_CLUSTER") or f"fleet-{os.getpid()}") as lab:
        yield lab


@pytest.fixture(scope="module")
def fleet(guest, cluster, tmp_path_factory):
    """All hosts, with content."""
    namespace = cluster.make_namespace()
    with (
        Lab() as lab,
        lab.place("btrfs") as volume,
        lab.place("ext4") as plain,
        guests_of_each_kind() as pve,
        cluster.node(namespace),
        cluster.proxy() as proxy,
    ):
        found = Fleet(tmp_path_factory.mktemp("fleet"), guest, volume, plain, pve, cluster, namespace, proxy)
        found.build()
        yield found
    cluster.remove_namespace(namespace)


def test_where_a_host_dies_while_it_is_taken_the_others_undo(fleet):
    with fleet.held("zfs", "snapshot") as snapshot:
        run = fleet.upgrade()
        snapshot.came()
        fleet.storage_dies()
        run.end().said(
            "Cannot take restore point pre-upgrade: storage: it is unreachable: ",
            "What this run had made on the other hosts was removed again",
        )
        fleet.storage_boots()
    fleet.is_as_it_was()
    assert fleet.left("pre-upgrade") == []


def test_an_upgrade_that_breaks_everything_is_taken_back_in_one_run(fleet):
    fleet.upgrade(once="job-17").end().said(
        "Cannot upgrade: claims: the hook upgrade failed at Fail where it is seen: it is broken. "
        "All hosts were returned to restore point pre-upgrade."
    )
    fleet.is_as_it_was()
    assert fleet.asides() == [1, 1, 2]
    fleet.fill("two")
    again = fleet.role("rolled_back", once="job-17").well()
    assert again.unchanged
    fleet.is_as_it_was()


def test_a_return_goes_on_where_it_was_when_the_control_node_was_killed_and_a_host_has_died(fleet):
    before = fleet.asides()
    with fleet.held("lvconvert", "--yes --merge") as merge:
        run = fleet.upgrade(replace=True)

        def kill():
            merge.came()
            run.kill()

        killing = fleet.proxy.tell("call", verb="DELETE", path="/persistentvolumeclaims/", after=True, function=kill)
        run.end().killed()
        fleet.proxy.settle()
        assert killing.done == 1, "a claim has let go of its volume, and LVM is about to merge"
        fleet.storage_dies()
        fleet.storage_boots()

    with fleet.held("zfs", "rollback") as rollback:
        run = fleet.upgrade()
        rollback.came()
        run.kill()
        run.end().killed()
        rollback.release()  # that host goes on, though nobody listens any more

    fleet.upgrade().end().said("An earlier run had begun to return. All hosts were returned")
    fleet.is_as_it_was()
    assert fleet.asides() == [before[0] + 1, before[1] + 1, before[2] + 2], "each target returns once"
