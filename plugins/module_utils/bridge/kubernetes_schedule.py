# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of kubernetes_schedule_layout, and what they mean. Called by that module.

Reads the agent, asks the cluster what is there and where claims lie, and lets setup/ plan. May import ansible and what
lies below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ..core.claim_names import check_request
from ..core.claims import ClaimVolume, raise_all
from ..core.errors import InvalidInput
from ..core.periods import zone
from ..core.retention import parse_policy
from ..kube import KubeClient
from ..kube_claims import survey_claims
from ..setup import kubernetes_plan
from ..setup.csi_apply import Applier
from ..setup.kubernetes_objects import Job, Object, Settings, objects
from ..setup.plan import Plan, Step
from .kubernetes import ARGUMENT_SPEC as KUBERNETES_SPEC
from .kubernetes import connection_options
from .kubernetes_jobs import annotations_job, jobs_of
from .layout import run_layout, unblocked

#: The most that a ConfigMap holds is 1 MiB, and base64 makes four bytes of three.
_LARGEST = 700 * 1024
_KIND = "scheduled policies"
_TEXTS: dict[str, Any] = {"type": "list", "elements": "str", "default": []}

#: What pods with the agent are made of.
POD_SPEC: dict[str, Any] = {
    "agent": {"type": "path"},
    "namespace": {"type": "str", "default": "restorepoint"},
    "image": {"type": "str"},
    "image_pull_policy": {"type": "str", "choices": ["Always", "IfNotPresent", "Never"], "default": "IfNotPresent"},
    "image_pull_secrets": {**_TEXTS, "no_log": False},  # their names
    "resources": {"type": "dict", "default": {}},
    "tolerations": {"type": "list", "elements": "dict", "default": []},
    "priority_class": {"type": "str"},
}

SPEC: dict[str, Any] = {
    "policies": {"type": "list", "elements": "dict", "default": []},
    **POD_SPEC,
    "successful_jobs_history_limit": {"type": "int", "default": 3},
    "failed_jobs_history_limit": {"type": "int", "default": 3},
    "starting_deadline": {"type": "int", "default": 3600},
    "active_deadline": {"type": "int", "default": 3600},
    "retries": {"type": "int", "default": 1},
    "suspend": {"type": "bool", "default": False},
    "annotations": {
        "type": "dict",
        "options": {
            "namespaces": _TEXTS,
            "calendar": {"type": "str", "default": "*:0/15"},
            "timezone": {"type": "str", "default": "UTC"},
            "snapshot_class": {"type": "str"},
        },
    },
    **KUBERNETES_SPEC,
}


def run() -> NoReturn:
    """Run kubernetes_schedule_layout."""
    module = AnsibleModule(SPEC, supports_check_mode=True)
    more: dict[str, Any] = {"jobs": []}

    def plan() -> tuple[Applier, Plan]:
        settings = _settings(module.params)
        client = KubeClient(connection_options(module))
        found = jobs_of(module.params["policies"], _Claims(module, client))
        if module.params["annotations"] is not None:
            found.jobs.append(_annotations(module.params["annotations"]))
        more["jobs"] = [_shown(settings, job) for job in found.jobs]
        agent = read_agent(module.params["agent"]) if found.jobs else b""
        wanted = objects(settings, found.jobs, agent)
        _check_names(wanted)
        made = kubernetes_plan.make_plan(
            settings.namespace, wanted, kubernetes_plan.read(client, settings.namespace, wanted)
        )
        made.blockers[:0] = found.blockers
        applier = Applier(client, 0.0)
        if not made.blockers:
            applier.block_denied(made)
        return applier, unblocked(_KIND, made)

    def act(done: list[Step]) -> Plan:
        applier, found = plan()
        applier.carry_out(found, done)
        return found

    run_layout(module, lambda: plan()[1], act, more)


class _Claims:
    """Asks the cluster where claims lie."""

    def __init__(self, module: AnsibleModule, client: KubeClient) -> None:
        self._module = module
        self._client = client

    def __call__(self, namespaces: Sequence[str], names: Sequence[str], selector: str | None) -> Sequence[ClaimVolume]:
        found = survey_claims(self._client, namespaces, names, selector)
        if found.others:
            raise_all([error for _namespace, _pvc, error in found.others])
        for warning in (each for volume in found.volumes for each in volume.warnings):
            self._module.warn(warning)
        return found.volumes


def read_agent(path: str | None) -> bytes:
    """Return the agent. Raises InvalidInput where it cannot be had."""
    attempt = f"read the agent {path or ''}".rstrip()
    remedy = "name the file that make agent writes, as the roles do"
    if path is None:
        raise InvalidInput(attempt, "agent is not set", remedy)
    try:
        with open(path, "rb") as stream:
            data = stream.read(_LARGEST + 1)
    except OSError as error:
        raise InvalidInput(attempt, str(error.strerror), remedy) from None
    if len(data) > _LARGEST:
        raise InvalidInput(attempt, f"it is larger than the {_LARGEST} bytes that fit into a ConfigMap", remedy)
    return data


def _check_names(wanted: Sequence[Object]) -> None:
    """Raise InvalidInput where two policies want objects of the same name: ``a-2`` and the second line of ``a``."""
    names = [each.target for each in wanted]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(
                f"make {name}", "two policies, or two lines of a schedule, want it", "give one policy another name"
            )


def _annotations(options: Mapping[str, Any]) -> Job:
    zone(options["timezone"])
    parse_policy(None, timezone=options["timezone"])
    return annotations_job(options)


def _settings(params: Mapping[str, Any]) -> Settings:
    check_request(params["namespace"], (), None)
    for option in ("successful_jobs_history_limit", "failed_jobs_history_limit", "retries"):
        _at_least(params, option, 0)
    for option in ("starting_deadline", "active_deadline"):
        _at_least(params, option, 10)  # the controller looks every ten seconds
    if (params["policies"] or params["annotations"] is not None) and not params["image"]:
        raise InvalidInput("set up scheduled policies", "image is not set", "name an image with Python 3.9 or newer")
    return Settings(
        **pod_settings(params),
        successes=params["successful_jobs_history_limit"],
        failures=params["failed_jobs_history_limit"],
        starting_deadline=params["starting_deadline"],
        active_deadline=params["active_deadline"],
        retries=params["retries"],
        suspend=params["suspend"],
    )


def pod_settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what POD_SPEC says, as PodSettings have it."""
    return {
        "namespace": params["namespace"],
        "image": params["image"] or "",
        "pull_policy": params["image_pull_policy"],
        "pull_secrets": tuple(params["image_pull_secrets"]),
        "resources": params["resources"],
        "tolerations": tuple(params["tolerations"]),
        "priority_class": params["priority_class"] or None,
    }


def _at_least(params: Mapping[str, Any], option: str, least: int) -> None:
    if params[option] < least:
        raise InvalidInput(f"read {option}: {params[option]}", "it is too small", f"give {least} or more")


def _shown(settings: Settings, job: Job) -> dict[str, Any]:
    return {
        "policy": job.policy,
        "name": f"{settings.namespace}/{job.title}",
        "schedule": list(job.lines),
        "timezone": job.timezone,
        "node": job.node,
        "mounts": [*job.reads, *job.writes],
    }
