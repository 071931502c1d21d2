# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernel calls of linux.py, made for real in a temporary directory."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import subprocess
import sys

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils import linux

NO_REFLINKS = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL)


def test_an_exchange_swaps_two_directories(tmp_path):
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "old").touch()
    (tmp_path / "staged").mkdir()
    (tmp_path / "staged" / "new").touch()
    linux.exchange(str(tmp_path / "live"), str(tmp_path / "staged"))
    assert os.listdir(tmp_path / "live") == ["new"]
    assert os.listdir(tmp_path / "staged") == ["old"]


def test_an_exchange_with_a_missing_name_names_both_and_changes_nothing(tmp_path):
    live, staged = str(tmp_path / "live"), str(tmp_path / "staged")
    os.mkdir(live)
    with pytest.raises(FileNotFoundError) as caught:
        linux.exchange(live, staged)
    assert (caught.value.errno, caught.value.filename, caught.value.filename2) == (errno.ENOENT, live, staged)
    assert os.listdir(tmp_path) == ["live"]


def test_a_rename_does_not_replace_even_an_empty_directory(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    with pytest.raises(FileExistsError):
        linux.rename_noreplace(str(tmp_path / "one"), str(tmp_path / "other"))
    linux.rename_noreplace(str(tmp_path / "one"), str(tmp_path / "free"))
    assert sorted(os.listdir(tmp_path)) == ["free", "other"]


def test_names_are_relative_to_the_directories_given(tmp_path):
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "file").write_text("here")
    (tmp_path / "to").mkdir()
    source, target = os.open(tmp_path / "from", os.O_RDONLY), os.open(tmp_path / "to", os.O_RDONLY)
    try:
        linux.rename_noreplace("file", "renamed", old_dirfd=source, new_dirfd=target)
    finally:
        os.close(source)
        os.close(target)
    assert (tmp_path / "to" / "renamed").read_text() == "here"


def test_names_may_be_bytes_and_need_not_be_utf8(tmp_path):
    strange = os.fsencode(tmp_path) + b"/\xff\xfe"
    os.mkdir(strange)
    linux.rename_noreplace(os.fsdecode(strange), os.fsencode(tmp_path) + b"/\xfd")
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xfd"]


def test_a_name_with_a_nul_is_refused_and_not_cut(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="NUL"):
        linux.rename_noreplace(str(tmp_path / "a\0b"), str(tmp_path / "c"))
    assert os.listdir(tmp_path) == ["a"]


def test_the_call_by_number_does_what_the_call_by_name_does(tmp_path):
    number = linux._syscall_number("renameat2", os.uname().machine, ctypes.sizeof(ctypes.c_void_p))
    call = linux._call_by_number(number)
    one, other = os.fsencode(tmp_path / "one"), os.fsencode(tmp_path / "other")
    os.mkdir(one)
    assert call(linux.AT_FDCWD, one, linux.AT_FDCWD, other, linux.RENAME_EXCHANGE) == -1
    assert ctypes.get_errno() == errno.ENOENT
    os.mkdir(other)
    open(os.path.join(one, b"file"), "w").close()
    assert call(linux.AT_FDCWD, one, linux.AT_FDCWD, other, linux.RENAME_EXCHANGE) == 0
    assert os.listdir(other) == [b"file"]


@pytest.mark.parametrize(
    ("machine", "pointer_bytes", "number"),
    [("x86_64", 8, 316), ("x86_64", 4, 353), ("aarch64", 8, 276), ("aarch64", 4, 382), ("armv7l", 4, 382)],
)
def test_a_32_bit_python_uses_the_32_bit_table(machine, pointer_bytes, number):
    assert linux._syscall_number("renameat2", machine, pointer_bytes) == number


def test_a_machine_that_is_not_in_the_table_has_no_such_call():
    with pytest.raises(OSError, match="vax") as caught:
        linux._syscall_number("renameat2", "vax", 4)
    assert caught.value.errno == errno.ENOSYS


def test_powerpc_has_its_own_number_for_reflinks():
    assert linux._ficlone_request("x86_64") == 0x40049409
    assert linux._ficlone_request("ppc64le") == 0x80049409


def test_a_reflink_has_the_content_or_the_filesystem_says_it_has_none(tmp_path):
    (tmp_path / "source").write_bytes(b"x" * 65536)
    with open(tmp_path / "source", "rb") as source, open(tmp_path / "copy", "wb") as copy:
        try:
            linux.ficlone(copy.fileno(), source.fileno())
            refused = None
        except OSError as error:
            refused = error.errno
    if refused is None:
        assert (tmp_path / "copy").read_bytes() == b"x" * 65536
    else:
        assert refused in NO_REFLINKS
        assert (tmp_path / "copy").read_bytes() == b""


def test_syncfs_takes_an_open_file_and_refuses_a_closed_one(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    linux.syncfs(fd)
    os.close(fd)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as caught:
        linux.syncfs(fd)
    assert caught.value.errno == errno.EBADF


def in_a_child(code):
    """Run code that changes its own process in another one, and return what it printed."""
    header = "import os, resource\nfrom ansible_collections.restorepoint.core.plugins.module_utils import linux\n"
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    done = subprocess.run(
        [sys.executable, "-c", header + code], env=environment, check=True, stdout=subprocess.PIPE, timeout=60
    )
    return done.stdout.decode().split()


def test_idle_priority_gives_way_to_all_others():
    niceness, accepted, ioprio = in_a_child(
        "accepted = linux.set_idle_priority()\n"
        "get = {'x86_64': 252, 'aarch64': 31, 'riscv64': 31}[os.uname().machine]\n"
        "print(os.nice(0), accepted, linux._call_by_number(get)(1, 0) >> 13)"
    )
    assert niceness == "19"
    assert (accepted, ioprio) in (("True", "3"), ("False", "0"))


def test_the_open_file_limit_rises_as_far_as_the_hard_limit_and_never_falls():
    hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4096)
    printed = in_a_child(
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (256, {hard}))\n"
        f"print(linux.raise_open_file_limit(1 << 20), resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
        "print(linux.raise_open_file_limit(16), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    assert printed == [str(hard)] * 4
