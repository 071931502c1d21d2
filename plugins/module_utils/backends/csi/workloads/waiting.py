# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waits until no pod of a namespace keeps any of some claims: one list, then one watch. Called by edge.py.

Unlike a wait for named objects, pods that appear meanwhile count as well. Finished pods are removed on the way, with
their uid as a precondition.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any, Callable

from ....kube import Gone, KubeClient
from ....kube_login import KubeError
from ....kube_resources import PODS
from ..watching import Deadline
from .pods import finished, keeps, leaving, name_of, uses

_PAUSES = (0.2, 0.5, 1.0, 2.0)


class PodsGone:
    """The pods of one namespace that keep claims.

    Args:
        client: the login.
        namespace: whose pods.
        claims: names of claims.
        deadline: when to give up.
        sleep: waits for so many seconds between two attempts to reach a server that is away.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        claims: Collection[str],
        deadline: Deadline,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._claims = claims
        self._deadline = deadline
        self._sleep = sleep
        self._attempt = f"wait until no pod of namespace {namespace} uses {', '.join(sorted(claims))}"
        self._pods: dict[str, Mapping[str, Any]] = {}
        self._version: str | None = None
        self.removed: list[str] = []

    def wait(self) -> list[Mapping[str, Any]]:
        """Return the pods that are still there when the deadline has come; none when all have gone before.

        Raises:
            KubeError: the server refuses. A server that is away is waited for; at the deadline its last answer is
                raised if it was never reached.
        """
        pauses = 0
        listed = False
        while True:
            try:
                listed = self._listen() or listed
                pauses = 0
            except Gone:
                self._version = None
            except KubeError as error:
                self._version = None
                if not error.transient or (not listed and self._deadline.left() <= 0):
                    raise
                self._sleep(min(_PAUSES[min(pauses, len(_PAUSES) - 1)], self._deadline.left()))
                pauses += 1
            if (listed and not self._pods) or self._deadline.left() <= 0:
                return [self._pods[name] for name in sorted(self._pods)]

    def _listen(self) -> bool:
        """List where that is needed, then watch until the pods have gone or the watch ends."""
        if self._version is None:
            listing = self._client.list_objects(self._attempt, PODS, self._namespace)
            self._pods, self._version = {}, listing.version
            for pod in listing.items:
                self._take(pod)
        if not self._pods or self._deadline.left() <= 0:
            return True
        events = self._client.watch(self._attempt, PODS, self._version, self._deadline.left(), self._namespace)
        try:
            for word, item in events:
                self._version = (item.get("metadata") or {}).get("resourceVersion") or self._version
                if word == "DELETED":
                    self._pods.pop(name_of(item), None)
                elif word != "BOOKMARK":
                    self._take(item)
                if not self._pods or self._deadline.left() <= 0:
                    break
        finally:
            events.close()
        return True

    def _take(self, pod: Mapping[str, Any]) -> None:
        """Remember a pod that keeps a claim, forget one that does not, remove one that has finished."""
        name = name_of(pod)
        if not keeps(pod) or not any(uses(pod, claim) for claim in self._claims):
            self._pods.pop(name, None)
            return
        self._pods[name] = pod
        if finished(pod) and not leaving(pod) and name not in self.removed:
            attempt = f"remove the finished pod {self._namespace}/{name}"
            self._client.delete(attempt, PODS, self._namespace, name, str(pod["metadata"]["uid"]))
            self.removed.append(name)
