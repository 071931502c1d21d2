# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds out which owners of a claim are gone: Kubernetes removes a claim whose owners are. Called by swap.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .... import kube_resources as api
from ....kube import KubeClient
from ....kube_login import KubeError

Owner = Mapping[str, Any]


class Owners:
    """Looks owners up, each with one request, and one more for each kind. What it may not see counts as there."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._kinds: dict[tuple[str, str], api.Resource | None] = {}

    def gone(self, owners: Sequence[Owner]) -> list[Owner]:
        """Return those of the owners that are not there any more.

        Raises:
            KubeError: the API cannot be asked.
        """
        return [owner for owner in owners if not self._alive(owner)]

    def _alive(self, owner: Owner) -> bool:
        attempt = f"look up {owner['kind']} {owner['name']}, which owns a claim"
        try:
            kind = (str(owner["apiVersion"]), str(owner["kind"]))
            if kind not in self._kinds:
                self._kinds[kind] = self._client.find_kind(attempt, *kind)
            resource = self._kinds[kind]
            if resource is None:
                return True  # the kind is not served at the moment: the garbage collector does not act on that either
            found = self._client.get(attempt, resource, self._namespace if resource.namespaced else None, owner["name"])
        except KubeError as error:
            if error.status == 404:
                return False
            if error.status == 403:
                return True
            raise
        return bool(found["metadata"].get("uid") == owner.get("uid"))
