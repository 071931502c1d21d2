# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who uses a directory, with real mount namespaces, chroots and filesystems. Needs root.

Without root these tests are skipped, but with CI=true they fail: there the lab has to be there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.users import find_users
from ansible_collections.restorepoint.core.tests.lab.filesystems import one_at_a_time


def lacking(what):
    """Skip for want of something; on CI, where everything has to be there, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI has to offer {what}")
    pytest.skip(f"needs {what}")


@pytest.fixture(autouse=True)
def _root():
    if os.geteuid() != 0:
        lacking("root")


PRELUDE = """
import ctypes, os, subprocess, sys
def sh(*argv): subprocess.run(argv, check=True)
def bind(source, target): os.makedirs(target, exist_ok=True); sh("mount", "--bind", source, target)
def ready(): print("ready", flush=True); sys.stdin.read()
libc = ctypes.CDLL(None, use_errno=True)
data, work = sys.argv[1:]
"""


@contextlib.contextmanager
def process(code, data, work, own_namespace=True):
    """Yield a process that has run ``code`` (with ``data`` and ``work`` as paths) and called ready()."""
    unshare = ["unshare", "--mount", "--propagation", "private"] if own_namespace else []
    started = subprocess.Popen(
        [*unshare, sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(data), str(work)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
    )
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == b"ready\n"
        yield started
    finally:
        started.communicate()


@contextlib.contextmanager
def mounted(*arguments):
    """Mount something in our own namespace; the last argument is where."""
    with one_at_a_time():
        subprocess.run(["mount", *map(str, arguments)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(arguments[-1])], check=True)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "file").write_text("content")
    return folder


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def texts(folder):
    return find_users(str(folder)).describe()


def test_an_idle_process_that_holds_a_bind_mount_in_another_namespace_is_found(data, work):
    with process("bind(data, work + '/pod'); ready()", data, work) as pod:
        assert texts(data) == [
            f"a mount namespace of pid {pod.pid} ({comm(pod)}) has it mounted at {work}/pod",
        ]
    assert texts(data) == []


def test_a_bind_mount_of_a_folder_inside_is_found(data, work):
    with process("bind(data + '/sub', work + '/pod'); ready()", data, work):
        (text,) = texts(data)
        assert text.endswith(f"has sub mounted at {work}/pod")


def test_a_namespace_that_was_only_copied_uses_nothing(data, work):
    with process("ready()", data, work):
        assert texts(data) == []


def test_a_copy_of_the_mount_of_a_mount_point_uses_nothing(data, work):
    with mounted("-t", "tmpfs", "none", data), process("ready()", data, work):
        assert texts(data) == []
        with process("bind(data, work + '/pod'); ready()", data, work):
            assert len(texts(data)) == 1


def test_work_through_a_bind_mount_in_another_namespace_is_traced_back(data, work):
    code = "bind(data, work + '/pod'); kept = open(work + '/pod/file'); os.chdir(work + '/pod/sub'); ready()"
    with process(code, data, work) as pod:
        who = f"pid {pod.pid} ({comm(pod)})"
        assert texts(data) == [
            f"a mount namespace of {who} has it mounted at {work}/pod",
            f"{who} works in sub",
            f"{who} has file open",
        ]


CONTAINER = """
import mmap
sh("mount", "-t", "tmpfs", "none", work)
bind(data, work + "/volume")
os.makedirs(work + "/old")
for name in ("usr", "lib", "lib64", "proc"):
    if os.path.exists("/" + name):
        os.makedirs(work + "/" + name)
        sh("mount", "--rbind", "/" + name, work + "/" + name)
os.chdir(work)
sh("pivot_root", ".", "old")
os.chroot(".")
os.chdir("/")
assert libc.umount2(b"/old", 2) == 0
kept = open("/volume/sub/log", "w")
with open("/volume/file", "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0)
os.chdir("/volume")
ready()
"""


def test_a_container_with_a_root_of_its_own_is_traced_back(data, work):
    with process(CONTAINER, data, work) as pod:
        who = f"pid {pod.pid} ({comm(pod)})"
        assert texts(data) == [
            f"a mount namespace of {who} has it mounted at /volume",
            f"{who} works in it",
            f"{who} has sub/log open and 1 other file",  # Python keeps a mapped file open as well.
            f"{who} has file mapped into memory",
        ]


def test_a_directory_of_the_same_name_in_a_container_is_another_one(data, work):
    code = """
    sh("mount", "-t", "tmpfs", "none", os.path.dirname(data))
    os.makedirs(data)
    kept = open(data + "/file", "w")
    os.chdir(data)
    ready()
    """
    with process(code, data, work):
        assert texts(data) == []


def test_a_chrooted_process_is_found(data, work):
    with process("os.chroot(data + '/sub'); os.chdir('/'); ready()", data, work, own_namespace=False) as jail:
        who = f"pid {jail.pid} ({comm(jail)})"
        assert texts(data) == [f"{who} works in sub", f"{who} has sub as its root directory"]


def test_a_file_handed_over_from_another_namespace_is_found(data, work):
    code = """
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    assert libc.unshare(0x00020000) == 0
    sh("mount", "--make-rprivate", "/")
    bind(data, work + "/pod")
    kept = open(work + "/pod/file")
    if os.fork() == 0:
        kept.close()
        os.close(1)
        sys.stdin.read()
        os._exit(0)
    os.chdir("/")
    assert libc.setns(home, 0x00020000) == 0
    ready()
    """
    with process(code, data, work, own_namespace=False) as helper:
        assert f"pid {helper.pid} ({comm(helper)}) has file open" in texts(data)


def test_a_bind_mount_in_our_own_namespace_is_found_once(data, work):
    with mounted("--bind", data, work), process("ready()", data, work):
        assert texts(data) == [f"it is also mounted at {work}"]


def test_the_target_seen_through_its_bind_mount_has_the_original_as_no_user(data, work):
    with mounted("--bind", data, work):
        assert texts(work) == []


def test_a_process_in_a_directory_that_a_mount_has_hidden_since_is_no_user(data, work):
    with process("os.chdir(data); kept = open('file'); ready()", data, work, own_namespace=False):
        assert len(texts(data)) == 2
        with mounted("-t", "tmpfs", "none", data.parent):
            data.mkdir()
            assert texts(data) == []


def test_a_deleted_file_that_is_still_open_counts(data, work):
    with process("kept = open(data + '/file'); os.unlink(data + '/file'); ready()", data, work) as reader:
        assert texts(data) == [f"pid {reader.pid} ({comm(reader)}) has file (deleted) open"]


def test_the_side_of_an_exchange_is_told_apart(data, work, tmp_path):
    """What held the old content before two directories changed places still holds the old content afterwards."""
    from ansible_collections.restorepoint.core.plugins.module_utils.linux import exchange

    staged = tmp_path / "staged"
    staged.mkdir()
    with process("bind(data, work + '/pod'); ready()", data, work):
        exchange(str(data), str(staged))
        assert texts(data) == []
        assert len(texts(staged)) == 1


def test_btrfs_subvolumes_are_traced_through_every_mount(tmp_path, work):
    if not shutil.which("mkfs.btrfs"):
        lacking("mkfs.btrfs")
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    top, home = tmp_path / "top", tmp_path / "home"
    top.mkdir()
    home.mkdir()
    with mounted("-o", "loop", image, top):
        subprocess.run(["btrfs", "-q", "subvolume", "create", top / "@home"], check=True)
        device = subprocess.run(["findmnt", "-no", "SOURCE", top], check=True, stdout=subprocess.PIPE, text=True)
        with mounted("-o", "subvol=@home", device.stdout.strip(), home):
            subprocess.run(["btrfs", "-q", "subvolume", "create", home / "data"], check=True)
            (home / "data" / "file").write_text("x")
            code = "kept = open(data + '/@home/data/file'); ready()"
            with process(code, top, work) as reader:
                assert texts(home / "data") == [f"pid {reader.pid} ({comm(reader)}) has file open"]
                assert texts(top / "@home" / "data") == texts(home / "data")
                os.mkdir(top / "data")
                assert texts(top / "data") == []
    image.unlink()


@pytest.fixture
def public_folder():
    """A folder that every user may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield folder


def test_an_ordinary_user_sees_own_processes_and_is_told_of_the_limits(public_folder, work):
    data = public_folder
    code = """
    from ansible_collections.restorepoint.core.plugins.module_utils.users import find_users
    os.setgid(65534)
    os.setuid(65534)
    child = subprocess.Popen(["sleep", "600"], cwd=data)
    while open(f"/proc/{child.pid}/comm").read() != "sleep\\n":
        pass  # it begins: its files are closed, which is all that Popen waits for, but its name is still ours
    found = find_users(data)
    child.kill()
    assert not found.complete, found
    assert f"pid {child.pid} (sleep) works in it" in found.describe(), found
    print("fine", flush=True)
    """
    with process("bind(data, work + '/pod'); ready()", data, work):
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(data), str(work)],
            env=environment,
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
        )
    assert done.stdout == b"fine\n"


def comm(started):
    with open(f"/proc/{started.pid}/comm") as file:
        return file.read().rstrip("\n")
