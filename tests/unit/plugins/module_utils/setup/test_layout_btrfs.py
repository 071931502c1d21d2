# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Btrfs: from what is asked for and what is there to steps, or to reasons against them."""

from __future__ import annotations

import dataclasses

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput, ToolError
from ansible_collections.restorepoint.core.plugins.module_utils.setup import btrfs
from ansible_collections.restorepoint.core.plugins.module_utils.setup.btrfs import Host, make_plan, parse
from ansible_collections.restorepoint.core.plugins.module_utils.setup.disks import Disk, Signature
from ansible_collections.restorepoint.core.plugins.module_utils.setup.fstab import Entry
from ansible_collections.restorepoint.core.plugins.module_utils.setup.mounting import Place
from ansible_collections.restorepoint.core.plugins.module_utils.setup.plan import Inside

DATA = {"name": "@data", "mount": "/srv/data", "mount_options": "noatime"}
INNER = {"name": "@data/inner", "mount": None, "mount_options": "defaults"}
FILESYSTEM = {
    "label": "pool", "devices": ["/dev/sdb", "/dev/sdc"], "force": [], "data_profile": "raid1",
    "metadata_profile": None, "subvolumes": [INNER, DATA], "mount": None, "mount_options": "defaults",
}  # fmt: skip


def wanted(**changes):
    return parse({"files": [], "filesystems": [{**FILESYSTEM, **changes}]})


def disk(path, *signatures):
    return Disk(path, path, 1 << 30, "device", signatures=signatures)


BARE = Host({path: disk(path) for path in ("/dev/sdb", "/dev/sdc")}, places={"/srv/data": Place()})
MEMBER = Signature("btrfs", "pool", "1234")
READY = Host(
    {path: disk(path, MEMBER) for path in ("/dev/sdb", "/dev/sdc")},
    {"pool": frozenset({"@data", "@data/inner", "@other"})},
    {
        "/srv/data": Place(
            True, False, "ours", Entry("UUID=1234", "/srv/data", "btrfs", "subvol=/@data,noatime", 0), True
        )
    },
)


def planned(desired, host):
    return make_plan(desired, host, lambda: "new-uuid")


def reasons(plan):
    return [each.reason for each in plan.blockers]


def test_on_a_bare_host_everything_is_planned_at_once_parents_first():
    plan = planned(wanted(), BARE)
    assert not plan.blockers
    assert [step.argv for step in plan.steps[:3]] == [
        ("mkfs.btrfs", "--quiet", "--label", "pool", "--uuid", "new-uuid", "--data", "raid1", "/dev/sdb", "/dev/sdc"),
        ("btrfs", "subvolume", "create", Inside("/dev/sdb", "@data")),
        ("btrfs", "subvolume", "create", Inside("/dev/sdb", "@data/inner")),
    ]
    assert plan.steps[4].entry.line == "UUID=new-uuid /srv/data btrfs subvol=/@data,noatime 0 0"


def test_what_is_there_is_left_alone_other_subvolumes_too():
    plan = planned(wanted(), READY)
    assert (plan.steps, plan.blockers) == ([], [])


def test_a_disk_is_never_added_to_a_filesystem_that_is_there():
    host = dataclasses.replace(READY, disks={**READY.disks, "/dev/sdc": disk("/dev/sdc")})
    assert reasons(planned(wanted(), host)) == ["the filesystem pool is there, and this disk is no part of it"]


def test_two_filesystems_of_one_label_are_not_taken_for_one():
    stranger = disk("/dev/sdc", Signature("btrfs", "pool", "9999"))
    host = dataclasses.replace(READY, disks={**READY.disks, "/dev/sdc": stranger})
    assert reasons(planned(wanted(), host)) == ["the filesystem pool is there, and this disk is no part of it"]


def test_a_filesystem_of_another_label_is_refused():
    stranger = disk("/dev/sdc", Signature("btrfs", "old", "9999"))
    host = dataclasses.replace(BARE, disks={**BARE.disks, "/dev/sdc": stranger})
    assert reasons(planned(wanted(), host)) == ["there is something on it: btrfs 'old'"]


def test_a_subvolume_whose_parent_is_nowhere_is_refused():
    assert reasons(planned(wanted(subvolumes=[INNER]), BARE)) == ["there is no subvolume @data in pool"]


def test_new_options_are_written_and_take_effect():
    plan = planned(wanted(subvolumes=[{**DATA, "mount_options": "compress=zstd"}]), READY)
    assert [step.action for step in plan.steps] == [
        "write fstab",
        "read fstab again",
        "mount again with the new options",
    ]


@pytest.mark.parametrize("changes", [
    {"label": "a b"}, {"label": ""}, {"devices": []}, {"force": ["/dev/sdz"]}, {"devices": ["/dev/sdb", "/dev/sdb"]},
    {"subvolumes": [{**DATA, "name": "/x"}]}, {"subvolumes": [{**DATA, "name": "../x"}]}, {"subvolumes": [DATA, DATA]},
    {"mount": "/srv/data"}, {"mount": "srv"},
])  # fmt: skip
def test_what_cannot_be_meant_is_refused(changes):
    with pytest.raises(InvalidInput):
        wanted(**changes)


def test_subvolumes_are_read_as_btrfs_progs_prints_them():
    output = "ID 256 gen 11 top level 5 path @data\nID 258 gen 9 top level 256 path @data/with blank\n"
    assert btrfs.parse_subvolumes(output, "list") == {"@data", "@data/with blank"}


def test_a_line_in_another_form_is_an_error_and_not_an_empty_filesystem():
    with pytest.raises(ToolError):
        btrfs.parse_subvolumes("ID 256 gen 11 path @data\n", "list")
