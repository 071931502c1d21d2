# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of hostpath_snapshot, through the module itself: which go together, and what they come to mean."""

from __future__ import annotations

import os

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.bridge import hostpath as bridge
from ansible_collections.restorepoint.core.plugins.module_utils.core.claims import ClaimVolume
from ansible_collections.restorepoint.core.plugins.modules import hostpath_snapshot, hostpath_snapshot_info
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.running import run


@pytest.fixture
def place(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "f").write_text("one")
    return tmp_path


def call(place, module=hostpath_snapshot, **options):
    return run(module, store=str(place / "store"), **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "x"}, "one of the following is required: path, namespace, claims"),
        ({"name": "x", "path": ["/a"], "namespace": "web"}, "mutually exclusive"),
        ({"name": "x", "path": ["/a"], "pvc": ["data"], "namespace": "web"}, "mutually exclusive"),
        ({"name": "x", "pvc": ["data"]}, "one of the following is required: path, namespace, claims"),
        ({"name": "x", "namespace": "web", "pvc": ["data"], "selector": "a=b"}, "mutually exclusive"),
        ({"path": ["/a"]}, "state is present but all of the following are missing: name"),
        ({"path": ["/a"], "state": "rolled_back"}, "all of the following are missing: name"),
        ({"path": ["/a"], "state": "cloned", "name": "x"}, "all of the following are missing: clone"),
        ({"path": ["/a"], "state": "pruned"}, "any of the following are missing: keep, asides"),
        ({"path": ["/a"], "state": "gone", "name": "x"}, "value of state must be one of"),
        ({"path": ["/a"], "name": "x", "state": "pruned", "keep": {"sometimes": 1}}, "sometimes"),
        ({"path": ["a"], "name": "x"}, "Cannot use 'a' as a target: it is relative"),
        ({"path": [], "name": "x"}, "path is empty"),
        ({"path": ["/a"], "name": "x", "bandwidth_limit": "fast"}, "it is not a size"),
        ({"path": ["/a"], "name": "x", "bandwidth_limit": "0"}, "nothing could ever be copied"),
        ({"path": ["/a"], "name": "x", "lock_timeout": -1}, "it is negative"),
        ({"path": ["/a"], "name": "x", "max_age": "10"}, "it is not a duration"),
        ({"path": ["/a"], "name": "x", "owner": "A"}, "as an owner"),
        ({"path": ["/a"], "state": "pruned", "keep": {"last": -2}}, "it is not a number that can be used here"),
        ({"path": ["/a"], "state": "pruned", "keep": {"last": 1}, "timezone": "Mars/Base"}, "time zone"),
        ({"path": ["/a", "/b"], "state": "cloned", "name": "x", "clone": ["/c"]}, "as many paths as there are targets"),
        ({"path": ["/a", "/b"], "state": "cloned", "name": "x", "clone": ["/c", "/c"]}, "different places for clones"),
    ],
)
def test_what_cannot_be_meant_is_an_error_and_touches_nothing(place, options, words):
    result = call(place, **options)
    assert result["failed"]
    assert words in result["msg"]
    assert os.listdir(place) == ["target"]


def test_a_target_that_is_named_twice_is_one(place):
    twice = [str(place / "target"), f"{place}/./target/"]
    assert [each["target"] for each in call(place, path=twice, name="x")["results"]] == [str(place / "target")]


def test_check_mode_makes_no_store(place):
    result = call(place, path=[str(place / "target")], name="x", check_mode=True)
    assert (result["changed"], os.listdir(place)) == (True, ["target"])


def test_a_second_run_changes_nothing(place):
    asked = {"path": [str(place / "target")], "name": "x", "labels": {"a": 1}, "description": "d"}
    assert [call(place, **asked)["changed"] for _unused in range(2)] == [True, False]


def test_the_options_reach_the_copy(place):
    (place / "target" / "x.log").write_text("x")
    result = call(place, path=[str(place / "target")], name="x", exclude=["*.log"], checksum=True, owner="nightly")
    (made,) = result["results"]
    assert made["files"] == 1
    extra = made["snapshot"]["extra"]
    assert (extra["exclude"], extra["checksum"], made["snapshot"]["owner"]) == (["*.log"], "sha256", "nightly")


def test_claims_become_directories_and_are_written_down(place, monkeypatch):
    asked = []

    def resolve(client, *question):
        asked.append(question)
        return [ClaimVolume("web", "data", "pv-1", str(place / "target"), ("node1",), "local", "uid-1")]

    monkeypatch.setattr(bridge, "resolve_claims", resolve)
    monkeypatch.setattr(bridge, "KubeClient", lambda options: None)
    result = call(place, namespace="web", pvc=["data"], node_name="node1", name="x")
    (made,) = result["results"]
    extra = made["snapshot"]["extra"]
    assert {key: extra[key] for key in ("namespace", "pvc", "pv", "node")} == {
        "namespace": "web", "pvc": "data", "pv": "pv-1", "node": "node1",
    }  # fmt: skip
    assert asked == [("web", ["data"], None, "node1")]


def test_info_without_targets_shows_the_whole_store(place):
    call(place, path=[str(place / "target")], name="x")
    shown = call(place, hostpath_snapshot_info)
    assert [each["name"] for each in shown["snapshots"]] == ["x"]
    assert not shown["changed"]


def given(place, name="data", **more):
    return {"namespace": "shop-a", "pvc": name, "pv": f"pv-{name}", "path": str(place / "target"), "node": "n1", **more}


def test_claims_that_are_known_already_need_no_api(place, monkeypatch):
    monkeypatch.setattr(bridge, "KubeClient", lambda options: pytest.fail("the API was asked"))
    result = call(place, claims=[given(place, nodes=["n1"], kind="local", uid="u", storage_class="")], name="x")
    (made,) = result["results"]
    extra = made["snapshot"]["extra"]
    assert {key: extra[key] for key in ("namespace", "pvc", "pv", "node")} == {
        "namespace": "shop-a", "pvc": "data", "pv": "pv-data", "node": "n1",
    }  # fmt: skip
    shown = call(place, hostpath_snapshot_info, claims=[given(place)])
    assert [each["name"] for each in shown["snapshots"]] == ["x"]


def test_a_host_without_claims_has_nothing_to_do(place):
    result = call(place, claims=[], name="x")
    assert (result["changed"], result["results"], os.listdir(place)) == (False, [], ["target"])
    call(place, path=[str(place / "target")], name="x")
    shown = call(place, hostpath_snapshot_info, claims=[])
    assert (shown["snapshots"], shown["tree"]) == ([], {})


@pytest.mark.parametrize("other", [{"path": ["/a"]}, {"namespace": "web"}])
def test_claims_and_another_way_to_name_targets_cannot_both_be_meant(place, other):
    assert "mutually exclusive" in call(place, claims=[given(place)], name="x", **other)["msg"]


@pytest.mark.parametrize(
    ("nodes", "outcome"),
    [(["node1"], ["created"]), (["node2"], []), (["node2", "node1"], ["created"])],
)
def test_each_node_takes_its_own_when_others_are_skipped(place, monkeypatch, nodes, outcome):
    def resolve(client, namespace, names, selector, node):
        assert node is None
        return [ClaimVolume("web", "data", "pv-1", str(place / "target"), tuple(nodes), "local", "uid-1")]

    monkeypatch.setattr(bridge, "resolve_claims", resolve)
    monkeypatch.setattr(bridge, "KubeClient", lambda options: None)
    result = call(place, namespace="web", node_name="node1", other_nodes="skip", name="x")
    assert [each["action"] for each in result["results"]] == outcome


def test_a_claim_that_names_no_node_is_nobody_s_own(place, monkeypatch):
    def resolve(*_unused):
        return [ClaimVolume("web", "data", "pv-1", str(place / "target"), (), "hostPath", "uid-1")]

    monkeypatch.setattr(bridge, "resolve_claims", resolve)
    monkeypatch.setattr(bridge, "KubeClient", lambda options: None)
    result = call(place, namespace="web", node_name="node1", other_nodes="skip", name="x")
    assert "the volumes of web/data name no node" in result["msg"]
    assert os.listdir(place) == ["target"]


@pytest.mark.parametrize("options", [{"fields": ["name", "owner"]}, {"fields": []}, {}])
def test_info_shows_the_fields_that_it_is_asked_for_or_else_all(place, options):
    call(place, path=[str(place / "target")], name="x", ignore_users=True)
    (shown,) = call(place, hostpath_snapshot_info, **options)["snapshots"]
    assert set(shown) == set(options.get("fields") or bridge.INFO_SPEC["fields"]["choices"])
    assert (shown["name"], shown["owner"]) == ("x", "manual")
