# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host's part of a restore point: what the stages of a run leave on its snapshots, and what they never touch."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.audit import AuditLog
from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import DESTROY, ROLL_BACK, Blocker, Desired
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import Blocked, InvalidInput
from ansible_collections.restorepoint.core.plugins.module_utils.core.retention import RetentionPolicy
from ansible_collections.restorepoint.core.plugins.module_utils.core.run import RunFailed
from ansible_collections.restorepoint.core.plugins.module_utils.core.several import Member
from ansible_collections.restorepoint.core.plugins.module_utils.engine import policy
from ansible_collections.restorepoint.core.plugins.module_utils.engine.point import (
    BEGIN,
    FINISH,
    MORE_OPTIONS,
    UNDO,
    WHOLE,
    Point,
    PointReach,
    Wish,
    members,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.core.fake_backend import (
    NOW,
    FakeBackend,
    broken,
)


class Host:
    """Two storages, and calls of the module over both."""

    def __init__(self, **facts):
        self.one, self.two = FakeBackend("a", **facts), FakeBackend("b", **facts)
        self.lifts: dict[str, frozenset[str]] = {"one": frozenset(), "two": frozenset()}

    def reach(self, state="present", stage=WHOLE, *, labels=None, run="run1", name="upgrade", **more):
        """Carry a call out; return how it went. ``more`` is the rest of the wish."""
        wish = Wish(state=state, stage=stage, run=run, hosts="1:0", **more)
        desired = Desired(state=state, name=name, labels=labels, once=wish.once, keep_current=False)
        if wish.marks:
            desired = Desired(state="present", name=name)
        if state == "pruned":
            desired = dataclasses.replace(desired, name=None, retention=RetentionPolicy(max_age=60, min_keep=0))
        for backend in (self.one, self.two):
            own = {} if stage != BEGIN else Point([], {}, wish)._new_labels(name)
            backend.wanted = {"owner": "manual", "labels": {**(labels or {}), **own}}
        self.point = Point([Member("one", self.one), Member("two", self.two)], self.lifts, wish)
        reach = PointReach(self.point, desired, lambda: NOW)
        reach.plan()
        reach.check()
        reach.carry_out(AuditLog(None, "root"), False, contextlib.nullcontext)
        return reach

    def labels(self, name="upgrade"):
        """The labels of both snapshots, None where there is none."""
        return [
            dict(target.snapshots[name][0].labels) if name in target.snapshots else None
            for backend in (self.one, self.two)
            for target in backend.targets.values()
        ]

    def parts(self):
        return self.point.parts({"one": "", "two": "pve1:8006"}, "here")


@pytest.fixture
def host():
    return Host()


BEGUN = {"restorepoint.point": "upgrade", "restorepoint.run": "run1", "restorepoint.hosts": "1:0"}


def test_a_restore_point_is_marked_as_unfinished_until_all_hosts_have_theirs(host):
    host.reach(stage=BEGIN, labels={"app": "shop"})
    assert host.labels() == [{**BEGUN, "app": "shop", "restorepoint.unfinished": "yes"}] * 2
    with pytest.raises(Blocked, match="the run that took it died before all hosts had theirs"):
        host.reach("rolled_back")
    host.reach(stage=FINISH, labels={"app": "shop"})
    assert host.labels() == [{**BEGUN, "app": "shop"}] * 2
    assert not host.reach(stage=FINISH, labels={"app": "shop"}).changed


def test_parts_tell_where_they_lie_and_what_they_carry(host):
    host.reach(stage=BEGIN, labels={"app": "shop"})
    host.reach()
    one, two = host.parts()
    assert (one.target, one.place, two.place) == ("one:a", "here", "pve1:8006")
    assert (one.exists, one.run, one.hosts, one.unfinished, one.labels) == (True, "run1", "1:0", True, {"app": "shop"})


def test_users_change_their_labels_and_ours_stay(host):
    host.reach(stage=BEGIN, labels={"app": "shop"})
    host.reach(stage=FINISH, labels={"app": "shop"})
    host.reach(labels={"app": "other"})
    assert host.labels() == [{**BEGUN, "app": "other"}] * 2
    assert not host.reach(labels={"app": "other"}).changed


def test_what_a_killed_run_left_on_one_storage_is_taken_anew_on_both(host):
    host.reach(stage=BEGIN)
    del host.two.targets["b"].snapshots["upgrade"]
    host.one.targets["a"].content = "later"
    host.reach(stage=BEGIN, run="run2", anew=True)
    assert [each["restorepoint.run"] for each in host.labels()] == ["run2"] * 2
    assert host.one.targets["a"].kept("upgrade") == "later"


def test_a_finished_snapshot_is_replaced_by_nobody_who_did_not_ask_for_it(host):
    host.one.add("a", "upgrade")
    with pytest.raises(Blocked, match="exists here, but not on two:b"):
        host.reach(stage=BEGIN)
    assert host.one.targets["a"].kept("upgrade") == "yesterday"


def test_undo_removes_what_this_run_left_unfinished_and_nothing_else(host):
    host.reach(stage=BEGIN)
    host.one.add("a", "other")
    host.reach("absent", UNDO, run="run2")
    assert None not in host.labels(), "it is another run's"
    host.reach("absent", UNDO)
    assert host.labels() == [None, None]
    assert host.one.targets["a"].kept("other") == "yesterday"
    host.reach(stage=BEGIN)
    host.reach(stage=FINISH)
    assert not host.reach("absent", UNDO).changed, "a finished one"


def test_finishing_what_somebody_removed_is_an_error(host):
    host.reach(stage=BEGIN)
    del host.two.targets["b"].snapshots["upgrade"]
    with pytest.raises(Blocked, match="two:b: the snapshot 'upgrade' is gone"):
        host.reach(stage=FINISH)


def taken(host):
    host.reach(stage=BEGIN)
    host.reach(stage=FINISH)
    for backend in (host.one, host.two):
        next(iter(backend.targets.values())).content = "broken"


def test_a_return_is_marked_before_it_begins_and_the_mark_goes_when_it_has_ended(host):
    taken(host)
    host.reach("rolled_back", BEGIN, once="t1")
    assert [each["restorepoint.returning"] for each in host.labels()] == ["t1"] * 2
    assert host.one.targets["a"].content == "broken", "nothing has returned yet"
    with pytest.raises(Blocked, match="a return to it has not ended"):
        host.reach("absent")
    host.reach("pruned")
    assert None not in host.labels(), "what a return needs stays"
    host.reach("rolled_back", once="t1")
    assert host.one.targets["a"].content == host.two.targets["b"].content == "today"
    host.one.targets["a"].content = "after"
    assert not host.reach("rolled_back", once="t1").changed, "no target returns twice for a token"
    host.reach("rolled_back", FINISH)
    assert host.labels() == [BEGUN] * 2


def test_a_mark_needs_no_snapshot_where_the_return_has_used_it_up():
    host = Host(uses_up=True)
    taken(host)
    host.reach("rolled_back", BEGIN, once="t1")
    host.reach("rolled_back", once="t1")
    assert not host.reach("rolled_back", FINISH).changed


def test_when_one_storage_fails_the_other_loses_what_this_call_made(host):
    host.two.failures[("commit", "create", "b")] = broken()
    with pytest.raises(RunFailed, match="the disk is on fire"):
        host.reach(stage=BEGIN)
    assert host.labels() == [None, None]


@pytest.mark.parametrize(
    ("blocker", "lifted"),
    [
        ({"while_used": True}, True),
        ({"lifted_by": "ignore_users"}, True),
        ({"lifted_by": "stop_workloads"}, True),
        ({"lifted_by": "force"}, False),
        ({}, False),
    ],
)
def test_only_what_goes_away_when_users_stop_is_assumed_away(blocker, lifted):
    host = Host()
    taken(host)
    host.one.targets["a"].blockers = (Blocker("a", "it is busy", "stop it", frozenset({ROLL_BACK}), **blocker),)
    wish = Wish(state="rolled_back", assume_stopped=True)
    point = Point([Member("one", host.one)], {"one": frozenset()}, wish)
    reach = PointReach(point, Desired(state="rolled_back", name="upgrade"), lambda: NOW)
    assert (not reach.plan().blockers) == lifted


def test_an_option_lifts_blockers_of_its_own_target_and_of_no_other(host):
    taken(host)
    for backend, target in ((host.one, "a"), (host.two, "b")):
        why = Blocker(target, f"{target} is busy", "stop it", frozenset({ROLL_BACK, DESTROY}), "ignore_users")
        backend.targets[target].blockers = (why,)
    host.lifts["one"] = frozenset({"ignore_users"})
    with pytest.raises(Blocked) as caught:
        host.reach("rolled_back")
    assert "b is busy" in str(caught.value)
    assert "a is busy" not in str(caught.value)


def targets(*raw):
    return policy.parse_targets(list(raw), MORE_OPTIONS)


def test_targets_of_one_backend_and_different_stores_have_labels_of_their_own():
    found, lifts, places = members(
        targets(
            {"backend": "hostpath", "path": ["/srv/a"], "store": "/a"},
            {"backend": "hostpath", "path": ["/srv/b"], "store": "/b", "ignore_users": True},
            {"backend": "lvm", "volume": ["vg/x"]},
        ),
        lambda: NOW,
    )
    assert [each.label for each in found] == ["hostpath", "hostpath-2", "lvm"]
    assert [each.keep_current for each in found] == [True, True, False]
    assert lifts == {"hostpath": frozenset(), "hostpath-2": frozenset({"ignore_users"}), "lvm": frozenset()}
    assert set(places.values()) == {""}


def test_all_faults_of_targets_are_told_with_their_places():
    with pytest.raises(InvalidInput) as caught:
        targets({"backend": "zfs", "datset": ["a"]}, {"backend": "floppy"}, {"backend": "hostpath", "path": ["/a"]})
    for said in ("targets[0].datset: ", "did you mean dataset?", "targets[1].backend: ", "targets[2].store: "):
        assert said in str(caught.value)
