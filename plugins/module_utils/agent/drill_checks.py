# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a drill checks of what it has restored. Every fault is one text for people. Called by `drilling`."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import process
from ..core.errors import RestorePointError
from ..core.plan import belongs
from ..core.snapshot import Snapshot, timestamp
from ..core.units import format_duration, format_size
from ..engine.drills import DrillRules
from .scratch import Restored

#: So many faults of one target are told in words.
TOLD = 5
_CHUNK = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass
class Found:
    """What a walk has found: regular files, their bytes as their sizes say, and what could not be read."""

    files: int = 0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)

    def fault(self, path: str, error: OSError) -> None:
        """Note what could not be read."""
        self.faults.append(f"{path} cannot be read: {error.strerror}")


def newest(snapshots: Any, owner: str, match: Any) -> Snapshot | None:
    """Return the newest snapshot of a policy; ``match`` says by name which others count as its own."""
    own = [each for each in snapshots if belongs(each, owner, match)]
    return max(own, key=lambda each: each.order) if own else None


def age_fault(snapshot: Snapshot, rules: DrillRules, now: int) -> str:
    """Say that a snapshot is too old to count, or return ""."""
    if rules.max_age is None or now - snapshot.created <= rules.max_age:
        return ""
    made = timestamp(snapshot.created)
    return f"the newest restore point is of {made}, older than max_age {format_duration(rules.max_age)}"


def walk(top: str, read: bool) -> Found:
    """Count the files below a directory, through no link; with ``read`` read each of them whole."""
    found, left = Found(), [top]
    while left:
        folder = left.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda each: each.name)
        except OSError as error:
            found.fault(os.path.relpath(folder, top), error)
            continue
        for entry in entries:
            try:
                st = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(st.st_mode):
                    left.append(entry.path)
                elif stat.S_ISREG(st.st_mode):
                    found.files += 1
                    found.bytes += st.st_size
                    if read:
                        _read(entry.path, st.st_size)
            except OSError as error:
                found.fault(os.path.relpath(entry.path, top), error)
    return found


def _read(path: str, size: int) -> None:
    """Read a file whole. Raises OSError, also where it ends too early."""
    fd = os.open(path, _READ)
    try:
        done = 0
        while chunk := os.read(fd, _CHUNK):
            done += len(chunk)
        if done < size:
            raise OSError(5, f"it ends after {done} of {size} bytes")
    finally:
        os.close(fd)


def too_few(found: Found, rules: DrillRules) -> list[str]:
    """Say where less was found than there has to be."""
    faults = []
    if found.files < rules.files:
        faults.append(f"there are {found.files} files, and there have to be {rules.files}")
    if found.bytes < rules.bytes:
        faults.append(f"there are {format_size(found.bytes)}, and there have to be {format_size(rules.bytes)}")
    return faults


def manifest_faults(backend: Any, snapshot: Snapshot, path: str) -> list[str]:
    """Compare a restored directory with what was noted when it was taken; other backends note nothing."""
    if backend.name != "hostpath":
        return []  # a subvolume that was written to since is not ready, and is not restored
    from ..backends.hostpath.info import verify_snapshot

    with backend.session(False):
        result = verify_snapshot(backend, snapshot, path)
    return [f"not as it was taken: {each['path']} {each['fault']}" for each in result["faults"]]


def command_fault(rules: DrillRules, restored: Restored, told: Mapping[str, str]) -> str:
    """Run the user's own check; say what is wrong, or return "".

    ``told`` is what its environment says of the target. ``{path}`` in an argument is where the content lies.
    """
    path = restored.path or restored.device
    variables = {
        **os.environ,
        **told,
        "RESTOREPOINT_PATH": restored.path,
        "RESTOREPOINT_DEVICE": restored.device,
        "RESTOREPOINT_CLAIM": restored.claim,
    }
    argv = [each.replace("{path}", path).replace("{claim}", restored.claim) for each in rules.command]
    if process.find_program(argv[0]) is None:
        return f"the program {argv[0]} of the check is not there"
    try:
        attempt, remedy = "run the command", "look at it"
        process.run(argv, timeout=rules.timeout, attempt=attempt, remedy=remedy, only_environment=variables)
    except RestorePointError as error:
        return f"the command of the drill: {error.reason}"
    return ""
