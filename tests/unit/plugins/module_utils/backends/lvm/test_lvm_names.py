# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of volumes: what is understood, and what LVM would refuse is refused before anything is touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.backends.lvm import names
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput

CHARACTERS = "abcXYZ019+_.-"
NAMES = st.text(CHARACTERS, min_size=1, max_size=20).filter(lambda text: names._fault(text) is None)


@pytest.mark.parametrize("text", ["vg0/lv", "/dev/vg0/lv", "/dev/mapper/vg0-lv"])
def test_every_way_to_write_a_volume_means_the_same(text):
    assert names.parse_volume(text) == ("vg0", "lv")


@given(NAMES, NAMES)
def test_the_name_of_the_device_mapper_leads_back_to_the_volume(vg, lv):
    assert names.parse_volume(f"/dev/mapper/{names.mapper_name(vg, lv)}") == (vg, lv)
    assert names.parse_volume(f"{vg}/{lv}") == (vg, lv)


@pytest.mark.parametrize(
    "text",
    ["", "lv", "vg0/", "/lv", "vg0/a/b", "/mnt/lv", "vg0/..", "vg0/-rf", "-f/lv", "vg 0/lv", "vg0/l:v", "vg0/lv@tag",
     "vg0/x_tmeta", "vg0/pool_tdata", "/dev/mapper/plain", "/dev/mapper/a-b-c", "vg0/" + "x" * 128, "@tag", "vg0/l\nv"],
)  # fmt: skip
def test_what_is_no_volume_is_refused(text):
    with pytest.raises(InvalidInput, match="vg/lv"):
        names.parse_volume(text)


@pytest.mark.parametrize(
    "name", ["snapshot1", "pvmove0", "x_mlog", "x_rimage_1", "a_vorigin", "a_corigx.y", "a b", "é"]
)
def test_names_that_lvm_reserves_or_cannot_hold_are_refused(name):
    with pytest.raises(InvalidInput):
        names.check_new_lv("vg0", name, "take it")


@pytest.mark.parametrize("name", ["-x", "a/b", "a b", "", "x_tmeta", "é", "a\nb", "a:b"])
def test_a_snapshot_cannot_have_such_a_name(name):
    with pytest.raises(InvalidInput):
        names.check_name(name)


@pytest.mark.parametrize("name", ["snapshot1", "2026-11-24", "a+b_c.d", "nightly-20261122t013000z"])
def test_a_snapshot_can_have_such_a_name_as_the_name_of_its_volume_comes_first(name):
    assert names.check_name(name) == name
    assert names.check_new_lv("vg0", names.snapshot_lv("root", name), "take it")


def test_the_whole_name_has_at_most_127_characters():
    assert names.check_new_lv("v", "x" * 119, "take it")
    with pytest.raises(InvalidInput, match="device mapper"):
        names.check_new_lv("v", "x" * 120, "take it")
    with pytest.raises(InvalidInput, match="127"):
        names.check_new_lv("v", "x" * 126, "take it")


def test_a_hyphen_counts_twice_for_the_device_mapper():
    assert names.check_new_lv("v", "x" * 100, "take it")
    with pytest.raises(InvalidInput, match="hyphen counts twice"):
        names.check_new_lv("v", "x-" * 50, "take it")
