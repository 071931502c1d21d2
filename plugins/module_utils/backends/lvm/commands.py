# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the tools of LVM: one report, and the commands that change something. Called by the rest of this backend.

Every command answers its own questions (``--yes``), has an empty stdin and a timeout: one that waits for another tool's
lock, or for a disk that does not answer, is stopped and named, and never waited for forever.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ... import process
from ...core.errors import ToolError
from ...lock import held
from .names import mapper_name
from .report import FIELDS, Report, Volume, parse_report

_LIST = (
    "lvs", "--all", "--binary", "--reportformat", "json", "--units", "b", "--nosuffix",
    "--config", 'report/time_format="%s"', "--options", ",".join(FIELDS),
)  # fmt: skip
_SETTING = re.compile(r"([a-z_]+)=(\d+)")
_MERGE_TABLE = re.compile(r"(\S+): \d+ \d+ snapshot-merge .+")
MERGED, MERGING, DEFERRED = "done", "merging", "deferred"
REMEDY = "look at `lvs -a` and the kernel's log, mend what it complains about, and run it again"


@dataclass(frozen=True)
class Lvm:
    """The tools, each with so many seconds of time."""

    timeout: float

    def report(self, vgs: Sequence[str] = ()) -> Report:
        """Return what there is in these volume groups, or in all. Raises ToolError, also where one is missing."""
        attempt = f"list the volumes of {', '.join(vgs)}" if vgs else "list the logical volumes"
        remedy = "name volumes that are there, run as root, and see that no other tool holds LVM's lock"
        answer = process.run([*_LIST, *vgs], timeout=self.timeout, attempt=attempt, remedy=remedy)
        return parse_report(answer.stdout)

    def change(self, program: str, *arguments: str, attempt: str, remedy: str = REMEDY) -> process.Completed:
        """Run a command that changes something. Raises ToolError."""
        return process.run(
            [program, "--yes", *arguments], timeout=self.timeout, attempt=attempt, remedy=remedy, keep=held("lvm")
        )

    def autoactivates(self, path: str) -> bool:
        """Say whether a volume is activated at boot. LVM before 2.03.12 knows no other volumes, and no such field."""
        command = ["lvs", "--noheadings", "--binary", "--options", "lv_autoactivation", path]
        try:
            answer = process.run(command, timeout=self.timeout, attempt=f"look at {path}")
        except ToolError as error:
            if "Unrecognised field" in error.reason:
                return True
            raise
        return answer.stdout.strip() != "0"

    def merging_devices(self) -> frozenset[str]:
        """Return the names (of the device mapper) of the volumes into which the kernel is merging a snapshot now.

        LVM's own fields do not tell a merge under way from one that waits for an activation; the kernel's tables do.
        """
        attempt = "see which merges are under way"
        command = ["dmsetup", "table", "--target", "snapshot-merge"]
        answer = process.run(command, timeout=self.timeout, attempt=attempt)
        names = set()
        for line in answer.stdout.splitlines():
            found = _MERGE_TABLE.fullmatch(line.strip())
            if found:
                names.add(found.group(1))
            elif line.strip() and line.strip() != "No devices found":
                raise ToolError(attempt, f"dmsetup printed {line[:80]!r}", "report it with its version")
        return frozenset(names)

    def merge_state(self, target: Volume, snapshot: Volume) -> str:
        """Return how far a merge is, of which a report told: MERGING, DEFERRED until an activation, or MERGED."""
        if mapper_name(target.vg, target.name) in self.merging_devices():
            return MERGING
        # It may have ended since that report. The next one waits for LVM's lock, so it knows.
        found = self.report([target.vg]).by_uuid(snapshot.uuid)
        return DEFERRED if found is not None and found.merging else MERGED

    def settings(self, names: Sequence[str], profile: str = "") -> dict[str, int]:
        """Return settings of lvm.conf that are numbers, such as activation/monitoring, as they hold (for a profile)."""
        attempt = "read the settings of LVM"
        chosen = ["--metadataprofile", profile] if profile else []
        command = ["lvmconfig", "--typeconfig", "full", *chosen, *(f"activation/{name}" for name in names)]
        answer = process.run(command, timeout=self.timeout, attempt=attempt)
        found: dict[str, int] = {}
        for line in answer.stdout.splitlines():
            match = _SETTING.fullmatch(line.strip())
            if match is None:
                raise ToolError(attempt, f"lvmconfig printed {line[:80]!r}", "report it with the version of LVM")
            found[match.group(1)] = int(match.group(2))
        missing = [name for name in names if name not in found]
        if missing:
            raise ToolError(attempt, f"lvmconfig did not tell {', '.join(missing)}", "report it with its version")
        return found
