# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of lvm_layout, zfs_layout and btrfs_layout, and one run of such a module. Called by those modules, and by
csi_layout beside it.

May import ansible and what lies below.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Callable, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ..core.errors import Blocked, MissingLibrary, RestorePointError, ToolError
from ..interrupts import Interrupts
from ..lock import host_lock
from ..process import find_program
from ..setup import btrfs, lvm, zfs
from ..setup.carry_out import carry_out
from ..setup.mounting import mounts_lock
from ..setup.plan import Plan, Step
from .libraries import missing_library

#: How long to wait for another run that sets storage up; it may be making filesystems on large disks.
_LOCK_SECONDS = 600.0
_TEXT: dict[str, Any] = {"type": "str"}
_NEEDED: dict[str, Any] = {"type": "str", "required": True}
_TEXTS: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
_DEVICES: dict[str, Any] = {"type": "list", "elements": "path", "required": True}
_FORCE: dict[str, Any] = {"type": "list", "elements": "path", "default": []}
_MOUNT: dict[str, Any] = {"mount": {"type": "path"}, "mount_options": {"type": "str", "default": "defaults"}}


def _rows(**options: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "list", "elements": "dict", "default": [], "options": options}


FILES_SPEC: dict[str, Any] = {"files": _rows(path={"type": "path", "required": True}, size=_NEEDED)}

LVM_SPEC: dict[str, Any] = {
    **FILES_SPEC,
    "volume_groups": _rows(
        name=_NEEDED, devices=_DEVICES, force=_FORCE, extent_size={"type": "str", "default": "4M"}
    ),
    "thin_pools": _rows(
        volume_group=_NEEDED, name=_NEEDED, size=_NEEDED, metadata_size=_TEXT, chunk_size=_TEXT, profile=_TEXT
    ),
    "volumes": _rows(
        volume_group=_NEEDED, name=_NEEDED, size=_NEEDED, thin_pool=_TEXT,
        filesystem={"type": "str", "choices": ["ext4", "xfs", "btrfs"]}, filesystem_options=_TEXTS, **_MOUNT,
    ),
}  # fmt: skip

ZFS_SPEC: dict[str, Any] = {
    **FILES_SPEC,
    "pools": _rows(
        name=_NEEDED, force=_FORCE, properties={"type": "dict", "default": {}},
        vdevs={
            "type": "list", "elements": "dict", "required": True,
            "options": {
                "type": {"type": "str", "default": "stripe", "choices": [
                    "stripe", "mirror", "raidz", "raidz1", "raidz2", "raidz3", "log", "cache", "special", "spare",
                ]},
                "devices": _DEVICES,
            },
        },
    ),
    "datasets": _rows(
        name=_NEEDED, size=_TEXT, sparse={"type": "bool", "default": False},
        properties={"type": "dict", "default": {}},
    ),
}  # fmt: skip

BTRFS_SPEC: dict[str, Any] = {
    **FILES_SPEC,
    "filesystems": _rows(
        label=_NEEDED, devices=_DEVICES, force=_FORCE,
        data_profile={"type": "str", "choices": list(btrfs.PROFILES)},
        metadata_profile={"type": "str", "choices": list(btrfs.PROFILES)},
        subvolumes=_rows(name=_NEEDED, **_MOUNT), **_MOUNT,
    ),
}  # fmt: skip


def run_lvm() -> NoReturn:
    """Run lvm_layout."""
    module = AnsibleModule(LVM_SPEC, supports_check_mode=True)

    def plan() -> Plan:
        wanted = lvm.parse(module.params)
        _need(module, "lvm", "lvm2", find_program(lvm.PROGRAM) is not None)
        return lvm.make_plan(wanted, lvm.read(wanted))

    _run_here(module, "lvm", plan)


def run_zfs() -> NoReturn:
    """Run zfs_layout."""
    module = AnsibleModule(ZFS_SPEC, supports_check_mode=True)

    def plan() -> Plan:
        wanted = zfs.parse(module.params)
        _need(module, "ZFS", "ZFS, and load its kernel module", zfs.is_ready())
        return zfs.make_plan(wanted, zfs.read(wanted))

    _run_here(module, "zfs", plan)


def run_btrfs() -> NoReturn:
    """Run btrfs_layout."""
    module = AnsibleModule(BTRFS_SPEC, supports_check_mode=True)

    def new_uuid() -> str:
        return "(new)" if module.check_mode else str(uuid.uuid4())

    def plan() -> Plan:
        wanted = btrfs.parse(module.params)
        _need(module, "btrfs", "btrfs-progs", find_program(btrfs.PROGRAM) is not None)
        return btrfs.make_plan(wanted, btrfs.read(wanted), new_uuid)

    _run_here(module, "btrfs", plan, btrfs.clear_left)


def _need(module: AnsibleModule, what: str, package: str, ready: bool) -> None:
    """Fail where the programs are missing; in check mode go on as if there were nothing yet, and say so."""
    if ready:
        return
    if not module.check_mode:
        raise ToolError(f"set up {what}", "it is not installed here", f"install {package}, and try again")
    module.warn(f"{what} is not installed here yet: this is what would be done on a host that has none of it.")


def _run_here(
    module: AnsibleModule, kind: str, plan: Callable[[], Plan], clear: Callable[[], None] = lambda: None
) -> NoReturn:
    """Run a module that sets up storage of this host: one run at a time, of all kinds, for all mount and write fstab.

    ``clear`` takes away what killed runs have left. It comes first, but not in check mode.
    """

    def act(done: list[Step]) -> Plan:
        purpose = f"set up {kind}"
        with host_lock(kind, _LOCK_SECONDS, purpose), mounts_lock(_LOCK_SECONDS, purpose):
            clear()
            found = unblocked(kind, plan())
            carry_out(found, done)
            return found

    run_layout(module, lambda: unblocked(kind, plan()), act, {})


def run_layout(
    module: AnsibleModule, foretell: Callable[[], Plan], act: Callable[[list[Step]], Plan], more: dict[str, Any]
) -> NoReturn:
    """Run a layout module to its end.

    Args:
        foretell: makes the plan, for check mode.
        act: makes the plan and carries it out; adds each step to the list once it is done.
        more: what stands in the result beside the changes; it may grow while the others run.
    """
    interrupts = Interrupts()
    interrupts.install()
    done: list[Step] = []
    try:
        if module.check_mode:
            found = foretell()
            done.extend(found.steps)
        else:
            found = act(done)
    except Blocked as error:
        blockers = [{"target": each.target, "reason": each.reason, "remedy": each.remedy} for each in error.blockers]
        module.fail_json(msg=str(error), blockers=blockers, **more, **_result(done))
    except MissingLibrary as error:
        module.fail_json(**missing_library(error))
    except RestorePointError as error:
        module.fail_json(msg=str(error), **more, **_result(done))
    except KeyboardInterrupt as error:
        module.fail_json(
            msg=f"Cannot go on: the run was interrupted ({error}); changes say what stands, the next run goes on.",
            **more,
            **_result(done),
        )
    result = {**more, **_result(done)}
    if module._diff:
        result["diff"] = found.diff()
    module.exit_json(**result)


def unblocked(kind: str, plan: Plan) -> Plan:
    """Return a plan without blockers; raise Blocked for one that has any."""
    if plan.blockers:
        raise Blocked(f"set up {kind}", plan.blockers)
    return plan


def _result(done: list[Step]) -> dict[str, Any]:
    return {"changed": bool(done), "changes": [step.as_result() for step in done]}
