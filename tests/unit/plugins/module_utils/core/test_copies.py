# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which copies at a destination go: this policy's own by their metadata, and never what the next export starts from."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.copies import (
    decide_copies,
    in_the_way,
    needed_there,
    signed,
    unsigned,
    with_those_to_come,
)
from ansible_collections.restorepoint.core.plugins.module_utils.core.offsite import Point, bookmark_name
from ansible_collections.restorepoint.core.plugins.module_utils.core.retention import RetentionPolicy, parse_policy
from ansible_collections.restorepoint.core.plugins.module_utils.core.snapshot import Snapshot

HOUR = 3600
NOW = 1_800_000_000
POLICY = "shop"


def copy(number, owner=POLICY, hours=0, **more):
    """Return a copy, the higher its number the newer; the guid is that of the source."""
    created = NOW - 1000 * HOUR + number * HOUR - hours * HOUR
    extra = {"guid": str(1000 + number), "createtxg": 7000 + number}
    return Snapshot("zfs", "vault/tank:shop", f"{POLICY}-{number}", created, 7000 + number, owner, extra=extra, **more)


def source(*numbers, bookmark=None):
    points = [Point(f"{POLICY}-{number}", str(1000 + number), number, own=True) for number in numbers]
    if bookmark:
        name, number = bookmark
        points.append(Point(bookmark_name(name, f"{POLICY}-{number}"), str(1000 + number), number, bookmark=True))
    return points


def gone(copies, keep, needed=(), now=NOW):
    plan = decide_copies(copies, POLICY, dict.fromkeys(needed, "needed"), parse_policy(keep), now)
    assert plan.refusal is None
    return [each.name for each in plan.decisions if not each.keep]


def test_the_rules_are_applied_to_what_the_policy_brought_there_by_metadata_and_not_by_name():
    copies = [copy(1, owner="manual"), copy(2, owner=None), copy(3), copy(4, owner="other"), copy(5), copy(6)]
    assert gone(copies, {"last": 2}) == ["shop-3"]


def test_a_needed_copy_takes_its_place_among_those_that_stay_and_no_more():
    copies = [copy(number) for number in range(1, 6)]
    assert gone(copies, {"last": 2}, needed=["shop-5"]) == ["shop-1", "shop-2", "shop-3"]
    # Where it would go, only it is spared.
    assert gone(copies, {"last": 2}, needed=["shop-2"]) == ["shop-1", "shop-3"]


def test_the_last_copy_that_both_sides_have_is_needed_and_so_is_the_newest_and_a_bookmarked_one():
    copies = [copy(number) for number in range(1, 6)]
    assert set(needed_there(source(2, 3), copies, "vault")) == {"shop-3", "shop-5"}
    assert set(needed_there(source(5, bookmark=("vault", 1)), copies, "vault")) == {"shop-1", "shop-5"}
    # The bookmark of another destination says nothing of this one.
    assert set(needed_there(source(5, bookmark=("nas", 1)), copies, "vault")) == {"shop-5"}
    assert set(needed_there([], copies, "vault")) == {"shop-5"}
    assert needed_there(source(1), [], "vault") == {}


def test_a_copy_is_known_by_its_guid_and_one_that_names_another_owner_is_left_to_him():
    own = [copy(1), copy(2), copy(3)]
    impostor = replace(copy(4, owner=None), name="shop-3")
    there = [copy(1, owner=None), copy(2, owner="manual"), impostor]
    assert [each.name for each in unsigned(there, own)] == ["shop-1"]
    assert [each.owner for each in signed(there, ["shop-1"], POLICY)] == [POLICY, "manual", None]


def test_what_is_to_come_is_newer_than_all_that_is_there_and_neither_held_nor_cloned():
    there = [copy(1), copy(2)]
    coming = [replace(copy(3, held="tag legal", in_use="cloned as tank/x"), sequence=4)]
    after = with_those_to_come(there, coming)
    assert [each.name for each in after] == ["shop-1", "shop-2", "shop-3"]
    assert after[2].sequence > after[1].sequence
    assert (after[2].held, after[2].in_use) == (None, None)
    assert gone(after, {"last": 1}) == ["shop-1", "shop-2"]


def test_holds_and_clones_keep_a_copy_and_are_named():
    copies = [copy(1, held="tag legal"), copy(2, in_use="cloned as vault/test"), copy(3), copy(4)]
    assert gone(copies, {"last": 1}) == ["shop-3"]
    assert in_the_way(copies, POLICY) == [
        "shop-1 stays, whatever the keep rules say: held: tag legal",
        "shop-2 stays, whatever the keep rules say: cloned as vault/test",
    ]
    assert in_the_way([copy(1, owner="other", held="tag x")], POLICY) == []


def test_a_limit_of_removals_refuses_the_whole():
    plan = decide_copies(
        [copy(number) for number in range(9)], POLICY, {}, parse_policy({"last": 1}, max_delete=3), NOW
    )
    assert "max_delete allows 3" in str(plan.refusal)
    assert all(each.keep for each in plan.decisions)


COPIES = st.lists(
    st.builds(
        copy,
        st.integers(0, 400),
        owner=st.sampled_from([POLICY, POLICY, POLICY, "other", None]),
        held=st.sampled_from([None, None, None, "tag x"]),
    ),
    unique_by=lambda each: each.name,
    max_size=30,
)
RULES = st.builds(
    parse_policy,
    st.dictionaries(st.sampled_from(["last", "hourly", "daily", "weekly"]), st.integers(1, 5), min_size=1),
)


@given(COPIES, st.lists(st.integers(0, 400)), RULES)
def test_whatever_the_rules_what_is_needed_or_not_ours_stays_and_a_second_time_nothing_goes(
    copies: list[Snapshot], numbers: list[int], rules: RetentionPolicy
) -> None:
    points = source(*numbers)
    needed = needed_there(points, copies, "vault")
    plan = decide_copies(copies, POLICY, needed, rules, NOW)
    going = {each.name for each in plan.decisions if not each.keep}
    by_name = {each.name: each for each in copies}
    assert not going & set(needed)
    assert all(by_name[name].owner == POLICY and by_name[name].held is None for name in going)
    left = [each for each in copies if each.name not in going]
    assert needed_there(points, left, "vault") == needed
    again = decide_copies(left, POLICY, needed, rules, NOW)
    assert all(each.keep for each in again.decisions)
