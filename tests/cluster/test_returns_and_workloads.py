# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Returns that are killed right after they have stopped a workload: whatever is done next brings it back."""

from __future__ import annotations

import pytest

BACK = {"name": "one", "state": "rolled_back", "stop_workloads": True}


@pytest.fixture
def killed(cluster, namespace, proxy):
    """A Deployment of 2 replicas whose claim was to be returned, by a run that was killed when it had stopped it."""
    for claim in ("data", "more"):
        cluster.claim(namespace, claim, {"a": "old"})
    cluster.call("csi_snapshot", namespace=namespace, pvc=["data", "more"], name="one")
    with cluster.node(namespace):
        web = cluster.deployment(namespace, "web", "data", replicas=2)
        cluster.api.wait(web, lambda found: found and found["status"].get("readyReplicas") == 2)
        cluster.write(namespace, "data", {"a": "new"})

        def stopped():  # a patch that meets the controller's own is refused, and comes again
            return cluster.api.get(web)["spec"]["replicas"] == 0

        assert cluster.dies(
            proxy, "csi_snapshot", at=1, after=True, verb="PATCH", path="deployments/web", when=stopped,
            namespace=namespace, pvc=["data"], **BACK,
        )  # fmt: skip
        assert stopped()
        yield web


def up(cluster, web):
    return cluster.api.wait(web, lambda found: found and found["status"].get("readyReplicas") == 2)


def test_the_same_call_again_returns_the_claim_and_brings_the_workload_back(cluster, namespace, killed):
    result = cluster.call("csi_snapshot", namespace=namespace, pvc=["data"], **BACK)
    assert [each["had"] for each in result["workloads"]] == [{"replicas": 2}]
    assert cluster.read(namespace, "data") == {"a": "old"}
    assert up(cluster, killed)["metadata"]["labels"] == {"app": "web"}


def test_calling_it_off_brings_the_workload_back_and_leaves_the_claim_as_it_was(cluster, namespace, killed):
    result = cluster.call("csi_snapshot", namespace=namespace, pvc=["data"], state="rolled_back", call_off=True)
    assert [each["outcome"] for each in result["workloads"]] == ["started again"]
    assert cluster.read(namespace, "data") == {"a": "new"}
    assert up(cluster, killed)["metadata"]["labels"] == {"app": "web"}


def test_a_call_for_more_claims_takes_over_what_was_stopped_for_the_unfinished_return(cluster, namespace, killed):
    result = cluster.call("csi_snapshot", namespace=namespace, pvc=["more", "data"], **BACK)
    assert [(each["had"], each["outcome"]) for each in result["workloads"]] == [({"replicas": 2}, "started again")]
    assert cluster.read(namespace, "data") == {"a": "old"}
    up(cluster, killed)
