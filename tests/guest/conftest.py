# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of the tests in the guest: one guest for the whole session, clean at its beginning.

Where no guest can be had these tests are skipped with the reason, but with CI=true they fail. RP_GUEST names the guest,
so that several sessions can run side by side.
"""

from __future__ import annotations

import os

import pytest

from ansible_collections.restorepoint.core.tests.guest.machine import Guest, Machine


@pytest.fixture(scope="session")
def guest():
    """The guest, booted with empty disks. RP_GUEST_KEEP=1 takes one that runs as it is, while you work."""
    machine = Machine(Guest())
    machine.boot_or_skip(fresh=not os.environ.get("RP_GUEST_KEEP"))
    yield machine
    machine.close()


@pytest.fixture(scope="module", autouse=True)
def empty_disks(guest):
    """Each file of tests begins with empty disks, whatever the one before has left on them."""
    guest.clear_disks()
