# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module hostpath_claims_info against a small API server over HTTPS."""

from __future__ import annotations

import pytest
import yaml

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.hostpath import CLAIMS_SPEC
from ansible_collections.restorepoint.core.plugins.modules import hostpath_claims_info
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_cluster import FakeCluster
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_kube import (
    TOKEN,
    claim,
    on_node,
    volume,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.documented import (
    differences,
    faults,
    missing,
    options,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.running import run


@pytest.fixture
def cluster(certificate):
    with FakeCluster(certificate) as fake:
        addresses = [{"type": "InternalIP", "address": "10.0.0.1"}]
        fake.put(
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}, "status": {"addresses": addresses}}
        )
        for each, changes in (
            (claim("data"), {}),
            (claim("local", labels={"app": "db"}),
             {"hostPath": None, "local": {"path": "/mnt/disk"}, "nodeAffinity": on_node("node-2")}),
            (claim("data", "shop-b", volumeName="pv-b"), {"nodeAffinity": None}),
            (claim("rbd", volumeName="pv-rbd"), {"hostPath": None, "csi": {"driver": "rbd.csi.ceph.com"}}),
        ):  # fmt: skip
            fake.put(each)
            fake.put(volume(each, **changes))
        fake.put({**claim("pending", volumeName=""), "status": {"phase": "Pending"}})
        yield fake


def ask(cluster, **given):
    login = {"host": cluster.url, "api_key": TOKEN, "ca_cert": str(cluster.certificate)}
    return run(hostpath_claims_info, **{**login, **given})


def test_every_option_is_documented_as_it_is():
    assert list(differences(CLAIMS_SPEC, options(hostpath_claims_info))) == []


def test_claims_of_several_namespaces_are_told_with_those_that_have_no_directory(cluster):
    result = ask(cluster, namespace=["shop-a", "shop-b"])
    documented = yaml.safe_load(hostpath_claims_info.RETURN)
    assert (list(faults(result, documented)), missing(result, documented)) == ([], [])
    assert [(each["namespace"], each["pvc"], each["path"], each["nodes"]) for each in result["claims"]] == [
        ("shop-a", "data", "/srv/volumes/data", ["node-1"]),
        ("shop-a", "local", "/mnt/disk", ["node-2"]),
        ("shop-b", "data", "/srv/volumes/data", []),
    ]
    assert sorted((each["pvc"], each["reason"]) for each in result["others"]) == [
        ("pending", "it has no volume yet (phase Pending, storage class hostpath)"),
        ("rbd", "its volume 'pv-rbd' is served by the CSI driver rbd.csi.ceph.com"),
    ]
    assert result["nodes"] == [{"name": "node-1", "names": ["10.0.0.1", "node-1"]}]
    assert not result["changed"]


def test_a_selector_chooses_and_a_name_that_is_not_there_is_an_error(cluster):
    assert [each["pvc"] for each in ask(cluster, namespace=["shop-a"], selector="app=db")["claims"]] == ["local"]
    result = ask(cluster, namespace=["shop-b"], pvc=["local"])
    assert "Cannot find claim shop-b/local: there is no such claim" in result["msg"]


def test_who_may_not_list_nodes_is_told_so_and_gets_the_rest(cluster):
    cluster.forbidden.add(("list", "nodes"))
    result = ask(cluster, namespace=["shop-a"], pvc=["data"])
    assert (len(result["claims"]), result["nodes"]) == (1, [])
    assert ["Nodes may not be listed" in each for each in result["warnings"]] == [True]
