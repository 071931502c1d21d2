# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts of every kind of storage in one inventory, upgraded by real plays. For test_whole_fleet.py beside it.

- ``storage`` is the guest, over ssh: a volume of LVM that is in use, and a dataset of ZFS.
- ``files`` is this machine: a subvolume of Btrfs and a directory on ext4, both on loop devices; and two guests of the
  test server of Proxmox VE, reached from the control node.
- ``claims`` are two claims on a real API server, also reached from there, which a Deployment uses.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.restorepoint.core.tests.cluster.lab import CORE, Proxy
from ansible_collections.restorepoint.core.tests.cluster.lab import Lab as Cluster
from ansible_collections.restorepoint.core.tests.guest.machine import VOLUME_AND_DATASET, Machine
from ansible_collections.restorepoint.core.tests.lab import driver, plays
from ansible_collections.restorepoint.core.tests.lab.filesystems import Place
from ansible_collections.restorepoint.core.tests.lab.volumes import create

#: Where the targets of ``storage`` lie in the guest.
VOLUME, DATASET = "/mnt/data", "/mnt/rp/shop"
#: Guests of Proxmox VE: a machine on thin LVM, and a container on ZFS.
VMIDS = (101, 200)
CLAIMS = ("db", "web")
#: One big file, so that what is returned is compared byte by byte, and not by a word.
BIG = 300_000
#: Where a program of the guest is looked for first, also by modules that come over ssh.
SHIMS = "/usr/local/sbin"

#: What a boot of a host with these in its /etc/fstab and its cache of pools does by itself. The guest does so with the
#: pool where other tests have set up its services.
_AFTER_BOOT = """
modprobe zfs
timeout 600 systemctl is-system-running --wait > /dev/null || true
zpool list rp > /dev/null 2>&1 || zpool import -d /dev rp
zfs mount -a
vgchange -qq -ay vg0
udevadm settle
mount /dev/vg0/data /mnt/data
"""
#: All there is in a folder: kinds, modes, owners, links, sizes, times where they are asked for, and every byte.
_PICTURE = r"""
cd "$1"
find . -printf "%P|%y|%m|%U|%G|%l|%n|%s$2\n" | LC_ALL=C sort
find . -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum
"""
#: A program of the guest that waits, where it is told to do a certain thing, for a file to appear. It tells who has
#: called it.
_WAITING = """#!/bin/sh
case "$* " in "{words} "*) ;; *) exec {program} "$@" ;; esac
echo $PPID >> {folder}/held
until [ -e {folder}/go ]; do sleep 0.1; done
exec {program} "$@"
"""
#: What breaks everything: nothing that was there stays, and something else is there.
_BREAKING = """
- name: Break everything
  ansible.builtin.shell: |
    cd {{ item }} && find . -mindepth 1 -delete && mkdir broken && chmod 0700 . &&
    python3 -c 'print("broken by {{ inventory_hostname }} " * 10000, end="")' > big
  changed_when: true
  loop: "{{ upgraded_folders }}"
- name: Break the guests
  ansible.builtin.command: "{{ upgraded_tool }} write {{ item }} broken"
  changed_when: true
  loop: "{{ upgraded_guests }}"
- name: Fail where it is seen
  ansible.builtin.fail:
    msg: it is broken
  when: inventory_hostname == 'claims'
"""


def content(folder: pathlib.Path, seed: str) -> None:
    """Fill a folder with what is hard to return: all of it is another for another seed."""
    chance = random.Random(seed)
    (folder / "big").write_bytes(chance.randbytes(BIG))
    (folder / "deep" / seed).mkdir(parents=True)
    (folder / "deep" / "täst file").write_text(seed)
    (folder / "deep" / "secret").write_text(seed)
    (folder / "deep" / "secret").chmod(0o600)
    (folder / "link").symlink_to("deep/secret")


@dataclass
class Fleet:
    """The hosts, in the order in which their targets are reached one after the other."""

    folder: pathlib.Path
    guest: Machine
    btrfs: Place
    plain: Place
    pve: Any
    cluster: Cluster
    namespace: str
    proxy: Proxy
    workload: str = ""
    kubeconfig: str = ""
    before: dict[str, str] = field(default_factory=dict)

    # -- what they are -------------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Make all targets, with content."""
        self.kubeconfig = str(self.cluster.through(self.proxy))
        self.guest.script(VOLUME_AND_DATASET)
        create(self.btrfs.folder / "data")
        (self.plain.folder / "data").mkdir()
        for name in CLAIMS:
            self.cluster.claim(self.namespace, name)
        self.workload = self.cluster.deployment(self.namespace, "shop", CLAIMS[0], replicas=2)
        self.fill("one")

    def folders(self) -> dict[str, list[str]]:
        """Return where the targets of each host lie as folders, now: a claim's changes with each return."""
        claims = [str(self.cluster.folder(self.namespace, name)) for name in CLAIMS]
        return {
            "claims": claims,
            "storage": [VOLUME, DATASET],
            "files": [str(self.btrfs.folder / "data"), str(self.plain.folder / "data")],
        }

    def targets(self, host: str) -> list[dict[str, Any]]:
        here = {"delegate_to": "localhost", "become": False}
        if host == "claims":
            return [{
                "backend": "csi", "namespace": self.namespace, "pvc": list(CLAIMS), "stop_workloads": True,
                "kubeconfig": self.kubeconfig, **here,
            }]  # fmt: skip
        if host == "storage":
            return [
                {"backend": "lvm", "volume": "vg0/data", "size": "32M", "unmount": True},
                {"backend": "zfs", "dataset": "rp/shop"},
            ]
        return [
            {"backend": "btrfs", "subvolume": str(self.btrfs.folder / "data"), "store": str(self.btrfs.store)},
            {"backend": "hostpath", "path": str(self.plain.folder / "data"), "store": str(self.plain.store)},
            {"backend": "pve", "vmid": [str(each) for each in VMIDS], **here, **self.pve.login},
        ]

    def inventory(self) -> dict[str, Any]:
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False}
        reached = {**self.guest.guest.variables(), "ansible_become": False}
        reached["ansible_control_path"] = str(self.folder / "ssh-%%h")
        tool = f"{self.pve.server.described()['programs']['pve1']}/pve-test-server"
        hosts: dict[str, Any] = {}
        for host, folders in self.folders().items():
            hosts[host] = {
                **(reached if host == "storage" else local),
                "restore_point_targets": self.targets(host),
                "upgraded_folders": folders,
                "upgraded_tool": tool,
                "upgraded_guests": list(VMIDS) if host == "files" else [],
            }
        return {"all": {"hosts": hosts}}

    # -- what lies in them ---------------------------------------------------------------------------------------------

    def fill(self, seed: str) -> None:
        """Give every target content of its own, and remember it all."""
        made = self.folder / "made"
        for host, folders in self.folders().items():
            for number, folder in enumerate(folders):
                made.mkdir()
                content(made, f"{seed}-{host}-{number}")
                packed = subprocess.run(["tar", "-c", "-C", str(made), "."], check=True, capture_output=True).stdout
                self._unpack(host, folder, packed)
                shutil.rmtree(made)
        for vmid in VMIDS:
            self.pve.server.guest(vmid).write(f"{seed} of {vmid}")
        self.before = self.pictures()

    def _unpack(self, host: str, folder: str, packed: bytes) -> None:
        command = f"cd {folder} && find . -mindepth 1 -delete && tar -xp && sync -f ."
        words = self.guest.guest.ssh(command) if host == "storage" else ["sh", "-c", command]
        subprocess.run(words, input=packed, check=True, timeout=600)

    def pictures(self) -> dict[str, str]:
        """Return all that is there of each target, in words."""
        found = {}
        for host, folders in self.folders().items():
            for number, folder in enumerate(folders):
                # The driver of the lab copies volumes without the times of files.
                times = "" if host == "claims" else "|%T@"
                command = ["bash", "-euo", "pipefail", "-c", _PICTURE, "picture", folder, times]
                run = self.guest.run if host == "storage" else _printed
                found[f"{host} {number}"] = run(*command)
        self.pve.server.wait_idle()
        for vmid in VMIDS:
            found[f"guest {vmid}"] = repr(sorted(self.pve.server.guest(vmid).content.items()))
        return found

    def is_as_it_was(self) -> None:
        """See to it that every byte of every target is what `fill` has left, and that the workload runs as it did."""
        now = self.pictures()
        for name, picture in self.before.items():
            assert now[name] == picture, name
        assert self.cluster.api.get(self.workload)["spec"]["replicas"] == 2

    def left(self, name: str) -> list[str]:
        """Return what there is of a restore point on the hosts beside ``storage``."""
        here = driver.info(store=self.plain.store, path=[self.plain.folder / "data"])["snapshots"]
        here += driver.btrfs_info(store=self.btrfs.store, subvolume=[self.btrfs.folder / "data"])["snapshots"]
        here += self.pve.info(vmid=[str(each) for each in VMIDS])["snapshots"]
        claims = [each for each in self.cluster.snapshots(self.namespace) if each.endswith(f"-{name}")]
        return [each["target"] for each in here if each["name"] == name] + claims

    def asides(self) -> list[int]:
        """Return how many times each target whose returns keep what was there has returned."""
        beside = (self.btrfs.folder, self.plain.folder)
        found = [sum(each.name.startswith("data.aside-") for each in folder.iterdir()) for folder in beside]
        volumes = self.cluster.api.items(f"{CORE}/persistentvolumes")
        own = [each for each in volumes if each["spec"].get("claimRef", {}).get("namespace") == self.namespace]
        return [*found, len(own) - len(CLAIMS)]

    # -- their life ----------------------------------------------------------------------------------------------------

    @contextmanager
    def held(self, program: str, words: str) -> Iterator[Held]:
        """Hold up a program of the guest where these are its first words, until it is released."""
        path = self.guest.run("sh", "-c", f"command -v {program}").strip()
        held = Held(self.guest, f"/run/held-{program}")
        self.guest.run("mkdir", held.folder)
        text = _WAITING.format(words=words, program=path, folder=held.folder)
        self.guest.write(f"{SHIMS}/{program}", text, 0o755)
        try:
            yield held
        finally:
            self.guest.run("rm", "-rf", f"{SHIMS}/{program}", held.folder)

    def storage_dies(self) -> None:
        """Cut the guest's power. The connections to it end, as if a router had told of it: so nobody has to wait."""
        machine = self.guest.guest
        machine.power_cut()
        for pid in _printed("ip", "netns", "pids", machine.namespace).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def storage_boots(self) -> None:
        """Boot the guest again, with what it would find in its /etc/fstab."""
        self.guest.boot()
        self.guest.script(_AFTER_BOOT, timeout=900)

    # -- plays ---------------------------------------------------------------------------------------------------------

    def upgrade(self, *arguments: str, kill: str = "", **variables: Any) -> plays.Running:
        """Start pre_upgrade, with an upgrade that breaks everything. ``variables`` are the role's, without its name."""
        tasks = self.folder / "breaking.yml"
        tasks.write_text(_BREAKING)
        told = {f"restore_point_{key}": value for key, value in variables.items()}
        told.update(pre_upgrade_tasks=str(tasks), pre_upgrade_room_mb="1")
        book = "restorepoint.core.pre_upgrade"
        return plays.start(self.folder, self.inventory(), book, told, *arguments, kill=kill)

    def role(self, state: str, **variables: Any) -> plays.Played:
        """Play the role. ``variables`` are its own, without the role's name."""
        book = self.folder / "play.json"
        roles = [{"role": "restorepoint.core.restore_point"}]
        book.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "roles": roles}]))
        given = {"name": "pre-upgrade", "state": state, **variables}
        told = {f"restore_point_{key}": value for key, value in given.items()}
        return plays.play(self.folder, self.inventory(), str(book), told)


@dataclass
class Held:
    """A program of the guest that is held up."""

    guest: Machine
    folder: str

    def came(self) -> str:
        """Wait until it is held up; return the process that has called it."""
        return self.guest.until(f"{self.folder}/held", lines=1).strip()

    def release(self) -> None:
        """Let it go on, and wait until that process has ended."""
        caller = self.came()
        self.guest.run("touch", f"{self.folder}/go")
        self.guest.script(f"while [ -e /proc/{caller} ]; do sleep 0.2; done")


def _printed(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=600).stdout
