# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stream between programs: all of it arrives, or it is a failure that names who failed."""

from __future__ import annotations

import hashlib
import os
import sys

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import ToolError
from ansible_collections.restorepoint.core.plugins.module_utils.offsite.streams import pump

PYTHON = sys.executable
CONTENT = os.urandom(3_000_000)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return str(path)


def python(text, *more):
    return [PYTHON, "-c", text, *more]


def sink(path):
    return python("import sys, shutil; shutil.copyfileobj(sys.stdin.buffer, open(sys.argv[1], 'wb'))", str(path))


@pytest.mark.parametrize("bandwidth", [None, 50_000_000])
def test_all_of_it_arrives_with_its_digest(source, tmp_path, bandwidth):
    seen: list[int] = []
    moved = pump([["cat", source]], sink(tmp_path / "out"), "copy", "try again", bandwidth, seen.append)
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert moved == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert seen[-1] == len(CONTENT)


@pytest.mark.parametrize("tool", ["gzip", "zstd", "lz4"])
def test_what_was_compressed_on_the_way_into_a_file_is_the_same(source, tmp_path, tool):
    if not any(os.access(os.path.join(folder, tool), os.X_OK) for folder in os.get_exec_path()):
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI has to offer {tool}")
        pytest.skip(f"{tool} is not installed")
    packed = tmp_path / "packed"
    with open(packed, "wb") as out:
        moved = pump([["cat", source], [tool, "-c"]], out.fileno(), "pack", "try again")
    assert moved.sha256 == hashlib.sha256(packed.read_bytes()).hexdigest()
    pump([[tool, "-d", "-c", str(packed)]], sink(tmp_path / "out"), "unpack", "try again")
    assert (tmp_path / "out").read_bytes() == CONTENT


def test_a_stream_that_breaks_off_is_a_failure_though_its_reader_is_content(tmp_path):
    broken = python("import sys; sys.stdout.write('half'); sys.stdout.flush(); sys.exit('the disk is gone')")
    with pytest.raises(ToolError, match="the disk is gone"):
        pump([broken], sink(tmp_path / "out"), "copy", "try again")
    with pytest.raises(ToolError, match="the disk is gone"):
        pump([broken, ["cat"]], sink(tmp_path / "out"), "copy", "try again")


def test_a_producer_that_was_killed_is_a_failure(tmp_path):
    killed = python("import os; os.write(1, b'half'); os.kill(os.getpid(), 9)")
    with pytest.raises(ToolError, match="SIGKILL"):
        pump([killed], sink(tmp_path / "out"), "copy", "try again")
    broken = "import os, signal; signal.signal(13, signal.SIG_DFL); os.write(1, b'half'); os.kill(os.getpid(), 13)"
    pipe = python(broken)
    with pytest.raises(ToolError, match="SIGPIPE"):
        pump([pipe, ["cat"]], sink(tmp_path / "out"), "copy", "try again")


def test_a_reader_that_refuses_is_the_one_that_is_named(source):
    refusing = python("import sys; sys.stdin.buffer.read(10); sys.exit('destination has been modified')")
    with pytest.raises(ToolError, match="destination has been modified") as caught:
        pump([["cat", source]], refusing, "copy", "try again")
    assert "SIGPIPE" not in caught.value.reason


def test_a_stream_that_stands_still_is_given_up_and_its_programs_end(tmp_path):
    note = tmp_path / "pid"
    still = python("import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)", str(note))
    with pytest.raises(ToolError, match=r"nothing came for 5 s|was ended by"):
        pump([still], ["cat"], "copy", "try again", stall=5)
    if note.exists() and note.read_text():
        with pytest.raises(ProcessLookupError):
            os.kill(int(note.read_text()), 0)


def test_a_program_that_is_not_there_is_named():
    with pytest.raises(ToolError, match="the program no-such-zstd is not there"):
        pump([["no-such-zstd"]], ["cat"], "copy", "try again")
