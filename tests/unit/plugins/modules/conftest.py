# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures for the tests of the Proxmox VE modules."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.tests.unit.plugins.modules.pve_cluster import guests_of_each_kind


@pytest.fixture
def pve():
    """A server with a guest of each kind, and the modules with its connection."""
    with guests_of_each_kind() as cluster:
        yield cluster
