# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of btrfs_snapshot, through the module itself: which go together, and what they come to mean."""

from __future__ import annotations

import os

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils import process
from ansible_collections.restorepoint.core.plugins.module_utils.bridge import btrfs as bridge
from ansible_collections.restorepoint.core.plugins.modules import btrfs_snapshot, btrfs_snapshot_info
from ansible_collections.restorepoint.core.tests.unit.plugins.modules import documented
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.running import run


@pytest.fixture(autouse=True)
def _as_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(process, "find_program", lambda name: f"/usr/bin/{name}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "x"}, "missing required arguments: subvolume"),
        ({"subvolume": ["/a"]}, "state is present but all of the following are missing: name"),
        ({"subvolume": ["/a"], "state": "cloned", "name": "x"}, "all of the following are missing: clone"),
        ({"subvolume": ["/a"], "state": "pruned"}, "any of the following are missing: keep, asides"),
        ({"subvolume": ["/a"], "name": "x", "nested": "lose"}, "value of nested must be one of: move, aside"),
        ({"subvolume": ["a"], "name": "x"}, "Cannot use 'a' as a target: it is relative"),
        ({"subvolume": [], "name": "x"}, "subvolume is empty"),
        ({"subvolume": ["/a"], "name": "x", "lock_timeout": -1}, "it is negative"),
        ({"subvolume": ["/a", "/b"], "state": "cloned", "name": "x", "clone": ["/c"]}, "as many paths as there are"),
    ],
)
def test_what_cannot_be_meant_is_an_error_and_touches_nothing(tmp_path, options, words):
    result = run(btrfs_snapshot, store=str(tmp_path / "store"), **options)
    assert result["failed"]
    assert words in result["msg"]
    assert list(tmp_path.iterdir()) == []


def test_elsewhere_than_on_btrfs_it_is_refused(tmp_path):
    result = run(btrfs_snapshot, store="/proc/store", subvolume=["/proc"], name="x")
    assert "it does not lie on Btrfs; name a folder on Btrfs" in result["msg"]


def test_an_ordinary_user_is_told_to_be_root(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = run(btrfs_snapshot, store=str(tmp_path / "store"), subvolume=[str(tmp_path)], name="x")
    assert result["msg"] == "Cannot use Btrfs snapshots: only root can delete them; run as root (become: true)."


def test_a_missing_btrfs_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "find_program", lambda name: None)
    result = run(btrfs_snapshot, store=str(tmp_path / "store"), subvolume=[str(tmp_path)], name="x")
    assert "the program btrfs is not there; install btrfs-progs" in result["msg"]


def test_info_without_a_store_says_so(tmp_path):
    result = run(btrfs_snapshot_info, store=str(tmp_path / "store"))
    assert "there is no store; take a snapshot first" in result["msg"]


@pytest.mark.parametrize(
    ("module", "spec"), [(btrfs_snapshot, bridge.STATE_SPEC), (btrfs_snapshot_info, bridge.INFO_SPEC)]
)
def test_options_are_as_they_are_documented(module, spec):
    assert list(documented.differences(spec, documented.options(module))) == []
