# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sizes: what is asked for, what it comes to, and what LVM would cut down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.backends.lvm import sizes
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput

MIB = 1024**2
EXTENT = 4 * MIB


def extents(size, origin=100 * MIB, free=1000, sharing=1, used=None):
    return sizes.extents(sizes.parse(size) if size else None, origin, EXTENT, free, sharing, used)


def test_the_largest_size_of_use_is_what_lvm_cuts_down_to():
    """Seen in the guest: for an origin of 100 MiB, LVM 2.03.16 reduces 50 GiB to 104 MiB."""
    assert extents("50G") == 104 // 4
    assert extents("100%ORIGIN") == 104 // 4


@pytest.mark.parametrize(
    ("size", "wanted"), [("50M", 13), ("8 MiB", 2), ("1", 1), ("20%ORIGIN", 6), ("10%free", 26), ("0.5 % FREE", 5)]
)
def test_sizes_are_rounded_up_to_whole_extents_and_parts_of_free_space_down(size, wanted):
    assert extents(size) == wanted


def test_free_space_is_shared_by_the_volumes_of_a_call():
    assert extents("10%FREE", free=100, sharing=2) == 5
    assert extents("10%FREE", free=100, sharing=100) == 1


def test_used_counts_what_the_filesystem_uses():
    assert extents("150%USED", used=20 * MIB) == 8


def test_without_a_size_it_is_twice_what_is_used_or_everything():
    assert extents(None, used=20 * MIB) == 10
    assert extents(None, used=MIB) == 3, "a tenth of the volume at least"
    assert extents(None) == 26


@pytest.mark.parametrize("size", ["", "0", "0%ORIGIN", "20%", "20%VG", "101%FREE", "-5M", "5X", "ten"])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(InvalidInput, match="read size"):
        sizes.parse(size)


@given(
    st.integers(1, 2**45), st.sampled_from(["ORIGIN", "FREE", "USED"]), st.integers(1, 100), st.integers(0, 10**6),
    st.integers(1, 50),
)  # fmt: skip
def test_a_size_is_never_nothing_nor_more_than_is_of_use(origin, of, percent, free, sharing):
    found = sizes.extents(sizes.Size(of, percent), origin, EXTENT, free, sharing, origin // 3)
    assert 1 <= found <= -(-sizes.largest(origin) // EXTENT)
