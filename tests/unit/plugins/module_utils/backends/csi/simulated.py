# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A cluster without threads or network, for properties of in-place returns: the same run gives the same end each time.

It answers like the door (kube.py). Its controllers do what those of Kubernetes do with claims and volumes, in an order
that the test draws: bind, provision, release, reclaim, protect. Each volume has ``data``, and after each change it is
checked that the first data of each claim is safe. A run can be killed at any request, before or after it counts.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ansible_collections.restorepoint.core.plugins.module_utils.kube import Gone, Listing
from ansible_collections.restorepoint.core.plugins.module_utils.kube_login import KubeError
from ansible_collections.restorepoint.core.plugins.module_utils.kube_resources import CLAIMS, PODS, VOLUMES, Resource
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_cluster import merge
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.mortal import Killed

Object = dict[str, Any]
PROTECTION = "kubernetes.io/pvc-protection"


class Clock:
    """Time that passes when it is waited for."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Simulated:
    """The cluster, and the door to it.

    ``kill_at`` counts requests from 0; ``kill_after``: once that one has counted. ``fail_at`` loses an answer.
    ``meanwhile`` is done in the middle of request ``meanwhile_at``: by another run, or a person.
    """

    def __init__(self, chance: random.Random, clock: Clock) -> None:
        self.chance = chance
        self.clock = clock
        self.requests = 0
        self.kill_at: int | None = None
        self.kill_after = False
        self.fail_at: int | None = None
        self.run = "simulated"
        self.objects: dict[tuple[str, str | None, str], Object] = {}
        self.log: list[tuple[int, str, str, Object]] = []
        self.numbers = itertools.count(1)
        self.class_policy = "Delete"
        self.late_binding = False
        self.driver_works = True
        #: Data that must be safe at all times, and names of claims that are a stranger's.
        self.precious: set[str] = set()
        self.strangers: set[str] = set()
        #: Data that need not be safe any more once this claim has other data.
        self.excused: dict[str, str] = {}
        self.recreates: dict[str, Object] = {}
        self.forgets = False
        self.rests = False
        self.owners: dict[str, str] = {}
        self.written: list[str] = []
        self.meanwhile_at: int | None = None
        self.meanwhile: Callable[[], Any] | None = None

    # The store

    def _key(self, resource: Resource, namespace: str | None, name: str) -> tuple[str, str | None, str]:
        return resource.plural, namespace if resource.namespaced else None, name

    def put(self, resource: Resource, namespace: str | None, body: Mapping[str, Any]) -> Object:
        """Create an object as it is."""
        item: Object = copy.deepcopy(dict(body))
        number = next(self.numbers)
        item["metadata"].setdefault("uid", f"uid-{number}")
        if resource is CLAIMS:
            item["metadata"]["finalizers"] = [PROTECTION]
            item.setdefault("status", {"phase": "Pending"})
        key = self._key(resource, namespace, item["metadata"]["name"])
        self.objects[key] = item
        return self._tell("ADDED", key)

    def _tell(self, word: str, key: tuple[str, str | None, str]) -> Object:
        item = self.objects[key]
        number = next(self.numbers)
        item["metadata"]["resourceVersion"] = str(number)
        self.log.append((number, word, key[0], copy.deepcopy(item)))
        if word == "DELETED":
            del self.objects[key]
        self.check()
        return copy.deepcopy(item)

    def change(self, resource: Resource, namespace: str | None, name: str, patch: Mapping[str, Any]) -> None:
        """Merge a patch into an object, as a controller or a person does."""
        key = self._key(resource, namespace, name)
        merge(self.objects[key], patch)
        self._tell("MODIFIED", key)

    def remove(self, resource: Resource, namespace: str | None, name: str) -> None:
        """Ask for an object's removal."""
        key = self._key(resource, namespace, name)
        item = self.objects.get(key)
        if item is None:
            return
        if item["metadata"].get("finalizers"):
            if not item["metadata"].get("deletionTimestamp"):
                item["metadata"]["deletionTimestamp"] = "2026-11-26T00:00:00Z"
                self._tell("MODIFIED", key)
        else:
            self._tell("DELETED", key)

    def all(self, resource: Resource) -> list[Object]:
        """Return all objects of a kind, as they are."""
        return [
            item for (plural, _n, _name), item in sorted(self.objects.items(), key=str) if plural == resource.plural
        ]

    def item(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """Return an object as it is."""
        return self.objects.get(self._key(resource, namespace, name))

    def check(self) -> None:
        """Hold the invariant: the precious data is in a volume that is retained or bound, and no stranger's."""
        claims = {claim["metadata"]["uid"]: claim for claim in self.all(CLAIMS)}
        for data in self.precious:
            volumes = [volume for volume in self.all(VOLUMES) if volume["data"] == data]
            if data in self.excused and self.data_of(self.excused[data]) not in (None, data):
                continue
            assert volumes, f"the data {data!r} is lost"
            for volume in volumes:
                owner = claims.get(volume["spec"].get("claimRef", {}).get("uid"))
                retained = volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
                kept = owner is not None and not owner["metadata"].get("deletionTimestamp")
                assert retained or kept, f"the data {data!r} is at the mercy of a controller"
        for volume in self.all(VOLUMES):
            owner = claims.get(volume["spec"].get("claimRef", {}).get("uid"))
            if owner is not None and owner["metadata"]["name"] in self.strangers:
                assert volume["data"] == "blank", f"a stranger has the volume with {volume['data']!r}"

    def data_of(self, claim: str) -> str | None:
        """Return the data of the claim's volume; None for a claim that is not bound."""
        for item in self.all(CLAIMS):
            if item["metadata"]["name"] == claim and item["status"]["phase"] == "Bound":
                volume = self.item(VOLUMES, None, item["spec"]["volumeName"])
                if volume is not None and volume["spec"]["claimRef"].get("uid") == item["metadata"]["uid"]:
                    return str(volume["data"])
        return None

    # The controllers

    def control(self) -> bool:
        """Let one controller do one thing; return whether there was anything to do."""
        if self.rests:
            return False
        moves = [*self._for_claims(), *self._for_volumes(), *self._for_sets()]
        if not moves:
            return False
        self.chance.choice(moves)()
        return True

    def settle(self) -> None:
        """Let all controllers do all that there is to do."""
        while self.control():
            pass

    def _for_claims(self) -> Iterator[Any]:
        for claim in self.all(CLAIMS):
            metadata, namespace = claim["metadata"], claim["metadata"]["namespace"]
            name = metadata["name"]
            if metadata.get("deletionTimestamp"):
                if not self._used(claim):
                    yield lambda namespace=namespace, name=name: self._let_go(namespace, name)
                continue
            if claim["status"]["phase"] == "Bound":
                volume = self.item(VOLUMES, None, claim["spec"]["volumeName"])
                if volume is None or volume["spec"].get("claimRef", {}).get("uid") != metadata["uid"]:
                    yield lambda c=claim: self.change(
                        CLAIMS, c["metadata"]["namespace"], c["metadata"]["name"], {"status": {"phase": "Lost"}}
                    )
            elif claim["status"]["phase"] == "Pending":
                volume = self._match(claim)
                if volume is not None:
                    yield lambda c=claim, v=volume: self._bind(c, v)
                elif not claim["spec"].get("volumeName") and self._may_provision(claim):
                    yield lambda c=claim: self._provision(c)

    def _used(self, claim: Object) -> bool:
        return any(
            each.get("persistentVolumeClaim", {}).get("claimName") == claim["metadata"]["name"]
            for pod in self.all(PODS)
            for each in pod["spec"].get("volumes", [])
            if pod["metadata"]["namespace"] == claim["metadata"]["namespace"]
        )

    def _let_go(self, namespace: str, name: str) -> None:
        self._tell("DELETED", self._key(CLAIMS, namespace, name))

    def _match(self, claim: Object) -> Object | None:
        """Return the volume that the PV controller binds to a pending claim."""
        metadata, wanted = claim["metadata"], claim["spec"].get("volumeName")
        for volume in self.all(VOLUMES):
            reference = volume["spec"].get("claimRef")
            named = volume["metadata"]["name"] == wanted
            if wanted and not named:
                continue
            if volume["metadata"].get("deletionTimestamp"):
                continue
            if reference is None:
                return volume  # free for anybody
            same = (reference.get("namespace"), reference.get("name")) == (metadata["namespace"], metadata["name"])
            if same and reference.get("uid") in (None, metadata["uid"]):
                return volume
        return None

    def _bind(self, claim: Object, volume: Object) -> None:
        metadata = claim["metadata"]
        reference = {key: metadata[key] for key in ("namespace", "name", "uid")}
        name = volume["metadata"]["name"]
        self.change(VOLUMES, None, name, {"spec": {"claimRef": reference}, "status": {"phase": "Bound"}})
        bound = {"spec": {"volumeName": name}, "status": {"phase": "Bound", "capacity": volume["spec"]["capacity"]}}
        self.change(CLAIMS, metadata["namespace"], metadata["name"], bound)

    def _may_provision(self, claim: Object) -> bool:
        if not claim["spec"].get("storageClassName"):
            return False
        restores = bool(claim["spec"].get("dataSource"))
        if restores and not self.driver_works:
            return False
        annotations = claim["metadata"].get("annotations") or {}
        return not self.late_binding or "volume.kubernetes.io/selected-node" in annotations

    def _provision(self, claim: Object) -> None:
        number = next(self.numbers)
        source = claim["spec"].get("dataSource")
        reference = {key: claim["metadata"][key] for key in ("namespace", "name", "uid")}
        volume = {
            "metadata": {"name": f"pvc-{reference['uid']}"},
            "spec": {
                "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
                "storageClassName": claim["spec"]["storageClassName"],
                "persistentVolumeReclaimPolicy": self.class_policy,
                "csi": {"driver": "sim", "volumeHandle": f"handle-{number}"},
                "claimRef": reference,
            },
            "status": {"phase": "Pending"},
            "data": f"snapshot {source['name']}" if source else "blank",
        }
        self.put(VOLUMES, None, volume)

    def _for_volumes(self) -> Iterator[Any]:
        uids = {claim["metadata"]["uid"] for claim in self.all(CLAIMS)}
        for volume in self.all(VOLUMES):
            name, phase = volume["metadata"]["name"], volume["status"]["phase"]
            reference = volume["spec"].get("claimRef")
            if reference is None or not reference.get("uid"):
                if phase != "Available":
                    yield lambda n=name: self.change(VOLUMES, None, n, {"status": {"phase": "Available"}})
            elif reference["uid"] not in uids:
                if phase != "Released":
                    yield lambda n=name: self.change(VOLUMES, None, n, {"status": {"phase": "Released"}})
                elif volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
                    yield lambda n=name: self._tell("DELETED", (VOLUMES.plural, None, n))

    def _for_sets(self) -> Iterator[Any]:
        """Recreate claims that are missing, as a StatefulSet's controller does."""
        for name, body in self.recreates.items():
            if self.item(CLAIMS, body["metadata"]["namespace"], name) is None:
                yield lambda b=body: self.put(CLAIMS, b["metadata"]["namespace"], b)

    # The door

    def _request(self, what: str) -> None:
        for _unused in range(self.chance.randrange(4)):
            self.control()
        number, self.requests = self.requests, self.requests + 1
        if number == self.meanwhile_at and self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            act()
        if number == self.kill_at and not self.kill_after:
            raise Killed(f"before request {number}: {what}")

    def _done(self, what: str) -> None:
        self.written.append(what)
        if self.requests - 1 == self.kill_at and self.kill_after:
            raise Killed(f"after request {self.requests - 1}: {what}")
        if self.requests - 1 == self.fail_at:
            raise KubeError(what, "the connection was lost", "try again", 0, transient=True)

    def get(self, attempt: str, resource: Resource, namespace: str | None = None, name: str = "") -> Object:
        self._request(f"get {resource.plural} {name}")
        if resource.plural == "statefulsets":
            if name not in self.owners:
                raise KubeError(attempt, "not found", "check", 404)
            return {"metadata": {"name": name, "uid": self.owners[name]}}
        item = self.item(resource, namespace, name)
        if item is None:
            raise KubeError(attempt, f"{name} not found", "check", 404)
        return copy.deepcopy(item)

    def find(self, attempt: str, resource: Resource, namespace: str | None = None, name: str = "") -> Object | None:
        try:
            return self.get(attempt, resource, namespace, name)
        except KubeError as error:
            if error.status != 404:
                raise
        return None

    def find_kind(self, _attempt: str, api_version: str, kind: str) -> Resource | None:
        self._request(f"find {kind}")
        group, _slash, version = api_version.partition("/")
        return Resource(group, version, f"{kind.lower()}s", kind)

    def list_objects(
        self,
        _attempt: str,
        resource: Resource,
        namespace: str | None = None,
        selector: str | None = None,
        fields: str | None = None,
    ) -> Listing:
        self._request(f"list {resource.plural}")
        items = [copy.deepcopy(item) for item in self.all(resource) if _meant(item, namespace, selector, fields)]
        return Listing(tuple(items), str(self.log[-1][0] if self.log else 0))

    def watch(
        self,
        attempt: str,
        resource: Resource,
        version: str,
        seconds: float,
        namespace: str | None = None,
        selector: str | None = None,
        fields: str | None = None,
    ) -> Iterator[tuple[str, Object]]:
        self._request(f"watch {resource.plural}")
        if self.forgets and self.chance.random() < 0.2:
            raise Gone(attempt, "too old", "list anew", 410)
        seen = int(version)
        end = self.clock.now + seconds
        while True:
            for number, word, plural, item in list(self.log):
                if number > seen:
                    seen = number
                    if plural == resource.plural and _meant(item, namespace, selector, fields):
                        yield word, copy.deepcopy(item)
            if self.forgets and self.chance.random() < 0.1:
                return
            if not self.control():
                self.clock.now = max(self.clock.now, end)
                return

    def create(self, attempt: str, resource: Resource, namespace: str | None, body: Mapping[str, Any]) -> Object:
        name = body["metadata"]["name"]
        self._request(f"create {resource.plural} {name}")
        if self.item(resource, namespace, name) is not None:
            raise KubeError(attempt, f"{name} already exists", "try again", 409, "AlreadyExists")
        made = self.put(resource, namespace, {**body, "metadata": {**body["metadata"], "namespace": namespace}})
        self._done(f"create {resource.plural} {name}")
        return made

    def patch(
        self, attempt: str, resource: Resource, namespace: str | None, name: str, body: Mapping[str, Any]
    ) -> Object:
        self._request(f"patch {resource.plural} {name}")
        item = self.item(resource, namespace, name)
        if item is None:
            raise KubeError(attempt, f"{name} not found", "check", 404)
        version = body["metadata"].get("resourceVersion")
        assert version, "a patch without the resourceVersion it was decided on"
        if version != item["metadata"]["resourceVersion"]:
            raise KubeError(attempt, "the object has been modified", "try again", 409, "Conflict")
        merge(item, body)
        changed = self._tell("MODIFIED", self._key(resource, namespace, name))
        self._done(f"patch {resource.plural} {name}")
        return changed

    def delete(self, _attempt: str, resource: Resource, namespace: str | None, name: str, uid: str) -> Object | None:
        self._request(f"delete {resource.plural} {name}")
        item = self.item(resource, namespace, name)
        if item is None or item["metadata"]["uid"] != uid:
            return None
        self.remove(resource, namespace, name)
        self._done(f"delete {resource.plural} {name}")
        return {"kind": "Status"}


def _meant(item: Object, namespace: str | None, selector: str | None, fields: str | None) -> bool:
    metadata = item["metadata"]
    if namespace is not None and metadata.get("namespace") != namespace:
        return False
    if selector is not None:
        key, _equals, value = selector.partition("=")
        if (metadata.get("labels") or {}).get(key) != value:
            return False
    return fields is None or fields == f"metadata.name={metadata['name']}"
