# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is done to the objects of CSI snapshots, many at a time: create, wait, change, remove; failures are explained.

Called by the backend; speaks through the door. Nothing here waits longer than the deadline.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable

from ... import kube_resources as api
from ...core.errors import RestorePointError
from ...deadline import Deadline
from ...kube import KubeClient
from ...kube_login import KubeError
from . import objects
from .options import Report
from .watching import Waiter

if TYPE_CHECKING:
    from .explain import Explain

Item = Mapping[str, Any]
_ROLE = "the role restorepoint.core.csi_snapshots installs it"


class Operations:
    """What can be done in one namespace until a deadline.

    ``explain`` makes what explains objects that do not go on; it is called when there is one.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        deadline: Deadline,
        explain: Callable[[], Explain],
        report: Report | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.client = client
        self.namespace = namespace
        self.deadline = deadline
        self._explain = explain
        self._report = report
        self._began = deadline.left()
        self.waiter = Waiter(client, deadline, sleep)

    def target(self, claim: str) -> str:
        """Return what a claim is called in messages."""
        return f"{self.namespace}/{claim}"

    def step(self, stage: str, **facts: Any) -> None:
        """Report a step, for whoever watches a long run."""
        if self._report is not None:
            self._report(stage, facts)

    def create(self, attempt: str, resource: api.Resource, body: Item) -> Item:
        """Create an object in the namespace, or of the cluster."""
        namespace = self.namespace if resource.namespaced else None
        return self.client.create(attempt, resource, namespace, body)

    def wait_ready(self, names: Mapping[str, str]) -> dict[str, Item | RestorePointError]:
        """Wait until VolumeSnapshots are ready.

        Args:
            names: for each object's name, the snapshot in words: ``snapshot 'x' of shop/data``.

        Returns:
            For each object's name, the object, or why it did not become ready in time.
        """
        self.step("waits", snapshots=len(names))
        attempt = f"wait for {_count(names, 'snapshot')} in namespace {self.namespace!r}"
        seen = self.waiter.wait(attempt, api.SNAPSHOTS, self.namespace, dict.fromkeys(names, _ready_or_gone))
        found: dict[str, Item | RestorePointError] = {}
        why = self.why([item for item in seen.objects.values() if item is not None and not objects.is_ready(item)])
        for name, words in names.items():
            item = seen.objects[name]
            found[name] = item if item is not None and objects.is_ready(item) else self._not_ready(words, item, why)
        return found

    def _not_ready(self, words: str, item: Item | None, why: Mapping[str, Sequence[str]]) -> RestorePointError:
        if item is None:
            reason, remedy = "somebody removed it meanwhile", "find out who, and try again"
            return RestorePointError(f"take {words}", reason, remedy)
        said = objects.error_of(item)
        bound = objects.status_of(item).get("boundVolumeSnapshotContentName")
        if said:
            reason, remedy = f"the snapshot controller says: {said}", "see to that, and try again"
        elif bound:
            reason = f"its content {bound} is not ready: the driver's csi-snapshotter has not answered"
            remedy = "look at the pod of the driver's controller, or set a longer timeout"
        else:
            reason = "no snapshot controller has taken it up"
            remedy = f"see that the snapshot controller runs ({_ROLE}), or set a longer timeout"
        return RestorePointError(f"take {words} within {self._began:.0f} s", _with(reason, item, why), remedy)

    def explained(self, attempt: str, reason: str, remedy: str, item: Item | None) -> RestorePointError:
        """Return the error of something that did not become ready in time, with what its events say."""
        more = _with(reason, item, self.why([item])) if item is not None else reason
        return RestorePointError(f"{attempt} within {self._began:.0f} s", more, remedy)

    def why(self, items: Sequence[Item]) -> Mapping[str, Sequence[str]]:
        """Return for each object's uid why it does not go on."""
        return self._explain().why(items) if items else {}

    def wait_bound(self, names: Mapping[str, str]) -> dict[str, Item | RestorePointError]:
        """Wait until claims are bound. ``names`` as in wait_ready: the claim in words for each name."""
        self.step("waits", claims=len(names))
        attempt = f"wait for {_count(names, 'claim')} in namespace {self.namespace!r}"
        seen = self.waiter.wait(attempt, api.CLAIMS, self.namespace, dict.fromkeys(names, _bound_or_gone))
        why = self.why([item for item in seen.objects.values() if item is not None and not _is_bound(item)])
        found: dict[str, Item | RestorePointError] = {}
        for name, words in names.items():
            item = seen.objects[name]
            if item is not None and _is_bound(item):
                found[name] = item
                continue
            reason = "somebody removed it meanwhile"
            if item is not None:
                phase = objects.status_of(item).get("phase") or "unknown"
                reason = _with(f"it is not bound (phase {phase})", item, why)
            remedy = "see kubectl describe pvc, or set a longer timeout"
            found[name] = RestorePointError(f"make {words} within {self._began:.0f} s", reason, remedy)
        return found

    def wait_let_go(self, claims: Sequence[str]) -> Mapping[str, Item | None]:
        """Wait until no snapshot is being taken of claims, which keeps them; return the claims as last seen."""
        self.step("waits", claims=len(claims))
        attempt = f"wait until snapshots of {_count(claims, 'claim')} in namespace {self.namespace!r} are taken"
        wanted = dict.fromkeys(claims, lambda item: not objects.is_held_as_source(item))
        return self.waiter.wait(attempt, api.CLAIMS, self.namespace, wanted).objects

    def patch(self, attempt: str, resource: api.Resource, name: str, body: Item) -> Item:
        """Merge a patch into an object of the namespace, or of the cluster."""
        namespace = self.namespace if resource.namespaced else None
        return self.client.patch(attempt, resource, namespace, name, body)

    def set_policy(self, words: str, snapshot: Item, policy: str) -> None:
        """Set the deletion policy of a snapshot's content."""
        content = objects.status_of(snapshot).get("boundVolumeSnapshotContentName")
        attempt = f"set deletion_policy {policy} on {words}"
        if not content:
            raise RestorePointError(attempt, "it has no content yet", "try again when it is ready")
        self.patch(attempt, api.CONTENTS, str(content), {"spec": {"deletionPolicy": policy}})

    def remove(self, resource: api.Resource, items: Mapping[str, Item]) -> dict[str, RestorePointError | None]:
        """Remove objects and wait until they are gone.

        Args:
            items: for each object in words, the object as it was read.

        Returns:
            For each of the words, None, or why it is still there.
        """
        outcomes: dict[str, RestorePointError | None] = {}
        leaving: dict[str, tuple[str, Item]] = {}
        for words, item in items.items():
            metadata = item["metadata"]
            namespace = self.namespace if resource.namespaced else None
            try:
                left = self.client.delete(f"remove {words}", resource, namespace, metadata["name"], metadata["uid"])
            except KubeError as error:
                outcomes[words] = error
                continue
            outcomes[words] = None
            if left is not None:
                leaving[metadata["name"]] = (words, item)
        outcomes.update(self._wait_gone(resource, leaving))
        return outcomes

    def wait_gone(self, resource: api.Resource, items: Mapping[str, Item]) -> dict[str, RestorePointError | None]:
        """Wait until objects are gone that go with another one. Items and answer as in remove."""
        found: dict[str, RestorePointError | None] = dict.fromkeys(items)
        leaving = {item["metadata"]["name"]: (words, item) for words, item in items.items()}
        found.update(self._wait_gone(resource, leaving))
        return found

    def _wait_gone(
        self, resource: api.Resource, leaving: Mapping[str, tuple[str, Item]]
    ) -> dict[str, RestorePointError | None]:
        if not leaving:
            return {}
        self.step("waits", removals=len(leaving))
        namespace = self.namespace if resource.namespaced else None
        wanted = {name: _gone(item["metadata"]["uid"]) for name, (_words, item) in leaving.items()}
        attempt = f"wait until {_count(leaving, 'object')} of kind {resource.kind} are gone"
        seen = self.waiter.wait(attempt, resource, namespace, wanted)
        why = self.why([item for name, item in seen.objects.items() if item is not None and name in seen.waiting])
        outcomes: dict[str, RestorePointError | None] = {}
        for name in seen.waiting:
            words, item = leaving[name][0], seen.objects[name] or leaving[name][1]
            finalizers = ", ".join(item["metadata"].get("finalizers") or []) or "none"
            reason = _with(f"it is still there (finalizers: {finalizers})", item, why)
            remedy = f"see kubectl describe {resource.full_name} {name}: what holds it has to let go first"
            outcomes[words] = RestorePointError(f"remove {words} within {self._began:.0f} s", reason, remedy)
        return outcomes


def _with(reason: str, item: Item, why: Mapping[str, Sequence[str]]) -> str:
    """Add to a reason what else is known of an object."""
    more = [each.rstrip(".") for each in why.get(str(item["metadata"].get("uid")), ()) if each not in reason]
    return "; ".join([reason, *more])


def _ready_or_gone(item: Item | None) -> bool:
    # One that is gone or going does not come back: nothing is gained by waiting on.
    return item is None or bool(item["metadata"].get("deletionTimestamp")) or objects.is_ready(item)


def _is_bound(item: Item) -> bool:
    return objects.status_of(item).get("phase") == "Bound" and not item["metadata"].get("deletionTimestamp")


def _bound_or_gone(item: Item | None) -> bool:
    return item is None or bool(item["metadata"].get("deletionTimestamp")) or _is_bound(item)


def _gone(uid: str) -> Callable[[Item | None], bool]:
    return lambda item: item is None or item["metadata"].get("uid") != uid


def _count(things: Sequence[Any] | Mapping[str, Any], word: str) -> str:
    return f"1 {word}" if len(things) == 1 else f"{len(things)} {word}s"
