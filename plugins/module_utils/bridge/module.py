# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a module's one call: options to desired state, plan, check mode or run, result. Called by plugins/modules.

The only place where a failure becomes fail_json. May import ansible and what lies below.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable, NoReturn

from ansible.module_utils.basic import AnsibleModule

from .. import linux
from ..audit import AuditLog, Progress, current_user, foresee
from ..backends.stored.backend import canonical
from ..core.backend import Backend, Change, Desired
from ..core.errors import Blocked, InvalidInput, RestorePointError
from ..core.names import check_owner
from ..core.plan import Plan, ends, make_plan, predicted
from ..core.retention import RetentionPolicy, parse_policy
from ..core.run import Run, RunFailed
from ..core.snapshot import parse_timestamp, timestamp
from ..core.units import parse_duration
from ..interrupts import Interrupts
from ..kube_login import MissingLibrary
from .kubernetes import missing_library

_NEEDS_NAME = ("present", "absent", "rolled_back", "cloned")


def now() -> int:
    """Return the time, in seconds since the epoch."""
    return int(time.time())


def desired_state(params: Mapping[str, Any], clones: Mapping[str, str], allowed: Sequence[str]) -> Desired:
    """Return what a module's options ask for. ``allowed`` are those of its options that lift blockers.

    Raises InvalidInput.
    """
    state = params["state"]
    if state in _NEEDS_NAME and not params["name"]:
        raise InvalidInput(f"reach the state {state}", "name is not set", "give the snapshot's name")
    max_age = params["max_age"]
    owner = params["owner"] if params["owner"] == "manual" else check_owner(params["owner"])
    labels = params["labels"]
    return Desired(
        state=state,
        name=params["name"] if state in _NEEDS_NAME else None,
        owner=owner,
        policy=None if owner == "manual" else owner,
        description=params["description"],
        labels=None if labels is None else {str(key): str(value) for key, value in labels.items()},
        max_age=None if max_age is None else parse_duration(max_age, "max_age"),
        replace=params["replace"],
        keep_current=params.get("keep_current", False),
        destroy_newer=params.get("destroy_newer", False),
        once=params.get("once"),
        clones=clones,
        allowed=frozenset(option for option in allowed if params[option]),
        retention=_retention(params) if state == "pruned" else None,
        asides=_asides(params) if state == "pruned" else None,
        match=tuple(params["match"]),
    )


def _retention(params: Mapping[str, Any]) -> RetentionPolicy | None:
    if params["keep"] is None and params.get("asides") is not None:
        return None
    return parse_policy(
        params["keep"],
        timezone=params["timezone"],
        min_keep=params["min_keep"],
        min_age=params["min_age"],
        max_delete=params["max_delete"],
        require_recent=params["require_recent"],
    )


def _asides(params: Mapping[str, Any]) -> RetentionPolicy | None:
    return parse_policy(params["asides"], timezone=params["timezone"]) if params.get("asides") is not None else None


def clones_of(params: Mapping[str, Any], targets: Sequence[str]) -> dict[str, str]:
    """Return where the clone of each target goes, by canonical paths; nothing for other states. Raises InvalidInput."""
    if params["state"] != "cloned":
        return {}
    clones = [canonical(path, "a clone") for path in params["clone"]]
    if len(clones) != len(targets) or len(set(clones)) != len(clones):
        raise InvalidInput(
            f"clone {params['name']!r}",
            f"there are {len(targets)} targets and {len(set(clones))} different places for clones",
            "give clone as many paths as there are targets, in their order",
        )
    return dict(zip(targets, clones))


def not_negative(params: Mapping[str, Any], option: str) -> int:
    """Return an option that is a number of seconds. Raises InvalidInput for a negative one."""
    value = int(params[option])
    if value < 0:
        raise InvalidInput(f"read {option}: {value}", "it is negative", "give 0 or more seconds")
    return value


def show(
    module: AnsibleModule, look: Callable[[Mapping[str, Any]], tuple[Mapping[str, Any], Sequence[str]]]
) -> NoReturn:
    """End an info module with what ``look`` finds by its options, and with the warnings it has; or with its failure."""
    try:
        result, warnings = look(module.params)
    except MissingLibrary as error:
        module.fail_json(**missing_library(error))
    except RestorePointError as error:
        module.fail_json(msg=str(error))
    for warning in warnings:
        module.warn(warning)
    module.exit_json(changed=False, **result)


class StateModule:
    """One call of a module that reaches a state.

    Args:
        module: the module, with the options of spec.py and a ``state``.
        make_backend: makes the backend and returns it with the desired state; None for it where there is nothing to
            do here. May raise RestorePointError.
    """

    def __init__(
        self,
        module: AnsibleModule,
        make_backend: Callable[[Mapping[str, Any], Callable[..., None] | None], tuple[Backend | None, Desired]],
    ) -> None:
        self._module = module
        self._make_backend = make_backend
        self._interrupts = Interrupts()
        self._result: dict[str, Any] = {
            "changed": False,
            "state": module.params["state"],
            "name": module.params["name"],
            "results": [],
            "audit": [],
        }

    def run(self) -> NoReturn:
        """Do it, and end the module."""
        self._interrupts.install()
        try:
            self._run()
        except MissingLibrary as error:
            self._module.fail_json(**{**self._result, **missing_library(error)})
        except Blocked as error:
            blockers = [
                {"target": each.target, "reason": each.reason, "remedy": each.remedy} for each in error.blockers
            ]
            self._module.fail_json(**{**self._result, "blockers": blockers, "msg": str(error)})
        except (RunFailed, RestorePointError) as error:
            self._module.fail_json(**{**self._result, "msg": str(error)})
        except KeyboardInterrupt as error:
            end = "results say what stands" if self._result["changed"] else "what it had begun was undone"
            self._module.fail_json(
                **{**self._result, "msg": f"Cannot go on: the run was interrupted ({error}); {end}."}
            )
        self._module.exit_json(**self._result)

    def _run(self) -> None:
        params, check_mode = self._module.params, self._module.check_mode
        if check_mode:
            foresee(params["audit_log"], params["progress_file"])
        audit_path, progress_path = (None if check_mode else params[each] for each in ("audit_log", "progress_file"))
        with AuditLog(audit_path, current_user()) as audit, contextlib.closing(Progress(progress_path)) as progress:
            try:
                self._use_backend(progress, audit)
            finally:
                troubles = (("audit log", audit.trouble), ("progress file", progress.trouble))
                self._warn(f"the {file} is incomplete: {trouble}" for file, trouble in troubles if trouble)

    def _use_backend(self, progress: Progress, audit: AuditLog) -> None:
        params, check_mode = self._module.params, self._module.check_mode
        backend, desired = self._make_backend(params, progress.report)
        if backend is None:
            return
        try:
            backend.check(desired)
            if params.get("priority") == "idle" and not check_mode:
                linux.set_idle_priority()
            with backend.session(writing=not check_mode):
                self._reach(backend, desired, audit)
        finally:
            self._warn(backend.warnings)

    def _warn(self, warnings: Iterable[str]) -> None:
        for warning in warnings:
            self._module.warn(warning)

    def _reach(self, backend: Backend, desired: Desired, audit: AuditLog) -> None:
        situations = backend.situations(desired)
        plan = make_plan(desired, situations, now())
        self._warn(plan.warnings)
        if plan.decisions:
            self._result["decisions"] = [
                {"target": target, "name": each.name, "keep": each.keep, "reason": each.reason}
                for target, each in plan.decisions
            ]
        if plan.blockers:
            raise Blocked(_attempt(desired), plan.blockers)
        estimates = backend.estimate(plan.changes)
        if self._module.check_mode:
            self._result.update(results=predicted(plan, estimates), changed=bool(plan.changes))
        else:
            self._carry_out(backend, plan, estimates, audit)
        if self._module._diff:
            # Only now: a run that failed has not come to the other end.
            self._result["diff"] = ends(plan, situations, desired)

    def _carry_out(self, backend: Backend, plan: Plan, estimates: Sequence[Mapping[str, Any]], audit: AuditLog) -> None:
        def record(change: Change, outcome: str) -> Mapping[str, Any]:
            return audit.record(
                timestamp(now()), change.target, change.verb, change.name, outcome, backend=backend.name,
                reason=change.reason,
            )  # fmt: skip

        keep = self._module.params["on_failure"] == "keep"
        run = Run(backend, record, time.monotonic, keep, self._interrupts.held)
        try:
            run.carry_out(plan, estimates)
        finally:
            self._report(run.results)
            self._result["audit"] = run.audit
            self._warn(run.warnings)

    def _report(self, results: list[dict[str, Any]]) -> None:
        self._result.update(results=results, changed=any(each["changed"] for each in results))
        # How far apart the members of a set lie, where the storage cannot take them at one instant.
        instants = sorted(
            each.get("instant", parse_timestamp(each["snapshot"]["created"]))
            for each in results
            if each["action"] in ("created", "replaced") and "snapshot" in each
        )
        if len(instants) > 1:
            self._result["spread_seconds"] = round(instants[-1] - instants[0], 3)


def _attempt(desired: Desired) -> str:
    attempts = {
        "present": f"make snapshot {desired.name!r} present",
        "absent": f"remove snapshot {desired.name!r}",
        "rolled_back": f"return to snapshot {desired.name!r}",
        "cloned": f"clone snapshot {desired.name!r}",
        "pruned": "prune",
    }
    return attempts[desired.state]
