# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the lines of a journal add up to: how often each command ended how, and when it last did. Pure.

A journal is begun anew from time to time, and its oldest part is thrown away. Counters must not fall then. So what is
thrown away is added to a tally first, and a tally is a plain mapping that JSON can hold::

    {"shop": {"commands": {"run": {"outcomes": {"done": 7}, "attempt": 1795305600, "success": 1795305600,
                                   "succeeded": true, "seconds": 0.8, "faults": 0}},
              "created": 14, "removed": 9, "copied_bytes": 4096, "freed_bytes": 0}}

Called by the agent, for its journal and its metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: What can become of a run, as the journal says it. The metrics know no other.
OUTCOMES = ("done", "unchanged", "failed", "blocked", "busy", "interrupted", "killed")
#: Those after which all is as it should be.
GOOD = ("done", "unchanged")
#: The commands whose runs have a line. ``drill`` is a trial of a return.
COMMANDS = ("run", "create", "prune", "rollback", "verify", "drill", "annotations", "export", "import")
#: What is summed up, and where it stands in a line.
SUMS = ("created", "removed", "copied_bytes", "freed_bytes")


def tally(records: Iterable[Mapping[str, Any]], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the tally of these lines, the oldest first, on top of an earlier one. Others are passed over."""
    found: dict[str, Any] = {policy: _copied(entry) for policy, entry in (before or {}).items()}
    for record in records:
        policy, command, outcome = record.get("policy"), record.get("command"), record.get("outcome")
        started = record.get("started_epoch")
        if not isinstance(policy, str) or command not in COMMANDS or outcome not in OUTCOMES:
            continue
        entry = found.setdefault(policy, empty())
        _count(entry["commands"].setdefault(command, no_runs()), record, outcome, _number(started))
        done = record.get("done")
        done = done if isinstance(done, Mapping) else {}
        for name, value in (
            ("created", _number(done.get("created")) + _number(done.get("replaced"))),
            ("removed", _number(done.get("removed"))),
            ("copied_bytes", _number(record.get("bytes"))),
            ("freed_bytes", _number(record.get("freed_bytes"))),
        ):
            entry[name] += value
    return found


def empty() -> dict[str, Any]:
    """Return the entry of a policy that has never run."""
    return {"commands": {}, **dict.fromkeys(SUMS, 0)}


def no_runs() -> dict[str, Any]:
    """Return what there is of a command that has never run."""
    return {"outcomes": {}, "attempt": 0, "success": 0, "succeeded": False, "seconds": 0.0, "faults": 0}


def _count(found: dict[str, Any], record: Mapping[str, Any], outcome: str, started: int) -> None:
    """Add one run. One that found the policy busy tells nothing of how it stands."""
    found["outcomes"][outcome] = found["outcomes"].get(outcome, 0) + 1
    if outcome == "busy":
        return
    # The line of a run that was killed comes late: it must not pass for the latest one.
    if started >= found["attempt"]:
        seconds = record.get("seconds")
        found["attempt"] = started
        found["succeeded"] = outcome in GOOD
        found["seconds"] = float(seconds) if isinstance(seconds, (int, float)) else 0.0
        found["faults"] = _number(record.get("faults"))
    if outcome in GOOD:
        found["success"] = max(found["success"], started)


def _copied(entry: Mapping[str, Any]) -> dict[str, Any]:
    commands = {
        name: {**no_runs(), **each, "outcomes": dict(each["outcomes"])} for name, each in entry["commands"].items()
    }
    return {"commands": commands, **{name: _number(entry.get(name)) for name in SUMS}}


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
