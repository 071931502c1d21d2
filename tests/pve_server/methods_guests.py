# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the test server answers about guests and their snapshots (API2/Qemu.pm, API2/LXC/Snapshot.pm).

Handlers get the cluster and a checked call, and return data. What they start is in operations.py. Called by api.py.
Standard library only.
"""

from __future__ import annotations

import random
import re
from typing import Any

from . import operations
from .access import ROOT
from .calls import ApiError, Call, Need, Param, Router, audited, check, wrong
from .cluster import Cluster
from .guests import LXC, QEMU, Guest
from .operations import task_type
from .storage import GIB, MIB

_CONFIG_OPTIONS = ("name", "hostname", "memory", "cores", "tags", "agent", "onboot", "vmstatestorage", "template")
_BOOLEAN, _STRING, _NUMBER = Param("boolean"), Param(), Param("integer", minimum=0)


def _kind(call: Call) -> str:
    return call.path.strip("/").split("/")[2]


def _guest(cluster: Cluster, call: Call) -> Guest:
    return cluster.load(call["node"], _kind(call), call["vmid"])


def _snapshot(guest: Guest, name: str) -> dict[str, Any]:
    if name not in guest.snapshots:
        raise ApiError(500, f"snapshot '{name}' does not exist")
    return guest.snapshots[name]


def node_guests(cluster: Cluster, call: Call) -> Any:
    """GET /nodes/{node}/qemu and /nodes/{node}/lxc."""
    kind = _kind(call)
    here = [each for each in audited(cluster, call.user) if each.node == call["node"] and each.type == kind]
    return [_status(cluster, each, short=True) for each in here]


def _status(cluster: Cluster, guest: Guest, short: bool = False) -> dict[str, Any]:
    """Return a guest's status, which is live."""
    running = guest.running
    found: dict[str, Any] = {
        "vmid": guest.vmid,
        "name": guest.name,
        "status": "running" if running else "stopped",
        "template": int(guest.template),
        "uptime": int(cluster.tasks.now - guest.started) if running else 0,
        "cpus": int(guest.config.get("cores", 1)),
        "maxcpu": int(guest.config.get("cores", 1)),
        "cpu": 0,
        "mem": 0,
        "maxmem": guest.memory * MIB,
        "disk": 0,
        "maxdisk": 8 * GIB,
    }
    found.update({key: guest.config[key] for key in ("tags", "lock") if guest.config.get(key)})
    if guest.type == LXC:
        found["type"] = "lxc"
    if not short:
        found["ha"] = {"managed": 1, "state": guest.hastate} if guest.hastate else {"managed": 0}
    if guest.type == QEMU and not short:
        found["qmpstatus"] = found["status"]
        if guest.agent:
            found["agent"] = 1
    return found


def current(cluster: Cluster, call: Call) -> Any:
    """GET .../status/current."""
    return _status(cluster, _guest(cluster, call))


def index(_cluster: Cluster, _call: Call) -> Any:
    """GET /nodes/{node}/qemu/{vmid}."""
    return [{"subdir": each} for each in ("config", "status", "feature", "snapshot")]


def config(cluster: Cluster, call: Call) -> Any:
    """GET .../config: the configuration with its digest, or a snapshot's section."""
    guest = _guest(cluster, call)
    if "snapshot" in call.params:
        section = {key: value for key, value in _snapshot(guest, call["snapshot"]).items() if key != "snapstate"}
        return {**section, "digest": guest.digest()}
    return {**guest.config, "digest": guest.digest()}


def set_config(cluster: Cluster, call: Call) -> Any:
    """PUT .../config: a few options, and the way out of a lock, which only root@pam with a ticket has."""
    if "skiplock" in call.params and call["skiplock"] and call.user != ROOT:
        raise wrong(skiplock="Only root may use this option.")
    guest = _guest(cluster, call)
    if not call.get("skiplock"):
        operations.check_lock(guest)
    for key in filter(None, re.split(r"[,; ]+", call.get("delete", ""))):
        guest.config.pop(key, None)
    for key in (*_CONFIG_OPTIONS, "description"):
        if key in call.params:
            guest.config[key] = call[key]
    guest.name = guest.config.get("hostname" if guest.type == LXC else "name", guest.name)
    return None


def snapshots(cluster: Cluster, call: Call) -> Any:
    """GET .../snapshot: in random order, 'current' last."""
    guest = _guest(cluster, call)
    found = []
    for name, section in guest.snapshots.items():
        item: dict[str, Any] = {"name": name, "snaptime": section["snaptime"]}
        item["description"] = section.get("description", "")
        if guest.type == QEMU:
            item["vmstate"] = 1 if section.get("vmstate") else 0
        item.update({key: section[key] for key in ("parent", "snapstate") if section.get(key)})
        found.append(item)
    random.shuffle(found)
    now = {"name": "current", "description": "You are here!", "running": int(guest.running), "digest": guest.digest()}
    return [*found, {**now, "parent": guest.config["parent"]} if guest.config.get("parent") else now]


def _start(cluster: Cluster, call: Call, what: str, worker: Any) -> str:
    task = cluster.tasks.start(call["node"], task_type(_kind(call), what), call["vmid"], call.user, worker, call.faults)
    call.task = task
    return task.upid


def create(cluster: Cluster, call: Call) -> Any:
    """POST .../snapshot: reserved names, and for VMs the node and RAM, are refused at once, all else by the task."""
    name, kind = call["snapname"], _kind(call)
    reserved = name == "current" or name.lower() == "pending" if kind == QEMU else name in ("current", "vzdump")
    if reserved:
        word = "pending" if kind == QEMU and name != "current" else name
        raise ApiError(500, f"unable to use snapshot name '{word}' (reserved name)")
    ram = bool(call.get("vmstate"))
    if kind == QEMU:
        guest = _guest(cluster, call)
        if ram:
            operations.refuse_ram(guest)
    text = call.get("description", "")
    return _start(
        cluster, call, "snapshot", operations.create(cluster, call["node"], kind, call["vmid"], name, ram, text)
    )


def delete(cluster: Cluster, call: Call) -> Any:
    """DELETE .../snapshot/{snapname}."""
    force = bool(call.get("force"))
    worker = operations.delete(cluster, call["node"], _kind(call), call["vmid"], call["snapname"], force)
    return _start(cluster, call, "delsnapshot", worker)


def rollback(cluster: Cluster, call: Call) -> Any:
    """POST .../snapshot/{snapname}/rollback; for VMs, ``start`` needs VM.PowerMgmt as well."""
    start = bool(call.get("start"))
    if start and _kind(call) == QEMU:
        check(cluster, call.user, Need("/vms/{vmid}", ["VM.PowerMgmt"]), call.params)
    place = call["node"], _kind(call), call["vmid"], call["snapname"]
    worker = operations.rollback(cluster, *place, start, call.user, call.foreground)
    return _start(cluster, call, "rollback", worker)


def snapshot_index(_cluster: Cluster, _call: Call) -> Any:
    """GET .../snapshot/{snapname}, which never asks whether that is there."""
    return [{"cmd": "rollback"}, {"cmd": "config"}]


def snapshot_config(cluster: Cluster, call: Call) -> Any:
    """GET .../snapshot/{snapname}/config."""
    return dict(_snapshot(_guest(cluster, call), call["snapname"]))


def set_snapshot_config(cluster: Cluster, call: Call) -> Any:
    """PUT .../snapshot/{snapname}/config: the description alone."""
    guest = _guest(cluster, call)
    operations.check_lock(guest)
    section = _snapshot(guest, call["snapname"])
    if "description" in call.params:
        text = call["description"]
        section["description"] = f"{text}\n" if guest.type == LXC and text else text
        if not text:
            del section["description"]
    return None


def feature(cluster: Cluster, call: Call) -> Any:
    """GET .../feature."""
    guest, wanted = _guest(cluster, call), call["feature"]
    if "snapname" in call.params:
        _snapshot(guest, call["snapname"])
    has = guest.has_snapshot_feature(call.get("snapname")) if wanted == "snapshot" else wanted == "copy"
    if guest.type == LXC:
        return {"hasFeature": int(has)}
    used = [volume.storage for _key, volume in guest.drives(guest.config)]
    shared = bool(used) and all(each.shared for each in used)
    there = [name for name in cluster.nodes if all(not each.nodes or name in each.nodes for each in used)]
    return {"hasFeature": int(has), "nodes": there if shared else []}


def start(cluster: Cluster, call: Call) -> Any:
    """POST .../status/start: through HA where that manages the guest."""
    guest = _guest(cluster, call)
    if guest.hastate:
        call.task = operations.spawn_start(cluster, guest, call.user)
        return call.task.upid
    return _start(cluster, call, "start", operations.power(cluster, guest, True))


def stop(cluster: Cluster, call: Call) -> Any:
    """POST .../status/stop and .../status/shutdown."""
    guest = _guest(cluster, call)
    if guest.hastate:
        guest.hastate = "stopped"
    what = "shutdown" if call.path.endswith("shutdown") else "stop"
    return _start(cluster, call, what, operations.power(cluster, guest, False))


def add(found: Router, kind: str) -> None:
    """Add these methods for VMs or for containers."""
    base = f"/nodes/{{node}}/{kind}"
    one, snap = base + "/{vmid}", base + "/{vmid}/snapshot/{snapname}"
    audit, change, run = (Need("/vms/{vmid}", [each]) for each in ("VM.Audit", "VM.Snapshot", "VM.PowerMgmt"))
    back = Need("/vms/{vmid}", ["VM.Snapshot", "VM.Snapshot.Rollback"], any=True)
    read = Need("/vms/{vmid}", ["VM.Snapshot", "VM.Snapshot.Rollback", "VM.Audit"], any=True)
    name = Param("configid", optional=False)
    found.add("GET", base, node_guests, **({"full": _BOOLEAN} if kind == QEMU else {}))
    found.add("GET", one, index)
    found.add("GET", f"{one}/config", config, audit, current=_BOOLEAN, snapshot=Param("configid"))
    options = {each: _STRING for each in (*_CONFIG_OPTIONS, "description", "delete")}
    skip = {"skiplock": _BOOLEAN} if kind == QEMU else {}
    found.add("PUT", f"{one}/config", set_config, Need("/vms/{vmid}", ["VM.Config.Options"]), **options, **skip)
    found.add("GET", f"{one}/status/current", current, audit)
    found.add("POST", f"{one}/status/start", start, run, skiplock=_BOOLEAN, timeout=_NUMBER)
    for each in ("stop", "shutdown"):
        found.add("POST", f"{one}/status/{each}", stop, run, skiplock=_BOOLEAN, timeout=_NUMBER, forceStop=_BOOLEAN)
    features = Param(optional=False, values=("snapshot", "clone", "copy"))
    found.add("GET", f"{one}/feature", feature, audit, feature=features, snapname=Param("configid"))
    found.add("GET", f"{one}/snapshot", snapshots, audit)
    ram = {"vmstate": _BOOLEAN} if kind == QEMU else {}
    found.add("POST", f"{one}/snapshot", create, change, snapname=name, description=_STRING, **ram)
    found.add("GET", snap, snapshot_index)
    found.add("DELETE", snap, delete, change, force=_BOOLEAN)
    found.add("GET", f"{snap}/config", snapshot_config, read)
    found.add("PUT", f"{snap}/config", set_snapshot_config, change, description=_STRING)
    found.add("POST", f"{snap}/rollback", rollback, back, start=_BOOLEAN)
