# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks: what is on them and who uses them, before anybody takes one."""

from __future__ import annotations

import json

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput, ToolError
from ansible_collections.restorepoint.core.plugins.module_utils.setup.disks import (
    Disk,
    Signature,
    WantedFile,
    block_doubles,
    claim,
    parse_files,
    parse_signatures,
    plan_files,
    read_disks,
)
from ansible_collections.restorepoint.core.plugins.module_utils.setup.plan import Attached, Plan

#: wipefs of util-linux 2.38.1, shortened: ZFS has a dozen labels on each disk.
ZFS = """{
   "signatures": [
      {"device": "sdb", "offset": "0x22800", "type": "zfs_member", "uuid": "130", "label": "tank"},
      {"device": "sdb", "offset": "0x62800", "type": "zfs_member", "uuid": "130", "label": "tank"},
      {"device": "sdc", "offset": "0x438", "type": "ext4", "uuid": "5706", "label": null}
   ]
}"""


def blocked(disk, forced=False):
    plan = Plan()
    claim(plan, disk, "the pool tank", forced)
    return [each.reason for each in plan.blockers], [step.argv for step in plan.steps]


def test_the_signatures_of_each_disk_are_read_once():
    found = parse_signatures(ZFS, ["/dev/sdb", "/dev/sdc", "/dev/sdd"], "read")
    assert found == {
        "/dev/sdb": (Signature("zfs_member", "tank", "130"),),
        "/dev/sdc": (Signature("ext4", "", "5706"),),
    }


def test_wipefs_prints_nothing_where_it_finds_nothing():
    assert parse_signatures("", ["/dev/sdb"], "read") == {}


STRANGER = '{"signatures": [{"device": "sdx", "type": "ext4", "uuid": "", "label": ""}]}'


@pytest.mark.parametrize("output", ["{", "[]", '{"signatures": [{}]}', '{"signatures": null}', "sdb ext4", STRANGER])
def test_an_answer_that_cannot_be_read_is_an_error_and_not_an_empty_disk(output):
    with pytest.raises(ToolError, match="cannot be read"):
        parse_signatures(output, ["/dev/sdb"], "read")


def test_two_disks_of_one_name_are_never_mixed_up():
    output = json.dumps({"signatures": [{"device": "a", "type": "ext4", "uuid": "", "label": ""}]})
    with pytest.raises(ToolError, match="two have one name"):
        parse_signatures(output, ["/srv/a", "/var/a"], "read")


def test_a_blank_disk_is_taken_as_it_is():
    assert blocked(Disk("/dev/sdb", "/dev/sdb", 1, "device")) == ([], [])


def test_a_disk_with_a_signature_is_refused_and_says_which():
    disk = Disk("/dev/sdb", "/dev/sdb", 1, "device", signatures=(Signature("ext4", "backup"), Signature("gpt")))
    assert blocked(disk) == (["there is something on it: ext4 'backup', gpt"], [])


def test_a_disk_with_partitions_is_refused_even_without_a_signature_of_its_own():
    assert blocked(Disk("/dev/sdb", "/dev/sdb", 1, "device", partitions=("/dev/sdb1",)))[0] == [
        "there is something on it: partition /dev/sdb1"
    ]


def test_a_disk_that_is_forced_is_wiped_partitions_first():
    disk = Disk(
        "/dev/x", "/dev/sdb", 1, "device", signatures=(Signature("gpt"),), partitions=("/dev/sdb1", "/dev/sdb2")
    )
    assert blocked(disk, forced=True) == ([], [("wipefs", "--all", "/dev/sdb1", "/dev/sdb2", "/dev/sdb")])


def test_a_disk_in_use_is_refused_even_when_it_is_forced():
    disk = Disk("/dev/sdb", "/dev/sdb", 1, "device", signatures=(Signature("xfs"),), users=("sdb is mounted at /srv",))
    assert blocked(disk, forced=True) == (["it is in use: sdb is mounted at /srv"], [])


@pytest.mark.parametrize(("kind", "reason"), [("missing", "there is no such disk"), ("thing", "it is no block device")])
def test_what_is_no_disk_is_refused_even_when_it_is_forced(kind, reason):
    assert blocked(Disk("/dev/sdb", "/dev/sdb", kind=kind), forced=True) == ([reason], [])


def test_one_disk_by_two_paths_is_noticed():
    plan = Plan()
    disks = {"/dev/sdb": Disk("/dev/sdb", "/dev/sdb"), "/dev/disk/by-id/x": Disk("/dev/disk/by-id/x", "/dev/sdb")}
    block_doubles(plan, ["/dev/sdb", "/dev/disk/by-id/x"], disks)
    assert [str(each) for each in plan.blockers] == [
        "/dev/disk/by-id/x: it is the same disk as /dev/sdb (name each disk once)"
    ]


def test_a_new_file_is_made_and_attached_and_its_loop_device_is_known_later(tmp_path):
    path = str(tmp_path / "disk.img")
    files = parse_files([{"path": path, "size": "1M"}])
    disks = read_disks([path], files)
    plan = Plan()
    plan_files(plan, files, disks)
    assert [step.action for step in plan.steps] == ["create file", "attach file"]
    assert (disks[path].kind, disks[path].size, disks[path].device) == ("new file", 1 << 20, Attached(path))
    assert not plan.blockers


def test_a_file_of_another_size_is_refused(tmp_path):
    (tmp_path / "disk.img").write_bytes(b"\0" * 4096)
    files = (WantedFile(str(tmp_path / "disk.img"), 8192),)
    plan = Plan()
    plan_files(plan, files, read_disks([], files), loops=False)
    assert [each.reason for each in plan.blockers] == ["it has 4.0 KiB (4096 bytes), not 8.0 KiB"]


def test_a_file_that_is_no_longer_listed_as_a_file_is_no_disk(tmp_path):
    (tmp_path / "notes").write_text("precious")
    disks = read_disks([str(tmp_path / "notes")], ())
    assert blocked(disks[str(tmp_path / "notes")], forced=True)[0] == ["it is no block device"]


def test_a_file_whose_folder_is_missing_is_refused(tmp_path):
    files = (WantedFile(str(tmp_path / "gone" / "disk.img"), 4096),)
    plan = Plan()
    plan_files(plan, files, read_disks([], files))
    assert [each.reason for each in plan.blockers] == [f"there is no directory {tmp_path / 'gone'}"]


@pytest.mark.parametrize("row", [{"path": "disk.img", "size": "4K"}, {"path": "/a/../b", "size": "4K"},
                                 {"path": "/a\nb", "size": "4K"}, {"path": "/a", "size": "1000"},
                                 {"path": "/a", "size": "0"}, {"path": "/a", "size": "big"}])  # fmt: skip
def test_a_file_that_cannot_be_meant_is_refused_before_anything_is_looked_at(row):
    with pytest.raises(InvalidInput):
        parse_files([row])
