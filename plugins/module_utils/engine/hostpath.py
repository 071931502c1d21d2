# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options by which directories are named, and the backend that they mean.

In policies, claims of Kubernetes may name them; the bridge has its own way to those. Called by bridge and agent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ..backends.hostpath.backend import HostpathBackend
from ..backends.hostpath.options import HostpathOptions, HostTarget
from ..backends.stored.paths import canonical
from ..core.claim_names import check_request
from ..core.claims import only_here
from ..core.errors import InvalidInput
from ..core.units import parse_size
from .desired import not_negative

TARGET_SPEC: dict[str, Any] = {
    "path": {"type": "list", "elements": "path"},
    "store": {"type": "path", "required": True},
    "lock_timeout": {"type": "int", "default": 60},
}

OPTION_SPEC: dict[str, Any] = {
    "paths": {"type": "list", "elements": "str", "default": []},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "ignore_users": {"type": "bool", "default": False},
    "bandwidth_limit": {"type": "str"},
    "checksum": {"type": "bool", "default": False},
    "require_consistent": {"type": "bool", "default": False},
}

#: How policies name claims. The environment variable NODE_NAME says which node this is, where ``node_name`` does not.
CLAIM_SPEC: dict[str, Any] = {
    "namespace": {"type": "list", "elements": "str"},
    "pvc": {"type": "list", "elements": "str"},
    "selector": {"type": "str"},
    "node_name": {"type": "str"},
    "other_nodes": {"type": "str", "choices": ["fail", "skip"], "default": "fail"},
    "kubeconfig": {"type": "path"},
    "context": {"type": "str"},
}

#: Options that lift blockers.
LIFTING = ("ignore_users",)


def backend_of(
    params: Mapping[str, Any],
    now: Callable[[], int],
    report: Callable[..., None] | None = None,
    targets: Sequence[HostTarget] | None = None,
) -> HostpathBackend:
    """Return the backend that the options mean, for these targets where the caller has found them by itself.

    ``now`` gives seconds since the epoch. Raises InvalidInput.
    """
    if targets is None:
        targets = claimed(params) if params.get("namespace") else targets_of(params)
    return HostpathBackend(targets, store_of(params), _options(params, now, report))


def unasked(params: Mapping[str, Any], now: Callable[[], int]) -> HostpathBackend:
    """Return a backend as `backend_of` does, without asking Kubernetes where claims lie: to check options."""
    for namespace in params["namespace"] or ():
        check_request(namespace, params["pvc"] or (), params["selector"] or None)
    return backend_of(params, now, None, () if params["namespace"] else None)


def claimed(params: Mapping[str, Any]) -> list[HostTarget]:
    """Return the directories of claims on this node, each once, as the Kubernetes API tells.

    Raises InvalidInput, ClaimError, KubeError.
    """
    from ..kube import KubeClient
    from ..kube_claims import resolve_claims
    from ..kube_login import log_in_alone

    login = {"kubeconfig": params["kubeconfig"], "context": params["context"]}
    client = KubeClient(login, log_in=log_in_alone)
    node = params["node_name"] or os.environ.get("NODE_NAME") or os.uname().nodename
    skip = params["other_nodes"] == "skip"
    found: dict[str, HostTarget] = {}
    for namespace in dict.fromkeys(params["namespace"]):
        asked = (namespace, params["pvc"] or (), params["selector"] or None)
        volumes = resolve_claims(client, *asked, None if skip else node)
        for volume in only_here(volumes, node)[0] if skip else volumes:
            known = {name: volume.as_result()[name] for name in ("namespace", "pvc", "pv")}
            path = canonical(volume.path, "a volume")
            found[path] = HostTarget(path, {**known, "node": node})
    if not found:  # without targets the whole store would be meant
        where = ", ".join(params["namespace"])
        raise InvalidInput(
            f"find claims of {where} on node {node}", "there are none", "name the node in node_name, if it is another"
        )
    return list(found.values())


def store_of(params: Mapping[str, Any]) -> str:
    """Return the path of the store. Raises InvalidInput."""
    return canonical(params["store"], "a store")


def targets_of(params: Mapping[str, Any]) -> list[HostTarget]:
    """Return the directories that ``path`` names, each once. Raises InvalidInput."""
    paths = dict.fromkeys(canonical(path, "a target") for path in params["path"])
    if not paths:
        raise InvalidInput("find the targets", "path is empty", "name at least one directory")
    return [HostTarget(path) for path in paths]


def _options(params: Mapping[str, Any], now: Callable[[], int], report: Callable[..., None] | None) -> HostpathOptions:
    limit = params["bandwidth_limit"]
    rate = None if limit is None else parse_size(limit, "bandwidth_limit")
    if rate == 0:
        raise InvalidInput("read bandwidth_limit: 0", "nothing could ever be copied", "leave it out for no limit")
    return HostpathOptions(
        now=now,
        exclude=tuple(params["exclude"]),
        paths=tuple(params["paths"]),
        bandwidth_limit=rate,
        checksum=params["checksum"],
        require_consistent=params["require_consistent"],
        ignore_users=params["ignore_users"],
        lock_timeout=not_negative(params, "lock_timeout"),
        progress=report,
    )
