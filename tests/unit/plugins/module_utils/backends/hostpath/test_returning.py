# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run that is killed at any of its steps: nothing is lost, nothing half done is left, and the next run goes well.

The run is made in a process of its own, which ends without a word at its n-th change of the filesystem, for every n. A
killed process takes nothing with it that the kernel has; power cuts are for tests/lab.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import shutil
import time
from typing import Any

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils import linux
from ansible_collections.restorepoint.core.plugins.module_utils.backends.stored import layout, returning
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import RestorePointError
from ansible_collections.restorepoint.core.plugins.module_utils.core.run import RunFailed
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.backends.hostpath.place import (
    SETTLED,
    Place,
    picture,
)

CHANGES = ("rename", "mkdir", "unlink", "rmdir", "link", "symlink")
KILLED = 9


class Countdown:
    """Lets the process end before its n-th change."""

    def __init__(self, steps):
        self.left = steps

    def before(self, call):
        def counted(*arguments, **keywords):
            if self.left == 0:
                os._exit(KILLED)
            self.left -= 1
            return call(*arguments, **keywords)

        return counted


def killed_after(steps, action):
    """Carry out an action in a child that ends after so many changes; say whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            countdown = Countdown(steps)
            for name in CHANGES:
                setattr(os, name, countdown.before(getattr(os, name)))
            linux.renameat2 = countdown.before(linux.renameat2)
            action()
            os._exit(0)
        except BaseException:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, KILLED), "the run itself failed"
    return status == KILLED


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A target that was taken, damaged, returned and damaged again: there is a snapshot, and an aside."""
    place = Place(tmp_path_factory.mktemp("template"))
    (place.target / "d").mkdir()
    (place.target / "d" / "f").write_text("one")
    (place.target / "other").write_text("one")
    place.take("x")
    (place.target / "d" / "f").write_text("two")
    place.call("rolled_back", "x")
    for name in ("d/f", "other"):
        (place.target / name).write_text("three")
    time.sleep(SETTLED)
    return place


def copy_of(template, path):
    """Return a copy of the template whose paths are its own."""
    shutil.copytree(template.path, path, symlinks=True)
    place = Place(path)
    place.now = template.now
    old = place.store / template.folder.name
    for name in os.listdir(old):
        if name.endswith(".json"):
            text = (old / name).read_text().replace(str(template.path), str(path))
            (old / name).write_text(text)
    new = place.store / layout.folder_name(str(place.target))
    old.rename(new)
    aside = next(new.glob(".aside-*.json"))
    there = next(place.path.glob("target.aside-*"))
    record = json.loads(aside.read_text())
    record.update(inode=there.stat().st_ino, beside=place.path.stat().st_ino)
    aside.write_text(json.dumps(record))
    return place


def asides(place):
    return {each["name"]: picture(pathlib.Path(each["extra"]["path"])) for each in place.info()["asides"]}


def stored(place):
    return {name: picture(place.snapshot(name)) for name in place.names()}


def leftovers(place):
    """Return what neither a person nor a module would look for."""
    beside = [each for each in os.listdir(place.path) if each.startswith(".")]
    inside = [each for each in os.listdir(place.folder) if each.startswith((".new", ".old", ".pending"))]
    journal = [each for each in os.listdir(place.store) if each.startswith((".new", ".journal"))]
    return beside + inside + journal


ACTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "return": ("rolled_back", {}),
    "return without keeping": ("rolled_back", {"keep_current": False}),
    "return of parts": ("rolled_back", {"options": {"paths": ("d/f", "other")}}),
    "return once": ("rolled_back", {"once": "job 1"}),
    "replace": ("present", {"max_age": 1, "replace": True}),
    "create": ("present", {"name": "y"}),
    "remove": ("absent", {}),
    "remove an aside": ("absent", {"name": "the aside"}),
    "clone": ("cloned", {}),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_a_run_that_is_killed_anywhere_loses_nothing_and_the_next_one_goes_well(tmp_path, template, action):
    state, asked = ACTIONS[action]
    name, parts = asked.get("name", "x"), asked.get("options", {}).get("paths", ())
    was_killed, steps = True, 0
    while was_killed:
        place = copy_of(template, tmp_path / str(steps))
        clone = place.path / "clone"
        more = {key: value for key, value in asked.items() if key != "name"}
        if state == "cloned":
            more["clones"] = {str(place.target): str(clone)}
        before, snapshots, kept = picture(place.target), stored(place), asides(place)
        if action == "remove an aside":
            (name,) = kept
        was_killed = killed_after(steps, functools.partial(place.call, state, name, **more))

        # Whatever it had come to: the target is there, and is what it was or what it shall be.
        if state != "rolled_back":
            assert picture(place.target) == before
        elif not parts:
            assert picture(place.target) in (before, snapshots["x"])
        # A snapshot that can be seen and used is whole.
        for seen, content in stored(place).items():
            usable = next(each for each in place.info()["snapshots"] if each["name"] == seen)["ready"]
            assert not usable or content in (snapshots.get(seen), before)

        place.now += 7200
        place.call(state, name, **more)
        assert leftovers(place) == []
        after = stored(place)
        if state == "rolled_back":
            assert after == snapshots
            wanted = {**before, **{part: snapshots["x"][part] for part in parts}}
            found = picture(place.target)
            assert {path: each[5] for path, each in found.items()} == {
                path: each[5] for path, each in (wanted if parts else snapshots["x"]).items()
            }
            gone = [content for aside, content in asides(place).items() if aside not in kept]
            # Of two parts, one may have been returned by the run that was killed, and the other by the next one.
            assert len(gone) in (
                (0,) if asked.get("keep_current") is False else (1, 2) if asked.get("options") else (1,)
            )
        elif state == "cloned":
            assert picture(clone) == snapshots["x"]
        elif state == "absent":
            assert (after, asides(place)) == ((snapshots, {}) if action == "remove an aside" else ({}, kept))
        else:
            assert after[name] == before
        shutil.rmtree(place.path)
        steps += 1
    assert steps > 3


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path):
    found = Place(tmp_path)
    (found.target / "f").write_text("one")
    found.take("x")
    (found.target / "f").write_text("two")
    return found


@pytest.mark.parametrize(
    ("number", "words"),
    [(16, "mount point"), (18, "overlay"), (28, "free space"), (122, "quota"), (30, "mount that filesystem writable"),
     (13, "run as root"), (1, "run as root")],
)  # fmt: skip
def test_a_return_that_fails_says_the_way_out_and_leaves_the_target_as_it_was(place, monkeypatch, number, words):
    before = picture(place.path)

    def fail(*_unused, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(linux, "renameat2", fail)
    with pytest.raises(RunFailed, match=words):
        place.call("rolled_back")
    monkeypatch.undo()
    after = picture(place.path)
    assert {path: each[5] for path, each in after.items() if ".lock" not in path} == {
        path: each[5] for path, each in before.items() if ".lock" not in path
    }


def test_where_names_cannot_be_exchanged_two_renames_do_and_that_is_said(place, monkeypatch):
    def refuse(*_unused, **__):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(linux, "exchange", refuse)
    assert place.actions("rolled_back") == ["rolled_back"]
    assert (place.target / "f").read_text() == "one"
    assert any("cannot exchange two names" in warning for warning in place.warnings)
    assert leftovers(place) == []
    assert len(asides(place)) == 1


def test_a_record_that_cannot_be_read_does_not_hold_up_other_runs(place):
    (place.folder / ".pending-12345678.json").write_text("garbage")
    assert place.actions("present", "y") == ["created"]
    assert any("could not be completed" in warning for warning in place.warnings)


def test_a_corrupt_record_of_an_aside_is_named_and_passed_over(place):
    place.call("rolled_back")
    record = next(place.folder.glob(".aside-*.json"))
    record.write_text("garbage")
    assert place.actions("present", "y") == ["created"]
    assert any(record.name in warning for warning in place.warnings)


def test_an_aside_that_somebody_removed_is_not_shown(place):
    place.call("rolled_back")
    shutil.rmtree(next(place.path.glob("target.aside-*")))
    assert place.info()["asides"] == []


def test_tokens_are_remembered_but_not_for_ever(place):
    with place.looking() as backend:
        folder = backend.store.folder(str(place.target))
        for number in range(1100):
            if number in (0, 99, 1099):
                returning.remember_token(folder, f"job {number}", number)
        assert returning.known_tokens(folder) == {"job 0": 0, "job 99": 99, "job 1099": 1099}
        folder.close()


def test_an_error_of_ours_is_one_sentence():
    error = returning.failed("return /srv", OSError(16, "Device or resource busy", "/srv"), "/srv", ())
    assert isinstance(error, RestorePointError)
    assert str(error) == (
        "Cannot return /srv: Device or resource busy (/srv); "
        "/srv is a mount point: return parts of it with paths, or unmount it first."
    )
