# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The objects by which Kubernetes runs policies: accounts, rights, ConfigMaps, CronJobs. Pure; called by bridge.

A job is one policy on one node, or on none in particular. It has an account of its own, with the rights that this
policy needs, and a CronJob for each line of its schedule. Everything carries the label LABEL with the namespace of the
jobs, so that what is not wanted any more is found.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from ..core.job_runs import NODE, POLICY
from ..kube_resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    CRON_JOBS,
    NAMESPACES,
    RBAC_GROUP,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    Resource,
)
from .kubernetes_rights import Needs, Rule

#: On all that is made here: the namespace of the jobs that it is for.
LABEL = "restorepoint.core/schedule"
#: Kinds in which something of ours may lie, in the order in which they are made.
KINDS = (
    *(NAMESPACES, SERVICE_ACCOUNTS, CONFIG_MAPS, CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS, ROLES, ROLE_BINDINGS),
    CRON_JOBS,
)
AGENT, POLICIES = "restorepoint-agent", "restorepoint-policies"
PROGRAM = "/opt/restorepoint/restorepoint.pyz"
POLICIES_FILE = "/etc/restorepoint/policies.json"
STATE = "/var/lib/restorepoint"
#: An empty folder for what the agent keeps.
STATE_VOLUME: dict[str, Any] = {"name": "state", "emptyDir": {"sizeLimit": "64Mi"}}
STATE_MOUNT: dict[str, Any] = {"name": "state", "mountPath": STATE}
USER = 65532
#: What root needs to read any file and to write it with its owner, mode and attributes into a store.
_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "SETFCAP")
#: A schedule for what never starts by itself: a suspended CronJob has to have one.
_NEVER = "0 0 1 1 *"


@dataclass(frozen=True)
class PodSettings:
    """What holds for all pods. ``resources`` is as in a container."""

    namespace: str
    image: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    resources: Mapping[str, Any] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    priority_class: str | None = None


@dataclass(frozen=True)
class Settings(PodSettings):
    """What holds for all jobs. Times are in seconds."""

    successes: int = 3
    failures: int = 3
    starting_deadline: int = 3600
    active_deadline: int = 3600
    retries: int = 1
    suspend: bool = False


@dataclass(frozen=True)
class Job:
    """One policy on one node, or on none in particular.

    Args:
        name: what its objects are called, behind ``restorepoint-``.
        lines: of cron; none for what is started by hand.
        command: of the agent.
        policies: what the file of policies holds, if the command reads one.
        needs: its rights, None for a job that does not speak to Kubernetes.
        node: value of the label kubernetes.io/hostname of the node that it runs on.
        reads, writes: directories of the node.
    """

    name: str
    policy: str
    lines: tuple[str, ...]
    timezone: str
    command: tuple[str, ...]
    policies: str | None = None
    needs: Needs | None = None
    node: str | None = None
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What its objects are called."""
        return f"restorepoint-{self.name}"

    @property
    def root(self) -> bool:
        """Whether it has to be root: others cannot read the directories of a node."""
        return bool(self.reads or self.writes)


@dataclass(frozen=True)
class Object:
    """One object as it has to be."""

    resource: Resource
    namespace: str | None
    name: str
    body: Mapping[str, Any]

    @property
    def target(self) -> str:
        """How it is called in results."""
        return target_of(self.resource, self.namespace, self.name)


def target_of(resource: Resource, namespace: str | None, name: str) -> str:
    """Return how an object is called in results."""
    return f"{resource.kind} {namespace}/{name}" if namespace else f"{resource.kind} {name}"


def node_suffix(node: str) -> str:
    """Return what tells jobs of one policy on several nodes apart, for names."""
    return "n" + hashlib.sha256(node.encode()).hexdigest()[:8]


def objects(settings: Settings, jobs: Sequence[Job], agent: bytes) -> list[Object]:
    """Return all objects for these jobs, in the order in which they are made."""
    found: list[Object] = []
    if jobs:
        found += [_namespace(settings, jobs), *_config_maps(settings, jobs, agent)]
    for job in jobs:
        found += [_account(settings, job), *_rights(settings, job), *_cron_jobs(settings, job)]
    return sorted(found, key=lambda each: KINDS.index(each.resource))


def labelled(mark: str, of: str, resource: Resource, namespace: str | None, name: str, **body: Any) -> Object:
    """Return an object that bears a mark, the label by which it is found; ``labels`` and ``annotations`` are more."""
    metadata: dict[str, Any] = {"name": name, **({"namespace": namespace} if namespace else {})}
    metadata["labels"] = {"app.kubernetes.io/managed-by": "restorepoint.core", mark: of, **body.pop("labels", {})}
    if "annotations" in body:
        metadata["annotations"] = body.pop("annotations")
    return Object(
        resource,
        namespace,
        name,
        {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, **body},
    )


def _object(settings: PodSettings, resource: Resource, namespace: str | None, name: str, **body: Any) -> Object:
    return labelled(LABEL, settings.namespace, resource, namespace, name, **body)


def namespace_of_jobs(settings: PodSettings, level: str = "restricted") -> Object:
    """Return the namespace. Pod security admission lets in what the jobs are, and no more."""
    labels = {f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "warn")}
    return _object(settings, NAMESPACES, None, settings.namespace, labels=labels)


def _namespace(settings: Settings, jobs: Sequence[Job]) -> Object:
    return namespace_of_jobs(settings, "privileged" if any(job.root for job in jobs) else "restricted")


def _config_maps(settings: Settings, jobs: Sequence[Job], agent: bytes) -> Iterator[Object]:
    data = {"restorepoint.pyz": base64.b64encode(agent).decode()}
    yield _object(settings, CONFIG_MAPS, settings.namespace, AGENT, binaryData=data)
    files = {f"{job.name}.json": job.policies for job in jobs if job.policies is not None}
    yield _object(settings, CONFIG_MAPS, settings.namespace, POLICIES, data=files)


def _account(settings: Settings, job: Job) -> Object:
    return _object(
        settings, SERVICE_ACCOUNTS, settings.namespace, job.title, automountServiceAccountToken=False,
        labels={POLICY: job.policy},
    )  # fmt: skip


def _rights(settings: Settings, job: Job) -> Iterator[Object]:
    """Yield a Role in each namespace with claims, and a ClusterRole for what lies in no namespace; each is bound."""
    if job.needs is None:
        return
    yield from _granted(settings, job, None, job.needs.cluster)
    for namespace in job.needs.namespaces:
        yield from _granted(settings, job, namespace, job.needs.inside)


def _granted(settings: Settings, job: Job, namespace: str | None, rules: list[Rule]) -> Iterator[Object]:
    name = f"restorepoint:{settings.namespace}:{job.name}"
    made = functools.partial(_object, settings, labels={POLICY: job.policy})
    yield from granted(made, name, namespace, rules, job.title, settings.namespace)


def granted(
    made: Callable[..., Object], name: str, namespace: str | None, rules: Sequence[Rule], account: str, of: str
) -> Iterator[Object]:
    """Yield a role with its binding to an account of the namespace ``of``; without a namespace it holds everywhere."""
    role, binding = (ROLES, ROLE_BINDINGS) if namespace else (CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS)
    yield made(role, namespace, name, rules=list(rules))
    yield made(
        binding, namespace, name,
        roleRef={"apiGroup": RBAC_GROUP, "kind": role.kind, "name": name},
        subjects=[{"kind": "ServiceAccount", "name": account, "namespace": of}],
    )  # fmt: skip


def _cron_jobs(settings: Settings, job: Job) -> Iterator[Object]:
    labels = {POLICY: job.policy, **({NODE: node_suffix(job.node)} if job.node else {})}
    for number, line in enumerate(job.lines or (_NEVER,), 1):
        name = job.title + (f"-{number}" if number > 1 else "")
        spec = {
            "schedule": line,
            "timeZone": job.timezone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": settings.starting_deadline,
            "successfulJobsHistoryLimit": settings.successes,
            "failedJobsHistoryLimit": settings.failures,
            "suspend": settings.suspend or not job.lines,
            "jobTemplate": {
                "metadata": {"labels": labels},
                "spec": {
                    "backoffLimit": settings.retries,
                    "activeDeadlineSeconds": settings.active_deadline,
                    "template": {"metadata": {"labels": labels}, "spec": pod_spec(settings, job)},
                },
            },
        }
        yield _object(settings, CRON_JOBS, settings.namespace, name, labels=labels, spec=spec)


def pod_spec(settings: Settings, job: Job) -> dict[str, Any]:
    """Return the pod of a job: one container that may do nothing but its work."""
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "serviceAccountName": job.title,
        "automountServiceAccountToken": job.needs is not None,
        # A run that is stopped takes back what it made.
        "terminationGracePeriodSeconds": 120,
        "containers": [_container(settings, job)],
        "volumes": [volume for volume, _mount in _volumes(job)],
        **common_spec(settings, 0 if job.root else USER),
    }
    if job.node is not None:
        spec["nodeSelector"] = {"kubernetes.io/hostname": job.node}
    return spec


def common_spec(settings: PodSettings, user: int) -> dict[str, Any]:
    """Return what all pods have in their spec, those of root (``user`` 0) and others."""
    spec: dict[str, Any] = {
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": user != 0,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if settings.tolerations:
        spec["tolerations"] = [dict(each) for each in settings.tolerations]
    if settings.pull_secrets:
        spec["imagePullSecrets"] = [{"name": each} for each in settings.pull_secrets]
    if settings.priority_class:
        spec["priorityClassName"] = settings.priority_class
    return spec


def _container(settings: Settings, job: Job) -> dict[str, Any]:
    files = ["--policies", POLICIES_FILE] if job.policies is not None else []
    mounts = [mount for _volume, mount in _volumes(job)]
    return agent_container(settings, [*files, *job.command], mounts, _CAPABILITIES if job.root else ())


def agent_container(
    settings: PodSettings, command: Sequence[str], mounts: Sequence[Mapping[str, Any]], capabilities: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the container in which the agent runs a command, without any other capability than these."""
    return {
        "name": "agent",
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "command": ["python3", PROGRAM, "--state", f"{STATE}/state", *command],
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
        ],
        "resources": dict(settings.resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], **({"add": list(capabilities)} if capabilities else {})},
        },
        # What the agent said last stands in the pod's status, also where nobody keeps logs.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": list(mounts),
    }


def _volumes(job: Job) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield volumes with their mounts.

    Files of ConfigMaps are mounted one by one: so they stay as they were at the start, whatever is updated meanwhile.
    """
    yield (
        {"name": "agent", "configMap": {"name": AGENT, "defaultMode": 0o444}},
        {"name": "agent", "mountPath": PROGRAM, "subPath": "restorepoint.pyz", "readOnly": True},
    )
    if job.policies is not None:
        yield (
            {"name": "policies", "configMap": {"name": POLICIES, "defaultMode": 0o444}},
            {"name": "policies", "mountPath": POLICIES_FILE, "subPath": f"{job.name}.json", "readOnly": True},
        )
    yield STATE_VOLUME, STATE_MOUNT
    for number, path in enumerate((*job.reads, *job.writes)):
        name, read = f"host-{number}", path in job.reads
        yield (
            {"name": name, "hostPath": {"path": path, "type": "Directory" if read else "DirectoryOrCreate"}},
            {"name": name, "mountPath": path, **({"readOnly": True} if read else {})},
        )
