# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of `restorepoint report`. Called by `cli`, at each start: so it imports nothing else."""

from __future__ import annotations

import argparse

from .metric_options import TIMEOUT


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--html", action="store_true", help="print one page for a browser, which needs no other file")
    form.add_argument("--check", action="store_true", help="print one line, as checks of the Nagios kind show it")
    form.add_argument("--watch", type=float, metavar="SECONDS", help="show it anew each time so much has passed")
    parser.add_argument("--full", action="store_true", help="as text: each restore point, with why it stays or goes")
    parser.add_argument(
        "--export", metavar="FILE", help="write it to this file as well; its ending is .html, .json or .txt"
    )
    parser.add_argument("--host", metavar="NAME", help="how the host is called in it; its host name otherwise")
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="auto: at a terminal, unless NO_COLOR is set",
    )
    parser.add_argument("--timeout", default=TIMEOUT, metavar="DURATION", help=f"for each look at storage ({TIMEOUT})")
