# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A snapshot is as it was written, or each file that is not is named."""

from __future__ import annotations

import os
import stat

import pytest

from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.backends.hostpath.place import Place


@pytest.fixture(params=[False, True], ids=["", "checksum"])
def place(tmp_path, request):
    found = Place(tmp_path)
    for name in ("d/sub", "empty"):
        (found.target / name).mkdir(parents=True)
    for name in ("a", "d/b", "d/sub/c", "z\n\tname"):
        (found.target / name).write_text(f"content of {name}")
    (found.target / "link").symlink_to("a")
    os.mkfifo(found.target / "fifo")
    found.take("x", checksum=request.param)
    return found


@pytest.fixture
def checksum(request):
    return request.node.callspec.params["place"]


def verify(place):
    (found,) = place.info(verify=True)["verified"]
    assert found["ok"] == (not found["faults"])
    return found


def faults(place):
    return {each["path"]: each["fault"] for each in verify(place)["faults"]}


def test_a_snapshot_as_it_was_written_has_no_fault(place, checksum):
    found = verify(place)
    assert found["ok"]
    assert (found["files"], found["fault_count"]) == (6, 0)
    assert found["bytes_read"] == (sum(len(f"content of {name}") for name in ("a", "d/b", "d/sub/c", "z\n\tname"))
                                   if checksum else 0)  # fmt: skip
    assert found["proof"] == ("every byte" if checksum else "kind, size, mode, owner, times and attributes")


def append(path):
    with open(path, "a", encoding="utf-8") as stream:
        stream.write("more")


def older(path):
    os.utime(path, ns=(0, path.lstat().st_mtime_ns - 1), follow_symlinks=False)


def mode(path):
    path.chmod(stat.S_IMODE(path.stat().st_mode) ^ 0o010)


def other_kind(path):
    path.unlink()
    path.mkdir()


def other_link(path):
    st = path.lstat()
    path.unlink()
    path.symlink_to("b")
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns), follow_symlinks=False)


DAMAGES = [
    ("a", append, "bytes instead of"), ("a", older, "was modified"), ("a", mode, "has mode"),
    ("a", other_kind, "is of another kind"), ("a", os.unlink, "is missing"), ("link", other_link, "points elsewhere"),
    ("d/sub/c", append, "bytes instead of"), ("d/sub/c", os.unlink, "is missing"), ("fifo", mode, "has mode"),
    ("z\n\tname", append, "bytes instead of"), ("empty", mode, "has mode"), ("empty", older, "was modified"),
    ("empty", os.rmdir, "the directory is missing"), ("d/sub", mode, "has mode"),
    ("new", lambda path: path.write_text("x"), "is not in the manifest"),
    ("new", lambda path: path.mkdir(), "is not in the manifest"),
    ("d/sub/new", lambda path: path.symlink_to("x"), "is not in the manifest"),
    ("d/sub/new", lambda path: path.mkdir(), "is not in the manifest"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "fault"), DAMAGES)
def test_each_single_damage_is_named_and_nothing_else(place, name, damage, fault):
    path = place.snapshot() / name
    above = path.parent.stat()
    damage(path)
    os.utime(path.parent, ns=(above.st_atime_ns, above.st_mtime_ns))
    found = faults(place)
    assert list(found) == [name]
    assert fault in found[name]


def test_other_content_of_the_same_size_and_time_is_found_with_a_checksum_only(place, checksum):
    path = place.snapshot() / "a"
    st = path.stat()
    path.write_text("CONTENT of a")
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
    assert faults(place) == ({"a": "has other content than its checksum says"} if checksum else {})


def test_every_damage_is_named(place):
    append(place.snapshot() / "a")
    append(place.snapshot() / "d" / "sub" / "c")
    (place.snapshot() / "d" / "b").unlink()
    assert set(faults(place)) == {"a", "d", "d/b", "d/sub/c"}


def test_with_a_directory_all_in_it_is_missing_and_that_is_told_of_each_directory(place):
    for each in ("c", "."):
        path = place.snapshot() / "d" / "sub" / each
        path.rmdir() if each == "." else path.unlink()
    (place.snapshot() / "d" / "b").unlink()
    (place.snapshot() / "d").rmdir()
    assert {path: fault for path, fault in faults(place).items() if path != "."} == {
        "d": "the directory is missing", "d/sub": "the directory is missing",
    }  # fmt: skip


def test_the_directory_itself_counts(place):
    place.snapshot().chmod(0o711)
    assert list(faults(place)) == ["."]


def test_a_manifest_that_is_not_the_one_that_was_written_proves_nothing(place):
    with open(place.folder / "x.manifest", "a", encoding="utf-8") as stream:
        stream.write("more\n")
    found = verify(place)
    assert (found["ok"], found["proof"]) == (False, "none")
    assert found["faults"] == [{"path": "x.manifest", "fault": "it is not the manifest that was written"}]


def test_a_missing_manifest_proves_nothing(place):
    (place.folder / "x.manifest").unlink()
    found = verify(place)
    assert found["proof"] == "none"
    assert found["faults"] == [{"path": "x.manifest", "fault": "No such file or directory"}]


def test_a_snapshot_that_is_not_usable_says_why(place):
    (place.folder / "x.json").write_text("garbage")
    found = verify(place)
    assert found["proof"] == "none"
    assert "metadata is corrupt" in found["faults"][0]["fault"]


def test_very_many_faults_are_counted_and_the_first_are_listed(tmp_path):
    place = Place(tmp_path)
    for number in range(1005):
        (place.target / str(number)).write_text("")
    place.take("x")
    for each in os.listdir(place.snapshot()):
        os.utime(place.snapshot() / each, (0, 0))
    (found,) = place.info(verify=True)["verified"]
    assert (found["fault_count"], len(found["faults"])) == (1005, 1000)


def test_no_descriptor_is_left_open(place):
    before = len(os.listdir("/proc/self/fd"))
    verify(place)
    append(place.snapshot() / "d" / "sub" / "c")
    verify(place)
    assert len(os.listdir("/proc/self/fd")) == before
