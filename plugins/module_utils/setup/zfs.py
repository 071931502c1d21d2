# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ZFS as it is asked for: pools, datasets and their properties.

``parse`` reads the options, ``read`` the host, and ``make_plan`` compares the two and is pure. Called by bridge.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import mounts, process
from ..core.errors import InvalidInput, ToolError
from ..core.units import format_size, parse_size
from .disks import TIMEOUT, Disk, WantedFile, block_doubles, checked_path, claim, parse_files, plan_files, read_disks
from .plan import Plan, named

PROGRAM = "zpool"
#: Of zfsprops(7): what can be given to a dataset only when it is made.
AT_CREATION = (
    *("casesensitivity", "encryption", "keyformat", "normalization", "pbkdf2iters", "utf8only", "volblocksize"),
)
#: Of zpoolprops(7): what can be given to a pool only when it is made (ashift is the default for disks added later).
POOL_AT_CREATION = ("ashift",)
_POOL_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_.: -]*")
_POOL_RESERVED = re.compile(r"(mirror|raidz|draid|spare).*|log")
_PART = re.compile(r"[a-zA-Z0-9_.:-]+")
_PROPERTY = re.compile(r"[a-z0-9_.:@-]+")
#: How many disks each kind of group needs at least; "stripe" is the word for disks without redundancy.
_LEAST = {"stripe": 1, "mirror": 2, "raidz": 2, "raidz1": 2, "raidz2": 3, "raidz3": 4,
          "log": 1, "cache": 1, "special": 1, "spare": 1}  # fmt: skip


@dataclass(frozen=True)
class Vdev:
    """A group of disks in a pool."""

    kind: str
    devices: tuple[str, ...]


@dataclass(frozen=True)
class WantedPool:
    """A pool. ``properties`` are the pool's own; those of its top dataset stand with the datasets."""

    name: str
    vdevs: tuple[Vdev, ...]
    force: tuple[str, ...]
    properties: Mapping[str, str]

    @property
    def devices(self) -> tuple[str, ...]:
        """All of its disks."""
        return tuple(device for vdev in self.vdevs for device in vdev.devices)


@dataclass(frozen=True)
class WantedDataset:
    """A filesystem or, where ``size`` (bytes) is given, a volume."""

    name: str
    size: int | None
    sparse: bool
    properties: Mapping[str, str]

    @property
    def pool(self) -> str:
        """The pool that it lies in."""
        return self.name.partition("/")[0]


@dataclass(frozen=True)
class Wanted:
    """All that is asked for; datasets are sorted, so that parents come first."""

    files: tuple[WantedFile, ...]
    pools: tuple[WantedPool, ...]
    datasets: tuple[WantedDataset, ...]


@dataclass(frozen=True)
class Host:
    """What is there.

    ``members`` holds for each pool the real paths of its disks; ``pool_properties`` and ``properties`` hold values as
    ``get -p`` prints them, by (name, property); ``kinds`` maps each dataset to filesystem or volume. ``hidden`` names
    the mount points that hold something although nothing is mounted there.
    """

    disks: Mapping[str, Disk]
    members: Mapping[str, frozenset[str]] = field(default_factory=dict)
    pool_properties: Mapping[tuple[str, str], str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[tuple[str, str], str] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()


def parse(params: Mapping[str, Any]) -> Wanted:
    """Return what the options of zfs_layout ask for; InvalidInput for what cannot be meant."""
    twice = [name for rows, key in (("pools", "name"), ("datasets", "name"), ("files", "path"))
             for name in named(params[rows], key)]  # fmt: skip
    pools = tuple(map(_pool, params["pools"]))
    devices = [device for pool in pools for device in pool.devices]
    twice += sorted({device for device in devices if devices.count(device) > 1})
    if twice:
        raise InvalidInput("set up ZFS", f"{', '.join(twice)} is there twice", "name each once")
    files = {file["path"] for file in params["files"]}
    for pool in pools:
        if set(pool.devices) & files and set(pool.devices) - files:
            raise InvalidInput(f"set up the pool {pool.name!r}", "it has both files and disks", "use one or the other")
    datasets = sorted(map(_dataset, params["datasets"]), key=lambda each: each.name)
    return Wanted(parse_files(params["files"]), pools, tuple(datasets))


def _pool(row: Mapping[str, Any]) -> WantedPool:
    name = row["name"]
    attempt = f"set up the pool {name!r}"
    if not _POOL_NAME.fullmatch(name) or _POOL_RESERVED.fullmatch(name) or " " in name:
        raise InvalidInput(attempt, "ZFS does not allow that name", "begin with a letter; see zpool-create(8)")
    vdevs = tuple(
        Vdev(each["type"], tuple(checked_path(one, "a disk") for one in each["devices"])) for each in row["vdevs"]
    )
    if not any(vdev.kind not in ("log", "cache", "special", "spare") for vdev in vdevs):
        raise InvalidInput(attempt, "it has no disks for data", "list them under vdevs")
    for vdev in vdevs:
        if len(vdev.devices) < _LEAST[vdev.kind]:
            reason = f"{vdev.kind} needs at least {_LEAST[vdev.kind]} disks, and has {len(vdev.devices)}"
            raise InvalidInput(attempt, reason, "give it more, or choose another type")
    _check_alike(vdevs, attempt)
    pool = WantedPool(name, vdevs, tuple(row["force"]), _properties(row["properties"], attempt))
    strangers = sorted(set(pool.force) - set(pool.devices))
    if strangers:
        reason = f"force names {', '.join(strangers)}, which is none of its disks"
        raise InvalidInput(attempt, reason, "name under force only disks that stand under vdevs")
    return pool


def _check_alike(vdevs: Sequence[Vdev], attempt: str) -> None:
    """Refuse what `zpool create` calls a mismatched replication level; only its -f would allow that."""
    data = [vdev for vdev in vdevs if vdev.kind not in ("log", "cache", "special", "spare")]
    levels = {(vdev.kind, 0 if vdev.kind == "stripe" else len(vdev.devices)) for vdev in data}
    if len(levels) > 1:
        found = ", ".join(f"{vdev.kind} of {len(vdev.devices)}" for vdev in data)
        raise InvalidInput(attempt, f"its vdevs are not alike ({found})", "use one type, with as many disks in each")


def _dataset(row: Mapping[str, Any]) -> WantedDataset:
    attempt = f"set up the dataset {row['name']!r}"
    if not all(_PART.fullmatch(part) for part in row["name"].split("/")):
        raise InvalidInput(attempt, "ZFS does not allow that name", "use a-z, A-Z, 0-9 and _ . : - between slashes")
    size = None if row["size"] is None else parse_size(row["size"], "size")
    if row["sparse"] and size is None:
        raise InvalidInput(attempt, "sparse is for volumes, and it has no size", "give a size, or leave sparse out")
    properties = _properties(row["properties"], attempt)
    if "volsize" in properties:
        raise InvalidInput(attempt, "volsize is set as a property", "give it as size")
    if properties.get("keylocation", "") == "prompt":
        raise InvalidInput(attempt, "nobody is there to answer a prompt for the key", "use keylocation=file:///...")
    if size == 0:
        raise InvalidInput(attempt, "its size is 0", "give a size")
    return WantedDataset(row["name"], size, bool(row["sparse"]), properties)


def _properties(given: Mapping[str, Any], attempt: str) -> dict[str, str]:
    """Return properties as text; YAML's true and false are ZFS's on and off, except in properties of a user's own."""
    found = {}
    for name, value in given.items():
        if not _PROPERTY.fullmatch(name) or value is None or isinstance(value, (list, dict)):
            raise InvalidInput(attempt, f"{name}={value!r} is no property", "give a name in small letters, and a value")
        words = ("false", "true") if ":" in name else ("off", "on")
        found[name] = words[value] if isinstance(value, bool) else str(value)
    return found


def read(wanted: Wanted) -> Host:
    """Return what is there. Where ZFS is not installed or not in the kernel, that is no pool. Only reads."""
    disks = read_disks([device for pool in wanted.pools for device in pool.devices], wanted.files)
    if not is_ready():
        return Host(disks, hidden=_hidden(wanted))
    members = parse_members(_ask(["zpool", "list", "-v", "-H", "-P", "-L"]), sys="/sys")
    pools = sorted({pool.name for pool in wanted.pools if pool.name in members})
    pool_names = sorted({name for pool in wanted.pools for name in pool.properties})
    pool_properties = {}
    if pools and pool_names:
        argv = ["zpool", "get", "-H", "-p", "-o", "name,property,value", ",".join(pool_names), *pools]
        pool_properties = {(name, key): value for name, key, value in rows(_ask(argv), 3, argv)}
    argv = ["zfs", "list", "-H", "-o", "name,type", "-t", "filesystem,volume"]
    kinds = {row[0]: row[1] for row in rows(_ask(argv), 2, argv)}
    there = [each.name for each in wanted.datasets if each.name in kinds]
    properties = {}
    if there:
        names = {name for each in wanted.datasets for name in each.properties}
        asked = sorted(names | {"volsize", "mounted", "canmount", "mountpoint", "keystatus"})
        argv = ["zfs", "get", "-H", "-p", "-o", "name,property,value", ",".join(asked), *there]
        properties = {(name, key): value for name, key, value in rows(_ask(argv), 3, argv)}
    return Host(disks, members, pool_properties, kinds, properties, _hidden(wanted))


def is_ready() -> bool:
    """Say whether ZFS can be asked: its programs are there, and it is in the running kernel."""
    return process.find_program(PROGRAM) is not None and os.path.isdir("/sys/module/zfs")


def _ask(argv: Sequence[str]) -> str:
    return process.run(argv, timeout=TIMEOUT, attempt="read what ZFS has", remedy="see `zpool status`").stdout


def rows(output: str, length: int, argv: Sequence[str]) -> list[list[str]]:
    """Return lines of fields apart by tabs, as -H prints them; ToolError for a line of another length."""
    found = [line.split("\t") for line in output.splitlines()]
    if any(len(row) != length for row in found):
        raise ToolError(
            "read what ZFS has", f"the answer of `{' '.join(argv[:2])}` cannot be read: {output[:300]!r}",
            "report it, with the answer of `zfs version`",
        )  # fmt: skip
    return found


def parse_members(output: str, sys: str) -> dict[str, frozenset[str]]:
    """Return the disks of each pool from ``zpool list -v -H -P -L``: real paths, and that of the disk of a partition.

    ZFS makes a partition on a whole disk and shows that; what was asked for is the disk.
    """
    found: dict[str, set[str]] = {}
    pool = ""
    for line in output.splitlines():
        fields = line.split("\t")
        if len(fields) < 10:
            raise ToolError("read the disks of pools", f"this line cannot be read: {line[:300]!r}", "report it")
        if fields[0]:
            pool = fields[0]
            found[pool] = set()
        elif fields[1].startswith("/"):
            path = os.path.realpath(fields[1])
            folder = os.path.realpath(f"{sys}/class/block/{os.path.basename(path)}")
            whole = os.path.exists(f"{folder}/partition") and f"/dev/{os.path.basename(os.path.dirname(folder))}"
            found[pool] |= {path, *([whole] if whole else [])}
    return {pool: frozenset(paths) for pool, paths in found.items()}


def _hidden(wanted: Wanted) -> frozenset[str]:
    everything = mounts.read_mounts()
    places = [mountpoint_of(each, wanted) for each in wanted.datasets] + [f"/{each.name}" for each in wanted.pools]
    return frozenset(
        place
        for place in places
        if place and os.path.isdir(place) and os.listdir(place)
        and not mounts.is_mount_point(everything, os.path.realpath(place))
    )  # fmt: skip


def mountpoint_of(dataset: WantedDataset, wanted: Wanted) -> str | None:
    """Return where a new dataset would be mounted, as far as that follows from what is asked for; None for nowhere."""
    if dataset.size is not None or dataset.properties.get("canmount", "on") != "on":
        return None
    given = {each.name: each.properties["mountpoint"] for each in wanted.datasets if "mountpoint" in each.properties}
    name, rest = dataset.name, ""
    while name and name not in given:
        name, _slash, last = name.rpartition("/")
        rest = f"/{last}{rest}"
    place = given[name] + rest if name else f"/{dataset.name}"
    return place if place.startswith("/") else None


def make_plan(wanted: Wanted, host: Host) -> Plan:
    """Return what has to be done. Pure but for one thing: whether the folder of a new file is there."""
    plan = Plan()
    block_doubles(plan, [device for pool in wanted.pools for device in pool.devices], host.disks)
    plan_files(plan, wanted.files, host.disks, loops=False)
    for pool in wanted.pools:
        _plan_pool(plan, pool, wanted, host)
    planned = {pool.name for pool in wanted.pools} | {each.name for each in wanted.datasets}
    tops = {pool.name for pool in wanted.pools if pool.name not in host.members}
    for dataset in wanted.datasets:
        if dataset.name in host.kinds:
            _keep_dataset(plan, dataset, host)
        elif dataset.name not in tops:
            _create_dataset(plan, dataset, wanted, host, planned)
    return plan


def _plan_pool(plan: Plan, pool: WantedPool, wanted: Wanted, host: Host) -> None:
    if pool.name not in host.members:
        _create_pool(plan, pool, wanted, host)
        return
    absent = [path for path in pool.devices if host.disks[path].real not in host.members[pool.name]]
    if absent:
        plan.block(
            pool.name,
            f"the pool is there, without {', '.join(absent)}",
            "disks are not added here, for that changes a pool for ever: see zpool-add(8) and zpool-replace(8)",
        )
    for name, value in pool.properties.items():
        present = host.pool_properties.get((pool.name, name), "-")
        if is_value(value, present):
            continue
        if name in POOL_AT_CREATION:
            plan.block(
                pool.name, f"{name} is {present}, not {value}", "it counts only when a pool is made: correct it here"
            )
            continue
        plan.run(pool.name, "set pool property", ["zpool", "set", f"{name}={value}", pool.name],
                 f"{name}={value}", f"{name}={present}")  # fmt: skip


def _create_pool(plan: Plan, pool: WantedPool, wanted: Wanted, host: Host) -> None:
    disks = [host.disks[path] for path in pool.devices]
    for disk in disks:
        if disk.kind != "new file":
            claim(plan, disk, f"the pool {pool.name}", disk.path in pool.force)
    top = next((each for each in wanted.datasets if each.name == pool.name), WantedDataset(pool.name, None, False, {}))
    _check_place(plan, top, wanted, host)
    argv = ["zpool", "create"]
    argv += [word for name, value in pool.properties.items() for word in ("-o", f"{name}={value}")]
    argv += [word for name, value in top.properties.items() for word in ("-O", f"{name}={value}")]
    argv.append(pool.name)
    for vdev in pool.vdevs:
        argv += [*([] if vdev.kind == "stripe" else [vdev.kind]), *vdev.devices]
    shown = "; ".join(f"{vdev.kind} of {', '.join(vdev.devices)}" for vdev in pool.vdevs)
    plan.run(pool.name, "create pool", argv, f"pool: {shown}")


def _create_dataset(plan: Plan, dataset: WantedDataset, wanted: Wanted, host: Host, planned: set[str]) -> None:
    parent = dataset.name.rpartition("/")[0]
    if parent not in host.kinds and parent not in planned:
        what = f"there is no dataset {parent}" if parent else "there is no such pool"
        plan.block(dataset.name, what, "list it too" if parent else "list it under pools")
    _check_place(plan, dataset, wanted, host)
    argv = ["zfs", "create"]
    argv += [word for name, value in dataset.properties.items() for word in ("-o", f"{name}={value}")]
    if dataset.size is not None:
        argv += [*(["-s"] if dataset.sparse else []), "-V", str(dataset.size)]
    what = "filesystem" if dataset.size is None else f"volume of {format_size(dataset.size)}"
    shown = ", ".join(f"{name}={value}" for name, value in dataset.properties.items())
    plan.run(dataset.name, "create dataset", [*argv, dataset.name], f"{what}{' with ' if shown else ''}{shown}")


def _check_place(plan: Plan, dataset: WantedDataset, wanted: Wanted, host: Host) -> None:
    place = mountpoint_of(dataset, wanted)
    if place in host.hidden:
        reason = f"it would be mounted at {place}, which holds something that would be hidden"
        plan.block(dataset.name, reason, "move that away, mount, and copy it back, or set another mountpoint")


def _keep_dataset(plan: Plan, dataset: WantedDataset, host: Host) -> None:
    kind = "filesystem" if dataset.size is None else "volume"
    if host.kinds[dataset.name] != kind:
        plan.block(dataset.name, f"it is a {host.kinds[dataset.name]}, not a {kind}", "choose another name")
        return

    def present(name: str) -> str:
        return host.properties.get((dataset.name, name), "-")

    if dataset.size is not None:
        _resize(plan, dataset, present("volsize"))
    changes = {name: value for name, value in dataset.properties.items() if not is_value(value, present(name))}
    for name in [each for each in changes if each in AT_CREATION]:
        reason = f"{name} is {present(name)}, not {changes.pop(name)}"
        plan.block(dataset.name, reason, "it can be set only when a dataset is made: correct it here, or make another")
    for name, value in changes.items():
        argv = ["zfs", "set", f"{name}={value}", dataset.name]
        plan.run(dataset.name, "set property", argv, f"{name}={value}", f"{name}={present(name)}")
    # A changed mountpoint or canmount mounts by itself.
    if not {"mountpoint", "canmount"} & set(changes) and _should_be_mounted(present):
        place = present("mountpoint")
        if place in host.hidden:
            reason = f"it is to be mounted at {place}, which holds something that would be hidden"
            plan.block(dataset.name, reason, "move that away, mount, and copy it back")
        plan.run(dataset.name, "mount", ["zfs", "mount", dataset.name], f"mounted at {place}", "not mounted")


def _should_be_mounted(present: Callable[[str], str]) -> bool:
    return (
        present("mounted") == "no"
        and present("canmount") == "on"
        and present("mountpoint").startswith("/")
        and present("keystatus") != "unavailable"
    )


def _resize(plan: Plan, dataset: WantedDataset, present: str) -> None:
    size = int(present)
    wanted = int(dataset.size or 0)
    if wanted < size:
        reason = f"it has {format_size(size)}, more than the {format_size(wanted)} asked for"
        plan.block(dataset.name, reason, "volumes are never shrunk here: correct the size")
    elif wanted > size:
        argv = ["zfs", "set", f"volsize={wanted}", dataset.name]
        plan.run(dataset.name, "extend volume", argv, format_size(wanted), format_size(size))


def is_value(wanted: str, present: str) -> bool:
    """Say whether a property has a value. Where ZFS shows a plain number (-p), a size with its unit means the same."""
    if wanted == present:
        return True
    if not present.isdigit():
        return False
    if wanted == "none":
        return present == "0"
    try:
        return parse_size(wanted, "a property") == int(present)
    except InvalidInput:
        return False
