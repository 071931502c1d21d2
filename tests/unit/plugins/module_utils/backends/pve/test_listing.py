# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the API lists, in any order, and the tree that it makes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.backends.pve.guests import Guest
from ansible_collections.restorepoint.core.plugins.module_utils.backends.pve.listing import (
    as_snapshot,
    read_listing,
    rendered,
    tree_of,
)
from ansible_collections.restorepoint.core.plugins.module_utils.pve import PveError

GUEST = Guest(100, "qemu", "pve1", "web")
#: As a server with Proxmox's own code answered it.
REAL = [
    {"parent": "AAAA", "vmstate": 0, "description": "", "snaptime": 1795312840, "name": "a-b_c"},
    {"parent": "s1", "snaptime": 1795312838, "name": "vzdump", "description": "", "vmstate": 0},
    {"vmstate": 0, "snaptime": 1795312837, "name": "s1", "description": "one\ntwo é"},
    {"snaptime": 1795312840, "name": "vm", "description": "", "vmstate": 1, "parent": "a-b_c"},
    {"parent": "vzdump", "name": "AAAA", "snaptime": 1795312839, "description": "", "vmstate": 0},
    {"name": "current", "description": "You are here!", "running": 1, "digest": "2d0f", "parent": "vm"},
]


@pytest.mark.parametrize("seed", range(5))
def test_order_is_by_time_and_within_a_second_by_descent(seed):
    items = list(REAL)
    random.Random(seed).shuffle(items)
    listing = read_listing(items, GUEST)
    assert [each.name for each in listing.snapshots] == ["s1", "vzdump", "AAAA", "a-b_c", "vm"]
    assert (listing.parent, listing.running) == ("vm", True)
    assert [each.name for each in listing.snapshots if each.vmstate] == ["vm"]


def test_a_snapshot_with_a_snapstate_is_not_there_for_anybody():
    items = [{"name": "s1", "snaptime": 1, "snapstate": "delete"}, {"name": "current", "running": 0}]
    listing = read_listing(items, GUEST)
    snapshot = as_snapshot(GUEST, listing.snapshots[0], listing)
    assert not snapshot.ready
    assert "qm unlock 100" in snapshot.extra["fault"]
    assert "qm delsnapshot 100 s1 --force" in snapshot.extra["fault"]


@pytest.mark.parametrize("answer", [None, [], {}, [{"name": "s1"}], "text", [1], [{"name": "current", "running": "x"}]])
def test_what_cannot_be_read_is_an_error_and_never_nothing(answer):
    with pytest.raises(PveError, match="cannot be read"):
        read_listing(answer, GUEST)


def test_a_circle_of_parents_ends():
    items = [{"name": "aa", "parent": "bb"}, {"name": "bb", "parent": "aa"}, {"name": "current"}]
    assert len(read_listing(items, GUEST).snapshots) == 2


def test_the_text_is_that_of_qm_listsnapshot():
    lines = rendered(tree_of(read_listing(REAL, GUEST))).splitlines()
    assert lines[0] == "`-> s1                          2026-11-22 02:00:37     one"
    assert lines[1] == "    `-> vzdump                  2026-11-22 02:00:38     no-description"
    assert lines[-1] == " " * 20 + "`-> current" + " " * 25 + "You are here!"


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 400))
def test_a_chain_of_any_length_is_shown(length):
    items = [{"name": f"s{n}", "snaptime": n, **({"parent": f"s{n - 1}"} if n else {})} for n in range(length)]
    text = rendered(tree_of(read_listing([*items, {"name": "current", "parent": f"s{length - 1}"}], GUEST)))
    assert len(text.splitlines()) == length + 1
