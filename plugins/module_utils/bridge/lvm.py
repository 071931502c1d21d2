# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of lvm_snapshot and lvm_snapshot_info, and what they mean. Called by those modules.

May import ansible and what lies below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ..backends.lvm.backend import LvmBackend
from ..backends.lvm.info import describe
from ..backends.lvm.names import check_new_lv, parse_volume
from ..backends.lvm.options import LvmOptions, LvmTarget
from ..core.backend import Backend, Desired
from ..core.errors import InvalidInput
from ..engine import lvm as engine
from ..engine.desired import desired_state
from ..engine.spec import ASIDES_SPEC, KEEP_SPEC, SNAPSHOT_SPEC
from .module import StateModule, now
from .showing import show
from .spec import FIELDS_SPEC, REQUIRED_IF_CLONES

STATE_SPEC: dict[str, Any] = {
    **engine.TARGET_SPEC,
    **engine.OPTION_SPEC,
    **SNAPSHOT_SPEC,
    **KEEP_SPEC,
    **ASIDES_SPEC,
    "volume": {"type": "list", "elements": "str", "required": True},
    "state": {
        "type": "str",
        "choices": ["present", "absent", "rolled_back", "cloned", "pruned"],
        "default": "present",
    },
    "clone": {"type": "list", "elements": "str"},
    "keep_current": {"type": "bool", "default": False},
    "destroy_newer": {"type": "bool", "default": False},
    "once": {"type": "str"},
}

INFO_SPEC: dict[str, Any] = {
    **engine.TARGET_SPEC,
    "name": {"type": "str"},
    "used_by": {"type": "bool", "default": False},
    **FIELDS_SPEC,
}


def run_state() -> NoReturn:
    """Run lvm_snapshot."""
    module = AnsibleModule(
        STATE_SPEC,
        supports_check_mode=True,
        required_if=REQUIRED_IF_CLONES,
    )

    def make(params: Mapping[str, Any], report: Callable[..., None] | None) -> tuple[Backend, Desired]:
        desired = desired_state(params, _clones(params, engine.targets_of(params)), engine.LIFTING)
        return engine.backend_of(params, now, report), desired

    StateModule(module, make).run()


def run_info() -> NoReturn:
    """Run lvm_snapshot_info."""
    module = AnsibleModule(INFO_SPEC, supports_check_mode=True)

    def look(params: Mapping[str, Any]) -> tuple[dict[str, Any], Sequence[str]]:
        targets = engine.targets_of(params) if params["volume"] is not None else []
        timeout = engine.at_least(params, "command_timeout", 1)
        backend = LvmBackend(targets, LvmOptions(now=now, command_timeout=timeout))
        result = describe(backend, name=params["name"], used_by=params["used_by"])
        return result, backend.warnings

    show(module, look)


def _clones(params: Mapping[str, Any], targets: Sequence[LvmTarget]) -> dict[str, str]:
    if params["state"] != "cloned":
        return {}
    purpose = f"clone {params['name']!r}"
    clones = []
    for target, text in zip(targets, params["clone"]):
        vg, lv = parse_volume(text if "/" in text else f"{target.vg}/{text}")
        if vg != target.vg:
            raise InvalidInput(
                f"{purpose} of {target} to {vg}/{lv}",
                "a clone lies in the pool of its snapshot",
                f"put it in {target.vg}",
            )
        clones.append(f"{vg}/{check_new_lv(vg, lv, purpose)}")
    if len(params["clone"]) != len(targets) or len(set(clones)) != len(clones):
        raise InvalidInput(
            purpose,
            f"there are {len(targets)} targets and {len(set(params['clone']))} different names for clones",
            "give clone as many names as there are targets, in their order",
        )
    return {str(target): clone for target, clone in zip(targets, clones)}
