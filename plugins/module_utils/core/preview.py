# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the keep rules would do to a list of mappings, as a playbook has it. Pure; called by the retention filter.

Each mapping has at least ``name`` and ``created``; what info modules return has these and more (snapshot.as_result).
"""

from __future__ import annotations

import datetime
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .errors import InvalidInput, RestorePointError
from .retention import Decision, Point, RetentionPolicy, decide
from .snapshot import parse_timestamp

_WORDS = {"true": True, "yes": True, "false": False, "no": False}
_UNKNOWN_OWNER = "owner unknown"  # as plan.py says it


@dataclass(frozen=True)
class _Listed:
    """One mapping of the list, read. ``group`` is what one plan is made for: a target, or one owner's part of it."""

    point: Point
    target: tuple[str, str]
    group: tuple[str, ...]


def preview(
    snapshots: Any, policy: RetentionPolicy, now: int, owner: str | None = None, match: Sequence[str] = ()
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return copies of the mappings, in their order, with ``keep`` and ``reason``; and what to warn of.

    With ``owner``, only snapshots of that owner are candidates. Without, each owner's are planned apart, and those
    whose owner is said to be null or empty belong to somebody else. Names that fit a glob of ``match`` are candidates
    in any case. Raises InvalidInput for a list that cannot be read, RestorePointError where max_delete stops the run.
    """
    items = _items(snapshots)
    listed = [_read(index, item, owner, match) for index, item in enumerate(items)]
    _check_names(listed)
    if not items:
        return [], list(decide([], policy, now).warnings)
    decisions: dict[int, Decision] = {}
    warnings: list[str] = []
    refusals: list[str] = []
    for members in _groups(listed).values():
        points = [listed[index].point for index in members]
        plan = decide(points, _policy_for(points, policy, owner), now)
        decisions.update(zip(members, plan.decisions))
        target = listed[members[0]].target[1]
        label = f"{target}: " if target else ""
        warnings.extend(label + warning for warning in plan.warnings)
        if plan.refusal is not None:
            refusals.append(label + plan.refusal)
    if refusals:
        raise RestorePointError(
            "prune these snapshots", "; ".join(refusals), "raise max_delete if so many are meant to go, or keep more"
        )
    results = [
        {**item, "keep": decisions[index].keep, "reason": decisions[index].reason} for index, item in enumerate(items)
    ]
    return results, list(dict.fromkeys(warnings))


def _items(snapshots: Any) -> list[Mapping[str, Any]]:
    if isinstance(snapshots, (str, bytes, Mapping)) or not isinstance(snapshots, Iterable):
        raise InvalidInput(
            "read the snapshots",
            f"they are no list but {type(snapshots).__name__}",
            "give a list of mappings with name and created",
        )
    return list(snapshots)


def _groups(listed: Sequence[_Listed]) -> dict[tuple[str, ...], list[int]]:
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, each in enumerate(listed):
        groups.setdefault(each.group, []).append(index)
    return groups


def _policy_for(points: Sequence[Point], policy: RetentionPolicy, owner: str | None) -> RetentionPolicy:
    # Where nobody asked for an owner, strangers' snapshots alone do not mean that one of ours is missing.
    strangers = owner is None and all(point.foreign is not None for point in points)
    return replace(policy, require_recent=None) if strangers else policy


def _check_names(listed: Sequence[_Listed]) -> None:
    seen: dict[tuple[tuple[str, str], str], int] = {}
    for index, each in enumerate(listed):
        first = seen.setdefault((each.target, each.point.name), index)
        if first != index:
            raise InvalidInput(
                "read the snapshots",
                f"snapshots[{first}] and snapshots[{index}] are both called {each.point.name!r}",
                "give those of different targets their target, and each of one target its own name",
            )


def _read(index: int, item: Any, owner: str | None, match: Sequence[str]) -> _Listed:
    """Read one mapping; every complaint names its place in the list, counted from 0 as Ansible does."""
    try:
        if not isinstance(item, Mapping):
            raise ValueError(f"it is no mapping but {type(item).__name__}")
        name = item.get("name")
        if not isinstance(name, str) or not name:
            raise ValueError("it has no name" if name is None else f"its name is {name!r}, which is no text")
        if item.get("created") is None:
            raise ValueError("it does not say when it was created")
        target = (_word(item, "backend"), _word(item, "target"))
        its_owner = _word(item, "owner")
        foreign = _foreign(item, name, its_owner, owner, match)
        point = Point(
            created=read_moment(item["created"]),
            sequence=_sequence(item),
            name=name,
            ready=_ready(item),
            held=_reason(item, "held"),
            in_use=_reason(item, "in_use"),
            foreign=foreign,
        )
    except ValueError as error:
        remedy = "give it at least a name, and created as ISO 8601 with its offset, such as 2026-11-22T01:30:00Z"
        raise InvalidInput(f"read snapshots[{index}]", str(error), remedy) from None
    return _Listed(point, target, target if owner is not None else (*target, its_owner))


def _foreign(item: Mapping[str, Any], name: str, its_owner: str, owner: str | None, match: Sequence[str]) -> str | None:
    """Return whose a snapshot is if it is not ours to thin out, else None."""
    if any(fnmatch.fnmatchcase(name, glob) for glob in match):
        return None
    ours = its_owner == owner if owner is not None else bool(its_owner) or "owner" not in item
    return None if ours else f"owner {its_owner}" if its_owner else _UNKNOWN_OWNER


def read_moment(value: Any) -> int:
    """Return the seconds since the epoch of an ISO 8601 text or of a datetime, as YAML makes one.

    Raises ValueError for anything else, and for a time without an offset.
    """
    if isinstance(value, datetime.datetime):
        if value.utcoffset() is None:
            raise ValueError(f"{value} does not say its offset from UTC: add Z, or an offset such as +01:00")
        return int(value.timestamp() // 1)
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a time in ISO 8601")
    try:
        return parse_timestamp(value)
    except OverflowError:
        raise ValueError(f"{value!r} is beyond the calendar") from None


def _word(item: Mapping[str, Any], key: str) -> str:
    """Return a text, or a number as text (a guest's id is a good target); empty where there is none."""
    value = item.get(key)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"its {key} is {value!r}, which is no text")
    return str(value)


def _sequence(item: Mapping[str, Any]) -> int:
    extra = item.get("extra")
    value = item.get("sequence", extra.get("sequence") if isinstance(extra, Mapping) else None)
    if value is None:
        return 0
    if isinstance(value, bool) or not re.fullmatch(r"-?[0-9]+", str(value)):
        raise ValueError(f"its sequence is {value!r}, which is no whole number")
    return int(value)


def _reason(item: Mapping[str, Any], key: str) -> str | None:
    """Return why it is held or in use: a text, "" where it only says so, None where it is not."""
    value = item.get(key)
    if value is None or value is False or value == "":
        return None
    if isinstance(value, int):  # True, or a number of holds
        return "" if value else None
    if not isinstance(value, str):
        raise ValueError(f"its {key} is {value!r}, which is neither true or false nor a text")
    verdict = _WORDS.get(value.strip().lower())
    return value if verdict is None else "" if verdict else None


def _ready(item: Mapping[str, Any]) -> bool:
    """Return whether it is ready; a null, as Kubernetes has it at first, means not yet."""
    value = item.get("ready", True)
    if value is None or isinstance(value, bool):
        return bool(value)
    verdict = _WORDS.get(value.strip().lower()) if isinstance(value, str) else None
    if verdict is None:
        raise ValueError(f"its ready is {value!r}, which is neither true nor false")
    return verdict
