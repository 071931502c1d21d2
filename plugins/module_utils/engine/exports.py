# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The key ``export`` of a policy: kinds of destinations, their keys, and what is wrong with them. No I/O.

Called by policy.py, which brings its reader along. docs/policies.md and docs/offsite.md describe the keys for people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Protocol

from ..core.errors import InvalidInput
from ..core.offsite import Destination, restic_line
from ..core.units import parse_size

if TYPE_CHECKING:
    from ..core.retention import RetentionPolicy

COMPRESSIONS = ("zstd", "lz4", "gzip", "none")
#: What each kind of destination takes, and why it does not take the others.
KINDS = {"zfs": ("zfs",), "file": ("zfs",), "restic": ("zfs", "lvm", "btrfs", "hostpath")}
_ELSEWHERE = {
    "csi": "the agent cannot see into a volume of the cluster; run restic in a pod with a clone of it",
    "pve": "Proxmox VE exports guests itself: with vzdump, or to a Proxmox Backup Server",
}
_COMMON = ("kind", "name", "backends", "bandwidth_limit", "idle")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,22}")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_SFTP_URL = re.compile(r"sftp://(?:(?P<user>[^@/]*)@)?(?P<host>[^:/@]+)(?::(?P<port>[0-9]{1,5}))?/.*")
_SFTP = re.compile(r"sftp:(?:(?P<user>[^@:]*)@)?(?P<host>[^:/@]+):.*")
_SHARE = re.compile(r"[0-9]+(\.[0-9]+)?%|[0-9]+/[0-9]+|[0-9]+[KMGT]")
#: What goes with ``keep`` in a ZFS destination, as in a policy.
_BESIDE_KEEP = ("min_keep", "min_age", "max_delete", "require_recent")
#: Keep rules of ours that `restic forget` has as well, and its word for each.
RESTIC_KEEP = {each: f"--keep-{each}" for each in ("last", "hourly", "daily", "weekly", "monthly", "yearly", "within")}


class Reader(Protocol):
    """What policy.py reads the keys of one mapping with."""

    data: Mapping[Any, Any]
    sound: bool
    faults: list[Any]

    def fault(self, key: str, reason: str) -> None:
        """Note what is wrong with a key."""

    def only(self, keys: Sequence[str]) -> None:
        """Note every other key."""

    def get(self, key: str, kind: Any, default: Any, words: str) -> Any:
        """Return a value of that kind, or the default."""

    def texts(self, key: str, one_is_enough: bool = True) -> tuple[str, ...]:
        """Return a list of texts."""

    def tried(self, key: str, call: Callable[[], Any]) -> Any:
        """Return what the call returns, or note why it fails."""


@dataclass(frozen=True)
class _Key:
    """One key: the kind of its value, in words as well, and what it is where it is missing."""

    kind: type
    words: str
    default: Any = None
    required: bool = False


_SSH = {
    "host": _Key(str, "the name or address of a host", required=True),
    "user": _Key(str, "the name of an account"),
    "port": _Key(int, "a number"),
    "key_file": _Key(str, "a path"),
    "known_hosts": _Key(str, "a path"),
}
#: Host, user and port of a restic over SFTP stand in its repository.
_SSH_FILES = ("key_file", "known_hosts")
_KEYS: dict[str, dict[str, _Key]] = {
    "zfs": {
        "dataset": _Key(str, "the name of a dataset", required=True),
        "ssh": _Key(Mapping, "a mapping"),
        "newest_only": _Key(bool, "true or false", False),
        "properties": _Key(bool, "true or false", True),
        "keep": _Key(Mapping, "a mapping"),
    },
    "file": {
        "path": _Key(str, "a path", required=True),
        "compression": _Key(str, "a text", "zstd"),
        "newest_only": _Key(bool, "true or false", False),
        "properties": _Key(bool, "true or false", True),
        "whole_after": _Key(int, "a whole number", 30),
        "chains": _Key(int, "a whole number", 2),
    },
    "restic": {
        "repository": _Key(str, "a repository of restic", required=True),
        "password_file": _Key(str, "a path"),
        "password_command": _Key(list, "a list of texts"),
        "environment_file": _Key(str, "a path"),
        "ssh": _Key(Mapping, "a mapping"),
        "host": _Key(str, "a name"),
        "init": _Key(bool, "true or false", False),
        "keep": _Key(Mapping, "a mapping"),
        "prune": _Key(bool, "true or false", False),
        "check": _Key(str, "a part of the data, such as 5% or 1/10"),
    },
}


def destinations(
    readers: Sequence[Reader], backends: Sequence[str], rules: Callable[[Any], RetentionPolicy | None]
) -> tuple[Destination, ...]:
    """Return the destinations of a policy whose targets are of these backends; faults go to the readers.

    ``rules`` reads keep rules as those of the policy are read.
    """
    found: list[Destination] = []
    for read in readers:
        before = len(read.faults)
        made = _destination(read, backends, rules)
        if made is not None and made.name in [each.name for each in found]:
            read.fault("name", f"another destination is called {made.name!r} already")
        if made is not None and len(read.faults) == before:
            found.append(made)
    return tuple(found)


def _destination(
    read: Reader, backends: Sequence[str], rules: Callable[[Any], RetentionPolicy | None]
) -> Destination | None:
    kind = read.get("kind", str, "", "a text")
    if kind not in KINDS:
        if read.sound:
            words = f"there is no kind {kind!r}" if kind else "it is missing"
            read.fault("kind", f"{words}; there are {', '.join(KINDS)}")
        return None
    read.only((*_COMMON, *_KEYS[kind], *(_BESIDE_KEEP if kind == "zfs" else ())))
    name = read.get("name", str, kind, "a text")
    if not _NAME.fullmatch(name):
        read.fault("name", "it has to be 1 to 23 characters of a-z, 0-9 and '-', beginning with a letter")
    params = _params(read, _KEYS[kind])
    limit = read.get("bandwidth_limit", (str, int), None, "a size for each second, such as 20M")
    bandwidth = read.tried("bandwidth_limit", lambda: parse_size(str(limit), "bandwidth_limit")) if limit else None
    if bandwidth is not None and bandwidth < 1024:
        read.fault("bandwidth_limit", "it is less than 1K a second")
    {"zfs": _check_zfs, "file": _check_file, "restic": _check_restic}[kind](read, params)
    return Destination(
        kind=kind,
        name=name,
        backends=_backends(read, kind, backends),
        bandwidth=bandwidth,
        idle=read.get("idle", bool, True, "true or false"),
        params=params,
        retention=_retention(read, rules) if kind == "zfs" else None,
    )


def _retention(read: Reader, rules: Callable[[Any], RetentionPolicy | None]) -> RetentionPolicy | None:
    """Return which copies stay in a ZFS destination, None where all of them do."""
    if read.data.get("keep") is None:
        for name in _BESIDE_KEEP:
            if read.data.get(name) is not None:
                read.fault(name, "without keep nothing is ever removed there, so there is nothing to limit")
        return None
    before = len(read.faults)
    found = rules(read)
    if found is not None and found.has_no_rule and len(read.faults) == before:
        read.fault("keep", "it has no rule; leave it out to keep everything")
    return found


def _params(read: Reader, keys: Mapping[str, _Key]) -> dict[str, Any]:
    values = {name: read.get(name, key.kind, key.default, key.words) for name, key in keys.items()}
    for name, key in keys.items():
        if key.required and read.sound and read.data.get(name) in (None, ""):
            read.fault(name, "it is missing")
    return values


def _backends(read: Reader, kind: str, given: Sequence[str]) -> tuple[str, ...]:
    """Return the backends whose targets go there. None is left out in silence."""
    asked = read.texts("backends")
    unknown = [each for each in asked if each not in given]
    if unknown:
        read.fault("backends", f"the policy has no target of {', '.join(unknown)}")
    wanted = tuple(dict.fromkeys(asked or given))
    for each in wanted:
        if each in unknown or each in KINDS[kind]:
            continue
        why = _ELSEWHERE.get(each, "only streams of ZFS go there; make another destination of kind restic")
        left = [other for other in dict.fromkeys(given) if other in KINDS[kind]]
        words = f", and name the others with backends: {', '.join(left)}" if left else ""
        read.fault("backends", f"{kind} does not take targets of {each}: {why}{words}")
    return wanted


def _check_zfs(read: Reader, params: dict[str, Any]) -> None:
    if params["dataset"]:
        from ..backends.zfs.names import check_dataset

        read.tried("dataset", lambda: check_dataset(params["dataset"]))
    if params["ssh"] is not None:
        params["ssh"] = _ssh(read, params["ssh"], _SSH)


def _ssh(read: Reader, ssh: Mapping[str, Any], keys: Mapping[str, _Key]) -> dict[str, Any]:
    """Return the keys of `ssh`, all of them; what is wrong goes to the reader."""
    values: dict[str, Any] = {}
    for name, key in keys.items():
        value = ssh.get(name)
        # pylint: disable-next=isinstance-second-argument-not-valid-type
        wrong = value is not None and (not isinstance(value, key.kind) or isinstance(value, bool))
        if wrong or (key.required and not value):
            read.fault(f"ssh.{name}", f"it has to be {key.words}" if wrong else "it is missing")
        values[name] = None if wrong else value
    for name in ssh:
        if name not in keys:
            read.fault(f"ssh.{name}", f"there is no such key; the keys are {', '.join(keys)}")
    for name, rule in (("host", _HOST), ("user", _USER)):
        if values.get(name) and not rule.fullmatch(values[name]):
            read.fault(f"ssh.{name}", "it has characters that no such name has")
    for name in _SSH_FILES:
        if values[name] and not values[name].startswith("/"):
            read.fault(f"ssh.{name}", "it has to be an absolute path")
    return values


def _check_file(read: Reader, params: Mapping[str, Any]) -> None:
    if params["path"] and not params["path"].startswith("/"):
        read.fault("path", "it has to be an absolute path")
    if params["compression"] not in COMPRESSIONS:
        read.fault("compression", f"{params['compression']!r} is none of {', '.join(COMPRESSIONS)}")
    for name, least in (("whole_after", 0), ("chains", 1)):
        if params[name] < least:
            read.fault(name, f"it has to be {least} or more")


def sftp_host(repository: str) -> dict[str, Any]:
    """Return host, user and port of a repository over SFTP, read as restic reads it. Raises InvalidInput.

    It is ``sftp:[user@]host:path``, or ``sftp://[user@]host[:port]/path``.
    """
    found = _SFTP_URL.fullmatch(repository) or _SFTP.fullmatch(repository)
    parts = found.groupdict() if found else {}
    host, user = parts.get("host") or "", parts.get("user")
    if not _HOST.fullmatch(host) or (user and not _USER.fullmatch(user)):
        raise InvalidInput(
            "read the repository", "it names no host that ssh could reach",
            "write sftp:user@host:/path, or sftp://user@host:port//path",
        )  # fmt: skip
    port = parts.get("port")
    return {"host": host, "user": user, "port": int(port) if port else None}


def _check_restic(read: Reader, params: dict[str, Any]) -> None:
    command = params["password_command"]
    if (params["password_file"] is None) == (command is None):
        read.fault("", "it needs one of password_file and password_command")
    if command is not None and (not command or not all(isinstance(each, str) and each for each in command)):
        read.fault("password_command", "it has to be a program with its arguments, as a list of texts")
    elif command is not None:
        read.tried("password_command", lambda: restic_line(command))
    for name in ("password_file", "environment_file"):
        if params[name] and not params[name].startswith("/"):
            read.fault(name, "it has to be an absolute path")
    if params["ssh"] is not None:
        params["ssh"] = _ssh(read, params["ssh"], {name: _SSH[name] for name in _SSH_FILES})
        if not params["repository"].startswith("sftp:"):
            read.fault("ssh", "the repository is not reached over ssh; leave it out")
        for name in _SSH_FILES:
            if re.search(r"[^A-Za-z0-9._/+@:=-]", params["ssh"][name] or ""):
                read.fault(f"ssh.{name}", "restic cannot hand a path with blanks or signs to ssh; name another one")
    if (params["repository"] or "").startswith("sftp:"):
        params["sftp"] = read.tried("repository", lambda: sftp_host(params["repository"]))
    if params["check"] and not _SHARE.fullmatch(params["check"]):
        read.fault("check", "it has to be a part such as 5%, 1/10 or 500M")
    if params["prune"] and not params["keep"]:
        read.fault("prune", "without keep nothing is ever forgotten, so there is nothing to prune")
    for rule, value in (params["keep"] or {}).items():
        if rule not in RESTIC_KEEP:
            read.fault(f"keep.{rule}", f"restic has no such rule; there are {', '.join(RESTIC_KEEP)}")
        elif rule == "within" and not (isinstance(value, str) and re.fullmatch(r"([0-9]+[ymdh])+", value)):
            read.fault("keep.within", "it has to be a span of restic's, such as 30d or 1y6m")
        elif rule != "within" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            read.fault(f"keep.{rule}", "it has to be a whole number, 1 or more")
    if params["keep"] is not None and not params["keep"]:
        read.fault("keep", "it has no rule; leave it out to keep everything")
