# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands that send and receive, here and over ssh."""

from __future__ import annotations

import shlex

from ansible_collections.restorepoint.core.plugins.module_utils.core.offsite import Point, Step
from ansible_collections.restorepoint.core.plugins.module_utils.offsite.zfs import Side, importing, receiving, sending

ONE, TWO = Point("one", "1", 1, own=True), Point("two", "2", 2, own=True)


def test_each_word_reaches_the_other_host_as_it_is():
    ssh = {"host": "nas", "user": "backup", "port": 2222, "key_file": "/k", "known_hosts": "/h"}
    argv = Side(ssh=ssh).argv("zfs", "receive", "tank/a b;rm -rf $HOME")
    assert argv[-2] == "nas"
    assert shlex.split(argv[-1])[-3:] == ["zfs", "receive", "tank/a b;rm -rf $HOME"]
    assert argv[:2] == ["ssh", "-T"]
    assert "StrictHostKeyChecking=yes" in argv
    assert "BatchMode=yes" in argv
    assert argv[argv.index("-i") + 1] == "/k"
    assert "UserKnownHostsFile=/h" in argv


def test_without_ssh_nothing_is_put_around_a_command():
    assert Side().argv("zfs", "list") == ["zfs", "list"]


def test_encrypted_datasets_are_sent_raw_and_bookmarks_without_properties():
    assert sending("t/a", Step(ONE), raw=True, properties=True) == ["zfs", "send", "-w", "-p", "t/a@one"]
    from_one = sending("t/a", Step(TWO, ONE), raw=False, properties=True)
    assert from_one == ["zfs", "send", "-L", "-e", "-c", "-p", "-i", "@one", "t/a@two"]
    mark = Point("restorepoint-export.x.one", "1", 1, bookmark=True)
    words = sending("t/a", Step(TWO, mark), raw=True, properties=True)
    assert words == ["zfs", "send", "-w", "-i", "t/a#restorepoint-export.x.one", "t/a@two"]


def test_a_receive_is_resumable_mounts_nothing_and_overwrites_only_by_force():
    words = receiving("b/t:a", "t/a", "filesystem")
    assert words[:4] == ["zfs", "receive", "-s", "-u"]
    assert "-F" not in words
    assert words[words.index("mountpoint") - 1 : words.index("mountpoint") + 1] == ["-x", "mountpoint"]
    assert "canmount=noauto" in words
    assert "-F" in receiving("b/t:a", "t/a", "filesystem", rollback=True)
    assert "canmount=noauto" not in receiving("b/t:a", "t/v", "volume")
    assert "-F" not in importing("b/new", [], whole=True)
