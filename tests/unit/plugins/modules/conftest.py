# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures for the tests of the Proxmox VE modules."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.tests.pve_server import PveServer, scenarios
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.pve_cluster import Cluster, impatient


@pytest.fixture
def pve():
    """A server with a guest of each kind (scenarios.kinds), whose tasks take almost no time; nothing waits for long."""
    with PveServer() as server, impatient():
        server.settings.task_seconds = server.settings.vmstate_seconds = server.settings.start_seconds = 0.004
        scenarios.kinds(server)
        yield Cluster(server)
