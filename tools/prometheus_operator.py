# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The CRDs of the operator of Prometheus for the tests: from its Go module, into the cache folder. No root.

    prometheus_operator.py path    print the folder they lie in

Called by tests/cluster/test_kubernetes_monitoring.py. A Go is found, or comes from PyPI, as for the cluster.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from cluster import ClusterFailed, Unavailable, go
from environments import CACHE, locked

MODULE, VERSION = "github.com/prometheus-operator/prometheus-operator", "v0.85.0"
#: The sum of the module, as Go writes it into go.sum.
SUM = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="
_FOLDER = pathlib.Path("example", "prometheus-operator-crd")
_FILES = ("monitoring.coreos.com_servicemonitors.yaml", "monitoring.coreos.com_prometheusrules.yaml")
_SECONDS = 600


def crds() -> list[pathlib.Path]:
    """Return the files with the CRDs, getting them where they are missing. Raises Unavailable, ClusterFailed."""
    folder = CACHE / "prometheus-operator" / VERSION
    found = [folder / name for name in _FILES]
    with locked("prometheus-operator"):
        if not all(path.exists() for path in found):
            _fetch(folder)
    return found


def _fetch(folder: pathlib.Path) -> None:
    program, _release = go()
    with tempfile.TemporaryDirectory() as work:
        environ = {
            **os.environ, "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "-modcacherw", "GOMODCACHE": work,
        }  # fmt: skip
        command = [str(program), "mod", "download", "-json", f"{MODULE}@{VERSION}"]
        done = subprocess.run(
            command, cwd=work, env=environ, capture_output=True, text=True, timeout=_SECONDS, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode != 0:
            raise ClusterFailed(f"Cannot get {MODULE}: {done.stdout}{done.stderr}")
        told = json.loads(done.stdout)
        if told["Sum"] != SUM:
            raise ClusterFailed(f"Cannot use {MODULE} {VERSION}: its sum is {told['Sum']}, and has to be {SUM}.")
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            shutil.copyfile(pathlib.Path(told["Dir"]) / _FOLDER / name, folder / f"{name}.new")
            os.replace(folder / f"{name}.new", folder / name)


def main() -> None:
    """Print where they are."""
    try:
        print(crds()[0].parent)
    except (Unavailable, ClusterFailed) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
