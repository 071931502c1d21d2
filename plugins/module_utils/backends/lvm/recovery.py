# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Completes, or undoes, what killed runs have left. Called by the backend, which holds the lock.

Everything that it goes by lies in LVM's own metadata, so it holds over reboots. What is there without a mark is never
touched.
"""

from __future__ import annotations

from ...core.errors import RestorePointError
from . import busy, merging, switching, tags
from .commands import Lvm
from .names import mapper_name
from .report import Report, Volume
from .view import View

CREATE, ASIDE, MERGE = "create", "aside", "merge"


def other_groups(report: Report) -> set[str]:
    """Return the volume groups that have to be looked at as well: calls may span several."""
    wanted: set[str] = set()
    for volume in report.volumes:
        mark = volume.record(tags.PENDING)
        if mark is not None and mark.get("change") == CREATE:
            wanted.update(str(vg) for vg in mark.get("vgs", ()))
    return wanted - set(report.groups)


def recover(lvm: Lvm, report: Report, timeout: float) -> list[str]:
    """Complete or undo what was left, and return what was done, in words. Raises where that cannot be done."""
    view = View(report)
    done: list[str] = []
    for volume in report.volumes:
        mark = volume.record(tags.PENDING)
        if mark is None:
            continue
        try:
            done.append(_settle(lvm, view, volume, str(mark.get("change")), timeout))
        except (KeyError, TypeError, ValueError) as error:
            raise RestorePointError(
                f"recover what an interrupted run left in {volume.path}",
                f"its tags do not say what has to be done ({error!r})",
                f"look at `lvs -o +tags {volume.path}`, and remove the tag rp.pending when all is well",
            ) from error
    done += _complete_replacements(lvm, view)
    _look_after_merges(lvm, report)
    return done


def _settle(lvm: Lvm, view: View, volume: Volume, change: str, timeout: float) -> str:
    attempt = f"recover what an interrupted run left in {volume.path}"
    if change == switching.RETURN:
        return switching.complete_or_undo(lvm, volume, view.report, timeout)
    mark = volume.record(tags.PENDING) or {}
    if change == MERGE:
        if mark["boot"] == busy.boot_id():
            busy.mount_again(mark["mounts"], volume.path, timeout)
        switching.clear(lvm, volume, attempt)
        return f"{volume.path}: mounted again what an interrupted return had unmounted"
    if change == CREATE:
        counts = not view.is_pending(volume)
    elif change == ASIDE:
        snapshot = view.report.by_uuid(str(mark["merge"]))
        counts = snapshot is None or snapshot.merging
    else:
        raise ValueError(change)
    if counts:
        switching.clear(lvm, volume, attempt)
        return f"{volume.path}: completed a snapshot that was interrupted"
    lvm.change("lvremove", volume.path, attempt=attempt)
    return f"{volume.path}: removed a snapshot of a call that was interrupted"


def _complete_replacements(lvm: Lvm, view: View) -> list[str]:
    """Remove what was replaced, and give the new snapshot its name."""
    done = []
    for volume in view.report.volumes:
        record = volume.record(tags.SNAPSHOT)
        if record is None or not record.get("replaces") or view.is_pending(volume):
            continue
        old = view.report.by_uuid(str(record["replaces"]))
        done += complete_replacement(lvm, volume, old, str(record.get("lv")), view.report)
    return done


def complete_replacement(lvm: Lvm, new: Volume, old: Volume | None, final: str, report: Report) -> list[str]:
    """Remove the snapshot that a new one has replaced, and name the new one as it was named. Raises ToolError."""
    done = []
    attempt = f"complete the replacement of {new.vg}/{final}"
    if old is not None:
        lvm.change("lvremove", old.path, attempt=attempt)
        done.append(f"{old.path}: removed a snapshot that was replaced")
    in_the_way = report.find(new.vg, final)
    if ".rp-" in new.name and (in_the_way is None or in_the_way is old):
        lvm.change("lvrename", new.vg, new.name, final, attempt=attempt)
    return done


def _look_after_merges(lvm: Lvm, report: Report) -> None:
    """See to it that merges under way are completed: the daemon that does it may have been killed, or never started."""
    origins = [each for each in report.volumes if each.merging and not each.is_thick_snapshot and not each.is_thin]
    if origins:
        active = lvm.merging_devices()
        for origin in origins:
            if mapper_name(origin.vg, origin.name) in active:
                merging.poll(lvm, origin)
