# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the test server answers about the whole cluster: logins, permissions, resources, nodes, storages, pools, HA.

Handlers get the cluster and a checked call, and return data. Called by api.py. Standard library only.
"""

from __future__ import annotations

import random
from typing import Any

from .access import ROOT
from .calls import ApiError, Call, Need, Param, Router, audited, check, permission_paths
from .cluster import Cluster
from .guests import QEMU, Guest
from .storage import GIB, MIB

_BOOLEAN, _STRING = Param("boolean"), Param()


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


def resources(cluster: Cluster, call: Call) -> Any:
    """GET /cluster/resources."""
    kind = call.get("type")
    found: list[dict[str, Any]] = []
    if kind in (None, "vm"):
        found.extend(_resource(cluster, each) for each in audited(cluster, call.user))
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
    inside = [each for each in audited(cluster, call.user) if each.pool == call["poolid"]]
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
    for guest in audited(cluster, call.user):
        for number, job in enumerate(guest.jobs):
            place = {"id": job.id, "guest": guest.vmid, "jobnum": number, "target": job.target, "source": guest.node}
            found.append({**place, "type": "local"})
    return found


def nextid(cluster: Cluster, _call: Call) -> Any:
    """GET /cluster/nextid."""
    return str(next(number for number in range(100, 10**9) if number not in cluster.guests))


def add(found: Router) -> None:
    """Add these methods."""
    found.add("GET", "/version", version)
    words = {each: _STRING for each in ("password", "realm", "otp", "tfa__challenge", "path", "privs")}
    found.add("POST", "/access/ticket", ticket, username=Param(optional=False), new__format=_BOOLEAN, **words)
    found.add("GET", "/access/ticket", lambda _cluster, _call: None)
    found.add("GET", "/access/permissions", permissions, path=_STRING, userid=_STRING)
    found.add("GET", "/cluster/resources", resources, type=Param(values=("vm", "storage", "node", "sdn")))
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
