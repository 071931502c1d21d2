# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What all hosts of a restore point decide together."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core import restore_points as points
from ansible_collections.restorepoint.core.plugins.module_utils.core.restore_points import Part, Report
from ansible_collections.restorepoint.core.plugins.module_utils.core.snapshot import parse_timestamp

HOSTS = points.digest_of(["web1", "web2"])
WHOLE = Part("zfs:tank/a", "", exists=True, run="run1", hosts=HOSTS)


def hosts(**parts):
    """A report of each host, whose one part lies on that host."""
    return [
        Report(host, parts=(dataclasses.replace(part or Part("zfs:tank/a", ""), place=host),))
        for host, part in parts.items()
    ]


def taking(reports, missing=(), replace=False):
    return points.judge_taking(reports, missing, "new", "upgrade", replace)


def returning(reports, missing=(), given="", partial=False, names=HOSTS):
    return points.judge_returning(reports, missing, names, "new", given, partial)


def telling(reports, **more):
    """The same reports, with what would be done."""
    return [dataclasses.replace(each, **more) for each in reports]


# -- taking ------------------------------------------------------------------------------------------------------------


def test_where_nothing_is_there_all_take_it_with_the_new_token():
    verdict = taking(hosts(web1=None, web2=None))
    assert (verdict.go, verdict.anew, verdict.token, verdict.resumed) == (True, False, "new", False)


def test_a_whole_one_is_left_alone():
    assert not taking(hosts(web1=WHOLE, web2=WHOLE)).go


def test_a_whole_one_whose_labels_change_is_written_on():
    verdict = taking(telling(hosts(web1=WHOLE, web2=WHOLE), changed=True, actions=("described",)))
    assert (verdict.go, verdict.anew) == (True, False)


def test_where_one_host_takes_its_part_anew_all_do():
    old, fresh = hosts(web1=WHOLE, web2=WHOLE)
    verdict = taking([dataclasses.replace(old, changed=True, actions=("replaced",)), fresh])
    assert (verdict.go, verdict.anew) == (True, True)


def test_what_a_run_that_died_has_left_is_taken_anew():
    verdict = taking(hosts(web1=dataclasses.replace(WHOLE, unfinished=True), web2=None))
    assert (verdict.go, verdict.anew, verdict.resumed, verdict.token) == (True, True, True, "new")
    assert "what it left on web1 is taken anew" in verdict.notes[0]


def test_a_run_that_died_before_its_end_is_finished_under_its_own_token():
    verdict = taking(hosts(web1=dataclasses.replace(WHOLE, unfinished=True), web2=WHOLE))
    assert (verdict.finish_only, verdict.token, verdict.anew) == (True, "run1", False)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (None, "web1: there is a snapshot 'upgrade' already, but not all of it on web2 (set restore_point_replace"),
        (dataclasses.replace(WHOLE, run="run2"), "the snapshots 'upgrade' on web1, web2 are of 2 different runs ("),
        (dataclasses.replace(WHOLE, run=None), "the snapshots 'upgrade' on web1, web2 are of 2 different runs ("),
    ],
)
def test_what_is_no_restore_point_stands_in_the_way_unless_it_may_be_replaced(other, said):
    reports = hosts(web1=WHOLE, web2=other)
    verdict = taking(reports)
    assert said in verdict.problems[0]
    assert not verdict.go
    allowed = taking(reports, replace=True)
    assert (allowed.problems, allowed.go, allowed.anew) == ((), True, True)


def test_nothing_is_taken_while_a_return_has_not_ended():
    reports = hosts(web1=dataclasses.replace(WHOLE, returning="job7"), web2=WHOLE)
    for replace in (False, True):
        assert "web1: a return to 'upgrade' has not ended" in taking(reports, replace=replace).problems[0]


def test_all_faults_are_told_and_whose_they_are():
    reports = [*hosts(web1=None, web2=None), Report("db1", fault="the pool is gone")]
    assert taking(reports, missing=["db2"]).problems == (
        "db2: it failed or was unreachable before, and is not in the play any more",
        "db1: the pool is gone",
    )


def test_a_target_that_two_hosts_name_is_refused_and_one_name_on_two_machines_is_not():
    guest = Part("pve:101", "pve1:8006")
    twice = [Report("web1", parts=(guest,)), Report("web2", parts=(guest,))]
    for verdict in (taking(twice), returning(twice)):
        assert verdict.problems == ("web2: pve:101 is a target of web1 already; name it on one host only",)
    assert taking(hosts(web1=None, web2=None)).go


# -- returning ---------------------------------------------------------------------------------------------------------


def test_a_return_has_the_callers_token_or_the_new_one():
    reports = telling(hosts(web1=WHOLE, web2=WHOLE), changed=True)
    assert returning(reports).token == "new"
    assert returning(reports, given="job7").token == "job7"


def test_where_all_hosts_are_as_they_were_nothing_is_done():
    assert not returning(hosts(web1=WHOLE, web2=WHOLE)).go


def test_a_return_that_died_goes_on_with_its_own_token():
    reports = hosts(web1=dataclasses.replace(WHOLE, returning="old"), web2=WHOLE)
    verdict = returning(reports)
    assert (verdict.token, verdict.go, verdict.resumed) == ("old", True, True)
    assert "set restore_point_once to old" in returning(reports, given="job7").problems[0]
    assert returning(reports, given="old").problems == ()


def test_returns_with_different_tokens_are_no_return():
    reports = hosts(
        web1=dataclasses.replace(WHOLE, returning="one"), web2=dataclasses.replace(WHOLE, returning="two")
    )  # fmt: skip
    assert "one, two" in returning(reports).problems[0]


def test_a_part_of_a_restore_point_is_returned_only_where_that_is_meant():
    alone = hosts(web1=WHOLE)
    names = points.digest_of(["web1"])
    said = returning(alone, names=names).problems
    assert "it was taken of 2 hosts, and these are 1, or others: is there a limit?" in said[0]
    assert returning(alone, names=names, partial=True).problems == ()
    mixed = hosts(web1=WHOLE, web2=dataclasses.replace(WHOLE, run="run2"))
    assert "different runs" in returning(mixed).problems[0]
    assert returning(mixed, partial=True).problems == ()


# -- what is told ------------------------------------------------------------------------------------------------------


def test_a_message_names_what_was_attempted_and_what_stands_and_counts_what_is_left_out():
    assert points.told("take it", ["web1: gone."], "Nothing was touched.") == (
        "Cannot take it: web1: gone. Nothing was touched."
    )
    assert points.told("take it", [f"web{number}: gone" for number in range(25)], "").endswith("; and 5 more.")


def test_the_spread_is_told_where_there_are_two():
    results: list[dict[str, Any]] = [
        {"action": "created", "instant": 100.25, "snapshot": {"created": "2026-11-22T01:30:00Z"}},
        {"action": "replaced", "instant": 101.5, "snapshot": {"created": "2026-11-22T01:30:00Z"}},
        {"action": "unchanged", "instant": 900.0, "snapshot": {"created": "2026-11-22T01:30:00Z"}},
        {"action": "failed"},
    ]
    assert points.spread_of(points.instants_of(results, parse_timestamp)) == 1.25
    assert points.spread_of([100.0]) is None


# -- properties --------------------------------------------------------------------------------------------------------

PARTS = st.builds(
    Part,
    target=st.sampled_from(["zfs:a", "lvm:b"]),
    place=st.just(""),
    exists=st.booleans(),
    run=st.sampled_from([None, "run1", "run2"]),
    hosts=st.sampled_from([None, HOSTS, "3:0"]),
    unfinished=st.booleans(),
    returning=st.sampled_from([None, "one", "two"]),
)
FLEETS = st.dictionaries(st.sampled_from(["web1", "web2", "db1"]), PARTS, min_size=1).map(lambda found: hosts(**found))


@given(FLEETS, st.booleans())
def test_whoever_has_problems_does_nothing(fleet, replace):
    for verdict in (taking(fleet, replace=replace), returning(fleet, partial=replace)):
        assert not (verdict.problems and (verdict.go or verdict.token))


@given(FLEETS, st.booleans())
def test_a_finished_snapshot_is_never_taken_anew_unless_that_was_asked_for(fleet, replace):
    parts = [each.parts[0] for each in fleet]
    if taking(fleet, replace=replace).anew and not replace:
        assert all(part.unfinished for part in parts if part.exists)


@given(FLEETS)
def test_the_order_of_the_hosts_does_not_matter(fleet):
    back = list(reversed(fleet))
    for judge in (taking, returning):
        one, other = judge(fleet), judge(back)
        assert (one.go, one.anew, one.token, sorted(one.problems)) == (
            other.go, other.anew, other.token, sorted(other.problems),
        )  # fmt: skip


@given(FLEETS)
def test_after_a_return_that_died_at_any_host_the_next_one_has_the_same_token(fleet):
    reports = [Report(each.host, parts=tuple(dataclasses.replace(part, returning=None, exists=True, run="r", hosts=None)
                                             for part in each.parts)) for each in fleet]  # fmt: skip
    reports[0] = Report(reports[0].host, parts=tuple(dataclasses.replace(p, returning="t") for p in reports[0].parts))
    verdict = returning(reports)
    assert (verdict.problems, verdict.token, verdict.go) == ((), "t", True)


@given(st.lists(st.sampled_from(["web1", "web2", "db1"])))
def test_the_digest_is_of_the_set_of_hosts(names):
    assert points.digest_of(names) == points.digest_of(sorted(set(names), reverse=True))
    assert points.digest_of(names).partition(":")[0] == str(len(set(names)))


@given(st.dictionaries(st.sampled_from([*points.OWN, "app", "restorepoint.other"]), st.text()))
def test_labels_are_ours_or_the_users_and_none_is_lost(labels):
    ours, others = points.own_labels(labels), points.users_labels(labels)
    assert {**ours, **others} == labels
    assert not ours.keys() & others.keys()
