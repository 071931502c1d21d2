# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waits for many objects with one list and one watch, until each is as wanted or the deadline has come.

What happens to API servers is survived: a watch that is closed, a version that is too old (410), 429, a restart. Called
by the csi backend; speaks through the door (kube.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Protocol

from ... import kube_resources as api
from ...deadline import Deadline
from ...kube import PAUSES, Gone, KubeClient
from ...kube_login import KubeError

#: What an object has to be for a wait to end; None is an object that is not there.
Wanted = Callable[["dict[str, Any] | None"], bool]


@dataclass(frozen=True)
class Watched:
    """How a wait ended: each object as last seen (None is not there), and the names that are not as wanted yet."""

    objects: Mapping[str, dict[str, Any] | None]
    waiting: tuple[str, ...]


class Waiter:
    """Waits for objects of one kind.

    Args:
        client: the login.
        deadline: when to give up.
        sleep: waits for so many seconds between two attempts to reach a server that is away.
    """

    def __init__(self, client: KubeClient, deadline: Deadline, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client = client
        self._deadline = deadline
        self._sleep = sleep

    def wait(
        self,
        attempt: str,
        resource: api.Resource,
        namespace: str | None,
        wanted: Mapping[str, Wanted],
        selector: str | None = None,
    ) -> Watched:
        """Wait until each named object is as wanted.

        Args:
            attempt: what this is for, for messages: ``wait for 3 snapshots in namespace shop``.
            wanted: for each name, what the object (or None) has to be.
            selector: a label selector that all of the objects match; without it all of the namespace are listened to.

        Raises:
            KubeError: the server refuses (no permission, no such kind). A server that is away is waited for, and at
                the deadline the last answer is raised if nothing was seen at all.
        """
        state = _State(wanted)
        if wanted:
            fields = f"metadata.name={next(iter(wanted))}" if len(wanted) == 1 else None
            narrow = {"namespace": namespace, "selector": selector, "fields": fields}
            follow(self._client, self._deadline, self._sleep, attempt, resource, narrow, state)
        return state.result()


class Seen(Protocol):
    """What was seen of objects, told by a list and by events. ``ended``: it is as it was waited for."""

    @property
    def ended(self) -> bool: ...

    def replace(self, items: Sequence[dict[str, Any]]) -> None: ...

    def take(self, word: str, item: dict[str, Any]) -> None: ...


def follow(
    client: KubeClient,
    deadline: Deadline,
    sleep: Callable[[float], None],
    attempt: str,
    resource: api.Resource,
    narrow: Mapping[str, Any],
    seen: Seen,
) -> None:
    """Tell ``seen`` of objects, by one list and a watch from there, until it has ended or the deadline has come.

    What the server has forgotten is listed anew. A server that is away is waited for. ``narrow`` is the namespace,
    selector and fields of a list and a watch.

    Raises:
        KubeError: the server refuses (no permission, no such kind). At the deadline the last answer of a server that
            was away is raised if nothing was ever listed.
    """
    follower = _Follower(client, deadline, attempt, resource, narrow, seen)
    pauses = 0
    while True:
        try:
            follower.listen()
            pauses = 0
        except Gone:
            follower.version = None
        except KubeError as error:
            follower.version = None
            if not error.transient or (not follower.listed and deadline.left() <= 0):
                raise
            sleep(min(PAUSES[min(pauses, len(PAUSES) - 1)], deadline.left()))
            pauses += 1
        if (follower.listed and seen.ended) or deadline.left() <= 0:
            return


@dataclass
class _Follower:
    """One list, and the watches that go on from it. ``version`` is None where it has to be listed anew."""

    client: KubeClient
    deadline: Deadline
    attempt: str
    resource: api.Resource
    narrow: Mapping[str, Any]
    seen: Seen
    version: str | None = None
    listed: bool = False

    def listen(self) -> None:
        """List where that is needed, then watch once, until all is as wanted or the watch ends."""
        if self.version is None:
            listing = self.client.list_objects(self.attempt, self.resource, **self.narrow)
            self.version = listing.version
            self.seen.replace(listing.items)
            self.listed = True
        left = self.deadline.left()
        if self.seen.ended or left <= 0:
            return
        events = self.client.watch(self.attempt, self.resource, self.version, left, **self.narrow)
        try:
            for word, item in events:
                self.version = (item.get("metadata") or {}).get("resourceVersion") or self.version
                if word != "BOOKMARK":
                    self.seen.take(word, item)
                if self.seen.ended or self.deadline.left() <= 0:
                    return
        finally:
            events.close()


class _State:
    """What was seen of the objects so far."""

    def __init__(self, wanted: Mapping[str, Wanted]) -> None:
        self._wanted = wanted
        self._objects: dict[str, dict[str, Any] | None] = dict.fromkeys(wanted)
        self.waiting = set(wanted)

    @property
    def ended(self) -> bool:
        return not self.waiting

    def replace(self, items: Sequence[dict[str, Any]]) -> None:
        self._objects = dict.fromkeys(self._wanted)
        for item in items:
            name = item["metadata"]["name"]
            if name in self._objects:
                self._objects[name] = item
        self.waiting = {name for name, wanted in self._wanted.items() if not wanted(self._objects[name])}

    def take(self, word: str, item: dict[str, Any]) -> None:
        name = (item.get("metadata") or {}).get("name")
        if name not in self._objects:
            return
        self._objects[name] = None if word == "DELETED" else item
        if self._wanted[name](self._objects[name]):
            self.waiting.discard(name)
        else:
            self.waiting.add(name)

    def result(self) -> Watched:
        return Watched(dict(self._objects), tuple(sorted(self.waiting)))
