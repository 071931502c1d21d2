# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Python package that is not there, in Ansible's own words. Called by the other files of the bridge.

May import ansible and what lies below.
"""

from __future__ import annotations

from ansible.module_utils.basic import missing_required_lib

from ..core.errors import MissingLibrary


def missing_library(error: MissingLibrary) -> dict[str, str]:
    """Return Ansible's own words for a Python package that is not there, as arguments for fail_json."""
    return {"msg": missing_required_lib(error.library), "exception": error.traceback}
