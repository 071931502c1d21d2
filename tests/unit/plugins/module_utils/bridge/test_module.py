# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module's one call: what its options ask for, and what its result says, whatever happens on the way."""

from __future__ import annotations

import copy
import json
import os
import signal
from typing import Any, cast

import pytest
from ansible.module_utils.basic import AnsibleModule

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.module import StateModule
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import (
    InvalidInput,
    LockTimeout,
    MissingLibrary,
)
from ansible_collections.restorepoint.core.plugins.module_utils.engine.desired import desired_state
from ansible_collections.restorepoint.core.plugins.module_utils.interrupts import SIGNALS
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.core.fake_backend import (
    FakeBackend,
    broken,
    described,
)

OPTIONS: dict[str, Any] = {
    "state": "present",
    "name": "x",
    "description": None,
    "labels": None,
    "owner": "manual",
    "max_age": None,
    "replace": False,
    "on_failure": "undo",
    "audit_log": None,
    "progress_file": None,
    "keep": None,
    "asides": None,
    "timezone": "UTC",
    "min_keep": 1,
    "min_age": None,
    "max_delete": None,
    "require_recent": None,
    "match": [],
    "ignore_users": False,
}


def asked(**options):
    return desired_state({**OPTIONS, **options}, {}, ("ignore_users",))


# --- options ---------------------------------------------------------------------------------------------------------


def test_only_what_was_given_is_asked_for():
    desired = asked()
    assert (desired.state, desired.name, desired.owner, desired.policy) == ("present", "x", "manual", None)
    assert (desired.description, desired.labels, desired.max_age, desired.retention) == (None, None, None, None)


@pytest.mark.parametrize("state", ["present", "absent", "rolled_back", "cloned"])
@pytest.mark.parametrize("name", [None, ""])
def test_a_state_that_needs_a_name_says_so(state, name):
    with pytest.raises(InvalidInput, match="name is not set"):
        asked(state=state, name=name)


def test_pruned_is_about_no_single_snapshot():
    desired = asked(state="pruned", name="x", keep={"last": 3})
    assert desired.name is None
    assert desired.retention.rules == (("last", 3),)
    assert desired.asides is None


def test_asides_alone_leave_the_snapshots_alone():
    desired = asked(state="pruned", asides={"last": 1})
    assert desired.retention is None
    assert desired.asides.rules == (("last", 1),)


def test_keep_rules_mean_nothing_to_other_states():
    assert asked(keep={"last": 1}, asides={"last": 1}).retention is None
    assert asked(keep={"last": 1}, asides={"last": 1}).asides is None


def test_an_owner_other_than_by_hand_is_a_policy_and_must_be_able_to_begin_a_name():
    assert asked(owner="nightly").policy == "nightly"
    with pytest.raises(InvalidInput):
        asked(owner="Not A Policy")


def test_labels_are_text():
    assert asked(labels={"build": 7, "ok": True}).labels == {"build": "7", "ok": "True"}


def test_durations_are_read_with_their_units():
    assert asked(max_age="1d12h").max_age == 36 * 3600
    with pytest.raises(InvalidInput, match="max_age"):
        asked(max_age="30")


def test_options_that_lift_blockers_lift_them_only_when_set():
    assert asked(ignore_users=True).allowed == {"ignore_users"}
    assert asked().allowed == frozenset()


# --- calls -----------------------------------------------------------------------------------------------------------


class Ended(Exception):
    """A module's end."""

    def __init__(self, failed, result):
        super().__init__(result.get("msg"))
        self.failed = failed
        self.result = result


class Module:
    """What StateModule uses of an AnsibleModule."""

    #: With a secret, all of a result goes through exit_json.
    no_log_values = frozenset({"a secret"})

    def __init__(self, check_mode=False, diff=False, **options):
        self.params = {**OPTIONS, **options}
        self.check_mode = check_mode
        self._diff = diff
        self.warnings = []

    def warn(self, warning):
        self.warnings.append(warning)

    def exit_json(self, **result):
        raise Ended(False, result)

    def fail_json(self, **result):
        raise Ended(True, result)


@pytest.fixture(autouse=True)
def _handlers_of_pytest():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def call(backend=None, make=None, **options):
    """Run a call to its end, and return the module, how it ended, and its result."""
    backend = backend or FakeBackend()
    module = Module(**options)

    def make_backend(params, report):
        desired = asked(**{key: value for key, value in options.items() if key in OPTIONS})
        backend.wanted = described(desired)
        report("begin", {"files": 0})
        return backend, desired

    with pytest.raises(Ended) as ended:
        StateModule(cast(AnsibleModule, module), make or make_backend).run()
    return module, ended.value.failed, ended.value.result


def test_a_call_ends_with_what_was_done():
    backend = FakeBackend("a", "b")
    _unused, failed, result = call(backend)
    assert not failed
    assert (result["changed"], result["state"], result["name"]) == (True, "present", "x")
    assert [(each["target"], each["action"]) for each in result["results"]] == [("a", "created"), ("b", "created")]
    assert [(each["change"], each["target"], each["outcome"]) for each in result["audit"]] == [
        ("create", "a", "done"), ("create", "b", "done"),
    ]  # fmt: skip
    assert backend.sessions == [True]


def test_a_result_can_be_sent_as_json():
    json.dumps(call(diff=True)[2])


def test_a_second_call_changes_nothing():
    backend = FakeBackend()
    call(backend)
    _unused, failed, result = call(backend)
    assert (failed, result["changed"], result["audit"]) == (False, False, [])
    assert [each["action"] for each in result["results"]] == ["unchanged"]


def test_check_mode_says_what_would_be_done_and_touches_nothing(tmp_path):
    backend = FakeBackend()
    before = copy.deepcopy(backend.targets)
    files = {"audit_log": str(tmp_path / "audit"), "progress_file": str(tmp_path / "progress")}
    _unused, failed, result = call(backend, check_mode=True, **files)
    assert (failed, result["changed"]) == (False, True)
    assert [each["action"] for each in result["results"]] == ["created"]
    assert (backend.targets, backend.calls, backend.sessions) == (before, [], [False])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("check_mode", [True, False])
def test_the_diff_has_both_ends_in_check_mode_too(check_mode):
    diff = call(check_mode=check_mode, diff=True, description="for people")[2]["diff"]
    assert diff == {
        "before": {"a": {"snapshots": {}}},
        "after": {"a": {"snapshots": {"x": {"description": "for people", "labels": {}}}}},
    }
    assert "diff" not in call()[2]


def test_a_call_that_failed_shows_no_diff_to_an_end_that_it_did_not_reach():
    backend = FakeBackend()
    backend.failures[("commit", "create", "a")] = broken()
    assert "diff" not in call(backend, diff=True)[2]


def test_every_blocker_is_in_the_message_and_in_the_result():
    backend = FakeBackend("a", "b")
    _unused, failed, result = call(backend, state="rolled_back")
    assert failed
    assert result["msg"] == (
        "Cannot return to snapshot 'x': a: there is no snapshot 'x' (it has no snapshots); "
        "b: there is no snapshot 'x' (it has no snapshots); nothing was changed."
    )
    assert result["blockers"] == [
        {"target": each, "reason": "there is no snapshot 'x'", "remedy": "it has no snapshots"} for each in "ab"
    ]
    assert (result["changed"], backend.calls) == (False, [])


def test_blockers_fail_in_check_mode_too():
    assert call(state="rolled_back", check_mode=True)[1]


def test_a_failure_says_what_was_done_on_each_target_and_that_nothing_stands():
    backend = FakeBackend("a", "b")
    backend.failures[("commit", "create", "b")] = broken()
    _unused, failed, result = call(backend)
    assert (failed, result["changed"]) == (True, False)
    assert result["msg"] == "Cannot do it: the disk is on fire; put it out."
    assert [each["action"] for each in result["results"]] == ["failed", "failed"]
    assert [each["outcome"][:6] for each in result["audit"]] == ["failed", "failed"]


def test_with_keep_a_failure_says_what_stands():
    backend = FakeBackend("a", "b")
    backend.failures[("prepare", "create", "b")] = broken()
    _unused, failed, result = call(backend, on_failure="keep")
    assert (failed, result["changed"]) == (True, True)
    assert [each["action"] for each in result["results"]] == ["created", "failed"]


def test_an_interrupt_says_that_what_was_begun_is_undone():
    backend = FakeBackend("a", "b")
    backend.failures[("prepare", "create", "b")] = KeyboardInterrupt("SIGTERM")
    _unused, failed, result = call(backend)
    assert failed
    assert result["msg"] == (
        "Cannot make snapshot 'x' present: the run was interrupted (SIGTERM), and what it had begun was undone; "
        "run it again."
    )
    assert [each["action"] for each in result["results"]] == ["none", "none"]
    assert not backend.targets["a"].snapshots


def test_an_interrupt_after_the_fact_does_not_say_that_it_was_undone():
    backend = FakeBackend()
    backend.failures[("finish", "create", "a")] = KeyboardInterrupt("SIGTERM")
    _unused, failed, result = call(backend)
    assert (failed, result["changed"]) == (True, True)
    assert result["msg"].endswith("and results say what stands; run it again.")
    assert [each["action"] for each in result["results"]] == ["created"]


def test_a_signal_while_changes_count_waits_until_it_is_known_what_was_done():
    class Struck(FakeBackend):
        def commit(self, changes):
            signal.raise_signal(signal.SIGTERM)
            return super().commit(changes)

    backend = Struck()
    _unused, failed, result = call(backend)
    assert failed
    assert [each["outcome"] for each in result["audit"]] == ["done", "undone"]
    assert not backend.targets["a"].snapshots


def test_what_cannot_be_meant_is_refused_before_anything_is_opened():
    backend = FakeBackend()
    _unused, failed, result = call(backend, name="forbidden")
    assert failed
    assert result["msg"] == "Cannot use 'forbidden': it is forbidden; choose another name."
    assert (result["results"], backend.sessions) == ([], [])


def test_a_store_that_is_busy_is_an_error_in_one_sentence():
    class Busy(FakeBackend):
        def session(self, writing):
            raise LockTimeout("use the store", "another run holds it", "wait for it")

    assert call(Busy())[2]["msg"] == "Cannot use the store: another run holds it; wait for it."


def test_a_missing_library_is_told_in_ansibles_words():
    def make(params, report):
        raise MissingLibrary("look at claims", "kubernetes", "Traceback ...")

    _unused, failed, result = call(make=make)
    assert failed
    assert "kubernetes" in result["msg"]
    assert result["exception"] == "Traceback ..."


def test_warnings_reach_the_user_also_when_the_call_fails():
    backend = FakeBackend()
    backend.warnings = ["something was recovered"]
    backend.finish_warnings = ["something is left"]
    assert call(backend)[0].warnings == ["something is left", "something was recovered"]
    failing = FakeBackend()
    failing.warnings = ["something was recovered"]
    failing.failures[("prepare", "create", "a")] = broken()
    assert call(failing)[0].warnings == ["something was recovered"]


def test_the_audit_log_has_the_lines_of_the_result(tmp_path):
    path = tmp_path / "audit"
    result = call(FakeBackend("a", "b"), audit_log=str(path))[2]
    assert [json.loads(line) for line in path.read_text().splitlines()] == result["audit"]
    assert {"when", "who", "target", "change", "name", "outcome", "backend", "reason"} == set(result["audit"][0])


def test_an_audit_log_that_cannot_be_written_stops_the_call_before_anything_is_done():
    backend = FakeBackend()
    _unused, failed, result = call(backend, audit_log="relative")
    assert failed
    assert "audit log" in result["msg"]
    assert backend.sessions == []


def test_a_full_disk_under_the_audit_log_is_a_warning_also_when_the_call_fails(tmp_path):
    backend = FakeBackend()
    if not os.path.exists("/dev/full"):
        pytest.fail("/dev/full is missing on this Linux")
    path = tmp_path / "audit"

    class Filling(FakeBackend):
        def check(self, desired):
            # The log was opened before: from here on its descriptor leads to a disk that is full.
            (descriptor,) = [each for each in os.listdir("/proc/self/fd") if _leads_to(each, path)]
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, int(descriptor))
            os.close(full)

    backend = Filling()
    backend.failures[("commit", "create", "a")] = broken()
    module, failed, _unused = call(backend, audit_log=str(path))
    assert failed
    assert [each for each in module.warnings if each.startswith("the audit log is incomplete")] != []


def _leads_to(descriptor, path):
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}") == str(path)
    except OSError:
        return False


def test_pruned_gives_the_reason_for_each_snapshot():
    backend = FakeBackend()
    for number in range(3):
        backend.add("a", f"n{number}", created=1_000_000_000 + number)
    _unused, failed, result = call(backend, state="pruned", name=None, keep={"last": 1})
    assert not failed
    assert [(each["name"], each["keep"]) for each in result["decisions"]] == [
        ("n0", False),
        ("n1", False),
        ("n2", True),
    ]
    assert all(each["reason"] and each["target"] == "a" for each in result["decisions"])


class Telling(FakeBackend):
    """Tells of the snapshots it makes, which come a second after one another, and of one that it only describes."""

    def commit(self, changes):
        super().commit(changes)
        reports = []
        for number, change in enumerate(changes):
            snapshot = self.targets[change.target].snapshots[change.name][0].as_result()
            reports.append({"snapshot": {**snapshot, "created": f"2026-11-22T01:30:0{number}Z"}})
        return reports


def test_the_result_says_how_far_apart_the_members_of_a_set_lie():
    assert call(Telling("a", "b", "c"))[2]["spread_seconds"] == 2


class Precise(FakeBackend):
    """Knows the instant of a snapshot better than to the second."""

    def commit(self, changes):
        super().commit(changes)
        made = {change: self.targets[change.target].snapshots[change.name][0] for change in changes}
        return [
            {"snapshot": snapshot.as_result(), "instant": snapshot.created + number / 8}
            for number, snapshot in enumerate(made.values())
        ]


def test_how_far_apart_they_lie_is_told_as_precisely_as_the_backend_knows_it():
    assert call(Precise("a", "b", "c"))[2]["spread_seconds"] == 0.25


def test_one_snapshot_lies_nowhere_apart_and_neither_do_those_that_were_only_described():
    assert "spread_seconds" not in call(Telling())[2]
    backend = Telling("a", "b")
    backend.add("a", "x")
    backend.add("b", "x")
    assert "spread_seconds" not in call(backend, description="new")[2]
