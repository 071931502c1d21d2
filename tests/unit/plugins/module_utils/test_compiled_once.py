# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of an archive are compiled once, in a process of its own as a module's is."""

from __future__ import annotations

import ast
import json
import pathlib
import subprocess
import sys
import zipfile

import pytest

PLUGINS = pathlib.Path(__file__).resolve().parents[4] / "plugins"
FIRST = "ansible_collections.restorepoint.core.plugins.module_utils"
#: Runs a program after it has counted what Python compiles of the archive, and prints the counts.
COUNTING = """
import collections, json, os, sys, traceback
archive, program = sys.argv[1:]
sys.path.insert(0, archive)
seen = collections.Counter()
def look(event, details):
    name = details[1] if event == "compile" else None
    name = os.fsdecode(name) if isinstance(name, bytes) else name
    if isinstance(name, str) and name.startswith(archive):
        seen[name[len(archive) + 1:]] += 1
sys.addaudithook(look)
told = {}
exec(program)
print(json.dumps({"compiled": seen, "told": told}))
"""


@pytest.fixture
def run(tmp_path):
    """Run a program that may import from an archive with compiled_once and a package ``other`` of three files."""
    archive = tmp_path / "module.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        packages = FIRST.split(".")
        for length in range(1, len(packages) + 1):
            made.writestr("/".join([*packages[:length], "__init__.py"]), "")
        for name in ("compiled_once.py", "bridge/__init__.py"):
            made.write(PLUGINS / "module_utils" / name, FIRST.replace(".", "/") + f"/{name}")
        made.writestr(FIRST.replace(".", "/") + "/bridge/called.py", "")
        made.writestr("other/__init__.py", "")
        made.writestr("other/inner/__init__.py", "from . import deep\n")
        made.writestr("other/inner/deep.py", "def fail():\n    raise ValueError('from the deep')\n")

    def run_it(program):
        argv = [sys.executable, "-c", COUNTING, str(archive), program]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return archive, json.loads(done.stdout)

    return run_it


def test_every_file_that_is_imported_after_it_is_compiled_once(run):
    _archive, said = run(f"import {FIRST}.compiled_once\nimport other.inner.deep")
    names = ("other/__init__.py", "other/inner/__init__.py", "other/inner/deep.py")
    assert {name: said["compiled"][name] for name in names} == dict.fromkeys(names, 1)


def test_files_know_where_they_lie_and_tracebacks_show_their_lines(run):
    program = f"""
import {FIRST}.compiled_once
import other.inner.deep
told["package"], told["file"] = other.inner.__file__, other.inner.deep.__file__
try:
    other.inner.deep.fail()
except ValueError:
    told["traceback"] = traceback.format_exc()
"""
    archive, said = run(program)
    assert said["told"]["package"] == str(archive / "other" / "inner" / "__init__.py")
    assert said["told"]["file"] == str(archive / "other" / "inner" / "deep.py")
    assert "raise ValueError('from the deep')" in said["told"]["traceback"]


def test_what_the_archive_does_not_have_is_still_said_to_lack_and_other_archives_are_left_alone(run, tmp_path):
    with zipfile.ZipFile(tmp_path / "another.zip", "w") as made:
        made.writestr("elsewhere.py", "there = True\n")
    program = f"""
import {FIRST}.compiled_once
try:
    import other.nothing
except ModuleNotFoundError as error:
    told["lacks"] = str(error)
sys.path.append({str(tmp_path / "another.zip")!r})
import elsewhere
told["other"] = type(elsewhere.__spec__.loader).__name__
import other.inner
told["ours"] = type(other.inner.__spec__.loader).__name__
"""
    _archive, said = run(program)
    assert said["told"] == {"lacks": "No module named 'other.nothing'", "other": "zipimporter", "ours": "CompiledOnce"}


def test_outside_of_an_archive_nothing_is_done():
    program = "import sys; before = list(sys.path_hooks); import compiled_once; assert sys.path_hooks == before"
    found = f"import sys; sys.path.append({str(PLUGINS / 'module_utils')!r}); {program}"
    subprocess.run([sys.executable, "-c", found], check=True, timeout=60)


def test_what_a_module_calls_lies_in_the_package_that_imports_it_before_anything_else_of_ours():
    called = set()
    for path in (PLUGINS / "modules").glob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ansible_collections."):
                assert node.module.startswith(f"{FIRST}.bridge."), path.name
                called.add(node.module.rpartition(".")[2])
    assert {"csi", "zfs", "restore_point"} <= called
    tree = ast.parse((PLUGINS / "module_utils" / "bridge" / "__init__.py").read_text("utf-8"))
    ours = next(node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level)
    assert (ours.level, ours.module, [each.name for each in ours.names]) == (2, None, ["compiled_once"])


def test_the_files_that_a_module_calls_are_compiled_once_too(run):
    said = run(f"import {FIRST}.bridge.called")[1]
    assert said["compiled"][FIRST.replace(".", "/") + "/bridge/called.py"] == 1
