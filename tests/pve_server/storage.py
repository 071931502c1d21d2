# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Storages and volumes of the test server: which kinds can snapshot, which return only to the newest, what is on them.

A volume's content is any small value; a snapshot keeps a copy of it, so that a test can prove what a rollback really
brought back. Standard library only; called by guests.py and operations.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MIB, GIB = 1 << 20, 1 << 30
_REPLICATION = re.compile(r"__replicate_(?P<job>\d+-\d+)_\d+__")


class Kind(NamedTuple):
    """What a kind of storage can do (Proxmox's PVE/Storage/*Plugin.pm, volume_has_feature and the rollback rule).

    ``volid`` is the pattern of a volume's id; ``chain`` names a volume in the rollback message without its storage.
    """

    snapshot: bool
    newest_only: bool = False
    type: str = "dir"
    volid: str = "{storage}:vm-{vmid}-disk-{index}"
    container: str | None = None
    feature_of_snapshot: bool = True
    chain: bool = False
    shared: bool = False


_FILE = "{storage}:{vmid}/vm-{vmid}-disk-{index}"
#: lvmthin answers hasFeature 0 where feature is asked of a snapshot.
KINDS = {
    "zfspool": Kind(True, newest_only=True, type="zfspool", container="{storage}:subvol-{vmid}-disk-{index}"),
    "lvmthin": Kind(True, type="lvmthin", feature_of_snapshot=False),
    "rbd": Kind(True, type="rbd", shared=True),
    "btrfs": Kind(True, type="btrfs", volid=_FILE + ".raw", container="{storage}:{vmid}/vm-{vmid}-disk-{index}.subvol"),
    "qcow2": Kind(True, volid=_FILE + ".qcow2"),
    "qcow2-chain": Kind(True, newest_only=True, volid=_FILE + ".qcow2", chain=True),
    "lvm-chain": Kind(
        True, newest_only=True, type="lvm", volid="{storage}:vm-{vmid}-disk-{index}.qcow2", chain=True, shared=True
    ),
    "raw": Kind(False, volid=_FILE + ".raw"),
    "lvm": Kind(False, type="lvm"),
    "nfs-qcow2": Kind(True, type="nfs", volid=_FILE + ".qcow2", shared=True),
}


@dataclass
class Storage:
    """A storage of the cluster; ``avail`` bytes are free on it, ``nodes`` are those it is on (none: all)."""

    name: str
    kind_name: str
    nodes: Sequence[str] = ()
    avail: int = 500 * GIB
    total: int = 1000 * GIB

    @property
    def kind(self) -> Kind:
        """What it can do."""
        return KINDS[self.kind_name]

    @property
    def shared(self) -> bool:
        """Whether all its nodes see the same content."""
        return self.kind.shared


class VolumeSnapshot(NamedTuple):
    """A snapshot of one volume."""

    name: str
    content: Any


@dataclass
class Volume:
    """A volume: its content, and its snapshots in the order in which they were taken."""

    volid: str
    storage: Storage
    size: int = 8 * GIB
    content: Any = ""
    snapshots: list[VolumeSnapshot] = field(default_factory=list)

    @property
    def shown(self) -> str:
        """Its name in the message of a rollback that is refused."""
        return self.volid.split(":", 1)[1] if self.storage.kind.chain else self.volid

    def names(self) -> list[str]:
        """Return the names of its snapshots, the oldest first."""
        return [each.name for each in self.snapshots]

    def take(self, name: str) -> None:
        """Take a snapshot of its content."""
        self.snapshots.append(VolumeSnapshot(name, self.content))

    def missing(self, name: str) -> str:
        """Return what the storage says when it is to remove a snapshot that it does not have."""
        if self.storage.kind_name == "zfspool":
            return "zfs error: could not find any snapshots to destroy; check snapshot names."
        return f"snapshot '{name}' of '{self.volid}' does not exist"

    def drop(self, name: str) -> None:
        """Remove a snapshot, where there is one."""
        self.snapshots = [each for each in self.snapshots if each.name != name]

    def blocking(self, name: str) -> list[str]:
        """Return the newer snapshots that forbid a rollback to one on this kind of storage, the oldest first."""
        if not self.storage.kind.newest_only or name not in self.names():
            return []
        return self.names()[self.names().index(name) + 1 :]

    def restore(self, name: str) -> None:
        """Take back the content of a snapshot."""
        self.content = next(each.content for each in self.snapshots if each.name == name)


def replication_job(snapshot: str) -> str | None:
    """Return the replication job that a volume's snapshot belongs to, from its name, or None."""
    found = _REPLICATION.fullmatch(snapshot)
    return found["job"] if found else None
