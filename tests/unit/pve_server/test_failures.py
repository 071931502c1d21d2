# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a task that fails or is killed leaves behind, and the ways out: the state machine of locks and snapstates."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.tests.pve_server import faults
from ansible_collections.restorepoint.core.tests.unit.pve_server.client import BOX, ONE, Refused

CREATE, DELETE, ROLLBACK = "POST */snapshot", "DELETE */snapshot/*", "POST */rollback"
SPACE = "zfs error: out of space"


def fail(server, call, step, words=SPACE):
    """Let the next such call's task fail before a step."""
    server.faults.at(call, 1, faults.fail_task(step, words))


def kill(server, call, step):
    """Let the next such call's worker be killed before a step."""
    server.faults.at(call, 1, faults.kill_task(step))


def test_while_a_snapshot_is_made_the_guest_is_locked_and_the_snapshot_incomplete(server, root):
    server.faults.at(CREATE, 1, faults.hang_task("volume:*"))
    upid = root.post(f"{ONE.format(100)}/snapshot", snapname="s1")
    assert root.get(f"{ONE.format(100)}/config")["lock"] == "snapshot"
    assert root.listed()["s1"]["snapstate"] == "prepare"
    assert "parent" not in root.listed()["current"]
    assert root.create("s2") == "VM is locked (snapshot)"
    assert root.get(f"/nodes/pve1/tasks/{upid}/status")["status"] == "running"


def test_a_creation_that_fails_cleans_up_after_itself(server, root):
    guest = server.add_qemu(120, storage=["local-zfs", "local-zfs"])
    fail(server, CREATE, "volume:scsi1")
    path = ONE.format(120)
    upid = root.post(f"{path}/snapshot", snapname="s1", vmstate=1)
    assert root.end(upid) == f"{SPACE} "
    assert root.log(upid)[-2:] == ["snapshot create failed: starting cleanup", f"TASK ERROR: {SPACE} "]
    assert (guest.lock, guest.snapshots) == (None, {})
    assert [volume.names() for volume in guest.volumes.values()] == [[], []]
    assert root.create("s1", path) == "OK"


def test_the_chain_of_a_running_vm_of_an_old_machine_version_is_not_touched(server, root):
    guest, path = server.add_qemu(120, storage="chain"), ONE.format(120)
    assert root.create("s1", path) == "OK"
    guest.machine = "pc-i440fx-9.2+pve1"
    words = (
        "storage for 'chain:120/vm-120-disk-0.qcow2' is configured for snapshots as a volume chain - this requires"
        " QEMU machine version >= 10.0. See https://pve.proxmox.com/wiki/QEMU_Machine_Version_Upgrade"
    )
    assert root.create("s2", path).strip() == words
    assert (guest.lock, list(guest.snapshots)) == (None, ["s1"])
    assert root.remove("s1", path).strip() == words
    assert (guest.lock, guest.snapshots["s1"]["snapstate"]) == ("snapshot-delete", "delete")
    server.unlock(120)
    guest.running = False
    assert root.remove("s1", path) == "OK"


def test_a_creation_whose_worker_is_killed_leaves_lock_and_section(server, root):
    kill(server, CREATE, "commit")
    assert root.create("s1") == "unexpected status"
    assert root.listed()["s1"]["snapstate"] == "prepare"
    assert root.create("s2") == "VM is locked (snapshot)"
    assert root.remove("s1") == "VM is locked (snapshot)"
    server.unlock(100)
    words = "unable to rollback to incomplete snapshot (snapstate = prepare)"
    assert root.rollback("s1") == words
    assert root.remove("s1") == "OK"
    assert root.create("s1") == "OK"


def test_a_snapshot_that_was_only_begun_needs_a_forced_removal(server, root):
    kill(server, CREATE, "volume:scsi0")
    assert root.create("s1") == "unexpected status"
    server.unlock(100)
    assert root.remove("s1") == "zfs error: could not find any snapshots to destroy; check snapshot names."
    assert (server.guest(100).lock, root.listed()["s1"]["snapstate"]) == ("snapshot-delete", "delete")
    server.unlock(100)
    assert root.remove("s1", force=1) == "OK"
    assert (server.guest(100).lock, server.guest(100).snapshots) == (None, {})


def test_a_clean_up_that_is_killed_leaves_the_snapshots_lock(server, root):
    server.faults.at(CREATE, 1, faults.fail_task("volume:scsi0", SPACE), faults.kill_task("cleanup:commit"))
    assert root.create("s1") == "unexpected status"
    assert (server.guest(100).lock, root.listed()["s1"]["snapstate"]) == ("snapshot", "delete")


def test_a_removal_that_fails_leaves_lock_and_snapstate(server, root):
    root.create("s1")
    fail(server, DELETE, "volume:scsi0", "zfs error: dataset is busy")
    assert root.remove("s1") == "zfs error: dataset is busy"
    assert root.get(f"{ONE.format(100)}/config")["lock"] == "snapshot-delete"
    assert root.listed()["s1"]["snapstate"] == "delete"
    assert root.create("s2") == "VM is locked (snapshot-delete)"
    assert root.remove("s1") == "VM is locked (snapshot-delete)"
    assert root.remove("s1", force=1) == "VM is locked (snapshot-delete)"


def test_only_root_with_a_ticket_takes_a_lock_away_over_the_api(server, root):
    path = f"{ONE.format(108)}/config"
    with pytest.raises(Refused) as refused:
        root.put(path, delete="lock")
    assert (refused.value.status, refused.value.reason) == (500, "VM is locked (backup)")
    token = type(root)(server, token="root@pam!full=11111111-2222-3333-4444-555555555555")
    with pytest.raises(Refused) as refused:
        token.put(path, delete="lock", skiplock=1)
    assert refused.value.status == 400
    assert refused.value.errors == {"skiplock": "Only root may use this option."}
    assert root.put(path, delete="lock", skiplock=1) is None
    assert "lock" not in root.get(path)


def test_a_half_removed_snapshot_is_unlocked_and_forced_away(server, root):
    guest = server.add_qemu(120, storage=["local-lvm", "local-lvm"])
    path = ONE.format(120)
    root.create("s1", path)
    fail(server, DELETE, "volume:scsi1", "lvremove failed")
    assert root.remove("s1", path) == "lvremove failed"
    assert "scsi0" not in guest.snapshots["s1"]
    assert root.put(f"{path}/config", delete="lock", skiplock=1) is None
    server.faults.at(DELETE, None, faults.fail_task("volume:*", "lvremove failed"))
    upid = root.delete(f"{path}/snapshot/s1", force=1)
    assert root.end(upid) == "OK"
    assert root.log(upid) == ["lvremove failed", "TASK OK"]
    assert (guest.snapshots, guest.lock) == ({}, None)
    assert list(guest.volumes.values())[1].names() == ["s1"]


def test_a_containers_lock_goes_only_on_its_node(server, root):
    path = BOX.format(202)
    root.create("s1", path)
    fail(server, DELETE, "volume:*", "lvremove failed")
    root.remove("s1", path)
    with pytest.raises(Refused) as refused:
        root.put(f"{path}/config", delete="lock")
    assert refused.value.reason == "CT is locked (snapshot-delete)"
    with pytest.raises(Refused) as refused:
        root.put(f"{path}/config", delete="lock", skiplock=1)
    assert set(refused.value.errors or ()) == {"skiplock"}
    server.unlock(202)
    assert root.remove("s1", path) == "OK"


def test_a_return_that_fails_midway_leaves_a_stopped_and_locked_guest(server, root):
    guest = server.add_qemu(120, storage=["local-lvm", "local-lvm"], content="then")
    path = ONE.format(120)
    root.create("s1", path)
    guest.write("now")
    fail(server, ROLLBACK, "volume:scsi1", "lvconvert failed")
    assert root.rollback("s1", path, start=1) == "lvconvert failed"
    guest = server.guest(120)
    assert (guest.running, guest.lock) == (False, "rollback")
    assert guest.content == {"scsi0": "then", "scsi1": "now"}
    assert not server.all_tasks("qmstart")
    server.unlock(120)
    assert root.rollback("s1", path, start=1) == "OK"
    assert server.guest(120).content == {"scsi0": "then", "scsi1": "then"}


def test_a_guest_that_does_not_stop_is_not_rolled_back(server, root):
    root.create("s1")
    fail(server, ROLLBACK, "stop", "VM quit/powerdown failed - got timeout")
    assert root.rollback("s1") == "VM quit/powerdown failed - got timeout"
    assert (server.guest(100).running, server.guest(100).lock) == (True, None)


@pytest.mark.parametrize("step", ["prepare", "stop", "volume:scsi0", "commit"])
def test_a_return_that_is_killed_at_any_step_is_done_again_after_an_unlock(server, root, step):
    root.create("s1")
    server.guest(100).write("now")
    kill(server, ROLLBACK, step)
    assert root.rollback("s1") == "unexpected status"
    locked = server.guest(100).lock
    assert locked == (None if step in ("prepare", "stop") else "rollback")
    server.unlock(100)
    assert root.rollback("s1") == "OK"
    assert server.guest(100).content == {"scsi0": "first"}


def test_removals_of_one_guest_wait_for_each_other(server, root):
    path = ONE.format(101)
    for name in ("t1", "t2", "t3"):
        root.create(name, path)
    upids = [root.delete(f"{path}/snapshot/{name}") for name in ("t1", "t2", "t3")]
    assert [root.end(upid) for upid in upids] == ["OK"] * 3
    assert set(root.listed(path)) == {"current"}


def test_removals_wait_ten_seconds_and_not_longer(server, root):
    server.settings.migration_lock_seconds = 0.02
    path = ONE.format(101)
    root.create("t1", path)
    root.create("t2", path)
    server.faults.at(DELETE, 1, faults.hang_task("volume:*"))
    root.delete(f"{path}/snapshot/t1")
    assert root.remove("t2", path) == "Failed to obtain guest migration lock - replication running?"
    assert root.remove("t2", path, force=1) == "VM is locked (snapshot-delete)"


def test_a_start_after_a_return_holds_removals_up_until_it_is_done(server, root):
    server.settings.migration_lock_seconds, server.settings.start_seconds = 0.02, 0.2
    path = ONE.format(101)
    root.create("t1", path)
    root.create("t2", path)
    root.post(f"{path}/snapshot/t1/rollback", start=1)
    while not server.all_tasks("qmstart"):
        pass
    assert root.remove("t2", path) == "Failed to obtain guest migration lock - replication running?"
    assert root.remove("t2", path) == "OK"


def test_a_lock_falls_with_the_worker_that_held_it(server, root):
    path = ONE.format(101)
    root.create("t1", path)
    kill(server, DELETE, "begin")
    assert root.remove("t1", path) == "unexpected status"
    assert root.remove("t1", path) == "OK"


def test_a_freeze_that_fails_is_a_line_in_the_log_for_a_vm_and_an_error_for_a_container(server, root):
    server.guest(100).freeze_fails = "got timeout"
    upid = root.post(f"{ONE.format(100)}/snapshot", snapname="s1")
    assert root.end(upid) == "OK"
    assert root.log(upid)[0] == "guest-fsfreeze-freeze problems - got timeout"
    server.guest(202).freeze_fails = "lxc-freeze failed"
    assert root.create("s1", BOX.format(202)) == "lxc-freeze failed "
    assert not server.guest(202).snapshots


@pytest.mark.parametrize(("agent", "ram", "running"), [(False, 0, True), (True, 1, True), (True, 0, False)])
def test_a_vm_is_frozen_only_with_an_agent_without_ram_and_running(server, root, agent, ram, running):
    server.add_qemu(120, agent=agent, running=running).freeze_fails = "got timeout"
    upid = root.post(f"{ONE.format(120)}/snapshot", snapname="s1", vmstate=ram)
    root.end(upid)
    assert "freeze" not in server.tasks.by_upid[upid].steps


def test_a_snapshot_that_replication_needs_is_kept_unless_forced(server, root):
    guest = server.add_qemu(120, replication=["pve2"])
    path = ONE.format(120)
    root.create("s1", path)
    volume = next(iter(guest.volumes.values()))
    volume.snapshots = [each for each in volume.snapshots if each.name == "s1"]
    words = "snapshot 's1' needed by replication job '120-0' - run replication first"
    assert root.remove("s1", path) == words
    assert guest.lock is None
    server.cluster.replicate(guest, guest.jobs[0])
    assert root.remove("s1", path) == "OK"


def test_a_return_drops_newer_snapshots_of_replication(server, root):
    guest = server.add_qemu(120, replication=["pve2"])
    path = ONE.format(120)
    root.create("s1", path)
    server.cluster.replicate(guest, guest.jobs[0])
    upid = root.post(f"{path}/snapshot/s1/rollback")
    assert root.end(upid) == "OK"
    log = root.log(upid)
    assert log[0].startswith("WARN: removing replication snapshot 'local-zfs:vm-120-disk-0@__replicate_120-0_")
    assert log[1] == "WARN: you shouldn't remove 's1' before running the next replication!"
    assert next(iter(guest.volumes.values())).names() == ["s1"]


def test_a_template_keeps_its_snapshots_and_a_removal_leaves_it_locked(server, root):
    root.create("s1")
    server.guest(100).config["template"] = 1
    assert root.rollback("s1") == "you can't rollback if vm is a template"
    assert root.remove("s1") == "you can't delete a snapshot if vm is a template"
    # AbstractConfig.pm locks before it looks: the lock stays.
    assert server.guest(100).lock == "snapshot-delete"


def test_a_task_of_guests_far_apart_runs_at_the_same_time(server, root):
    server.faults.at(CREATE, 1, faults.hang_task("volume:*"))
    root.post(f"{ONE.format(100)}/snapshot", snapname="s1")
    assert root.create("s1", ONE.format(101)) == "OK"


def test_a_task_that_is_stopped_cleans_up(server, root):
    server.faults.at(CREATE, 1, faults.hang_task("volume:*"))
    upid = root.post(f"{ONE.format(100)}/snapshot", snapname="s1")
    root.delete(f"/nodes/pve1/tasks/{upid}")
    assert root.end(upid).strip() == "received interrupt"
    assert (server.guest(100).lock, server.guest(100).snapshots) == (None, {})


def test_a_guest_that_moves_is_found_on_the_other_node_with_its_snapshots(server, root):
    root.create("s1")
    server.faults.at("POST */snapshot", 1, faults.move(100, "pve2"))
    with pytest.raises(Refused) as refused:
        root.post(f"{ONE.format(100)}/snapshot", snapname="s2")
    assert refused.value.reason == "Configuration file 'nodes/pve1/qemu-server/100.conf' does not exist"
    assert set(root.listed("/nodes/pve2/qemu/100")) == {"s1", "current"}
    assert root.create("s2", "/nodes/pve2/qemu/100") == "OK"


def test_a_task_that_hangs_goes_on_when_it_is_let(server, root):
    server.faults.at(CREATE, 1, faults.hang_task("volume:*"))
    upid = root.post(f"{ONE.format(100)}/snapshot", snapname="s1")
    server.release(server.tasks.by_upid[upid])
    assert root.end(upid) == "OK"


def test_a_task_that_warns_is_a_success_all_the_same(server, root):
    server.faults.at(CREATE, 1, faults.warn_task("volume:*", "something is odd"))
    upid = root.post(f"{ONE.format(101)}/snapshot", snapname="s1")
    assert root.end(upid) == "WARNINGS: 1"
    assert root.log(upid)[1:] == ["WARN: something is odd", "TASK WARNINGS: 1"]
    assert "snapstate" not in root.listed(ONE.format(101))["s1"]


def test_a_task_may_take_longer_at_one_step(server, root):
    server.faults.at(CREATE, 1, faults.slow_task("commit", 0.2))
    upid = root.post(f"{ONE.format(100)}/snapshot", snapname="s1")
    root.end(upid)
    task = server.tasks.by_upid[upid]
    assert task.ended - task.started >= 0.2


def test_a_backup_locks_a_guest_until_it_is_done(server, root):
    task = server.backup(100, 0.1)
    assert root.create("s1") == "VM is locked (backup)"
    server.wait_idle()
    assert (task.status, task.type) == ("OK", "vzdump")
    assert root.create("s1") == "OK"


@pytest.mark.parametrize(("kind", "vmid", "mark"), [("qemu", 101, "VM"), ("lxc", 202, "CT")])
def test_a_migration_locks_a_guest_and_takes_it_along(server, root, kind, vmid, mark):
    server.migrate(vmid, "pve2", 0.1)
    assert root.create("s1", f"/nodes/pve1/{kind}/{vmid}") == f"{mark} is locked (migrate)"
    assert root.create("s1", f"/nodes/pve2/{kind}/{vmid}") == "OK"
