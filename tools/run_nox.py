# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run nox sessions: what most targets of the Makefile call. Arguments are nox's own (``--list`` shows the sessions).

It builds nox's environment where it is missing, so that nothing but a Python and make has to be there beforehand, and
ends with one line that says how many sessions passed; what the failed ones said last stands above it, once more. What
nox builds itself, for the licence check alone, is private to the run and goes with it.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import BinaryIO

from environments import CHECKOUT, environment
from guest import Guest
from pythons import clean_path, newest

#: What antsibull-nox runs on.
SUITABLE = ("3.11", "3.12", "3.13", "3.14")
#: Settings of the person at the keyboard that would make a run here differ from one elsewhere.
FOREIGN = ("ANSIBLE_", "MOLECULE_", "PYTHONPATH", "PYTHONHOME", "PYENV_VERSION", "VIRTUAL_ENV", "NOX")


#: What a run of everything runs beside nox's default sessions, and what it runs where these or that have ended.
BESIDE, LAST = "guest-tests", "cluster-tests"


#: How many of a failed session's last lines are told again.
REMEMBERED = 60


def read(report: pathlib.Path) -> dict[str, str]:
    """Return how each session ended, from nox's own report; nothing where nox has written none."""
    sessions = json.loads(report.read_text())["sessions"] if report.is_file() else []
    return {(session["signatures"] or [session["name"]])[0]: session["result"].lower() for session in sessions}


def summary(*reports: pathlib.Path) -> str:
    """Return how the sessions ended, from nox's own reports."""
    results = [result for report in reports for result in read(report).values()]
    counts = {word: results.count(word) for word in ("success", "skipped")}
    failed = len(results) - sum(counts.values())
    return f"sessions: {counts['success']} passed, {failed} failed, {counts['skipped']} skipped"


class Nox:
    """One run of nox, with folder and report of its own. ``shown``: print what it says at once, not at the end."""

    def __init__(self, folder: pathlib.Path, *arguments: str, shown: bool = True, guest: str = "") -> None:
        folder.mkdir()
        self.report = folder / "report.json"
        self.lines = Lines(shown)
        environ = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        environ["PATH"] = clean_path()
        if guest:
            environ["RP_GUEST"] = guest
        options = ["--noxfile", str(CHECKOUT / "noxfile.py"), "--envdir", str(folder), "--report", str(self.report)]
        # Somebody who looks gets colours and no second telling: what failed is still on the screen.
        self.kept = not (shown and sys.stdout.isatty())
        self.process = subprocess.Popen(
            [str(program()), *options, *arguments],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if self.kept else None,
            stderr=subprocess.STDOUT if self.kept else None,
        )
        self.reader = threading.Thread(target=self.lines.read, args=(self.process.stdout,), daemon=True)
        if self.kept:
            self.reader.start()

    def end(self) -> int:
        """Wait for it, show what it kept back, and return its exit code."""
        code = self.process.wait()
        if self.kept:
            self.reader.join()
            self.lines.show()
        return code

    def failures(self) -> list[str]:
        """Return what each failed session said last, under a heading."""
        failed = [name for name, result in read(self.report).items() if result not in ("success", "skipped")]
        return [f"\n--- {name} failed; the last it said:\n{self.lines.last_of(name)}" for name in failed]


class Lines:
    """What a run of nox prints: passed on or kept, with the end of each session's part remembered."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._kept: list[str] = []
        self._last: dict[str, deque[str]] = {}

    def read(self, stream: BinaryIO) -> None:
        """Take in all that a stream brings, until it ends."""
        session: deque[str] = deque()
        for raw in stream:
            line = raw.decode(errors="replace")
            if self._shown:
                print(line, end="", flush=True)
            else:
                self._kept.append(line)
            begins = re.match(r"nox > Running session (\S+)", line)
            if begins:
                session = self._last.setdefault(begins.group(1), deque(maxlen=REMEMBERED))
            session.append(line)

    def show(self) -> None:
        """Print what was kept back."""
        print("".join(self._kept), end="", flush=True)

    def last_of(self, session: str) -> str:
        """Return the last lines of a session."""
        return "".join(self._last.get(session, ()))


def program() -> pathlib.Path:
    """Return nox, building its environment where it is missing."""
    python = newest(*SUITABLE)
    if python is None:
        raise SystemExit(f"Cannot run the checks: no Python of {', '.join(SUITABLE)} was found; install one.")
    return environment("nox", python, ["nox", "antsibull-nox"]) / "nox"


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments say; without any, everything, in two lanes: this machine may have two cores."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if arguments:
            runs = [Nox(folder / "only", *arguments)]
        else:
            print(f"{BESIDE} and {LAST} run beside the others; what they print comes at the end.", flush=True)
            beside = Nox(folder / "beside", "--session", BESIDE, shown=False, guest="beside")
            runs = [Nox(folder / "rest", guest="checks"), beside]
            while all(run.process.poll() is None for run in runs):
                time.sleep(1)
            runs.append(Nox(folder / "last", "--session", LAST, shown=False))
        codes = [run.end() for run in runs]
        for guest in () if arguments else ("checks", "beside"):
            Guest(guest).power_cut()
        for run in () if arguments or sys.stdout.isatty() else runs:
            print("".join(run.failures()), end="", flush=True)
        print(summary(*(run.report for run in runs)), flush=True)
    return max(codes, key=abs)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
