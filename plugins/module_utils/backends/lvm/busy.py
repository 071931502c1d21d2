# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who uses a volume, and how it is unmounted and mounted again. Called by the rest of this backend.

A mount is compared by its device number, not by its name: after a thin volume was renamed, /proc still shows the old
name for it, which may be another volume's by then.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ... import mounts as mount_table
from ... import process
from ...core.errors import RestorePointError
from ...lock import held
from ...mounts import Mount
from ...users import find_users

#: What the kernel shows of a mounted filesystem and mount(8) does not take.
_NOT_OPTIONS = frozenset({"seclabel"})
BOOT_ID = "/proc/sys/kernel/random/boot_id"
#: Without udev, LVM takes the link /dev/VG/LV away and makes it anew when a merge has ended: what mounts it at that
#: moment does not find it.
_PATIENCE_SECONDS, _PAUSE_SECONDS = 2.0, 0.5


def mounts_of(device: str | None, table: Sequence[Mount]) -> list[Mount]:
    """Return the mounts of a block device ("major:minor").

    A filesystem with a device number of its own (Btrfs) is told by its source, as that is all there is.
    """
    if device is None:
        return []
    return [mount for mount in table if mount.device == device or _has_source(mount, device)]


def _has_source(mount: Mount, device: str) -> bool:
    if not mount.device.startswith("0:") or not mount.source.startswith("/dev/"):
        return False
    try:
        found = os.stat(mount.source)
    except OSError:
        return False
    return stat.S_ISBLK(found.st_mode) and f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" == device


def used_bytes(device: str | None) -> int | None:
    """Return how many bytes the mounted filesystem on a device uses, or None where it is not mounted."""
    for mount in mounts_of(device, mount_table.read_mounts()):
        with contextlib.suppress(OSError):
            room = os.statvfs(mount.mount_point)
            return (room.f_blocks - room.f_bfree) * room.f_frsize
    return None


def users_of(device: str | None, passing: Sequence[Mount] = ()) -> list[str]:
    """Return in words who uses a device: mounts (but not those in ``passing``), processes, swap, other devices."""
    if device is None:
        return []
    table = mount_table.read_mounts()
    found = [f"it is mounted at {each.mount_point}" for each in mounts_of(device, table) if each not in passing]
    for mount in mounts_of(device, table):
        with contextlib.suppress(OSError, LookupError):
            found += find_users(mount.mount_point).describe()
    return list(dict.fromkeys([*found, *_openers(device), *_holders(device), *_swaps(device)]))


def _openers(device: str) -> Iterator[str]:
    """Yield the processes that have the device itself open."""
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
        if pid != os.getpid() and any(_is_device(f"/proc/{pid}/fd/{fd}", device) for fd in _names(f"/proc/{pid}/fd")):
            yield f"pid {pid} ({_command(pid)}) has the device open"


def _is_device(path: str, device: str) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return stat.S_ISBLK(found.st_mode) and f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" == device


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return "".join(character if character.isprintable() else "?" for character in file.read().strip())
    except OSError:
        return "?"


def _holders(device: str) -> Iterator[str]:
    """Yield the devices that are made of this one: encryption, RAID, other volume groups."""
    for name in sorted(_names(f"/sys/dev/block/{device}/holders")):
        shown = name
        with contextlib.suppress(OSError), open(f"/sys/block/{name}/dm/name", encoding="utf-8") as file:
            shown = file.read().strip()
        yield f"the device {shown} is made of it"


def _swaps(device: str) -> Iterator[str]:
    with contextlib.suppress(OSError), open("/proc/swaps", encoding="utf-8", errors="replace") as file:
        for line in file.read().splitlines()[1:]:
            if line and _is_device(line.split()[0], device):
                yield "it is used for swap"


def mounted(device: str | None) -> list[Mount]:
    """Return the mounts of a device, in the order in which they were made."""
    return mounts_of(device, mount_table.read_mounts())


def why_not_unmountable(mounts: Sequence[Mount]) -> list[str]:
    """Say in words which of these mounts could not be brought back exactly as they are."""
    table = mount_table.read_mounts()
    faults = []
    for mount in mounts:
        inner = mount_table.below(table, mount.mount_point)
        if inner:
            faults.append(f"{', '.join(inner)} is mounted inside {mount.mount_point}")
        if mount.root != "/" and mount.fstype != "btrfs":
            faults.append(f"{mount.mount_point} is a bind mount of a folder of it")
        if mount.mount_point == "/":
            faults.append("it is the root filesystem")
    return faults


def note(mounts: Sequence[Mount]) -> list[dict[str, str]]:
    """Return mounts as a record, by which they can be made again."""
    return [{"at": each.mount_point, "type": each.fstype, "options": _options(each)} for each in mounts]


def _options(mount: Mount) -> str:
    options = [*mount.options.split(","), *mount.super_options.split(",")]
    return ",".join(dict.fromkeys(option for option in options if option and option not in _NOT_OPTIONS))


def unmount(mounts: Sequence[Mount], target: str, timeout: float) -> None:
    """Unmount, the latest first; on a failure mount again what was unmounted. Raises ToolError."""
    done: list[Mount] = []
    try:
        for mount in reversed(mounts):
            attempt = f"unmount {mount.mount_point} to return {target}"
            remedy = "stop what uses it, and run it again"
            process.run(
                ["umount", "--", mount.mount_point], timeout=timeout, attempt=attempt, remedy=remedy, keep=held()
            )
            done.append(mount)
    except BaseException:
        with contextlib.suppress(RestorePointError):
            mount_again(note([mount for mount in mounts if mount in done]), target, timeout)
        raise


@contextlib.contextmanager
def unmounted(
    mounts: Sequence[Mount], target: str, timeout: float, failures: list[RestorePointError]
) -> Iterator[None]:
    """Have a volume (vg/lv) unmounted for a while. ``failures`` gets why it could not be mounted again. ToolError."""
    try:
        unmount(mounts, target, timeout)
        yield
    finally:
        try:
            mount_again(note(mounts), target, timeout)
        except RestorePointError as error:
            failures.append(error)


def mount_again(notes: Sequence[Mapping[str, Any]], target: str, timeout: float) -> None:
    """Mount a volume (vg/lv) where it was, with the options that it had; what is mounted already stays. ToolError."""
    for each in notes:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not mount_table.is_mount_point(mount_table.read_mounts(), str(each["at"])):
            try:
                _mount(each, target, timeout)
                break
            except RestorePointError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_PAUSE_SECONDS)


def _mount(noted: Mapping[str, Any], target: str, timeout: float) -> None:
    point = str(noted["at"])
    attempt = f"mount {target} at {point} again"
    remedy = f"mount it by hand: mount /dev/{target} {point}"
    command = ["mount", "-t", str(noted["type"]), "-o", str(noted["options"]), "--", f"/dev/{target}", point]
    process.run(command, timeout=timeout, attempt=attempt, remedy=remedy, keep=held())


def boot_id() -> str:
    """Return what tells this boot of the host from all others."""
    with open(BOOT_ID, encoding="ascii") as file:
        return file.read().strip()
