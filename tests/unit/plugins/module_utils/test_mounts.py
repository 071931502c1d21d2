# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mount tables, as the kernel writes them."""

from __future__ import annotations

import os

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import ToolError
from ansible_collections.restorepoint.core.plugins.module_utils.mounts import (
    Mount,
    below,
    containing,
    filesystem_path,
    inside,
    is_mount_point,
    joined,
    parse,
    read_mounts,
    table_lines,
)

TABLE = rb"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
23 22 0:21 / /proc rw,nosuid - proc proc rw
30 22 8:17 / /srv rw shared:5 master:2 propagate_from:3 - xfs /dev/sdb1 rw,noquota
31 30 8:17 /data/pg /srv/bound rw - xfs /dev/sdb1 rw
40 22 0:40 /@home /home rw - btrfs /dev/sdc rw,space_cache,subvol=/@home
41 22 0:50 / /mnt/with\040blank\011tab\012line\134slash rw - tmpfs none rw
42 22 0:51 / /mnt/empty rw -"""


def table():
    return parse(TABLE.replace(b"/mnt/empty rw -", b"/mnt/empty rw - tmpfs  rw"), "mountinfo")


def test_a_line_with_several_optional_fields_is_read():
    assert table()[2] == Mount(30, 22, "8:17", "/", "/srv", "xfs", "/dev/sdb1", "rw", "rw,noquota")


def test_a_line_without_optional_fields_is_read():
    assert table()[1] == Mount(23, 22, "0:21", "/", "/proc", "proc", "proc", "rw,nosuid", "rw")


def test_octal_escapes_are_undone():
    assert table()[5].mount_point == "/mnt/with blank\ttab\nline\\slash"


def test_an_escaped_backslash_is_not_read_twice():
    (mount,) = parse(rb"1 0 8:1 / /a\134040b rw - ext4 x rw", "mountinfo")
    assert mount.mount_point == "/a\\040b"


def test_an_empty_source_does_not_shift_the_fields():
    assert table()[6][5:] == ("tmpfs", "", "rw", "rw")


def test_bytes_that_are_no_text_survive():
    (mount,) = parse(b"1 0 8:1 / /a\xff rw - ext4 x rw", "mountinfo")
    assert os.fsencode(mount.mount_point) == b"/a\xff"


def test_characters_that_python_takes_for_line_ends_do_not_end_a_line():
    (mount,) = parse("1 0 8:1 / /a\u2028b\x0cc rw - ext4 x rw\n".encode(), "mountinfo")
    assert mount.mount_point == "/a\u2028b\x0cc"


def test_a_root_that_is_no_path_is_read():
    (mount,) = parse(b"1 0 0:4 net:[4026532281] /run/netns/x rw - nsfs nsfs rw", "mountinfo")
    assert mount.root == "net:[4026532281]"


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b"1 0 8:1 / /a rw ext4 x rw",
        b"x 0 8:1 / /a rw - ext4 x rw",
        b"1 0 8-1 / /a rw - ext4 x rw",
        b"1 0 8:1 / a rw - ext4 x rw",
        b"1 0 8:1  /a rw - ext4 x rw",
        b"1 0 8:1 / /a rw -",
        b"1 0 8:1 / /a rw - ext4",
        b" ",
    ],
)
def test_a_line_that_cannot_be_parsed_is_an_error_and_not_skipped(line):
    with pytest.raises(ToolError, match="Cannot read the mounts in /proc/7/mountinfo"):
        parse(TABLE.split(b"\n", maxsplit=1)[0] + b"\n" + line + b"\n", "/proc/7/mountinfo")


@pytest.mark.parametrize(
    ("path", "mount_id"),
    [
        ("/", 22),
        ("/etc", 22),
        ("/srv", 30),
        ("/srv/", 30),
        ("//srv/x/..", 30),
        ("/srv/data/pg", 30),
        ("/srvx", 22),
        ("/srv/bound/x", 31),
        ("/srv/boundary", 30),
    ],
)
def test_the_mount_of_a_path_is_found_component_by_component(path, mount_id):
    assert containing(table(), path).mount_id == mount_id


@pytest.mark.parametrize("parent", [b"2", b"1"])
def test_of_two_mounts_on_one_place_the_later_one_wins(parent):
    lines = [
        b"1 0 8:1 / / rw - ext4 a rw",
        b"2 1 8:2 / /srv rw - ext4 b rw",
        b"3 %b 8:3 / /srv rw - ext4 c rw" % parent,
    ]
    mounts = parse(b"\n".join(lines), "mountinfo")
    assert containing(mounts, "/srv/data").device == "8:3"


def test_a_mount_hidden_under_a_later_one_is_not_found():
    mounts = parse(
        b"1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /srv/data rw - ext4 b rw\n3 1 8:3 / /srv rw - ext4 c rw\n", "mountinfo"
    )
    assert containing(mounts, "/srv/data/x").device == "8:3"
    assert not is_mount_point(mounts, "/srv/data")


def test_a_root_that_is_its_own_parent_ends_the_search():
    assert containing(parse(b"1 1 8:1 / / rw - rootfs none rw", "mountinfo"), "/srv").device == "8:1"


def test_a_path_that_no_mount_covers_is_an_error():
    mounts = parse(b"2 1 8:2 / /srv rw - ext4 b rw", "mountinfo")
    with pytest.raises(LookupError, match="/etc"):
        containing(mounts, "/etc")
    assert not is_mount_point(mounts, "/etc")


def test_a_relative_path_is_an_error():
    with pytest.raises(ValueError, match="srv"):
        containing(table(), "srv")


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/etc", ("254:0", "/etc")),
        ("/", ("254:0", "/")),
        ("/srv", ("8:17", "/")),
        ("/srv/data/pg/base", ("8:17", "/data/pg/base")),
        ("/srv/bound/base", ("8:17", "/data/pg/base")),
        ("/srv/bound", ("8:17", "/data/pg")),
        ("/home/u", ("0:40", "/@home/u")),
    ],
)
def test_a_path_is_traced_to_its_place_in_the_filesystem(path, place):
    assert filesystem_path(table(), path) == place


def test_mounts_below_a_directory_do_not_include_the_directory_or_its_neighbours():
    assert below(table(), "/srv") == ["/srv/bound"]
    assert below(table(), "/srv/b") == []
    assert below(table(), "/srv/bound") == []
    assert below(table(), "/mnt/") == ["/mnt/empty", "/mnt/with blank\ttab\nline\\slash"]


def test_a_mount_point_is_told_from_a_directory():
    assert is_mount_point(table(), "/srv/bound")
    assert not is_mount_point(table(), "/srv/data")


@pytest.mark.parametrize(
    ("path", "folder", "relative"),
    [("/a", "/", "a"), ("/", "/", ""), ("/a/b", "/a", "b"), ("/a", "/a", ""), ("/ab", "/a", None), ("/", "/a", None)],
)
def test_a_path_in_a_folder_and_back(path, folder, relative):
    assert inside(path, folder) == relative
    if relative is not None:
        assert joined(folder, relative) == path


def test_our_own_mounts_can_be_read_and_cover_every_path():
    mounts = read_mounts()
    assert containing(mounts, "/proc").fstype == "proc"
    assert filesystem_path(mounts, os.getcwd())[0] in {mount.device for mount in mounts}


def test_a_process_that_is_gone_has_no_mounts(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_mounts(4711, proc=str(tmp_path))


def test_a_table_like_fstab_is_read_with_its_escapes_and_without_its_comments(tmp_path):
    table = tmp_path / "fstab"
    table.write_bytes(b"# all\n\n/dev/a \t/srv/with\\040blank btrfs subvolid=5\n /dev/b /srv/\xe1\x9a\x80#x ext4\n")
    assert table_lines(str(table)) == [
        ["/dev/a", "/srv/with blank", "btrfs", "subvolid=5"],
        ["/dev/b", "/srv/\u1680#x", "ext4"],
    ]
    assert table_lines(str(tmp_path / "none")) == []
