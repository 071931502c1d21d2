# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pumps a stream from programs into a program or a file: never a shell, with a limit, and with the SHA-256 of it.

Each program is an argv list in a session of its own. All of them have to end well: a stream whose end is missing is a
failure, whatever its reader thinks of it. Called by the rest of this folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import selectors
import subprocess
import tempfile
from collections.abc import Sequence
from typing import IO, Callable, NamedTuple

from .. import process
from ..backends.hostpath.files import Limiter
from ..core.errors import ToolError
from ..lock import held

#: A stream that stands still for so long is given up, in seconds. `zfs receive` may free space for a long time.
STALL = 3600.0
_CHUNK = 256 * 1024
_BROKEN_PIPE = -13


class Moved(NamedTuple):
    """What went through: bytes, and their SHA-256 in hex."""

    bytes: int
    sha256: str


class _Program:
    """One program of the line; what it says on stderr goes to a file, which never fills up."""

    def __init__(self, argv: Sequence[str], stdin: IO[bytes] | int, stdout: IO[bytes] | int, attempt: str) -> None:
        program = process.find_program(argv[0])
        if program is None:
            raise ToolError(attempt, f"the program {argv[0]} is not there", f"install {argv[0]}, and try again")
        self.argv = argv
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  # pylint: disable=consider-using-with
        self.process = subprocess.Popen(  # pylint: disable=ansible-bad-function,consider-using-with
            [program, *argv[1:]],
            stdin=stdin,
            stdout=stdout,
            stderr=self._words,
            env=process.environment(),
            pass_fds=held(),
            start_new_session=True,
        )

    def trouble(self) -> str | None:
        """Say how it failed, once it has ended; None where it ended well."""
        code = self.process.returncode
        if code == 0:
            return None
        return f"`{process.shown(self.argv)}` {process.ending(code)}: {process.last_words(self.words(), '')}"

    def words(self) -> str:
        """Return the end of what it said."""
        size = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, size - process.KEPT_STDERR))
        return self._words.read().decode("utf-8", "replace")

    def close(self) -> None:
        """Stop it where it runs, and let go of it."""
        if self.process.returncode is None:
            process.stop(self.process)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._words.close()


def pump(
    producers: Sequence[Sequence[str]],
    consumer: Sequence[str] | int,
    attempt: str,
    remedy: str,
    bandwidth: int | None = None,
    told: Callable[[int], None] | None = None,
    stall: float = STALL,
) -> Moved:
    """Move all that the last producer prints to the stdin of the consumer, or to an open file (its number).

    Args:
        producers: each reads what the one before prints.
        bandwidth: bytes a second, between the two.
        told: is told the bytes so far.

    Raises ToolError where one of them fails, or nothing moves for ``stall`` seconds; OSError of the file.
    """
    started: list[_Program] = []
    try:
        stdin: IO[bytes] | int = subprocess.DEVNULL
        for argv in producers:
            started.append(_Program(argv, stdin, subprocess.PIPE, attempt))
            if not isinstance(stdin, int):
                stdin.close()  # or the one before would not notice that its reader has ended
            stdin = _pipe(started[-1].process.stdout)
        sink: int | None = consumer if isinstance(consumer, int) else None
        reader = None
        if not isinstance(consumer, int):
            reader = _Program(consumer, subprocess.PIPE, subprocess.DEVNULL, attempt)
            started.append(reader)
        if isinstance(stdin, int):
            raise ValueError("there is neither a program nor a pipe to read from")
        flow = _Flow(stdin, _pipe(reader.process.stdin) if reader else None, sink, bandwidth, told, stall)
        trouble = flow.run()
        if reader is not None:
            with contextlib.suppress(OSError):
                _pipe(reader.process.stdin).close()
        stdin.close()
        trouble = _wait(started, stall) or trouble
        # One that ended because nobody read on is not the cause.
        causes = [each for each in started if each.process.returncode != _BROKEN_PIPE]
        failures = [text for text in (each.trouble() for each in causes) if text is not None]
        failures = failures or [text for text in (each.trouble() for each in started) if text is not None]
        if failures or trouble:
            raise ToolError(attempt, "; ".join([*failures, *([trouble] if trouble and not failures else [])]), remedy)
        return Moved(flow.moved, flow.digest.hexdigest())
    finally:
        for program in reversed(started):
            program.close()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("the program was started without a pipe")
    return pipe


def _wait(started: Sequence[_Program], seconds: float) -> str | None:
    """Wait until all have ended; return what is wrong where one does not."""
    for program in reversed(started):
        try:
            program.process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.stop(program.process)
            return f"`{process.shown(program.argv)}` did not end within {seconds:g} s and was stopped"
    return None


class _Flow:
    """Bytes on their way."""

    def __init__(
        self,
        source: IO[bytes],
        pipe: IO[bytes] | None,
        file: int | None,
        bandwidth: int | None,
        told: Callable[[int], None] | None,
        stall: float,
    ) -> None:
        self._source, self._pipe, self._file = source, pipe, file
        self._limiter = Limiter(bandwidth) if bandwidth else None
        self._chunk = min(_CHUNK, max(1024, bandwidth // 4)) if bandwidth else _CHUNK
        self._told, self._stall = told, stall
        self.moved = 0
        self.digest = hashlib.sha256()
        for each in (source, pipe):
            if each is not None:
                os.set_blocking(each.fileno(), False)

    def run(self) -> str | None:
        """Move everything; return what went wrong in words, or None."""
        while True:
            if not _ready(self._source, selectors.EVENT_READ, self._stall):
                return f"nothing came for {self._stall:g} s"
            chunk = os.read(self._source.fileno(), self._chunk)
            if not chunk:
                return None
            self.digest.update(chunk)
            trouble = self._write(chunk)
            if trouble:
                return trouble
            self.moved += len(chunk)
            if self._told:
                self._told(self.moved)
            if self._limiter:
                self._limiter.spend(len(chunk))

    def _write(self, chunk: bytes) -> str | None:
        left = memoryview(chunk)
        while left:
            if self._file is not None:
                left = left[os.write(self._file, left) :]
                continue
            pipe = _pipe(self._pipe)
            if not _ready(pipe, selectors.EVENT_WRITE, self._stall):
                return f"nothing was taken for {self._stall:g} s"
            try:
                left = left[os.write(pipe.fileno(), left) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                return "its reader ended before the stream did"
        return None


def _ready(pipe: IO[bytes], event: int, seconds: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, event)
        return bool(selector.select(seconds))
