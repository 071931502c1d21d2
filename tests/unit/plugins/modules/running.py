# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a module as Ansible does: its own main(), arguments and result as JSON. For the tests beside it."""

from __future__ import annotations

import contextlib
import io
import json
import signal
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils import basic

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(module: ModuleType, check_mode: bool = False, **options: Any) -> dict[str, Any]:
    """Run a module to its end and return its result."""
    # ansible-core reads a module's arguments once in a process and keeps them; its own profiles came with 2.19.
    # Where another test has imported what only a control node has, warnings are displayed and not returned: so they are
    # caught here.
    warned: list[str] = []
    arguments = {**options, "_ansible_check_mode": check_mode, "_ansible_diff": True, "_ansible_remote_tmp": "/tmp"}
    with pytest.MonkeyPatch.context() as patch, _handlers_kept(), contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode())
        patch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
        patch.setattr(basic.AnsibleModule, "warn", lambda _module, warning: warned.append(warning))
        with pytest.raises(SystemExit):
            module.main()
    lines = [line for line in printed.getvalue().splitlines() if line.startswith("{")]
    result: dict[str, Any] = json.loads(lines[-1])
    return {**result, "warnings": warned}
