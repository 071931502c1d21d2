# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of lvm_snapshot, through the module itself: which go together, and what cannot be meant."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.engine import lvm as engine
from ansible_collections.restorepoint.core.plugins.modules import lvm_snapshot
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.running import run


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "x"}, "missing required arguments: volume"),
        ({"volume": ["vg0/a"]}, "state is present but all of the following are missing: name"),
        ({"volume": ["vg0/a"], "state": "cloned", "name": "x"}, "all of the following are missing: clone"),
        ({"volume": ["vg0/a"], "state": "pruned"}, "any of the following are missing: keep, asides"),
        ({"volume": [], "name": "x"}, "volume is empty"),
        ({"volume": ["a"], "name": "x"}, "Cannot use 'a' as a volume"),
        ({"volume": ["vg0/a"], "name": "-x"}, "as the name of a snapshot"),
        ({"volume": ["vg0/a"], "name": "x" * 130}, "as the name of a snapshot"),
        ({"volume": ["vg0/a"], "name": "x" * 122}, "characters long"),
        ({"volume": ["vg0/a"], "name": "aside-20261122t013000z"}, "choose another name"),
        ({"volume": ["vg0/a"], "name": "x", "size": "20%"}, "of what it is a percentage"),
        ({"volume": ["vg0/a"], "name": "x", "data_limit": 0}, "it is no percentage"),
        ({"volume": ["vg0/a"], "name": "x", "command_timeout": 0}, "it is less than 1"),
        ({"volume": ["vg0/a"], "name": "x", "lock_timeout": -1}, "it is less than 0"),
        ({"volume": ["vg0/a"], "name": "x", "wait_timeout": "10"}, "it is not a duration"),
        ({"volume": ["vg0/a"], "name": "x", "state": "cloned", "clone": ["vg1/b"]}, "in the pool of its snapshot"),
        ({"volume": ["vg0/a", "vg0/b"], "name": "x", "state": "cloned", "clone": ["c"]}, "as many names"),
        ({"volume": ["vg0/a", "vg0/b"], "name": "x", "state": "cloned", "clone": ["c", "c"]}, "different names"),
        ({"volume": ["vg0/a"], "name": "x", "state": "cloned", "clone": ["x_tmeta"]}, "LVM reserves"),
        (
            {"volume": ["vg0/a"], "name": "x", "state": "rolled_back", "unmount": True, "when_busy": "defer"},
            "set one of them",
        ),
    ],
)
def test_what_cannot_be_meant_is_an_error_before_any_program_runs(monkeypatch, options, words):
    monkeypatch.setenv("PATH", "/nowhere")
    result = run(lvm_snapshot, **options)
    assert result["failed"]
    assert words in result["msg"]


def test_each_volume_is_taken_once_however_it_is_written():
    params = {"volume": ["vg0/a", "/dev/vg0/a", "/dev/mapper/vg0-a", "vg0/b"]}
    assert [str(target) for target in engine.targets_of(params)] == ["vg0/a", "vg0/b"]
