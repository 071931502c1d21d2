# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook microk8s_storage.yml, played against the guest over ssh, once for each kind of storage it offers."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from ansible_collections.restorepoint.core.tests.guest.machine import CHECKOUT

PLACE = "/var/snap/microk8s/common/default-storage"
#: Of each kind of storage: what is mounted there afterwards, and what has to be said of the disk beside its name.
KINDS = {
    "lvm": ("/dev/mapper/microk8s--vg-microk8s--data ext4", {}),
    "lvm_thin": ("/dev/mapper/microk8s--vg-microk8s--data xfs", {"size": "1G"}),
    "zfs": ("microk8s/default-storage zfs", {}),
    "btrfs": ("/dev/ubde[/@default-storage] btrfs", {}),
}
_CLEAR = f"""
umount -q {PLACE} /srv/btrfs || true
zpool destroy -f microk8s 2>/dev/null || true
vgremove -qffy microk8s-vg 2>/dev/null || true
wipefs -qa /dev/ubde
sed -i '\\# /srv/btrfs #d; \\# {PLACE} #d' /etc/fstab
rm -rf {PLACE} /srv/btrfs
"""


class Player:
    """Plays the playbook; its connection to the guest stays from one run to the next."""

    def __init__(self, guest, folder):
        self.inventory = folder / "inventory.json"
        self.inventory.write_text(json.dumps(guest.guest.inventory()))
        link = folder / "collections" / "ansible_collections" / "restorepoint"
        link.mkdir(parents=True)
        (link / "core").symlink_to(CHECKOUT)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
            "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"),
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
        }

    def play(self, **variables):
        """Play it; return how many tasks changed something (None: it failed), and all that was said."""
        playbook = pathlib.Path(sys.executable).parent / "ansible-playbook"
        command = [playbook, "-i", self.inventory, "restorepoint.core.microk8s_storage", "-e", json.dumps(variables)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=900, check=False)
        recap = re.search(r"guest +: ok=[1-9]\d* +changed=(\d+) +unreachable=0 +failed=0 ", done.stdout)
        return int(recap[1]) if recap else None, done.stdout + done.stderr


@pytest.fixture(scope="module")
def player(guest, tmp_path_factory):
    return Player(guest, tmp_path_factory.mktemp("player"))


@pytest.fixture
def clean(guest):
    guest.script(_CLEAR)
    yield guest
    guest.script(_CLEAR)


@pytest.mark.parametrize("storage", list(KINDS))
def test_the_playbook_lays_out_the_folder_of_microk8s(clean, player, storage):
    mounted, more = KINDS[storage]
    changed, told = player.play(storage=storage, disk="/dev/ubde", **more)
    assert changed, told
    assert clean.run("findmnt", "--noheadings", "--output", "SOURCE,FSTYPE", PLACE).split() == mounted.split()


def test_the_playbook_refuses_a_storage_that_it_does_not_know_and_a_folder_with_content(clean, player):
    changed, told = player.play(storage="ceph", disk="/dev/ubde")
    assert changed is None
    assert "Say which storage" in told
    clean.write(f"{PLACE}/claim/data", "somebody's")
    changed, told = player.play(storage="lvm", disk="/dev/ubde")
    assert changed is None
    assert "it holds something that would be hidden" in told
    assert clean.run("wipefs", "-n", "/dev/ubde") == ""
    assert clean.read(f"{PLACE}/claim/data") == "somebody's"
