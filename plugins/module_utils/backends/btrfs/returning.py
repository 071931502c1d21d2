# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A return, or a clone, of a subvolume: what stored/returning.py does, and what Btrfs needs beside it.

Subvolumes that are not in the snapshot are moved into the staged copy just before the exchange, and back when it does
not come to that. The default subvolume follows the name. What was made is written down with its transactions, so that a
later run can prove that nothing was written to it since. Called by the backend, and by the recovery of a store.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ... import linux
from ...core.errors import RestorePointError
from ..stored import layout, subvolume
from ..stored.remove import DIRECTORY
from ..stored.returning import RETURN, Fill, Returning, Swap
from ..stored.store import write_json
from . import nested


@dataclass
class SubvolumeReturning(Returning):
    """A return, or a clone, that is under way.

    In ``extra``: ``members``, the paths of the subvolumes that are laid out with it; ``moves``, path to UUID of those
    that are moved over; ``default``, the number of the subvolume that was the default one, if it was this; ``kept``,
    path to the transaction in which what is laid out was last changed; ``made``, path to {uuid, changed, kept} of the
    copies; ``shown``, what the user calls the target.
    """

    def stage(self, fill: Fill) -> None:
        """See the base class."""
        super().stage(fill)
        self._note_made()

    @property
    def _staged(self) -> str:
        return os.path.join(self.staging, self.swaps[0].staged)

    def _note_made(self) -> None:
        """Write down the transactions of what is staged. Nobody else can write to it yet, and it is synced."""
        made = {}
        for path in ("", *self.extra["members"]):
            found = subvolume.show(os.path.join(self._staged, path) if path else self._staged)
            made[path] = {"uuid": found.uuid, "changed": found.changed, "kept": self.extra["kept"][path]}
        self.extra["made"] = made
        self.write()

    # -- the exchange --------------------------------------------------------------------------------------------------

    def swap(self) -> list[str]:
        """See the base class."""
        try:
            if self.extra["moves"]:
                self._move_in()
            warnings = super().swap()
            self._follow()
        except BaseException:
            self.swap_back()
            raise
        return warnings

    def _move_in(self) -> None:
        for path, uuid in self.extra["moves"].items():
            if nested.uuid_at(self.target, path) != uuid:
                raise OSError(2, "this subvolume went away meanwhile", os.path.join(self.target, path))
            nested.move(self.target, self._staged, path)
        # What is written to the returned content from now on belongs to a later transaction, and shows.
        fd = os.open(self.staging, DIRECTORY)
        try:
            linux.syncfs(fd)
        finally:
            os.close(fd)
        self._note_made()

    def _follow(self) -> None:
        """Let the default subvolume be the one that has the name now."""
        if self.extra["default"] is not None:
            subvolume.set_default(self.target)

    def swap_back(self) -> None:
        """See the base class."""
        super().swap_back()
        self._move_out()
        was = self.extra["default"]
        if was is not None and subvolume.default_number(self.target) != was:
            subvolume.set_default(self.target)

    def _move_out(self) -> None:
        """Move what was moved in back to where it was, unless the exchange counts."""
        if self._is_exchanged(self.swaps[0]):
            return
        for path, uuid in reversed(self.extra["moves"].items()):
            if nested.uuid_at(self._staged, path) == uuid:
                nested.move(self._staged, self.target, path)

    # -- the end -------------------------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """See the base class."""
        self._move_out()
        super().abandon()

    def finish(self) -> None:
        """See the base class."""
        if self.kind == RETURN and self._is_exchanged(self.swaps[0]):
            was = self.extra["default"]
            if was is not None and subvolume.default_number(self.target) == was:
                self._follow()  # a run that was killed has not come so far
        super().finish()

    def _remove_staging(self) -> None:
        """Remove what is staged, but never what was moved there: that is nobody's copy."""
        for path, uuid in self.extra["moves"].items():
            if nested.uuid_at(self._staged, path) == uuid:
                raise RestorePointError(
                    self.attempt,
                    f"the subvolume {path} is still in {self._staged}",
                    f"move it back to {os.path.join(self.target, path)}, and run this again",
                )
        super()._remove_staging()

    def _record_return(self) -> None:
        record = {"name": self.snapshot, "sequence": self.sequence, "newest": self.newest, "at": self.at}
        write_json(self.folder.fd, f"{layout.RETURNED}.json", {**record, "made": self.extra["made"]})


def fill_with(members: Sequence[str], stored: dict[str, str], read_only: Sequence[str], staging: str) -> Fill:
    """Return what lays out a snapshot, and those of the subvolumes in it, as one writable tree.

    Args:
        members: the paths of the subvolumes in it that are laid out too, each after the one it lies in.
        stored: where the snapshot of each lies; "" is the one around them.
        read_only: which of them are to be read-only, as their sources were.
        staging: the path of the staging folder.
    """

    def fill(swap: Swap, _unused: int, _owner: tuple[int, int]) -> None:
        staged = os.path.join(staging, swap.staged)
        subvolume.snapshot(stored[""], staged, read_only=False)
        for path in members:
            nested.replace(staged, path, stored[path])
        for path in reversed(read_only):
            subvolume.set_read_only(os.path.join(staged, path))

    return fill


def made_of(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what a record of a return says was made: path to {uuid, changed, kept}."""
    return dict(record.get("made") or {})
