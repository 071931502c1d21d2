# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Durations and sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.restorepoint.core.plugins.module_utils.core.units import (
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("90min", 5400),
        ("36h", 129600),
        ("7d", 604800),
        ("2w", 1209600),
        ("1d12h", 129600),
        ("1d 12h", 129600),
        ("1w1d1h1min1s", 694861),
        ("0s", 0),
    ],
)
def test_a_duration_is_numbers_with_units(text: str, seconds: int) -> None:
    assert parse_duration(text, "within") == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "30", "d", "-1d", "1.5h", "1m", "3mo", "1y", "7 days", "1d12", "d1", "True", "1D", "∞d"]
)
def test_a_number_without_a_unit_or_a_unit_without_a_fixed_length_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidInput, match="it is not a duration; write a positive number with its unit") as caught:
        parse_duration(text, "keep.within")
    assert str(caught.value).startswith(f"Cannot read keep.within: {text}")


@settings(max_examples=200, deadline=None, database=None)
@given(st.integers(0, 10**10))
def test_a_formatted_duration_reads_back_as_itself(seconds: int) -> None:
    assert parse_duration(format_duration(seconds), "x") == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59, "59s"),
        (60, "1min"),
        (3600, "1h"),
        (5400, "90min"),
        (129600, "36h"),
        (2592000, "30d"),
        (604800, "1w"),
    ],
)
def test_a_duration_is_shown_in_its_largest_whole_unit(seconds: int, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("4096", 4096),
        ("10M", 10 * 1024**2),
        ("10MB", 10 * 1024**2),
        ("10 MiB", 10 * 1024**2),
        ("1.5 GiB", 1610612736),
        ("2k", 2048),
        ("1T", 1024**4),
        ("1P", 1024**5),
        ("512B", 512),
    ],
)
def test_a_size_is_a_number_with_a_power_of_1024(text: str, count: int) -> None:
    assert parse_size(text, "bandwidth_limit") == count


@pytest.mark.parametrize("text", ["", "M", "-1M", "1,5G", "10X", "1e3", "10%", "M10", "None"])
def test_what_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="it is not a size"):
        parse_size(text, "bandwidth_limit")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1610612736, "1.5 GiB"),
        (1024**4, "1.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_a_size_is_shown_for_people(count: int, text: str) -> None:
    assert format_size(count) == text
