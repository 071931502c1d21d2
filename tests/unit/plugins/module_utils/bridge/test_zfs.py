# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of zfs_snapshot and zfs_snapshot_info: documented as they are, and refused where they mean nothing."""

from __future__ import annotations

import json

import pytest
import yaml

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.zfs import INFO_SPEC, STATE_SPEC
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.restorepoint.core.plugins.module_utils.engine import zfs as engine
from ansible_collections.restorepoint.core.plugins.modules import zfs_snapshot, zfs_snapshot_info
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.documented import differences, options
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.running import run

MODULES = [(zfs_snapshot, STATE_SPEC), (zfs_snapshot_info, INFO_SPEC)]


@pytest.mark.parametrize(("module", "spec"), MODULES, ids=["zfs_snapshot", "zfs_snapshot_info"])
def test_every_option_is_documented_as_it_is(module, spec):
    assert list(differences(spec, options(module))) == []


@pytest.mark.parametrize(("module", "spec"), MODULES, ids=["zfs_snapshot", "zfs_snapshot_info"])
def test_examples_use_only_options_that_there_are(module, spec):
    name = f"restorepoint.core.{module.__name__.rpartition('.')[2]}"
    tasks = [task[name] for task in yaml.safe_load(module.EXAMPLES) if name in task]
    assert tasks
    assert all(set(task) <= set(spec) for task in tasks)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "x"}, "missing required arguments: dataset"),
        ({"dataset": [], "name": "x"}, "dataset is empty"),
        ({"dataset": ["tank"]}, "state is present but all of the following are missing: name"),
        ({"dataset": ["tank"], "state": "pruned"}, "any of the following are missing: keep, asides"),
        ({"dataset": ["tank"], "state": "cloned", "name": "x"}, "all of the following are missing: clone"),
        (
            {"dataset": ["tank/a"], "state": "cloned", "name": "x", "clone": ["tank/b"], "recursive": True},
            "recursive does not say what each clone is called",
        ),
        (
            {"dataset": ["tank/a"], "state": "cloned", "name": "x", "clone": ["tank/b", "tank/c"]},
            "as many names as there are datasets",
        ),
        (
            {"dataset": ["tank/a"], "state": "cloned", "name": "x", "clone": ["tank/b"], "mountpoint": ["/a", "/b"]},
            "as many paths as there are clones",
        ),
        ({"dataset": ["tank/a"], "state": "cloned", "name": "x", "clone": ["two/b"]}, "a clone lies in the pool"),
        ({"dataset": ["tank"], "name": "x", "timeout": 0}, "give 1 or more seconds"),
        ({"dataset": ["tank"], "name": "x", "lock_timeout": -1}, "give 0 or more seconds"),
        ({"dataset": ["tank@x"], "name": "x"}, "it names a snapshot or bookmark"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_tool_is_run(monkeypatch, given, words):
    monkeypatch.setenv("PATH", "/nowhere")
    result = run(zfs_snapshot, **given)
    assert result["failed"]
    assert words in result["msg"]


def test_info_refuses_what_is_no_property(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert "it is no property" in run(zfs_snapshot_info, dataset=["tank"], properties=["a b"])["msg"]


def test_what_the_backend_tells_while_it_works_lands_in_the_progress_file(monkeypatch, tmp_path):
    backend_of, path = engine.backend_of, tmp_path / "progress.jsonl"

    def telling(*arguments):
        tell = backend_of(*arguments).options.progress
        assert tell is not None
        tell("destroy", {"done": 1, "of": 2})
        raise InvalidInput("go on", "this is enough for a test", "look at the file")

    monkeypatch.setattr(engine, "backend_of", telling)
    assert run(zfs_snapshot, dataset=["tank"], name="x", progress_file=str(path))["failed"]
    assert json.loads(path.read_text())["of"] == 2
