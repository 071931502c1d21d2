# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A user with the rights that docs/csi.md lists, and no others, can do all that it tells of."""

from __future__ import annotations

import importlib
import re

from ansible_collections.restorepoint.core.tests.cluster.lab import CHECKOUT


def test_a_user_with_the_rights_of_the_guide_can_do_everything_in_it(cluster, namespace):
    block = re.search(r"```yaml\n(role:\n.*?)```", (CHECKOUT / "docs" / "csi.md").read_text(), re.DOTALL)
    assert block
    rules = importlib.import_module("yaml").safe_load(block[1])
    user = cluster.user(namespace, rules["role"], rules["cluster_role"])
    login = {"kubeconfig": user.kubeconfig, "namespace": namespace}
    cluster.claim(namespace, "data", {"a": "old"})
    with cluster.node(namespace):
        web = cluster.deployment(namespace, "web", "data", replicas=2)
        cluster.api.wait(web, lambda found: found and found["status"].get("readyReplicas") == 2)
        cluster.call("csi_snapshot", pvc=["data"], name="one", **login)
        cluster.call("csi_snapshot", pvc=["data"], name="both", group=True, deletion_policy="Delete", **login)
        cluster.call("csi_snapshot", pvc=["data"], name="one", state="cloned", clone=["copy"], **login)
        assert cluster.read(namespace, "copy") == {"a": "old"}
        cluster.write(namespace, "data", {"a": "new"})
        back = {"pvc": ["data"], "state": "rolled_back", "stop_workloads": True, **login}
        returned = cluster.call("csi_snapshot", name="one", **back)
        assert [(each["outcome"], each["ready"]) for each in returned["workloads"]] == [("started again", True)]
        assert cluster.read(namespace, "data") == {"a": "old"}
        cluster.call("csi_snapshot", undo=True, **back)
        assert cluster.read(namespace, "data") == {"a": "new"}
        assert cluster.api.get(web)["spec"]["replicas"] == 2
        cluster.call("csi_snapshot", pvc=["data"], state="pruned", keep={"last": 1}, asides={"last": 0}, **login)
        cluster.call("csi_snapshot_info", contents=True, **login)
        cluster.call("csi_snapshot", pvc=["data"], name="one", state="absent", **login)
