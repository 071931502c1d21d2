# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of csi_class_test, and what they mean. Called by that module.

May import ansible and what lies below.
"""

from __future__ import annotations

from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ..backends.csi.class_test import ATTEMPT, ClassTest, Wanted, steps_of
from ..backends.csi.objects import quantity
from ..core.claim_names import check_request
from ..core.errors import Blocked, InvalidInput, MissingLibrary, RestorePointError
from ..interrupts import Interrupts
from ..kube import KubeClient
from .kubernetes import ARGUMENT_SPEC as KUBERNETES_SPEC
from .kubernetes import connection_options
from .libraries import missing_library

SPEC: dict[str, Any] = {
    "storage_class": {"type": "str", "required": True},
    "snapshot_class": {"type": "str"},
    "namespace": {"type": "str", "default": "default"},
    "size": {"type": "str", "default": "1Gi"},
    "node": {"type": "str"},
    "timeout": {"type": "int", "default": 300},
    **KUBERNETES_SPEC,
}


def run() -> NoReturn:
    """Run csi_class_test."""
    module = AnsibleModule(SPEC, supports_check_mode=True)
    interrupts = Interrupts()
    interrupts.install()
    try:
        test = ClassTest(KubeClient(connection_options(module)), _wanted(module.params))
        lacking = test.check()
        if module.check_mode:
            for each in lacking:
                module.warn(f"Without this there is no test: {each}.")
        elif lacking:
            raise Blocked(ATTEMPT, lacking)
        else:
            _run(test, interrupts)
    except Blocked as error:
        blockers = [{"target": each.target, "reason": each.reason, "remedy": each.remedy} for each in error.blockers]
        module.fail_json(msg=str(error), blockers=blockers)
    except MissingLibrary as error:
        module.fail_json(**missing_library(error))
    except RestorePointError as error:
        module.fail_json(msg=str(error))
    except KeyboardInterrupt as error:
        module.fail_json(msg=f"Cannot go on: the test was interrupted ({error}); what it had made is removed.")
    found = test.outcome
    module.exit_json(
        changed=False, driver=found.driver, snapshot_class=found.snapshot_class, node=found.node,
        restored_bytes=found.restored_bytes, steps=steps_of(found),
    )  # fmt: skip


def _run(test: ClassTest, interrupts: Interrupts) -> None:
    """Run the test; where it fails, remove what it had made, and say what could not be removed."""
    try:
        test.run()
    except (RestorePointError, KeyboardInterrupt) as error:
        with interrupts.held():
            try:
                test.remove()
            except RestorePointError as second:
                if isinstance(error, RestorePointError):
                    raise RestorePointError(
                        error.attempt, f"{error.reason}; and what the test made could not be removed: {second.reason}",
                        error.remedy,
                    ) from None  # fmt: skip
                raise second from None
        raise


def _wanted(params: dict[str, Any]) -> Wanted:
    check_request(params["namespace"], (), None)
    if not quantity(params["size"]):
        raise InvalidInput(f"use {params['size']!r} as size", "it is no quantity of Kubernetes", "write it as 1Gi")
    if params["timeout"] < 1:
        raise InvalidInput(f"wait {params['timeout']} s", "that is no time", "give timeout in seconds, 1 or more")
    return Wanted(
        namespace=params["namespace"],
        storage_class=params["storage_class"],
        snapshot_class=params["snapshot_class"] or None,
        size=params["size"],
        node=params["node"] or None,
        timeout=float(params["timeout"]),
    )
