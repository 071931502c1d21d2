# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks that are lost and come back, volumes that LVM's daemon extends, and a power cut. With udev at work.

The next run ends well, or says what to do.
"""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.tests.guest.lvm import Storage
from ansible_collections.restorepoint.core.tests.lab.driver import Failed


@pytest.fixture
def storage(guest):
    storage = Storage(guest)
    storage.build()
    return storage


WORKING = "linear /dev/ubdc 2048"
SECTORS = 1048576


def add_shaky_disk(guest, request):
    """Add a disk to the group that can be lost, and comes back: dmsetup's, of 512 MB."""

    def remove():
        guest.run("bash", "-c", "vgremove -qffy vg0; udevadm settle; dmsetup remove --retry -f shaky", check=False)
        assert not guest.exists("/dev/mapper/shaky")

    request.addfinalizer(remove)
    guest.run("dd", "if=/dev/zero", "of=/dev/ubdc", "bs=1M", "count=4", "conv=fsync", "status=none")
    guest.run("dmsetup", "create", "shaky", "--table", f"0 {SECTORS} {WORKING}")
    guest.script("pvcreate -qy /dev/mapper/shaky && vgextend -q vg0 /dev/mapper/shaky")


def shaky_disk(guest, good):
    """Let the first ``good`` sectors of it work, and what lies after them fail."""
    table = f"0 {good} {WORKING}\n" if good else ""
    table += f"{good} {SECTORS - good} error\n" if good < SECTORS else ""
    guest.run("dmsetup", "suspend", "--noflush", "shaky")
    guest.run("dmsetup", "load", "shaky", input=table)
    guest.run("dmsetup", "resume", "shaky")


def test_a_group_that_has_lost_a_disk_is_left_alone(storage, guest, request):
    add_shaky_disk(guest, request)
    volume = storage.thick("lv1")
    storage.snapshot(volume, name="first", size="16M")
    shaky_disk(guest, 0)
    for options in ({"name": "second", "size": "16M"}, {"name": "first", "state": "rolled_back"}):
        with pytest.raises(Failed, match="misses 1 of its disks"):
            storage.snapshot(volume, **options)
    assert storage.names(volume) == ["first"]


def test_a_merge_that_the_kernel_gives_up_is_an_error_and_the_next_run_ends_well(storage, guest, request):
    """The disk of the snapshot fails, but for LVM's metadata and the header and table of the snapshot."""
    volume = storage.thick("lv1")
    storage.put("lv1", "one")
    add_shaky_disk(guest, request)
    guest.run("pvchange", "-q", "-xn", "/dev/ubdb")
    storage.snapshot(volume, name="first", size="16M")
    guest.run("pvchange", "-q", "-xy", "/dev/ubdb")
    storage.put("lv1", "two")
    shaky_disk(guest, 2048 + 16)
    options = {"name": "first", "state": "rolled_back", "wait_timeout": "60s"}
    for _again in range(2):
        with pytest.raises(Failed, match=r"the kernel has given the merge .*lvchange -ay vg0/lv1"):
            storage.snapshot(volume, **options)
    shaky_disk(guest, SECTORS)
    guest.run("lvchange", "-an", volume)
    guest.run("lvchange", "-ay", volume)
    storage.snapshot(volume, **options)
    for _unused in range(300):
        if storage.info(volume)["volumes"][0]["merge"] is None:
            break
        guest.run("sleep", "1")
    assert not storage.snapshot(volume, **options)["changed"]
    assert storage.get("lv1") == "one"
    assert storage.volumes() == ["lv1"]


def test_a_machine_that_loses_power_in_a_merge_or_before_one_comes_back_with_the_right_content(storage, guest):
    volumes = [storage.thick("lv1", 320), storage.thick("lv2")]
    for lv in ("lv1", "lv2"):
        storage.put(lv, "one")
    storage.snapshot(*volumes, name="first", size="100%ORIGIN")
    at = storage.mount("lv1")
    guest.run("dd", "if=/dev/urandom", f"of={at}/x", "bs=1M", "count=200", "conv=fsync", "status=none")
    guest.write(f"{at}/f", "two\n")
    storage.unmount("lv1")
    at = storage.mount("lv2")
    guest.write(f"{at}/f", "two\n")
    options = {"name": "first", "state": "rolled_back", "when_busy": "defer", "wait": False}
    storage.snapshot(*volumes, **options)
    guest.power_cut()
    again = storage.snapshot(*volumes, **options)
    assert not again["changed"]
    for _unused in range(300):
        if all(each["merge"] is None for each in storage.info(*volumes)["volumes"]):
            break
        guest.run("sleep", "1")
        storage.snapshot(*volumes, **options)
    assert storage.volumes() == ["lv1", "lv2"]
    assert [storage.get(lv) for lv in ("lv1", "lv2")] == ["one", "one"]
