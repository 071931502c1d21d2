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
from ..backends.stored.backend import canonical
from ..core.backend import Backend, Desired
from ..core.errors import InvalidInput
from ..engine import hostpath as engine
from ..kube import KubeClient, resolve_claims
from .kubernetes import ARGUMENT_SPEC as KUBERNETES_SPEC
from .kubernetes import connection_options
from .module import StateModule, clones_of, desired_state, not_negative, now, show
from .spec import ASIDES_SPEC, KEEP_SPEC, REQUIRED_IF_CLONES, SNAPSHOT_SPEC

TARGET_SPEC: dict[str, Any] = {
    **engine.TARGET_SPEC,
    "pvc": {"type": "list", "elements": "str"},
    "namespace": {"type": "str"},
    "selector": {"type": "str"},
    "node_name": {"type": "str"},
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
}

_ARGUMENTS: dict[str, Any] = {
    "mutually_exclusive": [("path", "pvc"), ("path", "selector"), ("path", "namespace"), ("pvc", "selector")],
    "required_by": {"pvc": "namespace", "selector": "namespace"},
}


def run_state() -> NoReturn:
    """Run hostpath_snapshot."""
    module = AnsibleModule(
        STATE_SPEC,
        supports_check_mode=True,
        required_one_of=[("path", "namespace")],
        required_if=REQUIRED_IF_CLONES,
        **_ARGUMENTS,
    )

    def make(params: Mapping[str, Any], report: Callable[..., None] | None) -> tuple[Backend, Desired]:
        targets = _targets(module)
        desired = desired_state(params, clones_of(params, [target.path for target in targets]), engine.LIFTING)
        return engine.backend_of(params, now, report, targets), desired

    StateModule(module, make).run()


def run_info() -> NoReturn:
    """Run hostpath_snapshot_info."""
    module = AnsibleModule(INFO_SPEC, supports_check_mode=True, **_ARGUMENTS)

    def look(params: Mapping[str, Any]) -> tuple[dict[str, Any], Sequence[str]]:
        has_targets = params["path"] is not None or params["namespace"] is not None
        options = HostpathOptions(now=now, lock_timeout=not_negative(params, "lock_timeout"))
        backend = HostpathBackend(_targets(module) if has_targets else (), engine.store_of(params), options)
        result = describe(backend, name=params["name"], sizes=params["sizes"], verify=params["verify"])
        return result, backend.warnings

    show(module, look)


def _targets(module: AnsibleModule) -> list[HostTarget]:
    """Return the directories that are meant, each once. Asks the Kubernetes API where claims are."""
    params = module.params
    if params["path"] is not None:
        targets = engine.targets_of(params)
    else:
        client = KubeClient(connection_options(module))
        node = params["node_name"] or os.uname().nodename
        volumes = resolve_claims(client, params["namespace"], params["pvc"] or (), params["selector"], node)
        for warning in (each for volume in volumes for each in volume.warnings):
            module.warn(warning)
        targets = [
            HostTarget(
                canonical(volume.path, "a volume"),
                {"namespace": volume.namespace, "pvc": volume.pvc, "pv": volume.pv, "node": node},
            )
            for volume in volumes
        ]
    if not targets:
        raise InvalidInput("find the targets", "path is empty", "name at least one directory")
    return list({target.path: target for target in targets}.values())
