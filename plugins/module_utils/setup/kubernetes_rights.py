# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which rights the agent needs in a cluster for claims that it snapshots: rules for RBAC, and no verb more. Pure.

A test holds these against what the csi backend asks for, and tests/cluster proves each verb to be needed. Called by
kubernetes_objects beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..kube_resources import (
    CLAIMS,
    CONTENTS,
    CRON_JOBS,
    EVENTS,
    GROUP_SNAPSHOT_CLASSES,
    GROUP_SNAPSHOTS,
    JOBS,
    PODS,
    SNAPSHOT_CLASSES,
    SNAPSHOTS,
    VOLUMES,
    Resource,
)

Rule = dict[str, Any]


@dataclass(frozen=True)
class Needs:
    """What snapshots are taken of, and how.

    Args:
        namespaces: where the claims are; none means all of the cluster.
        group: claims are taken together, by a VolumeGroupSnapshot.
        contents: the deletion policy of contents is set.
        annotations: annotations of pods and claims are looked at, and faults in them told as events.
    """

    namespaces: tuple[str, ...]
    group: bool = False
    contents: bool = False
    annotations: bool = False

    @property
    def inside(self) -> list[Rule]:
        """What is needed in each namespace."""
        rules = [
            _rule(CLAIMS, "list", *(["patch"] if self.group else [])),
            _rule(SNAPSHOTS, "list", "watch", "create", "delete", *(["patch"] if self.group else [])),
        ]
        if self.group:
            rules[1] = _rule(SNAPSHOTS, "list", "watch", "delete", "patch")
            rules.append(_rule(GROUP_SNAPSHOTS, "list", "watch", "create", "delete"))
        if self.annotations:
            rules += [_rule(PODS, "list"), _rule(EVENTS, "create", "get", "patch")]
        return rules

    @property
    def cluster(self) -> list[Rule]:
        """What is needed of kinds that lie in no namespace: volumes tell the driver, classes how it takes snapshots."""
        rules = [_rule(VOLUMES, "list"), _rule(SNAPSHOT_CLASSES, "list")]
        if self.group:
            rules.append(_rule(GROUP_SNAPSHOT_CLASSES, "list"))
        if self.contents:
            rules.append(_rule(CONTENTS, "list", "patch"))
        return rules if self.namespaces else [*rules, *self.inside]

    @property
    def reading(self) -> tuple[list[Rule], list[Rule]]:
        """What is needed to see what there is: in each namespace, and of kinds that lie in none."""
        inside = [_rule(CLAIMS, "list"), _rule(SNAPSHOTS, "list")]
        return inside, [_rule(VOLUMES, "list"), *([_rule(CONTENTS, "list")] if self.contents else [])]


def _rule(resource: Resource, *verbs: str) -> Rule:
    return {"apiGroups": [resource.group], "resources": [resource.plural], "verbs": list(verbs)}


#: What is needed in the namespace of the jobs to see what became of them.
JOBS_READING = (_rule(CRON_JOBS, "list"), _rule(JOBS, "list"))


def together(needs: Sequence[Needs]) -> Needs:
    """Return what several together need; all of them have namespaces."""
    return Needs(
        tuple(sorted({name for each in needs for name in each.namespaces})),
        any(each.group for each in needs),
        any(each.contents for each in needs),
    )
