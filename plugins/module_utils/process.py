# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one way to run a program. Standard library and core only; called by backends and the agent.

Never a shell: an argv list, with LC_ALL=C, a timeout, no terminal and no stdin but what is given. A program that
outlives its timeout is stopped together with all it started. Secrets belong in ``input``, never in argv: argv is shown
in error messages, and to every user of the host.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Container, Mapping, Sequence
from typing import IO, Callable, NamedTuple

from .core.errors import ToolError
from .interrupts import deferred

#: Where system programs lie that the PATH of an ordinary user, or of a non-interactive login, may leave out.
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
DEFAULT_REMEDY = "correct what it complains about, and try again"
#: More than this on stdout is an error, since half an answer must never be parsed. Of stderr the end is kept.
MAX_STDOUT = 256 * 1024 * 1024
KEPT_STDERR = 64 * 1024

#: What brings a program that is no package of its own name, for those that are looked for first.
_PACKAGES = {"lvs": "lvm2", "vgs": "lvm2", "dmsetup": "dmsetup (RHEL family: device-mapper)"}

_CHUNK = 64 * 1024
_SLICE_SECONDS = 0.1
_GRACE_SECONDS = 5.0
_MESSAGE_LINES, _MESSAGE_CHARACTERS, _COMMAND_CHARACTERS = 4, 1000, 400


class Completed(NamedTuple):
    """What a program printed (bytes that are no UTF-8 as surrogate escapes) and its exit code (-N: by signal N)."""

    stdout: str
    stderr: str
    rc: int


def find_program(name: str) -> str | None:
    """Return the absolute path of a program, from PATH and then the system folders, or None.

    Relative entries of PATH (an empty one means the working directory) are left out: root must not run what lies there.
    """
    return shutil.which(name, path=_search_path())


def _missing(attempt: str, program: str) -> ToolError:
    remedy = f"install {_PACKAGES.get(program, program)}, and try again"
    return ToolError(attempt, f"the program {program} is not there", remedy)


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    attempt: str,
    remedy: str = DEFAULT_REMEDY,
    input: str | None = None,  # noqa: A002 - the name that subprocess.run has taught everybody
    ok: Container[int] = (0,),
    stderr_bytes: int = KEPT_STDERR,
    keep: Sequence[int] = (),
    only_environment: Mapping[str, str] | None = None,
    secrets: Sequence[str] = (),
) -> Completed:
    """Run a program and return what it printed.

    Args:
        argv: the program and its arguments; a bare name is looked up by find_program.
        timeout: seconds until it is stopped (TERM, then KILL, to its whole process group).
        attempt: what this is part of, as a verb phrase; an error message begins with it.
        remedy: what to do when it fails.
        input: text for its stdin, which is /dev/null otherwise.
        ok: the exit codes that are no failure.
        stderr_bytes: so much of the end of stderr is kept, where it is read for more than a message.
        keep: open files that the program keeps until it ends, even when this process dies before: those of locks. The
            last becomes its stdin where there is no input, since LVM closes all others.
        only_environment: all of its environment beside LC_ALL and PATH, instead of ours.
        secrets: texts that no message may show.

    Raises ToolError when the program is missing, cannot be started, ends with another exit code, outlives its timeout
    or prints more than MAX_STDOUT. The message shows the command and the last lines of its own words.
    """
    program = find_program(argv[0])
    if program is None:
        raise _missing(attempt, argv[0])
    with contextlib.ExitStack() as stack:
        with deferred():
            try:
                # Modules have run_command for this; the agent, which is no module, needs it as well.
                process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                    [program, *argv[1:]],
                    stdin=subprocess.PIPE if input is not None else keep[-1] if keep else subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=keep if input is not None else keep[:-1],
                    env=environment(only_environment),
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise ToolError(attempt, f"`{shown(argv)}` could not be started: {reason}", remedy) from error
            pending = (input or "").encode("utf-8", "surrogateescape")
            conversation = stack.enter_context(_Conversation(process, pending, stderr_bytes))
        trouble = conversation.hold(timeout)
    if trouble is None and process.returncode not in ok:
        trouble = ending(process.returncode)
    stdout, stderr = _text(conversation.stdout), _text(conversation.stderr)
    if trouble is not None:
        words = f"`{shown(argv)}` {trouble}: {last_words(stderr, stdout)}"
        for secret in sorted(filter(None, secrets), key=len, reverse=True):
            words = words.replace(secret, "***")
        raise ToolError(attempt, words, remedy)
    return Completed(stdout, stderr, process.returncode)


class Dialogue:
    """A program that stays, is told something on its stdin, and answers in lines on its stdout.

    It has a session of its own, so that nobody who interrupts this process at a terminal interrupts it as well. When
    this process ends, however that happens, its stdin ends.

    Args: see `run`. Raises ToolError where it cannot be started.
    """

    def __init__(self, argv: Sequence[str], attempt: str, remedy: str) -> None:
        program = find_program(argv[0])
        if program is None:
            raise _missing(attempt, argv[0])
        self._shown, self._attempt, self._remedy = shown(argv), attempt, remedy
        self._said, self._complained = b"", bytearray()
        try:
            self._process = subprocess.Popen(  # pylint: disable=ansible-bad-function,consider-using-with
                [program, *argv[1:]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ToolError(attempt, f"`{self._shown}` could not be started: {reason}", remedy) from error

    def ask(self, text: str, sign: str, timeout: float) -> list[str]:
        """Tell it a text, which has to be short, and return the lines that it answers before the line ``sign``.

        Raises ToolError when it has ended, or the sign has not come within ``timeout`` seconds. Stop it then.
        """
        with contextlib.suppress(OSError, ValueError):  # where it has ended, its last words say why
            if self._process.stdin is not None:
                self._process.stdin.write(text.encode())
                self._process.stdin.flush()
        deadline = time.monotonic() + timeout
        lines: list[str] = []
        while True:
            while b"\n" in self._said:
                line, _unused, self._said = self._said.partition(b"\n")
                words = line.decode("utf-8", "replace")
                if words == sign:
                    return lines
                lines.append(words)
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._error(f"did not answer within {timeout:g} s")
            if not self._hear(left):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(left)
                code = self._process.returncode
                raise self._error("says nothing any more" if code is None else ending(code))

    def _hear(self, seconds: float) -> bool:
        """Read what it says, waiting that long for it; say whether it can still say something."""
        with selectors.DefaultSelector() as selector:
            pipes = (self._process.stdout, self._process.stderr)
            for pipe in pipes:
                if pipe is not None and not pipe.closed:
                    selector.register(pipe, selectors.EVENT_READ)
            if not selector.get_map():
                return False
            for key, _unused in selector.select(seconds):
                chunk = os.read(key.fd, _CHUNK)
                if key.fileobj is self._process.stdout:
                    self._said += chunk
                else:
                    self._complained += chunk
                    del self._complained[:-KEPT_STDERR]
                if not chunk:
                    key.fileobj.close()  # type: ignore[union-attr]
        return True

    def _error(self, trouble: str) -> ToolError:
        words = last_words(_text(self._complained), "")
        return ToolError(self._attempt, f"`{self._shown}` {trouble}: {words}", self._remedy)

    def end(self, timeout: float) -> None:
        """Let it end by itself, and stop it where it has not after so many seconds."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        if self._process.returncode is None:
            stop(self._process)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


class _Conversation:
    """Feeds a process and takes what it prints, until it has ended; leaving the block early stops it."""

    def __init__(self, process: subprocess.Popen[bytes], pending: bytes, stderr_bytes: int) -> None:
        self.process = process
        self._stderr_bytes = stderr_bytes
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._pending = memoryview(pending)
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> _Conversation:
        self._watch(self.process.stdout, selectors.EVENT_READ, self._take_stdout)
        self._watch(self.process.stderr, selectors.EVENT_READ, self._take_stderr)
        self._watch(self.process.stdin, selectors.EVENT_WRITE, self._give_stdin)
        return self

    def __exit__(self, *_unused: object) -> None:
        if self.process.returncode is None:
            stop(self.process)
        for key in list(self._selector.get_map().values()):
            self._close(key.data[0])
        self._selector.close()

    def hold(self, timeout: float) -> str | None:
        """Return None when the process has ended by itself, or what went wrong in words.

        A daemon that the program left behind may keep the pipes open for ever (LVM starts dmeventd): once the program
        itself has ended, what is in the pipes is read, and no more is waited for.
        """
        deadline = time.monotonic() + timeout
        while True:
            ended = self.process.poll() is not None
            left = deadline - time.monotonic()
            moved = self._move(0.0 if ended else max(0.0, min(left, _SLICE_SECONDS)))
            if len(self.stdout) > MAX_STDOUT:
                return f"printed more than {MAX_STDOUT} bytes and was stopped"
            if ended and (not moved or left <= 0):
                return None
            if not ended and left <= 0:
                return f"did not end within {timeout:g} s and was stopped"

    def _move(self, seconds: float) -> bool:
        """Read and write what can be read and written, waiting that long for it; say whether anything could."""
        if not self._selector.get_map():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
            return False
        ready = self._selector.select(seconds)
        for key, _unused in ready:
            pipe, act = key.data
            if not act(pipe.fileno()):
                self._close(pipe)
        return bool(ready)

    def _watch(self, pipe: IO[bytes] | None, event: int, act: Callable[[int], bool]) -> None:
        if pipe is not None:
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, event, (pipe, act))

    def _close(self, pipe: IO[bytes]) -> None:
        self._selector.unregister(pipe)
        pipe.close()

    def _take_stdout(self, fd: int) -> bool:
        chunk = os.read(fd, _CHUNK)
        self.stdout += chunk
        return bool(chunk)

    def _take_stderr(self, fd: int) -> bool:
        chunk = os.read(fd, _CHUNK)
        self.stderr += chunk
        del self.stderr[: -self._stderr_bytes]
        return bool(chunk)

    def _give_stdin(self, fd: int) -> bool:
        try:
            self._pending = self._pending[os.write(fd, self._pending[:_CHUNK]) :]
        except BrokenPipeError:
            return False  # It has read what it wanted; its exit code says whether that was enough.
        return len(self._pending) > 0


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a process and all of its group: first politely, then by force.

    The process is not reaped before the last signal: until then nobody else can get its group's number. One that even
    KILL does not end (it waits for a disk that does not answer) is left behind rather than waited for.
    """
    _signal_group(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            break
        time.sleep(0.02)
    _signal_group(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECONDS)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _search_path() -> str:
    folders = [folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if os.path.isabs(folder)]
    return os.pathsep.join([*folders, *SYSTEM_FOLDERS])


def environment(only: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return our environment, or only that given, with messages in the C locale so that they can be parsed."""
    found = dict(os.environ if only is None else only, LC_ALL="C", PATH=_search_path())
    found.pop("LANGUAGE", None)
    return found


def _text(output: bytearray) -> str:
    return output.decode("utf-8", "surrogateescape")


def shown(argv: Sequence[str]) -> str:
    """Return the command as one could type it, cut where it is long: a batch may name a thousand volumes."""
    command = _printable(shlex.join(argv))
    if len(command) <= _COMMAND_CHARACTERS:
        return command
    return f"{command[:_COMMAND_CHARACTERS]}... ({len(argv)} words)"


def ending(code: int) -> str:
    """Return in words how a program ended that ended with this code, as subprocess has it."""
    if code >= 0:
        return f"failed with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def last_words(stderr: str, stdout: str) -> str:
    """Return the last lines of stderr, or of stdout where stderr has none, as one line."""
    for output in (stderr, stdout):
        lines = [_printable(line.strip()) for line in output[-KEPT_STDERR:].splitlines() if line.strip()]
        if lines:
            return "; ".join(lines[-_MESSAGE_LINES:])[-_MESSAGE_CHARACTERS:]
    return "it printed nothing"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
