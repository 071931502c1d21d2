# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""btrfs_snapshot killed at every call that changes a filesystem, on a failing or full disk, with a tool that hangs.

Nothing is lost, and the next run ends well. `faults.py` counts the calls.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
from typing import Any, ClassVar

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.stored import subvolume
from ansible_collections.restorepoint.core.plugins.module_utils.backends.stored.store import Store
from ansible_collections.restorepoint.core.tests.lab import driver, faults
from ansible_collections.restorepoint.core.tests.lab.driver import Failed
from ansible_collections.restorepoint.core.tests.lab.filesystems import mounts_below, run, unmount
from ansible_collections.restorepoint.core.tests.lab.test_btrfs_mounted import Mounted
from ansible_collections.restorepoint.core.tests.lab.volumes import Volumes, create, picture, uuid

NESTED = ("db", "srv/deep")


class Operation:
    """One call, what it begins with, and what has to hold when it, or the next run after it, has ended well."""

    name: str | None = "a"
    state = "present"
    options: ClassVar[dict[str, object]] = {}
    #: Whether there is a snapshot called a before and afterwards, which then must never be lost.
    stays: ClassVar[bool] = True

    def __init__(self, volumes):
        self.volumes = volumes
        self.target = volumes.make(*NESTED)
        self.old = picture(self.target)
        self.prepare()
        self.new = picture(self.target)
        self.nested = {path: uuid(self.target / path) for path in NESTED}

    def prepare(self):
        """Make what the call begins with."""

    def change(self):
        """Change every file of the target."""
        for path in ("file", *(f"{each}/file" for each in NESTED)):
            (self.target / path).write_text("two")

    @property
    def arguments(self):
        return {"store": self.volumes.store, "subvolume": [self.target], "name": self.name, "state": self.state,
                **self.options}  # fmt: skip

    def again(self):
        return driver.btrfs_call(**self.arguments)

    def is_whole(self):
        """Assert, right after recovery, what must not be lost whatever was done."""
        assert picture(self.target) in (self.old, self.new)
        assert not self.stays or self.volumes.names == ["a"]

    def is_done(self):
        """Assert that it is done."""
        raise NotImplementedError


class Take(Operation):
    stays = False
    options: ClassVar[dict[str, object]] = {"recursive": True}

    def is_done(self):
        (shown,) = self.volumes.info(verify=True)["snapshots"]
        assert shown["ready"]
        assert [each["path"] for each in shown["extra"]["nested"]] == list(NESTED)


class Replace(Take):
    stays = True
    options: ClassVar[dict[str, object]] = {"recursive": True, "replace": True, "max_age": "0s"}

    def prepare(self):
        self.volumes.call(recursive=True)
        self.first = self.volumes.info()["snapshots"][0]["extra"]["uuid"]

    @property
    def arguments(self):
        # Only the next second makes the first one older than nothing: damage makes it not count at once.
        if self.volumes.info()["snapshots"][0]["extra"].get("uuid") == self.first:
            (path,) = self.volumes.store.glob("*data*/a.nested/0")
            run("btrfs", "property", "set", "-ts", path, "ro", "false")
        return {**super().arguments, "max_age": "1h"}


class Absent(Operation):
    stays = False
    state = "absent"

    def prepare(self):
        self.volumes.call(recursive=True)

    def is_done(self):
        assert self.volumes.names == []
        assert list(self.volumes.store.glob("*/[!.]*")) == []


class Return(Operation):
    """Of the whole tree."""

    state = "rolled_back"
    options: ClassVar[dict[str, object]] = {"recursive": True}

    def prepare(self):
        self.volumes.call(recursive=True)
        self.change()

    def is_done(self):
        assert picture(self.target) == self.old
        (aside,) = self.volumes.info()["asides"]
        assert picture(self.volumes.folder / f"data.{aside['name']}") == self.new


class ReturnAround(Return):
    """Of the outer subvolume alone: those inside are moved over, as they are."""

    options: ClassVar[dict[str, object]] = {"recursive": False}

    def prepare(self):
        super().prepare()
        self.old = {**picture(self.target), "file": "one"}

    def is_whole(self):
        super().is_whole()
        assert {path: uuid(self.target / path) for path in NESTED} == self.nested

    def is_done(self):
        self.is_whole()
        assert picture(self.target) == self.old
        (aside,) = self.volumes.info()["asides"]
        assert (self.volumes.folder / f"data.{aside['name']}" / "file").read_text() == "two"


class ReturnWithoutAside(ReturnAround):
    options: ClassVar[dict[str, object]] = {"keep_current": False}

    def is_done(self):
        self.is_whole()
        assert picture(self.target) == self.old
        assert self.volumes.info()["asides"] == []


class Clone(Operation):
    state = "cloned"

    @property
    def arguments(self):
        return {**super().arguments, "recursive": True, "clone": [self.clone]}

    def prepare(self):
        self.volumes.call(recursive=True)
        self.clone = self.volumes.folder / "copy"

    def is_done(self):
        assert picture(self.clone) == self.old


class RemoveAside(Operation):
    state = "absent"

    def prepare(self):
        self.volumes.call(recursive=True)
        self.change()
        self.name = self.volumes.call("a", "rolled_back", recursive=True).only["aside"]["name"]

    def is_done(self):
        assert self.volumes.info()["asides"] == []
        assert sorted(each.name for each in self.volumes.folder.iterdir()) == ["data", "store"]


OPERATIONS = [Take, Replace, Absent, Return, ReturnAround, ReturnWithoutAside, Clone, RemoveAside]


@pytest.fixture
def quick(monkeypatch):
    """Let nothing wait for the disk: a killed process takes nothing with it that the kernel has."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@contextlib.contextmanager
def begun(lab, kind):
    with lab.place("btrfs") as place:
        yield kind(Volumes(place.folder))


def calls_of(lab, kind):
    """Return the calls of the operation when nothing goes wrong."""
    with begun(lab, kind) as operation:
        report = faults.start(call=driver.btrfs_call, countdown=faults.Countdown(), **operation.arguments).reported()
        assert not report.get("failed"), report
        operation.is_done()
        return report["calls"]


def ends_well(operation):
    """Let the next runs, first one that asks for something else, find everything, and do what was asked."""
    driver.btrfs_call(store=operation.volumes.store, subvolume=[operation.target], name="z", state="absent")
    operation.is_whole()
    if (operation.volumes.store / ".restorepoint-store.json").exists():  # else the next that takes one clears it up
        assert not operation.volumes.leftovers()
    again = operation.again()
    assert {each["action"] for each in again["results"]} != {"failed"}
    operation.is_done()
    assert not operation.volumes.leftovers()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.__name__)
def test_killed_before_any_call_that_counts_it_loses_nothing(lab, kind):
    for at in range(1, len(calls_of(lab, kind)) + 1):
        with begun(lab, kind) as operation:
            assert (
                faults.start(call=driver.btrfs_call, countdown=faults.Countdown(at), **operation.arguments).wait()
                is None
            )
            try:
                ends_well(operation)
            except (AssertionError, Failed, OSError) as error:
                raise AssertionError(f"killed before call {at}: {error}") from error


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize(
    "kind", [Take, Return, ReturnAround, ReturnWithoutAside, RemoveAside], ids=lambda kind: kind.__name__
)
def test_a_disk_that_fails_at_any_call_loses_nothing(lab, kind, lasting):
    for at in range(1, len(calls_of(lab, kind)) + 1, 2):
        with begun(lab, kind) as operation:
            countdown = faults.Countdown(at, errno.EIO, lasting)
            report = faults.start(call=driver.btrfs_call, countdown=countdown, **operation.arguments).reported()
            assert not report.get("crashed"), (at, report["calls"][-1], report["msg"])
            try:
                ends_well(operation)
            except (AssertionError, Failed, OSError) as error:
                raise AssertionError(f"failing at call {at} {report['calls'][at - 1]}: {error}") from error


@pytest.mark.usefixtures("quick")
def test_killed_while_a_mounted_default_subvolume_is_returned_the_next_run_completes_it(lab, tmp_path_factory):
    def begin(top):
        volumes = Mounted(top, tmp_path_factory.mktemp("mounted"))
        subvolume.set_default(str(top / "@"))
        volumes.mount("rw")
        volumes.call("a")
        (volumes.target / "file").write_text("two")
        return volumes, {"store": volumes.store, "subvolume": [volumes.target], "name": "a", "state": "rolled_back"}

    at, count = 0, None
    while count is None or at < count:
        with lab.extra_disk("btrfs") as top:
            volumes, options = begin(top)
            try:
                child = faults.start(call=driver.btrfs_call, countdown=faults.Countdown(at or None), **options)
                report = child.wait()
                if count is None:
                    count = len((report or {})["calls"])
                driver.btrfs_call(**options)
                assert picture(top / "@") == {"file": "one"}, at
                assert subvolume.default_number(str(top)) == subvolume.show(str(top / "@")).number, at
                (aside,) = volumes.info()["asides"]
                assert picture(top / aside["extra"]["filesystem_path"][1:]) == {"file": "two"}, at
                assert not [each for each in os.listdir(top) if each.startswith(".restorepoint")], at
            finally:
                for place in mounts_below(volumes.folder):
                    unmount(place)
        at += 1


def fill(folder):
    """Write until nothing more fits."""
    with open(folder / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * (1 << 20))
    for number in range(2000):
        try:
            (folder / f"filler-{number}").write_bytes(b"y" * 2000)
        except OSError:
            break
    with contextlib.suppress(OSError):
        run("sync")


def failure_of(operation):
    """Return what the call fails with, or None."""
    try:
        operation.again()
    except Failed as error:
        return error.result["msg"]
    return None


@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.__name__)
def test_on_a_full_disk_it_is_done_or_all_stays_as_it_was(lab, kind):
    with lab.extra_disk("btrfs", 128 << 20) as disk:
        operation = kind(Volumes(disk))
        filler = create(disk / "full")
        fill(filler)
        failure = failure_of(operation)
        if failure is not None:
            assert "No space left on device" in failure
            assert kind not in (Absent, RemoveAside), "removing has to work on a full disk"
        run("btrfs", "subvolume", "delete", "--commit-after", filler)
        run("btrfs", "subvolume", "sync", disk)  # its room comes back only when the kernel has cleaned up behind it
        operation.is_whole()
        operation.again()
        run("sync")
        if kind is RemoveAside:
            assert operation.volumes.info()["asides"] == []
        else:
            operation.is_done()
        assert not operation.volumes.leftovers()


def test_a_tool_that_hangs_is_stopped_and_named_and_nothing_is_left(lab, tmp_path, monkeypatch):
    real = shutil.which("btrfs", path=os.environ["PATH"] + ":/usr/sbin:/sbin:/usr/bin")
    with lab.place("btrfs") as place:
        volumes = Volumes(place.folder)
        volumes.make()
        program = tmp_path / "btrfs"
        program.write_text(f'#!/bin/sh\ncase "$2" in snapshot) exec sleep 600;; *) exec {real} "$@";; esac\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setattr(subvolume, "_TIMEOUT", 0.5)
        with pytest.raises(Failed, match=r"btrfs subvolume snapshot .* did not end within 0\.5 s and was stopped"):
            volumes.call()
        assert not volumes.leftovers()
        monkeypatch.undo()
        volumes.twice()


def test_a_run_waits_for_the_program_that_a_killed_one_has_left_running(lab, tmp_path, monkeypatch):
    real = shutil.which("btrfs", path=os.environ["PATH"] + ":/usr/sbin:/sbin:/usr/bin")
    begun, go = tmp_path / "begun", tmp_path / "go"
    os.mkfifo(begun)
    os.mkfifo(go)
    with lab.place("btrfs") as place:
        volumes = Volumes(place.folder)
        volumes.make()
        options: dict[str, Any] = {"store": volumes.store, "subvolume": [volumes.target]}
        program = tmp_path / "btrfs"
        waits = f"case $2 in snapshot) echo > {begun}; read -r go < {go};; esac"
        program.write_text(f'#!/bin/sh\n{waits}\nexec {real} "$@"\n')
        program.chmod(0o755)
        with monkeypatch.context() as changed:
            changed.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
            child = faults.start(call=driver.btrfs_call, name="first", **options)
        begun.read_text()
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() is None
        with pytest.raises(Failed, match=rf"perhaps a program that pid {child.pid} .* holds the lock"):
            volumes.call("second", lock_timeout=0)
        second = faults.start(call=driver.btrfs_call, name="second", lock_timeout=100, **options)
        go.write_text("go\n")
        assert second.reported()["results"][0]["action"] == "created"
        assert volumes.names == ["second"]  # what the killed run's program made was half of its work, and is gone
        assert not volumes.leftovers()


def test_of_two_runs_at_once_the_second_waits_or_names_the_first(lab):
    with lab.place("btrfs") as place:
        volumes = Volumes(place.folder)
        volumes.make()
        volumes.call("first")
        options: dict[str, Any] = {"store": volumes.store, "subvolume": [volumes.target]}
        children = [faults.start(call=driver.btrfs_call, name=f"n{number}", **options) for number in range(4)]
        assert [child.reported()["results"][0]["action"] for child in children] == ["created"] * 4
        assert sorted(volumes.names) == ["first", "n0", "n1", "n2", "n3"]
        with (
            Store(str(volumes.store), "btrfs").writing(1),
            pytest.raises(Failed, match=rf"pid {os.getpid()} .* holds the lock"),
        ):
            volumes.call("late", lock_timeout=0)


def test_when_one_of_two_fails_the_other_is_undone_unless_it_is_to_be_kept(lab):
    with lab.place("btrfs") as place:
        volumes = Volumes(place.folder)
        targets = [volumes.make(), volumes.make(name="other")]

        def fail_second():
            real, taken = subvolume.snapshot, []

            def snapshot(source, dest, read_only):
                taken.append(source)
                if len(taken) == 2:
                    raise OSError(errno.EIO, "Input/output error", source)
                real(source, dest, read_only)

            subvolume.snapshot = snapshot

        options: dict[str, Any] = {
            "store": volumes.store,
            "subvolume": targets,
            "name": "a",
        }
        report = faults.start(fail_second, call=driver.btrfs_call, **options).reported()
        assert "Input/output error" in report["msg"]
        assert volumes.names == []
        report = faults.start(fail_second, call=driver.btrfs_call, on_failure="keep", **options).reported()
        assert [each["action"] for each in report["results"]] == ["created", "failed"]
        assert volumes.names == ["a"]
        assert not volumes.leftovers()
