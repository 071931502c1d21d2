# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent in the guest under systemd: installed, with units for policies, and a clock that tests move.

For the tests of schedules beside it.
"""

from __future__ import annotations

import base64
import datetime
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from ansible_collections.restorepoint.core.plugins.module_utils.engine.jobs import job
from ansible_collections.restorepoint.core.plugins.module_utils.engine.policy import parse_policies
from ansible_collections.restorepoint.core.plugins.module_utils.setup.agent_build import agent_bytes
from ansible_collections.restorepoint.core.tests.guest.machine import Machine, ProgramFailed
from ansible_collections.restorepoint.core.tests.lab.driver import Result

PROGRAM = "/usr/local/sbin/restorepoint"
POLICIES = "/etc/restorepoint/policies.json"
STATE = "/var/lib/restorepoint"
#: How long something may take to come to be, in seconds.
PATIENCE = 600.0

_INSTALL = f"base64 -d > {PROGRAM}; chmod 755 {PROGRAM}; mkdir -p {os.path.dirname(POLICIES)}"
_STOP_TIMERS = "systemctl stop $(systemctl list-timers --all --plain --no-legend | grep -o '[^ ]*[.]timer')"
#: What is there of our units goes by patterns: a process for each of them takes seconds here.
_CLEAR = f"""
systemctl stop 'restorepoint*' || true
rm -rf {STATE} {POLICIES} /etc/systemd/system/restorepoint* /etc/systemd/system/*.wants/restorepoint*
rm -f /var/lib/systemd/timers/stamp-restorepoint*
systemctl daemon-reload
systemctl reset-failed 'restorepoint*' || true
date -s @NOW
"""


class Scheduled:
    """The guest with the agent. Each test starts with no policy, no unit, no state."""

    def __init__(self, guest: Machine) -> None:
        self.guest = guest

    def install(self) -> None:
        """Put the agent into the guest."""
        text = base64.b64encode(agent_bytes()).decode("ascii")
        self.guest.run("sh", "-c", _INSTALL, input=text)
        # A clock that is moved would have the timers of Debian start what they have missed.
        self.guest.script(_STOP_TIMERS)

    def clear(self) -> None:
        """Forget all policies, and what they left; the clock goes right again."""
        self.guest.script(_CLEAR.replace("NOW", f"{time.time():.0f}"), timeout=600)

    def layout(self, policies: list[dict[str, Any]], check_mode: bool = False, **options: Any) -> Result:
        """Install policies, and have their units made, with no random delay."""
        jobs = [job(each) for each in parse_policies({"policies": policies})] if policies else []
        if not check_mode:
            self.guest.write(POLICIES, json.dumps({"policies": policies}), 0o600)
        given = {"randomized_delay": "0", "catch_up": False, **options}
        return self.guest.call("schedule_layout", jobs=jobs, check_mode=check_mode, **given)

    def set_clock(self, epoch: float) -> None:
        """Move the clock."""
        self.guest.run("date", "-s", f"@{epoch:.0f}")

    def at(self, text: str) -> None:
        """Move the clock to a time of UTC, such as ``2026-03-29 00:59:55``."""
        self.set_clock(datetime.datetime.fromisoformat(f"{text}+00:00").timestamp())

    @property
    def journal(self) -> list[dict[str, Any]]:
        """The lines of the agent's journal."""
        try:
            return [json.loads(line) for line in self.guest.read(f"{STATE}/journal.jsonl").splitlines()]
        except ProgramFailed:
            return []

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        """How each run of the journal ended, and why."""
        return [(each["outcome"], each.get("reason", "")) for each in self.journal]

    def wait(self, what: Callable[[], Any], words: str) -> Any:
        """Wait until something is true, and return it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = what()
            if found:
                return found
            assert time.monotonic() < deadline, f"{words}: {self.told()}"
            time.sleep(0.5)

    def wait_for_runs(self, count: int) -> list[dict[str, Any]]:
        """Wait until so many runs stand in the agent's journal, and their services have ended; return its lines."""
        try:
            self.guest.until(f"{STATE}/journal.jsonl", count, PATIENCE)
        except TimeoutError as error:
            raise AssertionError(f"{error}: {self.told()}") from error
        self.wait(self.is_idle, "a service did not end")
        return self.journal

    def wait_for_hook(self) -> None:
        """Wait until a hook that holds is under way."""
        self.guest.until("/run/hold.on", timeout=PATIENCE)

    def clock(self) -> float:
        """Return what the guest's clock shows."""
        return float(self.guest.run("date", "+%s"))

    def is_idle(self) -> bool:
        """Say whether none of our services runs."""
        states = "--state=activating,active,deactivating"
        busy = self.guest.run("systemctl", "list-units", "--plain", "--no-legend", states, "restorepoint*.service")
        return not busy.strip()

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Return properties of a unit."""
        said = self.guest.run("systemctl", "show", f"--property={','.join(properties)}", unit)
        return dict(line.split("=", 1) for line in said.splitlines())

    def told(self) -> str:
        """Return the last that systemd's journal has of our units."""
        return self.guest.run("journalctl", "--no-pager", "-n", "40", "-u", "restorepoint*", check=False)


def scheduled(guest: Machine) -> Iterator[Scheduled]:
    """Give the guest with the agent, and leave it with a clock that is right."""
    found = Scheduled(guest)
    found.install()
    yield found
    found.layout([])
    found.clear()
    guest.run("rm", "-f", PROGRAM)
