# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The series of ansible-core that are tested, and what this machine can run. Read by the noxfile and demo.py."""

from __future__ import annotations

from dataclasses import dataclass

from pythons import Python, newest


@dataclass(frozen=True)
class Core:
    """One series of ansible-core: what it is called on PyPI, and the Pythons it runs on and manages hosts with.

    ``sanity`` names the Python that ansible-test sanity runs on by preference; None means that it is not asked.
    """

    series: str
    requirement: str
    controllers: tuple[str, ...]
    targets: tuple[str, ...]
    sanity: str | None = None

    @property
    def python(self) -> Python | None:
        """The newest Python there is that runs it."""
        return newest(*self.controllers)


CORES = (
    Core("2.17", "ansible-core>=2.17,<2.18", ("3.10", "3.11", "3.12"), ("3.9",)),
    Core("2.18", "ansible-core>=2.18,<2.19", ("3.11", "3.12", "3.13"), ("3.9", "3.10")),
    Core("2.19", "ansible-core>=2.19,<2.20", ("3.11", "3.12", "3.13"), ("3.9", "3.10"), sanity="3.11"),
    Core("2.21", "ansible-core>=2.21,<2.22", ("3.12", "3.13", "3.14"), ("3.9", "3.10", "3.11"), sanity="3.13"),
)


def newest_core() -> tuple[Core, Python]:
    """Return the newest ansible-core that a Python of this machine can run, and that Python."""
    for core in reversed(CORES):
        if core.python:
            return core, core.python
    raise SystemExit("Cannot run ansible-core: it needs Python 3.10 or newer, and none was found; install one.")
