# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rights that docs/csi.md lists are those that the code asks for."""

from __future__ import annotations

import itertools
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import yaml

from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi import preflight, returns
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.options import CsiOptions
from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import Desired
from ansible_collections.restorepoint.core.plugins.module_utils.kube import Access

GUIDE = pathlib.Path(__file__).parents[6] / "docs" / "csi.md"


def listed() -> set[tuple[bool, str, str, str]]:
    """Return (in a namespace, group, plural, verb) of each right in the guide."""
    block = re.search(r"```yaml\n(role:\n.*?)```", GUIDE.read_text(), re.DOTALL)
    assert block is not None
    told: dict[str, list[dict[str, Any]]] = yaml.safe_load(block[1])
    return {
        (part == "role", group, plural, verb)
        for part, rules in told.items()
        for rule in rules
        for group, plural, verb in itertools.product(rule["apiGroups"], rule["resources"], rule["verbs"])
    }


def asked_for() -> Iterator[Access]:
    """Yield each right that any call looks up before it begins."""
    switches = itertools.product([None, "Delete"], [False, True], [None, "handle"], [False, True], [False, True])
    for policy, group, handle, stops, asides in switches:
        options = CsiOptions(deletion_policy=policy, group=group, import_handle=handle, stop_workloads=stops)
        for state in ("present", "absent", "rolled_back", "cloned", "pruned"):
            desired = Desired(state, "one")
            yield from preflight.wanted_access("shop", desired, options, asides)
            if state == "rolled_back":
                yield from returns.wanted_access("shop", desired, options)


def test_every_right_that_is_looked_up_is_in_the_guide():
    wanted = {
        (each.namespace is not None, each.resource.group, each.resource.plural, each.verb) for each in asked_for()
    }
    assert wanted
    assert wanted - listed() == set()


def test_the_guide_asks_for_nothing_beyond_what_is_looked_up_and_what_explanations_and_waiting_use():
    wanted = {
        (each.namespace is not None, each.resource.group, each.resource.plural, each.verb) for each in asked_for()
    }
    snapshots, groups = "snapshot.storage.k8s.io", "groupsnapshot.storage.k8s.io"
    beside = {
        *((True, "apps", each, "watch") for each in ("deployments", "statefulsets", "daemonsets", "replicasets")),
        (True, "", "replicationcontrollers", "watch"),
        (True, "batch", "cronjobs", "watch"),
        (True, "", "events", "list"),
        (True, snapshots, "volumesnapshots", "get"),
        (True, groups, "volumegroupsnapshots", "get"),
        (False, snapshots, "volumesnapshotcontents", "get"),
        (False, groups, "volumegroupsnapshotcontents", "get"),
        (False, "storage.k8s.io", "storageclasses", "get"),
    }
    assert listed() - wanted == beside
