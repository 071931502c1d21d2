# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who uses a directory: with a made-up /proc, and with real processes of our own.

What needs root (real mount namespaces) is in tests/lab/test_users.py.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils import users
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import ToolError
from ansible_collections.restorepoint.core.plugins.module_utils.mounts import parse
from ansible_collections.restorepoint.core.plugins.module_utils.users import User, Users, find_users

TARGET = "/lab/data"
ROOT = "20 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw"
PROC = "21 20 0:5 / /proc rw - proc proc rw"
POD_ROOT = "50 49 0:60 / / rw - overlay overlay rw"


class FakeProc:
    """A folder that looks like /proc. Process 100 is the caller, in mount namespace 1."""

    def __init__(self, path):
        self.path = path
        os.symlink("100", path / "self")
        self.add(100, "python", [ROOT, PROC])

    def add(self, pid, comm, mountinfo, *, namespace=1, root="/", cwd="/", files=(), maps=()):
        """Add a process; files are pairs of a path and a mount id, maps are paths."""
        folder = self.path / str(pid)
        for name in ("ns", "fd", "fdinfo"):
            (folder / name).mkdir(parents=True)
        (folder / "comm").write_text(comm + "\n")
        (folder / "mountinfo").write_text("\n".join(mountinfo) + "\n")
        (folder / "maps").write_text(
            "".join(f"7f0000-7f1000 r-xp 00000000 08:01 77 {' ' * 20}{path}\n" for path in maps)
            + "7ffc000-7ffd000 rw-p 00000000 00:00 0    [stack]\n7ffe000-7fff000 rw-p 00000000 00:00 0 \n"
        )
        os.symlink(f"mnt:[{namespace}]", folder / "ns" / "mnt")
        os.symlink("pid:[4026531836]", folder / "ns" / "pid")
        os.symlink(root, folder / "root")
        os.symlink(cwd, folder / "cwd")
        for fd, (file, mount_id) in enumerate(files):
            os.symlink(file, folder / "fd" / str(fd))
            (folder / "fdinfo" / str(fd)).write_text(f"pos:\t0\nflags:\t0100002\nmnt_id:\t{mount_id}\nino:\t7\n")

    def users(self, target=TARGET, **options):
        return find_users(target, proc=str(self.path), **options)

    def texts(self, target=TARGET, **options):
        return self.users(target, **options).describe()


@pytest.fixture
def proc(tmp_path):
    return FakeProc(tmp_path)


def test_a_directory_that_nobody_uses_has_no_users(proc):
    proc.add(200, "nginx", [ROOT], cwd="/var", files=[("/dev/null", 24), ("socket:[77]", 9), ("/lab/database", 20)])
    assert proc.users() == Users((), 0, ())
    assert proc.users().complete


def test_an_open_file_is_named_relative_to_the_directory(proc):
    proc.add(4711, "postgres", [ROOT], files=[("/dev/null", 24), ("/lab/data/base/1/1259", 20)])
    (user,) = proc.users().found
    assert user == User(4711, "postgres", "open file", "base/1/1259", "/lab/data/base/1/1259", 1)
    assert str(user) == "pid 4711 (postgres) has base/1/1259 open"


def test_many_open_files_of_a_process_are_one_user(proc):
    files = [("/lab/data/a", 20), ("/lab/data/b", 20), ("/lab/data/c", 20), ("/lab/data/a", 20)]
    proc.add(4711, "postgres", [ROOT], files=files)
    (text,) = proc.texts()
    assert text.startswith("pid 4711 (postgres) has ")
    assert text.endswith(" open and 2 other files")


def test_a_deleted_file_inside_still_counts(proc):
    proc.add(200, "java", [ROOT], files=[("/lab/data/log (deleted)", 20)])
    assert proc.texts() == ["pid 200 (java) has log (deleted) open"]


def test_an_earlier_directory_of_the_same_name_is_not_the_directory(proc):
    proc.add(200, "bash", [ROOT], cwd="/lab/data (deleted)")
    proc.add(300, "pause", [POD_ROOT, "51 50 8:1 /lab/data//deleted /data rw - ext4 x rw"], namespace=2)
    assert proc.texts() == []


def test_a_working_directory_counts(proc):
    proc.add(200, "bash", [ROOT], cwd="/lab/data")
    proc.add(300, "bash", [ROOT], cwd="/lab/data/sub")
    assert proc.texts() == ["pid 200 (bash) works in it", "pid 300 (bash) works in sub"]


def test_a_chrooted_process_without_any_mount_under_its_root_is_found(proc):
    proc.add(300, "httpd", [], root="/lab/data/jail", cwd="/lab/data/jail/tmp", maps=["/lab/data/jail/httpd"])
    assert proc.texts() == [
        "pid 300 (httpd) works in jail/tmp",
        "pid 300 (httpd) has jail as its root directory",
        "pid 300 (httpd) has jail/httpd mapped into memory",
    ]


def test_a_chrooted_process_is_traced_by_the_mounts_under_its_root(proc):
    table = ["20 1 8:1 /lab/data/jail / rw - ext4 x rw", "60 20 8:1 /lab/data/files /pub rw - ext4 x rw"]
    proc.add(300, "httpd", table, root="/lab/data/jail", cwd="/lab/data/jail/tmp", files=[("/lab/data/jail/pub/x", 60)])
    assert proc.texts() == [
        "a mount namespace of pid 300 (httpd) has files mounted at /lab/data/jail/pub",
        "pid 300 (httpd) works in jail/tmp",
        "pid 300 (httpd) has jail as its root directory",
        "pid 300 (httpd) has files/x open",
    ]


def test_mapped_files_count_also_with_blanks_and_newlines_in_their_names(proc):
    proc.add(200, "java", [ROOT], maps=["/usr/lib/libc.so.6", "/lab/data/my lib.so", "/lab/data/a\\012b", "/lab/datax"])
    (user,) = proc.users().found
    assert str(user) == "pid 200 (java) has my lib.so mapped into memory and 1 other file"
    proc.add(300, "java", [ROOT], maps=["/lab/data/a\\012b"])
    assert proc.users().found[1].path == "a\nb"


def test_a_single_file_can_be_asked_for_too(proc):
    files = [("/lab/data/file", 20), ("/lab/data/file2", 20)]
    proc.add(200, "java", [ROOT], files=files, maps=["/lab/data/file", "/lab/data/file2"])
    assert proc.texts("/lab/data/file") == ["pid 200 (java) has it open", "pid 200 (java) has it mapped into memory"]


def test_a_bind_mount_in_another_namespace_is_a_user_without_any_open_file(proc):
    proc.add(812, "pause", [POD_ROOT, "51 50 8:1 /lab/data /data rw - ext4 /dev/sda1 rw"], namespace=2)
    assert proc.texts() == ["a mount namespace of pid 812 (pause) has it mounted at /data"]


def test_a_bind_mount_of_something_inside_is_a_user(proc):
    proc.add(812, "pause", [POD_ROOT, "51 50 8:1 /lab/data/sub /data rw - ext4 /dev/sda1 rw"], namespace=2)
    assert proc.texts() == ["a mount namespace of pid 812 (pause) has sub mounted at /data"]


def test_a_bind_mount_of_something_above_or_beside_is_no_user(proc):
    table = [POD_ROOT, "51 50 8:1 /lab /lab rw - ext4 x rw", "52 50 8:1 /lab/database /b rw - ext4 x rw"]
    proc.add(812, "pause", [*table, "53 50 8:2 /lab/data /other-disk rw - ext4 x rw"], namespace=2)
    assert proc.texts() == []


def test_a_namespace_is_read_once_for_all_its_processes(proc):
    for pid in (812, 813, 814):
        proc.add(pid, "pause", [POD_ROOT, "51 50 8:1 /lab/data /data rw - ext4 x rw"], namespace=2)
    (proc.path / "813" / "mountinfo").write_text("not read at all")
    assert len(proc.users().found) == 1


def test_a_copy_of_our_namespace_adds_no_users(proc):
    proc.add(300, "udevd", [ROOT.replace("20 1", "90 89"), "91 90 0:77 / /tmp rw - tmpfs tmpfs rw"], namespace=2)
    assert proc.texts() == []


def test_a_bind_mount_in_our_own_namespace_is_a_user_once(proc, tmp_path):
    bound = "22 20 8:1 /lab/data /export rw - ext4 x rw"
    (tmp_path / "100" / "mountinfo").write_text(f"{ROOT}\n{bound}\n")
    proc.add(200, "bash", [ROOT, bound])
    proc.add(300, "udevd", [ROOT.replace("20 1", "90 89"), bound.replace("22 20", "92 90")], namespace=2)
    assert proc.texts() == ["it is also mounted at /export"]


def test_the_own_mount_of_a_mount_point_is_no_user_but_another_one_is(proc, tmp_path):
    own = "22 20 8:9 / /lab/data rw - xfs y rw"
    (tmp_path / "100" / "mountinfo").write_text(f"{ROOT}\n{own}\n")
    proc.add(300, "udevd", [ROOT.replace("20 1", "90 89"), own.replace("22 20", "92 90")], namespace=2)
    assert proc.texts() == []
    proc.add(812, "pause", [POD_ROOT, own.replace("22 20", "51 50")], namespace=3)
    assert proc.texts() == ["a mount namespace of pid 812 (pause) has it mounted at /lab/data"]


def test_paths_of_a_process_in_another_namespace_are_traced_by_its_own_mounts(proc):
    table = [POD_ROOT, "51 50 8:1 /lab/data /data rw - ext4 x rw", "52 50 8:1 /else /lab/data rw - ext4 x rw"]
    files = [("/data/log/x", 51), ("/lab/data/not-ours", 52)]
    proc.add(812, "app", table, namespace=2, cwd="/data/sub", files=files, maps=["/data/lib.so", "/lab/data/no.so"])
    assert proc.texts()[1:] == [
        "pid 812 (app) works in sub",
        "pid 812 (app) has log/x open",
        "pid 812 (app) has lib.so mapped into memory",
    ]


def test_a_host_directory_mounted_into_a_container_shows_the_tree_under_another_name(proc):
    table = [POD_ROOT, "51 50 8:1 / /host rw - ext4 x rw"]
    proc.add(812, "agent", table, namespace=2, files=[("/host/lab/data/x", 51), ("/lab/data/own", 50)])
    assert proc.texts() == ["pid 812 (agent) has x open"]


def test_a_file_handed_over_from_another_namespace_counts(proc):
    proc.add(200, "helper", [ROOT], files=[("/data/x", 51)])
    proc.add(812, "pause", [POD_ROOT, "51 50 8:1 /lab/data /data rw - ext4 x rw"], namespace=2)
    assert "pid 200 (helper) has x open" in proc.texts()


def test_the_mount_id_decides_where_the_name_misleads(proc, tmp_path):
    (tmp_path / "100" / "mountinfo").write_text(f"{ROOT}\n22 20 8:9 / /lab rw - xfs y rw\n")
    hidden, visible = ("/lab/data/hidden", 20), ("/lab/data/visible", 22)
    proc.add(200, "bash", [ROOT], files=[hidden, visible])
    assert proc.texts() == ["pid 200 (bash) has visible open"]


def test_btrfs_is_compared_by_its_path_in_the_filesystem(proc, tmp_path):
    subvolume = "22 20 0:40 /@lab /lab rw - btrfs y rw,subvol=/@lab"
    top = "23 20 0:40 / /mnt/top rw - btrfs y rw,subvol=/"
    (tmp_path / "100" / "mountinfo").write_text("\n".join([ROOT, subvolume, top]))
    proc.add(200, "bash", [ROOT], files=[("/mnt/top/@lab/data/x", 23), ("/mnt/top/lab/data/y", 23)])
    assert proc.texts() == ["pid 200 (bash) has x open"]


def test_the_caller_and_excluded_processes_do_not_count(proc, tmp_path):
    os.symlink("/lab/data/x", tmp_path / "100" / "fd" / "9")
    (tmp_path / "100" / "fdinfo" / "9").write_text("mnt_id:\t20\n")
    proc.add(200, "rsync", [ROOT], cwd="/lab/data")
    assert proc.texts() == ["pid 200 (rsync) works in it"]
    assert proc.texts(exclude=[200]) == []


def test_a_process_that_vanishes_is_passed_over(proc, tmp_path):
    (tmp_path / "300").mkdir()
    proc.add(400, "bash", [ROOT], cwd="/lab/data")
    assert proc.users() == Users((User(400, "bash", "working directory", "", "/lab/data"),), 0, ())


def test_a_mount_table_that_cannot_be_parsed_is_an_error(proc):
    proc.add(300, "odd", ["garbage"], namespace=2)
    with pytest.raises(ToolError, match="300/mountinfo"):
        proc.users()


def test_a_process_name_cannot_disturb_a_terminal(proc):
    proc.add(200, "a\x1b[2Jb", [ROOT], cwd="/lab/data")
    assert proc.texts() == ["pid 200 (a?[2Jb) works in it"]


def test_of_many_users_the_first_are_named_and_the_rest_counted(proc):
    for pid in range(200, 225):
        proc.add(pid, "postgres", [ROOT], cwd="/lab/data")
    found = proc.users()
    assert (len(found.found), found.more) == (20, 5)
    assert found.describe()[-1] == "5 more"


def test_a_missing_procfs_is_an_error_and_not_nobody(tmp_path):
    with pytest.raises(FileNotFoundError):
        find_users(TARGET, proc=str(tmp_path / "nowhere"))


def test_without_the_right_to_inspect_a_process_the_answer_is_incomplete(proc, tmp_path):
    proc.add(300, "secret", [POD_ROOT, "51 50 8:1 /lab/data /data rw - ext4 x rw"], namespace=2)
    denied = DeniedProc(str(tmp_path), 300)
    search = users._Search(denied, TARGET, 100)
    search.look_at(300, search.namespace_of(300))
    result = search.result()
    assert not result.complete
    assert result.unseen == ("processes that the privileges of this run do not let it inspect",)
    assert result.describe() == ["a mount namespace of pid 300 (secret) has it mounted at /data"]


class DeniedProc(users._Proc):
    """The kernel's answers for one process of another user: links and maps are denied, mountinfo is not."""

    def __init__(self, path, pid):
        super().__init__(path)
        self.pid = pid

    def link(self, pid, name):
        if pid == self.pid:
            return self._note(PermissionError(13, "denied"))
        return super().link(pid, name)

    def open_files(self, pid):
        self._note(PermissionError(13, "denied"))
        return []


def test_outside_a_pid_namespace_nothing_is_seen_and_that_is_said(proc, tmp_path):
    (tmp_path / "100" / "ns" / "pid").unlink()
    os.symlink("pid:[4026532999]", tmp_path / "100" / "ns" / "pid")
    assert proc.users().unseen == ("processes outside the PID namespace of this run",)


def test_a_procfs_that_hides_processes_makes_the_answer_of_an_ordinary_user_incomplete(proc, monkeypatch):
    mounts = parse(b"21 20 0:5 / /proc rw - proc proc rw,hidepid=invisible", "mountinfo")
    for uid, unseen in ((1000, [users._HIDDEN]), (0, [])):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        reader = users._Proc("/proc")
        reader.note_limits(mounts, -1)
        assert list(reader.unseen) == unseen


HOLDER = """
import mmap, os, sys
folder = sys.argv[1]
os.chdir(os.path.join(folder, "sub"))
kept = open(os.path.join(folder, "open"))
with open(os.path.join(folder, "mapped"), "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0)
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def real_process_using(folder):
    (folder / "sub").mkdir()
    (folder / "open").write_text("x")
    (folder / "mapped").write_text("x")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_real_process_is_found_with_all_it_uses_and_gone_when_it_ends(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    with real_process_using(folder) as process:
        ours = [user for user in find_users(str(folder)).found if user.pid == process.pid]
        assert {(user.kind, user.path) for user in ours} == {
            ("working directory", "sub"),
            ("open file", "open"),
            ("mapped file", "mapped"),
        }
        assert find_users(str(folder), exclude=[process.pid]).found == ()
    assert find_users(str(folder)).found == ()


def test_a_real_directory_is_found_through_a_symlink(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    os.symlink("data", tmp_path / "link")
    with real_process_using(folder) as process:
        assert {user.pid for user in find_users(str(tmp_path / "link")).found} == {process.pid}


def test_our_own_open_files_do_not_count(tmp_path):
    with open(tmp_path / "file", "w"):
        assert find_users(str(tmp_path)).found == ()
