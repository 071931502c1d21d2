# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Kubernetes API server for tests that keeps what it is given: objects, versions, finalizers, watches.

It stands on fake_kube.py's HTTPS server. Controllers are functions that are told of each change, after ``lag`` seconds
in a thread of their own; fake_csi.py has those of snapshots. Tests make it fail with ``faults``, ``forbidden``,
``lose``, ``cut_watches`` and ``forget``.
"""

from __future__ import annotations

import copy
import datetime
import itertools
import queue
import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable

from .fake_kube import FakeKube, Request, matches, requirements_of, status_of

_PATH = re.compile(
    r"/(?:api|apis/(?P<group>[a-z0-9.-]+))/(?P<version>v[0-9a-z]+)(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+)(?:/(?P<subresource>[a-z]+))?)?"
)
Key = tuple[str, str, "str | None", str]
#: Called as (cluster, ADDED or MODIFIED or DELETED, plural, object).
Controller = Callable[["FakeCluster", str, str, dict[str, Any]], None]
GROUPS: dict[str, tuple[str, ...]] = {
    "snapshot.storage.k8s.io": ("v1",),
    "groupsnapshot.storage.k8s.io": ("v1",),
    "storage.k8s.io": ("v1",),
    "apps": ("v1",),
    "batch": ("v1",),
    "autoscaling": ("v2",),
    "authorization.k8s.io": ("v1",),
}
_CLUSTER_SCOPED = {
    *("persistentvolumes", "volumesnapshotcontents", "volumesnapshotclasses", "storageclasses", "nodes", "csidrivers"),
    *("volumegroupsnapshotcontents", "volumegroupsnapshotclasses", "selfsubjectaccessreviews", "namespaces"),
}


def merge(target: dict[str, Any], patch: Mapping[str, Any]) -> None:
    """Merge a patch into an object (RFC 7386)."""
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, Mapping):
            if not isinstance(target.get(name), dict):
                target[name] = {}
            merge(target[name], value)
        else:
            target[name] = copy.deepcopy(value)


class FakeCluster(FakeKube):
    """The server. ``groups`` are the API groups that it has; ``lose`` loses the answers to so many writes."""

    def __init__(self, certificate: Path, *controllers: Controller, lag: float = 0.01) -> None:
        super().__init__(certificate)
        self.groups = dict(GROUPS)
        self.objects: dict[Key, dict[str, Any]] = {}
        self.lose = 0
        self.cut_watches = 0
        self.lag = lag
        #: Gives the dates of what is made, in seconds since the epoch.
        self.clock: Callable[[], float] = time.time
        self._controllers = list(controllers)
        self._log: list[tuple[int, str, Key, dict[str, Any]]] = []
        self._forgotten = 0
        self._numbers = itertools.count(100)
        self._changed = threading.Condition(threading.RLock())
        self._queue: queue.Queue[tuple[float, str, str, dict[str, Any]] | None] = queue.Queue()

    def __enter__(self) -> FakeCluster:
        super().__enter__()
        self._worker = threading.Thread(target=self._control, daemon=True)
        self._worker.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self._queue.put(None)
        with self._changed:
            self._forgotten = -1  # ends the watches
            self._changed.notify_all()
        super().__exit__()
        self._worker.join()

    def _control(self) -> None:
        while True:
            told = self._queue.get()
            if told is None:
                return
            due, word, plural, item = told
            time.sleep(max(0.0, due - time.monotonic()))
            for controller in self._controllers:
                controller(self, word, plural, item)

    # What tests and controllers do

    def put(self, item: Mapping[str, Any], group: str = "") -> dict[str, Any]:
        """Create an object as it is, status and all, and return what is kept."""
        plural = PLURALS[item["kind"]]
        return self._create(group or _group_of(item), plural, item["metadata"].get("namespace"), item)

    def find(self, plural: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Return a copy of an object, or None."""
        with self._changed:
            for (_group, kind, where, known), item in self.objects.items():
                if (kind, known) == (plural, name) and namespace in (None, where):
                    return copy.deepcopy(item)
        return None

    def all(self, plural: str) -> list[dict[str, Any]]:
        """Return copies of all objects of a kind."""
        with self._changed:
            return [copy.deepcopy(item) for (_g, kind, _n, _name), item in self.objects.items() if kind == plural]

    def change(self, item: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
        """Merge a patch into an object, as a controller does; one that is gone meanwhile stays gone."""
        key = (_group_of(item), PLURALS[item["kind"]], item["metadata"].get("namespace"), item["metadata"]["name"])
        with self._changed:
            if key not in self.objects:
                return dict(item)
            return self._patch(key, patch)

    def remove(self, item: Mapping[str, Any]) -> None:
        """Ask for an object's removal, as a controller or another user does."""
        key = (_group_of(item), PLURALS[item["kind"]], item["metadata"].get("namespace"), item["metadata"]["name"])
        with self._changed:
            if key in self.objects:
                self._delete(key)

    def forget(self) -> None:
        """Forget the past: who watches from before gets 410."""
        with self._changed:
            self._forgotten = next(self._numbers)

    # The API

    def answer(self, request: Request) -> tuple[int, dict[str, str], Any]:
        """Return (status, headers, body) for one request; status 0 loses the answer."""
        if self.faults:
            status, headers = self.faults.pop(0)
            return status, headers, status_of(status, self.fault_message)
        if request.headers.get("Authorization") != self.authorization:
            return 401, {}, status_of(401, "Unauthorized")
        found = re.fullmatch(r"/apis/([a-z0-9.-]+)", request.path)
        if found:
            return self._group(found[1])
        asked = _PATH.fullmatch(request.path)
        if not asked or not self._served(asked):
            return 404, {}, status_of(404, "the server could not find the requested resource", "NotFound")
        verb = _verb(request, asked)
        what = asked["plural"] + (f"/{asked['subresource']}" if asked["subresource"] else "")
        if (verb, what) in self.forbidden:
            return 403, {}, status_of(403, f'{what} is forbidden: User "tester" cannot {verb} resource "{what}"')
        if verb == "watch":
            return 200, {}, self._watch(asked, request)
        with self._changed:
            answer = self._carry_out(verb, asked, request)
        if self.lose and verb in ("create", "patch", "delete") and asked["plural"] != "selfsubjectaccessreviews":
            self.lose -= 1
            return 0, {}, None
        return answer

    def _group(self, name: str) -> tuple[int, dict[str, str], Any]:
        if name not in self.groups:
            return 404, {}, status_of(404, "the server could not find the requested resource", "NotFound")
        versions = [{"groupVersion": f"{name}/{each}", "version": each} for each in self.groups[name]]
        return 200, {}, {"kind": "APIGroup", "name": name, "versions": versions, "preferredVersion": versions[0]}

    def _served(self, asked: re.Match[str]) -> bool:
        group = asked["group"] or ""
        return asked["version"] in (self.groups.get(group, ()) if group else ("v1",))

    def _carry_out(self, verb: str, asked: re.Match[str], request: Request) -> tuple[int, dict[str, str], Any]:
        group, plural, namespace = asked["group"] or "", asked["plural"], asked["namespace"]
        if plural == "selfsubjectaccessreviews":
            return 201, {}, self._review(request.body)
        if verb == "list":
            return self._list(group, plural, namespace, request)
        if verb == "create":
            key = (group, plural, namespace, request.body["metadata"]["name"])
            if key in self.objects:
                return 409, {}, status_of(409, f'{plural} "{key[3]}" already exists', "AlreadyExists")
            return 201, {}, self._create(group, plural, namespace, request.body)
        key = (group, plural, namespace, asked["name"])
        if key not in self.objects:
            return 404, {}, status_of(404, f'{plural} "{asked["name"]}" not found', "NotFound")
        if verb == "get":
            return 200, {}, copy.deepcopy(self.objects[key])
        return self._change(verb, key, request.body)

    def _change(self, verb: str, key: Key, body: Any) -> tuple[int, dict[str, str], Any]:
        metadata = self.objects[key]["metadata"]
        if verb == "delete":
            wanted = (body or {}).get("preconditions", {}).get("uid")
            if wanted not in (None, metadata["uid"]):
                return 409, {}, status_of(409, "Precondition failed: UID in precondition differs", "Conflict")
            return 200, {}, self._delete(key)
        version = (body.get("metadata") or {}).get("resourceVersion")
        if version not in (None, metadata["resourceVersion"]):
            return 409, {}, status_of(409, "the object has been modified", "Conflict")
        return 200, {}, self._patch(key, body)

    def _list(
        self, group: str, plural: str, namespace: str | None, request: Request
    ) -> tuple[int, dict[str, str], Any]:
        try:
            requirements = requirements_of(request.query.get("labelSelector", ""))
        except ValueError as error:
            return 400, {}, status_of(400, str(error))
        name = _named(request)
        items = [
            copy.deepcopy(item)
            for (g, p, n, known), item in sorted(self.objects.items(), key=lambda each: str(each[0]))
            if (g, p) == (group, plural) and namespace in (None, n) and name in (None, known)
            and matches(item, requirements)
        ]  # fmt: skip
        version = str(self._log[-1][0] if self._log else 1)
        return 200, {}, {"kind": "List", "metadata": {"resourceVersion": version}, "items": items}

    def _review(self, body: Mapping[str, Any]) -> dict[str, Any]:
        wanted = body["spec"]["resourceAttributes"]
        what = wanted["resource"] + (f"/{wanted['subresource']}" if wanted.get("subresource") else "")
        return {**body, "status": {"allowed": (wanted["verb"], what) not in self.forbidden}}

    def _watch(self, asked: re.Match[str], request: Request) -> Iterator[Any]:
        seen, name = int(request.query["resourceVersion"]), _named(request)
        requirements = requirements_of(request.query.get("labelSelector", ""))
        end = time.monotonic() + float(request.query.get("timeoutSeconds", "60"))
        if self.cut_watches:
            self.cut_watches -= 1
            yield None
            return
        while time.monotonic() < end and self._forgotten >= 0:
            with self._changed:
                if seen < self._forgotten:
                    yield {"type": "ERROR", "object": status_of(410, "too old resource version", "Expired")}
                    return
                fresh = [each for each in self._log if each[0] > seen]
                if not fresh:
                    self._changed.wait(min(0.05, max(0.0, end - time.monotonic())))
            for version, word, (group, plural, namespace, known), item in fresh:
                seen = version
                here = (group, plural) == (asked["group"] or "", asked["plural"])
                meant = here and asked["namespace"] in (None, namespace) and name in (None, known)
                if meant and matches(item, requirements):
                    yield {"type": word, "object": item}

    # The store

    def _create(self, group: str, plural: str, namespace: str | None, body: Mapping[str, Any]) -> dict[str, Any]:
        item = copy.deepcopy(dict(body))
        metadata = item["metadata"]
        number = next(self._numbers)
        if namespace and plural not in _CLUSTER_SCOPED:
            metadata["namespace"] = namespace
        now = datetime.datetime.fromtimestamp(self.clock(), datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata.setdefault("uid", f"uid-{number}")
        metadata.setdefault("creationTimestamp", now)
        if plural == "persistentvolumeclaims":
            metadata.setdefault("finalizers", ["kubernetes.io/pvc-protection"])
            item.setdefault("status", {"phase": "Pending"})
        with self._changed:
            key = (group, plural, metadata.get("namespace"), metadata["name"])
            self.objects[key] = item
            return self._tell("ADDED", key, number)

    def _patch(self, key: Key, patch: Mapping[str, Any]) -> dict[str, Any]:
        item = self.objects[key]
        before = copy.deepcopy(item.get("spec"))
        merge(item, patch)
        if "generation" in item["metadata"] and item.get("spec") != before:
            item["metadata"]["generation"] += 1
        if item["metadata"].get("deletionTimestamp") and not item["metadata"].get("finalizers"):
            return self._gone(key)
        return self._tell("MODIFIED", key, next(self._numbers))

    def _delete(self, key: Key) -> dict[str, Any]:
        metadata = self.objects[key]["metadata"]
        if not metadata.get("finalizers"):
            return self._gone(key)
        metadata.setdefault("deletionTimestamp", "2026-11-26T00:00:00Z")
        return self._tell("MODIFIED", key, next(self._numbers))

    def _gone(self, key: Key) -> dict[str, Any]:
        told = self._tell("DELETED", key, next(self._numbers))
        del self.objects[key]
        return told

    def _tell(self, word: str, key: Key, number: int) -> dict[str, Any]:
        item = self.objects[key]
        item["metadata"]["resourceVersion"] = str(number)
        told = copy.deepcopy(item)
        self._log.append((number, word, key, told))
        self._queue.put((time.monotonic() + self.lag, word, key[1], copy.deepcopy(item)))
        self._changed.notify_all()
        return copy.deepcopy(item)


PLURALS = {
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "PersistentVolume": "persistentvolumes",
    "Pod": "pods",
    "Event": "events",
    "ResourceQuota": "resourcequotas",
    "StorageClass": "storageclasses",
    "VolumeSnapshot": "volumesnapshots",
    "VolumeSnapshotContent": "volumesnapshotcontents",
    "VolumeSnapshotClass": "volumesnapshotclasses",
    "VolumeGroupSnapshot": "volumegroupsnapshots",
    "VolumeGroupSnapshotContent": "volumegroupsnapshotcontents",
    "VolumeGroupSnapshotClass": "volumegroupsnapshotclasses",
    "Deployment": "deployments",
    "StatefulSet": "statefulsets",
    "DaemonSet": "daemonsets",
    "ReplicaSet": "replicasets",
    "Job": "jobs",
    "CronJob": "cronjobs",
    "Node": "nodes",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
}


def _group_of(item: Mapping[str, Any]) -> str:
    group, slash, _version = str(item["apiVersion"]).partition("/")
    return group if slash else ""


def _named(request: Request) -> str | None:
    found = re.fullmatch(r"metadata\.name=(.*)", request.query.get("fieldSelector", ""))
    return found[1] if found else None


def _verb(request: Request, asked: re.Match[str]) -> str:
    if request.method == "GET":
        if request.query.get("watch"):
            return "watch"
        return "get" if asked["name"] else "list"
    return {"POST": "create", "PATCH": "patch", "DELETE": "delete"}[request.method]
