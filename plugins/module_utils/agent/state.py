# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent's folder: locks, marks of runs under way, and the journal. Called by `running` and `cli`.

A run leaves one line in the journal. While it is under way its mark lies in the folder, with room for that line: where
the disk is full at the end, the line goes there, and the next run carries it over. A mark that nobody holds the lock of
is of a run that was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from .. import whole_file
from ..audit import current_user
from ..core.errors import StoreError
from ..core.history import tally
from ..core.snapshot import timestamp
from ..lock import FileLock

#: The journal is begun anew at this size; so many old ones are kept.
JOURNAL_BYTES = 1024 * 1024
KEPT_JOURNALS = 5
#: What a mark takes from the disk beforehand: enough for any line that has no list of targets in it.
MARK_BYTES = 16 * 1024
_PATIENCE = 60.0


def new_line(command: str, policy: str, started: int) -> dict[str, Any]:
    """Return the beginning of a line of the journal. ``started`` is in seconds since the epoch."""
    return {
        "started": timestamp(started),
        "started_epoch": started,
        "command": command,
        "policy": policy,
        "who": current_user(),
        "name": None,
    }


class State:
    """The folder, by its absolute path; made (mode 0700) where it is missing.

    Raises StoreError where it cannot serve.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        remedy = "name a directory of this user with mode 0700 with --state"
        try:
            for path in (folder, os.path.join(folder, "runs")):
                os.makedirs(path, mode=0o700, exist_ok=True)
            found = os.lstat(folder)
        except OSError as error:
            raise StoreError(f"use the state folder {folder}", str(error.strerror), remedy) from error
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise StoreError(
                f"use the state folder {folder}", "others than this user can write to it, or it is no directory", remedy
            )

    def lock(self, policy: str, wait: float) -> FileLock:
        """Return the lock of a policy."""
        return FileLock(self._path(f"{policy}.lock"), wait, f"run policy {policy}")

    def hook_lock(self, policy: str) -> str:
        """Return the path of the lock that the watchdog of a run holds while it lives."""
        return self._path(f"{policy}.hooks.lock")

    def mark(self, policy: str) -> Mark:
        """Return the mark of a policy's run."""
        return Mark(self._path(f"{policy}.json"))

    def last(self, policy: str) -> Mark:
        """Return where a policy keeps when its last run that succeeded was begun, and its last automatic names."""
        return self.thawed(f"{policy}.last")

    def last_of(self, policy: str, command: str) -> Mark:
        """Return where a policy keeps when its last drill, or export, that succeeded was begun."""
        return self.last(f"{policy}.{command}")

    def drilled(self, policy: str) -> Mark:
        """Return where a drill notes the scratch place that it has."""
        return self.mark(f"{policy}.drill")

    def thawed(self, policy: str) -> Mark:
        """Return where the watchdog of a run notes what it did."""
        return Mark(self._path(f"{policy}.thawed.json"))

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, "runs", name)

    # -- the journal ---------------------------------------------------------------------------------------------------

    @property
    def journal(self) -> str:
        """The path of the present journal; older ones have a number behind."""
        return os.path.join(self.folder, "journal.jsonl")

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a line, on the disk when it returns. Raises OSError, and then nothing of the line is there."""
        line = json.dumps(record, default=str).encode("ascii") + b"\n"
        with FileLock(os.path.join(self.folder, "journal.lock"), _PATIENCE, "write to the journal"):
            self._rotate()
            fd = os.open(self.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(fd).st_size
                try:
                    if os.write(fd, line) != len(line):
                        raise OSError(28, os.strerror(28))
                    os.fsync(fd)
                except OSError:
                    os.ftruncate(fd, size)
                    raise
            finally:
                os.close(fd)

    def _rotate(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self.journal).st_size < JOURNAL_BYTES:
                return
            if not self._fold():
                return
            for number in range(KEPT_JOURNALS, 0, -1):
                older = f"{self.journal}.{number}"
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{self.journal}.{number - 1}" if number > 1 else self.journal, older)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of the journal, the oldest first. What is no line of ours is passed over."""
        for name in self._journals():
            yield from _lines(name)

    def _journals(self) -> list[str]:
        return [*(f"{self.journal}.{number}" for number in range(KEPT_JOURNALS, 0, -1)), self.journal]

    # -- what all lines add up to --------------------------------------------------------------------------------------

    def tally(self) -> dict[str, Any]:
        """Return what all lines add up to that were ever written, also those that are not kept any more.

        Raises LockTimeout where somebody writes to the journal for a long time.
        """
        with FileLock(os.path.join(self.folder, "journal.lock"), _PATIENCE, "read the journal"):
            kept = self._kept()
            # A run that was killed while it rotated has added the oldest one, and not yet thrown it away.
            names = [name for name in self._journals() if kept["folded"] != _identity(name)]
            return tally((record for name in names for record in _lines(name)), kept["tally"])

    def _fold(self) -> bool:
        """Add the journal that is thrown away next to the tally; say whether it may go. The lock has to be held."""
        oldest = f"{self.journal}.{KEPT_JOURNALS}"
        identity, kept = _identity(oldest), self._kept()
        if identity is None or kept["folded"] == identity:
            return True
        content = json.dumps({"folded": identity, "tally": tally(_lines(oldest), kept["tally"])})
        path = os.path.join(self.folder, "tally.json")
        try:
            whole_file.put(path, content.encode("ascii"), 0o600, f"{path}.new")
        except OSError:
            return False  # No room: the journal grows on, and the next line tries again.
        return True

    def _kept(self) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError, ValueError):
            with open(os.path.join(self.folder, "tally.json"), encoding="ascii") as stream:
                found = json.load(stream)
            if isinstance(found, dict) and isinstance(found.get("tally"), dict):
                return {"folded": found.get("folded"), "tally": found["tally"]}
        return {"folded": "", "tally": {}}


def _lines(name: str) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(FileNotFoundError), open(name, encoding="ascii", errors="replace") as stream:
        for line in stream:
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict):
                    yield record


def _identity(name: str) -> str | None:
    """Return what tells a file from any other, whatever its name; None where there is none."""
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return None
    return f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"


class Mark:
    """A small file that holds one JSON object, and keeps its room on the disk."""

    def __init__(self, path: str) -> None:
        self.path = path

    def write(self, content: Mapping[str, Any]) -> None:
        """Write it in place of what it held, on the disk when it returns. Raises OSError.

        Only the first time does that take room: later it needs none, also on a full disk.
        """
        text = json.dumps(content, default=str).encode("ascii")
        if len(text) >= MARK_BYTES:
            raise OSError(27, os.strerror(27))
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if os.pwrite(fd, text.ljust(MARK_BYTES - 1) + b"\n", 0) != MARK_BYTES:
                raise OSError(28, os.strerror(28))
            os.fsync(fd)
        finally:
            os.close(fd)

    def read(self) -> dict[str, Any] | None:
        """Return what it holds; None where there is none, or a kill has left it empty."""
        try:
            with open(self.path, encoding="ascii") as stream:
                found = json.load(stream)
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def remove(self) -> None:
        """Remove it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
