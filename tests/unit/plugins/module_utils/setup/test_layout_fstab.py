# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""fstab: one line changes, and no other."""

from __future__ import annotations

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import StoreError
from ansible_collections.restorepoint.core.plugins.module_utils.setup.fstab import (
    Entry,
    find,
    parse_line,
    replaced,
    write,
)

ENTRY = Entry("/dev/vg/lv", "/srv/data", "ext4", "noatime", 2)
CONTENT = """# by hand
UUID=1 / ext4 errors=remount-ro 0 1

/dev/vg/old\t/srv/data  xfs defaults 0 0
tmpfs /tmp tmpfs
"""
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=0x7E) | st.characters(min_codepoint=0xC0), min_size=1)


def test_a_missing_line_goes_to_the_end():
    assert replaced("UUID=1 / ext4 defaults 0 1", ENTRY) == (
        "UUID=1 / ext4 defaults 0 1\n/dev/vg/lv /srv/data ext4 noatime 0 2\n"
    )


def test_the_line_of_the_mount_point_is_replaced_and_all_others_stay_to_the_byte():
    lines = CONTENT.splitlines(keepends=True)
    lines[3] = ENTRY.line + "\n"
    assert replaced(CONTENT, ENTRY) == "".join(lines)


def test_the_last_of_two_lines_counts_as_it_does_for_mount():
    content = "/dev/a /srv/data ext4\n/dev/b /srv/data ext4\n"
    assert find(content, "/srv/data") == Entry("/dev/b", "/srv/data", "ext4", "defaults", 0)
    assert replaced(content, ENTRY).splitlines() == ["/dev/a /srv/data ext4", ENTRY.line]


def test_comments_and_empty_lines_mount_nothing():
    assert [parse_line(line) for line in ("# /dev/a /srv ext4", "", "   ", "/dev/a /srv")] == [None] * 4


@given(PRINTABLE, PRINTABLE, PRINTABLE)
def test_what_is_written_is_read_again_whatever_blanks_are_in_it(source, path, options):
    entry = Entry(source, "/" + path, "ext4", options, 2)
    assert parse_line(entry.line) == entry
    assert find(replaced(CONTENT, entry), entry.path) == entry


def test_it_is_written_whole_with_the_mode_it_had(tmp_path):
    path = tmp_path / "fstab"
    path.write_text(CONTENT)
    path.chmod(0o640)
    write(ENTRY, str(path))
    assert path.read_text() == replaced(CONTENT, ENTRY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["fstab"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_text(CONTENT)
    (tmp_path / "fstab").symlink_to("real")
    write(ENTRY, str(tmp_path / "fstab"))
    assert (tmp_path / "fstab").is_symlink()
    assert ENTRY.line in (tmp_path / "real").read_text()


def test_a_folder_that_is_gone_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(StoreError, match=r"Cannot write /srv/data into .*No such file or directory"):
        write(ENTRY, str(tmp_path / "nowhere" / "fstab"))
