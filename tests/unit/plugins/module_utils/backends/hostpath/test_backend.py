# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every state on real directories, each twice; all or nothing; and bad requests, which touch nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.stored.paths import canonical
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import (
    Blocked,
    InvalidInput,
    LockTimeout,
    RestorePointError,
    StoreError,
)
from ansible_collections.restorepoint.core.plugins.module_utils.core.names import is_aside
from ansible_collections.restorepoint.core.plugins.module_utils.core.run import RunFailed
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.backends.hostpath.place import Place, picture

HOUR = 3600


@pytest.fixture
def place(tmp_path):
    found = Place(tmp_path)
    (found.target / "d").mkdir()
    (found.target / "d" / "f").write_text("one")
    return found


@pytest.fixture
def two(tmp_path):
    found = Place(tmp_path, "a", "b")
    for target in found.targets:
        (target / "f").write_text("one")
    return found


def asides(place):
    return sorted(each for each in os.listdir(place.path) if ".aside-" in each)


def rest(place):
    """Return what is beside the targets and the store: nothing of ours may be left there but asides."""
    known = {"store", *(target.name for target in place.targets)}
    return [each for each in os.listdir(place.path) if each not in known and ".aside-" not in each]


# --- present and absent ----------------------------------------------------------------------------------------------


def test_present_is_reached_once(place):
    assert place.actions("present") == ["created"]
    before = picture(place.folder)
    assert place.actions("present") == ["unchanged"]
    assert picture(place.folder) == before


def test_a_new_description_is_written_and_nothing_else_changes(place):
    place.call("present", description="old", labels={"a": "1"})
    assert place.actions("present", description="new") == ["described"]
    metadata = json.loads((place.folder / "x.json").read_text())
    assert (metadata["description"], metadata["labels"]) == ("new", {"a": "1"})
    assert place.actions("present", description="new") == ["unchanged"]


def test_a_snapshot_that_is_too_old_is_replaced_in_one_step(place):
    place.call("present")
    (place.target / "d" / "f").write_text("two")
    place.now += HOUR
    with pytest.raises(Blocked, match="older than max_age 1h"):
        place.call("present", max_age=HOUR)
    assert (place.snapshot() / "d" / "f").read_text() == "one"
    place.now += HOUR
    assert place.actions("present", max_age=HOUR, replace=True) == ["replaced"]
    assert (place.snapshot() / "d" / "f").read_text() == "two"
    assert place.names() == ["x"]
    assert [each for each in os.listdir(place.folder) if each.startswith((".old", ".new"))] == []


def test_absent_is_reached_once_and_without_a_store_at_once(place):
    assert place.actions("absent") == ["unchanged"]
    assert not place.store.exists()
    place.call("present")
    assert place.actions("absent") == ["removed"]
    assert os.listdir(place.folder) == [".target.json"]
    assert place.actions("absent") == ["unchanged"]


def test_a_damaged_snapshot_is_not_usable_but_can_be_removed_by_name(place):
    place.call("present")
    (place.folder / "x.json").write_text("{")
    with pytest.raises(Blocked, match="its metadata is corrupt"):
        place.call("rolled_back")
    with pytest.raises(Blocked, match="its metadata is corrupt"):
        place.call("present")
    assert any("is not usable" in warning for warning in place.warnings)
    assert place.actions("absent") == ["removed"]


# --- pruned ----------------------------------------------------------------------------------------------------------


def test_pruned_removes_what_no_rule_keeps_once(place):
    for number in range(4):
        place.call("present", f"n{number}")
    assert sorted(each["name"] for each in place.call("pruned", keep={"last": 2})) == ["n0", "n1"]
    assert place.names() == ["n2", "n3"]
    assert place.actions("pruned", keep={"last": 2}) == ["unchanged"]


def test_prune_never_removes_what_is_corrupt(place):
    for number in range(3):
        place.call("present", f"n{number}")
    (place.folder / "n0.json").write_text("garbage")
    (place.folder / "n1.json").unlink()
    before = picture(place.folder)
    assert place.actions("pruned", keep={"last": 1}) == ["unchanged"]
    assert picture(place.folder) == before
    assert sum("is not usable" in warning for warning in place.warnings) == 2


def test_a_snapshot_that_others_are_linked_to_can_go(place):
    for name in ("x", "y", "z"):
        place.take(name)
    shutil.rmtree(place.target)
    place.actions("absent", "x")
    assert place.actions("rolled_back", "z") == ["rolled_back"]
    assert (place.target / "d" / "f").read_text() == "one"


# --- rolled_back -----------------------------------------------------------------------------------------------------


def test_a_return_brings_everything_back_keeps_what_was_there_and_happens_once(place):
    place.take()
    before = picture(place.target)
    (place.target / "d" / "f").write_text("two")
    (place.target / "new").write_text("new")
    damaged = picture(place.target)
    (result,) = place.call("rolled_back")
    assert result["action"] == "rolled_back"
    assert picture(place.target) == before
    assert asides(place) == [os.path.basename(result["aside"]["path"])]
    assert picture(place.path / asides(place)[0]) == damaged
    assert place.actions("rolled_back") == ["unchanged"]
    assert len(asides(place)) == 1
    assert rest(place) == []


def test_a_target_that_equals_the_snapshot_is_not_touched(place):
    place.take()
    inode = place.target.stat().st_ino
    assert place.actions("rolled_back") == ["unchanged"]
    assert place.target.stat().st_ino == inode
    assert asides(place) == []


def test_without_keep_current_nothing_is_left_of_what_was_there(place):
    place.take()
    (place.target / "d" / "f").write_text("two")
    assert place.actions("rolled_back", keep_current=False) == ["rolled_back"]
    assert (place.target / "d" / "f").read_text() == "one"
    assert (asides(place), rest(place)) == ([], [])


def test_a_target_that_is_gone_comes_back(place):
    place.take()
    shutil.rmtree(place.target)
    assert place.actions("rolled_back") == ["rolled_back"]
    assert (place.target / "d" / "f").read_text() == "one"
    assert (asides(place), rest(place)) == ([], [])


def test_a_second_return_makes_a_second_aside_and_each_can_be_returned_to_and_removed_by_name(place):
    place.take()
    for content in ("two", "three"):
        (place.target / "d" / "f").write_text(content)
        place.call("rolled_back")
    shown = place.info()["asides"]
    assert [is_aside(each["name"]) for each in shown] == [True, True]
    assert [each["extra"]["path"] for each in shown] == [str(place.path / each) for each in asides(place)]
    first = shown[0]["name"]
    assert place.actions("rolled_back", first) == ["rolled_back"]
    assert (place.target / "d" / "f").read_text() == "two"
    assert place.actions("absent", first) == ["removed"]
    assert first not in [each["name"] for each in place.info()["asides"]]
    assert place.actions("absent", first) == ["unchanged"]


def test_asides_go_by_their_own_rule_only(place):
    place.take()
    for content in ("two", "three", "four"):
        (place.target / "d" / "f").write_text(content)
        place.call("rolled_back")
    assert place.actions("pruned", keep={"last": 1}) == ["unchanged"]
    assert len(asides(place)) == 3
    assert place.actions("pruned", asides={"last": 1}) == ["removed", "removed"]
    assert [(place.path / each / "d" / "f").read_text() for each in asides(place)] == ["four"]


def test_a_token_is_used_up_by_a_return(place):
    place.take()
    (place.target / "d" / "f").write_text("two")
    assert place.actions("rolled_back", once="job 1") == ["rolled_back"]
    (place.target / "d" / "f").write_text("three")
    assert place.actions("rolled_back", once="job 1") == ["unchanged"]
    assert (place.target / "d" / "f").read_text() == "three"
    assert place.actions("rolled_back", once="job 2") == ["rolled_back"]


def test_only_the_parts_that_were_asked_for_are_returned(place):
    (place.target / "other").write_text("one")
    place.take()
    for name in ("d/f", "other"):
        (place.target / name).write_text("two")
    options = {"paths": ("d",)}
    assert place.actions("rolled_back", options=options) == ["rolled_back"]
    assert (place.target / "d" / "f").read_text() == "one"
    assert (place.target / "other").read_text() == "two"
    assert (place.path / asides(place)[0] / "d" / "f").read_text() == "two"
    assert place.actions("rolled_back", options=options) == ["unchanged"]
    assert rest(place) == []


@pytest.mark.parametrize("paths", [("d", "d"), ("d", "d/f"), ("d/f", "d"), ("d/",), ("d/f", "d/f/")])
def test_parts_that_lie_in_each_other_or_are_named_twice_are_returned_once(place, paths):
    place.take()
    (place.target / "d" / "f").write_text("two")
    assert place.actions("rolled_back", options={"paths": paths}) == ["rolled_back"]
    assert (place.target / "d" / "f").read_text() == "one"
    assert place.actions("rolled_back", options={"paths": paths}) == ["unchanged"]
    assert rest(place) == []


def test_a_part_that_is_gone_comes_back(place):
    place.take()
    (place.target / "d" / "f").unlink()
    assert place.actions("rolled_back", options={"paths": ("d/f",)}) == ["rolled_back"]
    assert (place.target / "d" / "f").read_text() == "one"


@pytest.mark.parametrize("part", ["gone", "d/gone", "gone/f", "d/f/x"])
def test_a_part_that_the_snapshot_does_not_have_is_a_blocker(place, part):
    place.take()
    with pytest.raises(Blocked, match="is not in the snapshot"):
        place.call("rolled_back", options={"paths": (part,)})


def test_a_part_is_never_reached_through_a_link(place):
    place.take()
    outside = place.path / "outside"
    outside.mkdir()
    (outside / "f").write_text("untouched")
    shutil.rmtree(place.target / "d")
    (place.target / "d").symlink_to(outside)
    with pytest.raises(Blocked, match="d/f"):
        place.call("rolled_back", options={"paths": ("d/f",)})
    assert (outside / "f").read_text() == "untouched"


def test_who_uses_the_target_is_a_blocker_that_can_be_overruled(place):
    place.take()
    (place.target / "d" / "f").write_text("two")
    with subprocess.Popen(["sleep", "60"], cwd=place.target / "d") as user:
        try:
            with pytest.raises(Blocked, match=rf"pid {user.pid} .*works in d \(stop it, or set ignore_users: true\)"):
                place.call("rolled_back", options={"ignore_users": False})
            assert (place.target / "d" / "f").read_text() == "two"
            assert place.actions("rolled_back", allowed=frozenset({"ignore_users"})) == ["rolled_back"]
        finally:
            user.kill()


def test_what_the_snapshot_left_out_is_not_thrown_away_with_what_was_there(place):
    (place.target / "cache").mkdir()
    place.take(exclude=("cache",))
    (place.target / "d" / "f").write_text("two")
    with pytest.raises(Blocked, match="left out cache, which would be lost"):
        place.call("rolled_back", keep_current=False)
    assert place.actions("rolled_back") == ["rolled_back"]
    assert "cache" in os.listdir(place.path / asides(place)[0])


# --- cloned ----------------------------------------------------------------------------------------------------------


def clone(place, where="clone", name="x"):
    return place.actions("cloned", name, clones={str(place.target): str(place.path / where)})


def test_a_clone_is_writable_and_shares_nothing_with_the_snapshot(place):
    place.take()
    before = picture(place.target)
    assert clone(place) == ["cloned"]
    assert picture(place.path / "clone") == before
    (place.path / "clone" / "d" / "f").write_text("changed")
    assert (place.snapshot() / "d" / "f").read_text() == "one"
    assert clone(place) == ["unchanged"]
    assert (place.path / "clone" / "d" / "f").read_text() == "changed"


def test_a_clone_takes_no_place_that_is_taken(place):
    place.take()
    (place.path / "clone").mkdir()
    with pytest.raises(Blocked, match="exists, and is no clone of it"):
        clone(place)
    place.take("y")
    assert clone(place, "other") == ["cloned"]
    with pytest.raises(Blocked, match="was cloned from 'x'"):
        clone(place, "other", "y")


@pytest.mark.parametrize(("where", "word"), [("gone/clone", "directory above it is missing"), ("store/c", "the store")])
def test_a_clone_goes_to_no_impossible_place(place, where, word):
    place.take()
    with pytest.raises(RestorePointError, match=word):
        clone(place, where)


# --- all or nothing --------------------------------------------------------------------------------------------------


def breaking(method, target):
    """Return what makes a backend fail in a method, when it comes to a target."""

    def adapt(backend):
        whole = getattr(backend, method)

        def broken(change):
            changes = change if isinstance(change, (list, tuple)) else [change]
            if any(each.target == str(target) for each in changes):
                raise RestorePointError("do it", "the disk is on fire", "put it out")
            return whole(change)

        setattr(backend, method, broken)
        return backend

    return adapt


@pytest.mark.parametrize("method", ["prepare", "commit"])
@pytest.mark.parametrize("state", ["present", "rolled_back", "absent"])
def test_a_failure_on_the_second_target_leaves_the_first_as_it_was(two, state, method):
    if state != "present":
        two.take()
    for target in two.targets:
        (target / "f").write_text("two")
    before = [picture(target) for target in two.targets]
    names = two.names() if two.store.exists() else []
    with pytest.raises(RunFailed):
        two.call(state, adapt=breaking(method, two.targets[1]))
    assert [picture(target) for target in two.targets] == before
    assert (two.names(), asides(two), rest(two)) == (names, [], [])
    assert two.actions(state) == {"present": ["created"] * 2, "rolled_back": ["rolled_back"] * 2,
                                  "absent": ["removed"] * 2}[state]  # fmt: skip


@pytest.mark.parametrize("state", ["present", "rolled_back", "absent", "pruned"])
def test_a_return_or_removal_that_counted_can_be_undone(two, state):
    if state != "present":
        two.take()
        (two.targets[0] / "f").write_text("two")
        two.take("y")
    for target in two.targets:
        (target / "f").write_text("three")
    before, stored = [picture(target) for target in two.targets], picture(two.store) if two.store.exists() else {}

    def interrupt_at_the_end(backend):
        commit = backend.commit

        def committed(changes):
            commit(changes)
            for each in reversed(changes):
                backend.undo(each)
            raise KeyboardInterrupt

        backend.commit = committed
        backend.abandon = lambda change: None
        return backend

    with pytest.raises(KeyboardInterrupt):
        two.call(state, adapt=interrupt_at_the_end, **({"keep": {"last": 1}} if state == "pruned" else {}))
    assert [picture(target) for target in two.targets] == before
    assert (asides(two), rest(two)) == ([], [])
    if stored:
        kept = {path: each[-2] for path, each in stored.items() if ".lock" not in path}
        assert {path: each[-2] for path, each in picture(two.store).items() if ".lock" not in path} == kept


def test_descriptions_are_changed_on_all_targets_or_on_none(two, monkeypatch):
    two.call("present", description="old")
    folders = sorted(each for each in os.listdir(two.store) if not each.startswith("."))
    rename = os.rename
    done = []

    def fail(old, new, **directories):
        if new == "x.json":
            done.append(new)
            if len(done) == 2:
                raise OSError(errno.EIO, "Input/output error")
        rename(old, new, **directories)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(RunFailed, match="Input/output error"):
        two.call("present", description="new")
    monkeypatch.undo()
    assert [json.loads((two.store / each / "x.json").read_text())["description"] for each in folders] == ["old"] * 2


def test_with_keep_what_could_be_taken_is_kept(two):
    with pytest.raises(RunFailed):
        two.call("present", on_failure="keep", adapt=breaking("prepare", two.targets[1]))
    assert two.names() == ["x"]
    with pytest.raises(Blocked, match="the set would not be of one instant"):
        two.call("present")


# --- bad requests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "name", "word"),
    [
        ("present", "a/b", "1 to 128 characters"),
        ("present", "..", "1 to 128 characters"),
        ("absent", "../../etc", "1 to 128 characters"),
        ("rolled_back", ".target", "1 to 128 characters"),
        ("present", "aside-20261122t013000z", "what a return has set aside"),
        ("present", "x.json", "keeps metadata"),
    ],
)
def test_a_name_that_could_lead_elsewhere_is_refused(place, state, name, word):
    with pytest.raises(InvalidInput, match=word):
        place.call(state, name)
    assert not place.store.exists()


@pytest.mark.parametrize("options", [{"exclude": ("[z-a]",)}, {"paths": ("../x",)}, {"paths": ("/etc",)}])
def test_patterns_and_parts_that_cannot_be_meant_are_refused(place, options):
    with pytest.raises(InvalidInput):
        place.call("present", options=options)
    assert not place.store.exists()


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.write_text(""), "it is no directory"),
        (lambda path: path.symlink_to("/srv"), "it is a symbolic link"),
    ],
)
def test_a_target_that_is_no_directory_is_refused(place, make, word):
    shutil.rmtree(place.target)
    make(place.target)
    with pytest.raises(InvalidInput, match=word):
        place.call("present")
    assert not place.store.exists()


def test_a_store_in_the_target_is_refused(place):
    place.store = place.target / "store"
    with pytest.raises(InvalidInput, match="the store lies inside the target"):
        place.call("present")
    assert not place.store.exists()


def test_a_folder_of_other_files_is_no_store(place):
    place.store.mkdir()
    (place.store / "thesis.tex").write_text("")
    with pytest.raises(StoreError, match=r"thesis\.tex"):
        place.call("present")


def test_a_busy_store_is_an_error_that_names_the_holder(place):
    place.call("present")
    backend = place.backend()
    with backend.store.writing(0), pytest.raises(LockTimeout, match=str(os.getpid())):
        place.call("present", "y", options={"lock_timeout": 0.0})


def test_targets_that_lie_in_each_other_are_not_returned_in_one_call(tmp_path):
    place = Place(tmp_path, "a", "a/b")
    place.take()
    (place.targets[1] / "f").write_text("two")
    with pytest.raises(InvalidInput, match="one lies in the other; return one after the other"):
        place.call("rolled_back")
    assert (place.targets[1] / "f").read_text() == "two"


@pytest.mark.parametrize("path", ["", "srv", "./srv", "~/srv", "srv/../etc"])
def test_a_relative_path_is_refused(path):
    with pytest.raises(InvalidInput, match="it is relative"):
        canonical(path, "a target")


def test_a_path_with_a_nul_is_refused():
    with pytest.raises(InvalidInput, match="NUL"):
        canonical("/srv\0/x", "a target")


def test_a_path_is_made_canonical_as_the_kernel_would_walk_it(tmp_path):
    real = tmp_path.resolve()
    (real / "a" / "b").mkdir(parents=True)
    (real / "link").symlink_to(real / "a" / "b")
    assert canonical(f"{real}/link/x", "a") == f"{real}/a/b/x"
    assert canonical(f"{real}/link/../x", "a") == f"{real}/a/x", "the directory above what the link points to"
    assert canonical(f"{real}/link", "a") == f"{real}/link", "the last name is not followed"
    assert canonical(f"{real}//a/./b/", "a") == f"{real}/a/b"
    assert canonical(f"/{real}/a", "a") == f"{real}/a"
    assert canonical("/", "a") == canonical("//", "a") == canonical("/..", "a") == "/"
