# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The audit log and the progress file, in a temporary folder and on a full disk."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import pwd
import stat

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.audit import AuditLog, Progress, current_user, foresee
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput

CHANGE = ("2026-11-22T01:30:00Z", "/srv/data", "create", "daily-20261122t013000z", "done")
RECORD = {
    "when": "2026-11-22T01:30:00Z",
    "who": "root (sudo by alice)",
    "target": "/srv/data",
    "change": "create",
    "name": "daily-20261122t013000z",
    "outcome": "done",
    "files": 3,
}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_change_is_one_line_and_the_same_in_the_result(tmp_path):
    path = tmp_path / "audit"
    with AuditLog(str(path), "root (sudo by alice)") as log:
        assert log.record(*CHANGE, files=3) == RECORD
        log.record(*CHANGE[:4], "failed: no space")
    assert lines(path)[0] == RECORD
    assert lines(path)[1]["outcome"] == "failed: no space"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert log.trouble is None


def test_without_a_path_the_record_is_still_in_the_result():
    assert AuditLog(None, "root (sudo by alice)").record(*CHANGE, files=3) == RECORD


def test_a_second_run_appends(tmp_path):
    path = tmp_path / "audit"
    for _unused in range(2):
        with AuditLog(str(path), "root") as log:
            log.record(*CHANGE)
    assert len(lines(path)) == 2


def test_a_line_break_in_a_name_stays_in_its_line(tmp_path):
    path = tmp_path / "audit"
    with AuditLog(str(path), "root") as log:
        log.record(CHANGE[0], "/srv/a\nb\u2028c\udcff", *CHANGE[2:], where=pathlib.PurePosixPath("/x"))
    (record,) = lines(path)
    assert (record["target"], record["where"]) == ("/srv/a\nb\u2028c\udcff", "/x")


@pytest.mark.parametrize("kind", ["a symlink", "a fifo", "a folder", "in no folder", "relative", "with a NUL"])
def test_what_cannot_be_an_audit_log_is_an_error_before_anything_is_touched(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = {"in no folder": tmp_path / "no" / "file", "relative": "file", "with a NUL": f"{tmp_path}/a\0b"}.get(kind)
    path = str(path or tmp_path / "file")
    if kind == "a symlink":
        os.symlink("elsewhere", path)
    elif kind == "a fifo":
        os.mkfifo(path)
    elif kind == "a folder":
        os.mkdir(path)
    before = os.listdir(tmp_path)
    with pytest.raises(InvalidInput, match="Cannot keep the audit log: "):
        AuditLog(path, "root")
    with pytest.raises(InvalidInput, match="Cannot report the progress: "):
        Progress(path)
    with pytest.raises(InvalidInput, match="Cannot keep the audit log: "):
        foresee(path, None)
    with pytest.raises(InvalidInput, match="Cannot report the progress: "):
        foresee(None, path)
    assert os.listdir(tmp_path) == before


def test_foresight_makes_nothing_and_leaves_what_is_there_as_it_is(tmp_path):
    there = tmp_path / "there"
    there.write_text("{}\n")
    before = there.stat()
    foresee(str(tmp_path / "new"), str(there))
    foresee(str(there), None)
    foresee(None, None)
    assert os.listdir(tmp_path) == ["there"]
    assert (there.read_text(), there.stat().st_mtime_ns) == ("{}\n", before.st_mtime_ns)


class FullDisk:
    """Stands in for os.write: takes as many bytes as there is space, then fails as a full disk does."""

    def __init__(self, space):
        self.space = space
        self.write = os.write

    def __call__(self, fd, data):
        if not self.space:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = self.write(fd, data[: self.space])
        self.space -= taken
        return taken


def test_a_full_disk_does_not_hide_that_a_change_was_made(tmp_path, monkeypatch):
    path = tmp_path / "audit"
    log = AuditLog(str(path), "root (sudo by alice)")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", FullDisk(10))
        assert log.record(*CHANGE, files=3) == RECORD
        assert "incomplete line" in str(log.trouble)
        assert log.record(*CHANGE, files=3) == RECORD
        assert log.trouble == f"{path} could not be written: No space left on device"
    log.record(*CHANGE, files=3)
    log.close()
    torn, whole = path.read_text().splitlines()
    assert (torn, json.loads(whole)) == ('{"when": "', RECORD)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_progress_is_written_at_most_once_in_an_interval(tmp_path):
    path, clock = tmp_path / "progress", Clock()
    progress = Progress(str(path), clock, interval_seconds=1.0)
    for files in range(20):
        progress.report("copy", {"files": files})
        clock.now += 0.125
    progress.report("copy", {"files": 20}, always=True)
    progress.close()
    assert lines(path) == [
        {"elapsed_seconds": 0.0, "stage": "copy", "files": 0},
        {"elapsed_seconds": 1.0, "stage": "copy", "files": 8},
        {"elapsed_seconds": 2.0, "stage": "copy", "files": 16},
        {"elapsed_seconds": 2.5, "stage": "copy", "files": 20},
    ]


def test_a_new_stage_is_never_left_out(tmp_path):
    path = tmp_path / "progress"
    progress = Progress(str(path), Clock())
    for stage in ("copy", "copy", "sync"):
        progress.report(stage, {})
    assert [line["stage"] for line in lines(path)] == ["copy", "sync"]


def test_progress_without_a_path_asks_no_clock():
    def clock():
        raise AssertionError("the clock was read")

    Progress(None, clock).report("copy", {"files": 1}, always=True)


def test_progress_on_a_full_disk_does_not_stop_the_work(tmp_path, monkeypatch):
    progress = Progress(str(tmp_path / "progress"))
    monkeypatch.setattr(os, "write", FullDisk(0))
    progress.report("copy", {"files": 1})
    assert "No space left" in str(progress.trouble)


def test_the_current_user_is_named_with_who_used_sudo(monkeypatch):
    name = pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert current_user() == name
    monkeypatch.setenv("SUDO_USER", "ali\x1bce")
    assert current_user() == f"{name} (sudo by alice)"


def test_a_user_without_a_name_is_a_number(monkeypatch):
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4242424242)
    assert current_user() == "uid 4242424242"
