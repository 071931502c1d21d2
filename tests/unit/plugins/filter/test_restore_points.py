# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filters of the role restore_point."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("ansible.errors")

from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.filter.restore_point_groups import restore_point_groups
from ansible_collections.restorepoint.core.plugins.filter.restore_point_summary import (
    restore_point_summary,
)

ZFS, PVE = {"backend": "zfs", "dataset": ["a"]}, {"backend": "pve", "vmid": ["101"]}
RESULT = {"name": "upgrade", "state": "present", "hosts": ["web1", "web2"]}


def test_targets_are_sorted_by_where_they_are_reached():
    groups = restore_point_groups([ZFS, {**PVE, "delegate_to": "localhost", "become": "no"}, ZFS], "web1")
    assert groups == [
        {"delegate_to": "web1", "label": "zfs on web1", "targets": [ZFS, ZFS]},
        {"delegate_to": "localhost", "label": "pve on localhost", "targets": [PVE], "become": False},
    ]


@pytest.mark.parametrize("nothing", ["", None, [], "[]"])
def test_no_targets_are_no_groups(nothing):
    assert restore_point_groups(nothing, "web1") == []


@pytest.mark.parametrize(
    ("given", "said"), [("[a", "it is no YAML"), ("word", "no list of mappings"), ([1], "no list of mappings")]
)
def test_what_is_no_list_of_targets_is_an_error_that_names_the_host(given, said):
    with pytest.raises(AnsibleFilterError, match=f"restore_point_targets of web1: .*{said}"):
        restore_point_groups(given, "web1")


TARGETS = st.lists(
    st.fixed_dictionaries(
        {"backend": st.sampled_from(["zfs", "pve"])},
        optional={
            "delegate_to": st.sampled_from(["", "localhost", "web1"]),
            "become": st.sampled_from(["", True, "no"]),
        },
    )
)


@given(TARGETS)
def test_no_target_is_lost_and_text_means_the_same(targets):
    groups = restore_point_groups(targets, "web1")
    assert sum(len(group["targets"]) for group in groups) == len(targets)
    assert len({(group["delegate_to"], group.get("become")) for group in groups}) == len(groups)
    assert restore_point_groups(json.dumps(targets), "web1") == groups


def test_the_summary_tells_what_changed_and_what_failed():
    results = {
        "web1": [{"target": "zfs:a", "action": "created", "changed": True}],
        "web2": [
            {"target": "zfs:a", "action": "failed", "changed": False},
            {"target": "zfs:b", "action": "unchanged", "changed": False},
        ],
    }
    done = {"results": results, "spread_seconds": 1.5, "any_changed": True}
    assert restore_point_summary(done, RESULT, ["raise forks"]) == [
        "upgrade: present on 2 hosts, spread over 1.5 seconds by the hosts' clocks",
        "raise forks",
        "web1 zfs:a created",
        "web2 zfs:a failed",
    ]
    assert restore_point_summary({}, {**RESULT, "hosts": ["web1"]}) == [
        "upgrade: present on 1 host, nothing was to be done"
    ]


def test_a_long_summary_is_cut_and_says_so():
    results = {"web1": [{"target": f"zfs:{number}", "action": "created", "changed": True} for number in range(1000)]}
    lines = restore_point_summary({"results": results, "any_changed": True}, RESULT)
    assert lines[-1] == "and 800 more"
