# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The failures this project can report. Pure: raised by every layer, printed by the bridge and the agent.

An error is one sentence for someone at 3 a.m.: what was attempted, on which target, why it failed (in the tool's own
words) and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .backend import Blocker


class RestorePointError(Exception):
    """Something could not be done.

    Args:
        attempt: what was attempted, as a verb phrase that may name the target: ``take snapshot 'x' of /srv/data``.
        reason: why it failed, in the tool's or the kernel's own words where there are any.
        remedy: what to do next, as an instruction.
    """

    def __init__(self, attempt: str, reason: str, remedy: str) -> None:
        super().__init__(attempt, reason, remedy)
        self.attempt = attempt
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"Cannot {self.attempt}: {self.reason.rstrip('.')}; {self.remedy.rstrip('.')}."


class InvalidInput(RestorePointError):
    """The request itself is wrong. Nothing was looked at and nothing was touched."""


class StoreError(RestorePointError):
    """A store, or something in it, is not what it has to be. Nothing was touched."""


class LockTimeout(RestorePointError):
    """Another run holds the lock, and did not let go in time. Nothing was touched."""


class ToolError(RestorePointError):
    """A program failed, hung, or printed what cannot be parsed."""


class MissingLibrary(RestorePointError):
    """A Python package is not installed. ``library`` is its name, ``traceback`` that of the failed import."""

    def __init__(self, attempt: str, library: str, traceback: str) -> None:
        super().__init__(
            attempt,
            f"the Python package {library} cannot be imported",
            f"install {library} for the Python that runs the module",
        )
        self.library = library
        self.traceback = traceback


class Blocked(RestorePointError):
    """Facts forbid what was asked. Nothing was touched. ``blockers`` holds all of them, for all targets."""

    def __init__(self, attempt: str, blockers: Sequence[Blocker]) -> None:
        self.blockers = tuple(blockers)
        super().__init__(attempt, "; ".join(str(blocker) for blocker in self.blockers), "nothing was changed")


class NotBegun(RestorePointError):
    """A change of a batch was not begun, because another one of it had failed. Its target is as it was."""

    def __init__(self, attempt: str, reason: str) -> None:
        super().__init__(attempt, reason, "see to that one first")
