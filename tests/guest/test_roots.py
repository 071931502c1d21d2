# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Returns of the root filesystem that a machine is booted from, and the boot in which they take effect.

Each kind of root has a guest of its own, which is removed in the end. A boot takes long, so each has one story.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys

import pytest

from ansible_collections.restorepoint.core.tests.guest.machine import Guest, Machine

#: What a machine writes by itself while it runs and boots, or tools/guest.py and Ansible from outside.
_APART = (
    *("./var/log", "./var/lib/systemd", "./var/lib/restorepoint*", "./var/tmp", "./tmp", "./root/.ansible"),
    "./var/backups",  # at midnight, and in the first boot after it
    *("./etc/lvm/lvm.conf", "./opt/restorepoint", "./.restorepoints"),
)
#: Lists all else on the root and in /boot, with modes, owners and times, and a digest of each file.
_LIST = r"""
cd /
list() {{ find . ./boot -xdev \( {} \) -prune -o "$@" | sort -z; }}
list -type d -printf '%p %m %U %G\0' | tr '\0' '\n'
list ! -type d -printf '%p %y %m %U %G %s %T@ %l\0' | tr '\0' '\n'
list -type f -print0 | xargs -0 sha256sum
""".format(" -o ".join(f"-path '{each}'" for each in _APART))
#: What it breaks is needed to boot, or else to be reached, and python goes on for the return.
_BREAK = """
- name: Break everything
  ansible.builtin.shell: |
    set -eu
    : > /boot/vmlinuz-$(uname -r)
    rm -r /boot/initrd.img-$(uname -r) /usr/lib/modules/$(uname -r)
    echo nonsense > /etc/fstab
    rm /root/.ssh/authorized_keys /usr/sbin/sshd /usr/lib/systemd/system/ssh.service
    rm -r /etc/systemd /usr/share/doc
    chown -R 1:1 /etc/lvm
    echo new > /usr/bin/new
    mv /etc/hosts /etc/hosts.old
    # So much that the merge goes on when the initramfs is left.
    dd if=/dev/urandom of=/usr/filler bs=1M count=400 conv=fsync
"""


#: As docs/btrfs.md advises: the store on a subvolume beside that of the system, which becomes the default one as well.
_STORE = """
mount -o subvolid=5 /dev/ubdb /mnt
btrfs -q subvolume create /mnt/@restorepoints
btrfs subvolume set-default /mnt/@
umount /mnt
mkdir /.restorepoints
echo '/dev/ubdb /.restorepoints btrfs subvol=@restorepoints 0 0' >> /etc/fstab
mount /.restorepoints
"""


@pytest.fixture(scope="module", autouse=True)
def empty_disks():
    """The guest that other tests share is not needed here."""


@contextlib.contextmanager
def booted(root):
    """Give a guest with such a root, and remove it whatever happens."""
    guest = Guest(f"{Guest().name}-{root}", root=root)
    machine = Machine(guest)
    try:
        machine.boot_or_skip(fresh=True)
        yield machine
    finally:
        machine.close()
        guest.remove()


def boot_id(machine):
    return machine.read("/proc/sys/kernel/random/boot_id")


def test_an_upgrade_that_breaks_a_root_on_lvm_is_returned_in_one_run_by_a_reboot(tmp_path):
    with booted("lvm") as machine:
        assert machine.run("findmnt", "-no", "SOURCE", "/").strip() == "/dev/mapper/vg0-root"
        before, boot = machine.script(_LIST, timeout=600), boot_id(machine)
        (tmp_path / "upgrade.yml").write_text(_BREAK)
        code, said = play(
            machine, tmp_path, "restorepoint.core.pre_upgrade", pre_upgrade_tasks=str(tmp_path / "upgrade.yml"),
            pre_upgrade_commands=["test -e /etc/hosts"], pre_upgrade_boot="/boot",
        )  # fmt: skip
        assert (code, "All hosts were returned to restore point pre-upgrade." in said) == (2, True), said
        machine.boot()
        assert boot_id(machine) != boot
        assert machine.script(_LIST, timeout=600).splitlines() == before.splitlines()
        # All was done by the end of the play: the merge had ended, and a second return finds that.
        assert machine.run("lvs", "-a", "--noheadings", "-o", "lv_name").split() == ["root"]
        again = machine.call(
            "lvm_snapshot", volume="vg0/root", name="pre-upgrade", state="rolled_back", when_busy="defer"
        )
        assert not again["changed"]


def test_a_root_on_btrfs_is_returned_by_a_boot_and_its_old_content_can_be_removed():
    with booted("btrfs") as machine:
        machine.script(_STORE)
        target = {"subvolume": ["/"], "store": "/.restorepoints"}
        before = machine.script(_LIST, timeout=600).splitlines()
        assert machine.call("btrfs_snapshot", **target, name="pre-upgrade")["changed"]
        machine.script("rm -r /etc/systemd /etc/fstab /usr/share/doc; echo new > /usr/bin/new")
        given = {**target, "name": "pre-upgrade", "state": "rolled_back", "once": "job-1"}
        returned = machine.call("btrfs_snapshot", **given).only
        assert (returned["changed"], returned["reboot_required"]) == (True, True)
        assert not machine.call("btrfs_snapshot", **given)["changed"]
        assert machine.exists("/usr/bin/new")
        machine.reboot()
        assert machine.script(_LIST, timeout=600).splitlines() == before
        # By name, as it was booted, and by default it is the same subvolume.
        shown = machine.run("btrfs", "subvolume", "show", "/").splitlines()
        (number,) = [line.split()[-1] for line in shown if line.strip().startswith("Subvolume ID:")]
        assert machine.run("btrfs", "subvolume", "get-default", "/").split()[1] == number
        assert not machine.call("btrfs_snapshot", **given)["changed"]
        (aside,) = machine.call("btrfs_snapshot_info", **target)["asides"]
        assert aside["name"] == returned["aside"]["name"]
        # What was broken is not mounted any more, so it can go.
        machine.call("btrfs_snapshot", **target, name=aside["name"], state="absent")
        assert machine.call("btrfs_snapshot_info", **target)["asides"] == []


def play(machine, folder, book, **variables):
    """Play a playbook on the guest over ssh; return its code, and all that it said."""
    target = {"backend": "lvm", "volume": "vg0/root", "size": "1G", "when_busy": "defer"}
    host = {**machine.guest.variables(), "restore_point_targets": [target]}
    (folder / "inventory.json").write_text(json.dumps({"all": {"hosts": {"guest": host}}}))
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": os.environ["PYTHONPATH"].split(":")[0],
        "ANSIBLE_LOCAL_TEMP": str(folder / "local"),
        "ANSIBLE_NOCOLOR": "1",
    }
    command = [str(pathlib.Path(sys.executable).parent / "ansible-playbook"), "-i", str(folder / "inventory.json")]
    done = subprocess.run(
        [*command, book, "-e", json.dumps(variables)], env=environment, capture_output=True, text=True, timeout=1800,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr
