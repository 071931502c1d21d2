# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The key ``drill`` of a policy: what a drill checks of what it has restored. No storage is touched.

docs/drills.md describes it for people. Called by `policy`, whose reader is an argument here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..core.units import parse_duration, parse_size

KEYS = ("manifest", "read", "files", "bytes", "fsck", "command", "timeout", "max_age", "writable", "scratch")
TIMEOUT = "10min"


@dataclass(frozen=True)
class DrillRules:
    """What is checked. Durations are in seconds; ``files`` and ``bytes`` are the least that has to be there.

    ``manifest`` compares with what was noted when the snapshot was taken, where the backend notes that; ``read`` reads
    every file. ``command`` is the user's own check, with so much time (``timeout``); so has a check of a filesystem.
    ``writable`` lets it write to what was restored. ``scratch`` is the folder in which that lies; "" is a default one.
    """

    manifest: bool = True
    read: bool = True
    files: int = 0
    bytes: int = 0
    fsck: bool = False
    command: tuple[str, ...] = ()
    timeout: int = 600
    max_age: int | None = None
    writable: bool = False
    scratch: str = ""


def parse_drill(read: Any, backends: Sequence[str]) -> DrillRules:
    """Return the rules that a reader of `policy` has before it; what is wrong is noted there."""
    read.only(KEYS)
    if "pve" in backends:
        read.fault("", "guests of Proxmox VE are not drilled, since that would copy whole disks; "
                       "give them a policy of their own, without this key")  # fmt: skip
    flags = {"manifest": True, "read": True, "fsck": False, "writable": False}
    given = {key: read.get(key, bool, default, "true or false") for key, default in flags.items()}
    rules = DrillRules(
        **given,
        files=_least(read),
        bytes=_size(read),
        command=read.texts("command", one_is_enough=False),
        timeout=_duration(read, "timeout", TIMEOUT) or 0,
        max_age=_duration(read, "max_age", None),
        scratch=read.get("scratch", str, "", "a path").rstrip("/"),
    )
    if read.data.get("command") == []:
        read.fault("command", "it is empty; it is a program with its arguments, as a list")
    if read.data.get("scratch") is not None and not rules.scratch.startswith("/"):
        read.fault("scratch", "it has to be the absolute path of a directory that is there")
    if rules.writable and not rules.command:
        read.fault("writable", "nothing would write; it is for a command")
    _only_where_they_serve(read, rules, set(backends))
    return rules


def _only_where_they_serve(read: Any, rules: DrillRules, backends: set[str]) -> None:
    """Note checks that no target could have: they would look as if something were proven."""
    if rules.fsck and backends and not backends & {"lvm", "zfs"}:
        read.fault("fsck", "only logical volumes, and volumes of ZFS, have a filesystem of their own to be checked")
    if backends == {"csi"}:
        for key in ("files", "bytes", "fsck"):
            if read.data.get(key):
                read.fault(key, "what is in a claim is not seen from outside; look into it with a command")


def _least(read: Any) -> int:
    value = read.get("files", int, 0, "a whole number")
    if value < 0:
        read.fault("files", "it is negative")
    return int(value)


def _size(read: Any) -> int:
    value = read.get("bytes", (int, str), 0, "a size such as 1GiB")
    return int(read.tried("bytes", lambda: parse_size(str(value), "bytes")) or 0) if value else 0


def _duration(read: Any, key: str, default: str | None) -> int | None:
    text = read.get(key, str, default, "a duration such as 10min")
    if text is None:
        return None
    found = read.tried(key, lambda: parse_duration(text, key))
    if found == 0:
        read.fault(key, "it needs some time; write 1s or more")
    return None if found is None else int(found)
