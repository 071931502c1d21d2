# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of kubernetes_monitoring_layout, and what they mean. Called by that module.

Reads the agent, asks the cluster what it serves and what is there, and lets setup/ plan. May import ansible and what
lies below.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ..core.claim_names import check_request
from ..core.errors import InvalidInput
from ..core.units import parse_duration
from ..engine.policy import Policy, parse_policies
from ..kube import KubeClient
from ..kube_resources import Resource
from ..setup import kubernetes_plan, kubernetes_watch
from ..setup.csi_apply import Applier
from ..setup.kubernetes_objects import PodSettings
from ..setup.plan import Plan, Step
from .kubernetes import ARGUMENT_SPEC as KUBERNETES_SPEC
from .kubernetes import connection_options
from .kubernetes_jobs import READERS, elsewhere, needs_of
from .kubernetes_schedule import POD_SPEC, pod_settings, read_agent
from .layout import run_layout, unblocked

__all__ = ["READERS", "SPEC", "run"]

SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "policies": {"type": "list", "elements": "dict", "default": []},
    **POD_SPEC,
    "instance": {"type": "str", "default": "kubernetes"},
    "interval": {"type": "str", "default": "60s"},
    "timeout": {"type": "str", "default": "30s"},
    "scrape_annotations": {"type": "bool", "default": False},
    "operator": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
    "operator_labels": {"type": "dict", "default": {}},
    "rules": {"type": "dict", "default": {}},
    "dashboard": {"type": "str", "default": ""},
    "dashboard_namespace": {"type": "str"},
    "dashboard_labels": {"type": "dict", "default": {"grafana_dashboard": "1"}},
    **KUBERNETES_SPEC,
}
_NO_OPERATOR = "the cluster serves no {kinds} of monitoring.coreos.com/v1: the operator of Prometheus is not installed"


def run() -> NoReturn:
    """Run kubernetes_monitoring_layout."""
    module = AnsibleModule(SPEC, supports_check_mode=True)
    more: dict[str, Any] = {"service": "", "operator_kinds": []}

    def plan() -> tuple[Applier, Plan]:
        params = module.params
        namespace = params["namespace"]
        check_request(namespace, (), None)
        policies = _policies(params)
        client = KubeClient(connection_options(module))
        served = _served(client)
        found = Plan()
        _judge(found, policies, params, served)
        wanted = []
        if params["state"] == "present":
            watch = _watch(params, policies, served if params["operator"] != "never" else [])
            wanted = kubernetes_watch.objects(watch, read_agent(params["agent"]))
            more["service"] = f"{kubernetes_watch.NAME}.{namespace}.svc:{kubernetes_watch.PORT}"
            more["operator_kinds"] = [each.kind for each in watch.operator]
        family = kubernetes_watch.family(served)
        there = kubernetes_plan.read(client, namespace, wanted, family)
        made = kubernetes_plan.make_plan(namespace, wanted, there, family)
        made.blockers[:0] = found.blockers
        applier = Applier(client, 0.0)
        if not made.blockers:
            applier.block_denied(made)
        _warn(module, served)
        return applier, unblocked("the watch of restore points", made)

    def act(done: list[Step]) -> Plan:
        applier, found = plan()
        applier.carry_out(found, done)
        return found

    run_layout(module, lambda: plan()[1], act, more)


def _policies(params: Mapping[str, Any]) -> Sequence[Policy]:
    """Return the policies. Raises InvalidInput, and InvalidPolicies with every fault."""
    for option in ("interval", "timeout"):
        if parse_duration(params[option], option) < 1:
            raise InvalidInput(
                f"read {option}: {params[option]}", "it is no time at all", "write a duration such as 30s"
            )
    if params["state"] == "absent":
        return ()
    attempt = "have the restore points of the cluster watched"
    if not params["image"]:
        raise InvalidInput(attempt, "image is not set", "name an image with Python 3.9 or newer")
    if not params["policies"]:
        raise InvalidInput(attempt, "there is no policy", "name those that run there, or set state to absent")
    return parse_policies({"policies": list(params["policies"])})


def _served(client: KubeClient) -> list[Resource]:
    """Return the kinds of the operator of Prometheus that the cluster serves."""
    attempt = "see whether the operator of Prometheus is there"
    return [
        each for each in kubernetes_watch.OPERATOR if client.find_kind(attempt, each.api_version, each.kind) is not None
    ]


def _judge(plan: Plan, policies: Sequence[Policy], params: Mapping[str, Any], served: Sequence[Resource]) -> None:
    """Add what stands in the way: policies whose targets a pod does not reach, and an operator that has to be there."""
    for policy in policies:
        for reason, remedy in elsewhere(policy):
            plan.block(f"policy {policy.name}", reason, remedy)
    missing = _missing(served)
    if params["state"] == "present" and params["operator"] == "always" and missing:
        remedy = "install it, or set operator to never and have the Service scraped otherwise"
        plan.block(missing, _NO_OPERATOR.format(kinds=missing), remedy)


def _missing(served: Sequence[Resource]) -> str:
    return " and no ".join(each.kind for each in kubernetes_watch.OPERATOR if each not in served)


def _warn(module: AnsibleModule, served: Sequence[Resource]) -> None:
    """Say where nothing scrapes what is served, and say so only where that was left to us."""
    params, missing = module.params, _missing(served)
    if params["state"] == "present" and params["operator"] == "auto" and missing and not params["scrape_annotations"]:
        words = _NO_OPERATOR.format(kinds=missing)
        module.warn(
            f"{words[:1].upper()}{words[1:]}, so none was made. Have the Service {kubernetes_watch.NAME} scraped: by "
            "scrape_annotations, or a job of your own in Prometheus; and give Prometheus the rules as a file."
        )


def _watch(
    params: Mapping[str, Any], policies: Sequence[Policy], operator: Sequence[Resource]
) -> kubernetes_watch.Watch:
    return kubernetes_watch.Watch(
        pods=PodSettings(**pod_settings(params)),
        policies=kubernetes_watch.policies_file(params["policies"]),
        needs=needs_of([each for policy in policies for each in policy.targets if each.backend == "csi"]),
        instance=params["instance"],
        interval=params["interval"],
        timeout=params["timeout"],
        annotated=params["scrape_annotations"],
        operator=tuple(operator),
        labels=_labels(params["operator_labels"]),
        groups=_groups(params["rules"]),
        dashboard=_dashboard(params["dashboard"]),
        dashboard_namespace=params["dashboard_namespace"] or params["namespace"],
        dashboard_labels=_labels(params["dashboard_labels"]),
    )


def _labels(given: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in given.items()}


def _groups(rules: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the groups of a file of rules. Raises InvalidInput where it is none."""
    groups = rules.get("groups", [] if not rules else None)
    if not isinstance(groups, list):
        raise InvalidInput("read rules", "they have no list of groups", "give the content of a file of rules")
    return groups


def _dashboard(given: str) -> str:
    """Return the dashboard, as Ansible may have made of it. Raises InvalidInput where it is none."""
    if not given:
        return ""
    try:
        if isinstance(json.loads(given), dict):
            return given
        reason = "it is no mapping"
    except ValueError as error:
        reason = f"it is no JSON: {error}"
    raise InvalidInput("read dashboard", reason, "give the content of a dashboard's file")
