# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guest itself is what the other tests of this folder take it for."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.tests.guest.machine import DISKS, ProgramFailed
from ansible_collections.restorepoint.core.tests.lab.driver import Failed


def test_it_has_a_kernel_with_device_mapper_and_zfs_and_a_real_systemd(guest):
    modules = guest.run("lsmod")
    assert all(module in modules for module in ("dm_snapshot", "dm_thin_pool", "zfs"))
    assert guest.read("/proc/1/comm") == "systemd\n"


def test_it_has_four_empty_disks(guest):
    sizes = guest.run("blockdev", "--getsize64", DISKS[0], DISKS[1], DISKS[2], DISKS[3]).split()
    assert sizes == [str(2 << 30)] * 4


def test_a_program_that_fails_is_not_taken_for_one_that_prints_nothing(guest):
    with pytest.raises(ProgramFailed, match="No such file or directory"):
        guest.run("cat", "/nowhere")
    assert guest.run("cat", "/nowhere", check=False) == ""


def test_modules_of_the_collection_run_in_it(guest, request):
    request.addfinalizer(lambda: guest.run("rm", "-rf", "/srv/web", "/srv/store"))
    guest.run("mkdir", "-p", "/srv/web")
    guest.write("/srv/web/page", "one")
    options = {"path": "/srv/web", "store": "/srv/store", "name": "first"}
    assert guest.call("hostpath_snapshot", check_mode=True, **options)["changed"]
    assert guest.call("hostpath_snapshot", **options)["changed"]
    assert not guest.call("hostpath_snapshot", **options)["changed"]


def test_what_was_written_outlives_a_power_cut_and_what_was_not_does_not_lie(guest, request):
    request.addfinalizer(lambda: guest.run("rm", "-rf", "/srv/kept"))
    guest.write("/srv/kept", "written")
    guest.power_cut()
    assert guest.read("/srv/kept") == "written"


@pytest.fixture
def subvolume(guest):
    guest.script("mkfs.btrfs -qf /dev/ubdb && mkdir -p /mnt/b && mount /dev/ubdb /mnt/b")
    guest.script("btrfs subvolume create /mnt/b/web && echo one > /mnt/b/web/page")
    yield {"path": "/mnt/b/web", "store": "/mnt/b/store", "name": "first"}
    guest.script("umount /mnt/b && wipefs -qa /dev/ubdb")


def test_a_module_can_be_killed_at_each_of_its_calls_of_a_program(guest, subvolume):
    deaths = 0
    while guest.dies("hostpath_snapshot", "btrfs", at=deaths + 1, when="before", **subvolume):
        deaths += 1
        assert len(guest.calls()) == deaths
    assert deaths > 0
    assert not guest.call("hostpath_snapshot", **subvolume)["changed"]


@pytest.mark.parametrize("when", ["failing", "garbage"])
def test_a_program_can_be_made_to_fail_and_to_print_nonsense(guest, subvolume, when):
    with guest.shims("btrfs", at=1, when=when) as folder, pytest.raises(Failed, match="Cannot"):
        guest.finished(guest.start("hostpath_snapshot", shims=folder, **subvolume))
