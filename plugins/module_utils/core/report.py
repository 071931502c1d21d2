# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One report of a host: what there is of each policy and target, what stays and why, and what is wrong. Pure.

A report is plain data that JSON can hold (docs/report.md lists it), so that a host can make it and another one show it.
What is wrong has the thresholds of the alerts in roles/monitoring, but for what only a history can tell.
Called by the agent. `report_text` and `report_page` show what is made here; `report_read` checks what another made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .backend import Desired, Situation
from .history import GOOD, empty
from .metrics import Facts, Look, Watched
from .plan import point
from .report_words import CRITICAL, OK, UNKNOWN, WARNING, clock, several, span, worst
from .retention import ALL, RetentionPolicy, decide
from .snapshot import Snapshot, timestamp
from .survey import MANUAL, OTHER, OWN, Survey

#: The number of this form. Another one is not understood.
FORMAT = 1
#: So many snapshots of one target are listed, the newest; so many in the whole report, and of each target a few.
LISTED, LISTED_IN_ALL, LISTED_AT_LEAST = 500, 5000, 10
#: So many targets of one policy are listed, those with something wrong first.
TARGETS = 500
#: So many times the same is said of different targets of one policy, and so many failed runs of a policy are told.
SAID, FAILURES = 20, 5
#: Commands whose last run is told; those of the first kind are work, those of the second prove what it made.
WORK, PROOFS = ("run", "create", "prune", "rollback", "export"), ("verify", "drill")

_HOUR, _DAY = 3600, 86400
#: A run that is about to begin is not missed, as the alerts have it; and what is late by so much is.
_BEFOREHAND, _MISSED_AFTER, _PRUNED_AFTER = 300, _HOUR, 2 * _HOUR
_RECENT, _PROVEN_WITHIN, _SKEW = 26 * _HOUR, 35 * _DAY, 60
_OFTEN, _OFTEN_WITHIN = 3, 6 * _HOUR
_EXPORTED_WITHIN, _EXPORTED_AFTER = 8 * _DAY, 6 * _HOUR
_SNAPSHOT_FULL, _FULL, _METADATA_FULL = 0.8, 0.9, 0.8


@dataclass(frozen=True)
class Known:
    """What a report tells of a policy beside what the metrics know of it.

    ``schedule`` are its lines. ``records`` are the lines of the journal that are of it, the oldest first.
    """

    description: str = ""
    schedule: Sequence[str] = ()
    timezone: str = "UTC"
    retention: RetentionPolicy = field(default_factory=RetentionPolicy)
    records: Sequence[Mapping[str, Any]] = ()


# -- what a look tells ------------------------------------------------------------------------------------------------


def detail(
    situation: Situation, owner: str, retention: RetentionPolicy, match: Sequence[str], now: int
) -> dict[str, Any]:
    """Return what there is of one target, the newest first, and what becomes of each if the policy pruned now.

    Args:
        situation: what the backend says is there.
        owner: the policy's name.
        retention, match: its keep rules, and what else than its own they apply to.
        now: seconds since the epoch.
    """
    desired = Desired(state="pruned", owner=owner, match=tuple(match))
    plan = decide([point(desired, each, True) for each in situation.snapshots], retention, now)
    together = sorted(zip(situation.snapshots, plan.decisions), key=lambda each: each[0].order, reverse=True)
    listed = [
        {**_shown(snapshot, owner), "keep": decision.keep, "reason": decision.reason}
        for snapshot, decision in together[:LISTED]
    ]
    return {
        "snapshots": listed,
        "omitted": len(together) - len(listed),
        "removals": sum(not each.keep for each in plan.decisions),
        "notes": [plan.refusal] if plan.refusal else [each for each in plan.warnings if together],
        "asides": [
            {"name": each.name, "created": timestamp(each.created), "size_bytes": each.size_bytes}
            for each in sorted(situation.asides, key=lambda each: each.order, reverse=True)[:LISTED]
        ],
    }


def _shown(snapshot: Snapshot, owner: str) -> dict[str, Any]:
    whose = {owner: OWN, "manual": MANUAL}.get(snapshot.owner or "", OTHER)
    fault = str(snapshot.extra.get("fault") or "") or "it is not ready"
    return {
        "name": snapshot.name,
        "created": timestamp(snapshot.created),
        "owner": snapshot.owner,
        "whose": whose,
        "ready": snapshot.ready,
        "fault": "" if snapshot.ready else fault,
        "held": snapshot.held,
        "in_use": snapshot.in_use,
        "size_bytes": snapshot.size_bytes,
        "parent": snapshot.parent,
        "description": snapshot.description,
    }


# -- the report -------------------------------------------------------------------------------------------------------


@dataclass
class _Problems:
    """What is wrong, in the order in which it is found."""

    found: list[dict[str, Any]] = field(default_factory=list)

    def add(self, level: str, kind: str, text: str, policy: str = "", target: tuple[str, str] = ("", "")) -> None:
        backend, name = target
        entry = {"level": level, "kind": kind, "policy": policy, "backend": backend, "target": name, "text": text}
        self.found.append(entry)

    def bounded(self) -> list[dict[str, Any]]:
        """Return the worst first, and of one kind of one policy a few, and how many more there are."""
        counts: dict[tuple[str, str, str], int] = {}
        shown, more = [], {}
        for each in self.found:
            key = (each["level"], each["kind"], each["policy"])
            counts[key] = counts.get(key, 0) + 1
            if counts[key] <= SAID:
                shown.append(each)
            else:
                text = f"The same holds for {several(counts[key] - SAID, 'more target')} of this policy."
                more[key] = {**each, "backend": "", "target": "", "text": text}
        order = {CRITICAL: 0, UNKNOWN: 1, WARNING: 2}
        return sorted([*shown, *more.values()], key=lambda each: order[each["level"]])

    def level(self, policy: str, target: tuple[str, str] | None = None) -> str:
        return worst(
            each["level"]
            for each in self.found
            if each["policy"] == policy and target in (None, (each["backend"], each["target"]))
        )


def report(host: str, facts: Facts, known: Mapping[str, Known], troubles: Sequence[str] = ()) -> dict[str, Any]:
    """Return the report of a host.

    Args:
        host: how it is called.
        facts: what the metrics are made of; the looks have details.
        known: what else there is to tell of each policy, by its name.
        troubles: why policies or journal could not be read.
    """
    problems = _Problems()
    for trouble in troubles:
        kind = "journal" if facts.sound else "policies"
        problems.add(UNKNOWN, kind, _sentence(trouble))
    policies = [_policy(each, known.get(each.name, Known()), facts, problems) for each in facts.policies]
    storages = _storages(facts.looks, problems)
    _share(policies)
    status = worst(each["level"] for each in problems.found)
    told = problems.bounded()
    return {
        "format": FORMAT,
        "host": host,
        "generated": timestamp(facts.now),
        "seconds": round(facts.seconds, 3),
        "status": status,
        "summary": _summary(told, policies),
        "problems": told,
        "policies": sorted(policies, key=lambda each: (_rank(each["status"]), each["name"])),
        "storages": storages,
    }


def without(host: str, generated: str, reason: str, kind: str) -> dict[str, Any]:
    """Return the report of a host that has given none: its ``kind`` is ``unreachable`` or ``no-report``."""
    problems = _Problems()
    problems.add(UNKNOWN, kind, _sentence(reason))
    return {
        "format": FORMAT,
        "host": host,
        "generated": generated,
        "seconds": 0.0,
        "status": UNKNOWN,
        "summary": problems.found[0]["text"],
        "problems": problems.found,
        "policies": [],
        "storages": [],
    }


def _rank(level: str) -> int:
    return (CRITICAL, UNKNOWN, WARNING, OK).index(level)


def _sentence(text: str) -> str:
    words = " ".join(text.split())
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")


def _summary(problems: Sequence[Mapping[str, Any]], policies: Sequence[Mapping[str, Any]]) -> str:
    """Return the line that a check shows."""
    if problems:
        first = problems[0]
        place = ", ".join(each for each in (first["policy"], first["target"]) if each)
        words = f"{place}: {first['text']}" if place else first["text"]
        return f"{several(len(problems), 'problem')}; {words}" if len(problems) > 1 else words
    targets = sum(each["target_count"] for each in policies)
    count = sum(each["snapshot_count"] for each in policies)
    if not policies:
        return "there is no policy"
    words = (several(len(policies), "policy", "policies"), several(targets, "target"), several(count, "restore point"))
    return f"all is well: {', '.join(words)}"


# -- a policy ---------------------------------------------------------------------------------------------------------


def _policy(watched: Watched, known: Known, facts: Facts, problems: _Problems) -> dict[str, Any]:
    tally = (facts.tally or {}).get(watched.name, empty())
    last = {name: _last(run) for name, run in tally["commands"].items()}
    success = max(watched.success, tally["commands"].get("run", {}).get("success", 0))
    if success:
        last.setdefault("run", _last({"attempt": success, "success": success, "succeeded": True, "seconds": 0.0}))
        last["run"]["success"] = timestamp(success)
    _judge_runs(watched, success, known.records, facts.now, problems)
    _judge_commands(watched.name, tally["commands"], known.records, facts.now, problems)
    _judge_exports(watched, tally["commands"].get("export", {}).get("success", 0), facts.now, problems)
    looks = [each for each in facts.looks if each.policy == watched.name]
    targets = [_target(look, number, watched, known, facts.now, problems) for look, number in _seen(looks)]
    for look in looks:
        if not look.up:
            text = f"Its {look.backend} targets could not be looked at: {look.reason or 'nothing was said'}"
            problems.add(UNKNOWN, "unseen", _sentence(text), watched.name)
    for each in targets:
        each["status"] = problems.level(watched.name, (each["backend"], each["target"]))
    targets.sort(key=lambda each: (_rank(each["status"]), each["backend"], each["target"]))
    return {
        "name": watched.name,
        "description": known.description,
        "status": problems.level(watched.name),
        "schedule": list(known.schedule),
        "timezone": known.timezone,
        "due": None if watched.due is None else timestamp(watched.due),
        "keep": _rules(known.retention),
        "last": last,
        "totals": {name: tally[name] for name in ("created", "removed", "copied_bytes", "freed_bytes")},
        "failures": _failures(known.records),
        "backends": [
            {"backend": each.backend, "up": each.up, "reason": each.reason, "seconds": round(each.seconds, 3)}
            for each in looks
        ],
        "targets": targets[:TARGETS],
        "target_count": len(targets),
        "snapshot_count": sum(each["counts"][OWN] for each in targets),
    }


def _last(run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "attempt": timestamp(run["attempt"]) if run["attempt"] else None,
        "success": timestamp(run["success"]) if run["success"] else None,
        "succeeded": bool(run["succeeded"]),
        "seconds": run["seconds"],
        "faults": run.get("faults", 0),
    }


def _rules(retention: RetentionPolicy) -> dict[str, Any]:
    """Return the keep rules as the report has them: counts by rule, and durations in seconds."""
    found: dict[str, Any] = {rule: ("all" if count == ALL else count) for rule, count in retention.rules}
    for name in ("within", "max_age"):
        if getattr(retention, name) is not None:
            found[name] = getattr(retention, name)
    return found


def _failures(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the last runs that did not do what they were to, the newest first, each with its sentence."""
    found = [each for each in records if each.get("outcome") not in (*GOOD, "busy")]
    return [
        {
            "at": timestamp(_number(each.get("started_epoch"))),
            "command": str(each.get("command")),
            "outcome": str(each.get("outcome")),
            "reason": str(each.get("reason") or "nothing was said"),
            "targets": [
                {"target": str(one.get("target")), "reason": str(one.get("reason"))}
                for one in each.get("failures") or ()
                if isinstance(one, Mapping)
            ],
        }
        for each in found[-FAILURES:][::-1]
    ]


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _judge_runs(
    watched: Watched, success: int, records: Sequence[Mapping[str, Any]], now: int, problems: _Problems
) -> None:
    """Say whether the policy has missed its schedule, and whether it fails again and again."""
    due = watched.due
    if due is not None and due - _BEFOREHAND > success and now - due > _MISSED_AFTER:
        ago = f"the last one that succeeded was begun at {clock(timestamp(success))}" if success else "none ever has"
        text = f"It was due at {clock(timestamp(due))}, and no run has succeeded since; {ago}."
        problems.add(CRITICAL, "missed", text, watched.name)
    failed = [
        each
        for each in records
        if each.get("command") == "run"
        and each.get("outcome") in ("failed", "blocked", "interrupted", "killed")
        and _number(each.get("started_epoch")) > now - _OFTEN_WITHIN
    ]
    if len(failed) >= _OFTEN:
        problems.add(CRITICAL, "failing", f"{len(failed)} of its runs failed within six hours.", watched.name)


def _judge_commands(
    policy: str,
    commands: Mapping[str, Mapping[str, Any]],
    records: Sequence[Mapping[str, Any]],
    now: int,
    problems: _Problems,
) -> None:
    """Say which commands failed the last time, and what has not been proven for long."""
    for command in (*WORK, *PROOFS):
        run = commands.get(command)
        if run is None or not run["attempt"]:
            continue
        if not run["succeeded"]:
            level, kind = (CRITICAL, "unsound") if command in PROOFS else (WARNING, "failed")
            reason = _reason(records, command, run["attempt"])
            text = f"The last {command}, begun at {clock(timestamp(run['attempt']))}, failed: {reason}"
            problems.add(level, kind, _sentence(text), policy)
        if command in PROOFS and run["success"] and now - run["success"] > _PROVEN_WITHIN:
            text = f"The last {command} that succeeded is {span(now - run['success'])} ago."
            problems.add(WARNING, "unproven", text, policy)


def _judge_exports(watched: Watched, success: int, now: int, problems: _Problems) -> None:
    """Say whether the last export that succeeded is too old: by its schedule, or by days where it has none."""
    due = watched.export_due
    if not watched.exports:
        return
    if due is None:
        late, since = now - success > _EXPORTED_WITHIN, ""
    else:
        late = due - _BEFOREHAND > success and now - due > _EXPORTED_AFTER
        since = f", and one was due at {clock(timestamp(due))}"
    if late:
        told = f"The last export that succeeded is {span(now - success)} ago" if success else "No export ever succeeded"
        problems.add(WARNING, "export-late", f"{told}{since}.", watched.name)


def _reason(records: Sequence[Mapping[str, Any]], command: str, attempt: int) -> str:
    for each in reversed(records):
        if each.get("command") == command and each.get("started_epoch") == attempt and each.get("reason"):
            return str(each["reason"])
    return "the journal does not say why any more"


# -- a target ---------------------------------------------------------------------------------------------------------


def _seen(looks: Sequence[Look]) -> list[tuple[Look, int]]:
    return [(look, number) for look in looks if look.up for number in range(len(look.surveys))]


def _target(look: Look, number: int, watched: Watched, known: Known, now: int, problems: _Problems) -> dict[str, Any]:
    survey = look.surveys[number]
    details = look.details[number] if number < len(look.details) else {}
    place = (look.backend, survey.target)
    _judge_target(survey, place, watched, known.records, now, details, problems)
    return {
        "backend": look.backend,
        "target": survey.target,
        "status": OK,
        "counts": {name: survey.owners.get(name, 0) for name in (OWN, MANUAL, OTHER)},
        "newest": timestamp(survey.newest) if survey.newest else None,
        "oldest": timestamp(survey.oldest) if survey.oldest else None,
        "size_bytes": survey.size_bytes,
        "size_unknown": survey.size_unknown,
        "not_ready": survey.not_ready,
        "held": survey.held,
        "in_use": survey.in_use,
        "overdue": survey.overdue,
        "ahead": survey.ahead,
        "fill": survey.fullest,
        "keep": [
            {"rule": rule, "expected": None if limit == ALL else limit, "present": survey.kept.get(rule, 0)}
            for rule, limit in watched.expected.items()
        ],
        "snapshots": list(details.get("snapshots", ())),
        "omitted": details.get("omitted", sum(survey.owners.values())),
        "removals": details.get("removals", 0),
        "notes": list(details.get("notes", ())),
        "asides": list(details.get("asides", ())),
    }


def _judge_target(
    survey: Survey,
    place: tuple[str, str],
    watched: Watched,
    records: Sequence[Mapping[str, Any]],
    now: int,
    details: Mapping[str, Any],
    problems: _Problems,
) -> None:
    due, policy = watched.due, watched.name
    late = due is not None and survey.newest < due - _BEFOREHAND and now - due > _MISSED_AFTER
    if late and now - survey.newest > _RECENT and not _unchanged(records, now):
        told = f"The newest is of {clock(timestamp(survey.newest))}" if survey.newest else "There is no"
        text = f"{told}{', and one was due since' if survey.newest else ' restore point to which it could return'}."
        problems.add(CRITICAL, "old", text, policy, place)
    if survey.not_ready:
        faults = [f"{each['name']} ({each['fault']})" for each in details.get("snapshots", ()) if each["fault"]]
        text = f"{several(survey.not_ready, 'restore point')} cannot be returned to: {', '.join(faults[:3])}"
        problems.add(WARNING, "not-ready", _sentence(text.rstrip(": ")), policy, place)
    if survey.overdue and due is not None and now - due > _PRUNED_AFTER:
        text = f"{several(survey.overdue, 'restore point')} should have gone when it was last due."
        problems.add(WARNING, "overdue", text, policy, place)
    if survey.ahead_seconds > _SKEW:
        text = f"The latest restore point is dated {span(survey.ahead_seconds)} in the future: a clock is or was wrong."
        problems.add(WARNING, "clock", text, policy, place)
    if survey.fullest is not None and survey.fullest > _SNAPSHOT_FULL:
        text = f"Its fullest snapshot is {survey.fullest:.0%} full, and is lost when it overflows."
        problems.add(CRITICAL, "full", text, policy, place)


def _unchanged(records: Sequence[Mapping[str, Any]], now: int) -> bool:
    """Say whether a run has lately found that there was nothing to take."""
    return any(
        each.get("outcome") == "unchanged"
        and each.get("command") == "run"
        and _number(each.get("started_epoch")) > now - _RECENT
        for each in records
    )


def _share(policies: Sequence[Mapping[str, Any]]) -> None:
    """Shorten the lists where there are too many targets for long ones."""
    targets = [each for policy in policies for each in policy["targets"]]
    if sum(len(each["snapshots"]) for each in targets) <= LISTED_IN_ALL:
        return
    limit = max(LISTED_AT_LEAST, LISTED_IN_ALL // len(targets))
    for each in targets:
        each["omitted"] += len(each["snapshots"][limit:])
        each["snapshots"] = each["snapshots"][:limit]


# -- storage ----------------------------------------------------------------------------------------------------------


def _storages(looks: Sequence[Look], problems: _Problems) -> list[dict[str, Any]]:
    """Return the pools and filesystems, the fullest first, each once."""
    fullest: dict[tuple[str, str, str], tuple[float, int]] = {}
    for each in (storage for look in looks if look.up for storage in look.storages):
        key = (each.storage, each.backend, each.part)
        fullest[key] = max(fullest.get(key, (0.0, 0)), (each.fill, each.size))
    found = []
    for (name, backend, part), (fill, size) in sorted(fullest.items()):
        level = _fill_level(backend, part, fill)
        if level != OK:
            what = "" if backend != "lvm" else f" {part}"
            problems.add(level, "space", f"The{what} space of {name} is {fill:.0%} full.", target=(backend, name))
        entry = {"backend": backend, "storage": name, "part": part, "fill": round(fill, 6), "size_bytes": size}
        found.append({**entry, "status": level})
    return sorted(found, key=lambda each: (_rank(each["status"]), -each["fill"], each["storage"], each["part"]))


def _fill_level(backend: str, part: str, fill: float) -> str:
    if backend == "lvm":
        return CRITICAL if fill > (_METADATA_FULL if part == "metadata" else _FULL) else OK
    return WARNING if fill > _FULL else OK
