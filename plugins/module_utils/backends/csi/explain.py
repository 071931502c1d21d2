# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Says why objects of CSI do not go on: looks up their events and what lies around them. Called by the csi backend.

The thin edge of reasons.py, which makes the sentences. It is asked when something has already gone wrong, so it never
raises and never waits: what cannot be looked at is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ... import kube_resources as api
from ...kube import KubeClient
from ...kube_login import KubeError
from . import objects
from .reasons import Around, concerns, newest, why
from .workloads import pods_of

Item = Mapping[str, Any]
NEW_EVENTS = api.Resource("events.k8s.io", "v1", "events", "Event")
#: Of so many objects what lies around is looked up; of the others only the events.
_MOST = 5
#: Events of objects that are in no namespace are kept in this one.
_CLUSTER_EVENTS = "default"


class Explain:
    """Explains objects of one cluster.

    Args:
        client: the login.
        now: returns seconds since the epoch.
    """

    def __init__(self, client: KubeClient, now: Callable[[], float] = time.time) -> None:
        self._client = client
        self._now = now

    def why(self, items: Sequence[Item]) -> dict[str, list[str]]:
        """Return for each object's uid why it does not go on, in sentences; items are as they were last seen."""
        events = self._events_of(items)
        found = {}
        for number, item in enumerate(items):
            uid = _uid(item)
            around = Around(events=events.get(uid, ()))
            if number < _MOST:
                around = self._around(item, around)
            found[uid] = why(item, around, self._now())
        return found

    def events(self, item: Item) -> list[str]:
        """Return the newest events of an object, in words."""
        return newest(self._events_of([item]).get(_uid(item), ()))

    # Looking

    def _events_of(self, items: Sequence[Item]) -> dict[str, list[Item]]:
        """Return events by the uid of their object; one list for each namespace."""
        wanted: dict[str, list[str]] = {}
        for item in items:
            wanted.setdefault(_namespace(item) or _CLUSTER_EVENTS, []).append(_uid(item))
        found: dict[str, list[Item]] = {}
        for namespace, uids in wanted.items():
            listed = self._listed_events(namespace, uids[0] if len(uids) == 1 else None)
            for uid in uids:
                found[uid] = [each for each in listed if concerns(each, uid)]
        return found

    def _listed_events(self, namespace: str, uid: str | None) -> Sequence[Item]:
        """Return the events of a namespace, as whichever of the two groups of events may be listed."""
        for resource, field in ((api.EVENTS, "involvedObject.uid"), (NEW_EVENTS, "regarding.uid")):
            try:
                fields = f"{field}={uid}" if uid else None
                return self._client.list_objects("look at events", resource, namespace, fields=fields).items
            except KubeError as error:
                if error.status not in (403, 404):
                    return ()
        return ()

    def _around(self, item: Item, around: Around) -> Around:
        """Look up what is needed to explain one object."""
        leaving = bool(item["metadata"].get("deletionTimestamp"))
        kind = item.get("kind")
        if kind == api.SNAPSHOTS.kind:
            around = self._with_content(around, self._content(item))
            return replace(around, restoring=self._restoring(item)) if leaving else self._with_claim(item, around)
        if kind == api.GROUP_SNAPSHOTS.kind:
            return self._with_content(around, self._group_content(item))
        if kind == api.CLAIMS.kind:
            return self._around_leaving(item, around) if leaving else self._around_pending(item, around)
        return around

    def _with_content(self, around: Around, content: Item | None) -> Around:
        """Add a content, and its events: what a driver refuses is often said there only."""
        if not content:
            return replace(around, content=content)
        uid = _uid(content)
        events = [each for each in self._listed_events(_CLUSTER_EVENTS, uid) if concerns(each, uid)]
        return replace(around, content=content, events=[*around.events, *events])

    def _with_claim(self, snapshot: Item, around: Around) -> Around:
        """Add the claim that a snapshot is taken of, where the snapshot has not come as far as a content."""
        claim = objects.claim_of(snapshot)
        if not claim or around.content:
            return around
        return replace(around, source=self._get(api.CLAIMS, _namespace(snapshot), claim))

    def _content(self, snapshot: Item) -> Item | None:
        bound = objects.status_of(snapshot).get("boundVolumeSnapshotContentName")
        source = (snapshot.get("spec") or {}).get("source") or {}
        name = bound or source.get("volumeSnapshotContentName") or f"snapcontent-{_uid(snapshot)}"
        return self._get(api.CONTENTS, None, str(name))

    def _group_content(self, group: Item) -> Item | None:
        name = objects.status_of(group).get("boundVolumeGroupSnapshotContentName")
        version = str(group.get("apiVersion")).rpartition("/")[2]
        return self._get(api.GROUP_CONTENTS.at(version), None, str(name)) if name else None

    def _around_pending(self, claim: Item, around: Around) -> Around:
        name = (claim.get("spec") or {}).get("storageClassName")
        source = objects.source_of(claim)
        return replace(
            around,
            storage_class=self._get(api.STORAGE_CLASSES, None, str(name)) if name else None,
            source=self._get(api.SNAPSHOTS, _namespace(claim), source) if source else None,
        )

    def _around_leaving(self, claim: Item, around: Around) -> Around:
        target = f"{_namespace(claim)}/{claim['metadata']['name']}"
        try:
            pods: Sequence[str] | None = pods_of(self._client, [target])[target]
        except KubeError:
            pods = None
        snapshots = self._list(api.SNAPSHOTS, _namespace(claim))
        taking = None
        if snapshots is not None:
            name = claim["metadata"]["name"]
            taking = [
                each["metadata"]["name"]
                for each in snapshots
                if objects.claim_of(each) == name and not objects.is_ready(each)
            ]
        return replace(around, pods=pods, taking=taking)

    def _restoring(self, snapshot: Item) -> Sequence[str] | None:
        claims = self._list(api.CLAIMS, _namespace(snapshot))
        if claims is None:
            return None
        name = snapshot["metadata"]["name"]
        pending = [each for each in claims if objects.status_of(each).get("phase") == "Pending"]
        return [each["metadata"]["name"] for each in pending if objects.source_of(each) == name]

    def _get(self, resource: api.Resource, namespace: str | None, name: str) -> Item | None:
        """Return an object, an empty mapping where there is none, None where it may not be looked at."""
        try:
            return self._client.get(f"look at {resource.kind} {name}", resource, namespace, name)
        except KubeError as error:
            return {} if error.status == 404 else None

    def _list(self, resource: api.Resource, namespace: str | None) -> Sequence[Item] | None:
        try:
            return self._client.list_objects(f"look at the {resource.plural}", resource, namespace).items
        except KubeError:
            return None


def _uid(item: Item) -> str:
    return str((item.get("metadata") or {}).get("uid"))


def _namespace(item: Item) -> str | None:
    found = (item.get("metadata") or {}).get("namespace")
    return str(found) if found else None
