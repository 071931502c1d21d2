# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore points of ZFS filesystems and volumes: answers the protocol of core/backend.py.

What is in the other files, from the bottom up: `names`, `properties` (what is written on datasets and snapshots),
`tool` (runs `zfs`), `listing`, `busy` (users), `asides`, `changes` (snapshots made and destroyed), `grants`,
`unfinished` and `returning` (returns that keep the present content), `facts` and `return_facts` (what stands in the
way). Here they are put together. What only some calls need is imported by these: a module is compiled in each task.
Called by the bridge and the agent, through core/run.py.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...core import backend as core
from ...core.backend import Change, Desired, Immediate, Outcome, Situation
from ...core.errors import InvalidInput, RestorePointError, ToolError
from ...core.names import aside_name, is_aside
from ...lock import host_lock
from . import names as rules
from . import properties as props
from .asides import Aside, destroy_aside
from .changes import Describing, Taking, destroy_freeing, freed_by, left_of, recover_replacements
from .facts import Facts
from .listing import Dataset, Row, datasets_below, datasets_with, snapshots_called
from .options import ZfsOptions
from .tool import Zfs

if TYPE_CHECKING:
    from .return_facts import ReturnFacts
    from .returning import Returning

_PROPERTY = re.compile(r"[a-z0-9:_.@-]+")
_CREATIONS = (core.CREATE, core.REPLACE)


class ZfsBackend(Immediate):
    """Filesystems and volumes. Use it inside ``session``, which finds them, locks, and recovers."""

    name = "zfs"

    def __init__(self, datasets: Sequence[str], options: ZfsOptions) -> None:
        self.roots = tuple(dict.fromkeys(datasets))
        self.options = options
        self.zfs = Zfs(options.timeout)
        self.warnings: list[str] = []
        self.targets: list[Dataset] = []
        #: Set before a session that needs to know all asides: then the pools are looked at whole, by one command.
        self.whole_pools = False
        #: What is an aside, or lies in one, in those pools; None where that was not looked for.
        self.set_aside: list[str] | None = None
        self._desired = Desired(state="present")
        self._writing = False
        self._facts = Facts(self.zfs, options, self.roots)
        self._prepared: dict[Change, None] = {}  # creations; a set that keeps its order
        self._taking: Taking | None = None
        self._told: dict[str, Mapping[str, Any]] = {}
        self._describing = Describing(self.zfs)
        self._return_facts: ReturnFacts | None = None
        self._returning: Returning | None = None

    def check(self, desired: Desired) -> None:
        """Raise InvalidInput for what cannot be meant. Touches nothing."""
        self._desired = desired
        for name in self.roots:
            rules.check_dataset(name)
        if desired.name is not None:
            (rules.check_new_snapshot if desired.state == "present" else rules.check_snapshot)(desired.name)
        if self.options.hold is not None:
            rules.check_tag(self.options.hold)
        if self.options.bookmark is not None:
            rules.check_bookmark(self.options.bookmark)
        props.snapshot_properties(None, desired.description, desired.labels)
        if desired.once is not None and len(desired.once) > 200:
            raise InvalidInput("read once", f"it has {len(desired.once)} characters", "give at most 200")
        if desired.state == "cloned":
            self._check_clones(desired)

    def _check_clones(self, desired: Desired) -> None:
        for target, clone in desired.clones.items():
            rules.check_dataset(clone)
            attempt = f"clone {target} to {clone}"
            if rules.pool_of(clone) != rules.pool_of(target):
                raise InvalidInput(attempt, "a clone lies in the pool of its snapshot", "choose a name in that pool")
            if clone == target or "/" not in clone:
                raise InvalidInput(attempt, "that is no place for a clone", "choose the name of a new dataset")
        for key in self.options.properties:
            if not _PROPERTY.fullmatch(key) or key.startswith(props.PREFIX):
                raise InvalidInput(f"set the property {key!r}", "it is no property for this", "look at zfsprops(7)")

    # -- the session ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def session(self, writing: bool) -> Iterator[None]:
        """Find the datasets; for ``writing`` lock, and recover what killed runs left."""
        self._writing = writing
        with contextlib.ExitStack() as stack:
            if writing:
                stack.enter_context(host_lock("zfs", self.options.lock_timeout, "change ZFS datasets"))
            self._find_targets(writing)
            yield

    def _find_targets(self, writing: bool) -> None:
        found, missing = self._look()
        marked = [each.name for each in found if each.marked]
        if (marked or missing) and writing:
            pools = sorted({rules.pool_of(name) for name in (*marked, *missing)} & self._pools(found, missing))
            attempt = f"recover what interrupted runs left in {', '.join(pools)}"
            done = self._recover(pools, attempt) if pools else []
            self.warnings += done
            if done:
                found, missing = self._look()
        elif marked:
            self.warnings.append(
                f"a run that changed {', '.join(marked)} was interrupted; the next one outside check mode"
                " completes it or takes it back first"
            )
        if missing:
            raise InvalidInput(
                f"use {', '.join(missing)}", "there is no such dataset", "correct the name, or create the dataset first"
            )
        # What a return has set aside is no target of its own, unless it is named.
        self.targets = [each for each in found if not each.aside or each.name in self.roots]
        self._facts.targets = self.targets

    def _recover(self, pools: Sequence[str], attempt: str) -> list[str]:
        from .unfinished import recover  # what killed runs leave is rare

        return recover(self.zfs, pools, attempt) + recover_replacements(self.zfs, pools, attempt)

    def _look(self) -> tuple[list[Dataset], list[str]]:
        name = self._desired.name or ""
        by_name = self._desired.state in ("present", "absent") and not self.options.recursive and not is_aside(name)
        # `zfs list` refuses names that are too long; what comes later says that better.
        if by_name and name and all(len(f"{root}@{name}") <= rules.LONGEST for root in self.roots):
            found, self._facts.listed = datasets_with(self.zfs, self.roots, name)
        elif self.whole_pools:
            there = datasets_below(self.zfs, sorted({rules.pool_of(root) for root in self.roots}), recursive=True)
            self.set_aside = [each.name for each in there if each.aside]
            found = self._asked(there)
        else:
            found = datasets_below(self.zfs, self.roots, self.options.recursive)
        names = {each.name for each in found}
        return found, [name for name in self.roots if name not in names]

    def _asked(self, there: Sequence[Dataset]) -> list[Dataset]:
        """Return those that the call is about."""
        if not self.options.recursive:
            by_name = {each.name: each for each in there}
            return [by_name[root] for root in self.roots if root in by_name]
        roots = tuple(f"{root}/" for root in self.roots)
        return [each for each in there if f"{each.name}/".startswith(roots)]

    def _pools(self, found: Sequence[Dataset], missing: Sequence[str]) -> set[str]:
        known = {rules.pool_of(each.name) for each in found}
        others = {rules.pool_of(name) for name in missing} - known
        if others:
            rows = self.zfs.list_those_there(("name",), sorted(others), f"find the pool {', '.join(sorted(others))}")
            known |= {row[0] for row in rows}
        return known

    # -- what is there -------------------------------------------------------------------------------------------------

    def situations(self, desired: Desired) -> Sequence[Situation]:
        """Return what is there. See core/backend.py."""
        for target in self.targets if desired.state == "present" else ():
            rules.check_together(target.name, f"@{desired.name}", f"#{self.options.bookmark or ''}")
        if desired.state == "rolled_back":
            return self._of_returns().situations(desired)
        return self._facts.situations(desired)

    def _of_returns(self) -> ReturnFacts:
        if self._return_facts is None:
            from .return_facts import ReturnFacts  # long, and nothing but a return needs it

            self._return_facts = ReturnFacts(self._facts)
        return self._return_facts

    def estimate(self, changes: Sequence[Change]) -> Sequence[Mapping[str, Any]]:
        """Tell what removing snapshots frees: of one dataset all together, since they share blocks.

        Only in check mode: otherwise what destroys them says so, and asking it twice takes half as long again.
        """
        by_target: dict[str, list[str]] = {}
        for change in changes:
            if change.verb == core.DESTROY and not is_aside(change.name) and not self._writing:
                by_target.setdefault(change.target, []).append(change.name)
        freed = {
            target: freed_by(self.zfs, target, [name for name in names if not self._is_held(target, name)])
            for target, names in by_target.items()
        }
        return [self._estimated(change, freed) for change in changes]

    def _is_held(self, target: str, name: str) -> bool:
        row = self._facts.row(target, name)
        return row is not None and row.holds > 0

    def _estimated(self, change: Change, freed: Mapping[str, int]) -> Mapping[str, Any]:
        if change.verb != core.DESTROY:
            return {}
        if is_aside(change.name):
            aside = self._facts.aside(change.target, change.name)
            removed = [row.name for row in aside.rows] if aside is not None else []
            return {"frees_together_bytes": aside.used if aside is not None else 0, "removes_snapshots": removed}
        return _told(change, freed)

    # -- changes -------------------------------------------------------------------------------------------------------

    def prepare(self, change: Change) -> None:
        """Remember what is to be made: all of it is taken by one command."""
        if change.verb in _CREATIONS:
            self._prepared[change] = None

    def commit(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Make changes of one verb count. See core/backend.py."""
        verb = changes[0].verb
        if verb in _CREATIONS:
            return self._take(changes)
        if verb == core.DESCRIBE:
            return self._describe(changes)
        if verb == core.DESTROY:
            return self._destroy(changes)
        if verb == core.CLONE:
            return [self._clone(change) for change in changes]
        if changes[0].arguments["keep_current"]:
            return self._return_keeping(changes)
        return self._roll_back(changes)

    def _take(self, changes: Sequence[Change]) -> list[Mapping[str, Any]]:
        """Take all prepared snapshots with the first batch, those that replace others too: at one instant."""
        if self._taking is None:
            self._taking = self._take_all(list(self._prepared))
        for change in changes:
            self._prepared.pop(change, None)
        return [self._told[change.target] for change in changes]

    def _take_all(self, changes: Sequence[Change]) -> Taking:
        desired, name = self._desired, changes[0].name
        given = props.snapshot_properties(desired.owner, desired.description or None, desired.labels or None)
        replaced = [change.target for change in changes if change.verb == core.REPLACE]
        targets = [change.target for change in changes]
        taking = Taking(self.zfs, name, targets, replaced, given, self.options.now)
        taking.take()
        try:
            if self.options.hold is not None:
                self._describing.hold({each: f"{each}@{name}" for each in targets}, self.options.hold)
            for target in targets if self.options.bookmark is not None else ():
                self._describing.bookmark(target, name, self.options.bookmark or "")
            self._tell(taking)
        except BaseException:
            for target in targets:
                with contextlib.suppress(RestorePointError):
                    self._describing.undo(target)
                with contextlib.suppress(RestorePointError):
                    taking.undo(target)
            raise
        for pool, count in taking.commands.items():
            if count > 1:
                self.warnings.append(
                    f"the names in pool {pool} do not fit into one command: its snapshots were taken by {count},"
                    " one after the other, and are not of one instant"
                )
        return taking

    def _tell(self, taking: Taking) -> None:
        wanted = {each.name: each for each in self.targets}
        found = self._rows_called([wanted[target] for target in taking.targets], taking.name)
        for target in taking.targets:
            row = found.get(target)
            if row is None:
                raise RestorePointError(
                    taking.attempt, f"{target}@{taking.name} is gone at once", "look for another job that removes it"
                )
            self._told[target] = {"snapshot": row.snapshot().as_result(), "instant": taking.instants[target]}

    def _rows_called(self, wanted: Sequence[Dataset], name: str) -> dict[str, Row]:
        found = snapshots_called(self.zfs, wanted, name, f"look at the snapshots called {name!r}")
        return {target: rows[0] for target, rows in found.items() if rows}

    def _describe(self, changes: Sequence[Change]) -> list[Mapping[str, Any]]:
        groups: dict[str, list[Change]] = {}
        for change in changes:
            groups.setdefault(repr(sorted(change.arguments.items())), []).append(change)
        try:
            for group in groups.values():
                self._describe_alike(group)
        except BaseException:
            for change in changes:
                with contextlib.suppress(RestorePointError):
                    self._describing.undo(change.target)
            raise
        wanted = {each.name: each for each in self.targets}
        found = self._rows_called([wanted[change.target] for change in changes], changes[0].name)
        return [
            {"snapshot": found[change.target].snapshot().as_result()} if change.target in found else {}
            for change in changes
        ]

    def _describe_alike(self, changes: Sequence[Change]) -> None:
        arguments = changes[0].arguments
        given = props.snapshot_properties(None, arguments.get("description"), arguments.get("labels"))
        rows = {change.target: self._facts.need_row(change.target, change.name) for change in changes}
        if given:
            self._describing.describe(rows, given)
        if "hold" in arguments:
            self._describing.hold({target: row.full for target, row in rows.items()}, arguments["hold"])
        for change in changes if "bookmark" in arguments else ():
            self._describing.bookmark(change.target, change.name, arguments["bookmark"])

    # -- removing ------------------------------------------------------------------------------------------------------

    def _destroy(self, changes: Sequence[Change]) -> list[Outcome]:
        """Destroy, dataset by dataset. What is gone is gone: each dataset stands or fails for itself."""
        failed: dict[Change, RestorePointError] = {}
        freed: dict[str, int] = {}
        by_target: dict[str, list[Change]] = {}
        asides: list[tuple[Change, Aside]] = []
        for change in changes:
            aside = self._facts.aside(change.target, change.name) if is_aside(change.name) else None
            if aside is not None:
                asides.append((change, aside))
            else:
                by_target.setdefault(change.target, []).append(change)
        if not self.options.hold:
            from .together import destroy_together  # not for those that are made

            names = {target: [change.name for change in group] for target, group in by_target.items()}
            freed = destroy_together(self.zfs, names)
        for number, (target, group) in enumerate(by_target.items()):
            if target in freed:
                continue
            if self.options.progress is not None:
                self.options.progress("destroy", {"done": number, "of": len(by_target)})
            bytes_freed = self._destroy_of(target, group, failed)
            if bytes_freed is not None:
                freed[target] = bytes_freed
        # What lies in another aside goes before it.
        for change, aside in sorted(asides, key=lambda pair: pair[1].dataset.name.count("/"), reverse=True):
            try:
                destroy_aside(self.zfs, aside, f"remove {aside.name} of {aside.of}")
            except RestorePointError as error:
                failed[change] = error
        return [failed.get(change, {} if is_aside(change.name) else _told(change, freed)) for change in changes]

    def _destroy_of(
        self, target: str, changes: Sequence[Change], failed: dict[Change, RestorePointError]
    ) -> int | None:
        """Destroy these snapshots of one dataset; return the bytes that this frees, or None after a failure."""
        names = [change.name for change in changes]
        attempt = f"remove {', '.join(names[:5])}{' and others' if len(names) > 5 else ''} of {target}"
        released: list[str] = []
        try:
            for name in names:
                row = self._facts.row(target, name)
                if self.options.hold and row is not None and self.options.hold in (row.tags or ()):
                    self.zfs.run("release", self.options.hold, row.full, attempt=attempt)
                    released.append(row.full)
            return destroy_freeing(self.zfs, target, names, attempt)
        except RestorePointError as error:
            left = set(left_of(self.zfs, target, names, attempt))
            failed.update({change: error for change in changes if change.name in left})
            for full in released:
                if full.partition("@")[2] in left:
                    self.zfs.run("hold", self.options.hold or "", full, attempt=f"hold {full} again")
            return None

    # -- cloning -------------------------------------------------------------------------------------------------------

    def _clone(self, change: Change) -> Outcome:
        clone = change.arguments["clone"]
        given = self._clone_properties(change)
        options = [option for key, value in given.items() for option in ("-o", f"{key}={value}")]
        attempt = f"clone {change.name!r} of {change.target} to {clone}"
        try:
            self.zfs.run("clone", *options, f"{change.target}@{change.name}", clone, attempt=attempt)
        except ToolError as error:
            return error
        return {"clone": clone}

    def _clone_properties(self, change: Change) -> dict[str, str]:
        given = dict(self.options.properties)
        mountpoints = dict(zip(self._desired.clones, self.options.mountpoint))
        if change.target in mountpoints:
            given["mountpoint"] = mountpoints[change.target]
        return given

    # -- returning -----------------------------------------------------------------------------------------------------

    def _roll_back(self, changes: Sequence[Change]) -> list[Outcome]:
        """Roll back one dataset after the other; what comes after a failure is left as it is."""
        outcomes: list[Outcome] = []
        failure: RestorePointError | None = None
        for change in changes:
            if failure is not None:
                outcomes.append(RestorePointError(
                    f"return {change.target} to {change.name!r}",
                    f"it was not begun, because another one failed ({failure.attempt})",
                    "mend that and run it again: it returns what is not returned yet",
                ))  # fmt: skip
                continue
            try:
                self._roll_back_one(change)
                outcomes.append({})
            except RestorePointError as error:
                failure = error
                outcomes.append(error)
        done = [change.target for change, outcome in zip(changes, outcomes) if not isinstance(outcome, Exception)]
        # Those who use it may have written already.
        if done and not self.options.ignore_users:
            try:
                self._of_returns().note_returned(done, changes[0].name)
            except RestorePointError as error:
                self.warnings.append(f"{error} The return counts; the next run may do it once more.")
        return outcomes

    def _roll_back_one(self, change: Change) -> None:
        target, once = change.target, change.arguments.get("once")
        attempt = f"return {target} to {change.name!r}"
        for bookmark in self._of_returns().newer_bookmarks.get(target, ()):
            self.zfs.run("destroy", f"{target}#{bookmark}", attempt=attempt)
        if once is not None:
            note = props.encode_json([once, change.name])
            self.zfs.run("set", f"{props.ONCE_BEGUN}={note}", target, attempt=attempt)
        # Never with -r or -R: what is newer went by its name, or this fails.
        self.zfs.run("rollback", f"{target}@{change.name}", attempt=attempt)
        if once is not None:
            self.spend(target, once)

    def _return_keeping(self, changes: Sequence[Change]) -> list[Outcome]:
        from .returning import Returning, Wish  # long, and nothing but this needs it

        at = int(self.options.now())
        asides = {change.target: self._facts.aside(change.target, change.name) for change in changes}
        wishes = [
            Wish(
                change.target,
                change.name,
                back=aside.dataset.name if (aside := asides[change.target]) is not None else None,
                properties=self._of_returns().properties_after(
                    change.target, change.name, change.arguments.get("once"), at
                ),
            )
            for change in changes
        ]
        tree = self._of_returns().tree([change.target for change in changes])
        returning = Returning(self.zfs, tree, wishes, self._of_returns().free_aside_name(aside_name(at)), at)
        returning.carry_out()
        self._returning = returning
        try:
            self._of_returns().note_returned([wish.target for wish in wishes if wish.back is None], changes[0].name)
        except BaseException:
            self._returning = None
            returning.undo()
            raise
        return [
            {"aside": {"name": returning.aside, "dataset": returning.aside_of(change.target)}} for change in changes
        ]

    def settle(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Mount what was returned. See core/backend.py."""
        if self._returning is not None and changes[0].verb == core.ROLL_BACK:
            self._returning.settle()
            if not is_aside(changes[0].name):
                with contextlib.suppress(RestorePointError):  # without it, the next run returns once more
                    self._of_returns().note_mount_points([change.target for change in changes], changes[0].name)
        return [{} for _unused in changes]

    def spend(self, target: str, token: str) -> None:
        """Remember that a token is used up. See core/backend.py."""
        values = self._of_returns().properties_after(target, self._desired.name or "", token, int(self.options.now()))
        pairs = [f"{key}={value}" for key, value in values.items() if key == props.ONCE]
        attempt = f"remember once: {token} for {target}"
        self.zfs.run("set", *pairs, target, attempt=attempt)
        self.zfs.run("inherit", props.ONCE_BEGUN, target, attempt=attempt)

    # -- back, and the end ---------------------------------------------------------------------------------------------

    def undo(self, change: Change) -> None:
        """Take back what was committed. See core/backend.py."""
        if change.verb in _CREATIONS and self._taking is not None:
            self._describing.undo(change.target)
            self._taking.undo(change.target)
        elif change.verb == core.DESCRIBE:
            self._describing.undo(change.target)
        elif change.verb == core.CLONE:
            clone = change.arguments["clone"]
            self.zfs.run("destroy", clone, attempt=f"remove the clone {clone}")
        elif change.verb == core.ROLL_BACK and self._returning is not None:
            self._returning.undo()
            self._returning = None
        elif change.verb == core.ROLL_BACK and change.arguments["keep_current"]:
            return  # it went back with the first one of its call
        else:
            what = "a rollback" if change.verb == core.ROLL_BACK else "the removal of a snapshot"
            raise RestorePointError(
                f"take back {what} of {change.target}", "ZFS keeps nothing of it", "run it again to do the rest"
            )

    def abandon(self, change: Change) -> None:
        """Give up what was prepared. See core/backend.py."""
        self._prepared.pop(change, None)
        if change.verb in _CREATIONS and self._taking is not None and change.target in self._told:
            self.undo(change)  # it was taken together with others, and then did not come to count

    def finish(self, change: Change) -> Sequence[str]:
        """Destroy for good what was replaced, and take the marks of a return off. See core/backend.py."""
        if change.verb == core.REPLACE and self._taking is not None:
            self._taking.finish(change.target)
        if change.verb == core.ROLL_BACK and self._returning is not None:
            returning, self._returning = self._returning, None
            returning.finish()
            return returning.warnings
        return []


def _told(change: Change, freed: Mapping[str, int]) -> Mapping[str, Any]:
    """Return what a result says of the bytes that a removal frees, where they are known."""
    return {"frees_together_bytes": freed[change.target]} if change.target in freed else {}
