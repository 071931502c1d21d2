# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The manifest: any name passes through it, its order is the walk's, and what is none is refused."""

from __future__ import annotations

import io
import os
import stat
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.backends.hostpath import manifest
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import StoreError
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.backends.hostpath.names import NAMES

FIELDS = "\t1" * (manifest.FIELDS - 1) + "\n"


@given(NAMES)
@settings(deadline=None)
@example("\\")
@example("\\n")
@example("\n")
@example("a\\\tb")
@example("\udcff\udc80")
def test_every_name_comes_back_and_its_line_stays_one_line(name):
    label = manifest.escape(name)
    assert manifest.unescape(label) == name
    assert not set(label) & set("\t\n\r")
    assert manifest.line_name(label + FIELDS) == label


@given(NAMES, NAMES)
def test_two_names_have_two_labels(one, other):
    assert (manifest.escape(one) == manifest.escape(other)) == (one == other)


@given(st.lists(NAMES, unique=True, max_size=8))
def test_names_are_sorted_by_their_labels(names):
    ordered = manifest.sorted_names(list(names))
    assert sorted(ordered) == sorted(names)
    labels = [manifest.escape(name) for name in ordered]
    assert labels == sorted(labels)


def write(path, blocks):
    """Write a manifest of (path, names of files) and return its checksum."""
    directory = os.open(path, os.O_RDONLY)
    try:
        writer = manifest.Writer(directory, "m")
        for block, names in blocks:
            writer.lines([block + FIELDS, *(manifest.escape(name) + FIELDS for name in names)])
        return writer.close(), manifest.checksum_of(directory, "m")
    finally:
        os.close(directory)


def read(path):
    directory = os.open(path, os.O_RDONLY)
    try:
        with manifest.open_manifest(directory, "m") as stream:
            return [(block.path, [manifest.unescape(manifest.line_name(line)) for line in block.entries])
                    for block in manifest.read_blocks(stream, "m")]  # fmt: skip
    finally:
        os.close(directory)


@given(names=st.lists(NAMES, unique=True, max_size=6))
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_read_again_and_its_checksum_is_that_of_the_file(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("m")
    blocks = [("/", manifest.sorted_names(list(names)))] + [
        ("/" + manifest.escape(name), []) for name in manifest.sorted_names(list(names))
    ]
    written, found = write(path, blocks)
    assert written == found
    assert read(path) == blocks


def test_a_manifest_is_for_nobody_else_and_never_written_over_another(tmp_path):
    write(tmp_path, [("/", [])])
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        write(tmp_path, [("/", [])])


def test_a_manifest_is_never_read_through_a_link(tmp_path):
    (tmp_path / "m").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        read(tmp_path)


def blocks_of(text):
    return list(manifest.read_blocks(io.StringIO(text, newline="\n"), "m"))


@pytest.mark.parametrize("text", ["", "restorepoint-manifest 2\n", "restorepoint-manifest 1", "/" + FIELDS, "\n"])
def test_what_does_not_begin_as_a_manifest_is_none(text):
    with pytest.raises(StoreError, match="does not begin as one"):
        blocks_of(text)


@pytest.mark.parametrize(
    "line", ["a\n", "\n", "a" + FIELDS[:-3] + "\n", "a\t1" + FIELDS, "a\t1\t2\n", "a" + FIELDS[: len(FIELDS) // 2]]
)
def test_a_line_that_is_none_is_an_error_that_quotes_it(line):
    with pytest.raises(StoreError, match="has the line"):
        blocks_of(manifest.HEADER + "/" + FIELDS + line)


def test_a_file_before_any_directory_is_an_error():
    with pytest.raises(StoreError, match="has the line"):
        blocks_of(manifest.HEADER + "a" + FIELDS)


def test_an_empty_manifest_holds_nothing():
    assert blocks_of(manifest.HEADER) == []
    assert manifest.Blocks(iter(blocks_of(manifest.HEADER))).take("/") is None


# --- reading alongside a walk ----------------------------------------------------------------------------------------

#: Directory trees as nested mappings.
NO_TREE: st.SearchStrategy[dict[str, Any]] = st.just({})
TREES = st.recursive(NO_TREE, lambda below: st.dictionaries(NAMES, below, max_size=3), max_leaves=12)


def walk(tree, path=""):
    """Yield the paths of all directories in the order in which the engine goes."""
    yield path or "/"
    for name in manifest.sorted_names(list(tree)):
        yield from walk(tree[name], f"{path}/{manifest.escape(name)}")


@given(TREES, st.data())
@settings(max_examples=60, deadline=None)
def test_reading_alongside_finds_just_the_directories_that_both_have(tree, data):
    paths = list(walk(tree))
    before = data.draw(st.sets(st.sampled_from(paths)))
    after = data.draw(st.sets(st.sampled_from(paths)))
    blocks = manifest.Blocks(iter([manifest.Block(path, path + FIELDS) for path in paths if path in before]))
    for path in paths:
        if path in after:
            found = blocks.take(path)
            assert (found.path if found else None) == (path if path in before else None)


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_changes_with_everything_that_makes_a_file_another(tmp_path):
    path = tmp_path / "f"
    path.write_text("1")
    key = manifest.key(path.stat())
    st_of = path.stat()
    path.write_text("2")
    os.utime(path, ns=(st_of.st_atime_ns, st_of.st_mtime_ns))
    assert manifest.key(path.stat()).split("\t")[:1] == key.split("\t")[:1]
    assert manifest.key(path.stat()) != key, "the ctime has to tell"


def test_an_unsettled_key_is_no_files_key(tmp_path):
    path = tmp_path / "f"
    path.write_text("1")
    one, other = manifest.key(path.stat()).split("\t"), manifest.unsettled_key(path.stat()).split("\t")
    assert [index for index in range(len(one)) if one[index] != other[index]] == [manifest.CTIME - 1]
    assert other[manifest.CTIME - 1] == "-"


def test_names_of_one_file_are_a_group_and_single_files_are_none(tmp_path):
    path = tmp_path / "f"
    path.write_text("1")
    assert manifest.group(path.stat()) == "-"
    os.link(path, tmp_path / "g")
    assert manifest.group(path.stat()) == manifest.group((tmp_path / "g").stat()) != "-"


def test_extended_attributes_have_a_digest_in_which_no_two_sets_look_alike():
    sets = [{}, {"a": b""}, {"a": b"1"}, {"a": b"2"}, {"b": b"1"}, {"a": b"1", "b": b""}, {"a": b"1:1:b:0:"}]
    digests = [manifest.xattr_digest(each) for each in sets]
    assert digests[0] == "-"
    assert len(set(digests)) == len(sets)
    assert manifest.xattr_digest({"a": b"1", "b": b"2"}) == manifest.xattr_digest({"b": b"2", "a": b"1"})
