# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Kubernetes tells of runs of policies: its Jobs and CronJobs, as a tally like that of a journal. Pure.

A run in a pod takes its journal with it. What stays are Jobs, the last few of each CronJob, and when a CronJob last
succeeded. Counters must not fall when a Job goes: so those that were seen are kept, by uid, in a mapping that JSON can
hold. Called by the agent for its metrics; role kubernetes_schedule puts the labels on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .history import empty, no_runs, tally
from .snapshot import parse_timestamp

#: On Jobs and CronJobs: the policy, and which node's directories are taken, where there is one for each node.
POLICY, NODE = "restorepoint.core/policy", "restorepoint.core/node"
_Item = Mapping[str, Any]


def nothing_seen() -> dict[str, Any]:
    """Return what is kept before the first look."""
    return {"seen": [], "tally": {}, "places": {}}


def added(kept: Mapping[str, Any], jobs: Iterable[_Item]) -> dict[str, Any]:
    """Return what was kept with the Jobs that have ended since. ``jobs`` are all that there are."""
    ended = sorted(_ended(jobs), key=lambda each: (each.record["started_epoch"], each.uid))
    new = [each for each in ended if each.uid not in set(kept["seen"])]
    places = {policy: {node: dict(last) for node, last in nodes.items()} for policy, nodes in kept["places"].items()}
    for each in new:
        begun, good = each.record["started_epoch"], each.record["outcome"] == "done"
        last = places.setdefault(each.policy, {}).setdefault(each.node, _no_last())
        if begun >= last["attempt"]:
            last.update(attempt=begun, good=good)
        if good and begun >= last["success"]:
            last.update(success=begun, ended=each.ended)
    counted = tally([each.record for each in new], kept["tally"])
    return {"seen": [each.uid for each in ended], "tally": counted, "places": places}


def standing(kept: Mapping[str, Any], cron_jobs: Iterable[_Item]) -> dict[str, Any]:
    """Return the tally, in which a policy succeeded when it did so on each of its nodes, and at the earliest of these.

    A CronJob says when its last run that succeeded has ended, not when it was begun: that serves where the Job went
    unseen. Nodes without a CronJob, where a policy does not run any more, count for nothing.
    """
    found = tally((), kept["tally"])
    ended: dict[tuple[str, str], int] = {}
    for item in cron_jobs:
        place = _place(item)
        ended[place] = max(ended.get(place, 0), _moment((item.get("status") or {}).get("lastSuccessfulTime")))
    for policy in {policy for policy, _node in ended if policy}:
        lasts = []
        for node, moment in ((node, moment) for (name, node), moment in ended.items() if name == policy):
            last = kept["places"].get(policy, {}).get(node, _no_last())
            if moment > last["ended"]:
                newer = moment > last["attempt"]
                last = {
                    **last,
                    "success": moment,
                    "good": last["good"] or newer,
                    "attempt": max(moment, last["attempt"]),
                }
            lasts.append(last)
        run = found.setdefault(policy, empty())["commands"].setdefault("run", no_runs())
        run["attempt"] = max(run["attempt"], *(each["attempt"] for each in lasts))
        run["success"] = min(each["success"] for each in lasts)
        # Where it was not tried yet, nothing has failed.
        run["succeeded"] = all(each["good"] for each in lasts if each["attempt"])
    return found


class _Run(NamedTuple):
    """A Job that has ended: its uid, whose it is, when it ended, and its line."""

    uid: str
    policy: str
    node: str
    ended: int
    record: dict[str, Any]


def _no_last() -> dict[str, Any]:
    return {"attempt": 0, "good": False, "success": 0, "ended": 0}


def _ended(jobs: Iterable[_Item]) -> Iterator[_Run]:
    """Yield each Job of a policy that has ended."""
    for item in jobs:
        status = item.get("status") or {}
        conditions = {each.get("type"): each for each in status.get("conditions") or () if each.get("status") == "True"}
        end = conditions.get("Complete") or conditions.get("Failed")
        policy, node = _place(item)
        if not policy or end is None:
            continue
        late = end.get("reason") == "DeadlineExceeded"
        begun = _moment(status.get("startTime") or item["metadata"].get("creationTimestamp"))
        ended = _moment(status.get("completionTime") or end.get("lastTransitionTime"))
        record = {
            "command": "run",
            "policy": policy,
            "outcome": "done" if end.get("type") == "Complete" else "killed" if late else "failed",
            "started_epoch": begun,
            "seconds": float(max(0, ended - begun)),
        }
        yield _Run(str(item["metadata"].get("uid")), policy, node, ended, record)


def _place(item: _Item) -> tuple[str, str]:
    labels = item["metadata"].get("labels") or {}
    return str(labels.get(POLICY) or ""), str(labels.get(NODE) or "")


def _moment(text: Any) -> int:
    return parse_timestamp(text) if isinstance(text, str) and text else 0
