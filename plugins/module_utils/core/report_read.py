# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads a report that another host has made: nothing of it is believed that has not the form of one. Pure.

Called by the filters, before they show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import InvalidInput
from .report import FORMAT
from .report_words import LEVELS
from .snapshot import parse_timestamp


class _Moment:
    """A time in ISO 8601."""


class _Level:
    """One of the levels."""


class _Optional:
    """What is of that form, or null."""

    def __init__(self, form: Any) -> None:
        self.form = form


_NUMBER = (int, float)
_SNAPSHOT = {
    "name": str, "created": _Moment, "owner": _Optional(str), "whose": str, "ready": bool, "fault": str,
    "held": _Optional(str), "in_use": _Optional(str), "size_bytes": _Optional(int), "parent": _Optional(str),
    "description": str, "keep": bool, "reason": str,
}  # fmt: skip
_ASIDE = {"name": str, "created": _Moment, "size_bytes": _Optional(int)}
_TARGET = {
    "backend": str, "target": str, "status": _Level, "counts": {"policy": int, "manual": int, "other": int},
    "newest": _Optional(_Moment), "oldest": _Optional(_Moment), "size_bytes": int, "size_unknown": int,
    "not_ready": int, "held": int, "in_use": int, "overdue": int, "ahead": int, "fill": _Optional(_NUMBER),
    "keep": [{"rule": str, "expected": _Optional(int), "present": int}], "snapshots": [_SNAPSHOT], "omitted": int,
    "removals": int, "notes": [str], "asides": [_ASIDE],
}  # fmt: skip
_RUN = {
    "attempt": _Optional(_Moment), "success": _Optional(_Moment), "succeeded": bool, "seconds": _NUMBER, "faults": int,
}  # fmt: skip
_FAILURE = {
    "at": _Moment, "command": str, "outcome": str, "reason": str, "targets": [{"target": str, "reason": str}],
}  # fmt: skip
_POLICY = {
    "name": str, "description": str, "status": _Level, "schedule": [str], "timezone": str, "due": _Optional(_Moment),
    "keep": {str: (int, str)}, "last": {str: _RUN},
    "totals": {"created": int, "removed": int, "copied_bytes": int, "freed_bytes": int}, "failures": [_FAILURE],
    "backends": [{"backend": str, "up": bool, "reason": str, "seconds": _NUMBER}], "targets": [_TARGET],
    "target_count": int, "snapshot_count": int,
}  # fmt: skip
_REPORT = {
    "format": int, "host": str, "generated": _Moment, "seconds": _NUMBER, "status": _Level, "summary": str,
    "problems": [{"level": _Level, "kind": str, "policy": str, "backend": str, "target": str, "text": str}],
    "policies": [_POLICY],
    "storages": [
        {"backend": str, "storage": str, "part": str, "fill": _NUMBER, "size_bytes": int, "status": _Level}
    ],
}  # fmt: skip


def understood(data: Any) -> dict[str, Any]:
    """Return a report with all that belongs to one, and nothing else. Raises InvalidInput for what is none."""
    attempt = "read the report"
    remedy = "let the agent of that host and this collection be of the same release"
    if not isinstance(data, Mapping):
        raise InvalidInput(attempt, "it is no mapping", remedy)
    if data.get("format") != FORMAT:
        raise InvalidInput(attempt, f"its format is {data.get('format')!r}, and {FORMAT} is understood here", remedy)
    try:
        found: dict[str, Any] = _read(data, _REPORT, "report")
    except ValueError as error:
        raise InvalidInput(attempt, str(error), remedy) from None
    return found


def _read(data: Any, form: Any, place: str) -> Any:
    """Return what there is of that form. Raises ValueError with the place of what is not."""
    if isinstance(form, _Optional):
        return None if data is None else _read(data, form.form, place)
    if isinstance(form, list):
        if not isinstance(data, (list, tuple)):
            raise ValueError(f"{place} is no list")
        return [_read(each, form[0], f"{place}[{number}]") for number, each in enumerate(data)]
    if isinstance(form, dict):
        return _mapping(data, form, place)
    return _value(data, form, place)


def _mapping(data: Any, form: Mapping[Any, Any], place: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ValueError(f"{place} is no mapping")
    if set(form) == {str}:
        return {str(key): _read(value, form[str], f"{place}.{key}") for key, value in data.items()}
    missing = sorted(key for key in form if key not in data)
    if missing:
        raise ValueError(f"{place} lacks {', '.join(missing)}")
    return {key: _read(data[key], each, f"{place}.{key}") for key, each in form.items()}


def _value(data: Any, form: Any, place: str) -> Any:
    if form in (_Moment, _Level):
        if not isinstance(data, str):
            raise ValueError(f"{place} is no text")
        text = str(data)
        if form is _Level and text not in LEVELS:
            raise ValueError(f"{place} is {text!r}, and has to be one of {', '.join(LEVELS)}")
        if form is _Moment:
            parse_timestamp(text)
        return text
    kinds = form if isinstance(form, tuple) else (form,)
    if isinstance(data, bool):
        if bool in kinds:
            return data
    else:
        for kind in kinds:
            # Ansible has kinds of text and numbers of its own: they are made plain.
            if isinstance(data, kind):
                return kind(data)
    raise ValueError(f"{place} is {data!r:.40}, and has to be {' or '.join(kind.__name__ for kind in kinds)}")
