# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cluster of the test server: its nodes, storages, guests and pools, and how long everything takes.

What tests and scenarios fill. Standard library only; operations.py changes guests, api.py shows them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .access import Access
from .guests import LXC, QEMU, Guest, Job, config_file
from .storage import GIB, Storage, Volume
from .tasks import TaskDied, Tasks

DEFAULT_STORAGES = (
    ("local-zfs", "zfspool"),
    ("local-lvm", "lvmthin"),
    ("ceph", "rbd"),
    ("local-btrfs", "btrfs"),
    ("local", "qcow2"),
    ("chain", "qcow2-chain"),
    ("san", "lvm-chain"),
    ("local-raw", "raw"),
    ("local-thick", "lvm"),
    ("nfs", "nfs-qcow2"),
)
_DRIVES = {QEMU: "scsi{}", LXC: "mp{}"}


@dataclass
class Settings:
    """Times in seconds, and limits. Tests are quick by default; ``realistic()`` is as a real cluster is.

    ``task_seconds`` is the whole of a snapshot's creation, removal or rollback, shared out over its volumes;
    ``pvestatd_seconds`` how old the status in /cluster/resources may be; ``ha_seconds`` how long the LRM takes to act.
    """

    task_seconds: float = 0.02
    vmstate_seconds: float = 0.02
    start_seconds: float = 0.02
    stop_seconds: float = 0.0
    ha_seconds: float = 0.05
    pvestatd_seconds: float = 0.0
    migration_lock_seconds: float = 10.0
    #: What each call takes, beside its own cost.
    call_seconds: float = 0.0
    ticket_lifetime: float = 7200.0
    keepalive_requests: int = 100
    idle_seconds: float = 5.0
    version: str = "9.1.2"
    #: How pvesh treats the output of another node: see pvesh.py.
    pvesh_proxy: str = "strict"

    def realistic(self) -> None:
        """Take as long as storage and guests do."""
        self.task_seconds, self.vmstate_seconds, self.start_seconds, self.stop_seconds = 0.5, 2.0, 1.5, 0.5
        self.ha_seconds, self.pvestatd_seconds = 5.0, 10.0


@dataclass
class Node:
    """A node of the cluster."""

    name: str
    online: bool = True


class Cluster:
    """Everything that the API can change or show. Not safe for threads: callers hold the server's lock."""

    def __init__(self, nodes: Iterable[str] = ("pve1", "pve2"), clock: Callable[[], float] = time.time) -> None:
        self.settings = Settings()
        self.tasks = Tasks(clock)
        self.access = Access(clock, self.settings)
        self.nodes = {name: Node(name) for name in nodes}
        self.storages = {name: Storage(name, kind) for name, kind in DEFAULT_STORAGES}
        self.pools: dict[str, str] = {}
        self.guests: dict[int, Guest] = {}

    def add_storage(self, name: str, kind: str, nodes: Sequence[str] = (), **more: Any) -> Storage:
        """Add a storage of a kind (storage.KINDS)."""
        self.storages[name] = Storage(name, kind, nodes, **more)
        return self.storages[name]

    def add_guest(
        self,
        kind: str,
        vmid: int,
        *,
        name: str = "",
        node: str = "",
        storage: str | Sequence[str] = "local-zfs",
        running: bool = True,
        template: bool = False,
        lock: str | None = None,
        tags: str = "",
        pool: str | None = None,
        agent: bool = False,
        description: str = "",
        content: Any = "first",
        ram: Any = "",
        hastate: str | None = None,
        replication: Sequence[str] = (),
        mounts: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> Guest:
        """Add a guest with one drive on each of ``storage``.

        ``mounts`` are a container's bind or device mounts (``/srv``); ``replication`` names target nodes of jobs;
        ``config`` goes over its configuration (``{"virtiofs0": "share"}``, ``{"amd-sev": "std"}``).
        """
        node = node or next(iter(self.nodes))
        found: dict[str, Any] = _basic_config(kind, vmid, name or f"guest-{vmid}")
        volumes = {}
        for index, where in enumerate([storage] if isinstance(storage, str) else storage):
            volume = self._volume(kind, vmid, index, where, content)
            volumes[volume.volid] = volume
            key = "rootfs" if kind == LXC and index == 0 else _DRIVES[kind].format(index)
            mount = "" if kind == QEMU or key == "rootfs" else f",mp=/mnt/{key}"
            found[key] = f"{volume.volid}{mount},size={volume.size // GIB}G"
        for index, mount in enumerate(mounts, start=90):
            found[f"mp{index}"] = f"{mount},mp={mount}"
        options = {"template": 1 if template else None, "lock": lock, "tags": tags, "agent": "1" if agent else None}
        found.update({key: value for key, value in options.items() if value})
        if description:
            found["description"] = f"{description}\n" if kind == LXC else description
        found.update(config or {})
        if pool:
            self.pools.setdefault(pool, "")
        guest = Guest(
            vmid=vmid,
            type=kind,
            name=name or f"guest-{vmid}",
            node=node,
            config=found,
            volumes=volumes,
            running=running and not template,
            pool=pool,
            hastate=hastate,
            jobs=[Job(f"{vmid}-{number}", target) for number, target in enumerate(replication)],
            ram=ram,
            started=self.tasks.now - 100,
        )
        self.guests[vmid] = guest
        for job in guest.jobs:
            self.replicate(guest, job)
        return guest

    def _volume(self, kind: str, vmid: int, index: int, where: str, content: Any) -> Volume:
        storage = self.storages[where]
        pattern = storage.kind.container if kind == LXC and storage.kind.container else storage.kind.volid
        return Volume(pattern.format(storage=where, vmid=vmid, index=index), storage, content=content)

    def replicate(self, guest: Guest, job: Job) -> None:
        """Run a replication job: its snapshot on each volume is made anew."""
        job.replicated = True
        for volume in guest.volumes.values():
            volume.snapshots = [s for s in volume.snapshots if not s.name.startswith(f"__replicate_{job.id}_")]
            volume.take(f"__replicate_{job.id}_{int(self.tasks.now)}__")

    def load(self, node: str, kind: str, vmid: int) -> Guest:
        """Return a guest whose configuration lies on that node; TaskDied, in Proxmox's words, where it does not."""
        guest = self.guests.get(vmid)
        if guest is None or guest.node != node or guest.type != kind:
            raise TaskDied(f"Configuration file '{config_file(node, kind, vmid)}' does not exist\n")
        return guest

    def unlock(self, vmid: int) -> None:
        """Do what ``qm unlock`` and ``pct unlock`` do."""
        self.guests[vmid].config.pop("lock", None)

    def move(self, vmid: int, node: str) -> None:
        """Migrate a guest, at once."""
        self.guests[vmid].node = node

    def refresh(self, guest: Guest) -> dict[str, Any]:
        """Return a guest's status as pvestatd last reported it."""
        now = self.tasks.now
        if guest.reported_at < 0 or now - guest.reported_at >= self.settings.pvestatd_seconds:
            guest.reported_at = now
            guest.reported = {
                "status": "running" if guest.running else "stopped",
                "name": guest.name,
                "template": int(guest.template),
                "uptime": int(now - guest.started) if guest.running else 0,
            }
        return guest.reported


def _basic_config(kind: str, vmid: int, name: str) -> dict[str, Any]:
    if kind == LXC:
        return {"hostname": name, "arch": "amd64", "cores": 1, "memory": 512, "swap": 512, "ostype": "debian"}
    mac = ":".join(f"{number:02X}" for number in (0xBC, 0x24, 0x11, vmid >> 16 & 255, vmid >> 8 & 255, vmid & 255))
    return {
        "name": name,
        "boot": "order=scsi0",
        "cores": 2,
        "ide2": "none,media=cdrom",
        "memory": "2048",
        "net0": f"virtio={mac},bridge=vmbr0",
        "ostype": "l26",
    }
