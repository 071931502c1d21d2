# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The last line of a description, whatever people do to it; and names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.backends.pve.metadata import (
    MARKER,
    Metadata,
    check_name,
    compose,
    reserved,
    split,
)
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput

words = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=40)
metadata = st.builds(
    Metadata,
    owner=st.sampled_from(["manual", "nightly"]),
    labels=st.dictionaries(words, words, max_size=3),
    once=st.dictionaries(words, st.integers(0, 2**40), max_size=2),
    run=st.sampled_from(["0a1b2c3d"]),
)


def as_written(given_metadata):
    return Metadata(given_metadata.owner, None if given_metadata.owner == "manual" else given_metadata.owner,
                    given_metadata.labels, given_metadata.once, run=given_metadata.run)  # fmt: skip


@given(words, metadata)
def test_what_was_written_is_read(description, told):
    description = description.rstrip("\n")
    if MARKER.strip() in description:
        return
    text = compose(description, told)
    assert split(text) == (description, as_written(told))
    assert split(f"{text}\n") == (description, as_written(told)), "containers' descriptions come with a line end"


@given(st.text())
def test_any_text_can_be_read(text):
    description, _metadata = split(text)
    assert isinstance(description, str)


def test_what_people_add_after_the_line_is_description():
    text = compose("Before it", Metadata("nightly")) + "\nDo not delete!"
    assert split(text) == ("Before it\nDo not delete!", Metadata("nightly", "nightly"))


@pytest.mark.parametrize(
    "line", ["restorepoint: {", 'restorepoint: ["a"]', "restorepoint:", "restorepoint: nonsense", "restorepoint: null"]
)
def test_a_line_that_was_spoilt_is_text_and_nobody_owns_the_snapshot(line):
    assert split(f"Before it\n{line}") == (f"Before it\n{line}", Metadata())


def test_values_of_a_wrong_kind_are_left_out():
    found = split('x\nrestorepoint: {"owner":5,"labels":["a"],"once":{"a":"b","c":3},"run":null}')
    assert found == ("x", Metadata(once={"c": 3}))


def test_what_would_be_too_long_is_refused():
    with pytest.raises(InvalidInput, match="at most 8192"):
        compose("ü" * 4090, Metadata("manual"))


@pytest.mark.parametrize("name", ["ab", "A" * 40, "a-b_c", "Vzdump", "z9"])
def test_names_that_proxmox_takes(name):
    assert check_name(name, "use it") == name


@pytest.mark.parametrize("name", ["", "x", "1bad", "a.b", "bad name", "__x", "a" * 41, "current", "añb", "ab\n"])
def test_names_that_proxmox_refuses(name):
    with pytest.raises(InvalidInput):
        check_name(name, "use it")


@pytest.mark.parametrize(
    ("name", "qemu", "lxc"),
    [("current", True, True), ("pending", True, False), ("PENDING", True, False), ("vzdump", False, True)],
)
def test_reserved_words_go_by_type(name, qemu, lxc):
    assert (reserved(name, "qemu"), reserved(name, "lxc")) == (qemu, lxc)
