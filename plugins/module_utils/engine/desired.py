# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Turns options into what is asked for. No I/O.

Called by the bridge with a module's options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.backend import Desired
from ..core.errors import InvalidInput
from ..core.names import check_owner
from ..core.units import parse_duration

if TYPE_CHECKING:
    from ..core.retention import RetentionPolicy

_NEEDS_NAME = ("present", "absent", "rolled_back", "cloned")


def desired_state(params: Mapping[str, Any], clones: Mapping[str, str], allowed: Sequence[str]) -> Desired:
    """Return what a module's options ask for. ``allowed`` are those of its options that lift blockers.

    Raises InvalidInput.
    """
    state = params["state"]
    if state in _NEEDS_NAME and not params["name"]:
        raise InvalidInput(f"reach the state {state}", "name is not set", "give the snapshot's name")
    max_age = params["max_age"]
    owner = params["owner"] if params["owner"] == "manual" else check_owner(params["owner"])
    labels = params["labels"]
    return Desired(
        state=state,
        name=params["name"] if state in _NEEDS_NAME else None,
        owner=owner,
        policy=None if owner == "manual" else owner,
        description=params["description"],
        labels=None if labels is None else {str(key): str(value) for key, value in labels.items()},
        max_age=None if max_age is None else parse_duration(max_age, "max_age"),
        replace=params["replace"],
        keep_current=params.get("keep_current", False),
        destroy_newer=params.get("destroy_newer", False),
        once=params.get("once"),
        clones=clones,
        allowed=frozenset(option for option in allowed if params[option]),
        retention=_retention(params) if state == "pruned" else None,
        asides=_asides(params) if state == "pruned" else None,
        match=tuple(params["match"]),
    )


def _retention(params: Mapping[str, Any]) -> RetentionPolicy | None:
    if params["keep"] is None and params.get("asides") is not None:
        return None
    from ..core.retention import parse_policy  # long, and nothing but pruning needs it

    return parse_policy(
        params["keep"],
        timezone=params["timezone"],
        min_keep=params["min_keep"],
        min_age=params["min_age"],
        max_delete=params["max_delete"],
        require_recent=params["require_recent"],
    )


def _asides(params: Mapping[str, Any]) -> RetentionPolicy | None:
    if params.get("asides") is None:
        return None
    from ..core.retention import parse_policy

    return parse_policy(params["asides"], timezone=params["timezone"])


def not_negative(params: Mapping[str, Any], option: str) -> int:
    """Return an option that is a number of seconds. Raises InvalidInput for a negative one."""
    value = int(params[option])
    if value < 0:
        raise InvalidInput(f"read {option}: {value}", "it is negative", "give 0 or more seconds")
    return value
