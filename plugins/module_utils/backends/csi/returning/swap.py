# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Returns claims in place, many together; undoes that, calls it off, and removes what was kept. Called by the backend.

The order of the steps is what keeps the data (docs/csi-return.md): the old volume is retained before anything else, the
new one is proven before the old claim lets go, and neither is ever free for anybody else. steps.py decides, this file
begins and reports, carrying.py carries out.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Union

from .... import kube_resources as api
from ....core.backend import Blocker
from ....core.errors import NotBegun, RestorePointError
from ....core.snapshot import timestamp
from ....deadline import Deadline
from ....kube import KubeClient
from ....kube_login import KubeError
from .. import objects
from ..watching import Waiter
from . import asides, changes, steps
from . import journal as j
from .asides import Survey
from .carrying import Carrier, Case, Why, no_reasons
from .journal import Journal
from .owners import Owners
from .world import World

#: Seconds for which a call that failed, at its deadline too, cleans up.
_CLEANING = 60.0
#: So often a volume is looked at again that a controller changes at the same time.
_MOST_CONFLICTS = 10
#: Annotations that cannot be of use in a journal, and may be long.
_DROPPED = ("pv.kubernetes.io/", "volume.kubernetes.io/", "volume.beta.kubernetes.io/")
Outcome = Union[Mapping[str, Any], RestorePointError]
Object = Mapping[str, Any]


@dataclass(frozen=True)
class Return:
    """A claim that is to hold the data of a VolumeSnapshot again.

    Args:
        claim: its name. ``name`` is what the snapshot is called in results.
        snapshot: the VolumeSnapshot, ready.
        size: bytes that the snapshot needs; the volume has at least what the old one has.
        once: the token of this return. ``keep``: keep the old volume as an aside.
    """

    claim: str
    name: str
    snapshot: Object
    size: int
    once: str | None = None
    keep: bool = True

    @property
    def mode(self) -> str:
        """How its journal calls it."""
        return j.BY_SNAPSHOT

    @property
    def source_uid(self) -> str:
        """The uid of what is returned to."""
        return str(self.snapshot["metadata"]["uid"])


@dataclass(frozen=True)
class Undo:
    """A claim that is to have a volume again that an earlier return kept: the newest aside, or the named one.

    ``forget`` is a token that is not used up any more then: that of a return which is taken back because another one of
    its call failed.
    """

    claim: str
    aside: str | None = None
    once: str | None = None
    forget: str | None = None


@dataclass(frozen=True)
class _Back:
    """An undo whose volume is known."""

    claim: str
    name: str
    volume: Object
    once: str | None
    forget: str | None = None
    keep: bool = True
    mode: str = j.BY_ASIDE

    @property
    def source_uid(self) -> str:
        return str(self.volume["metadata"]["uid"])


_Asked = Union[Return, _Back]
BeforeSwap = Callable[[Sequence[str]], None]


def _nothing(_claims: Sequence[str]) -> None:
    """Do nothing before the swap."""


class Swap:
    """Returns claims of one namespace in place.

    ``id`` is the id of this call's returns, valid as a label's value. ``recovered`` tells what was found of killed runs
    and completed or called off.

    Args:
        client: the login.
        namespace: that of the claims.
        deadline: when to give up waiting. What failed is cleaned up for a minute more.
        now: seconds since the epoch.
        sleep: waits for so many seconds.
        why: says for objects, by their uid, why they are not as wanted.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        deadline: Deadline,
        now: Callable[[], int],
        sleep: Callable[[float], None] = time.sleep,
        why: Why = no_reasons,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._deadline = deadline
        self._now = now
        self._world = World(client, namespace)
        self._owners = Owners(client, namespace)
        self._carrier = Carrier(client, self._world, self._owners, deadline, sleep, why)
        self._sleep = sleep
        self.id = uuid.uuid4().hex[:10]
        self.recovered: list[str] = []

    # Looking

    def survey(
        self,
        claims: Mapping[str, Object | None],
        volumes: Sequence[Object],
        taking: Mapping[str, Sequence[str]] | None = None,
    ) -> dict[str, Survey]:
        """Return what earlier returns have left for each claim. Makes no request.

        ``taking`` are the snapshots of each claim that are not ready, which may keep it.
        """
        return asides.survey(self._namespace, claims, volumes, taking)

    def blockers(self, claims: Iterable[Object]) -> dict[str, list[Blocker]]:
        """Return why claims cannot be made again, as far as it has to be asked for: owners that are gone."""
        found: dict[str, list[Blocker]] = {}
        for claim in claims:
            name = str(claim["metadata"]["name"])
            found[name] = [
                asides.blocker(f"{self._namespace}/{name}", reason, remedy)
                for reason, remedy in self._owner_faults(claim)
            ]
        return found

    def _owner_faults(self, claim: Object) -> list[tuple[str, str]]:
        gone = self._owners.gone(claim["metadata"].get("ownerReferences") or [])
        remedy = "take that ownerReference off the claim, or Kubernetes removes the claim as garbage"
        return [(f"its owner {each['kind']} {each['name']} is gone", remedy) for each in gone]

    # Returning

    def carry_out(self, returns: Sequence[Return], before_swap: BeforeSwap = _nothing) -> list[Outcome]:
        """Return claims to snapshots.

        Args:
            returns: one for each claim.
            before_swap: called once with the claims, after all new volumes are proven and before the first old claim
                lets go. When it raises, everything is called off.

        Returns:
            What there is to tell of each, in order, or why it failed. Where one fails before the swap, nothing of this
            call counts. After that each stands for itself; what is unfinished is completed by the next run.
        """
        try:
            self._world.look()
        except RestorePointError as error:
            return [error for _unused in returns]
        return self._all(returns, before_swap)

    def undo(self, undos: Sequence[Undo], before_swap: BeforeSwap = _nothing) -> list[Outcome]:
        """Give claims the volumes back that earlier returns kept; the present ones are kept. See ``carry_out``."""
        try:
            self._world.look()
            asked = [self._back(each) for each in undos]
        except RestorePointError as error:
            return [error for _unused in undos]
        faults = [each for each in asked if isinstance(each, RestorePointError)]
        if faults:
            waits = NotBegun(f"undo the returns in namespace {self._namespace}", str(faults[0]))
            return [each if isinstance(each, RestorePointError) else waits for each in asked]
        return self._all([each for each in asked if isinstance(each, _Back)], before_swap)

    def _back(self, undo: Undo) -> _Back | RestorePointError:
        """Find the volume of an aside; of an unfinished undo the one that it has chosen."""
        for journal in self._world.journals([undo.claim]):
            if journal.mode == j.BY_ASIDE and undo.aside in (None, journal.name):
                volume = self._world.volume(journal.source)
                if volume is not None:
                    return _Back(undo.claim, journal.name, volume, undo.once, undo.forget)
        kept = self._kept(undo.claim)
        name = undo.aside or max(kept, key=lambda each: (kept[each][0], each), default="")
        if name not in kept:
            known = ", ".join(sorted(kept)) or "none"
            reason = f"there is no aside {name}" if name else "no return has kept a volume of it"
            return RestorePointError(
                f"undo the return of {self._namespace}/{undo.claim}", reason, f"choose one that is there: {known}"
            )
        return _Back(undo.claim, name, kept[name][1], undo.once, undo.forget)

    def _kept(self, claim: str) -> dict[str, tuple[int, dict[str, Any]]]:
        found = {}
        for volume in self._world.volumes.values():
            if j.role_of(volume) != j.KEPT:
                continue
            kept = j.read_kept(volume)
            if kept is not None and kept.claim == claim and kept.namespace == self._namespace:
                found[kept.name] = (kept.at, volume)
        return found

    def _all(self, asked: Sequence[_Asked], before_swap: BeforeSwap) -> list[Outcome]:
        begun = [self._begin(each) for each in asked]
        cases = [each for each in begun if isinstance(each, Case)]
        first = next((each for each in begun if isinstance(each, RestorePointError)), None)
        first = first or self._prepare(cases, asked, before_swap)
        if first is not None:
            self._give_up(cases, first)
        else:
            self._carrier.carry(cases, steps.next_step)
            self._ended_well(cases)
        return [each if isinstance(each, RestorePointError) else each.error or self._told(each) for each in begun]

    def _ended_well(self, cases: Sequence[Case]) -> None:
        """Where nothing is left to do, but the claim has no new volume, another run has called the return off."""
        for case in cases:
            if case.error is None and not steps.nearly_done(self._world.scene(case.journal)):
                reason = "another run has called it off meanwhile, or changed the claim"
                case.error = RestorePointError(case.attempt, reason, "look at the claim, and run again")

    def _prepare(
        self, cases: Sequence[Case], asked: Sequence[_Asked], before_swap: BeforeSwap
    ) -> RestorePointError | None:
        """Lead all to where their swap begins; return the first error."""
        for case, each in zip(cases, asked):
            self._open(case, each)
        if _first(cases) is None:
            self._carrier.carry(cases, steps.next_step, until=(steps.CHECK_PODS, *steps.SWAP))
        if _first(cases) is None:
            try:
                before_swap([case.journal.claim for case in cases])
            except RestorePointError as error:
                return error
            self._carrier.ready(cases)
        return _first(cases)

    def _give_up(self, cases: Sequence[Case], first: RestorePointError) -> None:
        """Call off what has not come to its swap; those that did not fail themselves were not begun."""
        self._deadline.leave(_CLEANING)
        offs = {
            index: Case(case.journal, f"call off the return of {case.journal.target}", opened=True)
            for index, case in enumerate(cases)
            if case.opened and self._carrier.stage(case) in (j.PREPARING, j.CALLING_OFF)
        }
        self._carrier.look(list(offs.values()))  # a request that failed may have counted
        self._carrier.carry(list(offs.values()), steps.off_step)
        for index, case in enumerate(cases):
            case.error = case.error or NotBegun(case.attempt, str(first))
            off = offs[index].error if index in offs else None
            if off is not None:
                remedy = f"{case.error.remedy}; what was made for it is still there ({off.reason}): run again"
                case.error = RestorePointError(case.error.attempt, case.error.reason, remedy)
            elif self._carrier.stage(case) == j.SWAPPING:
                remedy = f"{case.error.remedy}; a killed run had begun its swap: run again, which completes it"
                case.error = RestorePointError(case.error.attempt, case.error.reason, remedy)

    def _begin(self, asked: _Asked) -> Case | RestorePointError:
        """Return the case of what was asked: its journal is a new one, or that of a killed run with the same aim."""
        attempt = f"return {self._namespace}/{asked.claim} to {asked.name}"
        try:
            mine = self._clear(asked)
            if mine is None:
                return Case(self._journal(asked, attempt), attempt)
        except RestorePointError as error:
            return error
        self.recovered.append(f"{mine.target}: a return that began at {timestamp(mine.at)} was resumed")
        return Case(mine, attempt, opened=True, resumed=True)

    def _clear(self, asked: _Asked) -> Journal | None:
        """Complete or call off unfinished returns of a claim that have another aim; return the one with the same."""
        for journal in self._world.journals([asked.claim]):
            if (journal.mode, journal.source_uid) == (asked.mode, asked.source_uid):
                scene = self._world.scene(journal)
                if scene.stage != j.CALLING_OFF and not isinstance(steps.next_step(scene), steps.Problem):
                    return journal
                if scene.stage == j.SWAPPING:
                    return journal
            elif self._alive(journal) and not steps.nearly_done(self._world.scene(journal)):
                until = timestamp(journal.until)
                raise RestorePointError(
                    f"return {journal.target} to {asked.name}",
                    f"a return to {journal.name} has begun and is not finished",
                    f"wait for it (at most until {until}), run that one again, or call it off",
                )
            self.recovered.append(self._recover(journal))
            self._world.look()
        return None

    def _alive(self, journal: Journal) -> bool:
        """Say whether the run that began a return may still be at work."""
        return self._now() < journal.until

    # Recovering

    def recover(self, claims: Sequence[str] | None = None) -> list[str]:
        """Complete or call off what killed runs have left of these claims, or of all; return what was done, in words.

        A return whose run may still be at work is left alone.

        Raises:
            RestorePointError: one of them could be neither completed nor called off.
        """
        self._world.look()
        found = []
        for journal in self._world.journals(claims):
            if self._alive(journal) and not steps.nearly_done(self._world.scene(journal)):
                found.append(f"{journal.target}: a return to {journal.name} is under way, or was killed")
            else:
                found.append(self._recover(journal))
        return found

    def _recover(self, journal: Journal) -> str:
        scene = self._world.scene(journal)
        what = (
            f"{journal.target}: a return to {journal.name} that began at {timestamp(journal.at)} and was not finished"
        )
        if scene.stage == j.SWAPPING or not isinstance(steps.off_step(scene), str):
            self._one(Case(journal, f"complete the return of {journal.target} to {journal.name}", opened=True), on=True)
            return f"{what} was completed"
        self._one(Case(journal, f"call off the return of {journal.target} to {journal.name}", opened=True), on=False)
        return f"{what} was called off"

    def _one(self, case: Case, on: bool) -> None:
        self._carrier.carry([case], steps.next_step if on else steps.off_step)
        if case.error is not None:
            raise case.error

    def call_off(self, claims: Sequence[str]) -> list[Outcome]:
        """Call off the unfinished returns of claims, as long as their swap has not begun."""
        outcomes: list[Outcome] = []
        try:
            self._world.look()
        except RestorePointError as error:
            return [error for _unused in claims]
        for claim in claims:
            try:
                journals = self._world.journals([claim])
                for journal in journals:
                    self._one(Case(journal, f"call off the return of {journal.target}", opened=True), on=False)
                outcomes.append({"called_off": [journal.name for journal in journals], "changed": bool(journals)})
            except RestorePointError as error:
                outcomes.append(error)
        return outcomes

    # A new journal

    def _journal(self, asked: _Asked, attempt: str) -> Journal:
        claim = self._world.claims.get(asked.claim)
        faults = [*asides.claim_faults(claim), *(self._owner_faults(claim) if claim is not None else [])]
        if claim is None or faults:
            raise RestorePointError(attempt, *faults[0])
        volume = self._world.volume(str(claim["spec"]["volumeName"]))
        reference = ((volume or {}).get("spec") or {}).get("claimRef") or {}
        if volume is None or reference.get("uid") != claim["metadata"]["uid"]:
            raise RestorePointError(attempt, "its volume does not know the claim", "see kubectl describe pvc")
        if j.role_of(volume) not in (None, j.LIVE) or j.JOURNAL in objects.annotations_of(volume):
            raise RestorePointError(attempt, "another run is returning it at the same time", "run again")
        if "csi" not in volume["spec"]:
            raise RestorePointError(attempt, "its volume is not of a CSI driver", "use the module of that storage")
        if isinstance(asked, Return):
            return self._by_snapshot(asked, claim, volume)
        reason = _unlike(claim, asked.volume)
        if reason is not None:
            raise RestorePointError(attempt, reason, "choose another aside")
        return self._written(asked, claim, volume, "", str(asked.volume["metadata"]["name"]), 0, asked.volume)

    def _by_snapshot(self, asked: Return, claim: Object, volume: Object) -> Journal:
        temporary = changes.temporary_name(asked.claim, self.id)
        there = objects.quantity(((volume["spec"].get("capacity")) or {}).get("storage")) or 0
        size = max(asked.size, there, objects.capacity(claim))
        return self._written(asked, claim, volume, temporary, str(asked.snapshot["metadata"]["name"]), size, None)

    def _written(
        self,
        asked: _Asked,
        claim: Object,
        volume: Object,
        temporary: str,
        source: str,
        size: int,
        back: Object | None,
    ) -> Journal:
        at, metadata = self._now(), claim["metadata"]
        tokens = {**(j.tokens_of(back) if back else {}), **j.tokens_of(volume)}
        if isinstance(asked, _Back) and asked.forget is not None:
            tokens.pop(asked.forget, None)
        annotations = {key: text for key, text in objects.annotations_of(claim).items() if not key.startswith(_DROPPED)}
        return Journal(
            id=j.id_for(self.id, asked.claim),
            mode=asked.mode,
            namespace=self._namespace,
            claim=asked.claim,
            claim_uid=str(metadata["uid"]),
            old=str(volume["metadata"]["name"]),
            policy=str(volume["spec"].get("persistentVolumeReclaimPolicy") or "Delete"),
            source=source,
            source_uid=asked.source_uid,
            name=asked.name,
            size=size,
            at=at,
            until=at + int(self._deadline.left()) + int(_CLEANING),
            aside=asides.new_aside(at, self._kept(asked.claim)),
            temporary=temporary,
            spec={key: value for key, value in claim["spec"].items() if key != "volumeName"},
            labels=objects.labels_of(claim),
            annotations=annotations,
            owners=tuple(metadata.get("ownerReferences") or ()),
            new_ref=dict((back or {}).get("spec", {}).get("claimRef") or {}),
            node=objects.annotations_of(claim).get(changes.SELECTED_NODE) or _node_of(volume),
            keep=asked.keep,
            once=asked.once or "",
            tokens=tokens,
        )

    def _open(self, case: Case, asked: _Asked) -> None:
        """Step 1, where no killed run has done it. A controller may change the volume at the same time."""
        tries = 0
        while not case.opened and case.error is None:
            old = case.journal.old
            try:
                body = changes.open_old(case.journal, self._world.volumes[old])
                self._world.volumes[old] = self._client.patch(case.attempt, api.VOLUMES, None, old, body)
                case.opened = True
            except KubeError as error:
                tries += 1
                if error.status != 409 or tries > _MOST_CONFLICTS:
                    case.error = error
                else:
                    self._again(case, asked)

    def _again(self, case: Case, asked: _Asked) -> None:
        """Look at the claim and its volume once more, and write the journal anew."""
        try:
            self._world.volumes.pop(case.journal.old, None)
            self._world.look_at_claim(case.journal.claim)
            case.journal = self._journal(asked, case.attempt)
        except RestorePointError as error:
            case.error = error

    def _told(self, case: Case) -> dict[str, Any]:
        journal, scene = case.journal, self._world.scene(case.journal)
        new = scene.new
        return {
            "aside": journal.aside if journal.keep else None,
            "old_volume": journal.old,
            "new_volume": None if new is None else new["metadata"]["name"],
            "resumed": case.resumed,
        }

    # Asides and tokens

    def purge(self, wanted: Sequence[tuple[str, str]]) -> list[Outcome]:
        """Remove asides, each a claim's name and the aside's, and wait until their volumes are gone."""
        try:
            self._world.look()
            volumes = [self._kept(claim).get(name, (0, None))[1] for claim, name in wanted]
        except RestorePointError as error:
            return [error for _unused in wanted]
        outcomes = [self._removing(each, volume) for each, volume in zip(wanted, volumes)]
        going = {str(each["volume"]) for each in outcomes if not isinstance(each, RestorePointError) and each["volume"]}
        waiting = self._gone(going)
        return [
            each if isinstance(each, RestorePointError) or each["volume"] not in waiting else waiting[each["volume"]]
            for each in outcomes
        ]

    def _removing(self, wanted: tuple[str, str], volume: Object | None) -> Outcome:
        attempt = f"remove {wanted[1]} of {self._namespace}/{wanted[0]}"
        if volume is None:
            return {"volume": None}
        name = str(volume["metadata"]["name"])

        def going(found: Object) -> dict[str, Any]:
            if steps.is_taken(found, self._namespace, wanted[0], self._world.claims.get(wanted[0])):
                raise RestorePointError(attempt, f"a claim is bound to its volume {name}", "remove that claim first")
            return changes.purge(found)

        try:
            self._patch(attempt, volume, going)
        except RestorePointError as error:
            return {"volume": None} if isinstance(error, KubeError) and error.status == 404 else error
        return {"volume": name}

    def _patch(self, attempt: str, volume: Object, body_of: Callable[[Object], dict[str, Any]]) -> None:
        """Patch a volume by what it is like; one that a controller has changed meanwhile is looked at again.

        Raises:
            KubeError: ``status`` 404 for one that is gone; what ``body_of`` raises.
        """
        name = str(volume["metadata"]["name"])
        for left in reversed(range(_MOST_CONFLICTS)):
            try:
                self._client.patch(attempt, api.VOLUMES, None, name, body_of(volume))
                break
            except KubeError as error:
                if error.status != 409 or not left:
                    raise
                volume = self._client.get(attempt, api.VOLUMES, None, name)

    def _gone(self, names: Collection[str]) -> dict[str, RestorePointError]:
        """Wait until volumes are gone; return an error for each that is still there at the deadline."""
        attempt = "wait until the volumes of asides are gone"
        waiter = Waiter(self._client, self._deadline, self._sleep)
        selector = f"{j.NAMESPACE}={self._namespace}"
        try:
            seen = waiter.wait(
                attempt, api.VOLUMES, None, {name: lambda item: item is None for name in names}, selector
            )
        except RestorePointError as error:
            return {name: error for name in names}
        return {name: self._carrier.still_there(name, seen.objects[name]) for name in seen.waiting}

    def spend(self, claim: Object, token: str) -> None:
        """Remember that a ``once`` token is used up, for a claim that needs no return.

        Raises:
            RestorePointError: it cannot be written.
        """
        name = str(claim["metadata"]["name"])
        attempt = f"remember token {token!r} for {self._namespace}/{name}"
        volume = self._client.get(attempt, api.VOLUMES, None, str(claim["spec"]["volumeName"]))

        def spent(found: Object) -> dict[str, Any]:
            return changes.spend(self._namespace, found, {**j.tokens_of(found), token: self._now()})

        self._patch(attempt, volume, spent)


def _first(cases: Sequence[Case]) -> RestorePointError | None:
    return next((case.error for case in cases if case.error is not None), None)


def _unlike(claim: Object, volume: Object) -> str | None:
    """Say why a claim as it is could not be bound to a volume that it had before; None where it can."""
    asked, has = claim.get("spec") or {}, volume.get("spec") or {}
    name = volume["metadata"]["name"]
    requested = objects.quantity(((asked.get("resources") or {}).get("requests") or {}).get("storage")) or 0
    size = objects.quantity((has.get("capacity") or {}).get("storage")) or 0
    if size < requested:
        return f"the claim has grown since: it asks for {requested} bytes, and volume {name} has {size}"
    if (asked.get("storageClassName") or "") != (has.get("storageClassName") or ""):
        return f"volume {name} is of storage class {has.get('storageClassName')}"
    metadata = claim["metadata"]
    taken = steps.is_taken(volume, str(metadata["namespace"]), str(metadata["name"]), claim)
    if has.get("persistentVolumeReclaimPolicy") != "Retain" or taken:
        return f"volume {name} is not retained any more, or in use"
    return None


def _node_of(volume: Object) -> str:
    """Return the node that a volume lies on, where it lies on one."""
    terms = (((volume["spec"].get("nodeAffinity") or {}).get("required")) or {}).get("nodeSelectorTerms") or []
    for term in terms:
        for rule in term.get("matchExpressions") or []:
            values = rule.get("values") or []
            if str(rule.get("key")).endswith(("/hostname", "/node")) and len(values) == 1:
                return str(values[0])
    return ""
