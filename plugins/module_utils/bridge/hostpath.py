# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of hostpath_snapshot and hostpath_snapshot_info, and what they mean. Called by those modules.

May import ansible and what lies below.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ..backends.hostpath.backend import HostpathBackend
from ..backends.hostpath.info import describe
from ..backends.hostpath.options import HostpathOptions, HostTarget
from ..backends.stored.paths import canonical
from ..core.backend import Backend, Desired
from ..core.claims import only_here
from ..engine import hostpath as engine
from ..engine.desired import desired_state, not_negative
from ..engine.spec import ASIDES_SPEC, KEEP_SPEC, SNAPSHOT_SPEC
from ..kube import KubeClient
from ..kube_claims import resolve_claims, survey_claims
from .kubernetes import ARGUMENT_SPEC as KUBERNETES_SPEC
from .kubernetes import connection_options
from .module import StateModule, clones_of, now
from .showing import show
from .spec import FIELDS_SPEC, REQUIRED_IF_CLONES

TARGET_SPEC: dict[str, Any] = {
    **engine.TARGET_SPEC,
    "pvc": {"type": "list", "elements": "str"},
    "namespace": {"type": "str"},
    "selector": {"type": "str"},
    "node_name": {"type": "str"},
    "other_nodes": {"type": "str", "choices": ["fail", "skip"], "default": "fail"},
    "claims": {
        "type": "list",
        "elements": "dict",
        "options": {
            "namespace": {"type": "str", "required": True},
            "pvc": {"type": "str", "required": True},
            "pv": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "node": {"type": "str", "required": True},
            "nodes": {"type": "list", "elements": "str"},
            **{name: {"type": "str"} for name in ("kind", "uid", "storage_class")},
        },
    },
    **KUBERNETES_SPEC,
}

STATE_SPEC: dict[str, Any] = {
    **TARGET_SPEC,
    **engine.OPTION_SPEC,
    **SNAPSHOT_SPEC,
    **KEEP_SPEC,
    **ASIDES_SPEC,
    "state": {
        "type": "str",
        "choices": ["present", "absent", "rolled_back", "cloned", "pruned"],
        "default": "present",
    },
    "clone": {"type": "list", "elements": "path"},
    "keep_current": {"type": "bool", "default": True},
    "once": {"type": "str"},
    "priority": {"type": "str", "choices": ["normal", "idle"], "default": "normal"},
}

INFO_SPEC: dict[str, Any] = {
    **TARGET_SPEC,
    "name": {"type": "str"},
    "sizes": {"type": "bool", "default": False},
    "verify": {"type": "bool", "default": False},
    **FIELDS_SPEC,
}

_ARGUMENTS: dict[str, Any] = {
    "mutually_exclusive": [
        *(("path", other) for other in ("pvc", "selector", "namespace", "claims")),
        *(("claims", other) for other in ("pvc", "selector", "namespace")),
        ("pvc", "selector"),
    ],
    "required_by": {"pvc": "namespace", "selector": "namespace"},
}


def run_state() -> NoReturn:
    """Run hostpath_snapshot."""
    module = AnsibleModule(
        STATE_SPEC,
        supports_check_mode=True,
        required_one_of=[("path", "namespace", "claims")],
        required_if=REQUIRED_IF_CLONES,
        **_ARGUMENTS,
    )

    def make(params: Mapping[str, Any], report: Callable[..., None] | None) -> tuple[Backend | None, Desired]:
        targets = _targets(module)
        desired = desired_state(params, clones_of(params, [target.path for target in targets]), engine.LIFTING)
        return engine.backend_of(params, now, report, targets) if targets else None, desired

    StateModule(module, make).run()


def run_info() -> NoReturn:
    """Run hostpath_snapshot_info."""
    module = AnsibleModule(INFO_SPEC, supports_check_mode=True, **_ARGUMENTS)

    def look(params: Mapping[str, Any]) -> tuple[dict[str, Any], Sequence[str]]:
        has_targets = any(params[name] is not None for name in ("path", "namespace", "claims"))
        options = HostpathOptions(now=now, lock_timeout=not_negative(params, "lock_timeout"))
        targets = _targets(module) if has_targets else []
        if has_targets and not targets:  # claims of other nodes only; without targets the whole store would be shown
            return {"snapshots": [], "asides": [], "tree": {}}, []
        backend = HostpathBackend(targets, engine.store_of(params), options)
        result = describe(backend, name=params["name"], sizes=params["sizes"], verify=params["verify"])
        return result, backend.warnings

    show(module, look)


def _targets(module: AnsibleModule) -> list[HostTarget]:
    """Return the directories that are meant, each once. Asks the Kubernetes API where claims are.

    There may be none of them on this node, where the claims of all nodes were given.
    """
    params = module.params
    if params["path"] is not None:
        targets = engine.targets_of(params)
    elif params["claims"] is not None:
        targets = [_target(each, each["path"], each["node"]) for each in params["claims"]]
    else:
        targets = _asked_for(module)
    return list({target.path: target for target in targets}.values())


def _target(claim: Mapping[str, Any], path: str, node: str) -> HostTarget:
    known = {name: claim[name] for name in ("namespace", "pvc", "pv")}
    return HostTarget(canonical(path, "a volume"), {**known, "node": node})


def _asked_for(module: AnsibleModule) -> list[HostTarget]:
    """Return the directories of claims that the options name, as the Kubernetes API tells."""
    params = module.params
    client = KubeClient(connection_options(module))
    node = params["node_name"] or os.uname().nodename
    skip = params["other_nodes"] == "skip"
    asked = (params["namespace"], params["pvc"] or (), params["selector"])
    volumes = resolve_claims(client, *asked, None if skip else node)
    if skip:
        volumes, _elsewhere = only_here(volumes, node)
    for warning in (each for volume in volumes for each in volume.warnings):
        module.warn(warning)
    return [_target(volume.as_result(), volume.path, node) for volume in volumes]


CLAIMS_SPEC: dict[str, Any] = {
    "namespace": {"type": "list", "elements": "str", "required": True},
    "pvc": {"type": "list", "elements": "str"},
    "selector": {"type": "str"},
    **KUBERNETES_SPEC,
}


def run_claims_info() -> NoReturn:
    """Run hostpath_claims_info."""
    module = AnsibleModule(CLAIMS_SPEC, supports_check_mode=True, mutually_exclusive=[("pvc", "selector")])

    def look(params: Mapping[str, Any]) -> tuple[dict[str, Any], Sequence[str]]:
        client = KubeClient(connection_options(module))
        found = survey_claims(client, params["namespace"], params["pvc"] or (), params["selector"])
        warnings = [each for volume in found.volumes for each in volume.warnings]
        if found.nodes is None:
            warnings.append("Nodes may not be listed, so they are known by the names that volumes give them alone.")
        result = {
            "claims": [volume.as_result() for volume in found.volumes],
            "others": [
                {"namespace": namespace, "pvc": pvc, "reason": error.reason, "remedy": error.remedy}
                for namespace, pvc, error in found.others
            ],
            "nodes": [{"name": each.name, "names": sorted(each.names)} for each in found.nodes or ()],
        }
        return result, warnings

    show(module, look)
