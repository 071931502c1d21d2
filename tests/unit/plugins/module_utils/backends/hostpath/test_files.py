# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copying one file: what does not hold still, what is swapped meanwhile, how fast, and what cannot be kept."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.backends.hostpath import files, manifest
from ansible_collections.restorepoint.core.plugins.module_utils.core.run import RunFailed
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.backends.hostpath.place import Place

LARGE = files.SMALL + 5


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


class Meddler:
    """Does something to a file each time before or after it is read, up to ``times`` times."""

    def __init__(self, monkeypatch, what, times=1000, before=False):
        self.what, self.times, self.before, self.done = what, times, before, 0
        for name in ("pread", "copy_file_range"):
            monkeypatch.setattr(os, name, self._meddling(getattr(os, name)))

    def _meddling(self, read):
        def meddle(*arguments):
            if self.done < self.times and self.before:
                self.done += 1
                self.what()
            result = read(*arguments)
            if self.done < self.times and not self.before:
                self.done += 1
                self.what()
            return result

        return meddle


@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize("checksum", [False, True])
def test_a_file_that_changed_while_it_was_read_is_read_again(place, monkeypatch, size, checksum):
    path = place.target / "f"
    path.write_bytes(b"1" * size)
    Meddler(monkeypatch, lambda: path.write_bytes(b"2" * size), times=1)
    result = place.take(checksum=checksum)
    assert result["inconsistent"] == []
    assert (place.snapshot() / "f").read_bytes() == b"2" * size
    assert place.info(verify=True)["verified"][0]["ok"]


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize("change", ["grows", "shrinks"])
@pytest.mark.parametrize("before", [False, True])
def test_a_file_that_never_holds_still_is_named_and_the_snapshot_can_be_verified(
    place, monkeypatch, size, change, checksum, before
):
    path = place.target / "log"
    path.write_bytes(b"1" * size)

    def meddle():
        if change == "grows":
            with open(path, "ab") as stream:
                stream.write(b"more")
        else:
            os.truncate(path, max(0, path.stat().st_size - 3))

    Meddler(monkeypatch, meddle, before=before)
    result = place.take(checksum=checksum)
    monkeypatch.undo()
    assert result["inconsistent"] == ["log"]
    assert place.lines()["log"][manifest.CTIME] == "-"
    assert place.info(verify=True)["verified"][0]["faults"] == []


def test_with_require_consistent_that_is_an_error_and_leaves_no_snapshot(place, monkeypatch):
    path = place.target / "log"
    path.write_bytes(b"1")

    def grow():
        with open(path, "ab") as stream:
            stream.write(b"more")

    Meddler(monkeypatch, grow)
    with pytest.raises(RunFailed, match="did not hold still while they were read: log"):
        place.take(require_consistent=True)
    monkeypatch.undo()
    assert place.names() == []


@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize("other", ["link", "directory", "fifo", "nothing"])
def test_what_is_swapped_in_during_the_copy_is_not_followed(place, monkeypatch, other, size):
    (place.path / "secret").write_text("secret")
    path = place.target / "f"
    path.write_bytes(b"1" * size)
    open_file = os.open
    swapped: list[bool] = []

    def swap(name, flags, *arguments, **keywords):
        if name == "f" and not flags & os.O_CREAT and not swapped:
            swapped.append(True)
            path.unlink()
            if other == "link":
                path.symlink_to(place.path / "secret")
            elif other == "directory":
                path.mkdir()
            elif other == "fifo":
                os.mkfifo(path)
        return open_file(name, flags, *arguments, **keywords)

    monkeypatch.setattr(os, "open", swap)
    result = place.take()
    monkeypatch.undo()
    tree = place.snapshot()
    if other == "nothing":
        assert os.listdir(tree) == []
    else:
        assert stat.S_IFMT((tree / "f").lstat().st_mode) == stat.S_IFMT(path.lstat().st_mode)
        assert not (tree / "f").is_symlink() or os.readlink(tree / "f") == str(place.path / "secret")
        assert result["inconsistent"] == ["f"]
    assert place.info(verify=True)["verified"][0]["ok"]


def test_a_directory_swapped_for_a_link_is_not_followed(place, monkeypatch):
    (place.path / "outside").mkdir()
    (place.path / "outside" / "secret").write_text("secret")
    (place.target / "d").mkdir()
    (place.target / "d" / "f").write_text("x")
    open_file = os.open
    swapped: list[bool] = []

    def swap(name, flags, *arguments, **keywords):
        if name == "d" and not swapped:
            swapped.append(True)
            (place.target / "d" / "f").unlink()
            (place.target / "d").rmdir()
            (place.target / "d").symlink_to(place.path / "outside")
        return open_file(name, flags, *arguments, **keywords)

    monkeypatch.setattr(os, "open", swap)
    assert place.take()["inconsistent"] == ["d"]
    monkeypatch.undo()
    assert os.listdir(place.snapshot()) == []


@pytest.mark.parametrize("content", [b"", b"x", b"x" * files.SMALL, b"x" * LARGE, bytes(LARGE), b"a" + bytes(LARGE)])
def test_a_checksum_is_that_of_the_content_with_its_holes(place, content):
    path = place.target / "f"
    path.write_bytes(content)
    with open(place.target / "sparse", "wb") as stream:
        stream.truncate(LARGE)
    place.take(checksum=True)
    assert place.lines()["f"][manifest.CHECKSUM] == hashlib.sha256(content).hexdigest()
    assert place.lines()["sparse"][manifest.CHECKSUM] == hashlib.sha256(bytes(LARGE)).hexdigest()
    assert (place.snapshot() / "f").read_bytes() == content


def test_a_full_disk_is_told_with_the_way_out_and_leaves_nothing(place, monkeypatch):
    (place.target / "f").write_text("x")

    def full(fd, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        write = os.write
        patch.setattr(os, "write", lambda fd, data: full(fd, data) if bytes(data) == b"x" else write(fd, data))
        with pytest.raises(RunFailed, match=r"No space left on device \(f\); free space on the filesystem of"):
            place.call("present", "x")
    assert os.listdir(place.folder) == [".target.json"]


def test_a_short_write_is_a_full_disk(place, monkeypatch):
    (place.target / "f").write_text("xyz")
    with monkeypatch.context() as patch:
        write = os.write
        patch.setattr(os, "write", lambda fd, data: 1 if bytes(data) == b"xyz" else write(fd, data))
        with pytest.raises(RunFailed, match="No space left on device"):
            place.call("present", "x")


def test_reading_leaves_the_access_time_alone(place):
    path = place.target / "f"
    path.write_text("x")
    os.utime(path, ns=(5, path.stat().st_mtime_ns))
    place.take()
    assert path.stat().st_atime_ns == 5


# --- limits ----------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that goes on when somebody sleeps."""

    def __init__(self):
        self.now = 100.0
        self.slept = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(time, "sleep", found.sleep)
    return found


def test_a_limit_makes_a_stream_as_slow_as_it_says(clock):
    limiter = files.Limiter(1000, clock)
    for _unused in range(50):
        limiter.spend(100)
    assert clock.now - 100 == pytest.approx(50 * 100 / 1000)


def test_what_is_slower_than_the_limit_is_not_slowed_further(clock):
    limiter = files.Limiter(1000, clock)
    for _unused in range(50):
        clock.now += 1
        limiter.spend(100)
    assert clock.slept == []


def test_a_long_pause_does_not_allow_a_burst_of_more_than_a_tenth_of_a_second(clock):
    limiter = files.Limiter(1000, clock)
    clock.now += 3600
    started = clock.now
    for _unused in range(20):
        limiter.spend(100)
    assert clock.now - started == pytest.approx(2 - 0.1)


@pytest.mark.parametrize("size", [1000, LARGE])
def test_a_copy_obeys_the_limit(place, clock, size):
    (place.target / "f").write_bytes(os.urandom(size))
    ctime = (place.target / "f").stat().st_ctime_ns
    while time.time_ns() <= ctime + files.TICK_NS:
        pass  # sleeping is what this test watches
    place.call("present", "x", options={"bandwidth_limit": 10})
    # The copier has the real clock, for which no time goes by while this one sleeps: the last sleep is all of it, but
    # for the seconds that a busy machine takes for the copy.
    assert clock.slept[-1] == pytest.approx(size / 10, abs=30)


# --- losses ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(["ownership", "xattrs"]), st.text(max_size=3)), max_size=60))
def test_losses_are_counted_in_full_and_shown_by_a_few_examples(losses):
    known = files.Losses()
    for kind, path in losses:
        known.add(kind, path)
    result = known.as_result()
    for kind in {kind for kind, _unused in losses}:
        paths = [path for each, path in losses if each == kind]
        assert result[kind] == {"count": len(paths), "examples": paths[:20]}
    assert set(result) == {kind for kind, _unused in losses}


def test_a_device_that_may_not_be_made_is_named_and_does_not_count_as_missing(place, monkeypatch):
    os.mkfifo(place.target / "device")
    make = os.mknod

    def refuse(name, *arguments, **keywords):
        if name == "device":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        make(name, *arguments, **keywords)

    monkeypatch.setattr(os, "mknod", refuse)
    assert place.take()["not_kept"] == {"devices": {"count": 1, "examples": ["device"]}}
    monkeypatch.undo()
    assert place.info(verify=True)["verified"][0]["ok"]
    assert place.actions("rolled_back") == ["unchanged"]


def test_attributes_that_are_refused_are_named(place, monkeypatch):
    (place.target / "f").write_text("x")
    monkeypatch.setattr(files, "read_xattrs", lambda where: {"user.colour": b"blue"})

    def refuse(*_unused, **__):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    losses = place.take()["not_kept"]
    monkeypatch.undo()
    assert "f (user.colour)" in losses["xattrs"]["examples"]


def test_attributes_that_find_no_room_fail_the_copy_only_on_a_full_disk(tmp_path, monkeypatch):
    def no_room(*_unused, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "setxattr", no_room)
    copier = files.FileCopier((os.getuid(), os.getgid()))
    copier.set_xattrs(str(tmp_path), {"user.large": b"x"})
    assert copier.losses.counts == {"xattrs": 1}
    full = os.statvfs_result((4096, 4096, 1000, 10, 10, 1000, 500, 500, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _unused: full)
    with pytest.raises(OSError, match="No space left"):
        copier.set_xattrs(str(tmp_path), {"user.large": b"x"})
