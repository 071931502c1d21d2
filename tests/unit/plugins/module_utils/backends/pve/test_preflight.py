# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What forbids a change, from facts alone."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.pve.guests import Cluster, Guest
from ansible_collections.restorepoint.core.plugins.module_utils.backends.pve.listing import read_listing
from ansible_collections.restorepoint.core.plugins.module_utils.backends.pve.preflight import (
    Asked,
    Facts,
    Permissions,
    lock_remedy,
    newest_only,
    no_snapshot_reasons,
    volumes,
)

VM, CT = Guest(100, "qemu", "pve1", "web"), Guest(200, "lxc", "pve1", "ct")
EMPTY = read_listing([{"name": "current", "running": 1}], VM)
STORAGES = {("pve1", name): kind for name, kind in (("zfs", "zfspool"), ("thin", "lvmthin"), ("san", "lvm"),
                                                    ("local", "dir"), ("ceph", "rbd"))}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "kind", "expected"),
    [
        ({"scsi0": "zfs:vm-100-disk-0,size=8G", "ide2": "none,media=cdrom", "scsihw": "virtio"}, "qemu", {"scsi0"}),
        ({"efidisk0": "zfs:e", "tpmstate0": "zfs:t", "virtio15": "zfs:v", "unused0": "zfs:u"}, "qemu",
         {"efidisk0", "tpmstate0", "virtio15"}),
        ({"ide0": "local:iso/x.iso,media=cdrom", "sata1": "file=thin:d,size=1"}, "qemu", {"sata1"}),
        ({"rootfs": "zfs:subvol-200-disk-0,size=8G", "mp0": "/srv,mp=/srv", "memory": 512}, "lxc", {"rootfs", "mp0"}),
    ],
)  # fmt: skip
def test_volumes_are_told_from_the_rest(config, kind, expected):
    assert set(volumes(config, kind)) == expected


@pytest.mark.parametrize(
    ("volume", "strict"),
    [
        ("zfs:vm-100-disk-0", True),
        ("thin:vm-100-disk-0", False),
        ("ceph:vm-100-disk-0", False),
        ("san:vm-100-disk-0.qcow2", True),
        ("local:100/vm-100-disk-0.qcow2", False),
        ("chained:100/vm-100-disk-0.qcow2", True),
        ("chained:100/vm-100-disk-0.raw", False),
        ("unknown:vm-100-disk-0", False),
    ],
)
def test_which_storage_returns_only_to_the_newest(volume, strict):
    facts = Facts(VM, EMPTY, wanted_config={"scsi0": f"{volume},size=8G"}, chains=frozenset({"chained"}))
    assert newest_only(facts, Cluster(storages=dict(STORAGES))) == ([volume] if strict else [])


def test_mount_points_of_the_host_are_named():
    assert no_snapshot_reasons({"rootfs": "zfs:s", "mp0": "/srv/data,mp=/srv"}, "lxc") == "mp0 is /srv/data of the host"
    assert no_snapshot_reasons({"scsi0": "local:100/d.raw"}, "qemu") == "one of scsi0 on local:100/d.raw"
    assert no_snapshot_reasons({}, "qemu") == "Proxmox VE does not say which"


@pytest.mark.parametrize(
    ("paths", "lacks"),
    [
        (None, False),
        ({}, True),
        ({"/vms": {"VM.Snapshot": 1}}, False),
        ({"/vms": {"VM.Snapshot": 0}}, True),  # it holds on /vms itself, and is not handed down
        ({"/": {"VM.Snapshot": 1}}, False),
        ({"/vms": {"VM.Audit": 1}, "/": {"VM.Snapshot": 1}}, True),
        ({"/vms/100": {"VM.Snapshot": 0}}, False),
        ({"/vms/100": {"VM.Audit": 1}, "/vms": {"VM.Snapshot": 1}}, True),
    ],
)
def test_privileges_are_those_of_the_nearest_path(paths, lacks):
    assert Permissions(paths, "ops@pve").lacks(100, "VM.Snapshot") == lacks


@pytest.mark.parametrize(
    ("guest", "lock", "asked", "says"),
    [
        (VM, "backup", Asked(), "wait until that has ended"),
        (VM, "snapshot", Asked(), "`qm unlock 100` on pve1, or set repair: true"),
        (VM, "rollback", Asked(), "`qm unlock 100` on pve1, and roll back again, or set repair: true"),
        (VM, "snapshot-delete", Asked(repair=True), "only root@pam with a password, or pvesh, may"),
        (CT, "snapshot-delete", Asked(repair=True), "`pct unlock 200` on pve1: repair cannot"),
    ],
)
def test_the_way_out_of_a_lock_is_exact(guest, lock, asked, says):
    locked = Guest(guest.vmid, guest.type, guest.node, lock=lock)
    assert says in lock_remedy(Facts(locked, EMPTY), asked)
