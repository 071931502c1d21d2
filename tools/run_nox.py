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

from environments import CHECKOUT, environment
from pythons import clean_path, newest

#: What antsibull-nox runs on.
SUITABLE = ("3.11", "3.12", "3.13", "3.14")
#: Settings of the person at the keyboard that would make a run here differ from one elsewhere.
FOREIGN = ("ANSIBLE_", "MOLECULE_", "PYTHONPATH", "PYTHONHOME", "PYENV_VERSION", "VIRTUAL_ENV", "NOX")


def summary(report: pathlib.Path) -> str:
    """Return how the sessions ended, from nox's own report."""
    results = [session["result"].lower() for session in json.loads(report.read_text())["sessions"]]
    counts = {word: results.count(word) for word in ("success", "skipped")}
    failed = len(results) - sum(counts.values())
    return f"sessions: {counts['success']} passed, {failed} failed, {counts['skipped']} skipped"


def main() -> None:
    """Run nox and end as it ends."""
    python = newest(*SUITABLE)
    if python is None:
        raise SystemExit(f"Cannot run the checks: no Python of {', '.join(SUITABLE)} was found; install one.")
    nox = environment("nox", python, ["nox", "antsibull-nox"]) / "nox"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environ["PATH"] = clean_path()
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder, "report.json")
        options = ["--noxfile", str(CHECKOUT / "noxfile.py"), "--envdir", folder, "--report", str(report)]
        ended = subprocess.run([str(nox), *options, *sys.argv[1:]], check=False, env=environ, stdin=subprocess.DEVNULL)
        if report.is_file():
            print(summary(report), flush=True)
    raise SystemExit(ended.returncode)


if __name__ == "__main__":
    main()
