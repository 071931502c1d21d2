# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent on claims of a small Kubernetes API: CSI volumes, and hostPath volumes that lie on this host.

Commands run in this process, log in by a kubeconfig in JSON, and speak HTTPS with the standard library.
"""

from __future__ import annotations

import io
import json
import signal
import time

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.agent import cli
from ansible_collections.restorepoint.core.tests import signals
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_cluster import FakeCluster
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_csi import (
    Csi,
    snapshot_class,
    volume_of,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_kube import (
    claim,
    on_node,
    volume,
)

signals.as_usual()


class Here:
    """The agent with one policy, ``shop``, and the API that it speaks to. Each command comes a minute later."""

    def __init__(self, folder, server):
        self.folder, self.server = folder, server
        self.now = int(time.time())
        (folder / "kubeconfig").write_text(json.dumps(server.kubeconfig()))
        self.target = {"backend": "csi", "namespace": "shop", "timeout": 60, "kubeconfig": str(folder / "kubeconfig")}
        self.keys = {"keep": {"last": 1}}

    def add(self, *names, namespace="shop", **labels):
        for name in names:
            item = claim(name, namespace, labels, storageClassName="csi", volumeName=f"pv-{namespace}-{name}")
            self.server.put(volume_of(item, item["spec"]["volumeName"]))
            self.server.put(item)

    def call(self, *argv):
        policy = {"name": "shop", "targets": [self.target], **self.keys}
        (self.folder / "policies.json").write_text(json.dumps({"policies": [policy]}))
        out = io.StringIO()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        options = ["--policies", str(self.folder / "policies.json"), "--state", str(self.folder / "state")]
        self.now += 60
        try:
            return cli.main([*options, *argv], out, lambda: self.now), out.getvalue()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def json(self, *argv):
        code, text = self.call(*argv, "--json")
        assert code == 0, text
        return json.loads(text)

    @property
    def snapshots(self):
        """The VolumeSnapshots that are there, as namespace/claim."""
        return sorted(
            f"{each['metadata']['namespace']}/{each['spec']['source']['persistentVolumeClaimName']}"
            for each in self.server.all("volumesnapshots")
        )


@pytest.fixture
def here(tmp_path, certificate):
    with FakeCluster(certificate, Csi()) as server:
        server.put(snapshot_class())
        found = Here(tmp_path, server)
        found.add("db", "uploads", app="shop")
        found.add("cache", app="other")
        found.add("db", namespace="prod")
        yield found


def test_a_policy_that_names_a_namespace_takes_every_claim_in_it_and_prunes(here):
    first = here.json("run", "shop")
    assert (first["outcome"], first["done"]) == ("done", {"created": 3})
    assert first["targets"] == ["csi:shop/cache", "csi:shop/db", "csi:shop/uploads"]
    assert here.snapshots == ["shop/cache", "shop/db", "shop/uploads"]
    second = here.json("run", "shop")
    assert second["done"] == {"created": 3, "removed": 3}
    assert {each["name"] for each in here.json("list")} == {second["name"]}
    assert here.call("verify", "shop")[0] == 0


def test_a_claim_that_is_new_is_taken_by_the_next_run(here):
    here.json("run", "shop")
    here.add("new")
    assert here.json("run", "shop")["done"]["created"] == 4


def test_snapshots_of_a_claim_that_is_gone_stay_under_the_keep_rules(here):
    here.json("run", "shop")
    gone = here.server.find("persistentvolumeclaims", "cache", "shop")
    here.server.change(gone, {"metadata": {"finalizers": []}})
    here.server.remove(gone)
    assert here.json("run", "shop")["done"] == {"created": 2, "removed": 2}
    assert here.snapshots == ["shop/cache", "shop/db", "shop/uploads"]


def test_a_claim_that_is_not_bound_is_left_out_with_a_warning(here, capsys):
    pending = claim("waiting", "shop", storageClassName="csi", volumeName=None)
    here.server.put({**pending, "status": {"phase": "Pending"}})
    assert here.json("run", "shop")["done"] == {"created": 3}
    assert "claim shop/waiting is left out: it is not bound" in capsys.readouterr().err


def test_a_namespace_without_claims_is_a_failure(here):
    here.target["namespace"] = ["shop", "empty"]
    code, text = here.call("run", "shop")
    assert code == 1
    assert "find claims in namespace 'empty'" in text
    assert here.snapshots == []


def test_a_claim_in_the_namespace_that_cannot_be_taken_blocks_the_run(here):
    here.server.put(claim("local", "shop", volumeName="pv-local"))
    here.server.put(volume(claim("local", "shop")) | {"metadata": {"name": "pv-local"}})
    code, text = here.call("run", "shop")
    assert code == 3
    assert "csi:shop/local: its volume pv-local is not of a CSI driver" in text
    assert here.snapshots == []


@pytest.mark.parametrize(
    ("target", "taken"),
    [
        ({"pvc": ["db"]}, ["shop/db"]),
        ({"selector": "app=shop"}, ["shop/db", "shop/uploads"]),
        ({"namespace": ["shop", "prod"], "pvc": ["db"]}, ["prod/db", "shop/db"]),
        ({"namespace": ["prod", "shop"]}, ["prod/db", "shop/cache", "shop/db", "shop/uploads"]),
    ],
)
def test_claims_are_meant_by_names_selectors_and_namespaces(here, target, taken):
    here.target.update(target)
    record = here.json("run", "shop")
    assert here.snapshots == taken
    assert sorted(record["targets"]) == [f"csi:{each}" for each in taken]
    here.json("run", "shop")
    assert here.snapshots == taken


def test_where_one_namespace_fails_the_other_is_taken_back(here):
    here.target.update(namespace=["prod", "shop"], pvc=["db"])
    here.server.remove(here.server.find("volumesnapshotclasses", "csi"))
    code, text = here.call("run", "shop")
    assert code == 3
    assert "csi:prod/db" in text
    assert "csi:shop/db" in text
    assert here.snapshots == []


def test_a_right_that_is_missing_is_named_and_nothing_is_touched(here):
    here.server.forbidden.add(("create", "volumesnapshots"))
    code, text = here.call("run", "shop")
    assert code == 3
    assert "create on volumesnapshots.snapshot.storage.k8s.io in namespace shop" in text
    assert here.snapshots == []


def test_what_was_taken_by_hand_stays(here):
    here.json("create", "shop", "--name", "pre-upgrade")
    for _unused in range(2):
        here.json("run", "shop")
    assert sum(each["name"] == "pre-upgrade" for each in here.json("list")) == 3


def test_one_claim_of_several_namespaces_can_be_named_for_a_return(here):
    here.target.update(namespace=["prod", "shop"])
    name = here.json("run", "shop")["name"]
    code, text = here.call("rollback", "shop", name, "--yes", "--target", "csi:shop/nothing")
    assert code == 3
    assert "csi:shop/nothing" in text
    code, text = here.call("rollback", "shop", name, "--yes", "--target", "elsewhere/db")
    assert code == 2
    # What stands in the way is told of the claim that was named, and of no other.
    here.server.forbidden.add(("patch", "persistentvolumes"))
    code, text = here.call("rollback", "shop", name, "--yes", "--target", "shop/db")
    assert code == 3
    assert "csi:shop/db: this login may not patch on persistentvolumes" in text
    assert "prod/db" not in text


# -- directories -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path, certificate):
    """Claims on hostPath volumes: two on this node, one on another."""
    with FakeCluster(certificate) as server:
        found = Here(tmp_path, server)
        for name, node in (("data", "node-1"), ("logs", "node-1"), ("far", "node-2")):
            (tmp_path / name).mkdir()
            (tmp_path / name / "file").write_text(name)
            item = claim(name, "shop", {"node": node})
            server.put(item)
            server.put(
                volume(item, hostPath={"path": str(tmp_path / name), "type": "Directory"}, nodeAffinity=on_node(node))
            )
        found.target = {
            "backend": "hostpath",
            "namespace": "shop",
            "store": str(tmp_path / "store"),
            "node_name": "node-1",
            "kubeconfig": str(tmp_path / "kubeconfig"),
        }
        yield found


def test_claims_on_directories_of_this_node_are_taken_and_those_of_others_skipped_on_request(folders):
    code, text = folders.call("run", "shop")
    assert code == 1
    assert "lies on node node-2" in text
    folders.target["other_nodes"] = "skip"
    record = folders.json("run", "shop")
    assert record["targets"] == [f"hostpath:{folders.folder}/{name}" for name in ("data", "logs")]
    assert len(folders.json("list")) == 2


def test_the_node_is_known_from_the_environment_as_a_pod_is_told_it(folders, monkeypatch):
    folders.target.update(node_name=None, selector="node=node-2")
    monkeypatch.setenv("NODE_NAME", "node-2")
    assert folders.json("run", "shop")["done"] == {"created": 1}


def test_a_node_without_claims_is_a_failure_and_not_the_whole_store(folders):
    folders.target.update(other_nodes="skip")
    folders.json("run", "shop")
    folders.target.update(node_name="node-3")
    code, text = folders.call("run", "shop")
    assert code == 1
    assert "find claims of shop on node node-3: there are none" in text
    assert folders.call("list")[0] == 2
