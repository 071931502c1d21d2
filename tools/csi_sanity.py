# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kubernetes' own conformance tests for CSI drivers, on the driver of the test cluster. No root, and no cluster.

    csi_sanity.py    run them, and print what failed

They are github.com/kubernetes-csi/csi-test, from the Go module proxy; they build in a minute and run in a second. How
they are built: go_program.py. Called by tests/cluster/test_driver_sanity.py.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import go_program
from cluster import DRIVER, ClusterFailed, Unavailable, built

_SECONDS = 300.0


def outcomes() -> dict[str, list[str]]:
    """Run them on a driver of their own; return the names of the tests by their state: passed, failed, skipped.

    Raises Unavailable where this machine cannot build it, and ClusterFailed where the tests or the driver do not run.
    """
    tests = go_program.program("csi_sanity")
    with tempfile.TemporaryDirectory(prefix="csi-sanity-") as text:
        folder = pathlib.Path(text)
        report = folder / "report.json"
        with _driver(folder) as address:
            command = [str(tests), f"--driver={address}", f"--folder={folder}", "--ginkgo.skip=Node Service"]
            done = subprocess.run(
                [*command, f"--ginkgo.json-report={report}", "--ginkgo.no-color"], check=False, capture_output=True,
                text=True, timeout=_SECONDS, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        if not report.exists():
            raise ClusterFailed(f"Cannot test the driver: {done.stdout}{done.stderr}")
        (suite,) = json.loads(report.read_text())
    found: dict[str, list[str]] = {}
    for each in suite["SpecReports"]:
        name = " ".join([*(each["ContainerHierarchyTexts"] or []), each["LeafNodeText"]])
        found.setdefault(each["State"], []).append(name)
    return {state: sorted(names) for state, names in found.items()}


@contextlib.contextmanager
def _driver(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Let the driver run with data in a folder; give its socket."""
    socket_path, log = folder / "csi.sock", folder / "log"
    command = [str(built() / "folders"), f"--socket={socket_path}", f"--data={folder}/data", f"--name={DRIVER}"]
    with open(log, "w") as out, subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out) as driver:
        try:
            deadline = time.monotonic() + _SECONDS
            while not _listens(socket_path):
                if driver.poll() is not None or time.monotonic() > deadline:
                    raise ClusterFailed(f"Cannot start the driver: {log.read_text()}")
                time.sleep(0.02)
            yield socket_path
        finally:
            driver.kill()


def _listens(path: pathlib.Path) -> bool:
    """Say whether somebody listens there. The file alone does not tell: it is there a moment before."""
    with socket.socket(socket.AF_UNIX) as asking:
        return asking.connect_ex(str(path)) == 0


def main() -> int:
    """Print what failed; return 0 where nothing did."""
    try:
        found = outcomes()
    except (Unavailable, ClusterFailed) as error:
        sys.exit(str(error))
    failed = [name for state, names in found.items() if state not in ("passed", "skipped", "pending") for name in names]
    print(*(f"failed: {name}" for name in failed), f"{len(found.get('passed', []))} passed", sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
