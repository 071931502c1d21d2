# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Locks between real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import LockTimeout, StoreError
from ansible_collections.restorepoint.core.plugins.module_utils.lock import FileLock, held, host_lock
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.open_files import opened

HOLDER = """
import sys
from ansible_collections.restorepoint.core.plugins.module_utils.lock import FileLock
with FileLock(sys.argv[1], 0, "prune the store", shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def another_process_holding(path, mode="exclusive"):
    """Yield a process that holds the lock until its stdin ends or it dies."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path, mode], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "lock")


def test_the_file_is_private_and_stays(path):
    with FileLock(path, 0, "take a snapshot"):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.path.exists(path)


def test_the_holder_writes_one_line_that_says_who_it_is(path):
    with FileLock(path, 0, "take a snapshot"), open(path) as file:
        (line,) = file.read().splitlines()
    note = json.loads(line)
    assert (note["pid"], note["host"], note["purpose"]) == (os.getpid(), socket.gethostname(), "take a snapshot")
    assert note["since"].endswith("Z")


def test_a_shorter_note_leaves_nothing_of_a_longer_one(path):
    for purpose in ("return to a snapshot with a long name", "prune"):
        with FileLock(path, 0, purpose):
            pass
    with open(path) as file:
        assert json.loads(file.read())["purpose"] == "prune"


def test_a_lock_that_is_held_is_tried_once_with_timeout_zero(path):
    with another_process_holding(path):
        start = time.monotonic()
        with pytest.raises(LockTimeout), FileLock(path, 0, "take a snapshot"):
            pass
        assert time.monotonic() - start < 30  # it is held for longer


def test_who_waits_in_vain_is_told_who_holds_it(path):
    with another_process_holding(path) as process, pytest.raises(LockTimeout) as caught:
        FileLock(path, 0.1, "take a snapshot").__enter__()
    message = str(caught.value)
    assert message.startswith(f"Cannot take a snapshot: pid {process.pid} (-c) on {socket.gethostname()}, since 20")
    assert f"to prune the store, holds the lock {path}; try again" in message


def test_waiting_ends_when_the_holder_dies(path):
    with another_process_holding(path) as process:
        process.send_signal(signal.SIGKILL)
        with FileLock(path, 10, "take a snapshot"), open(path) as file:
            assert json.loads(file.read())["pid"] == os.getpid()


def test_waiting_lasts_as_long_as_was_asked(path):
    with another_process_holding(path):
        start = time.monotonic()
        with pytest.raises(LockTimeout), FileLock(path, 0.3, "take a snapshot"):
            pass
        assert 0.3 <= time.monotonic() - start < 60


def test_an_error_inside_lets_the_lock_go(path):
    with pytest.raises(RuntimeError), FileLock(path, 0, "take a snapshot"):
        raise RuntimeError
    with FileLock(path, 0, "take a snapshot"):
        pass


def test_one_lock_object_can_be_taken_again(path):
    lock = FileLock(path, 0, "take a snapshot")
    for _unused in range(2):
        with lock, pytest.raises(LockTimeout), FileLock(path, 0, "take another one"):
            pass


def test_readers_share_it_and_keep_a_writer_out(path):
    with another_process_holding(path, "shared"), FileLock(path, 0, "list snapshots", shared=True):
        writer = FileLock(path, 0, "take a snapshot")
        with pytest.raises(LockTimeout):
            writer.__enter__()


def test_a_writer_keeps_readers_out(path):
    with another_process_holding(path), pytest.raises(LockTimeout), FileLock(path, 0, "list", shared=True):
        pass


def test_a_reader_that_is_gone_is_not_blamed_for_one_that_stays(path):
    with another_process_holding(path, "shared"):
        with another_process_holding(path, "shared") as last:
            pass
        with pytest.raises(LockTimeout) as caught, FileLock(path, 0, "take a snapshot"):
            pass
    assert "a process that left no note, perhaps a program that pid" in str(caught.value)
    assert f"pid {last.pid} (-c) started before it ended, holds" in str(caught.value)


RUNNER = """
import sys
from ansible_collections.restorepoint.core.plugins.module_utils import process
from ansible_collections.restorepoint.core.plugins.module_utils.lock import FileLock, held
with FileLock(sys.argv[1], 0, "prune the store"), FileLock(sys.argv[2], 0, "prune the other"):
    process.run([sys.executable, "-c", sys.argv[3], sys.argv[4]], timeout=600, attempt="prune", keep=held())
"""
#: Reads what it finds on its stdin, tells that it has begun, and ends when its fifo has been written to.
PROGRAM = """
import sys
with open(sys.argv[1], "w") as told:
    told.write(repr(sys.stdin.read()))
open(sys.argv[1]).read()
"""


def test_a_program_that_outlives_its_run_holds_the_locks_until_it_ends(tmp_path, path):
    fifo, other = str(tmp_path / "fifo"), str(tmp_path / "other")
    os.mkfifo(fifo)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, path, other, PROGRAM, fifo], env=environment)
    with open(fifo) as said:
        assert said.read() == "''"  # a program that asks something gets no note for an answer
    runner.kill()
    runner.wait()
    for each in (path, other):
        with pytest.raises(LockTimeout) as caught:
            FileLock(each, 0, "take a snapshot").__enter__()
        assert f"perhaps a program that pid {runner.pid} (-c) started before it ended, holds" in str(caught.value)
    with open(fifo, "w") as go:
        go.write("go")
    for each in (path, other):
        with FileLock(each, 60, "take a snapshot"):
            pass


def test_only_the_locks_that_are_held_are_handed_on_and_of_a_host_those_that_are_named(tmp_path):
    assert held() == ()
    with host_lock("zfs", 0, "prune", str(tmp_path)), host_lock("lvm", 0, "prune", str(tmp_path)):
        zfs, lvm = held()
        assert (held("zfs"), held("lvm"), held("btrfs")) == ((zfs,), (lvm,), ())
    assert held() == ()


@pytest.mark.parametrize("content", [b"", b"garbage", b"[]", b'{"pid": "x"}', b"\xff\xfe"])
def test_a_note_that_cannot_be_read_does_not_hide_that_the_lock_is_held(path, content):
    with another_process_holding(path):
        with open(path, "wb") as file:
            file.write(content)
        with pytest.raises(LockTimeout, match="a process that left no note holds the lock"):
            FileLock(path, 0, "take a snapshot").__enter__()


def test_control_characters_of_a_note_do_not_reach_the_message(path):
    with another_process_holding(path):
        note = {"pid": 1, "host": "h\x1b[2J", "command": "c\n", "purpose": "p", "since": "s"}
        with open(path, "w") as file:
            json.dump(note, file)
        with pytest.raises(LockTimeout) as caught:
            FileLock(path, 0, "take a snapshot").__enter__()
    assert str(caught.value).isprintable()


def test_a_symlink_in_place_of_the_lock_is_not_followed(path, tmp_path):
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(StoreError, match="cannot be used"), FileLock(path, 0, "take a snapshot"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_fifo_in_place_of_the_lock_is_refused_and_does_not_hang(path):
    os.mkfifo(path)
    with pytest.raises(StoreError, match="no plain file"), FileLock(path, 5, "take a snapshot"):
        pass


def test_a_missing_folder_is_said_in_the_kernels_words(tmp_path):
    with pytest.raises(StoreError, match="No such file or directory"):
        FileLock(str(tmp_path / "no" / "lock"), 5, "take a snapshot").__enter__()


def test_a_lock_on_a_file_that_was_deleted_meanwhile_counts_for_nothing(path):
    with another_process_holding(path):
        os.unlink(path)
        with FileLock(path, 0, "take a snapshot"), pytest.raises(LockTimeout):
            FileLock(path, 0, "take another").__enter__()


def test_a_lock_whose_file_was_replaced_while_it_was_waited_for_is_waited_for_again(path):
    entered = threading.Event()

    def wait():
        with FileLock(path, 120, "take a snapshot"):
            entered.set()

    with another_process_holding(path) as holder:
        waiting = threading.Thread(target=wait)
        waiting.start()
        wait_until(lambda: path in opened())
        os.unlink(path)
        with FileLock(path, 0, "prune"):
            holder.kill()
            holder.wait()
            assert not entered.wait(1)
        waiting.join(120)
    assert entered.is_set()


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_open_file_is_left_behind(path):
    before = opened()
    with another_process_holding(path):
        there = opened()
        for _unused in range(3):
            with pytest.raises(LockTimeout):
                FileLock(path, 0, "take a snapshot").__enter__()
        assert opened() <= there
    with FileLock(path, 0, "take a snapshot"):
        assert path in opened()
    assert opened() <= before


# --- the lock of a host ----------------------------------------------------------------------------------------------


def test_the_lock_of_a_host_lies_in_a_private_folder_that_is_made_for_it(tmp_path):
    folder = str(tmp_path / "locks")
    for _unused in range(2):
        with host_lock("lvm", 0, "take a snapshot", folder):
            assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
            assert os.listdir(folder) == ["lvm.lock"]


def test_two_kinds_of_storage_do_not_wait_for_each_other(tmp_path):
    folder = str(tmp_path)
    other = host_lock("zfs", 0, "take a snapshot", folder)
    with host_lock("lvm", 0, "take a snapshot", folder), other, pytest.raises(LockTimeout):
        host_lock("zfs", 0, "prune", folder).__enter__()


@pytest.mark.parametrize("kind", ["a link", "a file", "open to others"])
def test_a_folder_in_which_others_could_put_files_is_no_place_for_a_lock(tmp_path, kind):
    folder = tmp_path / "locks"
    if kind == "a link":
        folder.symlink_to(tmp_path)
    elif kind == "a file":
        folder.write_text("")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    with pytest.raises(StoreError, match="is not a directory that only this user can write to; run as root"):
        host_lock("lvm", 0, "take a snapshot", str(folder))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"Cannot take a snapshot: .*/missing/locks cannot be made: No such file"):
        host_lock("lvm", 0, "take a snapshot", str(tmp_path / "missing" / "locks"))
