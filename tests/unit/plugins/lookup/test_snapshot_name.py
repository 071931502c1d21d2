# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lookup restorepoint.core.snapshot_name."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ansible.errors import AnsibleLookupError

from ansible_collections.restorepoint.core.plugins.lookup.snapshot_name import LookupModule
from ansible_collections.restorepoint.core.plugins.module_utils.core.names import automatic_name


def look_up(*owners: Any) -> list[str]:
    return LookupModule().run(list(owners))


def test_each_owner_gets_a_name_of_the_same_moment() -> None:
    before = int(time.time())
    found = look_up("hourly", "pre-upgrade")
    after = int(time.time())
    assert found in [
        [automatic_name("hourly", moment), automatic_name("pre-upgrade", moment)] for moment in range(before, after + 1)
    ]


@pytest.mark.parametrize("owner", ["Hourly", "snapshot-x", "x" * 30, "", "a b", 7])
def test_an_owner_that_some_backend_would_refuse_is_an_error_in_one_sentence(owner: Any) -> None:
    with pytest.raises(AnsibleLookupError) as caught:
        look_up(owner)
    assert str(caught.value).startswith(f"Cannot use '{owner}' as an owner: ")


def test_no_owner_is_an_error() -> None:
    with pytest.raises(AnsibleLookupError, match="no owner is given"):
        look_up()
