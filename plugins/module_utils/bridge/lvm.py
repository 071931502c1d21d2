# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of lvm_snapshot and lvm_snapshot_info, and what they mean. Called by those modules.

May import ansible and what lies below.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ..backends.lvm import sizes
from ..backends.lvm.backend import LvmBackend
from ..backends.lvm.info import describe
from ..backends.lvm.names import check_new_lv, parse_volume
from ..backends.lvm.options import LvmOptions, LvmTarget
from ..core.backend import Backend, Desired
from ..core.errors import InvalidInput
from ..core.units import parse_duration
from .module import StateModule, desired_state, now, show
from .spec import ASIDES_SPEC, KEEP_SPEC, REQUIRED_IF_CLONES, SNAPSHOT_SPEC

TARGET_SPEC: dict[str, Any] = {
    "volume": {"type": "list", "elements": "str"},
    "command_timeout": {"type": "int", "default": 300},
}

STATE_SPEC: dict[str, Any] = {
    **TARGET_SPEC,
    **SNAPSHOT_SPEC,
    **KEEP_SPEC,
    **ASIDES_SPEC,
    "volume": {"type": "list", "elements": "str", "required": True},
    "state": {
        "type": "str",
        "choices": ["present", "absent", "rolled_back", "cloned", "pruned"],
        "default": "present",
    },
    "size": {"type": "str"},
    "data_limit": {"type": "int", "default": 90},
    "metadata_limit": {"type": "int", "default": 80},
    "clone": {"type": "list", "elements": "str"},
    "keep_current": {"type": "bool", "default": False},
    "destroy_newer": {"type": "bool", "default": False},
    "once": {"type": "str"},
    "when_busy": {"type": "str", "choices": ["refuse", "defer"], "default": "refuse"},
    "unmount": {"type": "bool", "default": False},
    "wait": {"type": "bool", "default": True},
    "wait_timeout": {"type": "str", "default": "1h"},
    "lock_timeout": {"type": "int", "default": 60},
}

INFO_SPEC: dict[str, Any] = {
    **TARGET_SPEC,
    "name": {"type": "str"},
    "used_by": {"type": "bool", "default": False},
}

_DM_DEVICE = re.compile(r"/dev/(dm-\d+)")


def run_state() -> NoReturn:
    """Run lvm_snapshot."""
    module = AnsibleModule(
        STATE_SPEC,
        supports_check_mode=True,
        required_if=REQUIRED_IF_CLONES,
    )

    def make(params: Mapping[str, Any], report: Callable[..., None] | None) -> tuple[Backend, Desired]:
        targets = _targets(params)
        desired = desired_state(params, _clones(params, targets), ("destroy_newer",))
        return LvmBackend(targets, _options(params, report)), desired

    StateModule(module, make).run()


def run_info() -> NoReturn:
    """Run lvm_snapshot_info."""
    module = AnsibleModule(INFO_SPEC, supports_check_mode=True)

    def look(params: Mapping[str, Any]) -> tuple[dict[str, Any], Sequence[str]]:
        targets = _targets(params) if params["volume"] is not None else []
        timeout = _at_least(params, "command_timeout", 1)
        backend = LvmBackend(targets, LvmOptions(now=now, command_timeout=timeout))
        result = describe(backend, name=params["name"], used_by=params["used_by"])
        return result, backend.warnings

    show(module, look)


def _targets(params: Mapping[str, Any]) -> list[LvmTarget]:
    """Return the volumes that are meant, each once."""
    targets = [LvmTarget(*parse_volume(_resolved(text))) for text in params["volume"]]
    if not targets:
        raise InvalidInput("find the targets", "volume is empty", "name at least one logical volume")
    return list(dict.fromkeys(targets))


def _resolved(text: str) -> str:
    """Return the device mapper's name for another link to it, such as one in /dev/disk; other texts as they are."""
    if not text.startswith("/") or text.startswith("/dev/mapper/"):
        return text
    found = _DM_DEVICE.fullmatch(os.path.realpath(text))
    if found is None:
        return text
    try:
        with open(f"/sys/block/{found.group(1)}/dm/name", encoding="utf-8") as file:
            return f"/dev/mapper/{file.read().strip()}"
    except OSError:
        return text


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


def _options(params: Mapping[str, Any], report: Callable[..., None] | None) -> LvmOptions:
    return LvmOptions(
        now=now,
        size=None if params["size"] is None else sizes.parse(params["size"]),
        data_limit=_percentage(params, "data_limit"),
        metadata_limit=_percentage(params, "metadata_limit"),
        when_busy=params["when_busy"],
        unmount=params["unmount"],
        wait=params["wait"],
        wait_timeout=parse_duration(params["wait_timeout"], "wait_timeout"),
        lock_timeout=_at_least(params, "lock_timeout", 0),
        command_timeout=_at_least(params, "command_timeout", 1),
        progress=report,
    )


def _at_least(params: Mapping[str, Any], option: str, least: int) -> int:
    value = int(params[option])
    if value < least:
        raise InvalidInput(f"read {option}: {value}", f"it is less than {least}", f"give {least} or more seconds")
    return value


def _percentage(params: Mapping[str, Any], option: str) -> int:
    value = int(params[option])
    if not 0 < value <= 100:
        raise InvalidInput(f"read {option}: {value}", "it is no percentage", "give 1 to 100")
    return value
