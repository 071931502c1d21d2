# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""File names as Linux allows them: anything but a slash and a NUL, also what is no UTF-8. For the tests beside it."""

from __future__ import annotations

import os

from hypothesis import strategies as st

#: Letters, what needs escaping, what ends lines elsewhere, other scripts, and bytes that are no UTF-8 (surrogates).
_POOL = "abnrtZ09.-_+ *?[\\\t\n\r\x01\x1b\x7f\x85\xa0\u2028éßЖ漢\U0001f4be\udc80\udca9\udcc3\udcff"
_TEXT = st.text(_POOL, min_size=1, max_size=12)

#: Only names that Python would read from a directory: bytes that happen to be UTF-8 are never read as broken ones.
NAMES = _TEXT.map(lambda name: os.fsdecode(os.fsencode(name))).filter(lambda name: name not in (".", ".."))
