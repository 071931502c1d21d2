# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of csi_layout, and what they mean. Called by that module.

May import ansible and what lies below.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ..kube import KubeClient
from ..setup import csi, csi_facts, csi_plan
from ..setup.csi_apply import Applier
from ..setup.csi_drivers import KINDS
from ..setup.csi_manifests import digest_of, read_manifests
from ..setup.plan import Plan, Step
from .kubernetes import ARGUMENT_SPEC as KUBERNETES_SPEC
from .kubernetes import connection_options
from .layout import run_layout, unblocked
from .manifests import SPEC as MANIFESTS_SPEC
from .manifests import documents_of, sources_of

_KIND = "CSI snapshots"
_TEXT: dict[str, Any] = {"type": "str"}
_NEEDED: dict[str, Any] = {"type": "str", "required": True}
_DEFAULT: dict[str, Any] = {"type": "bool"}
_DICT: dict[str, Any] = {"type": "dict", "default": {}}
_DELETION: dict[str, Any] = {"type": "str", "choices": ["Delete", "Retain"], "default": "Delete"}
_BINDING: list[str] = ["WaitForFirstConsumer", "Immediate"]


def _rows(**options: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "list", "elements": "dict", "default": [], "options": options}


_SNAPSHOT_CLASSES = _rows(
    name=_NEEDED, driver=_NEEDED, deletion_policy=_DELETION, default=_DEFAULT, parameters=_DICT, labels=_DICT
)

SPEC: dict[str, Any] = {
    "manifests": MANIFESTS_SPEC,
    "install_crds": {"type": "bool", "default": True},
    "install_controller": {"type": "bool", "default": True},
    "update": {"type": "bool", "default": False},
    "controller_image": _TEXT,
    "controller_replicas": {"type": "int"},
    "controller_arguments": {"type": "list", "elements": "str", "default": []},
    "drivers": _rows(
        kind={"type": "str", "required": True, "choices": list(KINDS)},
        name=_TEXT, driver=_TEXT, volume_group=_TEXT, pool=_TEXT, device_class=_TEXT, cluster_id=_TEXT,
        filesystem=_TEXT, fs_type=_TEXT, namespace=_TEXT, secret={"type": "str", "no_log": False},
        thin={"type": "bool"}, replicas={"type": "int"},
        storage_class={"type": "bool", "default": True}, group_class={"type": "bool", "default": False},
        default=_DEFAULT, default_snapshot_class=_DEFAULT, deletion_policy=_DELETION, reclaim_policy=_DELETION,
        volume_binding_mode={"type": "str", "choices": _BINDING}, parameters=_DICT, snapshot_parameters=_DICT,
    ),
    "storage_classes": _rows(
        name=_NEEDED, provisioner=_NEEDED, default=_DEFAULT, reclaim_policy=_DELETION,
        volume_binding_mode={"type": "str", "choices": _BINDING, "default": "WaitForFirstConsumer"},
        allow_volume_expansion={"type": "bool", "default": True},
        mount_options={"type": "list", "elements": "str", "default": []}, parameters=_DICT, labels=_DICT,
    ),
    "snapshot_classes": _SNAPSHOT_CLASSES,
    "group_snapshot_classes": _SNAPSHOT_CLASSES,
    "replace_default": {"type": "bool", "default": False},
    "expected_drivers": {"type": "list", "elements": "str", "default": []},
    "wait_timeout": {"type": "int", "default": 180},
    **KUBERNETES_SPEC,
}  # fmt: skip


def run() -> NoReturn:
    """Run csi_layout."""
    module = AnsibleModule(SPEC, supports_check_mode=True)
    more: dict[str, Any] = {"downloads": [], "controllers": [], "drivers_found": []}

    def plan() -> tuple[Applier, Plan, csi.Wanted]:
        wanted = csi.parse(module.params)
        sources = sources_of(module.params["manifests"])
        client = KubeClient(connection_options(module))
        cluster = csi_facts.read(client, wanted.controller, time.time())
        digest = digest_of(sources.values(), wanted.options)
        manifests = None
        if sources and csi_plan.needs_manifests(wanted, cluster, digest):
            manifests = read_manifests(documents_of(sources, more["downloads"]), wanted.options, digest)
            objects = csi_facts.read_objects(client, manifests) if wanted.controller else {}
            cluster = csi.with_objects(cluster, objects)
        _tell(module, more, cluster)
        found = csi_plan.make_plan(wanted, manifests, cluster)
        applier = Applier(client, float(module.params["wait_timeout"]))
        if not found.blockers:
            applier.block_denied(found)
        return applier, unblocked(_KIND, found), wanted

    def act(done: list[Step]) -> Plan:
        applier, found, wanted = plan()
        applier.carry_out(found, done)
        if wanted.controller:
            applier.wait_for_controller()
        return found

    run_layout(module, lambda: plan()[1], act, more)


def _tell(module: AnsibleModule, more: dict[str, Any], cluster: csi.Cluster) -> None:
    more["controllers"] = [
        {"where": each.where, "image": each.image, "manager": each.manager, "ours": each.ours, "ready": each.ready}
        for each in cluster.controllers
    ]
    more["drivers_found"] = list(cluster.drivers)
    for warning in csi_plan.warnings(cluster):
        module.warn(warning)
