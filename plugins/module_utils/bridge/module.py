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

from ..audit import AuditLog, Progress, current_user, foresee
from ..backends.stored.paths import canonical
from ..core.backend import Backend, Desired
from ..core.errors import Blocked, InvalidInput, MissingLibrary, RestorePointError
from ..core.run import RunFailed
from ..engine.reach import ATTEMPTS, Reach
from ..interrupts import Interrupts
from .ending import leave
from .libraries import missing_library


def now() -> int:
    """Return the time, in seconds since the epoch."""
    return int(time.time())


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
            attempt = ATTEMPTS[self._result["state"]].format(name=self._result["name"])
            words = f"Cannot {attempt}: the run was interrupted ({error}), and {end}; run it again."
            self._module.fail_json(**{**self._result, "msg": words})
        leave(self._module, **self._result)

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
                from .. import linux  # kernel calls, which most storages do not need

                linux.set_idle_priority()
            with backend.session(writing=not check_mode):
                self._reach(backend, desired, audit)
        finally:
            self._warn(backend.warnings)

    def _warn(self, warnings: Iterable[str]) -> None:
        for warning in warnings:
            self._module.warn(warning)

    def _reach(self, backend: Backend, desired: Desired, audit: AuditLog) -> None:
        reach = self._way(backend, desired)
        try:
            reach.plan()
            if reach.decisions:
                self._result["decisions"] = reach.decisions
            reach.check()
            if self._module.check_mode:
                reach.predict()
            else:
                reach.carry_out(audit, self._module.params["on_failure"] == "keep", self._interrupts.held)
            if self._module._diff:
                # Only now: a run that failed has not come to the other end.
                self._result["diff"] = reach.diff()
        finally:
            self._report(reach)

    def _way(self, backend: Backend, desired: Desired) -> Reach:
        return Reach(backend, desired, now)

    def _report(self, reach: Reach) -> None:
        self._warn(reach.warnings)
        self._result.update(results=reach.results, changed=reach.changed, audit=reach.audit)
        spread = reach.spread_seconds
        if spread is not None:
            self._result["spread_seconds"] = spread
