# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the test server dispatches a call and checks its parameters, with the exact words of Proxmox's refusals.

The order is Proxmox's: the method exists (501), permission (403), the node is there (500, 595), the schema (400, with
every fault of it at once), and then the handler. Handlers lie in api.py. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .access import ROOT
from .cluster import Cluster
from .guests import Guest
from .tasks import StepFault, Task, TaskDied

_CONFIG_ID = re.compile(r"[a-z][a-z0-9_-]+", re.IGNORECASE)
_TRUE, _FALSE = re.compile(r"1|on|yes|true", re.IGNORECASE), re.compile(r"0|off|no|false", re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?\d+")
_NOT_DEFINED = "property is not defined in schema and the schema does not allow additional properties"
#: Answered in place of a node that is down (AnyEvent's own status codes, which pveproxy passes on).
UNREACHABLE = 595


class ApiError(Exception):
    """A refusal: the HTTP status, the words of the status line, and the faults of single parameters."""

    def __init__(self, status: int, message: str, errors: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.errors = status, message, dict(errors or {})


def wrong(**errors: str) -> ApiError:
    """Return the refusal of parameters."""
    return ApiError(400, "Parameter verification failed.", errors)


class RawJson(str):
    """Data that is JSON text already."""


@dataclass
class Call:
    """One call of the API. ``faults`` are for the task that it starts, which is then found in ``task``.

    ``foreground`` is pvesh's environment, in which a worker waits for those that it starts itself.
    """

    method: str
    path: str
    params: dict[str, Any]
    user: str
    faults: list[StepFault] = field(default_factory=list)
    foreground: bool = False
    task: Task | None = None

    def __getitem__(self, name: str) -> Any:
        return self.params[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a parameter, or the default."""
        return self.params.get(name, default)


class Need(NamedTuple):
    """A permission: all privileges, or any of them, on a path with the call's own parameters in it."""

    path: str
    privileges: Sequence[str]
    any: bool = False


class Param(NamedTuple):
    """What a parameter may be: string, boolean, integer, vmid, configid, or one of ``values``."""

    type: str = "string"
    optional: bool = True
    values: Sequence[str] = ()
    minimum: int | None = None


Handler = Callable[[Cluster, Call], Any]


class Route(NamedTuple):
    """A method of the API."""

    method: str
    segments: Sequence[str]
    handler: Handler
    need: Need | None
    params: Mapping[str, Param]


_PATH_PARAMS = {
    "node": Param(optional=False),
    "vmid": Param("vmid", optional=False),
    "snapname": Param("configid", optional=False),
    "upid": Param(optional=False),
    "poolid": Param(optional=False),
    "storage": Param(optional=False),
}


class Router:
    """The methods of the API, found by their paths."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, int], list[Route]] = {}

    def add(self, method: str, path: str, handler: Handler, need: Need | None = None, /, **params: Param) -> None:
        """Add a method; ``{name}`` in the path is a parameter too, and ``a__b`` stands for ``a-b``."""
        segments = path.strip("/").split("/")
        own = {each[1:-1]: _PATH_PARAMS[each[1:-1]] for each in segments if each.startswith("{")}
        named = {name.replace("__", "-"): param for name, param in params.items()}
        route = Route(method, segments, handler, need, {**own, **named})
        self._routes.setdefault((method, len(segments)), []).append(route)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Return the route of a call and the parameters in its path; 501 where there is none."""
        parts = path.strip("/").split("/")
        for route in self._routes.get((method, len(parts)), ()):
            found = {}
            for wanted, part in zip(route.segments, parts):
                if wanted[0] == "{":
                    found[wanted[1:-1]] = part
                elif wanted != part:
                    break
            else:
                return route, found
        raise ApiError(501, f"Method '{method} {path}' not implemented")

    def handle(self, cluster: Cluster, call: Call) -> Any:
        """Check and carry out a call; ApiError where it is refused."""
        route, found = self.find(call.method, call.path)
        call.params = {**call.params, **found}
        if route.need:
            check(cluster, call.user, route.need, call.params)
        if "node" in found:
            call.params["node"] = _reach(cluster, found["node"])
        call.params = validate(call.params, route.params)
        try:
            return route.handler(cluster, call)
        except TaskDied as error:
            raise ApiError(500, str(error).rstrip("\n")) from error


def _reach(cluster: Cluster, name: str) -> str:
    node = cluster.nodes.get(next(iter(cluster.nodes)) if name == "localhost" else name)
    if node is None:
        reason = f"failed to get address info for: {name}: Name or service not known"
        raise ApiError(500, f"hostname lookup '{name}' failed - {reason}")
    if not node.online:
        raise ApiError(UNREACHABLE, "No route to host")
    return node.name


def check(cluster: Cluster, user: str, need: Need, params: Mapping[str, Any]) -> None:
    """Raise 403 where a user lacks a permission."""
    path = need.path.format(**params)
    paths = permission_paths(cluster, path)
    having = [cluster.access.may(user, paths, privilege) for privilege in need.privileges]
    if not (any(having) if need.any else all(having)):
        raise ApiError(403, f"Permission check failed ({path}, {'|'.join(need.privileges)})")


def permission_paths(cluster: Cluster, path: str) -> list[str]:
    """Return the paths on which a permission counts: a guest's own, and its pool's."""
    if path.startswith("/vms/") and path[5:].isdigit():
        guest = cluster.guests.get(int(path[5:]))
        if guest and guest.pool:
            return [path, f"/pool/{guest.pool}"]
    return [path]


def audited(cluster: Cluster, user: str) -> list[Guest]:
    """Return the guests that a user may see."""
    guests = cluster.guests.values()
    if user == ROOT:
        return list(guests)
    may = cluster.access.may
    return [each for each in guests if may(user, permission_paths(cluster, f"/vms/{each.vmid}"), "VM.Audit")]


def validate(params: Mapping[str, Any], schema: Mapping[str, Param]) -> dict[str, Any]:
    """Return the parameters in their types; 400, with all faults at once, where they do not fit."""
    errors, good = {}, {}
    for name, value in params.items():
        if name not in schema:
            errors[name] = _NOT_DEFINED
            continue
        try:
            good[name] = _convert(schema[name], value)
        except ValueError as error:
            errors[name] = str(error)
    for name, param in schema.items():
        if not param.optional and name not in params:
            errors[name] = "property is missing and it is not optional"
    if errors:
        raise wrong(**errors)
    return good


def _convert(param: Param, value: Any) -> Any:
    text = str(value)
    if param.type == "boolean":
        if _TRUE.fullmatch(text):
            return True
        if _FALSE.fullmatch(text):
            return False
        raise ValueError(f"type check ('boolean') failed - got '{text}'")
    if param.type in ("integer", "vmid"):
        return _integer(param, text)
    if param.type == "configid":
        if not _CONFIG_ID.fullmatch(text):
            raise ValueError(f"invalid format - invalid configuration ID '{text}'\n")
        if len(text) > 40:
            raise ValueError("value may only be 40 characters long")
    if param.values and text not in param.values:
        raise ValueError(f"value '{text}' does not have a value in the enumeration '{', '.join(param.values)}'")
    return text


def _integer(param: Param, text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"type check ('integer') failed - got '{text}'")
    minimum = 100 if param.type == "vmid" else param.minimum
    if minimum is not None and int(text) < minimum:
        raise ValueError(f"value must have a minimum value of {minimum}")
    if param.type == "vmid" and int(text) > 999999999:
        raise ValueError("value must have a maximum value of 999999999")
    return int(text)
