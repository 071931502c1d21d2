# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who uses a filesystem or volume, and where filesystems are mounted. Touches nothing. Called by backend and returning.

`zfs rename -u` succeeds under a busy mount, and a volume that is open can be rolled back and renamed: ZFS itself would
let all of it happen. So it is looked for before.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence

from ...mounts import Mount, below
from ...users import find_users

#: Where udev puts the links to the devices of volumes.
DEVICES = "/dev/zvol"


def mounts_by_dataset(mounts: Sequence[Mount]) -> dict[str, list[Mount]]:
    """Return the mounts of each filesystem, and of each snapshot that is mounted under its full name."""
    found: dict[str, list[Mount]] = {}
    for mount in mounts:
        if mount.fstype == "zfs":
            found.setdefault(mount.source, []).append(mount)
    return found


def users_of_filesystem(mounted: Sequence[Mount]) -> Iterator[str]:
    """Yield who uses a mounted filesystem, in words."""
    for place in dict.fromkeys(mount.mount_point for mount in mounted):
        if os.path.isdir(place):
            yield from find_users(place).describe()


def strangers_inside(mounts: Sequence[Mount], places: Iterable[str], own: Iterable[str]) -> Iterator[str]:
    """Yield the mount points below these places of what is none of these datasets or their snapshots."""
    known = set(own)
    of_place = {mount.mount_point: mount.source for mount in mounts}
    seen: set[str] = set()
    for place in places:
        for inner in below(mounts, place):
            if of_place[inner].partition("@")[0] not in known and inner not in seen:
                seen.add(inner)
                yield inner


def automounts(mounts: Sequence[Mount], datasets: Iterable[str]) -> list[str]:
    """Return where snapshots of these filesystems are mounted in ``.zfs/snapshot``, deepest first."""
    known = set(datasets)
    places = [
        mount.mount_point
        for mount in mounts
        if mount.fstype == "zfs" and "@" in mount.source and mount.source.partition("@")[0] in known
    ]
    return sorted(places, key=lambda place: place.count("/"), reverse=True)


def users_of_volume(name: str, mounts: Sequence[Mount], folder: str = DEVICES) -> Iterator[str]:
    """Yield who uses a volume, in words: mounts, device-mapper and others in the kernel, and processes."""
    device = os.path.realpath(os.path.join(folder, name))
    try:
        number = os.stat(device).st_rdev
    except OSError:
        return  # without a device nobody can use it
    label = f"{os.major(number)}:{os.minor(number)}"
    named = False
    for mount in mounts:
        if mount.device == label:
            named = True
            yield f"{device} is mounted on {mount.mount_point}"
    for holder in _holders(device):
        named = True
        yield f"{holder} is built on {device}"
    for user in find_users(device).describe():
        named = True
        yield user.replace(" has it open", f" has {device} open")
    if not named and _is_claimed(device):
        yield f"something in the kernel uses {device} (swap, iSCSI, device-mapper)"


def _holders(device: str) -> list[str]:
    try:
        return sorted(os.listdir(f"/sys/class/block/{os.path.basename(device)}/holders"))
    except OSError:
        return []


def _is_claimed(device: str) -> bool:
    """Say whether somebody else has the device for themselves: then open(2) with O_EXCL fails with EBUSY."""
    try:
        fd = os.open(device, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return error.errno == errno.EBUSY
    os.close(fd)
    return False
