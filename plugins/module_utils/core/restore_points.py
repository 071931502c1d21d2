# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore points over several hosts: what their snapshots carry, and what is decided when all hosts have told. Pure.

Nothing here knows Ansible. Each host reports (`Report`) what its targets look like; `judge_taking` and
`judge_returning` look at all reports together, and say what each host does next, or all that stands in the way.

The snapshots of a restore point carry labels of ours, and so all that a later run needs to know, wherever it runs:

- `RUN`: the run that took them. Snapshots of one name and two runs are no restore point.
- `HOSTS`: of how many hosts, and of which (a digest): so ``--limit`` does not return a part by accident.
- `UNFINISHED`: some other host may not have its part yet. It goes when all have theirs.
- `RETURNING`: a return to it was begun, with this token, and has not ended everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PREFIX = "restorepoint."
POINT = PREFIX + "point"
RUN = PREFIX + "run"
HOSTS = PREFIX + "hosts"
UNFINISHED = PREFIX + "unfinished"
RETURNING = PREFIX + "returning"
OWN = (POINT, RUN, HOSTS, UNFINISHED, RETURNING)

#: How many faults of one host a message tells in words.
_TOLD = 20


def own_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return those of a snapshot's labels that are ours."""
    return {key: value for key, value in labels.items() if key in OWN}


def users_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return those of a snapshot's labels that are not ours."""
    return {key: value for key, value in labels.items() if key not in OWN}


def digest_of(hosts: Iterable[str]) -> str:
    """Return how many hosts these are, and a digest of their names: ``3:0f1e2d3c4b5a``."""
    names = sorted(set(hosts))
    return f"{len(names)}:{hashlib.sha256(chr(10).join(names).encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Part:
    """One target of one host, and its snapshot of the restore point's name, if there is one.

    ``place`` says where the target lies; two parts of one place and target are the same thing. ``labels`` are those of
    the snapshot that are not ours.
    """

    target: str
    place: str
    exists: bool = False
    run: str | None = None
    hosts: str | None = None
    unfinished: bool = False
    returning: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What a host tells, for those of its targets that are reached in one way.

    ``fault`` says in words why it failed, or was not reached; None where all is well. ``actions`` are what was done, or
    would be, of each change.
    """

    host: str
    fault: str | None = None
    parts: tuple[Part, ...] = ()
    actions: tuple[str, ...] = ()
    changed: bool = False


@dataclass(frozen=True)
class Verdict:
    """What all hosts do next. With ``problems`` they do nothing.

    ``token`` is the run that takes, or the token of the return. ``go``: there is something to do. ``anew``: what is
    there of that name does not count, on any host. ``finish_only``: all parts are there, of a run that died right
    before its end. ``resumed``: an earlier run had begun it.
    """

    problems: tuple[str, ...] = ()
    token: str = ""
    go: bool = False
    anew: bool = False
    finish_only: bool = False
    resumed: bool = False
    notes: tuple[str, ...] = field(default=())


def faults_of(reports: Sequence[Report], missing: Collection[str] = ()) -> list[str]:
    """Return what went wrong, host by host. ``missing`` are hosts that are not in the play any more."""
    found = [
        f"{host}: it failed or was unreachable before, and is not in the play any more" for host in sorted(missing)
    ]
    return found + [f"{each.host}: {each.fault}" for each in reports if each.fault is not None]


def shared_targets(reports: Sequence[Report]) -> list[str]:
    """Return a sentence for each target that is named twice, such as a guest that two hosts name."""
    first: dict[tuple[str, str], str] = {}
    found = []
    for report in reports:
        for part in report.parts:
            other = first.setdefault((part.place, part.target), report.host)
            if other != report.host:
                found.append(f"{report.host}: {part.target} is a target of {other} already; name it on one host only")
    return found


def judge_taking(reports: Sequence[Report], missing: Collection[str], token: str, name: str, replace: bool) -> Verdict:
    """Say what is to be done to have restore point ``name`` on all hosts. ``token`` is a new run's."""
    problems = faults_of(reports, missing) + shared_targets(reports)
    if problems:
        return Verdict(tuple(problems))
    parts = [(report.host, part) for report in reports for part in report.parts]
    there = [(host, part) for host, part in parts if part.exists]
    returning = sorted({host for host, part in there if part.returning})
    if returning:
        # What it would be taken of is half of it the old content, half of it the new.
        remedy = "finish it with restore_point_state: rolled_back"
        return Verdict((f"{', '.join(returning)}: a return to {name!r} has not ended ({remedy})",))
    runs = {part.run for _host, part in there}
    if there and len(there) == len(parts) and len(runs) == 1:
        return _judge_whole(reports, [part for _host, part in there], token)
    if not there:
        return Verdict(token=token, go=bool(parts))
    if all(part.unfinished for _host, part in there):
        return Verdict(token=token, go=True, anew=True, resumed=True, notes=(_died(name, there),))
    if replace:
        return Verdict(token=token, go=True, anew=True)
    return Verdict((_not_whole(name, parts, runs),))


def _judge_whole(reports: Sequence[Report], parts: Sequence[Part], token: str) -> Verdict:
    if any(part.unfinished for part in parts):
        return Verdict(token=parts[0].run or "", go=True, finish_only=True, resumed=True)
    actions = [action for report in reports for action in report.actions]
    made = [action for action in actions if action in ("created", "replaced")]
    changed = any(report.changed for report in reports)
    # A host whose part is too old, or broken, takes it anew; then all have to, to be of one moment.
    return Verdict(token=token, go=changed, anew=bool(made) and len(made) < len(parts))


def _died(name: str, there: Sequence[tuple[str, Part]]) -> str:
    hosts = ", ".join(sorted({host for host, _part in there}))
    return f"a run died before restore point {name!r} was whole; what it left on {hosts} is taken anew"


def _not_whole(name: str, parts: Sequence[tuple[str, Part]], runs: Collection[str | None]) -> str:
    have = sorted({host for host, part in parts if part.exists})
    lack = sorted({host for host, part in parts if not part.exists})
    remedy = "set restore_point_replace to take it anew everywhere, or choose another name"
    if not lack:
        return f"the snapshots {name!r} on {', '.join(have)} are of {len(runs)} different runs ({remedy})"
    return f"{', '.join(have)}: there is a snapshot {name!r} already, but not all of it on {', '.join(lack)} ({remedy})"


def judge_returning(
    reports: Sequence[Report], missing: Collection[str], hosts: str, new_token: str, given: str, partial: bool
) -> Verdict:
    """Say with which token all hosts return, or what stands in the way.

    ``hosts`` is the digest of the hosts that have targets in this play. ``given`` is the caller's token, or empty.
    ``partial`` allows to return only a part of a restore point.
    """
    problems = faults_of(reports, missing) + shared_targets(reports)
    parts = [part for report in reports for part in report.parts if part.exists]
    marks = sorted({part.returning for part in parts if part.returning})
    if not partial:
        problems += _not_one_point(parts, hosts)
    if len(marks) > 1:
        problems.append(
            f"returns with different tokens have not ended: {', '.join(marks)} (finish each with its hosts)"
        )
    elif marks and given and given != marks[0]:
        problems.append(f"a return has not ended (set restore_point_once to {marks[0]}, or leave it out, to finish it)")
    if problems:
        return Verdict(tuple(problems))
    token = given or (marks[0] if marks else new_token)
    go = bool(marks) or any(report.changed for report in reports)
    return Verdict(token=token, go=go, resumed=bool(marks))


def _not_one_point(parts: Sequence[Part], hosts: str) -> list[str]:
    remedy = "set restore_point_partial if that is meant"
    found = []
    if len({part.run for part in parts}) > 1:
        found.append(f"the snapshots were taken by different runs ({remedy})")
    for other in sorted({part.hosts for part in parts if part.hosts} - {hosts}):
        count, now = other.partition(":")[0], hosts.partition(":")[0]
        found.append(f"it was taken of {count} hosts, and these are {now}, or others: is there a limit? ({remedy})")
    return found


def told(attempt: str, problems: Sequence[str], stands: str) -> str:
    """Return the message for several problems: what was attempted, all of them, and what stands."""
    shown = "; ".join(problem.rstrip(".") for problem in problems[:_TOLD])
    more = f"; and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
    return f"Cannot {attempt}: {shown}{more}. {stands}".rstrip()


def spread_of(instants: Iterable[float]) -> float | None:
    """Return how many seconds lie between the first and the last; None where there are less than two."""
    found = sorted(instants)
    return round(found[-1] - found[0], 3) if len(found) > 1 else None


def instants_of(results: Iterable[Mapping[str, Any]], parse: Any) -> list[float]:
    """Return when each snapshot of these results was taken, in seconds since the epoch. ``parse`` reads a timestamp."""
    return [
        float(each.get("instant", parse(each["snapshot"]["created"])))
        for each in results
        if each.get("action") in ("created", "replaced") and isinstance(each.get("snapshot"), Mapping)
    ]
