# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guests of the test server: configuration, snapshots, state, and the facts that make Proxmox refuse a snapshot.

A guest's configuration and its snapshots' sections are what Proxmox keeps in its file; operations.py changes them, and
api.py shows them. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .storage import Volume

QEMU, LXC = "qemu", "lxc"
FOLDER = {QEMU: "qemu-server", LXC: "lxc"}
_DRIVES = {QEMU: re.compile(r"(?:ide|sata|scsi|virtio|efidisk|tpmstate)\d+"), LXC: re.compile(r"rootfs|mp\d+")}
#: Not copied into a snapshot, nor back out of it (AbstractConfig.pm, __snapshot_copy_config).
_NOT_COPIED = frozenset({"snapstate", "snaptime", "vmstate", "lock", "digest", "description", "runningmachine"})
_NOT_COPIED_TOO = frozenset({"runningcpu", "running-nets-host-mtu"})
_BLOCKING_RAM = ("amd-sev", "intel-tdx", "virtiofs")


@dataclass
class Job:
    """A replication job; while ``replicated`` is false it has no snapshot of its own on the guest's volumes."""

    id: str
    target: str
    replicated: bool = True


@dataclass
class Guest:
    """A guest. ``freeze_fails`` is the error of its file systems' freeze, ``seconds`` what its tasks take.

    ``machine`` is what a VM runs as, which a pinned version, or a start on an older release, leaves behind the node's.
    """

    vmid: int
    type: str
    name: str
    node: str
    config: dict[str, Any]
    volumes: dict[str, Volume]
    running: bool = True
    pool: str | None = None
    hastate: str | None = None
    snapshots: dict[str, dict[str, Any]] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    freeze_fails: str | None = None
    seconds: float | None = None
    ram: Any = ""
    machine: str = "pc-i440fx-10.1+pve0"
    started: float = 0.0
    #: What holds the migration lock, which deletes and rollbacks take.
    migration_lock: object = None
    #: What pvestatd last saw, and when.
    reported: dict[str, Any] = field(default_factory=dict)
    reported_at: float = -1.0
    starts: int = 0
    _digest: tuple[str, str] = ("", "")

    @property
    def file(self) -> str:
        """Where its configuration lies, as error messages name it."""
        return config_file(self.node, self.type, self.vmid)

    @property
    def lock(self) -> str | None:
        """The lock in its configuration."""
        return self.config.get("lock")

    @property
    def template(self) -> bool:
        """Whether it is a template."""
        return bool(int(self.config.get("template", 0)))

    @property
    def locked_message(self) -> str:
        """How Proxmox refuses to touch it while it is locked."""
        return f"{'VM' if self.type == QEMU else 'CT'} is locked ({self.lock})"

    @property
    def agent(self) -> bool:
        """Whether the QEMU guest agent is switched on in its configuration."""
        return str(self.config.get("agent", "0")).partition(",")[0] in ("1", "enabled=1")

    @property
    def memory(self) -> int:
        """Its memory in MiB."""
        return int(self.config.get("memory", 512))

    @property
    def content(self) -> dict[str, Any]:
        """The content of each of its present drives."""
        return {key: volume.content for key, volume in self.drives(self.config)}

    def write(self, content: Any) -> None:
        """Change the content of every present drive, as programs in the guest would."""
        for key, volume in self.drives(self.config):
            volume.content = content[key] if isinstance(content, dict) else content

    def drives(self, section: dict[str, Any]) -> Iterator[tuple[str, Volume]]:
        """Return the drives of a section that lie on volumes, by key, in the order of their names."""
        for key, value in self.mounts(section):
            if value.split(",")[0] in self.volumes:
                yield key, self.volumes[value.split(",")[0]]

    def mounts(self, section: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Return every drive or mount point of a section, without CD-ROMs."""
        for key in sorted(section):
            value = str(section[key])
            if _DRIVES[self.type].fullmatch(key) and "media=cdrom" not in value and not value.startswith("none"):
                yield key, value

    def has_snapshot_feature(self, snapshot: str | None = None) -> bool:
        """Return what ``feature`` says; one drive without it, a bind or device mount, or a template forbid it."""
        section = self.snapshots[snapshot] if snapshot else self.config
        if self.template:
            return False
        on_volumes = dict(self.drives(section))
        for key, _value in self.mounts(section):
            if key not in on_volumes:
                return False
            kind = on_volumes[key].storage.kind
            if not kind.snapshot or (snapshot and not kind.feature_of_snapshot):
                return False
        return True

    @property
    def is_too_old_for_chains(self) -> bool:
        """Whether it runs as a machine of before QEMU 10.0."""
        version = re.search(r"-(\d+)\.", self.machine)
        return self.type == QEMU and self.running and version is not None and int(version.group(1)) < 10

    def ram_blockers(self) -> list[str]:
        """Return what forbids a snapshot with RAM (QemuMigrate/Helpers.pm)."""
        sev = str(self.config.get("amd-sev", "")), str(self.config.get("intel-tdx", ""))
        found = [name for name, value in zip(_BLOCKING_RAM, sev) if value]
        return [*found, "virtiofs"] if any(re.fullmatch(r"virtiofs\d+", key) for key in self.config) else found

    def copied(self, section: dict[str, Any]) -> dict[str, Any]:
        """Return what of a section goes into a snapshot, and back out of one."""
        left_out = _NOT_COPIED | _NOT_COPIED_TOO
        return {key: section[key] for key in section if key not in left_out and not re.fullmatch(r"unused\d+", key)}

    def add_unused(self, volid: str) -> None:
        """Keep a volume that no drive names any more as unusedN."""
        number = 0
        while f"unused{number}" in self.config:
            number += 1
        self.config[f"unused{number}"] = volid

    def digest(self) -> str:
        """Return the SHA-1 of its configuration with all snapshots."""
        text = json.dumps([self.config, self.snapshots], sort_keys=True)
        if self._digest[0] != text:
            self._digest = (text, hashlib.sha1(text.encode()).hexdigest())
        return self._digest[1]


def config_file(node: str, kind: str, vmid: int | str) -> str:
    """Return where a guest's configuration would lie."""
    return f"nodes/{node}/{FOLDER[kind]}/{vmid}.conf"
