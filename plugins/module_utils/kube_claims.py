# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the names of claims, or a selector, to the directories that hold their data. Called by the modules of claims.

Fetches through the door (kube.py) what core/claims.py then judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import kube_resources as api
from .core.claim_names import check_request, missing_claim
from .core.claims import (
    ClaimVolume,
    raise_all,
    resolve_all,
    resolve_claim,
    select_claims,
    volume_name,
)
from .core.errors import RestorePointError
from .core.placement import Node, node_of
from .kube import KubeClient
from .kube_login import KubeError

#: From how many volumes on one list of all volumes is cheaper than a request for each.
_LIST_FROM = 4


def resolve_claims(
    client: KubeClient,
    namespace: str,
    names: Sequence[str] = (),
    selector: str | None = None,
    node_name: str | None = None,
) -> list[ClaimVolume]:
    """Return the directories of claims, in the order of ``names``, else by name.

    One claim is one request and a few volumes are one each; more are one list of claims and one list of volumes.

    Args:
        names: claims; with neither names nor ``selector`` every claim of the namespace is meant.
        node_name: the node on which all of them have to lie, or None to take any.

    Raises:
        InvalidInput, ClaimError (see core/claims.py; every claim at fault is named), KubeError.
    """
    names = check_request(namespace, names, selector)
    claims = select_claims(namespace, _claims(client, namespace, names, selector), names, selector)
    errors: list[RestorePointError] = []
    wanted: set[str] = set()
    for claim in claims:
        try:
            wanted.add(volume_name(claim))
        except RestorePointError as error:
            errors.append(error)
    if len(errors) == len(claims):
        raise_all(errors)
    return resolve_all(claims, _volumes(client, wanted), node_name)


@dataclass(frozen=True)
class Survey:
    """Claims with a directory, those without one and why, and the nodes; None where nodes may not be listed."""

    volumes: tuple[ClaimVolume, ...]
    others: tuple[tuple[str, str, RestorePointError], ...]
    nodes: tuple[Node, ...] | None


def survey_claims(
    client: KubeClient, namespaces: Sequence[str], names: Sequence[str] = (), selector: str | None = None
) -> Survey:
    """Return where the claims of some namespaces lie. A claim without a directory is no failure, but told.

    Raises:
        InvalidInput: a claim that was named is not there. KubeError.
    """
    claims: list[Mapping[str, Any]] = []
    for namespace in dict.fromkeys(namespaces):
        asked = check_request(namespace, names, selector)
        claims += select_claims(namespace, _claims(client, namespace, asked, selector), asked, selector)
    named: list[tuple[Mapping[str, Any], str]] = []
    others: list[tuple[str, str, RestorePointError]] = []
    for claim in claims:
        try:
            named.append((claim, volume_name(claim)))
        except RestorePointError as error:
            others.append((*_names(claim), error))
    there = _volumes(client, {name for _claim, name in named})
    volumes = []
    for claim, name in named:
        try:
            volumes.append(resolve_claim(claim, there.get(name)))
        except RestorePointError as error:
            others.append((*_names(claim), error))
    return Survey(tuple(volumes), tuple(others), _nodes(client))


def _names(claim: Mapping[str, Any]) -> tuple[str, str]:
    return str(claim["metadata"]["namespace"]), str(claim["metadata"]["name"])


def _nodes(client: KubeClient) -> tuple[Node, ...] | None:
    try:
        items = client.list_objects("list the nodes", api.NODES).items
    except KubeError as error:
        if error.status != 403:
            raise
        return None
    return tuple(sorted((node_of(each) for each in items), key=lambda node: node.name))


def _claims(client: KubeClient, namespace: str, names: Sequence[str], selector: str | None) -> list[Any]:
    """Fetch one claim by name, or list those of the namespace that match."""
    if len(names) == 1:
        attempt = f"look up claim {namespace}/{names[0]}"
        found = client.find(attempt, api.CLAIMS, namespace, names[0])
        if found is not None:
            return [found]
        raise missing_claim(namespace, names[0], _existing(client, namespace))
    return _items(client, f"list the claims of namespace {namespace!r}", api.CLAIMS, namespace, selector)


def _existing(client: KubeClient, namespace: str) -> list[str]:
    """Return the claims of a namespace, for a message; none when they may not be listed."""
    try:
        found = _items(client, f"list the claims of namespace {namespace!r}", api.CLAIMS, namespace)
        return [str(each["metadata"]["name"]) for each in found]
    except (KubeError, KeyError, TypeError):
        return []


def _volumes(client: KubeClient, wanted: set[str]) -> dict[str, Any]:
    """Fetch volumes by name; those that do not exist are left out."""
    if len(wanted) >= _LIST_FROM:
        found = _items(client, f"list the volumes of {len(wanted)} claims", api.VOLUMES)
        named = ((each.get("metadata", {}).get("name"), each) for each in found if isinstance(each, dict))
        return {name: each for name, each in named if name in wanted}
    volumes = {}
    for name in sorted(wanted):
        volume = client.find(f"look up volume {name!r}", api.VOLUMES, name=name)
        if volume is not None:
            volumes[name] = volume
    return volumes


def _items(
    client: KubeClient, attempt: str, resource: api.Resource, namespace: str | None = None, selector: str | None = None
) -> list[Any]:
    return list(client.list_objects(attempt, resource, namespace, selector).items)
