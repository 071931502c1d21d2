# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is left out, and which parts can be returned."""

from __future__ import annotations

import functools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.backends.hostpath.options import (
    check_part,
    exclude_pattern,
)
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput


def compiled(*patterns):
    found = exclude_pattern(patterns)
    assert found is not None
    return found


def leaves_out(pattern, path):
    return compiled(pattern).fullmatch(path) is not None


@pytest.mark.parametrize(
    ("pattern", "left_out", "kept"),
    [
        ("cache", ["cache", "a/cache", "a/b/cache"], ["caches", "cache/x", "xcache", "Cache"]),
        ("cache/", ["cache", "a/cache"], ["cache/x"]),
        ("/cache", ["cache"], ["a/cache"]),
        ("a/cache", ["a/cache"], ["cache", "b/a/cache", "a/b/cache"]),
        ("*.log", ["x.log", "a/x.log", ".log", "a.log/x.log"], ["x.log.1", "x.logs", "xlog"]),
        ("a/*.log", ["a/x.log"], ["a/b/x.log", "x.log"]),
        ("a/**", ["a/x", "a/x/y"], ["a", "b/a/x"]),
        ("**/x", ["x", "a/x", "a/b/x"], ["ax", "a/bx"]),
        ("a/**/x", ["a/x", "a/b/x", "a/b/c/x"], ["ax", "a/bx", "b/a/x"]),
        ("a**x", ["ax", "a/x", "a/b/cx", "b/abx"], ["a", "xa"]),
        ("tmp-?", ["tmp-1", "tmp-é"], ["tmp-", "tmp-12", "tmp-/"]),
        ("tmp-[0-9]", ["tmp-1"], ["tmp-a", "tmp-12"]),
        ("tmp-[!0-9]", ["tmp-a"], ["tmp-1", "tmp-/"]),
        ("tmp-[^0-9]", ["tmp-a"], ["tmp-1"]),
        ("[]a]", ["]", "a"], ["[", "b"]),
        ("[a&&b|~]", ["a", "&", "b", "|", "~"], ["c"]),
        ("[!!]", ["a"], ["!"]),
        ("x[", ["x["], ["x"]),
        ("a+(b).$^{}\\d", ["a+(b).$^{}\\d"], ["aab", "a+(b)x$^{}\\d"]),
        ("*", ["a", "a/b", "\n"], []),
        ("***", ["a", "a/b"], []),
        ("two\nlines*", ["two\nlines", "two\nlines\nmore"], ["two"]),
        ("*\udcff", ["x\udcff"], ["x"]),
    ],
)
def test_what_a_pattern_leaves_out(pattern, left_out, kept):
    assert [path for path in left_out if not leaves_out(pattern, path)] == []
    assert [path for path in kept if leaves_out(pattern, path)] == []


def test_one_of_several_patterns_is_enough():
    pattern = compiled("*.log", "a*b*c*", "/tmp")
    assert [bool(pattern.fullmatch(path)) for path in ("x.log", "a1b2c3", "tmp", "y/tmp")] == [True, True, True, False]


def test_without_patterns_nothing_is_left_out():
    assert exclude_pattern([]) is None


@pytest.mark.parametrize("pattern", ["", "/", "//"])
def test_an_empty_pattern_is_refused(pattern):
    with pytest.raises(InvalidInput, match="the pattern is empty"):
        exclude_pattern(["x", pattern])


@pytest.mark.parametrize("pattern", ["[]", "[z-a]"])
def test_what_no_shell_would_understand_is_refused(pattern):
    with pytest.raises(InvalidInput, match="it is no pattern"):
        exclude_pattern([pattern])


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a*a*a*a*a*a*a*a*a*a*b", "a" * 255),
        ("**a**a**a**a**a**a**b", "a/" * 1000),
        ("**/*a*a*a*/**/*a*a*a*/**/b", "/".join(["aaaaaaaa"] * 100)),
        ("x/**/**/**/**/**/y", "x/" * 500),
        ("*" * 100, "a" * 255 + "/b"),
    ],
)
def test_no_pattern_takes_ages(pattern, path):
    ready = compiled(pattern)
    started = time.process_time()
    ready.fullmatch(path)
    assert time.process_time() - started < 1


def obvious(pattern, path):
    """Match as the words of the documentation say, trying everything."""
    anywhere = "/" not in pattern.strip("/") and not pattern.startswith("/")
    pattern = pattern.strip("/")

    @functools.lru_cache(None)
    def match(at, place):
        rest = pattern[at:]
        if not rest:
            return place == len(path)
        name_begins = at == 0 or pattern[at - 1] == "/"
        if rest.startswith("**/") and name_begins:
            return any(match(at + 3, each) for each in range(place, len(path) + 1)
                       if each == place or path[each - 1] == "/")  # fmt: skip
        if rest.startswith("**"):
            stars = len(rest) - len(rest.lstrip("*"))
            return any(match(at + stars, each) for each in range(place, len(path) + 1))
        if rest[0] == "*":
            return match(at + 1, place) or (place < len(path) and path[place] != "/" and match(at, place + 1))
        if place == len(path):
            return False
        if rest[0] == "?":
            return path[place] != "/" and match(at + 1, place + 1)
        return rest[0] == path[place] and match(at + 1, place + 1)

    starts = [0, *(place + 1 for place, each in enumerate(path) if each == "/" and anywhere)]
    return any(match(0, start) for start in starts)


@given(
    st.text("ab*?/", min_size=1, max_size=10).filter(lambda text: text.strip("/") and "//" not in text),
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4).map("/".join),
)
@settings(max_examples=400, deadline=None)
def test_patterns_match_as_their_description_says(pattern, path):
    assert leaves_out(pattern, path) == obvious(pattern, path)


@pytest.mark.parametrize("part", ["a", "a/b", "a/b/", ".hidden", "..x", "a b", "a\nb"])
def test_a_part_is_a_path_below_the_target(part):
    assert check_part(part) == part.rstrip("/")


@pytest.mark.parametrize("part", ["", "/", "/etc", "..", "a/..", "../x", "a/../b", "./a", "a/.", "a//b", "."])
def test_a_part_that_could_lead_elsewhere_is_refused(part):
    with pytest.raises(InvalidInput, match="no plain path below the target"):
        check_part(part)
