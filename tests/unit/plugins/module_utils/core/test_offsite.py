# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which streams bring a destination up to date, and what an index of files says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.restorepoint.core.plugins.module_utils.core.offsite import (
    Diverged,
    Index,
    Part,
    Point,
    Steps,
    bookmark_name,
    bookmarked,
    chains,
    needed_names,
    outdated,
    read_index,
    steps_for_files,
    steps_to,
    write_index,
)


def own(number):
    return Point(f"shop-{number}", str(1000 + number), number, own=True)


def there(*numbers):
    """Return what a destination has: the same guids, with transaction groups of its own pool."""
    return [Point(f"shop-{number}", str(1000 + number), 7000 + number) for number in numbers]


def mark(number):
    return Point(bookmark_name("vault", f"shop-{number}"), str(1000 + number), number, bookmark=True)


def shown(steps):
    assert isinstance(steps, Steps), steps
    return [(each.base.mark if each.base else None, each.point.name) for each in steps.steps]


def test_a_new_destination_gets_the_newest_one_whole():
    assert shown(steps_to([own(1), own(2), own(3)], [])) == [(None, "shop-3")]


def test_all_that_came_since_the_last_common_one_follows_step_by_step():
    assert shown(steps_to([own(1), own(2), own(3)], there(1))) == [("@shop-1", "shop-2"), ("@shop-2", "shop-3")]
    assert shown(steps_to([own(1), own(2), own(3)], there(1), newest_only=True)) == [("@shop-1", "shop-3")]
    assert shown(steps_to([own(1), own(2)], there(1, 2))) == []


def test_a_bookmark_takes_the_place_of_a_base_that_is_gone_and_only_then():
    name = bookmark_name("vault", "shop-1")
    assert shown(steps_to([mark(1), own(2)], there(1))) == [(f"#{name}", "shop-2")]
    assert shown(steps_to([mark(1), own(1), own(2)], there(1))) == [("@shop-1", "shop-2")]


def test_snapshots_of_others_are_never_sent_but_may_be_the_base():
    foreign = Point("daily", "5", 2)
    assert shown(steps_to([own(1), foreign, own(3)], there(1))) == [("@shop-1", "shop-3")]
    assert shown(steps_to([foreign, own(3)], [Point("daily", "5", 9)])) == [("@daily", "shop-3")]


def test_names_alone_prove_nothing():
    found = steps_to([own(1), own(2)], [Point("shop-1", "999", 7001)])
    assert isinstance(found, Diverged)
    assert not found.forced
    assert "shop-1" in found.reason


def test_what_is_newer_there_is_named_and_goes_only_by_force():
    beyond = [*there(1), Point("mine", "77", 8000)]
    found = steps_to([own(1), own(2)], beyond)
    assert isinstance(found, Diverged)
    assert found.forced
    assert "it has mine, newer than shop-1" in found.reason
    forced = steps_to([own(1), own(2)], beyond, force=True)
    assert isinstance(forced, Steps)
    assert forced.rollback
    assert shown(forced) == [("@shop-1", "shop-2")]


def test_force_receives_over_nothing_that_has_no_common_snapshot():
    assert isinstance(steps_to([own(1)], [Point("mine", "77", 8000)], force=True), Diverged)


@given(
    st.sets(st.integers(1, 12), min_size=1),
    st.sets(st.integers(1, 12)),
    st.sets(st.integers(1, 12)),
    st.booleans(),
)
def test_steps_are_a_chain_from_what_is_there_to_the_newest(here, marked, received, newest_only):
    source = [*map(own, here), *map(mark, marked)]
    found = steps_to(source, there(*received), newest_only)
    if isinstance(found, Diverged):
        assert received
        assert max(received) not in here | marked
        return
    last = f"#{bookmark_name('vault', '')}"
    guid = str(1000 + max(received)) if received else None
    for step in found.steps:
        assert (step.base.guid if step.base else None) == guid
        assert step.base is None or step.base.mark.startswith(("@", last))
        assert step.point.own
        guid = step.point.guid
    assert guid == str(1000 + max([*here, *received]))


def part(number, base=None):
    guid = str(1000 + number)
    return Part(
        f"{number:04d}-shop.zfs", f"shop-{number}", guid, "0" * 64, 10, "zstd", number, base and str(1000 + base)
    )


def test_a_chain_of_files_goes_on_or_begins_anew():
    parts = [part(1), part(2, 1)]
    assert shown(steps_for_files([own(2), own(3)], parts)) == [("@shop-2", "shop-3")]
    # The base is gone, bookmark and all.
    assert shown(steps_for_files([own(3), own(4)], parts)) == [(None, "shop-4")]
    assert shown(steps_for_files([own(2), own(3)], parts, whole_after=1)) == [(None, "shop-3")]
    assert shown(steps_for_files([own(2)], parts, whole_after=1)) == []


def test_chains_are_let_go_as_a_whole_and_never_the_last_one():
    parts = [part(1), part(2, 1), part(3), part(4, 3), part(5)]
    assert [[each.name for each in chain] for chain in chains(parts)] == [
        ["shop-1", "shop-2"], ["shop-3", "shop-4"], ["shop-5"],
    ]  # fmt: skip
    assert outdated(parts, 2) == (parts[0], parts[1])
    assert outdated(parts, 0) == tuple(parts[:4])
    assert outdated(parts, 9) == ()


def test_a_restore_point_needs_the_files_from_the_whole_one_on():
    parts = (part(1), part(2, 1), part(3), part(4, 3))
    index = Index("tank/shop", "shop", parts)
    assert index.find("shop-4") == parts[2:]
    assert index.find("shop-1") == parts[:1]
    assert index.find("shop-9") == ()


def test_an_index_is_read_as_it_was_written():
    index = Index("tank/shop", "shop", (part(1), part(2, 1)), "volume")
    assert read_index(write_index(index).decode(), "x") == index


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda data: data.update(format=2), "no index of format 1"),
        (lambda data: data["parts"][1].update(base="5"), "does not follow"),
        (lambda data: data["parts"][0].update(base="5"), "does not follow"),
        (lambda data: data["parts"][0].update(file="../etc/passwd"), "described in another way"),
        (lambda data: data["parts"][0].update(sha256="abc"), "described in another way"),
        (lambda data: data["parts"][0].update(more=1), "more"),
        (lambda data: data.pop("policy"), "policy"),
        (lambda data: data.update(dataset=5), "does not say of what it is"),
    ],
)
def test_a_damaged_index_is_an_error_never_an_empty_one(change, word):
    data = json.loads(write_index(Index("tank/shop", "shop", (part(1), part(2, 1)))))
    change(data)
    with pytest.raises(InvalidInput, match="read the index x") as caught:
        read_index(json.dumps(data), "x")
    assert word in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_an_index_or_an_error(text):
    with pytest.raises(InvalidInput):
        read_index(text, "x")


def test_bookmarks_say_what_the_keep_rules_leave_alone():
    marks = [
        ("tank/a", bookmark_name("vault", "shop-1.5")),
        ("tank/a", "theirs"),
        ("tank/b", bookmark_name("old", "x")),
    ]
    assert bookmarked(marks[0][1]) == ("vault", "shop-1.5")
    assert needed_names(marks, ["vault"]) == {("tank/a", "shop-1.5"): "the last one that vault holds as well"}
