# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What LVM 2.03.16 (2022-05-18), on Linux 6.1.176 in the guest, printed for one volume group, to the letter.

``lv1`` is mounted, and the merge of ``lv1.first`` waits; ``lv2.small`` has overflowed; ``t1`` is thin, and has a
snapshot.
"""

from __future__ import annotations

import json
import pathlib

OUTPUT = (pathlib.Path(__file__).parent / "lvs-2.03.16.json").read_text()
ROWS = json.loads(OUTPUT)["report"][0]["lv"]
