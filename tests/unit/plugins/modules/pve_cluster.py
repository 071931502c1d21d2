# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A test server of Proxmox VE, and the modules run against it as Ansible does. For the tests here and in tests/lab."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils import pve as door
from ansible_collections.restorepoint.core.plugins.module_utils.backends.pve import backend, operations, tasks
from ansible_collections.restorepoint.core.plugins.modules import pve_snapshot, pve_snapshot_info
from ansible_collections.restorepoint.core.tests.pve_server import PveServer, scenarios
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.running import run


class Cluster:
    """A server, and the modules with its connection."""

    def __init__(self, server: PveServer) -> None:
        self.server = server
        self.login: dict[str, Any] = {
            "api_host": server.host,
            "api_port": server.port,
            "api_user": server.user,
            "api_password": server.password,
            "ca_path": server.ca_path,
        }

    def state(self, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        """Run pve_snapshot and return its result, failed or not."""
        return run(pve_snapshot, check_mode, **{**self.login, **options})

    def done(self, **options: Any) -> dict[str, Any]:
        """Run pve_snapshot, which has to succeed, after check mode, which has to predict it.

        Check mode only reads: a return that it carried out would look the same when it is carried out once more.
        """
        before = len(self.server.calls)
        foreseen = self.state(check_mode=True, **options)
        sent = {str(each) for each in self.server.calls[before:] if each.method != "GET"}
        assert sent <= {"POST /access/ticket"}
        found = self.state(**options)
        assert "failed" not in found, found["msg"]
        assert "failed" not in foreseen, foreseen["msg"]
        assert told(foreseen) == told(found)
        assert foreseen["diff"] == found["diff"]
        return found

    def info(self, **options: Any) -> dict[str, Any]:
        """Run pve_snapshot_info and return its result."""
        return run(pve_snapshot_info, **{**self.login, **options})

    def names(self, vmid: int) -> list[str]:
        """Return the names of a guest's snapshots, as the server has them."""
        return sorted(self.server.guest(vmid).snapshots)

    def is_clean(self, vmid: int) -> bool:
        """Say whether a guest has neither a lock nor a half made or half deleted snapshot."""
        guest = self.server.guest(vmid)
        return guest.lock is None and not any(each.get("snapstate") for each in guest.snapshots.values())


def told(result: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return what check mode has to predict of each result."""
    return [(each["target"], each["name"], each["action"], each["changed"], each["reason"])
            for each in result["results"]]  # fmt: skip


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """Let everything that waits wait for a moment only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "FIRST_PAUSE", 0.02)
        patch.setattr(tasks, "LONGEST_PAUSE", 0.05)
        patch.setattr(operations, "_LOOKS", (0.05, 0.1, 0.1))
        patch.setattr(operations, "_LOCK_PAUSE", 0.05)
        patch.setattr(operations, "_POLL_STATUS", 0.02)
        patch.setattr(operations, "_STOP_SECONDS", 1.0)
        patch.setattr(backend, "_LEAST_UNDO_SECONDS", 3.0)
        patch.setattr(backend, "_LOCK_POLL", 0.05)
        patch.setattr(door, "PAUSES", (0.02, 0.05, 0.1, 0.2))
        yield


@contextlib.contextmanager
def guests_of_each_kind(clock: Callable[[], float] = time.time) -> Iterator[Cluster]:
    """A server with a guest of each kind (scenarios.kinds), whose tasks take almost no time; nothing waits for long."""
    with PveServer(clock=clock) as server, impatient():
        server.settings.task_seconds = server.settings.vmstate_seconds = server.settings.start_seconds = 0.004
        scenarios.kinds(server)
        yield Cluster(server)
