# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""lvm_layout, zfs_layout and btrfs_layout killed before each of their steps, and with tools that fail.

The next run makes what is missing, the one after it changes nothing, and nothing is left that was not asked for.
"""

from __future__ import annotations

import signal

import pytest

from ansible_collections.restorepoint.core.tests.lab.driver import Failed

FILE = "/root/layout.img"
#: The programs that change something, of each module, and how their calls begin that only look.
CHANGING = {
    "lvm": ("vgcreate", "lvcreate", "mkfs.ext4", "mkdir", "systemctl", "mount"),
    "zfs": ("dd", "zpool", "zfs"),
    "btrfs": ("dd", "losetup", "mkfs.btrfs", "mount", "umount", "btrfs"),
}
LOOKING = ("zpool get", "zpool list", "zfs get", "zfs list", "zfs version", "btrfs subvolume list", "losetup --list")
LAYOUTS = {
    "lvm": {
        "volume_groups": [{"name": "vg0", "devices": ["/dev/ubdb"]}],
        "thin_pools": [{"volume_group": "vg0", "name": "pool", "size": "64M"}],
        "volumes": [
            {"volume_group": "vg0", "name": "a", "size": "64M", "filesystem": "ext4", "mount": "/mnt/layout/a"},
            {"volume_group": "vg0", "name": "b", "size": "200M", "thin_pool": "pool"},
        ],
    },
    "zfs": {
        "files": [{"path": FILE, "size": "128M"}],
        "pools": [{"name": "layout", "vdevs": [{"devices": [FILE]}], "properties": {"comment": "tests"}}],
        "datasets": [
            {"name": "layout/a", "properties": {"mountpoint": "/mnt/layout/a", "compression": "lz4"}},
            {"name": "layout/a/b"},
            {"name": "layout/v", "size": "16M", "sparse": True},
        ],
    },
    "btrfs": {
        "files": [{"path": FILE, "size": "200M"}],
        "filesystems": [
            {"label": "layout", "devices": [FILE], "subvolumes": [{"name": "@a"}, {"name": "@a/inner"}]}
        ],
    },
}  # fmt: skip
#: What there is of each kind, in a form in which two hosts can be compared.
PICTURE = {
    "lvm": "lvs --noheadings -o vg_name,lv_name,lv_size,lv_attr vg0; wipefs -O TYPE -n /dev/vg0/a",
    "zfs": "zfs list -H -r -o name,type,mountpoint,mounted,volsize,compression layout",
    "btrfs": "mount -o subvolid=5 LABEL=layout /mnt; btrfs subvolume list /mnt | sed 's/gen [0-9]*//'; umount /mnt",
}
COMMON = """
grep -o '/mnt/layout.*' /etc/fstab || true
sed -nE 's#.* (/mnt/[^ ]*|/run/restorepoint-btrfs[^ ]*) .*#\\1#p' /proc/self/mountinfo | sort
ls -d /run/restorepoint-btrfs-* /etc/.fstab-* 2>/dev/null || true
losetup --noheadings --list --output BACK-FILE
"""


class Host:
    """The guest, on which one layout is made again and again."""

    def __init__(self, guest, kind):
        self.guest = guest
        self.kind = kind
        self.fstab = guest.read("/etc/fstab")
        self.layout = LAYOUTS[kind]

    def clear(self):
        """Take away what the layout has made, in whatever state that is."""
        self.guest.clear_disks()
        self.guest.write("/etc/fstab", self.fstab)
        self.guest.script(f"losetup -D; rm -rf {FILE} /mnt/layout")

    def make(self):
        return self.guest.call(f"{self.kind}_layout", **self.layout)

    def rehearse(self):
        """Make it, and return the numbers of the calls that change something."""
        with self.guest.shims(*CHANGING[self.kind], at=0, when="never") as folder:
            self.guest.finished(self.guest.start(f"{self.kind}_layout", shims=folder, **self.layout))
        calls = [line.split(maxsplit=1) for line in self.guest.calls()]
        return [int(number) for number, call in calls if not call.startswith(LOOKING)]

    def dies(self, at):
        return self.guest.dies(f"{self.kind}_layout", *CHANGING[self.kind], at=at, when="before", **self.layout)

    def picture(self):
        return self.guest.script(PICTURE[self.kind] + COMMON)


@pytest.fixture(scope="module")
def calm(guest):
    """The guest without udev, for all tests of this file: letting it go and come takes as long as a layout."""
    with guest.without_udev():
        yield guest


@pytest.fixture(params=list(LAYOUTS))
def host(calm, request):
    host = Host(calm, request.param)
    host.clear()
    yield host
    host.clear()


def test_a_layout_that_is_killed_before_any_of_its_steps_is_completed_by_the_next_run(host):
    steps = host.rehearse()
    whole = host.picture()
    assert len(steps) >= {"lvm": 8, "zfs": 5, "btrfs": 6}[host.kind]
    for at in steps:
        host.clear()
        assert host.dies(at)
        host.make()
        assert host.picture() == whole, at
    assert not host.make()["changed"]


def test_a_step_that_fails_ends_the_run_which_tells_what_stands_and_the_next_goes_on(host):
    program = {"lvm": "lvcreate", "zfs": "zfs", "btrfs": "btrfs"}[host.kind]
    with host.guest.shims(program, at=2, when="failing") as folder, pytest.raises(Failed) as failure:
        host.guest.finished(host.guest.start(f"{host.kind}_layout", shims=folder, **host.layout))
    told = failure.value.result
    assert "the shim says no" in told["msg"]
    assert told["changed"] == bool(told["changes"])
    done = host.make()
    stood, rest = ([(each["target"], each["action"]) for each in which["changes"]] for which in (told, done))
    assert rest
    assert not set(stood) & set(rest)
    assert not host.make()["changed"]


def wait_until(guest, condition):
    """Wait until a condition of the shell holds."""
    guest.script(f"for i in $(seq 500); do {condition} && exit; sleep 0.2; done; exit 1")


@pytest.mark.parametrize("host", ["lvm"], indirect=True)
def test_layouts_of_two_kinds_at_once_take_turns_and_fstab_has_the_lines_of_both(host):
    btrfs = {"filesystems": [{"label": "turns", "devices": ["/dev/ubdc"], "mount": "/mnt/layout/a/b"}]}
    with host.guest.shims("mount", at=1, when="wait") as folder:
        # It has planned, has made all but its mount, and goes on when the other has come as far as it gets.
        first = host.guest.start("lvm_layout", shims=folder, **host.layout)
        wait_until(host.guest, f"[ $(cat {folder}/count) = 1 ]")
        second = host.guest.start("btrfs_layout", **btrfs)
        wait_until(host.guest, f"ls -l /proc/{second}/fd | grep -q /run/restorepoint/mounts.lock")
        assert not host.guest.succeeds("blkid", "/dev/ubdc")
        host.guest.run("touch", f"{folder}/go")
        assert host.guest.finished(first)["changed"]
        assert host.guest.finished(second)["changed"]
    mounted = host.guest.script("sed -nE 's#.* (/mnt/layout[^ ]*) .*#\\1#p' /proc/self/mountinfo").split()
    # The inner one lies in the outer one, and not hidden below it.
    assert mounted == ["/mnt/layout/a", "/mnt/layout/a/b"]
    lines = [line.split()[1] for line in host.guest.read("/etc/fstab").splitlines() if "/mnt/layout" in line]
    assert lines == mounted
    assert not host.make()["changed"]
    assert not host.guest.call("btrfs_layout", **btrfs)["changed"]


@pytest.mark.parametrize("host", ["lvm"], indirect=True)
def test_a_run_waits_for_the_mkfs_that_a_killed_one_has_left_running(host):
    with host.guest.shims("mkfs.ext4", at=1, when="wait") as folder:
        first = host.guest.start("lvm_layout", shims=folder, **host.layout)
        wait_until(host.guest, f"[ $(cat {folder}/count) = 1 ]")
        host.guest.signal(first, signal.SIGKILL)
        assert host.guest.finished(first) is None
        second = host.guest.start("lvm_layout", **host.layout)
        wait_until(host.guest, f"ls -l /proc/{second}/fd | grep -q /run/restorepoint/lvm.lock")
        assert not host.guest.succeeds("blkid", "/dev/vg0/a")
        host.guest.run("touch", f"{folder}/go")
        done = host.guest.finished(second)
    assert "create filesystem" not in [each["action"] for each in done["changes"]]
    assert not host.make()["changed"]
