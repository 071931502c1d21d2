# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carries a plan out, step by step. Called by bridge; the kinds of storage beside it make the plans.

A step that fails ends it. What was done stands: it is what was asked for, and the next run goes on from there.
"""

from __future__ import annotations

import contextlib

from .. import process
from ..core.errors import ToolError
from ..lock import held
from . import fstab
from .btrfs import mounted_top
from .disks import loop_of
from .plan import Attached, Inside, Plan, Step, Word

#: Seconds for one step: making a filesystem on a large disk, or growing one, takes a while.
TIMEOUT = 3600.0


def carry_out(plan: Plan, done: list[Step], fstab_path: str = fstab.FSTAB) -> None:
    """Take all steps in their order, and add each to ``done`` once it is. Raises RestorePointError."""
    with contextlib.ExitStack() as stack:
        tops: dict[str, str] = {}

        def word_of(word: Word) -> str:
            if isinstance(word, Inside):
                device = word_of(word.device)
                if device not in tops:
                    tops[device] = stack.enter_context(mounted_top(device))
                return f"{tops[device]}/{word.path}"
            return _attached(word) if isinstance(word, Attached) else word

        for step in plan.steps:
            if step.entry:
                fstab.write(step.entry, fstab_path)
            else:
                argv = [word_of(word) for word in step.argv]
                process.run(argv, timeout=TIMEOUT, attempt=f"{step.action}, for {step.target}", keep=held())
            done.append(step)


def _attached(word: Attached) -> str:
    loop = loop_of(word.path)
    if loop is None:
        raise ToolError(
            f"use {word.path} as a disk", "it has no loop device any more", "see who detached it, and try again"
        )
    return loop
