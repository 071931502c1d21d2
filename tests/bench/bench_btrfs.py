# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What btrfs_snapshot costs beside the plain command, and beside a loop of community.general.btrfs_subvolume.

Each side takes a read-only or, where it cannot do that, writable snapshot of each of a number of subvolumes on a loop
device of its own. They take turns within one run, on one machine. Two comparisons:

- the engine (one process, one call) against a process `btrfs subvolume snapshot -r` for each subvolume;
- a play with one task of btrfs_snapshot against a play with a loop of community.general.btrfs_subvolume.

    make bench ARGS="tests/bench/bench_btrfs.py"

It needs root, and the package `ansible` from PyPI. It prints Markdown, and asserts no time: wall time, and the CPU time
(user and system) of this process and its children, which a loaded machine changes less.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from ansible_collections.restorepoint.core.plugins.module_utils.backends.btrfs.backend import BtrfsBackend
from ansible_collections.restorepoint.core.plugins.module_utils.backends.btrfs.options import BtrfsOptions
from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import Desired
from ansible_collections.restorepoint.core.plugins.module_utils.core.plan import make_plan
from ansible_collections.restorepoint.core.plugins.module_utils.core.run import Run
from ansible_collections.restorepoint.core.tests.lab.filesystems import Lab, run

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tools"))

from cores import newest_core
from environments import environment

#: Wall and CPU seconds.
Cost = tuple[float, float]


def engine(paths: list[str], store: str, name: str) -> None:
    """Take a snapshot of each subvolume by one call."""
    desired = Desired("present", name)
    backend = BtrfsBackend(paths, store, BtrfsOptions(now=lambda: int(time.time())))
    backend.check(desired)
    with backend.session(writing=True):
        plan = make_plan(desired, backend.situations(desired), int(time.time()))
        Run(backend, lambda *_unused: {}, time.monotonic, False).carry_out(plan)


def plain(paths: list[str], folder: str, name: str) -> None:
    """Take a snapshot of each subvolume by the plain command, with a sync before, as the engine does."""
    for path in paths:
        run("sync", "-f", folder)
        run("btrfs", "-q", "subvolume", "snapshot", "-r", path, f"{folder}/{os.path.basename(path)}-{name}")


def write(paths: list[str]) -> None:
    """Change a file in each subvolume, so that there is something to sync."""
    for path in paths:
        pathlib.Path(path, "file").write_bytes(os.urandom(4096))


def spent() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def seconds(action: Callable[[], None]) -> Cost:
    begin, before = time.monotonic(), spent()
    action()
    return time.monotonic() - begin, spent() - before


def rows(what: str, ours: list[Cost], theirs: list[Cost]) -> str:
    """Return the rows of the table."""
    lines = []
    for index, unit in enumerate(("wall", "CPU")):
        left, right = [each[index] for each in ours], [each[index] for each in theirs]
        ratios = [one / other for one, other in zip(left, right)]
        lines.append(
            f"| {what}, {unit} | {statistics.median(left):.2f} | {statistics.median(right):.2f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    return "\n".join(lines)


def play(folder: pathlib.Path, programs: pathlib.Path, task: dict[str, object]) -> Callable[[], None]:
    """Return what runs a play with that one task."""
    file = folder / f"{len(list(folder.glob('*.yml')))}.yml"
    file.write_text(json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}]))
    argv = [str(programs / "ansible-playbook"), "-i", "localhost,", str(file)]
    settings = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"),
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        "PATH": f"{programs}:{os.environ['PATH']}",
    }

    def once() -> None:
        done = subprocess.run(argv, env=settings, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--subvolumes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    core, python = newest_core()
    programs = environment("lvol", python, [core.requirement, "ansible"])
    with Lab() as lab, lab.place("btrfs") as place, tempfile.TemporaryDirectory() as plays:
        # At the top: the peer looks for a subvolume that lies in a plain folder as if it lay beside that.
        paths = [str(lab.disk("btrfs") / f"bench{number}") for number in range(arguments.subvolumes)]
        for path in paths:
            run("btrfs", "-q", "subvolume", "create", path)
        other = place.folder / "plain"
        other.mkdir()
        print(
            f"Measured on {time.strftime('%Y-%m-%d')}: {arguments.subvolumes} subvolumes, Linux {os.uname().release},"
            f" load {os.getloadavg()[0]:.1f}. Seconds, median of {arguments.rounds}.\n"
        )
        print("| | ours | theirs | ratio (least to most) |\n|---|---|---|---|")
        ours, theirs = [], []
        for number in range(arguments.rounds):
            write(paths)
            ours.append(seconds(lambda n=number: engine(paths, str(place.store), f"n{n}")))  # type: ignore[misc]
            write(paths)
            theirs.append(seconds(lambda n=number: plain(paths, str(other), f"n{n}")))  # type: ignore[misc]
        print(rows("engine, `btrfs subvolume snapshot -r`", ours, theirs), flush=True)
        folder = pathlib.Path(plays)
        link = folder / "collections" / "ansible_collections" / "restorepoint"
        link.mkdir(parents=True)
        (link / "core").symlink_to(CHECKOUT)
        inside = [f"/{os.path.basename(path)}" for path in paths]
        device = run("findmnt", "-n", "-o", "SOURCE", "-T", place.folder).split("[")[0].strip()
        ours, theirs = [], []
        for number in range(arguments.rounds):
            task = {"subvolume": paths, "store": str(place.store), "name": f"p{number}"}
            ours.append(seconds(play(folder, programs, {"restorepoint.core.btrfs_snapshot": task})))
            peer = {"name": f"{{{{ item }}}}-p{number}", "snapshot_source": "{{ item }}", "filesystem_device": device}
            loop: dict[str, object] = {"community.general.btrfs_subvolume": peer, "loop": inside}
            theirs.append(seconds(play(folder, programs, loop)))
        print(rows("one task, a loop of community.general.btrfs_subvolume", ours, theirs))


if __name__ == "__main__":
    main()
