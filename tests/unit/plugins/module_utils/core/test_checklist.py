# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checklist ticks what is in order, and nothing else."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.core.checklist import (
    MARKS,
    Point,
    paths,
    points,
    samples,
    units,
)

ROLE = pathlib.Path(__file__).parents[5] / "roles" / "monitoring"
NOW = 1_795_727_000
DAY = 86400
POLICY = {
    "name": "nightly",
    "schedule": {"calendar": ["daily"]},
    "targets": [{"backend": "hostpath", "path": ["/srv/web"], "store": "/var/store"}],
    "hooks": [{"kind": "postgresql", "passfile": "/etc/pg.pass"}],
}
GUESTS = {
    "name": "guests",
    "targets": [{"backend": "pve", "vmid": ["100"], "api_host": "pve1", "credentials_file": "/etc/pve.json"}],
}


def metrics(run: float, verify: float, drill: float, due: float = NOW - 3600) -> str:
    series = "restorepoint_last_success_timestamp_seconds"
    lines = ["# HELP x y", f'restorepoint_policy_last_due_timestamp_seconds{{policy="nightly"}} {due}']
    for policy in ("nightly", "guests"):
        for command, moment in (("run", run), ("verify", verify), ("drill", drill)):
            lines.append(f'{series}{{command="{command}",policy="{policy}"}} {moment}')
    return "\n".join(lines)


def healthy() -> dict[str, Any]:
    """Return what a host tells on which all is in order."""
    timer = "Id=restorepoint-nightly.timer\nUnitFileState=enabled\nActiveState=active\n"
    return {
        "now": NOW,
        "agent": {"installed": True, "current": True},
        "check": {"rc": 0, "stderr": ""},
        "policies": [POLICY, GUESTS],
        "units": f"{timer}NextElapseUSecRealtime=Fri 2026-11-27 00:00:00 UTC\n\nId=other.timer\nActiveState=active\n",
        "metrics": metrics(NOW - 60, NOW - DAY, NOW - 2 * DAY),
        "published": {"mode": "textfile", "exists": True, "age": 20},
        "rules": {"path": "/etc/prometheus/rules.yml", "exists": True, "current": True},
        "stats": {
            "/srv/web": {"exists": True, "mode": "0755", "dev": 1},
            "/var/store": {"exists": True, "mode": "0700", "dev": 2},
            "/etc/pg.pass": {"exists": True, "mode": "0600", "dev": 1},
            "/etc/pve.json": {"exists": True, "mode": "0600", "dev": 1},
            "/p.json": {"exists": True, "mode": "0600", "dev": 1},
            "/state": {"exists": True, "mode": "0700", "dev": 1},
        },
        "users": {"/etc/pve.json": "backup@pve!agent"},
        "files": {"policies": "/p.json", "state": "/state"},
        "limits": {"verify": 35, "drill": "35"},
    }


#: What no host with guests of Proxmox VE can have ticked.
UNDRILLED = ("drill", "guests", "unknown")


def amiss(facts: dict[str, Any]) -> list[tuple[str, str, str]]:
    found = [(point.check, point.subject, point.state) for point in points(facts) if point.state != "ok"]
    return [each for each in found if each != UNDRILLED]


def test_a_host_on_which_all_is_in_order_gets_only_ticks() -> None:
    found = points(healthy())
    assert amiss(healthy()) == []
    assert {point.check for point in found} == {
        "agent",
        "policies",
        "timer",
        "last run",
        "verify",
        "drill",
        "metrics",
        "alerts",
        "policies are closed",
        "state is closed",
        "store is closed",
        "store is apart",
        "credentials are closed",
        "TLS",
        "rights",
    }
    assert all(point.line().startswith("✓ ") for point in found if (point.check, point.subject) != UNDRILLED[:2])


def test_nobody_is_told_to_drill_guests_which_the_agent_refuses() -> None:
    for text in (metrics(NOW, NOW, 0), metrics(NOW, NOW, NOW)):
        found = points({**healthy(), "metrics": text})
        (point,) = [each for each in found if (each.check, each.subject) == ("drill", "guests")]
        assert (point.state, "restorepoint drill" in point.todo) == ("unknown", False)


def test_the_unit_to_look_at_is_the_one_that_the_role_makes() -> None:
    stale = {**healthy(), "published": {"mode": "textfile", "exists": True, "age": 4000}}
    (point,) = [each for each in points(stale) if each.check == "metrics"]
    unit = point.todo.split()[-1]
    assert (ROLE / "templates" / f"{unit}.j2").exists()


_TIMER = "Id=restorepoint-nightly.timer\n"
FAULTS = [
    ({"agent": {"installed": False, "current": False}}, ("agent", "", "failed")),
    ({"agent": {"installed": True, "current": False}}, ("agent", "", "failed")),
    ({"check": {"rc": 2, "stderr": "policies[0].datset: there is no such key"}}, ("policies", "", "failed")),
    ({"published": {"mode": "textfile", "exists": False, "age": 0}}, ("metrics", "", "failed")),
    ({"published": {"mode": "textfile", "exists": True, "age": 4000}}, ("metrics", "", "failed")),
    ({"published": {"mode": "none", "exists": False, "age": 0}}, ("metrics", "", "warning")),
    ({"rules": {"path": "/r.yml", "exists": False, "current": False}}, ("alerts", "/r.yml", "failed")),
    ({"rules": {"path": "/r.yml", "exists": True, "current": False}}, ("alerts", "/r.yml", "failed")),
    ({"units": ""}, ("timer", "nightly", "failed")),
    ({"units": f"{_TIMER}UnitFileState=disabled\nActiveState=active"}, ("timer", "nightly", "failed")),
    ({"units": f"{_TIMER}UnitFileState=enabled\nActiveState=active"}, ("timer", "nightly", "failed")),
    ({"users": {}}, ("rights", "guests", "unknown")),
    ({"users": {"/etc/pve.json": "root@pam!full"}}, ("rights", "guests", "failed")),
    ({"users": {"/etc/pve.json": "backup@pve"}}, ("rights", "guests", "warning")),
]


@pytest.mark.parametrize(("fault", "expected"), FAULTS)
def test_each_fault_is_named_alone(fault: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert amiss({**healthy(), **fault}) == [expected]


@pytest.mark.parametrize(
    ("path", "seen", "expected"),
    [
        ("/var/store", {"mode": "0755"}, ("store is closed", "failed")),
        ("/var/store", {"dev": 1}, ("store is apart", "warning")),
        ("/var/store", {"exists": False}, ("store is closed", "unknown")),
        ("/etc/pg.pass", {"mode": "0640"}, ("credentials are closed", "failed")),
        ("/etc/pve.json", {"mode": "0604"}, ("credentials are closed", "failed")),
        ("/p.json", {"mode": "0644"}, ("policies are closed", "failed")),
        ("/state", {"mode": "0750"}, ("state is closed", "failed")),
    ],
)
def test_a_path_that_is_open_or_in_the_wrong_place_is_named(
    path: str, seen: dict[str, Any], expected: tuple[str, str]
) -> None:
    facts = healthy()
    facts["stats"][path].update(seen)
    assert [(check, state) for check, _subject, state in amiss(facts)] == [expected]


def test_a_run_counts_only_if_it_came_after_the_policy_was_due() -> None:
    facts = {**healthy(), "metrics": metrics(NOW - 7200, NOW, NOW)}
    assert amiss(facts) == [("last run", "nightly", "failed")]


def test_what_was_never_done_or_too_long_ago_is_not_ticked() -> None:
    never = {**healthy(), "metrics": metrics(NOW, 0, NOW - 36 * DAY)}
    assert {(check, state) for check, _subject, state in amiss(never)} == {("verify", "failed"), ("drill", "failed")}
    silent = {**healthy(), "metrics": ""}
    assert ("last run", "nightly", "unknown") in amiss(silent)


def test_copies_elsewhere_make_a_store_beside_the_data_right() -> None:
    facts = healthy()
    facts["stats"]["/var/store"]["dev"] = 1
    facts["policies"] = [{**POLICY, "export": {"to": "nas"}}, GUESTS]
    assert amiss(facts) == []


def test_a_certificate_that_is_not_verified_is_named() -> None:
    target = {**GUESTS["targets"][0], "validate_certs": False}  # type: ignore[dict-item]
    facts = {**healthy(), "policies": [POLICY, {**GUESTS, "targets": [target]}]}
    assert amiss(facts) == [("TLS", "guests", "failed")]
    local = {**GUESTS, "targets": [{"backend": "pve", "transport": "pvesh"}]}
    assert amiss({**healthy(), "policies": [POLICY, local]}) == []


def test_paths_are_what_policies_speak_of() -> None:
    assert paths([POLICY, GUESTS]) == ["/etc/pg.pass", "/etc/pve.json", "/srv/web", "/var/store"]
    assert paths([{"name": "x", "targets": [{"backend": "btrfs", "subvolume": "/srv"}]}]) == ["/srv"]


def test_texts_of_others_are_read_as_they_are() -> None:
    assert units("Id=a.timer\nX=1=2\n\n\nId=b.timer\nX=\n") == {
        "a.timer": {"Id": "a.timer", "X": "1=2"},
        "b.timer": {"Id": "b.timer", "X": ""},
    }
    assert units("") == {}
    found = samples('# HELP a b\nrestorepoint_up 1.0\nrestorepoint_x{a="1",b="2"} 3e+09\nother 1\n')
    labels = frozenset({("a", "1"), ("b", "2")})
    assert found == {("restorepoint_up", frozenset()): 1.0, ("restorepoint_x", labels): 3e9}


def test_a_line_says_what_to_do_where_something_is_to_be_done() -> None:
    assert Point("agent", "", "failed", "it is gone", "install it").line() == "✗ agent: it is gone; install it"
    assert Point("agent", "", "ok", "there", "nothing").line() == "✓ agent: there"
    assert set(MARKS) == {"ok", "failed", "warning", "unknown"}
