# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The workers of the test server: what creating, removing and rolling back a snapshot does, step by step.

After pve-guest-common's AbstractConfig.pm (snapshot_create, snapshot_delete, snapshot_rollback), in our own words: the
order of the checks, the locks, the snapstates, and what a step that fails leaves behind. Steps have names, before which
a test can let a task fail, hang, or be killed:

- creation: ``prepare``, ``freeze``, ``vmstate``, ``volume:KEY``, ``commit``; where it fails, ``cleanup:prepare``,
  ``cleanup:vmstate``, ``cleanup:volume:KEY``, ``cleanup:commit``
- removal: ``begin``, ``prepare``, ``vmstate``, ``volume:KEY``, ``commit``
- rollback: ``prepare``, ``stop``, ``volume:KEY``, ``commit``, ``start`` (with RAM)
- power: ``start``, ``stop``

Called by api.py. Standard library only.
"""

from __future__ import annotations

import fnmatch
import uuid
from collections.abc import Callable
from typing import Any

from .cluster import Cluster
from .guests import LXC, QEMU, Guest
from .storage import MIB, Volume, replication_job
from .tasks import FOREVER, Task, TaskDied, TaskKilled, Worker

_POLL_SECONDS = 0.02
_PREFIX = {QEMU: "qm", LXC: "vz"}


def task_type(kind: str, what: str) -> str:
    """Return the type of a task: qmsnapshot, vzdelsnapshot, qmstart."""
    return _PREFIX[kind] + what


def _step(task: Task, name: str, seconds: float = 0.0) -> Worker:
    """Pass the time that a step takes, then let happen what a test wants to happen there."""
    task.steps.append(name)
    yield seconds
    for fault in [each for each in task.faults if fnmatch.fnmatchcase(name, each.step)]:
        if fault.how == "kill":
            raise TaskKilled
        if fault.how in ("slow", "warn"):
            yield fault.seconds
            if fault.how == "warn":
                task.warn(fault.message)
            continue
        if fault.how == "hang":
            while fault in task.faults:
                yield FOREVER
            continue
        raise TaskDied(fault.message if fault.message.endswith("\n") else f"{fault.message}\n")


def check_lock(guest: Guest) -> None:
    """Refuse a guest that is locked."""
    if guest.lock:
        raise TaskDied(f"{guest.locked_message}\n")


def _hold_migration_lock(cluster: Cluster, task: Task, guest: Guest, refusal: str) -> Worker:
    """Wait for the lock that removals and rollbacks of a guest take; it falls when its holder ends, however that is."""
    deadline = cluster.tasks.now + cluster.settings.migration_lock_seconds
    while isinstance(guest.migration_lock, Task) and guest.migration_lock.status is None:
        if cluster.tasks.now >= deadline:
            raise TaskDied(f"{refusal}\n")
        yield _POLL_SECONDS
    guest.migration_lock = task


def _share(cluster: Cluster, guest: Guest, section: dict[str, Any]) -> float:
    whole = cluster.settings.task_seconds if guest.seconds is None else guest.seconds
    return whole / max(1, len(list(guest.drives(section))))


def create(
    cluster: Cluster, node: str, kind: str, vmid: int, name: str, vmstate: bool, description: str
) -> Callable[[Task], Worker]:
    """Return the worker that takes a snapshot."""

    def worker(task: Task) -> Worker:
        yield from _step(task, "prepare")
        guest = cluster.load(node, kind, vmid)
        section = _prepare(cluster, guest, name, vmstate, description)
        done: list[str] = []
        try:
            yield from _take_volumes(cluster, task, guest, section, name, done)
        except TaskDied as error:
            task.say("snapshot create failed: starting cleanup")
            try:
                yield from _delete_body(cluster, task, guest, name, force=True, only=done)
            except TaskDied as second:
                task.say(str(second).rstrip("\n"))
            raise TaskDied(f"{error}\n") from error
        yield from _step(task, "commit")
        if guest.lock != "snapshot":
            raise TaskDied("missing snapshot lock\n")
        del section["snapstate"], guest.config["lock"]
        guest.config["parent"] = name

    return worker


def _prepare(cluster: Cluster, guest: Guest, name: str, vmstate: bool, description: str) -> dict[str, Any]:
    """Check everything in Proxmox's order, then lock the guest and write the snapshot's section."""
    if guest.template:
        raise TaskDied("you can't take a snapshot if it's a template\n")
    check_lock(guest)
    if vmstate:
        refuse_ram(guest)
    if name in guest.snapshots:
        raise TaskDied(f"snapshot name '{name}' already used\n")
    if not guest.has_snapshot_feature():
        raise TaskDied("snapshot feature is not available\n")
    extra = _allocate_ram(cluster, guest, name) if vmstate and guest.running else {}
    guest.config["lock"] = "snapshot"
    section = {**guest.copied(guest.config), "snapstate": "prepare", "snaptime": int(cluster.tasks.now), **extra}
    if description not in ("", "0"):
        section["description"] = f"{description}\n" if guest.type == LXC else description
    guest.snapshots[name] = section
    return section


def refuse_ram(guest: Guest) -> None:
    """Refuse a snapshot with RAM of a guest whose devices forbid it."""
    blockers = guest.ram_blockers()
    if blockers:
        words = "Cannot live-migrate, snapshot (with RAM), or hibernate a VM with"
        raise TaskDied(f"{words}: {', '.join(blockers)}\n")


def _allocate_ram(cluster: Cluster, guest: Guest, name: str) -> dict[str, Any]:
    """Make the volume for the RAM: twice the memory and 500 MiB, on the storage that Proxmox would choose."""
    storage = cluster.storages[ram_storage(cluster, guest)]
    size = 2 * guest.memory * MIB + 500 * MIB
    if size > storage.avail:
        raise TaskDied("zfs error: out of space\n" if storage.kind_name == "zfspool" else "not enough free space\n")
    storage.avail -= size
    tail = "" if storage.kind.type in ("zfspool", "lvmthin", "rbd", "lvm") else ".raw"
    folder = f"{guest.vmid}/" if tail else ""
    volid = f"{storage.name}:{folder}vm-{guest.vmid}-state-{name}{tail}"
    guest.volumes[volid] = Volume(volid, storage, size=size)
    machine = {"runningmachine": guest.machine, "runningcpu": "kvm64,enforce"}
    return {"vmstate": volid, "running-nets-host-mtu": "net0=1500", **machine}


def ram_storage(cluster: Cluster, guest: Guest) -> str:
    """Return where RAM goes: vmstatestorage, else a shared storage that the guest uses, else a local one."""
    if guest.config.get("vmstatestorage"):
        return str(guest.config["vmstatestorage"])
    used = [volume.storage for _key, volume in guest.drives(guest.config)]
    ordered = [each.name for each in used if each.shared] + [each.name for each in used]
    return next((name for name in ordered if name in cluster.storages), "local")


def _take_volumes(
    cluster: Cluster, task: Task, guest: Guest, section: dict[str, Any], name: str, done: list[str]
) -> Worker:
    ram = section.get("vmstate")
    if guest.running and not ram and (guest.type == LXC or guest.agent):
        yield from _step(task, "freeze")
        if guest.freeze_fails and guest.type == LXC:
            raise TaskDied(f"{guest.freeze_fails}\n")
        if guest.freeze_fails:
            task.say(f"guest-fsfreeze-freeze problems - {guest.freeze_fails}")
    if ram:
        task.say(f"saving VM state and RAM using storage '{ram.split(':')[0]}'")
        yield from _step(task, "vmstate", cluster.settings.vmstate_seconds)
        guest.volumes[ram].content = guest.ram
        task.say("completed saving the VM state in 1s, saved 1.00 MiB")
    for key, volume in list(guest.drives(section)):
        if guest.type == QEMU:
            task.say(f"snapshotting 'drive-{key}' ({volume.volid})")
        yield from _step(task, f"volume:{key}", _share(cluster, guest, section))
        _refuse_old_machine(guest, volume)
        volume.take(name)
        done.append(key)


def _refuse_old_machine(guest: Guest, volume: Volume) -> None:
    """Refuse to change the chain of a VM that runs as an old machine (qemu_volume_snapshot and ..._delete)."""
    if volume.storage.kind.chain and guest.is_too_old_for_chains:
        raise TaskDied(
            f"storage for '{volume.volid}' is configured for snapshots as a volume chain - this requires"
            " QEMU machine version >= 10.0. See https://pve.proxmox.com/wiki/QEMU_Machine_Version_Upgrade\n"
        )


def delete(cluster: Cluster, node: str, kind: str, vmid: int, name: str, force: bool) -> Callable[[Task], Worker]:
    """Return the worker that removes a snapshot."""

    def worker(task: Task) -> Worker:
        guest = cluster.load(node, kind, vmid)
        if not force:
            refusal = "Failed to obtain guest migration lock - replication running?"
            yield from _hold_migration_lock(cluster, task, guest, refusal)
        yield from _step(task, "begin")
        guest = cluster.load(node, kind, vmid)
        if name not in guest.snapshots:
            raise TaskDied(f"snapshot '{name}' does not exist\n")
        if not force:
            _refuse_replicated(guest, name)
        check_lock(guest)
        guest.config["lock"] = "snapshot-delete"
        if guest.template:
            raise TaskDied("you can't delete a snapshot if vm is a template\n")
        yield from _delete_body(cluster, task, guest, name, force)

    return worker


def _refuse_replicated(guest: Guest, name: str) -> None:
    """Refuse while a replication job has no snapshot of its own on a volume that this snapshot holds."""
    for _key, volume in guest.drives(guest.snapshots[name]):
        jobs = {replication_job(each) for each in volume.names()}
        for job in guest.jobs:
            if job.id not in jobs:
                raise TaskDied(f"snapshot '{name}' needed by replication job '{job.id}' - run replication first\n")


def _delete_body(
    cluster: Cluster, task: Task, guest: Guest, name: str, force: bool, only: list[str] | None = None
) -> Worker:
    """Remove volume by volume, saving each; with ``only`` it is the clean-up of a creation that failed."""
    before = "" if only is None else "cleanup:"
    section = guest.snapshots[name]
    yield from _step(task, f"{before}prepare")
    section["snapstate"] = "delete"
    ram = section.get("vmstate")
    if ram:
        yield from _step(task, f"{before}vmstate")
        volume = guest.volumes.pop(ram, None)
        if volume:
            volume.storage.avail += volume.size
        if not force:
            del section["vmstate"]
    for key, volume in list(guest.drives(section)):
        if only is None or key in only:
            try:
                yield from _step(
                    task, f"{before}volume:{key}", _share(cluster, guest, guest.config) if not before else 0
                )
                _refuse_old_machine(guest, volume)
                if name not in volume.names():
                    raise TaskDied(f"{volume.missing(name)}\n")
                volume.drop(name)
            except TaskDied as error:
                if not force:
                    raise
                task.say(str(error).rstrip("\n"))
        if not force:
            del section[key]
    yield from _step(task, f"{before}commit")
    for other in [guest.config, *(each for key, each in guest.snapshots.items() if key != name)]:
        if other.get("parent") == name:
            if section.get("parent"):
                other["parent"] = section["parent"]
            else:
                del other["parent"]
    del guest.snapshots[name]
    guest.config.pop("lock", None)


def rollback(
    cluster: Cluster, node: str, kind: str, vmid: int, name: str, start: bool, user: str, foreground: bool = False
) -> Callable[[Task], Worker]:
    """Return the worker that rolls back; with ``start`` it starts another task for the start.

    It does not wait for that one, but in ``foreground``, which is pvesh's way.
    """

    def worker(task: Task) -> Worker:
        guest = cluster.load(node, kind, vmid)
        refusal = f"can't lock file '/var/lock/pve-manager/pve-migrate-{vmid}' - got timeout"
        yield from _hold_migration_lock(cluster, task, guest, refusal)
        yield from _step(task, "prepare")
        guest = cluster.load(node, kind, vmid)
        section = _check_rollback(task, guest, name)
        yield from _step(task, "stop", cluster.settings.stop_seconds if guest.running else 0.0)
        guest.running = False
        guest.config["lock"] = "rollback"
        for key, volume in list(guest.drives(section)):
            yield from _step(task, f"volume:{key}", _share(cluster, guest, section))
            if name not in volume.names():
                raise TaskDied(f"snapshot '{name}' of '{volume.volid}' does not exist\n")
            volume.restore(name)
        yield from _step(task, "commit")
        _restore_config(guest, section, name)
        if section.get("vmstate"):
            yield from _step(task, "start", cluster.settings.start_seconds)
            _run(cluster, guest)
            guest.ram = guest.volumes[section["vmstate"]].content
        elif start:
            started = spawn_start(cluster, guest, user)
            # The start's worker is a child of this one and inherits its lock: until the guest has started, removals
            # fail with "Failed to obtain guest migration lock" (seen by others on PVE 9.2).
            guest.migration_lock = started
            while foreground and started.status is None:
                yield _POLL_SECONDS
        elif guest.hastate == "started":
            spawn_start(cluster, guest, "root@pam", cluster.settings.ha_seconds)

    return worker


def _check_rollback(task: Task, guest: Guest, name: str) -> dict[str, Any]:
    """Check everything in Proxmox's order; nothing is stopped before."""
    if guest.template:
        raise TaskDied("you can't rollback if vm is a template\n")
    if name not in guest.snapshots:
        raise TaskDied(f"snapshot '{name}' does not exist\n")
    section = guest.snapshots[name]
    if guest.jobs:
        _drop_newer_replication(task, guest, section, name)
    for _key, volume in guest.drives(section):
        if volume.blocking(name):
            raise TaskDied(f"can't rollback, '{name}' is not most recent snapshot on '{volume.shown}'\n")
    if section.get("snapstate"):
        state = section["snapstate"]
        raise TaskDied(f"unable to rollback to incomplete snapshot (snapstate = {state})\n")
    check_lock(guest)
    return section


def _drop_newer_replication(task: Task, guest: Guest, section: dict[str, Any], name: str) -> None:
    """Remove replication's snapshots where nothing but them forbids the rollback."""
    dropped = False
    for _key, volume in guest.drives(section):
        newer = volume.blocking(name)
        if newer and all(replication_job(each) for each in newer):
            for each in newer:
                task.say(f"WARN: removing replication snapshot '{volume.volid}@{each}'")
                volume.drop(each)
                dropped = True
    if dropped:
        task.say(f"WARN: you shouldn't remove '{name}' before running the next replication!")


def _restore_config(guest: Guest, section: dict[str, Any], name: str) -> None:
    """Take back the configuration, but not the description and unusedN; drives that were added become unusedN."""
    kept = {key: value for key, value in guest.config.items() if key == "description" or key.startswith("unused")}
    before = [volume.volid for _key, volume in guest.drives(guest.config)]
    after = {volume.volid for _key, volume in guest.drives(section)}
    guest.config = {**kept, **guest.copied(section), "parent": name}
    if "vmgenid" in guest.config:
        guest.config["vmgenid"] = str(uuid.uuid4())
    for volid in before:
        if volid not in after:
            guest.add_unused(volid)


def _run(cluster: Cluster, guest: Guest) -> None:
    guest.running, guest.started = True, cluster.tasks.now
    guest.starts += 1


def spawn_start(cluster: Cluster, guest: Guest, user: str, delay: float = 0.0) -> Task:
    """Start a task that starts a guest: through HA where that manages it, and ``delay`` seconds later."""
    if guest.hastate and not delay:
        worker = _request_start(cluster, guest, user)
        return cluster.tasks.start(guest.node, "hastart", guest.vmid, user, worker, [])
    return cluster.tasks.start(
        guest.node, task_type(guest.type, "start"), guest.vmid, user, power(cluster, guest, True, delay), []
    )


def _request_start(cluster: Cluster, guest: Guest, user: str) -> Callable[[Task], Worker]:
    def worker(task: Task) -> Worker:
        yield from _step(task, "request")
        task.say(f"Requesting HA start for {'VM' if guest.type == QEMU else 'CT'} {guest.vmid}")
        guest.hastate = "started"
        spawn_start(cluster, guest, "root@pam", cluster.settings.ha_seconds)

    return worker


def backup(guest: Guest, seconds: float) -> Callable[[Task], Worker]:
    """Return the worker that backs a guest up, which locks it for so long."""

    def worker(task: Task) -> Worker:
        check_lock(guest)
        guest.config["lock"] = "backup"
        yield from _step(task, "backup", seconds)
        del guest.config["lock"]

    return worker


def migrate(cluster: Cluster, guest: Guest, node: str, seconds: float) -> Callable[[Task], Worker]:
    """Return the worker that moves a guest to another node, which locks it for so long."""

    def worker(task: Task) -> Worker:
        check_lock(guest)
        guest.config["lock"] = "migrate"
        yield from _step(task, "migrate", seconds)
        del guest.config["lock"]
        cluster.move(guest.vmid, node)

    return worker


def power(cluster: Cluster, guest: Guest, start: bool, delay: float = 0.0) -> Callable[[Task], Worker]:
    """Return the worker that starts a guest, or stops it hard."""

    def worker(task: Task) -> Worker:
        if delay:
            yield delay
        seconds = cluster.settings.start_seconds if start else cluster.settings.stop_seconds
        yield from _step(task, "start" if start else "stop", seconds)
        check_lock(guest)
        if start and guest.template:
            raise TaskDied("you can't start a vm if it's a template\n")
        if start and guest.running:
            raise TaskDied(f"{'VM' if guest.type == QEMU else 'CT'} {guest.vmid} already running\n")
        if start:
            _run(cluster, guest)
        else:
            guest.running = False

    return worker
