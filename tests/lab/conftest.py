# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of the lab: filesystems on loop devices, made once for a session, and a fresh place on one for each test.

Without root or loop devices these tests are skipped, but with CI=true they fail: there the lab has to be there.
"""

from __future__ import annotations

import os

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.pve import operations
from ansible_collections.restorepoint.core.tests import signals
from ansible_collections.restorepoint.core.tests.lab.filesystems import Lab
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.pve_cluster import guests_of_each_kind

signals.as_usual()

KINDS = ("ext4", "xfs", "btrfs", "btrfs-subvolume")


def lacking(what):
    """Skip for want of something; on CI, where everything has to be there, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI has to offer {what}")
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session")
def lab():
    """The lab; ``lab.extra_disk(fstype, size)`` gives a filesystem of its own, ``lab.place(kind)`` another place."""
    if os.geteuid() != 0:
        lacking("root")
    with Lab() as found:
        try:
            found.disk("ext4")
        except (OSError, RuntimeError) as error:
            lacking(f"loop devices: {error}")
        yield found


@pytest.fixture(params=KINDS)
def place(lab, request):
    """A fresh folder, on each filesystem in turn: ``.target``, ``.make_target()``, ``.store``."""
    with lab.place(request.param) as found:
        yield found


@pytest.fixture
def ext4(lab):
    """A fresh folder on ext4, for what does not depend on the filesystem."""
    with lab.place("ext4") as found:
        yield found


@pytest.fixture
def pve():
    """A server of Proxmox VE with a guest of each kind; it needs neither root nor loop devices."""
    with guests_of_each_kind() as cluster, pytest.MonkeyPatch.context() as patch:
        # A run that has failed takes so long at most to clean up: a busy machine may need more than a moment.
        patch.setattr(operations, "_STOP_SECONDS", 6.0)
        yield cluster
