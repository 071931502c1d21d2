# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the integer calendar of retention saves against buckets made with strftime, as a ratio of CPU time.

Both sides make the same plan of the same snapshots with the same planner; only the buckets differ. They take turns
within one run, on one machine, and every decision and reason is compared. Run from a checkout whose parents are
ansible_collections/restorepoint::

    PYTHONPATH=<the folder that holds ansible_collections> python tests/bench/bench_retention.py

Prints Markdown; asserts no time.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import os
import platform
import random
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.restorepoint.core.plugins.module_utils.core import retention
from ansible_collections.restorepoint.core.plugins.module_utils.core.periods import Periods, zone
from ansible_collections.restorepoint.core.plugins.module_utils.core.retention import Point, RetentionPlan, parse_policy

NOW = 1795305600  # 2026-11-22 00:00 UTC
KEEP = {"hourly": 24, "daily": 7, "weekly": 4, "monthly": 6}
FORMATS = {"hourly": "%Y-%m-%d %H", "daily": "%Y-%m-%d", "weekly": "%G-W%V", "monthly": "%Y-%m"}


class TextPeriods:
    """The calendar that everybody writes first: a text for each snapshot under each rule, made when it is asked for."""

    def __init__(self, times: Sequence[int], timezone: str) -> None:
        self._times = times
        self._zone = zone(timezone)

    def of(self, rule: str, places: Iterable[int]) -> Iterator[object]:
        tz, form = self._zone, FORMATS[rule]
        if rule == "hourly":
            tz = datetime.timezone.utc
        moment = datetime.datetime.fromtimestamp
        return (moment(self._times[place], tz).strftime(form) for place in places)


def histories(targets: int, snapshots: int) -> list[list[Point]]:
    """Return, for each target, one snapshot an hour with up to 50 s of jitter, oldest first, as backends list them."""
    chance = random.Random(1)
    return [
        [
            Point(NOW - hours * 3600 + chance.randrange(50), hours, f"hourly-{snapshots - hours:07d}")
            for hours in range(snapshots, 0, -1)
        ]
        for _target in range(targets)
    ]


def plan_all(calendar: Any, all_targets: list[list[Point]], timezone: str) -> tuple[float, int]:
    """Plan every target with that calendar; return the CPU seconds and a hash of all decisions."""
    policy = parse_policy(KEEP, timezone=timezone)
    vars(retention)["Periods"] = calendar
    spent, outcome = 0.0, 0
    for points in all_targets:
        begin = time.process_time()
        plan: RetentionPlan = retention.decide(points, policy, NOW)
        spent += time.process_time() - begin
        outcome = hash((outcome, plan.decisions))
    return spent, outcome


def compare(targets: int, snapshots: int, timezone: str, rounds: int) -> str:
    """Return one row of the table."""
    all_targets = histories(targets, snapshots)
    plan = functools.partial(plan_all, all_targets=all_targets, timezone=timezone)
    pairs = []
    for _round in range(rounds):
        integers, one = plan(Periods)
        texts, other = plan(TextPeriods)
        if one != other:
            raise SystemExit("The two calendars do not lead to the same plan.")
        pairs.append((integers, texts))
    ratios = [integers / texts for integers, texts in pairs]
    return (
        f"| {targets:,} x {snapshots:,} | {timezone} | {statistics.median(pair[0] for pair in pairs):.2f} "
        f"| {statistics.median(pair[1] for pair in pairs):.2f} "
        f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
    )


def machine() -> str:
    """Return what the numbers were measured on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = models[0] if models else model
    today = datetime.datetime.now(tz=datetime.timezone.utc).date()
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{model}, {os.cpu_count()} CPUs, {system}, {today}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--snapshots", type=int, default=1000, help="of each target")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--timezone", nargs="+", default=["Europe/Paris", "UTC"])
    arguments = parser.parse_args()
    print(f"{machine()}. Keep {', '.join(f'{rule} {count}' for rule, count in KEEP.items())}. CPU seconds, median.\n")
    print("| targets x snapshots | zone | integers | strftime | ratio (least to most) |")
    print("|---|---|---|---|---|")
    for timezone in arguments.timezone:
        print(compare(arguments.targets, arguments.snapshots, timezone, arguments.rounds))


if __name__ == "__main__":
    main()
