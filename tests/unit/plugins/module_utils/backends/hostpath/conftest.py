# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""For all tests of this backend: nothing waits for a disk, and no temporary directory is a Btrfs subvolume.

What a power cut leaves, and what Btrfs does, is for tests/lab, on filesystems of its own.
"""

from __future__ import annotations

import os

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils import linux
from ansible_collections.restorepoint.core.plugins.module_utils.backends.stored import subvolume


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(linux, "syncfs", lambda fd: None)


@pytest.fixture(autouse=True)
def _without_subvolumes(monkeypatch):
    monkeypatch.setattr(subvolume, "can_snapshot", lambda *_unused: False)
