# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options by which CSI volumes are named in policies, and the backend that they mean.

A policy may name several namespaces; each has a backend of its own, and together they are one. Called by the agent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Callable, Union

from ..backends.csi.backend import CsiBackend
from ..backends.csi.options import CsiOptions, Selection
from ..core.backend import Change, Desired
from ..core.claim_names import check_request
from ..core.errors import InvalidInput
from ..core.several import Member, Several
from ..kube import KubeClient
from ..kube_login import log_in_alone

TARGET_SPEC: dict[str, Any] = {
    "namespace": {"type": "list", "elements": "str", "required": True},
    "pvc": {"type": "list", "elements": "str"},
    "selector": {"type": "str"},
    "kubeconfig": {"type": "path"},
    "context": {"type": "str"},
}

OPTION_SPEC: dict[str, Any] = {
    "snapshot_class": {"type": "str"},
    "deletion_policy": {"type": "str", "choices": ["Delete", "Retain"]},
    "group": {"type": "bool", "default": False},
    "group_snapshot_class": {"type": "str"},
    "timeout": {"type": "int", "default": 300},
    "stop_workloads": {"type": "bool", "default": False},
}

#: Options that lift blockers.
LIFTING = ("stop_workloads",)


class Namespaces(Several):
    """Backends of one namespace each as one. A target says by itself whose it is: ``namespace/claim``."""

    name = "csi"

    def _named(self, label: str, target: str) -> str:
        return target

    def _split(self, target: str) -> tuple[str, str]:
        return target.partition("/")[0], target

    def _desired(self, member: Member, desired: Desired) -> Desired:
        return desired

    def _own(self, member: Member, change: Change, target: str) -> Change:
        return dataclasses.replace(change, target=target)


def backend_of(
    params: Mapping[str, Any], now: Callable[[], int], report: Callable[..., None] | None = None
) -> Union[CsiBackend, Namespaces]:  # noqa: UP007  # Python 3.9
    """Return the backend that the options mean. ``now`` gives seconds since the epoch. Raises InvalidInput."""
    options = _options(params)
    login = {"kubeconfig": params["kubeconfig"], "context": params["context"]}

    def connect(patience: float) -> KubeClient:
        return KubeClient(login, patience=patience, log_in=log_in_alone)

    found = [CsiBackend(connect, selection, options, now=now) for selection in selections_of(params)]
    if len(found) == 1:
        return found[0]
    return Namespaces(Member(each.selection.namespace, each) for each in found)


def selections_of(params: Mapping[str, Any]) -> list[Selection]:
    """Return the claims that are meant, for each namespace once. Raises InvalidInput."""
    found = []
    for namespace in dict.fromkeys(params["namespace"]):
        names = tuple(check_request(namespace, params["pvc"] or (), params["selector"] or None))
        found.append(Selection(namespace, names, params["selector"] or None))
    if not found:
        raise InvalidInput("find the targets", "namespace is empty", "name at least one namespace")
    return found


def _options(params: Mapping[str, Any]) -> CsiOptions:
    if params["timeout"] < 1:
        raise InvalidInput(f"read timeout: {params['timeout']}", "it is too small", "give 1 or more seconds")
    return CsiOptions(
        snapshot_class=params["snapshot_class"],
        deletion_policy=params["deletion_policy"],
        group=params["group"],
        group_snapshot_class=params["group_snapshot_class"],
        timeout=float(params["timeout"]),
        stop_workloads=params["stop_workloads"],
    )
