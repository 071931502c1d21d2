# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports to look at: what core/report.py says of hosts that are made up here, always the same to the byte.

One is calm, one is a usual host with something wrong, one has all that is hard to show: names of 63 characters, two
hundred snapshots, branches, scripts that run from right to left, and texts that would be markup.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import Situation
from ansible_collections.restorepoint.core.plugins.module_utils.core.history import tally
from ansible_collections.restorepoint.core.plugins.module_utils.core.metrics import Facts, Look, Storage, Watched
from ansible_collections.restorepoint.core.plugins.module_utils.core.names import automatic_name
from ansible_collections.restorepoint.core.plugins.module_utils.core.report import Known, detail, report, without
from ansible_collections.restorepoint.core.plugins.module_utils.core.retention import RetentionPolicy, parse_policy
from ansible_collections.restorepoint.core.plugins.module_utils.core.snapshot import Snapshot, timestamp
from ansible_collections.restorepoint.core.plugins.module_utils.core.survey import survey

#: 2026-11-26 20:40 UTC.
NOW = 1795725600
HOUR, DAY, GIB = 3600, 86400, 1024**3
HOSTILE = "<script>alert('{{ 1 }}')</script> \"x\" & {% raw %}"
RIGHT_TO_LEFT = "نسخة احتياطية يومية لخادم المتجر"
LONG = "a" * 20 + "-" + "b" * 20 + "-" + "c" * 21


def taken(target: str, owner: str, ages: list[int], backend: str = "zfs", **more: Any) -> list[Snapshot]:
    """Return snapshots of an owner, taken so many seconds ago."""
    return [
        Snapshot(
            backend, target, automatic_name(owner, NOW - age), NOW - age,
            owner=owner, size_bytes=40_000_000 + 1_000_003 * (age % 97), **more,
        )
        for age in ages
    ]  # fmt: skip


def seen(policy: str, backend: str, rules: RetentionPolicy, due: int, *found: Situation, **more: Any) -> Look:
    """Return what a look has seen of these targets."""
    return Look(
        policy,
        backend,
        True,
        0.12,
        tuple(survey(each, policy, rules, (), NOW, due) for each in found),
        tuple(more.get("storages", ())),
        tuple(detail(each, policy, rules, (), NOW) for each in found),
    )


def run(policy: str, ago: int, command: str = "run", outcome: str = "done", **more: Any) -> dict[str, Any]:
    """Return a line of the journal."""
    return {
        "policy": policy, "command": command, "outcome": outcome, "started_epoch": NOW - ago, "seconds": 2.4, **more,
    }  # fmt: skip


def _made(host: str, policies: list[tuple[Watched, Known]], looks: list[Look], records: list[Any]) -> dict[str, Any]:
    known = {
        watched.name: Known(
            each.description,
            each.schedule,
            each.timezone,
            each.retention,
            [line for line in records if line["policy"] == watched.name],
        )
        for watched, each in policies
    }
    facts = Facts(NOW, 0.41, True, True, [watched for watched, _known in policies], looks, tally(records))
    return report(host, facts, known)


def _thinned(hours: int, days: int, weeks: int) -> list[int]:
    daily = [18 * HOUR + 40 * 60 + number * DAY for number in range(days)]
    ages = {40 * 60 + number * HOUR for number in range(hours)} | set(daily)
    return sorted(ages | {daily[-1] + number * 7 * DAY for number in range(1, weeks + 1)})


def calm(host: str = "db2.example.net") -> dict[str, Any]:
    """Return the report of a host on which nothing is wrong."""
    rules = parse_policy({"hourly": 24, "daily": 7, "weekly": 4})
    due = NOW - 40 * 60
    found = Situation("zfs:tank/mail", tuple(taken("zfs:tank/mail", "mail", _thinned(24, 7, 4))))
    records = [run("mail", 40 * 60, done={"created": 1, "removed": 1}), run("mail", 3 * DAY, "verify")]
    look = seen("mail", "zfs", rules, due, found, storages=[Storage("zfs", "tank", "data", 0.43, 3600 * GIB)])
    known = Known("Mail of the whole company", ("hourly",), "Europe/Berlin", rules)
    return _made(host, [(Watched("mail", due, dict(rules.rules)), known)], [look], records)


def usual(host: str = "db1.example.net") -> dict[str, Any]:
    """Return the report of a host with a few policies, on which some things are wrong."""
    shop, files = parse_policy({"hourly": 24, "daily": 7, "weekly": 4}), parse_policy({"daily": 14, "monthly": 6})
    due, night = NOW - 40 * 60, NOW - 18 * HOUR - 40 * 60
    late = [age for age in _thinned(0, 14, 6) if (age > 2 * DAY and age < 9 * DAY) or age > 11 * DAY]
    broken = Snapshot("lvm", "lvm:vg0/home", "files-20261119t140000z", NOW - 7 * DAY - 7 * HOUR, owner="files",
                      ready=False, extra={"fault": "it has overflowed"})  # fmt: skip
    by_hand = Snapshot("zfs", "zfs:tank/shop", "pre-upgrade", NOW - 3 * DAY - 5 * HOUR, owner="manual", held="keep it",
                       description="Before the upgrade to 4.2, see ticket 8812", size_bytes=2 * GIB)  # fmt: skip
    aside = Snapshot("zfs", "zfs:tank/shop", "tank/shop.aside-20261119t101500z", NOW - 7 * DAY, size_bytes=GIB)
    looks = [
        seen(
            "shop", "zfs", shop, due,
            Situation("zfs:tank/shop", (*taken("zfs:tank/shop", "shop", _thinned(27, 9, 4)), by_hand), (aside,)),
            Situation("zfs:tank/shop/media", tuple(taken("zfs:tank/shop/media", "shop", _thinned(24, 7, 4)))),
            storages=[Storage("zfs", "tank", "data", 0.71, 3600 * GIB)],
        ),
        seen("files", "lvm", files, night,
             Situation("lvm:vg0/home", (*taken("lvm:vg0/home", "files", late, "lvm"), broken)),
             storages=[Storage("lvm", "vg0/pool", "data", 0.93, 900 * GIB),
                       Storage("lvm", "vg0/pool", "metadata", 0.38)]),
        Look("volumes", "csi", False, 30.0, reason="it did not end within 30 s"),
    ]  # fmt: skip
    reason = ("Cannot create vg0/home_files-20261126t020000z: the thin pool vg0/pool is 93 % full, and data_limit is "
              "90 %; extend the pool, or let older snapshots go.")  # fmt: skip
    failure: dict[str, Any] = {
        "outcome": "failed",
        "reason": reason,
        "failures": [{"target": "lvm:vg0/home", "reason": "no room"}],
    }
    records = [
        run("shop", 40 * 60, done={"created": 812, "removed": 780}, bytes=0), run("shop", 3 * DAY, "verify"),
        run("shop", 11 * DAY, "drill"), run("files", 2 * DAY + 18 * HOUR, done={"created": 1}),
        run("files", DAY + 18 * HOUR, **failure), run("files", 18 * HOUR + 40 * 60, **failure),
        run("volumes", 40 * 60),
    ]  # fmt: skip
    policies = [
        (Watched("shop", due, dict(shop.rules)), Known("Web shop and its pictures", ("hourly",), "Europe/Paris", shop)),
        (Watched("files", night, dict(files.rules)), Known("Homes of people", ("*-*-* 02:00:00",), "UTC", files)),
        (Watched("volumes", due, {"hourly": 24}), Known("", ("hourly",), "UTC", parse_policy({"hourly": 24}))),
    ]
    return _made(host, policies, looks, records)


def hard(host: str = f"{LONG}.example.net") -> dict[str, Any]:
    """Return a report with all that is hard to show."""
    name = "p" * 23
    rules = parse_policy({"last": 3, "within": "2d"}, max_delete=1)
    ages = [60 + 997 * number for number in range(200)]
    target = f"{'tank/' + LONG}/{RIGHT_TO_LEFT}\u202e{HOSTILE}\udcff"
    words = f"{RIGHT_TO_LEFT} {HOSTILE}"
    many = [
        dataclasses.replace(each, name=f"{LONG[:60]}{number:03d}", description=words)
        for number, each in enumerate(taken(f"zfs:{target}", name, ages))
    ]
    named = [each.name for each in many]
    parents = [named[number + 1] if number + 1 < len(named) else None for number in range(len(named))]
    parents[5], parents[7] = named[40], named[90]
    branched = [
        Snapshot("pve", "pve:qemu/100", each.name, each.created, owner=name, parent=parent, held="", in_use="",
                 description=RIGHT_TO_LEFT)
        for each, parent in zip(many, parents)
    ]  # fmt: skip
    looks = [
        seen(name, "zfs", rules, NOW - HOUR, Situation(f"zfs:{target}", tuple(many))),
        seen(name, "pve", rules, NOW - HOUR, Situation("pve:qemu/100", tuple(branched))),
        seen(name, "zfs", rules, NOW - HOUR,
             *(Situation(f"zfs:tank/{number:03d}", tuple(taken("zfs:x", name, [60]))) for number in range(30)),
             storages=[Storage("zfs", LONG, "data", 0.97, 5 * GIB)]),
    ]  # fmt: skip
    reason = f"Cannot do it: {LONG}{LONG} {HOSTILE} {RIGHT_TO_LEFT}; mend it."
    records = [run(name, number * HOUR, outcome="failed", reason=reason) for number in (4, 3, 2, 1)]
    known = Known(f"{RIGHT_TO_LEFT} {HOSTILE}", ("Mon..Fri *-*-* 08..20:00,15,30,45:00",) * 6, "UTC", rules)
    return _made(host, [(Watched(name, NOW - 2 * HOUR, {"last": 3}), known)], looks, records)


def fleet() -> list[dict[str, Any]]:
    """Return the reports of several hosts, one of which was not reached, and one of which has no agent."""
    unreachable = "Failed to connect to the host via ssh: connect to host db3 port 22: No route to host"
    return [
        usual(),
        calm(),
        *(calm(f"web{number}.example.net") for number in range(1, 5)),
        without("db3.example.net", timestamp(NOW), unreachable, "unreachable"),
        without("db4.example.net", timestamp(NOW), "Cannot find restorepoint: it is not installed.", "no-report"),
    ]
