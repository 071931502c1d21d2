# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options by which logical volumes are named, and the backend that they mean.

Called by the bridge and the agent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Callable

from ..backends.lvm import sizes
from ..backends.lvm.backend import LvmBackend
from ..backends.lvm.names import parse_volume
from ..backends.lvm.options import LvmOptions, LvmTarget
from ..core.errors import InvalidInput
from ..core.units import parse_duration

TARGET_SPEC: dict[str, Any] = {
    "volume": {"type": "list", "elements": "str"},
    "command_timeout": {"type": "int", "default": 300},
}

OPTION_SPEC: dict[str, Any] = {
    "size": {"type": "str"},
    "data_limit": {"type": "int", "default": 90},
    "metadata_limit": {"type": "int", "default": 80},
    "when_busy": {"type": "str", "choices": ["refuse", "defer"], "default": "refuse"},
    "unmount": {"type": "bool", "default": False},
    "wait": {"type": "bool", "default": True},
    "wait_timeout": {"type": "str", "default": "1h"},
    "lock_timeout": {"type": "int", "default": 60},
}

#: Options that lift blockers.
LIFTING = ("destroy_newer",)

_DM_DEVICE = re.compile(r"/dev/(dm-\d+)")


def backend_of(
    params: Mapping[str, Any], now: Callable[[], int], report: Callable[..., None] | None = None
) -> LvmBackend:
    """Return the backend that the options mean. ``now`` gives seconds since the epoch. Raises InvalidInput."""
    return LvmBackend(targets_of(params), _options(params, now, report))


def targets_of(params: Mapping[str, Any]) -> list[LvmTarget]:
    """Return the volumes that are meant, each once."""
    targets = [LvmTarget(*parse_volume(_resolved(text))) for text in params["volume"]]
    if not targets:
        raise InvalidInput("find the targets", "volume is empty", "name at least one logical volume")
    return list(dict.fromkeys(targets))


def _resolved(text: str) -> str:
    """Return the device mapper's name for another link to it, such as one in /dev/disk; other texts as they are."""
    if not text.startswith("/") or text.startswith("/dev/mapper/"):
        return text
    found = _DM_DEVICE.fullmatch(os.path.realpath(text))
    if found is None:
        return text
    try:
        with open(f"/sys/block/{found.group(1)}/dm/name", encoding="utf-8") as file:
            return f"/dev/mapper/{file.read().strip()}"
    except OSError:
        return text


def _options(params: Mapping[str, Any], now: Callable[[], int], report: Callable[..., None] | None) -> LvmOptions:
    return LvmOptions(
        now=now,
        size=None if params["size"] is None else sizes.parse(params["size"]),
        data_limit=_percentage(params, "data_limit"),
        metadata_limit=_percentage(params, "metadata_limit"),
        when_busy=params["when_busy"],
        unmount=params["unmount"],
        wait=params["wait"],
        wait_timeout=parse_duration(params["wait_timeout"], "wait_timeout"),
        lock_timeout=at_least(params, "lock_timeout", 0),
        command_timeout=at_least(params, "command_timeout", 1),
        progress=report,
    )


def at_least(params: Mapping[str, Any], option: str, least: int) -> int:
    """Return an option that is a number of seconds, not less than ``least``. Raises InvalidInput."""
    value = int(params[option])
    if value < least:
        raise InvalidInput(f"read {option}: {value}", f"it is less than {least}", f"give {least} or more seconds")
    return value


def _percentage(params: Mapping[str, Any], option: str) -> int:
    value = int(params[option])
    if not 0 < value <= 100:
        raise InvalidInput(f"read {option}: {value}", "it is no percentage", "give 1 to 100")
    return value
