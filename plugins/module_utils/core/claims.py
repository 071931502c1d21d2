# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From a Kubernetes claim to the directory that holds its data, and the node on which that lies. Pure.

Claims (PersistentVolumeClaim) and volumes (PersistentVolume) come in as plain dicts, as the API answers them; kube.py
fetches them and calls this. The path is only ever the one the volume states: provisioners name directories as they
like, and two claims can look alike on disk. What they are called is claim_names.py's.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .claim_names import is_object_name, missing_claim
from .errors import InvalidInput, RestorePointError

#: The two ways in which a volume can name its node. Their values may differ, so they cannot be compared.
HOSTNAME = "kubernetes.io/hostname"
NODE_NAME = "metadata.name"
_NODE_KEYS = {"matchExpressions": HOSTNAME, "matchFields": NODE_NAME}

#: Members of a volume's spec that do not say what kind of volume it is; the one that is left does.
_NOT_A_KIND = {
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
}
_NO_DIRECTORY = ("BlockDevice", "CharDevice", "File", "Socket")


class ClaimError(RestorePointError):
    """A claim has no directory that could be worked on here. Nothing was touched."""


@dataclass(frozen=True)
class ClaimVolume:
    """The directory of one bound claim.

    ``path`` is absolute and normalised. ``nodes`` are the nodes on which it may lie, empty when the volume names none.
    ``kind`` is ``hostPath`` or ``local``, ``uid`` the claim's. ``warnings`` are sentences for the user.
    """

    namespace: str
    pvc: str
    pv: str
    path: str
    nodes: tuple[str, ...]
    kind: str
    uid: str
    warnings: tuple[str, ...] = ()
    storage_class: str = ""

    def as_result(self) -> dict[str, Any]:
        """Return it as a module's result shows it."""
        return {
            "namespace": self.namespace,
            "pvc": self.pvc,
            "pv": self.pv,
            "path": self.path,
            "nodes": list(self.nodes),
            "kind": self.kind,
            "uid": self.uid,
            "storage_class": self.storage_class,
        }


def select_claims(
    namespace: str, found: Iterable[Any], names: Sequence[str], selector: str | None
) -> list[Mapping[str, Any]]:
    """Return the claims asked for: those of ``names`` in that order, else all that were found, by name.

    Args:
        found: the claims of the namespace, those that match ``selector`` where one is given.

    Raises:
        InvalidInput: a name is not there (the message lists those that are), or there is no claim at all.
    """
    claims = {_name(each): _mapping(each) for each in found}
    for name in names:
        if name not in claims:
            raise missing_claim(namespace, name, claims)
    if names:
        return [claims[name] for name in names]
    if claims:
        return [claims[name] for name in sorted(claims)]
    if selector:
        raise InvalidInput(
            f"find claims in namespace {namespace!r}",
            f"the selector {selector!r} matches none",
            "compare it with the output of kubectl get pvc --show-labels",
        )
    raise InvalidInput(
        f"find claims in namespace {namespace!r}", "it has none, or does not exist", "check the namespace's name"
    )


def volume_name(claim: Mapping[str, Any]) -> str:
    """Return the name of the volume that a claim is bound to; raise ClaimError for a claim without a volume."""
    spec = _mapping(claim.get("spec"))
    phase = _mapping(claim.get("status")).get("phase") or "not bound"
    name = spec.get("volumeName")
    if phase == "Lost":
        raise ClaimError(
            _attempt(claim), f"its volume {name!r} is gone (the claim is Lost)", "restore it into a new claim"
        )
    if phase != "Bound" or not name:
        storage_class = spec.get("storageClassName") or "none"
        raise ClaimError(
            _attempt(claim),
            f"it has no volume yet (phase {phase}, storage class {storage_class})",
            "see kubectl describe pvc for the cause, or start a pod that uses the claim if that class binds on first "
            "use (WaitForFirstConsumer)",
        )
    if not isinstance(name, str) or not is_object_name(name):
        raise ClaimError(_attempt(claim), f"no volume can be called {name!r}", "check the claim's volumeName")
    return name


def resolve_claim(claim: Mapping[str, Any], volume: Mapping[str, Any] | None) -> ClaimVolume:
    """Return the directory of a claim.

    Args:
        claim: a PersistentVolumeClaim.
        volume: the PersistentVolume that ``volume_name`` names, or None when the cluster has none.

    Raises:
        ClaimError: not bound, bound to something else, no directory of a node, or on nodes that cannot be told.
    """
    attempt = _attempt(claim)
    pv = volume_name(claim)
    if volume is None:
        raise ClaimError(attempt, f"its volume {pv!r} does not exist", "see kubectl describe pvc for what became of it")
    _check_claim_ref(claim, pv, volume)
    kind, path = _directory(attempt, pv, claim, volume)
    metadata = _mapping(claim.get("metadata"))
    namespace, name = str(metadata.get("namespace")), str(metadata.get("name"))
    warnings = []
    if metadata.get("deletionTimestamp"):
        warnings.append(f"Claim {namespace}/{name} is being deleted; it goes when no pod uses it any more.")
    return ClaimVolume(
        namespace=namespace,
        pvc=name,
        pv=pv,
        path=path,
        nodes=_nodes(attempt, pv, volume),
        kind=kind,
        uid=str(metadata.get("uid")),
        warnings=tuple(warnings),
        storage_class=str(_mapping(volume.get("spec")).get("storageClassName") or ""),
    )


def resolve_all(
    claims: Sequence[Mapping[str, Any]], volumes: Mapping[str, Mapping[str, Any]], node_name: str | None
) -> list[ClaimVolume]:
    """Return the directories of all claims, in their order; raise ClaimError with every reason if any has none.

    Args:
        volumes: volumes by name; those that do not exist are left out.
        node_name: the node on which they have to lie, or None to take any.
    """
    resolved: list[ClaimVolume] = []
    errors: list[RestorePointError] = []
    for claim in claims:
        try:
            found = resolve_claim(claim, volumes.get(volume_name(claim)))
            if node_name is not None:
                check_node(found, node_name)
            resolved.append(found)
        except RestorePointError as error:
            errors.append(error)
    raise_all(errors)
    return resolved


def raise_all(errors: Sequence[RestorePointError]) -> None:
    """Raise one error for all: the only one as it is, several as one sentence that names each claim."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ClaimError(
            f"resolve {len(errors)} claims",
            "; ".join(f"cannot {error.attempt}: {error.reason}" for error in errors),
            "; ".join(dict.fromkeys(error.remedy for error in errors)),
        )


def may_lie_on(volume: ClaimVolume, node_name: str) -> bool:
    """Say whether the volume can lie on this node. A volume that names no node can lie on any."""
    return not volume.nodes or node_name.lower() in (node.lower() for node in volume.nodes)


def only_here(volumes: Sequence[ClaimVolume], node_name: str) -> tuple[list[ClaimVolume], list[ClaimVolume]]:
    """Return the volumes of this node, and those of other nodes.

    Raises:
        ClaimError: some name no node: each node would take them for its own.
    """
    open_ones = [f"{each.namespace}/{each.pvc}" for each in volumes if not each.nodes]
    if open_ones:
        raise ClaimError(
            "choose the claims of this node",
            f"the volumes of {', '.join(open_ones)} name no node",
            "name the claims of each node with pvc, without other_nodes",
        )
    here = [each for each in volumes if may_lie_on(each, node_name)]
    return here, [each for each in volumes if each not in here]


def check_node(volume: ClaimVolume, node_name: str) -> None:
    """Raise ClaimError unless the volume can lie on this node. A volume that names no node can lie on any."""
    if not may_lie_on(volume, node_name):
        where = " or ".join(volume.nodes)
        raise ClaimError(
            f"reach the directory of claim {volume.namespace}/{volume.pvc}",
            f"its volume {volume.pv!r} lies on node {where}, and this is {node_name}",
            "run it against the inventory host of that node, which the filter claims_by_host finds, or delegate_to it",
        )


def _attempt(claim: Mapping[str, Any]) -> str:
    metadata = _mapping(claim.get("metadata"))
    return f"find the directory of claim {metadata.get('namespace')}/{metadata.get('name')}"


def _check_claim_ref(claim: Mapping[str, Any], pv: str, volume: Mapping[str, Any]) -> None:
    """Raise ClaimError unless the volume points back at this very claim: a name alone can be used twice."""
    metadata = _mapping(claim.get("metadata"))
    reference = _mapping(_mapping(volume.get("spec")).get("claimRef"))
    if _name(volume) != pv:
        raise ClaimError(_attempt(claim), f"the answer for volume {pv!r} is about {_name(volume)!r}", "try again")
    for member in ("namespace", "name", "uid"):
        if not metadata.get(member) or reference.get(member) != metadata.get(member):
            holder = f"{reference.get('namespace')}/{reference.get('name')} (uid {reference.get('uid')})"
            raise ClaimError(
                _attempt(claim),
                f"its volume {pv!r} is reserved for {holder if reference else 'no claim'}, not for it",
                "check both with kubectl get pvc,pv before anything touches the data",
            )


def _directory(attempt: str, pv: str, claim: Mapping[str, Any], volume: Mapping[str, Any]) -> tuple[str, str]:
    """Return (kind, path) of a volume that is a directory of a node; raise ClaimError for every other kind."""
    spec = _mapping(volume.get("spec"))
    if "Block" in (spec.get("volumeMode"), _mapping(claim.get("spec")).get("volumeMode")):
        raise ClaimError(attempt, f"its volume {pv!r} is a raw block device", "snapshot it where the device is made")
    for kind in ("hostPath", "local"):
        if kind in spec:
            source = _mapping(spec[kind])
            if source.get("type") in _NO_DIRECTORY:
                raise ClaimError(
                    attempt, f"its volume {pv!r} is a {source['type']}, not a directory", "leave that claim out"
                )
            return kind, _path(attempt, pv, source.get("path"))
    raise _other_kind(attempt, pv, spec)


def _other_kind(attempt: str, pv: str, spec: Mapping[str, Any]) -> ClaimError:
    """Return the error for a volume that is no directory of a node."""
    if "csi" in spec:
        driver = _mapping(spec["csi"]).get("driver")
        return ClaimError(
            attempt,
            f"its volume {pv!r} is served by the CSI driver {driver}",
            "use csi_snapshot, which handles CSI volumes",
        )
    kinds = sorted(str(member) for member in spec if member not in _NOT_A_KIND)
    return ClaimError(
        attempt,
        f"its volume {pv!r} is of kind {' and '.join(kinds) or 'unknown'}, not hostPath or local",
        "snapshot it where its data lies (csi_snapshot handles CSI volumes)",
    )


def _path(attempt: str, pv: str, path: Any) -> str:
    """Return a volume's path, normalised; raise ClaimError for one that Kubernetes itself would not have taken."""
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise ClaimError(
            attempt, f"its volume {pv!r} has the path {path!r}, which is not absolute and plain", "correct the volume"
        )
    # POSIX gives a path with exactly two leading slashes a meaning of its own, and normpath keeps them.
    return "/" + posixpath.normpath(path).lstrip("/")


def _nodes(attempt: str, pv: str, volume: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the nodes that nodeAffinity allows, sorted, or () when it allows any.

    Terms are alternatives; the requirements of one term all hold; a term without any matches nothing:
    https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/persistent-volume-v1/
    """
    affinity = _mapping(volume.get("spec")).get("nodeAffinity")
    required = _mapping(affinity).get("required")
    if affinity is None or (required is None and isinstance(affinity, Mapping)):
        return ()
    terms = _mapping(required).get("nodeSelectorTerms")
    if not isinstance(terms, list):
        raise _cannot_tell(attempt, pv, "its nodeAffinity has no nodeSelectorTerms")
    nodes: set[str] = set()
    for term in terms:
        nodes |= _nodes_of_term(attempt, pv, term)
    if not nodes:
        raise _cannot_tell(attempt, pv, "its nodeAffinity matches no node at all")
    return tuple(sorted(nodes))


def _nodes_of_term(attempt: str, pv: str, term: Any) -> set[str]:
    """Return the nodes that fulfil every requirement of one term."""
    by_key: dict[str, set[str]] = {}
    for member, key in _NODE_KEYS.items():
        requirements = _mapping(term).get(member) or []
        if not isinstance(term, Mapping) or not isinstance(requirements, list):
            raise _cannot_tell(attempt, pv, "its nodeAffinity cannot be read")
        for requirement in requirements:
            values = _values(attempt, pv, requirement, key)
            by_key[key] = by_key[key] & values if key in by_key else values
    if len(by_key) == 2 and by_key[HOSTNAME] != by_key[NODE_NAME]:
        raise _cannot_tell(attempt, pv, f"its nodeAffinity asks for {HOSTNAME} and {NODE_NAME} with different values")
    return next(iter(by_key.values()), set())


def _values(attempt: str, pv: str, requirement: Any, key: str) -> set[str]:
    """Return what one requirement allows; raise ClaimError unless it is ``{key} In [...]``."""
    asked = _mapping(requirement)
    if asked.get("key") != key or asked.get("operator") != "In":
        raise _cannot_tell(attempt, pv, f"its nodeAffinity says {asked.get('key')} {asked.get('operator')}")
    values = asked.get("values")
    if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
        raise _cannot_tell(attempt, pv, f"its nodeAffinity names no values for {key}")
    return set(values)


def _cannot_tell(attempt: str, pv: str, why: str) -> ClaimError:
    return ClaimError(
        attempt, f"volume {pv!r} cannot tell its node: {why}", "name the directory itself with path, on its node"
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping as it is, and an empty one for anything else: absent members are judged where they matter."""
    return value if isinstance(value, Mapping) else {}


def _name(item: Any) -> str:
    return str(_mapping(_mapping(item).get("metadata")).get("name"))
