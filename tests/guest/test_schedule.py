# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Policies under real systemd: what timers start does its work confined, on ZFS, LVM, Btrfs and directories."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.tests.guest import scheduled

_STORAGE = """
zpool create -f -O atime=off tank /dev/ubdb
zfs create tank/shop
vgcreate -qy vg0 /dev/ubdc
lvcreate -qy -L 64M -n thick vg0
lvcreate -qy -L 64M -T vg0/pool
lvcreate -qy -V 32M -n thin vg0/pool
mkfs.btrfs -qf /dev/ubdd
mkdir -p /mnt/btrfs && mount /dev/ubdd /mnt/btrfs
btrfs -q subvolume create /mnt/btrfs/site
mkfs.ext4 -qF /dev/ubde
mkdir -p /mnt/files && mount /dev/ubde /mnt/files
mkdir /mnt/files/data
echo one | tee /tank/shop/f /mnt/btrfs/site/f > /mnt/files/data/f
cp /bin/true /mnt/files/data/setuid
chmod 4755 /mnt/files/data/setuid
"""
ZFS = {"backend": "zfs", "dataset": ["tank/shop"]}
LVM = {"backend": "lvm", "volume": ["vg0/thin"]}
THICK = {"backend": "lvm", "volume": ["vg0/thick"], "size": "16M"}
BTRFS = {"backend": "btrfs", "subvolume": ["/mnt/btrfs/site"], "store": "/mnt/btrfs/.store"}
FILES = {"backend": "hostpath", "path": ["/mnt/files/data"], "store": "/mnt/files/.store"}


@pytest.fixture(scope="module")
def machine(guest):
    guest.script(_STORAGE)
    yield from scheduled.scheduled(guest)


@pytest.fixture
def host(machine):
    machine.clear()
    return machine


def test_timers_take_and_prune_on_every_kind_of_storage_confined(host):
    rules = {"keep": {"last": 1}, "min_keep": 1, "schedule": {"cron": "30 3 * * *", "calendar": "*-*-* 04:30"}}
    policies = [{"name": "all", "targets": [ZFS, LVM, BTRFS, FILES], **rules},
                {"name": "thick", "targets": [THICK], **rules}]  # fmt: skip
    foretold = host.layout(policies, check_mode=True)
    assert host.layout(policies)["changes"] == foretold["changes"]
    assert host.layout(policies)["changes"] == []
    host.at("2026-12-01 03:29:58")
    host.wait_for_runs(2)
    host.at("2026-12-01 04:29:58")
    host.wait_for_runs(4)
    assert [each for each in host.outcomes if each != ("done", "")] == []
    done = {policy: [each["done"] for each in host.journal if each["policy"] == policy] for policy in ("all", "thick")}
    assert done["all"] == [{"created": 4}, {"created": 4, "removed": 4}]
    assert done["thick"] == [{"created": 1}, {"created": 1, "removed": 1}]
    last = [each["name"] for each in host.journal if each["policy"] == "all"][-1]
    assert host.guest.run("zfs", "list", "-Ht", "snapshot", "-o", "name").split() == [f"tank/shop@{last}"]
    mode = host.guest.script("stat -c %a $(find /mnt/files/.store -name setuid | head -n 1)").strip()
    assert mode == "4755"
    shown = host.show("restorepoint-all.service", "Result", "ProtectSystem", "RestrictAddressFamilies", "Nice")
    assert shown == {"Result": "success", "ProtectSystem": "full", "RestrictAddressFamilies": "AF_NETLINK AF_UNIX",
                     "Nice": "10"}  # fmt: skip
