# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""LVM: from what is asked for and what is there to steps, or to reasons against them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput, ToolError
from ansible_collections.restorepoint.core.plugins.module_utils.setup import lvm
from ansible_collections.restorepoint.core.plugins.module_utils.setup.disks import Disk, Signature
from ansible_collections.restorepoint.core.plugins.module_utils.setup.lvm import Group, Host, Volume, make_plan, parse
from ansible_collections.restorepoint.core.plugins.module_utils.setup.mounting import Place

GIB, MIB = 1 << 30, 1 << 20
GROUP = {"name": "vg", "devices": ["/dev/sdb"], "force": [], "extent_size": "4M"}
VOLUME: dict[str, Any] = {
    "volume_group": "vg", "name": "data", "size": "1G", "thin_pool": None, "filesystem": "ext4",
    "filesystem_options": [], "mount": "/srv/data", "mount_options": "defaults",
}  # fmt: skip
POOL = {
    "volume_group": "vg", "name": "pool", "size": "1G", "metadata_size": None, "chunk_size": None, "profile": None,
}  # fmt: skip
#: `lvs` of LVM 2.03.16.
LVS = '{"report": [{"lv": [{"vg_name":"vg", "lv_name":"data", "lv_size":"1073741824"}]}]}'


def wanted(groups=(GROUP,), pools=(), volumes=(VOLUME,)):
    return parse({"files": [], "volume_groups": groups, "thin_pools": pools, "volumes": volumes})


def blank(path="/dev/sdb", **changes):
    return Disk(**{"path": path, "real": path, "size": 10 * GIB, "kind": "device", **changes})


BARE = Host({"/dev/sdb": blank()}, places={"/srv/data": Place()})


def ready(**volume):
    """A host that is as it was asked to be, but for these fields of its volume."""
    entry = make_plan(wanted(), BARE).steps[4].entry
    present = Volume(**{"size": GIB, "kind": "linear", "signatures": (Signature("ext4"),), **volume})
    return Host(
        {"/dev/sdb": blank(signatures=(Signature("LVM2_member"),), users=("dm-0 is built on sdb",))},
        {"/dev/sdb": "vg"},
        {"vg": Group(10 * GIB, 9 * GIB, 4 * MIB)},
        {"vg/data": present},
        {"/srv/data": Place(exists=True, mounted="ours", entry=entry, same=True)},
    )


def actions(plan):
    assert not plan.blockers
    return [step.action for step in plan.steps]


def reasons(plan):
    return [each.reason for each in plan.blockers]


def test_on_a_bare_host_everything_is_planned_at_once():
    plan = make_plan(wanted(), BARE)
    assert actions(plan) == ["create volume group", "create volume", "create filesystem", "create directory",
                             "write fstab", "read fstab again", "mount"]  # fmt: skip
    assert plan.steps[0].argv == ("vgcreate", "--physicalextentsize", "4194304b", "vg", "/dev/sdb")
    assert plan.steps[4].after == "/dev/vg/data /srv/data ext4 defaults 0 2"


def test_what_is_there_is_left_alone():
    assert actions(make_plan(wanted(), ready())) == []


def test_a_run_that_was_killed_before_the_filesystem_is_completed():
    assert actions(make_plan(wanted(), ready(signatures=()))) == ["create filesystem"]


def test_a_volume_that_is_too_small_is_extended_with_its_filesystem():
    plan = make_plan(wanted(volumes=[{**VOLUME, "size": "2G"}]), ready())
    assert plan.steps[0].argv == ("lvextend", "--yes", "--resizefs", "--size", f"{2 * GIB}b", "vg/data")


def test_a_size_between_two_extents_is_rounded_up_and_then_fits():
    assert actions(make_plan(wanted(volumes=[{**VOLUME, "size": str(GIB - 5)}]), ready())) == []


def test_a_volume_is_never_shrunk():
    assert reasons(make_plan(wanted(volumes=[{**VOLUME, "size": "500M"}]), ready())) == [
        "it has 1.0 GiB, more than the 500.0 MiB asked for"
    ]


def test_a_pool_that_has_been_extended_by_itself_stays():
    host = ready(kind="thin-pool", monitor="monitored")
    host = dataclasses.replace(host, volumes={"vg/pool": host.volumes["vg/data"]})
    assert actions(make_plan(wanted(pools=[{**POOL, "size": "500M"}], volumes=[]), host)) == []


def test_a_pool_that_nobody_watches_is_watched_and_gets_its_profile():
    host = ready(kind="thin-pool", monitor="not monitored")
    host = dataclasses.replace(host, volumes={"vg/pool": host.volumes["vg/data"]})
    plan = make_plan(wanted(pools=[{**POOL, "profile": "rp"}], volumes=[]), host)
    assert actions(plan) == ["set profile", "have it watched"]


def test_more_than_there_is_room_for_is_refused_beforehand():
    assert reasons(make_plan(wanted(volumes=[{**VOLUME, "size": "20G"}]), BARE)) == [
        "10.0 GiB is free in vg, 20.0 GiB asked for"
    ]


def test_volumes_share_the_room_of_a_call():
    second = {**VOLUME, "name": "other", "size": "6G", "mount": None}
    assert reasons(make_plan(wanted(volumes=[{**VOLUME, "size": "6G"}, second]), BARE)) == [
        "4.0 GiB is free in vg, 6.0 GiB asked for"
    ]


def test_a_thin_volume_may_be_larger_than_its_group():
    thin = {**VOLUME, "thin_pool": "pool", "size": "1T"}
    assert "create thin volume in pool" in actions(make_plan(wanted(pools=[POOL], volumes=[thin]), BARE))


def test_another_filesystem_is_refused_and_never_made_over():
    assert reasons(make_plan(wanted(), ready(signatures=(Signature("xfs", "old"),)))) == [
        "there is xfs 'old' on it, not ext4"
    ]


def test_a_volume_that_is_not_active_is_refused_rather_than_taken_for_empty():
    assert reasons(make_plan(wanted(), ready(signatures=None))) == [
        "it is not active, so nobody can tell what is on it"
    ]


def test_a_disk_of_another_group_is_refused_even_when_it_is_forced():
    host = dataclasses.replace(BARE, members={"/dev/sdb": "other"})
    plan = make_plan(wanted(groups=[{**GROUP, "force": ["/dev/sdb"]}]), host)
    assert reasons(plan) == ["it belongs to the volume group other"]
    assert "wipe signatures" not in [step.action for step in plan.steps]


def test_a_disk_that_is_new_in_the_list_extends_the_group():
    host = ready()
    host = dataclasses.replace(host, disks={**host.disks, "/dev/sdc": blank("/dev/sdc")})
    plan = make_plan(wanted(groups=[{**GROUP, "devices": ["/dev/sdb", "/dev/sdc"]}]), host)
    assert [step.argv for step in plan.steps] == [("vgextend", "vg", "/dev/sdc")]


def test_all_reasons_are_given_at_once():
    host = dataclasses.replace(BARE, disks={"/dev/sdb": blank(signatures=(Signature("ext4"),))},
                               places={"/srv/data": Place(exists=True, content=True)})  # fmt: skip
    assert reasons(make_plan(wanted(volumes=[{**VOLUME, "size": "20G"}]), host)) == [
        "there is something on it: ext4",
        "10.0 GiB is free in vg, 20.0 GiB asked for",
        "it holds something that would be hidden",
    ]


def test_another_line_of_fstab_for_the_place_is_refused():
    entry = dataclasses.replace(ready().places["/srv/data"].entry, source="/dev/sdz")
    host = dataclasses.replace(BARE, places={"/srv/data": Place(exists=True, entry=entry)})
    assert reasons(make_plan(wanted(), host)) == ["fstab has /dev/sdz for it, and not /dev/vg/data"]


def test_a_line_that_means_the_same_volume_by_its_uuid_is_corrected():
    host = ready()
    entry = dataclasses.replace(host.places["/srv/data"].entry, source="UUID=5706")
    host = dataclasses.replace(host, places={"/srv/data": Place(exists=True, mounted="ours", entry=entry, same=True)})
    assert actions(make_plan(wanted(), host)) == ["write fstab", "read fstab again", "mount again with the new options"]


@pytest.mark.parametrize(
    "volume",
    [
        {"name": "snapshot1"}, {"name": "a_tmeta"}, {"name": "-x"}, {"name": ".."}, {"name": "a b"}, {"size": "0"},
        {"size": "120%VG"}, {"size": "0%FREE"}, {"size": "some"}, {"thin_pool": "pool", "size": "50%VG"},
        {"filesystem": None}, {"mount": "srv"}, {"mount": "/srv/../etc"}, {"volume_group": "a/b"},
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_before_anything_is_looked_at(volume):
    with pytest.raises(InvalidInput):
        wanted(volumes=[{**VOLUME, **volume}])


@pytest.mark.parametrize(
    "group",
    [
        {"devices": []}, {"force": ["/dev/sdz"]}, {"extent_size": "3M"}, {"devices": ["sdb"]},
        {"devices": ["/dev/sdb", "/dev/sdb"]},
    ],
)  # fmt: skip
def test_a_group_that_cannot_be_meant_is_refused(group):
    with pytest.raises(InvalidInput):
        wanted(groups=[{**GROUP, **group}])


def test_a_report_of_lvm_is_read():
    assert lvm.parse_report(LVS, "lv", ["lv_name", "lv_size"], "read")[0]["lv_size"] == "1073741824"


@given(st.one_of(st.text(), st.recursive(st.none() | st.text(), st.lists).map(str)))
def test_a_report_that_cannot_be_read_is_an_error_and_never_an_empty_host(output):
    with pytest.raises(ToolError):
        lvm.parse_report(output, "lv", ["lv_name"], "read")


def test_a_report_without_a_field_that_was_asked_for_is_an_error():
    with pytest.raises(ToolError):
        lvm.parse_report(LVS, "lv", ["lv_name", "segtype"], "read")
