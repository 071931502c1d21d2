# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Returns to thin snapshots: a new thin snapshot of the snapshot takes the volume's place. Called by the backend.

LVM's own merge of a thin snapshot leaves the others without an origin (lvm2 issue 193), so it is never used. Instead:

1. A new volume is made of the snapshot, inactive, under a temporary name. Its tags hold everything that a later run
   needs to complete or undo the rest.
2. The old volume is renamed to its aside. From here on the return counts.
3. The new one is renamed to the volume's name, activated if the old one was, and mounted again if it was unmounted.
4. The old one is removed, unless it is to be kept; the mark goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core.errors import RestorePointError
from ...mounts import Mount
from . import busy, tags
from .commands import Lvm
from .report import Report, Volume

RETURN = "return"


@dataclass
class Switch:
    """One return that is being made. ``aside`` is the LV name that the old volume gets."""

    target: Volume
    snapshot: Volume
    lv: str
    aside: str
    keep: bool
    mounts: list[Mount] = field(default_factory=list)
    renamed: bool = False
    placed: bool = False

    @property
    def new_path(self) -> str:
        """Return what commands call the new volume at this moment."""
        return self.target.path if self.placed else f"{self.target.vg}/{self.lv}"

    @property
    def old_path(self) -> str:
        """Return what commands call the old volume at this moment."""
        return f"{self.target.vg}/{self.aside}" if self.renamed else self.target.path


def stage(lvm: Lvm, switch: Switch, report: Report, record: Mapping[str, Any], at: int, aside_name: str) -> None:
    """Make the new volume beside the old one, with everything that was set on that. Raises ToolError."""
    target = switch.target
    attempt = f"return {target.path} to snapshot {record['name']!r}"
    permission = "rw" if target.writable else "r"
    skip = "y" if target.skip_activation else "n"
    marks = [
        *(tag for tag in target.tags if not tags.is_ours(tag)),
        *_memory(target, switch, report, record, at, aside_name),
        *_mark(switch),
    ]
    lvm.change(
        "lvcreate", "--snapshot", "--name", switch.lv, "--activate", "n", "--setactivationskip", skip,
        "--permission", permission, *tags.arguments(marks), switch.snapshot.path,
        attempt=attempt,
        remedy="mend what it complains about, and run it again: nothing was changed",
    )  # fmt: skip
    if not lvm.autoactivates(target.path):
        lvm.change("lvchange", "--setautoactivation", "n", switch.new_path, attempt=attempt)


def _memory(
    target: Volume, switch: Switch, report: Report, record: Mapping[str, Any], at: int, aside_name: str
) -> list[str]:
    """Return the tags by which the new volume knows in whose place it came, and which returns were made."""
    known = {each.uuid for each in report.volumes}
    used = {(each.record(tags.SNAPSHOT) or {}).get("of") for each in report.volumes}
    was = [each for each in target.records.get(tags.WAS, ()) if each.get("uuid") in known | used]
    entry: dict[str, Any] = {"uuid": target.uuid, "at": at, "returned_to": record["name"]}
    if switch.keep:
        entry["aside"] = aside_name
    returns = [each for each in target.records.get(tags.RETURN, ()) if each.get("once") is not None][-15:]
    records = [(tags.WAS, each) for each in [*was, entry]] + [(tags.RETURN, each) for each in [*returns, record]]
    if tags.CLONE in target.records:
        records += [(tags.CLONE, each) for each in target.records[tags.CLONE]]
    return [tag for kind, each in records for tag in tags.encode(kind, each)]


def _mark(switch: Switch) -> list[str]:
    record = {
        "change": RETURN,
        "target": switch.target.name,
        "of": switch.target.uuid,
        "aside": switch.aside,
        "keep": switch.keep,
        "active": switch.target.active,
        "mounts": busy.note(switch.mounts),
        "boot": busy.boot_id(),
    }
    return tags.encode(tags.PENDING, record)


def place(lvm: Lvm, switch: Switch, timeout: float) -> None:
    """Let the new volume take the old one's place. On a failure everything is as it was. Raises ToolError."""
    target = switch.target
    attempt = f"return {target.path}"
    if switch.mounts:
        busy.unmount(switch.mounts, target.path, timeout)
    try:
        lvm.change("lvrename", target.vg, target.name, switch.aside, attempt=attempt)
        switch.renamed = True
        lvm.change("lvrename", target.vg, switch.lv, target.name, attempt=attempt)
        switch.placed = True
        activate(lvm, target, attempt)
        if switch.mounts:
            busy.mount_again(busy.note(switch.mounts), target.path, timeout)
    except BaseException:
        take_back(lvm, switch, timeout)
        raise


def activate(lvm: Lvm, old: Volume, attempt: str) -> None:
    """Activate what now has the name of ``old``, if that one was active."""
    if old.active:
        lvm.change("lvchange", "--activate", "y", "--ignoreactivationskip", old.path, attempt=attempt)


def take_back(lvm: Lvm, switch: Switch, timeout: float) -> None:
    """Give the old volume its place again and remove the new one. Raises ToolError."""
    target = switch.target
    attempt = f"take back the return of {target.path}"
    if switch.placed:
        new = [mount for mount in busy.mounted(_device_of(lvm, target)) if switch.mounts]
        if new:
            busy.unmount(new, target.path, timeout)
        lvm.change("lvrename", target.vg, target.name, switch.lv, attempt=attempt)
        switch.placed = False
    if switch.renamed:
        lvm.change("lvrename", target.vg, switch.aside, target.name, attempt=attempt)
        switch.renamed = False
    if switch.mounts:
        busy.mount_again(busy.note(switch.mounts), target.path, timeout)
    lvm.change("lvremove", f"{target.vg}/{switch.lv}", attempt=attempt)


def _device_of(lvm: Lvm, target: Volume) -> str | None:
    found = lvm.report([target.vg]).find(target.vg, target.name)
    return found.device if found is not None else None


def finish(lvm: Lvm, switch: Switch, new: Volume) -> None:
    """Remove what is not kept, and the mark of a change under way. Raises ToolError."""
    attempt = f"complete the return of {switch.target.path}"
    if not switch.keep:
        lvm.change("lvremove", switch.old_path, attempt=attempt)
    clear(lvm, new, attempt)


def clear(lvm: Lvm, volume: Volume, attempt: str) -> None:
    """Take the mark of a change under way from a volume."""
    marks = pending_tags(volume)
    if marks:
        lvm.change("lvchange", *tags.arguments(remove=marks), volume.path, attempt=attempt)


def pending_tags(volume: Volume) -> list[str]:
    """Return the tags that mark a volume as part of a change under way."""
    return [tag for tag in volume.tags if tag.startswith(f"rp.{tags.PENDING}.")]


def effect(still_mounted: Sequence[str], still_open: bool) -> Mapping[str, Any]:
    """Return when a return takes effect for those who go on using what is set aside."""
    if not still_mounted and not still_open:
        return {"deferred": False, "reboot_required": False}
    root = "/" in still_mounted
    how = "after a reboot" if root else "when it is opened again"
    if still_mounted and not root:
        how = f"when {', '.join(still_mounted)} is unmounted and mounted again"
    return {"deferred": True, "reboot_required": root, "takes_effect": how}


def complete_or_undo(lvm: Lvm, volume: Volume, report: Report, timeout: float) -> str:
    """Complete, or undo, a return that a killed run has left; return what was done, in words. Raises.

    ``volume`` is the new one, with the mark. Nothing is done where somebody else has changed what is in the way.
    """
    mark = volume.record(tags.PENDING) or {}
    target, aside = str(mark["target"]), str(mark["aside"])
    path, attempt = f"{volume.vg}/{target}", f"complete the return of {volume.vg}/{target}"
    old = report.by_uuid(str(mark["of"]))
    there = report.find(volume.vg, target)
    mounts = mark["mounts"] if mark.get("boot") == busy.boot_id() else []
    if there is not None and there is old:
        lvm.change("lvremove", volume.path, attempt=f"undo the return of {path}")
        busy.mount_again(mounts, path, timeout)
        return f"{path}: undid a return that was interrupted before it counted"
    if there is not None and there is not volume:
        raise RestorePointError(
            attempt, f"another volume has that name, and {volume.path} was to get it", "rename one of them"
        )
    if there is None:
        lvm.change("lvrename", volume.vg, volume.name, target, attempt=attempt)
    if mark["active"]:
        lvm.change("lvchange", "--activate", "y", "--ignoreactivationskip", path, attempt=attempt)
    busy.mount_again(mounts, path, timeout)
    if not mark["keep"] and old is not None and old.name == aside:
        lvm.change("lvremove", old.path, attempt=attempt)
    lvm.change("lvchange", *tags.arguments(remove=pending_tags(volume)), path, attempt=attempt)
    return f"{path}: completed a return that was interrupted"
