# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role microk8s_storage hands its variables to modules and a role: it must not drift from them."""

from __future__ import annotations

import pathlib

import pytest
import yaml

from ansible_collections.restorepoint.core.plugins.module_utils.bridge import csi_class_test, csi_driver_layout
from ansible_collections.restorepoint.core.plugins.module_utils.bridge.kubernetes import ARGUMENT_SPEC
from ansible_collections.restorepoint.core.plugins.module_utils.setup.csi_driver import RESTORES, SOURCES
from ansible_collections.restorepoint.core.plugins.module_utils.setup.csi_drivers import KINDS

ROLE = pathlib.Path(__file__).resolve().parents[4] / "roles" / "microk8s_storage"


def read(path):
    return yaml.safe_load((ROLE / path).read_text())


def specs():
    return read("meta/argument_specs.yml")["argument_specs"]["main"]["options"]


def test_defaults_are_those_that_the_specification_tells():
    assert read("defaults/main.yml") == {name: each["default"] for name, each in specs().items()}


def test_every_driver_is_called_as_csi_layout_calls_it():
    kinds = read("vars/main.yml")["__microk8s_storage_kinds"]
    assert list(kinds) == specs()["microk8s_storage_driver"]["choices"]
    assert kinds == {name: {"driver": KINDS[name].driver, "name": KINDS[name].name} for name in kinds}
    assert {*SOURCES, *RESTORES} <= {each["driver"] for each in kinds.values()}


@pytest.mark.parametrize(
    ("module", "spec", "unset"),
    [
        ("csi_driver_layout", csi_driver_layout.SPEC, {"wait"}),
        ("csi_class_test", csi_class_test.SPEC, {"node"}),
    ],
)
def test_every_way_to_log_in_is_handed_over_and_every_option_is_there(module, spec, unset):
    assert set(specs()["microk8s_storage_connection"]["options"]) == set(ARGUMENT_SPEC)
    name = f"restorepoint.core.{module}"
    tasks = [each[name] for each in read("tasks/cluster.yml") if name in each]
    assert set(tasks[-1]) == set(spec) - unset
    assert all(set(ARGUMENT_SPEC) <= set(each) <= set(spec) for each in tasks)
