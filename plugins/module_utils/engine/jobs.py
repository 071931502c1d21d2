# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a scheduler has to know of a policy: when it is due, and what its run needs from the host. Pure.

Called by the filter policy_jobs.
"""

from __future__ import annotations

from typing import Any

from ..core.oncalendar import from_cron
from .policy import Policy, Target

#: Backends and hooks whose programs are known, and need no network: their runs can be confined.
_OWN_BACKENDS = ("zfs", "lvm", "btrfs", "hostpath")
_OWN_HOOKS = ("fsfreeze",)
_CLAIMS = ("pvc", "selector", "namespace", "claims")
_PATHS = ("path", "subvolume", "store")


def job(policy: Policy) -> dict[str, Any]:
    """Return a policy as schedule_layout takes it.

    ``calendar`` has OnCalendar expressions with the time zone; ``hook_seconds`` is how long all before-hooks, or all
    after-hooks, may take; ``paths`` are the directories that a run writes to or returns; ``own_programs`` says that it
    starts no programs but those of its storage, and speaks to no other host.
    """
    moments = [*policy.calendar, *(each for line in policy.cron for each in from_cron(line))]
    paths: list[str] = []
    for target in policy.targets:
        for option in _PATHS:
            value = target.params.get(option)
            paths += [value] if isinstance(value, str) else (value or [])
    return {
        "name": policy.name,
        "description": policy.description,
        "calendar": [f"{each} {policy.timezone}" for each in dict.fromkeys(moments)],
        "timezone": policy.timezone,
        "hook_seconds": sum(hook.timeout for hook in policy.hooks),
        "paths": sorted(set(paths)),
        "own_programs": all(_own(target) for target in policy.targets)
        and all(hook.kind in _OWN_HOOKS for hook in policy.hooks),
    }


def _own(target: Target) -> bool:
    """Say whether a target needs no network: directories that are claims of Kubernetes are looked up over its API."""
    claims = any(target.params.get(option) for option in _CLAIMS)
    return target.backend in _OWN_BACKENDS and not claims
