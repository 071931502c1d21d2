# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removing trees: at any depth, whatever their modes, and nothing outside of them."""

from __future__ import annotations

import os

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.stored.remove import remove_tree
from ansible_collections.restorepoint.core.plugins.module_utils.linux import raise_open_file_limit


@pytest.fixture
def parent(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_a_tree_goes_with_all_in_it(tmp_path, parent):
    (tmp_path / "t" / "a" / "b").mkdir(parents=True)
    (tmp_path / "t" / "a" / "f").write_text("x")
    (tmp_path / "t" / "empty").mkdir()
    os.mkfifo(tmp_path / "t" / "fifo")
    (tmp_path / "other").write_text("stays")
    remove_tree(parent, "t")
    assert os.listdir(tmp_path) == ["other"]


def test_a_single_file_goes_too(tmp_path, parent):
    (tmp_path / "f").write_text("x")
    remove_tree(parent, "f")
    assert os.listdir(tmp_path) == []


def test_what_is_not_there_is_no_error(tmp_path, parent):
    remove_tree(parent, "gone")


def test_links_go_and_what_they_point_to_stays(tmp_path, parent):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_text("stays")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "link").symlink_to("../outside")
    (tmp_path / "link").symlink_to("outside")
    remove_tree(parent, "t")
    remove_tree(parent, "link")
    assert os.listdir(tmp_path) == ["outside"]
    assert (tmp_path / "outside" / "f").read_text() == "stays"


@pytest.mark.parametrize("mode", [0o000, 0o100, 0o200, 0o400, 0o500, 0o555])
def test_directories_that_forbid_it_go_all_the_same(tmp_path, parent, mode):
    (tmp_path / "t" / "locked" / "below").mkdir(parents=True)
    (tmp_path / "t" / "locked" / "f").write_text("x")
    (tmp_path / "t" / "locked").chmod(mode)
    remove_tree(parent, "t")
    assert os.listdir(tmp_path) == []


def test_a_tree_2000_directories_deep_goes(tmp_path, parent):
    assert raise_open_file_limit(4096) >= 2100, "the hard limit of open files is too low on this machine"
    fd = os.dup(parent)
    for _unused in range(2000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.mkdir("last", dir_fd=fd)
    os.close(fd)
    remove_tree(parent, "d")
    assert os.listdir(tmp_path) == []


def test_no_descriptor_is_left_open(tmp_path, parent):
    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "t" / "a" / "b").mkdir(parents=True)
    remove_tree(parent, "t")
    assert len(os.listdir("/proc/self/fd")) == before
