# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documentation of each module says what the module does: its options, and what its result really holds."""

from __future__ import annotations

import os
import time

import pytest
import yaml

from ansible_collections.restorepoint.core.plugins.module_utils.bridge import csi, pve
from ansible_collections.restorepoint.core.plugins.module_utils.bridge.hostpath import INFO_SPEC, STATE_SPEC
from ansible_collections.restorepoint.core.plugins.modules import (
    csi_snapshot,
    csi_snapshot_info,
    hostpath_snapshot,
    hostpath_snapshot_info,
    pve_snapshot,
    pve_snapshot_info,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.documented import (
    differences,
    faults,
    missing,
    options,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.running import run

MODULES = [
    (hostpath_snapshot, STATE_SPEC),
    (hostpath_snapshot_info, INFO_SPEC),
    (pve_snapshot, pve.STATE_SPEC),
    (pve_snapshot_info, pve.INFO_SPEC),
    (csi_snapshot, csi.STATE_SPEC),
    (csi_snapshot_info, csi.INFO_SPEC),
]
NAMES = [module.__name__.rpartition(".")[2] for module, _spec in MODULES]


@pytest.mark.parametrize(("module", "spec"), MODULES, ids=NAMES)
def test_every_option_is_documented_as_it_is(module, spec):
    assert list(differences(spec, options(module))) == []


def test_a_difference_would_be_seen():
    spec = {"a": {"type": "int", "options": {"b": {"default": 1}}}, "c": {}, "d": {"choices": ["x"]}}
    documented = {"a": {"type": "str", "suboptions": {"b": {"default": 2}}}, "d": {"choices": ["y"]}, "e": {}}
    assert list(differences(spec, documented)) == [
        "c is not documented",
        "e is no option",
        "a: type is 'int', and documented as 'str'",
        "a.b: default is 1, and documented as 2",
        "d: choices is ['x'], and documented as ['y']",
    ]


@pytest.mark.parametrize(("module", "spec"), MODULES, ids=NAMES)
def test_examples_use_only_options_that_there_are(module, spec):
    name = module.__name__.rpartition(".")[2]
    tasks = [task[f"restorepoint.core.{name}"] for task in yaml.safe_load(module.EXAMPLES)
             if f"restorepoint.core.{name}" in task]  # fmt: skip
    assert tasks
    for task in tasks:
        assert set(task) <= set(spec)
        assert all(value in spec[key]["choices"] for key, value in task.items() if "choices" in spec[key])
        assert set(task.get("keep", {})) <= set(STATE_SPEC["keep"]["options"])


@pytest.fixture
def place(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "f").write_text("one")
    (tmp_path / "other").mkdir()
    return tmp_path


def call(place, module=hostpath_snapshot, **arguments):
    """Run a module, and hold its result against its documentation."""
    arguments.setdefault("path", [str(place / "target")])
    if module is hostpath_snapshot:
        arguments.setdefault("ignore_users", True)
    result = run(module, store=str(place / "store"), **arguments)
    documented = yaml.safe_load(module.RETURN)
    assert list(faults(result, documented)) == []
    assert missing(result, documented) == []
    return result


def test_every_result_is_documented(place):
    both = [str(place / "target"), str(place / "other")]
    begun = time.monotonic()
    made = call(place, name="x", path=both, checksum=True, labels={"a": 1}, description="d")
    # Whole seconds: two moments of one second may lie in two.
    assert (made["changed"], 0 <= made["spread_seconds"] <= time.monotonic() - begun + 1) == (True, True)
    assert [each["action"] for each in made["results"]] == ["created", "created"]
    assert not call(place, name="x", path=both)["changed"]
    call(place, name="x", description="other")
    call(place, name="y", check_mode=True)
    time.sleep(0.03)
    (place / "target" / "f").write_text("two")
    for options_of_return in ({"check_mode": True}, {}, {}):
        returned = call(place, name="x", state="rolled_back", **options_of_return)
    assert not returned["changed"]
    call(place, name="x", state="cloned", clone=[str(place / "clone")])
    next(place.glob("store/*-target-*/x.json")).write_text("damaged")
    assert call(place, name="x", replace=True)["results"][0]["action"] == "replaced"
    pruned = call(place, state="pruned", keep={"last": 1}, asides={"last": 1})
    assert pruned["decisions"]
    call(place, name="x", state="absent")
    assert (place / "target" / "f").read_text() == "one"


def test_every_failure_is_documented(place):
    blocked = call(place, name="gone", state="rolled_back")
    assert blocked["failed"]
    assert blocked["blockers"][0]["target"] == str(place / "target")
    assert call(place, name="../x")["failed"]
    assert call(place, name="x", path=["relative"])["failed"]
    assert call(place, name="x", path=[])["failed"]
    assert call(place, name="x", lock_timeout=-1)["failed"]
    assert call(place, name="x", bandwidth_limit="0")["failed"]
    assert call(place, name="x", state="cloned", clone=["/a", "/b"])["failed"]
    assert call(place, state="pruned", keep={"daily": -2})["failed"]
    assert sorted(os.listdir(place)) == ["other", "target"]


def test_what_is_shown_is_documented(place):
    call(place, name="x")
    (place / "target" / "f").write_text("two")
    call(place, name="x", state="rolled_back")
    (place / "target" / "f").write_text("three")
    shown = call(place, hostpath_snapshot_info, sizes=True, verify=True)
    assert [each["name"] for each in shown["snapshots"]] == ["x"]
    assert [each["ok"] for each in shown["verified"]] == [True]
    assert len(shown["asides"]) == 1
    damaged = next(place.glob("store/*/x/f"))
    damaged.write_text("damaged")
    assert call(place, hostpath_snapshot_info, verify=True)["verified"][0]["fault_count"] == 1
    documented = yaml.safe_load(hostpath_snapshot_info.RETURN)
    assert list(faults({"asides": shown["asides"]}, {"asides": {**documented["snapshots"]}})) == []


def test_a_store_that_is_none_is_a_failure(place):
    assert "there is no store" in call(place, hostpath_snapshot_info)["msg"]
