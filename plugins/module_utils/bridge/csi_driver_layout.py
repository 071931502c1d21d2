# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of csi_driver_layout, and what they mean. Called by that module.

May import ansible and what lies below.
"""

from __future__ import annotations

from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ..backends.csi.explain import Explain
from ..core.errors import InvalidInput
from ..kube import KubeClient
from ..setup import csi_driver, csi_driver_plan
from ..setup.csi_apply import Applier
from ..setup.csi_driver_wait import DriverWaiter
from ..setup.csi_manifests import ManifestObject
from ..setup.plan import Plan, Step
from .kubernetes import ARGUMENT_SPEC as KUBERNETES_SPEC
from .kubernetes import connection_options
from .layout import run_layout, unblocked
from .manifests import SPEC as MANIFESTS_SPEC
from .manifests import documents_of, sources_of

_KIND = "the CSI driver"

SPEC: dict[str, Any] = {
    "driver": {"type": "str", "required": True},
    "manifests": MANIFESTS_SPEC,
    "kubelet_dir": {"type": "str", "default": csi_driver.KUBELET},
    "version": {"type": "str"},
    "wait": {"type": "bool", "default": True},
    "wait_nodes": {"type": "bool", "default": True},
    "wait_timeout": {"type": "int", "default": 300},
    **KUBERNETES_SPEC,
}


def run() -> NoReturn:
    """Run csi_driver_layout."""
    module = AnsibleModule(SPEC, supports_check_mode=True)
    params = module.params
    more: dict[str, Any] = {"downloads": [], "left_out": [], "manager": "", "ours": False, "nodes": []}

    def plan() -> tuple[KubeClient, Plan, tuple[ManifestObject, ...]]:
        kubelet = _folder(params["kubelet_dir"])
        sources = sources_of(params["manifests"])
        client = KubeClient(connection_options(module))
        found = csi_driver_plan.find(client, params["driver"])
        manifests = csi_driver.DriverManifests((), ())
        if found is None or found.ours:
            documents = documents_of(sources, more["downloads"])
            manifests = csi_driver.read_driver(documents, kubelet, params["version"])
        if found:
            more.update(manager=found.manager, ours=found.ours)
        more["left_out"] = list(manifests.left_out)
        facts = csi_driver_plan.read(client, found, manifests.objects)
        made = csi_driver_plan.make_plan(params["driver"], manifests.objects, facts)
        if manifests.objects and kubelet != csi_driver.KUBELET:
            _warn_of_folder(module, manifests.objects, kubelet)
        if not made.blockers:
            Applier(client, 0.0).block_denied(made)
        return client, unblocked(_KIND, made), manifests.objects

    def act(done: list[Step]) -> Plan:
        client, made, wanted = plan()
        seconds = float(params["wait_timeout"])
        Applier(client, seconds).carry_out(made, done)
        if params["wait"]:
            explain = Explain(client)
            waiter = DriverWaiter(
                client, params["driver"], _folder(params["kubelet_dir"]), explain.events, seconds, params["wait_nodes"]
            )
            more["nodes"] = waiter.wait(wanted)
        return made

    run_layout(module, lambda: plan()[1], act, more)


def _folder(given: str) -> str:
    folder = given.rstrip("/")
    if not folder.startswith("/"):
        raise InvalidInput(
            f"use {given!r} as kubelet_dir", "it is no absolute path", "name kubelet's folder on the nodes"
        )
    return folder


def _warn_of_folder(module: AnsibleModule, objects: tuple[ManifestObject, ...], kubelet: str) -> None:
    if not csi_driver.names_folder(objects, kubelet):
        module.warn(f"Nothing in the manifests names kubelet's folder, {kubelet}: see that the driver learns of it.")
