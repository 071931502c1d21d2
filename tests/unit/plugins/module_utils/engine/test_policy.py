# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Policies: every fault is named with its place, and the examples say what they are said to."""

from __future__ import annotations

import datetime
import json
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.engine.policy import InvalidPolicies, parse_policies

EXAMPLES = pathlib.Path(__file__).resolve().parents[5] / "playbooks" / "files" / "policies"
ZFS = {"backend": "zfs", "dataset": ["tank/a"]}
LVM = {"backend": "lvm", "volume": ["vg/a"]}
HOST = {"backend": "hostpath", "path": ["/srv/a"], "store": "/var/store"}
CSI = {"backend": "csi", "namespace": "shop"}
CLAIMS = {"backend": "hostpath", "namespace": ["shop"], "store": "/var/store"}
BTRFS = {"backend": "btrfs", "subvolume": "/srv/b", "store": "/srv/.store"}


def policy(**keys):
    return {"name": "nightly", "targets": [ZFS], **keys}


def faults(*policies):
    with pytest.raises(InvalidPolicies) as caught:
        parse_policies({"policies": list(policies)})
    return {each.place: each.reason for each in caught.value.faults}


def test_targets_of_all_backends_make_one_policy_with_the_defaults_of_their_modules():
    (found,) = parse_policies({"policies": [policy(targets=[ZFS, LVM, HOST, BTRFS])]})
    assert [each.backend for each in found.targets] == ["zfs", "lvm", "hostpath", "btrfs"]
    assert found.targets[0].params["recursive"] is False
    assert found.targets[1].params["data_limit"] == 90
    assert found.targets[3].params["subvolume"] == ["/srv/b"]


def test_a_policy_waits_for_another_longer_than_a_person_would_unless_it_says_otherwise():
    pve = {"backend": "pve", "vmid": ["100"], "api_host": "pve", "credentials_file": "/etc/pve.json"}
    (found,) = parse_policies({"policies": [policy(targets=[ZFS, {**HOST, "lock_timeout": 5}, pve])]})
    # Of Proxmox VE it is the guest's own lock, such as that of a backup.
    assert [each.params["lock_timeout"] for each in found.targets] == [600, 5, 60]


def test_claims_are_named_by_namespaces_without_asking_the_cluster():
    (found,) = parse_policies({"policies": [policy(targets=[{**CSI, "pvc": "db"}, CLAIMS])]})
    assert found.targets[0].params["namespace"] == ["shop"]
    assert found.targets[0].params["pvc"] == ["db"]
    assert found.targets[0].params["timeout"] == 300
    assert found.targets[1].params["namespace"] == ["shop"]
    assert found.targets[1].params["path"] is None or found.targets[1].params["path"] == []


@pytest.mark.parametrize(
    ("keys", "place", "words"),
    [
        ({"nmae": "x"}, "policies[0].nmae", "did you mean name?"),
        ({"name": "No"}, "policies[0].name", "2 to 23 characters"),
        ({"name": None}, "policies[0].name", "it is missing"),
        ({"name": "manual"}, "policies[0].name", "taken by hand"),
        ({"name": "snapshot-x"}, "policies[0].name", "reserves"),
        ({"targets": []}, "policies[0].targets", "something in it"),
        ({"targets": [{**ZFS, "datset": "x"}]}, "policies[0].targets[0].datset", "did you mean dataset?"),
        ({"targets": [{"backend": "zfs"}]}, "policies[0].targets[0].dataset", "it is missing"),
        ({"targets": [{**ZFS, "dataset": [1]}]}, "policies[0].targets[0].dataset", "list of texts"),
        ({"targets": [{**ZFS, "recursive": "yes"}]}, "policies[0].targets[0].recursive", "true or false"),
        ({"targets": [{**ZFS, "timeout": 0}]}, "policies[0].targets[0]", "too little"),
        ({"targets": [{"backend": "zsf"}]}, "policies[0].targets[0].backend", "there is no backend 'zsf'"),
        ({"targets": [{"backend": "nfs"}]}, "policies[0].targets[0].backend", "zfs, lvm, btrfs, hostpath"),
        ({"targets": [{**LVM, "size": "big"}]}, "policies[0].targets[0]", "not a size"),
        ({"targets": [{"backend": "hostpath", "path": "/a"}]}, "policies[0].targets[0].store", "it is missing"),
        ({"targets": [{**HOST, "path": "a"}]}, "policies[0].targets[0]", "relative"),
        ({"targets": [{**BTRFS, "nested": "x"}]}, "policies[0].targets[0].nested", "none of move, aside"),
        ({"targets": [ZFS, {**ZFS, "recursive": True}]}, "policies[0].targets[1]", "targets[0]"),
        ({"targets": ["tank/a"]}, "policies[0].targets[0]", "has to be a mapping"),
        ({"targets": [{"backend": "csi"}]}, "policies[0].targets[0].namespace", "it is missing"),
        ({"targets": [{**CSI, "pvc": "a", "selector": "b=c"}]}, "policies[0].targets[0].selector", "one of the two"),
        ({"targets": [{**CSI, "namespace": "No"}]}, "policies[0].targets[0]", "namespace"),
        ({"targets": [{**CSI, "pvc": ["../x"]}]}, "policies[0].targets[0]", "no name of a claim"),
        ({"targets": [{**CSI, "deletion_policy": "Keep"}]}, "policies[0].targets[0].deletion_policy", "Delete, Retain"),
        ({"targets": [{**CSI, "timeout": 0}]}, "policies[0].targets[0]", "too small"),
        ({"targets": [{**CSI, "stop_workloads": True}]}, "policies[0].targets[0].stop_workloads", "no such key"),
        ({"targets": [CSI, {**CSI, "namespace": ["a", "shop"]}]}, "policies[0].targets[1]", "in its pvc"),
        ({"targets": [{**HOST, "namespace": "a"}]}, "policies[0].targets[0].namespace", "one of the two"),
        ({"targets": [{**HOST, "pvc": "a"}]}, "policies[0].targets[0].pvc", "lacks namespace"),
        ({"targets": [{**CLAIMS, "store": None}]}, "policies[0].targets[0].store", "it is missing"),
        ({"targets": [{**CLAIMS, "other_nodes": "x"}]}, "policies[0].targets[0].other_nodes", "fail, skip"),
        ({"targets": [{**CLAIMS, "namespace": "No"}]}, "policies[0].targets[0]", "namespace"),
        ({"keep": {"dayly": 1}}, "policies[0].keep.dayly", "did you mean daily?"),
        ({"keep": {"daily": -2}}, "policies[0].keep.daily", "-1 for all"),
        ({"keep": {"within": "3 months"}}, "policies[0].keep.within", "not a duration"),
        ({"max_delete": "200%"}, "policies[0].max_delete", "more than all"),
        ({"min_age": "2d", "require_recent": "1d"}, "policies[0].keep", "shorter than min_age"),
        ({"timezone": "Mars/Base"}, "policies[0].timezone", "IANA name"),
        ({"schedule": {"calender": "daily"}}, "policies[0].schedule.calender", "did you mean calendar?"),
        ({"schedule": {}}, "policies[0].schedule", "neither calendar nor cron"),
        ({"schedule": {"calendar": ["daily", "Fry 8:00"]}}, "policies[0].schedule.calendar[1]", "'Fry' is no weekday"),
        ({"schedule": {"cron": "61 * * * *"}}, "policies[0].schedule.cron[0]", "'61' is no minute"),
        ({"hooks": [{"kind": "cmd"}]}, "policies[0].hooks[0].kind", "command, fsfreeze"),
        ({"hooks": [{"kind": "command"}]}, "policies[0].hooks[0]", "neither before nor after"),
        ({"hooks": [{"kind": "command", "before": "ls /"}]}, "policies[0].hooks[0].before", "list of texts"),
        ({"hooks": [{"kind": "command", "after": ["ls"], "timeout": "9"}]}, "policies[0].hooks[0].timeout", "duration"),
        ({"hooks": [{"kind": "fsfreeze", "path": "srv"}]}, "policies[0].hooks[0].path", "absolute path"),
        ({"targets": [LVM], "hooks": [{"kind": "fsfreeze", "path": "/srv"}]}, "policies[0].hooks[0].kind", "lvcreate"),
        ({"targets": [BTRFS], "hooks": [{"kind": "fsfreeze", "path": "/s"}]}, "policies[0].hooks[0].kind", "Btrfs"),
        ({"labels": {"a": ["b"]}}, "policies[0].labels.a", "a name and a text"),
        ({"only_if_changed": 1}, "policies[0].only_if_changed", "true or false"),
        ({"drill_schedule": {"cron": "0 3 * * 0"}}, "policies[0].drill_schedule", "has no key drill"),
        ({"export_schedule": {"cron": "@daily"}, "export": []}, "policies[0].export_schedule", "has no key export"),
        ({"drill_schedule": {"cron": "61 * * * *"}, "drill": {}}, "policies[0].drill_schedule.cron[0]", "no minute"),
        ({"drill_schedule": {}, "drill": {}}, "policies[0].drill_schedule", "neither calendar nor cron"),
        ({"drill_schedule": "Sun", "drill": {}}, "policies[0].drill_schedule", "has to be a mapping"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_place(keys, place, words):
    found = faults(policy(**keys))
    assert list(found) == [place]
    assert words in found[place]


def test_all_faults_of_all_policies_are_named_at_once():
    found = faults(policy(keep={"dayly": 1, "hourly": "x"}, timezone="Mars"), {"name": "Bad"}, policy(), policy())
    assert list(found) == [
        "policies[0].keep.dayly", "policies[0].keep.hourly", "policies[0].timezone",
        "policies[1].name", "policies[1].targets", "policies[2].name", "policies[3].name",
    ]  # fmt: skip


def understood(content):
    """Return the policies, and the faults; any other error is one of the reader."""
    try:
        return parse_policies(content), ()
    except InvalidPolicies as error:
        return [], error.faults


KEYS = (
    *("name", "targets", "backend", "dataset", "path", "store", "keep", "daily", "schedule", "cron", "calendar"),
    *("hooks", "kind", "before", "timeout", "timezone", "labels", "x"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(KEYS), inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_whatever_the_file_holds_it_is_understood_or_its_faults_are_named(data):
    for content in (data, {"policies": data}, {"policies": [data]}):
        found, named = understood(content)
        assert bool(found) != bool(named)


# -- the examples ------------------------------------------------------------------------------------------------------


def example(name):
    (found,) = parse_policies(json.loads((EXAMPLES / f"{name}.json").read_text()))
    return found


def hours(found, day):
    """Return the hours of a day at which a policy is due."""
    begin = int(datetime.datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp())
    moments = {found.last_due(begin + minute * 60) for minute in range(0, 1440, 30)}
    return sorted((moment - begin) // 3600 for moment in moments if moment >= begin)


WORKDAY, SATURDAY, SUNDAY = "2026-11-26", "2026-11-28", "2026-11-29"


def test_production_is_hourly_on_workdays_and_every_four_hours_at_night_and_on_weekends_and_daily_at_two():
    found = example("production")
    assert hours(found, WORKDAY) == [0, 2, 4, *range(8, 21)]
    assert hours(found, SATURDAY) == hours(found, SUNDAY) == [0, 2, 4, 8, 12, 16, 20]
    assert found.retention.rules == (("hourly", 24), ("daily", 7), ("weekly", 4), ("monthly", 12))


def test_staging_is_daily_and_on_sunday_evening():
    found = example("staging")
    assert hours(found, WORKDAY) == hours(found, SATURDAY) == [6]
    assert hours(found, SUNDAY) == [6, 20]
    assert found.retention.rules == (("daily", 3), ("weekly", 2))


def test_development_is_daily_if_something_changed_and_keeps_the_last_three():
    found = example("development")
    assert hours(found, WORKDAY) == [22]
    assert found.only_if_changed
    assert found.retention.rules == (("last", 3),)


@pytest.mark.parametrize("name", ["production", "staging", "development"])
def test_the_calendar_and_the_cron_lines_of_an_example_mean_the_same(name):
    raw = json.loads((EXAMPLES / f"{name}.json").read_text())["policies"][0]
    either = [
        parse_policies({"policies": [{**raw, "schedule": {key: raw["schedule"][key]}}]})[0]
        for key in ("calendar", "cron")
    ]
    for day in (WORKDAY, SATURDAY, SUNDAY):
        assert hours(either[0], day) == hours(either[1], day)


def test_a_drill_and_an_export_have_schedules_of_their_own_in_the_time_zone_of_the_policy():
    (found,) = parse_policies({"policies": [policy(
        timezone="Europe/Paris", schedule={"calendar": "hourly"}, drill={}, drill_schedule={"cron": "30 3 * * 0"},
        export=[{"kind": "zfs", "dataset": "vault/a"}], export_schedule={"calendar": ["*-*-* 05:00"]},
    )]})  # fmt: skip
    now = int(datetime.datetime(2026, 11, 27, 12, 10, tzinfo=datetime.timezone.utc).timestamp())
    moments = [found.last_due(now), found.drill_due(now), found.export_due(now)]
    shown = [f"{datetime.datetime.fromtimestamp(each or 0, datetime.timezone.utc):%d %H:%M}" for each in moments]
    assert shown == ["27 12:00", "22 02:30", "27 04:00"]
    assert parse_policies({"policies": [policy(drill={})]})[0].drill_due(now) is None
