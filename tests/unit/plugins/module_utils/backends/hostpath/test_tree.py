# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a snapshot holds, and what it shares with the one before it."""

from __future__ import annotations

import errno
import os
import socket
import stat
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.backends.hostpath import manifest
from ansible_collections.restorepoint.core.plugins.module_utils.backends.hostpath.files import TICK_NS
from ansible_collections.restorepoint.core.plugins.module_utils.core.run import RunFailed
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.backends.hostpath.names import NAMES
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.backends.hostpath.place import (
    Place,
    picture,
)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def inode(path):
    return os.lstat(path).st_ino


def every_kind(path):
    """Put there what an ordinary user can make."""
    (path / "empty").mkdir()
    (path / "d" / "deep" / "er").mkdir(parents=True)
    (path / "d" / "file").write_text("content")
    (path / "d" / "deep" / "er" / "nothing").write_text("")
    (path / "exact").write_bytes(os.urandom(1 << 20))
    (path / "large").write_bytes(os.urandom((1 << 20) + 1))
    (path / "link").symlink_to("d/file")
    (path / "dangling").symlink_to("../outside\nof it")
    (path / "to-a-directory").symlink_to("d")
    os.mkfifo(path / "fifo", 0o640)
    bound = socket.socket(socket.AF_UNIX)
    directory = os.getcwd()
    os.chdir(path)  # a path to a socket may not be long
    try:
        bound.bind("socket")
    finally:
        os.chdir(directory)
        bound.close()
    (path / "one").write_text("two names")
    os.link(path / "one", path / "d" / "two")
    with open(path / "sparse", "wb") as stream:
        stream.truncate(3 << 20)
        stream.seek(1 << 20)
        stream.write(b"island")
    (path / "d" / "file").chmod(0o4751)
    (path / "d" / "deep").chmod(0o1770)
    (path / "a\tname\nof\\lines").write_text("hostile")
    (path / os.fsdecode(b"no-utf8-\xff")).write_text("broken")
    os.utime(path / "exact", ns=(1_000_000_000_123_456_789, 1_100_000_000_987_654_321))
    os.utime(path / "link", ns=(0, 123_456_789), follow_symlinks=False)
    os.utime(path / "empty", ns=(0, 5))
    (path / "forbidden").write_text("mode 0")
    (path / "forbidden").chmod(0o400)
    try:
        os.setxattr(path / "one", "user.colour", b"blue")
        os.setxattr(path / "forbidden", "user.colour", b"red") if os.geteuid() == 0 else None
        os.setxattr(path / "d", "user.empty", b"")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # tmpfs before Linux 6.6
            raise


def test_a_snapshot_is_the_tree_itself_with_every_kind_of_file(place):
    every_kind(place.target)
    result = place.take()
    assert result["inconsistent"] == []
    assert result["not_kept"] == {}
    assert picture(place.snapshot()) == picture(place.target)
    assert result["files"] + result["others"] + result["directories"] == len(picture(place.target))
    assert result["bytes"] == sum(each[3] for each in picture(place.target).values() if stat.S_ISREG(each[0]))


def test_holes_stay_holes(place):
    with open(place.target / "sparse", "wb") as stream:
        stream.truncate(64 << 20)
        stream.seek(40 << 20)
        stream.write(b"island")
    place.take()
    assert (place.snapshot() / "sparse").stat().st_blocks * 512 < 1 << 20


def test_nothing_outside_is_followed(place):
    (place.path / "outside").mkdir()
    (place.path / "outside" / "secret").write_text("secret")
    (place.target / "way-out").symlink_to(place.path / "outside")
    place.take()
    assert os.readlink(place.snapshot() / "way-out") == str(place.path / "outside")


def test_the_second_snapshot_shares_what_did_not_change_and_copies_what_did(place):
    for name in ("same", "content", "mode", "time", "gone"):
        (place.target / name).write_text("one")
    place.take("x")
    (place.target / "content").write_text("two")
    (place.target / "mode").chmod(0o600 if stat.S_IMODE((place.target / "mode").stat().st_mode) != 0o600 else 0o640)
    os.utime(place.target / "time", ns=(0, 0))
    (place.target / "gone").unlink()
    (place.target / "new").write_text("new")
    result = place.take("y")
    assert (result["linked_files"], result["copied_files"], result["strategy"]) == (1, 4, "hardlink")
    shared = {name for name in os.listdir(place.snapshot("y"))
              if name != "new" and inode(place.snapshot("x") / name) == inode(place.snapshot("y") / name)}  # fmt: skip
    assert shared == {"same"}
    assert picture(place.snapshot("y")) == picture(place.target)
    assert (place.snapshot("x") / "content").read_text() == "one"


def test_a_change_that_keeps_size_and_times_is_seen(place):
    file = place.target / "f"
    file.write_text("one")
    place.take("x")
    before = file.stat()
    file.write_text("two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    place.take("y")
    assert [(place.snapshot(name) / "f").read_text() for name in "xy"] == ["one", "two"]


def test_a_file_that_took_the_place_of_another_is_seen(place):
    file = place.target / "f"
    file.write_text("one")
    place.take("x")
    times = file.stat()
    (place.path / "other").write_text("two")
    os.utime(place.path / "other", ns=(times.st_atime_ns, times.st_mtime_ns))
    os.rename(place.path / "other", file)
    place.take("y")
    assert (place.snapshot("y") / "f").read_text() == "two"


def test_a_file_that_was_only_just_written_is_given_time_to_come_to_rest(place):
    """Whoever reads it within a write gets old and new bytes, with the same times before and after."""
    (place.target / "fresh").write_text("one")
    began = time.time_ns()
    place.call("present", "x")
    ctime = (place.target / "fresh").stat().st_ctime_ns
    assert time.time_ns() > max(began, ctime + TICK_NS)
    assert place.lines("x")["fresh"][manifest.CTIME] == str(ctime)
    result = place.take("y")
    assert (result["linked_files"], result["copied_files"]) == (1, 0)
    assert place.take("z")["linked_files"] == 1


def test_names_of_one_file_stay_names_of_one_file(place):
    (place.target / "a").write_text("x")
    (place.target / "d").mkdir()
    os.link(place.target / "a", place.target / "d" / "b")
    os.link(place.target / "a", place.target / "c")
    (place.target / "other").write_text("x")
    for name in ("x", "y"):
        place.take(name)
        tree = place.snapshot(name)
        assert inode(tree / "a") == inode(tree / "c") == inode(tree / "d" / "b") != inode(tree / "other")
    os.unlink(place.target / "c")
    place.take("z")
    assert inode(place.snapshot("z") / "a") == inode(place.snapshot("z") / "d" / "b")


def test_a_new_name_of_an_old_file_joins_the_others(place):
    (place.target / "b").write_text("x")
    place.take("x")
    os.link(place.target / "b", place.target / "a")
    place.take("y")
    assert inode(place.snapshot("y") / "a") == inode(place.snapshot("y") / "b")
    assert inode(place.snapshot("y") / "b") != inode(place.snapshot("x") / "b"), "the old snapshot has one name only"


def test_where_a_file_has_as_many_links_as_it_can_have_it_is_copied(place, monkeypatch):
    (place.target / "a").write_text("x")
    place.take("x")

    def full(*_unused, **__):
        raise OSError(errno.EMLINK, "Too many links")

    monkeypatch.setattr(os, "link", full)
    result = place.take("y")
    assert (result["linked_files"], result["copied_files"], result["not_kept"]) == (0, 1, {})
    assert inode(place.snapshot("y") / "a") != inode(place.snapshot("x") / "a")


def test_names_of_one_file_that_cannot_be_kept_together_are_named(place, monkeypatch):
    (place.target / "a").write_text("x")
    os.link(place.target / "a", place.target / "b")

    def full(*_unused, **__):
        raise OSError(errno.EMLINK, "Too many links")

    monkeypatch.setattr(os, "link", full)
    assert place.take()["not_kept"] == {"hardlinks": {"count": 1, "examples": ["b"]}}
    assert (place.snapshot() / "b").read_text() == "x"


def test_an_error_of_the_disk_is_told_with_its_file_and_leaves_nothing(place, monkeypatch):
    (place.target / "d").mkdir()
    (place.target / "d" / "bad").write_text("x")
    open_file = os.open

    def fail(path, *arguments, **keywords):
        if path == "bad":
            raise OSError(errno.EIO, "Input/output error", path)
        return open_file(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(RunFailed, match=r"Input/output error \(d/bad\); the disk reports errors"):
        place.call("present", "x")
    monkeypatch.undo()
    assert place.names() == []
    assert [name for name in os.listdir(place.folder) if name != ".target.json"] == []


def test_a_manifest_that_was_tampered_with_is_not_built_on(place):
    (place.target / "a").write_text("x")
    place.take("x")
    with open(place.folder / "x.manifest", "a", encoding="utf-8") as stream:
        stream.write("garbage\n")
    result = place.take("y")
    assert (result["linked_files"], result["copied_files"]) == (0, 1)
    assert any("not built on x" in warning for warning in place.warnings)


def test_a_snapshot_without_checksums_cannot_stand_in_for_one_with_them(place):
    (place.target / "a").write_text("x")
    place.take("x")
    assert place.take("y", checksum=True)["linked_files"] == 0
    assert place.take("z", checksum=True)["linked_files"] == 1
    assert place.lines("z")["a"][manifest.CHECKSUM] == (
        "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    )


def test_what_is_excluded_is_not_there_and_its_directory_is_not_entered(place):
    for name in ("keep", "cache", "sub"):
        (place.target / name).mkdir()
        (place.target / name / "x.log").write_text("x")
        (place.target / name / "y").write_text("y")
    result = place.take("x", exclude=("*.log", "/cache"))
    assert sorted(os.listdir(place.snapshot())) == ["keep", "sub"]
    assert os.listdir(place.snapshot() / "sub") == ["y"]
    assert result["files"] == 2


def test_a_run_as_somebody_else_says_what_it_could_not_keep(place, monkeypatch):
    (place.target / "mine").write_text("x")
    (place.target / "mine").chmod(0o4755)

    def refuse(*_unused, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    stat_of = os.stat

    class Foreign:
        """A file that belongs to somebody else."""

        def __init__(self, st):
            self._st = st

        def __getattr__(self, name):
            return {"st_uid": 4711, "st_gid": 4711}.get(name) or getattr(self._st, name)

    def foreign(path, *arguments, **keywords):
        st = stat_of(path, *arguments, **keywords)
        return Foreign(st) if path == "mine" else st

    fstat_of = os.fstat
    ours = inode(place.target / "mine")
    monkeypatch.setattr(os, "fchown", refuse)
    monkeypatch.setattr(os, "stat", foreign)
    monkeypatch.setattr(os, "fstat", lambda fd: Foreign(st) if (st := fstat_of(fd)).st_ino == ours else st)
    result = place.take()
    monkeypatch.undo()
    assert result["not_kept"] == {"ownership": {"count": 1, "examples": ["mine"]}}
    assert stat.S_IMODE((place.snapshot() / "mine").stat().st_mode) == 0o755, "no set-user-ID of somebody else"


NODES = st.recursive(
    st.one_of(st.binary(max_size=30), st.just("link")),
    lambda below: st.dictionaries(NAMES, below, max_size=4),
    max_leaves=10,
)


def plant(path, tree):
    os.mkdir(path)
    for name, node in tree.items():
        below = os.path.join(path, name)
        if isinstance(node, dict):
            plant(below, node)
        elif isinstance(node, bytes):
            with open(below, "wb") as stream:
                stream.write(node)
        else:
            os.symlink(name, below)


@given(st.dictionaries(NAMES, NODES, max_size=4), st.dictionaries(NAMES, NODES, max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_tree_after_any_other_is_kept_as_it_is(tmp_path_factory, first, second):
    place = Place(tmp_path_factory.mktemp("any"))
    for name, tree in (("x", first), ("y", second)):
        plant(place.target / name, tree)
        place.call("present", name)
        assert picture(place.snapshot(name)) == picture(place.target)
        assert place.info(name=name, verify=True)["verified"][0]["ok"]
