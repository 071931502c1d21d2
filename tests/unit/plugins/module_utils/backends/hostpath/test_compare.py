# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory equals a snapshot, or the first difference is named: with the manifest's help and without."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.hostpath.compare import Comparison
from ansible_collections.restorepoint.core.plugins.module_utils.backends.hostpath.manifest import (
    Blocks,
    escape,
    open_manifest,
    read_blocks,
)
from ansible_collections.restorepoint.core.plugins.module_utils.backends.hostpath.options import exclude_pattern
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.backends.hostpath.place import Place

WITH, WITHOUT = True, False


def same_times(path):
    """Return what sets the times of a file back to what they are now."""
    st = os.lstat(path)
    return lambda: os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns), follow_symlinks=False)


@pytest.fixture
def place(tmp_path):
    found = Place(tmp_path)
    for name in ("d/sub", "empty"):
        (found.target / name).mkdir(parents=True)
    for name in ("a", "d/b", "d/sub/c", "z\n\tname"):
        (found.target / name).write_text(f"content of {name}")
    (found.target / "link").symlink_to("a")
    os.link(found.target / "d" / "b", found.target / "second")
    os.mkfifo(found.target / "fifo")
    found.take("x")
    return found


def difference(place, with_manifest, exclude=(), **options):
    """Return how the target differs from its snapshot."""
    live, stored = (os.open(path, os.O_RDONLY) for path in (place.target, place.snapshot()))
    folder = os.open(place.folder, os.O_RDONLY)
    try:
        with open_manifest(folder, "x.manifest") as stream:
            blocks = Blocks(read_blocks(stream, "x")) if with_manifest else None
            return Comparison(blocks, exclude_pattern(exclude), **options).difference(live, stored)
    finally:
        for fd in (live, stored, folder):
            os.close(fd)


@pytest.mark.parametrize("with_manifest", [WITH, WITHOUT])
def test_what_did_not_change_does_not_differ(place, with_manifest):
    assert difference(place, with_manifest) is None


def test_with_the_manifest_unchanged_files_are_not_read(place, monkeypatch):
    monkeypatch.setattr(os, "pread", lambda *_unused: pytest.fail("a file was read"))
    assert difference(place, WITH) is None


def append(path):
    with open(path, "a", encoding="utf-8") as stream:
        stream.write("more")


def overwrite(path):
    reset = same_times(path)
    with open(path, "r+", encoding="utf-8") as stream:
        stream.write("X")
    reset()


def other_kind(path):
    reset = same_times(path)
    path.unlink()
    path.mkdir()
    reset()


def other_link(path):
    reset = same_times(path)
    path.unlink()
    path.symlink_to("b")
    reset()


def attribute(path):
    try:
        os.setxattr(path, "user.colour", b"blue")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        append(path)  # no such attributes on this filesystem


def mode(path):
    path.chmod(stat.S_IMODE(path.stat().st_mode) ^ 0o010)


def older(path):
    os.utime(path, ns=(0, path.lstat().st_mtime_ns - 1), follow_symlinks=False)


def copied(path):
    """Make a file of a group a file of its own, alike in all else."""
    reset, data, bits = same_times(path), path.read_bytes(), stat.S_IMODE(path.stat().st_mode)
    path.unlink()
    path.write_bytes(data)
    path.chmod(bits)
    reset()


CHANGES = [
    ("a", append), ("a", overwrite), ("a", other_kind), ("a", attribute), ("a", mode), ("a", older),
    ("d/b", overwrite), ("d/sub/c", append), ("d/sub/c", mode), ("d/sub/c", overwrite), ("z\n\tname", overwrite),
    ("link", other_link), ("link", older), ("fifo", mode), ("fifo", older), ("fifo", other_kind),
    ("empty", mode), ("empty", older), ("empty", attribute), ("d/sub", mode), ("second", copied), ("d/b", copied),
    ("a", os.unlink), ("d/sub/c", os.unlink), ("z\n\tname", os.unlink), ("link", os.unlink), ("fifo", os.unlink),
    ("empty", os.rmdir), ("d/sub/new", lambda path: path.write_text("x")), ("new", lambda path: path.mkdir()),
    ("empty/new", lambda path: path.symlink_to("x")), ("0", lambda path: path.write_text("x")),
]  # fmt: skip


@pytest.mark.parametrize("with_manifest", [WITH, WITHOUT])
@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_each_single_change_is_seen_and_named(place, name, change, with_manifest):
    path = place.target / name
    above = same_times(path.parent)
    change(path)
    above()
    found = difference(place, with_manifest)
    assert found is not None
    linked = {"d/b", "second"} if name in ("d/b", "second") else {name}
    assert any(found.startswith(f"{each} ") for each in linked), found


@pytest.mark.parametrize("with_manifest", [WITH, WITHOUT])
def test_the_directory_itself_counts(place, with_manifest):
    place.target.chmod(0o700 if stat.S_IMODE(place.target.stat().st_mode) != 0o700 else 0o750)
    assert difference(place, with_manifest).startswith("the directory itself has mode")


@pytest.mark.parametrize("with_manifest", [WITH, WITHOUT])
def test_a_copy_that_is_alike_in_all_does_not_differ(place, with_manifest):
    copied(place.target / "a")
    same = place.snapshot().stat()
    os.utime(place.target, ns=(same.st_atime_ns, same.st_mtime_ns))
    assert difference(place, with_manifest) is None


def test_what_was_excluded_does_not_count(place):
    (place.target / "d" / "cache").mkdir()
    (place.target / "d" / "cache" / "x").write_text("x")
    same = (place.snapshot() / "d").stat()
    os.utime(place.target / "d", ns=(same.st_atime_ns, same.st_mtime_ns))
    assert difference(place, WITH) == "d/cache is not in the snapshot"
    assert difference(place, WITH, exclude=("cache",)) is None


def test_what_is_mounted_in_it_does_not_count(place):
    (place.target / "empty" / "of another filesystem").write_text("x")
    same = (place.snapshot() / "empty").stat()
    os.utime(place.target / "empty", ns=(same.st_atime_ns, same.st_mtime_ns))
    assert difference(place, WITH, mounts=frozenset({"/" + escape("empty")})) is None


def test_a_file_of_which_part_was_lost_names_where(place):
    big = bytes(3 << 20)
    (place.target / "big").write_bytes(big)
    place.take("y")
    reset = same_times(place.target / "big")
    with open(place.target / "big", "r+b") as stream:
        stream.seek((2 << 20) + 5)
        stream.write(b"x")
    reset()
    live, stored = (os.open(path, os.O_RDONLY) for path in (place.target, place.snapshot("y")))
    try:
        assert Comparison().file_difference(live, stored, "big") == "big has other content (after byte 2097152)"
        assert Comparison().file_difference(live, stored, "a") is None
        assert Comparison().file_difference(live, stored, "gone") == "gone is missing"
    finally:
        os.close(live)
        os.close(stored)


def test_no_descriptor_is_left_open(place):
    before = len(os.listdir("/proc/self/fd"))
    difference(place, WITH)
    append(place.target / "d" / "sub" / "c")
    difference(place, WITHOUT)
    assert len(os.listdir("/proc/self/fd")) == before
