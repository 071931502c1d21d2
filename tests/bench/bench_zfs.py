# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure ZFS snapshots side by side with community.general.zfs, sanoid and `zfs` itself, in the guest, over ssh.

    make bench ARGS="tests/bench/bench_zfs.py"

Three cases: 50 datasets snapshotted at once, 1,000 snapshots of one dataset pruned, 10,000 snapshots listed. Plays are
measured whole, beside one with a module that does nothing; programs are started by a shell that is there already. Guest
CPU is what the guest's processes take of this machine, which other work here changes less than wall times (the guest's
own /proc/stat counts those). Every number is the median over the rounds, all from one run, each tool in turn. Ratios
are what carries over to other machines, but for one thing: in this guest a process costs some 0.1 s to start.

The loop takes minutes, so it runs once whatever --rounds says, and --loop says over how many datasets: where these are
fewer than 50, its row says so and is scaled up, beyond the play that does nothing. It needs what `make guest` needs,
the package `ansible` from PyPI, and sanoid from Debian.
"""

from __future__ import annotations

import argparse
import contextlib
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tools"))

from cores import newest_core
from environments import environment
from guest import Guest

DATASETS, PRUNED, SANOID, LISTED = 50, 1000, 20, 10_000
#: 10,000 snapshots are 100 names of 100 datasets.
PARENTS = 100
SET = [f"bench/set/d{number:03}" for number in range(PARENTS)]
INFO = "restorepoint.core.zfs_snapshot_info"
#: What zfs_snapshot_info asks `zfs list` for.
COLUMNS = (
    "name,creation,createtxg,guid,used,referenced,userrefs,clones,"
    "restorepoint:owner,restorepoint:description,restorepoint:labels"
)
#: What a person asks both for who wants to know no more than which snapshots there are, and since when.
FEW_COLUMNS, FEW_FIELDS = "name,creation", ["target", "name", "created"]
#: The ways to list with the engine: the options of each, and the columns that `zfs list` has beside it.
LISTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "engine": ({}, COLUMNS),
    "engine, tree: false": ({"tree": False}, COLUMNS),
    f"engine, {len(FEW_FIELDS)} fields": ({"tree": False, "fields": FEW_FIELDS}, FEW_COLUMNS),
}
#: One transaction group takes one snapshot of a dataset, so these are as many system calls, without a process for each.
MAKE = """
import ctypes, sys
core, pairs = ctypes.CDLL("libzfs_core.so.3"), ctypes.CDLL("libnvpair.so.3")
def pairlist():
    made = ctypes.c_void_p()
    assert pairs.nvlist_alloc(ctypes.byref(made), 1, 0) == 0
    return made
assert core.libzfs_core_init() == 0
given = pairlist()
pairs.nvlist_add_string(given, b"restorepoint:owner", b"bench")
for number in range(int(sys.argv[2])):
    names, failed = pairlist(), ctypes.c_void_p()
    pairs.nvlist_add_boolean(names, sys.argv[1].format(number).encode())
    code = core.lzc_snapshot(names, given, ctypes.byref(failed))
    if code:
        sys.exit(f"cannot take snapshot {number}: {code}")
"""
SANOID_CONF = """
[bench/one]
use_template = bench
[template_bench]
frequently = 0
hourly = 0
daily = 0
weekly = 0
monthly = 0
yearly = 0
autosnap = no
autoprune = yes
"""
#: A module that looks at nothing and returns what a file holds: what returning so much costs with Ansible.
SAY = """
import json
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule({"path": {"type": "path"}})
with open(module.params["path"], encoding="utf-8") as file:
    module.exit_json(changed=False, **json.load(file))
"""
INSTALL = (
    "command -v sanoid >/dev/null || { apt-get update -qq && apt-get install -qq -y --no-install-recommends sanoid; };"
    "systemctl disable -q --now sanoid.timer; mkdir -p /etc/sanoid; modprobe zfs;"
    "zpool destroy -f bench 2>/dev/null; true"
)
PREPARE = (
    "zpool create -f -O atime=off bench /dev/ubdb && zfs create bench/one && zfs create bench/set && "
    f"for name in {' '.join(SET)}; do zfs create $name || exit 1; done"
)


@dataclass(frozen=True)
class Cost:
    """What something cost, in seconds."""

    wall: float
    controller: float
    guest: float

    def beyond(self, other: Cost) -> Cost:
        """Return what it cost beyond another."""
        return Cost(self.wall - other.wall, self.controller - other.controller, self.guest - other.guest)

    def times(self, factor: float) -> Cost:
        """Return it, multiplied."""
        return Cost(self.wall * factor, self.controller * factor, self.guest * factor)


Found = dict[str, list[Cost]]


def middle(costs: Sequence[Cost]) -> Cost:
    """Return the medians."""
    parts = [[each.wall, each.controller, each.guest] for each in costs]
    return Cost(*(statistics.median(column) for column in zip(*parts)))


class Shell:
    """A shell in the guest that stays: a command in it costs neither a connection nor a shell."""

    def __init__(self, guest: Guest) -> None:
        self._process = subprocess.Popen(
            guest.ssh("bash"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._group = int((guest.folder / "pid").read_text())

    def _line(self, text: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def busy(self) -> float:
        """Return the CPU seconds of the guest's process group: of those that live, and of those that they waited for.

        Each process of the guest is one of this machine (see proc(5) for the fields).
        """
        ticks = 0
        for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self._group:
                    ticks += sum(map(int, fields[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def measure(self, script: str) -> Cost:
        """Run a script; return its cost. What it prints goes into a file."""
        before, start = self.busy(), time.monotonic()
        code = self._line(f"{{ {script}\n}} >/tmp/bench.out 2>/tmp/bench.err </dev/null; echo $?").strip()
        wall = time.monotonic() - start
        if code != "0":
            raise SystemExit(f"Cannot run in the guest: {script[:200]}: {self.read('/tmp/bench.err')} (rc {code})")
        return Cost(wall, 0.0, self.busy() - before)

    def read(self, path: str) -> str:
        """Return a file's content."""
        return str(json.loads(self._line(f"python3 -c 'import json; print(json.dumps(open(\"{path}\").read()))'")))

    def run(self, script: str) -> str:
        """Run a script, and return what it printed."""
        self.measure(script)
        return self.read("/tmp/bench.out")

    def write(self, path: str, content: str) -> None:
        """Write a file."""
        self.measure(f"cat > {path} <<'END_OF_FILE'\n{content}\nEND_OF_FILE")

    def close(self) -> None:
        """End it."""
        self._process.communicate()


class Bench:
    """The guest, and an environment with Ansible, its community collections and this one."""

    def __init__(self, guest: Guest, shell: Shell, folder: pathlib.Path) -> None:
        core, python = newest_core()
        self.shell = shell
        self.folder = folder
        self.programs = environment("lvol", python, [core.requirement, "ansible"])
        link = folder / "collections" / "ansible_collections" / "restorepoint"
        link.mkdir(parents=True)
        (link / "core").symlink_to(CHECKOUT)
        (folder / "inventory.json").write_text(json.dumps(guest.inventory()))
        (folder / "library").mkdir()
        (folder / "library" / "say.py").write_text(SAY)

    def play(self, module: str, options: Mapping[str, Any], **task: Any) -> Cost:
        """Run a play of one task; return its cost."""
        return self.play_tasks([{module: options, **task}])

    def play_tasks(self, tasks: Sequence[Mapping[str, Any]]) -> Cost:
        """Run a play of these tasks; return its cost."""
        book = self.folder / "play.json"
        book.write_text(json.dumps([{"hosts": "storage", "gather_facts": False, "tasks": tasks}]))
        command = [str(self.programs / "ansible-playbook"), "-i", str(self.folder / "inventory.json"), str(book)]
        settings = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"),
            "ANSIBLE_LIBRARY": str(self.folder / "library"),
            "ANSIBLE_LOCALHOST_WARNING": "False",
            "PATH": f"{self.programs}:{os.environ['PATH']}",
        }
        busy = self.shell.busy()
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=1800)
        wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            raise SystemExit(f"Cannot measure: {done.stdout[-2000:]}{done.stderr[-500:]}")
        controller = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Cost(wall, controller, self.shell.busy() - busy)

    def nothing(self) -> Cost:
        """Run the play that does nothing, the second time: the connection is there."""
        self.play("ansible.builtin.ping", {})
        return self.play("ansible.builtin.ping", {})

    def expect(self, count: int, where: str) -> None:
        """Stop where there are not that many snapshots in a dataset."""
        there = int(self.shell.run(f"zfs list -H -t snapshot -o name -r {where} | wc -l"))
        if there != count:
            raise SystemExit(f"Cannot measure: {count} snapshots were expected in {where}, and there are {there}.")

    def make(self, pattern: str, count: int) -> None:
        """Take snapshots of one dataset, one after the other, owned by ``bench``."""
        self.shell.measure(f"python3 /tmp/make.py '{pattern}' {count}")


def measure_taking(bench: Bench, number: int, loop: int) -> Iterator[tuple[str, Cost]]:
    """Take a snapshot of each of 50 datasets."""
    targets = SET[:DATASETS]

    def taken(cost: Cost, count: int = DATASETS) -> Cost:
        bench.expect(count, "bench/set")
        bench.shell.measure("zfs destroy -r bench/set@bench")
        return cost

    yield "nothing", bench.nothing()
    yield "zfs snapshot", taken(bench.shell.measure(f"zfs snapshot {' '.join(f'{each}@bench' for each in targets)}"))
    yield "engine", taken(bench.play("restorepoint.core.zfs_snapshot", {"dataset": targets, "name": "bench"}))
    if number == 0:
        names = [f"{each}@bench" for each in targets[:loop]]
        cost = bench.play("community.general.zfs", {"name": "{{ item }}", "state": "present"}, loop=names)
        yield f"loop of {loop}", taken(cost, loop)


def measure_pruning(bench: Bench, number: int, loop: int) -> Iterator[tuple[str, Cost]]:
    """Remove 1,000 snapshots of one dataset, of which the engine keeps one more."""
    pattern = "bench/one@s{:05}"
    names = [f"s{number:05}" for number in range(PRUNED)]
    yield "nothing", bench.nothing()
    bench.make(pattern, PRUNED + 1)
    yield "zfs list", bench.shell.measure(f"zfs list -Hp -t snapshot -o {COLUMNS} -d 1 bench/one")
    yield "zfs destroy", bench.shell.measure(f"zfs destroy bench/one@{','.join(names)}")
    bench.expect(1, "bench/one")
    bench.shell.measure(f"zfs destroy bench/one@s{PRUNED:05}")
    bench.make(pattern, PRUNED + 1)
    options = {"dataset": "bench/one", "state": "pruned", "owner": "bench", "keep": {"last": 1}}
    yield "engine", bench.play("restorepoint.core.zfs_snapshot", options)
    bench.expect(1, "bench/one")
    bench.shell.measure(f"zfs destroy bench/one@s{PRUNED:05}")
    if number == 0:
        prune = "rm -f /var/cache/sanoid/snapshots.txt; sanoid --prune-snapshots"
        yield "sanoid, nothing to prune", bench.shell.measure(prune)
        bench.make("bench/one@autosnap_2026-11-20_00:00:{:02}_hourly", SANOID)
        bench.shell.measure("sleep 2")
        yield f"sanoid, {SANOID}", bench.shell.measure(prune)
        bench.expect(0, "bench/one")


def measure_listing(bench: Bench, number: int, loop: int) -> Iterator[tuple[str, Cost]]:
    """List 10,000 snapshots of 100 datasets."""
    if number == 0:
        for each in range(LISTED // PARENTS):
            bench.shell.measure(f"zfs snapshot {' '.join(f'{name}@s{each:02}' for name in SET)}")
        bench.expect(LISTED, "bench/set")
    yield "nothing", bench.nothing()
    yield "zfs list -o name", bench.shell.measure("zfs list -H -t snapshot -o name -r bench/set")
    for columns in (COLUMNS, FEW_COLUMNS):
        yield listed(columns), bench.shell.measure(f"zfs list -Hp -t snapshot -o {columns} -r bench/set")
    for place, (tool, (asked, _columns)) in enumerate(LISTINGS.items()):
        options = {"dataset": "bench/set", "recursive": True, **asked}
        if number == 0:
            keep_shown(bench, options, f"/tmp/shown-{place}.json")
        yield f"a module that returns the same as {tool}", bench.play("say", {"path": f"/tmp/shown-{place}.json"})
        yield tool, bench.play(INFO, options)


def listed(columns: str) -> str:
    """Return what `zfs list` with these columns is called."""
    return "zfs list, same columns" if columns == COLUMNS else f"zfs list -o {columns}"


def keep_shown(bench: Bench, options: Mapping[str, Any], path: str) -> None:
    """Keep what the engine returns in a file of the guest. All snapshots have to be in it."""
    keys = ["snapshots", "asides", *(["tree"] if options.get("tree", True) else [])]
    content = "{{ shown | dict2items | selectattr('key', 'in', keys) | items2dict | to_json }}"
    bench.play_tasks([
        {INFO: options, "register": "shown", "failed_when": f"shown.snapshots | length != {LISTED}"},
        {"ansible.builtin.copy": {"content": content, "dest": path}, "vars": {"keys": keys}},
    ])  # fmt: skip


def taking_goals(found: Mapping[str, Cost], loop: int) -> Iterator[tuple[str, float, float]]:
    """Yield each goal, its limit, and what the engine took."""
    nothing, engine, raw = found["nothing"], found["engine"], found["zfs snapshot"]
    beyond = found[f"loop of {loop}"].beyond(nothing).times(DATASETS / loop)
    whole = Cost(beyond.wall + nothing.wall, beyond.controller + nothing.controller, beyond.guest + nothing.guest)
    scaled = "" if loop == DATASETS else f", scaled from {loop}"
    yield f"1/20 of the loop's wall time{scaled}", whole.wall / 20, engine.wall
    yield f"1/4 of the loop's controller CPU{scaled}", whole.controller / 4, engine.controller
    yield "3 x `zfs snapshot`, guest CPU, beyond nothing", 3 * raw.guest, engine.beyond(nothing).guest


def pruning_goals(found: Mapping[str, Cost], loop: int) -> Iterator[tuple[str, float, float]]:
    """Yield each goal, its limit, and what the engine took."""
    beyond = found["engine"].beyond(found["nothing"])
    without, raw = beyond.beyond(found["zfs list"]), found["zfs destroy"]
    sanoid = found[f"sanoid, {SANOID}"].beyond(found["sanoid, nothing to prune"]).times(1 / SANOID)
    yield "1.5 x `zfs destroy`, wall, beyond nothing and the listing", 1.5 * raw.wall, without.wall
    yield "1.5 x `zfs destroy`, guest CPU, beyond nothing and the listing", 1.5 * raw.guest, without.guest
    yield "1/50 of sanoid for each snapshot, wall, ms", sanoid.wall * 1000 / 50, beyond.wall * 1000 / PRUNED
    yield "1/50 of sanoid for each snapshot, guest CPU, ms", sanoid.guest * 1000 / 50, beyond.guest * 1000 / PRUNED


def listing_goals(found: Mapping[str, Cost], loop: int) -> Iterator[tuple[str, float, float]]:
    """Yield each goal, its limit, and what the engine took: beyond a play that does nothing, and that says as much."""
    for engine, (_unused, columns) in LISTINGS.items():
        for base in ("nothing", f"a module that returns the same as {engine}"):
            beyond = found[engine].beyond(found[base])
            for what in (listed(columns), "zfs list -o name"):
                title = f"{engine}: 1.3 x `{what}`"
                yield f"{title}, wall, beyond {base}", 1.3 * found[what].wall, beyond.wall
                yield f"{title}, guest CPU, beyond {base}", 1.3 * found[what].guest, beyond.guest


Measure = Callable[[Bench, int, int], Iterator[tuple[str, Cost]]]
Goals = Callable[[Mapping[str, Cost], int], Iterator[tuple[str, float, float]]]
CASES: dict[str, tuple[str, Measure, Goals]] = {
    "taking": (f"snapshots of {DATASETS} datasets", measure_taking, taking_goals),
    "pruning": (f"{PRUNED:,} snapshots pruned", measure_pruning, pruning_goals),
    "listing": (f"{LISTED:,} snapshots listed", measure_listing, listing_goals),
}


def report(case: str, rounds: Found, loop: int) -> None:
    """Print what was measured of a case, and how it stands to its goals."""
    title, _unused, goals = CASES[case]
    found = {tool: middle(costs) for tool, costs in rounds.items()}
    print("| case | tool | rounds | wall s | controller CPU s | guest CPU s |\n|---|---|---|---|---|---|")
    for tool, cost in found.items():
        controller = f"{cost.controller:.2f}" if cost.controller else "-"
        print(f"| {title} | {tool} | {len(rounds[tool])} | {cost.wall:.2f} | {controller} | {cost.guest:.2f} |")
    print("\n| goal | at most | engine | of the limit | |\n|---|---|---|---|---|")
    for goal, limit, taken in goals(found, loop):
        ratio = taken / limit
        print(f"| {goal} | {limit:.2f} | {taken:.2f} | {ratio:.2f} | {'reached' if ratio <= 1 else 'missed'} |")
    print(flush=True)


def measure(bench: Bench, case: str, rounds: int, loop: int) -> Found:
    """Measure a case; return the costs of each tool over the rounds."""
    found: Found = {}
    for number in range(rounds):
        for tool, cost in CASES[case][1](bench, number, loop):
            found.setdefault(tool, []).append(cost)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loop", type=int, default=DATASETS, help="how many datasets the loop has")
    parser.add_argument("--only", choices=list(CASES))
    chosen = parser.parse_args()
    guest = Guest()
    guest.start(fresh=False)
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Shell(guest)) as shell:
        bench = Bench(guest, shell, pathlib.Path(folder))
        shell.run(INSTALL)
        shell.write("/tmp/make.py", MAKE)
        shell.write("/etc/sanoid/sanoid.conf", SANOID_CONF)
        shell.run(PREPARE)
        version = shell.run("zfs version").split()[0]
        try:
            for case in [chosen.only] if chosen.only else list(CASES):
                load = os.getloadavg()[0]
                found = measure(bench, case, chosen.rounds, min(chosen.loop, DATASETS))
                machine = f"{os.cpu_count()} cores, Linux {platform.release()}"
                loads = f"load {load:.1f} before and {os.getloadavg()[0]:.1f} after"
                print(f"Measured on {time.strftime('%Y-%m-%d')}: {machine}, {loads}, {version}; medians.\n")
                report(case, found, min(chosen.loop, DATASETS))
        finally:
            shell.run("zpool destroy -f bench")


if __name__ == "__main__":
    main()
