# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What returns have left: volumes kept as asides, tokens, unfinished returns; and what stands in the way of a new one.

Pure; called by swap.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ....core.backend import ROLL_BACK, Blocker
from ....core.errors import StoreError
from ....core.names import aside_name
from ....core.snapshot import Snapshot, timestamp
from .. import objects
from . import journal as j
from . import steps
from .journal import Journal, Kept

PROTECTION = "kubernetes.io/pvc-protection"
_VERBS = frozenset({ROLL_BACK})
Object = Mapping[str, Any]


@dataclass(frozen=True)
class Survey:
    """What there is to know of a claim before a return.

    Args:
        asides: what earlier returns kept, oldest first.
        returned: the ``once`` tokens that were used, with the time (seconds since the epoch).
        blockers: what forbids a return.
        open: words about an unfinished return, None where there is none. ``open_id`` is the id of its call, and
            ``open_source`` the uid of the VolumeSnapshot (or of the aside's volume) that it returns to.
        warnings: what a person should see to.
    """

    asides: tuple[Snapshot, ...] = ()
    returned: Mapping[str, int] = field(default_factory=dict)
    blockers: tuple[Blocker, ...] = ()
    open: str | None = None
    open_id: str | None = None
    open_source: str | None = None
    warnings: tuple[str, ...] = ()


def survey(
    namespace: str,
    claims: Mapping[str, Object | None],
    volumes: Sequence[Object],
    taking: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Survey]:
    """Return for each claim what returns have left.

    ``volumes`` may be all of the cluster. ``taking`` are the snapshots of each claim that are not ready.
    """
    mine = [volume for volume in volumes if objects.labels_of(volume).get(j.NAMESPACE) == namespace]
    faults: list[tuple[Object, str]] = []
    kept, journals = [], []
    for volume in mine:
        try:
            kept += [(found, volume) for found in [j.read_kept(volume)] if found is not None]
            journals += [(found, volume) for found in [open_journal(volume)] if found is not None]
        except StoreError as error:
            faults.append((volume, str(error)))
    return {
        name: _survey(
            f"{namespace}/{name}",
            claim,
            mine,
            [(each, volume) for each, volume in kept if each.claim == name],
            [(each, volume) for each, volume in journals if each.claim == name],
            [words for volume, words in faults if _concerns(volume, name, claim)],
            (taking or {}).get(name, ()),
        )
        for name, claim in claims.items()
    }


def _survey(
    target: str,
    claim: Object | None,
    volumes: Iterable[Object],
    kept: Sequence[tuple[Kept, Object]],
    journals: Sequence[tuple[Journal, Object]],
    faults: Sequence[str],
    taking: Sequence[str],
) -> Survey:
    asides = sorted((as_snapshot(each, volume, claim) for each, volume in kept), key=lambda each: each.order)
    bound = ((claim or {}).get("spec") or {}).get("volumeName")
    blockers: list[Blocker] = []
    returned: Mapping[str, int] = {}
    try:
        returned = j.tokens_of(next((each for each in volumes if each["metadata"]["name"] == bound), None))
    except StoreError as error:
        blockers.append(Blocker(target, str(error), "correct or remove that annotation", _VERBS))
    blockers += [Blocker(target, each, "correct or remove that annotation", _VERBS) for each in faults]
    if not journals:
        blockers += claim_blockers(target, claim, taking)
        return Survey(tuple(asides), returned, tuple(blockers))
    journal = journals[0][0]
    return Survey(
        tuple(asides),
        returned,
        tuple(blockers),
        f"a return to {journal.name} that began at {timestamp(journal.at)} is unfinished",
        journal.run,
        journal.source_uid,
        warnings=() if claim is not None else (f"{target} is missing in the middle of a return: run it again",),
    )


def _concerns(volume: Object, name: str, claim: Object | None) -> bool:
    """Say whether an annotation that cannot be read may be about a claim."""
    if ((claim or {}).get("spec") or {}).get("volumeName") == volume["metadata"]["name"]:
        return True
    return any(name in str(objects.annotations_of(volume).get(key)) for key in (j.JOURNAL, j.ASIDE))


def open_journal(volume: Object) -> Journal | None:
    """Return the journal of an unfinished return on a volume. One whose old volume is on its way out is finished."""
    return None if j.stage_of(volume) == j.REMOVING else j.read(volume)


def claim_blockers(target: str, claim: Object | None, taking: Sequence[str] = ()) -> list[Blocker]:
    """Return why a claim cannot be given another volume, as far as it shows itself. ``taking`` as in `survey`."""
    return [blocker(target, reason, remedy) for reason, remedy in claim_faults(claim, taking)]


def blocker(target: str, reason: str, remedy: str) -> Blocker:
    """Return a fact that forbids a return."""
    return Blocker(target, reason, remedy, _VERBS)


def claim_faults(claim: Object | None, taking: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Return reasons and remedies why a claim cannot be given another volume, as far as it shows itself.

    ``taking`` are the snapshots of it that are not ready.
    """
    if claim is None:
        return [("there is no such claim", "clone the snapshot (state cloned), or check the name")]
    metadata, spec = claim["metadata"], claim.get("spec") or {}
    found = []
    if metadata.get("deletionTimestamp"):
        found.append(("the claim is being deleted", "wait until it is gone, and clone the snapshot instead"))
    if objects.status_of(claim).get("phase") != "Bound" or not spec.get("volumeName"):
        phase = objects.status_of(claim).get("phase") or "unknown"
        found.append((f"the claim is not bound (phase {phase})", "see kubectl describe pvc"))
    foreign = sorted(set(metadata.get("finalizers") or []) - {PROTECTION})
    if foreign:
        found.append(_held(foreign, taking))
    if not spec.get("storageClassName"):
        found.append(
            ("the claim has no storage class, so no new volume can be made for it", "clone the snapshot instead")
        )
    return found


def _held(finalizers: Sequence[str], taking: Sequence[str]) -> tuple[str, str]:
    """Return the fault that finalizers would keep a claim, and what has set them where that is known."""
    reason = f"its deletion would wait for {', '.join(finalizers)}"
    if objects.AS_SOURCE in finalizers and taking:
        reason += f", which stays until snapshot {', '.join(taking)} of it is ready"
        return reason, "wait until that is ready, or remove it"
    return reason, "wait until what set that finalizer is done, or see to it"


def new_aside(at: int, taken: Iterable[str]) -> str:
    """Return what is set aside at that moment is called, and is not taken yet."""
    names = set(taken)
    name, number = aside_name(at), 2
    while name in names:
        name, number = f"{aside_name(at)}-{number}", number + 1
    return name


def as_snapshot(kept: Kept, volume: Object, claim: Object | None) -> Snapshot:
    """Return an aside in the common form. ``claim`` is what has the name of its claim now."""
    spec, phase = volume.get("spec") or {}, str(objects.status_of(volume).get("phase") or "")
    size = objects.quantity((spec.get("capacity") or {}).get("storage"))
    going = (volume["metadata"].get("deletionTimestamp"), spec.get("persistentVolumeReclaimPolicy") != "Retain")
    extra: dict[str, Any] = {
        "aside": True,
        "volume": volume["metadata"]["name"],
        "phase": phase,
        "returned_to": kept.returned_to,
        "storage_class": spec.get("storageClassName"),
        "handle": (spec.get("csi") or {}).get("volumeHandle"),
    }
    if any(going):
        extra["fault"] = "it is being removed"
    return Snapshot(
        backend="csi",
        target=f"{kept.namespace}/{kept.claim}",
        name=kept.name,
        created=kept.at,
        size_bytes=size,
        referenced_bytes=size,
        ready=not any(going),
        in_use="a claim is bound to it" if steps.is_taken(volume, kept.namespace, kept.claim, claim) else None,
        extra=extra,
    )
