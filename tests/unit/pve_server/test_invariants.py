# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What always holds of the test server's state, whatever is asked for in whatever order, and whatever goes wrong.

A slow and obvious model (what each snapshot's content was) runs beside it. No HTTP here, and a clock that is turned.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.tests.pve_server.api import router
from ansible_collections.restorepoint.core.tests.pve_server.calls import Call
from ansible_collections.restorepoint.core.tests.pve_server.cluster import Cluster
from ansible_collections.restorepoint.core.tests.pve_server.tasks import StepFault

ROUTER = router()
NAMES = st.sampled_from(["aa", "bb", "cc", "dd"])
STEPS = ("prepare", "begin", "freeze", "stop", "vmstate", "volume:scsi0", "volume:scsi1", "commit", "start")
FAULTS = st.none() | st.builds(StepFault, st.sampled_from(STEPS), st.sampled_from(["fail", "kill"]), st.just("no luck"))
ACTIONS = st.lists(st.tuples(st.sampled_from(["create", "delete", "rollback", "write"]), NAMES, FAULTS), max_size=14)
STORAGE = st.sampled_from(["local-zfs", "local-lvm", "chain", "ceph"])


class World:
    """A guest with two drives on a cluster of its own."""

    def __init__(self, storage: str) -> None:
        self.now = 1_800_000_000.0
        self.cluster = Cluster(clock=lambda: self.now)
        self.guest = self.cluster.add_guest("qemu", 100, storage=[storage, storage], agent=True, content=0)
        self.writes = 0
        self.kept: dict[str, int] = {}

    def act(self, what: str, name: str, fault: StepFault | None) -> str:
        """Do something to the end, and return the exit status."""
        if what == "write":
            self.writes += 1
            self.guest.write(self.writes)
            return "OK"
        base = "/nodes/pve1/qemu/100/snapshot"
        calls: dict[str, tuple[str, str, dict[str, object]]] = {
            "create": ("POST", base, {"snapname": name}),
            "delete": ("DELETE", f"{base}/{name}", {}),
            "force": ("DELETE", f"{base}/{name}", {"force": 1}),
            "rollback": ("POST", f"{base}/{name}/rollback", {}),
        }
        call = Call(*calls[what], "root@pam", [fault] if fault else [])
        upid = ROUTER.handle(self.cluster, call)
        self.now += 100
        self.cluster.tasks.advance()
        status = self.cluster.tasks.by_upid[upid].status
        assert status is not None
        return status

    def check(self) -> None:
        """Check what holds after everything that went well or cleaned up after itself."""
        guest = self.guest
        for section in [guest.config, *guest.snapshots.values()]:
            assert section.get("parent") is None or section["parent"] in guest.snapshots
        assert not any("snapstate" in each for each in guest.snapshots.values())
        assert guest.lock is None
        for _key, volume in guest.drives(guest.config):
            assert sorted(volume.names()) == sorted(guest.snapshots)


@settings(max_examples=60, deadline=None)
@given(STORAGE, ACTIONS)
def test_without_faults_the_configuration_and_the_volumes_agree_and_contents_come_back(storage, actions):
    world = World(storage)
    for what, name, _fault in actions:
        before = name in world.guest.snapshots
        status = world.act(what, name, None)
        if what == "create":
            assert status == (f"snapshot name '{name}' already used" if before else "OK")
            world.kept.setdefault(name, world.guest.content["scsi0"])
        elif what == "delete":
            assert status == ("OK" if before else f"snapshot '{name}' does not exist")
            world.kept.pop(name, None)
        elif what == "rollback" and status == "OK":
            assert world.guest.content == {"scsi0": world.kept[name], "scsi1": world.kept[name]}
        world.check()
    assert set(world.kept) == set(world.guest.snapshots)


@settings(max_examples=100, deadline=None)
@given(STORAGE, ACTIONS)
def test_after_any_fault_an_unlock_and_a_forced_removal_lead_out(storage, actions):
    world = World(storage)
    for what, name, fault in actions:
        status = world.act(what, name, fault)
        if what == "create" and status == "no luck ":
            world.check()
        if status in ("no luck", "unexpected status"):
            world.cluster.unlock(100)
            for each in [name for name, section in world.guest.snapshots.items() if "snapstate" in section]:
                assert world.act("force", each, None) == "OK"
            if what == "rollback" and name in world.guest.snapshots:
                assert world.act("rollback", name, None) == "OK"
            world.check()


@settings(max_examples=60, deadline=None)
@given(ACTIONS)
def test_a_storage_that_returns_only_to_the_newest_never_returns_to_another(actions):
    world = World("local-zfs")
    for what, name, _fault in actions:
        volume = next(iter(world.guest.drives(world.guest.config)))[1]
        newest = volume.names()[-1:] == [name]
        status = world.act(what, name, None)
        if what == "rollback":
            assert (status == "OK") == newest
