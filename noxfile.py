# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every check of the collection, as nox sessions. The Makefile is the human face of this file.

The sessions use environments from the cache folder (tools/environments.py) instead of nox's own, so that several runs
at once are safe and a second run starts at once. ``make help`` lists what there is.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import nox

sys.path.insert(0, str(pathlib.Path(__file__).parent / "tools"))

from environments import CACHE, CHECKOUT, environment, locked
from pythons import Python, clean_path, find_pythons, newest
from staging import linked, private_home, staged

#: nox tells about uv, which is not used here, each time.
logging.getLogger().handlers[0].addFilter(lambda record: "uv binary" not in record.getMessage())
nox.options.default_venv_backend = "none"
nox.options.stop_on_first_error = False
CI = os.environ.get("CI") == "true"


@dataclass(frozen=True)
class Core:
    """One series of ansible-core: what it needs from PyPI, and the Pythons it runs on and manages."""

    series: str
    requirement: str
    controllers: tuple[str, ...]
    targets: tuple[str, ...]

    @property
    def python(self) -> Python | None:
        """The newest Python there is that runs it."""
        return newest(*self.controllers)


CORES = (
    Core("2.17", "ansible-core>=2.17,<2.18", ("3.10", "3.11", "3.12"), ("3.9",)),
    Core("2.18", "ansible-core>=2.18,<2.19", ("3.11", "3.12", "3.13"), ("3.9", "3.10")),
    Core("2.19", "ansible-core>=2.19,<2.20", ("3.11", "3.12", "3.13"), ("3.9", "3.10")),
    Core("2.21", "ansible-core>=2.21,<2.22", ("3.12", "3.13", "3.14"), ("3.9", "3.10", "3.11")),
)


def newest_core() -> tuple[Core, Python]:
    """Return the newest ansible-core that a Python of this machine can run, and that Python."""
    for core in reversed(CORES):
        if core.python:
            return core, core.python
    raise SystemExit("Cannot run ansible-core: it needs Python 3.10 or newer, and none was found; install one.")


def requirements(path: str) -> list[str]:
    """Return the packages that a requirements file of the checkout names."""
    lines = (CHECKOUT / path).read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def unit_packages() -> list[str]:
    """Return what a Python needs to run the unit tests, on a controller or as a managed host's."""
    tools = ["mock", "pytest", "pytest-mock", "pytest-xdist", "pyyaml", "typing_extensions; python_version < '3.11'"]
    controller = ["jinja2", "cryptography", "packaging", "resolvelib<2"]
    return [
        *tools,
        *(f"{package}; python_version >= '3.10'" for package in controller),
        *requirements("tests/unit/requirements.txt"),
    ]


def run(session: nox.Session, folder: pathlib.Path, bin_folder: pathlib.Path, *command: str, **env: str) -> None:
    """Run a program of an environment in a folder, with our own home and nothing of pyenv on PATH."""
    path = os.pathsep.join([str(bin_folder), clean_path()])
    program = str(bin_folder / command[0])
    with session.chdir(folder):
        session.run(program, *command[1:], external=True, env={"PATH": path, "HOME": str(private_home()), **env})


def ansible_tools(*packages: str) -> pathlib.Path:
    """Return an environment with the newest ansible-core and these packages."""
    core, python = newest_core()
    return environment(packages[0] if packages else "ansible", python, [core.requirement, *packages])


@contextlib.contextmanager
def pythons_on_path(session: nox.Session, name: str, found: dict[str, pathlib.Path]) -> Iterator[pathlib.Path]:
    """Give a folder with a ``python3.x`` for each of these, and nothing else."""
    folder = pathlib.Path(session.create_tmp()) / name
    folder.mkdir(parents=True, exist_ok=True)
    for series, path in found.items():
        link = folder / f"python{series}"
        link.unlink(missing_ok=True)
        link.symlink_to(path)
    yield folder


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff (rules and layout) and yamllint."""
    tools = environment("lint", newest_core()[1], ["ruff", "yamllint"])
    cache = str(CACHE / "ruff")
    run(session, CHECKOUT, tools, "ruff", "check", "--quiet", "--cache-dir", cache, ".")
    run(session, CHECKOUT, tools, "ruff", "format", "--quiet", "--diff", "--cache-dir", cache, ".")
    with staged() as collection:
        run(session, collection, tools, "yamllint", "--strict", ".")


@nox.session(default=False)
def format(session: nox.Session) -> None:  # noqa: A001 - the session's name
    """Bring Python files into ruff's layout; arguments name the files, default is all."""
    tools = environment("lint", newest_core()[1], ["ruff", "yamllint"])
    files = session.posargs or ["."]
    run(session, CHECKOUT, tools, "ruff", "check", "--fix-only", "--quiet", "--no-cache", *files)
    run(session, CHECKOUT, tools, "ruff", "format", "--no-cache", *files)


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict."""
    stubs = ["types-PyYAML", "types-jmespath", "pytest", "nox", "antsibull-nox"]
    tools = ansible_tools("mypy", *stubs, *requirements("tests/unit/requirements.txt"))
    top = linked()
    inner = "ansible_collections/restorepoint/core"
    mypy = ["mypy", "--config-file", str(CHECKOUT / ".mypy.ini"), "--cache-dir", str(CACHE / "mypy" / top.name)]
    parts = [part for part in ("plugins", "tests") if any((CHECKOUT / part).rglob("*.py"))]
    run(session, top, tools, *mypy, *(f"{inner}/{part}" for part in parts), MYPYPATH=str(top))
    run(session, CHECKOUT, tools, *mypy, "noxfile.py", "tools", MYPYPATH="tools")


@nox.session
def units(session: nox.Session) -> None:
    """Unit tests at once, with pytest on the newest ansible-core; arguments go to pytest."""
    tools = ansible_tools("pytest", *unit_packages())
    pytest = ["python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    paths = [] if any(not each.startswith("-") and "/" in each for each in session.posargs) else ["tests/unit"]
    top = linked()
    env = {"PYTHONPATH": str(top), "PYTHONPYCACHEPREFIX": str(CACHE / "pycache")}
    run(session, CHECKOUT, tools, *pytest, *paths, *session.posargs, **env)


@nox.session(name="units-matrix")
@nox.parametrize("series", [nox.param(core.series, id=core.series) for core in CORES])
def units_matrix(session: nox.Session, series: str) -> None:
    """ansible-test units on one ansible-core, with every Python there is that it supports."""
    core = next(core for core in CORES if core.series == series)
    if core.python is None:
        session.skip(f"ansible-core {series} needs Python {' or '.join(core.controllers)}, which is not there")
    tools = environment("units-" + series, core.python, [core.requirement, *unit_packages()])
    found = {
        each.series: environment("units", each, unit_packages()) / "python"
        for each in find_pythons().values()
        if each.series in core.controllers + core.targets and each.series != core.python.series
    }
    for each in sorted({*found, core.python.series}, key=lambda text: int(text[2:])):
        session.log(f"ansible-core {series} on Python {each}")
        with staged() as collection, pythons_on_path(session, series, found) as folder:
            path = os.pathsep.join([str(tools), str(folder), clean_path()])
            run(session, collection, tools, "ansible-test", "units", "--local", "--python", each, PATH=path)


@nox.session
@nox.parametrize("series", [nox.param("2.19", id="2.19"), nox.param("2.21", id="2.21")])
def sanity(session: nox.Session, series: str) -> None:
    """ansible-test sanity, without any ignore file."""
    core = next(core for core in CORES if core.series == series)
    wanted = "3.11" if series == "2.19" and "3.11" in find_pythons() else None
    python = newest(wanted) if wanted else core.python
    if python is None:
        session.skip(f"ansible-core {series} needs Python {' or '.join(core.controllers)}, which is not there")
    tools = environment("ansible-" + series, python, [core.requirement])
    found = {each.series: each.path for each in find_pythons().values() if each.series != python.series}
    with locked("sanity"):
        run(session, CHECKOUT, tools, "python", "tools/prime_ansible_test.py")
    with staged() as collection, pythons_on_path(session, series, found) as folder:
        path = os.pathsep.join([str(tools), str(folder), clean_path()])
        run(session, collection, tools, "ansible-test", "sanity", "--local", *session.posargs, PATH=path)
