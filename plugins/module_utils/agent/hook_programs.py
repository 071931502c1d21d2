# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the hooks ``command`` and ``fsfreeze`` do: programs that come and go. Called by `hooks`."""

from __future__ import annotations

import contextlib
import time

from .. import process
from ..core.errors import RestorePointError, ToolError
from ..engine.policy import Hook

REMEDY = "mend what it complains about, and run the policy again"
_THAW_ATTEMPTS = 3


class Lost(ToolError):
    """What was held was let go before its time: what was taken meanwhile is not of one state."""


def before(hook: Hook) -> None:
    """Do what a hook does before the snapshots. Raises ToolError."""
    attempt = f"run the hook {hook.name!r} before the snapshots"
    if hook.kind == "command":
        if hook.before:
            process.run(hook.before, timeout=hook.timeout, attempt=attempt, remedy=REMEDY)
        return
    try:
        done = process.run(
            ["fsfreeze", "--freeze", hook.path], timeout=hook.timeout, attempt=attempt, remedy=REMEDY, ok=(0, 1)
        )
    except RestorePointError:
        # It may have come through, or still do, although it was not waited for.
        with contextlib.suppress(RestorePointError):
            after(hook)
        raise
    if done.rc:
        raise ToolError(attempt, done.stderr.strip()[-500:] or "fsfreeze failed", REMEDY)


def after(hook: Hook, held: object = None) -> None:
    """Do what a hook does after the snapshots. A filesystem that is not frozen counts as thawed. Raises ToolError."""
    attempt = f"run the hook {hook.name!r} after the snapshots"
    if hook.kind == "command":
        if hook.after:
            process.run(hook.after, timeout=hook.timeout, attempt=attempt, remedy=REMEDY)
        return
    for number in range(_THAW_ATTEMPTS):
        try:
            done = process.run(
                ["fsfreeze", "--unfreeze", hook.path], timeout=hook.timeout, attempt=attempt, remedy=REMEDY, ok=(0, 1)
            )
            if done.rc == 0 or "Invalid argument" in done.stderr:
                return
            trouble = done.stderr.strip()[-500:]
        except ToolError as error:
            trouble = error.reason
        time.sleep(0.2 * number)
    raise ToolError(attempt, f"{hook.path} is not thawed: {trouble}", f"run `fsfreeze -u {hook.path}` at once")
