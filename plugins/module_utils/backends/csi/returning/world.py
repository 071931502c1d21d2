# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What swap.py sees of the cluster: the claims, volumes and pods of returns, for all claims of a call at once.

It is looked at as a whole with a list of each kind; what a request answers is taken over, so that a step costs no
second look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .... import kube_resources as api
from ....kube import KubeClient
from .. import objects
from ..workloads import pods as pod_words
from . import journal as j
from . import steps
from .asides import open_journal
from .journal import Journal
from .steps import Scene

Object = dict[str, Any]


class World:
    """The claims of a namespace, and the volumes that have a part in returns of it.

    Raises KubeError where the API cannot be asked.
    """

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self.claims: dict[str, Object] = {}
        self.volumes: dict[str, Object] = {}
        self._pods: dict[str, tuple[str, ...]] = {}

    def look(self) -> None:
        """Look at everything."""
        self.look_at_volumes()  # before claims: so that no claim is older than what is known of its volume
        attempt = f"list claims in namespace {self._namespace}"
        listing = self._client.list_objects(attempt, api.CLAIMS, self._namespace)
        self.claims = {item["metadata"]["name"]: item for item in listing.items}
        self._pods = {}

    def look_at_claim(self, name: str) -> None:
        """Look at one claim."""
        found = self._client.find(f"look up claim {self._namespace}/{name}", api.CLAIMS, self._namespace, name)
        if found is None:
            self.claims.pop(name, None)
        else:
            self.claims[name] = found

    def look_at_volumes(self) -> None:
        """Look at the volumes that have our labels."""
        selector = f"{j.NAMESPACE}={self._namespace}"
        listing = self._client.list_objects("list the volumes of returns", api.VOLUMES, selector=selector)
        self.volumes = {item["metadata"]["name"]: item for item in listing.items}

    def volume(self, name: str) -> Object | None:
        """Return a volume, also one without our labels."""
        if name and name not in self.volumes:
            found = self._client.find(f"look up volume {name}", api.VOLUMES, None, name)
            if found is not None:
                self.volumes[name] = found
        return self.volumes.get(name)

    def look_for_pods(self, claims: Iterable[str]) -> None:
        """Look for pods that use these claims, with one list."""
        attempt = f"list pods in namespace {self._namespace}"
        listing = self._client.list_objects(attempt, api.PODS, self._namespace)
        for claim in claims:
            users = [pod for pod in listing.items if pod_words.uses(pod, claim) and pod_words.keeps(pod)]
            self._pods[claim] = tuple(pod_words.describe(pod) for pod in users)

    def users(self, claim: str) -> tuple[str, ...]:
        """Return the pods, in words, that used a claim when they were looked for."""
        return self._pods.get(claim, ())

    def take(self, seen: Mapping[str, Object | None]) -> None:
        """Take over claims as they were last seen; None is one that is gone."""
        for name, item in seen.items():
            if item is None:
                self.claims.pop(name, None)
            else:
                self.claims[name] = item

    def journals(self, claims: Iterable[str] | None = None) -> list[Journal]:
        """Return the unfinished returns of these claims, or of all, one journal for each return.

        Raises:
            StoreError: a journal cannot be read.
        """
        found: dict[tuple[str, str], Journal] = {}
        wanted = None if claims is None else set(claims)
        for volume in sorted(self.volumes.values(), key=lambda each: j.role_of(each) != j.OLD):
            if not _may_concern(volume, wanted):
                continue
            journal = open_journal(volume)
            if journal is not None and (wanted is None or journal.claim in wanted):
                found.setdefault((journal.claim, journal.id), journal)
        return list(found.values())

    def _on_its_way(self, temporary: Object) -> Object | None:
        """Return the volume that was made for a claim and is not bound yet, by the name that provisioners give it."""
        uid = temporary["metadata"]["uid"]
        volume = self.volume(f"pvc-{uid}")
        mine = volume is not None and (volume["spec"].get("claimRef") or {}).get("uid") == uid
        return volume if mine else None

    def scene(self, journal: Journal) -> Scene:
        """Return what is there of one return. It may ask for a volume that is not known yet."""
        claim = self.claims.get(journal.claim)
        temporary = self.claims.get(journal.temporary) if journal.temporary else None
        old = self.volumes.get(journal.old)
        if old is None and steps.has_kept(journal, claim):
            # It has lost our labels: the return was called off while an overtaken run went on with its new volume.
            old = self.volume(journal.old)
        over = old is not None and not (j.id_of(old) == journal.id and j.JOURNAL in objects.annotations_of(old))
        new: Mapping[str, Any] | None = steps.select_new(journal, claim, self.volumes.values(), over)
        if new is None and journal.mode == j.BY_ASIDE:
            new = self.volume(journal.source)
        elif new is None and temporary is not None and objects.status_of(temporary).get("phase") == "Bound":
            new = self.volume(str((temporary.get("spec") or {}).get("volumeName") or ""))
        elif new is None and temporary is not None and old is not None and j.stage_of(old) == j.CALLING_OFF:
            new = self._on_its_way(temporary)
        return Scene(journal, claim, temporary, old, new, self._pods.get(journal.claim))


def _may_concern(volume: Mapping[str, Any], claims: set[str] | None) -> bool:
    """Say whether a volume may carry the journal of one of these claims: only then it has to be readable."""
    text = objects.annotations_of(volume).get(j.JOURNAL)
    return text is not None and (claims is None or any(claim in text for claim in claims))


def going(item: Object) -> Object:
    """Return an object as it is once its removal was asked for."""
    metadata = item["metadata"]
    return {**item, "metadata": {**metadata, "deletionTimestamp": metadata.get("deletionTimestamp") or "now"}}
