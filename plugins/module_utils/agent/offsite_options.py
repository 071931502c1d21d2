# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of `export` and `import`. Imports only what they need. Called by `cli`."""

from __future__ import annotations

from typing import Any


def add_options(commands: Any) -> None:
    """Add both commands to the parser's."""
    words = "bring restore points to the destinations of policies"
    export = commands.add_parser("export", help=words, description=words)
    export.add_argument("policy", nargs="*", help="the name of a policy; all that have destinations without one")
    export.add_argument(
        "--destination", action="append", default=[], metavar="NAME", help="only there; may be repeated"
    )
    export.add_argument(
        "--force", action="store_true", help="what a ZFS destination has beyond the last common snapshot may go"
    )
    export.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="wait so long for another export of the policy"
    )
    export.add_argument(
        "--if-due", action="store_true", help="only if a moment of its schedule has passed since the last export"
    )
    words = "only say what would be sent, and what the keep rules of ZFS destinations would remove there"
    export.add_argument("--dry-run", action="store_true", help=words)
    export.add_argument("--json", action="store_true", help="print JSON")
    words = "show what a destination holds, or restore from it"
    made = commands.add_parser("import", help=words, description=words)
    made.add_argument("policy", help="the name of a policy")
    made.add_argument("destination", help="the name of one of its destinations")
    made.add_argument("--target", help="what is restored, such as tank/shop or /etc/shop")
    made.add_argument("--name", help="the restore point")
    made.add_argument("--into", metavar="PLACE", help="a new dataset, or an empty folder")
    made.add_argument("--json", action="store_true", help="print JSON")
