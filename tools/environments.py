# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual environments in the cache folder, built once and shared by every checkout.

An environment is known by what it was asked to hold: the Python, the packages and the pins. Whoever changes one of
these gets another environment, so a warm cache cannot differ from a cold one. Several runs at once are safe.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from pythons import Python

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "restorepoint"
WEEK = 7 * 86400
PINS = CHECKOUT / "requirements-dev.txt"


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a lock in the cache folder; another run that wants the same one waits."""
    folder = CACHE / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / name, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def behind(program: str, *words: str) -> None:
    """Run a program of these tools in the background, in a session of its own."""
    with open(os.devnull, "r+") as nothing:
        subprocess.Popen(
            [sys.executable, program, *words], start_new_session=True, stdin=nothing, stdout=nothing, stderr=nothing
        )


def environment(label: str, python: Python, packages: Sequence[str]) -> pathlib.Path:
    """Return the ``bin`` folder of an environment that holds these packages, building it where it is missing."""
    wanted = "\n".join([str(python.path), python.release, *sorted(packages), PINS.read_text()])
    name = f"{label}-py{python.series}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    folder = CACHE / "venvs" / name
    complete = folder / "complete"
    if not complete.is_file():
        with locked(name):
            if not complete.is_file():
                _build(folder, python, packages)
                _forget_old(label)
    complete.touch()
    return folder / "bin"


def _forget_old(label: str) -> None:
    """Remove environments of that label which no run has asked for in a week: pins and packages change."""
    for complete in (CACHE / "venvs").glob(f"{label}-py*/complete"):
        if time.time() - complete.stat().st_mtime > WEEK:
            shutil.rmtree(complete.parent, ignore_errors=True)


def _build(folder: pathlib.Path, python: Python, packages: Sequence[str]) -> None:
    print(f"building the environment {folder.name}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([str(python.path), "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", str(PINS), *packages], check=True)
