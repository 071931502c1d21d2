# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A user with the rights that docs/csi.md lists, and no others, can do all that it tells of."""

from __future__ import annotations

import importlib
import re
import time
from typing import Any

import pytest

from ansible_collections.restorepoint.core.tests.cluster.lab import CHECKOUT, RBAC, Failed

CLUSTER_SCOPED = (
    *("persistentvolumes", "volumesnapshotclasses", "volumesnapshotcontents", "storageclasses"),
    *("volumegroupsnapshotclasses", "volumegroupsnapshotcontents"),
)


#: Options of calls that change something.
CALLS: dict[str, dict[str, Any]] = {
    "group": {"name": "more", "group": True, "deletion_policy": "Delete"},
    "absent": {"name": "one", "state": "absent"},
    "pruned": {"state": "pruned", "keep": {"last": 1}, "min_age": "1s", "asides": {"last": 0}, "match": ["*"]},
    "cloned": {"name": "one", "state": "cloned", "clone": ["copy"]},
    "rolled_back": {"name": "one", "state": "rolled_back", "stop_workloads": True},
}
RIGHT = re.compile(r"this login may not (\w+) on ([\w.]+)")


class Rights:
    """A user whose rights change: everything that he may do stands in two rules of RBAC."""

    def __init__(self, cluster, namespace):
        self.cluster, self.namespace = cluster, namespace
        self.user = cluster.user(namespace, [], [])
        self.kubeconfig = self.user.kubeconfig
        self._given = set()
        self._paths = [f"{RBAC}/namespaces/{namespace}/roles/{self.user.name}", f"{RBAC}/clusterroles/{self.user.name}"]

    def set(self, rights):
        """Give these rights, (verb, resource with its group), and no others; return when the API server does so."""
        for path, whole in zip(self._paths, (False, True)):
            mine = [each for each in rights if (each[1].partition(".")[0] in CLUSTER_SCOPED) == whole]
            rules = [
                {"apiGroups": [what.partition(".")[2]], "resources": [what.partition(".")[0]], "verbs": [verb]}
                for verb, what in sorted(mine)
            ]
            self.cluster.api.patch(path, {"rules": rules})
        for each in rights ^ self._given:
            self.cluster.until(lambda each=each: self._may(*each) == (each in rights), f"{each} is given or taken")
        self._given = set(rights)

    def _may(self, verb, what):
        plural, _dot, group = what.partition(".")
        return self.user.may(verb, group, plural, None if plural in CLUSTER_SCOPED else self.namespace)


def denied(cluster, **given):
    """Return the rights that a call in check mode says it lacks; none where it would end well."""
    try:
        cluster.call("csi_snapshot", check_mode=True, **given)
    except Failed as failed:
        found = set(RIGHT.findall(failed.result["msg"]))
        if found:
            return found
        raise
    return set()


@pytest.mark.parametrize("call", CALLS)
def test_each_right_that_a_call_needs_is_named_when_it_alone_lacks(cluster, namespace, call):
    """A right that may lack without a word is not needed by this call: it ends well without all of these."""
    cluster.claim(namespace, "data")
    for name in ("one", "two"):
        cluster.snapshot(namespace, "data", name)
        time.sleep(2.1)  # so that each has an age of its own, and none is younger than min_age
    rights = Rights(cluster, namespace)
    given = {"namespace": namespace, "pvc": ["data"], "kubeconfig": rights.kubeconfig, **CALLS[call]}
    needed = denied(cluster, **given)  # with no right at all, all that lack are told at once
    assert len(needed) >= 4
    spare = set()
    for lacking in sorted(needed):
        rights.set(needed - {lacking})
        told = denied(cluster, **given)
        assert told in (set(), {lacking})
        spare |= {lacking} - told
    assert len(spare) < len(needed) / 2
    rights.set(needed - spare)
    cluster.call("csi_snapshot", **given)


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
