# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role csi_snapshots hands its variables to csi_layout: its specification must not drift from the module's."""

from __future__ import annotations

import pathlib
import re

import pytest
import yaml

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.csi_layout import SPEC
from ansible_collections.restorepoint.core.plugins.module_utils.bridge.kubernetes import ARGUMENT_SPEC

ROLE = pathlib.Path(__file__).resolve().parents[4] / "roles" / "csi_snapshots"
ROWS = {
    "csi_snapshots_manifests": "manifests",
    "csi_snapshots_drivers": "drivers",
    "csi_snapshots_storage_classes": "storage_classes",
    "csi_snapshots_classes": "snapshot_classes",
    "csi_snapshots_group_classes": "group_snapshot_classes",
}


def read(path):
    return yaml.safe_load((ROLE / path).read_text())


def specs():
    return read("meta/argument_specs.yml")["argument_specs"]["main"]["options"]


def shape(options):
    """Return of each option what decides whether a value is accepted."""
    return {
        name: (each.get("type", "str"), each.get("elements"), each.get("choices"), bool(each.get("required")))
        for name, each in options.items()
    }


@pytest.mark.parametrize(("variable", "option"), sorted(ROWS.items()))
def test_the_rows_of_a_variable_are_those_of_the_module(variable, option):
    assert shape(specs()[variable]["options"]) == shape(SPEC[option]["options"])


def test_every_way_to_log_in_can_be_said_and_is_handed_over():
    assert shape(specs()["csi_snapshots_connection"]["options"]) == shape(ARGUMENT_SPEC)
    task = next(each for each in read("tasks/main.yml") if "restorepoint.core.csi_layout" in each)
    assert set(task["restorepoint.core.csi_layout"]) == set(SPEC)


def test_defaults_are_those_that_the_specification_tells():
    assert read("defaults/main.yml") == {name: each["default"] for name, each in specs().items()}


def test_every_manifest_of_a_release_has_a_checksum_and_the_release_in_its_address():
    for manifests in read("vars/main.yml")["__csi_snapshots_releases"].values():
        assert len(manifests) == 8
        assert all(re.fullmatch("[0-9a-f]{64}", each["sha256"]) for each in manifests)
        assert len({each["sha256"] for each in manifests}) == 8
