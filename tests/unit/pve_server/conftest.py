# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures: a test server with a guest of each kind (scenarios.kinds says which), and a client that is root@pam."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.tests.pve_server import PveServer, scenarios
from ansible_collections.restorepoint.core.tests.unit.pve_server.client import Client


@pytest.fixture
def server():
    """A server whose tasks take almost no time."""
    with PveServer() as found:
        found.settings.task_seconds = found.settings.vmstate_seconds = found.settings.start_seconds = 0.004
        found.settings.ha_seconds = 0.004
        found.settings.idle_seconds = 600  # a test that is held up for a while has its connections still
        scenarios.kinds(found)
        yield found


@pytest.fixture
def root(server):
    """root@pam, logged in."""
    return Client(server)
