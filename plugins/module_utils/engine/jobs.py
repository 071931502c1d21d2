# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a scheduler has to know of a policy: when it is due, and what its run needs from the host. Pure.

Called by the filter policy_jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    starts no programs but those of its storage, and speaks to no other host. ``drill`` and ``export`` say the same of
    a policy's drill and export; None where it has none.
    """
    return {
        "name": policy.name,
        "description": policy.description,
        "calendar": _calendar(policy, policy.calendar, policy.cron),
        "timezone": policy.timezone,
        "hook_seconds": sum(hook.timeout for hook in policy.hooks),
        "paths": _paths(policy),
        "own_programs": _own_targets(policy) and all(hook.kind in _OWN_HOOKS for hook in policy.hooks),
        "drill": _drill(policy),
        "export": _export(policy),
    }


def _drill(policy: Policy) -> dict[str, Any] | None:
    rules = policy.drill
    if rules is None:
        return None
    return {
        "calendar": _calendar(policy, policy.drill_schedule.calendar, policy.drill_schedule.cron),
        "paths": sorted({*_paths(policy), *([rules.scratch] if rules.scratch else [])}),
        "own_programs": _own_targets(policy) and not rules.command,
    }


def _export(policy: Policy) -> dict[str, Any] | None:
    """Say it of an export. One of ours is confined, but for the network and for the mounts that restic reads from."""
    if not policy.exports:
        return None
    places = {each.params.get("path") or each.params.get("repository") or "" for each in policy.exports}
    return {
        "calendar": _calendar(policy, policy.export_schedule.calendar, policy.export_schedule.cron),
        "paths": sorted({*_paths(policy), *(each for each in places if each.startswith("/"))}),
        # rclone is a program of its own, with a configuration of its own that it writes to.
        "own_programs": _own_targets(policy)
        and not any(each.params.get("password_command") for each in policy.exports)
        and not any(each.startswith("rclone:") for each in places),
    }


def _calendar(policy: Policy, calendar: Sequence[str], cron: Sequence[str]) -> list[str]:
    moments = [*calendar, *(each for line in cron for each in from_cron(line))]
    return [f"{each} {policy.timezone}" for each in dict.fromkeys(moments)]


def _paths(policy: Policy) -> list[str]:
    paths: list[str] = []
    for target in policy.targets:
        for option in _PATHS:
            value = target.params.get(option)
            paths += [value] if isinstance(value, str) else (value or [])
    return sorted(set(paths))


def _own_targets(policy: Policy) -> bool:
    return all(_own(target) for target in policy.targets)


def _own(target: Target) -> bool:
    """Say whether a target needs no network: directories that are claims of Kubernetes are looked up over its API."""
    claims = any(target.params.get(option) for option in _CLAIMS)
    return target.backend in _OWN_BACKENDS and not claims
