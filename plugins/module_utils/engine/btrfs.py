# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options by which Btrfs subvolumes are named, and the backend that they mean.

Called by the bridge and the agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ..backends.btrfs.backend import BtrfsBackend
from ..backends.btrfs.options import ASIDE, MOVE, BtrfsOptions
from ..backends.stored.paths import canonical
from ..core.errors import InvalidInput
from .desired import not_negative

TARGET_SPEC: dict[str, Any] = {
    "subvolume": {"type": "list", "elements": "path"},
    "store": {"type": "path", "required": True},
    "lock_timeout": {"type": "int", "default": 60},
}

OPTION_SPEC: dict[str, Any] = {
    "recursive": {"type": "bool", "default": False},
    "nested": {"type": "str", "choices": [MOVE, ASIDE], "default": MOVE},
    "ignore_users": {"type": "bool", "default": False},
}

#: Options that lift blockers.
LIFTING = ("ignore_users",)


def backend_of(
    params: Mapping[str, Any], now: Callable[[], int], report: Callable[..., None] | None = None
) -> BtrfsBackend:
    """Return the backend that the options mean. ``now`` gives seconds since the epoch. Raises InvalidInput."""
    options = BtrfsOptions(
        now=now,
        recursive=params["recursive"],
        nested=params["nested"],
        ignore_users=params["ignore_users"],
        lock_timeout=not_negative(params, "lock_timeout"),
        progress=report,
    )
    return BtrfsBackend(targets_of(params), canonical(params["store"], "a store"), options)


def targets_of(params: Mapping[str, Any]) -> list[str]:
    """Return the subvolumes that are meant, each once."""
    paths = list(dict.fromkeys(canonical(path, "a target") for path in params["subvolume"]))
    if not paths:
        raise InvalidInput("find the targets", "subvolume is empty", "name at least one subvolume")
    return paths
