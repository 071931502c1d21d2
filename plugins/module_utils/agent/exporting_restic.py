# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore points into a repository of restic, each read as it was taken. Called by `exporting` and `importing`.

The content stands at a path that stays the same from one restore point to the next, so that restic finds the one before
it and reads only what has changed: below `ROOT`, in mounts that this process has for itself and that end with it.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .. import linux, process
from ..backends.btrfs.nested import members_of, stored_paths
from ..core.errors import RestorePointError
from ..core.offsite import Destination
from ..core.snapshot import Snapshot
from ..engine.exports import RESTIC_KEEP
from ..offsite.restic import Repository
from .opened import opened

if TYPE_CHECKING:
    from .exporting import Exporting, Found

#: Where content stands for restic: a filesystem in memory that only the exporting process has.
ROOT = "/run/restorepoint/off-site"
_TIMEOUT = 600.0
_separate: list[bool] = []


def to_repository(exporting: Exporting, destination: Destination, found: Sequence[Found]) -> None:
    """Back up what the repository has not yet. Raises RestorePointError where it cannot be used at all."""
    repository = Repository(destination, exporting.record["policy"])
    kept = {(each.target, each.name) for each in repository.open()}
    for each in found:
        # Only the newest one: what lies between is gone from many hosts, and restic has a time of its own for each.
        newest = each.own[-1] if each.own else None
        if newest is None:
            exporting.warnings.append(f"{each.shown} has no restore point of {exporting.record['policy']} yet")
        elif (each.shown, newest.name) in kept:
            exporting.tell(destination, each.shown, "unchanged", name=newest.name)
        else:
            _try(exporting, destination, repository, each, newest)
    if not any(each["action"] == "failed" and each["destination"] == destination.name for each in exporting.results):
        repository.unlock()
        forgotten = repository.forget([each.shown for each in found], RESTIC_KEEP)
        for _unused in range(forgotten):
            exporting.tell(destination, "*", "forgotten")
        repository.check()


def _try(
    exporting: Exporting, destination: Destination, repository: Repository, found: Found, newest: Snapshot
) -> None:
    try:
        with exporting.reading(found.labelled, newest.name), presented(found.backend, newest) as path:
            moment = datetime.datetime.fromtimestamp(newest.created, tz=datetime.timezone.utc)
            told = repository.backup(
                found.shown, newest.name, moment.strftime("%Y-%m-%d %H:%M:%S"), path, found.backend.name == "hostpath"
            )
        exporting.tell(destination, found.shown, "exported", name=newest.name, bytes=told["added"], read=told["bytes"])
    except RestorePointError as error:
        exporting.tell(destination, found.shown, "failed", reason=str(error))


@contextlib.contextmanager
def presented(backend: Any, snapshot: Snapshot) -> Iterator[str]:
    """Let one snapshot's content stand, read-only, at its path below ROOT; give that path. Raises RestorePointError."""
    attempt = f"read {snapshot.name} of {snapshot.target}"
    place = path_of(backend.name, snapshot.target)
    with contextlib.ExitStack() as stack:
        try:
            _separate_mounts()
            scratch = os.path.join(ROOT, ".open")
            for folder in (scratch, place):
                os.makedirs(folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise RestorePointError(
                attempt, f"mount it: {error.strerror}", "run it as root, outside of a container"
            ) from error
        tree = stack.enter_context(opened(backend, snapshot, scratch, _TIMEOUT))
        for inner, source in stored_paths(tree, members_of(snapshot.extra)).items():
            _bind(source, os.path.join(place, inner) if inner else place, attempt, stack)
        yield place


def _bind(source: str, place: str, attempt: str, stack: contextlib.ExitStack) -> None:
    def run(*argv: str) -> None:
        process.run(argv, timeout=_TIMEOUT, attempt=attempt, remedy="see what the kernel's log says of it")

    run("mount", "--bind", "--", source, place)
    stack.callback(run, "umount", "--", place)
    run("mount", "-o", "remount,bind,ro", "--", place)


def path_of(backend: str, target: str) -> str:
    """Return where the content of a target stands for restic."""
    return os.path.join(ROOT, backend, target.strip("/") or "root")


def _separate_mounts() -> None:
    """Have mounts of our own, once. What a kill leaves of them the kernel takes away. Raises OSError, ToolError."""
    if _separate:
        return
    linux.unshare_mounts()
    os.makedirs(ROOT, mode=0o700, exist_ok=True)
    argv = ["mount", "-t", "tmpfs", "-o", "mode=0700,size=16m", "restorepoint", ROOT]
    process.run(argv, timeout=_TIMEOUT, attempt="make room for mounts", remedy="run it as root")
    _separate.append(True)
