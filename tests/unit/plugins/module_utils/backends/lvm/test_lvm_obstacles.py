# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What forbids a change of a volume, told from LVM's report alone: health, kind, pool, room, overflow."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.lvm import obstacles, view
from ansible_collections.restorepoint.core.plugins.module_utils.backends.lvm.options import LvmOptions
from ansible_collections.restorepoint.core.plugins.module_utils.backends.lvm.report import Group, Report, Volume
from ansible_collections.restorepoint.core.plugins.module_utils.backends.lvm.sizes import parse

EXTENT = 4 << 20
THICK = frozenset({"public", "snapshot", "thicksnapshot"})
OPTIONS = LvmOptions(now=lambda: 0)


def volume(name, **options):
    return Volume(options.pop("vg", "vg0"), name, f"uuid-{name}", **options)


def group(name="vg0", free=10, **options):
    return Group(name, free, EXTENT, **options)


def told(blockers):
    return [f"{each.reason}: {each.remedy}" for each in blockers]


@pytest.mark.parametrize(
    ("of_volume", "of_group", "words"),
    [
        ({}, {"missing_pvs": 2}, ["vg0 misses 2 of its disks", "vgreduce --removemissing vg0"]),
        ({}, {"exported": True}, ["is exported", "vgimport vg0"]),
        ({"health": "partial"}, {}, ["LVM says of it: partial"]),
        ({"suspended": True}, {}, ["it is suspended", "lvchange --refresh vg0/a"]),
        ({"merging": True}, {}, ["is being merged into it"]),
        ({"merging": True, "merge_failed": True}, {}, ["given the merge", "lvchange -ay vg0/a"]),
    ],
)
def test_what_is_not_well_is_one_blocker_with_a_way_out(of_volume, of_group, words):
    [blocker] = told(obstacles.health(volume("a", **of_volume), group(**of_group)))
    assert all(word in blocker for word in words)


def test_a_sound_volume_in_a_sound_group_has_no_blocker():
    assert told(obstacles.health(volume("a"), group())) == []


def test_a_merge_that_failed_is_told_before_that_it_is_under_way():
    failed = volume("a.first", origin="a", roles=THICK, merging=True, merge_failed=True)
    assert "lvchange -ay vg0/a" in (view.why_not_ready(failed) or "")


@pytest.mark.parametrize(
    ("options", "word"),
    [({"roles": THICK}, "thick snapshot"), ({"segtype": "thin-pool"}, "thin-pool"), ({"hidden": True}, "a part")],
)
def test_what_lvm_has_no_snapshots_of_is_refused(options, word):
    [blocker] = told(obstacles.kind(volume("a", **options)))
    assert word in blocker


@pytest.mark.parametrize(
    ("of_pool", "words"),
    [
        ({"data_percent": 90.0, "metadata_percent": 80.0}, []),
        ({"data_percent": 90.01}, ["the data of the thin pool vg0/pool is 90.01 % full, above 90 %", "lvextend"]),
        ({"metadata_percent": 80.5}, ["the metadata of the thin pool vg0/pool is 80.5 %", "--poolmetadatasize"]),
        ({"check_needed": True}, ["vg0/pool is not well: it needs a check"]),
    ],
)
def test_a_pool_takes_something_new_up_to_its_limits_and_not_above(of_pool, words):
    thin = volume("t1", segtype="thin", pool="pool")
    report = Report((thin, volume("pool", segtype="thin-pool", **of_pool)), {"vg0": group()})
    blockers = told(obstacles.pool(thin, report, OPTIONS))
    assert len(blockers) == bool(words)
    assert all(word in blockers[0] for word in words)


def test_room_is_that_of_the_whole_call_in_each_group():
    targets = [volume(name, vg=vg, size=4 * EXTENT) for vg, name in (("vg0", "a"), ("vg0", "b"), ("vg1", "c"))]
    report = Report(tuple(targets), {"vg0": group(free=7), "vg1": group("vg1", free=4)})
    found, blockers = obstacles.thick_sizes(targets, report, parse("16M"))
    assert found == {"vg0/a": 4, "vg0/b": 4, "vg1/c": 4}
    assert [each.target for each in blockers] == ["vg0/a", "vg0/b"]
    assert "need 32.0 MiB in the volume group vg0, which has 28.0 MiB free" in blockers[0].reason


def test_a_group_that_may_hold_no_more_volumes_is_told_for_each():
    targets = [volume("a"), volume("b")]
    report = Report(tuple(targets), {"vg0": group(max_lv=3, lv_count=2)})
    assert [each.target for each in obstacles.number_of_lvs(targets, report)] == ["vg0/a", "vg0/b"]
    assert list(obstacles.number_of_lvs(targets[:1], report)) == []


def test_only_newer_snapshots_that_are_too_small_would_overflow_in_a_merge():
    wanted = volume("a.old", roles=THICK, size=100, data_percent=50.0, created=10)
    siblings = [
        volume("a.older", roles=THICK, size=10, created=5),
        volume("a.small", roles=THICK, size=49, created=20),
        volume("a.large", roles=THICK, size=50, created=20),
        volume("a.gone", roles=THICK, size=10, created=20, invalid=True),
        wanted,
    ]
    [blocker] = obstacles.overflows(volume("a"), wanted, siblings)
    assert "the newer snapshot a.small" in blocker.reason
