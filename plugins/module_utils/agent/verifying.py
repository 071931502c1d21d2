# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One verify of a policy, with its line in the journal: whoever watches knows when it last was, and how it ended.

Called by `cli`.
"""

from __future__ import annotations

import time
from typing import Any, Callable

from ..core.errors import RestorePointError
from ..engine.policy import Policy
from .running import DONE, FAILED, verify
from .state import State, new_line


def verified(state: State, policy: Policy, now: Callable[[], int]) -> list[dict[str, Any]]:
    """Verify all snapshots of a policy, and note it; return what `verify` does. Raises as it does, after the note."""
    started, begun = now(), time.monotonic()
    results: list[dict[str, Any]] = []
    reason = ""
    try:
        results = verify(policy, None, now)
        wrong = [f"{each['target']} {each['name']}" for each in results if not each["ok"]]
        if not results:
            reason = "there is no snapshot"
        elif wrong:
            reason = f"not as they were taken: {', '.join(wrong[:5])}" + (" and others" if wrong[5:] else "")
    except RestorePointError as error:
        reason = str(error)
        raise
    finally:
        record = {
            **new_line("verify", policy.name, started),
            "outcome": FAILED if reason or not results else DONE,
            "checked": len(results),
            "faults": sum(not each["ok"] for each in results),
            "seconds": round(time.monotonic() - begun, 3),
        }
        state.append({**record, "reason": reason} if reason else record)
    return results
