# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`restorepoint metrics`: gathers the facts, writes them as Prometheus reads them, to a file or to stdout.

What the families are is in core/metrics.py; `looking` looks, `serving` serves. Called by `cli`.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, Callable, TextIO

from .. import whole_file
from ..core.errors import InvalidInput, RestorePointError, StoreError
from ..core.metrics import Facts, Family, Watched, families
from ..core.units import parse_duration
from ..engine.policy import Policy
from ..lock import FileLock
from .looking import Task, looks
from .state import State

_FILE_MODE = 0o644
_PATIENCE = 60.0


def command(
    options: argparse.Namespace,
    policies: Callable[[], Sequence[Policy]],
    now: Callable[[], int],
    out: TextIO,
    complain: Callable[[str], None],
) -> int:
    """Run the command; return 0, or 1 where something could not be looked at, which the metrics show as well.

    Raises RestorePointError where nothing could be written.
    """
    timeout, interval = seconds_of(options.timeout, "--timeout"), seconds_of(options.interval, "--interval")
    if options.listen is not None:
        from .serving import address, serve

        argv = ["--policies", options.policies, "--state", options.state, "metrics", "--timeout", options.timeout]
        argv += ["--jobs", options.jobs] if options.jobs else []
        return serve(address(options.listen), argv, interval, complain)
    jobs = None
    if options.jobs:
        from .job_looking import asked_of, runs

        jobs = functools.partial(runs, asked_of(options.jobs, timeout))
    facts, troubles = gather(policies, options.state, now, timeout, jobs=jobs)
    content = exposition(families(facts))
    if options.textfile is None:
        out.write(content.decode("utf-8"))
    else:
        write_file(options.textfile, content, State(options.state))
    for trouble in troubles:
        complain(trouble)
    return 1 if troubles else 0


def seconds_of(text: str, option: str) -> float:
    """Return a duration of the command line in seconds. Raises InvalidInput, also for one of less than a second."""
    seconds = parse_duration(text, option)
    if seconds < 1:
        raise InvalidInput(f"read {option} {text}", "it is no time at all", "write a duration such as 30s")
    return float(seconds)


def gather(
    policies: Callable[[], Sequence[Policy]],
    folder: str,
    now: Callable[[], int],
    timeout: float,
    look: Callable[[Task, Callable[[], int]], dict[str, Any]] | None = None,
    jobs: Callable[[State], dict[str, Any]] | None = None,
) -> tuple[Facts, list[str]]:
    """Return all there is to tell, and why what could not be read or looked at: policies and journal come first.

    Args:
        look: looks at targets; without it, at what the metrics need.
        jobs: in a pod, tells what became of runs instead of the journal. Targets elsewhere than in the cluster's API
            are not looked at then: a pod does not reach them.
    """
    begun, moment = time.monotonic(), now()
    troubles: list[str] = []
    found: Sequence[Policy] = ()
    sound = readable = True
    try:
        found = policies()
    except RestorePointError as error:
        sound = False
        troubles.append(str(error))
    tally: dict[str, Any] = {}
    successes: dict[str, int] = {}
    try:
        state = State(folder)
        tally = jobs(state) if jobs else state.tally()
        successes = {each.name: _remembered(state, each.name) for each in found} if not jobs else {}
    except (RestorePointError, OSError) as error:
        readable = False
        troubles.append(str(error))
    reached = [(policy, target) for policy in found for target in policy.targets if not jobs or target.backend == "csi"]
    tasks = [Task(policy, target, folder) for policy, target in reached]
    seen, more = looks(tasks, now, timeout, look)
    watched = [
        Watched(
            name=each.name,
            due=each.last_due(moment),
            expected=dict(each.retention.rules),
            success=successes.get(each.name, 0),
            # A pod knows nothing of exports.
            exports=0 if jobs else len(each.exports),
            export_due=None if jobs else each.export_due(moment),
        )
        for each in found
    ]
    seconds = time.monotonic() - begun
    return Facts(moment, seconds, sound, readable, watched, seen, tally), troubles + more


def _remembered(state: State, policy: str) -> int:
    """Return when the last run that succeeded was begun, 0 for never: the journal may be gone."""
    last = state.last(policy).read() or {}
    epoch = last.get("started_epoch", 0)
    return epoch if isinstance(epoch, int) else 0


def exposition(found: Sequence[Family]) -> bytes:
    """Return families in the text format of Prometheus."""
    from prometheus_client import CollectorRegistry, Metric, generate_latest
    from prometheus_client.registry import Collector

    class Families(Collector):
        """What the library asks for metrics."""

        def collect(self) -> Iterator[Metric]:
            for family in found:
                # The library puts a counter's _total behind its name by itself.
                metric = Metric(family.name[: -len("_total")] if family.kind == "counter" else family.name,
                                family.help, family.kind)  # fmt: skip
                for labels, value in family.samples:
                    metric.add_sample(family.name, dict(labels), value)
                yield metric

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families())
    return generate_latest(registry)


def write_file(path: str, content: bytes, state: State, what: str = "metrics", mode: int = _FILE_MODE) -> None:
    """Put ``content`` in the place of a file that others read: they see the old one, or the new one whole.

    What a writer that was killed has left goes with the next one; its name ends so that node_exporter passes it over.
    Raises StoreError.
    """
    folder, name = os.path.split(os.path.abspath(path))
    new = os.path.join(folder, f".{name}.new")
    attempt = f"write the {what} to {path}"
    with FileLock(os.path.join(state.folder, f"{what}.lock"), _PATIENCE, attempt):
        try:
            whole_file.put(path, content, mode, new)
        except OSError as error:
            remedy = "make its folder, let this user write to it, and see that there is room"
            raise StoreError(attempt, str(error.strerror), remedy) from error
