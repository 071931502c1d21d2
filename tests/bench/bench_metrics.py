# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What metrics of many snapshots cost beyond listing them, in CPU time: numbers of each target, JSON, families, text.

The goal is less than 2 s for 100,000 snapshots. Needs prometheus_client; `make bench` brings it. Prints Markdown;
asserts no time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import statistics
import time

from ansible_collections.restorepoint.core.plugins.module_utils.agent.metrics import exposition
from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import Situation
from ansible_collections.restorepoint.core.plugins.module_utils.core.metrics import Facts, Look, Watched, families
from ansible_collections.restorepoint.core.plugins.module_utils.core.retention import parse_policy
from ansible_collections.restorepoint.core.plugins.module_utils.core.snapshot import Snapshot
from ansible_collections.restorepoint.core.plugins.module_utils.core.survey import from_fields, survey

NOW = 1795305600  # 2026-11-22 00:00 UTC
KEEP = {"hourly": 24, "daily": 7, "weekly": 4, "monthly": 6}


def listed(targets: int, snapshots: int) -> list[Situation]:
    """Return targets as a backend lists them: one snapshot an hour, some by hand, some held."""
    chance = random.Random(1)
    return [
        Situation(
            f"zfs:tank/{target:05d}",
            tuple(
                Snapshot(
                    backend="zfs",
                    target=f"zfs:tank/{target:05d}",
                    name=f"hourly-{hours}",
                    created=NOW - hours * 3600 - chance.randrange(50),
                    sequence=snapshots - hours,
                    owner="hourly" if chance.random() < 0.95 else "manual",
                    size_bytes=chance.randrange(1 << 30),
                    held="tag x" if chance.random() < 0.01 else None,
                )
                for hours in range(snapshots, 0, -1)
            ),
        )
        for target in range(targets)
    ]


def exported(situations: list[Situation]) -> tuple[float, int]:
    """Return the CPU seconds that it took to export them, and the bytes of the text."""
    policy = parse_policy(KEEP, timezone="Europe/Paris")
    begun = time.process_time()
    surveys = [survey(each, "hourly", policy, (), NOW, NOW - 1800) for each in situations]
    sent = json.dumps([dataclasses.asdict(each) for each in surveys])
    looks = [Look("hourly", "zfs", True, 1.0, tuple(from_fields(each) for each in json.loads(sent)))]
    facts = Facts(NOW, 1.0, policies=[Watched("hourly", NOW - 1800, dict(policy.rules))], looks=looks, tally={})
    text = exposition(families(facts))
    return time.process_time() - begun, len(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    exported(listed(1, 1))  # the library is imported once
    print("| targets x snapshots | CPU s, median (least to most) | KiB of text |")
    print("|---|---|---|")
    for targets, snapshots in ((1, 100_000), (100, 1_000), (1_000, 100), (10_000, 10)):
        situations = listed(targets, snapshots)
        found = [exported(situations) for _round in range(rounds)]
        spent = [seconds for seconds, _size in found]
        middle = f"{statistics.median(spent):.2f} ({min(spent):.2f} to {max(spent):.2f})"
        print(f"| {targets:,} x {snapshots:,} | {middle} | {found[0][1] // 1024} |")


if __name__ == "__main__":
    main()
