# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The objects by which Kubernetes has its restore points watched. Pure; called by bridge.

A Deployment of one pod, in which the agent serves metrics; an account that may see what they need and nothing else; a
Service; and, for those that have the operator of Prometheus, a ServiceMonitor and a PrometheusRule. All but the
namespace carries the label MARK, so that what is not wanted any more is found.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from ..kube_resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    DEPLOYMENTS,
    NAMESPACES,
    PROMETHEUS_RULES,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    SERVICE_MONITORS,
    SERVICES,
)
from .kubernetes_objects import (
    POLICIES_FILE,
    PROGRAM,
    STATE_MOUNT,
    STATE_VOLUME,
    USER,
    Object,
    PodSettings,
    agent_container,
    common_spec,
    granted,
    labelled,
    namespace_of_jobs,
)
from .kubernetes_plan import Family
from .kubernetes_rights import JOBS_READING, Needs

#: On all that is made here: the namespace of the jobs that are watched.
MARK = "restorepoint.core/monitoring"
KINDS = (
    *(NAMESPACES, SERVICE_ACCOUNTS, CONFIG_MAPS, CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS, ROLES, ROLE_BINDINGS),
    *(SERVICES, DEPLOYMENTS),
)
#: What only a cluster with the operator of Prometheus has.
OPERATOR = (SERVICE_MONITORS, PROMETHEUS_RULES)
PURPOSE = "watching the restore points"
NAME, DASHBOARD = "restorepoint-metrics", "restorepoint-dashboard"
PORT = 9642
#: What tells the pod from others.
_CHOSEN = {"app.kubernetes.io/name": NAME}


@dataclass(frozen=True)
class Watch:
    """What is to be had.

    Args:
        pods: for the pod; its namespace is that of the jobs.
        policies: what the file of policies holds.
        needs: of which namespaces claims are looked at; None for none.
        instance: the label ``instance`` of what a ServiceMonitor scrapes: the pod's address would change with each pod.
        interval, timeout: of the looks, as the agent takes them.
        annotated: whether annotations of the Service have it scraped.
        operator: which kinds of OPERATOR are made.
        labels: of these, such as those by which the operator chooses.
        groups: of rules.
        dashboard: the dashboard, empty for none; its ConfigMap's namespace and labels.
    """

    pods: PodSettings
    policies: str
    needs: Needs | None
    instance: str
    interval: str
    timeout: str
    annotated: bool = False
    operator: tuple[Any, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    groups: Sequence[Mapping[str, Any]] = ()
    dashboard: str = ""
    dashboard_namespace: str = ""
    dashboard_labels: Mapping[str, str] = field(default_factory=dict)


def family(operator: Sequence[Any]) -> Family:
    """Return the family of what is made, in a cluster that serves these kinds of the operator."""
    return Family(MARK, (*KINDS, *operator), PURPOSE)


def objects(watch: Watch, agent: bytes) -> list[Object]:
    """Return all objects, in the order in which they are made."""
    namespace = watch.pods.namespace
    made = functools.partial(labelled, MARK, namespace)
    found = [
        # It is marked as that of the jobs, so that whoever sets these up may change what pods it lets in.
        namespace_of_jobs(watch.pods),
        made(SERVICE_ACCOUNTS, namespace, NAME, automountServiceAccountToken=False),
        *_rights(watch, made),
        _files(watch, made, agent),
        _service(watch, made),
        _deployment(watch, made, agent),
    ]
    if watch.dashboard:
        data = {"restorepoint.json": watch.dashboard}
        found.append(
            made(CONFIG_MAPS, watch.dashboard_namespace, DASHBOARD, data=data, labels=dict(watch.dashboard_labels))
        )
    if SERVICE_MONITORS in watch.operator:
        found.append(_service_monitor(watch, made))
    if PROMETHEUS_RULES in watch.operator and watch.groups:
        spec = {"groups": list(watch.groups)}
        found.append(made(PROMETHEUS_RULES, namespace, "restorepoint", spec=spec, labels=dict(watch.labels)))
    order = family(watch.operator).kinds
    return sorted(found, key=lambda each: order.index(each.resource))


def _rights(watch: Watch, made: Callable[..., Object]) -> Iterator[Object]:
    """Yield a Role in the namespace of the jobs, one in each with claims, and a ClusterRole for volumes."""
    namespace = watch.pods.namespace
    name = f"restorepoint:{namespace}:metrics"
    yield from granted(made, f"{name}-jobs", namespace, JOBS_READING, NAME, namespace)
    if watch.needs is None:
        return
    inside, cluster = watch.needs.reading
    yield from granted(made, name, None, cluster, NAME, namespace)
    for each in watch.needs.namespaces:
        yield from granted(made, name, each, inside, NAME, namespace)


def _files(watch: Watch, made: Callable[..., Object], agent: bytes) -> Object:
    return made(
        CONFIG_MAPS, watch.pods.namespace, NAME, data={"policies.json": watch.policies},
        binaryData={"restorepoint.pyz": base64.b64encode(agent).decode()},
    )  # fmt: skip


def _service(watch: Watch, made: Callable[..., Object]) -> Object:
    spec = {
        "type": "ClusterIP",
        "selector": _CHOSEN,
        "ports": [{"name": "metrics", "port": PORT, "protocol": "TCP", "targetPort": "metrics"}],
    }
    annotations = {
        "prometheus.io/scrape": str(watch.annotated).lower(),
        "prometheus.io/port": str(PORT),
        "prometheus.io/path": "/metrics",
    }
    return made(SERVICES, watch.pods.namespace, NAME, spec=spec, labels=_CHOSEN, annotations=annotations)


def _deployment(watch: Watch, made: Callable[..., Object], agent: bytes) -> Object:
    # Files that are mounted one by one stay as they are: what is new in them begins a new pod.
    content = hashlib.sha256(watch.policies.encode() + b"\0" + agent).hexdigest()[:16]
    metadata = {"labels": _CHOSEN, "annotations": {"restorepoint.core/content": content}}
    spec = {
        "replicas": 1,
        # Never two of them: both would be one instance for Prometheus.
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": _CHOSEN},
        "template": {"metadata": metadata, "spec": _pod(watch)},
    }
    return made(DEPLOYMENTS, watch.pods.namespace, NAME, spec=spec, labels=_CHOSEN)


def _pod(watch: Watch) -> dict[str, Any]:
    command = [
        *("--policies", POLICIES_FILE, "metrics", "--listen", f"0.0.0.0:{PORT}", "--jobs", watch.pods.namespace),
        *("--interval", watch.interval, "--timeout", watch.timeout),
    ]
    mounts = [
        {"name": "files", "mountPath": PROGRAM, "subPath": "restorepoint.pyz", "readOnly": True},
        {"name": "files", "mountPath": POLICIES_FILE, "subPath": "policies.json", "readOnly": True},
        STATE_MOUNT,
    ]
    # It answers as long as it lives; whether metrics could be gathered is a metric.
    probe = {"httpGet": {"path": "/healthy", "port": "metrics"}, "periodSeconds": 30, "timeoutSeconds": 10}
    container = {
        **agent_container(watch.pods, command, mounts),
        "ports": [{"name": "metrics", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": {**probe, "periodSeconds": 10},
        "livenessProbe": {**probe, "initialDelaySeconds": 30},
    }
    return {
        "serviceAccountName": NAME,
        "automountServiceAccountToken": True,
        "terminationGracePeriodSeconds": 30,
        "containers": [container],
        "volumes": [{"name": "files", "configMap": {"name": NAME, "defaultMode": 0o444}}, STATE_VOLUME],
        **common_spec(watch.pods, USER),
    }


def _service_monitor(watch: Watch, made: Callable[..., Object]) -> Object:
    endpoint = {
        "port": "metrics",
        "path": "/metrics",
        "interval": "60s",
        "relabelings": [
            {"action": "replace", "targetLabel": "instance", "replacement": watch.instance},
            # They change with each pod, and would make other series of the same things.
            {"action": "labeldrop", "regex": "pod|container|endpoint|node"},
        ],
    }
    spec = {"selector": {"matchLabels": _CHOSEN}, "endpoints": [endpoint]}
    return made(SERVICE_MONITORS, watch.pods.namespace, NAME, spec=spec, labels=dict(watch.labels))


def policies_file(given: Sequence[Mapping[str, Any]]) -> str:
    """Return the file of policies."""
    return json.dumps({"policies": list(given)}, sort_keys=True, indent=1)
