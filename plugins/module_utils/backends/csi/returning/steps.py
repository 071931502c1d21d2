# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decides the next step of an in-place return from what is there. Pure; called by swap.py.

Nothing is remembered between two steps but the journal on the volumes. So a run that was killed anywhere, and one that
was overtaken by another, go on in the same way as one that was not: look, decide, act.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Union

from .. import objects
from . import journal as j
from .journal import Journal

# The steps, in order. Those that begin with "wait" are waited for; CHECK_PODS looks for users of the claim.
CREATE_TEMPORARY = "create the temporary claim"
WAIT_NEW = "wait for the new volume"
RETAIN_OLD = "retain the old volume"
RETAIN_NEW = "retain the new volume"
DELETE_TEMPORARY = "delete the temporary claim"
WAIT_TEMPORARY_GONE = "wait until the temporary claim is gone"
RESERVE = "reserve the new volume"
CHECK_PODS = "look for pods"
MARK = "mark the old volume"
DELETE_CLAIM = "delete the claim"
WAIT_CLAIM_GONE = "wait until the claim is gone"
CREATE_CLAIM = "create the claim"
WAIT_BOUND = "wait until the claim is bound"
CLOSE_NEW = "close the return on the new volume"
CLOSE_OLD = "close the return on the old volume"
REMOVE_OLD = "remove the old volume"
WAIT_OLD_GONE = "wait until the old volume is gone"
# Of calling off
CALL_OFF = "call the return off"
DISCARD_NEW = "discard the new volume"
ASIDE_AGAIN = "make the volume an aside again"
WAIT_NEW_GONE = "wait until the new volume is gone"
RELEASE_OLD = "let go of the old volume"
#: Steps from which on the claim's name may be without its claim. Before them, everything can be called off.
SWAP = (MARK, DELETE_CLAIM, WAIT_CLAIM_GONE, CREATE_CLAIM, WAIT_BOUND, CLOSE_NEW, CLOSE_OLD, REMOVE_OLD, WAIT_OLD_GONE)
WAITS = (WAIT_NEW, WAIT_TEMPORARY_GONE, WAIT_CLAIM_GONE, WAIT_BOUND, WAIT_OLD_GONE, WAIT_NEW_GONE)
DONE = "done"

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Scene:
    """What is there, of one return. ``pods`` are those that use the claim, in words; None while nobody has looked."""

    journal: Journal
    claim: Object | None
    temporary: Object | None
    old: Object | None
    new: Object | None
    pods: tuple[str, ...] | None = None

    @property
    def unfinished(self) -> bool:
        """Whether a volume still carries the journal of this return."""
        return any(_carries(volume, self.journal) for volume in (self.old, self.new))

    @property
    def stage(self) -> str | None:
        """How far the return has come; None where the old volume does not say so any more."""
        return j.stage_of(self.old) if self.old is not None and _carries(self.old, self.journal) else None

    @property
    def labelled(self) -> Object | None:
        """The new volume, once it is known by its labels: it is retained, and proven."""
        new = self.new
        mine = new is not None and j.id_of(new) == self.journal.id and j.role_of(new) in (j.NEW, j.LIVE)
        return new if mine else None


@dataclass(frozen=True)
class Problem:
    """Why a return does not go on: the reason, and the remedy."""

    reason: str
    remedy: str


#: The words of the next step, or why there is none.
Next = Union[str, Problem]


def next_step(scene: Scene) -> Next:
    """Return the next step of a return, DONE, or why it does not go on."""
    if not scene.unfinished:
        return _afterwards(scene)
    if scene.stage == j.REMOVING:
        return WAIT_OLD_GONE
    if _left_over(scene):
        return _leaving(scene)
    new = scene.labelled
    if new is not None and (_bound(scene.claim, new) or (_over(scene) and _was_claims(scene, new))):
        return _closing(scene, new)
    if new is not None and not _carries(new, scene.journal):
        return CLOSE_OLD  # it has been closed, and the claim went on since; if not, this patch comes too late as well
    if scene.stage == j.CALLING_OFF:
        return Problem("it is being called off, by another run or one that was killed", "run again")
    if scene.old is not None and _policy(scene.old) != "Retain":
        return RETAIN_OLD
    if new is None:
        return _making(scene)
    if _policy(new) != "Retain":
        return RETAIN_NEW
    if _own_temporary(scene) is not None:
        return WAIT_TEMPORARY_GONE if _going(scene.temporary) else DELETE_TEMPORARY
    if not _reserved(scene, new):
        return _reserving(scene, new)
    return _swapping(scene, new)


def _over(scene: Scene) -> bool:
    """Say whether the old volume, which is there, does not know of this return any more."""
    return scene.old is not None and scene.stage is None


def _left_over(scene: Scene) -> bool:
    """Say whether the return is over, and this is a second new volume that an overtaken run has made meanwhile."""
    new = scene.labelled
    if new is None or not _over(scene) or j.role_of(new) != j.NEW:
        return False
    return not wants(scene.claim, new) and not _was_claims(scene, new)


def _was_claims(scene: Scene, new: Object) -> bool:
    """Say whether a new volume has been the claim's once: what somebody has written may lie in it."""
    reference = _ref(new)
    return reference.get("name") == scene.journal.claim and bool(reference.get("uid"))


def _leaving(scene: Scene) -> Next:
    if scene.journal.mode == j.BY_ASIDE:
        return ASIDE_AGAIN
    return WAIT_NEW_GONE if scene.new is None or _discarded(scene, scene.new) else DISCARD_NEW


def _making(scene: Scene) -> Next:
    """Steps 2 to 4: a new volume, proven."""
    journal, temporary, new = scene.journal, scene.temporary, scene.new
    other = _other_claim(scene)
    if other is not None:
        return other
    if journal.mode == j.BY_ASIDE:
        fault = _no_aside(scene)
        return fault or RETAIN_NEW
    if temporary is None:
        return CREATE_TEMPORARY
    if _own_temporary(scene) is None:
        return Problem(
            f"there is a claim {journal.temporary} that is not of this return", "rename or remove that claim"
        )
    if _going(temporary):
        return WAIT_TEMPORARY_GONE
    lost = objects.status_of(temporary).get("phase") == "Lost"
    if not _is_bound(temporary) and not lost:
        return WAIT_NEW
    if new is None or lost:
        return Problem(
            f"the volume of claim {journal.temporary} is gone", f"remove claim {journal.temporary}, run again"
        )
    return verify(scene) or RETAIN_NEW


def _other_claim(scene: Scene) -> Problem | None:
    """Before there is a new volume, the claim has to be the one that the return began with, or none."""
    if scene.claim is None or _uid(scene.claim) == scene.journal.claim_uid:
        return None
    return Problem("the claim was made anew by somebody since the return began", "call the return off, then begin anew")


def _no_aside(scene: Scene) -> Problem | None:
    journal, new = scene.journal, scene.new
    if new is None:
        return Problem(f"the volume {journal.source} of {journal.name} is gone", "call the return off")
    taken = is_taken(new, journal.namespace, journal.claim, scene.claim)
    if _uid(new) != journal.source_uid or taken or _policy(new) != "Retain":
        reason = f"the volume {journal.source} of {journal.name} is in use, or is not retained any more"
        return Problem(reason, "call the return off, and see who has taken it")
    return None


def is_taken(volume: Object, namespace: str, name: str, claim: Object | None) -> bool:
    """Say whether an aside is bound, as far as that is true: a volume is called Bound a moment longer than it is.

    ``claim`` is what has the name now, looked up after the volume. Where the volume is bound to an earlier one of that
    name, that one is gone.
    """
    reference = _ref(volume)
    earlier = (reference.get("namespace"), reference.get("name")) == (namespace, name) and bool(reference.get("uid"))
    gone = earlier and (claim is None or _uid(claim) != reference.get("uid"))
    return objects.status_of(volume).get("phase") == "Bound" and not gone


def verify(scene: Scene) -> Problem | None:
    """Prove that the new volume is what was asked for (step 3); return what is wrong with it."""
    journal, temporary, new, old = scene.journal, scene.temporary or {}, scene.new or {}, scene.old or {}
    reference = (new.get("spec") or {}).get("claimRef") or {}
    source = (temporary.get("spec") or {}).get("dataSource") or {}
    mine, theirs = _csi(new), _csi(old)
    size = objects.quantity(((new.get("spec") or {}).get("capacity") or {}).get("storage")) or 0
    checks = {
        "it is bound to another claim": reference.get("uid") == _uid(temporary),
        "it is being deleted": not _going(new),
        f"it was not made from {journal.source}": (source.get("kind"), source.get("name"))
        == ("VolumeSnapshot", journal.source),
        f"it has {size} bytes instead of {journal.size}": size >= journal.size,
        f"its driver is {mine.get('driver')}, not {theirs.get('driver')}": mine.get("driver") == theirs.get("driver")
        or not theirs,
        "it is the old volume under another name": bool(mine.get("volumeHandle"))
        and (mine.get("driver"), mine.get("volumeHandle")) != (theirs.get("driver"), theirs.get("volumeHandle")),
        "its storage class is another one": _class_of(new) == (journal.spec.get("storageClassName") or ""),
        "its volume mode is another one": _mode(new) == (journal.spec.get("volumeMode") or "Filesystem"),
    }
    wrong = [words for words, right in checks.items() if not right]
    if not wrong:
        return None
    name = (new.get("metadata") or {}).get("name")
    return Problem(f"the new volume {name} is not as it has to be: {', '.join(wrong)}", "see to the driver, run again")


def _reserving(scene: Scene, new: Object) -> Next:
    reference = _ref(new)
    expected = {scene.journal.claim, scene.journal.temporary, ""}
    if reference.get("namespace") not in (scene.journal.namespace, None) or reference.get("name", "") not in expected:
        by = f"{reference.get('namespace')}/{reference.get('name')}"
        return Problem(f"somebody has bound the new volume {_name(new)} to {by}", "call the return off")
    return RESERVE


def _swapping(scene: Scene, new: Object) -> Next:
    """Steps 7 to 9, with the new volume reserved for the claim's name."""
    journal, claim, old = scene.journal, scene.claim, scene.old
    ours = claim is not None and _uid(claim) == journal.claim_uid
    if claim is not None and not ours:
        return _taken_over(claim, new)
    if ours and old is None:
        return Problem(f"the object of the old volume {journal.old} is gone", "call the return off")
    if ours and not _going(claim):
        if not _pair(claim, old):
            return Problem(f"the claim is not bound to its volume {journal.old} any more", "see why, run again")
        if scene.pods is None:
            return CHECK_PODS
        if scene.pods:
            return in_use(scene.pods)
    if old is not None and scene.stage != j.SWAPPING:
        return MARK
    if claim is None:
        return CREATE_CLAIM
    return WAIT_CLAIM_GONE if _going(claim) else DELETE_CLAIM


def in_use(pods: tuple[str, ...]) -> Problem:
    """Return the problem that pods use a claim that has to let go."""
    return Problem(f"it is used by {', '.join(pods)}", "stop what uses it (stop_workloads does), and run again")


def _taken_over(claim: Object, new: Object) -> Next:
    """A StatefulSet, or somebody, has made the claim again: it is welcome when the reserved volume is its own."""
    if _going(claim):
        return WAIT_CLAIM_GONE
    volume = (claim.get("spec") or {}).get("volumeName")
    if objects.status_of(claim).get("phase") == "Lost":
        return Problem(f"the claim has lost its volume {volume}", "remove that claim, and run again")
    if volume in (None, "", _name(new)):
        return WAIT_BOUND
    reason = f"the claim was made anew by somebody, and is bound to {volume} instead of {_name(new)}"
    return Problem(reason, "remove that claim if nothing in it is needed, and run again")


def _closing(scene: Scene, new: Object) -> Next:
    """Steps 10 to 12: the claim has the new volume.

    The new volume is closed last, because the token is written there. Where the old volume is to go, that is last.
    """
    if scene.journal.keep and scene.old is not None and _carries(scene.old, scene.journal):
        return CLOSE_OLD
    return CLOSE_NEW if _carries(new, scene.journal) else REMOVE_OLD


def _afterwards(scene: Scene) -> Next:
    """Clean up after a return that another run has ended: a temporary claim that was made too late."""
    if _own_temporary(scene) is None:
        return DONE
    new = scene.new
    if new is not None and _policy(new) != "Delete" and _pair(scene.temporary, new):
        return DISCARD_NEW
    return WAIT_TEMPORARY_GONE if _going(scene.temporary) else DELETE_TEMPORARY


def nearly_done(scene: Scene) -> bool:
    """Say whether the claim has its new volume, so that only notes are to be taken off."""
    new = scene.labelled
    return new is not None and _bound(scene.claim, new)


def select_new(journal: Journal, claim: Object | None, volumes: Iterable[Object], over: bool) -> Object | None:
    """Return the new volume of a return by its labels. Two are there only where an overtaken run has made another one.

    Args:
        over: the old volume does not carry the journal any more: then what still does is left over.
    """
    mine = [each for each in volumes if j.id_of(each) == journal.id and j.role_of(each) in (j.NEW, j.LIVE)]

    def order(volume: Object) -> tuple[bool, bool, str]:
        reserved = _ref(volume).get("name") == journal.claim
        return (not (_carries(volume, journal) if over else wants(claim, volume)), not reserved, _name(volume))

    return min(mine, key=order, default=None)


# Calling off


def off_step(scene: Scene) -> Next:
    """Return the next step of calling a return off, DONE, or why it cannot be."""
    journal, new = scene.journal, scene.new
    if not scene.unfinished:
        return _afterwards(scene)
    if _left_over(scene):
        return _leaving(scene)
    if scene.old is None and _carries(scene.new, journal):
        return Problem(f"the object of the old volume {journal.old} is gone", "see the runbook: complete it by hand")
    if scene.stage not in (j.PREPARING, j.CALLING_OFF):
        return Problem("its swap has begun", "run the return again, which completes it, and undo it then")
    if new is not None and (wants(scene.claim, new) or _name(new) == journal.old):
        return Problem(f"the claim has the new volume {_name(new)} already", "see the runbook: complete it by hand")
    if scene.stage == j.PREPARING:
        return CALL_OFF
    if journal.mode == j.BY_ASIDE:
        return ASIDE_AGAIN if scene.labelled is not None else RELEASE_OLD
    if new is not None and not _discarded(scene, new):
        return DISCARD_NEW
    if _own_temporary(scene) is not None:
        return WAIT_TEMPORARY_GONE if _going(scene.temporary) else DELETE_TEMPORARY
    return RELEASE_OLD if new is None else WAIT_NEW_GONE


def claim_kept(scene: Scene) -> bool:
    """Say whether the old volume is still the claim's: only then it may have its own reclaim policy again."""
    claim = scene.claim
    if claim is None or scene.old is None or _uid(claim) != scene.journal.claim_uid or _going(claim):
        return False
    return _pair(claim, scene.old)


def has_kept(journal: Journal, claim: Object | None) -> bool:
    """Say whether the claim that the return began with is still there, and on its old volume."""
    if claim is None or _uid(claim) != journal.claim_uid or _going(claim):
        return False
    return (claim.get("spec") or {}).get("volumeName") == journal.old


def _discarded(scene: Scene, new: Object) -> bool:
    reference = _ref(new)
    to_temporary = reference.get("name") == scene.journal.temporary and bool(reference.get("uid"))
    return _policy(new) == "Delete" and to_temporary


# Reading


def _carries(volume: Object | None, journal: Journal) -> bool:
    return volume is not None and j.id_of(volume) == journal.id and j.JOURNAL in objects.annotations_of(volume)


def _own_temporary(scene: Scene) -> Object | None:
    """Return the temporary claim, if that is what has its name."""
    temporary = scene.temporary
    if temporary is None or objects.annotations_of(temporary).get(j.RETURN) != scene.journal.id:
        return None
    return temporary


def _reserved(scene: Scene, new: Object) -> bool:
    reference, journal = _ref(new), scene.journal
    if (reference.get("namespace"), reference.get("name")) != (journal.namespace, journal.claim):
        return False
    uid = reference.get("uid")
    return not uid or (scene.claim is not None and uid == _uid(scene.claim))


def _bound(claim: Object | None, new: Object) -> bool:
    return claim is not None and _is_bound(claim) and not _going(claim) and _pair(claim, new)


def _pair(claim: Object | None, volume: Object | None) -> bool:
    """Say whether claim and volume name each other."""
    if claim is None or volume is None:
        return False
    return (claim.get("spec") or {}).get("volumeName") == _name(volume) and _ref(volume).get("uid") == _uid(claim)


def wants(claim: Object | None, volume: Object | None) -> bool:
    """Say whether a claim names a volume, or a volume this claim: they are bound, or about to be."""
    if claim is None or volume is None:
        return False
    return (claim.get("spec") or {}).get("volumeName") == _name(volume) or _ref(volume).get("uid") == _uid(claim)


def _is_bound(claim: Object) -> bool:
    return objects.status_of(claim).get("phase") == "Bound"


def _going(item: Object | None) -> bool:
    return item is not None and bool((item.get("metadata") or {}).get("deletionTimestamp"))


def _name(item: Object) -> str:
    return str(item["metadata"]["name"])


def _uid(item: Object) -> str:
    return str((item.get("metadata") or {}).get("uid"))


def _policy(volume: Object) -> str:
    return str((volume.get("spec") or {}).get("persistentVolumeReclaimPolicy"))


def _ref(volume: Object) -> Mapping[str, Any]:
    return (volume.get("spec") or {}).get("claimRef") or {}


def _csi(volume: Object) -> Mapping[str, Any]:
    return (volume.get("spec") or {}).get("csi") or {}


def _class_of(volume: Object) -> str:
    return str((volume.get("spec") or {}).get("storageClassName") or "")


def _mode(volume: Object) -> str:
    return str((volume.get("spec") or {}).get("volumeMode") or "Filesystem")
