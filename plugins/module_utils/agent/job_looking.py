# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`restorepoint metrics --jobs`: what became of runs in pods, asked of Kubernetes. Called by `metrics`.

What the Jobs mean is in core/job_runs.py. Those that were seen are kept in the agent's folder, in ``jobs.json``.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from .. import whole_file
from ..core.job_runs import POLICY, added, nothing_seen, standing
from ..kube import KubeClient
from ..kube_login import log_in_alone
from ..kube_resources import CRON_JOBS, JOBS, Resource
from ..lock import FileLock
from .state import State

_PATIENCE = 60.0
#: Returns the objects of a kind that bear the label of policies.
List = Callable[[Resource], Sequence[Mapping[str, Any]]]


def asked_of(namespace: str, timeout: float) -> List:
    """Return what asks the API server, as the pod's account, for at most about so many seconds."""

    def listed(resource: Resource) -> Sequence[Mapping[str, Any]]:
        client = KubeClient({}, timeout=timeout, patience=timeout, log_in=log_in_alone)
        attempt = f"look at the {resource.plural} of namespace {namespace}"
        return list(client.list_objects(attempt, resource, namespace, POLICY).items)

    return listed


def runs(listed: List, state: State) -> dict[str, Any]:
    """Return what the Jobs that there are and were add up to, for each policy.

    Raises KubeError, LockTimeout and OSError.
    """
    path = os.path.join(state.folder, "jobs.json")
    cron_jobs, jobs = listed(CRON_JOBS), listed(JOBS)
    with FileLock(os.path.join(state.folder, "jobs.lock"), _PATIENCE, "keep what became of jobs"):
        kept = added(_kept(path), jobs)
        whole_file.put(path, json.dumps(kept).encode("ascii"), 0o600, f"{path}.new")
    return standing(kept, cron_jobs)


def _kept(path: str) -> dict[str, Any]:
    """Return what is kept; nothing where there is none, or it is no form of ours: it is counted anew then."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        with open(path, encoding="ascii") as stream:
            found = json.load(stream)
        if isinstance(found, dict) and set(found) == set(nothing_seen()):
            return found
    return nothing_seen()
