# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ZFS: from what is asked for and what is there to steps, or to reasons against them."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput, ToolError
from ansible_collections.restorepoint.core.plugins.module_utils.setup import zfs
from ansible_collections.restorepoint.core.plugins.module_utils.setup.disks import Disk, Signature
from ansible_collections.restorepoint.core.plugins.module_utils.setup.zfs import Host, is_value, make_plan, parse

MIRROR = {"type": "mirror", "devices": ["/dev/sdb", "/dev/sdc"]}
POOL = {"name": "tank", "vdevs": [MIRROR], "force": [], "properties": {"ashift": 12, "autotrim": True}}
TOP = {"name": "tank", "size": None, "sparse": False, "properties": {"mountpoint": "none", "compression": "lz4"}}
DATA = {"name": "tank/data", "size": None, "sparse": False,
        "properties": {"mountpoint": "/srv/data", "quota": "10G", "com.sun:auto-snapshot": True}}  # fmt: skip
GUEST = {"name": "tank/guest", "size": "1G", "sparse": True, "properties": {"volblocksize": "16K"}}
#: `zpool list -v -H -P -L` of OpenZFS 2.1.11.
LIST = """tank\t288M\t94.5K\t288M\t-\t-\t0%\t0%\t1.00x\tONLINE\t-
\tmirror-0\t288M\t94.5K\t288M\t-\t-\t0%\t0.03%\t-\tONLINE
\t/dev/sdb1\t300M\t-\t-\t-\t-\t-\t-\t-\tONLINE
\t/dev/sdc1\t300M\t-\t-\t-\t-\t-\t-\t-\tONLINE
"""


def wanted(pools=(POOL,), datasets=(TOP, DATA, GUEST)):
    return parse({"files": [], "pools": pools, "datasets": datasets})


def blank(path, **changes):
    return Disk(**{"path": path, "real": path, "size": 1 << 30, "kind": "device", **changes})


BARE = Host({path: blank(path) for path in ("/dev/sdb", "/dev/sdc", "/dev/sdd")})
READY = dataclasses.replace(
    BARE,
    members={"tank": frozenset({"/dev/sdb", "/dev/sdb1", "/dev/sdc", "/dev/sdc1"})},
    pool_properties={("tank", "ashift"): "12", ("tank", "autotrim"): "on"},
    kinds={"tank": "filesystem", "tank/data": "filesystem", "tank/guest": "volume"},
    properties={
        ("tank", "mountpoint"): "none", ("tank", "compression"): "lz4", ("tank/data", "mountpoint"): "/srv/data",
        ("tank/data", "quota"): "10737418240", ("tank/data", "com.sun:auto-snapshot"): "true",
        ("tank/guest", "volblocksize"): "16384", ("tank/guest", "volsize"): "1073741824",
        ("tank/data", "mounted"): "yes", ("tank/data", "canmount"): "on", ("tank/data", "keystatus"): "-",
    },
)  # fmt: skip


def having(**changes):
    """A host that is as it was asked to be, but for these properties of tank/data and tank/guest."""
    changed = {("tank/guest" if name == "volsize" else "tank/data", name): value for name, value in changes.items()}
    return dataclasses.replace(READY, properties={**READY.properties, **changed})


def steps(plan):
    assert not plan.blockers
    return [step.argv for step in plan.steps]


def reasons(plan):
    return [each.reason for each in plan.blockers]


def test_on_a_bare_host_everything_is_planned_at_once_parents_first():
    assert steps(make_plan(wanted(datasets=[GUEST, DATA, TOP]), BARE)) == [
        ("zpool", "create", "-o", "ashift=12", "-o", "autotrim=on", "-O", "mountpoint=none", "-O", "compression=lz4",
         "tank", "mirror", "/dev/sdb", "/dev/sdc"),
        ("zfs", "create", "-o", "mountpoint=/srv/data", "-o", "quota=10G", "-o", "com.sun:auto-snapshot=true",
         "tank/data"),
        ("zfs", "create", "-o", "volblocksize=16K", "-s", "-V", "1073741824", "tank/guest"),
    ]  # fmt: skip


def test_what_is_there_is_left_alone():
    assert steps(make_plan(wanted(), READY)) == []


def test_a_property_that_differs_is_set():
    assert steps(make_plan(wanted(), having(quota="0"))) == [("zfs", "set", "quota=10G", "tank/data")]


def test_a_dataset_that_should_be_mounted_is():
    assert steps(make_plan(wanted(), having(mounted="no"))) == [("zfs", "mount", "tank/data")]


@pytest.mark.parametrize("state", [{"canmount": "noauto"}, {"keystatus": "unavailable"}, {"mountpoint": "legacy"}])
def test_a_dataset_that_cannot_or_must_not_be_mounted_is_not(state):
    data = {**DATA, "properties": {}}
    assert steps(make_plan(wanted(datasets=[TOP, data]), having(mounted="no", **state))) == []


def test_what_counts_only_at_creation_is_refused_later():
    encrypted = {**DATA, "properties": {"encryption": "aes-256-gcm"}}
    assert reasons(make_plan(wanted(datasets=[encrypted]), having(encryption="off"))) == [
        "encryption is off, not aes-256-gcm"
    ]
    assert reasons(make_plan(wanted(pools=[{**POOL, "properties": {"ashift": 13}}]), READY)) == ["ashift is 12, not 13"]


def test_a_volume_is_extended_and_never_shrunk():
    assert steps(make_plan(wanted(), having(volsize=str(1 << 29)))) == [
        ("zfs", "set", "volsize=1073741824", "tank/guest")
    ]
    assert reasons(make_plan(wanted(), having(volsize=str(1 << 31)))) == [
        "it has 2.0 GiB, more than the 1.0 GiB asked for"
    ]


def test_a_disk_is_never_added_to_a_pool_that_is_there():
    more = {**POOL, "vdevs": [{"type": "mirror", "devices": ["/dev/sdb", "/dev/sdd"]}]}
    assert reasons(make_plan(wanted(pools=[more]), READY)) == ["the pool is there, without /dev/sdd"]


def test_a_disk_of_an_exported_pool_is_refused_unless_it_is_forced():
    member = blank("/dev/sdb", signatures=(Signature("zfs_member", "old"),))
    host = dataclasses.replace(BARE, disks={**BARE.disks, "/dev/sdb": member})
    assert reasons(make_plan(wanted(), host)) == ["there is something on it: zfs_member 'old'"]
    assert steps(make_plan(wanted(pools=[{**POOL, "force": ["/dev/sdb"]}]), host))[0] == ("wipefs", "--all", "/dev/sdb")


def test_a_mount_point_that_holds_something_is_refused_inherited_ones_too():
    inner = {**DATA, "name": "tank/data/inner", "properties": {}}
    host = dataclasses.replace(BARE, hidden=frozenset({"/srv/data/inner"}))
    assert reasons(make_plan(wanted(datasets=[TOP, DATA, inner]), host)) == [
        "it would be mounted at /srv/data/inner, which holds something that would be hidden"
    ]


def test_a_parent_that_is_nowhere_is_refused():
    assert reasons(make_plan(wanted(datasets=[{**DATA, "name": "tank/a/b"}]), BARE)) == ["there is no dataset tank/a"]


def test_a_volume_of_the_name_of_a_filesystem_is_refused():
    host = dataclasses.replace(READY, kinds={**READY.kinds, "tank/data": "volume"})
    assert reasons(make_plan(wanted(), host)) == ["it is a volume, not a filesystem"]


@pytest.mark.parametrize(("asked", "shown", "same"), [
    ("10G", "10737418240", True), ("10.5M", "11010048", True), ("none", "0", True), ("0", "0", True),
    ("lz4", "lz4", True), ("on", "off", False), ("10G", "0", False), ("none", "-", False), ("12", "13", False),
    ("lz4", "1024", False), ("1G", "on", False),
])  # fmt: skip
def test_values_are_compared_as_zfs_shows_them(asked, shown, same):
    assert is_value(asked, shown) is same


@pytest.mark.parametrize("pool", [
    {"name": "mirror1"}, {"name": "log"}, {"name": "1tank"}, {"name": "a b"}, {"vdevs": []}, {"force": ["/dev/sdz"]},
    {"vdevs": [{"type": "mirror", "devices": ["/dev/sdb"]}]}, {"vdevs": [{"type": "log", "devices": ["/dev/sdb"]}]},
    {"vdevs": [{"type": "raidz2", "devices": ["/dev/sdb", "/dev/sdc"]}]},
    {"vdevs": [MIRROR, {"type": "stripe", "devices": ["/dev/sdd"]}]}, {"properties": {"a": None}},
    {"vdevs": [{"type": "mirror", "devices": ["/dev/sdb", "/dev/sdb"]}]},
])  # fmt: skip
def test_a_pool_that_cannot_be_meant_is_refused(pool):
    with pytest.raises(InvalidInput):
        wanted(pools=[{**POOL, **pool}])


@pytest.mark.parametrize("dataset", [
    {"name": "tank//a"}, {"name": "tank/a@b"}, {"name": "-x"[:0]}, {"sparse": True}, {"size": "0"},
    {"properties": {"volsize": "1G"}}, {"properties": {"keylocation": "prompt"}}, {"properties": {"X": 1}},
])  # fmt: skip
def test_a_dataset_that_cannot_be_meant_is_refused(dataset):
    with pytest.raises(InvalidInput):
        wanted(datasets=[{**DATA, **dataset}])


def test_files_and_disks_are_not_mixed_in_a_pool():
    with pytest.raises(InvalidInput, match="both files and disks"):
        parse({"files": [{"path": "/dev/sdb", "size": "4M"}], "pools": [POOL], "datasets": []})


def test_the_disk_of_a_partition_counts_as_a_member(tmp_path):
    for name in ("sdb", "sdc"):
        (tmp_path / "devices" / name / f"{name}1").mkdir(parents=True)
        (tmp_path / "devices" / name / f"{name}1" / "partition").write_text("1\n")
        (tmp_path / "class" / "block").mkdir(parents=True, exist_ok=True)
        (tmp_path / "class" / "block" / f"{name}1").symlink_to(tmp_path / "devices" / name / f"{name}1")
    assert zfs.parse_members(LIST, str(tmp_path)) == {
        "tank": frozenset({"/dev/sdb", "/dev/sdb1", "/dev/sdc", "/dev/sdc1"})
    }


@given(st.text().filter(lambda text: any(line.count("\t") < 9 for line in text.splitlines())))
def test_a_list_that_cannot_be_read_is_an_error(output):
    with pytest.raises(ToolError):
        zfs.parse_members(output, "/sys")


def test_a_row_of_another_length_is_an_error():
    with pytest.raises(ToolError):
        zfs.rows("tank\tfilesystem\nbroken\n", 2, ["zfs", "list"])
