# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which claims a pod names, and whether it keeps them. Pure; called by the files beside it and by returns in place.

Kubernetes' pvc-protection (pkg/controller/volume/pvcprotection) keeps a claim that is being deleted for as long as a
pod that was given a node names it, even one that has finished; a pod without a node keeps nothing. So both matter: an
unfinished pod, with a node or without, may write; a finished one with a node makes the claim hang in Terminating.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

#: Phases in which no container of a pod will run any more.
_FINISHED = ("Succeeded", "Failed")


def name_of(pod: Mapping[str, Any]) -> str:
    """Return the name of an object."""
    return str((pod.get("metadata") or {}).get("name"))


def claims_named(spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield the claims that the spec of a pod, or of a pod's template, names."""
    for volume in spec.get("volumes") or []:
        source = volume.get("persistentVolumeClaim")
        if source and source.get("claimName"):
            yield str(source["claimName"])


def ephemeral_claims(pod: Mapping[str, Any]) -> Iterator[str]:
    """Yield the claims that were made for a pod's generic ephemeral volumes, and go with it."""
    for volume in (pod.get("spec") or {}).get("volumes") or []:
        if volume.get("ephemeral"):
            yield f"{name_of(pod)}-{volume.get('name')}"


def claims_made(workload: Mapping[str, Any]) -> Iterator[re.Pattern[str]]:
    """Yield what the claims are called that a StatefulSet makes; the only group is the ordinal of the pod."""
    for template in (workload.get("spec") or {}).get("volumeClaimTemplates") or []:
        yield re.compile(f"{re.escape(name_of(template))}-{re.escape(name_of(workload))}-(0|[1-9][0-9]*)")


def uses(pod: Mapping[str, Any], claim: str) -> bool:
    """Say whether a pod names a claim, or has it for an ephemeral volume."""
    return claim in claims_named(pod.get("spec") or {}) or claim in ephemeral_claims(pod)


def finished(pod: Mapping[str, Any]) -> bool:
    """Say whether a pod has run to its end."""
    return (pod.get("status") or {}).get("phase") in _FINISHED


def keeps(pod: Mapping[str, Any]) -> bool:
    """Say whether a pod may use what it names, or keeps it from being deleted."""
    return not finished(pod) or bool((pod.get("spec") or {}).get("nodeName"))


def leaving(pod: Mapping[str, Any]) -> bool:
    """Say whether a pod is being deleted."""
    return bool((pod.get("metadata") or {}).get("deletionTimestamp"))


def describe(pod: Mapping[str, Any]) -> str:
    """Say in words which pod that is, where it is, and why it is still there."""
    metadata, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    where = f" on node {spec['nodeName']}" if spec.get("nodeName") else " without a node"
    words = f"pod {name_of(pod)}{where}"
    if leaving(pod):
        words += f" is being deleted since {metadata['deletionTimestamp']}"
        if metadata.get("finalizers"):
            words += f" and is held by {', '.join(metadata['finalizers'])}"
        return words
    phase = (pod.get("status") or {}).get("phase") or "Pending"
    return f"{words} has finished ({phase})" if finished(pod) else f"{words} is {phase}"
