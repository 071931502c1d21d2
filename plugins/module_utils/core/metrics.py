# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of policies, targets, storage and journal, as families of metrics. Pure; docs/monitoring.md lists them.

Names follow Prometheus: times are moments (PromQL makes ages of them), a ratio is 0 to 1, and no label has more values
than a person has written down, or the storage has pools. Snapshots have no series of their own: they come and go by the
hour. Targets beyond `MAX_TARGETS` of a policy are one series, `OTHERS`, in which the worst of them counts.

What could not be looked at is a metric as well: ``restorepoint_backend_up`` is 0, and its other series are not there,
rather than with old numbers. Called by the agent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Union

from .history import COMMANDS, OUTCOMES, empty, no_runs
from .survey import Survey, merged

MAX_TARGETS = 500
OTHERS = "(others)"
#: Commands whose moments are shown for each policy, whether they ever ran or not: alerts compare them. So are those of
#: ``export``, where a policy has destinations.
WATCHED_COMMANDS = ("run", "verify", "drill")

_Sample = tuple[Mapping[str, str], Union[int, float]]


@dataclass(frozen=True)
class Family:
    """A metric. ``kind`` is ``gauge`` or ``counter``; samples are labels and values."""

    name: str
    kind: str
    help: str
    samples: tuple[_Sample, ...]


@dataclass(frozen=True)
class Storage:
    """A pool or filesystem, and how full a part of it is. ``fill`` is a ratio; ``size`` is in bytes, 0 if unknown."""

    backend: str
    storage: str
    part: str
    fill: float
    size: int = 0


@dataclass(frozen=True)
class Look:
    """What was seen of the targets that one policy has on one backend. Where ``up`` is False it was nothing.

    ``details`` has more of each survey, in their order, where it was asked for (core/report.py). ``reason`` says why
    nothing was seen.
    """

    policy: str
    backend: str
    up: bool
    seconds: float
    surveys: tuple[Survey, ...] = ()
    storages: tuple[Storage, ...] = ()
    details: tuple[Mapping[str, Any], ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Watched:
    """A policy. ``due`` is the last moment of its schedule, None without one; ``expected`` are slots by keep rule.

    ``success`` is when the last run that succeeded was begun, as the state folder remembers it beside the journal.
    ``exports`` is how many destinations its exports have, ``export_due`` the last moment of their schedule.
    """

    name: str
    due: int | None
    expected: Mapping[str, int]
    success: int = 0
    exports: int = 0
    export_due: int | None = None


@dataclass(frozen=True)
class Facts:
    """All there is to tell. ``seconds`` is how long looking took.

    ``sound`` says whether the policies could be read, ``readable`` whether the journal could. ``tally`` is what its
    lines add up to (core/history.py).
    """

    now: int
    seconds: float
    sound: bool = True
    readable: bool = True
    policies: Sequence[Watched] = ()
    looks: Sequence[Look] = ()
    tally: Mapping[str, Any] | None = None


def families(facts: Facts) -> list[Family]:
    """Return all families, each once, with samples in a fixed order."""
    looks = _united(facts.looks)
    return [
        *_collection(facts),
        *_policies(facts),
        *_commands(facts),
        *_sums(facts),
        *_backends(looks),
        *_targets(looks),
        *_storages(looks),
    ]


def label(text: str) -> str:
    """Return a text as a label may hold it: bytes of a path that are no UTF-8 are shown as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _gauge(name: str, words: str, samples: Iterable[_Sample]) -> Family:
    return Family(f"restorepoint_{name}", "gauge", words, tuple(samples))


def _counter(name: str, words: str, samples: Iterable[_Sample]) -> Family:
    return Family(f"restorepoint_{name}_total", "counter", words, tuple(samples))


def _united(looks: Sequence[Look]) -> list[Look]:
    """Return one look for each policy and backend: a policy may have targets of one kind in several stores."""
    found: dict[tuple[str, str], Look] = {}
    for each in looks:
        key = (each.policy, each.backend)
        other = found.get(key)
        if other is not None:
            up, seconds = each.up and other.up, each.seconds + other.seconds
            each = Look(*key, up, seconds, other.surveys + each.surveys, other.storages + each.storages)
        found[key] = each
    return [found[key] for key in sorted(found)]


# -- the collection ----------------------------------------------------------------------------------------------------


def _collection(facts: Facts) -> list[Family]:
    return [
        _gauge("collection_timestamp_seconds", "When all this was looked at, by the host's clock.", [({}, facts.now)]),
        _gauge("collection_duration_seconds", "How long it took to look.", [({}, round(facts.seconds, 3))]),
        _gauge("policies_sound", "1 if the policies can be read and used, 0 if not.", [({}, int(facts.sound))]),
        _gauge("journal_readable", "1 if the journal can be read, 0 if not.", [({}, int(facts.readable))]),
    ]


# -- policies and the journal ------------------------------------------------------------------------------------------


def _policies(facts: Facts) -> list[Family]:
    named = [({"policy": each.name}, each) for each in facts.policies]
    return [
        _gauge(
            "policy_scheduled", "1 if the policy has a schedule.", [(to, int(it.due is not None)) for to, it in named]
        ),
        _gauge(
            "policy_last_due_timestamp_seconds",
            "The last moment at which the schedule wanted a run.",
            [(to, it.due) for to, it in named if it.due is not None],
        ),
        _gauge(
            "keep_expected",
            "How many restore points a keep rule wants. A rule that keeps all has none.",
            [({**to, "rule": rule}, slots) for to, it in named for rule, slots in it.expected.items() if slots > 0],
        ),
        _gauge(
            "export_destinations",
            "How many destinations the policy's exports have, where it has any.",
            [(to, it.exports) for to, it in named if it.exports],
        ),
        _gauge(
            "export_last_due_timestamp_seconds",
            "The last moment at which the schedule of exports wanted one.",
            [(to, it.export_due) for to, it in named if it.export_due is not None],
        ),
    ]


def _commands(facts: Facts) -> list[Family]:
    known = [(policy, command, run) for policy in facts.policies for command, run in _runs(facts, policy)]
    named = [({"policy": policy.name, "command": command}, run) for policy, command, run in known]
    ran = [(to, run) for to, run in named if run["attempt"]]
    return [
        _gauge(
            "last_attempt_timestamp_seconds",
            "When the last run of the command was begun; 0 for never.",
            [(to, run["attempt"]) for to, run in named],
        ),
        _gauge(
            "last_success_timestamp_seconds",
            "When the last run of the command that succeeded was begun; 0 for never.",
            [(to, run["success"]) for to, run in named],
        ),
        _gauge(
            "last_attempt_succeeded",
            "1 if the last run of the command succeeded, 0 if not.",
            [(to, int(run["succeeded"])) for to, run in ran],
        ),
        _gauge(
            "last_attempt_duration_seconds",
            "How long the last run of the command took.",
            [(to, run["seconds"]) for to, run in ran],
        ),
        _gauge(
            "verify_faults",
            "How many snapshots the last verify found to differ from what was taken.",
            [({"policy": to["policy"]}, run["faults"]) for to, run in ran if to["command"] == "verify"],
        ),
        _counter(
            "runs",
            "Runs, by command and outcome, as the journal has them.",
            [
                ({**to, "outcome": outcome}, run["outcomes"].get(outcome, 0))
                for to, run in named
                for outcome in OUTCOMES
                if to["command"] == "run" or outcome in run["outcomes"]
            ],
        ),
    ]


def _runs(facts: Facts, policy: Watched) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Yield what became of each command of a policy; of the watched ones also where they never ran."""
    found = (facts.tally or {}).get(policy.name, empty())["commands"]
    for command in COMMANDS:
        if command in found or command in WATCHED_COMMANDS or (command == "export" and policy.exports):
            run = found.get(command, no_runs())
            yield command, {**run, "success": max(run["success"], policy.success if command == "run" else 0)}


def _sums(facts: Facts) -> list[Family]:
    words = {
        "created": ("snapshots_created", "Snapshots that were taken."),
        "removed": ("snapshots_removed", "Snapshots that were removed, by keep rules or by name."),
        "copied_bytes": ("copied_bytes", "What was copied for snapshots of directories."),
        "freed_bytes": ("freed_bytes", "What removals have freed, where the storage tells it."),
    }
    entries = [({"policy": each.name}, (facts.tally or {}).get(each.name, empty())) for each in facts.policies]
    return [_counter(name, text, [(to, entry[key]) for to, entry in entries]) for key, (name, text) in words.items()]


# -- backends and targets ----------------------------------------------------------------------------------------------


def _backends(looks: Sequence[Look]) -> list[Family]:
    named = [({"policy": each.policy, "backend": each.backend}, each) for each in looks]
    return [
        _gauge(
            "backend_up",
            "1 if the policy's targets on the backend could be looked at, 0 if not.",
            [(to, int(each.up)) for to, each in named],
        ),
        _gauge(
            "backend_look_duration_seconds",
            "How long looking at them took.",
            [(to, round(each.seconds, 3)) for to, each in named],
        ),
        _gauge("targets", "How many targets there are.", [(to, len(each.surveys)) for to, each in named if each.up]),
    ]


#: Gauges of each target: name, help, and the number.
_TARGET: tuple[tuple[str, str, Callable[[Survey], int]], ...] = (
    ("snapshots_not_ready", "The policy's snapshots that could not be returned to.", lambda it: it.not_ready),
    ("snapshots_held", "The policy's snapshots that a hold protects.", lambda it: it.held),
    ("snapshots_in_use", "The policy's snapshots that something uses, such as a clone.", lambda it: it.in_use),
    ("snapshots_ahead", "The policy's snapshots that are dated in the future.", lambda it: it.ahead),
    (
        "snapshots_overdue",
        "Snapshots that the keep rules would have removed at the last due run.",
        lambda it: it.overdue,
    ),
    ("asides", "What returns have set aside.", lambda it: it.asides),
    ("snapshots_size_bytes", "What removing the policy's snapshots would free, where known.", lambda it: it.size_bytes),
    ("snapshots_size_unknown", "The policy's snapshots whose size is not known.", lambda it: it.size_unknown),
    ("snapshot_oldest_timestamp_seconds", "When the oldest usable one was taken; 0 for none.", lambda it: it.oldest),
    ("snapshot_newest_timestamp_seconds", "When the newest usable one was taken; 0 for none.", lambda it: it.newest),
    ("clock_ahead_seconds", "How far in the future the latest snapshot is dated.", lambda it: it.ahead_seconds),
)


def _targets(looks: Sequence[Look]) -> list[Family]:
    named = [
        ({"policy": look.policy, "backend": look.backend, "target": label(each.target)}, each)
        for look in looks
        if look.up
        for each in _bounded(look.surveys)
    ]
    found = [
        _gauge(
            "snapshots",
            "Snapshots of the target, by whose they are: the policy's, taken by hand, or others'.",
            [({**to, "owner": owner}, count) for to, it in named for owner, count in it.owners.items()],
        ),
        _gauge(
            "keep_present",
            "How many restore points a keep rule has kept.",
            [({**to, "rule": rule}, count) for to, it in named for rule, count in it.kept.items()],
        ),
        _gauge(
            "snapshot_fill_ratio",
            "How full the fullest snapshot is of those that are lost when they overflow (thick LVM).",
            [(to, it.fullest) for to, it in named if it.fullest is not None],
        ),
    ]
    return found + [_gauge(name, words, [(to, get(it)) for to, it in named]) for name, words, get in _TARGET]


def _bounded(surveys: Sequence[Survey]) -> list[Survey]:
    """Return the targets in order, those of one name as one, and those beyond the limit as one."""
    together: dict[str, list[Survey]] = {}
    for each in surveys:
        together.setdefault(label(each.target), []).append(each)
    found = [
        merged(together[name], name) if len(together[name]) > 1 else together[name][0] for name in sorted(together)
    ]
    if len(found) > MAX_TARGETS:
        found[MAX_TARGETS - 1 :] = [merged(found[MAX_TARGETS - 1 :], OTHERS)]
    return found


def _storages(looks: Sequence[Look]) -> list[Family]:
    fullest: dict[tuple[str, str, str], Storage] = {}
    for each in (storage for look in looks if look.up for storage in look.storages):
        key = (each.backend, label(each.storage), each.part)
        if key not in fullest or each.fill > fullest[key].fill:
            fullest[key] = each
    named = [({"backend": key[0], "storage": key[1], "part": key[2]}, fullest[key]) for key in sorted(fullest)]
    return [
        _gauge(
            "storage_fill_ratio",
            "How full the storage is that snapshots lie in. Parts are data and metadata.",
            [(to, round(each.fill, 6)) for to, each in named],
        ),
        _gauge(
            "storage_size_bytes",
            "How large that storage is.",
            [(to, each.size) for to, each in named if each.size],
        ),
    ]
