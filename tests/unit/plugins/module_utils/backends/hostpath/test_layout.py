# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of snapshots, and of the folders of targets in a store."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.backends.stored import layout
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.restorepoint.core.plugins.module_utils.core.names import aside_name, automatic_name
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.backends.hostpath.names import NAMES

PATHS = st.lists(NAMES, min_size=1, max_size=6).map(lambda names: "/" + "/".join(names))


@pytest.mark.parametrize("name", ["a", "0", "pre-upgrade", "v1.2.3+4_5", "A" * 128, "x.json.old", "a..b"])
def test_a_name_of_letters_digits_and_a_few_signs_is_good(name):
    assert layout.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "-x",
        "_x",
        "+x",
        "a/b",
        "/a",
        "a b",
        "a\n",
        "a\0",
        "é",
        "a" * 129,
        "a:b",
        "$x",
        "a\udcff",
    ],
)
def test_a_name_that_could_mean_something_else_is_refused(name):
    with pytest.raises(InvalidInput, match="1 to 128 characters"):
        layout.check_name(name)


@pytest.mark.parametrize("name", ["x.json", "x.manifest", "a.b.json"])
def test_a_name_under_which_the_store_keeps_metadata_is_refused(name):
    with pytest.raises(InvalidInput, match="keeps metadata"):
        layout.check_name(name)


def test_a_new_snapshot_is_not_called_as_what_a_return_has_set_aside():
    assert layout.check_name(aside_name(0)) == aside_name(0)
    with pytest.raises(InvalidInput, match="what a return has set aside"):
        layout.check_new_name(aside_name(0))
    with pytest.raises(InvalidInput, match="1 to 128 characters"):
        layout.check_new_name("a/b")


def test_automatic_names_are_good_names():
    assert layout.check_new_name(automatic_name("nightly", 1_800_000_000)) == "nightly-20270115t080000z"


def test_the_folder_of_a_target_can_be_read_by_people_and_stays_the_same():
    # Stores that are out there depend on it.
    assert layout.folder_name("/srv/web") == "srv-web-1b90dbd2d3bcc59a"
    assert layout.folder_name("/") == "8a5edab282632443"


@given(PATHS)
@settings(max_examples=50, deadline=None)
def test_a_folder_lies_in_the_store_and_is_not_hidden(path):
    name = layout.folder_name(path)
    assert "/" not in name
    assert "\0" not in name
    assert not name.startswith((".", "-"))
    assert len(os.fsencode(name)) <= 100
    assert name.isascii()
    assert name == layout.folder_name(path)


@given(PATHS, PATHS)
@settings(max_examples=50, deadline=None)
def test_two_targets_have_two_folders(one, other):
    assert (layout.folder_name(one) == layout.folder_name(other)) == (one == other)


def test_paths_that_read_alike_have_two_folders():
    alike = ["/srv/a-b", "/srv/a/b", "/srv/a b", "/srv/a_b", "/srv/a-b/", "/srv-a-b", "/srv/A-b"]
    assert len({layout.folder_name(path) for path in alike}) == len(alike)


def test_a_target_with_a_very_long_path_has_a_folder_that_ends_as_it_does():
    assert layout.folder_name("/" + "x" * 4000 + "/data").startswith("x" * 75 + "-data-")
