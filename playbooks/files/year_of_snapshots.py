# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Take a year of real snapshots in seconds: the engine itself, given the time instead of a clock.

Called by playbooks/demo.yml as ``year_of_snapshots.py TARGET STORE OWNER NOW``; needs nothing but Python. Every night
for a year, and every hour of the last day, a little of TARGET changes and a snapshot of it is taken. Prints a line of
JSON with the numbers.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).absolute().parents[5]))

from ansible_collections.restorepoint.core.plugins.module_utils.backends.hostpath.backend import HostpathBackend
from ansible_collections.restorepoint.core.plugins.module_utils.backends.hostpath.options import (
    HostpathOptions,
    HostTarget,
)
from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import Change, Desired
from ansible_collections.restorepoint.core.plugins.module_utils.core.names import automatic_name
from ansible_collections.restorepoint.core.plugins.module_utils.core.plan import make_plan
from ansible_collections.restorepoint.core.plugins.module_utils.core.run import Run

HOUR = 3600
DAY = 24 * HOUR
FILES = 60


def main(target: str, store: str, owner: str, now: int) -> dict[str, Any]:
    """Take them, and return how many, how long it took, and what they hold."""
    source = random.Random(365)
    _begin(pathlib.Path(target), source)
    moments = [now - day * DAY for day in range(365, 1, -1)] + [now - hour * HOUR for hour in range(24, 0, -1)]
    started = time.monotonic()
    held = 0
    for moment in moments:
        _live(pathlib.Path(target), source)
        held += _take(target, store, owner, moment)
    return {"taken": len(moments), "seconds": round(time.monotonic() - started, 1), "bytes": held}


def _begin(top: pathlib.Path, source: random.Random) -> None:
    for number in range(FILES):
        path = top / f"letters/{number % 4 + 1:02}/letter-{number:03}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.randbytes(20_000))


def _live(top: pathlib.Path, source: random.Random) -> None:
    """Change what a day changes: two letters of all."""
    for path in source.sample(sorted(top.glob("letters/*/*.txt")), 2):
        path.write_bytes(source.randbytes(20_000))


def _take(target: str, store: str, owner: str, moment: int) -> int:
    """Take one snapshot as of that moment, as the module would; return how many bytes its files hold."""
    backend = HostpathBackend([HostTarget(target)], store, HostpathOptions(now=lambda: moment))
    desired = Desired(state="present", name=automatic_name(owner, moment), owner=owner)
    backend.check(desired)
    with backend.session(writing=True):
        plan = make_plan(desired, backend.situations(desired), moment)
        [result] = Run(backend, _no_record, time.monotonic, keep_partial=False).carry_out(plan)
    if result["action"] != "created":
        raise SystemExit(f"expected a new snapshot, and got {result}")
    return int(result["bytes"])


def _no_record(change: Change, outcome: str) -> dict[str, Any]:
    return {}


if __name__ == "__main__":
    os.umask(0o077)
    print(json.dumps(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))))
