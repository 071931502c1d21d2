# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Progress as people see it: bars that fit, never ahead of the truth, and nothing for what is short."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import sys
import time

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.agent.progress import Shown, Watched, in_units
from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import Change
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.agent.test_agent import TOOL, Host
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.core.fake_backend import FakeBackend

PATIENCE = 120


class Screen:
    """What is shown, on a terminal of that width or on none, at a time that the test sets."""

    def __init__(self, width):
        self.now = 0.0
        self.stream = io.StringIO()
        self.shown = Shown(self.stream, lambda: width, lambda: self.now)

    @property
    def pictures(self):
        """Each picture of the bar."""
        return [each.partition("\x1b")[0] for each in self.stream.getvalue().split("\r")[1:]]

    @property
    def lines(self):
        return self.stream.getvalue().splitlines()


def test_what_is_short_shows_nothing():
    for width in (80, None):
        screen = Screen(width)
        for number in range(9):
            screen.now = number / 10
            screen.shown.tell("taking it", 0.5)
        screen.shown.clear()
        assert screen.stream.getvalue() == ""


def test_a_bar_is_drawn_anew_in_its_line_and_goes_at_the_end():
    screen = Screen(80)
    for second, part in ((1, 0.0), (2, 0.5), (63, 1.0)):
        screen.now = second
        screen.shown.tell("taking /srv", part, ["12 files", "3.0 MiB"])
    assert screen.pictures == [
        "taking /srv  [....................]   0%  12 files  3.0 MiB  0:01",
        "taking /srv  [##########..........]  50%  12 files  3.0 MiB  0:02",
        "taking /srv  [####################]  99%  12 files  3.0 MiB  1:03",
    ]
    screen.shown.clear()
    assert screen.stream.getvalue().endswith("\r\x1b[K")


def test_it_is_not_drawn_more_often_than_anybody_can_see():
    screen = Screen(80)
    for number in range(10_000):
        screen.now = number / 1000
        screen.shown.tell("taking /srv", None)
    assert 50 < len(screen.pictures) <= 91


def test_elsewhere_there_is_a_plain_line_now_and_then():
    screen = Screen(None)
    for second in range(46):
        screen.now = second
        screen.shown.tell("taking /srv", 0.25 if second < 40 else None, ["12 files"])
    assert screen.lines == [
        "restorepoint: taking /srv, 25%, 12 files, 0:15",
        "restorepoint: taking /srv, 25%, 12 files, 0:30",
        "restorepoint: taking /srv, 12 files, 0:45",
    ]
    screen.shown.clear()
    assert "\r" not in screen.stream.getvalue()


@given(st.integers(1, 300), st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=200), st.floats(0, 1))
def test_a_bar_never_breaks_its_line(width, words, fraction):
    screen = Screen(width)
    screen.now = 10
    screen.shown.tell(words, fraction, ["1/2", "10 files"])
    assert len(screen.pictures[0]) < width


class Reporting(FakeBackend):
    """Each of its targets tells of so many bytes while it is prepared, half a second after it has begun."""

    def __init__(self, screen, *targets):
        super().__init__(*targets)
        self.screen = screen
        self.size = 2048
        self.watched = Watched(self, screen.shown)
        self.watched._sizes = dict.fromkeys(targets, 4096)
        self.changes = [Change("create", target, "new", "") for target in targets]
        self.watched.estimate(self.changes)

    def prepare(self, change):
        super().prepare(change)
        self.screen.now += 0.5
        self.watched.report("walk", {"files": 3, "bytes": self.size})


def test_a_watched_backend_tells_which_of_how_many_it_is_at_and_how_far():
    screen = Screen(100)
    backend = Reporting(screen, "a", "b")
    for second, change in enumerate(backend.changes, 1):
        screen.now = second
        backend.watched.prepare(change)
    assert screen.pictures == [
        "taking a  [....................]   0%  0/2  0:01",
        "taking a  [#####...............]  25%  0/2  3 files  2.0 KiB  0:01",
        "taking b  [##########..........]  50%  1/2  0:02",
        "taking b  [###############.....]  75%  1/2  3 files  2.0 KiB  0:02",
    ]


def test_of_a_target_that_has_grown_nobody_says_how_far_it_is():
    screen = Screen(100)
    backend = Reporting(screen, "a")
    for second, size in ((1, 4096), (2, 4097)):
        screen.now, backend.size = second, size
        backend.watched.prepare(backend.changes[0])
    told = [each for each in screen.pictures if "files" in each]
    assert ["99%" in each for each in told] == [True, False]


def test_what_a_backend_counts_by_itself_is_shown():
    screen = Screen(100)
    screen.now = 1
    Reporting(screen, "a", "b").watched.report("destroy", {"done": 250, "of": 1000})
    assert screen.pictures == ["destroy  [#####...............]  25%  250/1000  0:01"]


def test_bytes_are_told_as_people_read_them():
    assert [in_units(each) for each in (0, 1023, 1024, 1536 * 1024, 5 << 40)] == [
        *("0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 TiB"),
    ]


def slow(host):
    """Make the host's copies take a few seconds."""
    (host.data / "large").write_bytes(os.urandom(3 << 20))
    host.policy["targets"][0]["bandwidth_limit"] = "1M"


def read_some(terminal):
    """Return what a terminal shows within a second; None when nobody is there any more, which it tells by an error."""
    if not select.select([terminal], [], [], 1)[0]:
        return ""
    try:
        return os.read(terminal, 65536).decode()
    except OSError:
        return None


def test_at_a_terminal_a_long_copy_shows_a_bar_and_leaves_none(tmp_path):
    host = Host(tmp_path)
    target = tmp_path / "restorepoint.pyz"
    subprocess.run([sys.executable, TOOL, target], check=True, capture_output=True, timeout=PATIENCE)
    assert host.call("run", "dev")[0] == 0
    slow(host)
    for number in range(40):
        (host.data / f"file {number}").mkdir()
        (host.data / f"file {number}" / "content").write_bytes(os.urandom(50_000))
    ours, theirs = pty.openpty()
    command = [sys.executable, target, *host.arguments, "run", "dev"]
    environment = {**os.environ, "TERM": "vt100"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment) as agent:
        os.close(theirs)
        text, deadline = "", time.monotonic() + PATIENCE
        while (chunk := read_some(ours)) is not None:
            text += chunk
            assert time.monotonic() < deadline, text
        said = agent.communicate(timeout=PATIENCE)[0].decode()
    assert agent.returncode == 0
    os.close(ours)
    assert "dev: done" in said
    assert re.search(r"taking hostpath:.*\d+ files.*\d+:\d\d", text)
    assert text.endswith("\r\x1b[K")


def test_where_there_is_no_terminal_nothing_but_words_is_written(tmp_path, capsys):
    host = Host(tmp_path)
    slow(host)
    assert host.call("run", "dev")[0] == 0
    assert "\x1b" not in capsys.readouterr().err
