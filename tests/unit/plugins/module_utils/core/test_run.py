# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carrying out a plan: all or nothing, whatever fails and wherever, and the truth about it in the result."""

from __future__ import annotations

import contextlib
import copy
import itertools
from typing import Any

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import Desired
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import NotBegun, RestorePointError
from ansible_collections.restorepoint.core.plugins.module_utils.core.plan import make_plan
from ansible_collections.restorepoint.core.plugins.module_utils.core.run import Run, RunFailed
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.core.fake_backend import (
    NOW,
    FakeBackend,
    broken,
    described,
)

ABC = ("a", "b", "c")
ON_FIRE = "Cannot do it: the disk is on fire; put it out."


class Call:
    """One call: plans a desired state, carries it out, and keeps what came of it."""

    def __init__(self, backend, keep_partial=False, shield=contextlib.nullcontext, **asked):
        self.backend = backend
        desired = Desired(**asked)
        backend.wanted = described(desired)
        self.before = copy.deepcopy(backend.targets)
        self.plan = make_plan(desired, backend.situations(desired), NOW)
        ticks = itertools.count()
        self.run = Run(backend, self.record, lambda: float(next(ticks)), keep_partial, shield)
        self.failure: Any = None
        try:
            self.run.carry_out(self.plan)
        except (RunFailed, KeyboardInterrupt) as failure:
            self.failure = failure

    @staticmethod
    def record(change, outcome):
        return {"change": change.verb, "target": change.target, "name": change.name, "outcome": outcome}

    @property
    def actions(self):
        return {(each["target"], each["name"]): each["action"] for each in self.run.results}

    @property
    def audit(self):
        return [(each["change"], each["target"], each["outcome"]) for each in self.run.audit]

    def phases(self, phase):
        return [target for done, _unused, target, _unused in self.backend.calls if done == phase]

    def assert_nothing_changed(self):
        assert self.backend.targets == self.before
        assert not any(each["changed"] for each in self.run.results)
        assert self.backend.prepared == []


def present(*names, failures=(), **options):
    backend = FakeBackend(*(names or ABC))
    backend.failures.update(failures)
    return Call(backend, state="present", name="x", **options)


# --- when all goes well ----------------------------------------------------------------------------------------------


def test_everything_slow_is_done_on_all_targets_before_anything_counts():
    call = present()
    phases = [phase for phase, _unused, _unused, _unused in call.backend.calls]
    assert phases == [each for each in ("prepare", "commit", "settle", "finish") for _unused in ABC]
    assert call.actions == {(target, "x"): "created" for target in ABC}
    assert call.failure is None


def test_like_changes_count_in_one_batch_and_different_ones_in_their_order():
    backend = FakeBackend("a", newest_only=True)
    for number, name in enumerate(("x", "newer", "newest")):
        backend.add("a", name, created=number)
    Call(backend, state="rolled_back", name="x", destroy_newer=True)
    committed = [(verb, name) for phase, verb, _unused, name in backend.calls if phase == "commit"]
    assert committed == [("destroy", "newest"), ("destroy", "newer"), ("roll_back", "x")]


def test_a_result_tells_what_the_backend_tells_and_how_long_it_took():
    (result,) = present("a").run.results
    assert result == {
        "target": "a", "name": "x", "action": "created", "changed": True, "reason": "there is no snapshot 'x'",
        "seconds": 2.0, "told": "x",
    }  # fmt: skip


def test_targets_that_stay_as_they_are_have_a_result_too():
    backend = FakeBackend("a", "b")
    backend.add("a", "x")
    call = Call(backend, state="absent", name="x")
    assert call.actions == {("a", "x"): "removed", ("b", "x"): "unchanged"}


def test_a_plan_without_changes_asks_nothing_of_the_backend():
    backend = FakeBackend("a")
    backend.add("a", "x")
    call = Call(backend, state="present", name="x")
    assert (backend.calls, call.audit) == ([], [])


def test_the_audit_has_a_line_for_each_change():
    assert present().audit == [("create", target, "done") for target in ABC]


def test_trouble_after_the_fact_is_a_warning_and_not_a_failure():
    call = present(failures={("finish", "create", "b"): broken()})
    assert call.failure is None
    assert call.run.warnings == [ON_FIRE]
    assert call.phases("finish") == ["a", "b", "c"]


def test_warnings_of_the_backend_are_passed_on():
    backend = FakeBackend("a")
    backend.finish_warnings = ["something is left"]
    assert Call(backend, state="present", name="x").run.warnings == ["something is left"]


def test_what_could_be_told_beforehand_stands_in_the_result_as_well():
    backend = FakeBackend("a", "b")
    backend.add("a", "x")
    plan = make_plan(desired := Desired(state="absent", name="x"), backend.situations(desired), NOW)
    run = Run(backend, Call.record, lambda: 0.0, keep_partial=False)
    assert run.carry_out(plan, backend.estimate(plan.changes))[0]["frees_bytes"] == 4096


# --- when what counts takes a while to take effect -------------------------------------------------------------------


def test_a_change_that_never_takes_effect_is_a_failure_that_says_what_stands():
    call = present(failures={("settle", "create", "b"): broken()})
    assert str(call.failure) == ON_FIRE
    assert call.actions == {(target, "x"): "created" for target in ABC}
    assert [each["reason"] for each in call.run.results][1] == ON_FIRE
    assert call.phases("undo") == []
    assert call.phases("finish") == list(ABC)
    assert ("create", "b", f"done, but: {ON_FIRE}") in call.audit


def test_an_interrupt_of_the_wait_undoes_nothing_and_still_finishes():
    call = present(failures={("settle", "create", "b"): KeyboardInterrupt("SIGTERM")})
    assert isinstance(call.failure, KeyboardInterrupt)
    assert call.phases("undo") == []
    assert call.phases("finish") == list(ABC)
    assert all(each["changed"] for each in call.run.results)


# --- when a batch cannot count as one --------------------------------------------------------------------------------


def one_by_one(failing, **options):
    backend = FakeBackend(*ABC, one_by_one=True)
    backend.failures[("commit", "create", failing)] = broken()
    return Call(backend, state="present", name="x", **options)


@pytest.mark.parametrize("failing", ABC)
def test_a_failure_of_one_in_a_batch_undoes_those_that_count(failing):
    call = one_by_one(failing)
    call.assert_nothing_changed()
    assert str(call.failure) == ON_FIRE
    assert call.actions == {(each, "x"): "failed" if each == failing else "undone" for each in ABC}


@pytest.mark.parametrize("failing", ABC)
def test_a_failure_of_one_in_a_batch_leaves_the_others_where_that_is_asked(failing):
    call = one_by_one(failing, keep_partial=True)
    assert str(call.failure) == ON_FIRE
    assert call.actions == {(each, "x"): "failed" if each == failing else "created" for each in ABC}
    assert sorted(call.phases("finish")) == [each for each in ABC if each != failing]
    assert call.phases("abandon") == [failing]


@pytest.mark.parametrize("keep_partial", [False, True])
def test_what_a_batch_did_not_begin_is_as_it_was_and_the_failure_is_that_of_the_other(keep_partial):
    backend = FakeBackend(*ABC, one_by_one=True)
    backend.failures[("commit", "create", "a")] = NotBegun("begin with a", "b had failed")
    backend.failures[("commit", "create", "b")] = broken()
    call = Call(backend, state="present", name="x", keep_partial=keep_partial)
    assert str(call.failure) == ON_FIRE
    assert [call.actions[(each, "x")] for each in ABC[:2]] == ["none", "failed"]
    assert [each["outcome"] for each in call.run.audit if each["target"] == "a"] == []


def test_a_batch_of_which_nothing_was_begun_is_no_success():
    backend = FakeBackend("a", one_by_one=True)
    backend.failures[("commit", "create", "a")] = NotBegun("begin with a", "the time had run out")
    call = Call(backend, state="present", name="x", keep_partial=True)
    assert "the time had run out" in str(call.failure)
    assert call.actions == {("a", "x"): "none"}


# --- when something fails --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["prepare", "commit"])
@pytest.mark.parametrize("failing", ABC)
def test_a_failure_on_any_target_undoes_the_others(phase, failing):
    call = present(failures={(phase, "create", failing): broken()})
    call.assert_nothing_changed()
    assert str(call.failure) == ON_FIRE
    assert isinstance(call.failure.cause, RestorePointError)
    assert call.failure.results is call.run.results
    assert call.actions[(failing, "x")] == "failed"
    assert {call.actions[(target, "x")] for target in ABC} <= {"failed", "none"}


@pytest.mark.parametrize("failing", ABC)
def test_with_keep_a_target_that_cannot_be_prepared_does_not_stop_the_others(failing):
    call = present(failures={("prepare", "create", failing): broken()}, keep_partial=True)
    assert {target for target, kept in call.backend.targets.items() if kept.snapshots} == set(ABC) - {failing}
    assert call.actions == {(target, "x"): "failed" if target == failing else "created" for target in ABC}
    assert str(call.failure) == ON_FIRE
    assert sorted(call.audit) == sorted(
        ("create", target, f"failed: {ON_FIRE}" if target == failing else "done") for target in ABC
    )


def test_a_batch_that_fails_fails_as_a_whole_also_with_keep():
    call = present(failures={("commit", "create", "b"): broken()}, keep_partial=True)
    call.assert_nothing_changed()
    assert set(call.actions.values()) == {"failed"}


def test_the_reason_of_a_failure_stands_in_the_result():
    call = present(failures={("prepare", "create", "b"): broken()})
    assert [each["reason"] for each in call.run.results if each["action"] == "failed"] == [ON_FIRE]


def test_the_first_of_several_failures_is_the_one_that_is_told():
    failures = {("prepare", "create", "a"): broken("first"), ("prepare", "create", "c"): broken("second")}
    call = present(failures=failures, keep_partial=True)
    assert call.failure.cause.reason == "first"


@pytest.mark.parametrize("keep_partial", [False, True])
def test_a_failure_does_not_hide_the_targets_that_needed_no_change(keep_partial):
    backend = FakeBackend("a", "b")
    backend.add("a", "x")
    backend.failures[("prepare", "destroy", "a")] = broken()
    call = Call(backend, keep_partial, state="absent", name="x")
    assert call.failure.results == call.run.results
    assert call.actions == {("a", "x"): "failed", ("b", "x"): "unchanged"}


def returning(keep_partial=False, **failures):
    """Return a call with two kinds of changes on each of two targets: a newer snapshot goes, then the return."""
    backend = FakeBackend("a", "b", newest_only=True)
    for target in "ab":
        backend.add(target, "x", created=1)
        backend.add(target, "newer", created=2)
    for where, failure in failures.items():
        phase, target, verb = where.split("_", 2)
        backend.failures[(phase, verb, target)] = failure
    return Call(backend, keep_partial, state="rolled_back", name="x", destroy_newer=True)


def test_what_counted_already_is_undone_newest_first():
    call = returning(commit_b_roll_back=broken())
    call.assert_nothing_changed()
    undone = [(verb, target) for phase, verb, target, _unused in call.backend.calls if phase == "undo"]
    assert undone == [("destroy", "b"), ("roll_back", "a"), ("destroy", "a")]
    assert call.actions == {
        ("a", "newer"): "undone", ("a", "x"): "undone", ("b", "newer"): "undone", ("b", "x"): "failed",
    }  # fmt: skip


def test_the_audit_has_what_was_done_what_failed_and_what_was_undone():
    call = returning(commit_b_roll_back=broken())
    assert call.audit == [
        ("destroy", "a", "done"),
        ("roll_back", "a", "done"),
        ("destroy", "b", "done"),
        ("roll_back", "b", f"failed: {ON_FIRE}"),
        ("destroy", "b", "undone"),
        ("roll_back", "a", "undone"),
        ("destroy", "a", "undone"),
    ]


def test_with_keep_no_newer_snapshot_goes_for_a_return_that_cannot_be():
    call = returning(keep_partial=True, prepare_b_roll_back=broken())
    assert set(call.backend.targets["b"].snapshots) == {"x", "newer"}
    assert set(call.backend.targets["a"].snapshots) == {"x"}
    assert call.actions[("b", "newer")] == "none"
    assert call.backend.prepared == []


def test_with_keep_no_return_is_tried_when_what_had_to_go_first_did_not():
    call = returning(keep_partial=True, commit_b_destroy=broken())
    assert call.backend.targets["b"] == call.before["b"]
    assert ("commit", "roll_back", "b", "x") not in call.backend.calls
    assert call.backend.prepared == []


# --- when even that fails --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [broken(), OSError("a bug"), KeyError("a bug")])
def test_what_cannot_be_undone_stands_and_is_called_so(failure):
    call = returning(commit_b_roll_back=broken(), undo_a_roll_back=failure)
    assert call.actions[("a", "x")] == "rolled_back"
    assert [each["changed"] for each in call.run.results if each["action"] == "rolled_back"] == [True]
    assert call.run.warnings == [f"rolled_back x on a stands: {failure}"]
    assert ("roll_back", "a", f"not undone: {failure}") in call.audit
    assert call.backend.targets["a"].content == "yesterday"


def test_what_could_not_be_undone_is_finished_and_the_rest_is_undone_all_the_same():
    backend = FakeBackend("a", "b", newest_only=True)
    for target in "ab":
        backend.add(target, "x", created=1)
        backend.add(target, "newer", created=2)
    backend.failures[("commit", "roll_back", "b")] = broken()
    backend.failures[("undo", "destroy", "b")] = broken()
    call = Call(backend, state="rolled_back", name="x", destroy_newer=True)
    assert ("finish", "destroy", "b", "newer") in backend.calls
    assert call.actions[("a", "x")] == "undone"
    assert str(call.failure) == ON_FIRE


@pytest.mark.parametrize("failure", [broken(), OSError("a bug")])
def test_what_cannot_be_cleaned_up_is_a_warning_and_the_others_are_cleaned_up(failure):
    call = present(failures={("prepare", "create", "c"): broken(), ("abandon", "create", "b"): failure})
    assert call.run.warnings == [str(failure)]
    assert call.phases("abandon") == ["b", "a"]
    assert str(call.failure) == ON_FIRE


# --- interrupts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["prepare", "commit"])
@pytest.mark.parametrize("failing", ABC)
def test_an_interrupt_takes_back_what_was_begun(phase, failing):
    call = present(failures={(phase, "create", failing): KeyboardInterrupt("SIGTERM")})
    call.assert_nothing_changed()
    assert isinstance(call.failure, KeyboardInterrupt)


def test_an_interrupt_between_two_batches_undoes_the_first():
    call = returning(commit_a_roll_back=KeyboardInterrupt())
    call.assert_nothing_changed()
    assert call.audit == [("destroy", "a", "done"), ("destroy", "a", "undone")]


def test_an_unknown_failure_takes_back_too():
    backend = FakeBackend("a", "b")
    backend.failures[("prepare", "create", "b")] = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        Call(backend, state="present", name="x")
    assert not backend.targets["a"].snapshots
    assert backend.prepared == []


def test_interrupts_wait_while_changes_count_and_while_they_are_undone_but_not_while_they_are_prepared():
    held = []

    @contextlib.contextmanager
    def shield():
        held.append(True)
        yield
        held.pop()

    class Watching(FakeBackend):
        def _step(self, phase, change):
            seen[phase] = bool(held)
            super()._step(phase, change)

    seen: dict[str, bool] = {}
    backend = Watching("a", newest_only=True)
    backend.add("a", "x", created=1)
    backend.add("a", "newer", created=2)
    backend.failures[("commit", "roll_back", "a")] = broken()
    Call(backend, shield=shield, state="rolled_back", name="x", destroy_newer=True)
    assert seen == {"prepare": False, "commit": True, "abandon": True, "undo": True}


def test_an_interrupt_that_waited_until_the_changes_counted_undoes_them():
    @contextlib.contextmanager
    def shield():
        yield
        raise KeyboardInterrupt("SIGTERM")

    call = present(shield=shield)
    assert isinstance(call.failure, KeyboardInterrupt)
    assert call.audit[:3] == [("create", target, "done") for target in ABC]
    assert not call.backend.targets["c"].snapshots


def test_a_token_is_used_up_by_a_return_that_found_nothing_to_do():
    backend = FakeBackend("a")
    backend.add("a", "x")
    backend.targets["a"].content = "yesterday"
    first = Call(backend, state="rolled_back", name="x", once="job 1")
    assert [each["action"] for each in first.run.results] == ["unchanged"]
    backend.targets["a"].content = "what came after"
    second = Call(backend, state="rolled_back", name="x", once="job 1")
    assert [each["action"] for each in second.run.results] == ["unchanged"]
    assert backend.targets["a"].content == "what came after"
