# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ZFS on the two sides of an export: lists, sends and receives, here or over ssh. Called by the rest of this folder.

A receive is resumable, never mounts anything, and never has -F unless it was allowed. What is found at the destination
is known by guid: what is not ours is named, and stays.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple

from .. import process
from ..backends.zfs.tool import Zfs, parse_number
from ..core.errors import ToolError
from ..core.offsite import Point, Step, bookmark_name, bookmarked
from . import streams

#: Where `zfs` lies on another host, for an account whose PATH is short.
_REMOTE = ("env", "LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
_TO_NAME = re.compile(r"^\s*toname = (.+)$", re.MULTILINE)
#: What a dataset bears while an import into it is under way.
IMPORTING = "restorepoint:importing"
#: What a copy is of.
SOURCE = "restorepoint:source"
_SSH_REMEDY = "try `ssh` by hand with the same key and known_hosts as this user, and see docs/offsite.md"
#: Properties that would do something on the host that keeps the copy, or take its room.
_NOT_THERE = {
    "filesystem": ("mountpoint", "sharenfs", "sharesmb", "reservation", "refreservation"),
    "volume": ("reservation", "refreservation"),
}


class Held(NamedTuple):
    """A dataset of a side. ``token`` is that of a receive that was interrupted, "" where there is none."""

    kind: str
    encrypted: bool
    token: str
    points: tuple[Point, ...]


class Side(Zfs):
    """ZFS here, or where ``ssh`` (host, user, port, key_file, known_hosts) leads."""

    def __init__(self, timeout: float = 600, ssh: Mapping[str, Any] | None = None) -> None:
        super().__init__(timeout)
        self.ssh = ssh

    @property
    def place(self) -> str:
        """What messages call it."""
        return f" on {self.ssh['host']}" if self.ssh else ""

    def argv(self, *words: str) -> list[str]:
        """Return the command that runs these words there. sshd hands one text to a shell, so each word is quoted."""
        if self.ssh is None:
            return list(words)
        return [*ssh_command(self.ssh), shlex.join([*_REMOTE, *words])]

    def run_program(
        self,
        program: str,
        *arguments: str,
        attempt: str,
        ok: Sequence[int] = (0,),
        stderr_bytes: int = process.KEPT_STDERR,
    ) -> process.Completed:
        """Run a program there. See Zfs."""
        if self.ssh is None:
            return super().run_program(program, *arguments, attempt=attempt, ok=ok, stderr_bytes=stderr_bytes)
        argv = self.argv(program, *arguments)
        return process.run(
            argv, timeout=self.timeout, attempt=attempt, remedy=_SSH_REMEDY, ok=ok, stderr_bytes=stderr_bytes
        )

    def look(self, dataset: str) -> Held | None:
        """Return a dataset with its snapshots, the oldest first; None where there is none."""
        attempt = f"look at {dataset}{self.place}"
        columns = ("name", "type", "encryption", "receive_resume_token", "guid", "createtxg")
        rows = self.list_those_there(columns, [dataset], attempt, "-d", "1", kinds="filesystem,volume,snapshot")
        found = [row for row in rows if row[0] == dataset]
        if not found:
            return None
        _name, kind, encryption, token, *_unused = found[0]
        points = [
            Point(row[0].partition("@")[2], row[4], parse_number(row[5], f"createtxg of {row[0]}", attempt))
            for row in rows
            if "@" in row[0] and row[0].partition("@")[0] == dataset
        ]
        points.sort(key=lambda each: each.txg)
        return Held(kind, encryption not in ("off", "-"), "" if token == "-" else token, tuple(points))

    def kinds(self, datasets: Sequence[str]) -> dict[str, Held]:
        """Return what these datasets are, without their snapshots. All of them have to be there."""
        attempt = f"look at {', '.join(datasets[:5])}{self.place}"
        rows = self.rows(("name", "type", "encryption"), ["-t", "filesystem,volume", "-d", "0"], datasets, attempt)
        return {name: Held(kind, encryption not in ("off", "-"), "", ()) for name, kind, encryption in rows}

    def bookmarks(self, datasets: Sequence[str]) -> dict[str, list[Point]]:
        """Return the bookmarks of these datasets, which have to be there."""
        attempt = f"list the bookmarks of {', '.join(datasets[:5])}"
        rows = self.rows(("name", "guid", "createtxg"), ["-t", "bookmark", "-d", "1"], datasets, attempt)
        found: dict[str, list[Point]] = {each: [] for each in datasets}
        for full, guid, txg in rows:
            dataset, _hash, name = full.partition("#")
            found[dataset].append(Point(name, guid, parse_number(txg, f"createtxg of {full}", attempt), bookmark=True))
        return found

    def all_bookmarks(self, datasets: Sequence[str], recursive: bool) -> list[tuple[str, str]]:
        """Return dataset and name of each bookmark of these datasets and of those below; missing ones have none."""
        attempt = f"list the bookmarks of {', '.join(datasets[:5])}"
        depth = ["-r"] if recursive else ["-d", "1"]
        found = self.list_those_there(("name",), datasets, attempt, *depth, kinds="filesystem,volume,bookmark")
        return [(row[0].partition("#")[0], row[0].partition("#")[2]) for row in found if "#" in row[0]]

    def copies(self, parent: str) -> dict[str, tuple[str, Held]]:
        """Return the copies that lie in a dataset: by what each is of, its own name and what it holds."""
        attempt = f"list the copies in {parent}{self.place}"
        rows = self.table(
            ("name", SOURCE), "list", "-Hp", "-d", "1", "-t", "filesystem,volume", "-o", f"name,{SOURCE}", parent,
            attempt=attempt,
        )  # fmt: skip
        found = {}
        for name, source in rows:
            there = self.look(name) if source != "-" and name != parent else None
            if there is not None:
                found[source] = (name, there)
        return found

    def remember(self, dataset: str, destination: str, snapshot: Point, known: list[Point]) -> None:
        """Bookmark what a destination holds now, and let go of what it held before. Brings ``known`` up to date."""
        name = bookmark_name(destination, snapshot.name)
        attempt = f"bookmark {dataset}@{snapshot.name}"
        if name not in [each.name for each in known]:
            self.run("bookmark", f"{dataset}@{snapshot.name}", f"{dataset}#{name}", attempt=attempt)
            known.append(Point(name, snapshot.guid, snapshot.txg, bookmark=True))
        for each in [each for each in known if each.name != name]:
            if (bookmarked(each.name) or ("",))[0] == destination:
                self.run("destroy", f"{dataset}#{each.name}", attempt=attempt)
                known.remove(each)


def ssh_command(ssh: Mapping[str, Any]) -> list[str]:
    """Return the beginning of a command on another host: nobody is asked, and its key has to be known.

    ``ssh`` has host, user, port, key_file and known_hosts, as far as they are given.
    """
    words = ["ssh", "-T", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=30"]
    words += ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=8", "-o", "ClearAllForwardings=yes"]
    if ssh.get("known_hosts"):
        words += ["-o", f"UserKnownHostsFile={ssh['known_hosts']}", "-o", "GlobalKnownHostsFile=/dev/null"]
    if ssh.get("key_file"):
        words += ["-o", "IdentitiesOnly=yes", "-i", ssh["key_file"]]
    if ssh.get("port"):
        words += ["-p", str(ssh["port"])]
    if ssh.get("user"):
        words += ["-l", ssh["user"]]
    return [*words, "--", ssh["host"]]


def with_properties(step: Step, properties: bool) -> bool:
    """Say whether a stream carries properties, those of the snapshot among them: whose it is."""
    return properties and not (step.base is not None and step.base.bookmark)


def sending(dataset: str, step: Step, raw: bool, properties: bool) -> list[str]:
    """Return the command that sends one snapshot. From a bookmark ZFS sends no properties."""
    words = ["zfs", "send", *(["-w"] if raw else ["-L", "-e", "-c"])]
    if with_properties(step, properties):
        words.append("-p")
    if step.base is not None:
        words += ["-i", f"{dataset}{step.base.mark}" if step.base.bookmark else step.base.mark]
    return [*words, f"{dataset}@{step.point.name}"]


def receiving(dataset: str, source: str, kind: str, rollback: bool = False) -> list[str]:
    """Return the command that receives a copy: resumable, not mounted, read-only, with a note of what it is of."""
    words = ["zfs", "receive", "-s", "-u", *(["-F"] if rollback else [])]
    words += ["-o", "readonly=on", "-o", f"{SOURCE}={source}"]
    words += ["-o", "canmount=noauto"] if kind == "filesystem" else []
    for each in _NOT_THERE[kind]:
        words += ["-x", each]
    return [*words, dataset]


def unmounted(kind: str) -> list[str]:
    """Return the options of a receive that keep what is restored from being mounted over what it is of."""
    return ["-x", "mountpoint"] if kind == "filesystem" else []


def importing(dataset: str, options: Sequence[str], whole: bool) -> list[str]:
    """Return the command that receives what is restored, into a dataset that bears a mark until all of it is there."""
    return ["zfs", "receive", "-u", *(["-o", f"{IMPORTING}=yes"] if whole else []), *options, dataset]


def resumable(
    here: Side, side: Side, source: str, target: str, held_there: Held, attempt: str
) -> tuple[str, bool]:  # fmt: skip
    """Return which snapshot a receive that was interrupted is of, and whether it can go on: the snapshot is still here.

    Raises ToolError where it is of something else than ``source``.
    """
    said = here.run("send", "-n", "-v", "-t", held_there.token, attempt=attempt, ok=(0, 1, 2, 255))
    found = _TO_NAME.search(said.stdout) or _TO_NAME.search(said.stderr)
    if found is None or not found.group(1).startswith(f"{source}@"):
        of = found.group(1) if found else "what this host does not know"
        raise ToolError(
            attempt,
            f"a receive of {of} into {target}{side.place} was interrupted, and it is none of ours",
            f"end it, or give it up with `zfs receive -A {target}`",
        )
    return found.group(1).partition("@")[2], said.rc == 0


def resume(
    here: Side, side: Side, source: str, target: str, held_there: Held, bandwidth: int | None, attempt: str,
    told: Callable[[int], None] | None = None,
) -> int:  # fmt: skip
    """Go on with a receive that was interrupted, or give it up where the snapshot is gone; return the bytes moved.

    Raises ToolError where it is of something else than ``source``.
    """
    _name, possible = resumable(here, side, source, target, held_there, attempt)
    if not possible:
        side.run("receive", "-A", target, attempt=attempt)
        return 0
    receive = side.argv(*receiving(target, source, held_there.kind))
    remedy = "the next export goes on where it ended"
    return streams.pump([["zfs", "send", "-t", held_there.token]], receive, attempt, remedy, bandwidth, told).bytes
