# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The S3 server for the tests of exports: tools/s3/main.go, built once by Go into the cache folder. No root.

    s3.py path    print where the program is

It is the server in `rclone serve s3` (github.com/rclone/gofakes3), from the Go module proxy: it refuses what is not
signed with its key, and builds in half a minute. How it is built: go_program.py. Called by tests/lab.
"""

from __future__ import annotations

import pathlib
import sys

import go_program
from cluster import ClusterFailed, Unavailable


def program() -> pathlib.Path:
    """Return the server, building it where it is missing. Raises Unavailable without Go, ClusterFailed."""
    return go_program.program("s3")


def main() -> None:
    """Print where it is."""
    try:
        print(program())
    except (Unavailable, ClusterFailed) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
