# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find the Pythons of this machine. Called by the noxfile and the other tools; run it to see what is found.

A Python counts when it can make virtual environments. pyenv's shims do not count: they work only inside of pyenv.
"""

from __future__ import annotations

import functools
import os
import pathlib
import subprocess
from dataclasses import dataclass

#: What a managed host may run; the newer ones of these run ansible-core itself.
WANTED = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
_PROBE = "import ensurepip, sys, venv; print('%d.%d.%d' % sys.version_info[:3])"


@dataclass(frozen=True)
class Python:
    """One interpreter: ``series`` is like 3.11, ``release`` like 3.11.7."""

    series: str
    release: str
    path: pathlib.Path


def clean_path() -> str:
    """Return PATH without pyenv's shims, which ansible-test would take for interpreters."""
    return os.pathsep.join(entry for entry in os.get_exec_path() if not entry.rstrip("/").endswith("shims"))


def _folders() -> list[pathlib.Path]:
    home = pathlib.Path.home()
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", home / ".pyenv"))
    folders = [pathlib.Path(entry) for entry in clean_path().split(os.pathsep)]
    folders += sorted(pyenv.glob("versions/*/bin"), reverse=True)
    folders += sorted(home.glob(".local/share/uv/python/*/bin"), reverse=True)
    return folders


def _probe(candidate: pathlib.Path) -> str | None:
    """Return the release of a Python that can make virtual environments, or None."""
    try:
        command = [str(candidate), "-I", "-c", _PROBE]
        found = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


@functools.cache
def find_pythons() -> dict[str, Python]:
    """Return the first usable Python of each wanted series, oldest series first."""
    found: dict[str, Python] = {}
    for series in WANTED:
        for folder in _folders():
            candidate = folder / f"python{series}"
            release = _probe(candidate) if os.access(candidate, os.X_OK) else None
            if release and release.startswith(series + "."):
                found[series] = Python(series, release, candidate)
                break
    if not found:
        raise SystemExit(
            f"No Python of {', '.join(WANTED)} that can make virtual environments was found; "
            "install python3 and python3-venv."
        )
    return found


def newest(*series: str) -> Python | None:
    """Return the newest Python there is of these series (any, when none is named), or None."""
    found = [python for python in find_pythons().values() if not series or python.series in series]
    return found[-1] if found else None


if __name__ == "__main__":
    for python in find_pythons().values():
        print(f"{python.series:5} {python.release:8} {python.path}")
