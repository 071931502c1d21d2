# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""hostPath and local volumes of a real cluster: found through its API, taken, damaged, returned, compared on disk."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from ansible_collections.restorepoint.core.plugins.filter.claims_by_host import claims_by_host
from ansible_collections.restorepoint.core.tests.cluster.lab import CORE, NODE, Failed, contents

READ_CLAIMS = [{"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get", "list"]}]
READ_VOLUMES = [{"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["get", "list"]}]
READ_NODES = [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}]
NUMBERS = itertools.count(1)


def on(*nodes):
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": list(nodes)}]}
    return {"required": {"nodeSelectorTerms": [term]}}


class Volumes:
    """Makes claims of a namespace that are bound to directories below a folder, and removes the volumes at the end."""

    def __init__(self, cluster, namespace, top):
        self.cluster, self.namespace, self.top = cluster, namespace, top
        self.made = []

    def add(self, name, *nodes, local=False, files=None, labels=None, namespace=None):
        """Make a claim, its volume, and its directory with files; return the directory."""
        namespace = namespace or self.namespace
        volume = f"{namespace}-{name}-{next(NUMBERS)}"
        folder = self.top / f"{namespace}-{name}-{volume}"
        folder.mkdir(parents=True)
        for path, content in (files or {"f": name}).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content)
        source = (
            {"local": {"path": str(folder)}} if local else {"hostPath": {"path": f"{folder}/", "type": "Directory"}}
        )
        common = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
        spec = {
            **common, **source, "capacity": {"storage": "1Mi"}, "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": namespace, "name": name},
            **({"nodeAffinity": on(*nodes)} if nodes else {}),
        }  # fmt: skip
        self.cluster.api.create(f"{CORE}/persistentvolumes", {"metadata": {"name": volume}, "spec": spec})
        self.made.append(volume)
        claim = {**common, "volumeName": volume, "resources": {"requests": {"storage": "1Mi"}}}
        metadata = {"name": name, "labels": labels or {}}
        self.cluster.api.create(self.cluster.claim_path(namespace), {"metadata": metadata, "spec": claim})
        self.cluster.bound(namespace, name)
        return folder

    def remove(self):
        for name in self.made:
            with contextlib.suppress(Exception):
                self.cluster.api.delete(f"{CORE}/persistentvolumes/{name}")


@pytest.fixture
def volumes(cluster, namespace, tmp_path):
    made = Volumes(cluster, namespace, tmp_path / "default-storage")
    yield made
    made.remove()


@pytest.fixture
def take(cluster, namespace, tmp_path):
    """Call hostpath_snapshot on this host, as the node of the cluster."""

    def call(**options):
        told = {"namespace": namespace, "node_name": NODE, "store": str(tmp_path / "store"), **options}
        return cluster.call("hostpath_snapshot", **{name: value for name, value in told.items() if value is not None})

    return call


def test_a_whole_namespace_is_taken_damaged_returned_and_compared(volumes, take):
    folders = [
        volumes.add("data", NODE, files={"a": "one", "sub/b": "two"}),
        volumes.add("local-disk", NODE, local=True),
        volumes.add("anywhere", labels={"app": "db"}),
    ]
    before = [contents(folder) for folder in folders]
    taken = take(name="pre-upgrade")
    assert [each["action"] for each in taken["results"]] == ["created"] * 3
    assert {each["snapshot"]["extra"]["pvc"] for each in taken["results"]} == {"data", "local-disk", "anywhere"}
    (folders[0] / "a").write_text("damaged")
    (folders[0] / "sub" / "b").unlink()
    (folders[1] / "new").write_text("later")
    (folders[2] / "f").write_text("damaged")
    assert take(name="pre-upgrade", state="rolled_back", check_mode=True)["changed"]
    assert [contents(folder) for folder in folders] != before
    assert take(name="pre-upgrade", state="rolled_back")["changed"]
    assert [contents(folder) for folder in folders] == before
    assert not take(name="pre-upgrade", state="rolled_back")["changed"]
    assert not take(name="pre-upgrade")["changed"]


def test_a_selector_and_names_choose_claims(volumes, take):
    volumes.add("web", NODE, labels={"app": "web"})
    volumes.add("db", NODE, labels={"app": "db"})
    assert [each["snapshot"]["extra"]["pvc"] for each in take(name="a", selector="app=db")["results"]] == ["db"]
    assert [each["snapshot"]["extra"]["pvc"] for each in take(name="b", pvc=["web"])["results"]] == ["web"]
    with pytest.raises(Failed, match="there is no such claim; choose one of those in the namespace: db, web"):
        take(name="c", pvc=["cache"])


def test_a_claim_of_another_node_is_refused_and_with_skip_left_to_that_node(volumes, take, tmp_path):
    here = volumes.add("here", NODE)
    volumes.add("there", "worker-9")
    with pytest.raises(Failed, match=rf"lies on node worker-9, and this is {NODE}"):
        take(name="x")
    assert not (tmp_path / "store").exists()
    assert [each["target"] for each in take(name="x", other_nodes="skip")["results"]] == [str(here)]
    elsewhere = take(name="x", other_nodes="skip", node_name="worker-8")
    assert (elsewhere["changed"], elsewhere["results"]) == (False, [])


def test_claims_that_are_no_directories_are_named_and_nothing_is_done(cluster, namespace, volumes, take, tmp_path):
    volumes.add("data", NODE)
    cluster.claim(namespace, "csi")
    with pytest.raises(Failed, match=r"is served by the CSI driver folders[.]restorepoint[.]test; use csi_snapshot"):
        take(name="x")
    assert not (tmp_path / "store").exists()


# From the control node


@pytest.fixture
def worker(cluster):
    """Another node, known by an address only."""
    name = f"worker-{next(NUMBERS)}.claims.test"
    path = f"{CORE}/nodes"
    taint = {"key": "claims.test", "effect": "NoSchedule"}  # no DaemonSet of another test comes here
    metadata = {"name": name, "labels": {"kubernetes.io/hostname": name}}
    cluster.api.create(path, {"metadata": metadata, "spec": {"taints": [taint]}})
    addresses = [{"type": "InternalIP", "address": "192.0.2.17"}]
    cluster.api.patch(f"{path}/{name}/status", {"status": {"addresses": addresses}})
    yield name
    cluster.api.delete(f"{path}/{name}")


def test_each_host_of_the_inventory_is_given_its_own_claims(cluster, namespace, volumes, take, worker):
    other = cluster.make_namespace("shop-b-with-hyphens")
    mine = volumes.add("data", NODE)
    volumes.add("data", worker, namespace=other)
    cluster.claim(namespace, "csi")
    found = cluster.call("hostpath_claims_info", namespace=[namespace, other])
    assert [(each["pvc"], each["reason"].split(" by ")[-1]) for each in found["others"]] == [
        ("csi", "the CSI driver folders.restorepoint.test")
    ]
    hostvars = {"k1": {"ansible_host": NODE}, "k2": {"ansible_host": "192.0.2.17"}, "k3": {}}
    placed = claims_by_host(found, hostvars)
    assert {host: [(each["namespace"], each["node"]) for each in own] for host, own in placed.items()} == {
        "k1": [(namespace, NODE)],
        "k2": [(other, worker)],
        "k3": [],
    }
    # On the node no API is needed any more.
    taken = take(name="x", claims=placed["k1"], namespace=None, node_name=None, login=False)
    assert [each["target"] for each in taken["results"]] == [str(mine)]
    assert take(name="x", claims=placed["k3"], namespace=None, node_name=None, login=False)["results"] == []
    cluster.remove_namespace(other)


# Who may look


def test_reading_claims_here_and_volumes_is_enough(cluster, namespace, volumes, take):
    for name in ("a", "b", "c", "d"):
        volumes.add(name, NODE)
    user = cluster.user(namespace, READ_CLAIMS, READ_VOLUMES)
    assert len(take(name="x", kubeconfig=user.kubeconfig)["results"]) == 4
    found = cluster.call("hostpath_claims_info", namespace=[namespace], kubeconfig=user.kubeconfig)
    assert (len(found["claims"]), found["nodes"]) == (4, [])
    more = cluster.user(namespace, READ_CLAIMS, [*READ_VOLUMES, *READ_NODES])
    assert cluster.call("hostpath_claims_info", namespace=[namespace], kubeconfig=more.kubeconfig)["nodes"]


@pytest.mark.parametrize(
    ("rules", "cluster_rules", "missing"),
    [
        ([], READ_VOLUMES, "get on persistentvolumeclaims"),
        (READ_CLAIMS, [], "get on persistentvolumes"),
    ],
)
def test_a_missing_right_is_named_and_nothing_is_touched(
    cluster, namespace, volumes, take, tmp_path, rules, cluster_rules, missing
):
    volumes.add("data", NODE)
    user = cluster.user(namespace, rules, cluster_rules)
    with pytest.raises(Failed, match=f"allow {missing}"):
        take(name="x", pvc=["data"], kubeconfig=user.kubeconfig)
    assert not (tmp_path / "store").exists()


def test_a_busy_server_is_asked_again(cluster, namespace, volumes, take, proxy):
    volumes.add("data", NODE)
    proxy.tell("answer", verb="GET", path="persistentvolumes", times=2, status=429, retry_after=1)
    proxy.tell("cut_before", verb="GET", path="persistentvolumeclaims", times=1)
    assert take(name="x", kubeconfig=cluster.through(proxy))["changed"]
