# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of all unit tests: none fails because a machine is busy, or because of who started them."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from ansible_collections.restorepoint.core.tests import signals

# No property is about time.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
signals.as_usual()
