# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""schedule_layout and agent_file: their documentation says what they are."""

from __future__ import annotations

import io
import zipfile

import pytest
import yaml

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.schedule import SPEC
from ansible_collections.restorepoint.core.plugins.module_utils.setup import agent_build
from ansible_collections.restorepoint.core.plugins.modules import agent_file, schedule_layout
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.documented import differences, options


def test_every_option_is_documented_as_it_is():
    assert list(differences(SPEC, options(schedule_layout))) == []


@pytest.mark.parametrize("module", [agent_file, schedule_layout])
def test_examples_name_options_that_there_are(module):
    name = f"restorepoint.core.{module.__name__.rpartition('.')[2]}"
    known = set(yaml.safe_load(module.DOCUMENTATION)["options"])
    tasks = [task[name] or {} for task in yaml.safe_load(module.EXAMPLES)]
    assert tasks
    assert all(set(task) <= known for task in tasks)


def test_the_agent_is_built_the_same_each_time_and_has_its_licence():
    built = agent_build.agent_bytes()
    assert built == agent_build.agent_bytes()
    assert len(built) <= agent_build.MAX_BYTES
    names = zipfile.ZipFile(io.BytesIO(built)).namelist()
    assert {"__main__.py", "restorepoint/agent/cli.py", "restorepoint/COPYING"} <= set(names)
    assert not [name for name in names if "/bridge/" in name or "/setup/" in name]
