# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which guests a call is about: reads the cluster's resources, and selects from them. Pure but for jmespath.

Named guests (ids, ranges, names, globs) are put together; tags, pools, nodes, types, states and the JMESPath expression
then each narrow that down, and what is excluded is taken away. Called by backend.py and info.py.
"""

from __future__ import annotations

import fnmatch
import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core.errors import InvalidInput, MissingLibrary, RestorePointError
from ...pve import PveError
from .metadata import LXC, QEMU

SELECT = "select guests"
#: Storages that return only to the newest snapshot (PVE/Storage/ZFSPoolPlugin.pm, which the ZFS-over-iSCSI one
#: inherits).
NEWEST_ONLY = ("zfspool", "zfs")
_RANGE = re.compile(r"(\d+)-(\d+)")
_GLOB = re.compile(r"[*?\[]")
_INVISIBLE = (
    "check the spelling, and that the user and the token have VM.Audit on it: the API leaves out what they may not see"
)


@dataclass
class Guest:
    """A guest as the cluster's resources show it. ``node`` is where it is, and changes when it moves.

    ``status`` is up to some seconds old; ``lock`` and ``tags`` are of now.
    """

    vmid: int
    type: str
    node: str
    name: str = ""
    status: str = "unknown"
    template: bool = False
    lock: str | None = None
    pool: str | None = None
    tags: tuple[str, ...] = ()
    hastate: str | None = None

    @property
    def target(self) -> str:
        """What it is called in results: ``qemu/100``."""
        return f"{self.type}/{self.vmid}"

    @property
    def path(self) -> str:
        """Where the API has it."""
        return f"/nodes/{self.node}/{self.type}/{self.vmid}"

    @property
    def words(self) -> str:
        """What it is called in messages: ``qemu/100 (web)``."""
        return f"{self.target} ({self.name})" if self.name else self.target

    @property
    def tool(self) -> str:
        """The program for it on its node."""
        return "qm" if self.type == QEMU else "pct"

    def facts(self) -> dict[str, Any]:
        """Return what every result about it says."""
        return {"vmid": self.vmid, "guest": self.name, "node": self.node, "type": self.type}


@dataclass
class Cluster:
    """What /cluster/resources said. ``storages`` maps (node, storage) to its type."""

    guests: list[Guest] = field(default_factory=list)
    storages: dict[tuple[str, str], str] = field(default_factory=dict)
    resources: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Selection:
    """What a caller asks for. Empty parts do not narrow anything down."""

    vmid: tuple[str, ...] = ()
    guest: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    pool: tuple[str, ...] = ()
    node: tuple[str, ...] = ()
    type: str | None = None
    status: str | None = None
    exclude: tuple[str, ...] = ()
    select: str | None = None
    allow_none: bool = False


def read_cluster(answer: Any) -> Cluster:
    """Read the answer of /cluster/resources; raise PveError for what is none."""
    try:
        cluster = Cluster()
        for item in answer:
            if item["type"] in (QEMU, LXC):
                cluster.guests.append(_guest(item))
                cluster.resources.append(item)
            elif item["type"] == "storage":
                cluster.storages[item["node"], item["storage"]] = item.get("plugintype") or ""
    except (KeyError, TypeError, ValueError) as error:
        raise PveError(
            "read the cluster's resources", f"an entry cannot be read ({error})", "check that this is a Proxmox VE API"
        ) from None
    cluster.guests.sort(key=lambda guest: guest.vmid)
    return cluster


def _guest(item: Mapping[str, Any]) -> Guest:
    return Guest(
        vmid=int(item["vmid"]),
        type=item["type"],
        node=item["node"],
        name=str(item.get("name") or ""),
        status=str(item.get("status") or "unknown"),
        template=bool(int(item.get("template") or 0)),
        lock=item.get("lock") or None,
        pool=item.get("pool") or None,
        tags=tuple(each for each in re.split(r"[;, ]+", str(item.get("tags") or "")) if each),
        hastate=item.get("hastate") or None,
    )


def words(values: Iterable[Any] | None) -> tuple[str, ...]:
    """Return the words of a list as people and surveys give it: several in one text too, by commas, blanks or lines."""
    found = (each for value in values or () for each in re.split(r"[,\s]+", str(value)))
    return tuple(dict.fromkeys(each for each in found if each))


def check(selection: Selection) -> None:
    """Raise InvalidInput for a selection that cannot be meant, or MissingLibrary. Asks nobody."""
    for option, values in (("vmid", selection.vmid), ("exclude", selection.exclude)):
        for value in values:
            _range(value, option, strict=option == "vmid")
    if selection.select is not None:
        _compiled(selection.select)


def select(cluster: Cluster, selection: Selection) -> list[Guest]:
    """Return the guests that are meant, by id. Raises InvalidInput, and RestorePointError where there are none.

    A template is left out where nobody named it: it cannot have snapshots, and patterns are not meant for it.
    """
    named = _named(cluster, selection)
    chosen = [each for each in cluster.guests if each.vmid in named] if named is not None else list(cluster.guests)
    chosen = [each for each in chosen if not each.template or (named is not None and named.get(each.vmid))]
    chosen = [each for each in chosen if _fits(each, selection) and not _excluded(each, selection.exclude)]
    if selection.select is not None:
        found = _selected(cluster, selection.select)
        chosen = [each for each in chosen if each.vmid in found]
    if not chosen and not selection.allow_none:
        seen = f"none of the {len(cluster.guests)} guests fits" if cluster.guests else "no guest is to be seen"
        raise RestorePointError(SELECT, seen, f"{_INVISIBLE}; allow_none: true lets nothing be enough")
    return chosen


def _named(cluster: Cluster, selection: Selection) -> dict[int, bool] | None:
    """Return the ids of guests that were named, and whether each was for itself; None where nobody was."""
    if not selection.vmid and not selection.guest:
        return None
    named: dict[int, bool] = {}
    missing: list[str] = []
    known = {each.vmid for each in cluster.guests}
    for value in selection.vmid:
        first, last = _range(value, "vmid", strict=True) or (0, 0)
        inside = [vmid for vmid in known if first <= vmid <= last]
        for vmid in inside:
            named[vmid] = named.get(vmid, False) or first == last
        if not inside and first == last:
            missing.append(value)
    for pattern in selection.guest:
        found = [each for each in cluster.guests if fnmatch.fnmatchcase(each.name, pattern)]
        plain = _GLOB.search(pattern) is None
        if plain and len(found) > 1:
            which = ", ".join(str(each.vmid) for each in found)
            raise InvalidInput(SELECT, f"{which} are all called {pattern!r}", "name them by vmid")
        if plain and not found:
            missing.append(pattern)
        for each in found:
            named[each.vmid] = named.get(each.vmid, False) or plain
    if missing:
        is_are = "is" if len(missing) == 1 else "are"
        raise RestorePointError(SELECT, f"{', '.join(missing)} {is_are} not to be seen in the cluster", _INVISIBLE)
    return named


def _range(value: str, option: str, strict: bool) -> tuple[int, int] | None:
    found = _RANGE.fullmatch(value)
    if found:
        first, last = int(found.group(1)), int(found.group(2))
    elif value.isascii() and value.isdigit():
        first = last = int(value)
    elif strict:
        raise InvalidInput(f"read {option}: {value}", "it is neither an id nor a range", "write 100, or 100-120")
    else:
        return None
    if first > last:
        raise InvalidInput(f"read {option}: {value}", "it ends before it begins", f"write {last}-{first}")
    return first, last


def _fits(guest: Guest, selection: Selection) -> bool:
    return (
        set(selection.tags) <= set(guest.tags)
        and (not selection.pool or guest.pool in selection.pool)
        and (not selection.node or guest.node in selection.node)
        and selection.type in (None, guest.type)
        and selection.status in (None, guest.status)
    )


def _excluded(guest: Guest, exclude: Sequence[str]) -> bool:
    for value in exclude:
        span = _range(value, "exclude", strict=False)
        if span is not None and span[0] <= guest.vmid <= span[1]:
            return True
        if fnmatch.fnmatchcase(guest.name, value) or value == guest.target:
            return True
    return False


def _compiled(expression: str) -> Any:
    try:
        import jmespath
    except ImportError:
        raise MissingLibrary(SELECT, "jmespath", traceback.format_exc()) from None
    try:
        return jmespath.compile(expression)
    except jmespath.exceptions.JMESPathError as error:
        reason = str(error).split("\n", 1)[0]
        raise InvalidInput(f"read select: {expression}", reason, "correct the JMESPath expression") from None


def _selected(cluster: Cluster, expression: str) -> set[int]:
    """Return the ids that a JMESPath expression over the resources gives: of guests as they are there, or plain."""
    compiled = _compiled(expression)
    try:
        found = compiled.search(cluster.resources)
    except Exception as error:
        reason = str(error).split("\n", 1)[0]
        raise InvalidInput(f"apply select: {expression}", reason, "correct the JMESPath expression") from None
    try:
        return {int(each["vmid"] if isinstance(each, dict) else each) for each in ([] if found is None else found)}
    except (KeyError, TypeError, ValueError):
        raise InvalidInput(
            f"apply select: {expression}",
            "it does not give a list of guests, or of their ids",
            "write it as a filter, such as [?maxmem > `4294967296`]",
        ) from None
