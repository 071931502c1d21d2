# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Durations and sizes as people write them. Pure."""

from __future__ import annotations

import re

from .errors import InvalidInput

_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"(?:\d+(?:min|s|h|d|w))+")
_DURATION_PART = re.compile(r"(\d+)(min|s|h|d|w)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(?:i?B)?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}


def parse_duration(text: str, option: str) -> int:
    """Return a duration such as ``36h``, ``7d`` or ``1d12h`` in seconds.

    The units are s, min, h, d (24 hours) and w. Months and years have no fixed length and are refused, as is a number
    without a unit: a 30 that was meant as days must not be read as seconds by something that deletes.
    """
    compact = str(text).replace(" ", "")
    if not _DURATION.fullmatch(compact):
        raise InvalidInput(
            f"read {option}: {text}",
            "it is not a duration",
            "write a positive number with its unit (s, min, h, d or w), such as 36h, 7d or 1d12h",
        )
    return sum(int(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(compact))


def parse_size(text: str, option: str) -> int:
    """Return a size such as ``10M`` or ``1.5 GiB`` in bytes; the units are powers of 1024."""
    found = _SIZE.fullmatch(str(text).strip())
    if not found:
        raise InvalidInput(
            f"read {option}: {text}", "it is not a size", "write a number of bytes, or one with K, M, G or T"
        )
    return int(float(found.group(1)) * 1024 ** _POWERS[found.group(2).upper()])


def format_duration(seconds: int) -> str:
    """Return seconds in the largest unit that divides them, such as ``36h``; the inverse of parse_duration."""
    for unit in ("w", "d", "h", "min"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds // _SECONDS[unit]}{unit}"
    return f"{seconds}s"


def format_size(count: int) -> str:
    """Return a number of bytes for people, such as ``1.5 GiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
