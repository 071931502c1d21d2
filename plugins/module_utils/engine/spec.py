# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that all backends share, as AnsibleModule takes them; doc_fragments/ documents them. Only data.

Called by the bridge, which gives them to Ansible, and by `policy`, which reads the same options without it.
"""

from __future__ import annotations

from typing import Any

COUNTS = ("last", "hourly", "daily", "weekly", "monthly", "quarterly", "yearly")

SNAPSHOT_SPEC: dict[str, Any] = {
    "name": {"type": "str"},
    "description": {"type": "str"},
    "labels": {"type": "dict"},
    "owner": {"type": "str", "default": "manual"},
    "max_age": {"type": "str"},
    "replace": {"type": "bool", "default": False},
    "on_failure": {"type": "str", "choices": ["undo", "keep"], "default": "undo"},
    "audit_log": {"type": "path"},
    "progress_file": {"type": "path"},
}

_KEEP: dict[str, Any] = {**{rule: {"type": "int"} for rule in COUNTS}, "within": {"type": "str"}}

KEEP_SPEC: dict[str, Any] = {
    "keep": {"type": "dict", "options": {**_KEEP, "max_age": {"type": "str"}}},
    "timezone": {"type": "str", "default": "UTC"},
    "min_keep": {"type": "int", "default": 1},
    "min_age": {"type": "str"},
    "max_delete": {"type": "str"},
    "require_recent": {"type": "str"},
    "match": {"type": "list", "elements": "str", "default": []},
}

ASIDES_SPEC: dict[str, Any] = {
    "asides": {"type": "dict", "options": {**_KEEP, "max_age": {"type": "str"}}},
}
