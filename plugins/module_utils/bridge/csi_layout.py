# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of csi_layout, and what they mean. Called by that module.

Fetches the manifests it is told of, from files or URLs, and holds them to their checksums. May import ansible and what
lies below.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ..core.errors import InvalidInput, ToolError
from ..kube import KubeClient
from ..setup import csi, csi_facts, csi_plan
from ..setup.csi_apply import Applier
from ..setup.csi_drivers import KINDS
from ..setup.csi_manifests import digest_of, read_manifests
from ..setup.plan import Plan, Step
from .kubernetes import ARGUMENT_SPEC as KUBERNETES_SPEC
from .kubernetes import connection_options
from .layout import run_layout, unblocked

#: Seconds to wait for an answer of a server of manifests, and the most that a manifest may hold (bytes).
_FETCH_SECONDS = 30
_LARGEST = 8_000_000
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
    "manifests": _rows(source=_NEEDED, sha256=_TEXT),
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
    "wait_timeout": {"type": "int", "default": 180},
    **KUBERNETES_SPEC,
}  # fmt: skip


def run() -> NoReturn:
    """Run csi_layout."""
    module = AnsibleModule(SPEC, supports_check_mode=True)
    more: dict[str, Any] = {"downloads": [], "controllers": [], "drivers_found": []}

    def plan() -> tuple[Applier, Plan, csi.Wanted]:
        wanted = csi.parse(module.params)
        sources = _sources(module.params["manifests"])
        client = KubeClient(connection_options(module))
        cluster = csi_facts.read(client, wanted.controller, time.time())
        digest = digest_of(sources.values(), wanted.options)
        manifests = None
        if sources and csi_plan.needs_manifests(wanted, cluster, digest):
            manifests = read_manifests(_documents(sources, more["downloads"]), wanted.options, digest)
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


def _sources(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the SHA-256 sum of each source: as given, of a file as it is."""
    found: dict[str, str] = {}
    for row in rows:
        source, given = row["source"], (row["sha256"] or "").lower()
        attempt = f"read the manifest {source}"
        if source in found:
            raise InvalidInput(attempt, "it is named twice", "name it once")
        if given and (len(given) != 64 or set(given) - set("0123456789abcdef")):
            raise InvalidInput(attempt, f"{given!r} is no SHA-256 sum", "give the 64 digits that sha256sum prints")
        if _is_url(source):
            if not given:
                raise InvalidInput(attempt, "it is a URL without sha256", "give the sum of the file you have looked at")
            found[source] = given
            continue
        if not os.path.isabs(source):
            raise InvalidInput(attempt, "it is neither an absolute path nor a URL", "give one of the two")
        found[source] = hashlib.sha256(_checked(source, _read_file(source), given)).hexdigest()
    return found


def _is_url(source: str) -> bool:
    return source.startswith(("https://", "http://"))


def _checked(source: str, data: bytes, sha256: str) -> bytes:
    is_ = hashlib.sha256(data).hexdigest()
    if sha256 and is_ != sha256:
        raise ToolError(
            f"take the manifest {source}", f"its SHA-256 sum is {is_}, not {sha256}",
            "look at what is in it before you trust it, and correct sha256",
        )  # fmt: skip
    return data


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(_LARGEST)
    except OSError as error:
        words = error.strerror or str(error)
        raise InvalidInput(f"read the manifest {path}", words, "name a file on the host that runs the module") from None


def _download(url: str) -> bytes:
    try:
        with open_url(url, timeout=_FETCH_SECONDS, http_agent="restorepoint.core") as answer:
            data: bytes = answer.read(_LARGEST)
            return data
    except Exception as error:  # urllib, ssl and Ansible each have their own
        raise ToolError(
            f"download the manifest {url}", " ".join(str(error).split()),
            "see that this host reaches it, or name a copy under manifests",
        ) from None  # fmt: skip


def _documents(sources: Mapping[str, str], downloads: list[str]) -> list[Any]:
    """Return all documents of the manifests. What was downloaded is added to ``downloads``."""
    yaml = importlib.import_module("yaml")
    documents: list[Any] = []
    for source, sha256 in sources.items():
        data = _checked(source, _download(source) if _is_url(source) else _read_file(source), sha256)
        if _is_url(source):
            downloads.append(source)
        try:
            documents += yaml.safe_load_all(data)
        except yaml.YAMLError as error:
            words = " ".join(str(error).split())
            raise InvalidInput(f"read the manifest {source}", words, "name a file of YAML") from None
    return documents
