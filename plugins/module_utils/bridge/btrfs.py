# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of btrfs_snapshot and btrfs_snapshot_info, and what they mean. Called by those modules.

May import ansible and what lies below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ..backends.btrfs.backend import BtrfsBackend
from ..backends.btrfs.info import describe
from ..backends.btrfs.options import BtrfsOptions
from ..backends.stored.paths import canonical
from ..core.backend import Backend, Desired
from ..engine import btrfs as engine
from ..engine.desired import desired_state, not_negative
from ..engine.spec import ASIDES_SPEC, KEEP_SPEC, SNAPSHOT_SPEC
from .module import StateModule, clones_of, now
from .showing import show
from .spec import FIELDS_SPEC, REQUIRED_IF_CLONES

STATE_SPEC: dict[str, Any] = {
    **engine.TARGET_SPEC,
    **engine.OPTION_SPEC,
    **SNAPSHOT_SPEC,
    **KEEP_SPEC,
    **ASIDES_SPEC,
    "subvolume": {"type": "list", "elements": "path", "required": True},
    "state": {
        "type": "str",
        "choices": ["present", "absent", "rolled_back", "cloned", "pruned"],
        "default": "present",
    },
    "clone": {"type": "list", "elements": "path"},
    "keep_current": {"type": "bool", "default": True},
    "once": {"type": "str"},
}

INFO_SPEC: dict[str, Any] = {
    **engine.TARGET_SPEC,
    "name": {"type": "str"},
    "sizes": {"type": "bool", "default": False},
    "verify": {"type": "bool", "default": False},
    **FIELDS_SPEC,
}


def run_state() -> NoReturn:
    """Run btrfs_snapshot."""
    module = AnsibleModule(
        STATE_SPEC,
        supports_check_mode=True,
        required_if=REQUIRED_IF_CLONES,
    )

    def make(params: Mapping[str, Any], report: Callable[..., None] | None) -> tuple[Backend, Desired]:
        desired = desired_state(params, clones_of(params, engine.targets_of(params)), engine.LIFTING)
        return engine.backend_of(params, now, report), desired

    StateModule(module, make).run()


def run_info() -> NoReturn:
    """Run btrfs_snapshot_info."""
    module = AnsibleModule(INFO_SPEC, supports_check_mode=True)

    def look(params: Mapping[str, Any]) -> tuple[dict[str, Any], Sequence[str]]:
        options = BtrfsOptions(now=now, lock_timeout=not_negative(params, "lock_timeout"))
        paths = engine.targets_of(params) if params["subvolume"] is not None else []
        backend = BtrfsBackend(paths, canonical(params["store"], "a store"), options)
        result = describe(backend, name=params["name"], sizes=params["sizes"], verify=params["verify"])
        return result, backend.warnings

    show(module, look)
