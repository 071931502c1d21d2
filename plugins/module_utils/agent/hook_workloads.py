# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the hook ``workload`` does: a Deployment or a StatefulSet scaled down, and back to the replicas that it had.

What it had is written on it in the same PATCH that scales it down, with the run's token; so the watchdog, or the next
run, brings it back as well. Somebody who has scaled it up by hand meanwhile is respected. Called by `hooks`.
"""

from __future__ import annotations

from ..backends.csi.workloads import Stopped, Workloads
from ..core.errors import RestorePointError
from ..deadline import Deadline
from ..engine import hook_kinds
from ..engine.policy import Hook
from ..kube import KubeClient
from ..kube_login import log_in_alone
from ..kube_resources import DEPLOYMENTS, STATEFUL_SETS, Resource

_RESOURCES = {"deployment": DEPLOYMENTS, "statefulset": STATEFUL_SETS}


def before(hook: Hook) -> Stopped:
    """Scale it down, and wait until its pods are gone. Raises RestorePointError; then it is as it was."""
    return _workloads(hook).stop_one(*_address(hook))


def after(hook: Hook, held: Stopped | None = None) -> None:
    """Bring it back to the replicas that it had. Raises RestorePointError."""
    workloads = _workloads(hook)
    if held is not None and not held.workloads:
        return  # it had no replicas
    try:
        workloads.start_one(*_address(hook))
    except RestorePointError as error:
        attempt = f"run the hook {hook.name!r} after the snapshots"
        raise RestorePointError(attempt, f"{error.attempt}: {error.reason}", error.remedy) from error


def _address(hook: Hook) -> tuple[Resource, str, str]:
    kind, name = hook_kinds.workload_of(hook.params)
    return _RESOURCES[kind], hook.params["namespace"], name


def _workloads(hook: Hook) -> Workloads:
    login = {"kubeconfig": hook.params["kubeconfig"], "context": hook.params["context"]}
    client = KubeClient(login, patience=float(hook.timeout), log_in=log_in_alone)
    return Workloads(client, f"hook-{hook.token[:32]}", Deadline(hook.timeout))
