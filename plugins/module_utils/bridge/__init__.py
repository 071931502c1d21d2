# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

# A module of ours imports nothing of ours but from here, so this comes before all else.
from .. import compiled_once  # noqa: F401  # pylint: disable=unused-import
