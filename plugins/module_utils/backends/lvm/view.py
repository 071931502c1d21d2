# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which volume is what: whose snapshot, an aside, a clone, or half of a change that was killed. Pure.

What a snapshot belongs to is told by UUIDs, never by names: the tags of a snapshot hold the UUID of the volume it was
taken of, and a volume that came in another's place by a return remembers that one's UUID. So renaming a volume loses
nothing, and ``root_myripu`` is no snapshot of ``root``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...core.names import is_aside
from ...core.snapshot import Snapshot, timestamp
from . import tags
from .report import Report, Volume

BACKEND = "lvm"


class View:
    """A report, read with the tags that it holds."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self._complete_groups = {
            record["group"]
            for volume in report.volumes
            if tags.PENDING not in volume.records
            for record in (volume.record(tags.SNAPSHOT),)
            if record and record.get("group")
        }
        self._replaced = {
            record["replaces"]
            for volume in report.volumes
            if not self.is_pending(volume)
            for record in (volume.record(tags.SNAPSHOT),)
            if record and record.get("replaces")
        }

    def is_pending(self, volume: Volume) -> bool:
        """Say whether a volume was made by a run that was killed before that counted.

        The snapshots of one call count from the moment at which the first of them loses its mark.
        """
        pending = volume.record(tags.PENDING)
        return pending is not None and pending.get("group") not in self._complete_groups

    def is_replaced(self, volume: Volume) -> bool:
        """Say whether another snapshot has taken this one's place, and only its removal is left to do."""
        return volume.uuid in self._replaced

    def identity(self, volume: Volume) -> frozenset[str]:
        """Return the UUIDs of a volume and of those in whose place it came."""
        return frozenset([volume.uuid, *(each["uuid"] for each in volume.records.get(tags.WAS, ()) if "uuid" in each)])

    def members(self, target: Volume) -> Iterator[tuple[Volume, Mapping[str, Any] | None]]:
        """Yield the snapshots of a volume, each with its record; None for those that somebody else has taken."""
        identity = self.identity(target)
        for volume in self.report.volumes:
            if volume.vg != target.vg or volume.uuid in identity or self.is_pending(volume):
                continue
            if tags.CLONE in volume.records or tags.ASIDE in volume.records or self.is_replaced(volume):
                continue
            record = volume.record(tags.SNAPSHOT)
            if record is not None:
                if record.get("of") in identity:
                    yield volume, record
            elif volume.origin_uuid in identity and "snapshot" in volume.roles:
                yield volume, None

    def snapshots(self, target: Volume) -> list[tuple[Snapshot, Volume]]:
        """Return the snapshots of a volume, oldest first, each with the volume that it is."""
        known = [(volume, record) for volume, record in self.members(target) if record is not None]
        found = [(_own(target, volume, record), volume) for volume, record in known]
        taken = {snapshot.name for snapshot, _unused in found}
        for volume, record in self.members(target):
            if record is None:
                # A colon is in no name of an LV, nor in one of ours: so this is nobody else's name.
                name = f"lv:{volume.name}" if volume.name in taken else volume.name
                found.append((_foreign(target, volume, name), volume))
        return sorted(found, key=lambda pair: pair[0].order)

    def next_number(self, target: Volume) -> int:
        """Return the number of the next snapshot of a volume."""
        return 1 + max((_number(record) for _unused, record in self.members(target) if record), default=0)

    def asides(self, target: Volume) -> list[tuple[Snapshot, Volume]]:
        """Return what returns have set aside: volumes that this one took the place of, and snapshots taken first."""
        found = []
        for record in target.records.get(tags.WAS, ()):
            volume = self.report.by_uuid(str(record.get("uuid")))
            if volume is not None and record.get("aside"):
                found.append((_aside(target, volume, record), volume))
        identity = self.identity(target)
        for volume in self.report.volumes:
            own = volume.record(tags.ASIDE)
            if own is not None and own.get("of") in identity and not self.is_pending(volume):
                found.append((_aside(target, volume, own), volume))
        return sorted(found, key=lambda pair: pair[0].order)

    def find(self, target: Volume, name: str) -> tuple[Snapshot, Volume] | None:
        """Return the snapshot, or the aside, of that name."""
        for snapshot, volume in (*self.snapshots(target), *self.asides(target)):
            if snapshot.name == name:
                return snapshot, volume
        return None

    def merging(self, target: Volume) -> tuple[Snapshot, Volume] | None:
        """Return the thick snapshot that is being merged into a volume, or waits for it."""
        for snapshot, volume in (*self.snapshots(target), *self.asides(target)):
            if volume.merging and volume.is_thick_snapshot:
                return snapshot, volume
        return None


def as_snapshot(target: Volume, volume: Volume) -> Snapshot:
    """Return one of our own snapshots in the common form."""
    return _own(target, volume, volume.record(tags.SNAPSHOT) or {})


def _own(target: Volume, volume: Volume, record: Mapping[str, Any]) -> Snapshot:
    labels = record.get("labels") or {}
    common = _common(target, volume, str(record.get("name")))
    if volume.is_thick_snapshot:
        common["sequence"] = _number(record)
    return Snapshot(
        **common,
        owner=record.get("owner"),
        policy=record.get("policy"),
        description=str(record.get("description") or ""),
        labels=labels if isinstance(labels, dict) else {},
        in_use=_use(volume),
    )


def _number(record: Mapping[str, Any]) -> int:
    """Return a snapshot's number among those of its volume; 0 for those of before there were any."""
    number = record.get("number")
    return number if isinstance(number, int) else 0


def _foreign(target: Volume, volume: Volume, name: str) -> Snapshot:
    use = _use(volume)
    if use is None and volume.is_thin and volume.active:
        # LVM leaves thin snapshots inactive. One that was activated serves somebody as a volume.
        use = "it is active, and nobody's snapshot that this collection took"
    return Snapshot(**_common(target, volume, name), in_use=use)


def _aside(target: Volume, volume: Volume, record: Mapping[str, Any]) -> Snapshot:
    name = str(record.get("aside") or record.get("name"))
    common = _common(target, volume, name if is_aside(name) else volume.name)
    common["created"] = int(record.get("at") or volume.created)
    common["extra"] = {**common["extra"], "aside": True, "returned_to": record.get("returned_to")}
    return Snapshot(**common, in_use=_use(volume))


def _common(target: Volume, volume: Volume, name: str) -> dict[str, Any]:
    thick = volume.is_thick_snapshot
    extra: dict[str, Any] = {
        "type": "thick" if thick else "thin",
        "lv": volume.name,
        "uuid": volume.uuid,
        "active": volume.active,
        "fill_percent": volume.data_percent,
    }
    if thick:
        extra.update(merging=volume.merging, invalid=volume.invalid, monitored=volume.monitored == "monitored")
    else:
        extra.update(pool=volume.pool)
    fault = why_not_ready(volume)
    if fault is not None:
        extra["fault"] = fault
    return {
        "backend": BACKEND,
        "target": target.path,
        "name": name,
        "created": volume.created,
        "sequence": volume.thin_id,
        "size_bytes": volume.size if thick else None,
        "referenced_bytes": target.size if thick else (volume.used if volume.data_percent is not None else None),
        "ready": fault is None,
        "extra": extra,
    }


def why_not_ready(volume: Volume) -> str | None:
    """Say why a snapshot could not be returned to, or None."""
    if volume.invalid:
        return "it overflowed: it was too small for what was overwritten since, and its content is lost"
    if volume.merge_failed:
        origin = f"{volume.vg}/{volume.origin}"
        how = (
            f"mend the disks that its log names, and activate it anew: `lvchange -an {origin}`, `lvchange -ay {origin}`"
        )
        return f"the kernel has given the merge of it up: {how}"
    if volume.merging:
        return "it is being merged into its origin"
    if volume.health:
        return f"LVM says of it: {volume.health}"
    return None


def _use(volume: Volume) -> str | None:
    if volume.merging:
        return "it is being merged into its origin"
    return f"{volume.path} is open" if volume.is_open else None


def merge_record(target: Volume, name: str) -> Mapping[str, Any] | None:
    """Return the newest record of a merge of the snapshot of that name into a volume."""
    records = [each for each in target.records.get(tags.RETURN, ()) if each.get("how") == "merge"]
    mine = [each for each in records if each.get("name") == name]
    return max(mine, key=lambda each: int(each.get("at") or 0)) if mine else None


def spent_tokens(view: View, target: Volume) -> dict[str, int]:
    """Return each ``once`` token that was used up on a volume, and when.

    The record of a merge is written before the merge is begun: it counts once the snapshot is merging, or gone.
    """
    spent = {}
    for record in target.records.get(tags.RETURN, ()):
        token = record.get("once")
        snapshot = view.report.by_uuid(str(record.get("uuid"))) if record.get("how") == "merge" else None
        if token is not None and (snapshot is None or snapshot.merging):
            spent[str(token)] = int(record.get("at") or 0)
    return spent


def merged_since(record: Mapping[str, Any]) -> str:
    """Say when a return was made that used its snapshot up."""
    return f"the return of {timestamp(int(record.get('at') or 0))} has used it up"
