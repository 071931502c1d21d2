# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filesystems at their places: a line in fstab, and mounted now. Called by lvm and btrfs beside it, and by bridge.

Nothing is mounted over a directory that holds something, over another mount, or in the place of another fstab entry.
What a layout finds of mounts and of fstab has to hold until it is done, whatever kind of storage another run sets up at
the same time: `mounts_lock` is one for all kinds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .. import mounts
from ..lock import FileLock, host_lock
from . import fstab
from .disks import checked_path
from .fstab import Entry
from .plan import Plan


def mounts_lock(timeout_seconds: float, purpose: str) -> FileLock:
    """Return the lock between all runs on this host that set storage up: they share mount points and fstab.

    Whoever needs the lock of a kind of storage as well takes that one first. Raises as `host_lock` does.
    """
    return host_lock("mounts", timeout_seconds, purpose)


@dataclass(frozen=True)
class Place:
    """A mount point, as it is.

    ``content`` says whether the directory holds anything; ``mounted`` is "ours", "other" or nothing; ``entry`` is the
    entry for it in fstab, and ``same`` says whether that one means the filesystem that is wanted.
    """

    exists: bool = False
    content: bool = False
    mounted: str = ""
    entry: Entry | None = None
    same: bool = False


def checked_place(path: str) -> str:
    """Return a mount point; InvalidInput for what cannot be one."""
    return checked_path(path, "a mount point")


def look(path: str, is_ours: Callable[[mounts.Mount], bool], nodes: Iterable[str]) -> Place:
    """Return how a mount point is. ``nodes`` are the real paths of the devices that the wanted filesystem lies on."""
    everything = mounts.read_mounts()
    real = os.path.realpath(path)
    mounted = ""
    if mounts.is_mount_point(everything, real):
        mounted = "ours" if is_ours(mounts.containing(everything, real)) else "other"
    entry = fstab.find(fstab.read(), path)
    same = entry is not None and _device(entry.source) in set(nodes)
    content = not mounted and os.path.lexists(path) and (not os.path.isdir(path) or bool(os.listdir(path)))
    return Place(os.path.lexists(path), content, mounted, entry, same)


def plan_mounts(plan: Plan, wanted: Sequence[tuple[Entry, Place]], systemd: bool) -> None:
    """Add what writes the entries into fstab, tells systemd, and mounts; the outer places first."""
    todo = [each for each in sorted(wanted, key=lambda each: each[0].path) if _allowed(plan, *each)]
    for entry, place in todo:
        if not place.exists:
            plan.run(entry.path, "create directory", ["mkdir", "--parents", entry.path], "directory")
        if place.entry != entry:
            plan.write(entry.path, place.entry.line if place.entry else "absent", entry)
    if systemd and any(place.entry != entry for entry, place in todo):
        plan.run(
            "systemd", "read fstab again", ["systemctl", "daemon-reload"], "knows the new fstab", "knows the old fstab"
        )
    for entry, place in todo:
        if not place.mounted:
            plan.run(entry.path, "mount", ["mount", entry.path], f"{entry.source} is mounted", "not mounted")
        elif place.entry != entry:
            argv = ["mount", "-o", "remount", entry.path]
            plan.run(entry.path, "mount again with the new options", argv, entry.options, _options(place))


def has_systemd() -> bool:
    """Say whether systemd runs this host (as sd_booted(3) does)."""
    return os.path.isdir("/run/systemd/system")


def _allowed(plan: Plan, entry: Entry, place: Place) -> bool:
    if place.mounted == "other":
        plan.block(entry.path, "something else is mounted there", "unmount it, or choose another place")
    elif place.entry and not place.same and place.entry.source != entry.source:
        reason = f"fstab has {place.entry.source} for it, and not {entry.source}"
        plan.block(entry.path, reason, "correct or remove that line")
    elif place.content:
        plan.block(entry.path, "it holds something that would be hidden", "move that away, mount, and copy it back")
    else:
        return True
    return False


def _options(place: Place) -> str:
    return place.entry.options if place.entry else "not in fstab"


def _device(source: str) -> str:
    """Return the device that the first field of an fstab entry means, as far as udev's links tell."""
    for tag, folder in (("UUID=", "by-uuid"), ("LABEL=", "by-label"), ("PARTUUID=", "by-partuuid")):
        if source.startswith(tag):
            source = f"/dev/disk/{folder}/{source[len(tag) :].strip(chr(34))}"
    return os.path.realpath(source)
