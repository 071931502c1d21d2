# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Units of systemd for policies: what stands in them, and which steps lead to them."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput, ToolError
from ansible_collections.restorepoint.core.plugins.module_utils.setup import systemd, systemd_host
from ansible_collections.restorepoint.core.plugins.module_utils.setup.plan import Plan, Step
from ansible_collections.restorepoint.core.plugins.module_utils.setup.systemd import (
    MARK,
    Extra,
    FileStep,
    Found,
    Job,
    Settings,
    UnitState,
    make_plan,
    timer,
    units,
    works,
)

SHOP = Job("shop", calendar=("daily UTC", "Mon 08:00 Europe/Paris"), timezone="Europe/Paris", own_programs=True)
BY_HAND = Job("by-hand")
RUNS = UnitState("enabled", "active")


WEEKLY = Extra(calendar=("Sun 03:30 Europe/Paris",), own_programs=True)
WHOLE = Job("shop", calendar=("daily UTC",), timezone="Europe/Paris", own_programs=True, drill=WEEKLY, export=WEEKLY)


def service(job, settings, version):
    """The service of a policy's run."""
    return systemd.service(works(job)[0], settings, version, job.description)


def in_place(wanted):
    """What is there where all of it is as it is wanted."""
    states = {unit: RUNS if unit.endswith(".timer") or unit == systemd.CATCH_UP else UnitState() for unit in wanted}
    return Found(252, dict(wanted), states)


def told(plan):
    """The steps of a plan, as action and what it is about."""
    return [
        (step.action, step.target if isinstance(step, FileStep) else " ".join(step.argv[1:])) for step in plan.steps
    ]


def test_a_service_runs_what_is_due_and_ends_what_a_killed_run_left():
    lines = service(SHOP, Settings(wait=60), 252).splitlines()
    assert lines[0] == MARK
    agent = "/usr/local/sbin/restorepoint"
    policies = "--policies /etc/restorepoint/policies.json"
    assert f"ExecStart={agent} {policies} --state /var/lib/restorepoint run --if-due --wait 60 shop" in lines
    assert f"ExecStopPost={agent} --state /var/lib/restorepoint recover shop" in lines
    assert "KillMode=process" in lines


def test_a_policy_without_a_schedule_has_a_service_alone_which_runs_whenever_it_is_started():
    made = units([BY_HAND], Settings(), 252)
    assert list(made) == ["restorepoint-by-hand.service"]
    assert "--if-due" not in made["restorepoint-by-hand.service"]


def test_a_timer_has_a_line_for_each_moment():
    lines = timer(works(SHOP)[0], Settings(randomized_delay="30s", persistent=False)).splitlines()
    assert [line for line in lines if line.startswith("OnCalendar=")] == [
        "OnCalendar=daily UTC",
        "OnCalendar=Mon 08:00 Europe/Paris",
    ]
    assert {"RandomizedDelaySec=30s", "Persistent=no", "WantedBy=timers.target"} <= set(lines)


def test_what_was_missed_is_looked_for_in_each_zone_and_only_of_what_has_a_schedule():
    made = units([SHOP, Job("far", calendar=("daily Asia/Tokyo",), timezone="Asia/Tokyo"), BY_HAND], Settings(), 252)
    assert "start --no-block restorepoint-shop.service restorepoint-far.service\n" in made["restorepoint.service"]
    assert "OnCalendar=*-*-* 04:00:00 Asia/Tokyo\n" in made["restorepoint.timer"]
    assert "OnCalendar=*-*-* 04:00:00 Europe/Paris\n" in made["restorepoint.timer"]
    assert "restorepoint.timer" not in units([SHOP], Settings(catch_up=False), 252)


@pytest.mark.parametrize(
    ("job", "version", "there", "missing"),
    [
        (SHOP, 252, ["ProtectSystem=full", "NoNewPrivileges=yes", "LockPersonality=yes"], []),
        (SHOP, 239, ["ProtectSystem=full"], ["ProtectKernelLogs=yes", "ProtectHostname=yes"]),
        (Job("shop", own_programs=True, paths=("/etc/shop",)), 252, ["NoNewPrivileges=yes"], ["ProtectSystem=full"]),
        (Job("shop", own_programs=True, paths=("/etcetera",)), 252, ["ProtectSystem=full"], []),
        (Job("shop"), 252, ["LockPersonality=yes"], ["NoNewPrivileges=yes", "ProtectSystem=full"]),
    ],
    ids=["own programs", "an old systemd", "a target that is confined", "a name that is alike", "a hook"],
)
def test_a_run_is_confined_as_far_as_it_bears_it(job, version, there, missing):
    lines = service(job, Settings(), version).splitlines()
    assert set(there) <= set(lines)
    assert not set(missing) & set(lines)
    assert not {*there, *missing} & set(service(job, Settings(harden=False), version).splitlines())


def test_a_drill_and_an_export_have_units_of_their_own_that_no_policy_could_have():
    made = units([WHOLE, Job("by-hand", drill=Extra())], Settings(wait=60), 252)
    assert set(made) == {
        *("restorepoint-shop.service", "restorepoint-shop.timer", "restorepoint.service", "restorepoint.timer"),
        *("restorepoint_drill-shop.service", "restorepoint_drill-shop.timer", "restorepoint_export-shop.service"),
        *("restorepoint_export-shop.timer", "restorepoint-by-hand.service", "restorepoint_drill-by-hand.service"),
    }
    assert all(systemd.OURS.fullmatch(unit) for unit in made)
    for command in ("drill", "export"):
        text = made[f"restorepoint_{command}-shop.service"]
        assert f" {command} --if-due --wait 60 shop\n" in text
        assert "ExecStopPost=/usr/local/sbin/restorepoint --state /var/lib/restorepoint recover shop\n" in text
        assert "zfs.target restorepoint-shop.service\n" in text  # it waits for a run that is under way
        assert "OnCalendar=Sun 03:30 Europe/Paris\n" in made[f"restorepoint_{command}-shop.timer"]
    assert " drill --wait 60 by-hand\n" in made["restorepoint_drill-by-hand.service"]


@pytest.mark.parametrize("unit", ["restorepoint_drill.service", "restorepoint_export.timer", "restorepoint_x-a.timer"])
def test_units_that_were_made_by_hand_as_the_guide_once_said_are_none_of_ours(unit):
    assert not systemd.OURS.fullmatch(unit)


def test_a_drill_or_an_export_that_was_missed_is_looked_for_as_a_run_is():
    made = units([Job("far", timezone="Asia/Tokyo", drill=WEEKLY), WHOLE, BY_HAND], Settings(), 252)
    start = "restorepoint_drill-far.service restorepoint-shop.service restorepoint_drill-shop.service"
    assert f"start --no-block {start} restorepoint_export-shop.service\n" in made["restorepoint.service"]
    zones = [line for line in made["restorepoint.timer"].splitlines() if line.startswith("OnCalendar=")]
    assert zones == ["OnCalendar=*-*-* 04:00:00 Asia/Tokyo", "OnCalendar=*-*-* 04:00:00 Europe/Paris"]


def test_an_export_is_confined_as_a_run_is_but_for_the_network_and_mounts_of_its_own():
    run, drill, export = (
        systemd.service(each, Settings(), 252).splitlines() for each in works(WHOLE)
    )  # fmt: skip
    beside = {"RestrictNamespaces=mnt", "RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6"}
    confined = {line for line in run if line.startswith(("Restrict", "Protect", "System", "No", "Lock", "Cap"))}
    assert confined <= set(drill)
    assert confined - set(export) == {"RestrictNamespaces=yes", "RestrictAddressFamilies=AF_UNIX AF_NETLINK"}
    assert beside <= set(export)
    assert not beside & set(drill)
    program = systemd.service(works(Job("shop", export=Extra()))[1], Settings(), 252).splitlines()
    assert not beside & set(program)
    assert "LockPersonality=yes" in program


def test_a_key_that_goes_takes_its_units_with_it_and_no_other():
    before = units([WHOLE], Settings(), 252)
    wanted = units([Job("shop", calendar=("daily UTC",), timezone="Europe/Paris", own_programs=True)], Settings(), 252)
    steps = told(make_plan(wanted, in_place(before), "/x"))
    assert ("stop timers", "disable --now restorepoint_drill-shop.timer restorepoint_export-shop.timer") in steps
    gone = {unit for action, unit in steps if action == "remove unit"}
    assert gone == set(before) - set(wanted)
    assert len(gone) == 4


def test_texts_of_people_are_no_syntax_of_systemd():
    job = Job("shop", description="100% of it\nExecStart=/bin/false")
    text = service(job, Settings(program='/opt/a "b" $c/%d'), 252)
    assert "Description=Restore points of policy shop: 100%% of it ExecStart=/bin/false\n" in text
    assert 'ExecStart="/opt/a \\"b\\" $$c/%%d" --policies' in text
    assert text.count("\nExecStart=") == 1


def test_on_a_host_without_units_they_are_written_enabled_and_their_timers_started():
    wanted = units([SHOP], Settings(), 252)
    plan = make_plan(wanted, Found(252), "/etc/systemd/system")
    assert told(plan) == [
        ("write unit", "restorepoint-shop.service"),
        ("write unit", "restorepoint-shop.timer"),
        ("write unit", "restorepoint.service"),
        ("write unit", "restorepoint.timer"),
        ("read units", "daemon-reload"),
        ("enable", "enable restorepoint-shop.timer restorepoint.timer restorepoint.service"),
        ("start timers", "restart restorepoint-shop.timer restorepoint.timer"),
    ]
    assert "## restorepoint-shop.timer\n" + wanted["restorepoint-shop.timer"] in plan.diff()["after"]


def test_where_all_is_in_place_nothing_is_done():
    wanted = units([SHOP, BY_HAND], Settings(), 252)
    assert make_plan(wanted, in_place(wanted), "/etc/systemd/system").steps == []


def test_a_policy_that_went_takes_its_units_with_it_and_its_stamp_and_leaves_those_of_others():
    before = units([SHOP, BY_HAND], Settings(), 252)
    wanted = units([BY_HAND], Settings(), 252)
    there = in_place(before)
    other = "# Ansible managed\n[Service]\nExecStart=/bin/true\n"
    stamp = "/var/lib/systemd/timers/stamp-restorepoint-shop.timer"
    states = {**there.states, "restorepoint-shop.service": UnitState("static", "failed")}
    found = Found(252, {**there.texts, "restorepoint-lvm-files.service": other}, states, [stamp])
    assert told(make_plan(wanted, found, "/etc/systemd/system")) == [
        ("stop timers", "disable --now restorepoint-shop.timer restorepoint.timer"),
        ("disable", "disable restorepoint.service"),
        ("forget when it ran", stamp),
        ("remove unit", "restorepoint-shop.service"),
        ("remove unit", "restorepoint-shop.timer"),
        ("remove unit", "restorepoint.service"),
        ("remove unit", "restorepoint.timer"),
        ("read units", "daemon-reload"),
        ("forget failures", "reset-failed restorepoint-shop.service"),
    ]


def test_a_timer_that_was_stopped_or_changed_runs_again():
    wanted = units([SHOP], Settings(catch_up=False), 252)
    found = in_place(wanted)
    stopped = Found(252, found.texts, {**found.states, "restorepoint-shop.timer": UnitState("enabled", "inactive")})
    start = ("start timers", "restart restorepoint-shop.timer")
    assert told(make_plan(wanted, stopped, "/x")) == [start]
    changed = Found(252, {**found.texts, "restorepoint-shop.timer": f"{MARK}\nold"}, found.states)
    assert told(make_plan(wanted, changed, "/x")) == [
        ("change unit", "restorepoint-shop.timer"),
        ("read units", "daemon-reload"),
        start,
    ]


@pytest.mark.parametrize("text", [None, "[Service]\nExecStart=/bin/true\n"], ids=["masked", "another's"])
def test_a_unit_of_that_name_that_is_not_ours_stands_in_the_way(text):
    wanted = units([BY_HAND], Settings(), 252)
    (blocker,) = make_plan(wanted, Found(252, {"restorepoint-by-hand.service": text}), "/etc/systemd/system").blockers
    assert blocker.target == "/etc/systemd/system/restorepoint-by-hand.service"
    assert "not made" in blocker.reason


def options(**given):
    """The options of the module, with its defaults."""
    from ansible_collections.restorepoint.core.plugins.module_utils.bridge.schedule import SPEC

    return {**{name: spec.get("default") for name, spec in SPEC.items()}, "jobs": [], **given}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"jobs": [{"name": "a b"}]}, "must be 2 to 23 characters"),
        ({"jobs": [{"name": "shop"}, {"name": "shop"}]}, "shop is named twice"),
        ({"program": "restorepoint"}, "program is 'restorepoint'"),
        ({"nice": 20}, "nice is 20"),
        ({"wait": -1}, "wait is -1"),
        ({"randomized_delay": "1min\nPersistent=no"}, "no span of time"),
        ({"on_failure": ["mail"]}, "'mail' is no name of a unit"),
    ],
)
def test_what_cannot_be_meant_is_refused(given, reason):
    with pytest.raises(InvalidInput, match=reason):
        systemd.parse(options(**given))


def test_options_are_what_the_units_are_made_of():
    jobs, settings = systemd.parse(
        options(jobs=[{"name": "shop", "calendar": ["daily UTC"]}], on_failure=["m@%n.service"])
    )
    assert jobs == [Job("shop", calendar=("daily UTC",))]
    assert settings == Settings(on_failure=("m@%n.service",))
    drill = {"calendar": ["Sun UTC"], "paths": ["/a"], "own_programs": True}
    assert systemd.parse(options(jobs=[{"name": "shop", "drill": drill, "export": None}]))[0] == [
        Job("shop", drill=Extra(("Sun UTC",), ("/a",), True))
    ]
    assert "OnFailure=m@%n.service\n" in service(jobs[0], settings, 252)


def test_a_file_is_written_whole_and_removed(tmp_path):
    path = tmp_path / "restorepoint-a1.service"
    done: list[Step] = []
    plan = Plan([FileStep("u", "write unit", "absent", "text", path=str(path), content="text")])
    systemd_host.carry_out(plan, done)
    assert (path.read_text(), path.stat().st_mode & 0o777, len(done)) == ("text", 0o644, 1)
    systemd_host.carry_out(Plan([FileStep("u", "remove unit", "text", "absent", path=str(path))]), done)
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_fails_ends_it_and_what_was_done_is_told(tmp_path):
    plan = Plan()
    plan.steps.append(FileStep("u", "write unit", "absent", "x", path=str(tmp_path / "u"), content="x"))
    plan.run("systemd", "read units", ["sh", "-c", "echo no >&2; exit 3"], "read")
    plan.run("systemd", "enable", ["true"], "enabled")
    done: list[Step] = []
    with pytest.raises(ToolError, match="read units, of systemd"):
        systemd_host.carry_out(plan, done)
    assert [step.action for step in done] == ["write unit"]
