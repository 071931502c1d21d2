# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prometheus and promtool for the tests: from PATH, or from Debian's package, unpacked into the cache folder. No root.

    prometheus.py path    print the folder they lie in

Called by tests/lab/test_monitoring.py.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from environments import CACHE, locked

PACKAGE = "prometheus"
PROGRAMS = ("prometheus", "promtool")
_SECONDS = 600


class Unavailable(RuntimeError):
    """They cannot be had on this machine."""


def programs() -> pathlib.Path:
    """Return the folder with both, getting them where they are missing. Raises Unavailable."""
    installed = shutil.which("promtool")
    if installed and (pathlib.Path(installed).parent / "prometheus").exists():
        return pathlib.Path(installed).parent
    folder = CACHE / "prometheus"
    with locked("prometheus"):
        if not all((folder / name).exists() for name in PROGRAMS):
            _unpack(folder)
    return folder


def _unpack(folder: pathlib.Path) -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Unavailable(
            "Cannot get Prometheus: it is taken from Debian's package, and this is no Debian. Install it."
        )
    with tempfile.TemporaryDirectory() as work:
        try:
            _download(work)
            (package,) = pathlib.Path(work).glob("*.deb")
            _run("dpkg-deb", "--extract", str(package), work, cwd=work)
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            words = getattr(error, "stderr", None) or error
            raise Unavailable(f"Cannot get Prometheus from Debian's package {PACKAGE}: {words}") from error
        folder.mkdir(parents=True, exist_ok=True)
        for name in PROGRAMS:
            shutil.copy2(pathlib.Path(work) / "usr" / "bin" / name, folder / f"{name}.new")
            os.replace(folder / f"{name}.new", folder / name)


def _download(work: str) -> None:
    """Download the package; where apt's lists are old or missing, root updates them first."""
    command = ("apt-get", "--quiet", "-o", "APT::Sandbox::User=root", "download", PACKAGE)
    try:
        _run(*command, cwd=work)
    except subprocess.CalledProcessError:
        if os.geteuid() != 0:
            raise
        _run("apt-get", "update", "--quiet", cwd=work)
        _run(*command, cwd=work)


def _run(*command: str, cwd: str) -> None:
    subprocess.run(
        command, check=True, cwd=cwd, timeout=_SECONDS, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def main() -> None:
    """Print where they are."""
    try:
        print(programs())
    except Unavailable as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
