# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run nox sessions: what most targets of the Makefile call. Arguments are nox's own (``--list`` shows the sessions).

It builds nox's environment where it is missing, so that nothing but a Python and make has to be there beforehand, and
ends with one line that says how many sessions passed. What nox builds itself, for the licence check alone, is private
to the run and goes with it.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from environments import CHECKOUT, environment
from guest import Guest
from pythons import clean_path, newest

#: What antsibull-nox runs on.
SUITABLE = ("3.11", "3.12", "3.13", "3.14")
#: Settings of the person at the keyboard that would make a run here differ from one elsewhere.
FOREIGN = ("ANSIBLE_", "MOLECULE_", "PYTHONPATH", "PYTHONHOME", "PYENV_VERSION", "VIRTUAL_ENV", "NOX")


#: The session that waits for the guest most of the time. A run of everything runs it beside nox's default ones.
BESIDE = "guest-tests"


def summary(*reports: pathlib.Path) -> str:
    """Return how the sessions ended, from nox's own reports."""
    read = [json.loads(report.read_text())["sessions"] for report in reports if report.is_file()]
    results = [session["result"].lower() for sessions in read for session in sessions]
    counts = {word: results.count(word) for word in ("success", "skipped")}
    failed = len(results) - sum(counts.values())
    return f"sessions: {counts['success']} passed, {failed} failed, {counts['skipped']} skipped"


class Nox:
    """One run of nox, with folder and report of its own."""

    def __init__(self, folder: pathlib.Path, *arguments: str, log: pathlib.Path | None = None, guest: str = "") -> None:
        folder.mkdir()
        self.report = folder / "report.json"
        self.log = log
        environ = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        environ["PATH"] = clean_path()
        if guest:
            environ["RP_GUEST"] = guest
        options = ["--noxfile", str(CHECKOUT / "noxfile.py"), "--envdir", str(folder), "--report", str(self.report)]
        with open(log or os.devnull, "wb") as out:
            self.process = subprocess.Popen(
                [str(program()), *options, *arguments],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=out if log else None,
                stderr=subprocess.STDOUT if log else None,
            )

    def end(self) -> int:
        """Wait for it, show what it kept back, and return its exit code."""
        code = self.process.wait()
        if self.log is not None:
            print(self.log.read_text(errors="replace"), flush=True)
        return code


def program() -> pathlib.Path:
    """Return nox, building its environment where it is missing."""
    python = newest(*SUITABLE)
    if python is None:
        raise SystemExit(f"Cannot run the checks: no Python of {', '.join(SUITABLE)} was found; install one.")
    return environment("nox", python, ["nox", "antsibull-nox"]) / "nox"


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments say; without any, everything: what takes place in the guest beside the rest."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if arguments:
            runs = [Nox(folder / "only", *arguments)]
        else:
            print(f"The session {BESIDE} runs beside the others; what it prints comes at the end.", flush=True)
            beside = Nox(folder / "beside", "--session", BESIDE, log=folder / "log", guest="beside")
            runs = [Nox(folder / "rest", guest="checks"), beside]
        codes = [run.end() for run in runs]
        for guest in () if arguments else ("checks", "beside"):
            Guest(guest).power_cut()
        print(summary(*(run.report for run in runs)), flush=True)
    return max(codes, key=abs)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
