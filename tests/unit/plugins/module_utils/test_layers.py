# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Holds the layers of docs/architecture.md: imports point down only, and the core is pure.

    plugins/modules -> bridge -> agent -> engine, offsite -> backends -> the doors (process.py, http.py, ...) -> core
                         bridge -> setup -> the doors -> core

Read with ast, so nothing is imported. The second half feeds the same reader small wrong sources and sees it object.
"""

from __future__ import annotations

import ast
import importlib.util
import pathlib
import sys
import sysconfig
from collections.abc import Iterator

import pytest

PLUGINS = pathlib.Path(__file__).resolve().parents[4] / "plugins"
COLLECTION = "ansible_collections.restorepoint.core.plugins."

#: Which layers each layer may import. A door is a module directly in module_utils.
DOWN = {
    "core": {"core"},
    "door": {"door", "core"},
    "backends": {"backends", "door", "core"},
    "setup": {"setup", "door", "core"},
    "engine": {"engine", "backends", "door", "core"},
    "offsite": {"offsite", "backends", "door", "core"},
    "agent": {"agent", "offsite", "engine", "backends", "door", "core"},
    "bridge": {"bridge", "agent", "offsite", "engine", "backends", "setup", "door", "core"},
    "modules": {"bridge", "backends"},
}
#: Packages from outside that a layer may use, inside of a function only: managed hosts may not have them.
LAZY = {
    "door": {"kubernetes", "proxmoxer", "yaml"},
    "backends": {"kubernetes", "proxmoxer", "jmespath"},
    "agent": {"prometheus_client", "tabulate", "tqdm"},
    "bridge": {"jmespath"},
}
#: What of the standard library does neither I/O nor look at a clock. zoneinfo reads the time zone database, no more.
PURE = {
    *("__future__", "abc", "base64", "bisect", "collections", "contextlib", "copy", "dataclasses", "datetime", "enum"),
    *(
        "fnmatch",
        "functools",
        "hashlib",
        "heapq",
        "ipaddress",
        "itertools",
        "json",
        "math",
        "operator",
        "posixpath",
        "re",
    ),
    *("html", "string", "textwrap", "types", "typing", "unicodedata", "zoneinfo"),
}
#: Of the classes datetime and date; an attribute ``now`` of our own is the time as an argument, and welcome.
CLOCKS = {"now", "utcnow", "today"}
DOORS_OF_THE_LANGUAGE = {"open", "print", "input", "exec", "eval", "compile", "__import__"}


def standard(package: str) -> bool:
    """Say whether a package comes with Python (3.9 has no list of them)."""
    if hasattr(sys, "stdlib_module_names"):
        return package in sys.stdlib_module_names
    if package in sys.builtin_module_names:
        return True
    spec = importlib.util.find_spec(package)
    origin = (spec.origin if spec else None) or ""
    if origin == "frozen":  # zipimport
        return True
    return origin.startswith(sysconfig.get_path("stdlib")) and "site-packages" not in origin


def layer_of(parts: tuple[str, ...]) -> str | None:
    """Return the layer of a dotted path below plugins; None for what is in no layer (filters and lookups)."""
    if parts[:1] == ("modules",):
        return "modules"
    if parts[:1] != ("module_utils",):
        return None
    return parts[1] if parts[1:] and parts[1] in DOWN else "door"


def imports_of(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[str, int, bool]]:
    """Yield (dotted name, line, at the top level) of each import; relative ones are resolved against the package."""
    inside = {id(node) for each in ast.walk(tree) if isinstance(each, FUNCTIONS) for node in ast.walk(each)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, id(node) not in inside
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            prefix = COLLECTION + ".".join(base) if node.level else ""
            start = ".".join(each for each in (prefix.rstrip("."), node.module) if each)
            for alias in node.names:
                yield f"{start}.{alias.name}", node.lineno, id(node) not in inside


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def wrong_import(layer: str, name: str, top_level: bool) -> str | None:
    """Say what is wrong with an import in that layer, or return None."""
    root = name.split(".", 1)[0]
    if name.startswith(COLLECTION):
        aim = layer_of(tuple(name[len(COLLECTION) :].split(".")))
        return None if aim in DOWN[layer] else f"{layer} imports {aim or 'another plugin'}"
    if root == "ansible_collections":
        return f"{layer} imports another collection"
    if root == "ansible":
        return None if layer == "bridge" else f"{layer} imports ansible"
    if layer == "core":
        return None if root in PURE else f"core imports {root}, which is not pure"
    if standard(root):
        return None
    if root not in LAZY.get(layer, ()):
        return f"{layer} imports {root}, which managed hosts may lack"
    return f"{layer} imports {root} at its top level, and so needs it always" if top_level else None


def impure_calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield where a source asks a clock or opens a door of the language itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in CLOCKS:
            owner = node.value
            if getattr(owner, "attr", getattr(owner, "id", None)) in ("datetime", "date"):
                yield node.lineno, f"core asks a clock ({node.attr})"
        elif isinstance(node, ast.Name) and node.id in DOORS_OF_THE_LANGUAGE:
            yield node.lineno, f"core uses {node.id}"


def objections(path: str, source: str) -> list[str]:
    """Return what is wrong with a source at that path below plugins, as ``path:line: reason``."""
    parts = pathlib.PurePosixPath(path).with_suffix("").parts
    layer = layer_of(parts)
    if layer is None:
        return []
    tree = ast.parse(source)
    found = [
        (line, reason)
        for name, line, top_level in imports_of(tree, parts[:-1])
        for reason in [wrong_import(layer, name, top_level)]
        if reason
    ]
    if layer == "core":
        found += impure_calls(tree)
    return [f"{path}:{line}: {reason}" for line, reason in sorted(found)]


def test_every_import_points_down_and_the_core_is_pure():
    sources = sorted(PLUGINS.rglob("*.py"))
    assert [path for path in sources if layer_of(path.relative_to(PLUGINS).parts) == "core"], "the core was not found"
    found = [
        each for path in sources for each in objections(path.relative_to(PLUGINS).as_posix(), path.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("path", "source", "reason"),
    [
        ("module_utils/core/plan.py", "from ..backends import zfs", "core imports backends"),
        ("module_utils/core/plan.py", "from ..process import run", "core imports door"),
        ("module_utils/core/plan.py", "from .. import process", "core imports door"),
        ("module_utils/core/plan.py", "import os", "core imports os, which is not pure"),
        ("module_utils/core/plan.py", "def now():\n    import time", "core imports time, which is not pure"),
        ("module_utils/core/plan.py", "from ansible.module_utils.basic import AnsibleModule", "core imports ansible"),
        ("module_utils/core/plan.py", "import datetime\ndatetime.datetime.now()", "core asks a clock (now)"),
        (
            "module_utils/core/plan.py",
            "import datetime\nclock = datetime.datetime.utcnow",
            "core asks a clock (utcnow)",
        ),
        ("module_utils/core/plan.py", "open('/etc/passwd')", "core uses open"),
        ("module_utils/http.py", "from .backends.zfs import Zfs", "door imports backends"),
        ("module_utils/http.py", "import ansible", "door imports ansible"),
        ("module_utils/http.py", "from .setup import lvm", "door imports setup"),
        ("module_utils/setup/lvm.py", "from ..backends.lvm import x", "setup imports backends"),
        ("module_utils/backends/lvm.py", "from ..setup import lvm", "backends imports setup"),
        ("module_utils/http.py", "import requests", "door imports requests, which managed hosts may lack"),
        (
            "module_utils/kube.py",
            "import kubernetes",
            "door imports kubernetes at its top level, and so needs it always",
        ),
        ("module_utils/backends/zfs.py", "from ..bridge import spec", "backends imports bridge"),
        ("module_utils/backends/hostpath/tree.py", "from ...bridge.spec import x", "backends imports bridge"),
        ("module_utils/backends/hostpath/tree.py", "from ... import agent", "backends imports agent"),
        ("module_utils/backends/zfs.py", "from ansible.module_utils.basic import x", "backends imports ansible"),
        ("module_utils/agent/cli.py", "from ..bridge import spec", "agent imports bridge"),
        ("module_utils/engine/zfs.py", "from ..bridge import spec", "engine imports bridge"),
        ("module_utils/engine/zfs.py", "from ..agent import cli", "engine imports agent"),
        ("module_utils/engine/zfs.py", "from ansible.module_utils.basic import x", "engine imports ansible"),
        ("module_utils/backends/zfs.py", "from ..engine import zfs", "backends imports engine"),
        ("module_utils/agent/cli.py", "from ansible.errors import AnsibleError", "agent imports ansible"),
        ("modules/zfs_snapshot.py", "from ansible.module_utils.basic import AnsibleModule", "modules imports ansible"),
        (
            "modules/zfs_snapshot.py",
            "from ansible_collections.restorepoint.core.plugins.module_utils.core.plan import plan",
            "modules imports core",
        ),
        (
            "modules/zfs_snapshot.py",
            "from ansible_collections.community.general.plugins.module_utils.lvm import x",
            "modules imports another collection",
        ),
    ],
)
def test_a_wrong_source_is_objected_to(path, source, reason):
    assert [each.split(": ", 1)[1] for each in objections(path, source)] == [reason]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("module_utils/core/plan.py", "import datetime\nfrom .names import stamp\nfrom . import units"),
        ("module_utils/core/plan.py", "def due(request):\n    return request.now"),
        ("module_utils/process.py", "import subprocess\nfrom .core.errors import ToolError\nfrom .mounts import parse"),
        ("module_utils/kube.py", "def connect():\n    import kubernetes"),
        ("module_utils/backends/hostpath/tree.py", "from ...core import names\nfrom ... import linux\nfrom . import x"),
        ("module_utils/bridge/spec.py", "from ansible.module_utils.basic import x\nfrom ..backends import hostpath"),
        ("modules/a.py", "from ansible_collections.restorepoint.core.plugins.module_utils.bridge.a import main"),
        ("filter/retention.py", "from ansible.errors import AnsibleFilterError"),
    ],
)
def test_a_right_source_is_not_objected_to(path, source):
    assert objections(path, source) == []
