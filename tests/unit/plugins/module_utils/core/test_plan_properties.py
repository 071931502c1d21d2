# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""For any situation and request: check mode tells the truth, a second run changes nothing, and it is all or nothing."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import Blocker, Desired
from ansible_collections.restorepoint.core.plugins.module_utils.core.plan import Plan, ends, make_plan, predicted
from ansible_collections.restorepoint.core.plugins.module_utils.core.retention import RetentionPolicy, parse_policy
from ansible_collections.restorepoint.core.plugins.module_utils.core.run import Run, RunFailed
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.core.fake_backend import (
    NOW,
    FakeBackend,
    broken,
    described,
)

#: A random number generator made from a seed is much cheaper to draw than every fact of a situation.
RANDOM = st.randoms(use_true_random=True)
NAMES = ["x", "y", "z", "nightly-1", "nightly-2"]
WORDS = ["today", "yesterday", "before"]
PERIOD = 90000


def labels(random: Random) -> dict[str, str]:
    return {key: random.choice("12") for key in random.sample(["app", "tier"], random.randint(0, 2))}


def policy(random: Random) -> RetentionPolicy:
    rules = {"last": random.randint(-1, 3), "hourly": random.randint(0, 3), "daily": random.randint(0, 3),
             "within": random.choice(["1h", "2d"]), "max_age": random.choice(["3h", "3d"])}  # fmt: skip
    return parse_policy(
        {rule: rules[rule] for rule in random.sample(sorted(rules), random.randint(0, 3))},
        min_keep=random.randint(0, 2),
        min_age=random.choice([None, "1h"]),
        max_delete=random.choice([None, None, "1", "50%"]),
        require_recent=random.choice([None, None, "1d"]),
    )


def storage(random: Random) -> FakeBackend:
    """Return a storage with one to three targets."""
    backend = FakeBackend(*"abc"[: random.randint(1, 3)], newest_only=random.random() < 0.5)
    for name, target in backend.targets.items():
        target.content = random.choice(WORDS)
        for snapshot in random.sample(NAMES, random.randint(0, 5)):
            backend.add(
                name,
                snapshot,
                random.choice(WORDS),
                created=NOW - random.randint(-10, 4 * PERIOD),
                sequence=random.randint(0, 2),
                owner=random.choice(["manual", "nightly", None]),
                description=random.choice(["", "for people"]),
                labels=labels(random),
                ready=random.random() < 0.95,
                held="legal" if random.random() < 0.05 else None,
                in_use="clone" if random.random() < 0.05 else None,
            )
        for created in random.sample(range(1, PERIOD), random.randint(0, 2)):
            backend.add_aside(name, NOW - created)
        target.returned = {"job 1": NOW - 60} if random.random() < 0.2 else {}
        target.clones = {f"{name}-copy": random.choice(NAMES)} if random.random() < 0.3 else {}
        if random.random() < 0.1:
            target.blockers = (Blocker(name, "it is in use", "stop it", lifted_by=random.choice([None, "force"])),)
    return backend


def wanted(random: Random, backend: FakeBackend) -> Desired:
    """Return something that a caller may ask for."""
    state = random.choice(["present", "absent", "rolled_back", "cloned", "pruned"])
    retention = policy(random) if state == "pruned" and random.random() < 0.8 else None
    asides = policy(random) if state == "pruned" and (retention is None or random.random() < 0.5) else None
    desired = Desired(
        state=state,
        name=None if state == "pruned" else random.choice(NAMES),
        owner=random.choice(["manual", "nightly"]),
        description=random.choice([None, "", "for people"]),
        labels=random.choice([None, labels(random)]),
        max_age=random.choice([None, None, 3600, PERIOD]),
        replace=random.random() < 0.5,
        keep_current=random.random() < 0.5,
        destroy_newer=random.random() < 0.7,
        once=random.choice([None, None, "job 1", "job 2"]),
        clones={name: f"{name}-copy" for name in backend.targets} if state == "cloned" else {},
        allowed=random.choice([frozenset(), frozenset({"force"})]),
        retention=retention,
        asides=asides,
        match=random.choice([(), ("*",), ("nightly-*",)]),
    )
    backend.wanted = described(desired)
    return desired


def plan(backend: FakeBackend, desired: Desired) -> Plan:
    return make_plan(desired, backend.situations(desired), NOW)


def make_run(backend: FakeBackend, keep_partial: bool = False) -> Run:
    return Run(backend, lambda change, outcome: {"of": change, "outcome": outcome}, lambda: 0.0, keep_partial)


@given(RANDOM)
@settings(max_examples=500, deadline=None)
def test_check_mode_predicts_the_results_the_diff_shows_the_two_ends_and_a_second_run_changes_nothing(random):
    backend = storage(random)
    desired = wanted(random, backend)
    first = plan(backend, desired)
    if first.blockers:
        assert first.changes == ()
        return
    prediction, diff = predicted(first), ends(first, backend.situations(desired), desired)
    before = backend.view(desired)
    results = make_run(backend).carry_out(first)
    after = backend.view(desired)

    told_by_doing = ("seconds", "told")
    assert [{k: v for k, v in each.items() if k not in told_by_doing} for each in results] == prediction

    changed = {change.target for change in first.changes}
    assert set(diff["before"]) == set(diff["after"]) == changed
    for target in backend.targets:
        if target not in changed:
            assert before[target] == after[target]
            continue
        shown = {side: _comparable(diff[side][target], desired) for side in diff}
        # A target that is returned may hold the same content by chance, where that cannot be proven.
        assert shown["after"] == after[target]
        assert shown["before"]["snapshots"] == before[target]["snapshots"]

    second = plan(backend, desired)
    assert second.changes == ()
    assert second.blockers == ()


def _comparable(view: dict[str, Any], desired: Desired) -> dict[str, Any]:
    """Leave out what no plan can know: when a replaced one is made, and the name of what a return sets aside."""
    snapshots = {
        name: {key: value for key, value in each.items() if key != "created"}
        for name, each in view["snapshots"].items()
        if desired.state != "rolled_back" or not name.startswith("aside-")
    }
    return {**view, "snapshots": snapshots}


@given(RANDOM)
@settings(max_examples=300, deadline=None)
def test_a_failure_anywhere_leaves_everything_as_it_was(random):
    backend = storage(random)
    desired = wanted(random, backend)
    first = plan(backend, desired)
    if not first.changes:
        return
    failing = random.choice(first.changes)
    phase = random.choice(["prepare", "commit"])
    failure = random.choice([broken(), KeyboardInterrupt(), ZeroDivisionError()])
    backend.failures[(phase, failing.verb, failing.target)] = failure
    before = copy.deepcopy(backend.targets)
    run = make_run(backend)
    try:
        run.carry_out(first)
        raise AssertionError("it has to fail")
    except (RunFailed, KeyboardInterrupt, ZeroDivisionError):
        pass
    assert backend.targets == before
    assert backend.prepared == []
    assert not any(each["changed"] for each in run.results)
    assert len(run.results) == len(first.changes) + len(first.unchanged)
    done = [line["of"] for line in run.audit if line["outcome"] == "done"]
    undone = [line["of"] for line in run.audit if line["outcome"] == "undone"]
    assert undone == done[::-1]


@given(RANDOM)
@settings(max_examples=300, deadline=None)
def test_with_keep_the_results_say_exactly_what_changed(random):
    backend = storage(random)
    desired = wanted(random, backend)
    first = plan(backend, desired)
    if not first.changes:
        return
    failing = random.choice(first.changes)
    phase = random.choice(["prepare", "commit"])
    backend.failures[(phase, failing.verb, failing.target)] = broken()
    before = copy.deepcopy(backend.targets)
    run = make_run(backend, keep_partial=True)
    try:
        run.carry_out(first)
        raise AssertionError("it has to fail")
    except RunFailed as error:
        results = error.results
    assert backend.prepared == []
    changed = {each["target"] for each in results if each["changed"]}
    for each in (*before.values(), *backend.targets.values()):
        each.returned = {}  # a token is used up also where nothing had to be done
    assert {name for name in before if backend.targets[name] != before[name]} == changed
    made = [(each["target"], each["name"]) for each in results if each["changed"]]
    audited = [(line["of"].target, line["of"].name) for line in run.audit if line["outcome"] == "done"]
    assert sorted(made) == sorted(audited)
    assert [each["action"] for each in results].count("failed") == sum(
        line["outcome"].startswith("failed") for line in run.audit
    )


@given(RANDOM)
@settings(max_examples=100, deadline=None)
def test_planning_touches_nothing(random):
    backend = storage(random)
    desired = wanted(random, backend)
    before = copy.deepcopy(backend.targets)
    plan(backend, desired)
    assert (backend.targets, backend.calls) == (before, [])
