# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The methods of the API that the test server has, as Proxmox answers them (API2/Qemu.pm, LXC/Snapshot.pm, Tasks.pm).

Handlers get the cluster and a checked call, and return data. What they start is in operations.py. Standard library
only.
"""

from __future__ import annotations

import itertools
import random
import re
from typing import Any

from . import operations
from .access import ROOT
from .calls import ApiError, Call, Need, Param, RawJson, Router, check, permission_paths, wrong
from .cluster import Cluster
from .guests import LXC, QEMU, Guest
from .operations import task_type
from .storage import GIB
from .tasks import Task

MIB = 1 << 20
_TASK_LIMIT = 50
_CONFIG_OPTIONS = ("name", "hostname", "memory", "cores", "tags", "agent", "onboot", "vmstatestorage", "template")
_BOOLEAN, _STRING, _NUMBER = Param("boolean"), Param(), Param("integer", minimum=0)
#: How /cluster/tasks is cut for each node.
_RECENT = 25


def version(cluster: Cluster, _call: Call) -> Any:
    """GET /version."""
    found = cluster.settings.version
    return {"version": found, "release": found.rpartition(".")[0], "repoid": "0f1e2d3c4b5a6978"}


def ticket(cluster: Cluster, call: Call) -> Any:
    """POST /access/ticket."""
    user = call["username"] if "@" in call["username"] else f"{call['username']}@{call.get('realm', 'pam')}"
    found = cluster.access.login(user, call.get("password", ""))
    if not found:
        raise ApiError(401, "authentication failure")
    return found


def permissions(cluster: Cluster, call: Call) -> Any:
    """GET /access/permissions."""
    user = call.get("userid", call.user)
    if user not in (call.user, *(name for name in cluster.access.accounts if name.startswith(f"{call.user}!"))):
        check(cluster, call.user, Need("/access", ["Sys.Audit"]), {})
    accounts = cluster.access.accounts
    known = {"Sys.Audit", "Sys.Modify", "Pool.Audit", "Datastore.Audit", "VM.Audit", "VM.Snapshot", "VM.PowerMgmt"}
    known |= {"VM.Snapshot.Rollback", "VM.Config.Options", "VM.Console"}
    paths = {"/", "/access", "/access/groups", "/nodes", "/pool", "/storage", "/vms"}
    for account in accounts.values():
        paths.update(account.grants)
        known.update(*account.grants.values())
    paths.update(f"/vms/{guest.vmid}" for guest in cluster.guests.values() if guest.pool)
    found = {}
    for path in [call["path"]] if "path" in call.params else sorted(paths):
        on = permission_paths(cluster, path)
        having = {each: 1 for each in sorted(known) if cluster.access.may(user, on, each)}
        if having or "path" in call.params:
            found[path] = having
    return found


def _audited(cluster: Cluster, user: str) -> list[Guest]:
    """Return the guests that a user may see."""
    guests = cluster.guests.values()
    if user == ROOT:
        return list(guests)
    may = cluster.access.may
    return [each for each in guests if may(user, permission_paths(cluster, f"/vms/{each.vmid}"), "VM.Audit")]


def resources(cluster: Cluster, call: Call) -> Any:
    """GET /cluster/resources."""
    kind = call.get("type")
    found: list[dict[str, Any]] = []
    if kind in (None, "vm"):
        found.extend(_resource(cluster, each) for each in _audited(cluster, call.user))
    if kind in (None, "node"):
        for node in _nodes(cluster):
            found.append({**node, "id": f"node/{node['node']}", "type": "node"})
    if kind in (None, "storage"):
        for name in cluster.nodes:
            for each in _storages(cluster, name, call.user):
                found.append({"id": f"storage/{name}/{each['storage']}", "node": name, **each, "type": "storage"})
    random.shuffle(found)
    return found


def _resource(cluster: Cluster, guest: Guest) -> dict[str, Any]:
    """Return a guest's line in /cluster/resources: its status is pvestatd's, its lock and tags are of now."""
    found = {
        "id": f"{guest.type}/{guest.vmid}",
        "type": guest.type,
        "vmid": guest.vmid,
        "node": guest.node,
        **cluster.refresh(guest),
        "cpu": 0.01,
        "maxcpu": int(guest.config.get("cores", 1)),
        "mem": guest.memory * MIB // 2 if guest.running else 0,
        "maxmem": guest.memory * MIB,
        "disk": 0,
        "maxdisk": 8 * GIB,
        "diskread": 0,
        "diskwrite": 0,
        "netin": 0,
        "netout": 0,
    }
    shown = {"pool": guest.pool, "hastate": guest.hastate, "tags": guest.config.get("tags"), "lock": guest.lock}
    found.update({key: value for key, value in shown.items() if value})
    return found


def _nodes(cluster: Cluster) -> list[dict[str, Any]]:
    size = {"cpu": 0.02, "maxcpu": 8, "mem": 4 * GIB, "maxmem": 64 * GIB, "disk": 4 * GIB, "maxdisk": 64 * GIB}
    return [
        {"node": node.name, "status": "online", "uptime": 2540, "level": "", **size}
        if node.online
        else {"node": node.name, "status": "offline"}
        for node in cluster.nodes.values()
    ]


def nodes(cluster: Cluster, _call: Call) -> Any:
    """GET /nodes."""
    return [{**node, "id": f"node/{node['node']}", "type": "node"} for node in _nodes(cluster)]


def _storages(cluster: Cluster, node: str, user: str) -> list[dict[str, Any]]:
    found = []
    for each in cluster.storages.values():
        may = cluster.access.may(user, [f"/storage/{each.name}"], "Datastore.Audit")
        if may and (not each.nodes or node in each.nodes):
            used = each.total - each.avail
            kind = {"plugintype": each.kind.type, "type": each.kind.type, "content": "images,rootdir"}
            size = {"avail": each.avail, "used": used, "total": each.total, "disk": used, "maxdisk": each.total}
            state = {"status": "available", "active": 1, "enabled": 1, "shared": int(each.shared)}
            found.append({"storage": each.name, **kind, **size, **state})
    return found


def node_storages(cluster: Cluster, call: Call) -> Any:
    """GET /nodes/{node}/storage."""
    return [
        each for each in _storages(cluster, call["node"], call.user) if call.get("storage") in (None, each["storage"])
    ]


def storage_status(cluster: Cluster, call: Call) -> Any:
    """GET /nodes/{node}/storage/{storage}/status."""
    for each in _storages(cluster, call["node"], ROOT):
        if each["storage"] == call["storage"]:
            return each
    raise ApiError(500, f"storage '{call['storage']}' does not exist")


def pools(cluster: Cluster, call: Call) -> Any:
    """GET /pools, and with ``poolid`` that one with its members."""
    if "poolid" in call.params:
        check(cluster, call.user, Need("/pool/{poolid}", ["Pool.Audit"]), call.params)
        return [{"poolid": call["poolid"], **_pool(cluster, call)}]
    may = cluster.access.may
    seen = [each for each in cluster.pools.items() if may(call.user, [f"/pool/{each[0]}"], "Pool.Audit")]
    return [{"poolid": name, **({"comment": comment} if comment else {})} for name, comment in seen]


def _pool(cluster: Cluster, call: Call) -> dict[str, Any]:
    if call["poolid"] not in cluster.pools:
        raise ApiError(500, f"pool '{call['poolid']}' does not exist")
    comment = cluster.pools[call["poolid"]]
    inside = [each for each in _audited(cluster, call.user) if each.pool == call["poolid"]]
    members = [_resource(cluster, each) for each in inside if call.get("type", each.type) == each.type]
    return {"members": members, **({"comment": comment} if comment else {})}


def pool(cluster: Cluster, call: Call) -> Any:
    """GET /pools/{poolid}."""
    return _pool(cluster, call)


def ha_resources(cluster: Cluster, _call: Call) -> Any:
    """GET /cluster/ha/resources."""
    managed = [each for each in cluster.guests.values() if each.hastate]
    return [
        {"sid": f"{'vm' if each.type == QEMU else 'ct'}:{each.vmid}", "state": each.hastate, "digest": each.digest()}
        for each in managed
    ]


def replication(cluster: Cluster, call: Call) -> Any:
    """GET /cluster/replication."""
    found = []
    for guest in _audited(cluster, call.user):
        for number, job in enumerate(guest.jobs):
            place = {"id": job.id, "guest": guest.vmid, "jobnum": number, "target": job.target, "source": guest.node}
            found.append({**place, "type": "local"})
    return found


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
    here = [each for each in _audited(cluster, call.user) if each.node == call["node"] and each.type == kind]
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
    worker = operations.rollback(cluster, call["node"], _kind(call), call["vmid"], call["snapname"], start, call.user)
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


def _own(task: Task, user: str) -> bool:
    """Return whether a task is a user's own; a token sees its own alone, its user those of the tokens too."""
    return user == (f"{task.user}!{task.tokenid}" if task.tokenid else task.user) or user == task.user


def _auditor(cluster: Cluster, user: str, node: str) -> bool:
    return cluster.access.may(user, [f"/nodes/{node}"], "Sys.Audit")


_STATUS = {"OK": "ok", "unexpected status": "unknown"}


def _status_class(status: str | None) -> str:
    if not status:
        return "unknown"
    return "warning" if status.startswith("WARNINGS: ") else _STATUS.get(status, "error")


def _listed(call: Call, task: Task, status: str | None, mine_only: bool) -> bool:
    """Return whether a task is one that a list was asked for."""
    asked = call.params
    if mine_only and not _own(task, call.user):
        return False
    if not asked.get("since", 0) <= task.starttime <= asked.get("until", task.starttime):
        return False
    if task.id != str(asked.get("vmid", task.id)) or task.type != asked.get("typefilter", task.type):
        return False
    if asked.get("userfilter", "").lower() not in task.user.lower():
        return False
    if asked.get("errors"):
        return _status_class(status) != "ok"
    wanted = asked.get("statusfilter")
    return not wanted or _status_class(status) in re.split(r"[,; ]+", wanted.lower())


def node_tasks(cluster: Cluster, call: Call) -> Any:
    """GET /nodes/{node}/tasks: 50 archived ones, unless told otherwise."""
    mine_only = not _auditor(cluster, call.user, call["node"])
    limit, first = call.get("limit", _TASK_LIMIT), call.get("start", 0)
    listed = cluster.tasks.listed(call["node"], call.get("source", "archive"))
    fitting = (each for each in listed if _listed(call, *each, mine_only))
    return _entries(list(itertools.islice(fitting, first, first + limit)))


def _entries(tasks: list[tuple[Task, str | None]]) -> RawJson:
    shown = (task.running_fragment() if status is None else task.fragment() for task, status in tasks)
    return RawJson(f"[{','.join(shown)}]")


def cluster_tasks(cluster: Cluster, call: Call) -> Any:
    """GET /cluster/tasks: cut to about 25 of each node."""
    found = []
    for node in cluster.nodes:
        mine_only = not _auditor(cluster, call.user, node)
        recent = cluster.tasks.listed(node, "all")[:_RECENT]
        found.extend(each for each in recent if not mine_only or _own(each[0], call.user))
    return _entries(found)


def _task(cluster: Cluster, call: Call, privilege: str = "Sys.Audit") -> Task:
    if cluster.tasks.parse(call["upid"]) is None:
        raise wrong(upid="unable to parse worker upid")
    task = cluster.tasks.by_upid.get(call["upid"])
    if task is None or task.node != call["node"]:
        raise wrong(upid="no such task")
    if not _own(task, call.user):
        check(cluster, call.user, Need("/nodes/{node}", [privilege]), call.params)
    return task


def task_status(cluster: Cluster, call: Call) -> Any:
    """GET /nodes/{node}/tasks/{upid}/status."""
    task = _task(cluster, call)
    shown = task.entry()
    if task.status is None:
        return {**shown, "status": "running"}
    return {**shown, "status": "stopped", "exitstatus": task.status}


def task_log(cluster: Cluster, call: Call) -> Any:
    """GET /nodes/{node}/tasks/{upid}/log: 50 lines, unless told otherwise."""
    task = _task(cluster, call)
    first = call.get("start", 0)
    lines = [{"n": number, "t": line} for number, line in enumerate(task.log, start=1)]
    return lines[first : first + call.get("limit", 50)] or [{"n": 1, "t": "no content"}]


def task_stop(cluster: Cluster, call: Call) -> Any:
    """DELETE /nodes/{node}/tasks/{upid}."""
    cluster.tasks.stop(_task(cluster, call, "Sys.Modify"))
    return None


def task_index(_cluster: Cluster, _call: Call) -> Any:
    """GET /nodes/{node}/tasks/{upid}."""
    return [{"name": "log"}, {"name": "status"}]


def nextid(cluster: Cluster, _call: Call) -> Any:
    """GET /cluster/nextid."""
    return str(next(number for number in range(100, 10**9) if number not in cluster.guests))


def router() -> Router:
    """Return the methods of the API."""
    found = Router()
    _add_cluster(found)
    _add_tasks(found)
    for kind in (QEMU, LXC):
        _add_guests(found, kind)
    return found


def _add_cluster(found: Router) -> None:
    found.add("GET", "/version", version)
    words = {each: _STRING for each in ("password", "realm", "otp", "tfa__challenge", "path", "privs")}
    found.add("POST", "/access/ticket", ticket, username=Param(optional=False), new__format=_BOOLEAN, **words)
    found.add("GET", "/access/ticket", lambda _cluster, _call: None)
    found.add("GET", "/access/permissions", permissions, path=_STRING, userid=_STRING)
    found.add("GET", "/cluster/resources", resources, type=Param(values=("vm", "storage", "node", "sdn")))
    found.add("GET", "/cluster/tasks", cluster_tasks)
    found.add("GET", "/cluster/nextid", nextid, vmid=Param("vmid"))
    found.add("GET", "/cluster/replication", replication)
    found.add("GET", "/cluster/ha/resources", ha_resources, Need("/", ["Sys.Audit"]), type=Param(values=("ct", "vm")))
    kinds = Param(values=("qemu", "lxc", "storage"))
    found.add("GET", "/pools", pools, poolid=_STRING, type=kinds)
    found.add("GET", "/pools/{poolid}", pool, Need("/pool/{poolid}", ["Pool.Audit"]), type=kinds)
    found.add("GET", "/nodes", nodes)
    options = {each: _STRING for each in ("content", "storage", "target")}
    found.add("GET", "/nodes/{node}/storage", node_storages, enabled=_BOOLEAN, format=_BOOLEAN, **options)
    need = Need("/storage/{storage}", ["Datastore.Audit", "Datastore.AllocateSpace"], any=True)
    found.add("GET", "/nodes/{node}/storage/{storage}/status", storage_status, need)


def _add_tasks(found: Router) -> None:
    numbers = {each: _NUMBER for each in ("start", "limit")}
    words = {each: _STRING for each in ("statusfilter", "typefilter", "userfilter")}
    when = {each: Param("integer") for each in ("since", "until")}
    source = Param(values=("archive", "active", "all"))
    options = {**numbers, **words, **when, "source": source, "errors": _BOOLEAN, "vmid": Param("vmid")}
    found.add("GET", "/nodes/{node}/tasks", node_tasks, **options)
    found.add("GET", "/nodes/{node}/tasks/{upid}", task_index)
    found.add("DELETE", "/nodes/{node}/tasks/{upid}", task_stop)
    found.add("GET", "/nodes/{node}/tasks/{upid}/status", task_status)
    found.add("GET", "/nodes/{node}/tasks/{upid}/log", task_log, download=_BOOLEAN, **numbers)


def _add_guests(found: Router, kind: str) -> None:
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
