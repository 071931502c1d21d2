# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tools print is read strictly: as recorded in the guest, and not at all where it is anything else."""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils import process
from ansible_collections.restorepoint.core.plugins.module_utils.backends.zfs import (
    changes,
    grants,
    listing,
    names,
    tool,
)
from ansible_collections.restorepoint.core.plugins.module_utils.backends.zfs import properties as props
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput, ToolError
from ansible_collections.restorepoint.core.plugins.module_utils.core.snapshot import FIELDS

RECORDED = pathlib.Path(__file__).parent / "recorded"


def recorded(name):
    return (RECORDED / f"{name}.txt").read_text()


def test_what_destroying_would_free_is_read_as_recorded():
    assert tool.parse_reclaim(recorded("destroy_nvp"), "look") == (["two/c@s1"], 0)


@pytest.mark.parametrize("text", ["", "destroy\ta@b\n", "reclaim\t-1\n", "reclaim\t1K\n", "reclaim\t1"])
def test_what_does_not_say_how_much_is_freed_is_an_error(text):
    with pytest.raises(ToolError):
        tool.parse_reclaim(text, "look")


def test_what_is_missing_is_read_as_recorded_and_nothing_else_is_taken_for_missing():
    assert list(tool.missing_names(recorded("missing"))) == ["two/c@x", "two/nope@y", "nopool/x", "tank/t6#mark"]
    assert list(tool.missing_names("cannot open 'tank': permission denied\ninternal error: out of memory\n")) == []


def test_a_recorded_line_becomes_a_snapshot():
    (fields,) = tool.parse_table(recorded("snapshots"), listing._SNAPSHOT, "look")
    row = listing._row(fields, "look")
    shown = row.snapshot()
    assert (shown.target, shown.name, shown.created, shown.sequence) == ("two/c", "s1", 1795538078, 73)
    assert (shown.owner, shown.labels, shown.held, shown.in_use) == (None, {}, "2 holds", None)


class Listing(tool.Zfs):
    """Answers `zfs list` with one snapshot, in the columns that it is asked for."""

    def __init__(self, row):
        super().__init__(1.0)
        self.row = dict(zip(listing._SNAPSHOT, row))

    def rows(self, columns, arguments, names, attempt):
        return [[self.row[each] for each in columns]]


@given(st.lists(st.sampled_from(FIELDS)))
def test_a_listing_of_some_fields_tells_of_these_what_one_of_all_tells(fields):
    (row,) = tool.parse_table(recorded("snapshots"), listing._SNAPSHOT, "look")
    row[3:8] = ["17", "4096", "8192", "2", "two/look,two/other"]
    row[8:] = props.snapshot_properties("nightly", "what for", {"app": "web"}).values()
    there = [listing.Dataset("two/c", "filesystem")]
    whole, few = (
        listing.snapshots_of(Listing(row), there, "look", listing.columns_for(asked))["two/c"][0].snapshot().as_result()
        for asked in (FIELDS, fields)
    )
    assert {name: few[name] for name in fields} == {name: whole[name] for name in fields}


def test_names_alone_are_asked_for_without_what_zfs_has_to_look_up():
    assert listing.columns_for(["target", "name", "ready"]) == ("name", "createtxg")
    assert listing.columns_for(FIELDS) == listing._SNAPSHOT


def test_recorded_holds_are_read_with_blanks_in_their_tags():
    rows = list(tool.parse_table(recorded("holds"), ("name", "tag", "timestamp"), "look"))
    assert [row[1] for row in rows] == ["t1", "t 2"]


def test_recorded_grants_become_the_arguments_that_grant_them_again():
    assert list(grants.grants(recorded("allow"), "two/c")) == [
        ["-s", "@my", "create,destroy"],
        ["-c", "rollback"],
        ["-l", "-e", "send"],
        ["-d", "-u", "daemon", "hold"],
        ["-u", "daemon", "mount,snapshot"],
        ["-g", "daemon", "@my"],
    ]  # fmt: skip


def test_a_grant_that_cannot_be_read_is_an_error():
    with pytest.raises(ToolError, match="cannot be read"):
        list(grants.grants("---- Permissions on a ----\nLocal permissions:\n\tnobody knows this\n", "a"))


@given(st.text(max_size=300), st.integers(1, 6))
def test_any_output_is_either_whole_lines_of_as_many_fields_or_an_error(text, width):
    columns = tuple(f"c{number}" for number in range(width))
    try:
        rows = list(tool.parse_table(text, columns, "look"))
    except ToolError:
        return
    assert "".join("\t".join(row) + "\n" for row in rows) == text
    assert all(len(row) == width and row[0] for row in rows)


@given(st.text(max_size=30))
def test_only_a_plain_number_is_a_number(text):
    try:
        number = tool.parse_number(text, "it", "look")
    except ToolError:
        return
    assert text.isascii()
    assert text.isdecimal()
    assert int(text) == number


@given(st.text(max_size=200))
def test_every_text_survives_its_way_into_a_property_and_fits_a_line(text):
    value = props.encode_text(text)
    assert props.decode_text(value) == text
    assert "\t" not in value
    assert "\n" not in value
    assert value not in ("", "-")


@given(st.lists(st.text("abc/@", min_size=1, max_size=40), max_size=60), st.integers(60, 400))
def test_batches_keep_every_name_in_order_and_none_is_too_large(given_names, room):
    parts = list(tool.batches(given_names, room=room))
    assert [name for part in parts for name in part] == given_names
    assert all(len(part) == 1 or sum(len(name) + 9 for name in part) <= room for part in parts)


@given(st.lists(st.text("abc", min_size=1, max_size=9), max_size=60), st.integers(10, 60))
def test_lists_keep_every_name_and_fit_into_one_argument(given_names, longest):
    parts = list(tool.lists(given_names, longest))
    assert [name for part in parts for name in part] == given_names
    assert all(len(part) == 1 or len(",".join(part)) < longest for part in parts)


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (names.check_dataset, "tank@x"), (names.check_dataset, "tank//x"), (names.check_dataset, "tank/.."),
        (names.check_dataset, "/tank"), (names.check_dataset, "1tank"), (names.check_dataset, "-tank"),
        (names.check_dataset, ""), (names.check_dataset, "tank/ü"), (names.check_dataset, "t" * 256),
        (names.check_snapshot, "a@b"), (names.check_snapshot, "a,b"), (names.check_snapshot, "a%b"),
        (names.check_snapshot, ""), (names.check_snapshot, ".."), (names.check_tag, "-r"), (names.check_tag, "a\tb"),
        (names.check_new_snapshot, "aside-20261122t013000z"), (names.check_new_snapshot, "restorepoint-old-1"),
        (names.check_bookmark, "a#b"),
    ],
)  # fmt: skip
def test_what_zfs_could_not_call_so_or_would_take_for_something_else_is_refused(check, name):
    with pytest.raises(InvalidInput):
        check(name)


def test_ordinary_names_pass():
    for name in ("tank", "tank/a b", "rpool/ROOT/debian_12.1:x-y"):
        assert names.check_dataset(name) == name
    assert names.check_snapshot("zfs-auto-snap_daily-2026-11-24-0000") == "zfs-auto-snap_daily-2026-11-24-0000"


def test_records_that_grow_lose_their_oldest_entries_and_fit_a_property():
    record: dict[str, object] = {}
    for number in range(500):
        record = props.with_newest(record, f"token-{number:0100}", [number, "snapshot"])
    assert len(props.encode_json(record)) <= props.LONGEST_VALUE
    assert f"token-{499:0100}" in record
    assert f"token-{0:0100}" not in record


def test_a_command_that_says_neither_there_nor_missing_is_an_error(tmp_path, monkeypatch):
    shim = tmp_path / "zfs"
    shim.write_text("#!/bin/sh\necho \"cannot open 'tank/a': permission denied\" >&2\nexit 1\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ToolError, match=r"zfs allow"):
        tool.Zfs(10).list_those_there(("name",), ["tank/a"], "find tank/a")


def test_thousands_of_names_that_are_all_missing_are_all_understood(tmp_path, monkeypatch):
    shim = tmp_path / "zfs"
    print_missing = "for name; do echo \"cannot open '$name': dataset does not exist\" >&2; done"
    shim.write_text(f"#!/bin/sh\nshift 6\n{print_missing}\nexit 1\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    wanted = [f"tank/shop/with/a/long/name/{number:05}@production-20261126t020001z" for number in range(5000)]
    assert tool.Zfs(60).list_those_there(("name",), wanted, "find them") == []


def test_a_host_without_zfs_or_its_module_is_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "find_program", lambda name: None)
    with pytest.raises(ToolError, match="zfsutils-linux"):
        tool.Zfs(10).run("list", attempt="list")
    monkeypatch.undo()
    shim = tmp_path / "zfs"
    shim.write_text("#!/bin/sh\necho 'The ZFS modules are not loaded.' >&2\nexit 1\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ToolError, match="modprobe zfs"):
        tool.Zfs(10).run("list", attempt="list")


class Tool(tool.Zfs):
    """A `zfs` that answers with a text, and keeps what it was asked."""

    def __init__(self, printed: str, complaints: str = "", rc: int = 0) -> None:
        super().__init__(10)
        self.done = process.Completed(printed, complaints, rc)
        self.asked: list[tuple[str, ...]] = []

    def run(self, *arguments, attempt, ok=(0,), **_unused):
        self.asked.append(arguments)
        return self.done


def test_one_listing_tells_datasets_from_their_snapshots_and_from_what_is_missing():
    # name, type, owner, description, labels, aside, return, replacing, creation, createtxg, guid, used, referenced, ...
    lines = [
        "tank/a\tfilesystem\tdaily\t-\t-\t-\t{}\t-\t1700000000\t7\t99\t512\t1024\t-\t-\n",
        "tank/a@x\tsnapshot\tdaily\t-\t-\t-\t{}\t-\t1700000001\t8\t100\t0\t1024\t1\ttank/c,tank/d\n",
        "tank/b\tvolume\t-\t-\t-\t-\t-\t-\t1700000000\t7\t98\t512\t1024\t-\t-\n",
    ]
    complaints = "cannot open 'tank/b@x': dataset does not exist\n"
    zfs = Tool("".join(lines), complaints, 1)
    datasets, snapshots = listing.datasets_with(zfs, ["tank/a", "tank/b"], "x")
    assert datasets == [
        listing.Dataset("tank/a", "filesystem", inherits=True, marked=True),
        listing.Dataset("tank/b", "volume"),
    ]
    assert len(zfs.asked) == 1
    row = listing.by_dataset(zfs, [listing.Dataset("tank/a", "filesystem")], snapshots, "look")["tank/a"][0]
    assert (row.full, row.created, row.txg, row.guid, row.holds) == ("tank/a@x", 1700000001, 8, "100", 1)
    assert (row.clones, row.own) == (("tank/c", "tank/d"), {props.OWNER: "daily"})


def test_a_removal_is_one_command_that_says_itself_what_it_frees():
    zfs = Tool("destroy\ttank@a\ndestroy\ttank@b\nreclaim\t4096\n")
    assert changes.destroy_freeing(zfs, "tank", ["a", "b"], "remove") == 4096
    assert zfs.asked == [("destroy", "-vp", "tank@a,b")]


def test_what_a_removal_would_free_is_asked_without_removing():
    zfs = Tool("destroy\ttank@a\nreclaim\t4096\n")
    assert changes.freed_by(zfs, "tank", ["a"]) == 4096
    assert zfs.asked == [("destroy", "-nvp", "tank@a")]


def test_a_removal_that_nobody_asks_about_does_not_fail_for_what_is_printed_beside_the_names():
    zfs = Tool("not what was expected\ndestroy\ttank@a\nnor this")
    changes.destroy(zfs, "tank", ["a"], "remove")
    assert zfs.asked == [("destroy", "-vp", "tank@a")]
    with pytest.raises(ToolError, match="cannot be read"):
        changes.destroy_freeing(zfs, "tank", ["a"], "remove")
