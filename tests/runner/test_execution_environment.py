# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The execution environment, as far as it can be made without a container engine: its context, by ansible-builder.

The image itself is not built here: there is no engine, and base images cannot be fetched.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

import yaml

from ansible_collections.restorepoint.core.plugins.module_utils.setup import agent_libraries

from .jobs import CHECKOUT

BIN = pathlib.Path(sys.executable).parent
NEEDED = {"jmespath", "kubernetes", "proxmoxer", "requests"}


def run(*command: str, folder: pathlib.Path) -> str:
    """Run a program of this environment; its output stands in the failure."""
    argv = [str(BIN / command[0]), *command[1:]]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def packed(folder: pathlib.Path) -> pathlib.Path:
    """Build the collection as a release does, and return the file."""
    run("ansible-galaxy", "collection", "build", "--output-path", str(folder), str(CHECKOUT), folder=folder)
    return next(folder.glob("restorepoint-core-*.tar.gz"))


def test_builder_finds_what_the_packed_collection_needs_and_makes_a_context_with_it(tmp_path: pathlib.Path) -> None:
    tarball = packed(tmp_path)
    installed = tmp_path / "ansible_collections" / "restorepoint" / "core"
    installed.mkdir(parents=True)
    with tarfile.open(tarball) as archive:
        archive.extractall(installed, filter="data")
    told = yaml.safe_load(run("ansible-builder", "introspect", str(tmp_path), folder=tmp_path))
    found = {re.split(r"[<>=! ]", line)[0] for line in told["python"]}
    assert found == NEEDED
    assert not told.get("system")

    (tmp_path / "build").mkdir()
    shutil.copy2(tarball, tmp_path / "build" / "restorepoint-core.tar.gz")
    shutil.copy2(CHECKOUT / "execution-environment.yml", tmp_path)
    run("ansible-builder", "create", "--context", "context", "--output-filename", "Containerfile", folder=tmp_path)
    context = tmp_path / "context"
    recipe = (context / "Containerfile").read_text(encoding="utf-8")
    asked = yaml.safe_load((context / "_build" / "requirements.yml").read_text(encoding="utf-8"))
    source = asked["collections"][0]["name"]
    assert (context / "_build" / source).read_bytes() == tarball.read_bytes()
    assert "requirements.yml" in recipe
    wheel = agent_libraries.PROMETHEUS
    assert f"{wheel.package}=={wheel.version}" in recipe
    assert "ENV RESTOREPOINT_WHEELS=/usr/share/restorepoint/wheels" in recipe


def test_every_package_of_the_definition_is_pinned() -> None:
    definition = yaml.safe_load((CHECKOUT / "execution-environment.yml").read_text(encoding="utf-8"))
    for key in ("ansible_core", "ansible_runner"):
        assert re.fullmatch(r"[a-z-]+==\d+(\.\d+)+", definition["dependencies"][key]["package_pip"])
    pins = (CHECKOUT / "tests" / "runner" / "requirements.txt").read_text(encoding="utf-8")
    assert definition["dependencies"]["ansible_runner"]["package_pip"] in pins


def test_the_collection_asks_for_what_its_requirements_name() -> None:
    def packages(name: str) -> set[str]:
        lines = (CHECKOUT / name).read_text(encoding="utf-8").splitlines()
        return {line for line in lines if line and not line.startswith("#")}

    assert packages("requirements.txt") - packages("meta/ee-requirements.txt") == {"ansible-core>=2.17.0"}
