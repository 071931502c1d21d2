# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names that are valid on every backend at once."""

from __future__ import annotations

import datetime
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.restorepoint.core.plugins.module_utils.core.names import (
    aside_name,
    automatic_name,
    check_owner,
    is_aside,
    stamp,
)

MOMENT = int(datetime.datetime(2026, 11, 22, 1, 30, tzinfo=datetime.timezone.utc).timestamp())


def test_an_automatic_name_is_the_owner_and_the_time_in_utc() -> None:
    assert automatic_name("hourly", MOMENT) == "hourly-20261122t013000z"


@settings(max_examples=200, deadline=None, database=None)
@given(st.from_regex(r"[a-z][a-z0-9-]{1,22}", fullmatch=True), st.integers(0, 4102444800))
def test_an_automatic_name_is_valid_on_every_backend(owner: str, epoch: int) -> None:
    try:
        name = automatic_name(owner, epoch)
    except InvalidInput:
        assert owner.startswith(("snapshot", "pvmove")) or owner in ("current", "pending", "vzdump")
        return
    assert re.fullmatch(r"[a-z][a-z0-9_-]{1,39}", name), "Proxmox VE: pve-configid, at most 40 characters"
    assert re.fullmatch(r"[A-Za-z0-9+_.][A-Za-z0-9+_.-]*", name), "LVM"
    assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", name), "Kubernetes: RFC 1123 subdomain"
    assert re.fullmatch(r"[A-Za-z0-9_.:-]+", name), "ZFS"


@pytest.mark.parametrize(
    "owner",
    [
        "",
        "a",
        "Hourly",
        "1hourly",
        "-hourly",
        "hour_ly",
        "hour.ly",
        "hour/ly",
        "hourly\n",
        "é" * 3,
        "h" * 24,
        "../x",
        "a b",
    ],
)
def test_an_owner_that_some_backend_would_refuse_is_refused(owner: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(f"use {owner!r} as an owner")):
        check_owner(owner)


@pytest.mark.parametrize("owner", ["snapshot", "snapshots", "pvmove0", "current", "pending", "vzdump"])
def test_an_owner_that_lvm_or_proxmox_reserves_is_refused(owner: str) -> None:
    with pytest.raises(InvalidInput, match="reserves that name"):
        automatic_name(owner, MOMENT)


@pytest.mark.parametrize("owner", ["ab", "h" * 23, "currently", "my-snapshot", "vzdump-daily"])
def test_an_owner_within_the_rule_is_accepted(owner: str) -> None:
    assert check_owner(owner) == owner


def test_names_of_one_owner_sort_by_time() -> None:
    times = [MOMENT, MOMENT + 1, MOMENT + 86400, MOMENT + 400 * 86400]
    names = [automatic_name("daily", time) for time in times]
    assert sorted(names) == names


def test_an_aside_is_known_by_its_name() -> None:
    assert aside_name(MOMENT) == f"aside-{stamp(MOMENT)}" == "aside-20261122t013000z"
    assert is_aside(aside_name(MOMENT))
    assert is_aside(aside_name(MOMENT) + "-2")
    for name in (
        "aside",
        "aside-20261122",
        "x-aside-20261122t013000z",
        "aside-20261122t013000z-",
        "hourly-20261122t013000z",
    ):
        assert not is_aside(name)
