# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which guests a selection means."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.pve.guests import (
    Selection,
    check,
    read_cluster,
    select,
    words,
)
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput, RestorePointError
from ansible_collections.restorepoint.core.plugins.module_utils.pve import PveError

RESOURCES = [
    {"type": "node", "node": "pve1"},
    {"type": "storage", "storage": "local-zfs", "node": "pve1", "plugintype": "zfspool"},
    {"type": "qemu", "vmid": 102, "node": "pve2", "name": "db", "status": "stopped", "maxmem": 8},
    {
        "type": "qemu",
        "vmid": 100,
        "node": "pve1",
        "name": "web-1",
        "status": "running",
        "tags": "prod;web",
        "maxmem": 4,
    },
    {"type": "lxc", "vmid": 101, "node": "pve1", "name": "web-2", "status": "running", "tags": "web", "pool": "shop"},
    {"type": "qemu", "vmid": 109, "node": "pve1", "name": "golden", "status": "stopped", "template": 1},
    {"type": "qemu", "vmid": 110, "node": "pve1", "name": "db", "status": "stopped"},
]
CLUSTER = read_cluster(RESOURCES)


def ids(**options):
    return [guest.vmid for guest in select(CLUSTER, Selection(**options))]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [100, 101, 102, 110]),
        ({"vmid": ("100-105",)}, [100, 101, 102]),
        ({"vmid": ("100-101", "110"), "guest": ("web-1",)}, [100, 101, 110]),
        ({"vmid": ("109",)}, [109]),
        ({"vmid": ("100-120",)}, [100, 101, 102, 110]),
        ({"guest": ("g*",), "allow_none": True}, []),
        ({"guest": ("golden",)}, [109]),
        ({"tags": ("web",)}, [100, 101]),
        ({"tags": ("web", "prod")}, [100]),
        ({"pool": ("shop", "other")}, [101]),
        ({"type": "qemu", "status": "stopped"}, [102, 110]),
        ({"exclude": ("100-101", "d?")}, []),
        ({"exclude": ("lxc/101",)}, [100, 102, 110]),
        ({"select": "[?maxmem > `4`]"}, [102]),
        ({"select": "[?node == 'pve2'].vmid"}, [102]),
    ],
)
def test_selections(options, expected):
    assert ids(**{"allow_none": expected == [], **options}) == expected


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"vmid": ("999",)}, RestorePointError, "999 is not to be seen .* VM.Audit"),
        ({"vmid": ("999",), "allow_none": True}, RestorePointError, "999 is not to be seen"),
        ({"guest": ("db",)}, InvalidInput, "102, 110 are all called 'db'"),
        ({"guest": ("nobody", "noone")}, RestorePointError, "nobody, noone are not to be seen"),
        ({"tags": ("none",)}, RestorePointError, "none of the 5 guests fits.*allow_none"),
        ({"vmid": ("1-2",)}, RestorePointError, "none of the 5 guests fits"),
        ({"select": "[0].name"}, InvalidInput, "does not give a list of guests"),
        ({"select": "abs(@)"}, InvalidInput, "apply select"),
    ],
)
def test_what_is_wrong_is_said(options, kind, says):
    with pytest.raises(kind, match=says):
        ids(**options)


@pytest.mark.parametrize("value", ["abc", "-5", "5-", "200-100", "1.5", "\u0661\u0660\u0660"])
def test_ids_that_are_none_are_refused_before_anybody_is_asked(value):
    with pytest.raises(InvalidInput, match="read vmid"):
        check(Selection(vmid=(value,)))


def test_an_empty_cluster_points_at_permissions():
    with pytest.raises(RestorePointError, match=r"no guest is to be seen.*VM\.Audit"):
        select(read_cluster([]), Selection())


@pytest.mark.parametrize("answer", [None, [{"vmid": 1}], [{"type": "qemu", "vmid": "x", "node": "n"}], [5]])
def test_what_cannot_be_read_is_an_error(answer):
    with pytest.raises(PveError, match="cannot be read"):
        read_cluster(answer)


def test_surveys_give_several_in_one_text():
    assert words(["100, 101\n102", 103, "100"]) == ("100", "101", "102", "103")
    assert words(None) == ()


def test_kinds_of_storage_are_known():
    assert CLUSTER.storages == {("pve1", "local-zfs"): "zfspool"}
