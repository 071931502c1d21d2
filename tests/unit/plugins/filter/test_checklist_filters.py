# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filters of the checklist refuse what is none, and name hosts."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.restorepoint.core.plugins.filter.checklist_paths import checklist_paths
from ansible_collections.restorepoint.core.plugins.filter.checklist_points import checklist_points
from ansible_collections.restorepoint.core.plugins.filter.checklist_to_do import checklist_to_do


def test_only_what_is_not_in_order_is_named_with_its_host() -> None:
    good, bad = {"state": "ok", "line": "✓ a"}, {"state": "warning", "line": "! b"}
    assert checklist_to_do({"web": [good, bad], "db": [good], "mail": [bad]}) == ["web: ! b", "mail: ! b"]


def test_paths_come_from_policies() -> None:
    assert checklist_paths([{"name": "x", "targets": [{"path": ["/a"], "store": "/b"}]}]) == ["/a", "/b"]


def test_what_is_none_of_these_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="give a list of policies"):
        checklist_paths(["nightly"])
    with pytest.raises(AnsibleFilterError, match=r"gather it as checklist\.yml does"):
        checklist_points({"now": 1})
    with pytest.raises(AnsibleFilterError, match="a list of points for each host"):
        checklist_to_do({"web": [{"line": "x"}]})
