# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Metrics of real LVM and ZFS: what pools hold, what is held, and a tool that hangs, which holds nothing up."""

from __future__ import annotations

import base64
import json
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.restorepoint.core.tests.guest.machine import CHECKOUT, DISKS

AGENT = "/root/restorepoint.pyz"
STATE = "/root/metrics-state"
POLICIES = {
    "policies": [
        {"name": "thin", "targets": [{"backend": "lvm", "volume": ["vg0/thin"]}]},
        {"name": "thick", "targets": [{"backend": "lvm", "volume": ["vg0/thick"], "size": "32M"}]},
        {"name": "sets", "targets": [{"backend": "zfs", "dataset": ["one/shop"]}], "keep": {"last": 3}},
        {"name": "calm", "targets": [{"backend": "zfs", "dataset": ["one/calm"]}], "only_if_changed": True},
    ]
}
_SETUP = """
vgcreate -qq vg0 {0}
lvcreate -qq -y --type thin-pool -L 128M -n pool vg0
lvcreate -qq -y --type thin -V 64M --thinpool vg0/pool -n thin
lvcreate -qq -y -L 64M -n thick vg0
dd if=/dev/urandom of=/dev/vg0/thin bs=1M count=32 conv=fsync status=none
zpool create -f one {1}
zfs create one/shop
zfs create one/calm
"""


@pytest.fixture(scope="module")
def host(guest, tmp_path_factory):
    """The guest with the agent, a thin and a thick volume, and a dataset; each has been taken once."""
    archive = tmp_path_factory.mktemp("agent") / "restorepoint.pyz"
    subprocess.run([sys.executable, CHECKOUT / "tools" / "agent.py", archive], check=True, timeout=300)
    guest.run("sh", "-c", f"base64 -d > {AGENT}", input=base64.b64encode(archive.read_bytes()).decode("ascii"))
    guest.write("/root/policies.json", json.dumps(POLICIES))
    guest.script(_SETUP.format(*DISKS))
    for policy in ("thin", "thick", "sets"):
        agent(guest, "run", policy)
    yield guest
    guest.run("rm", "-rf", AGENT, "/root/policies.json", STATE)


def agent(guest, *argv, check=True, folder=""):
    path = f"PATH={folder or '/root'}:/usr/sbin:/usr/bin:/sbin:/bin"
    command = ["env", path, "python3", AGENT, "--policies", "/root/policies.json", "--state", STATE]
    return guest.run(*command, *argv, check=check)


def value(text, name, **labels):
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == f"restorepoint_{name}" and sample.labels == labels:
                return sample.value
    raise AssertionError(f"there is no {name} with {labels}")


def percent(host, column, volume):
    return float(host.run("lvs", "--noheadings", "-o", column, volume)) / 100


def test_snapshots_of_zfs_are_listed_verified_and_found_unchanged(host):
    """The agent once saw none of them: ZFS lists for a prune only what keep rules look at."""
    (shown,) = json.loads(agent(host, "list", "sets", "--json"))
    assert (shown["target"], shown["owner"]) == ("zfs:one/shop", "sets")
    assert shown["name"] in agent(host, "verify", "sets")
    assert json.loads(agent(host, "run", "calm", "--json"))["outcome"] == "done"
    assert json.loads(agent(host, "run", "calm", "--json"))["outcome"] == "unchanged"


def test_pools_are_as_full_as_their_own_tools_say(host):
    text = agent(host, "metrics")
    for part in ("data", "metadata"):
        fill = value(text, "storage_fill_ratio", backend="lvm", storage="vg0/pool", part=part)
        assert fill == pytest.approx(percent(host, f"{part}_percent", "vg0/pool"), abs=0.001)
    assert value(text, "storage_fill_ratio", backend="lvm", storage="vg0/pool", part="data") >= 0.24
    assert value(text, "storage_size_bytes", backend="lvm", storage="vg0/pool", part="data") == 128 << 20
    assert 0 < value(text, "storage_fill_ratio", backend="zfs", storage="one", part="data") < 0.5
    size = int(host.run("zpool", "list", "-Hp", "-o", "size", "one"))
    assert value(text, "storage_size_bytes", backend="zfs", storage="one", part="data") == size


def test_the_fill_of_a_thick_snapshot_is_shown_with_its_volume(host):
    host.run("dd", "if=/dev/urandom", "of=/dev/vg0/thick", "bs=1M", "count=8", "conv=fsync", "status=none")
    fill = value(agent(host, "metrics"), "snapshot_fill_ratio", policy="thick", backend="lvm", target="vg0/thick")
    assert 0.2 < fill < 0.6


def test_what_is_held_is_counted_and_shown_with_its_size(host):
    labels = {"policy": "sets", "backend": "zfs", "target": "one/shop"}
    assert value(agent(host, "metrics"), "snapshots_held", **labels) == 0
    (name,) = host.run("zfs", "list", "-H", "-t", "snapshot", "-o", "name", "one/shop").split()
    host.run("zfs", "hold", "legal", name)
    text = agent(host, "metrics")
    assert value(text, "snapshots_held", **labels) == 1
    assert value(text, "snapshots_size_unknown", **labels) == 0
    assert value(text, "keep_present", **labels, rule="last") == 0  # what is held takes no slot


def test_a_tool_that_hangs_is_down_and_all_else_is_shown(host):
    with host.shims("lvs", at=1, when="hang") as folder:
        text = agent(host, "metrics", "--timeout", "40s", check=False, folder=folder)
        assert host.calls() != []
    ups = [value(text, "backend_up", policy=policy, backend="lvm") for policy in ("thin", "thick")]
    assert sorted(ups) == [0, 1]  # whichever called lvs first
    assert value(text, "backend_up", policy="sets", backend="zfs") == 1
    assert host.run("sh", "-c", "ps -eo args | grep '^sleep 600' || true") == ""
