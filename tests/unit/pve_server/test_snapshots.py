# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What creating, removing and rolling back does where all goes well, and which guests and storages refuse it how."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.tests.unit.pve_server.client import BOX, ONE, Refused

NO_FEATURE = "snapshot feature is not available"


@pytest.mark.parametrize(
    ("path", "has", "status"),
    [
        (ONE.format(100), 1, "OK"),
        (ONE.format(101), 1, "OK"),
        (ONE.format(102), 1, "OK"),
        (ONE.format(103), 0, NO_FEATURE),
        (ONE.format(105), 0, NO_FEATURE),
        (ONE.format(106), 1, "OK"),
        (ONE.format(107), 1, "OK"),
        (ONE.format(108), 1, "VM is locked (backup)"),
        (ONE.format(109), 0, "you can't take a snapshot if it's a template"),
        (ONE.format(110), 1, "OK"),
        (ONE.format(111), 1, "OK"),
        (BOX.format(200), 1, "OK"),
        (BOX.format(201), 0, NO_FEATURE),
        (BOX.format(202), 1, "OK"),
        (BOX.format(203), 0, NO_FEATURE),
    ],
)
def test_the_feature_call_foretells_storage_and_templates_but_not_locks(root, path, has, status):
    assert root.get(f"{path}/feature", feature="snapshot")["hasFeature"] == has
    assert root.create("s1", path) == status


def test_the_feature_call_names_the_nodes_of_shared_storage(root):
    assert root.get(f"{ONE.format(106)}/feature", feature="snapshot")["nodes"] == ["pve1", "pve2"]
    assert root.get(f"{ONE.format(100)}/feature", feature="snapshot")["nodes"] == []
    assert "nodes" not in root.get(f"{BOX.format(200)}/feature", feature="snapshot")


@pytest.mark.parametrize(("vmid", "has"), [(100, 1), (101, 0)])
def test_lvm_thin_denies_the_feature_of_a_snapshot(root, vmid, has):
    root.create("s1", ONE.format(vmid))
    found = root.get(f"{ONE.format(vmid)}/feature", feature="snapshot", snapname="s1")
    assert found["hasFeature"] == has


@pytest.mark.parametrize("storages", [["local-zfs", "local-raw"], ["local-thick", "local-lvm"]])
def test_one_disk_without_the_feature_blocks_the_guest(server, root, storages):
    server.add_qemu(120, storage=storages)
    assert root.create("s1", ONE.format(120)) == NO_FEATURE


def test_a_name_is_used_once(root):
    assert root.create("s1") == "OK"
    assert root.create("s1") == "snapshot name 's1' already used"
    assert root.create("s1", BOX.format(200)) == "OK"
    assert root.create("s1", BOX.format(200)) == "snapshot name 's1' already used"


def test_a_created_snapshot_says_in_its_log_what_it_did(root):
    upid = root.post(f"{ONE.format(100)}/snapshot", snapname="vm", vmstate=1)
    assert root.end(upid) == "OK"
    assert root.log(upid) == [
        "saving VM state and RAM using storage 'local-zfs'",
        "completed saving the VM state in 1s, saved 1.00 MiB",
        "snapshotting 'drive-scsi0' (local-zfs:vm-100-disk-0)",
        "TASK OK",
    ]
    upid = root.post(f"{BOX.format(200)}/snapshot", snapname="c1")
    root.end(upid)
    assert root.log(upid) == ["TASK OK"]


def test_the_checks_of_a_creation_come_in_proxmoxs_order(server, root):
    server.add_qemu(120, template=True, lock="backup", storage="local-raw")
    guest = server.add_qemu(121, lock="backup", storage="local-raw")
    path = ONE.format(121)
    assert root.create("s1", ONE.format(120)) == "you can't take a snapshot if it's a template"
    assert root.create("s1", path) == "VM is locked (backup)"
    del guest.config["lock"]
    guest.snapshots["s1"] = {"snaptime": 1}
    assert root.create("s1", path) == "snapshot name 's1' already used"
    assert root.create("s2", path) == NO_FEATURE


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"virtiofs0": "dirid=x"}, "virtiofs"),
        ({"amd-sev": "std"}, "amd-sev"),
        ({"intel-tdx": "1", "virtiofs3": "dirid=x"}, "intel-tdx, virtiofs"),
    ],
)
def test_some_devices_forbid_ram_at_once_and_nothing_else(server, root, config, words):
    server.add_qemu(120, config=config)
    path = ONE.format(120)
    with pytest.raises(Refused) as refused:
        root.post(f"{path}/snapshot", snapname="s1", vmstate=1)
    assert refused.value.status == 500
    assert refused.value.reason == f"Cannot live-migrate, snapshot (with RAM), or hibernate a VM with: {words}"
    assert root.create("s1", path) == "OK"


def test_ram_of_a_stopped_vm_is_silently_left_out(server, root):
    assert root.create("st", ONE.format(102), vmstate=1) == "OK"
    assert root.listed(ONE.format(102))["st"]["vmstate"] == 0
    assert "vmstate" not in server.guest(102).snapshots["st"]


@pytest.mark.parametrize(
    ("storage", "config", "where"),
    [
        (["local-zfs"], {}, "local-zfs:vm-120-state-s1"),
        (["local-zfs", "ceph"], {}, "ceph:vm-120-state-s1"),
        (["local-zfs"], {"vmstatestorage": "local"}, "local:120/vm-120-state-s1.raw"),
    ],
)
def test_ram_goes_where_proxmox_would_put_it_and_takes_its_room(server, root, storage, config, where):
    server.add_qemu(120, storage=storage, config=config, ram="state")
    assert root.create("s1", ONE.format(120), vmstate=1) == "OK"
    volume = server.guest(120).volumes[where]
    assert volume.size == (2 * 2048 + 500) << 20
    before = volume.storage.avail
    assert root.remove("s1", ONE.format(120)) == "OK"
    assert where not in server.guest(120).volumes
    assert volume.storage.avail == before + volume.size


def test_a_storage_without_room_for_ram_fails_the_task_and_leaves_nothing(server, root):
    server.cluster.storages["local-zfs"].avail = 1 << 30
    assert root.create("s1", vmstate=1) == "zfs error: out of space"
    assert server.guest(100).lock is None
    assert not server.guest(100).snapshots


@pytest.mark.parametrize(
    ("vmid", "shown"),
    [
        (100, "local-zfs:vm-100-disk-0"),
        (106, "vm-106-disk-0.qcow2"),
        (107, "107/vm-107-disk-0.qcow2"),
    ],
)
def test_some_storages_return_only_to_the_newest(server, root, vmid, shown):
    path = ONE.format(vmid)
    root.create("u1", path)
    root.create("u2", path)
    assert root.rollback("u1", path) == f"can't rollback, 'u1' is not most recent snapshot on '{shown}'"
    guest = server.guest(vmid)
    assert (guest.running, guest.lock, guest.starts) == (True, None, 0)
    assert root.remove("u2", path) == "OK"
    assert root.rollback("u1", path) == "OK"


def test_a_container_on_zfs_returns_only_to_the_newest(root):
    path = BOX.format(200)
    root.create("c1", path)
    root.create("c2", path)
    words = "can't rollback, 'c1' is not most recent snapshot on 'local-zfs:subvol-200-disk-0'"
    assert root.rollback("c1", path) == words


@pytest.mark.parametrize("storage", ["local-lvm", "ceph", "local-btrfs", "local", "nfs"])
def test_other_storages_return_to_any_and_make_a_branch(server, root, storage):
    guest = server.add_qemu(120, storage=storage, content="at t1")
    path = ONE.format(120)
    root.create("t1", path)
    guest.write("at t2")
    root.create("t2", path)
    guest.write("now")
    assert root.rollback("t1", path) == "OK"
    assert server.guest(120).content == {"scsi0": "at t1"}
    assert root.create("t3", path) == "OK"
    listed = root.listed(path)
    assert (listed["t2"]["parent"], listed["t3"]["parent"], listed["current"]["parent"]) == ("t1", "t1", "t3")
    assert root.rollback("t2", path) == "OK"
    assert server.guest(120).content == {"scsi0": "at t2"}


def test_a_return_stops_the_guest_and_leaves_it_so(server, root):
    root.create("s1")
    assert root.rollback("s1") == "OK"
    assert root.get(f"{ONE.format(100)}/status/current")["status"] == "stopped"
    assert root.listed()["current"]["running"] == 0


def test_a_return_with_start_is_ok_before_the_guest_runs(server, root):
    root.create("s1")
    server.settings.start_seconds = 3600
    upid = root.post(f"{ONE.format(100)}/snapshot/s1/rollback", start=1)
    while root.get(f"/nodes/pve1/tasks/{upid}/status")["status"] == "running":
        pass
    assert root.get(f"/nodes/pve1/tasks/{upid}/status")["exitstatus"] == "OK"
    assert root.get(f"{ONE.format(100)}/status/current")["status"] == "stopped"
    assert len(server.all_tasks("qmstart")) == 1


@pytest.mark.parametrize(("path", "kind"), [(ONE.format(100), "qmstart"), (BOX.format(202), "vzstart")])
def test_a_return_with_start_starts_the_guest_in_a_task_of_its_own(server, root, path, kind):
    root.create("s1", path)
    assert root.rollback("s1", path, start=1) == "OK"
    (started,) = server.all_tasks(kind)
    assert (started.status, started.user) == ("OK", "root@pam")
    assert root.get(f"{path}/status/current")["status"] == "running"


def test_a_return_to_a_snapshot_with_ram_brings_the_running_guest_back(server, root):
    server.guest(100).ram = "then"
    root.create("s1", vmstate=1)
    server.guest(100).ram = "now"
    assert root.rollback("s1") == "OK"
    guest = server.guest(100)
    assert (guest.running, guest.ram) == (True, "then")
    assert not server.all_tasks("qmstart")


def test_a_service_of_ha_is_started_by_ha(server, root):
    path = ONE.format(110)
    root.create("s1", path)
    assert root.rollback("s1", path, start=1) == "OK"
    assert [task.type for task in server.all_tasks()][-2:] == ["hastart", "qmstart"]
    assert server.guest(110).running
    assert root.rollback("s1", path) == "OK"
    assert server.guest(110).running


def test_a_return_restores_the_configuration_but_not_the_description(server, root):
    guest = server.guest(101)
    path = ONE.format(101)
    guest.config.update(description="before", vmgenid="1")
    root.create("s1", path)
    guest.config.update(description="after", memory="4096", unused0="local-lvm:vm-101-disk-9")
    added = server.cluster._volume("qemu", 101, 1, "local-lvm", "x")
    guest.volumes[added.volid] = added
    guest.config["scsi1"] = f"{added.volid},size=8G"
    assert root.rollback("s1", path) == "OK"
    config = root.get(f"{path}/config")
    assert (config["description"], config["memory"], config["parent"]) == ("after", "2048", "s1")
    assert (config["unused0"], config["unused1"]) == ("local-lvm:vm-101-disk-9", added.volid)
    assert "scsi1" not in config
    assert config["vmgenid"] != "1"
    assert "lock" not in config


def test_removing_gives_the_children_to_the_parent(root):
    path = ONE.format(101)
    for name in ("t1", "t2", "t3"):
        root.create(name, path)
    assert root.remove("t2", path) == "OK"
    assert root.listed(path)["t3"]["parent"] == "t1"
    assert root.remove("t1", path) == "OK"
    assert "parent" not in root.listed(path)["t3"]
    assert root.remove("t3", path) == "OK"
    assert "parent" not in root.listed(path)["current"]


@pytest.mark.parametrize("more", [{}, {"force": 1}])
def test_what_is_not_there_cannot_be_removed(root, more):
    assert root.remove("nope", **more) == "snapshot 'nope' does not exist"
    assert root.remove("nope", ONE.format(108), **more) == "snapshot 'nope' does not exist"


def test_what_is_not_there_cannot_be_returned_to(root):
    assert root.rollback("nope") == "snapshot 'nope' does not exist"
    assert root.rollback("nope", ONE.format(109)) == "you can't rollback if vm is a template"


def test_a_locked_guest_is_left_alone(server, root):
    for path, words in ((ONE.format(101), "VM is locked (backup)"), (BOX.format(202), "CT is locked (backup)")):
        root.create("s1", path)
        server.guest(int(path.rpartition("/")[2])).config["lock"] = "backup"
        assert root.create("s2", path) == words
        assert root.remove("s1", path) == words
        assert root.rollback("s1", path) == words
        assert root.run("POST", f"{path}/status/start") == words


@pytest.mark.parametrize("kind", ["qemu", "lxc"])
def test_a_guest_elsewhere_has_no_configuration_here(root, kind):
    base = f"/nodes/pve1/{kind}/999"
    folder = "qemu-server" if kind == "qemu" else "lxc"
    words = f"Configuration file 'nodes/pve1/{folder}/999.conf' does not exist"
    for path in ("snapshot", "config", "status/current", "snapshot/s1/config"):
        with pytest.raises(Refused) as refused:
            root.get(f"{base}/{path}")
        assert (refused.value.status, refused.value.reason) == (500, words)
    assert root.remove("s1", base) == words
    assert root.rollback("s1", base) == words
    if kind == "lxc":
        assert root.create("s1", base) == words
    else:
        with pytest.raises(Refused) as refused:
            root.post(f"{base}/snapshot", snapname="s1")
        assert refused.value.reason == words


def test_a_guest_is_not_found_by_the_wrong_node_or_type(root):
    for path in ("/nodes/pve1/qemu/104", "/nodes/pve1/qemu/200"):
        with pytest.raises(Refused) as refused:
            root.get(f"{path}/snapshot")
        number = path.rpartition("/")[2]
        assert refused.value.reason == f"Configuration file 'nodes/pve1/qemu-server/{number}.conf' does not exist"


def test_a_node_that_does_not_exist_is_not_looked_up(root):
    with pytest.raises(Refused) as refused:
        root.get("/nodes/pveX/qemu/100/snapshot")
    reason = "failed to get address info for: pveX: Name or service not known"
    assert (refused.value.status, refused.value.reason) == (500, f"hostname lookup 'pveX' failed - {reason}")


def test_a_node_that_is_down_is_not_reached(server, root):
    server.cluster.nodes["pve2"].online = False
    with pytest.raises(Refused) as refused:
        root.get("/nodes/pve2/qemu/104/snapshot")
    assert refused.value.status == 595
    assert {each["node"]: each["status"] for each in root.get("/nodes")} == {"pve1": "online", "pve2": "offline"}
