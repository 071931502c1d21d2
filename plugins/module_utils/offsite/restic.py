# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A repository of restic: what it is told, and what it answers. Called by the agent.

No secret is on a command line: the repository, which may hold a password, and what its storage needs to log in are
handed over in the environment, which is made anew for it; the password stands in a file that only its owner can read,
or comes from a command. Messages show none of them.
"""

from __future__ import annotations

import json
import os
import pwd
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from .. import process, secret_files
from ..core.errors import InvalidInput, ToolError
from ..core.offsite import Destination, restic_line
from ..core.snapshot import parse_timestamp
from ..lock import held
from .zfs import ssh_command

#: How long one backup, check or restore may take, in seconds; what only looks takes less.
LONG, SHORT = 7 * 86400.0, 600.0
#: What each kind of storage says where there is no repository, and nothing else is wrong.
_NO_REPOSITORY = re.compile(
    r"repository does not exist"
    r"|unable to open config file:.*(no such file or directory|does not exist|doesn't exist|not ?found|NoSuch|404)",
    re.IGNORECASE,
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: The first that fits counts. restic asks "Is there a repository" after whatever went wrong, so that says nothing.
_WAYS_OUT = (
    (re.compile(r"wrong password|no key found", re.IGNORECASE), "put the repository's password there"),
    (
        re.compile(r"host key verification failed|host key is known", re.IGNORECASE),
        "compare the host's key with its own, and put it into known_hosts",
    ),
    (
        re.compile(r"permission denied \(|too many authentication failures", re.IGNORECASE),
        "put the public key into authorized_keys there, and see that `ssh` finds the private one",
    ),
    (
        re.compile(
            r"signature we calculated|access key id|access ?denied|forbidden|unauthorized|\((401|403)\)", re.IGNORECASE
        ),
        "correct what it logs in with: environment_file, or the repository's address",
    ),
    (
        re.compile(
            r"connection (refused|timed out|reset)|no route to host|no such host|name or service not known"
            r"|could not resolve|temporary failure in name|i/o timeout|network is unreachable",
            re.IGNORECASE,
        ),
        "see that the host is up and can be reached from here, and that address and port are right",
    ),
    (re.compile(r"no space left", re.IGNORECASE), "make room where the repository lies"),
    (
        re.compile(r"already locked", re.IGNORECASE),
        "wait for the other restic, or run `restic unlock` if there is none",
    ),
    (_NO_REPOSITORY, "see that it can be reached and is mounted; `init: true` makes one that is missing"),
)
_NO_SFTP = "unable to start the sftp session"
_MISSING = _WAYS_OUT[-1][1]
_TAG = "restorepoint"


@dataclass(frozen=True)
class Kept:
    """One restore point in a repository. ``path`` is where its content stands in it."""

    id: str
    name: str
    target: str
    policy: str
    created: int
    path: str


class Repository:
    """A destination of kind restic, for one policy. Raises InvalidInput for files that cannot be used.

    ``read_only``: nothing is written to it, not even a lock.
    """

    def __init__(self, destination: Destination, policy: str, read_only: bool = False) -> None:
        self.destination = destination
        self._read_only = read_only
        self.policy = policy
        params = destination.params
        self.host = params["host"] or os.uname().nodename
        self._environment = _base_environment()
        attempt = f"export to {destination.name}"
        if params["environment_file"]:
            text = secret_files.read(params["environment_file"], attempt)
            self._environment.update(parse_environment(text, params["environment_file"]))
        self._secrets = [params["repository"], *self._environment.values()]
        self._environment["RESTIC_REPOSITORY"] = params["repository"]
        self._environment["RESTIC_PROGRESS_FPS"] = "0.02"
        if params["password_file"]:
            secret_files.check(params["password_file"], attempt)
            self._environment["RESTIC_PASSWORD_FILE"] = params["password_file"]
        else:
            self._environment["RESTIC_PASSWORD_COMMAND"] = restic_line(params["password_command"])
        self._ssh = sftp_command(params)
        self._options = ["-o", f"sftp.command={restic_line(self._ssh)}"] if self._ssh else []

    def _run(self, *words: str, attempt: str, timeout: float = SHORT, ok: Sequence[int] = (0,)) -> process.Completed:
        limit = self.destination.bandwidth
        kib = str(max(1, (limit or 0) // 1024))
        limits = [f"--limit-upload={kib}", f"--limit-download={kib}"] if limit else []
        limits += ["--no-lock"] if self._read_only else []
        # What is as short as a port is no secret, and hiding it would make messages unreadable.
        secrets = [each for each in self._secrets if len(each) > 5 and each not in _base_environment().values()]
        argv = ["restic", *self._options, *limits, *words]
        try:
            return process.run(
                argv,
                timeout=timeout,
                attempt=attempt,
                ok=ok,
                keep=held(),
                only_environment=self._environment,
                secrets=secrets,
            )
        except ToolError as error:
            # How ssh is started is long, and always the same.
            reason = error.reason.replace(process.shown(argv), process.shown(["restic", *limits, *words]))
            if _NO_SFTP in reason:
                reason = self._why_no_sftp(attempt) or reason
            raise ToolError(attempt, reason, way_out(reason) or error.remedy) from error

    def _why_no_sftp(self, attempt: str) -> str | None:
        """Return what ssh says of a host where restic could not use it; restic may end before it has heard that."""
        said = process.run(self._ssh, timeout=SHORT, attempt=attempt, ok=range(256))
        if said.rc == 0:
            return None
        host = self.destination.params["sftp"]["host"]
        return f"ssh does not get to SFTP on {host}: {process.last_words(said.stderr, said.stdout)}"

    def open(self) -> list[Kept]:
        """Return what `kept` does; make the repository where it is missing, and that is asked for."""
        try:
            return self.kept()
        except ToolError as error:
            if not self.destination.params["init"] or error.remedy != _MISSING:
                raise
        if self._read_only:
            return []
        self._run("init", attempt=f"make the repository of {self.destination.name}")
        return []

    def kept(self) -> list[Kept]:
        """Return what it holds of the policy and this host, the oldest first."""
        attempt = f"list what {self.destination.name} holds"
        said = self._run("snapshots", "--json", "--host", self.host, "--tag", self._tags(), attempt=attempt)
        return sorted(parse_snapshots(said.stdout, attempt), key=lambda each: (each.created, each.name))

    def unlock(self) -> None:
        """Forget the locks of runs that were killed; those of others that are under way stay."""
        if self.destination.params["keep"] or self.destination.params["check"]:
            self._run("unlock", attempt=f"open the repository of {self.destination.name}")

    def _tags(self, **more: str) -> str:
        """Return what all of these are on, as restic reads a filter: all of them have to be there."""
        return ",".join([_TAG, *(f"{key}={quote(value, safe='/:')}" for key, value in self._named(**more).items())])

    def _named(self, **more: str) -> dict[str, str]:
        return {"policy": self.policy, **more}

    def backup(self, target: str, name: str, created: str, path: str, ignore_ctime: bool) -> dict[str, int]:
        """Back up what stands at ``path``; return how many bytes were looked at and added.

        ``created`` is the snapshot's time as restic takes it. ``ignore_ctime``: each snapshot makes a hard link to an
        unchanged file, which changes that and nothing else. Raises ToolError; what it could not read is not kept.
        """
        attempt = f"export {target} {name} to {self.destination.name}"
        tags = self._tags(target=target, name=name)
        words = ["backup", "--json", "--host", self.host, "--tag", tags, "--time", created]
        words += ["--ignore-ctime"] if ignore_ctime else []
        said = self._run(*words, "--", path, attempt=attempt, timeout=LONG, ok=(0, 3))
        summary = parse_summary(said.stdout, attempt)
        if said.rc == 3:
            self._run("forget", summary["snapshot_id"], attempt=attempt)
            words_of = process.last_words(said.stderr, said.stdout)
            raise ToolError(attempt, f"some of it could not be read: {words_of}", "see to that; nothing was kept of it")
        return {"bytes": int(summary["total_bytes_processed"]), "added": int(summary["data_added"])}

    def forget(self, targets: Sequence[str], rules: Mapping[str, str]) -> int:
        """Let go of what the keep rules of the destination do not keep; return how many went. Only of this policy.

        Where it is read only, they would go.
        """
        keep = self.destination.params["keep"]
        if not keep:
            return 0
        words = [word for rule, value in keep.items() for word in (rules[rule], str(value))]
        gone = 0
        for target in targets:
            attempt = f"forget old restore points of {target} in {self.destination.name}"
            tags = self._tags(target=target)
            named = ["--host", self.host, "--tag", tags, "--group-by", "host"]
            words_of = [*named, *words, *(["--dry-run"] if self._read_only else [])]
            gone += parse_forgotten(self._run("forget", "--json", *words_of, attempt=attempt).stdout, attempt)
        if gone and self.destination.params["prune"] and not self._read_only:
            self._run("prune", attempt=f"prune the repository of {self.destination.name}", timeout=LONG)
        return gone

    def check(self) -> None:
        """Have it check itself, and read a part of its data, where that is asked for."""
        part = self.destination.params["check"]
        if part:
            attempt = f"check the repository of {self.destination.name}"
            self._run("check", "--read-data-subset", part, attempt=attempt, timeout=LONG)

    def restore(self, kept: Kept, folder: str) -> None:
        """Restore into a folder, and compare what was written with what is kept."""
        attempt = f"import {kept.target} {kept.name} from {self.destination.name}"
        self._run("restore", kept.id, "--target", folder, "--verify", attempt=attempt, timeout=LONG)


def way_out(reason: str) -> str | None:
    """Return what to do about what restic said, None where it is not known. Its own command does not count."""
    said = reason.partition("` ")[2] or reason
    return next((remedy for pattern, remedy in _WAYS_OUT if pattern.search(said)), None)


def sftp_command(params: Mapping[str, Any]) -> list[str]:
    """Return how restic is to start ssh: as every other export does. Nobody is asked, the host's key has to be known.

    Host, user and port are those of the repository, which restic tells ssh only where it starts it in its own way.
    Returns nothing for a repository that is not reached over SFTP.
    """
    if not params.get("sftp"):
        return []
    *words, dashes, host = ssh_command({**(params["ssh"] or {}), **params["sftp"]})
    return [*words, "-s", dashes, host, "sftp"]


def _base_environment() -> dict[str, str]:
    return {"HOME": pwd.getpwuid(os.geteuid()).pw_dir, "TZ": "UTC"}


def parse_environment(text: str, path: str) -> dict[str, str]:
    """Return the variables of a file with lines such as ``AWS_ACCESS_KEY_ID=...``; ``#`` begins a comment."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, sign, value = line.partition("=")
        if not sign or not _VARIABLE.fullmatch(name):
            raise InvalidInput(f"read {path}", f"line {number} is not NAME=VALUE", "correct that line")
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[name] = value
    return found


def parse_summary(text: str, attempt: str) -> dict[str, Any]:
    """Return the summary among the lines that `restic backup --json` prints."""
    found: dict[str, Any] = {}
    for line in text.splitlines():
        if line.startswith("{") and '"summary"' in line:
            try:
                data = json.loads(line)
            except ValueError:
                continue
            if data.get("message_type") == "summary":
                found = data
    wanted = {"snapshot_id", "total_bytes_processed", "data_added"}
    if not wanted <= set(found):
        raise ToolError(attempt, "restic printed no summary", "report it, with the output of `restic version`")
    return found


def parse_snapshots(text: str, attempt: str) -> list[Kept]:
    """Return what `restic snapshots --json` lists of ours. Others are passed over."""
    try:
        rows = json.loads(text) or []
        found = []
        for row in rows:
            tags = dict(each.partition("=")[::2] for each in row.get("tags") or ())
            if _TAG not in tags or not {"policy", "target", "name"} <= set(tags):
                continue
            # restic tells nanoseconds.
            moment = re.sub(r"\.\d+", "", row["time"])
            found.append(
                Kept(
                    id=row["id"],
                    name=unquote(tags["name"]),
                    target=unquote(tags["target"]),
                    policy=unquote(tags["policy"]),
                    created=parse_timestamp(moment),
                    path=row["paths"][0],
                )
            )
        return found
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ToolError(
            attempt, f"restic printed what cannot be read: {error}", "report it, with the output of `restic version`"
        ) from error


def parse_forgotten(text: str, attempt: str) -> int:
    """Return how many restore points `restic forget --json` has removed. It prints nothing where there are none."""
    try:
        groups = json.loads(text.strip() or "[]")
        return sum(len(group.get("remove") or ()) for group in groups or ())
    except (ValueError, AttributeError) as error:
        words = "restic printed what cannot be read"
        raise ToolError(attempt, words, "report it, with the output of `restic version`") from error
