# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drills of real ZFS and LVM: clones and snapshots beside filesystems in use, damage, kills, and what must stay."""

from __future__ import annotations

import base64
import json
import subprocess
import sys

import pytest

from ansible_collections.restorepoint.core.tests.guest.machine import CHECKOUT, DISKS

AGENT = "/root/restorepoint.pyz"
STATE = "/root/drill-state"
_SETUP = """
vgcreate -qq vg0 {0}
lvcreate -qq -y --type thin-pool -L 200M -n pool vg0
lvcreate -qq -y --type thin -V 320M --thinpool vg0/pool -n thin
lvcreate -qq -y -L 64M -n thick vg0
mkfs.xfs -q -f /dev/vg0/thin
mkfs.ext4 -q -F /dev/vg0/thick
zpool create -f -m /mnt/one one {1}
zfs create one/shop
zfs create -V 32M one/disk
until [ -b /dev/zvol/one/disk ]; do sleep 0.1; done
udevadm settle
mkfs.ext4 -q -F /dev/zvol/one/disk
mkdir -p /mnt/thin /mnt/thick /mnt/disk
mount /dev/vg0/thin /mnt/thin
mount /dev/vg0/thick /mnt/thick
mount /dev/zvol/one/disk /mnt/disk
for d in thin thick one/shop disk; do echo one > /mnt/$d/file; done
umount /mnt/disk
"""
#: What the command of a drill proves: the content is that of the snapshot, nothing can be written, nobody gets root.
_LOOK = 'grep -q one "$RESTOREPOINT_PATH/file" && ! touch "$RESTOREPOINT_PATH/new" 2>/dev/null && ' \
        'grep " $RESTOREPOINT_PATH " /proc/self/mounts | grep nosuid | grep -q nodev'  # fmt: skip
_KILL = ["sh", "-c", 'kill -KILL "$PPID"']


def policies(**drills):
    rules = {"command": ["sh", "-c", _LOOK], "files": 1}
    targets = {
        "sets": [{"backend": "zfs", "dataset": ["one/shop"]}],
        "disk": [{"backend": "zfs", "dataset": ["one/disk"]}],
        "thin": [{"backend": "lvm", "volume": ["vg0/thin"]}],
        "thick": [{"backend": "lvm", "volume": ["vg0/thick"], "size": "32M"}],
    }
    default = {"sets": rules, "disk": rules, "thin": {**rules, "fsck": True}, "thick": {**rules, "fsck": True}}
    return {
        "policies": [
            {"name": name, "targets": found, "drill": drills.get(name, default[name])}
            for name, found in targets.items()
        ]
    }


@pytest.fixture(scope="module")
def host(guest, tmp_path_factory):
    """The guest with the agent, and with volumes and datasets in use, of which each has been taken once."""
    archive = tmp_path_factory.mktemp("agent") / "restorepoint.pyz"
    subprocess.run([sys.executable, CHECKOUT / "tools" / "agent.py", archive], check=True, timeout=300)
    guest.run("sh", "-c", f"base64 -d > {AGENT}", input=base64.b64encode(archive.read_bytes()).decode("ascii"))
    guest.script(_SETUP.format(*DISKS))
    ask(guest)
    for policy in ("thin", "thick", "sets", "disk"):
        agent(guest, "run", policy)
    guest.script("for d in thin thick one/shop; do echo two > /mnt/$d/file; done; sync")
    yield guest
    guest.run("rm", "-rf", AGENT, "/root/policies.json", STATE)


def ask(guest, **drills):
    guest.write("/root/policies.json", json.dumps(policies(**drills)))


def agent(guest, *argv, check=True, folder=""):
    path = f"PATH={folder or '/root'}:/usr/sbin:/usr/bin:/sbin:/bin"
    command = ["env", path, "python3", AGENT, "--policies", "/root/policies.json", "--state", STATE]
    return guest.run(*command, *argv, check=check)


def drilled(guest, *names):
    """Drill; return the records, once it is sure that nothing of it stays."""
    records = json.loads(agent(guest, "drill", *names, "--json", check=False))
    nothing_stays(guest)
    return records


def nothing_stays(guest):
    assert "restorepoint-drill" not in guest.run("zfs", "list", "-H", "-t", "all", "-o", "name")
    assert "restorepoint-drill" not in guest.run("lvs", "--noheadings", "-a", "-o", "lv_name")
    assert "restorepoint-drill" not in guest.run("cat", "/proc/self/mounts")
    assert (
        guest.run("sh", "-c", f"ls {STATE}/scratch {STATE}/runs | grep -E 'restorepoint-drill|drill.json' || true")
        == ""
    )


def test_a_drill_restores_beside_what_is_in_use_checks_and_leaves_nothing(host):
    records = drilled(host)
    assert [(each["policy"], each["outcome"], each["checked"]) for each in records] == [
        ("sets", "done", 1), ("disk", "done", 1), ("thin", "done", 1), ("thick", "done", 1)
    ], records  # fmt: skip
    assert [each["files"] for record in records for each in record["drills"]] == [1] * 4
    assert host.run("sh", "-c", "cat /mnt/thin/file /mnt/thick/file /mnt/one/shop/file").split() == ["two"] * 3
    text = agent(host, "metrics")
    for policy in ("sets", "thin", "thick"):
        assert f'restorepoint_last_attempt_succeeded{{command="drill",policy="{policy}"}} 1.0' in text


def test_a_command_writes_to_a_copy_and_not_to_a_thick_snapshot(host):
    rules = {"writable": True, "command": ["sh", "-c", "echo three > {path}/file"]}
    ask(host, thin=rules, thick=rules)
    records = {each["policy"]: each for each in drilled(host, "thin", "thick")}
    assert [records[name]["outcome"] for name in ("thin", "thick")] == ["done", "failed"], records
    assert "a thick snapshot of LVM is all there is of it" in records["thick"]["reason"]


@pytest.mark.parametrize(("policy", "step"), [("sets", "clone"), ("sets", "mount"), ("thin", "lvcreate")])
def test_what_a_drill_that_was_killed_has_left_of_its_clone_goes(host, policy, step):
    """Which step is the last one is said by a program of it; the lab kills at all the others."""
    ask(host)
    folder = "/root/killing"
    program = {"clone": "zfs"}.get(step, step)
    real = host.run("sh", "-c", f"command -v {program}").strip()
    script = (
        f'#!/bin/sh\n{real} "$@"\ncode=$?\ncase "${{0##*/}} $1" in *{step}*) kill -KILL $PPID ;; esac\nexit $code\n'
    )
    host.run("mkdir", "-p", folder)
    host.write(f"{folder}/{program}", script, mode=0o755)
    agent(host, "drill", policy, check=False, folder=folder)
    host.run("rm", "-r", folder)
    names = host.run("zfs", "list", "-H", "-o", "name") + host.run("lvs", "--noheadings", "-o", "lv_name")
    assert "restorepoint-drill" in names
    agent(host, "recover", policy)
    nothing_stays(host)
    assert json.loads(host.read(f"{STATE}/journal.jsonl").splitlines()[-1])["outcome"] == "killed"


def test_what_took_the_name_of_a_clone_is_not_removed(host):
    ask(host, sets={"command": _KILL})
    agent(host, "drill", "sets", check=False)
    ask(host)
    listed = host.run("zfs", "list", "-H", "-o", "name").split()
    (clone,) = [each for each in listed if "restorepoint-drill" in each]
    host.script(f"umount {STATE}/scratch/*; zfs destroy {clone}; zfs create -o canmount=off {clone}")
    (record,) = json.loads(agent(host, "drill", "sets", "--json", check=False))
    assert record["outcome"] == "failed"
    assert "it is no clone of one/shop@" in record["reason"]
    assert host.succeeds("zfs", "list", clone)
    host.run("zfs", "destroy", clone)
    agent(host, "recover", "sets")
    nothing_stays(host)


def test_a_damaged_filesystem_in_a_snapshot_and_a_missing_file_are_found(host):
    host.script("umount /mnt/thick; debugfs -w -R 'clri file' /dev/vg0/thick; rm /mnt/one/shop/file; sync")
    for policy in ("thick", "sets"):
        agent(host, "run", policy)
    records = {each["policy"]: each for each in drilled(host, "thick", "sets")}
    assert "e2fsck finds faults in the filesystem" in records["thick"]["reason"]
    assert "there are 0 files, and there have to be 1" in records["sets"]["reason"]
    assert records["sets"]["faults"] == 1
