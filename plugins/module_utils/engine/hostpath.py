# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options by which directories are named, and the backend that they mean. Claims of Kubernetes are for the bridge.

Called by the bridge and the agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ..backends.hostpath.backend import HostpathBackend
from ..backends.hostpath.options import HostpathOptions, HostTarget
from ..backends.stored.paths import canonical
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
    found = targets_of(params) if targets is None else targets
    return HostpathBackend(found, store_of(params), _options(params, now, report))


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
