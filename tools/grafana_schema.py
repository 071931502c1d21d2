# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A dashboard as Grafana 11.6 understands it: read by the types that Grafana's makers generate from its schemas.

Grafana itself is in no registry that this project uses. What the types do not know is not in what they write again: a
misspelt option of a panel, for one. Called by tests/lab/test_monitoring.py.

    grafana_schema.py FILE    print a dashboard, read and written again
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

from environments import environment
from pythons import newest

#: Grafana's own package for each of its releases; the number in front is its date.
PACKAGE = "grafana-foundation-sdk==1769699379!11.6.0"
_READ = """
import json, sys
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
register_default_plugins()
json.dump(Dashboard.from_json(json.load(sys.stdin)), sys.stdout, cls=JSONEncoder)
"""
_SECONDS = 120


class Unavailable(RuntimeError):
    """The types cannot be had on this machine."""


def understood(dashboard: dict[str, Any]) -> dict[str, Any]:
    """Return what the types make of a dashboard. Raises Unavailable, and CalledProcessError where it is none."""
    python = newest("3.11", "3.12", "3.13", "3.14")
    if python is None:
        raise Unavailable("Cannot read the dashboard as Grafana does: its types need Python 3.11 or newer.")
    program = environment("grafana", python, [PACKAGE]) / "python"
    done = subprocess.run(
        [program, "-c", _READ], input=json.dumps(dashboard), check=True, capture_output=True, text=True,
        timeout=_SECONDS,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    print(json.dumps(understood(json.loads(pathlib.Path(sys.argv[1]).read_text())), indent=1))
