# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of restore_point, and what they mean. Called by that module.

May import ansible and what lies below.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common import validation

from ..core.backend import Backend, Desired
from ..core.errors import InvalidInput
from ..engine import policy
from ..engine.desired import desired_state
from ..engine.point import BEGIN, FINISH, MORE_OPTIONS, STAGES, UNDO, WHOLE, Point, PointReach, Wish, members
from ..engine.reach import Reach
from ..engine.spec import ASIDES_SPEC, KEEP_SPEC, SNAPSHOT_SPEC
from .module import StateModule, now
from .spec import REQUIRED_IF

if TYPE_CHECKING:
    # Ansible ships to a host what it finds in a statement like this one. `policy` imports those that a call needs: all
    # of them would make each call half a second slower, for there they have to be compiled.
    from ..engine import btrfs, csi, hostpath, lvm, pve, zfs  # noqa: F401

SPEC: dict[str, Any] = {
    **SNAPSHOT_SPEC,
    **KEEP_SPEC,
    **ASIDES_SPEC,
    "state": {"type": "str", "choices": ["present", "absent", "rolled_back", "pruned"], "default": "present"},
    "targets": {"type": "list", "elements": "dict", "required": True},
    "destroy_newer": {"type": "bool", "default": False},
    "keep_current": {"type": "bool"},
    "once": {"type": "str"},
    "stage": {"type": "str", "choices": list(STAGES), "default": WHOLE},
    "run": {"type": "str"},
    "hosts": {"type": "str"},
    "anew": {"type": "bool", "default": False},
    "assume_stopped": {"type": "bool", "default": False},
}
_SECRETS = ("api_password", "api_token_secret")
#: What of a connection to Proxmox VE the environment may say, as for pve_snapshot.
_ENVIRONMENT = {
    "api_host": "PROXMOX_HOST",
    "api_port": "PROXMOX_PORT",
    "ca_path": "PROXMOX_CA_PATH",
    "validate_certs": "PROXMOX_VALIDATE_CERTS",
}
#: Which states have which stages beside the whole.
_STAGED = {"present": (BEGIN, FINISH), "absent": (UNDO,), "rolled_back": (BEGIN, FINISH), "pruned": ()}
#: What the role says of a target, and the module has no use for.
_OF_THE_ROLE = ("delegate_to", "become")


class PointModule(StateModule):
    """Adds to the result what each target has of the restore point."""

    places: Mapping[str, str] = {}

    def _way(self, backend: Backend, desired: Desired) -> Reach:
        return PointReach(backend, desired, now)

    def _report(self, reach: Reach) -> None:
        super()._report(reach)
        if isinstance(reach.backend, Point):
            self._result["parts"] = [dataclasses.asdict(each) for each in reach.backend.parts(self.places, _here())]


def run_state() -> NoReturn:
    """Run restore_point."""
    module = AnsibleModule(SPEC, supports_check_mode=True, required_if=REQUIRED_IF)
    for target in module.params["targets"]:
        module.no_log_values.update(str(target[key]) for key in _SECRETS if target.get(key))
    runner: PointModule

    def make(params: Mapping[str, Any], report: Callable[..., None] | None) -> tuple[Backend, Desired]:
        wish = _wish(params, module.check_mode)
        targets = policy.parse_targets([_plain(each) for each in params["targets"]], MORE_OPTIONS)
        found, lifts, runner.places = members(targets, now, report)
        keep = params["keep_current"]
        # Whether newer snapshots may go is asked of all targets; the others' options hold for their own.
        desired = desired_state({**params, "keep_current": bool(keep)}, {}, ("destroy_newer",))
        if wish.marks:
            desired = Desired(state="present", name=desired.name, owner=desired.owner)
        return Point(found, lifts, wish, keep), desired

    runner = PointModule(module, make)
    runner.run()


def _wish(params: Mapping[str, Any], check_mode: bool) -> Wish:
    """Return what the call wants beside the state. Raises InvalidInput."""
    state, stage = params["state"], params["stage"]
    attempt = f"reach the state {state}"
    if stage != WHOLE and stage not in _STAGED[state]:
        raise InvalidInput(attempt, f"it has no stage {stage}", "leave stage out; the role restore_point sets it")
    needed = {"present": "run", "absent": "run", "rolled_back": "once"}.get(state)
    if stage in (BEGIN, UNDO) and needed and not params[needed]:
        raise InvalidInput(attempt, f"stage {stage} needs {needed}", f"set {needed}")
    if params["assume_stopped"] and not check_mode:
        raise InvalidInput(attempt, "assume_stopped is for check mode", "stop what uses the targets, and leave it out")
    return Wish(
        state=state,
        stage=stage,
        run=params["run"],
        hosts=params["hosts"],
        once=params["once"],
        anew=params["anew"],
        assume_stopped=params["assume_stopped"],
    )


def _plain(target: Mapping[str, Any]) -> dict[str, Any]:
    """Return a target with its values as the engine takes them. Surveys of AWX give everything as text."""
    given = {key: value for key, value in target.items() if value not in (None, "") and key not in _OF_THE_ROLE}
    backend = given.get("backend")
    if backend == "pve" and given.get("transport") != "pvesh":
        given = {**{key: os.environ[name] for key, name in _ENVIRONMENT.items() if os.environ.get(name)}, **given}
    spec = policy.specification(backend) if backend in MORE_OPTIONS else {}
    return {key: _typed(value, spec.get(key, {}).get("type")) for key, value in given.items()}


def _typed(value: Any, kind: str | None) -> Any:
    """Return a value in the type that its option has; one that cannot be read stays, and is objected to later."""
    try:
        if kind == "bool":
            return validation.check_type_bool(value)
        if kind == "int":
            return validation.check_type_int(value)
    except TypeError:
        return value
    if kind == "list" and not isinstance(value, Sequence):
        return [str(value)]
    if kind == "list":
        words = value.split(",") if isinstance(value, str) else value
        return [str(each).strip() if isinstance(each, (str, int)) else each for each in words]
    return value


def _here() -> str:
    """Name the machine, and what of it is seen from here: two hosts of the inventory may be one."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return f"{stream.read().strip()} {os.readlink('/proc/self/ns/mnt')}"
    except OSError:
        return os.uname().nodename
