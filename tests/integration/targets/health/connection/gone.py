# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A connection to a host that does not answer."""

from __future__ import annotations

DOCUMENTATION = """
name: gone
short_description: Does not connect
description: [For the test of hosts that cannot be reached.]
author: The restorepoint.core authors (@restorepoint)
"""

from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase


class Connection(ConnectionBase):
    """What Ansible asks for."""

    transport = "gone"

    def _connect(self) -> Any:
        raise AnsibleConnectionFailure("{{ nobody }} <b>answers</b>")

    def exec_command(self, cmd: str, in_data: Any = None, sudoable: bool = True) -> Any:
        """Fail."""
        return self._connect()

    def put_file(self, in_path: str, out_path: str) -> None:
        """Fail."""
        self._connect()

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Fail."""
        self._connect()

    def close(self) -> None:
        """Do nothing."""
