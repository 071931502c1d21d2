# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was changed, for those who ask later, and how far it has got, for those who wait. Stdlib and core only.

Called by the bridge and the agent. Both files hold one JSON object a line. They are opened, and made where missing,
before anything else is touched: so not in check mode, which passes no path and calls ``foresee``. Whatever goes wrong
with them later never stops the work, nor hides that it was done: ``trouble`` keeps it, for the caller to warn of.
"""

from __future__ import annotations

import json
import os
import pwd
import stat
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Callable

from .core.errors import InvalidInput

_AUDIT = "keep the audit log"
_PROGRESS = "report the progress"


class _Lines:
    """A file to which lines of JSON are appended, each in one write, so that those of several runs do not mix."""

    def __init__(self, path: str | None, attempt: str) -> None:
        self.path = path
        #: Why the last line that could not be written could not, or None.
        self.trouble: str | None = None
        self._torn = False
        self._fd = None if path is None else _open(path, attempt)

    def write(self, record: dict[str, Any], durable: bool) -> None:
        """Append a record, and wait for the disk where it has to be ``durable``."""
        if self._fd is None:
            return
        line = json.dumps(record, default=str).encode("ascii") + b"\n"
        try:
            # After a line that a full disk has cut, a new one has to begin.
            written = os.write(self._fd, b"\n" + line if self._torn else line)
            self._torn = written < len(line)
            if durable:
                os.fsync(self._fd)
            if self._torn:
                self.trouble = f"{self.path} has an incomplete line: the disk may be full"
        except OSError as error:
            self.trouble = f"{self.path} could not be written: {error.strerror}"

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class AuditLog:
    """Notes every change that was made, or failed.

    Args:
        path: the file to append to (mode 0600 when it is made), or None to only build the records.
        who: on whose behalf, such as ``current_user()``.

    Raises InvalidInput when the path cannot be written or is no plain file; a symlink is not followed.
    """

    def __init__(self, path: str | None, who: str) -> None:
        self.who = who
        self._lines = _Lines(path, _AUDIT)

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def trouble(self) -> str | None:
        """Why a record is missing from the file, or None."""
        return self._lines.trouble

    def record(
        self, when_iso: str, target: str, change: str, name: str | None, outcome: str, **extra: Any
    ) -> dict[str, Any]:
        """Note one change, and return the record for the result.

        Args:
            when_iso: the moment, as ISO 8601 in UTC.
            target: what was changed.
            change: what was done to it, such as ``create`` or ``remove``.
            name: the snapshot's name, if it is about one.
            outcome: ``done``, or why not.
            extra: more that is worth knowing; what JSON does not know is written as text.
        """
        record = {
            "when": when_iso,
            "who": self.who,
            "target": target,
            "change": change,
            "name": name,
            "outcome": outcome,
            **extra,
        }
        self._lines.write(record, durable=True)
        return record

    def close(self) -> None:
        self._lines.close()


class Progress:
    """Tells whoever watches a file how far a long task has got.

    Args:
        path: the file to append to, or None for no report.
        clock: a clock in seconds that never goes back.
        interval_seconds: what is reported sooner than this after the last report is left out.

    Raises InvalidInput when the path cannot be written or is no plain file; a symlink is not followed.
    """

    def __init__(
        self, path: str | None, clock: Callable[[], float] = time.monotonic, interval_seconds: float = 1.0
    ) -> None:
        self._lines = _Lines(path, _PROGRESS)
        self._silent = path is None
        self._clock = clock
        self._interval = interval_seconds
        self._start = 0.0 if self._silent else clock()
        self._next = self._start
        self._stage: str | None = None

    @property
    def trouble(self) -> str | None:
        """Why a report is missing from the file, or None."""
        return self._lines.trouble

    def report(self, stage: str, fields: Mapping[str, Any], *, always: bool = False) -> None:
        """Write the stage, the fields and the seconds since the start, unless the last report was just now.

        Cheap enough to be called for every file. A stage that is new, and what comes with ``always`` (the last report
        above all), is not left out.
        """
        if self._silent:
            return
        now = self._clock()
        if now < self._next and stage == self._stage and not always:
            return
        self._next, self._stage = now + self._interval, stage
        self._lines.write({"elapsed_seconds": round(now - self._start, 1), "stage": stage, **fields}, durable=False)

    def close(self) -> None:
        self._lines.close()


def current_user() -> str:
    """Return who runs this: the login name, and who became it by sudo, such as ``root (sudo by alice)``."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"uid {uid}"
    invoker = "".join(character for character in os.environ.get("SUDO_USER", "") if character.isprintable())[:64]
    return f"{name} (sudo by {invoker})" if invoker and invoker != name else name


def foresee(audit_log: str | None, progress_file: str | None) -> None:
    """Raise InvalidInput for what a run could not write to. Makes nothing: check mode calls it instead of opening."""
    for path, attempt in ((audit_log, _AUDIT), (progress_file, _PROGRESS)):
        if path is None:
            continue
        above = os.path.dirname(path)
        could_be_made = os.path.isabs(path) and "\0" not in path and os.path.isdir(above) and os.access(above, os.W_OK)
        if os.path.lexists(path) or not could_be_made:
            os.close(_open(path, attempt, make=False))


def _open(path: str, attempt: str, make: bool = True) -> int:
    """Return a file open for appending. Nothing that is there is shortened, and a FIFO is not waited for."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_CREAT if make else 0)
    remedy = "name a plain file, by its absolute path, that can be written"
    if not os.path.isabs(path):
        raise InvalidInput(attempt, f"{path!r} is no absolute path", remedy)
    try:
        fd = os.open(path, flags, 0o600)
    except (OSError, ValueError) as error:
        raise InvalidInput(attempt, f"{path} cannot be opened: {getattr(error, 'strerror', error)}", remedy) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidInput(attempt, f"{path} is no plain file", remedy)
    return fd
