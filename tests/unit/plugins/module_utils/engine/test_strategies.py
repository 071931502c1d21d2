# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The policies of docs/strategies.md are policies, and do what the page says of them."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.engine.policy import parse_policies

GUIDE = pathlib.Path(__file__).parents[5] / "docs" / "strategies.md"
POLICIES = {
    policy.name: policy
    for text in re.findall(r"```json\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    for policy in parse_policies(json.loads(text))
}


def test_there_is_one_policy_for_each_kind_of_system():
    assert sorted(POLICIES) == ["development", "production", "staging"]


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("production", {"hourly": 24, "daily": 7, "weekly": 4, "monthly": 12}),
        ("staging", {"daily": 3, "weekly": 2}),
        ("development", {"last": 3}),
    ],
)
def test_they_keep_what_the_table_says(name, rules):
    assert dict(POLICIES[name].retention.rules) == rules


def test_production_goes_to_two_other_places_and_is_proven_and_development_to_none():
    assert [each.kind for each in POLICIES["production"].exports] == ["zfs", "restic"]
    assert POLICIES["production"].drill is not None
    assert POLICIES["production"].hooks
    assert not POLICIES["development"].exports
    assert POLICIES["development"].drill is None
    assert POLICIES["development"].only_if_changed
