# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of `restorepoint metrics`. Called by `cli`, at each start: so it imports nothing else."""

from __future__ import annotations

import argparse

#: Where it listens unless another port is given.
PORT = 9642
TIMEOUT, INTERVAL = "30s", "60s"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--textfile", metavar="FILE", help="write them to this file, for node_exporter; else to stdout")
    where.add_argument(
        "--listen",
        nargs="?",
        const=str(PORT),
        metavar="[HOST:]PORT",
        help=f"serve them, on 127.0.0.1 and port {PORT} unless told otherwise",
    )
    parser.add_argument(
        "--jobs",
        metavar="NAMESPACE",
        help="in a pod: ask Kubernetes, not the journal, what became of runs, and look at its claims alone",
    )
    parser.add_argument("--timeout", default=TIMEOUT, metavar="DURATION", help=f"for each look at storage ({TIMEOUT})")
    parser.add_argument("--interval", default=INTERVAL, metavar="DURATION", help=f"between looks, served ({INTERVAL})")
