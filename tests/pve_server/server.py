# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The test server as a whole: a cluster behind HTTPS, on a port of loopback, for the time of a ``with`` block.

See the package's docstring for how to use it. Standard library only.
"""

from __future__ import annotations

import contextlib
import pathlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

from .access import ROOT, Access
from .api import router
from .certificate import certificate
from .cluster import Cluster, Settings
from .faults import Faults
from .guests import LXC, QEMU, Guest
from .https import Request, Server, Site
from .operations import backup, migrate
from .programs import ProgramServer, serve
from .tasks import Task, Tasks

PASSWORD = "secret"


class PveServer:
    """A Proxmox VE of our own. ``host``, ``port``, ``url`` and ``ca_path`` say how to reach it.

    The user is ``root@pam`` with the password ``secret`` until others are added. Everything of the cluster may be read
    and changed while it runs; do it in a ``with server.frozen():`` block where calls may come in between.
    """

    user, password = ROOT, PASSWORD

    def __init__(
        self,
        nodes: Iterable[str] = ("pve1", "pve2"),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.cluster = Cluster(nodes, clock)
        self.faults = Faults()
        self.lock = threading.RLock()
        self._site = Site(self.cluster, router(), self.faults, self.lock)
        self._files = certificate()
        self._server = Server((host, port), self._site, self._files)
        self.host, self.port = host, int(self._server.server_address[1])
        self.ca_path = str(self._files.certificate)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._programs: ProgramServer | None = None

    def __enter__(self) -> PveServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        if self._programs:
            self._programs.shutdown()
            self._programs.server_close()
            self._programs.folder.cleanup()
        for connection in list(self._server.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"https://{self.host}:{self.port}"

    @property
    def settings(self) -> Settings:
        """Its times and limits."""
        return self.cluster.settings

    @property
    def access(self) -> Access:
        """Its users, tokens and permissions."""
        return self.cluster.access

    @property
    def tasks(self) -> Tasks:
        """Its tasks."""
        return self.cluster.tasks

    @property
    def calls(self) -> list[Request]:
        """Every call so far, in the order in which they came in."""
        return self._site.calls

    @property
    def connections(self) -> int:
        """How many connections there have been."""
        return self._site.connections

    def programs(self, node: str = "") -> pathlib.Path:
        """Return a folder for PATH with the pvesh, qm and pct of a node (the first), and pve-test-server."""
        with self.lock:
            self._programs = self._programs or serve(self._site)
            return self._programs.programs(node or next(iter(self.cluster.nodes)))

    def described(self) -> dict[str, Any]:
        """Return what other processes need to know."""
        programs = {name: str(self.programs(name)) for name in self.cluster.nodes}
        where = {"url": self.url, "host": self.host, "port": self.port, "ca_path": self.ca_path}
        return {**where, "user": self.user, "password": self.password, "programs": programs}

    @contextlib.contextmanager
    def frozen(self) -> Iterator[Cluster]:
        """Let no call be carried out while the block runs; what was due has happened before."""
        with self.lock:
            self.tasks.advance()
            yield self.cluster

    def add_qemu(self, vmid: int, **options: Any) -> Guest:
        """Add a VM; see Cluster.add_guest for the options."""
        with self.lock:
            return self.cluster.add_guest(QEMU, vmid, **options)

    def add_lxc(self, vmid: int, **options: Any) -> Guest:
        """Add a container; see Cluster.add_guest for the options."""
        with self.lock:
            return self.cluster.add_guest(LXC, vmid, **options)

    def add_storage(self, name: str, kind: str, **options: Any) -> None:
        """Add a storage of a kind (storage.KINDS)."""
        self.cluster.add_storage(name, kind, **options)

    def guest(self, vmid: int) -> Guest:
        """Return a guest as it is now."""
        with self.lock:
            self.tasks.advance()
            return self.cluster.guests[vmid]

    def all_tasks(self, kind: str = "") -> list[Task]:
        """Return every task so far, or those of a type, in the order of their starts."""
        with self.lock:
            self.tasks.advance()
            return [task for task in self.tasks.by_upid.values() if kind in ("", task.type)]

    def wait_idle(self, timeout: float = 10.0) -> None:
        """Wait until no task is under way that will end by itself; TimeoutError after that many seconds."""
        deadline = time.monotonic() + timeout
        while True:
            with self.lock:
                self.tasks.advance()
                if self.tasks.next_due() is None:
                    return
            if time.monotonic() > deadline:
                raise TimeoutError("tasks are still under way")
            time.sleep(0.005)

    def backup(self, vmid: int, seconds: float) -> Task:
        """Start a backup, which locks a guest for so long."""
        guest = self.guest(vmid)
        with self.lock:
            return self.tasks.start(guest.node, "vzdump", vmid, ROOT, backup(guest, seconds), [])

    def migrate(self, vmid: int, node: str, seconds: float = 0.0) -> Task:
        """Start to move a guest to another node, which locks it for so long."""
        guest, kind = self.guest(vmid), "qmigrate" if self.guest(vmid).type == QEMU else "vzmigrate"
        with self.lock:
            return self.tasks.start(guest.node, kind, vmid, ROOT, migrate(self.cluster, guest, node, seconds), [])

    def unlock(self, vmid: int) -> None:
        """Do what ``qm unlock`` and ``pct unlock`` do."""
        with self.lock:
            self.cluster.unlock(vmid)

    def release(self, task: Task) -> None:
        """Let a task that hangs go on, without more faults."""
        with self.lock:
            self.tasks.advance()
            self.tasks.release(task)

    def kill(self, task: Task) -> None:
        """Kill a task's worker: its status is 'unexpected status', and what it had written stays."""
        with self.lock:
            self.tasks.advance()
            self.tasks.kill(task)
