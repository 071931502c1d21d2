# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waits until no pod of a namespace keeps any of some claims: one list, then one watch. Called by edge.py.

Unlike a wait for named objects, pods that appear meanwhile count as well. Finished pods are removed on the way, with
their uid as a precondition.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Callable

from .... import kube_resources as api
from ....deadline import Deadline
from ....kube import KubeClient
from ..watching import follow
from .pods import finished, keeps, leaving, name_of, uses


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
        self.removed: list[str] = []

    def wait(self) -> list[Mapping[str, Any]]:
        """Return the pods that are still there when the deadline has come; none when all have gone before.

        Raises:
            KubeError: the server refuses. A server that is away is waited for; at the deadline its last answer is
                raised if it was never reached.
        """
        narrow = {"namespace": self._namespace}
        follow(self._client, self._deadline, self._sleep, self._attempt, api.PODS, narrow, self)
        return [self._pods[name] for name in sorted(self._pods)]

    @property
    def ended(self) -> bool:
        """Say whether no pod keeps a claim. See watching.Seen."""
        return not self._pods

    def replace(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Begin anew with these pods. See watching.Seen."""
        self._pods = {}
        for pod in items:
            self._take(pod)

    def take(self, word: str, item: Mapping[str, Any]) -> None:
        """Take in what has become of a pod. See watching.Seen."""
        if word == "DELETED":
            self._pods.pop(name_of(item), None)
        else:
            self._take(item)

    def _take(self, pod: Mapping[str, Any]) -> None:
        """Remember a pod that keeps a claim, forget one that does not, remove one that has finished."""
        name = name_of(pod)
        if not keeps(pod) or not any(uses(pod, claim) for claim in self._claims):
            self._pods.pop(name, None)
            return
        self._pods[name] = pod
        if finished(pod) and not leaving(pod) and name not in self.removed:
            attempt = f"remove the finished pod {self._namespace}/{name}"
            self._client.delete(attempt, api.PODS, self._namespace, name, str(pod["metadata"]["uid"]))
            self.removed.append(name)


class OwnGone(PodsGone):
    """The pods of one workload, by its selector, that have not finished."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        selector: str,
        deadline: Deadline,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(client, namespace, (), deadline, sleep)
        self._selector = selector
        self._attempt = f"wait until the pods of namespace {namespace} with {selector} are gone"

    def wait(self) -> list[Mapping[str, Any]]:
        """Return the pods that are still there when the deadline has come. See PodsGone."""
        narrow = {"namespace": self._namespace, "selector": self._selector}
        follow(self._client, self._deadline, self._sleep, self._attempt, api.PODS, narrow, self)
        return [self._pods[name] for name in sorted(self._pods)]

    def _take(self, pod: Mapping[str, Any]) -> None:
        if finished(pod):
            self._pods.pop(name_of(pod), None)
        else:
            self._pods[name_of(pod)] = pod


def selector_of(workload: Mapping[str, Any]) -> str:
    """Return a workload's selector as lists of pods take it. "" where it has none."""
    selector = (workload.get("spec") or {}).get("selector") or {}
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    words = {
        "In": "{key} in ({values})",
        "NotIn": "{key} notin ({values})",
        "Exists": "{key}",
        "DoesNotExist": "!{key}",
    }
    for each in selector.get("matchExpressions") or ():
        values = ",".join(each.get("values") or ())
        parts.append(words[each["operator"]].format(key=each["key"], values=values))
    return ",".join(parts)
