# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proves that a storage class takes snapshots and restores them, with a claim of its own that is removed again.

No pod is needed: a class that waits for the first pod is told the node by the annotation that a scheduler would write.
So nothing is written into the volumes, and their content is not compared. Called by the bridge.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from ... import kube_resources as api
from ...core.backend import Blocker
from ...core.errors import Blocked, RestorePointError
from ...kube import RUN, Access, KubeClient
from ...kube_login import KubeError
from . import objects
from .explain import Explain
from .reasons import SELECTED_NODE

Item = Mapping[str, Any]
#: What the test makes carries this label; by it a run knows what a killed one left.
LABEL, MARK = "restorepoint.core/role", "class_test"
ATTEMPT = "test snapshots"
_PAUSE = 0.5
_LATE = "WaitForFirstConsumer"
_REMEDY = "see the log of the driver's controller, and run it again"


@dataclass(frozen=True)
class Wanted:
    """What is to be tested, where, with claims of which size, and for how many seconds each step is waited for."""

    namespace: str
    storage_class: str
    snapshot_class: str | None
    size: str
    node: str | None
    timeout: float


@dataclass
class Outcome:
    """What was found and done; ``steps`` has the seconds that each took."""

    driver: str = ""
    snapshot_class: str = ""
    node: str = ""
    late: bool = False
    restored_bytes: int = 0
    steps: dict[str, float] = field(default_factory=dict)


class ClassTest:
    """One test of one class. `check` touches nothing; `run` makes, compares and removes; `remove` cleans up."""

    def __init__(
        self,
        client: KubeClient,
        wanted: Wanted,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._wanted = client, wanted
        self._explain = Explain(client)
        self._sleep, self._clock = sleep, clock
        self._base = f"restorepoint-test-{wanted.storage_class}"[:200].rstrip("-.")
        self._restored = f"{self._base}-restored"
        self.outcome = Outcome()

    # Before

    def check(self) -> list[Blocker]:
        """Find out what the test needs; raise Blocked with everything that forbids it.

        Returns what lacks: classes, and a node that knows the driver. They may be there by the time of the test.
        """
        lacking: list[Blocker] = []
        storage = self._get(api.STORAGE_CLASSES, self._wanted.storage_class, None)
        if storage is None:
            words = "the cluster has no such StorageClass"
            lacking.append(Blocker(self._target, words, "make it, or correct the name"))
        else:
            self.outcome.driver = str(storage["provisioner"])
            self.outcome.late = storage.get("volumeBindingMode") == _LATE
            lacking += self._choose_snapshot_class() + self._choose_node()
        blockers: list[Blocker] = []
        for resource, name in self._names:
            there = self._get(resource, name)
            if there is not None and (there["metadata"].get("labels") or {}).get(LABEL) != MARK:
                reason = f"there is a {resource.kind} {self._wanted.namespace}/{name}, which is not the test's"
                blockers.append(Blocker(self._target, reason, "choose another namespace"))
        blockers += self._denied()
        if blockers:
            raise Blocked(ATTEMPT, [*lacking, *blockers])
        return lacking

    @property
    def _target(self) -> str:
        return f"StorageClass {self._wanted.storage_class}"

    @property
    def _names(self) -> tuple[tuple[api.Resource, str], ...]:
        """What the test makes, in the order in which it is removed: a copy may stand on its snapshot until it goes."""
        return (api.CLAIMS, self._restored), (api.SNAPSHOTS, self._base), (api.CLAIMS, self._base)

    def _choose_snapshot_class(self) -> list[Blocker]:
        driver, asked = self.outcome.driver, self._wanted.snapshot_class
        try:
            items = self._client.list_objects("look at the snapshot classes", api.SNAPSHOT_CLASSES).items
        except KubeError as error:
            if error.status != 404:
                raise
            remedy = "set the cluster up with the role restorepoint.core.csi_snapshots"
            return [Blocker(self._target, "the cluster has no CRDs of snapshots", remedy)]
        fitting = {str(each["metadata"]["name"]): each for each in items if each.get("driver") == driver}
        defaults = [
            name
            for name, each in fitting.items()
            if objects.annotations_of(each).get(objects.DEFAULT_SNAPSHOT_CLASS) == "true"
        ]
        chosen = [asked] if asked in fitting else [] if asked else defaults or list(fitting)
        if len(chosen) == 1:
            self.outcome.snapshot_class = str(chosen[0])
            return []
        there = f"there are: {', '.join(sorted(fitting)) or 'none'}"
        if asked:
            reason = f"the driver {driver} has no VolumeSnapshotClass {asked}; {there}"
        else:
            reason = f"which VolumeSnapshotClass of the driver {driver} to take cannot be told; {there}"
        return [Blocker(self._target, reason, "name one of them, or make one")]

    def _choose_node(self) -> list[Blocker]:
        """Choose the node for a class that waits for a pod: the one asked for, or the first that knows the driver."""
        if not self.outcome.late:
            return []
        self.outcome.node = self._wanted.node or ""
        if not self.outcome.node:
            nodes = self._client.list_objects("look for a node", api.CSI_NODES).items
            known = [
                str(node["metadata"]["name"]) for node in nodes
                for each in (node.get("spec") or {}).get("drivers") or [] if each.get("name") == self.outcome.driver
            ]  # fmt: skip
            if not known:
                reason = f"it makes volumes on a pod's node, and no node knows the driver {self.outcome.driver}"
                return [Blocker(self._target, reason, "see that the driver runs on a node, or name the node")]
            self.outcome.node = sorted(known)[0]
        return []

    def _denied(self) -> list[Blocker]:
        place = self._wanted.namespace
        needed = [
            Access(verb, kind, place) for kind in (api.CLAIMS, api.SNAPSHOTS) for verb in ("get", "create", "delete")
        ]
        needed += [Access(verb, kind) for kind in (api.VOLUMES, api.CONTENTS) for verb in ("get", "patch")]
        return [
            Blocker(self._target, f"this login may not {each}", "allow it, or log in as somebody who may")
            for each in self._client.denied(needed)
        ]

    # The test

    def run(self) -> None:
        """Make a claim, take a snapshot, restore it, compare, and remove it all. Raises RestorePointError."""
        self._timed("leftovers", self.remove)
        claim = self._timed("claim", lambda: self._claim(self._base, self._wanted.size, None))
        snapshot = self._timed("snapshot", self._snapshot)
        had = objects.quantity((objects.status_of(claim).get("capacity") or {}).get("storage")) or 0
        size = max(had, objects.restore_size(snapshot) or 0)
        restored = self._timed("restore", lambda: self._claim(self._restored, str(size), self._base))
        self._compare(claim, snapshot, restored)
        self._timed("removal", self.remove)

    def _timed(self, step: str, act: Callable[[], Any]) -> Any:
        begin = self._clock()
        found = act()
        self.outcome.steps[step] = round(self._clock() - begin, 3)
        return found

    def _claim(self, name: str, size: str, snapshot: str | None) -> Item:
        spec: dict[str, Any] = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": self._wanted.storage_class,
            "resources": {"requests": {"storage": size}},
        }
        if snapshot:
            spec["dataSource"] = {"apiGroup": api.SNAPSHOT_GROUP, "kind": api.SNAPSHOTS.kind, "name": snapshot}
        notes = {SELECTED_NODE: self.outcome.node} if self.outcome.node else {}
        self._create(api.CLAIMS, name, spec, notes)
        what = f"restore the snapshot into claim {self._place(name)}" if snapshot else f"bind claim {self._place(name)}"
        return self._until(what, api.CLAIMS, name, lambda item: objects.status_of(item).get("phase") == "Bound")

    def _snapshot(self) -> Item:
        source = {"persistentVolumeClaimName": self._base}
        spec = {"volumeSnapshotClassName": self.outcome.snapshot_class, "source": source}
        self._create(api.SNAPSHOTS, self._base, spec, {})
        return self._until(
            f"take a snapshot of claim {self._place(self._base)}", api.SNAPSHOTS, self._base, objects.is_ready
        )

    def _create(self, resource: api.Resource, name: str, spec: Mapping[str, Any], notes: Mapping[str, str]) -> None:
        metadata = {
            "name": name,
            "namespace": self._wanted.namespace,
            "labels": {LABEL: MARK},
            "annotations": {RUN: self._client.run, **notes},
        }
        body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "spec": spec}
        self._client.create(f"make {resource.kind} {self._place(name)}", resource, self._wanted.namespace, body)

    def _until(self, what: str, resource: api.Resource, name: str, holds: Callable[[Item], bool]) -> Item:
        end = self._clock() + self._wanted.timeout
        while True:
            item = {"kind": resource.kind, **self._client.get(what, resource, self._wanted.namespace, name)}
            if holds(item):
                return item
            if self._clock() >= end:
                raise RestorePointError(f"{what} within {self._wanted.timeout:g} s", self._why(item), _REMEDY)
            self._sleep(_PAUSE)

    def _why(self, item: Item) -> str:
        said = self._explain.why([item]).get(str(item["metadata"]["uid"])) or [
            objects.error_of(item) or "nothing says why"
        ]
        return "; ".join(said)

    def _compare(self, claim: Item, snapshot: Item, restored: Item) -> None:
        """Raise RestorePointError where the copy is not a volume of its own, of that driver, and large enough."""
        first, second = (self._volume(each) for each in (claim, restored))
        size = objects.quantity((objects.status_of(restored).get("capacity") or {}).get("storage")) or 0
        wrong = []
        if second.get("driver") != self.outcome.driver:
            wrong.append(f"its volume is of {second.get('driver')}, not of {self.outcome.driver}")
        if first.get("volumeHandle") == second.get("volumeHandle"):
            wrong.append("it has the volume that the snapshot was taken of")
        if size < (objects.restore_size(snapshot) or 0):
            wrong.append(f"it has {size} bytes, and the snapshot {objects.restore_size(snapshot)}")
        if wrong:
            raise RestorePointError(
                f"restore a snapshot into claim {self._place(self._restored)}", "; ".join(wrong),
                "do not trust this driver with restore points; see its documentation",
            )  # fmt: skip
        self.outcome.restored_bytes = size

    def _volume(self, claim: Item) -> Mapping[str, Any]:
        name = str(claim["spec"]["volumeName"])
        found: Mapping[str, Any] = (
            self._client.get("look at a volume", api.VOLUMES, None, name)["spec"].get("csi") or {}
        )
        return found

    # Afterwards

    def remove(self) -> None:
        """Remove all that is the test's, and wait until its volumes and its snapshot are gone from the storage too."""
        for resource, name in self._names:
            item = self._get(resource, name)
            if item is not None and (item["metadata"].get("labels") or {}).get(LABEL) == MARK:
                self._remove(resource, {"kind": resource.kind, **item})

    def _remove(self, resource: api.Resource, item: Item) -> None:
        name = str(item["metadata"]["name"])
        what = f"remove {resource.kind} {self._place(name)}"
        if resource == api.CLAIMS:
            behind, named = api.VOLUMES, (item.get("spec") or {}).get("volumeName")
            policy = {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}
        else:
            behind, named = api.CONTENTS, objects.status_of(item).get("boundVolumeSnapshotContentName")
            policy = {"spec": {"deletionPolicy": "Delete"}}
        if named and self._get(behind, str(named), None) is not None:
            self._client.patch(what, behind, None, str(named), policy)  # a class that retains would leave it for ever
        self._client.delete(what, resource, self._wanted.namespace, name, str(item["metadata"]["uid"]))
        self._gone(what, resource, name, self._wanted.namespace)
        if named:
            self._gone(what, behind, str(named), None)

    def _gone(self, what: str, resource: api.Resource, name: str, namespace: str | None) -> None:
        end = self._clock() + self._wanted.timeout
        while True:
            item = self._get(resource, name, namespace)
            if item is None:
                return
            if self._clock() >= end:
                seen = {"kind": resource.kind, **item}
                reason = f"{resource.kind} {name} is still there: {self._why(seen)}"
                raise RestorePointError(f"{what} within {self._wanted.timeout:g} s", reason, _REMEDY)
            self._sleep(_PAUSE)

    def _get(self, resource: api.Resource, name: str, namespace: str | None = "") -> Item | None:
        place = self._wanted.namespace if namespace == "" else namespace
        return self._client.find(f"look at {resource.kind} {name}", resource, place, name)

    def _place(self, name: str) -> str:
        return f"{self._wanted.namespace}/{name}"


def steps_of(outcome: Outcome) -> Sequence[Mapping[str, Any]]:
    """Return the steps as a result shows them."""
    return [{"step": name, "seconds": seconds} for name, seconds in outcome.steps.items() if name != "leftovers"]
