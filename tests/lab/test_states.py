# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each state on each filesystem: check mode touches nothing and predicts the run, and a second run changes nothing.

Also what stands in the way, what is refused as bad input, and what ``verify`` finds.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.bridge import hostpath as hostpath_bridge
from ansible_collections.restorepoint.core.plugins.module_utils.bridge import module as module_bridge
from ansible_collections.restorepoint.core.tests.lab.driver import Failed, call, info
from ansible_collections.restorepoint.core.tests.lab.filesystems import run, unmount
from ansible_collections.restorepoint.core.tests.lab.likeness import assert_same, snapshot_of

DAY = 86_400


class Clock:
    """What the modules take for the time; it moves only when it is told to."""

    def __init__(self):
        self.at = int(time.time())

    def __call__(self):
        return self.at


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(hostpath_bridge, "now", found)
    monkeypatch.setattr(module_bridge, "now", found)
    return found


@pytest.fixture
def target(place):
    path = place.make_target()
    (path / "conf" / "below").mkdir(parents=True)
    (path / "conf" / "site.yml").write_text("a: 1\n")
    (path / "conf" / "below" / "file").write_text("below")
    (path / "data").write_bytes(os.urandom(100_000))
    os.link(path / "data", path / "data too")
    os.symlink("data", path / "link")
    return path


def options(place, *targets, **more):
    return {"path": list(targets) or [place.target], "store": place.store, **more}


def look(place):
    """Describe all that lies in a place, but for the note in the lock file of its store."""
    found = snapshot_of(place.folder)
    found.pop(b"store/.lock", None)
    # Where a subvolume was, a snapshot shows a directory that is not really there, with the time of the moment.
    return {path: facts for path, facts in found.items() if not path.endswith(b"/inner")}


def carry_out(place, **arguments):
    """Run in check mode, which must touch nothing, and then for real, which must do what check mode said."""
    before = look(place)
    predicted = call(check_mode=True, **arguments)
    assert_same(before, look(place))
    done = call(**arguments)
    assert predicted.told == done.told
    assert predicted["changed"] is done["changed"]
    return done


def settle(place, **arguments):
    """Carry out twice: the second time nothing may change. Return the first result."""
    done = carry_out(place, **arguments)
    before = look(place)
    again = carry_out(place, **arguments)
    assert again["changed"] is False, again["results"]
    assert {each["action"] for each in again["results"]} == {"unchanged"}
    assert_same(before, look(place))
    return done


def refused(place, pattern, **arguments):
    """Run in check mode and for real: both must fail with the same words, and touch nothing."""
    before = look(place)
    messages = []
    for check_mode in (True, False):
        with pytest.raises(Failed, match=pattern) as caught:
            call(check_mode=check_mode, **arguments)
        assert_same(before, look(place))
        assert caught.value.result.get("changed", False) is False
        assert "Traceback" not in str(caught.value)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    return caught.value


def stored(place, name, target="target"):
    (folder,) = (each for each in place.store.iterdir() if f"-{target}-" in each.name)
    return folder / name


def names(place):
    return [each["name"] for each in info(store=place.store)["snapshots"]]


def warnings(result):
    return [json.dumps(each) for each in result.get("warnings", [])]


# -- present and absent ------------------------------------------------------------------------------------------------


def test_present_is_reached_once(place, target):
    before = snapshot_of(target)
    done = settle(place, **options(place, name="one", description="first", labels={"a": "b"}))
    assert done.only["action"] == "created"
    assert_same(before, snapshot_of(target))
    assert_same(before, snapshot_of(stored(place, "one")))
    (found,) = info(**options(place))["snapshots"]
    assert (found["description"], found["labels"], found["ready"]) == ("first", {"a": "b"}, True)


def test_check_mode_makes_no_store(place, target):
    before = look(place)
    assert call(check_mode=True, **options(place, name="one"))["changed"] is True
    assert_same(before, look(place))
    assert not place.store.exists()


def test_a_new_description_or_label_is_a_change_of_its_own(place, target):
    call(**options(place, name="one", description="first", labels={"a": "b"}))
    tree = snapshot_of(stored(place, "one"))
    assert settle(place, **options(place, name="one", description="second"))["results"][0]["action"] == "described"
    assert settle(place, **options(place, name="one", labels={"c": "d"}))["changed"] is True
    assert settle(place, **options(place, name="one"))["changed"] is False
    (found,) = info(**options(place))["snapshots"]
    assert (found["description"], found["labels"]) == ("second", {"c": "d"})
    assert_same(tree, snapshot_of(stored(place, "one")))


def test_an_old_snapshot_does_not_pass_for_a_new_one(place, target, clock):
    call(**options(place, name="one"))
    clock.at += 2 * DAY
    refused(place, "older than max_age 1d", **options(place, name="one", max_age="1d"))
    assert settle(place, **options(place, name="one", max_age="3d"))["changed"] is False
    (target / "new").write_text("x")
    done = settle(place, **options(place, name="one", max_age="1d", replace=True))
    assert done.only["action"] == "replaced"
    assert_same(snapshot_of(target), snapshot_of(stored(place, "one")))
    assert names(place) == ["one"]


def test_a_set_that_is_there_in_part_is_no_success(place, target):
    other = place.make_target("other")
    (other / "file").write_text("x")
    call(**options(place, target, name="one"))
    refused(place, "not of one instant|not be of one instant", **options(place, target, other, name="one"))
    done = settle(place, **options(place, target, other, name="one", replace=True))
    assert sorted(each["action"] for each in done["results"]) == ["created", "replaced"]
    assert "spread_seconds" in done


def test_absent_is_reached_once(place, target):
    for name in ("one", "two"):
        call(**options(place, name=name))
    kept = snapshot_of(stored(place, "two"))
    assert settle(place, **options(place, name="one", state="absent")).only["action"] == "removed"
    assert names(place) == ["two"]
    assert_same(kept, snapshot_of(stored(place, "two")))


def test_absent_without_any_store_changes_nothing(place, target):
    assert settle(place, **options(place, name="one", state="absent"))["changed"] is False
    assert not place.store.exists()


def test_all_targets_are_taken_or_none(lab):
    """The second target holds a device that XFS has no number for: then the first is not taken either."""
    with lab.place("ext4") as source, lab.place("xfs") as place:
        one, two = source.make_target("one"), source.make_target("two")
        for each in (one, two):
            (each / "file").write_text("x")
        os.mknod(two / "device", 0o020600, os.makedev(1, 1 << 19))
        arguments = options(place, one, two, name="both")
        with pytest.raises(Failed, match="device") as caught:
            call(**arguments)
        told = {os.path.basename(each["target"]): each["action"] for each in caught.value.result["results"]}
        assert told == {"one": "none", "two": "failed"}
        assert caught.value.result["changed"] is False
        assert names(place) == []

        with pytest.raises(Failed, match="device") as caught:
            call(**arguments, on_failure="keep")
        told = {os.path.basename(each["target"]): each["action"] for each in caught.value.result["results"]}
        assert told == {"one": "created", "two": "failed"}
        assert caught.value.result["changed"] is True
        assert names(place) == ["both"]


# -- rolled_back -------------------------------------------------------------------------------------------------------


def test_a_return_keeps_what_was_there_aside(place, target):
    original = snapshot_of(target)
    call(**options(place, name="one"))
    (target / "data").write_bytes(b"changed")
    (target / "new").mkdir()
    changed = snapshot_of(target)
    done = settle(place, **options(place, name="one", state="rolled_back"))
    assert done.only["action"] == "rolled_back"
    assert_same(original, snapshot_of(target))
    assert_same(changed, snapshot_of(done.only["aside"]["path"]))
    (aside,) = info(**options(place))["asides"]
    assert aside["name"] == done.only["aside"]["name"]
    if place.by_subvolume:
        assert target.stat().st_ino == 256, "it has to stay a subvolume"


def test_a_return_without_keeping_leaves_nothing_beside_the_target(place, target):
    original = snapshot_of(target)
    call(**options(place, name="one"))
    (target / "data").write_bytes(b"changed")
    done = settle(place, **options(place, name="one", state="rolled_back", keep_current=False))
    assert "aside" not in done.only
    assert_same(original, snapshot_of(target))
    assert {each.name for each in place.folder.iterdir()} == {"target", "store"}


def test_a_return_to_what_was_set_aside_goes_there_and_back(place, target, clock):
    original = snapshot_of(target)
    call(**options(place, name="one"))
    (target / "data").write_bytes(b"changed")
    changed = snapshot_of(target)
    aside = call(**options(place, name="one", state="rolled_back")).only["aside"]["name"]
    clock.at += 10
    done = settle(place, **options(place, name=aside, state="rolled_back"))
    assert_same(changed, snapshot_of(target))
    assert_same(original, snapshot_of(done.only["aside"]["path"]))
    if place.by_subvolume:
        assert target.stat().st_ino == 256, "it has to stay a subvolume"
    assert settle(place, **options(place, name="one", state="rolled_back"))["changed"] is True
    assert_same(original, snapshot_of(target))


def test_asides_of_one_second_have_names_of_their_own(place, target, clock):
    call(**options(place, name="one"))
    found = []
    for content in ("a", "b", "c"):
        (target / "data").write_text(content)
        found.append(call(**options(place, name="one", state="rolled_back")).only["aside"])
    assert len({each["name"] for each in found}) == 3
    assert [(pathlib.Path(each["path"]) / "data").read_text() for each in found] == ["a", "b", "c"]
    assert len(info(**options(place))["asides"]) == 3


def test_asides_are_removed_by_name_and_by_their_own_rule(place, target, clock):
    call(**options(place, name="one"))
    found = []
    for content in ("a", "b", "c", "d"):
        clock.at += 100
        (target / "data").write_text(content)
        found.append(call(**options(place, name="one", state="rolled_back")).only["aside"])
    assert settle(place, **options(place, name=found[1]["name"], state="absent"))["changed"] is True
    assert [os.path.lexists(each["path"]) for each in found] == [True, False, True, True]
    # Rules for snapshots do not touch asides, and rules for asides no snapshot.
    settle(place, **options(place, state="pruned", keep={"last": 1}))
    assert [os.path.lexists(each["path"]) for each in found] == [True, False, True, True]
    done = settle(place, **options(place, state="pruned", asides={"last": 1}))
    assert [os.path.lexists(each["path"]) for each in found] == [False, False, False, True]
    assert {each["name"] for each in done["results"]} == {found[0]["name"], found[2]["name"]}
    assert names(place) == ["one"]


def test_a_token_is_good_for_one_return(place, target):
    call(**options(place, name="one"))
    arguments = options(place, name="one", state="rolled_back", once="job 7")
    (target / "data").write_text("changed")
    assert settle(place, **arguments)["changed"] is True
    (target / "data").write_text("came after")
    assert settle(place, **arguments)["changed"] is False
    assert (target / "data").read_text() == "came after"
    assert settle(place, **{**arguments, "once": "job 8"})["changed"] is True


def test_a_target_that_is_missing_is_returned(place, target):
    original = snapshot_of(target)
    call(**options(place, name="one"))
    if place.by_subvolume:
        run("btrfs", "subvolume", "delete", target)
    else:
        run("rm", "-rf", target)
    done = settle(place, **options(place, name="one", state="rolled_back"))
    assert "aside" not in done.only
    assert_same(original, snapshot_of(target))


def test_parts_are_returned_and_nothing_else(place, target):
    call(**options(place, name="one"))
    (target / "conf" / "site.yml").write_text("a: 2\n")
    (target / "data").write_text("stays")
    run("rm", "-rf", target / "conf" / "below")
    done = settle(
        place, **options(place, name="one", state="rolled_back", paths=["conf/site.yml", "conf/below/", "conf/below"])
    )
    assert (target / "conf" / "site.yml").read_text() == "a: 1\n"
    assert (target / "conf" / "below" / "file").read_text() == "below"
    assert (target / "data").read_text() == "stays"
    aside = pathlib.Path(done.only["aside"]["path"])
    assert (aside / "conf" / "site.yml").read_text() == "a: 2\n"
    assert not (aside / "data").exists()
    back = {**options(place, name=done.only["aside"]["name"], state="rolled_back"), "paths": ["conf/site.yml"]}
    assert settle(place, **back)["changed"] is True
    assert (target / "conf" / "site.yml").read_text() == "a: 2\n"
    refused(place, "holds only parts", **{**back, "paths": []})


def test_a_part_is_returned_with_the_rights_it_had(place, target):
    (target / "conf" / "site.yml").chmod(0o666)
    before = snapshot_of(target / "conf")
    call(**options(place, name="one"))
    (target / "conf" / "site.yml").write_text("changed")
    call(**options(place, name="one", state="rolled_back", paths=["conf/site.yml"]))
    assert_same(before, snapshot_of(target / "conf"))


@pytest.mark.parametrize(
    ("paths", "pattern"),
    [
        (["not/there"], "not/there is not in the snapshot"),
        (["nothing"], "nothing is not in the snapshot"),
        (["../target"], "no plain path below the target"),
        (["/etc/passwd"], "no plain path below the target"),
        (["conf/../data"], "no plain path below the target"),
        (["."], "no plain path below the target"),
        ([""], "no plain path below the target"),
        (["link/x"], "link/x is not in the snapshot"),
    ],
)
def test_a_part_that_cannot_be_meant_is_refused(lab, paths, pattern):
    with lab.place("ext4") as place:
        target = place.make_target()
        (target / "conf").mkdir()
        (target / "conf" / "site.yml").write_text("x")
        (target / "data").write_text("x")
        os.symlink("conf", target / "link")
        call(**options(place, name="one"))
        (target / "conf" / "site.yml").write_text("y")
        (target / "data").write_text("y")
        refused(place, pattern, **options(place, name="one", state="rolled_back", paths=paths))


def test_several_targets_are_returned_or_none(place, target):
    other = place.make_target("other")
    (other / "file").write_text("x")
    call(**options(place, target, other, name="one"))
    (target / "data").write_text("changed")
    (other / "file").write_text("changed")
    with using(other):
        refused(place, "works in it", **options(place, target, other, name="one", state="rolled_back"))
    assert settle(place, **options(place, target, other, name="one", state="rolled_back"))["changed"] is True
    assert (other / "file").read_text() == "x"


def test_what_is_not_there_is_no_place_to_return_to(place, target):
    refused(place, "there is no snapshot 'one'", **options(place, name="one", state="rolled_back"))
    call(**options(place, name="one"))
    refused(place, "there is no snapshot 'two'.*it has one", **options(place, name="two", state="rolled_back"))


# -- cloned ------------------------------------------------------------------------------------------------------------


def test_cloned_is_reached_once(place, target):
    call(**options(place, name="one"))
    call(**options(place, name="two"))
    original = snapshot_of(target)
    arguments = options(place, name="one", state="cloned", clone=[place.folder / "clone"])
    assert settle(place, **arguments).only["clone"] == str(place.folder / "clone")
    assert_same(original, snapshot_of(place.folder / "clone"))
    (place.folder / "clone" / "data").write_text("a clone can be written")
    assert carry_out(place, **arguments)["changed"] is False
    assert_same(original, snapshot_of(target))
    assert_same(original, snapshot_of(stored(place, "one")))
    refused(place, "was cloned from 'one'", **{**arguments, "name": "two"})


def test_nothing_is_cloned_over(place, target):
    call(**options(place, name="one"))
    there = place.folder / "there"
    there.mkdir()
    link = place.folder / "link"
    link.symlink_to("nowhere")
    for path in (there, link, target, target / "data"):
        refused(place, "exists", **options(place, name="one", state="cloned", clone=[path]))
    refused(
        place,
        "directory above it is missing",
        **options(place, name="one", state="cloned", clone=[place.folder / "no" / "clone"]),
    )
    refused(
        place, "inside the store|is.*store", **options(place, name="one", state="cloned", clone=[place.store / "clone"])
    )
    refused(
        place,
        "as many paths",
        **options(place, name="one", state="cloned", clone=[place.folder / "a", place.folder / "b"]),
    )


# -- pruned ------------------------------------------------------------------------------------------------------------


def test_pruned_keeps_what_the_rules_say_and_nothing_of_others_goes(place, target, clock):
    clock.at = clock.at // DAY * DAY + DAY // 2 - 10 * DAY
    for number in range(6):
        clock.at += DAY
        call(**options(place, name=f"day-{number}", owner="nightly"))
        call(**options(place, name=f"by-hand-{number}"))
    arguments = options(place, state="pruned", keep={"daily": 2}, owner="nightly")
    refused(place, "max_delete", **arguments, max_delete="3")
    assert len(names(place)) == 12
    done = settle(place, **arguments)
    assert sorted(each["name"] for each in done["results"]) == [f"day-{number}" for number in range(4)]
    assert all(each["action"] == "removed" for each in done["results"])
    assert sorted(names(place)) == [*(f"by-hand-{number}" for number in range(6)), "day-4", "day-5"]
    assert {each["name"]: each["keep"] for each in done["decisions"]}["day-5"] is True
    settle(place, **{**arguments, "match": ["by-hand-[0-2]"], "min_keep": 0})
    assert sorted(names(place)) == ["by-hand-3", "by-hand-4", "by-hand-5", "day-4", "day-5"]


def test_corrupt_metadata_is_named_and_never_deleted(place, target, clock):
    for name in ("one", "two", "three", "four"):
        call(**options(place, name=name))
        clock.at += DAY
    folder = stored(place, "")
    (folder / "one.json").write_text("{ no JSON")
    (folder / "two.json").write_text(json.dumps({**json.loads((folder / "two.json").read_text()), "format": 99}))
    (folder / "stranger").mkdir()
    (folder / "stray file").write_text("x")
    kept = {each: (folder / each).stat().st_ino for each in ("one", "one.json", "two", "two.json", "stranger")}
    done = settle(place, **options(place, state="pruned", keep={"last": 1}))
    assert [each["name"] for each in done["results"]] == ["three"]
    assert kept == {each: (folder / each).stat().st_ino for each in kept}
    told = "\n".join(warnings(done))
    for name in ("one", "two", "stranger"):
        assert f"snapshot '{name}' is not usable" in told
    found = {each["name"]: each["ready"] for each in info(**options(place))["snapshots"]}
    assert found["four"] is True
    assert (found["one"], found["two"], found["stranger"]) == (False, False, False)
    refused(place, "is not usable", **options(place, name="one", state="rolled_back"))
    refused(place, "is not usable", **options(place, name="one"))
    assert settle(place, **options(place, name="five"))["changed"] is True


# -- exclude -----------------------------------------------------------------------------------------------------------


def test_what_is_left_out_is_not_taken_and_not_missed(place, target):
    (target / "cache").mkdir()
    (target / "cache" / "big").write_text("x")
    (target / "conf" / "x.log").write_text("log")
    (target / "conf" / "below" / "y.log").write_text("log")
    done = settle(place, **options(place, name="one", exclude=["*.log", "/cache"]))
    assert done.only["strategy"] in ("copy", "reflink")
    kept = snapshot_of(stored(place, "one"))
    assert not [path for path in kept if path.endswith(b".log") or path.startswith(b"cache")]
    arguments = options(place, name="one", state="rolled_back")
    assert settle(place, **arguments)["changed"] is False
    (target / "conf" / "x.log").write_text("grows, and is none of our business")
    assert settle(place, **arguments)["changed"] is False
    (target / "conf" / "site.yml").write_text("changed")
    refused(place, "left out .*would be lost", **arguments, keep_current=False)
    done = settle(place, **arguments)
    assert done["changed"] is True
    assert not (target / "cache").exists()
    assert (pathlib.Path(done.only["aside"]["path"]) / "cache" / "big").exists()


# -- what stands in the way --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def using(path, code="", *unshare):
    """Let a process use a directory: its working directory is there, or what ``code`` does."""
    code = code or "os.chdir(path)"
    process = subprocess.Popen(
        [*unshare, sys.executable, "-c", f"import os, subprocess, sys; path = sys.argv[1]\n{code}\nprint(flush=True)\n"
         "sys.stdin.read()", str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/",
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process
    finally:
        process.communicate(timeout=60)


def test_processes_that_use_the_target_are_named_and_stand_in_the_way(place, target, tmp_path):
    call(**options(place, name="one"))
    (target / "conf" / "site.yml").write_text("changed")
    arguments = options(place, name="one", state="rolled_back")
    namespace = ("unshare", "--mount", "--propagation", "private")
    bind = f"subprocess.run(['mount', '--bind', path, {str(tmp_path)!r}], check=True)"
    for code, pattern, unshare in (
        ("", "works in it", ()),
        ("os.chdir(path + '/conf/below')", "works in conf/below", ()),
        ("kept = open(path + '/conf/site.yml')", "has conf/site.yml open", ()),
        (bind, f"mounted at {tmp_path}", namespace),
    ):
        with using(target, code, *unshare) as process:
            error = refused(place, pattern, **arguments)
            assert all(f"pid {process.pid}" in reason for reason in error.reasons)
            assert call(check_mode=True, **arguments, ignore_users=True)["changed"] is True
            if "below" in code:
                # Nobody uses that part.
                assert call(check_mode=True, **arguments, paths=["conf/site.yml"])["changed"] is True
    with using(target):
        assert settle(place, **arguments, ignore_users=True)["changed"] is True


def test_a_snapshot_that_equals_the_target_needs_nobody_to_go(place, target):
    call(**options(place, name="one"))
    with using(target):
        assert settle(place, **options(place, name="one", state="rolled_back"))["changed"] is False


@contextlib.contextmanager
def mounted(*arguments):
    run("mount", *arguments)
    try:
        yield
    finally:
        unmount(arguments[-1])


def test_a_mount_point_cannot_be_returned_but_parts_of_it_can(lab):
    with lab.extra_disk("ext4") as target, lab.place("ext4") as place:
        run("rm", "-rf", target / "lost+found")
        (target / "conf").mkdir()
        (target / "file").write_text("x")
        (target / "conf" / "file").write_text("x")
        arguments = options(place, target, name="one")
        original = snapshot_of(target)
        settle(place, **arguments)
        assert_same(original, snapshot_of(stored(place, "one", target.name)))
        assert settle(place, **arguments, state="rolled_back")["changed"] is False
        (target / "file").write_text("changed")
        (target / "conf" / "file").write_text("changed")
        refused(place, "it is a mount point", **arguments, state="rolled_back")
        done = settle(place, **arguments, state="rolled_back", paths=["file", "conf"])
        assert (pathlib.Path(done.only["aside"]["path"]) / "file").read_text() == "changed"
        assert settle(place, **arguments, state="rolled_back")["changed"] is False
        assert [path for path in snapshot_of(target) if b"aside" not in path] == list(original)
        # What was set aside inside of it is no part of the next snapshot.
        call(**{**arguments, "name": "two"})
        assert_same(original, snapshot_of(stored(place, "two", target.name)))
        settle(place, **{**arguments, "name": done.only["aside"]["name"]}, state="absent")
        assert_same(original, snapshot_of(target))


def test_what_is_mounted_inside_is_left_out_named_and_stands_in_the_way(place, target):
    (target / "mounted").mkdir()
    inner = target / "mounted"
    with mounted("-t", "tmpfs", "none", inner):
        (inner / "secret").write_text("of another filesystem")
        (inner / "below").mkdir()
        done = settle(place, **options(place, name="one"))
        assert done.only["left_out"] == ["mounted"]
        assert list((stored(place, "one") / "mounted").iterdir()) == []
        arguments = options(place, name="one", state="rolled_back")
        assert settle(place, **arguments)["changed"] is False
        (target / "data").write_text("changed")
        refused(place, "something is mounted in it", **arguments)
        assert settle(place, **arguments, paths=["data"])["changed"] is True


def test_subvolumes_inside_a_subvolume_are_named_as_left_out(lab):
    """Btrfs does not take them along; what is left out must be said, and must not be lost by a return."""
    with lab.place("btrfs-subvolume") as place:
        target = place.make_target()
        (target / "file").write_text("x")
        run("btrfs", "-q", "subvolume", "create", target / "inner")
        (target / "inner" / "file").write_text("x")
        done = settle(place, **options(place, name="one"))
        if done.only["strategy"] == "subvolume":
            assert done.only["left_out"] == ["inner"]
        else:
            assert (stored(place, "one") / "inner" / "file").read_text() == "x"
        arguments = options(place, name="one", state="rolled_back")
        assert settle(place, **arguments)["changed"] is False
        (target / "file").write_text("changed")
        if done.only["left_out"]:
            refused(place, "would be lost", **arguments, keep_current=False)
        done = settle(place, **arguments)
        assert (target / "file").read_text() == "x"
        assert (pathlib.Path(done.only["aside"]["path"]) / "inner" / "file").read_text() == "x"
        settle(place, **options(place, name=done.only["aside"]["name"], state="absent"))


def test_a_return_for_which_there_is_no_room_is_refused(lab):
    with lab.extra_disk("ext4", 64 << 20) as disk, lab.place("ext4") as place:
        target = disk / "target"
        target.mkdir()
        (target / "large").write_bytes(os.urandom(20 << 20))
        call(**options(place, target, name="one"))
        (target / "large").write_bytes(b"x")
        (disk / "filler").write_bytes(bytes(36 << 20))
        before = snapshot_of(target)
        refused(
            place, r"a copy of the snapshot needs 20\.0 MiB", **options(place, target, name="one", state="rolled_back")
        )
        assert_same(before, snapshot_of(target))
        (disk / "filler").unlink()
        assert settle(place, **options(place, target, name="one", state="rolled_back"))["changed"] is True


def test_holes_need_no_room(lab):
    with lab.extra_disk("ext4", 64 << 20) as disk, lab.place("ext4") as place:
        target = disk / "target"
        target.mkdir()
        with open(target / "sparse", "wb") as file:
            file.truncate(1 << 30)
        call(**options(place, target, name="one"))
        os.truncate(target / "sparse", 5)
        assert settle(place, **options(place, target, name="one", state="rolled_back"))["changed"] is True
        assert (target / "sparse").stat().st_size == 1 << 30


# -- verify ------------------------------------------------------------------------------------------------------------


def flip(path):
    """Change one byte and leave the times as they were: only a checksum can tell."""
    st = path.stat()
    with open(path, "r+b") as file:
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


def relink(path):
    st = path.lstat()
    path.unlink()
    path.symlink_to("date")
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns), follow_symlinks=False)


def with_times_of(directory, function):
    st = directory.stat()
    function()
    os.utime(directory, ns=(st.st_atime_ns, st.st_mtime_ns))


CORRUPTIONS = {
    "data": (flip, "has other content than its checksum says"),
    "grown": (lambda path: os.truncate(path, 5000), "has 5000 bytes instead of 3000"),
    "shrunk": (lambda path: os.truncate(path, 0), "has 0 bytes instead of 3000"),
    "rights": (lambda path: path.chmod(0o777), "has mode 0777 instead of 0644"),
    "owner": (lambda path: os.chown(path, 5, 6), "belongs to 5:6 instead of 0:0"),
    "gone": (lambda path: path.unlink(), "is missing"),
    "attribute": (lambda path: os.setxattr(path, "user.new", b"x"), "has other extended attributes"),
    "acl": (lambda path: run("setfacl", "-m", "u:7:r", path), "has other extended attributes"),
    "link": (relink, "points elsewhere"),
    "kind": (lambda path: (path.unlink(), path.mkdir()), "is of another kind"),
    "time": (os.utime, "was modified"),
    "directory": (lambda path: path.chmod(0o700), "has mode 0700 instead of 0755"),
    "gone directory": (lambda path: run("rm", "-rf", path), "the directory is missing"),
    "replaced directory": (lambda path: (run("rm", "-rf", path), path.write_text("x")), "the directory is missing"),
    "new": (lambda path: path.write_text("x"), "is not in the manifest"),
    "new directory": (lambda path: path.mkdir(), "is not in the manifest"),
}


def test_verify_finds_and_names_every_kind_of_corruption(place):
    target = place.make_target()
    for name in CORRUPTIONS:
        if name == "link":
            (target / name).symlink_to("data")
        elif "directory" in name and not name.startswith("new"):
            (target / name).mkdir(mode=0o755)
            (target / name).chmod(0o755)
            (target / name / "file").write_text("x")
        elif not name.startswith("new"):
            (target / name).write_bytes(os.urandom(3000))
            (target / name).chmod(0o644)
    (target / "untouched").write_text("x")
    call(**options(place, name="one", checksum=True))
    (result,) = info(**options(place), verify=True)["verified"]
    assert (result["ok"], result["faults"], result["proof"]) == (True, [], "every byte")
    tree = stored(place, "one")
    for name, (corrupt, _unused) in CORRUPTIONS.items():
        with_times_of(tree, lambda corrupt=corrupt, name=name: corrupt(tree / name))
    (result,) = info(**options(place), verify=True)["verified"]
    found = {each["path"]: each["fault"] for each in result["faults"]}
    expected = {name: fault for name, (_unused, fault) in CORRUPTIONS.items()}
    assert {name: found.get(name) for name in expected} == expected
    assert "untouched" not in found
    assert "." not in found
    assert result["ok"] is False
    assert set(found) - set(expected) <= {"replaced directory/file", "gone directory/file", "kind"}


def test_verify_says_what_it_can_prove(place, target):
    call(**options(place, name="one"))
    (result,) = info(**options(place), verify=True)["verified"]
    assert result["ok"] is True
    assert "byte" not in result["proof"]
    assert result.get("bytes_read", 0) == 0


def test_verify_finds_that_a_subvolume_was_written(lab):
    with lab.place("btrfs-subvolume") as place:
        target = place.make_target()
        (target / "file").write_text("x")
        for name in ("one", "two", "three"):
            call(**options(place, name=name))
        run("btrfs", "property", "set", "-ts", stored(place, "two"), "ro", "false")
        run("btrfs", "property", "set", "-ts", stored(place, "one"), "ro", "false")
        (stored(place, "one") / "file").write_text("y")
        run("btrfs", "property", "set", "-ts", stored(place, "one"), "ro", "true")
        run("sync", "-f", place.folder)
        found = {each["name"]: each for each in info(**options(place), verify=True)["verified"]}
        assert [found[name]["ok"] for name in ("one", "two", "three")] == [False, False, True]
        assert found["one"]["faults"] == [{"path": ".", "fault": "the subvolume was written after its creation"}]
        assert found["two"]["faults"] == [{"path": ".", "fault": "the subvolume is writable"}]
        (target / "file").write_text("z")
        call(**options(place, name="one", state="rolled_back"))
        assert (target / "file").read_text() == "y"


def test_verify_finds_a_manifest_that_is_not_the_one_that_was_written(place, target):
    call(**options(place, name="one", checksum=True))
    path = stored(place, "one.manifest")
    text = path.read_bytes()
    for content in (text.replace(b"data", b"date"), text[:-20], b"", text + b"x\n"):
        path.write_bytes(content)
        (result,) = info(**options(place), verify=True)["verified"]
        assert result["ok"] is False
        assert result["faults"][0]["path"] == "one.manifest"
    path.unlink()
    (result,) = info(**options(place), verify=True)["verified"]
    assert result["ok"] is False


# -- bad input ---------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a missing path": ({"path": ["{folder}/nothing"], "name": "x"}, "nothing: No such file"),
    "a file": ({"path": ["{target}/data"], "name": "x"}, "data: it is no directory"),
    "a link": ({"path": ["{folder}/link"], "name": "x"}, "link: it is a symbolic link"),
    "one missing path of two": ({"path": ["{target}", "{folder}/nothing"], "name": "x"}, "nothing: No such file"),
    "a store inside the target": ({"store": "{target}/store", "name": "x"}, "the store lies inside the target"),
    "the target inside the store": ({"store": "{folder}", "name": "x"}, "the target lies inside the store"),
    "the store as the target": ({"store": "{target}", "name": "x"}, "the same directory"),
    "a store inside through a link": ({"store": "{folder}/link/store", "name": "x"}, "the store lies inside"),
    "a relative path": ({"path": ["relative"], "name": "x"}, "'relative' as a target: it is relative"),
    "a relative store": ({"store": "relative", "name": "x"}, "'relative' as a store: it is relative"),
    "a store that is a file": ({"store": "{target}/data", "name": "x"}, "store"),
    "a store full of other things": (
        {"store": "{folder}/strange", "name": "x"},
        "it holds other files, such as 'file'",
    ),
    "a store below a file": ({"store": "{folder}/strange/file/store", "name": "x"}, "Not a directory"),
    "a NUL in a path": ({"path": ["{target}\0x"], "name": "x"}, "NUL"),
    "no name": ({}, "name"),
    "an empty name": ({"name": ""}, "name"),
    "a name with a slash": ({"name": "a/b"}, "as the name of a snapshot"),
    "a name of dots": ({"name": ".."}, "as the name of a snapshot"),
    "a hidden name": ({"name": ".hidden"}, "as the name of a snapshot"),
    "a name with a newline": ({"name": "a\n"}, "as the name of a snapshot"),
    "a name that is too long": ({"name": "a" * 129}, "as the name of a snapshot"),
    "a name like metadata": ({"name": "x.json"}, "as the name of a snapshot"),
    "a name like a manifest": ({"name": "x.manifest"}, "as the name of a snapshot"),
    "a name of an aside": ({"name": "aside-20261122t013000z"}, "set aside"),
    "a name for absent": ({"name": "../x", "state": "absent"}, "as the name of a snapshot"),
    "a name for rolled_back": ({"name": "a b", "state": "rolled_back"}, "as the name of a snapshot"),
    "an unknown state": ({"name": "x", "state": "gone"}, "value of state must be one of"),
    "an unknown keep rule": ({"state": "pruned", "keep": {"fortnightly": 3}}, "fortnightly"),
    "no keep rule at all": ({"state": "pruned"}, "keep"),
    "a negative number": ({"state": "pruned", "keep": {"daily": -2}}, "daily: -2"),
    "a negative min_keep": ({"state": "pruned", "keep": {"daily": 1}, "min_keep": -1}, "min_keep: -1"),
    "a negative lock_timeout": ({"name": "x", "lock_timeout": -1}, "lock_timeout: -1"),
    "a duration without a unit": ({"name": "x", "max_age": "30"}, "max_age: 30"),
    "a negative max_delete": ({"state": "pruned", "keep": {"daily": 1}, "max_delete": "-5"}, "max_delete"),
    "an unknown time zone": ({"state": "pruned", "keep": {"daily": 1}, "timezone": "Mars/Olympus"}, "Mars/Olympus"),
    "a limit of nothing": ({"name": "x", "bandwidth_limit": "0"}, "bandwidth_limit: 0"),
    "a negative limit": ({"name": "x", "bandwidth_limit": "-1M"}, "bandwidth_limit: -1M"),
    "an empty pattern": ({"name": "x", "exclude": [""]}, "exclude"),
    "an owner that is none": ({"name": "x", "owner": "Not An Owner"}, "as an owner"),
    "no target": ({"path": [], "name": "x"}, "path is empty"),
    "a target and a claim": ({"pvc": ["a"], "namespace": "b", "name": "x"}, "mutually exclusive"),
    "clone without a place": ({"state": "cloned", "name": "x"}, "clone"),
    "an aside to return to that is none": ({"state": "rolled_back", "name": "aside-20261122t013000z"}, "no snapshot"),
}


@pytest.mark.parametrize("with_store", [False, True], ids=["without a store", "with a store"])
def test_bad_input_is_refused_and_touches_nothing(ext4, with_store):
    place = ext4
    target = place.make_target()
    (target / "data").write_text("x")
    (place.folder / "link").symlink_to("target")
    (place.folder / "strange").mkdir()
    (place.folder / "strange" / "file").write_text("x")
    if with_store:
        call(**options(place, name="there"))
    places = {"folder": str(place.folder), "target": str(target)}

    def filled(value):
        if isinstance(value, str):
            return value.replace("{folder}", places["folder"]).replace("{target}", places["target"])
        return [filled(each) for each in value] if isinstance(value, list) else value

    for what, (changes, pattern) in BAD.items():
        arguments = {**options(place), **{key: filled(value) for key, value in changes.items()}}
        if "pvc" in arguments:
            arguments["path"] = [str(target)]
        try:
            refused(place, pattern, **arguments)
        except BaseException as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize(
    ("marker", "pattern"),
    [
        ('{"format": 2}', "it is of format 2"),
        ('{"format": "1"}', "it is of format 1"),
        ("{}", "cannot be read"),
        ("no JSON", "cannot be read"),
        ("[]", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_a_store_that_another_version_wrote_is_left_alone(ext4, marker, pattern):
    target = ext4.make_target()
    call(**options(ext4, name="one"))
    (target / "new").write_text("x")
    (ext4.store / ".restorepoint-store.json").write_text(marker)
    for state in ({"name": "two"}, {"name": "one", "state": "absent"}, {"name": "one", "state": "rolled_back"},
                  {"state": "pruned", "keep": {"last": 1}},
                  {"name": "one", "state": "cloned", "clone": [ext4.folder / "clone"]}):  # fmt: skip
        refused(ext4, pattern, **options(ext4), **state)
    with pytest.raises(Failed, match=pattern):
        info(store=ext4.store)


def test_strangers_in_a_store_are_left_alone(ext4):
    target = ext4.make_target()
    (target / "file").write_text("x")
    call(**options(ext4, name="one"))
    (ext4.store / "README").write_text("kept here by somebody")
    (ext4.store / "folder").mkdir()
    (ext4.store / "folder" / "file").write_text("x")
    (ext4.store / "link").symlink_to("/etc")
    for done in (call(**options(ext4, name="two")), call(**options(ext4, name="one", state="absent"))):
        assert any("folder is passed over" in each for each in warnings(done))
    found = info(store=ext4.store)
    assert [each["name"] for each in found["snapshots"]] == ["two"]
    assert any("folder is passed over" in each for each in warnings(found))
    assert (ext4.store / "folder" / "file").read_text() == "x"
    assert (ext4.store / "README").exists()


def test_a_folder_of_the_store_that_names_another_target_is_refused(ext4):
    target = ext4.make_target()
    call(**options(ext4, name="one"))
    path = stored(ext4, ".target.json")
    for content in ('{"format": 1, "path": "/somewhere/else"}', "no JSON", '{"format": 1}', "[]"):
        path.write_text(content)
        (target / "new").write_text(content)
        refused(ext4, "target.json", **options(ext4, name="one", state="rolled_back"))
        refused(ext4, "target.json", **options(ext4, name="two"))


def test_a_store_of_somebody_else_is_refused(ext4):
    ext4.make_target()
    call(**options(ext4, name="one"))
    os.chown(ext4.store, 1234, 1234)
    refused(ext4, "it belongs to uid 1234", **options(ext4, name="two"))


def test_a_damaged_record_of_an_aside_or_a_token_stops_no_snapshot(ext4):
    target = ext4.make_target()
    (target / "file").write_text("x")
    call(**options(ext4, name="one"))
    (target / "file").write_text("y")
    call(**options(ext4, name="one", state="rolled_back", once="a"))
    folder = stored(ext4, "")
    (record,) = folder.glob(".aside-*.json")
    record.write_text("no JSON")
    (folder / ".returned.json").write_text("no JSON")
    assert call(**options(ext4, name="two"))["changed"] is True
    (target / "file").write_text("z")
    assert call(**options(ext4, name="one", state="rolled_back"))["changed"] is True
    (folder / ".tokens.json").write_text("no JSON")
    (target / "file").write_text("again")
    with pytest.raises(Failed, match=r"tokens\.json"):
        call(**options(ext4, name="one", state="rolled_back", once="a"))
