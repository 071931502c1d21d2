# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of all unit tests: none fails because a machine is busy, or because of who started them.

``make units`` looks for new examples each time. In ansible-test they are the same each time: whether a change may land
does not depend on chance.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from ansible_collections.restorepoint.core.tests import signals

# No property is about time.
settings.register_profile(
    "untimed",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="RP_NEW_EXAMPLES" not in os.environ,
)
settings.load_profile("untimed")
signals.as_usual()
