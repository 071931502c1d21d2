# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one call makes and removes: snapshots, group snapshots, imports and clones, and how each is taken back.

Objects are created one after the other (`prepare`) and waited for together (`complete`). What was created is known here
until it counts or is gone again. Called by the backend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ... import kube_resources as api
from ...core import backend as core
from ...core.backend import Blocker, Change, Outcome
from ...core.errors import RestorePointError
from . import objects, preflight
from .groups import Groups, set_id
from .operations import Item, Operations
from .options import CsiOptions
from .preflight import Chosen
from .reading import Facts

_MAKES = (core.CREATE, core.REPLACE)


class Making:
    """The objects of one call."""

    def __init__(
        self, operations: Operations, facts: Facts, options: CsiOptions, meta: objects.Meta, groups: Groups
    ) -> None:
        self._operations = operations
        self._facts = facts
        self._options = options
        self._meta = meta
        self._groups = groups
        self._run = operations.client.run
        #: What this call has created and what is not gone yet: for each change, words, kind and object.
        self._made: dict[Change, list[tuple[str, api.Resource, Item]]] = {}
        self._group_changes: list[Change] = []
        self._group_outcomes: dict[str, Outcome] = {}
        self._replaced: dict[Change, list[Item]] = {}
        self._removed: dict[str, RestorePointError | None] = {}
        self._before: dict[Change, Mapping[str, Any]] = {}
        self._finished: dict[Change, list[str]] | None = None

    # -- what is there -------------------------------------------------------------------------------------------------

    def current(self, claim: str, name: str) -> Item | None:
        """Return the VolumeSnapshot that counts under a name."""
        return next(iter(self._facts.named(claim).get(name, ())), None)

    def leftovers(self, claim: str, name: str) -> list[Item]:
        """Return the objects of a name that do not count, because another one took their place."""
        return list((self._facts.named(claim).get(name) or [])[1:])

    def blockers(self, claim: str) -> list[Blocker]:
        """Return why no snapshot of a claim can be taken."""
        target, options = self._facts.target(claim), self._options
        if options.import_handle is not None:
            return self._import_blockers(claim, target)
        found = list(preflight.making_blockers(self._facts, claim, options))
        if options.group and not found:
            found = self._group_blockers(claim, target)
        return found

    def _group_blockers(self, claim: str, target: str) -> list[Blocker]:
        driver = self._facts.driver(claim) or ""
        drivers = {self._facts.driver(each) for each in self._facts.wanted}
        if len(drivers) > 1:
            listed = ", ".join(sorted(str(each) for each in drivers))
            reason = f"the claims of the group are of several drivers: {listed}"
            return [Blocker(target, reason, "take one group for each driver", preflight.MAKES)]
        found = []
        chosen = self._groups.choose_class(driver)
        if chosen.reason is not None:
            found.append(Blocker(target, chosen.reason, chosen.remedy, preflight.MAKES))
        elif self._options.deletion_policy not in (None, chosen.deletion_policy):
            reason = f"group snapshot class {chosen.name} has deletion policy {chosen.deletion_policy}"
            found.append(Blocker(target, reason, "leave deletion_policy out, or choose another class", preflight.MAKES))
        strangers = self._groups.strangers(self._facts, self._facts.wanted)
        if strangers:
            reason = f"other claims carry the label of this group: {', '.join(strangers)}"
            found.append(Blocker(target, reason, "take that label off them", preflight.MAKES))
        return found

    def _import_class(self, claim: str) -> Chosen:
        """Return the class for an import: of the claim's driver where it is there, else the one that was named."""
        if self._facts.volume_of(claim) is not None:
            return preflight.class_of(self._facts, claim, self._options)
        asked = self._options.snapshot_class
        there = next((each for each in self._facts.classes if each["metadata"]["name"] == asked), None)
        if there is None:
            reason = (
                f"there is no snapshot class {asked!r}" if asked else "the claim has no volume that tells the driver"
            )
            return Chosen(reason=reason, remedy="set snapshot_class to one of the driver that has the snapshot")
        return preflight.choose_class(str(there.get("driver")), self._facts.classes, asked)

    def _import_blockers(self, claim: str, target: str) -> list[Blocker]:
        chosen = self._import_class(claim)
        if chosen.reason is not None:
            return [Blocker(target, chosen.reason, chosen.remedy, preflight.MAKES)]
        for name, content in self._facts.contents.items():
            handles = {
                ((content.get("spec") or {}).get("source") or {}).get("snapshotHandle"),
                (content.get("status") or {}).get("snapshotHandle"),
            }
            if self._options.import_handle in handles and content["spec"].get("driver") == chosen.driver:
                reference = content["spec"].get("volumeSnapshotRef") or {}
                where = f"{reference.get('namespace')}/{reference.get('name')}"
                reason = f"that handle is known already, as content {name} of snapshot {where}"
                return [Blocker(target, reason, "use that one, or remove it first", preflight.MAKES)]
        return []

    def removal_blockers(self, claim: str, name: str | None) -> list[Blocker]:
        """Return why a claim's snapshot of a name cannot be removed: it is one of a group with others."""
        item = self.current(claim, name) if name is not None else None
        group = objects.group_of(item) if item is not None else None
        if group is None:
            return []
        outside = sorted(
            self._facts.target(other)
            for other, items in self._facts.snapshots.items()
            if other not in self._facts.wanted and any(objects.group_of(each) == group for each in items)
        )
        if not outside:
            return []
        reason = f"snapshot {name!r} is one of group {group}, with {', '.join(outside)}"
        return [Blocker(self._facts.target(claim), reason, "name those claims too", frozenset({core.DESTROY}))]

    # -- making --------------------------------------------------------------------------------------------------------

    def foreseen(self, change: Change) -> dict[str, Any]:
        """Return what can be told of a change before it is made."""
        claim = _claim(change)
        if change.verb in _MAKES and not self._options.group:
            chosen = self._chosen(claim)
            return {"object": self._object_name(claim, change.name), "snapshot_class": chosen.name}
        if change.verb == core.CLONE:
            item = self.current(claim, change.name) or {}
            size = preflight.clone_size(self._facts, claim, item, self._options)
            return {"clone": change.arguments["clone"], "size_bytes": size}
        return {}

    def _chosen(self, claim: str) -> Chosen:
        if self._options.import_handle is not None:
            return self._import_class(claim)
        return preflight.class_of(self._facts, claim, self._options)

    def _object_name(self, claim: str, name: str) -> str:
        first = objects.object_name(claim, name)
        return objects.another_name(claim, name, self._run) if first in self._facts.objects else first

    def prepare(self, change: Change) -> None:
        """Create what a change needs; it counts when it is ready. Removes nothing and waits for nothing."""
        if change.verb in _MAKES:
            self._replaced[change] = list(self._facts.named(_claim(change)).get(change.name) or [])
            if self._options.group:
                self._group_changes.append(change)
            elif self._options.import_handle is not None:
                self._import(change)
            else:
                self._create(change)
        elif change.verb == core.CLONE:
            self._create_clone(change)

    def _metadata(self, claim: str) -> dict[str, Any]:
        last = max(map(objects.number_of, self._facts.snapshots.get(claim, ())), default=0)
        return self._meta.metadata(claim, self._run, last + 1)

    def _create(self, change: Change) -> None:
        claim = _claim(change)
        meta = self._metadata(claim)
        called = self._object_name(claim, change.name)
        body = objects.volume_snapshot(called, claim, str(self._chosen(claim).name), meta)
        words = f"snapshot {change.name!r} of {change.target}"
        made = self._operations.create(f"take {words}", api.SNAPSHOTS, body)
        self._made[change] = [(words, api.SNAPSHOTS, made)]

    def _import(self, change: Change) -> None:
        claim, options = _claim(change), self._options
        chosen = self._import_class(claim)
        volume_mode = (self._facts.claims.get(claim, {}).get("spec") or {}).get("volumeMode")
        what = objects.Import(
            handle=str(options.import_handle),
            driver=str(chosen.driver),
            snapshot_class=str(chosen.name),
            deletion_policy=options.deletion_policy or chosen.deletion_policy or "Retain",
            block=volume_mode == "Block",
        )
        called = self._object_name(claim, change.name)
        name = f"{self._facts.namespace}-{called}-{self._run[:6]}"[-253:].lstrip("-.")
        meta = self._metadata(claim)
        content, snapshot = objects.imported(called, self._facts.namespace, name, what, meta, self._run)
        words = f"snapshot {change.name!r} of {change.target}"
        made = self._operations.create(f"import {options.import_handle!r} as {words}", api.CONTENTS, content)
        self._made[change] = [(f"the content of {words}", api.CONTENTS, made)]
        made = self._operations.create(f"import {options.import_handle!r} as {words}", api.SNAPSHOTS, snapshot)
        self._made[change].insert(0, (words, api.SNAPSHOTS, made))

    def complete(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Wait until the snapshots that were created are ready."""
        if self._options.group:
            return self._complete_group(changes)
        made = {change: self._made[change][0][2] for change in changes}
        if self._options.wait:
            words = {
                item["metadata"]["name"]: f"snapshot {each.name!r} of {each.target}" for each, item in made.items()
            }
            found = self._operations.wait_ready(words)
        else:
            found = {item["metadata"]["name"]: item for item in made.values()}
        return [self._completed(change, found[made[change]["metadata"]["name"]]) for change in changes]

    def _completed(self, change: Change, item: Item | RestorePointError) -> Outcome:
        if isinstance(item, RestorePointError):
            return item
        claim, policy = _claim(change), self._options.deletion_policy
        if policy is not None and self._options.import_handle is None and policy != self._chosen(claim).deletion_policy:
            try:
                self._operations.set_policy(f"snapshot {change.name!r} of {change.target}", item, policy)
            except RestorePointError as error:
                return error
        snapshot = objects.as_snapshot(change.target, item, change.name)
        return {
            "object": item["metadata"]["name"],
            "snapshot": snapshot.as_result(),
            "instant": float(objects.created(item)),
        }

    # -- groups --------------------------------------------------------------------------------------------------------

    def _complete_group(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Take one group snapshot for all of the call, whatever batch comes first."""
        if not self._group_outcomes:
            try:
                self._group_outcomes = dict(self._take_group())
            except RestorePointError as error:
                self._group_outcomes = {change.target: error for change in self._group_changes}
        return [self._group_outcomes[change.target] for change in changes]

    def _take_group(self) -> dict[str, Outcome]:
        claims = [_claim(change) for change in self._group_changes]
        name = self._group_changes[0].name
        meta = {key: dict(value) for key, value in self._metadata(claims[0]).items()}
        called = f"{name}-{set_id(claims)}"
        taken = {objects.group_of(item) for items in self._facts.snapshots.values() for item in items}
        if called in taken:
            called += f"-{self._run[:6]}"
        chosen = self._groups.choose_class(self._facts.driver(claims[0]) or "")
        group = self._groups.create(called, self._facts, claims, str(chosen.name), meta)
        words = f"group snapshot {called!r}"
        self._made[self._group_changes[0]] = [(words, self._groups.resource, group)]
        members = self._groups.wait(group, claims)
        outcomes: dict[str, Outcome] = {}
        for change in self._group_changes:
            claim = _claim(change)
            attempt = f"label snapshot {change.name!r} of {change.target}"
            body = {"metadata": self._metadata(claim)}
            item = self._operations.patch(attempt, api.SNAPSHOTS, members[claim]["metadata"]["name"], body)
            snapshot = objects.as_snapshot(change.target, item, change.name)
            outcomes[change.target] = {
                "object": item["metadata"]["name"],
                "group": called,
                "snapshot": snapshot.as_result(),
                "instant": float(objects.created(item)),
            }
        return outcomes

    # -- clones --------------------------------------------------------------------------------------------------------

    def _create_clone(self, change: Change) -> None:
        claim, name = _claim(change), str(change.arguments["clone"])
        item = self.current(claim, change.name)
        if item is None:
            raise RestorePointError(f"clone snapshot {change.name!r} of {change.target}", "it is gone", "try again")
        size = preflight.clone_size(self._facts, claim, item, self._options)
        storage_class = preflight.clone_class(self._facts, claim, self._options)
        body = objects.clone_claim(name, item, self._facts.claims.get(claim, {}), storage_class, size, self._run)
        words = f"clone {name} of snapshot {change.name!r} of {change.target}"
        self._made[change] = [(words, api.CLAIMS, self._operations.create(f"make {words}", api.CLAIMS, body))]

    def complete_clones(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Wait until the clones that were created are bound, but for those that bind only when a pod uses them."""
        waiting = {}
        for change in changes:
            words, _resource, item = self._made[change][0]
            if self._options.wait and not self._binds_later(item):
                waiting[item["metadata"]["name"]] = words
        found = self._operations.wait_bound(waiting) if waiting else {}
        outcomes: list[Outcome] = []
        for change in changes:
            name = str(change.arguments["clone"])
            item_or_error = found.get(name)
            if isinstance(item_or_error, RestorePointError):
                outcomes.append(item_or_error)
                continue
            item = item_or_error or self._made[change][0][2]
            phase = (item.get("status") or {}).get("phase") or "Pending"
            volume = (item.get("spec") or {}).get("volumeName")
            outcomes.append({"clone": name, "phase": phase, "volume": volume})
        return outcomes

    def _binds_later(self, claim: Item) -> bool:
        storage_class = self._facts.storage_classes.get(str(claim["spec"].get("storageClassName"))) or {}
        return storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"

    # -- changing ------------------------------------------------------------------------------------------------------

    def describe(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Change description, labels and what else the options want of snapshots that are there."""
        return [_outcome(lambda change=change: self._describe(change)) for change in changes]

    def _describe(self, change: Change) -> dict[str, Any]:
        claim, given = _claim(change), change.arguments
        item = self.current(claim, change.name)
        if item is None:
            raise RestorePointError(f"change snapshot {change.name!r} of {change.target}", "it is gone", "try again")
        words = f"snapshot {change.name!r} of {change.target}"
        annotations: dict[str, str | None] = dict(given.get("object_annotations") or {})
        if "description" in given:
            annotations[objects.DESCRIPTION] = given["description"] or None
        if "labels" in given:
            annotations[objects.LABELS] = objects.as_json(given["labels"]) if given["labels"] else None
        metadata: dict[str, Any] = {"annotations": annotations, "labels": dict(given.get("object_labels") or {})}
        metadata = {key: value for key, value in metadata.items() if value}
        before: dict[str, Any] = {}
        if metadata:
            there = {"annotations": objects.annotations_of(item), "labels": objects.labels_of(item)}
            before["metadata"] = {
                key: {each: there[key].get(each) for each in value} for key, value in metadata.items()
            }
            name = item["metadata"]["name"]
            self._operations.patch(f"change {words}", api.SNAPSHOTS, name, {"metadata": metadata})
        self._before[change] = before
        if "deletion_policy" in given:
            content = self._facts.contents.get(str(objects.status_of(item).get("boundVolumeSnapshotContentName"))) or {}
            self._operations.set_policy(words, item, given["deletion_policy"])
            before["policy"] = (content.get("spec") or {}).get("deletionPolicy")
        if "leftovers" in given:
            old = {f"an older {words} ({_called(each)})": each for each in self.leftovers(claim, change.name)}
            for error in self._operations.remove(api.SNAPSHOTS, old).values():
                if error is not None:
                    raise error
        return {}

    # -- removing ------------------------------------------------------------------------------------------------------

    def destroy(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Remove snapshots, those of groups with their groups, and wait until all are gone."""
        singles: dict[str, Item] = {}
        words_of: dict[Change, list[str]] = {}
        grouped: dict[str, list[Change]] = {}
        outcomes: dict[Change, Outcome] = {}
        for change in changes:
            items = self._facts.named(_claim(change)).get(change.name) or []
            words_of[change] = []
            for item in items:
                group = objects.group_of(item)
                if group is not None:
                    grouped.setdefault(group, []).append(change)
                    continue
                words = f"snapshot {change.name!r} of {change.target} ({_called(item)})"
                singles[words] = item
                words_of[change].append(words)
            outcomes[change] = {"object": _called(items[0])} if items else {}
            self._set_policies(change, items, outcomes)
        blocked = {change for change, outcome in outcomes.items() if isinstance(outcome, RestorePointError)}
        kept = {words for change in blocked for words in words_of[change]}
        removed = self._operations.remove(api.SNAPSHOTS, {w: each for w, each in singles.items() if w not in kept})
        for change, several in words_of.items():
            for words in several:
                error = removed.get(words)
                if error is not None:
                    outcomes[change] = error
        self._destroy_groups(grouped, outcomes)
        return [outcomes[change] for change in changes]

    def _set_policies(self, change: Change, items: Sequence[Item], outcomes: dict[Change, Outcome]) -> None:
        """Set the deletion policy that the caller wants, before what it decides happens."""
        wanted = self._options.deletion_policy
        for item in items:
            content = self._facts.contents.get(str(objects.status_of(item).get("boundVolumeSnapshotContentName"))) or {}
            policy = (content.get("spec") or {}).get("deletionPolicy")
            if wanted is None or policy in (None, wanted):
                continue
            try:
                self._operations.set_policy(f"snapshot {change.name!r} of {change.target}", item, wanted)
            except RestorePointError as error:
                outcomes[change] = error

    def _destroy_groups(self, grouped: Mapping[str, Sequence[Change]], outcomes: dict[Change, Outcome]) -> None:
        items: dict[str, Item] = {}
        changes_of: dict[str, Sequence[Change]] = {}
        for group, changes in grouped.items():
            meant = {(_claim(change), change.name) for change in changes}
            words = f"group snapshot {group!r}"
            others = sorted(
                f"{self._facts.target(claim)} ({_called(item)})"
                for claim, several in self._facts.snapshots.items()
                for item in several
                if objects.group_of(item) == group
                and (claim, objects.labels_of(item).get(objects.NAME) or _called(item)) not in meant
            )
            try:
                if others:
                    reason = f"it also has the snapshots of {', '.join(others)}"
                    raise RestorePointError(f"remove {words}", reason, "remove all of a group together")
                resource, namespace = self._groups.resource, self._facts.namespace
                items[words] = self._operations.client.get(f"look up {words}", resource, namespace, group)
                changes_of[words] = changes
            except RestorePointError as error:
                if getattr(error, "status", 0) != 404:
                    outcomes.update(dict.fromkeys(changes, error))
        if not items:
            return
        members: dict[str, Item] = {}
        owner: dict[str, Change] = {}
        for words, error_left in self._operations.remove(self._groups.resource, items).items():
            if error_left is not None:
                outcomes.update(dict.fromkeys(changes_of[words], error_left))
                continue
            for change in changes_of[words]:
                for item in self._facts.named(_claim(change)).get(change.name) or []:
                    if objects.group_of(item) is not None:
                        member = f"snapshot {change.name!r} of {change.target} ({_called(item)})"
                        members[member], owner[member] = item, change
        # The members go after their group, in the background.
        for member, left in self._operations.wait_gone(api.SNAPSHOTS, members).items():
            if left is not None:
                outcomes[owner[member]] = left

    # -- taking back ---------------------------------------------------------------------------------------------------

    def undo(self, change: Change) -> None:
        """Take a change back that counted. Raises where that is not possible."""
        if change.verb in (*_MAKES, core.CLONE):
            self._remove_made()
            self._replaced.pop(change, None)
            error = self._removed.get(change.target)
            if error is not None:
                raise error
        elif change.verb == core.DESCRIBE:
            self._undescribe(change)
        else:
            attempt = f"bring back snapshot {change.name!r} of {change.target}"
            raise RestorePointError(attempt, "Kubernetes keeps nothing of what was removed", "look at results")

    def _undescribe(self, change: Change) -> None:
        before = dict(self._before.get(change) or {})
        item = self.current(_claim(change), change.name)
        if item is None:
            return
        words = f"snapshot {change.name!r} of {change.target}"
        policy = before.pop("policy", None)
        if before:
            self._operations.patch(f"change {words} back", api.SNAPSHOTS, item["metadata"]["name"], before)
        if policy:
            self._operations.set_policy(words, item, policy)

    def abandon(self, change: Change) -> None:
        """Give up what was created for a change that does not count. With on_failure: keep it stays."""
        self._replaced.pop(change, None)
        if not self._options.undoes:
            return
        self._remove_made()
        error = self._removed.get(change.target)
        if error is not None:
            raise error

    def _remove_made(self) -> None:
        """Remove all that this call has made: where one thing is taken back, everything is."""
        made = {change: several for change, several in self._made.items() if several}
        self._made.clear()
        by_resource: dict[api.Resource, dict[str, Item]] = {}
        for several in made.values():
            for words, resource, item in several:
                by_resource.setdefault(resource, {})[words] = item
        # A content follows its snapshot, if its policy says so, and is not to be left where it does not.
        errors: dict[str, RestorePointError | None] = {}
        for resource in sorted(by_resource, key=lambda each: each == api.CONTENTS):
            errors.update(self._operations.remove(resource, by_resource[resource]))
        for change, several in made.items():
            for words, _resource, _item in several:
                if errors.get(words) is not None:
                    self._removed[change.target] = errors[words]

    def finish(self, change: Change) -> Sequence[str]:
        """Remove what a new snapshot has replaced, all of the call together. Returns warnings."""
        if self._finished is None:
            self._finished = {}
            old = [
                (each, item) for each, items in self._replaced.items() if each.verb == core.REPLACE for item in items
            ]
            self._finished = self._remove_replaced(old)
        return self._finished.pop(change, [])

    def _remove_replaced(self, old: Sequence[tuple[Change, Item]]) -> dict[Change, list[str]]:
        warnings: dict[Change, list[str]] = {}
        singles: dict[str, Item] = {}
        members_of_groups: dict[str, Item] = {}
        groups: dict[str, Item] = {}
        owner: dict[str, Change] = {}
        for change, item in old:
            group = objects.group_of(item)
            words = f"the replaced snapshot {change.name!r} of {change.target} ({_called(item)})"
            if group is not None:
                members_of_groups[words] = item
                owner[words] = change
            if group is None:
                singles[words] = item
            elif f"the replaced group snapshot {group!r}" not in groups:
                words = f"the replaced group snapshot {group!r}"
                try:
                    resource, namespace = self._groups.resource, self._facts.namespace
                    groups[words] = self._operations.client.get(f"look up {words}", resource, namespace, group)
                except RestorePointError as error:
                    warnings.setdefault(change, []).append(str(error))
            owner[words] = change
        errors = self._operations.remove(api.SNAPSHOTS, singles)
        if groups:
            errors.update(self._operations.remove(self._groups.resource, groups))
            errors.update(self._operations.wait_gone(api.SNAPSHOTS, members_of_groups))
        for words, left in errors.items():
            if left is not None:
                warnings.setdefault(owner[words], []).append(str(left))
        return warnings


def _claim(change: Change) -> str:
    return change.target.partition("/")[2]


def _called(item: Item) -> str:
    return str(item["metadata"]["name"])


def _outcome(act: Any) -> Outcome:
    try:
        found: Mapping[str, Any] = act()
    except RestorePointError as error:
        return error
    return found
