# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the test server answers about tasks (API2/Tasks.pm): lists with their filters, status, log, and an end by force.

Handlers get the cluster and a checked call, and return data. Called by api.py. Standard library only.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

from .calls import Call, Need, Param, RawJson, Router, check, wrong
from .cluster import Cluster
from .tasks import Task

_BOOLEAN, _STRING, _NUMBER = Param("boolean"), Param(), Param("integer", minimum=0)
_TASK_LIMIT = 50
#: How /cluster/tasks is cut for each node.
_RECENT = 25


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
    found: list[tuple[Task, str | None]] = []
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


def add(found: Router) -> None:
    """Add these methods."""
    numbers = {each: _NUMBER for each in ("start", "limit")}
    words = {each: _STRING for each in ("statusfilter", "typefilter", "userfilter")}
    when = {each: Param("integer") for each in ("since", "until")}
    source = Param(values=("archive", "active", "all"))
    options = {**numbers, **words, **when, "source": source, "errors": _BOOLEAN, "vmid": Param("vmid")}
    found.add("GET", "/cluster/tasks", cluster_tasks)
    found.add("GET", "/nodes/{node}/tasks", node_tasks, **options)
    found.add("GET", "/nodes/{node}/tasks/{upid}", task_index)
    found.add("DELETE", "/nodes/{node}/tasks/{upid}", task_stop)
    found.add("GET", "/nodes/{node}/tasks/{upid}/status", task_status)
    found.add("GET", "/nodes/{node}/tasks/{upid}/log", task_log, download=_BOOLEAN, **numbers)
