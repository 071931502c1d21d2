# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which subvolumes inside a target are moved over, where their snapshots lie, and which are none of anybody's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.backends.btrfs import nested

NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join)


@pytest.mark.parametrize(
    ("inside", "members", "moved"),
    [
        ([], [], []),
        (["db", "db/log", "web"], [], ["db", "web"]),
        (["db", "db/log", "web"], ["db", "db/log"], ["web"]),
        (["db", "db/new", "db/new/deep"], ["db"], ["db/new"]),
        (["db", "db2"], [], ["db", "db2"]),
    ],
)
def test_what_was_not_taken_is_moved_and_what_lies_in_it_follows(inside, members, moved):
    assert nested.to_move(inside, members) == moved


@given(st.sets(NAMES).map(sorted), st.sets(NAMES))
def test_every_subvolume_is_taken_or_moved_or_follows_exactly_one_that_is_moved(inside, members):
    moved = nested.to_move(inside, members)
    for path in inside:
        above = [each for each in moved if path == each or path.startswith(f"{each}/")]
        assert len(above) == (0 if path in members and not above else 1)
        assert above or path in members


def test_snapshots_of_those_inside_lie_beside_that_of_the_outer_one_by_number():
    assert nested.stored_paths("/s/a", ["db", "db/log"]) == {
        "": "/s/a",
        "db": "/s/a.nested/0",
        "db/log": "/s/a.nested/1",
    }


def test_what_returns_have_left_inside_is_not_taken():
    inside = [
        "db",
        "db.aside-20261122t013000z",
        "db.aside-20261122t013000z/log",
        ".restorepoint-12ab/0",
        "x.aside",
        "aside-x",
    ]
    assert nested.without_ours(inside) == ["db", "x.aside", "aside-x"]
