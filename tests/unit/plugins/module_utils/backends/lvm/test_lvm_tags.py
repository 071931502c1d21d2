# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records in tags: everything comes back, in characters that LVM takes, and damage is noticed."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.backends.lvm import tags

#: What lvm(8) allows, seen to be so in the guest.
ALLOWED = re.compile(r"[A-Za-z0-9_+.\-/=!:#&]{1,1024}")
RECORDS = st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.dictionaries(st.text(), st.text()))


@given(st.sampled_from(tags.KINDS), RECORDS)
def test_a_record_comes_back_whatever_is_in_it(kind, record):
    written = tags.encode(kind, record)
    assert all(ALLOWED.fullmatch(tag) for tag in written)
    assert tags.decode([*reversed(written), "backup=daily"]) == {kind: [record]}
    assert tags.encode(kind, record) == written


def test_a_long_description_takes_several_tags():
    record = {"description": "x" * 5000}
    written = tags.encode(tags.SNAPSHOT, record)
    assert len(written) > 5
    assert tags.decode(written) == {tags.SNAPSHOT: [record]}
    with pytest.raises(tags.DamagedTag, match="parts"):
        tags.decode(written[1:])


def test_several_records_of_a_kind_are_kept_apart():
    records = [{"once": str(number)} for number in range(5)]
    written = [tag for record in records for tag in tags.encode(tags.RETURN, record)]
    assert sorted(each["once"] for each in tags.decode(written)[tags.RETURN]) == list("01234")


@pytest.mark.parametrize(
    "tag",
    ["rp.", "rp.snapshot", "rp.other.123456.1-1.e30=", "rp.snapshot.123456.1-1.!!!",
     "rp.snapshot.123456.1-1.W10=", "rp.snapshot.123456.1-1.eyJh"],
)  # fmt: skip
def test_what_begins_like_a_record_and_is_none_is_damage(tag):
    with pytest.raises(tags.DamagedTag):
        tags.decode([tag])


@given(st.text())
def test_no_tag_makes_decoding_fail_otherwise(text):
    with contextlib.suppress(tags.DamagedTag):
        tags.decode([text, f"rp.snapshot.abcdef.1-1.{text}"])


def test_arguments_add_and_remove():
    assert tags.arguments(["a"], ["b"]) == ["--addtag", "a", "--deltag", "b"]
