# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ends a module with a result that may be large. Called by module.py and showing.py.

AnsibleModule goes through all that a module returns, value by value, to take out what options with no_log hold. For
10,000 snapshots that takes fifteen times as long as writing them down. Where no option holds a secret there is nothing
to take out, and lists and dictionaries are written down as they are.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule


def leave(module: AnsibleModule, **result: Any) -> NoReturn:
    """End a module as its exit_json does, with the same output. What is in ``result`` has to be fit for JSON.

    exit_json writes all of it down but the large parts, in whose places it writes marks.
    """
    parts = {} if module.no_log_values else {key: _written(each) for key, each in result.items() if _is_large(each)}
    marks = {key: os.urandom(16).hex() for key in parts}
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            module.exit_json(**{**result, **marks})
    finally:
        text = printed.getvalue()
        for key, mark in marks.items():
            text = text.replace(f'"{mark}"', parts[key], 1)
        sys.stdout.write(text)


def _written(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _is_large(value: Any) -> bool:
    return isinstance(value, (list, dict)) and bool(value)
