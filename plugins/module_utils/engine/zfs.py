# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options by which ZFS datasets are named, and the backend that they mean.

Called by the bridge and the agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ..backends.zfs.backend import ZfsBackend
from ..backends.zfs.options import ZfsOptions
from ..core.errors import InvalidInput

TARGET_SPEC: dict[str, Any] = {
    "dataset": {"type": "list", "elements": "str", "required": True},
    "recursive": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 600},
}

OPTION_SPEC: dict[str, Any] = {
    "hold": {"type": "str"},
    "bookmark": {"type": "str"},
    "mountpoint": {"type": "list", "elements": "str", "default": []},
    "properties": {"type": "dict", "default": {}},
    "ignore_users": {"type": "bool", "default": False},
    "lock_timeout": {"type": "int", "default": 60},
}

#: Options that lift blockers.
LIFTING = ("ignore_users", "destroy_newer")


def backend_of(
    params: Mapping[str, Any], now: Callable[[], float], report: Callable[..., None] | None = None
) -> ZfsBackend:
    """Return the backend that the options mean. ``now`` gives seconds since the epoch. Raises InvalidInput."""
    return ZfsBackend(targets_of(params), _options(params, now, report))


def targets_of(params: Mapping[str, Any]) -> list[str]:
    """Return the datasets that are meant, each once. Raises InvalidInput."""
    if not params["dataset"]:
        raise InvalidInput("find the targets", "dataset is empty", "name at least one dataset")
    return list(dict.fromkeys(params["dataset"]))


def _options(params: Mapping[str, Any], now: Callable[[], float], report: Callable[..., None] | None) -> ZfsOptions:
    return ZfsOptions(
        now=now,
        recursive=params["recursive"],
        hold=params["hold"],
        bookmark=params["bookmark"],
        mountpoint=tuple(params["mountpoint"]),
        properties={str(key): _value(value) for key, value in params["properties"].items()},
        ignore_users=params["ignore_users"],
        timeout=positive(params, "timeout"),
        lock_timeout=positive(params, "lock_timeout", least=0),
        progress=report,
    )


def _value(value: Any) -> str:
    """Return a property's value as ZFS takes it: YAML reads ``on`` and ``off`` as truth values."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def positive(params: Mapping[str, Any], option: str, least: int = 1) -> int:
    """Return an option that is a number of seconds, not less than ``least``. Raises InvalidInput."""
    value = int(params[option])
    if value < least:
        raise InvalidInput(f"read {option}: {value}", "that is too little", f"give {least} or more seconds")
    return value
