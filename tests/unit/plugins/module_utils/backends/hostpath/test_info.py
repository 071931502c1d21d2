# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is shown of a store: the list, the tree, and what each snapshot holds alone."""

from __future__ import annotations

import os

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import StoreError
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.backends.hostpath.place import Place, picture


@pytest.fixture
def place(tmp_path):
    found = Place(tmp_path, "a", "b")
    for target in found.targets:
        (target / "same").write_bytes(os.urandom(8192))
        (target / "changing").write_bytes(os.urandom(8192))
    return found


def test_without_a_store_there_is_nothing_to_show(place):
    with pytest.raises(StoreError, match="there is no store; take a snapshot first"):
        place.info()


def test_the_list_has_the_snapshots_of_each_target_oldest_first(place):
    for name in ("z", "a"):
        place.call("present", name)
    assert [(os.path.basename(each["target"]), each["name"]) for each in place.info()["snapshots"]] == [
        ("a", "z"), ("a", "a"), ("b", "z"), ("b", "a"),
    ]  # fmt: skip
    tree = place.info()["tree"]
    assert {os.path.basename(target): [node["name"] for node in nodes] for target, nodes in tree.items()} == {
        "a": ["z", "a"], "b": ["z", "a"],
    }  # fmt: skip


def test_without_targets_the_whole_store_is_shown(place):
    place.call("present", "x")
    targets, place.targets = place.targets, []
    assert sorted(each["target"] for each in place.info()["snapshots"]) == sorted(map(str, targets))


def test_a_name_narrows_the_list(place):
    for name in ("x", "y"):
        place.call("present", name)
    assert {each["name"] for each in place.info(name="y")["snapshots"]} == {"y"}
    assert place.info(name="gone")["snapshots"] == []


def test_sizes_are_what_removing_would_free(place):
    place.take("x")
    (place.target / "changing").write_bytes(os.urandom(8192))
    place.take("y")
    sizes = {(os.path.basename(each["target"]), each["name"]): each for each in place.info(sizes=True)["snapshots"]}
    if any(each["extra"].get("cloned_files") for each in sizes.values()):
        pytest.skip("this filesystem has reflinks, where sizes of single snapshots are not known")
    changed = sizes[("a", "x")]
    assert (changed["size_bytes"], changed["extra"]["shared_bytes"]) == (8192, 8192)
    assert sizes[("b", "x")]["size_bytes"] == 0
    free = sum(path.stat().st_blocks for path in place.store.rglob("*") if path.is_file())
    inodes = {path.stat().st_ino for path in place.store.rglob("*")}
    place.targets = place.targets[:1]
    place.call("absent", "x")
    gone = inodes - {path.stat().st_ino for path in place.store.rglob("*")}
    assert len(gone) >= 1
    assert free > sum(path.stat().st_blocks for path in place.store.rglob("*") if path.is_file())


def test_without_being_asked_no_file_is_looked_at(place, monkeypatch):
    place.call("present", "x")
    monkeypatch.setattr(os, "walk", lambda *_unused: pytest.fail("a tree was walked"))
    assert [each["size_bytes"] for each in place.info()["snapshots"]] == [None, None]


def test_looking_changes_nothing(place):
    place.call("present", "x")
    before = picture(place.path)
    place.info(sizes=True)
    assert picture(place.path) == before


def test_what_is_corrupt_is_shown_with_its_fault(place):
    place.call("present", "x")
    (place.folder / "x.json").write_text("garbage")
    shown = {each["target"]: each for each in place.info(sizes=True)["snapshots"]}
    assert not shown[str(place.target)]["ready"]
    assert "metadata is corrupt" in shown[str(place.target)]["extra"]["fault"]
    assert shown[str(place.targets[1])]["ready"]


def test_a_strangers_folder_in_the_store_is_named_and_passed_over(place):
    place.call("present", "x")
    (place.store / "stranger").mkdir()
    place.targets = []
    assert len(place.info()["snapshots"]) == 2
    assert [f"{place.store}/stranger is passed over" in warning for warning in place.warnings] == [True]
