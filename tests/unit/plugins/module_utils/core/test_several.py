# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several backends as one: all or nothing over all of them, and each is spoken to in its own words."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import Desired
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.restorepoint.core.plugins.module_utils.core.plan import make_plan
from ansible_collections.restorepoint.core.plugins.module_utils.core.run import Run, RunFailed
from ansible_collections.restorepoint.core.plugins.module_utils.core.several import Member, Several
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.core.fake_backend import (
    NOW,
    FakeBackend,
    broken,
)


def pair(**facts):
    one, two = FakeBackend("a", "b", **facts), FakeBackend("a", **facts)
    return one, two, Several([Member("one", one, True), Member("two", two)])


def carry_out(several, desired):
    ticks = itertools.count()
    plan = make_plan(desired, several.situations(desired), NOW)
    run = Run(several, lambda change, outcome: {}, lambda: next(ticks), keep_partial=False)
    return plan, run


PRESENT = Desired(state="present", name="nightly-1")


def test_a_restore_point_is_made_on_all_targets_of_all_backends():
    one, two, several = pair()
    _plan, run = carry_out(several, PRESENT)
    results = run.carry_out(_plan)
    assert [(each["target"], each["action"]) for each in results] == [
        ("one:a", "created"), ("one:b", "created"), ("two:a", "created"),
    ]  # fmt: skip
    assert "nightly-1" in one.targets["a"].snapshots
    assert "nightly-1" in two.targets["a"].snapshots


@pytest.mark.parametrize("phase", ["prepare", "commit"])
@pytest.mark.parametrize(("number", "target"), [(0, "a"), (0, "b"), (1, "a")])
@pytest.mark.parametrize("one_by_one", [False, True])
def test_when_one_target_fails_nothing_stands_on_any_backend(phase, number, target, one_by_one):
    one, two, several = pair(one_by_one=one_by_one)
    (one, two)[number].failures[(phase, "create", target)] = broken()
    plan, run = carry_out(several, PRESENT)
    with pytest.raises(RunFailed, match="the disk is on fire"):
        run.carry_out(plan)
    assert not any(each.snapshots for backend in (one, two) for each in backend.targets.values())
    assert one.prepared == two.prepared == []
    assert not any(each["changed"] for each in run.results)


def test_after_a_failure_the_next_backend_does_not_begin():
    one, two, several = pair()
    one.failures[("commit", "create", "a")] = broken()
    plan, run = carry_out(several, PRESENT)
    with pytest.raises(RunFailed):
        run.carry_out(plan)
    assert not [call for call in two.calls if call[0] == "commit"]


def test_a_snapshot_on_one_backend_alone_is_no_restore_point():
    one, _two, several = pair()
    one.add("a", "nightly-1")
    plan, _run = carry_out(several, PRESENT)
    assert {each.target for each in plan.blockers} == {"one:a"}
    assert "one:b, two:a" in plan.blockers[0].reason
    assert plan.changes == ()


def test_a_return_keeps_what_is_there_only_where_that_is_the_default():
    one, two, several = pair()
    for backend, target in ((one, "a"), (one, "b"), (two, "a")):
        backend.add(target, "nightly-1")
    plan, run = carry_out(several, Desired(state="rolled_back", name="nightly-1"))
    run.carry_out(plan)
    assert one.targets["a"].content == two.targets["a"].content == "yesterday"
    assert one.targets["a"].asides
    assert not two.targets["a"].asides


def test_a_folder_that_was_returned_goes_back_when_the_volume_of_the_same_call_cannot_be():
    """infra.lvm_snapshots writes over /boot before it is known whether the root volume can be merged."""
    boot, root = FakeBackend("/boot"), FakeBackend("vg0/root")
    several = Several([Member("hostpath", boot, True), Member("lvm", root)])
    boot.add("/boot", "pre-upgrade")
    root.add("vg0/root", "pre-upgrade")
    root.failures[("commit", "roll_back", "vg0/root")] = broken("the merge cannot begin")
    plan, run = carry_out(several, Desired(state="rolled_back", name="pre-upgrade"))
    with pytest.raises(RunFailed, match="the merge cannot begin"):
        run.carry_out(plan)
    assert [call for call in boot.calls if call[0] == "commit"]
    assert (boot.targets["/boot"].content, root.targets["vg0/root"].content) == ("today", "today")
    assert not any(each["changed"] for each in run.results)


def test_every_member_checks_before_anything_is_opened():
    one, two, several = pair()
    with pytest.raises(InvalidInput):
        several.check(Desired(state="present", name="forbidden"))
    assert one.sessions == two.sessions == []


def test_warnings_of_all_members_are_told_once():
    one, two, several = pair()
    with several.session(writing=True):
        one.warnings.append("first")
        two.warnings.append("second")
    with several.session(writing=False):
        pass
    assert several.warnings == ["first", "second"]
    assert (one.sessions, two.sessions) == ([True, False], [True, False])


def test_sessions_are_opened_in_the_order_of_what_they_lock_so_that_two_runs_cannot_wait_for_each_other():
    opened = []

    class Locking(FakeBackend):
        @contextlib.contextmanager
        def session(self, writing):
            opened.append(self)
            yield

    one, two = Locking("a"), Locking("a")
    first = [Member("store", one, place="/a"), Member("store-2", two, place="/b")]
    second = [Member("store", two, place="/b"), Member("store-2", one, place="/a")]
    for members in (first, second):
        with Several(members).session(writing=True):
            pass
    assert opened == [one, two, one, two]


def test_two_members_of_one_label_are_a_mistake():
    with pytest.raises(ValueError, match="same label"):
        Several([Member("one", FakeBackend()), Member("one", FakeBackend())])
