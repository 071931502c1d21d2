# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of zfs_snapshot and zfs_snapshot_info, and what they mean. Called by those modules.

May import ansible and what lies below.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ..backends.zfs.backend import ZfsBackend
from ..backends.zfs.info import describe
from ..backends.zfs.options import ZfsOptions
from ..core.backend import Backend, Desired
from ..core.errors import InvalidInput
from ..core.snapshot import FIELDS
from ..engine import zfs as engine
from ..engine.desired import desired_state
from ..engine.spec import ASIDES_SPEC, KEEP_SPEC, SNAPSHOT_SPEC
from .showing import show
from .spec import FIELDS_SPEC, REQUIRED_IF_CLONES

STATE_SPEC: dict[str, Any] = {
    **engine.TARGET_SPEC,
    **engine.OPTION_SPEC,
    **SNAPSHOT_SPEC,
    **KEEP_SPEC,
    **ASIDES_SPEC,
    "state": {
        "type": "str",
        "choices": ["present", "absent", "rolled_back", "cloned", "pruned"],
        "default": "present",
    },
    "clone": {"type": "list", "elements": "str"},
    "destroy_newer": {"type": "bool", "default": False},
    "keep_current": {"type": "bool", "default": False},
    "once": {"type": "str"},
}

INFO_SPEC: dict[str, Any] = {
    **engine.TARGET_SPEC,
    "name": {"type": "str"},
    "owner": {"type": "str"},
    "properties": {"type": "list", "elements": "str", "default": []},
    "holds": {"type": "bool", "default": False},
    "asides": {"type": "bool", "default": True},
    "tree": {"type": "bool", "default": True},
    **FIELDS_SPEC,
}

_PROPERTY = re.compile(r"[a-z0-9:_.@#-]+")


def run_state() -> NoReturn:
    """Run zfs_snapshot."""
    from .module import StateModule  # what shows snapshots does without it

    module = AnsibleModule(
        STATE_SPEC,
        supports_check_mode=True,
        required_if=REQUIRED_IF_CLONES,
    )

    def make(params: Mapping[str, Any], report: Callable[..., None] | None) -> tuple[Backend, Desired]:
        desired = desired_state(params, _clones(params), engine.LIFTING)
        return engine.backend_of(params, time.time, report), desired

    StateModule(module, make).run()


def run_info() -> NoReturn:
    """Run zfs_snapshot_info."""
    module = AnsibleModule(INFO_SPEC, supports_check_mode=True)

    def look(params: Mapping[str, Any]) -> tuple[dict[str, Any], Sequence[str]]:
        for key in params["properties"]:
            if not _PROPERTY.fullmatch(key) or key == "all":
                raise InvalidInput(f"show the property {key!r}", "it is no property", "look at zfsprops(7)")
        options = ZfsOptions(now=time.time, recursive=params["recursive"], timeout=engine.positive(params, "timeout"))
        backend = ZfsBackend(engine.targets_of(params), options)
        backend.check(Desired(state="pruned"))
        result = describe(
            backend,
            name=params["name"],
            owner=params["owner"],
            properties=params["properties"],
            holds=params["holds"],
            asides=params["asides"],
            tree=params["tree"],
            fields=params["fields"] or FIELDS,
        )
        return result, backend.warnings

    show(module, look)


def _clones(params: Mapping[str, Any]) -> dict[str, str]:
    if params["state"] != "cloned":
        return {}
    attempt, datasets, clones = f"clone {params['name']!r}", engine.targets_of(params), params["clone"]
    if params["recursive"]:
        raise InvalidInput(attempt, "recursive does not say what each clone is called", "name the datasets one by one")
    if len(clones) != len(datasets) or len(set(clones)) != len(clones):
        raise InvalidInput(
            attempt,
            f"there are {len(datasets)} datasets and {len(set(clones))} different names for clones",
            "give clone as many names as there are datasets, in their order",
        )
    if len(params["mountpoint"]) not in (0, len(clones)):
        raise InvalidInput(
            attempt,
            f"there are {len(clones)} clones and {len(params['mountpoint'])} mount points",
            "give mountpoint as many paths as there are clones, or none",
        )
    return dict(zip(datasets, clones))
