# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is written into user properties, and how it is read again. Pure.

On snapshots, for people and programs: ``restorepoint:owner``, ``restorepoint:description``, ``restorepoint:labels``.
On datasets, for the runs that follow: the ``once`` tokens that were used, what a return has set aside, and the marks of
changes under way, which the next run completes or takes back.

Text is kept as it is where a line of `zfs list -H` can carry it, and as a JSON string where not. A value may have 8191
bytes (ZAP_MAXVALUELEN with the NUL; seen: 8000 fit, 8192 do not).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...core.errors import InvalidInput, ToolError

PREFIX = "restorepoint:"
OWNER = PREFIX + "owner"
DESCRIPTION = PREFIX + "description"
LABELS = PREFIX + "labels"
#: On datasets: {token: [seconds since the epoch, name of the snapshot]}.
ONCE = PREFIX + "once"
#: The ``once`` token of a return that is under way: [token, snapshot]. Taken off when it has counted.
ONCE_BEGUN = PREFIX + "once-begun"
#: What an aside is (`returning.Aside`).
ASIDE = PREFIX + "aside"
#: A keep_current return is under way here: {id, phase, pools}.
RETURN = PREFIX + "return"
#: It was mounted when that began: "yes", or [mount point, options] for what `zfs mount` would not mount there.
MOUNTED = PREFIX + "mounted"
#: A snapshot of that name is being replaced here: {id, name}.
REPLACING = PREFIX + "replacing"
#: {name of an aside that became the dataset again: seconds since the epoch}.
USED_UP = PREFIX + "used-up"

#: After a return: {guid of the snapshot, written: bytes}. A return itself may leave a block that was written: the one
#: with the head of an intent log that the snapshot had, and the dataset has not (seen after fsync: 1024 bytes).
RETURNED = PREFIX + "returned"

#: What a snapshot's own metadata is.
OF_SNAPSHOTS = (OWNER, DESCRIPTION, LABELS)
MARKS = (RETURN, REPLACING)
LONGEST_VALUE = 8000
#: `zfs` shows this where a property has no value.
NONE = "-"


def encode_text(text: str) -> str:
    """Return a text as a property's value, which `decode_text` turns back."""
    plain = text.isprintable() and text == text.strip() and text not in ("", NONE) and not text.startswith('"')
    return text if plain else json.dumps(text)


def decode_text(value: str) -> str:
    """Return the text of a value. One that somebody set by hand, and that is no JSON string, is the text itself."""
    if value.startswith('"'):
        try:
            decoded = json.loads(value)
        except ValueError:
            return value
        if isinstance(decoded, str):
            return decoded
    return value


def encode_json(value: Any) -> str:
    """Return plain data as a property's value."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def decode_json(value: str, what: str, where: str) -> Any:
    """Return what a value of ours holds. Raises ToolError where it is none of ours."""
    try:
        return json.loads(value)
    except ValueError:
        raise ToolError(
            f"read the property {what} of {where}",
            f"it is not what this collection writes: {value[:200]!r}",
            f"look at it, and remove it with `zfs inherit {what} {where}` if it is not needed",
        ) from None


def labels_of(value: str) -> dict[str, str] | None:
    """Return labels; None for a value that somebody else set."""
    try:
        labels = json.loads(value)
    except ValueError:
        return None
    if not isinstance(labels, dict) or not all(isinstance(each, str) for each in labels.values()):
        return None
    return labels


def snapshot_properties(owner: str | None, description: str | None, labels: Mapping[str, str] | None) -> dict[str, str]:
    """Return the properties that describe a snapshot; what is None is left out. Raises InvalidInput for too much."""
    found: dict[str, str] = {}
    if owner is not None:
        found[OWNER] = owner
    if description is not None:
        found[DESCRIPTION] = _fitting(encode_text(description), "description")
    if labels is not None:
        found[LABELS] = _fitting(encode_json(dict(labels)), "labels")
    return found


def _fitting(value: str, option: str) -> str:
    length = len(value.encode("utf-8", "surrogateescape"))
    if length > LONGEST_VALUE:
        raise InvalidInput(
            f"write down {option}", f"it takes {length} bytes, and ZFS keeps {LONGEST_VALUE}", f"shorten {option}"
        )
    return value


def with_newest(record: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return a record with one more entry, without its oldest ones where it would not fit into a property."""
    entries = [*((each, record[each]) for each in record if each != key), (key, value)]
    while len(entries) > 1 and len(encode_json(dict(entries)).encode()) > LONGEST_VALUE:
        oldest = min(entries[:-1], key=lambda entry: _time(entry[1]))
        entries.remove(oldest)
    return dict(entries)


def _time(value: Any) -> float:
    return float(value[0] if isinstance(value, list) else value)
