# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Killed at any moment, nothing is lost, nothing half done shows, and the next run ends where it should.

What is there is compared by likeness.py, which shares nothing with the engine.
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import random
import time
from dataclasses import dataclass, field

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils import linux, mounts
from ansible_collections.restorepoint.core.tests.lab import faults
from ansible_collections.restorepoint.core.tests.lab.driver import Failed, call, info
from ansible_collections.restorepoint.core.tests.lab.likeness import differences, snapshot_of

_HIDDEN = (".new-", ".old-", ".pending-", ".journal", ".restorepoint-")
_EXPECTED = (".restorepoint-store.json", ".restorepoint-aside-")


def leftovers(*folders):
    """Return what runs of ours have left hidden in these folders and below."""
    found = []
    for folder in folders:
        for directory, below, files in os.walk(folder):
            found += [f"{directory}/{name}" for name in (*below, *files)
                      if name.startswith(_HIDDEN) and not name.startswith(_EXPECTED)]  # fmt: skip
    return found


@dataclass
class World:
    """A target with its store, and what each snapshot of it has to hold."""

    place: object
    files: int = 8
    size: int = 200
    target: pathlib.Path = None
    holds: dict = field(default_factory=dict)
    changes: int = 0

    def __post_init__(self):
        self.target = self.place.make_target()
        for number in range(self.files):
            folder = self.target / f"d{number % 4}"
            folder.mkdir(exist_ok=True)
            (folder / f"f{number}").write_bytes(b"%d " % number * self.size)
        (self.target / "d1" / "link").symlink_to("f1")
        os.link(self.target / "d1" / "f1", self.target / "d2" / "other name")
        os.setxattr(self.target / "d3" / "f3", "user.note", b"kept")
        os.mkfifo(self.target / "fifo")
        self.settle()

    @property
    def options(self):
        return {"path": [self.target], "store": self.place.store, "lock_timeout": 0}

    @property
    def folder(self):
        """The target's folder in the store."""
        (found,) = (each for each in self.place.store.iterdir() if each.is_dir())
        return found

    @staticmethod
    def settle():
        """Let the clock that stamps files tick, so that the engine may trust what it saw."""
        time.sleep(0.03)

    def take(self, name):
        call(name=name, **self.options)
        self.holds[name] = snapshot_of(self.target)

    def change(self):
        """Change the target: its root too, a part, a name, a new file and one less."""
        self.changes += 1
        (self.target / "d0" / "f0").write_text(f"changed {self.changes}")
        (self.target / "d0" / f"new {self.changes}").write_text("new")
        (self.target / "at the top").write_text(str(self.changes))
        (self.target / "d3" / "f3").unlink(missing_ok=True)
        self.settle()
        return snapshot_of(self.target)

    def make_older(self, name, hours=1):
        """Pretend that a snapshot was taken that long ago."""
        path = self.folder / f"{name}.json"
        metadata = json.loads(path.read_text())
        created = datetime.datetime.strptime(metadata["created"], "%Y-%m-%dT%H:%M:%SZ") - datetime.timedelta(hours=hours)
        path.write_text(json.dumps({**metadata, "created": created.strftime("%Y-%m-%dT%H:%M:%SZ")}))

    def listed(self):
        """Return the names that the info module lists; each has to be whole, and to verify."""
        if not self.place.store.exists():
            return []
        try:
            found = info(store=self.place.store, verify=True, lock_timeout=0)
        except Failed as error:
            assert "there is no store" in str(error)
            return []
        assert [each for each in found["snapshots"] if not each["ready"]] == []
        assert [each for each in found["verified"] if not each["ok"]] == []
        return [each["name"] for each in found["snapshots"]]

    def asides(self):
        """Return what is aside, as the info module lists it."""
        found = info(store=self.place.store)["asides"]
        return [each["extra"]["path"] for each in found]

    def check_snapshots(self, *maybe):
        """Every snapshot holds what it should; ``maybe`` (name, content) are contents it may hold as well."""
        for name in self.listed():
            found = snapshot_of(self.folder / name)
            allowed = [content for key, content in maybe if key == name]
            allowed += [self.holds[name]] if name in self.holds else []
            assert any(differences(each, found) == [] for each in allowed), (name, differences(allowed[0], found))


@dataclass
class Operation:
    """Something that is killed. ``options`` are the call's; what it must keep is checked after the kill and the end."""

    world: World

    def options(self):
        raise NotImplementedError

    def prepare(self):
        self.world.take("a")
        self.old = self.world.change()

    def target_is(self, *contents):
        found = snapshot_of(self.world.target)
        assert any(differences(each, found) == [] for each in contents), differences(contents[0], found)

    def halfway(self):
        self.target_is(self.old)
        self.world.check_snapshots()

    def ended(self):
        self.halfway()


class FirstTake(Operation):
    def prepare(self):
        self.old = snapshot_of(self.world.target)
        self.world.holds["a"] = self.old

    def options(self):
        return {"name": "a"}

    def ended(self):
        super().ended()
        assert self.world.listed() == ["a"]


class Take(Operation):
    def prepare(self):
        super().prepare()
        self.world.holds["b"] = self.old

    def options(self):
        return {"name": "b"}

    def ended(self):
        super().ended()
        assert self.world.listed() == ["a", "b"]


class Replace(Operation):
    def prepare(self):
        super().prepare()
        self.world.make_older("a")

    def options(self):
        return {"name": "a", "replace": True, "max_age": "10min"}

    def halfway(self):
        self.target_is(self.old)
        self.world.check_snapshots(("a", self.old))

    def ended(self):
        self.world.holds["a"] = self.old
        self.target_is(self.old)
        self.world.check_snapshots()
        assert self.world.listed() == ["a"]


class Absent(Operation):
    def prepare(self):
        super().prepare()
        self.world.take("b")

    def options(self):
        return {"name": "a", "state": "absent"}

    def ended(self):
        super().ended()
        assert self.world.listed() == ["b"]


class Prune(Operation):
    def prepare(self):
        super().prepare()
        for name in ("b", "c"):
            self.world.take(name)

    def options(self):
        return {"state": "pruned", "keep": {"last": 1}}

    def ended(self):
        super().ended()
        assert self.world.listed() == ["c"]


class Describe(Operation):
    def options(self):
        return {"name": "a", "description": "before the upgrade", "labels": {"ticket": "7"}}

    def ended(self):
        super().ended()
        assert info(store=self.world.place.store)["snapshots"][0]["description"] == "before the upgrade"


class Return(Operation):
    def options(self):
        return {"name": "a", "state": "rolled_back", "once": "job 7"}

    def prepare(self):
        super().prepare()
        self.new = self.world.holds["a"]

    def halfway(self):
        self.world.check_snapshots()
        if self.old is None and not self.world.target.exists():
            return
        self.target_is(*filter(None, (self.old, self.new)))
        if differences(self.new, snapshot_of(self.world.target)) == []:
            assert self.is_kept()

    def is_kept(self):
        folder = self.world.target.parent
        near = [path for each in folder.iterdir() for path in (each, *(each.iterdir() if "restorepoint" in each.name else ()))]
        return any(path.is_dir() and differences(self.old, snapshot_of(path)) == [] for path in near)

    def ended(self):
        self.world.check_snapshots()
        self.target_is(self.new)
        (aside,) = self.world.asides()
        assert differences(self.old, snapshot_of(aside)) == []


class ReturnWithoutAside(Return):
    def options(self):
        return {"name": "a", "state": "rolled_back", "keep_current": False}

    def is_kept(self):
        return True

    def ended(self):
        self.world.check_snapshots()
        self.target_is(self.new)
        assert self.world.asides() == []
        assert [each.name for each in self.world.target.parent.iterdir()] in (["store", "target"], ["target", "store"])


class ReturnToNothing(Return):
    """The target is gone altogether."""

    def prepare(self):
        super().prepare()
        self.world.target.rename(self.world.target.with_name("elsewhere"))
        self.old = None

    def is_kept(self):
        return True

    def ended(self):
        self.world.check_snapshots()
        self.target_is(self.new)
        assert self.world.asides() == []


class ReturnParts(Return):
    """Each part is what it was, or what the snapshot holds; everything around is as it was."""

    parts = (b"d0", b"d3/f3", b"d2/f2")

    def prepare(self):
        self.world.take("a")
        (self.world.target / "d2" / "f2").write_text("changed")
        self.old = self.world.change()
        self.new = self.world.holds["a"]

    def options(self):
        return {"name": "a", "state": "rolled_back", "paths": [os.fsdecode(part) for part in self.parts]}

    def seen(self, content, part):
        return {path: facts for path, facts in content.items() if path == part or path.startswith(part + b"/")}

    def halfway(self):
        self.world.check_snapshots()
        found = snapshot_of(self.world.target)
        for part in self.parts:
            assert self.seen(found, part) in (self.seen(self.old, part), self.seen(self.new, part))
        self.check_around(found)

    def check_around(self, found):
        around = [{path: facts for path, facts in content.items()
                   if b".restorepoint" not in path and not any(self.seen({path: facts}, part) for part in self.parts)}
                  for content in (self.old, found)]  # fmt: skip
        # Between an exchange and the next call, the folder around a part is newer.
        assert [each for each in differences(*around) if "mtime_ns" not in each] == []

    def ended(self):
        self.world.check_snapshots()
        found = snapshot_of(self.world.target)
        for part in self.parts:
            assert self.seen(found, part) == self.seen(self.new, part)
        self.check_around(found)
        kept = [snapshot_of(path) for path in self.world.asides()]
        for part in self.parts:
            old = self.seen(self.old, part)
            assert not old or any(self.seen(content, part) == old for content in kept)


class Clone(Operation):
    def options(self):
        return {"name": "a", "state": "cloned", "clone": [self.place]}

    @property
    def place(self):
        return self.world.place.folder / "clone"

    def ended(self):
        super().ended()
        assert differences(self.world.holds["a"], snapshot_of(self.place)) == []

    def halfway(self):
        super().halfway()
        if self.place.exists():
            assert differences(self.world.holds["a"], snapshot_of(self.place)) == []


class RemoveAside(Operation):
    def prepare(self):
        super().prepare()
        aside = call(name="a", state="rolled_back", **self.world.options).only["aside"]
        self.name, self.path, self.content = aside["name"], aside["path"], self.old
        self.old = snapshot_of(self.world.target)

    def options(self):
        return {"name": self.name, "state": "absent"}

    def halfway(self):
        super().halfway()
        if os.path.exists(self.path):
            assert differences(self.content, snapshot_of(self.path)) == []
        else:
            assert self.world.asides() == []

    def ended(self):
        super().ended()
        assert not os.path.exists(self.path)


OPERATIONS = [FirstTake, Take, Replace, Absent, Prune, Describe, Return, ReturnWithoutAside, ReturnToNothing,
              ReturnParts, Clone, RemoveAside]  # fmt: skip


def finish_after_kill(operation, run=call):
    """Look after a kill, run again, look again; a further run changes nothing."""
    world = operation.world
    operation.halfway()
    run(**world.options, **operation.options())
    operation.ended()
    assert leftovers(world.place.folder) == []
    again = run(**world.options, **operation.options())
    assert not again["changed"]
    operation.ended()


def points(calls, sample):
    """Return at which calls to kill: all but those of the copying, of which ``sample`` are enough."""
    copying = [number for number, (phase, _) in enumerate(calls, 1) if phase == "prepare"]
    others = [number for number, (phase, _) in enumerate(calls, 1) if phase != "prepare"]
    step = max(1, len(copying) // sample)
    return sorted({*others, *copying[::step], *copying[-3:]})


@pytest.fixture
def quick(monkeypatch):
    """Sync nothing where only processes are killed: what they wrote is there. (Btrfs needs it to tell generations.)"""
    plain = linux.syncfs
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(linux, "syncfs", lambda fd: plain(fd) if fstype_of(fd) == "btrfs" else None)


def fstype_of(fd):
    return mounts.containing(mounts.read_mounts(), os.path.realpath(f"/proc/self/fd/{fd}")).fstype


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.__name__)
def test_killed_before_any_call_that_counts_it_loses_nothing(lab, kind):
    for fstype, every in (("ext4", 1), ("btrfs-subvolume", 2), ("xfs", 5), ("btrfs", 5)):
        for number in kill_points(lab, fstype, kind)[::every]:
            with lab.place(fstype) as place:
                operation = kind(World(place))
                operation.prepare()
                countdown = faults.Countdown(at=number)
                found = faults.start(countdown=countdown, **operation.world.options, **operation.options()).wait()
                assert found is None, f"call {number} was never made: {found}"
                try:
                    finish_after_kill(operation)
                except Exception as error:
                    raise AssertionError(f"{fstype}, killed before call {number}") from error


def kill_points(lab, fstype, kind, *prepare):
    with lab.place(fstype) as place:
        operation = kind(World(place))
        operation.prepare()
        started = faults.start(*prepare, countdown=faults.Countdown(), **operation.world.options, **operation.options())
        found = started.wait()
        assert not found.get("failed"), found["msg"]
        operation.ended()
        return points(found["calls"], sample=6)
