# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs `zfs` and `zpool` and reads what they print, strictly. Called by the rest of this folder.

OpenZFS 2.1 has no JSON: what it offers for programs is -H (tabs, no header) and -p (exact numbers). A line that has not
the fields that were asked for is an error, never "nothing there".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence

from ... import process
from ...core.errors import ToolError
from ...lock import held

#: Linux takes 128 KiB for one argument (MAX_ARG_STRLEN), and for all of them with the environment ARG_MAX.
LONGEST_ARGUMENT = 120_000
_SPARE = 64 * 1024
#: What `zfs list` says of missing names is read as a whole: a line for each of a command full of names.
MISSING_BYTES = 16 * 1024 * 1024
_NOT_THERE = re.compile(r"cannot open '(?P<name>[^']*)': (dataset does not exist|no such pool or dataset)")
#: What to do where `zfs` ends well and has not done what it was told.
NOT_DONE = "see that `zfs` is OpenZFS's own program and no wrapper around it, and look at `zpool status`"
_WAYS_OUT = (
    (
        re.compile(r"permission denied|must be run as root", re.IGNORECASE),
        "run as root (become: true), or let this user do it with `zfs allow`",
    ),
    (
        re.compile(r"modules are not loaded|/dev/zfs|failed to initialize the libzfs", re.IGNORECASE),
        "load the kernel module with `modprobe zfs`, and install it first where it is missing",
    ),
    (re.compile(r"out of space|quota exceeded", re.IGNORECASE), "free space or raise the quota, and try again"),
    (re.compile(r"encryption key|key (not|must be) loaded", re.IGNORECASE), "load the key with `zfs load-key`"),
    (re.compile(r"pool is read-only|read-only", re.IGNORECASE), "import the pool writable"),
    (re.compile(r"suspended", re.IGNORECASE), "look at `zpool status`: the pool waits for its disks"),
)


class Zfs:
    """The tools. ``timeout`` is that of one command, in seconds."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout

    def run(
        self, *arguments: str, attempt: str, ok: Sequence[int] = (0,), stderr_bytes: int = process.KEPT_STDERR
    ) -> process.Completed:
        """Run `zfs`; return what it printed. Raises ToolError, with the way out of what is well known."""
        return self.run_program("zfs", *arguments, attempt=attempt, ok=ok, stderr_bytes=stderr_bytes)

    def run_program(
        self,
        program: str,
        *arguments: str,
        attempt: str,
        ok: Sequence[int] = (0,),
        stderr_bytes: int = process.KEPT_STDERR,
    ) -> process.Completed:
        """Run `zfs`, `zpool`, `mount` or `umount`. See ``run``, and process.run."""
        if process.find_program(program) is None:
            raise ToolError(
                attempt,
                f"the program {program} is not there",
                "install it (Debian and Ubuntu: zfsutils-linux, RHEL family: zfs)"
                if program in ("zfs", "zpool")
                else f"install {program}",
            )
        try:
            return process.run(
                [program, *arguments],
                timeout=self.timeout,
                attempt=attempt,
                ok=ok,
                stderr_bytes=stderr_bytes,
                keep=held(),
            )
        except ToolError as error:
            for pattern, remedy in _WAYS_OUT:
                if pattern.search(error.reason):
                    raise ToolError(attempt, error.reason, remedy) from error
            raise

    def table(self, columns: Sequence[str], *arguments: str, attempt: str) -> list[list[str]]:
        """Run `zfs` with these arguments, which print these columns; return the lines as lists of fields."""
        return list(parse_table(self.run(*arguments, attempt=attempt).stdout, columns, attempt))

    def rows(
        self, columns: Sequence[str], arguments: Sequence[str], names: Sequence[str], attempt: str
    ) -> list[list[str]]:
        """List datasets or snapshots, in as many commands as their names need; all of them have to be there."""
        rows: list[list[str]] = []
        for batch in batches(names):
            rows += self.table(columns, "list", "-Hp", "-o", ",".join(columns), *arguments, *batch, attempt=attempt)
        return rows

    def list_those_there(
        self, columns: Sequence[str], names: Sequence[str], attempt: str, *arguments: str, kinds: str = "all"
    ) -> list[list[str]]:
        """List those of the named datasets, snapshots or bookmarks that are there.

        `zfs list` ends with 1 where some are missing, and names each of them. What it says of neither kind is an error.
        """
        rows: list[list[str]] = []
        for batch in batches(names):
            options = ["-t", kinds, "-o", ",".join(columns), *arguments]
            done = self.run("list", "-Hp", *options, *batch, attempt=attempt, ok=(0, 1), stderr_bytes=MISSING_BYTES)
            found = list(parse_table(done.stdout, columns, attempt))
            missing = set(missing_names(done.stderr))
            unexplained = set(batch) - missing - {row[0] for row in found}
            if unexplained or (done.rc and not missing):
                words = "; ".join(done.stderr.split("\n")[-4:]).strip("; ")
                doubtful = min(unexplained) if unexplained else "all of them"
                reason = f"`zfs list` did not say whether it has {doubtful}: {words[:500]}"
                raise _with_way_out(ToolError(attempt, reason, process.DEFAULT_REMEDY))
            rows += found
        return rows

    def change_many(self, arguments: Sequence[str], names: Iterable[str], attempt: str) -> None:
        """Run a command that takes any number of names at its end, such as `zfs set` or `zfs inherit`."""
        for batch in batches(tuple(names), taken=_size(arguments)):
            self.run(*arguments, *batch, attempt=attempt)

    def sync(self, pools: Iterable[str], attempt: str) -> None:
        """Wait until all that was written is in the pools."""
        self.run_program("zpool", "sync", *pools, attempt=attempt)


def parse_table(text: str, columns: Sequence[str], attempt: str) -> Iterator[list[str]]:
    """Yield the lines of -H output as lists of fields. Raises ToolError for a line of another form."""
    for line in text.split("\n")[:-1] if text else ():
        fields = line.split("\t")
        if len(fields) != len(columns) or not fields[0]:
            raise _unreadable(attempt, f"a line with {', '.join(columns)}", line)
        yield fields
    if text and not text.endswith("\n"):
        raise _unreadable(attempt, "whole lines", text[-200:])


def missing_names(stderr: str) -> Iterator[str]:
    """Yield the names that `zfs list` could not find."""
    for line in stderr.split("\n"):
        found = _NOT_THERE.fullmatch(line.strip())
        if found:
            yield found.group("name")


def parse_number(text: str, what: str, attempt: str) -> int:
    """Return a number of -p output; raise ToolError for anything else."""
    if not text.isascii() or not text.isdecimal():
        raise _unreadable(attempt, f"a number for {what}", text)
    return int(text)


def parse_reclaim(text: str, attempt: str) -> tuple[list[str], int]:
    """Return what `zfs destroy -nvp` says: the snapshots that would go, and the bytes that this would free."""
    names: list[str] = []
    freed: int | None = None
    for kind, value in parse_table(text, ("what", "value"), attempt):
        if kind == "destroy":
            names.append(value)
        elif kind == "reclaim":
            freed = parse_number(value, "reclaim", attempt)
        else:
            raise _unreadable(attempt, "destroy or reclaim", kind)
    if freed is None:
        raise _unreadable(attempt, "a line with reclaim", text[-200:])
    return names, freed


def batches(names: Sequence[str], taken: int = 0, room: int | None = None) -> Iterator[Sequence[str]]:
    """Yield names in as few parts as fit into a command each. ``taken`` is what its other arguments need, in bytes."""
    room = (_room() if room is None else room) - taken
    batch: list[str] = []
    used = 0
    for name in names:
        size = _size((name,))
        if batch and used + size > room:
            yield batch
            batch, used = [], 0
        batch.append(name)
        used += size
    if batch:
        yield batch


def lists(names: Sequence[str], longest: int = LONGEST_ARGUMENT) -> Iterator[list[str]]:
    """Yield names in parts that fit, joined by commas, into one argument each: `zfs destroy ds@a,b,c`."""
    batch: list[str] = []
    used = 0
    for name in names:
        if batch and used + len(name) + 1 > longest:
            yield batch
            batch, used = [], 0
        batch.append(name)
        used += len(name) + 1
    if batch:
        yield batch


def _size(arguments: Iterable[str]) -> int:
    """Return what arguments take of ARG_MAX: their bytes, a NUL, and a pointer, each."""
    return sum(len(os.fsencode(each)) + 9 for each in arguments)


def _room() -> int:
    environment = sum(len(os.fsencode(key)) + len(os.fsencode(value)) + 10 for key, value in os.environ.items())
    return max(int(os.sysconf("SC_ARG_MAX")) - environment - _SPARE, LONGEST_ARGUMENT)


def _unreadable(attempt: str, wanted: str, line: str) -> ToolError:
    return ToolError(
        attempt,
        f"the tool printed what cannot be read; {wanted} was expected, and there was {line[:200]!r}",
        "report it, with that line and the output of `zfs version`",
    )


def _with_way_out(error: ToolError) -> ToolError:
    for pattern, remedy in _WAYS_OUT:
        if pattern.search(error.reason):
            return ToolError(error.attempt, error.reason, remedy)
    return error
