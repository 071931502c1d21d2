# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Killed at any moment, or out of space, nothing is lost, nothing half done shows, and the next run ends well.

What is there is compared by likeness.py, which shares nothing with the engine.
"""

from __future__ import annotations

import datetime
import errno
import json
import os
import pathlib
import random
import re
import signal
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils import linux, mounts
from ansible_collections.restorepoint.core.plugins.module_utils.backends.stored import subvolume
from ansible_collections.restorepoint.core.tests.lab import faults
from ansible_collections.restorepoint.core.tests.lab.driver import (
    Failed,
    call,
    call_as,
    finished,
    info,
    start,
)
from ansible_collections.restorepoint.core.tests.lab.likeness import differences, snapshot_of

#: Every moment on every filesystem, instead of every one on ext4 and a sample on the others.
FULL = os.environ.get("RP_LAB_FULL") == "1"
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

    place: Any
    files: int = 8
    size: int = 200
    target: pathlib.Path = pathlib.Path()
    holds: dict[str, Any] = field(default_factory=dict)
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
        form = "%Y-%m-%dT%H:%M:%SZ"
        created = datetime.datetime.strptime(metadata["created"], form) - datetime.timedelta(hours=hours)
        path.write_text(json.dumps({**metadata, "created": created.strftime(form)}))

    def listed(self):
        """Return the names that the info module lists; each has to be whole, and to verify."""
        if not self.place.store.exists():
            return []
        try:
            found = info(store=self.place.store, verify=True, lock_timeout=0)
        except Failed as error:
            if "there is no store" not in str(error):
                raise
            return []
        assert [each for each in found["snapshots"] if not each["ready"]] == []
        assert [each for each in found["verified"] if not each["ok"]] == []
        return [each["name"] for each in found["snapshots"]]

    def asides(self):
        """Return what is aside, as the info module lists it."""
        found = info(store=self.place.store)["asides"]
        return [each["extra"]["path"] for each in found]

    def check_snapshots(self, *maybe):
        """Every snapshot holds what it should; ``maybe`` (name, content) are contents it may hold as well.

        Return the names of those that are there.
        """
        listed = self.listed()
        for name in listed:
            found = snapshot_of(self.folder / name)
            allowed = [content for key, content in maybe if key == name]
            allowed += [self.holds[name]] if name in self.holds else []
            assert any(differences(each, found) == [] for each in allowed), (name, differences(allowed[0], found))
        return listed


@dataclass
class Operation:
    """Something that is killed. ``options`` are the call's; what it must keep is checked after the kill and the end."""

    world: World
    old: Any = None
    #: The snapshots that have to be listed whatever happens: one that was lost would only not be compared.
    stay: ClassVar[frozenset[str]] = frozenset({"a"})

    def options(self) -> dict[str, Any]:
        raise NotImplementedError

    def prepare(self):
        self.world.take("a")
        self.old = self.world.change()

    def target_is(self, *contents):
        found = snapshot_of(self.world.target)
        assert any(differences(each, found) == [] for each in contents), differences(contents[0], found)

    def check_snapshots(self, *maybe):
        assert self.stay <= set(self.world.check_snapshots(*maybe))

    def halfway(self):
        self.target_is(self.old)
        self.check_snapshots()

    def ended(self):
        self.halfway()


class FirstTake(Operation):
    stay = frozenset()

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
        if "a" not in self.world.check_snapshots(("a", self.old)):
            # Between two renames neither has its name. The next run completes that, whatever it is asked for.
            call(**self.world.options, name="other", state="absent")
            self.check_snapshots(("a", self.old))

    def ended(self):
        self.world.holds["a"] = self.old
        self.target_is(self.old)
        self.check_snapshots()
        assert self.world.listed() == ["a"]


class Absent(Operation):
    stay = frozenset({"b"})

    def prepare(self):
        super().prepare()
        self.world.take("b")

    def options(self):
        return {"name": "a", "state": "absent"}

    def ended(self):
        super().ended()
        assert self.world.listed() == ["b"]


class Prune(Operation):
    stay = frozenset({"c"})

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
        self.check_snapshots()
        if self.old is None and not self.world.target.exists():
            return
        self.target_is(*filter(None, (self.old, self.new)))
        if differences(self.new, snapshot_of(self.world.target)) == []:
            assert self.is_kept()

    def is_kept(self):
        folder = self.world.target.parent
        near = [
            path
            for each in folder.iterdir()
            for path in (each, *(each.iterdir() if "restorepoint" in each.name else ()))
        ]
        return any(path.is_dir() and differences(self.old, snapshot_of(path)) == [] for path in near)

    def ended(self):
        self.check_snapshots()
        self.target_is(self.new)
        (aside,) = self.world.asides()
        assert differences(self.old, snapshot_of(aside)) == []


class ReturnWithoutAside(Return):
    def options(self):
        return {"name": "a", "state": "rolled_back", "keep_current": False}

    def is_kept(self):
        return True

    def ended(self):
        self.check_snapshots()
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
        self.check_snapshots()
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
        self.check_snapshots()
        found = snapshot_of(self.world.target)
        for part in self.parts:
            assert self.seen(found, part) in (self.seen(self.old, part), self.seen(self.new, part))
        self.check_around(found)

    def check_around(self, found):
        around = [{path: facts for path, facts in content.items()
                   if b".restorepoint" not in path and not any(self.seen({path: facts}, part) for part in self.parts)}
                  for content in (self.old, found)]  # fmt: skip
        # Between an exchange and the next call, the folder around a part is newer.
        assert [each for each in differences(around[0], around[1]) if "mtime_ns" not in each] == []

    def ended(self):
        self.check_snapshots()
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
    copying = [number for number, (phase, _unused) in enumerate(calls, 1) if phase == "prepare"]
    others = [number for number, (phase, _unused) in enumerate(calls, 1) if phase != "prepare"]
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
    for fstype, every in (("ext4", 1), ("btrfs-subvolume", 3), ("xfs", 12), ("btrfs", 12)):
        for number in kill_points(lab, fstype, kind)[:: 1 if FULL else every]:
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


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.__name__)
def test_a_disk_that_fails_at_any_call_loses_nothing(lab, kind, lasting):
    for number in kill_points(lab, "ext4", kind)[lasting :: 1 if FULL else 4]:
        with lab.place("ext4") as place:
            operation = kind(World(place))
            operation.prepare()
            countdown = faults.Countdown(number, error=errno.EIO, lasting=lasting)
            found = faults.start(countdown=countdown, **operation.world.options, **operation.options()).reported()
            try:
                assert not found.get("crashed"), found["msg"]
                assert not found.get("failed") or in_one_sentence(found["msg"]), found["msg"]
                finish_after_kill(operation)
            except Exception as error:
                raise AssertionError(f"failed at call {number}: {found.get('msg')} {found.get('warnings')}") from error


def kill_points(lab, fstype, kind, *prepare, phases=None):
    with lab.place(fstype) as place:
        operation = kind(World(place))
        operation.prepare()
        started = faults.start(*prepare, countdown=faults.Countdown(), **operation.world.options, **operation.options())
        found = started.reported()
        assert not found.get("failed"), found["msg"]
        operation.ended()
        wanted = points(found["calls"], sample=3)
        return [number for number in wanted if phases is None or found["calls"][number - 1][0] in phases]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", [Return, ReturnWithoutAside, ReturnParts, ReturnToNothing, Clone, RemoveAside],
                         ids=lambda kind: kind.__name__)  # fmt: skip
def test_killed_between_the_two_renames_of_a_filesystem_without_exchange_the_next_run_mends_it(lab, kind):
    def run(**options):
        return faults.run(faults.no_renameat2, **options)

    missed = 0
    for number in kill_points(lab, "ext4", kind, faults.no_renameat2, phases=("commit", "finish")):
        with lab.place("ext4") as place:
            operation = kind(World(place))
            operation.prepare()
            countdown = faults.Countdown(at=number)
            options = {**operation.world.options, **operation.options()}
            assert faults.start(faults.no_renameat2, countdown=countdown, **options).wait() is None
            if missing_for_a_moment(operation):
                missed += 1
                run(**{**operation.world.options, "name": "other"})
                operation.world.holds["other"] = snapshot_of(operation.world.target)
                assert not missing_for_a_moment(operation)
            try:
                finish_after_kill(operation, run)
            except Exception as error:
                raise AssertionError(f"killed before call {number}") from error
    assert (missed > 0) == (kind in (Return, ReturnWithoutAside, ReturnParts)), "no kill came between two renames"


def missing_for_a_moment(operation):
    target = operation.world.target
    parts = [target / os.fsdecode(part) for part in getattr(operation, "parts", ()) if part in operation.old]
    return operation.old is not None and not all(path.exists() for path in (target, *parts))


class Story:
    """One target that is changed, taken, returned and pruned, and killed at a random moment each time."""

    def __init__(self, place, seed):
        self.world = World(place, files=300, size=100)
        self.random = random.Random(seed)
        self.count = 0
        self.kills = 0
        self.world.take("s0")
        self.steps = [self.take, self.replace, self.absent, self.prune, self.back, self.back_for_good, self.clone,
                      self.forget]  # fmt: skip
        if not place.by_subvolume:  # there, what was in parts of it lies aside inside the target
            self.steps.append(self.parts)

    def kill_something(self):
        """Change the target, let something run that is killed, and look; say whether it was still running."""
        self.old = self.world.change()
        self.there = set(self.world.listed())
        options = {**self.world.options, **self.steps[self.count % len(self.steps)]()}
        self.count += 1
        longest = 0.15 if options.get("state", "present") in ("present", "rolled_back", "cloned") else 0.06
        killed = faults.start(**options).kill_after(self.random.uniform(0.01, longest))
        self.kills += killed
        self.look(options)
        call(**options)
        assert not call(**options)["changed"]
        self.look(options)
        assert leftovers(self.world.place.folder) == []
        self.after(options)

    def look(self, options):
        world, name = self.world, options.get("name")
        found = snapshot_of(world.target)
        allowed = [self.old]
        if options.get("state") == "rolled_back":
            allowed.append(world.holds[name] if "paths" not in options else self.mixed(world.holds[name]))
        assert any(differences(each, found, *self.ignored) == [] for each in allowed), differences(allowed[-1], found)
        listed = world.listed()
        if options.get("state") != "pruned":
            going = {name} if options.get("state") == "absent" or options.get("replace") else set()
            assert self.there - going <= set(listed)
        for each in {name, self.random.choice(listed)} & set(listed):
            content = snapshot_of(world.folder / each)
            wanted = [world.holds[each]] if each in world.holds else []
            wanted += [self.old] if options.get("state", "present") == "present" and each == name else []
            faults_of = [differences(one, content) for one in wanted]
            assert [] in faults_of, (each, options, faults_of)

    @property
    def ignored(self):
        # A part that was exchanged makes the folder around it newer until the next call; see ReturnParts.
        return ("mtime_ns",) if self.part else ()

    part: Any = None

    def mixed(self, new):
        """Return the old content with the part of the new one."""
        inside = (self.part.encode(), self.part.encode() + b"/")
        kept = {path: facts for path, facts in self.old.items() if path != inside[0] and not path.startswith(inside[1])}
        return {
            **kept,
            **{path: facts for path, facts in new.items() if path == inside[0] or path.startswith(inside[1])},
        }

    def after(self, options):
        if options.get("state", "present") == "present":
            self.world.holds[options["name"]] = self.old
        if options.get("state") == "rolled_back" and options.get("keep_current", True):
            newest = self.world.asides()[-1]
            kept = pathlib.Path(newest) / (self.part or "")
            before = self.old if not self.part else {
                path[len(self.part) + 1:]: facts for path, facts in self.old.items()
                if path == self.part.encode() or path.startswith(self.part.encode() + b"/")}  # fmt: skip
            assert differences(before, snapshot_of(kept), "one file") == []
        self.part = None

    def some(self):
        return self.random.choice(self.world.listed())

    def take(self):
        return {"name": f"t{self.count}"}

    def replace(self):
        name = self.some()
        self.world.make_older(name)
        return {"name": name, "replace": True, "max_age": "10min"}

    def absent(self):
        return {"name": self.some(), "state": "absent"} if len(self.world.listed()) > 1 else self.take()

    def prune(self):
        return {"state": "pruned", "keep": {"last": 2}, "asides": {"last": 1}}

    def back(self):
        return {"name": self.some(), "state": "rolled_back"}

    def back_for_good(self):
        return {"name": self.some(), "state": "rolled_back", "keep_current": False}

    def parts(self):
        self.part = "d0"
        return {"name": self.some(), "state": "rolled_back", "paths": ["d0"]}

    def clone(self):
        return {"name": self.some(), "state": "cloned", "clone": [self.world.place.folder / f"clone-{self.count}"]}

    def forget(self):
        """Remove content that was set aside."""
        names = [each["name"] for each in info(store=self.world.place.store)["asides"]]
        return {"name": self.random.choice(names), "state": "absent"} if names else self.absent()


@pytest.mark.usefixtures("quick")
def test_killed_at_a_hundred_random_moments_nothing_is_lost(lab):
    seed = int(os.environ.get("RP_LAB_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
    print(f"RP_LAB_SEED={seed}")
    kills = 0
    for fstype, wanted in (("ext4", 32), ("xfs", 24), ("btrfs", 16), ("btrfs-subvolume", 30)):
        with lab.place(fstype) as place:
            story = Story(place, seed)
            while story.kills < wanted:
                try:
                    story.kill_something()
                except Exception as error:
                    raise AssertionError(f"RP_LAB_SEED={seed}, {fstype}, step {story.count}") from error
            kills += story.kills
    assert kills >= 100


# -- a full disk -------------------------------------------------------------------------------------------------------

BLOCK = 4096


class FullDisk:
    """A filesystem with no room left but that of ``spare`` files, each of one block, which can be given up."""

    def __init__(self, folder, spare):
        self.folder = folder
        self.spares = [folder / f"spare-{number}" for number in range(spare)]
        for path in self.spares:
            path.write_bytes(os.urandom(BLOCK))
        self.ballast = folder / "ballast"
        self.fill()

    def fill(self):
        """Take all the room there is, in ever smaller pieces."""
        with open(self.ballast, "ab") as file:
            piece = 64 << 20
            while piece >= BLOCK:
                try:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, piece)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    piece //= 2
        self.sync()

    def sync(self):
        fd = os.open(self.folder, os.O_RDONLY)
        linux.syncfs(fd)
        os.close(fd)

    def give_up(self, count):
        for path in self.spares[:count]:
            path.unlink()
        self.sync()

    def empty(self):
        for path in (*self.spares, self.ballast):
            path.unlink(missing_ok=True)
        self.sync()


class Elsewhere:
    """A place on a filesystem of its own, for World."""

    by_subvolume = False

    def __init__(self, folder):
        self.folder = folder / "place"
        self.folder.mkdir()
        self.store = self.folder / "store"

    def make_target(self):
        target = self.folder / "target"
        target.mkdir()
        return target


def in_one_sentence(message):
    return (
        message.startswith("Cannot ") and message.endswith(".") and "\n" not in message and "Traceback" not in message
    )


def failure_of(options):
    """Run the module; return its failure, if it fails."""
    try:
        call(**options)
    except Failed as error:
        return error
    return None


NEEDS_ROOM = [FirstTake, Take, Replace, Return, ReturnWithoutAside, ReturnToNothing, ReturnParts, Clone]
MAKES_ROOM = [Absent, Prune, RemoveAside]


@pytest.mark.parametrize("kind", NEEDS_ROOM, ids=lambda kind: kind.__name__)
def test_a_disk_that_is_full_at_any_point_leaves_all_as_it_was(lab, kind):
    failures = 0
    for blocks in (0, 1, 2, 3, 4, 6, 9, 13, 18, 24, 32):
        with lab.extra_disk("ext4", 24 << 20) as disk:
            place = Elsewhere(disk)
            operation = kind(World(place, files=8, size=600))
            operation.prepare()
            before = leftovers(place.folder)
            full = FullDisk(disk, blocks)
            full.give_up(blocks)
            options = {**operation.world.options, **operation.options()}
            failure = failure_of(options)
            if failure is not None:
                failures += 1
                message = str(failure)
                assert in_one_sentence(message)
                assert "No space left" in message or re.search("needs .* has", message), message
                operation.halfway()
                assert leftovers(place.folder) == before
                full.empty()
                call(**options)
            full.empty()
            assert not call(**options)["changed"]
            operation.ended()
            assert leftovers(place.folder) == []
    assert failures


@pytest.mark.parametrize("kind", MAKES_ROOM, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(("fstype", "size"), [("ext4", 24 << 20), ("xfs", 300 << 20), ("btrfs", 128 << 20)])
def test_what_makes_room_works_on_a_full_disk(lab, kind, fstype, size):
    with lab.extra_disk(fstype, size) as disk:
        operation = kind(World(Elsewhere(disk)))
        operation.prepare()
        FullDisk(disk, 0)
        call(**operation.world.options, **operation.options())
        operation.ended()
        assert leftovers(operation.world.place.folder) == []


@pytest.mark.parametrize("kind", [Take, Return, ReturnParts, Clone], ids=lambda kind: kind.__name__)
def test_a_filesystem_without_inodes_left_leaves_all_as_it_was(lab, kind):
    failures = 0
    for inodes in (0, 1, 2, 4, 7, 12):
        with lab.extra_disk("ext4", 8 << 20) as disk:
            operation = kind(World(Elsewhere(disk)))
            operation.prepare()
            empty = disk / "empty"
            empty.mkdir()
            number = 0
            try:
                while True:
                    os.close(os.open(empty / str(number), os.O_CREAT | os.O_WRONLY))
                    number += 1
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            for each in range(inodes):
                (empty / str(each)).unlink()
            options = {**operation.world.options, **operation.options()}
            failure = failure_of(options)
            if failure is not None:
                failures += 1
                message = str(failure)
                assert in_one_sentence(message)
                assert "No space left" in message
                operation.halfway()
                assert leftovers(operation.world.place.folder) == []
                for each in empty.iterdir():
                    each.unlink()
                call(**options)
            operation.ended()
    assert failures > 3


# -- other runs, signals, tools ----------------------------------------------------------------------------------------


def test_a_tool_that_hangs_is_stopped_and_named(lab, tmp_path, monkeypatch):
    tool = tmp_path / "btrfs"
    tool.write_text("#!/bin/sh\nexec sleep 600\n")
    tool.chmod(0o755)
    with lab.place("btrfs-subvolume") as place:
        world = World(place)
        before = snapshot_of(world.target)
        with monkeypatch.context() as patch:
            patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
            patch.setattr(subvolume, "_TIMEOUT", 0.5)
            started = time.monotonic()
            with pytest.raises(Failed, match=r"did not end within 0\.5 s") as failure:
                call(name="a", **world.options)
            assert time.monotonic() - started < 60  # the program would go on for good
        assert in_one_sentence(str(failure.value))
        assert leftovers(place.folder) == []
        assert differences(before, snapshot_of(world.target)) == []
        world.take("a")
        world.check_snapshots()


def slow(world, **options):
    """Start a run that takes a minute and a half, so that it still runs when a busy machine comes to what is next."""
    with open(world.target / "large", "wb") as file:
        file.write(os.urandom(1 << 20) * 24)
    return start(**{**world.options, "bandwidth_limit": "256K", **options})


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.02)


def is_copying(world):
    folders = (world.place.folder, *world.place.store.glob("*/"))
    found = (path for folder in folders for path in folder.iterdir())
    return any(path.name.startswith((".new-", ".restorepoint-")) and path.is_dir() for path in found)


def test_of_two_runs_at_once_the_second_waits_or_names_the_first_and_readers_do_not_wait(ext4):
    world = World(ext4)
    world.take("a")
    first = slow(world, name="b", bandwidth_limit="2M")
    wait_for(lambda: is_copying(world))
    # It stands still until all is seen: so it cannot end before, and who waits for it waits in vain.
    first.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(Failed, match=rf"pid {first.pid} .* holds the lock") as failure:
            call(name="c", **world.options)
        assert in_one_sentence(str(failure.value))
        assert [each["name"] for each in info(store=ext4.store, lock_timeout=1)["snapshots"]] == ["a"]
        second = start(**{**world.options, "name": "c", "lock_timeout": 120})
    finally:
        first.send_signal(signal.SIGCONT)
    assert finished(first)["changed"]
    assert finished(second)["changed"]
    world.holds.update(dict.fromkeys(("b", "c"), snapshot_of(world.target)))
    assert world.listed() == ["a", "b", "c"]
    world.check_snapshots()


def test_first_runs_that_make_a_store_at_once_all_succeed(ext4):
    targets = [ext4.make_target(f"t{number}") for number in range(4)]
    runs = [start(path=[target], store=ext4.store, name="a", lock_timeout=120) for target in targets]
    assert [finished(each)["changed"] for each in runs] == [True] * 4
    assert len(info(store=ext4.store)["snapshots"]) == 4
    assert leftovers(ext4.folder) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("options", [{"name": "b"}, {"name": "a", "state": "rolled_back"}], ids=["take", "return"])
def test_a_signal_ends_a_run_at_once_and_leaves_nothing(ext4, number, options):
    world = World(ext4)
    with open(world.target / "large", "wb") as file:
        file.write(os.urandom(1 << 20) * 24)
    world.take("a")
    world.change()
    run = slow(world, **options)
    before = snapshot_of(world.target)
    wait_for(lambda: is_copying(world))
    time.sleep(0.2)
    run.send_signal(number)
    with pytest.raises(Failed, match=f"interrupted.*{signal.Signals(number).name}"):
        finished(run)
    assert leftovers(ext4.folder) == []
    assert differences(before, snapshot_of(world.target)) == []
    world.check_snapshots()
    assert world.listed() == ["a"]


def test_readers_never_stumble_over_what_changes_meanwhile(ext4):
    world = World(ext4)
    for name in ("a", "b", "c", "d"):
        world.take(name)
    world.make_older("d")
    seen = set()
    for _unused in range(6):
        runs = [faults.start(**world.options, name="d", replace=True, max_age="10min")]
        runs[0].wait()
        world.make_older("d")
        writer = faults.start(**world.options, name="d", replace=True, max_age="10min")
        for _unused in range(8):
            found = info(store=ext4.store)["snapshots"]
            assert all(each["ready"] for each in found), found
            seen |= {each["name"] for each in found}
            assert {"a", "b", "c"} <= {each["name"] for each in found}
        assert not writer.reported().get("failed")
        world.make_older("d")
    assert seen == {"a", "b", "c", "d"}


# -- one of three targets fails ----------------------------------------------------------------------------------------


@pytest.fixture
def three(ext4):
    """Three targets of an ordinary user, of which the second cannot be read to its end."""
    targets = [ext4.make_target(name) for name in ("one", "two", "three")]
    ext4.folder.chmod(0o755)
    ext4.store.mkdir(mode=0o700)
    for path in (*targets, ext4.store):
        os.chown(path, 65534, 65534)
    for path in targets:
        (path / "file").write_text(path.name)
        os.chown(path / "file", 65534, 65534)
    (targets[1] / "secret").write_text("nobody may read this")
    (targets[1] / "secret").chmod(0o600)
    return targets


def test_when_one_of_three_targets_fails_the_others_are_undone(ext4, three):
    with pytest.raises(Failed, match="Permission denied") as failure:
        call_as(65534, path=three, store=ext4.store, name="a")
    assert in_one_sentence(str(failure.value))
    assert [each["action"] for each in failure.value.result["results"]] == ["none", "failed", "none"]
    assert not failure.value.result["changed"]
    assert call_as(65534, info, store=ext4.store)["snapshots"] == []
    assert leftovers(ext4.folder) == []


def test_when_one_of_three_targets_fails_the_others_are_kept_where_asked(ext4, three):
    with pytest.raises(Failed, match="Permission denied") as failure:
        call_as(65534, path=three, store=ext4.store, name="a", on_failure="keep")
    assert [each["action"] for each in failure.value.result["results"]] == ["created", "failed", "created"]
    assert failure.value.result["changed"]
    found = call_as(65534, info, store=ext4.store, verify=True)
    assert sorted(each["target"] for each in found["snapshots"]) == sorted(map(str, (three[0], three[2])))
    assert all(each["ok"] for each in found["verified"])
    assert leftovers(ext4.folder) == []
    (three[1] / "secret").unlink()
    with pytest.raises(Failed, match="not be of one instant"):
        call_as(65534, path=three, store=ext4.store, name="a", on_failure="keep")
    done = call_as(65534, path=three, store=ext4.store, name="a", replace=True)
    assert sorted(each["action"] for each in done["results"]) == ["created", "replaced", "replaced"]


def test_when_one_of_three_returns_runs_out_of_space_the_others_are_as_they_were(lab, ext4):
    with lab.extra_disk("xfs", 300 << 20) as disk:
        targets = [ext4.make_target("one"), disk / "two", ext4.make_target("three")]
        targets[1].mkdir()
        for target in targets:
            (target / "file").write_bytes(os.urandom(4 << 20))
        call(path=targets, store=ext4.store, name="a")
        for target in targets:
            (target / "file").write_text("changed")
        before = [snapshot_of(target) for target in targets]
        full = FullDisk(disk, 0)
        options = {"path": targets, "store": ext4.store, "name": "a", "state": "rolled_back"}
        with pytest.raises(Failed, match="No space left"):
            call(**options)
        assert [differences(one, snapshot_of(target)) for one, target in zip(before, targets)] == [[], [], []]
        with pytest.raises(Failed, match="No space left") as failure:
            call(**options, on_failure="keep")
        assert [each["action"] for each in failure.value.result["results"]] == ["rolled_back", "failed", "rolled_back"]
        assert leftovers(ext4.folder, disk) == []
        full.empty()
        assert call(**options)["changed"]
        assert not call(**options)["changed"]
        assert len(info(store=ext4.store)["asides"]) == 3
