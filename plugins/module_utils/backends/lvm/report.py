# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What LVM says there is: the report of one ``lvs``, parsed strictly. Pure.

One call tells of volumes and of their groups, so both are of one moment. ``--binary`` makes every yes-or-no field 1, 0,
or -1 where LVM cannot know (lvmreport(7)). What is not in that form is an error, never "nothing there".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...core.errors import ToolError
from . import tags as tag_records

_TEXT = (
    "vg_name", "lv_uuid", "lv_name", "lv_role", "lv_layout", "segtype", "origin", "origin_uuid", "pool_lv", "lv_tags",
    "lv_active", "lv_health_status", "lv_attr", "lv_when_full", "seg_monitor", "lv_profile",
)  # fmt: skip
_NUMBERS = (
    "lv_size", "chunk_size", "lv_time", "vg_free_count", "vg_extent_size", "vg_missing_pv_count", "max_lv", "lv_count",
)  # fmt: skip
_OPTIONAL_NUMBERS = ("lv_kernel_major", "lv_kernel_minor", "thin_id")
_FLAGS = (
    "lv_merging", "lv_merge_failed", "lv_snapshot_invalid", "lv_suspended", "lv_device_open", "lv_check_needed",
    "lv_skip_activation", "vg_exported",
)  # fmt: skip
_PERCENTAGES = ("data_percent", "metadata_percent")
#: What `lvs -o` is asked for. All of these are in LVM 2.02.107 of 2014 and newer.
FIELDS = (*_TEXT, *_NUMBERS, *_OPTIONAL_NUMBERS, *_FLAGS, *_PERCENTAGES)

_NUMBER = re.compile(r"[0-9]+")
_OPTIONAL_NUMBER = re.compile(r"-1|[0-9]*")
_FLAG = {"1": True, "0": False, "-1": None}
_PERCENTAGE = re.compile(r"([0-9]+(?:\.[0-9]+)?)?")
_ATTRIBUTES = re.compile(r"[A-Za-z-]{9,10}")
_ATTEMPT = "read what logical volumes there are"
_REMEDY = "report it with the version of LVM"


@dataclass(frozen=True)
class Volume:
    """One logical volume. Sizes are in bytes, ``created`` in seconds since the epoch.

    ``device`` is "major:minor", None while it is not active. ``hidden`` are LVM's own, such as a snapshot that is being
    merged. ``data_percent`` is how full a thick snapshot, a thin volume or a pool is, where LVM knows it. ``records``
    are those of tags.py, and ``damage`` says why they cannot be read.
    """

    vg: str
    name: str
    uuid: str
    size: int = 0
    roles: frozenset[str] = frozenset()
    segtype: str = "linear"
    chunk: int = 0
    origin: str = ""
    origin_uuid: str = ""
    pool: str = ""
    created: int = 0
    tags: tuple[str, ...] = ()
    thin_id: int = 0
    active: bool = False
    device: str | None = None
    is_open: bool = False
    suspended: bool = False
    merging: bool = False
    merge_failed: bool = False
    invalid: bool = False
    data_percent: float | None = None
    metadata_percent: float | None = None
    health: str = ""
    check_needed: bool = False
    skip_activation: bool = False
    writable: bool = True
    when_full: str = ""
    monitored: str = ""
    profile: str = ""
    hidden: bool = False
    records: Mapping[str, Any] = field(default_factory=dict, compare=False)
    damage: str | None = None

    @property
    def path(self) -> str:
        """Return what commands call it: vg/lv."""
        return f"{self.vg}/{self.name}"

    @property
    def is_thin(self) -> bool:
        """Whether it lies in a thin pool."""
        return self.segtype == "thin"

    @property
    def is_thick_snapshot(self) -> bool:
        """Whether it is a snapshot with room of its own."""
        return "thicksnapshot" in self.roles

    @property
    def used(self) -> int:
        """How many bytes of it are in use, as far as LVM tells (0.01 % of its size is what it tells apart)."""
        return int(self.size * (self.data_percent or 0.0) / 100)

    def record(self, kind: str) -> Mapping[str, Any] | None:
        """Return the one record of a kind, or None."""
        found = self.records.get(kind)
        return found[0] if found else None


@dataclass(frozen=True)
class Group:
    """One volume group. ``extent`` is in bytes; ``max_lv`` is 0 where the number of LVs is not limited."""

    name: str
    free_extents: int
    extent: int
    missing_pvs: int = 0
    exported: bool = False
    max_lv: int = 0
    lv_count: int = 0


@dataclass(frozen=True)
class Report:
    """Everything one ``lvs`` told."""

    volumes: tuple[Volume, ...]
    groups: Mapping[str, Group]

    def find(self, vg: str, name: str) -> Volume | None:
        """Return the volume of that name, hidden or not."""
        for volume in self.volumes:
            if volume.vg == vg and volume.name == name:
                return volume
        return None

    def by_uuid(self, uuid: str) -> Volume | None:
        """Return the volume of that UUID."""
        for volume in self.volumes:
            if volume.uuid == uuid:
                return volume
        return None


def parse_report(text: str) -> Report:
    """Return what ``lvs`` printed with FIELDS, as JSON, in bytes, with ``--binary``. Raises ToolError."""
    try:
        answer = json.loads(text)
        rows = [row for report in _list(answer, "report") for row in _list(report, "lv")]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ToolError(_ATTEMPT, f"lvs did not answer in the form of its JSON report ({error})", _REMEDY) from error
    volumes: dict[str, Volume] = {}
    groups: dict[str, Group] = {}
    for row in rows:
        values = _checked(row)
        groups.setdefault(values["vg_name"], _group(values))
        # There is a row for each segment; the first tells all that is wanted.
        volumes.setdefault(values["lv_uuid"], _volume(values))
    return Report(tuple(volumes.values()), groups)


def _list(mapping: Any, key: str) -> list[Any]:
    found = mapping[key]
    if not isinstance(found, list):
        raise TypeError(f"{key!r} is no list")
    return found


def _checked(row: Any) -> dict[str, Any]:
    """Return a row with its values as Python has them. Raises ToolError."""
    values: dict[str, Any] = {}
    for name in FIELDS:
        value = row.get(name) if isinstance(row, dict) else None
        if not isinstance(value, str):
            raise _strange(row, name, value)
        values[name] = value
    for name in _NUMBERS:
        values[name] = int(_matching(_NUMBER, row, name))
    for name in _OPTIONAL_NUMBERS:
        found = _matching(_OPTIONAL_NUMBER, row, name)
        values[name] = int(found) if found not in ("", "-1") else None
    for name in _FLAGS:
        if values[name] not in _FLAG:
            raise _strange(row, name, values[name])
        values[name] = _FLAG[values[name]]
    for name in _PERCENTAGES:
        found = _matching(_PERCENTAGE, row, name)
        values[name] = float(found) if found else None
    _matching(_ATTRIBUTES, row, "lv_attr")
    for name in ("vg_name", "lv_uuid", "lv_name"):
        if not values[name].strip("[]"):
            raise _strange(row, name, values[name])
    return values


def _matching(pattern: re.Pattern[str], row: Mapping[str, str], name: str) -> str:
    if not pattern.fullmatch(row[name]):
        raise _strange(row, name, row[name])
    return row[name]


def _strange(row: Any, name: str, value: Any) -> ToolError:
    of = f"{row.get('vg_name')}/{row.get('lv_name')}" if isinstance(row, dict) else "a volume"
    shown = "is missing" if value is None else f"is {str(value)[:80]!r}"
    return ToolError(_ATTEMPT, f"the field {name} of {of} {shown}, which is no value that lvs has for it", _REMEDY)


def _group(values: Mapping[str, Any]) -> Group:
    return Group(
        name=values["vg_name"],
        free_extents=values["vg_free_count"],
        extent=values["vg_extent_size"],
        missing_pvs=values["vg_missing_pv_count"],
        exported=bool(values["vg_exported"]),
        max_lv=values["max_lv"],
        lv_count=values["lv_count"],
    )


def _volume(values: Mapping[str, Any]) -> Volume:
    name = values["lv_name"]
    hidden = name.startswith("[") and name.endswith("]")
    tags = tuple(tag for tag in values["lv_tags"].split(",") if tag)
    records, damage = _records(tags)
    major, minor = values["lv_kernel_major"], values["lv_kernel_minor"]
    return Volume(
        vg=values["vg_name"],
        name=name[1:-1] if hidden else name,
        uuid=values["lv_uuid"],
        size=values["lv_size"],
        roles=frozenset(values["lv_role"].split(",")),
        segtype=values["segtype"],
        chunk=values["chunk_size"],
        origin=values["origin"].strip("[]"),
        origin_uuid=values["origin_uuid"],
        pool=values["pool_lv"].strip("[]"),
        created=values["lv_time"],
        tags=tags,
        thin_id=values["thin_id"] or 0,
        # "active" in LVM 2.03.16, also with --binary; "1" in 2.03.31, where that is a flag as others are.
        active=values["lv_active"] == "1" or values["lv_active"].startswith("active"),
        device=None if major is None or minor is None else f"{major}:{minor}",
        is_open=bool(values["lv_device_open"]),
        suspended=bool(values["lv_suspended"]),
        merging=bool(values["lv_merging"]),
        merge_failed=bool(values["lv_merge_failed"]),
        invalid=bool(values["lv_snapshot_invalid"]),
        data_percent=values["data_percent"],
        metadata_percent=values["metadata_percent"],
        health=values["lv_health_status"],
        check_needed=bool(values["lv_check_needed"]),
        skip_activation=bool(values["lv_skip_activation"]),
        # The field lv_permissions does not tell it of what is not active; the second attribute always does.
        writable=values["lv_attr"][1] != "r",
        when_full=values["lv_when_full"],
        monitored=values["seg_monitor"],
        profile=values["lv_profile"],
        hidden=hidden,
        records=records,
        damage=damage,
    )


def _records(tags: tuple[str, ...]) -> tuple[Mapping[str, Any], str | None]:
    try:
        return tag_records.decode(tags), None
    except tag_records.DamagedTag as error:
        return {}, str(error)
