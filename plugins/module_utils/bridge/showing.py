# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs an info module's one call. It imports nothing of what changes anything: a module is compiled in each task.

May import ansible and what lies below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ..core.errors import MissingLibrary, RestorePointError
from ..core.snapshot import with_fields
from .ending import leave
from .libraries import missing_library


def show(
    module: AnsibleModule, look: Callable[[Mapping[str, Any]], tuple[Mapping[str, Any], Sequence[str]]]
) -> NoReturn:
    """End an info module with what ``look`` finds by its options, and with the warnings it has; or with its failure.

    Where the option ``fields`` names some, snapshots are shown with these alone.
    """
    try:
        result, warnings = look(module.params)
    except MissingLibrary as error:
        module.fail_json(**missing_library(error))
    except RestorePointError as error:
        module.fail_json(msg=str(error))
    for warning in warnings:
        module.warn(warning)
    fields = module.params.get("fields")
    leave(module, changed=False, **(with_fields(result, fields) if fields else result))
