# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From policies to the jobs that run them in a cluster. Called by kubernetes_schedule, which tells where claims lie.

A pod knows the claims that it was set up for by their directories: so it needs no rights, and sees no other directory.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from ..core.annotations import OWNER
from ..core.backend import Blocker
from ..core.claims import ClaimVolume
from ..core.cron import cron_lines
from ..core.errors import RestorePointError
from ..core.schedule import parse_calendar
from ..engine import btrfs, csi, hostpath, lvm, pve, zfs
from ..engine.policy import Policy, Target, parse_policies
from ..setup.kubernetes_objects import Job, node_suffix
from ..setup.kubernetes_rights import Needs, together

#: `parse_policies` imports these by their names; Ansible sends a module only what it sees being imported.
READERS = (btrfs, csi, hostpath, lvm, pve, zfs)
#: Asked for claims on directories: namespaces, names, selector.
Resolve = Callable[[Sequence[str], Sequence[str], "str | None"], Sequence[ClaimVolume]]
_ELSEWHERE = "run it on the hosts themselves, with the roles agent and schedule"
#: What a target of directories says to find claims, which a job in a pod has found already.
_FINDING = ("namespace", "pvc", "selector", "node_name", "other_nodes", "path")
ANNOTATIONS = "annotations"


@dataclass
class Jobs:
    """Jobs, and all that forbids others."""

    jobs: list[Job] = field(default_factory=list)
    blockers: list[Blocker] = field(default_factory=list)


def jobs_of(raw: Sequence[Mapping[str, Any]], resolve: Resolve) -> Jobs:
    """Return the jobs for policies.

    Args:
        raw: policies, as docs/policies.md has them.
        resolve: tells where claims on directories lie.

    Raises:
        InvalidPolicies: with every fault.
    """
    found = Jobs()
    for given, policy in zip(raw, parse_policies({"policies": list(raw)}) if raw else ()):
        try:
            lines = cron_lines(policy.moments, (*policy.calendar, *policy.cron))
        except RestorePointError as error:
            found.blockers.append(Blocker(f"policy {policy.name}", error.reason, error.remedy))
            continue
        reasons = list(_unfit(policy))
        found.blockers += [Blocker(f"policy {policy.name}", reason, remedy) for reason, remedy in reasons]
        if not reasons:
            _add(found, given, policy, tuple(lines), resolve)
    return found


def _unfit(policy: Policy) -> list[tuple[str, str]]:
    """Return why a policy cannot run in a pod, each reason with what to do."""
    found = []
    if policy.name in (ANNOTATIONS, OWNER):
        found.append(("what is taken by annotations is called so", "give the policy another name"))
    found += elsewhere(policy)
    for name, schedule in (("drill_schedule", policy.drill_schedule), ("export_schedule", policy.export_schedule)):
        if schedule.moments:
            what = name.partition("_")[0]
            reason = f"it has {name}, and no job of the cluster makes {what}s: a pod forgets when the last one was"
            found.append((reason, f"take {name} out, and start `restorepoint {what}` where the storage is mounted"))
    if policy.hooks:
        kinds = ", ".join(dict.fromkeys(each.kind for each in policy.hooks))
        # The watchdog dies with the pod, and so does the note from which the next run would take it back.
        reason = f"hooks ({kinds}) might stay in force for ever where a pod is killed, since nothing else knows of them"
        found.append((reason, f"take them out, or {_ELSEWHERE}"))
    return found


def elsewhere(policy: Policy) -> list[tuple[str, str]]:
    """Return why a pod does not reach a policy's targets, each reason with what to do."""
    found = [
        (f"a pod does not reach targets of {backend}", _ELSEWHERE)
        for backend in dict.fromkeys(each.backend for each in policy.targets)
        if backend not in ("csi", "hostpath")
    ]
    if any(each.params.get("kubeconfig") or each.params.get("context") for each in policy.targets):
        found.append(("it names a kubeconfig, and a pod logs in with its account", "leave kubeconfig and context out"))
    return found


def _add(found: Jobs, given: Mapping[str, Any], policy: Policy, lines: tuple[str, ...], resolve: Resolve) -> None:
    """Add the jobs of one policy: one for each node, where it takes directories."""
    csi = [each for each in policy.targets if each.backend == "csi"]
    needs = needs_of(csi)
    job = Job(
        name=policy.name, policy=policy.name, lines=lines, timezone=policy.timezone,
        command=("run", policy.name, "--json"), needs=needs,
    )  # fmt: skip
    if len(csi) == len(policy.targets):
        found.jobs.append(dataclasses.replace(job, policies=_file(given, given["targets"])))
        return
    nodes, reasons = _nodes(policy, resolve)
    if csi and len(nodes) > 1:
        listed = ", ".join(sorted(nodes))
        reason = f"its directories lie on several nodes ({listed}), so its CSI volumes would be taken several times"
        reasons.append((reason, "make a policy of its own for the CSI volumes"))
    found.blockers += [Blocker(f"policy {policy.name}", reason, remedy) for reason, remedy in reasons]
    if reasons:
        return
    for node, places in sorted(nodes.items()):
        targets = [each for number, each in enumerate(given["targets"]) if policy.targets[number].backend == "csi"]
        for number, paths in places.items():
            kept = {key: value for key, value in given["targets"][number].items() if key not in _FINDING}
            targets.append({**kept, "path": paths})
        stores = tuple(dict.fromkeys(str(policy.targets[number].params["store"]) for number in places))
        there = dataclasses.replace(
            job, name=f"{policy.name}-{node_suffix(node)}", policies=_file(given, targets), node=node,
            reads=tuple(sorted({path for paths in places.values() for path in paths})), writes=stores,
        )  # fmt: skip
        found.jobs.append(there)


def needs_of(targets: Sequence[Target]) -> Needs | None:
    """Return the rights that targets of csi need, all of them together; None without any target."""
    found = [
        Needs(tuple(each.params["namespace"]), bool(each.params["group"]), each.params["deletion_policy"] is not None)
        for each in targets
    ]
    return together(found) if found else None


def _file(given: Mapping[str, Any], targets: Sequence[Any]) -> str:
    return json.dumps({"policies": [{**given, "targets": list(targets)}]}, sort_keys=True, indent=1)


def _nodes(
    policy: Policy, resolve: Resolve
) -> tuple[dict[str, dict[int, list[str]]], list[tuple[str, str]]]:  # fmt: skip
    """Return for each node which directories of which target lie there, and what forbids it."""
    nodes: dict[str, dict[int, list[str]]] = {}
    reasons: list[tuple[str, str]] = []
    for number, target in enumerate(policy.targets):
        if target.backend != "hostpath":
            continue
        params, named = target.params, target.params["node_name"]
        if not params["namespace"]:
            if named:
                nodes.setdefault(named, {}).setdefault(number, []).extend(params["path"])
            else:
                reasons.append(("it names directories without their node", "name the node in the target's node_name"))
            continue
        try:
            volumes = resolve(params["namespace"], params["pvc"] or (), params["selector"] or None)
        except RestorePointError as error:
            reasons.append((error.reason, error.remedy))
            continue
        for volume in volumes:
            where = volume.nodes or ((named,) if named else ())
            if len(where) != 1:
                claim = f"{volume.namespace}/{volume.pvc}"
                words = "several nodes" if where else "no node that its volume names"
                reasons.append((f"claim {claim} lies on {words}", "name its node in the target's node_name"))
            elif not named or named == where[0]:
                nodes.setdefault(where[0], {}).setdefault(number, []).append(volume.path)
            elif params["other_nodes"] == "fail":
                reason = f"claim {volume.namespace}/{volume.pvc} lies on node {where[0]}, not on {named}"
                reasons.append((reason, "leave node_name out, or set other_nodes to skip"))
    if not nodes and not reasons:
        reasons.append(("none of its claims lies on that node", "look at them with hostpath_claims_info"))
    return nodes, reasons


def annotations_job(options: Mapping[str, Any]) -> Job:
    """Return the job that honours annotations. Raises InvalidInput."""
    text = options["calendar"]
    namespaces = tuple(dict.fromkeys(options["namespaces"]))
    command = [ANNOTATIONS, "--json", "--timezone", options["timezone"]]
    for namespace in namespaces:
        command += ["--namespace", namespace]
    if options["snapshot_class"]:
        command += ["--snapshot-class", options["snapshot_class"]]
    return Job(
        name=ANNOTATIONS, policy=ANNOTATIONS, lines=tuple(cron_lines([parse_calendar(text)], [text])),
        timezone=options["timezone"], command=tuple(command), needs=Needs(namespaces, annotations=True),
    )  # fmt: skip
