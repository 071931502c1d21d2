# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Times as results show them, the order of snapshots, and the tree."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.snapshot import (
    FIELDS,
    Snapshot,
    as_tree,
    parse_timestamp,
    timestamp,
    with_fields,
)

EARLIEST = int(datetime.datetime(1000, 1, 1, tzinfo=datetime.timezone.utc).timestamp())
LATEST = int(datetime.datetime(9999, 12, 31, tzinfo=datetime.timezone.utc).timestamp())


def snapshot(name, created=0, sequence=0, parent=None, target="/a", ready=True):
    return Snapshot("fake", target, name, created, sequence=sequence, parent=parent, ready=ready)


def names(nodes):
    return [(node["name"], names(node["children"])) for node in nodes]


@given(st.integers(EARLIEST, LATEST))
def test_a_time_comes_back_as_it_was_written(epoch):
    assert parse_timestamp(timestamp(epoch)) == epoch


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-11-22T01:30:00z", "2026-11-22T01:30:00Z"),
        ("2026-11-22T02:30:00+01:00", "2026-11-22T01:30:00Z"),
        ("2026-11-22 01:30:00+00:00", "2026-11-22T01:30:00Z"),
        ("2026-11-22T01:30:00.999999+00:00", "2026-11-22T01:30:00Z"),
    ],
)
def test_one_moment_can_be_written_in_several_ways(text, same):
    assert timestamp(parse_timestamp(text)) == same


def test_a_fraction_before_1970_is_dropped_downwards_too():
    assert parse_timestamp("1969-12-31T23:59:59.500+00:00") == -1


@pytest.mark.parametrize("text", ["2026-11-22T01:30:00", "2026-11-22", "yesterday", "", "Z", "1700000000"])
def test_what_does_not_name_a_moment_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 the words differ from Python to Python
        parse_timestamp(text)


def test_snapshots_of_one_second_are_ordered_by_their_sequence_and_then_by_name():
    made = [snapshot("b", 5, 2), snapshot("a", 5, 2), snapshot("z", 5, 1), snapshot("y", 4, 9)]
    assert [each.name for each in sorted(made, key=lambda each: each.order)] == ["y", "z", "a", "b"]


def test_a_result_has_every_fact_and_its_time_in_words():
    result = snapshot("x", 1_000_000_000).as_result()
    assert result["created"] == "2001-09-09T01:46:40Z"
    assert list(result) == [
        "backend", "target", "name", "created", "owner", "policy", "description", "labels", "size_bytes",
        "referenced_bytes", "parent", "ready", "held", "in_use", "extra",
    ] == list(FIELDS)  # fmt: skip


def test_a_result_can_be_changed_without_changing_the_snapshot():
    labels = {"app": "web"}
    made = Snapshot("fake", "/a", "x", 0, labels=labels)
    made.as_result()["labels"]["app"] = "other"
    assert made.labels == {"app": "web"}


def test_the_tree_hangs_children_under_their_parents_oldest_first():
    made = [snapshot("c", 3, parent="a"), snapshot("b", 2, parent="a"), snapshot("a", 1), snapshot("d", 4, parent="b")]
    assert names(as_tree(made)["/a"]) == [("a", [("b", [("d", [])]), ("c", [])])]


def test_a_snapshot_whose_parent_is_gone_stands_at_the_top():
    assert names(as_tree([snapshot("b", 2, parent="gone")])["/a"]) == [("b", [])]


def test_a_parent_of_another_target_is_no_parent():
    tree = as_tree([snapshot("a", 1, target="/x"), snapshot("b", 2, parent="a", target="/y")])
    assert names(tree["/x"]) == [("a", [])]
    assert names(tree["/y"]) == [("b", [])]


def test_the_tree_says_which_snapshots_are_usable():
    assert [node["ready"] for node in as_tree([snapshot("a", 1), snapshot("b", 2, ready=False)])["/a"]] == [True, False]


def shown(*made):
    asides = [each.as_result() for each in made[:1]]
    return {"snapshots": [each.as_result() for each in made], "asides": asides, "tree": as_tree(made), "volumes": [1]}


@given(st.lists(st.sampled_from(FIELDS), min_size=1))
def test_snapshots_and_asides_are_shown_with_the_fields_that_were_asked_for_and_no_others(fields):
    whole = shown(snapshot("a", 1), snapshot("b", 2, parent="a"))
    few = with_fields(whole, fields)
    for key in ("snapshots", "asides"):
        assert few[key] == [{name: each[name] for name in fields} for each in whole[key]]
    assert few["volumes"] == [1]
    (node,) = few["tree"]["/a"]
    assert set(node) == {"name", "children"} | ({"created", "ready"} & set(fields))
    assert names([node]) == names(whole["tree"]["/a"]) == [("a", [("b", [])])]


def test_all_fields_are_the_whole_result():
    whole = shown(snapshot("a", 1), snapshot("b", 2, parent="a"))
    assert with_fields(whole, FIELDS) == whole


def test_what_another_option_has_added_to_a_snapshot_stays_and_a_tree_need_not_be_there():
    result = {"snapshots": [{**snapshot("a").as_result(), "config": {"cores": 2}}], "asides": []}
    assert with_fields(result, ["name"]) == {"snapshots": [{"name": "a", "config": {"cores": 2}}], "asides": []}


def test_a_long_chain_is_no_limit():
    length = 5000
    chain = [snapshot(str(number), number, parent=str(number - 1)) for number in range(length)]
    (node,) = with_fields(shown(*chain), ["name"])["tree"]["/a"]
    depth = 1
    while node["children"]:
        (node,) = node["children"]
        depth += 1
    assert depth == length
