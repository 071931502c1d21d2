# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of csi_snapshot and csi_snapshot_info, and what they mean. Called by those modules.

May import ansible and what lies below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ..audit import AuditLog
from ..backends.csi.backend import CsiBackend
from ..backends.csi.info import describe
from ..backends.csi.options import CsiOptions, Selection
from ..core.backend import Backend, Desired
from ..core.errors import InvalidInput
from ..core.units import parse_size
from ..engine.desired import desired_state
from ..engine.spec import ASIDES_SPEC, KEEP_SPEC, SNAPSHOT_SPEC
from ..kube import KubeClient
from .kubernetes import ARGUMENT_SPEC as KUBERNETES_SPEC
from .kubernetes import connection_options
from .module import StateModule, now
from .showing import show
from .spec import FIELDS_SPEC

TARGET_SPEC: dict[str, Any] = {
    "namespace": {"type": "str", "required": True},
    "pvc": {"type": "list", "elements": "str"},
    "selector": {"type": "str"},
    **KUBERNETES_SPEC,
}

STATE_SPEC: dict[str, Any] = {
    **TARGET_SPEC,
    **SNAPSHOT_SPEC,
    **KEEP_SPEC,
    **ASIDES_SPEC,
    "state": {
        "type": "str",
        "choices": ["present", "absent", "rolled_back", "cloned", "pruned"],
        "default": "present",
    },
    "snapshot_class": {"type": "str"},
    "deletion_policy": {"type": "str", "choices": ["Delete", "Retain"]},
    "group": {"type": "bool", "default": False},
    "group_snapshot_class": {"type": "str"},
    "object_labels": {"type": "dict", "default": {}},
    "object_annotations": {"type": "dict", "default": {}},
    "import_handle": {"type": "str"},
    "clone": {"type": "list", "elements": "str"},
    "storage_class": {"type": "str"},
    "size": {"type": "str"},
    "once": {"type": "str"},
    "keep_current": {"type": "bool", "default": True},
    "stop_workloads": {"type": "bool", "default": False},
    "undo": {"type": "bool", "default": False},
    "call_off": {"type": "bool", "default": False},
    "wait": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 300},
}

INFO_SPEC: dict[str, Any] = {
    **TARGET_SPEC,
    "name": {"type": "str"},
    "contents": {"type": "bool", "default": False},
    **FIELDS_SPEC,
}

#: A return may be undone or called off without naming the snapshot.
_LAST_RETURN = "last-return"
_REQUIRED_IF: list[tuple[Any, ...]] = [
    ("state", "pruned", ("keep", "asides"), True),
    ("state", "cloned", ("name", "clone", "pvc")),
    ("state", "rolled_back", ("name", "undo", "call_off"), True),
    *(("state", state, ("name",)) for state in ("present", "absent")),
]


class CsiModule(StateModule):
    """Adds to the result how many requests were sent."""

    def _reach(self, backend: Backend, desired: Desired, audit: AuditLog) -> None:
        if not isinstance(backend, CsiBackend):
            raise TypeError("this module speaks to Kubernetes")
        try:
            super()._reach(backend, desired, audit)
            if backend.start_left(self._module.check_mode):
                self._result["changed"] = True
        finally:
            self._result["api_calls"] = backend.requests
            self._result.update(backend.more_results())


def run_state() -> NoReturn:
    """Run csi_snapshot."""
    module = AnsibleModule(
        STATE_SPEC,
        supports_check_mode=True,
        required_one_of=[("pvc", "selector")],
        required_if=_REQUIRED_IF,
        mutually_exclusive=[("pvc", "selector"), ("undo", "call_off"), ("import_handle", "group")],
    )

    def make(params: Mapping[str, Any], report: Callable[..., None] | None) -> tuple[Backend, Desired]:
        params = {**params, "name": params["name"] or (_LAST_RETURN if params["state"] == "rolled_back" else None)}
        for option in ("undo", "call_off"):
            if params[option] and params["state"] != "rolled_back":
                raise InvalidInput(f"read {option}", "it is about returns", "set state: rolled_back with it")
        desired = desired_state(params, _clones(params), ("stop_workloads",))
        options = connection_options(module)
        backend = CsiBackend(
            lambda patience: KubeClient(options, patience=patience),
            _selection(params),
            _options(params, report),
            now=now,
        )
        return backend, desired

    CsiModule(module, make).run()


def run_info() -> NoReturn:
    """Run csi_snapshot_info."""
    module = AnsibleModule(INFO_SPEC, supports_check_mode=True, mutually_exclusive=[("pvc", "selector")])

    def look(params: Mapping[str, Any]) -> tuple[dict[str, Any], Sequence[str]]:
        options = connection_options(module)
        backend = CsiBackend(
            lambda patience: KubeClient(options, patience=patience), _selection(params), CsiOptions(), now=now
        )
        result = describe(backend, name=params["name"], contents=params["contents"])
        return {**result, "api_calls": backend.requests}, backend.warnings

    show(module, look)


def _selection(params: Mapping[str, Any]) -> Selection:
    names = tuple(params["pvc"] or ())
    if params["pvc"] is not None and not names:
        raise InvalidInput("find the claims", "pvc is empty", "name at least one claim, or give a selector")
    return Selection(params["namespace"], names, params["selector"] or None)


def _clones(params: Mapping[str, Any]) -> dict[str, str]:
    """Return the claim that each target is cloned to. Raises InvalidInput."""
    if params["state"] != "cloned":
        return {}
    claims, clones = list(dict.fromkeys(params["pvc"])), params["clone"]
    if len(clones) != len(claims) or len(set(clones)) != len(clones):
        raise InvalidInput(
            f"clone {params['name']!r}",
            f"there are {len(claims)} claims and {len(set(clones))} different names for clones",
            "give clone as many names as pvc has, in their order",
        )
    for clone in clones:
        if "/" in clone:
            raise InvalidInput(
                f"clone {params['name']!r} to {clone}",
                "Kubernetes makes a claim from a snapshot in the snapshot's own namespace only",
                "name a claim without its namespace",
            )
    return {f"{params['namespace']}/{claim}": clone for claim, clone in zip(claims, clones)}


def _options(params: Mapping[str, Any], report: Callable[..., None] | None) -> CsiOptions:
    def step(stage: str, fields: Mapping[str, Any]) -> None:
        if report is not None:
            report(stage, fields, always=True)

    return CsiOptions(
        snapshot_class=params["snapshot_class"],
        deletion_policy=params["deletion_policy"],
        group=params["group"],
        group_snapshot_class=params["group_snapshot_class"],
        object_labels={str(key): str(value) for key, value in params["object_labels"].items()},
        object_annotations={str(key): str(value) for key, value in params["object_annotations"].items()},
        storage_class=params["storage_class"],
        size=None if params["size"] is None else parse_size(params["size"], "size"),
        import_handle=params["import_handle"],
        undo=params["undo"],
        call_off=params["call_off"],
        stop_workloads=params["stop_workloads"],
        wait=params["wait"],
        timeout=float(params["timeout"]),
        undoes=params["on_failure"] == "undo",
        progress=step if report is not None else None,
    )
