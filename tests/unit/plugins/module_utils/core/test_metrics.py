# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Families of metrics: what is down shows, series are few and unlike each other, names are as Prometheus has them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.history import tally
from ansible_collections.restorepoint.core.plugins.module_utils.core.metrics import (
    MAX_TARGETS,
    OTHERS,
    Facts,
    Look,
    Storage,
    Watched,
    families,
)
from ansible_collections.restorepoint.core.plugins.module_utils.core.survey import Survey

NOW = 1795305600
OWNERS = {"policy": 3, "manual": 1, "other": 0}
SHOP = (Watched("shop", NOW - 60, {"daily": 7}),)


def seen(*targets, policy="shop", backend="zfs", **more):
    surveys = tuple(Survey(each, OWNERS, oldest=10, newest=20, kept={"daily": 2}, **more) for each in targets)
    return Look(policy, backend, True, 0.5, surveys)


def shown(*looks, policies=SHOP, **more):
    """The samples of all families, as {name: {labels: value}}; a label set that stands twice is an error."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in families(Facts(NOW, 1.5, policies=policies, looks=looks, **more)):
        assert family.name not in found, f"{family.name} is there twice"
        series = found[family.name] = {}
        for labels, value in family.samples:
            key = tuple(sorted(labels.items()))
            assert key not in series, f"{family.name}{labels} is there twice"
            series[key] = value
    return found


def one(found, name, **labels):
    return found[f"restorepoint_{name}"][tuple(sorted(labels.items()))]


def test_what_was_seen_of_a_target_is_shown():
    found = shown(seen("tank/shop", overdue=4))
    labels = {"policy": "shop", "backend": "zfs", "target": "tank/shop"}
    assert one(found, "backend_up", policy="shop", backend="zfs") == 1
    assert one(found, "snapshots", **labels, owner="manual") == 1
    assert one(found, "snapshots_overdue", **labels) == 4
    assert one(found, "snapshot_newest_timestamp_seconds", **labels) == 20
    assert one(found, "keep_present", **labels, rule="daily") == 2
    assert one(found, "keep_expected", policy="shop", rule="daily") == 7


def test_what_is_down_is_a_metric_and_leaves_no_number_behind():
    found = shown(
        Look("shop", "zfs", False, 30.0, (Survey("tank/shop", OWNERS),), (Storage("zfs", "tank", "data", 0.5),))
    )
    assert one(found, "backend_up", policy="shop", backend="zfs") == 0
    gone = ("restorepoint_snapshot", "restorepoint_storage", "restorepoint_targets", "restorepoint_keep_present")
    of_storage = [name for name in found if name.startswith(gone) and not name.endswith("_total")]
    assert len(of_storage) > 10
    assert [name for name in of_storage if found[name]] == []


def test_a_backend_is_down_where_a_part_of_it_is():
    found = shown(seen("a", backend="hostpath"), Look("shop", "hostpath", False, 1.0))
    assert found["restorepoint_backend_up"] == {(("backend", "hostpath"), ("policy", "shop")): 0}


def test_a_target_that_lies_in_two_stores_is_one_series():
    found = shown(seen("/srv", backend="hostpath"), seen("/srv", backend="hostpath"))
    assert one(found, "snapshots", policy="shop", backend="hostpath", target="/srv", owner="policy") == 6


def test_targets_beyond_the_limit_are_one_series_in_which_the_worst_counts():
    names = [f"tank/{number:05d}" for number in range(MAX_TARGETS + 300)]
    look = seen(*names)
    worst = Survey("tank/00700", OWNERS, newest=3, overdue=9)
    look = Look("shop", "zfs", True, 1.0, (*(each for each in look.surveys if each.target != worst.target), worst))
    found = shown(look)
    labels = {"policy": "shop", "backend": "zfs", "target": OTHERS}
    assert len(found["restorepoint_snapshots_overdue"]) == MAX_TARGETS
    assert one(found, "snapshots_overdue", **labels) == 9
    assert one(found, "snapshot_newest_timestamp_seconds", **labels) == 3
    assert one(found, "targets", policy="shop", backend="zfs") == len(names)
    assert sum(
        value for key, value in found["restorepoint_snapshots"].items() if ("owner", "policy") in key
    ) == 3 * len(names)


def test_a_policy_that_never_ran_has_its_moments_at_zero():
    found = shown()
    for command in ("run", "verify", "drill"):
        assert one(found, "last_attempt_timestamp_seconds", policy="shop", command=command) == 0
        assert one(found, "last_success_timestamp_seconds", policy="shop", command=command) == 0
    assert one(found, "runs_total", policy="shop", command="run", outcome="failed") == 0


def test_the_journal_is_shown_for_the_policies_that_there_are():
    run = {"command": "run", "outcome": "failed", "started_epoch": NOW - 5, "done": {"created": 2}}
    drill = {"command": "drill", "outcome": "done", "started_epoch": NOW - 9, "seconds": 4}
    records = [{**each, "policy": policy} for each in (run, drill) for policy in ("shop", "gone")]
    found = shown(tally=tally(records))
    assert one(found, "runs_total", policy="shop", command="run", outcome="failed") == 1
    assert one(found, "last_attempt_succeeded", policy="shop", command="run") == 0
    assert one(found, "last_success_timestamp_seconds", policy="shop", command="drill") == NOW - 9
    assert one(found, "last_attempt_duration_seconds", policy="shop", command="drill") == 4
    assert one(found, "snapshots_created_total", policy="shop") == 2
    assert "gone" not in str(found)


def test_the_last_success_is_known_also_where_the_journal_is_not():
    found = shown(policies=[Watched("shop", None, {}, success=77)])
    assert one(found, "last_success_timestamp_seconds", policy="shop", command="run") == 77
    assert one(found, "policy_scheduled", policy="shop") == 0
    assert found["restorepoint_policy_last_due_timestamp_seconds"] == {}


def test_exports_are_shown_where_a_policy_has_destinations_also_before_the_first():
    found = shown(policies=[Watched("shop", None, {}, exports=2, export_due=88), Watched("other", None, {})])
    assert found["restorepoint_export_destinations"] == {(("policy", "shop"),): 2}
    assert found["restorepoint_export_last_due_timestamp_seconds"] == {(("policy", "shop"),): 88}
    assert one(found, "last_success_timestamp_seconds", policy="shop", command="export") == 0
    exported = [dict(key) for key in found["restorepoint_last_success_timestamp_seconds"]]
    assert {"policy": "other", "command": "export"} not in exported


def test_a_rule_that_keeps_all_expects_no_number():
    found = shown(policies=[Watched("shop", None, {"daily": -1, "weekly": 4})])
    assert found["restorepoint_keep_expected"] == {(("policy", "shop"), ("rule", "weekly")): 4}


def test_the_fullest_reading_of_a_pool_that_several_policies_use_counts():
    pools = [
        Look(name, "lvm", True, 1.0, (), (Storage("lvm", "vg/pool", "data", fill, 9),))
        for name, fill in (("a", 0.5), ("b", 0.75))
    ]
    found = shown(*pools)
    assert found["restorepoint_storage_fill_ratio"] == {
        (("backend", "lvm"), ("part", "data"), ("storage", "vg/pool")): 0.75
    }


@pytest.mark.parametrize("what", ["sound", "readable"])
def test_policies_or_a_journal_that_cannot_be_read_show(what):
    name = {"sound": "policies_sound", "readable": "journal_readable"}[what]
    assert one(shown(), name) == 1
    assert one(shown(**{what: False}), name) == 0


def test_a_path_that_is_no_text_is_a_label_that_can_be_written():
    found = shown(seen("/srv/\udce9t\xe9", backend="hostpath"))
    ((labels, _value),) = found["restorepoint_asides"].items()
    assert dict(labels)["target"] == "/srv/\\udce9t\xe9"


texts = st.text(st.characters(exclude_categories=()), max_size=4)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["shop", "mail"]),
            st.sampled_from(["zfs", "lvm"]),
            st.booleans(),
            st.lists(texts, max_size=4),
        )
    )
)
def test_no_series_is_there_twice_and_all_can_be_written(parts):
    looks = [
        Look(policy, kind, up, 0.1, tuple(Survey(each, OWNERS) for each in names)) for policy, kind, up, names in parts
    ]
    for series in shown(*looks).values():
        for labels in series:
            "".join(value for _name, value in labels).encode("utf-8")


def test_names_are_as_prometheus_has_them():
    for family in families(Facts(NOW, 1.5)):
        assert re.fullmatch(r"restorepoint_[a-z_]+", family.name)
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert "type" not in family.name.split("_")
        assert family.help.endswith(".")
