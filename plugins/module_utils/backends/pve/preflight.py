# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a change of a guest would fail, before anything is begun: every reason at once. Pure; called by backend.py.

Which facts forbid what is Proxmox VE's own rule (pve-guest-common, AbstractConfig.pm, and the API's permissions); it
would say so itself, but one guest after the other, and some of it only in the middle of a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core import backend as core
from ...core.backend import Blocker, Desired
from .guests import NEWEST_ONLY, Cluster, Guest
from .listing import Listing, is_kept_aside, way_out
from .metadata import LXC, QEMU, reserved

MAKES = frozenset({core.CREATE, core.REPLACE})
RETURNS = frozenset({core.ROLL_BACK})
_SNAPSHOTS = frozenset({core.CREATE, core.REPLACE, core.DESTROY, core.DESCRIBE})
#: Locks that a failed or killed task leaves behind. The others belong to somebody who works.
LEFT_BEHIND = ("snapshot", "snapshot-delete", "rollback")
_QEMU_DRIVE = re.compile(r"(?:ide|sata|scsi|virtio)\d+|efidisk\d|tpmstate\d")
_LXC_DRIVE = re.compile(r"rootfs|mp\d+")
#: What forbids a snapshot with RAM (qemu-server, QemuMigrate/Helpers.pm).
_RAM_BLOCKERS = re.compile(r"amd-sev|intel-tdx|virtiofs\d+")


@dataclass(frozen=True)
class Facts:
    """What was found out about one guest. None is what nobody asked for, or nobody may tell.

    ``has_feature``: its storage can take snapshots. ``config``: its present configuration. ``wanted_config``: that of
    the snapshot to return to. ``chains``: the storages whose qcow2 volumes are chains of snapshots.
    """

    guest: Guest
    listing: Listing
    has_feature: bool | None = None
    config: Mapping[str, Any] | None = None
    wanted_config: Mapping[str, Any] | None = None
    chains: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Asked:
    """What of a call's options is Proxmox VE's own."""

    vmstate: bool = False
    start: bool = False
    only_if_current_parent: bool = False
    repair: bool = False
    can_unlock: bool = False
    status: str | None = None


@dataclass(frozen=True)
class Permissions:
    """What /access/permissions said: privileges by path. None where it could not be asked: then all is allowed."""

    paths: Mapping[str, Mapping[str, int]] | None = None
    user: str = ""
    _missing: dict[str, bool] = field(default_factory=dict, compare=False)

    def lacks(self, vmid: int, *privileges: str) -> bool:
        """Say whether all of these privileges are missing on a guest.

        The answer holds every path that somebody's rule names; a guest that it does not name has what the paths above
        it propagate (AccessControl.pm, get_effective_permissions).
        """
        if self.paths is None:
            return False
        own = self.paths.get(f"/vms/{vmid}")
        if own is not None:
            return not any(privilege in own for privilege in privileges)
        above = next((self.paths[path] for path in ("/vms", "/") if path in self.paths), {})
        return not any(above.get(privilege) for privilege in privileges)


def volumes(config: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Return the volumes of a configuration by key: ``{"scsi0": "local-zfs:vm-100-disk-0"}``; CD-ROMs are none."""
    pattern = _QEMU_DRIVE if kind == QEMU else _LXC_DRIVE
    found = {}
    for key, value in sorted(config.items()):
        if pattern.fullmatch(key) and "media=cdrom" not in str(value):
            volume = str(value).split(",", 1)[0]
            found[key] = volume[len("file=") :] if volume.startswith(("file=", "volume=")) else volume
            if volume.startswith("volume="):
                found[key] = volume[len("volume=") :]
    return {key: volume for key, volume in found.items() if volume != "none"}


def newest_only(facts: Facts, cluster: Cluster) -> list[str]:
    """Return the volumes of the wanted snapshot that return only to their newest one."""
    found = []
    for volume in volumes(facts.wanted_config or {}, facts.guest.type).values():
        storage, colon, name = volume.partition(":")
        if not colon:
            continue
        kind = cluster.storages.get((facts.guest.node, storage), "")
        chained = name.endswith(".qcow2") and (kind == "lvm" or storage in facts.chains)
        if kind in NEWEST_ONLY or chained:
            found.append(volume)
    return found


def blockers(facts: Facts, desired: Desired, asked: Asked, permissions: Permissions, cluster: Cluster) -> list[Blocker]:
    """Return every fact that forbids something of what may be planned for this guest."""
    parts = (
        _state_blockers(facts, asked),
        _permission_blockers(facts, desired, asked, permissions),
        _making_blockers(facts, desired, asked),
        _return_blockers(facts, desired, asked, cluster),
    )
    return [blocker for part in parts for blocker in part]


def _state_blockers(facts: Facts, asked: Asked) -> Iterator[Blocker]:
    guest = facts.guest
    if guest.template:
        yield Blocker(
            guest.target, f"{guest.words} is a template", "exclude it", frozenset(core.DONE) - {core.DESCRIBE}
        )
    if guest.lock is not None and not (asked.repair and asked.can_unlock and guest.lock in LEFT_BEHIND):
        yield Blocker(guest.target, f"it is locked ({guest.lock})", lock_remedy(facts, asked))


def is_lock(blocker: Blocker) -> bool:
    """Say whether a blocker is a lock, which may pass."""
    return blocker.reason.startswith("it is locked (")


def lock_remedy(facts: Facts, asked: Asked) -> str:
    """Return the way out of a lock, as exact as it can be."""
    guest = facts.guest
    if guest.lock not in LEFT_BEHIND:
        return "wait until that has ended, or set a longer lock_timeout"
    unlock = f"run `{guest.tool} unlock {guest.vmid}` on {guest.node}"
    if asked.repair and not asked.can_unlock:
        why = (
            "for containers the API has no way" if guest.type == LXC else "only root@pam with a password, or pvesh, may"
        )
        return f"if no task of it is running, {unlock}: repair cannot, {why}"
    broken = facts.listing.broken
    if broken:
        return f"if no task of it is running, {way_out(guest, broken[0].name)}"
    again = ", and roll back again" if guest.lock == "rollback" else ""
    return f"if no task of it is running, {unlock}{again}, or set repair: true"


def _permission_blockers(facts: Facts, desired: Desired, asked: Asked, permissions: Permissions) -> Iterator[Blocker]:
    guest = facts.guest
    wanted: list[tuple[tuple[str, ...], frozenset[str]]] = [
        (("VM.Snapshot",), _SNAPSHOTS),
        (("VM.Snapshot", "VM.Snapshot.Rollback"), RETURNS),
    ]
    if desired.once is not None or desired.keep_current:
        wanted.append((("VM.Snapshot",), RETURNS))
    if asked.start and guest.type == QEMU:
        wanted.append((("VM.PowerMgmt",), RETURNS))
    for privileges, verbs in wanted:
        if permissions.lacks(guest.vmid, *privileges):
            named = " or ".join(privileges)
            yield Blocker(
                guest.target, f"{permissions.user} lacks {named}", f"grant it on /vms/{guest.vmid} or above", verbs
            )


def _making_blockers(facts: Facts, desired: Desired, asked: Asked) -> Iterator[Blocker]:
    guest = facts.guest
    verbs = MAKES | (RETURNS if desired.keep_current else frozenset())
    if desired.state == "present" and desired.name and reserved(desired.name, guest.type):
        what = "VMs" if guest.type == QEMU else "containers"
        yield Blocker(guest.target, f"Proxmox VE reserves {desired.name!r} for {what}", "choose another name", MAKES)
    if facts.has_feature is False and not guest.template:
        reasons = no_snapshot_reasons(facts.config or {}, guest.type)
        yield Blocker(guest.target, f"its storage cannot take snapshots: {reasons}", _storage_remedy(guest), verbs)
    if not asked.vmstate or desired.state != "present":
        return
    if guest.type == LXC:
        yield Blocker(guest.target, "a container has no RAM to save", "leave out vmstate, or set type: qemu", MAKES)
    elif facts.config is not None and facts.listing.running:
        found = ", ".join(sorted(key for key in facts.config if _RAM_BLOCKERS.fullmatch(key)))
        if found:
            yield Blocker(guest.target, f"its RAM cannot be saved: it has {found}", "leave out vmstate", MAKES)


def _storage_remedy(guest: Guest) -> str:
    if guest.type == LXC:
        return "move the volumes to ZFS, LVM-thin, Ceph or Btrfs, and take mount points of the host out of it"
    return "move the disks to ZFS, LVM-thin, Ceph or Btrfs, or make them qcow2"


def no_snapshot_reasons(config: Mapping[str, Any], kind: str) -> str:
    """Say what in a configuration may be why no snapshot can be taken. Which volume it is, the API does not tell."""
    found = volumes(config, kind)
    outside = [f"{key} is {volume} of the host" for key, volume in found.items() if volume.startswith("/")]
    if outside:
        return ", ".join(outside)
    listed = ", ".join(f"{key} on {volume}" for key, volume in found.items())
    return f"one of {listed}" if listed else "Proxmox VE does not say which"


def _return_blockers(facts: Facts, desired: Desired, asked: Asked, cluster: Cluster) -> Iterator[Blocker]:
    guest, listing = facts.guest, facts.listing
    if desired.state != "rolled_back" or desired.name is None:
        return
    wanted = listing.find(desired.name)
    if wanted is None:
        return
    if asked.only_if_current_parent and listing.parent != desired.name:
        now = f"on {listing.parent!r}" if listing.parent else "on no snapshot"
        remedy = f"look at what came after {desired.name!r}, or leave out only_if_current_parent"
        yield Blocker(guest.target, f"its present state is based {now}", remedy, RETURNS)
    if asked.status is not None and (asked.status == "running") != listing.running:
        state = "running" if listing.running else "stopped"
        yield Blocker(guest.target, f"it is {state} by now, not {asked.status}", "try again in some seconds", RETURNS)
    strict = newest_only(facts, cluster)
    if strict and desired.keep_current:
        yield Blocker(
            guest.target,
            f"{strict[0]} returns only to its newest snapshot, so the present state cannot be kept as one",
            "set keep_current: false, or move the disk to storage that returns to any",
            RETURNS,
        )
    if strict:
        order = [each.name for each in listing.snapshots]
        newer = [each for each in listing.snapshots[order.index(wanted.name) + 1 :] if is_kept_aside(each)]
        if newer and not is_kept_aside(wanted):
            listed = ", ".join(each.name for each in newer)
            yield Blocker(guest.target, f"{listed} is newer and was kept aside", "remove it by its name first", RETURNS)


def mentions(listing: Listing, guest: Guest, desired: Desired, asked: Asked) -> Sequence[str]:
    """Return what is worth a warning, though it forbids nothing."""
    found = []
    snapshot = listing.find(desired.name) if desired.name else None
    if desired.state == "present" and asked.vmstate and guest.type == QEMU and snapshot is None and not listing.running:
        found.append(f"{guest.words} is stopped: its snapshot has no RAM, though vmstate is set")
    if desired.state == "present" and asked.vmstate and snapshot is not None and not snapshot.vmstate:
        found.append(f"{guest.words}: snapshot {snapshot.name!r} is there, but without RAM")
    if desired.state == "rolled_back" and guest.hastate == "started" and not asked.start:
        found.append(f"{guest.words} is managed by HA, which starts it again although start is not set")
    for each in listing.broken:
        found.append(f"{guest.words}: snapshot {each.name!r} is half made or half deleted ({each.snapstate})")
    return found
