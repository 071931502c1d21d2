# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The requests that an in-place return makes, as bodies: what is written at each step. Pure; called by swap.py.

Every patch carries the resourceVersion of the volume that it was decided on: who has been overtaken gets a 409, looks
again and decides again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

from .... import kube_resources as api
from ....kube import RUN
from .journal import (
    ASIDE,
    CALLING_OFF,
    JOURNAL,
    KEPT,
    LIVE,
    NAMESPACE,
    NEW,
    OLD,
    ONCE,
    PREPARING,
    REMOVING,
    RETURN,
    ROLE,
    STAGE,
    SWAPPING,
    TEMPORARY,
    Journal,
    Kept,
    as_text,
    kept_text,
    tokens_text,
)

SELECTED_NODE = "volume.kubernetes.io/selected-node"
#: Annotations of a claim that tell how it was bound: they are the controllers', and not carried over.
_OF_CONTROLLERS = ("pv.kubernetes.io/", "volume.kubernetes.io/", "volume.beta.kubernetes.io/")
_LONGEST = 253


def temporary_name(claim: str, run: str) -> str:
    """Return what the temporary claim is called through which a claim's new volume is made."""
    name = f"{claim}-rb-{run}"
    if len(name) <= _LONGEST:
        return name
    digest = hashlib.sha256(claim.encode()).hexdigest()[:10]
    return f"{claim[: _LONGEST - len(run) - 15].rstrip('-.')}-{digest}-rb-{run}"


def _on(
    volume: Mapping[str, Any], metadata: Mapping[str, Any], spec: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    version = volume["metadata"]["resourceVersion"]
    body: dict[str, Any] = {"metadata": {"resourceVersion": version, **metadata}}
    if spec:
        body["spec"] = dict(spec)
    return body


def open_old(journal: Journal, old: Mapping[str, Any]) -> dict[str, Any]:
    """Step 1: the old volume is retained from here on, and carries the journal."""
    labels = {NAMESPACE: journal.namespace, RETURN: journal.id, ROLE: OLD, STAGE: PREPARING}
    return _on(old, {"labels": labels, "annotations": {JOURNAL: as_text(journal)}}, _RETAIN)


_RETAIN = {"persistentVolumeReclaimPolicy": "Retain"}


def retain(volume: Mapping[str, Any]) -> dict[str, Any]:
    """Put a volume on Retain again, where somebody has taken it off."""
    return _on(volume, {}, _RETAIN)


def temporary_claim(journal: Journal) -> dict[str, Any]:
    """Step 2: the claim through which the new volume is made from the snapshot."""
    annotations = {RUN: journal.id, RETURN: journal.id}
    if journal.node:
        annotations[SELECTED_NODE] = journal.node  # binds without a pod where binding waits for one
    spec = {
        name: journal.spec[name]
        for name in ("accessModes", "storageClassName", "volumeMode", "volumeAttributesClassName")
        if name in journal.spec
    }
    spec["resources"] = {"requests": {"storage": str(journal.size)}}
    spec["dataSource"] = {"apiGroup": api.SNAPSHOT_GROUP, "kind": api.SNAPSHOTS.kind, "name": journal.source}
    return {
        "apiVersion": api.CLAIMS.api_version,
        "kind": api.CLAIMS.kind,
        "metadata": {"name": journal.temporary, "annotations": annotations},
        "spec": spec,
    }


def retain_new(journal: Journal, new: Mapping[str, Any], temporary_uid: str) -> dict[str, Any]:
    """Step 4: the new volume is retained too, and known by its labels."""
    labels = {NAMESPACE: journal.namespace, RETURN: journal.id, ROLE: NEW}
    annotations = {JOURNAL: as_text(journal), TEMPORARY: temporary_uid or None}
    return _on(new, {"labels": labels, "annotations": annotations}, _RETAIN)


def reserve(journal: Journal, new: Mapping[str, Any]) -> dict[str, Any]:
    """Step 6: the new volume is for the claim's name, whoever makes the claim. It is never free for anybody."""
    reference = {"namespace": journal.namespace, "name": journal.claim, "uid": None, "resourceVersion": None}
    return _on(new, {}, {**_RETAIN, "claimRef": reference})


def mark(old: Mapping[str, Any]) -> dict[str, Any]:
    """Step 7, first half: from here on a return is completed and not called off. The old volume is retained, surely."""
    return _on(old, {"labels": {STAGE: SWAPPING}}, _RETAIN)


def claim_again(journal: Journal, new: str, gone: Collection[str] = ()) -> dict[str, Any]:
    """Step 8: the claim as it was, on the new volume.

    Args:
        gone: uids of owners that are not there any more: with them, the claim would be removed as garbage.
    """
    annotations = {key: text for key, text in journal.annotations.items() if not key.startswith(_OF_CONTROLLERS)}
    metadata: dict[str, Any] = {"name": journal.claim, "labels": dict(journal.labels), "annotations": annotations}
    owners = [dict(owner) for owner in journal.owners if owner.get("uid") not in gone]
    if owners:
        metadata["ownerReferences"] = owners
    spec = {**journal.spec, "volumeName": new}
    return {"apiVersion": api.CLAIMS.api_version, "kind": api.CLAIMS.kind, "metadata": metadata, "spec": spec}


def close_new(journal: Journal, new: Mapping[str, Any]) -> dict[str, Any]:
    """Steps 10 and 12: the new volume has the reclaim policy of the old one, and its tokens."""
    annotations = {
        JOURNAL: None,
        TEMPORARY: None,
        ASIDE: None,
        ONCE: tokens_text(journal.spent) if journal.spent else None,
    }
    metadata = {"labels": {ROLE: LIVE}, "annotations": annotations}
    return _on(new, metadata, {"persistentVolumeReclaimPolicy": journal.policy})


def close_old(journal: Journal, old: Mapping[str, Any]) -> dict[str, Any]:
    """Step 11: the old volume is an aside."""
    kept = Kept(journal.aside, journal.namespace, journal.claim, journal.at, journal.name)
    annotations = {JOURNAL: None, ONCE: None, ASIDE: kept_text(kept)}
    return _on(old, {"labels": {ROLE: KEPT, STAGE: None}, "annotations": annotations}, _RETAIN)


def remove_old(old: Mapping[str, Any]) -> dict[str, Any]:
    """Instead of step 11: the old volume goes. It was released when its claim went."""
    return _on(old, {"labels": {STAGE: REMOVING}}, {"persistentVolumeReclaimPolicy": "Delete"})


# Calling off


def call_off(old: Mapping[str, Any]) -> dict[str, Any]:
    """A return that has not come to its swap is called off: whoever carries it out is overtaken."""
    return _on(old, {"labels": {STAGE: CALLING_OFF}})


def discard_new(journal: Journal, new: Mapping[str, Any]) -> dict[str, Any]:
    """The new volume goes: it belongs to the temporary claim again, and with it to nobody."""
    annotations = new["metadata"].get("annotations") or {}
    spec: dict[str, Any] = {"persistentVolumeReclaimPolicy": "Delete"}
    if annotations.get(TEMPORARY):
        # A volume that is reserved would stay: only what was bound to a claim that is gone is removed.
        uid = annotations[TEMPORARY]
        spec["claimRef"] = {"namespace": journal.namespace, "name": journal.temporary, "uid": uid}
    return _on(new, {"labels": {NAMESPACE: journal.namespace, RETURN: journal.id, ROLE: NEW}}, spec)


def aside_again(journal: Journal, new: Mapping[str, Any]) -> dict[str, Any]:
    """The volume of the aside that was to come back is an aside as before."""
    reference = {"resourceVersion": None, **journal.new_ref}
    metadata = {"labels": {ROLE: KEPT}, "annotations": {JOURNAL: None}}
    return _on(new, metadata, {**_RETAIN, "claimRef": reference})


def release_old(journal: Journal, old: Mapping[str, Any]) -> dict[str, Any]:
    """The old volume, which the claim still has, is as it was before."""
    live = ONCE in (old["metadata"].get("annotations") or {})
    labels = {NAMESPACE: journal.namespace if live else None, RETURN: None, ROLE: LIVE if live else None, STAGE: None}
    metadata = {"labels": labels, "annotations": {JOURNAL: None}}
    return _on(old, metadata, {"persistentVolumeReclaimPolicy": journal.policy})


# Asides and tokens


def purge(aside: Mapping[str, Any]) -> dict[str, Any]:
    """An aside goes."""
    return _on(aside, {}, {"persistentVolumeReclaimPolicy": "Delete"})


def spend(namespace: str, volume: Mapping[str, Any], tokens: Mapping[str, int]) -> dict[str, Any]:
    """Tokens are used up, for the claim that this volume is bound to."""
    labels = {NAMESPACE: namespace, ROLE: (volume["metadata"].get("labels") or {}).get(ROLE, LIVE)}
    return _on(volume, {"labels": labels, "annotations": {ONCE: tokens_text(tokens)}})
