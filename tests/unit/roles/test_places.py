# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Roles and playbooks look for the agent and its files where the role agent has put them."""

from __future__ import annotations

import pathlib

import pytest
import yaml

TOP = pathlib.Path(__file__).parents[3]


def defaults(role):
    return yaml.safe_load((TOP / "roles" / role / "defaults" / "main.yml").read_text())


@pytest.mark.parametrize("place", ["program", "policies_file", "state_folder"])
@pytest.mark.parametrize("role", ["schedule", "monitoring"])
def test_a_role_takes_the_place_that_the_role_agent_was_given(role, place):
    words = f"agent_{place} | default('{defaults('agent')[f'agent_{place}']}')"
    assert defaults(role)[f"{role}_{place}"] == f"{{{{ {words} }}}}"


@pytest.mark.parametrize("place", ["program", "policies_file", "state_folder"])
@pytest.mark.parametrize("playbook", ["health", "drill", "checklist"])
def test_a_playbook_takes_the_place_that_the_role_agent_was_given(playbook, place):
    words = f"agent_{place} | default('{defaults('agent')[f'agent_{place}']}')"
    assert words in (TOP / "playbooks" / f"{playbook}.yml").read_text()
