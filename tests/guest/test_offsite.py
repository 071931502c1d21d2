# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Exports of ZFS into another pool, over ssh and into files, and their way back: equal, resumed, or refused."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time

import pytest

from ansible_collections.restorepoint.core.tests.guest.machine import CHECKOUT, DISKS, ProgramFailed

AGENT, FILE, STATE = "/root/off-site.pyz", "/root/off-site.json", "/root/off-site"
SSH = {"host": "localhost", "user": "backup", "key_file": "/root/off-site.key", "known_hosts": "/root/off-site.hosts"}
BIG = 24
POLICIES = [
    {
        "name": "shop",
        "targets": [{"backend": "zfs", "dataset": ["one/shop", "one/secret"]}],
        "keep": {"last": 1},
        "export": [
            {"kind": "zfs", "name": "vault", "dataset": "two/vault"},
            {"kind": "zfs", "name": "remote", "dataset": "two/remote", "ssh": SSH},
            {"kind": "file", "name": "nas", "path": "/root/nas", "compression": "gzip"},
        ],
    },
    {
        "name": "block",
        "targets": [{"backend": "zfs", "dataset": ["one/volume"]}],
        "export": [{"kind": "file", "name": "nas", "path": "/root/nas", "compression": "gzip"}],
    },
    {
        "name": "big",
        "targets": [{"backend": "zfs", "dataset": ["one/big"]}],
        "export": [
            {"kind": "zfs", "name": "slow", "dataset": "two/slow", "bandwidth_limit": "512K"},
            {"kind": "file", "name": "full", "path": "/root/small", "compression": "none"},
        ],
    },
    {
        "name": "lone",
        "targets": [{"backend": "zfs", "dataset": ["one/lone"]}],
        "export": [{"kind": "zfs", "name": "vault", "dataset": "two/vault"}],
    },
    {
        "name": "thin",
        "targets": [{"backend": "zfs", "dataset": ["one/thin"]}],
        "keep": {"last": 1},
        "export": [
            {"kind": "zfs", "name": "vault", "dataset": "two/vault", "keep": {"last": 1}},
            # Its streams do not say whose a snapshot is.
            {"kind": "zfs", "name": "remote", "dataset": "two/remote", "ssh": SSH, "properties": False,
             "keep": {"last": 1}},
        ],
    },
]  # fmt: skip
_SETUP = """
zpool create -f -O atime=off one {0}
zpool create -f -O atime=off two {1}
zfs create -o compression=lz4 -o recordsize=16k one/shop
echo 'a secret that is long' > /root/off-site.pass
zfs create -o encryption=on -o keyformat=passphrase -o keylocation=file:///root/off-site.pass one/secret
zfs create -s -V 16M one/volume
zfs create one/big
zfs create one/lone
zfs create one/thin
zfs create -o mountpoint=none two/vault
zfs create -o mountpoint=none two/remote
zfs create -o mountpoint=none two/slow
mkdir /root/nas /root/small
mount -t tmpfs -o size=4m small /root/small
id backup >/dev/null 2>&1 || useradd backup
usermod -s /bin/sh -d /var/lib/backup backup
install -d -o backup -g backup -m 700 /var/lib/backup /var/lib/backup/.ssh
rm -f {key} {key}.pub
ssh-keygen -q -t ed25519 -N '' -f {key}
install -o backup -g backup -m 600 {key}.pub /var/lib/backup/.ssh/authorized_keys
sed 's/^/localhost /' /etc/ssh/ssh_host_ed25519_key.pub > {hosts}
chmod 666 /dev/zfs
zfs allow -u backup {allowed} two/remote
"""
KILLED_OF = ("thin", "export")
#: A `zfs` that kills whoever starts it to destroy snapshots, before any is.
KILLER = """#!/bin/sh
if [ "$1 $2" = "destroy -vp" ]; then kill -KILL $PPID; exit 1; fi
exec /usr/sbin/zfs "$@"
"""
ALLOWED = (
    "create,mount,receive,send,destroy,readonly,canmount,mountpoint,"
    "sharenfs,sharesmb,compression,recordsize,userprop,keylocation"
)


@pytest.fixture(scope="module")
def host(guest, tmp_path_factory):
    """The guest with the agent, two pools, and an account that may do no more than receive."""
    archive = tmp_path_factory.mktemp("agent") / "restorepoint.pyz"
    subprocess.run([sys.executable, CHECKOUT / "tools" / "agent.py", archive], check=True, timeout=300)
    guest.run("sh", "-c", f"base64 -d > {AGENT}", input=base64.b64encode(archive.read_bytes()).decode("ascii"))
    guest.script(_SETUP.format(*DISKS, key=SSH["key_file"], hosts=SSH["known_hosts"], allowed=ALLOWED))
    policies(guest, POLICIES)
    guest.device("/dev/zvol/one/volume")
    change(guest, 1)
    yield guest
    guest.script("umount /root/small; rm -rf /root/off-site* /root/nas /root/small")


def policies(guest, found):
    guest.write(FILE, json.dumps({"policies": found}))


def words(*argv):
    return ["python3", AGENT, "--policies", FILE, "--state", STATE, *argv]


def agent(guest, *argv, check=True):
    return guest.run(*words(*argv), check=check)


def result(guest, *argv):
    """Run the agent with --json; return what it printed, whatever its exit code."""
    return json.loads(agent(guest, *argv, "--json", check=False))


def exported(guest, policy, *argv):
    (record,) = result(guest, "export", policy, *argv)
    return record


def zfs(guest, *argv):
    return guest.run("zfs", *argv).strip()


def change(guest, number):
    guest.script(
        f"head -c 200000 /dev/urandom > /one/shop/f{number}; echo {number} > /one/shop/last; "
        f"ln -f /one/shop/last /one/shop/link; echo secret {number} > /one/secret/f; echo volume {number} | "
        "dd of=/dev/zvol/one/volume conv=notrunc,fsync status=none; zpool sync"
    )


def names(guest, dataset):
    listed = zfs(guest, "list", "-H", "-t", "snapshot", "-d", "1", "-o", "name", "-s", "createtxg", dataset)
    return [line.partition("@")[2] for line in listed.splitlines()]


def content(guest, dataset):
    """Return everything in a filesystem that is mounted for this look: names, modes, times, content."""
    return guest.script(
        f"mkdir -p /mnt/look; mount -t zfs -o ro {'-o zfsutil ' if '@' not in dataset else ''}{dataset} /mnt/look; "
        "cd /mnt/look; find . -printf '%p %y %m %U %G %n %T@ %s\\n' | grep -v '^. ' | sort; "
        "find . -type f -print0 | sort -z | xargs -0r sha256sum; cd /; umount /mnt/look"
    )


def test_what_comes_back_from_each_destination_equals_the_source(host):
    first = json.loads(agent(host, "run", "shop", "--json"))["name"]
    record = exported(host, "shop")
    assert record["outcome"] == "done", record
    assert record["done"] == {"exported": 6}
    # Runs between exports: keep says one, but what the destinations hold stays as the base.
    for number in (2, 3):
        change(host, number)
        last = json.loads(agent(host, "run", "shop", "--json"))["name"]
    assert names(host, "one/shop") == [first, last]
    record = exported(host, "shop")
    assert record["outcome"] == "done", record
    assert exported(host, "shop")["outcome"] == "unchanged"
    # What was pruned between is not there: the chain goes over it.
    assert names(host, "two/vault/one:shop") == names(host, "two/remote/one:shop") == [first, last]
    assert zfs(host, "get", "-H", "-o", "value", "mounted", "two/vault/one:shop") == "no"
    assert zfs(host, "get", "-H", "-o", "value", "keystatus", "two/remote/one:secret") == "unavailable"
    source = content(host, f"one/shop@{last}")
    for number, destination in enumerate(("vault", "remote", "nas")):
        listed = result(host, "import", "shop", destination)
        targets = ("zfs:one/shop", "zfs:one/secret")
        assert {(each["target"], each["name"]) for each in listed} >= {
            (each, name) for each in targets for name in (first, last)
        }
        returned(host, "shop", destination, "one/shop", last, f"one/back{number}")
        assert content(host, f"one/back{number}") == source
        assert zfs(
            host, "get", "-H", "-o", "value", "recordsize,restorepoint:importing", f"one/back{number}"
        ).split() == [
            "16K",
            "-",
        ]
        if destination != "vault":
            # Raw: nobody there can read it. It comes back with its key's place, and takes the key that it had.
            returned(host, "shop", destination, "one/secret", last, f"one/secret{number}")
            host.run("zfs", "load-key", "-L", "file:///root/off-site.pass", f"one/secret{number}")
            assert content(host, f"one/secret{number}") == content(host, f"one/secret@{last}")
    refused = agent(
        host, "import", "shop", "nas", "--target", "one/shop", "--name", last, "--into", "one/lone", check=False
    )
    assert refused == ""
    assert names(host, "one/lone") == []


def test_a_volume_comes_back_from_a_file(host):
    name = json.loads(agent(host, "run", "block", "--json"))["name"]
    assert exported(host, "block")["outcome"] == "done"
    returned(host, "block", "nas", "one/volume", name, "one/back-volume")
    host.run("cmp", "/dev/zvol/one/volume", host.device("/dev/zvol/one/back-volume"))


def returned(guest, policy, destination, target, name, into):
    done = result(guest, "import", policy, destination, "--target", target, "--name", name, "--into", into)
    assert done["outcome"] == "done", done
    guids = zfs(guest, "get", "-H", "-o", "value", "guid", f"{into}@{name}", f"{target}@{name}").split()
    assert guids[0] == guids[1]


def test_a_base_that_somebody_destroyed_is_made_up_for_by_its_bookmark(host):
    base = names(host, "one/shop")[-1]
    zfs(host, "destroy", f"one/shop@{base}")
    change(host, 4)
    last = json.loads(agent(host, "run", "shop", "--json"))["name"]
    assert exported(host, "shop")["outcome"] == "done"
    for place in ("two/vault", "two/remote"):
        assert names(host, f"{place}/one:shop")[-2:] == [base, last]
        assert content(host, f"{place}/one:shop@{last}") == content(host, f"one/shop@{last}")
    marks = zfs(host, "list", "-H", "-t", "bookmark", "-d", "1", "-o", "name", "one/shop").splitlines()
    assert sorted(marks) == [f"one/shop#restorepoint-export.{each}.{last}" for each in ("nas", "remote", "vault")]


def test_a_damaged_file_is_refused_before_anything_is_received(host):
    (part, *_others) = [each for each in result(host, "import", "shop", "nas") if each["target"] == "zfs:one/shop"]
    last = names(host, "one/shop")[-1]
    host.script(
        f"cp -a {part['place']} /root/off-site.whole; printf x | dd of={part['place']} bs=1 seek=5000 conv=notrunc"
    )
    argv = ("import", "shop", "nas", "--target", "one/shop", "--name", last, "--into", "one/back")
    damaged = result(host, *argv)
    assert damaged["outcome"] == "failed"
    assert "it is damaged" in damaged["reason"]
    assert not host.succeeds("zfs", "list", "one/back")
    host.script(
        f"cp -a /root/off-site.whole {part['place']}; cd $(dirname {part['place']}); sha256sum -c --quiet *.sha256"
    )
    assert result(host, *argv)["outcome"] == "done"
    zfs(host, "destroy", "-r", "one/back")


def test_a_destination_that_has_gone_its_own_way_is_named_and_left_alone(host):
    zfs(host, "snapshot", "two/vault/one:shop@mine")
    change(host, 5)
    last = json.loads(agent(host, "run", "shop", "--json"))["name"]
    record = exported(host, "shop")
    assert record["outcome"] == "failed"
    assert record["done"] == {"exported": 5, "failed": 1}
    assert "it has mine, newer than" in record["reason"]
    assert "say --force" in record["reason"]
    assert names(host, "two/vault/one:shop")[-1] == "mine"
    record = exported(host, "shop", "--destination", "vault", "--force")
    assert record["outcome"] == "done", record
    assert "mine" not in names(host, "two/vault/one:shop")
    assert content(host, f"two/vault/one:shop@{last}") == content(host, f"one/shop@{last}")
    # What has nothing in common is never received over, not even by force.
    host.script("zfs create -o mountpoint=none two/vault/one:lone; zfs snapshot two/vault/one:lone@theirs")
    agent(host, "run", "lone")
    for more in ((), ("--force",)):
        record = exported(host, "lone", *more)
        assert record["outcome"] == "failed"
        assert "holds no snapshot that there is here" in record["reason"]
    assert names(host, "two/vault/one:lone") == ["theirs"]


def test_an_export_that_was_killed_goes_on_where_it_ended(host):
    host.script(f"head -c {BIG}M /dev/urandom > /one/big/f; zpool sync")
    name = json.loads(agent(host, "run", "big", "--json"))["name"]
    target = "two/slow/one:big"
    log = "/root/off-site.log"
    command = " ".join(words("export", "big", "--destination", "slow"))
    host.script(f"setsid {command} > {log} 2>&1 & echo $! > /root/off-site.pid")
    until(lambda: int(used(host, target)) > (2 << 20))
    host.script("kill -KILL $(cat /root/off-site.pid)")
    until(lambda: host.run("zfs", "get", "-H", "-o", "value", "receive_resume_token", target, check=False).strip()[2:])
    assert names(host, target) == []
    fast = json.loads(json.dumps(POLICIES))
    del fast[2]["export"][0]["bandwidth_limit"]
    policies(host, fast)
    # What it had started may hold the lock a moment longer than it lived.
    record = exported(host, "big", "--destination", "slow", "--wait", "120")
    assert record["outcome"] == "done", record
    assert 0 < record["sent_bytes"] < BIG << 20
    assert names(host, target) == [name]
    assert content(host, f"{target}@{name}") == content(host, f"one/big@{name}")
    outcomes = [
        json.loads(line)["outcome"] for line in host.read(f"{STATE}/journal.jsonl").splitlines() if '"big"' in line
    ]
    assert outcomes == ["done", "killed", "done"]


def test_a_full_disk_leaves_no_file_and_the_next_export_ends_well(host):
    record = exported(host, "big", "--destination", "full")
    assert record["outcome"] == "failed"
    assert "No space left on device" in record["reason"]
    assert host.run("find", "/root/small", "-type", "f") == ""
    host.run("mount", "-o", f"remount,size={2 * BIG}m", "/root/small")
    record = exported(host, "big", "--destination", "full")
    assert record["outcome"] == "done", record


def test_old_copies_go_by_the_rules_of_their_destination_and_a_dry_run_says_which(host):
    places = ("two/vault/one:thin", "two/remote/one:thin")
    taken = [taken_and_exported(host)]
    # Neither what was given to somebody else, nor what is held there goes.
    zfs(host, "set", "restorepoint:owner=manual", f"{places[0]}@{taken[0]}")
    zfs(host, "hold", "legal", f"{places[1]}@{taken[0]}")
    taken.append(taken_and_exported(host))
    assert [names(host, place) for place in places] == [taken, taken]
    host.script("head -c 300000 /dev/urandom > /one/thin/f; zpool sync")
    taken.append(json.loads(agent(host, "run", "thin", "--json"))["name"])
    (told,) = result(host, "export", "thin", "--dry-run")
    assert [names(host, place) for place in places] == [taken[:2], taken[:2]]
    record = exported(host, "thin")
    assert record["outcome"] == told["outcome"] == "done", record
    assert rows(record) == rows(told)
    assert record["done"] == told["done"] == {"exported": 2, "forgotten": 2}
    assert [names(host, place) for place in places] == [[taken[0], taken[2]], [taken[0], taken[2]]]
    assert any("held: tag legal" in each and "on localhost" in each for each in record["warnings"])
    kept = {(each["destination"], each["name"]): each["reason"] for each in told["decisions"] if each["keep"]}
    assert kept[("vault", taken[0])] == "foreign: owner manual"
    assert kept[("remote", taken[0])] == "held: tag legal"
    # Once the hold is gone it goes, and frees what was said.
    zfs(host, "release", "legal", f"{places[1]}@{taken[0]}")
    (told,) = result(host, "export", "thin", "--dry-run")
    record = exported(host, "thin")
    assert rows(record) == rows(told)
    assert record["done"] == {"forgotten": 1}
    assert record["freed_bytes"] == told["freed_bytes"] > 0
    assert names(host, places[1]) == taken[2:]


def test_nothing_goes_where_an_export_fails_and_one_that_was_killed_is_made_good(host):
    place, other = "two/vault/one:thin", "two/remote/one:thin"
    (theirs, old), before = names(host, place), names(host, other)
    host.script("head -c 300000 /dev/urandom > /one/thin/f; zpool sync")
    newest = json.loads(agent(host, "run", "thin", "--json"))["name"]
    # The agent is killed when it begins to remove copies: by the program that it starts for that.
    host.write("/usr/local/sbin/zfs", KILLER)
    host.run("chmod", "755", "/usr/local/sbin/zfs")
    agent(host, "export", "thin", "--destination", "vault", check=False)
    host.run("rm", "/usr/local/sbin/zfs")
    assert names(host, place) == [theirs, old, newest]
    # Now a clone is in the way here, and the other one cannot be reached.
    zfs(host, "clone", f"{place}@{old}", "two/of-thin")
    closed = json.loads(json.dumps(POLICIES))
    closed[-1]["export"][1]["ssh"]["port"] = 1
    policies(host, closed)
    record = exported(host, "thin", "--wait", "120")
    assert (record["outcome"], record["done"]) == ("failed", {"failed": 1}), record
    assert "Connection refused" in record["reason"]
    assert any("cloned as two/of-thin" in each for each in record["warnings"])
    assert names(host, place) == [theirs, old, newest]
    assert names(host, other) == before
    zfs(host, "destroy", "two/of-thin")
    policies(host, POLICIES)
    record = exported(host, "thin")
    assert record["done"] == {"exported": 1, "forgotten": 2}, record
    assert names(host, place) == [theirs, newest]
    assert names(host, other) == [newest]
    assert content(host, f"{other}@{newest}") == content(host, f"one/thin@{newest}")
    lines = host.read(f"{STATE}/journal.jsonl").splitlines()
    outcomes = [each["outcome"] for each in map(json.loads, lines) if (each["policy"], each["command"]) == KILLED_OF]
    assert outcomes[-3:] == ["killed", "failed", "done"]


def taken_and_exported(guest):
    """Take a restore point of the policy that thins out, and export it; return its name."""
    guest.script("head -c 300000 /dev/urandom > /one/thin/f; zpool sync")
    name = json.loads(agent(guest, "run", "thin", "--json"))["name"]
    record = exported(guest, "thin")
    assert record["done"] == {"exported": 2}, record
    return name


def rows(record):
    """Return what became, or would become, of each target."""
    keys = ("destination", "target", "action", "name", "reason")
    return [tuple(each.get(key) for key in keys) for each in record["results"]]


def used(guest, dataset):
    try:
        return guest.run("zfs", "get", "-Hp", "-o", "value", "used", dataset).strip()
    except ProgramFailed:
        return "0"


def until(seen, seconds=600):
    """Wait for something; fail where it does not come."""
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, "it has not come"
        time.sleep(0.5)
