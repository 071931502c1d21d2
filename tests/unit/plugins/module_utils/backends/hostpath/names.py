# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""File names as Linux allows them: anything but a slash and a NUL, also what is no UTF-8. For the tests beside it."""

from __future__ import annotations

import os

from hypothesis import strategies as st

#: What Python makes of bytes that are no UTF-8.
_BROKEN = st.integers(0xDC80, 0xDCFF).map(chr)
_NASTY = st.sampled_from("\\\t\n\r -\x00/\x1b\x85\u2028nrt.*")
_ANY = st.characters(blacklist_categories=["Cs"])

_TEXT = st.text(st.one_of(_ANY, _NASTY, _BROKEN).filter(lambda each: each not in "/\0"), min_size=1, max_size=12)

#: Only names that Python would read from a directory: bytes that happen to be UTF-8 are never read as broken ones.
NAMES = _TEXT.map(lambda name: os.fsdecode(os.fsencode(name))).filter(lambda name: name not in (".", ".."))
