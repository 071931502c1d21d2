# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run nox sessions: what every target of the Makefile calls. Arguments are nox's own (``--list`` shows the sessions).

It builds nox's environment where it is missing, so that nothing but a Python and make has to be there beforehand.
"""

from __future__ import annotations

import os
import sys

from environments import CACHE, CHECKOUT, environment
from pythons import clean_path, newest

#: What antsibull-nox runs on.
SUITABLE = ("3.11", "3.12", "3.13", "3.14")
#: Settings of the person at the keyboard that would make a run here differ from one elsewhere.
FOREIGN = ("ANSIBLE_", "MOLECULE_", "PYTHONPATH", "PYTHONHOME", "PYENV_VERSION", "VIRTUAL_ENV", "NOX")


def main() -> None:
    """Replace this process with nox."""
    python = newest(*SUITABLE)
    if python is None:
        raise SystemExit(f"Cannot run the checks: no Python of {', '.join(SUITABLE)} was found; install one.")
    nox = environment("nox", python, ["nox", "antsibull-nox"]) / "nox"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environ["PATH"] = clean_path()
    options = ["--noxfile", str(CHECKOUT / "noxfile.py"), "--envdir", str(CACHE / "nox"), "--reuse-venv", "yes"]
    sys.stdout.flush()
    os.execve(nox, [str(nox), *options, *sys.argv[1:]], environ)


if __name__ == "__main__":
    main()
