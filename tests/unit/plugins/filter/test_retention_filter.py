# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter restorepoint.core.retention: its arguments, its errors and its warnings."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display

from ansible_collections.restorepoint.core.plugins.filter.retention import FilterModule
from ansible_collections.restorepoint.core.plugins.module_utils.core.snapshot import timestamp

HISTORY = [{"name": f"s{hour:02}", "created": f"2026-11-20T{hour:02}:30:00Z"} for hour in range(24)]
MIDNIGHT = "2026-11-22T00:00:00Z"


def names(*args: Any, **kwargs: Any) -> list[str]:
    return [each["name"] for each in FilterModule().filters()["retention"](*args, **kwargs) if each["keep"]]


def test_it_is_called_as_the_documentation_says() -> None:
    assert names(HISTORY, keep={"hourly": 2, "daily": 7}, timezone="Europe/Paris", now=MIDNIGHT) == ["s22", "s23"]


def test_every_option_reaches_the_planner() -> None:
    def with_last_1(**options: Any) -> list[str]:
        return names(HISTORY, {"last": 1}, **{"now": MIDNIGHT, **options})

    assert with_last_1() == ["s23"]
    assert names(HISTORY, {"daily": 7}, now=MIDNIGHT, timezone="Asia/Tokyo") == ["s14", "s23"]
    assert with_last_1(min_keep=3) == ["s21", "s22", "s23"]
    assert with_last_1(min_age="2h", now="2026-11-21T00:00:00Z") == ["s21", "s22", "s23"]
    assert len(with_last_1(require_recent="1h")) == 24
    assert len(with_last_1(owner="daily")) == 24
    assert len(with_last_1(owner="daily", match="s0*")) == 24 - 9
    assert len(with_last_1(owner="daily", match=["s0*", "s1*"])) == 24 - 19


def test_now_is_the_present_unless_it_is_given() -> None:
    present = int(time.time())
    young = {"name": "young", "created": timestamp(present - 1800)}
    old = {"name": "old", "created": timestamp(present - 5400)}
    assert names([young, old], {"within": "1h"}) == ["young"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"keep": {"dayly": 1}}, "there is no keep rule called dayly"),
        ({"keep": {"daily": -3}}, "read keep.daily: -3"),
        ({"keep": {"last": 1}, "timezone": "Mars/Olympus"}, "use the time zone 'Mars/Olympus'"),
        ({"keep": {"last": 1}, "now": "2026-11-22T00:00:00"}, "read now: 2026-11-22T00:00:00"),
        ({"keep": {"last": 1}, "now": 7}, "read now: 7"),
        ({"keep": {"last": 1}, "owner": ""}, "read owner: ''"),
        ({"keep": {"last": 1}, "match": {"a": 1}}, "read match: {'a': 1}"),
        ({"keep": {"last": 1}, "match": [1]}, "read match: [1]"),
        ({"keep": {"last": 1}, "max_delete": "10%"}, "23 of 24 snapshots would go, and max_delete allows 10%"),
    ],
)
def test_an_error_is_one_sentence_of_ours(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        names(HISTORY, **{"now": MIDNIGHT, **arguments})
    assert words in str(caught.value)
    assert str(caught.value).startswith("Cannot ")
    assert caught.value.__cause__ is None, "newer versions of Ansible would print the cause as a second error"


def test_a_bad_mapping_is_named_by_its_place() -> None:
    with pytest.raises(AnsibleFilterError, match=r"Cannot read snapshots\[24\]: it has no name"):
        names([*HISTORY, {}], {"last": 1})


def test_warnings_reach_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda _self, message, **_more: seen.append(message))
    assert names(HISTORY[:1], {"daily": 0}, now=MIDNIGHT) == ["s00"]
    assert seen == ["retention: the policy has no keep rule, so everything stays"]
