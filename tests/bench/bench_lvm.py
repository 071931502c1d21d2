# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure snapshots of ten logical volumes side by side with a loop of community.general.lvol, in the guest, over ssh.

    make bench ARGS="tests/bench/bench_lvm.py"

Each number is the wall time of a whole play, from one run, each tool in turn, as the median over the rounds. Beside it
is the CPU time of the control node, and the time beyond a play with one module that does nothing. Ratios are what
carries over to other machines. It needs what `make guest` needs, and the package `ansible` from PyPI. It asserts
nothing but that ten snapshots are there.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tools"))

from cores import newest_core
from environments import environment
from guest import Guest

NAMES = [f"lv{number}" for number in range(10)]
#: Of the wall time of the loop, at most this.
GOAL = 0.6
PREPARE = {
    "thick": "pvcreate -qy /dev/ubdb; vgcreate -q bench /dev/ubdb; "
    "for i in $(seq 0 9); do lvcreate -qy -L 64M -n lv$i bench; mkfs.ext4 -qF /dev/bench/lv$i; done",
    "thin": "pvcreate -qy /dev/ubdb; vgcreate -q bench /dev/ubdb; lvcreate -qy --type thin-pool -L 1G -n pool bench; "
    "for i in $(seq 0 9); do lvcreate -qy -V 64M --thinpool bench/pool -n lv$i; mkfs.ext4 -qF /dev/bench/lv$i; done",
}
CLEAN = "vgremove -qffy bench; pvremove -qffy /dev/ubdb; wipefs -qa /dev/ubdb"
CLEAR = "lvs --noheadings -o vg_name,lv_name -S 'lv_name=~bench$' | tr -s ' ' / | sed 's,^/,,' | xargs -r lvremove -qfy"


def play(task: dict[str, object]) -> str:
    """Return a playbook of one task."""
    return json.dumps([{"hosts": "storage", "gather_facts": False, "tasks": [task]}])


def tasks(kind: str) -> dict[str, dict[str, object]]:
    """Return the task of each tool."""
    size = {"size": "16m"} if kind == "thick" else {}
    volumes = [f"bench/{name}" for name in NAMES]
    lvol = {"vg": "bench", "lv": "{{ item }}", "snapshot": "{{ item }}.bench", **size}
    own = {"volume": volumes, "name": "bench", **size}
    return {
        "nothing": {"ansible.builtin.ping": {}},
        "lvol": {"community.general.lvol": lvol, "loop": NAMES},
        "engine": {"restorepoint.core.lvm_snapshot": own},
    }


class Bench:
    """The guest, and an environment with Ansible, its community collections and this one."""

    def __init__(self, guest: Guest, folder: pathlib.Path) -> None:
        core, python = newest_core()
        self.guest = guest
        self.folder = folder
        self.programs = environment("lvol", python, [core.requirement, "ansible"])
        link = folder / "collections" / "ansible_collections" / "restorepoint"
        link.mkdir(parents=True)
        (link / "core").symlink_to(CHECKOUT)
        (folder / "inventory.json").write_text(json.dumps(guest.inventory()))

    def in_guest(self, script: str, check: bool = True) -> str:
        """Run a script in the guest, and return what it printed."""
        done = subprocess.run(self.guest.ssh(script), capture_output=True, text=True, check=False, timeout=600)
        if check and done.returncode != 0:
            raise SystemExit(f"Cannot prepare the guest: {done.stderr.strip()}.")
        return done.stdout

    def measure(self, task: dict[str, object]) -> tuple[float, float]:
        """Run a play; return its wall time and the control node's CPU time, in seconds."""
        book = self.folder / "play.json"
        book.write_text(play(task))
        command = [str(self.programs / "ansible-playbook"), "-i", str(self.folder / "inventory.json"), str(book)]
        settings = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"),
            "ANSIBLE_LOCALHOST_WARNING": "False",
            "PATH": f"{self.programs}:{os.environ['PATH']}",
        }
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=900)
        wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            raise SystemExit(f"Cannot measure: {done.stdout[-2000:]}{done.stderr[-500:]}")
        return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def round(self, kind: str) -> dict[str, tuple[float, float]]:
        """Measure each tool once, and see that it has taken ten snapshots."""
        found = {}
        for tool, task in tasks(kind).items():
            self.in_guest(CLEAR)
            found[tool] = self.measure(task)
            there = self.in_guest("lvs --noheadings -o lv_name -S 'lv_name=~bench$'").split()
            if len(there) != (0 if tool == "nothing" else len(NAMES)):
                raise SystemExit(f"Cannot measure {tool}: it has taken {len(there)} snapshots.")
        return found


def table(kind: str, rounds: Sequence[dict[str, tuple[float, float]]]) -> str:
    """Return the results of one kind as rows of a table."""
    medians = {
        tool: [statistics.median(each[tool][index] for each in rounds) for index in (0, 1)] for tool in rounds[0]
    }
    engine, idle = medians["engine"][0], medians["nothing"][0]
    lines = [
        f"| 10 {kind} | {tool} | {wall:.1f} | {wall - idle:.1f} | {cpu:.1f} | {wall / engine:.2f} |"
        for tool, (wall, cpu) in medians.items()
    ]
    ratio = engine / medians["lvol"][0]
    lines.append(
        f"\n{kind}: {ratio:.2f} of the loop's wall time (to reach: {GOAL}): {'yes' if ratio <= GOAL else 'no'}\n"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=sorted(PREPARE))
    chosen = parser.parse_args()
    guest = Guest()
    guest.start(fresh=False)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(guest, pathlib.Path(folder))
        machine = f"{os.cpu_count()} cores, Linux {platform.release()}, load {load:.1f}"
        print(f"Measured on {time.strftime('%Y-%m-%d')}: {machine},")
        print(f"{bench.in_guest('lvm version | head -1').strip()}; medians of {chosen.rounds} rounds.\n")
        print("| case | tool | wall s | beyond a play that does nothing | controller CPU s | wall, engine = 1 |")
        print("|---|---|---|---|---|---|")
        for kind in [chosen.only] if chosen.only else list(PREPARE):
            bench.in_guest(CLEAN, check=False)
            bench.in_guest(f"set -e; {PREPARE[kind]}")
            try:
                print(table(kind, [bench.round(kind) for _unused in range(chosen.rounds)]), flush=True)
            finally:
                bench.in_guest(CLEAN, check=False)


if __name__ == "__main__":
    main()
