# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waits for many objects with one list and one watch, until each is as wanted or the deadline has come.

What happens to API servers is survived: a watch that is closed, a version that is too old (410), 429, a restart. Called
by the csi backend; speaks through the door (kube.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable

from ...kube import Gone, KubeClient
from ...kube_login import KubeError
from ...kube_resources import Resource

#: Pauses (seconds) between two attempts to list, while the server is away.
_PAUSES = (0.2, 0.5, 1.0, 2.0)
#: What an object has to be for a wait to end; None is an object that is not there.
Wanted = Callable[["dict[str, Any] | None"], bool]


class Deadline:
    """A moment after which nothing is waited for. ``seconds`` is how far off it is now."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """Return the seconds that are left, 0 when there are none."""
        return max(0.0, self._end - self._clock())

    def part(self, seconds: float) -> Deadline:
        """Return a moment so many seconds from now, by the same clock; it may be later than this one."""
        return Deadline(seconds, self._clock)

    def extend(self, seconds: float) -> None:
        """Put it off."""
        self._end += seconds


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
        resource: Resource,
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
        if not wanted:
            return state.result()
        fields = f"metadata.name={next(iter(wanted))}" if len(wanted) == 1 else None
        narrow = {"namespace": namespace, "selector": selector, "fields": fields}
        pauses = 0
        while True:
            try:
                self._listen(attempt, resource, narrow, state)
                pauses = 0
            except Gone:
                state.version = None
            except KubeError as error:
                if not error.transient:
                    raise
                state.version = None
                if self._deadline.left() <= 0:
                    if not state.listed:
                        raise
                else:
                    self._sleep(min(_PAUSES[min(pauses, len(_PAUSES) - 1)], self._deadline.left()))
                    pauses += 1
            if not state.waiting or self._deadline.left() <= 0:
                return state.result()

    def _listen(self, attempt: str, resource: Resource, narrow: Mapping[str, Any], state: _State) -> None:
        """List where that is needed, then watch once, until all is as wanted or the watch ends."""
        if state.version is None:
            listing = self._client.list_objects(attempt, resource, **narrow)
            state.replace(listing.items, listing.version)
        left = self._deadline.left()
        if not state.waiting or left <= 0:
            return
        events = self._client.watch(attempt, resource, str(state.version), left, **narrow)
        try:
            for word, item in events:
                state.take(word, item)
                if not state.waiting or self._deadline.left() <= 0:
                    return
        finally:
            events.close()


class _State:
    """What was seen of the objects so far."""

    def __init__(self, wanted: Mapping[str, Wanted]) -> None:
        self._wanted = wanted
        self._objects: dict[str, dict[str, Any] | None] = dict.fromkeys(wanted)
        self.waiting = set(wanted)
        self.version: str | None = None
        self.listed = False

    def replace(self, items: tuple[dict[str, Any], ...], version: str) -> None:
        self.version, self.listed = version, True
        self._objects = dict.fromkeys(self._wanted)
        for item in items:
            name = item["metadata"]["name"]
            if name in self._objects:
                self._objects[name] = item
        self.waiting = {name for name, wanted in self._wanted.items() if not wanted(self._objects[name])}

    def take(self, word: str, item: dict[str, Any]) -> None:
        metadata = item.get("metadata") or {}
        self.version = metadata.get("resourceVersion") or self.version
        name = metadata.get("name")
        if word == "BOOKMARK" or name not in self._objects:
            return
        self._objects[name] = None if word == "DELETED" else item
        if self._wanted[name](self._objects[name]):
            self.waiting.discard(name)
        else:
            self.waiting.add(name)

    def result(self) -> Watched:
        return Watched(dict(self._objects), tuple(sorted(self.waiting)))
