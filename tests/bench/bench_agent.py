# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure the agent: its size, its start, and a policy over 1,000 ZFS datasets side by side with sanoid, in the guest.

    make bench-agent

Size and start are measured on this machine: CPU seconds of processes that end at once, the least of several. The start
with kept code is the one of a host on which the agent has run before.

In the guest, one run of a policy takes a snapshot of each dataset, and one prunes as many; sanoid does the same by its
own configuration (``recursive = yes``). Guest CPU is what the guest's processes take of this machine (see
bench_zfs.py). Sanoid takes minutes, so it runs once; --sanoid says over how many datasets: where these are fewer than
1,000, its rows are scaled up, which favours it, as it also does work for all of them at once. All numbers of a run
are of one guest; ratios are what carries over to other machines.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tools"))

from guest import Guest

from ansible_collections.restorepoint.core.tests.bench.bench_zfs import Cost, Shell

DATASETS = 1000
STARTS = 15
#: Makes or snapshots many datasets without a process for each.
MANY = """
import ctypes, sys
core, pairs = ctypes.CDLL("libzfs_core.so.3"), ctypes.CDLL("libnvpair.so.3")
def pairlist():
    made = ctypes.c_void_p()
    assert pairs.nvlist_alloc(ctypes.byref(made), 1, 0) == 0
    return made
assert core.libzfs_core_init() == 0
verb, pattern, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
names = [pattern.format(number).encode() for number in range(count)]
if verb == "create":
    codes = [core.lzc_create(name, 2, pairlist(), None, 0) for name in names]
else:
    given, failed = pairlist(), ctypes.c_void_p()
    for name in names:
        pairs.nvlist_add_boolean(given, name)
    codes = [core.lzc_snapshot(given, pairlist(), ctypes.byref(failed))]
if any(codes):
    sys.exit(f"cannot {verb}: {[code for code in codes if code][0]}")
"""
SANOID_CONF = """
[bench/{place}]
use_template = bench
recursive = yes
process_children_only = yes
[template_bench]
frequently = 0
hourly = {hourly}
daily = 0
weekly = 0
monthly = 0
yearly = 0
autosnap = yes
autoprune = yes
"""
INSTALL = (
    "command -v sanoid >/dev/null || { apt-get update -qq && apt-get install -qq -y --no-install-recommends sanoid; };"
    "systemctl disable -q --now sanoid.timer; mkdir -p /etc/sanoid; modprobe zfs;"
    "zpool destroy -f bench 2>/dev/null; rm -rf /tmp/bench-state; true"
)
AGENT = "python3 /tmp/restorepoint.pyz --policies /tmp/policies.json --state /tmp/bench-state"
FRESH = "rm -rf /var/cache/sanoid/* /run/sanoid; "


def policy(keep: bool) -> str:
    """Return the policies for the guest."""
    rules = {"keep": {"last": 1}} if keep else {}
    targets = [{"backend": "zfs", "dataset": ["bench/set"], "recursive": True}]
    return json.dumps({"policies": [{"name": "bench", "targets": targets, **rules}]})


def least(command: Sequence[str | os.PathLike[str]], environment: dict[str, str] | None = None) -> float:
    """Return the least CPU milliseconds of several runs."""
    found = []
    for _unused in range(STARTS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True, timeout=120, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found) * 1000


def starts(folder: pathlib.Path) -> None:
    """Measure size and start, and print them."""
    agent = folder / "restorepoint.pyz"
    subprocess.run([sys.executable, CHECKOUT / "tools" / "agent.py", agent], check=True, capture_output=True)
    state = folder / "state"
    state.mkdir(mode=0o700)
    policies = folder / "policies.json"
    policies.write_text(policy(keep=True))
    command: list[str | os.PathLike[str]] = [sys.executable, "-S", agent, "--policies", policies, "--state", state]
    rows = [("python -S -c pass", least([sys.executable, "-S", "-c", "pass"]))]
    rows += [(f"{word}, first start", least([*command, word])) for word in ("--help", "check", "due")]
    (state / "journal.jsonl").touch()
    subprocess.run([*command, "check"], check=True, capture_output=True, timeout=120)
    kept = [(word, least([*command, word])) for word in ("--help", "check", "due")]
    print("| start | CPU ms |\n|---|---|")
    for words, cost in [*rows, *((f"{word}, with kept code", cost) for word, cost in kept)]:
        print(f"| {words} | {cost:.0f} |")
    size = agent.stat().st_size / 1024
    print("\n| goal | at most | agent | of the limit | |\n|---|---|---|---|---|")
    goal("size of the file, KiB", 700, size)
    goal("CPU of a start that reads policies, with kept code, ms", 80, max(cost for _word, cost in kept))
    print(flush=True)


def goal(words: str, limit: float, taken: float) -> None:
    """Print a row about a goal."""
    ratio = taken / limit
    print(f"| {words} | {limit:.1f} | {taken:.1f} | {ratio:.2f} | {'reached' if ratio <= 1 else 'missed'} |")


def expect(shell: Shell, count: int, where: str, pattern: str) -> None:
    """Stop where there are not that many snapshots."""
    there = int(shell.run(f"zfs list -H -t snapshot -o name -r {where} | grep -c '{pattern}' || true"))
    if there != count:
        raise SystemExit(f"Cannot measure: {count} snapshots were expected in {where}, and there are {there}.")


def agent_in_guest(shell: Shell) -> dict[str, Cost]:
    """Let the agent take and prune, after a run that keeps its code."""
    found = {}
    shell.write("/tmp/policies.json", policy(keep=False))
    shell.measure(f"{AGENT} run bench")
    shell.measure(f"{AGENT} check")
    found["nothing, agent"] = shell.measure(f"{AGENT} check")
    found["take, agent"] = shell.measure(f"{AGENT} run bench")
    expect(shell, 2 * (DATASETS + 1), "bench/set", "@bench-")
    shell.write("/tmp/policies.json", policy(keep=True))
    found["prune, agent"] = shell.measure(f"{AGENT} prune bench")
    expect(shell, DATASETS + 1, "bench/set", "@bench-")
    return found


def sanoid_in_guest(shell: Shell, count: int) -> dict[str, Cost]:
    """Let sanoid take and prune, over so many datasets."""
    shell.measure("zfs create bench/sanoid")
    shell.measure(f"python3 /tmp/many.py create 'bench/sanoid/d{{:04}}' {count}")
    found = {}
    shell.write("/etc/sanoid/sanoid.conf", SANOID_CONF.format(place="sanoid", hourly=1))
    found["take, sanoid"] = shell.measure(f"{FRESH}sanoid --take-snapshots")
    expect(shell, count, "bench/sanoid", "@autosnap_")
    old = time.strftime("%Y-%m-%d_%H:%M:%S", time.gmtime(time.time() - 7 * 86400))
    shell.measure(f"zfs destroy -r bench/sanoid@autosnap 2>/dev/null; python3 /tmp/many.py snapshot "
                  f"'bench/sanoid/d{{:04}}@autosnap_{old}_hourly' {count}")  # fmt: skip
    shell.write("/etc/sanoid/sanoid.conf", SANOID_CONF.format(place="sanoid", hourly=0))
    before = 2 * count
    expect(shell, before, "bench/sanoid", "@autosnap_")
    found["prune, sanoid"] = shell.measure(f"{FRESH}sleep 2; sanoid --prune-snapshots")
    left = int(shell.run("zfs list -H -t snapshot -o name -r bench/sanoid | grep -c @autosnap_ || true"))
    if before - left < count:
        raise SystemExit(f"Cannot measure: sanoid has pruned {before - left} of {count}.")
    found["prune, sanoid"] = found["prune, sanoid"].times(count / (before - left))
    return found


def compare(shell: Shell, count: int) -> None:
    """Measure agent and sanoid, and print how they stand."""
    shell.run(INSTALL)
    shell.write("/tmp/many.py", MANY)
    shell.measure("zpool create -f -O atime=off bench /dev/ubdb && zfs create bench/set")
    shell.measure(f"python3 /tmp/many.py create 'bench/set/d{{:04}}' {DATASETS}")
    version = shell.run("zfs version").split()[0]
    load = os.getloadavg()[0]
    found = {**agent_in_guest(shell), **sanoid_in_guest(shell, count)}
    machine = f"{os.cpu_count()} cores, Linux {platform.release()}"
    loads = f"load {load:.1f} before and {os.getloadavg()[0]:.1f} after"
    print(f"Measured on {time.strftime('%Y-%m-%d')}: {machine}, {loads}, {version}; one run.\n")
    print("| what | datasets | wall s | guest CPU s |\n|---|---|---|---|")
    for what, cost in found.items():
        number = count if "sanoid" in what else DATASETS
        print(f"| {what} | {number} | {cost.wall:.2f} | {cost.guest:.2f} |")
    print("\n| goal | at most | agent | of the limit | |\n|---|---|---|---|---|")
    scaled = "" if count == DATASETS else f", scaled from {count}"
    for verb, part in (("take", 10), ("prune", 20)):
        limit = found[f"{verb}, sanoid"].guest * DATASETS / count / part
        goal(f"{verb}: 1/{part} of sanoid's guest CPU{scaled}, s", limit, found[f"{verb}, agent"].guest)
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sanoid", type=int, default=DATASETS, help="over how many datasets sanoid runs")
    parser.add_argument("--only", choices=("start", "guest"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if chosen.only != "guest":
            starts(folder)
        if chosen.only == "start":
            return
        guest = Guest()
        guest.start(fresh=False)
        agent = folder / "restorepoint.pyz"
        subprocess.run([sys.executable, CHECKOUT / "tools" / "agent.py", agent], check=True, capture_output=True)
        subprocess.run(
            guest.ssh("cat > /tmp/restorepoint.pyz"), check=True, input=agent.read_bytes(), capture_output=True
        )
        with contextlib.closing(Shell(guest)) as shell:
            try:
                compare(shell, min(chosen.sanoid, DATASETS))
            finally:
                shell.run("zpool destroy -f bench")


if __name__ == "__main__":
    main()
