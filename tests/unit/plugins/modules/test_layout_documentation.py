# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The layout modules' documentation says what they do; and what they refuse is said in one sentence each."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.layout import BTRFS_SPEC, LVM_SPEC, ZFS_SPEC
from ansible_collections.restorepoint.core.plugins.modules import btrfs_layout, lvm_layout, zfs_layout
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.documented import (
    differences,
    faults,
    missing,
    options,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.running import run

MODULES = [(lvm_layout, LVM_SPEC), (zfs_layout, ZFS_SPEC), (btrfs_layout, BTRFS_SPEC)]
NAMES = ["lvm_layout", "zfs_layout", "btrfs_layout"]
EACH = pytest.mark.parametrize(("module", "spec"), MODULES, ids=NAMES)


@EACH
def test_every_option_is_documented_as_it_is(module, spec):
    assert list(differences(spec, options(module))) == []


@EACH
def test_examples_are_what_the_module_understands(module, spec, tmp_path):
    name = f"restorepoint.core.{module.__name__.rpartition('.')[2]}"
    tasks = [task[name] for task in yaml.safe_load(module.EXAMPLES)]
    assert tasks
    for task in tasks:
        result = run(module, check_mode=True, **task)
        # On this host the disks are missing: it has understood, looked, and says that.
        reasons = {each["reason"] for each in result.get("blockers", [])}
        assert "blockers" not in result or reasons, result
        assert "parameters" not in result.get("msg", "")


@EACH
def test_nothing_asked_for_is_nothing_done(module, spec):
    result = run(module, check_mode=True)
    assert (result["changed"], result["changes"]) == (False, [])
    assert missing(result, yaml.safe_load(module.RETURN)) == []


@EACH
def test_what_is_foretold_and_what_is_refused_is_documented(module, spec, tmp_path):
    disk = str(tmp_path / "disk.img")
    every: dict[Any, dict[str, Any]] = {
        lvm_layout: {"volume_groups": [{"name": "rp-test-vg", "devices": [disk]}]},
        zfs_layout: {"pools": [{"name": "rp-test-pool", "vdevs": [{"devices": [disk]}]}]},
        btrfs_layout: {"filesystems": [{"label": "rp-test", "devices": [disk]}]},
    }
    rows = every[module]
    documented = yaml.safe_load(module.RETURN)
    foretold = run(module, check_mode=True, files=[{"path": disk, "size": "300M"}], **rows)
    assert foretold["changed"]
    assert list(faults({**foretold, "diff": None}, {**documented, "diff": {"type": "dict"}})) == []
    refused = run(module, check_mode=True, **rows)
    assert refused["failed"]
    assert list(faults(refused, documented)) == []
    assert [each["reason"] for each in refused["blockers"]] == ["there is no such disk"]
    assert not list(tmp_path.iterdir())
