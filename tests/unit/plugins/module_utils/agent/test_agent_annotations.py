# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command annotations, on a small Kubernetes API: what it takes and removes, and what it tells by events."""

from __future__ import annotations

import io
import json
import signal

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.agent import cli, state
from ansible_collections.restorepoint.core.plugins.module_utils.core.annotations import FREQUENCY, RETENTION
from ansible_collections.restorepoint.core.plugins.module_utils.lock import FileLock
from ansible_collections.restorepoint.core.tests import signals
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_cluster import FakeCluster
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_csi import (
    Csi,
    snapshot_class,
    volume_of,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_kube import claim

signals.as_usual()
HOUR = 3600


class Shop:
    """The agent, and the API that it speaks to."""

    def __init__(self, folder, server, csi):
        self.folder, self.server, self.csi = folder, server, csi
        self.now = 1_795_694_430.0  # 2026-11-26 12:00:30 UTC, for the agent and for the server
        server.clock = lambda: self.now
        (folder / "kubeconfig").write_text(json.dumps(server.kubeconfig()))

    def add(self, name, frequency=None, retention=None, namespace="shop"):
        annotations = {FREQUENCY: frequency, RETENTION: retention}
        item = claim(name, namespace, storageClassName="csi", volumeName=f"pv-{namespace}-{name}")
        item["metadata"]["annotations"] = {key: value for key, value in annotations.items() if value is not None}
        self.server.put(volume_of(item, item["spec"]["volumeName"]))
        self.server.put(item)

    def call(self, *argv):
        """Run the command; return its exit code and what it printed."""
        out = io.StringIO()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        given = ["--state", str(self.folder / "state"), "annotations", "--kubeconfig", str(self.folder / "kubeconfig")]
        try:
            return cli.main([*given, "--timeout", "10", *argv], out, lambda: self.now), out.getvalue()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def record(self, *argv):
        code, text = self.call("--json", *argv)
        return code, json.loads(text)

    @property
    def taken(self):
        """The claims of which there are snapshots, each as often as there is one."""
        return sorted(
            f"{each['metadata']['namespace']}/{each['spec']['source']['persistentVolumeClaimName']}"
            for each in self.server.all("volumesnapshots")
        )

    @property
    def events(self):
        return self.server.all("events")


@pytest.fixture
def shop(tmp_path, certificate):
    csi = Csi()
    with FakeCluster(certificate, csi) as server:
        server.put(snapshot_class())
        yield Shop(tmp_path, server, csi)


def test_what_is_due_is_taken_once_and_pruned_and_the_rest_left_alone(shop):
    shop.add("db", "hourly", "2")
    shop.add("uploads", "daily")
    shop.add("cache")
    shop.add("other", "daily", "1", namespace="other")
    code, record = shop.record()
    assert (code, record["outcome"], record["done"]) == (0, "done", {"created": 3})
    assert shop.taken == ["other/other", "shop/db", "shop/uploads"]
    assert shop.record()[1]["done"] == {}
    for _unused in range(3):
        shop.now += HOUR
        assert shop.record("--namespace", "shop")[0] == 0
        assert shop.record("--namespace", "shop")[1]["done"] == {}
        assert shop.taken == ["other/other", "shop/db", "shop/db", "shop/uploads"]
    assert [each["command"] for each in state.State(str(shop.folder / "state")).records()] == ["annotations"] * 8


def test_a_dry_run_says_what_is_asked_for_and_touches_nothing(shop):
    shop.add("db", "hourly", "2")
    shop.add("bad", "often")
    assert shop.call("--dry-run") == (0, "shop/db hourly, 2 kept, due\n")
    assert shop.taken == []
    assert shop.events == []


def test_a_pod_asks_for_its_claims(shop):
    shop.add("data")
    shop.server.put({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "database", "namespace": "shop", "annotations": {FREQUENCY: "hourly", RETENTION: "24"}},
        "spec": {"containers": [], "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]},
    })  # fmt: skip
    assert shop.record()[1]["done"] == {"created": 1}
    assert shop.taken == ["shop/data"]


def test_a_bad_value_becomes_one_event_on_its_object_that_is_counted_up(shop):
    shop.add("db", "often", "2")
    shop.add("good", "daily")
    for count in (1, 2, 3):
        code, record = shop.record()
        assert code == 0
        (event,) = shop.events
        assert event["count"] == count
    assert "frequency is 'often'" in record["warnings"][0]
    assert event["involvedObject"]["kind"] == "PersistentVolumeClaim"
    assert event["involvedObject"]["name"] == "db"
    assert (event["reason"], event["type"]) == ("InvalidSnapshotAnnotation", "Warning")
    assert shop.taken == ["shop/good"]


def test_where_events_may_not_be_made_the_rest_is_done_all_the_same(shop, capsys):
    shop.add("db", "often")
    shop.add("good", "daily")
    shop.server.forbidden.add(("create", "events"))
    assert shop.record()[0] == 0
    assert "allow create on events in namespace shop" in capsys.readouterr().err
    assert shop.taken == ["shop/good"]


def test_one_claim_that_cannot_be_taken_does_not_hold_up_the_others_and_is_a_failure(shop):
    shop.add("db", "daily", "1")
    shop.add("local", "daily", "1")
    volume = shop.server.find("persistentvolumes", "pv-shop-local")
    shop.server.change(volume, {"spec": {"csi": None, "hostPath": {"path": "/srv"}}})
    code, record = shop.record()
    assert (code, record["outcome"]) == (1, "failed")
    assert [each["target"] for each in record["failures"]] == ["shop/local"]
    assert shop.taken == ["shop/db"]
    (event,) = shop.events
    assert event["reason"] == "SnapshotFailed"
    assert "is not of a CSI driver" in event["message"]


def test_a_snapshot_that_fails_leaves_the_others_and_is_tried_again(shop):
    shop.add("db", "daily", "1")
    shop.add("uploads", "daily", "1")
    shop.csi.broken["db"] = "the storage says no"
    code, record = shop.record("--timeout", "6")  # in which the other one is ready
    assert code == 1
    assert [each["target"] for each in record["failures"]] == ["shop/db"]
    assert "the storage says no" in record["failures"][0]["reason"]
    shop.csi.broken.clear()
    assert shop.record()[0] == 0
    assert sorted(set(shop.taken)) == ["shop/db", "shop/uploads"]
    assert shop.taken.count("shop/uploads") == 1


def test_a_claim_that_is_not_bound_yet_is_waited_for(shop):
    pending = claim("new", "shop", storageClassName="csi", volumeName=None)
    pending["metadata"]["annotations"] = {FREQUENCY: "hourly"}
    shop.server.put({**pending, "status": {"phase": "Pending"}})
    assert shop.record()[1]["done"] == {}
    assert shop.events == []


def test_what_policies_and_people_took_counts_for_nothing_and_stays(shop):
    shop.add("db", "daily", "1")
    policy = {"name": "nightly", "targets": [
        {"backend": "csi", "namespace": "shop", "kubeconfig": str(shop.folder / "kubeconfig")},
    ]}  # fmt: skip
    (shop.folder / "policies.json").write_text(json.dumps({"policies": [policy]}))
    options = ["--policies", str(shop.folder / "policies.json"), "--state", str(shop.folder / "state")]
    assert cli.main([*options, "run", "nightly"], io.StringIO(), lambda: shop.now) == 0
    assert shop.record()[1]["done"] == {"created": 1}
    shop.now += 24 * HOUR
    assert shop.record()[1]["done"] == {"created": 1, "removed": 1}
    assert len(shop.taken) == 2


def test_two_runs_do_not_run_at_once(shop, capsys):
    shop.add("db", "daily")
    shop.record("--dry-run")
    with FileLock(state.State(str(shop.folder / "state")).lock("annotated", 0).path, 0, "hold it"):
        assert shop.call()[0] == 4
    assert shop.taken == []


@pytest.mark.parametrize(
    ("argv", "code"), [(["--timezone", "Mars/Base"], 2), (["--namespace", "../x"], 1), (["--kubeconfig", "/none"], 2)]
)
def test_what_cannot_be_right_is_said(shop, argv, code):
    shop.add("db", "daily")
    assert shop.call(*argv)[0] == code
    assert shop.taken == []
