# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each state means: for what is there and what is asked, the changes, or all that forbids them."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.core import backend as core
from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import (
    Blocker,
    Desired,
    Situation,
)
from ansible_collections.restorepoint.core.plugins.module_utils.core.plan import Unchanged, ends, make_plan, predicted
from ansible_collections.restorepoint.core.plugins.module_utils.core.retention import parse_policy
from ansible_collections.restorepoint.core.plugins.module_utils.core.snapshot import Snapshot
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.core.fake_backend import NOW, FakeBackend

HOUR, DAY = 3600, 86400


def plan_of(backend, state, name="x", **asked):
    desired = Desired(state=state, name=None if state == "pruned" else name, **asked)
    return make_plan(desired, backend.situations(desired), NOW)


def steps(plan):
    return [(change.verb, change.target, change.name) for change in plan.changes]


def facts(plan):
    """Return what blocks a plan. A blocked plan changes nothing, so that is looked at each time."""
    assert plan.changes == ()
    return [(each.target, each.reason) for each in plan.blockers]


def unchanged(plan):
    return [(each.target, each.name, each.reason) for each in plan.unchanged]


# --- present ---------------------------------------------------------------------------------------------------------


def test_present_makes_what_is_not_there_on_every_target():
    plan = plan_of(FakeBackend("a", "b"), "present")
    assert steps(plan) == [("create", "a", "x"), ("create", "b", "x")]
    assert plan.changes[0].reason == "there is no snapshot 'x'"


def test_present_leaves_what_is_there_and_says_of_when_it_is():
    backend = FakeBackend()
    backend.add("a", "x", created=1_000_000_000)
    plan = plan_of(backend, "present")
    assert steps(plan) == []
    assert unchanged(plan) == [("a", "x", "is there, of 2001-09-09T01:46:40Z")]


def test_other_snapshots_do_not_count_for_a_name():
    backend = FakeBackend()
    backend.add("a", "x2")
    assert steps(plan_of(backend, "present")) == [("create", "a", "x")]


@pytest.mark.parametrize("what", [{"description": "new"}, {"labels": {"k": "new"}}])
def test_a_description_or_labels_that_differ_are_changed_in_place(what):
    backend = FakeBackend()
    backend.add("a", "x", description="old", labels={"k": "old", "other": "1"})
    plan = plan_of(backend, "present", **what)
    assert steps(plan) == [("describe", "a", "x")]
    assert plan.changes[0].arguments == what


def test_a_description_and_labels_that_were_not_given_stay():
    backend = FakeBackend()
    backend.add("a", "x", description="old", labels={"k": "old"})
    assert steps(plan_of(backend, "present")) == []


@pytest.mark.parametrize("what", [{"description": ""}, {"labels": {}}])
def test_an_empty_description_and_no_labels_can_be_asked_for(what):
    backend = FakeBackend()
    backend.add("a", "x", description="old", labels={"k": "old"})
    assert steps(plan_of(backend, "present", **what)) == [("describe", "a", "x")]


@pytest.mark.parametrize(("age", "enough"), [(HOUR, True), (HOUR + 1, False)])
def test_a_snapshot_older_than_max_age_does_not_pass_for_todays(age, enough):
    backend = FakeBackend()
    backend.add("a", "x", created=NOW - age)
    plan = plan_of(backend, "present", max_age=HOUR)
    assert facts(plan) == ([] if enough else [("a", "snapshot 'x' is of 2027-01-15T06:59:59Z, older than max_age 1h")])
    assert all("replace: true" in each.remedy for each in plan.blockers)


def test_replace_takes_an_old_one_anew():
    backend = FakeBackend()
    backend.add("a", "x", created=NOW - DAY)
    assert steps(plan_of(backend, "present", max_age=HOUR, replace=True)) == [("replace", "a", "x")]


def test_replace_leaves_a_snapshot_that_counts():
    backend = FakeBackend()
    backend.add("a", "x")
    assert steps(plan_of(backend, "present", max_age=DAY, replace=True)) == []


def test_a_damaged_snapshot_does_not_count():
    backend = FakeBackend()
    backend.add("a", "x", ready=False, extra={"fault": "its tree is missing"})
    assert facts(plan_of(backend, "present")) == [("a", "snapshot 'x' is not usable: its tree is missing")]
    assert steps(plan_of(backend, "present", replace=True)) == [("replace", "a", "x")]


def test_a_set_of_which_only_some_members_exist_is_no_success():
    backend = FakeBackend("a", "b", "c")
    backend.add("a", "x")
    backend.add("c", "x")
    words = "snapshot 'x' exists here, but not on b, so the set would not be of one instant"
    assert facts(plan_of(backend, "present")) == [("a", words), ("c", words)]


def test_replace_takes_the_whole_of_an_incomplete_set_anew():
    backend = FakeBackend("a", "b")
    backend.add("b", "x")
    assert steps(plan_of(backend, "present", replace=True)) == [("create", "a", "x"), ("replace", "b", "x")]


@pytest.mark.parametrize("fact", ["held", "in_use"])
def test_what_is_held_or_in_use_is_not_replaced(fact):
    backend = FakeBackend()
    backend.add("a", "x", created=0, **{fact: "by the auditors"})
    (blocker,) = facts(plan_of(backend, "present", max_age=HOUR, replace=True))
    assert blocker == ("a", f"snapshot 'x' is {fact.replace('_', ' ')}: by the auditors")


# --- absent ----------------------------------------------------------------------------------------------------------


def test_absent_removes_it_from_every_target_that_has_it():
    backend = FakeBackend("a", "b")
    backend.add("b", "x")
    backend.add("b", "y")
    plan = plan_of(backend, "absent")
    assert steps(plan) == [("destroy", "b", "x")]
    assert unchanged(plan) == [("a", "x", "is not there")]


def test_absent_removes_an_aside_by_its_name():
    backend = FakeBackend()
    aside = backend.add_aside("a", NOW - DAY)
    assert steps(plan_of(backend, "absent", aside.name)) == [("destroy", "a", aside.name)]


def test_absent_removes_a_damaged_snapshot_which_was_named_after_all():
    backend = FakeBackend()
    backend.add("a", "x", ready=False)
    assert steps(plan_of(backend, "absent")) == [("destroy", "a", "x")]


def test_what_is_both_held_and_in_use_has_both_blockers():
    backend = FakeBackend("a", "b")
    backend.add("a", "x", held="legal", in_use="clone y")
    backend.add("b", "x")
    assert facts(plan_of(backend, "absent")) == [
        ("a", "snapshot 'x' is held: legal"),
        ("a", "snapshot 'x' is in use: clone y"),
    ]


# --- rolled_back -----------------------------------------------------------------------------------------------------


def test_a_target_that_differs_is_returned():
    backend = FakeBackend()
    backend.add("a", "x")
    plan = plan_of(backend, "rolled_back", keep_current=False, once="job 1")
    assert steps(plan) == [("roll_back", "a", "x")]
    assert plan.changes[0].arguments == {"keep_current": False, "once": "job 1", "uses_up": False}


def test_a_target_that_is_proven_equal_is_not_touched():
    backend = FakeBackend()
    backend.add("a", "x", "today")
    plan = plan_of(backend, "rolled_back")
    assert steps(plan) == []
    assert unchanged(plan) == [("a", "x", "the content is that of the snapshot: the same word")]


def test_where_equality_cannot_be_proven_a_return_is_an_event():
    backend = FakeBackend(provable=False)
    backend.add("a", "x", "today")
    assert steps(plan_of(backend, "rolled_back")) == [("roll_back", "a", "x")]


def test_a_token_that_was_used_up_prevents_a_second_return():
    backend = FakeBackend("a", "b")
    for target in "ab":
        backend.add(target, "x")
    backend.targets["a"].returned["job 1"] = 1_000_000_000
    plan = plan_of(backend, "rolled_back", once="job 1")
    assert steps(plan) == [("roll_back", "b", "x")]
    assert unchanged(plan) == [("a", "x", "once: job 1 was used up by the return of 2001-09-09T01:46:40Z")]


def test_a_used_up_token_holds_even_when_the_snapshot_is_gone():
    backend = FakeBackend()
    backend.targets["a"].returned["job 1"] = NOW
    plan = plan_of(backend, "rolled_back", once="job 1")
    assert (steps(plan), plan.blockers) == ([], ())


def test_a_return_to_what_is_not_there_is_blocked_and_says_what_there_is():
    backend = FakeBackend("a", "b")
    for number in range(12):
        backend.add("b", f"day-{number:02}", created=number)
    plan = plan_of(backend, "rolled_back")
    assert facts(plan) == [("a", "there is no snapshot 'x'"), ("b", "there is no snapshot 'x'")]
    assert [each.remedy for each in plan.blockers] == [
        "it has no snapshots",
        "it has " + ", ".join(f"day-{number:02}" for number in range(2, 12)) + " and 2 older ones",
    ]


def test_nothing_is_returned_to_a_damaged_snapshot():
    backend = FakeBackend()
    backend.add("a", "x", ready=False)
    assert facts(plan_of(backend, "rolled_back")) == [("a", "snapshot 'x' is not usable: not ready")]


def test_a_return_to_an_aside_is_a_return_like_any_other():
    backend = FakeBackend()
    aside = backend.add_aside("a", NOW - DAY)
    assert steps(plan_of(backend, "rolled_back", aside.name)) == [("roll_back", "a", aside.name)]


def with_newer(**facts_of_the_newest):
    backend = FakeBackend(newest_only=True)
    backend.add("a", "x", created=10)
    backend.add("a", "newer", created=20)
    backend.add("a", "newest", created=30, **facts_of_the_newest)
    backend.add("a", "older", created=5)
    return backend


def test_storage_that_returns_only_to_the_newest_does_not_lose_newer_ones_unasked():
    plan = plan_of(with_newer(), "rolled_back")
    assert facts(plan) == [("a", "newer snapshots would be lost: newer, newest")]
    assert plan.blockers[0].remedy == "set destroy_newer: true to let them go"


def test_destroy_newer_lets_them_go_newest_first_and_before_the_return():
    assert steps(plan_of(with_newer(), "rolled_back", destroy_newer=True)) == [
        ("destroy", "a", "newest"),
        ("destroy", "a", "newer"),
        ("roll_back", "a", "x"),
    ]


def test_destroy_newer_does_not_overrule_a_hold():
    plan = plan_of(with_newer(held="legal"), "rolled_back", destroy_newer=True)
    assert facts(plan) == [("a", "snapshot 'newest' is held: legal")]


def test_snapshots_of_the_same_second_are_newer_by_their_sequence():
    backend = FakeBackend(newest_only=True)
    backend.add("a", "x", created=10, sequence=1)
    backend.add("a", "y", created=10, sequence=2)
    assert facts(plan_of(backend, "rolled_back")) == [("a", "newer snapshots would be lost: y")]


def test_storage_that_returns_to_any_snapshot_keeps_the_newer_ones():
    backend = with_newer()
    backend.newest_only = False
    assert steps(plan_of(backend, "rolled_back", destroy_newer=True)) == [("roll_back", "a", "x")]


def test_a_return_that_uses_its_snapshot_up_says_so_in_the_diff():
    backend = FakeBackend(uses_up=True)
    backend.add("a", "x")
    desired = Desired(state="rolled_back", name="x")
    situations = backend.situations(desired)
    after = ends(make_plan(desired, situations, NOW), situations, desired)["after"]
    assert after == {"a": {"snapshots": {}, "content": "x"}}


def test_a_snapshot_that_a_return_has_used_up_is_not_missed_by_the_next_run():
    backend = FakeBackend()
    backend.targets["a"].used_up["x"] = "x was merged into it at noon, and used up by that"
    plan = plan_of(backend, "rolled_back", once="job 1")
    assert plan.unchanged == (Unchanged("a", "x", "x was merged into it at noon, and used up by that", "job 1"),)
    assert (plan.changes, plan.blockers) == ((), ())


# --- what only one kind of storage has -------------------------------------------------------------------------------


def test_what_a_snapshot_lacks_of_a_backends_own_options_is_brought_to_it():
    lacking = Situation("a", (Snapshot("fake", "a", "x", NOW),), lacking={"hold": "legal"})
    desired = Desired(state="present", name="x", description="why")
    (change,) = make_plan(desired, [lacking], NOW).changes
    assert (change.verb, change.arguments) == ("describe", {"description": "why", "hold": "legal"})
    assert change.reason == "description and hold changed"


# --- cloned ----------------------------------------------------------------------------------------------------------


def clone_plan(backend, **clones):
    return plan_of(backend, "cloned", clones=clones or {name: f"{name}-copy" for name in backend.targets})


def test_cloned_makes_a_clone_for_each_target():
    backend = FakeBackend("a", "b")
    for target in "ab":
        backend.add(target, "x")
    plan = clone_plan(backend)
    assert steps(plan) == [("clone", "a", "x"), ("clone", "b", "x")]
    assert [change.arguments for change in plan.changes] == [{"clone": "a-copy"}, {"clone": "b-copy"}]


def test_a_clone_of_the_same_snapshot_stays():
    backend = FakeBackend()
    backend.add("a", "x")
    backend.targets["a"].clones["a-copy"] = "x"
    assert unchanged(clone_plan(backend)) == [("a", "x", "a-copy was cloned from it")]


def test_a_clone_that_is_there_stays_even_when_its_snapshot_is_gone():
    backend = FakeBackend()
    backend.targets["a"].clones["a-copy"] = "x"
    assert (clone_plan(backend).changes, clone_plan(backend).blockers) == ((), ())


def test_a_clone_of_another_snapshot_is_not_overwritten():
    backend = FakeBackend()
    backend.add("a", "x")
    backend.targets["a"].clones["a-copy"] = "y"
    assert facts(clone_plan(backend)) == [("a", "a-copy was cloned from 'y'")]


@pytest.mark.parametrize(
    ("facts_of_x", "reason"),
    [(None, "there is no snapshot 'x'"), ({"ready": False}, "snapshot 'x' is not usable: not ready")],
)
def test_only_a_usable_snapshot_is_cloned(facts_of_x, reason):
    backend = FakeBackend()
    if facts_of_x is not None:
        backend.add("a", "x", **facts_of_x)
    assert facts(clone_plan(backend)) == [("a", reason)]


# --- pruned ----------------------------------------------------------------------------------------------------------


def nights(backend, target, count, **facts_of_each):
    for number in range(count):
        backend.add(target, f"night-{number}", created=NOW - (count - number) * DAY, **facts_of_each)


def prune(backend, asides=None, **options):
    keep = options.pop("keep", {"last": 2})
    owner, match = options.pop("owner", "manual"), options.pop("match", ())
    return plan_of(
        backend,
        "pruned",
        owner=owner,
        match=match,
        retention=None if keep is None else parse_policy(keep, **options),
        asides=None if asides is None else parse_policy(asides),
    )


def test_pruned_removes_what_no_rule_keeps_and_gives_a_reason_for_each():
    backend = FakeBackend()
    nights(backend, "a", 4)
    plan = prune(backend)
    assert steps(plan) == [("destroy", "a", "night-0"), ("destroy", "a", "night-1")]
    assert [(target, each.name, each.keep) for target, each in plan.decisions] == [
        ("a", "night-0", False), ("a", "night-1", False), ("a", "night-2", True), ("a", "night-3", True),
    ]  # fmt: skip
    assert all(each.reason for _unused, each in plan.decisions)


def test_where_the_rules_hold_already_nothing_is_removed():
    backend = FakeBackend()
    nights(backend, "a", 2)
    assert unchanged(prune(backend)) == [("a", None, "the keep rules hold")]


def test_only_the_owners_own_snapshots_are_thinned_out():
    backend = FakeBackend()
    nights(backend, "a", 3, owner="nightly")
    backend.add("a", "by-hand", created=0)
    backend.add("a", "unknown", created=1, owner=None)
    plan = prune(backend, owner="nightly", keep={"last": 1})
    assert steps(plan) == [("destroy", "a", "night-0"), ("destroy", "a", "night-1")]
    reasons = {each.name: each.reason for _unused, each in plan.decisions}
    assert reasons["by-hand"] == "foreign: owner manual"
    assert reasons["unknown"] == "foreign: owner unknown"


def test_match_takes_others_in_by_their_names():
    backend = FakeBackend()
    nights(backend, "a", 2, owner="nightly")
    backend.add("a", "pre-upgrade-1", created=0, owner="manual")
    backend.add("a", "Pre-upgrade-2", created=1, owner="manual")
    plan = prune(backend, owner="nightly", match=("pre-upgrade-*",), keep={"last": 1})
    assert steps(plan) == [("destroy", "a", "pre-upgrade-1"), ("destroy", "a", "night-0")]


@pytest.mark.parametrize("fact", [{"held": "legal"}, {"in_use": "clone"}, {"ready": False}])
def test_what_is_pinned_stays_and_takes_no_slot(fact):
    backend = FakeBackend()
    nights(backend, "a", 3)
    backend.add("a", "pinned", created=NOW - 60, **fact)
    assert steps(prune(backend)) == [("destroy", "a", "night-0")]


def test_asides_have_rules_of_their_own_and_none_by_default():
    backend = FakeBackend()
    nights(backend, "a", 2)
    old, new = backend.add_aside("a", NOW - 2 * DAY), backend.add_aside("a", NOW - DAY)
    assert steps(prune(backend)) == []
    assert steps(prune(backend, asides={"last": 1})) == [("destroy", "a", old.name)]
    assert steps(prune(backend, keep=None, asides={"last": 1})) == [("destroy", "a", old.name)]
    assert new.name not in [name for _unused, _unused, name in steps(prune(backend, asides={"last": 1}))]


def test_a_limit_on_one_target_stops_the_whole_call():
    backend = FakeBackend("a", "b")
    nights(backend, "a", 5)
    nights(backend, "b", 3)
    plan = prune(backend, max_delete="2")
    assert facts(plan) == [("a", "3 of 5 snapshots would go, and max_delete allows 2")]
    assert "max_delete" in plan.blockers[0].remedy


def test_warnings_name_their_target():
    backend = FakeBackend("a", "b")
    nights(backend, "b", 1)
    assert prune(backend).warnings == ("a: there is no snapshot at all, so nothing is removed",)


def test_having_no_asides_is_worth_no_warning():
    backend = FakeBackend()
    nights(backend, "a", 1)
    assert prune(backend, asides={"last": 1}).warnings == ()


# --- what backends report --------------------------------------------------------------------------------------------

IN_USE = Blocker("a", "pid 4711 works in it", "stop it", frozenset({core.ROLL_BACK}), "ignore_users")


def test_a_blocker_forbids_the_changes_that_it_is_about_and_no_others():
    backend = FakeBackend()
    backend.add("a", "x")
    backend.targets["a"].blockers = (IN_USE,)
    assert facts(plan_of(backend, "rolled_back")) == [("a", "pid 4711 works in it")]
    assert steps(plan_of(backend, "absent")) == [("destroy", "a", "x")]


def test_a_blocker_of_a_target_that_needs_no_change_does_not_matter():
    backend = FakeBackend()
    backend.add("a", "x", "today")
    backend.targets["a"].blockers = (IN_USE,)
    assert plan_of(backend, "rolled_back").blockers == ()


def test_the_option_that_lifts_a_blocker_lifts_it_and_no_other_does():
    backend = FakeBackend()
    backend.add("a", "x")
    backend.targets["a"].blockers = (IN_USE,)
    assert plan_of(backend, "rolled_back", allowed=frozenset({"ignore_users"})).blockers == ()
    assert plan_of(backend, "rolled_back", allowed=frozenset({"force"})).blockers == (IN_USE,)


def test_a_blocker_without_such_an_option_is_never_lifted():
    backend = FakeBackend()
    backend.add("a", "x")
    mounted = Blocker("a", "it is a mount point", "unmount it")
    backend.targets["a"].blockers = (mounted,)
    assert plan_of(backend, "rolled_back", allowed=frozenset({"ignore_users"})).blockers == (mounted,)


def test_every_blocker_of_every_target_is_told_at_once():
    backend = FakeBackend("a", "b", "c", newest_only=True)
    backend.add("a", "x", created=1)
    backend.add("b", "x", created=1)
    backend.add("b", "y", created=2)
    backend.targets["a"].blockers = (IN_USE, Blocker("a", "it is a mount point", "unmount it"))
    assert facts(plan_of(backend, "rolled_back")) == [
        ("a", "pid 4711 works in it"),
        ("a", "it is a mount point"),
        ("b", "newer snapshots would be lost: y"),
        ("c", "there is no snapshot 'x'"),
    ]


def test_a_state_that_needs_a_name_does_not_go_on_without_one():
    backend = FakeBackend()
    with pytest.raises(ValueError, match="needs a name"):
        make_plan(Desired(state="absent"), backend.situations(Desired(state="absent")), NOW)


# --- what check mode and the diff show -------------------------------------------------------------------------------


def test_a_prediction_names_each_change_and_each_target_that_stays():
    backend = FakeBackend("a", "b")
    backend.add("b", "x")
    assert predicted(plan_of(backend, "absent")) == [
        {"target": "b", "name": "x", "action": "removed", "changed": True, "reason": "asked for by name"},
        {"target": "a", "name": "x", "action": "unchanged", "changed": False, "reason": "is not there"},
    ]


def test_a_prediction_tells_what_the_backend_can_tell_beforehand():
    backend = FakeBackend("a", "b")
    backend.add("b", "x")
    plan = plan_of(backend, "absent")
    assert [each.get("frees_bytes") for each in predicted(plan, backend.estimate(plan.changes))] == [4096, None]


def test_the_diff_shows_only_targets_that_change():
    backend = FakeBackend("a", "b")
    backend.add("b", "x", description="old")
    desired = Desired(state="absent", name="x")
    assert ends(plan_of(backend, "absent"), backend.situations(desired), desired) == {
        "before": {"b": {"snapshots": {"x": {"description": "old", "labels": {}}}}},
        "after": {"b": {"snapshots": {}}},
    }


def test_the_diff_of_a_snapshot_that_is_replaced_says_of_when_the_old_one_is():
    backend = FakeBackend()
    backend.add("a", "x", created=1_000_000_000)
    desired = Desired(state="present", name="x", max_age=HOUR, replace=True)
    plan = plan_of(backend, "present", max_age=HOUR, replace=True)
    old = {"description": "", "labels": {}, "created": "2001-09-09T01:46:40Z"}
    assert ends(plan, backend.situations(desired), desired) == {
        "before": {"a": {"snapshots": {"x": old}}},
        "after": {"a": {"snapshots": {"x": {**old, "created": "now"}}}},
    }


def test_the_diff_tells_a_replaced_snapshot_from_the_one_before_it():
    backend = FakeBackend()
    backend.add("a", "x", created=1_000_000_000)
    desired = Desired(state="present", name="x", max_age=HOUR, replace=True)
    diff = ends(plan_of(backend, "present", max_age=HOUR, replace=True), backend.situations(desired), desired)
    assert [diff[end]["a"]["snapshots"]["x"]["created"] for end in ("before", "after")] == [
        "2001-09-09T01:46:40Z",
        "now",
    ]
