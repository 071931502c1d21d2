# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keep rules applied to lists as playbooks have them. What the filter adds to this is in the filter's own test."""

from __future__ import annotations

import copy
import datetime
from typing import Any

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput, RestorePointError
from ansible_collections.restorepoint.core.plugins.module_utils.core.preview import preview, read_moment
from ansible_collections.restorepoint.core.plugins.module_utils.core.retention import parse_policy
from ansible_collections.restorepoint.core.plugins.module_utils.core.snapshot import Snapshot
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.core.retention_cases import at

NOW = at("2026-11-22 00:00")


def item(name: str, hour: int = 12, **more: Any) -> dict[str, Any]:
    return {"name": name, "created": f"2026-11-21T{hour:02}:00:00Z", **more}


def stay(items: Any, keep: dict[str, Any] | None = None, owner: str | None = None, match: Any = (), **more: Any) -> str:
    """The names of what stays, in the order of the list."""
    policy = parse_policy({"last": 1} if keep is None else keep, **more)
    found, _warnings = preview(items, policy, NOW, owner=owner, match=match)
    return " ".join(each["name"] for each in found if each["keep"])


def test_the_mappings_come_back_as_copies_in_their_order_with_two_more_keys() -> None:
    items = [item("a", 1, colour="red"), item("b", 2, extra={"x": [1]})]
    before = copy.deepcopy(items)
    found, warnings = preview(items, parse_policy({"last": 1}), NOW)
    assert items == before
    assert found == [
        {**items[0], "keep": False, "reason": "removed: older than all rules"},
        {**items[1], "keep": True, "reason": "last 1/1"},
    ]
    assert warnings == []


def test_the_results_of_info_modules_can_be_used_as_they_are() -> None:
    snapshots = [
        Snapshot("hostpath", "/srv", "one", NOW - 7200, owner="daily").as_result(),
        Snapshot("hostpath", "/srv", "two", NOW - 3600, owner="daily", held="legal").as_result(),
        Snapshot("hostpath", "/srv", "three", NOW - 1800, owner="daily", extra={"sequence": 3}).as_result(),
    ]
    assert stay(snapshots) == "two three"


def test_each_target_is_planned_apart_also_where_two_backends_use_one_name_for_it() -> None:
    items = [
        item("a", 1, target="x"),
        item("b", 2, target="x"),
        item("a", 3, target="y"),
        item("a", 1, target="x", backend="zfs"),
        item("c", 1, target=100),
        item("d", 2, target=100),
    ]
    assert stay(items) == "b a a d"


def test_without_an_owner_each_owner_is_planned_apart_and_strangers_stay() -> None:
    items = [
        item("d1", 1, owner="daily"),
        item("d2", 2, owner="daily"),
        item("h1", 1, owner="hourly"),
        item("n1", 1, owner=None),
        item("n2", 2, owner=""),
        item("p1", 1),
        item("p2", 2),
    ]
    assert stay(items) == "d2 h1 n1 n2 p2"


def test_with_an_owner_all_others_stay() -> None:
    items = [item("d1", 1, owner="daily"), item("d2", 2, owner="daily"), item("h1", 1, owner="hourly"), item("p1", 1)]
    found, _warnings = preview(items, parse_policy({"last": 1}), NOW, owner="daily")
    assert [each["reason"] for each in found] == [
        "removed: older than all rules",
        "last 1/1",
        "foreign: owner hourly",
        "foreign: owner unknown",
    ]


def test_names_that_match_are_candidates_whoever_took_them() -> None:
    items = [item("pre-1", 1, owner="manual"), item("pre-2", 2, owner=None), item("x", 3, owner="daily"), item("y", 0)]
    assert stay(items, owner="daily", match=["pre-*"]) == "x y"
    assert stay(items, match=["pre-*"]) == "pre-1 pre-2 x"
    assert stay(items, owner="daily", match=["PRE-*"]) == "pre-1 pre-2 x y"


def test_the_sequence_orders_snapshots_of_one_second() -> None:
    assert stay([item("a", sequence=2), item("b", sequence=1)]) == "a"
    assert stay([item("a", extra={"sequence": "2"}), item("b", extra={"sequence": 1})]) == "a"
    assert stay([item("a"), item("b")]) == "b"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"held": "legal"}, "held: legal"),
        ({"held": True}, "held"),
        ({"held": "True"}, "held"),
        ({"held": 2}, "held"),
        ({"in_use": "clone x"}, "in use: clone x"),
        ({"in_use": True}, "in use"),
        ({"ready": False}, "not ready"),
        ({"ready": "False"}, "not ready"),
        ({"ready": None}, "not ready"),
    ],
)
def test_what_is_held_in_use_or_not_ready_stays(facts: dict[str, Any], reason: str) -> None:
    found, _warnings = preview([item("a", 1, **facts), item("b", 2)], parse_policy({"last": 1}), NOW)
    assert (found[0]["keep"], found[0]["reason"]) == (True, reason)


@pytest.mark.parametrize(
    "facts",
    [{"held": False}, {"held": None}, {"held": ""}, {"held": "False"}, {"held": 0}, {"in_use": "no"}, {"ready": "yes"}],
)
def test_what_is_neither_held_nor_in_use_may_go(facts: dict[str, Any]) -> None:
    assert stay([item("a", 1, **facts), item("b", 2)]) == "b"


@pytest.mark.parametrize("snapshots", [None, "text", b"bytes", {"name": "a"}, 7])
def test_what_is_no_list_is_refused(snapshots: Any) -> None:
    with pytest.raises(InvalidInput, match="read the snapshots: they are no list but"):
        stay(snapshots)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("text", "it is no mapping but str"),
        ({}, "it has no name"),
        ({"created": "2026-11-21T01:00:00Z"}, "it has no name"),
        ({"name": ""}, "its name is ''"),
        ({"name": 7}, "its name is 7"),
        ({"name": "x"}, "it does not say when it was created"),
        ({"name": "x", "created": None}, "it does not say when it was created"),
        ({"name": "x", "created": "2026-11-21T01:00:00"}, "does not say its offset from UTC"),
        ({"name": "x", "created": datetime.datetime(2026, 11, 21)}, "does not say its offset from UTC"),
        ({"name": "x", "created": datetime.date(2026, 11, 21)}, "is not a time in ISO 8601"),
        ({"name": "x", "created": "yesterday"}, "Invalid isoformat string"),
        ({"name": "x", "created": 1795305600}, "1795305600 is not a time in ISO 8601"),
        (item("x", held=["legal"]), "its held is ['legal']"),
        (item("x", in_use={}), "its in_use is {}"),
        (item("x", ready="perhaps"), "its ready is 'perhaps'"),
        (item("x", ready=1), "its ready is 1"),
        (item("x", target=["/srv"]), "its target is ['/srv']"),
        (item("x", owner=True), "its owner is True"),
        (item("x", sequence="first"), "its sequence is 'first'"),
        (item("x", sequence=True), "its sequence is True"),
    ],
)
def test_a_mapping_that_cannot_be_read_is_named_by_its_place(bad: Any, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        stay([item("good"), bad])
    assert str(caught.value).startswith("Cannot read snapshots[1]: ")
    assert words in str(caught.value)


def test_two_of_one_name_and_target_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"snapshots\[0\] and snapshots\[2\] are both called 'a'"):
        stay([item("a", 1), item("b", 2), item("a", 3, owner="other")])


def test_a_run_that_would_remove_too_much_is_refused_for_all_targets_at_once() -> None:
    items = [item(name, hour, target=target) for target in "xyz" for hour, name in enumerate("abc")]
    with pytest.raises(RestorePointError) as caught:
        stay([*items, item("d", 3, target="x")], max_delete=2, keep={"last": 1})
    assert str(caught.value) == (
        "Cannot prune these snapshots: x: 3 of 4 snapshots would go, and max_delete allows 2; "
        "raise max_delete if so many are meant to go, or keep more."
    )


def test_warnings_name_their_target() -> None:
    items = [item("a", 1, target="x", ready=False), item("b", 1, target="y"), item("c", 1)]
    _found, warnings = preview(items, parse_policy({"last": 1}, require_recent="2h"), NOW)
    assert warnings == [
        "x: not ready, so left alone: a",
        "x: nothing is removed: there is no ready snapshot of its own, and require_recent asks for one",
        "y: nothing is removed: the newest ready snapshot is of 2026-11-21T01:00:00Z, older than require_recent 2h",
        "nothing is removed: the newest ready snapshot is of 2026-11-21T01:00:00Z, older than require_recent 2h",
    ]


def test_snapshots_of_strangers_do_not_count_as_an_outage_unless_an_owner_is_named() -> None:
    policy = parse_policy({"last": 1}, require_recent="2h")
    assert preview([item("a", owner=None)], policy, NOW)[1] == []
    assert len(preview([item("a", owner=None)], policy, NOW, owner="daily")[1]) == 1


def test_an_empty_list_is_worth_a_warning() -> None:
    assert preview([], parse_policy({"last": 1}), NOW) == ([], ["there is no snapshot at all, so nothing is removed"])


def test_any_iterable_of_mappings_is_a_list() -> None:
    assert stay(item(name, hour) for hour, name in enumerate("abc")) == "c"


def test_a_moment_is_a_text_or_a_datetime_with_an_offset() -> None:
    paris = datetime.timezone(datetime.timedelta(hours=1))
    assert read_moment("2026-11-22T00:00:00Z") == NOW
    assert read_moment("2026-11-22T01:00:00.900+01:00") == NOW
    assert read_moment(datetime.datetime(2026, 11, 22, 1, 0, 0, 999999, tzinfo=paris)) == NOW
