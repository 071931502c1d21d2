# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is kept about snapshots, asides, clones and returns: JSON in LV tags. Pure.

LVM keeps tags over renames, activations, reboots and merges, and a tag belongs to the LV's metadata: it is there with
the LV or not at all. A tag may hold ``A-Za-z0-9_+.-/=!:#&`` and 1024 characters (lvm(8)), so a record is written as
base64url, in as many numbered parts as it needs: ``rp.snapshot.1-2.eyJu...``. ``kind`` says what the record is:

- ``snapshot``: name, owner, policy, description, labels; ``of`` is the UUID of the LV that it was taken of;
- ``aside``: the content that a return has set aside; ``of`` is the UUID of the LV that took its place;
- ``clone``: of which snapshot a volume is a clone;
- ``was``: the UUIDs of the LVs in whose place this one came: their snapshots are its own;
- ``return``: which return was made to this volume, when and with which token;
- ``pending``: a change under way. A run that finds it, and holds the lock, completes or undoes that change.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

SNAPSHOT, ASIDE, CLONE, WAS, RETURN, PENDING = "snapshot", "aside", "clone", "was", "return", "pending"
KINDS = (SNAPSHOT, ASIDE, CLONE, WAS, RETURN, PENDING)
_PART = 900
_TAG = re.compile(
    r"rp\.(?P<kind>[a-z]+)\.(?P<id>[0-9a-f]{6})\.(?P<part>\d{1,3})-(?P<parts>\d{1,3})\.(?P<data>[A-Za-z0-9_=-]+)"
)


class DamagedTag(ValueError):
    """Tags that begin as ours do, and do not hold what we write."""


def encode(kind: str, record: Mapping[str, Any]) -> list[str]:
    """Return the tags that hold a record. The same record gives the same tags."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    identity = hashlib.sha256(text).hexdigest()[:6]
    data = base64.urlsafe_b64encode(text).decode("ascii")
    pieces = [data[start : start + _PART] for start in range(0, len(data), _PART)]
    return [f"rp.{kind}.{identity}.{number}-{len(pieces)}.{piece}" for number, piece in enumerate(pieces, 1)]


def is_ours(tag: str) -> bool:
    """Say whether a tag is one of this collection's."""
    return tag.startswith("rp.")


def decode(tags: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the records that tags hold, by kind, in a stable order. Tags of others are passed over.

    Raises DamagedTag for a tag of ours that cannot be read, or a record of which parts are missing.
    """
    parts: dict[tuple[str, str, int], dict[int, str]] = {}
    for tag in tags:
        if not is_ours(tag):
            continue
        found = _TAG.fullmatch(tag)
        if found is None or found["kind"] not in KINDS:
            raise DamagedTag(f"the tag {tag[:60]!r} is none that this version writes")
        key = (found["kind"], found["id"], int(found["parts"]))
        parts.setdefault(key, {})[int(found["part"])] = found["data"]
    records: dict[str, list[dict[str, Any]]] = {}
    for (kind, identity, count), pieces in sorted(parts.items()):
        if sorted(pieces) != list(range(1, count + 1)):
            raise DamagedTag(f"of the tag rp.{kind}.{identity} there are {len(pieces)} parts of {count}")
        records.setdefault(kind, []).append(_record(kind, "".join(pieces[number] for number in sorted(pieces))))
    return records


def _record(kind: str, data: str) -> dict[str, Any]:
    try:
        record = json.loads(base64.b64decode(data, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        raise DamagedTag(f"the tag rp.{kind} cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise DamagedTag(f"the tag rp.{kind} does not hold a record")
    return record


def arguments(add: Iterable[str] = (), remove: Iterable[str] = ()) -> list[str]:
    """Return the arguments of lvcreate and lvchange that add and remove tags."""
    added = [word for tag in add for word in ("--addtag", tag)]
    return added + [word for tag in remove for word in ("--deltag", tag)]
