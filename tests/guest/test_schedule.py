# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Policies under real systemd: what timers start does its work confined, on ZFS, LVM, Btrfs and directories."""

from __future__ import annotations

import datetime
import json
import re

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.core.schedule import parse_calendar
from ansible_collections.restorepoint.core.tests.guest import scheduled

_STORAGE = """
zpool create -f -O atime=off tank /dev/ubdb
zfs create tank/shop
zfs create -o mountpoint=none tank/vault
vgcreate -qy vg0 /dev/ubdc
lvcreate -qy -L 64M -n thick vg0
lvcreate -qy -L 64M -T vg0/pool
lvcreate -qy -V 32M -n thin vg0/pool
mkfs.ext4 -qF /dev/vg0/thin
mkfs.btrfs -qf /dev/ubdd
mkdir -p /mnt/btrfs && mount /dev/ubdd /mnt/btrfs
btrfs -q subvolume create /mnt/btrfs/site
mkfs.ext4 -qF /dev/ubde 100M
mkdir -p /mnt/files && mount /dev/ubde /mnt/files
mkdir /mnt/files/data
echo one | tee /tank/shop/f /mnt/btrfs/site/f > /mnt/files/data/f
cp /bin/true /mnt/files/data/setuid
chmod 4755 /mnt/files/data/setuid
"""
_LIST = ("zfs", "list", "-Ht", "snapshot", "-s", "createtxg", "-o", "name", "tank/shop")
#: A hook that says that it runs, and ends when it is told to.
_HOLD = "touch /run/hold.on; while [ ! -e /run/hold.go ]; do sleep 0.2; done"
#: So that the moment of a policy that is taken each day does not come by itself.
NOON = "2026-12-01 12:00:00"
ZFS = {"backend": "zfs", "dataset": ["tank/shop"]}
#: Policies that are due at the same moment wait for one another: for long enough, also on a busy machine.
LVM = {"backend": "lvm", "volume": ["vg0/thin"], "lock_timeout": 600}
THICK = {"backend": "lvm", "volume": ["vg0/thick"], "size": "16M", "lock_timeout": 600}
BTRFS = {"backend": "btrfs", "subvolume": ["/mnt/btrfs/site"], "store": "/mnt/btrfs/.store"}
FROZEN = {
    "backend": "hostpath",
    "path": ["/mnt/files/data"],
    "store": "/var/lib/restorepoint-store",
    "lock_timeout": 600,
}
FILES = {"backend": "hostpath", "path": ["/mnt/files/data"], "store": "/mnt/files/.store"}


@pytest.fixture(scope="module")
def machine(guest):
    guest.script(_STORAGE)
    yield from scheduled.scheduled(guest)


@pytest.fixture
def host(machine):
    machine.clear()
    # What the test before has taken.
    left = "/mnt/files/.store /mnt/files/state /mnt/files/data/new /var/lib/restorepoint-store /run/hold.* /run/told.*"
    machine.guest.script(f"zfs destroy tank/shop@% || true; rm -rf {left}")
    return machine


def test_timers_take_and_prune_on_every_kind_of_storage_confined(host):
    rules = {"keep": {"last": 1}, "schedule": {"cron": "30 3 * * *", "calendar": "*-*-* 04:30"}}
    freeze = {"kind": "fsfreeze", "path": "/mnt/files"}
    policies = [{"name": "all", "targets": [ZFS, LVM, BTRFS, FILES], **rules},
                {"name": "thick", "targets": [THICK, FROZEN], **rules},
                {"name": "frozen", "targets": [FROZEN], "hooks": [freeze], **rules}]  # fmt: skip
    # A timer that has moments behind it when the clock is moved fires at once, and again at the one that comes.
    host.at("2026-12-01 03:00:00")
    foretold = host.layout(policies, check_mode=True)
    assert host.layout(policies)["changes"] == foretold["changes"]
    assert host.layout(policies)["changes"] == []
    host.at("2026-12-01 03:29:58")
    assert len(host.wait_for_runs(3)) == 3
    host.at("2026-12-01 04:29:58")
    assert len(host.wait_for_runs(6)) == 6
    assert [each for each in host.outcomes if each != ("done", "")] == []
    for policy, count in (("all", 4), ("thick", 2), ("frozen", 1)):
        done = [each["done"] for each in host.journal if each["policy"] == policy]
        assert done == [{"created": count}, {"created": count, "removed": count}]
    last = [each["name"] for each in host.journal if each["policy"] == "all"][-1]
    assert snapshots(host) == [last]
    mode = host.guest.script("stat -c %a $(find /mnt/files/.store -name setuid | head -n 1)").strip()
    assert mode == "4755"
    shown = host.show("restorepoint-frozen.service", "Result", "ProtectSystem", "RestrictAddressFamilies", "Nice")
    assert shown == {"Result": "success", "ProtectSystem": "full", "RestrictAddressFamilies": "AF_NETLINK AF_UNIX",
                     "Nice": "10"}  # fmt: skip
    drilled_and_exported(host, policies)


def drilled_and_exported(host, policies):
    """Let timers drill and export what was taken, each confined; and let their keys go."""
    begun, rules = len(host.journal), {"calendar": "*-*-* 05:30"}
    destination = {"kind": "zfs", "dataset": "tank/vault", "backends": ["zfs"]}
    keys = {"drill": {}, "drill_schedule": rules, "export": [destination], "export_schedule": rules}
    whole, *others = policies
    assert host.layout([{**whole, **keys}, *others])["changed"]
    host.at("2026-12-01 05:29:58")
    runs = host.wait_for_runs(begun + 2)[begun:]
    assert [(each["outcome"], each.get("reason")) for each in runs] == [("done", None)] * 2, host.journal
    assert {each["command"]: len(each["targets"]) for each in runs} == {"drill": 4, "export": 1}
    copied = host.guest.run("zfs", "list", "-Ht", "snapshot", "-o", "name", "tank/vault/tank:shop").split()
    assert [each.partition("@")[2] for each in copied] == snapshots(host)
    # Nothing is due any more.
    host.guest.run("systemctl", "start", "restorepoint_drill-all.service", "restorepoint_export-all.service")
    assert len(host.journal) == begun + 2
    for unit, families in (("drill", "AF_NETLINK AF_UNIX"), ("export", "AF_INET AF_INET6 AF_NETLINK AF_UNIX")):
        shown = host.show(f"restorepoint_{unit}-all.service", "Result", "ProtectSystem", "RestrictAddressFamilies")
        found = shown.pop("RestrictAddressFamilies").split()
        assert (shown, sorted(found)) == ({"Result": "success", "ProtectSystem": "full"}, families.split())
    host.layout(policies)
    left = host.guest.run("sh", "-c", "ls /etc/systemd/system /etc/systemd/system/timers.target.wants").split()
    assert not [each for each in left if each.startswith("restorepoint_")]


def test_over_weeks_and_both_changes_of_the_clock_each_moment_is_taken_once_and_thinned_out(host):
    policy = {"name": "weekly", "targets": [ZFS], "timezone": "Europe/Paris", "schedule": {"calendar": "Sun 02:30"},
              "keep": {"weekly": 2, "monthly": 2}}  # fmt: skip
    host.at("2026-03-21 12:00:00")
    host.layout([policy], catch_up=True)
    # In spring there is no half past two: systemd leaves it out, and it is found to be missing at four.
    # From April to October the machine is down, so to say: that is made up for once.
    # In autumn there are two: the first one counts.
    moments = ("2026-03-22 01:29:58", "2026-03-29 01:59:58", "2026-04-05 00:29:58", "2026-10-17 12:00:00",
               "2026-10-18 00:29:58", "2026-10-25 00:29:58", "2026-11-01 01:29:58", "2026-11-08 01:29:58")  # fmt: skip
    for number, moment in enumerate(moments, start=1):
        host.at(moment)
        host.wait_for_runs(number)
    assert [each["started"][:10] for each in host.journal] == [moment[:10] for moment in moments]
    assert {outcome for outcome, _reason in host.outcomes} == {"done"}
    # Two weeks, and two months that those do not cover.
    assert [name[7:15] for name in snapshots(host)] == ["20260405", "20261025", "20261101", "20261108"]


@pytest.mark.parametrize("base", ["2026-03-27 12:00", "2026-10-23 12:00", "2028-02-28 12:00"])
def test_moments_are_read_as_systemd_reads_them(machine, base):
    expressions = ("*-*-* 02:30", "*:30", "Sat,Sun 00/4:15", "*-*-29..31 23:59:30", "*-*-* 02..03:10/20")
    zones = ("Europe/Paris", "America/New_York", "UTC")
    for zone in zones:
        # The zone of the host and not of the expression: for that one systemd forks a process for each moment.
        argv = ["env", f"TZ={zone}", "systemd-analyze", "calendar", "--iterations=40", f"--base-time={base} UTC"]
        said = machine.guest.run(*argv, *expressions).split("Normalized form:")[1:]
        assert len(said) == len(expressions)
        for text, block in zip(expressions, said):
            compare(text, zone, block, skipping=zone != "UTC" and "-10-" not in base)


def compare(text, zone, said, skipping):
    """Compare the moments that systemd tells of an expression with ours."""
    told = re.findall(r": \w+ (\S+ \S+) UTC$", said, re.MULTILINE)
    moments = [int(datetime.datetime.fromisoformat(f"{each}+00:00").timestamp()) for each in told]
    assert len(moments) == 40, said
    calendar = parse_calendar(text)
    assert [calendar.latest(moment, zone) for moment in moments] == moments, (text, zone)
    between = {calendar.latest(moment - 1, zone) for moment in moments[1:]} - set(moments)
    # What spring leaves out is passed over by systemd, and counts as missed with us, once.
    assert len(between) <= (1 if skipping else 0), (text, zone)


def test_a_run_beside_another_waits_or_says_that_it_is_busy(host):
    hook = {"kind": "command", "name": "hold", "before": ["sh", "-c", _HOLD], "timeout": "600s"}
    host.at(NOON)
    host.layout([{"name": "shop", "targets": [ZFS], "hooks": [hook], "schedule": {"calendar": "daily"}}])
    host.guest.run("systemctl", "start", "--no-block", "restorepoint-shop.service")
    host.wait_for_hook()
    assert not host.guest.succeeds(scheduled.PROGRAM, "run", "shop")
    wait = [scheduled.PROGRAM, "run", "shop", "--wait", "600"]
    host.guest.run("systemd-run", "--quiet", "--unit=restorepoint-second.service", *wait)
    host.guest.run("touch", "/run/hold.go")
    runs = host.wait_for_runs(3)
    assert [each["outcome"] for each in runs] == ["busy", "done", "done"]
    assert snapshots(host) == [each["name"] for each in runs[1:]]


@pytest.mark.parametrize("killed", ["nobody", "main", "all"])
def test_a_hook_that_hangs_leaves_a_failed_unit_and_nothing_frozen(host, killed):
    hooks = [{"kind": "fsfreeze", "path": "/mnt/files"},
             {"kind": "command", "name": "hold", "before": ["sh", "-c", _HOLD],
              "timeout": "2s" if killed == "nobody" else "600s"}]  # fmt: skip
    host.guest.write(
        "/run/systemd/system/told@.service", "[Service]\nType=oneshot\nExecStart=/bin/touch /run/told.%i\n"
    )
    policy = {"name": "shop", "targets": [FROZEN], "hooks": hooks, "schedule": {"calendar": "daily"}}
    host.at(NOON)
    host.layout([policy], on_failure=["told@%n.service"])
    host.guest.run("systemctl", "start", "--no-block", "restorepoint-shop.service")
    if killed != "nobody":
        host.wait_for_hook()
        host.guest.run("systemctl", "kill", f"--kill-whom={killed}", "--signal=KILL", "restorepoint-shop.service")
    (run,) = host.wait_for_runs(1)
    assert host.guest.succeeds("timeout", "60", "touch", "/mnt/files/thawed")
    assert run["outcome"] == ("failed" if killed == "nobody" else "killed")
    assert host.show("restorepoint-shop.service", "ActiveState") == {"ActiveState": "failed"}
    host.guest.until("/run/told.restorepoint-shop.service")
    # The next run is whole.
    host.guest.run("touch", "/run/hold.go")
    host.guest.run("systemctl", "start", "restorepoint-shop.service")
    assert host.outcomes[1:] == [("done", "")]


def test_on_a_disk_that_fills_up_the_run_fails_and_the_next_one_tells_of_it_and_goes_on(host):
    fill = "[ ! -e /run/hold.fill ] || dd if=/dev/zero of=/mnt/files/filler bs=4k || true"
    hook = {"kind": "command", "name": "fill", "before": ["sh", "-c", fill], "timeout": "600s"}
    policy = {"name": "shop", "targets": [FILES], "hooks": [hook], "schedule": {"calendar": "daily"}}
    host.at(NOON)
    host.layout([policy], state_folder="/mnt/files/state")
    host.guest.run("systemctl", "start", "restorepoint-shop.service")
    host.guest.script("touch /run/hold.fill; dd if=/dev/urandom of=/mnt/files/data/new bs=1M count=2 status=none")
    host.set_clock(host.clock() + 86400)
    host.wait(lambda: host.show("restorepoint-shop.service", "ActiveState")["ActiveState"] == "failed", "it worked")
    host.guest.run("rm", "/mnt/files/filler", "/run/hold.fill")
    host.guest.run("systemctl", "start", "restorepoint-shop.service")
    runs = [json.loads(line) for line in host.guest.read("/mnt/files/state/journal.jsonl").splitlines()]
    assert [each["outcome"] for each in runs] == ["done", "failed", "done"]
    assert "No space left" in runs[1]["reason"]
    kept = host.guest.run("find", "/mnt/files/.store", "-type", "d", "-name", "shop-*", "-printf", "%f\\n").split()
    assert sorted(kept) == [runs[0]["name"], runs[2]["name"]]


def test_a_machine_that_lost_its_power_in_a_run_makes_up_for_it_once_and_lets_go_of_its_hooks(host):
    hook = {"kind": "command", "name": "hold", "before": ["sh", "-c", f"touch /var/lib/quiet; sync; {_HOLD}"],
            "after": ["rm", "-f", "/var/lib/quiet"], "timeout": "600s"}  # fmt: skip
    target = {"backend": "hostpath", "path": ["/var/lib/restorepoint-data"], "store": "/var/lib/restorepoint-store"}
    host.guest.script("mkdir -p /var/lib/restorepoint-data; touch /var/lib/restorepoint-data/f; sync")
    policy = {"name": "shop", "targets": [target], "hooks": [hook], "schedule": {"calendar": "yearly"}}
    host.layout([policy], catch_up=True)
    host.guest.run("systemctl", "start", "--no-block", "restorepoint-shop.service")
    host.wait_for_hook()
    # So that the hook does not hang once more; /run goes with the power.
    host.guest.write("/etc/tmpfiles.d/hold.conf", "f /run/hold.go\n")
    host.guest.power_cut()
    runs = host.wait_for_runs(2)
    assert [(each["command"], each["outcome"]) for each in runs] == [("run", "killed"), ("run", "done")]
    assert not host.guest.exists("/var/lib/quiet")
    host.guest.run("systemctl", "start", "restorepoint.service", "restorepoint-shop.service")
    assert len(host.wait_for_runs(2)) == 2
    host.guest.script("rm -rf /etc/tmpfiles.d/hold.conf /var/lib/restorepoint-data /var/lib/restorepoint-store")


def snapshots(host):
    """The names of the dataset's snapshots, the oldest first."""
    return [each.partition("@")[2] for each in host.guest.run(*_LIST).split()]
