# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which options the states need, for AnsibleModule, and the options that all info modules have.

Those of the states themselves are in engine/spec.py.
"""

from __future__ import annotations

from typing import Any

from ..core.snapshot import FIELDS

#: What the states need, for AnsibleModule's required_if; without and with the state cloned.
REQUIRED_IF: list[tuple[Any, ...]] = [
    ("state", "pruned", ("keep", "asides"), True),
    *(("state", state, ("name",)) for state in ("present", "absent", "rolled_back")),
]
REQUIRED_IF_CLONES: list[tuple[Any, ...]] = [("state", "cloned", ("name", "clone")), *REQUIRED_IF]

#: What every ``*_snapshot_info`` has; ``show`` sees to it.
FIELDS_SPEC: dict[str, Any] = {"fields": {"type": "list", "elements": "str", "choices": list(FIELDS)}}
