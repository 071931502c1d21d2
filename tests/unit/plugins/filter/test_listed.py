# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What surveys give becomes a list."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.filter.listed import FilterModule, listed

WORDS = st.lists(st.text(st.characters(categories=["L", "N"], include_characters="-_*/"), min_size=1), max_size=6)


@given(WORDS, st.sampled_from([",", ", ", " ,", "\n", ",,", " ,\n"]))
def test_text_and_the_list_it_stands_for_give_the_same(words: list[str], between: str) -> None:
    assert listed(between.join(words)) == listed(words) == words


@pytest.mark.parametrize("nothing", [None, "", "  ", ",", [], [""], " , \n"])
def test_a_question_without_an_answer_gives_no_parts(nothing: object) -> None:
    assert listed(nothing) == []


def test_numbers_become_text() -> None:
    assert listed(100) == ["100"]
    assert listed([100, "101-105"]) == ["100", "101-105"]


@pytest.mark.parametrize("wrong", [{"a": 1}, [["a"]], [{"a": 1}], [None]])
def test_what_is_no_list_of_texts_is_refused(wrong: object) -> None:
    with pytest.raises(AnsibleFilterError, match="give a list of them"):
        FilterModule().filters()["listed"](wrong)
