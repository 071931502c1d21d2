# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What docs/peers.md says is shown by tests is shown by tests that there are."""

from __future__ import annotations

import ast
import functools
import pathlib
import re

import pytest

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
_TEST = re.compile(r"`(tests/[\w/.]+)::(\w+)`")


def rows():
    """Return the lines of the page's tables as lists of cells, without their heads."""
    lines = (CHECKOUT / "docs" / "peers.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in cells if row[0] != "seen in" and set(row[0]) != {"-"}]


@functools.cache
def named_in(path):
    """Return the names of the tests of a file."""
    tree = ast.parse((CHECKOUT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]}: {row[1]}"[:60])
def test_every_defect_has_tests_and_each_of_them_is_there(row):
    assert len(row) == 3
    named = _TEST.findall(row[2])
    assert ", ".join(f"`{path}::{name}`" for path, name in named) == row[2]
    assert named
    assert {f"{path}::{name}" for path, name in named if name not in named_in(path)} == set()


def test_each_storage_has_its_table():
    assert len(rows()) > 20
