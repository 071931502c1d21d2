# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Returns to thick snapshots: LVM merges the snapshot into its origin, which uses it up. Called by the backend.

A merge begins at once where nobody has the origin or the snapshot open. Else LVM keeps it until the origin is
activated next, as a rule at a reboot. Once it has begun, the origin shows the content of the snapshot, however long the
kernel goes on copying.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...core.backend import Change, Outcome
from ...core.errors import RestorePointError
from ...core.units import format_duration
from . import tags
from .commands import DEFERRED, MERGED, MERGING, Lvm
from .names import mapper_name
from .options import LvmOptions
from .report import Report, Volume

#: So many records of returns stay on a volume: tokens are for jobs that are started again, not for ever.
KEPT_RECORDS = 16
_POLL_SECONDS = 1.0
#: A merge that has copied everything and that nobody completes is given to LVM's daemon again after so many looks.
_PATIENCE = 5


def how_it_starts(path: str) -> str:
    """Say how a merge that waits is started."""
    return (
        f"it begins when {path} is next activated: reboot, or unmount it, `lvchange -an {path}`, `lvchange -ay {path}`"
    )


def return_record(change: Change, snapshot: Volume, at: int, how: str) -> Mapping[str, Any]:
    """Return the record of a return, for the volume's tags."""
    once = change.arguments.get("once")
    return {"name": change.name, "uuid": snapshot.uuid, "at": at, "once": once, "how": how}


def superfluous(target: Volume, name: str, report: Report) -> list[str]:
    """Return the tags of returns that no longer matter: merges that never were, and the oldest of too many."""
    records = sorted(target.records.get(tags.RETURN, ()), key=lambda each: int(each.get("at") or 0))
    drop = records[: max(0, len(records) + 1 - KEPT_RECORDS)]
    for record in records:
        snapshot = report.by_uuid(str(record.get("uuid")))
        never = record.get("how") == "merge" and snapshot is not None and not snapshot.merging
        told_again = record.get("name") == name and record.get("once") is None
        if never or told_again:
            drop.append(record)
    return [tag for record in drop for tag in tags.encode(tags.RETURN, record)]


def begin(lvm: Lvm, target: Volume, snapshot: Volume, change: Change) -> None:
    """Let LVM begin, or put off, a merge. Raises ToolError."""
    lvm.change(
        "lvconvert", "--merge", "--background", snapshot.path,
        attempt=f"return {target.path} to snapshot {change.name!r}",
        remedy=f"look at `lvs -a {target.vg}` and the kernel's log before anything else is done to it",
    )  # fmt: skip


class Waiting:
    """Waits for merges, and tells how far they are."""

    def __init__(self, lvm: Lvm, options: LvmOptions) -> None:
        self._lvm = lvm
        self._options = options

    def wait(self, merges: Sequence[tuple[Change, Volume, Volume]]) -> list[Outcome]:
        """Wait until merges (change, volume, snapshot) are done, or put off; return what there is to tell of each."""
        deadline = self._options.clock() + self._options.wait_timeout
        outcomes: dict[int, Outcome] = {}
        vgs = sorted({target.vg for _unused, target, _also in merges})
        looks = 0
        while True:
            # In this order: LVM's report waits for its lock, so it tells of a merge that has ended meanwhile.
            active = self._lvm.merging_devices()
            report = self._lvm.report(vgs)
            for index, (change, target, snapshot) in enumerate(merges):
                if index not in outcomes:
                    self._look(
                        outcomes, index, change, report.by_uuid(target.uuid), report.by_uuid(snapshot.uuid), active
                    )
            left = [index for index in range(len(merges)) if index not in outcomes]
            if not left:
                break
            if not self._options.wait or self._options.clock() >= deadline:
                for index in left:
                    outcomes[index] = self._still(merges[index][0])
                break
            looks += 1
            if looks % _PATIENCE == 0:
                for index in left:
                    poll(self._lvm, merges[index][1])
            self._options.sleep(_POLL_SECONDS)
        return [outcomes[index] for index in range(len(merges))]

    def _look(
        self, outcomes: dict[int, Outcome], index: int, change: Change, target: Volume | None, snapshot: Volume | None,
        active: frozenset[str],
    ) -> None:  # fmt: skip
        if target is None:
            outcomes[index] = RestorePointError(
                f"wait for the merge into {change.target}", "the volume is gone", "look at `lvs -a`"
            )
        elif snapshot is None:
            outcomes[index] = {"merge": MERGED, "deferred": False, "reboot_required": False}
        elif snapshot.merge_failed or target.merge_failed or snapshot.invalid:
            outcomes[index] = RestorePointError(
                f"return {change.target} to {change.name!r}",
                "the kernel has given the merge up",
                f"mend the disks that its log names; then {how_it_starts(target.path)}",
            )
        elif mapper_name(target.vg, target.name) not in active:
            outcomes[index] = put_off(target)
        elif self._options.progress is not None:
            fields = {"target": change.target, "name": change.name, "percent_left": snapshot.data_percent}
            self._options.progress("merge", fields)

    def _still(self, change: Change) -> Outcome:
        if not self._options.wait:
            return {"merge": MERGING, "deferred": False, "reboot_required": False}
        limit = format_duration(int(self._options.wait_timeout))
        return RestorePointError(
            f"wait for the merge into {change.target}",
            f"it has not ended within {limit}",
            "it goes on by itself: look at `lvs -a`, or wait longer with wait_timeout",
        )


def put_off(target: Volume) -> Mapping[str, Any]:
    """Return what there is to tell of a merge that waits for an activation."""
    return {
        "merge": DEFERRED,
        "deferred": True,
        "reboot_required": target.is_open,
        "takes_effect": how_it_starts(target.path),
    }


def poll(lvm: Lvm, target: Volume) -> None:
    """Let LVM's daemon look after a merge, if none does: one that was killed would leave it for ever. ToolError."""
    lvm.change("lvchange", "--poll", "y", target.path, attempt=f"complete the merge into {target.path}")
