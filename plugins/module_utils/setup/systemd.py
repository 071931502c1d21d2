# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Units of systemd for policies: their text, and the plan that leads from the units there are to those. Pure.

Called by bridge/schedule.py; systemd_host.py beside it reads and acts. Each policy has a service, and a timer where it
has a schedule; so have its drill and its export. One more service, `restorepoint.service`, starts those that missed
one: at boot, and at 04:00.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import InvalidInput
from ..core.names import check_owner
from .plan import Plan, Step, named

#: The first line of each unit that is ours. Any other file is somebody else's.
MARK = "# Made by restorepoint.core. What is changed here is lost: make changes of your own with `systemctl edit`."
CATCH_UP = "restorepoint.service"
#: No policy has an underscore in its name. So a drill of `shop` is not taken for a policy called `drill-shop`.
OURS = re.compile(r"restorepoint(?:(?:_drill|_export)?-[a-z][a-z0-9-]*)?\.(?:service|timer)")
#: Names of units, with specifiers such as %n.
_UNIT = re.compile(r"[A-Za-z0-9:_.@%\\-]+\.[a-z]+")
#: Trees that ProtectSystem=full makes read-only.
_SYSTEM = ("/usr", "/boot", "/efi", "/etc", "/lib", "/bin", "/sbin")
#: How each run is confined, and since which version systemd knows it. Nothing here gives it a mount namespace, since
#: what a command mounts has to be mounted for all.
_ALWAYS = (
    (231, "RestrictRealtime=yes"),
    (235, "LockPersonality=yes"),
    (209, "SystemCallArchitectures=native"),
    (220, "CapabilityBoundingSet=~CAP_SYS_BOOT CAP_SYS_TIME CAP_WAKE_ALARM CAP_SYS_PACCT CAP_SYS_TTY_CONFIG"),
)
#: Besides, where a run starts no programs but those of the storage. Left out on purpose: ProtectKernelModules (LVM
#: loads dm-snapshot), ProtectClock and PrivateDevices (they hide the disks), PrivateTmp and ProtectHome (targets may
#: lie there), RestrictSUIDSGID (copies have the modes of what they copy), ReadWritePaths of stores (a bind mount ends
#: hard links and renames).
_OWN_PROGRAMS = (
    (187, "NoNewPrivileges=yes"),
    (232, "ProtectKernelTunables=yes"),
    (232, "ProtectControlGroups=yes"),
    (242, "ProtectHostname=yes"),
    (244, "ProtectKernelLogs=yes"),
    (233, "RestrictNamespaces=yes"),
    (211, "RestrictAddressFamilies=AF_UNIX AF_NETLINK"),
    (231, "SystemCallFilter=~@clock @cpu-emulation @debug @obsolete @raw-io @reboot @swap"),
    (209, "SystemCallErrorNumber=EPERM"),
)
#: What an export does besides: it speaks to other hosts, and has mounts of its own.
_NOT_OF_EXPORTS = ("RestrictNamespaces=", "RestrictAddressFamilies=")
_OF_EXPORTS = (
    (233, "RestrictNamespaces=mnt"),
    (211, "RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6"),
)
_PROTECT_SYSTEM = ((214, "ProtectSystem=full"), (231, "ReadWritePaths=-/etc/lvm"))
#: Seconds beside what hooks may take, in which a run that was told to stop undoes what it has begun.
_STOP_SECONDS = 120
#: What a hook may take when it is undone: fsfreeze is tried three times, by the run and by who comes after it.
_UNDONE_TIMES = 6


@dataclass(frozen=True)
class Extra:
    """A policy's drill, or its export, with a schedule of its own."""

    calendar: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    own_programs: bool = False


@dataclass(frozen=True)
class Job:
    """What units need to know of a policy; engine/jobs.py says what each means."""

    name: str
    description: str = ""
    calendar: tuple[str, ...] = ()
    timezone: str = "UTC"
    hook_seconds: int = 0
    paths: tuple[str, ...] = ()
    own_programs: bool = False
    drill: Extra | None = None
    export: Extra | None = None


@dataclass(frozen=True)
class Work:
    """What one service does: the command of the agent, with what units need to know of it.

    ``unit`` is its name without the suffix, ``what`` its title, ``after`` the unit that it does not begin before.
    """

    unit: str
    policy: str
    command: str
    what: str
    calendar: tuple[str, ...]
    paths: tuple[str, ...]
    own_programs: bool
    hook_seconds: int = 0
    after: str = ""


@dataclass(frozen=True)
class Settings:
    """What is the same for all policies of a host. Times are texts of systemd, ``wait`` is in seconds."""

    program: str = "/usr/local/sbin/restorepoint"
    policies_file: str = "/etc/restorepoint/policies.json"
    state_folder: str = "/var/lib/restorepoint"
    randomized_delay: str = "1min"
    persistent: bool = True
    catch_up: bool = True
    nice: int = 10
    io_class: str = "idle"
    wait: int = 3600
    on_failure: tuple[str, ...] = ()
    harden: bool = True


@dataclass(frozen=True)
class UnitState:
    """What systemd says of a unit, in its words."""

    enabled: str = ""
    active: str = "inactive"
    stale: bool = False


@dataclass(frozen=True)
class Found:
    """What is there: the texts of unit files (None for what is no plain file), their states, old stamps of timers."""

    version: int
    texts: Mapping[str, str | None] = field(default_factory=dict)
    states: Mapping[str, UnitState] = field(default_factory=dict)
    stamps: Sequence[str] = ()

    def state(self, unit: str) -> UnitState:
        """Return the state of a unit, also of one that is not there."""
        return self.states.get(unit, UnitState())


@dataclass(frozen=True)
class FileStep(Step):
    """A unit's file that gets another content, or goes (None)."""

    path: str = ""
    content: str | None = None


class UnitPlan(Plan):
    """A plan whose diff shows the files."""

    def diff(self) -> dict[str, str]:
        """Return the two ends of all files, and of what else changes."""
        shown: dict[str, str] = {"before": "", "after": ""}
        for step in self.steps:
            for end in shown:
                text = getattr(step, end)
                shown[end] += (
                    f"## {step.target}\n{text}\n" if isinstance(step, FileStep) else f"{step.target}: {text}\n"
                )
        return shown


# -- what is asked for -------------------------------------------------------------------------------------------------


def parse(params: Mapping[str, Any]) -> tuple[list[Job], Settings]:
    """Return what the options of schedule_layout mean. Raises InvalidInput."""
    jobs = []
    for row in params["jobs"]:
        check_owner(row["name"])
        extras = {key: Extra(**_words(row[key])) for key in ("drill", "export") if row.get(key) is not None}
        jobs.append(Job(**{**_words({key: row[key] for key in row if key not in ("drill", "export")}), **extras}))
    twice = named(params["jobs"], "name")
    if twice:
        raise InvalidInput("make units", f"{', '.join(twice)} is named twice", "name each policy once")
    for word in ("program", "policies_file", "state_folder"):
        if not params[word].startswith("/"):
            raise InvalidInput("make units", f"{word} is {params[word]!r}", "write it as an absolute path")
    if not -20 <= params["nice"] <= 19:
        raise InvalidInput("make units", f"nice is {params['nice']}", "choose one from -20 to 19")
    wrong = [each for each in params["on_failure"] if not _UNIT.fullmatch(each)]
    if wrong:
        raise InvalidInput("make units", f"{wrong[0]!r} is no name of a unit", "write it as in mail@%n.service")
    if not re.fullmatch("[0-9a-z ]+", params["randomized_delay"]):
        raise InvalidInput("make units", "randomized_delay is no span of time", "write it as in 1min or 30s")
    if params["wait"] < 0:
        raise InvalidInput("make units", f"wait is {params['wait']}", "write it in seconds, 0 or more")
    given = {key: params[key] for key in Settings.__dataclass_fields__}
    return jobs, Settings(**{**given, "on_failure": tuple(params["on_failure"])})


def _words(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def works(job: Job) -> list[Work]:
    """Return what there is to do for a policy: its run, its drill and its export.

    A drill, and an export, that is started together with the run waits for it: so both are of what is new.
    """
    unit = f"restorepoint-{job.name}"
    found = [
        Work(unit, job.name, "run", "Restore points of", job.calendar, job.paths, job.own_programs, job.hook_seconds)
    ]
    for command, what, extra in (("drill", "Drill of", job.drill), ("export", "Export of", job.export)):
        if extra is not None:
            named = f"restorepoint_{command}-{job.name}"
            found.append(
                Work(named, job.name, command, what, extra.calendar, extra.paths, extra.own_programs, after=unit)
            )
    return found


def units(jobs: Sequence[Job], settings: Settings, version: int) -> dict[str, str]:
    """Return the text of each unit, by its name, for that version of systemd."""
    made: dict[str, str] = {}
    scheduled: list[Work] = []
    for job in jobs:
        for work in works(job):
            made[f"{work.unit}.service"] = service(work, settings, version, job.description)
            if work.calendar:
                made[f"{work.unit}.timer"] = timer(work, settings)
                scheduled.append(work)
    if scheduled and settings.catch_up:
        made[CATCH_UP] = _catch_up(scheduled)
        made["restorepoint.timer"] = _catch_up_timer([job for job in jobs if any(each.calendar for each in works(job))])
    return made


def service(work: Work, settings: Settings, version: int, description: str = "") -> str:
    """Return the service of a policy, or of its drill or export.

    KillMode=process: the watchdog of the hooks, and a program of LVM that has suspended a volume, must outlive an agent
    that is killed. Should all of the control group be killed, ExecStopPost thaws.
    """
    program = _word(settings.program)
    state = f"--state {_word(settings.state_folder)}"
    due = "--if-due " if work.calendar else ""
    options = f"{due}--wait {settings.wait} {work.policy}"
    what = f"{work.what} policy {work.policy}" + (f": {description}" if description else "")
    after = " ".join(
        ["local-fs.target remote-fs.target zfs.target", *([f"{work.after}.service"] if work.after else [])]
    )
    return _text(
        "[Unit]",
        f"Description={_plain(what)}",
        "Documentation=man:restorepoint(8)",
        f"After={after}",
        *(["Wants=network-online.target", "After=network-online.target"] if work.command == "export" else []),
        f"RequiresMountsFor={_word(settings.state_folder)}",
        *([f"OnFailure={' '.join(settings.on_failure)}"] if settings.on_failure else []),
        "",
        "[Service]",
        "Type=oneshot",
        f"ExecStart={program} --policies {_word(settings.policies_file)} {state} {work.command} {options}",
        f"ExecStopPost={program} {state} recover {work.policy}",
        "KillMode=process",
        "TimeoutStartSec=infinity",
        f"TimeoutStopSec={_STOP_SECONDS + _UNDONE_TIMES * work.hook_seconds}",
        f"Nice={settings.nice}",
        f"IOSchedulingClass={settings.io_class}",
        "UMask=0077",
        *(_hardening(work, version) if settings.harden else []),
    )


def _hardening(work: Work, version: int) -> list[str]:
    asked = [*_ALWAYS]
    if work.own_programs:
        own = [each for each in _OWN_PROGRAMS if work.command != "export" or not each[1].startswith(_NOT_OF_EXPORTS)]
        asked += [*own, *(_OF_EXPORTS if work.command == "export" else ())]
        if not any(path == tree or path.startswith(f"{tree}/") for path in work.paths for tree in _SYSTEM):
            asked += _PROTECT_SYSTEM
    return [line for since, line in asked if since <= version]


_WHEN = {
    "run": "When restore points of policy {} are taken",
    "drill": "When policy {} is drilled",
    "export": "When policy {} is exported",
}


def timer(work: Work, settings: Settings) -> str:
    """Return the timer of what has a schedule."""
    return _text(
        "[Unit]",
        f"Description={_WHEN[work.command].format(work.policy)}",
        "Documentation=man:restorepoint(8)",
        "",
        "[Timer]",
        *(f"OnCalendar={each}" for each in work.calendar),
        f"RandomizedDelaySec={settings.randomized_delay}",
        "AccuracySec=1s",
        f"Persistent={'yes' if settings.persistent else 'no'}",
        "",
        "[Install]",
        "WantedBy=timers.target",
    )


def _catch_up(scheduled: Sequence[Work]) -> str:
    """Return the service that starts all that has a schedule; what is not due ends at once.

    Persistent timers know which moment was missed, but not that a run was killed; and a moment that daylight saving
    leaves out never comes for systemd.
    """
    services = " ".join(f"{each.unit}.service" for each in scheduled)
    return _text(
        "[Unit]",
        "Description=Restore points that were missed",
        "Documentation=man:restorepoint(8)",
        "After=local-fs.target remote-fs.target zfs.target",
        "",
        "[Service]",
        "Type=oneshot",
        f"ExecStart=/bin/systemctl start --no-block {services}",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    )


def _catch_up_timer(scheduled: Sequence[Job]) -> str:
    zones = sorted({job.timezone for job in scheduled})
    return _text(
        "[Unit]",
        "Description=When restore points that were missed are looked for",
        "Documentation=man:restorepoint(8)",
        "",
        "[Timer]",
        *(f"OnCalendar=*-*-* 04:00:00 {zone}" for zone in zones),
        "AccuracySec=1s",
        "",
        "[Install]",
        "WantedBy=timers.target",
    )


def _text(*lines: str) -> str:
    return "\n".join((MARK, *lines, ""))


def _plain(text: str) -> str:
    """Return a text as the value of a setting: on one line, and no specifier."""
    return " ".join(text.replace("%", "%%").split())


def _word(text: str) -> str:
    """Return one word of a command line or list of paths."""
    escaped = text.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return escaped if re.fullmatch(r"[A-Za-z0-9_./:@+,=-]+", text) else f'"{escaped}"'


# -- the plan ----------------------------------------------------------------------------------------------------------


def make_plan(wanted: Mapping[str, str], found: Found, folder: str) -> UnitPlan:
    """Return the steps that lead from the units there are to those that are wanted, in the folder of units."""
    plan = UnitPlan()
    gone = [unit for unit, text in found.texts.items() if unit not in wanted and _ours(text)]
    changed = [unit for unit, text in wanted.items() if found.texts.get(unit) != text]
    for unit in changed:
        if unit in found.texts and not _ours(found.texts[unit]):
            reason = "there is a unit of that name which this role has not made, or it is masked"
            plan.block(f"{folder}/{unit}", reason, f"look at it with `systemctl cat {unit}`, and move it away")
    _stop(plan, gone, found)
    for unit in changed:
        plan.steps.append(_file(folder, unit, found.texts.get(unit), wanted[unit]))
    for unit in gone:
        plan.steps.append(_file(folder, unit, found.texts[unit], None))
    if changed or gone or any(found.state(unit).stale for unit in wanted):
        plan.run("systemd", "read units", ["systemctl", "daemon-reload"], "units are read")
    failed = [unit for unit in gone if found.state(unit).active == "failed"]
    if failed:
        plan.run("systemd", "forget failures", ["systemctl", "reset-failed", *failed], " ".join(failed))
    _start(plan, wanted, changed, found)
    return plan


def _ours(text: str | None) -> bool:
    return text is not None and text.startswith(MARK.split(".", maxsplit=1)[0])


def _file(folder: str, unit: str, before: str | None, after: str | None) -> FileStep:
    action = "remove unit" if after is None else "write unit" if before is None else "change unit"
    return FileStep(unit, action, before or "absent", after or "absent", path=f"{folder}/{unit}", content=after)


def _stop(plan: UnitPlan, gone: Sequence[str], found: Found) -> None:
    """Let timers end that go. A service that runs goes on to its end."""
    timers = [unit for unit in gone if unit.endswith(".timer")]
    if timers:
        plan.run("systemd", "stop timers", ["systemctl", "disable", "--now", *timers], "stopped", " ".join(timers))
    enabled = [unit for unit in gone if unit not in timers and found.state(unit).enabled == "enabled"]
    if enabled:
        plan.run("systemd", "disable", ["systemctl", "disable", *enabled], "disabled", " ".join(enabled))
    stamps = [stamp for stamp in found.stamps if any(stamp.endswith(f"/stamp-{unit}") for unit in timers)]
    for stamp in stamps:
        step = FileStep(stamp, "forget when it ran", "present", "absent", path=stamp)
        plan.steps.append(step)


def _start(plan: UnitPlan, wanted: Mapping[str, str], changed: Sequence[str], found: Found) -> None:
    """Enable what is not, and have timers run as they are written."""
    timers = [unit for unit in wanted if unit.endswith(".timer")]
    enable = [unit for unit in (*timers, CATCH_UP) if unit in wanted and found.state(unit).enabled != "enabled"]
    if enable:
        plan.run("systemd", "enable", ["systemctl", "enable", *enable], " ".join(enable))
    start = [unit for unit in timers if unit in changed or found.state(unit).active != "active"]
    if start:
        plan.run("systemd", "start timers", ["systemctl", "restart", *start], " ".join(start))
