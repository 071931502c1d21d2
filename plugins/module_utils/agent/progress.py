# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How far long work has got: a bar at a terminal, a plain line now and then elsewhere. Called by `cli` and `running`.

What is short shows nothing. How much there is to copy is known from the last snapshot of the same target; where there
is none yet, only what was done is shown.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Callable, TextIO

from ..core import backend as core
from ..core.backend import Backend, Change, Desired, Outcome, Situation

#: Seconds before anything is shown, between two pictures of a bar, and between two plain lines.
QUIET, REDRAW, PLAIN = 1.0, 0.1, 15.0
_CELLS = 20
_WORDS = {
    core.CREATE: "taking",
    core.REPLACE: "taking",
    core.DESCRIBE: "describing",
    core.DESTROY: "removing",
    core.ROLL_BACK: "returning",
    core.CLONE: "cloning",
}


class Shown:
    """Shows progress on a stream; ``width`` gives the columns of its terminal, None where it is none."""

    def __init__(self, stream: TextIO, width: Callable[[], int | None], clock: Callable[[], float] = time.monotonic):
        self._stream = stream
        self._width = width
        self._clock = clock
        self._begun = clock()
        self._next = self._begun + QUIET
        self._drawn = False
        self._words = ""
        self._counts = ""
        self._fraction: float | None = None

    def tell(self, words: str, fraction: float | None, counts: Sequence[str] = ()) -> None:
        """Say what is being done, which part of it is done (0 to 1, None for unknown), and numbers in words."""
        self._words, self._fraction, self._counts = words, fraction, "  ".join(each for each in counts if each)
        now = self._clock()
        if now < self._next:
            return
        columns = self._width()
        if columns is None:
            if now < self._begun + PLAIN:
                return
            self._stream.write(f"restorepoint: {self._line(now)}\n")
        else:
            self._stream.write(f"\r{self._bar(now, columns - 1)}\x1b[K")
            self._drawn = True
        self._stream.flush()
        self._next = now + (PLAIN if columns is None else REDRAW)

    def _line(self, now: float) -> str:
        part = "" if self._fraction is None else f"{self._percent()}%"
        return ", ".join(each for each in (self._words, part, *self._counts.split("  "), self._elapsed(now)) if each)

    def _bar(self, now: float, columns: int) -> str:
        parts = [self._counts, self._elapsed(now)]
        if self._fraction is not None:
            full = min(_CELLS, int(self._fraction * _CELLS))
            parts.insert(0, f"[{'#' * full}{'.' * (_CELLS - full)}] {self._percent():3d}%")
        tail = "  ".join(part for part in parts if part)
        room = columns - len(tail) - 2
        words = self._words if len(self._words) <= room else f"{self._words[: max(0, room - 3)]}..."
        return f"{words}  {tail}"[: max(0, columns)]

    def _percent(self) -> int:
        # Until it has ended it is not done, whatever the last snapshot held.
        return min(99, int((self._fraction or 0.0) * 100))

    def _elapsed(self, now: float) -> str:
        seconds = int(now - self._begun)
        return f"{seconds // 60}:{seconds % 60:02d}"

    def clear(self) -> None:
        """Leave the terminal as it was."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False


def on(stream: TextIO) -> Shown:
    """Return what shows progress on a stream, as that is a terminal or not."""

    def width() -> int | None:
        if os.environ.get("TERM", "dumb") == "dumb" or not stream.isatty():
            return None
        try:
            return os.get_terminal_size(stream.fileno()).columns or 80
        except OSError:
            return 80

    return Shown(stream, width)


class Watched:
    """A backend whose work is shown. It is the backend in all else."""

    def __init__(self, backend: Backend, shown: Shown) -> None:
        self.name = backend.name
        self._backend = backend
        self._shown = shown
        self._sizes: dict[str, int] = {}
        self._changes = 0
        self._prepared = 0
        self._finished = 0
        self._words = ""
        self._size: int | None = None

    @property
    def warnings(self) -> list[str]:
        """See Backend."""
        return self._backend.warnings

    @warnings.setter
    def warnings(self, value: list[str]) -> None:
        self._backend.warnings = value

    def check(self, desired: Desired) -> None:
        """See Backend."""
        self._backend.check(desired)

    def session(self, writing: bool) -> AbstractContextManager[None]:
        """See Backend."""
        return self._backend.session(writing)

    def situations(self, desired: Desired) -> Sequence[Situation]:
        """See Backend. Notes how large each target was when it was last taken."""
        found = self._backend.situations(desired)
        for situation in found:
            newest = max(situation.snapshots, key=lambda each: each.order, default=None)
            if newest is not None and newest.referenced_bytes:
                self._sizes[situation.target] = newest.referenced_bytes
        return found

    def estimate(self, changes: Sequence[Change]) -> Sequence[Mapping[str, Any]]:
        """See Backend."""
        self._changes = len(changes)
        return self._backend.estimate(changes)

    def prepare(self, change: Change) -> None:
        """See Backend."""
        self._words = f"{_WORDS.get(change.verb, change.verb)} {change.target}"
        self._size = self._sizes.get(change.target) if change.verb in (core.CREATE, core.REPLACE) else None
        self._tell(self._prepared)
        self._backend.prepare(change)
        self._prepared += 1

    def commit(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """See Backend."""
        verb = _WORDS.get(changes[0].verb, changes[0].verb) if changes else ""
        self._words, self._size = f"{verb} {len(changes)} snapshots", None
        self._shown.tell(self._words, None)
        return self._backend.commit(changes)

    def settle(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """See Backend."""
        return self._backend.settle(changes)

    def spend(self, target: str, token: str) -> None:
        """See Backend."""
        self._backend.spend(target, token)

    def undo(self, change: Change) -> None:
        """See Backend."""
        self._backend.undo(change)

    def abandon(self, change: Change) -> None:
        """See Backend."""
        self._backend.abandon(change)

    def finish(self, change: Change) -> Sequence[str]:
        """See Backend."""
        removing = change.verb == core.DESTROY
        self._words, self._size = f"{'removing' if removing else 'tidying up'} {change.target} {change.name}", None
        self._tell(self._finished)
        self._finished += 1
        return self._backend.finish(change)

    def report(self, stage: str, fields: Mapping[str, Any], *, always: bool = False) -> None:
        """Take what the backend tells while it works: files and bytes, or how many are done of how many."""
        if isinstance(fields.get("of"), int) and fields["of"]:
            done = fields.get("done", 0)
            self._shown.tell(self._words or stage, done / fields["of"], [f"{done}/{fields['of']}"])
            return
        part = None
        # A target that has grown says so by going past what its last snapshot held: then nobody knows how far it is.
        if self._size and 0 <= fields.get("bytes", -1) <= self._size:
            part = fields["bytes"] / self._size
        self._tell(self._prepared, part, _numbers(fields))

    def _tell(self, done: int, part: float | None = None, numbers: Sequence[str] = ()) -> None:
        """Tell how far it is: ``done`` of the changes, and a part of the present one."""
        several = self._changes > 1
        fraction = (done + (part or 0.0)) / self._changes if several else part
        self._shown.tell(self._words, fraction, [f"{done}/{self._changes}" if several else "", *numbers])


def _numbers(fields: Mapping[str, Any]) -> list[str]:
    found = [f"{fields['files']} files"] if isinstance(fields.get("files"), int) else []
    if isinstance(fields.get("bytes"), int):
        found.append(in_units(fields["bytes"]))
    return found


def in_units(count: int) -> str:
    """Return a number of bytes as people read it."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
