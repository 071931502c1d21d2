# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small Go program of the tests, tools/NAME: built once by Go into the cache folder, by its sources. No root.

Go is found, or taken from PyPI, as for the cluster; modules come from the Go module proxy. A new release of one: change
tools/NAME/go.mod, run "go mod tidy" there, and commit go.sum as well. Called by s3.py and csi_sanity.py.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import subprocess

from cluster import BUILD_FLAGS, ClusterFailed, go, go_environment
from environments import CACHE, CHECKOUT, locked

_SECONDS = 1800


def program(name: str) -> pathlib.Path:
    """Return the program, building it where it is missing. Raises Unavailable without Go, ClusterFailed."""
    compiler, release = go()
    folder = CHECKOUT / "tools" / name
    recipe = [path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".go", ".mod", ".sum")]
    wanted = b"\0".join([release.encode(), " ".join(BUILD_FLAGS).encode(), *recipe])
    target = CACHE / name / hashlib.sha256(wanted).hexdigest()[:12]
    if not target.exists():
        with locked(f"{name}-build"):
            if not target.exists():
                _build(folder, target, compiler)
    return target


def _build(folder: pathlib.Path, target: pathlib.Path, compiler: pathlib.Path) -> None:
    work = target.parent / "work"
    shutil.rmtree(work, ignore_errors=True)
    (work / "tmp").mkdir(parents=True)
    try:
        subprocess.run(
            [str(compiler), "build", *BUILD_FLAGS, "-o", str(work / "built"), "."], check=True, cwd=folder,
            env=go_environment(work), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS,
        )  # fmt: skip
    except subprocess.SubprocessError as error:
        words = getattr(error, "stderr", None) or error
        raise ClusterFailed(f"Cannot build tools/{folder.name}: {words}") from error
    os.replace(work / "built", target)
    shutil.rmtree(work, ignore_errors=True)
