# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why something would fail, before anything is begun: every reason at once. Pure; called by the backend.

What the API would accept and never carry out (a class of another driver, a claim that is too small) is found here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ... import kube_resources as api
from ...core import backend as core
from ...core.backend import Blocker, Desired
from ...core.units import format_size
from ...kube import Access
from . import objects
from .options import CsiOptions
from .reading import Facts, Item, Needs

MAKES = frozenset({core.CREATE, core.REPLACE})
RETURNS = frozenset({core.ROLL_BACK})
CLONES = frozenset({core.CLONE})
READS: frozenset[str] = frozenset()


def needs_of(desired: Desired, options: CsiOptions, asides: bool) -> Needs:
    """Return what has to be read for a state. ``asides``: what returns kept aside may be meant."""
    state = desired.state
    makes = state == "present"
    return Needs(
        volumes=makes or state == "rolled_back" or asides,
        classes=makes,
        contents=options.deletion_policy is not None or options.import_handle is not None,
        storage_classes=state in ("cloned", "rolled_back"),
        quotas=state in ("cloned", "rolled_back"),
    )


def wanted_access(namespace: str, desired: Desired, options: CsiOptions, asides: bool) -> dict[Access, frozenset[str]]:
    """Return what this call may have to be allowed, and for which changes; for none where it is for reading."""
    here = namespace
    needs = needs_of(desired, options, asides)
    found: dict[Access, frozenset[str]] = {
        Access("list", api.CLAIMS, here): READS,
        Access("list", api.SNAPSHOTS, here): READS,
    }
    reads = (
        (needs.volumes, api.VOLUMES, None),
        (needs.classes, api.SNAPSHOT_CLASSES, None),
        (needs.contents, api.CONTENTS, None),
        (needs.storage_classes, api.STORAGE_CLASSES, None),
        (needs.quotas, api.QUOTAS, here),
    )
    found.update({Access("list", resource, where): READS for wanted, resource, where in reads if wanted})
    if desired.state == "present":
        found.update(_access_to_make(here, options))
    elif desired.state in ("absent", "pruned"):
        found[Access("delete", api.SNAPSHOTS, here)] = frozenset({core.DESTROY})
        found[Access("watch", api.SNAPSHOTS, here)] = frozenset({core.DESTROY})
        if asides:
            found[Access("patch", api.VOLUMES)] = frozenset({core.DESTROY})
            found[Access("watch", api.VOLUMES)] = frozenset({core.DESTROY})
    if desired.state == "cloned":
        for verb in ("create", *(("watch",) if options.wait else ()), *(("delete",) if options.undoes else ())):
            found[Access(verb, api.CLAIMS, here)] = CLONES
    if options.deletion_policy is not None:
        found[Access("patch", api.CONTENTS)] = MAKES | {core.DESCRIBE, core.DESTROY}
    return found


def _access_to_make(here: str, options: CsiOptions) -> dict[Access, frozenset[str]]:
    removes = MAKES if options.undoes else frozenset({core.REPLACE})
    found = {
        Access("watch", api.SNAPSHOTS, here): MAKES,
        Access("delete", api.SNAPSHOTS, here): removes,
        Access("patch", api.SNAPSHOTS, here): frozenset({core.DESCRIBE}) | (MAKES if options.group else frozenset()),
    }
    if not options.group:
        found[Access("create", api.SNAPSHOTS, here)] = MAKES
    else:
        found[Access("list", api.GROUP_SNAPSHOT_CLASSES)] = READS
        for verb in ("create", "watch", "list", "delete"):
            found[Access(verb, api.GROUP_SNAPSHOTS, here)] = MAKES
        found[Access("patch", api.CLAIMS, here)] = MAKES
    if options.import_handle is not None:
        found[Access("create", api.CONTENTS)] = MAKES
        found[Access("delete", api.CONTENTS)] = MAKES
    return found


def denied_blockers(target: str, denied: Sequence[Access], needed: Mapping[Access, frozenset[str]]) -> list[Blocker]:
    """Return a blocker for each thing that is not allowed and that a change needs."""
    return [
        Blocker(
            target, f"this login may not {each}", "allow it with a Role or ClusterRole and its binding", needed[each]
        )
        for each in denied
        if needed[each]
    ]


# The class of a snapshot


@dataclass(frozen=True)
class Chosen:
    """The snapshot class for a claim, or why there is none."""

    name: str | None = None
    driver: str | None = None
    deletion_policy: str | None = None
    reason: str | None = None
    remedy: str = ""


def choose_class(driver: str, classes: Sequence[Item], asked: str | None, what: str = "snapshot class") -> Chosen:
    """Return the class to use for volumes of a driver: the one asked for, else the default, else the only one."""
    own = {item["metadata"]["name"]: item for item in classes if item.get("driver") == driver}
    listed = ", ".join(sorted(own)) or "none"
    if asked is not None:
        if asked in own:
            return _chosen(own[asked])
        there = next((item for item in classes if item["metadata"]["name"] == asked), None)
        if there is None:
            reason = f"there is no {what} {asked!r}"
        else:
            reason = f"{what} {asked!r} is of driver {there.get('driver')}, and the volume of {driver}"
        return Chosen(driver=driver, reason=reason, remedy=f"choose one of this driver's: {listed}")
    if not own:
        remedy = "make one, with the module restorepoint.core.csi_layout for instance"
        return Chosen(driver=driver, reason=f"there is no {what} for driver {driver}", remedy=remedy)
    defaults = sorted(name for name, item in own.items() if _is_default(item))
    if not defaults and len(own) > 1:
        reason = f"driver {driver} has several of kind {what}, and none is its default"
        return Chosen(driver=driver, reason=reason, remedy=f"name one of them: {listed}")
    if len(defaults) > 1:
        reason = f"driver {driver} has several default {what}es: {', '.join(defaults)}"
        return Chosen(driver=driver, reason=reason, remedy="name one of them, or leave only one the default")
    return _chosen(own[defaults[0] if defaults else next(iter(own))])


def _is_default(item: Item) -> bool:
    return "true" in (
        objects.annotations_of(item).get(key) for key in (objects.DEFAULT_SNAPSHOT_CLASS, objects.DEFAULT_GROUP_CLASS)
    )


def _chosen(item: Item) -> Chosen:
    return Chosen(str(item["metadata"]["name"]), str(item.get("driver")), item.get("deletionPolicy"))


def class_of(facts: Facts, claim: str, options: CsiOptions) -> Chosen:
    """Return the snapshot class for a claim, or why no snapshot of it can be taken."""
    spec = facts.claims.get(claim, {}).get("spec") or {}
    volume = facts.volume_of(claim)
    if volume is None:
        phase = objects.status_of(facts.claims.get(claim, {})).get("phase") or "not bound"
        reason = f"it has no volume (phase {phase}, storage class {spec.get('storageClassName') or 'none'})"
        return Chosen(
            reason=reason, remedy="see kubectl describe pvc, or start a pod that uses it if it binds on first use"
        )
    driver = facts.driver(claim)
    if driver is None:
        return Chosen(
            reason=f"its volume {volume['metadata']['name']} is not of a CSI driver",
            remedy="use restorepoint.core.hostpath_snapshot if it is a directory of a node",
        )
    return choose_class(driver, facts.classes, options.snapshot_class)


# Blockers


def making_blockers(facts: Facts, claim: str, options: CsiOptions) -> Iterator[Blocker]:
    """Yield why no snapshot of a claim can be taken."""
    target = facts.target(claim)
    item = facts.claims.get(claim)
    if item is None:
        return
    if item["metadata"].get("deletionTimestamp"):
        yield Blocker(target, "it is being deleted", "take a snapshot of a claim that stays", MAKES)
    chosen = class_of(facts, claim, options)
    if chosen.reason is not None:
        yield Blocker(target, chosen.reason, chosen.remedy, MAKES)


def cloning_blockers(facts: Facts, claim: str, desired: Desired, options: CsiOptions) -> Iterator[Blocker]:
    """Yield why the wanted clone of a claim's snapshot cannot be made."""
    target = facts.target(claim)
    name = desired.clones[target]
    snapshot = next(iter(facts.named(claim).get(desired.name or "", ())), None)
    there = facts.claims.get(name)
    if there is not None and objects.source_of(there) is None:
        yield Blocker(target, f"there is a claim {name}, and it is no clone", "name another one for the clone", CLONES)
    if snapshot is None or there is not None:
        return
    least = objects.restore_size(snapshot) or 0
    size = clone_size(facts, claim, snapshot, options)
    if size < least:
        reason = f"the clone would be {format_size(size)}, and the snapshot needs {format_size(least)}"
        yield Blocker(target, reason, "give a larger size", CLONES)
    storage_class = clone_class(facts, claim, options)
    if storage_class is None:
        yield Blocker(target, "the claim is gone, so its storage class is unknown", "set storage_class", CLONES)
    elif storage_class not in facts.storage_classes:
        known = ", ".join(sorted(facts.storage_classes)) or "none"
        yield Blocker(target, f"there is no storage class {storage_class!r}", f"choose one of: {known}", CLONES)


def clone_size(facts: Facts, claim: str, snapshot: Item, options: CsiOptions) -> int:
    """Return the size (bytes) of a clone: the one asked for, else that of the claim, and what the snapshot needs."""
    if options.size is not None:
        return options.size
    return max(objects.capacity(facts.claims.get(claim, {})), objects.restore_size(snapshot) or 0)


def clone_class(facts: Facts, claim: str, options: CsiOptions) -> str | None:
    """Return the storage class of a clone: the one asked for, else that of the claim."""
    if options.storage_class is not None:
        return options.storage_class
    found = (facts.claims.get(claim, {}).get("spec") or {}).get("storageClassName")
    return None if found is None else str(found)


def quota_blockers(
    facts: Facts, target: str, demands: Sequence[tuple[str | None, int]], verbs: frozenset[str]
) -> Iterator[Blocker]:
    """Yield the quotas of the namespace that have no room for so many claims more, each a storage class and a size."""
    wanted: dict[str, int] = {}
    for storage_class, size in demands:
        for prefix in ("", f"{storage_class}.storageclass.storage.k8s.io/"):
            for key, amount in (("requests.storage", size), ("persistentvolumeclaims", 1)):
                wanted[prefix + key] = wanted.get(prefix + key, 0) + amount
        wanted["count/persistentvolumeclaims"] = wanted.get("count/persistentvolumeclaims", 0) + 1
    for quota in facts.quotas:
        hard, used = (objects.status_of(quota).get(each) or {} for each in ("hard", "used"))
        for key in sorted(set(hard) & set(wanted)):
            limit, taken = objects.quantity(hard[key]), objects.quantity(used.get(key, "0")) or 0
            if limit is not None and taken + wanted[key] > limit:
                name = quota["metadata"]["name"]
                reason = f"quota {name} allows {hard[key]} of {key}, and {used.get(key, '0')} are used"
                yield Blocker(
                    target, reason, f"raise it, or make room: {_amount(key, wanted[key])} more are needed", verbs
                )


def _amount(key: str, number: int) -> str:
    return format_size(number) if key.endswith("storage") else str(number)
