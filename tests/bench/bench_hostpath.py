# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure directory snapshots side by side with rsync, cp and restic, in one run, interleaved.

    make bench            everything, three rounds
    make bench ARGS="--rounds 1 --only T1"

Every number is the median over the rounds of the CPU seconds (user + system) that a command and its children took, its
start included; the engine's includes starting Python. Wall time is shown beside it. Ratios are what carries over to
other machines. It needs root, for loop devices: each filesystem is a fresh one. It asserts nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Callable

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
T1_FILES, T1_DIRECTORIES = 100_000, 1000


@dataclass
class Sample:
    cpu: float
    wall: float


@dataclass
class Goal:
    """What the engine must stay below: a factor of a peer, or a peer and so many seconds more."""

    case: str
    peer: str
    factor: float = 1.0
    plus: float = 0.0

    def text(self) -> str:
        return f"{self.factor:g} x {self.peer}" if not self.plus else f"{self.peer} + {self.plus:g} s"


GOALS = [
    Goal("T1 first", "naive", 0.45),
    Goal("T1 first", "cp", 1.3),
    Goal("T1 unchanged", "naive", 0.22),
    Goal("T1 unchanged", "link-dest", 0.33),
    Goal("T1 1 % changed", "naive", 0.22),
    Goal("T1 1 % changed", "link-dest", 0.33),
    Goal("T1 return", "naive", 0.45),
    Goal("T2 first", "cp --reflink", plus=0.3),
    Goal("T3 first", "cp", 4.0),
    Goal("Btrfs subvolume", "btrfs", plus=0.3),
]


@dataclass
class Results:
    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=lambda: defaultdict(list))

    def measure(self, case: str, tool: str, argv: list[str], environment: dict[str, str] | None = None) -> None:
        """Run a command and note what it took. A command that fails ends the benchmark."""
        os.sync()  # what others have left to be written is not for this one to wait for
        started = datetime.datetime.now()
        process = subprocess.Popen(
            argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **(environment or {})}
        )
        assert process.stderr is not None
        words = process.stderr.read()
        _unused, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = (datetime.datetime.now() - started).total_seconds()
        if process.returncode:
            raise SystemExit(f"{argv} failed: {words.decode(errors='replace')[-500:]}")
        sample = Sample(usage.ru_utime + usage.ru_stime, wall)
        self.samples[(case, tool)].append(sample)
        print(f"  {case:16} {tool:14} cpu {sample.cpu:6.2f}  wall {sample.wall:6.2f}", flush=True)

    def median(self, case: str, tool: str) -> Sample | None:
        samples = self.samples.get((case, tool))
        if not samples:
            return None
        return Sample(statistics.median(each.cpu for each in samples), statistics.median(each.wall for each in samples))

    def goals(self) -> Iterator[tuple[Goal, float, float, bool]]:
        """Yield each goal with the engine's CPU seconds, the most they may be, and whether that holds."""
        for goal in GOALS:
            ours, peer = self.median(goal.case, "engine"), self.median(goal.case, goal.peer)
            if ours is not None and peer is not None:
                limit = goal.factor * peer.cpu + goal.plus
                yield goal, ours.cpu, limit, ours.cpu <= limit


def engine(state: str, target: pathlib.Path, store: pathlib.Path, name: str) -> list[str]:
    return [sys.executable, str(HERE / "engine.py"), state, str(target), str(store), name]


@contextlib.contextmanager
def filesystem(kind: str, size: str, *options: str) -> Iterator[pathlib.Path]:
    """Mount a fresh filesystem from an image file."""
    with tempfile.TemporaryDirectory(prefix="rp-bench-") as folder:
        image, mount = pathlib.Path(folder, "image"), pathlib.Path(folder, "mount")
        mount.mkdir()
        subprocess.run(["truncate", "-s", size, str(image)], check=True)
        force = "-F" if kind == "ext4" else "-f"
        subprocess.run([f"mkfs.{kind}", "-q", force, *options, str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=True)
        try:
            yield mount
        finally:
            subprocess.run(["umount", "-l", str(mount)], check=True)


def make_t1(target: pathlib.Path) -> None:
    """100,000 files of 1 to 8 KiB."""
    chooser = random.Random(1)
    noise = os.urandom(1 << 20)
    for folder in range(T1_DIRECTORIES):
        directory = target / f"d{folder:04}"
        directory.mkdir(parents=True)
        for number in range(T1_FILES // T1_DIRECTORIES):
            start, size = chooser.randrange(1 << 19), chooser.randint(1024, 8192)
            (directory / f"file{number:03}.dat").write_bytes(noise[start : start + size])


def change_one_percent(target: pathlib.Path, seed: int) -> None:
    chooser = random.Random(seed)
    files = sorted(target.glob("d*/file*.dat"))
    for path in chooser.sample(files, len(files) // 100):
        path.write_bytes(os.urandom(chooser.randint(1024, 8192)))


def make_t2(target: pathlib.Path) -> None:
    """200 files of 10 MiB."""
    target.mkdir()
    for number in range(200):
        (target / f"large{number:03}").write_bytes(os.urandom(10 << 20))


def make_t3(target: pathlib.Path) -> None:
    """One sparse file of 4 GiB with 256 MiB of data in it, and attributes, links and special files beside it."""
    target.mkdir()
    with open(target / "sparse", "wb") as stream:
        for number in range(64):
            stream.seek(number << 26)
            stream.write(os.urandom(4 << 20))
        stream.truncate(4 << 30)
    for number in range(50):
        path = target / f"file{number}"
        path.write_bytes(os.urandom(1000))
        os.setxattr(path, "user.comment", b"x" * 100)
        os.link(path, target / f"link{number}")
        os.symlink(f"file{number}", target / f"symlink{number}")
    os.mkfifo(target / "fifo")
    subprocess.run(["setfacl", "-m", "u:1:r", str(target / "file1")], check=True)


def bench_t1(results: Results, rounds: int) -> None:
    with filesystem("ext4", "14G", "-N", "3000000") as mount:
        source = mount / "source"
        make_t1(source)
        for number in range(rounds):
            work = mount / "work"
            work.mkdir()
            os.sync()
            t1_round(results, source, work, number)
            shutil.rmtree(work)


def t1_round(results: Results, source: pathlib.Path, work: pathlib.Path, number: int) -> None:
    restic = restic_environment(work)
    for step, case in enumerate(("T1 first", "T1 unchanged", "T1 1 % changed")):
        if step == 2:
            change_one_percent(source, number)
        tools: dict[str, list[str]] = {
            "naive": ["rsync", "-avz", "--delete", f"{source}/", f"{work}/naive{step}/"],
            "link-dest": ["rsync", "-aHAXS", *([f"--link-dest={work}/link{step - 1}"] if step else []),
                          f"{source}/", f"{work}/link{step}/"],
            "cp": ["cp", "-a", str(source), f"{work}/cp{step}"],
            "engine": engine("present", source, work / "store", f"s{step}"),
        }  # fmt: skip
        if restic is not None:
            tools["restic"] = ["restic", "backup", "-q", str(source)]
        for tool in rotated(list(tools), number):
            results.measure(case, tool, tools[tool], restic if tool == "restic" else None)
        shutil.rmtree(work / f"cp{step}")
    source.rename(work / "lost")
    results.measure("T1 return", "naive", ["rsync", "-avz", "--delete", f"{work}/naive2/", f"{work}/back/"])
    results.measure("T1 return", "cp", ["cp", "-a", f"{work}/link2", f"{work}/back-cp"])
    results.measure("T1 return", "engine", engine("rolled_back", source, work / "store", "s2"))
    results.measure("T1 return again", "engine", engine("rolled_back", source, work / "store", "s2"))
    differences = subprocess.run(["diff", "-rq", str(source), str(work / "lost")], capture_output=True, check=False)
    if differences.returncode:
        raise SystemExit(f"the returned tree differs: {differences.stdout.decode()[:500]}")
    results.measure("T1 remove", "engine", engine("absent", source, work / "store", "s0"))
    results.measure("T1 remove", "rm", ["rm", "-rf", f"{work}/link0"])


def rotated(tools: list[str], number: int) -> list[str]:
    """Let each round begin with another tool, so that none always finds the caches as another left them."""
    return tools[number % len(tools) :] + tools[: number % len(tools)]


def restic_environment(work: pathlib.Path) -> dict[str, str] | None:
    if shutil.which("restic") is None:
        return None
    environment = {
        "RESTIC_REPOSITORY": str(work / "restic"),
        "RESTIC_PASSWORD": "benchmark",
        "RESTIC_CACHE_DIR": str(work / "restic-cache"),
    }
    subprocess.run(["restic", "init", "-q"], check=True, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    return environment


def bench_copy(
    results: Results,
    rounds: int,
    case: str,
    kind: str,
    make: Callable[[pathlib.Path], None],
    peers: dict[str, list[str]],
) -> None:
    """Measure the first copy of a small number of large files."""
    with filesystem(kind, "14G") as mount:
        source = mount / "source"
        make(source)
        for number in range(rounds):
            work = mount / "work"
            work.mkdir()
            tools = {tool: [*argv, f"{source}/." if argv[0] == "cp" else f"{source}/", f"{work}/{position}"]
                     for position, (tool, argv) in enumerate(peers.items())}  # fmt: skip
            tools["engine"] = engine("present", source, work / "store", "s0")
            for tool in rotated(list(tools), number):
                results.measure(case, tool, tools[tool])
            shutil.rmtree(work)


def bench_subvolume(results: Results, rounds: int) -> None:
    with filesystem("btrfs", "4G") as mount:
        source, store = mount / "source", mount / "store"
        subprocess.run(["btrfs", "-q", "subvolume", "create", str(source)], check=True)
        make_t1(source / "content")
        raw = mount / "raw"
        for number in range(rounds):
            btrfs = ["btrfs", "subvolume", "snapshot", "-r", str(source), str(raw)]
            for tool in rotated(["btrfs", "engine"], number):
                argv = btrfs if tool == "btrfs" else engine("present", source, store, f"s{number}")
                results.measure("Btrfs subvolume", tool, argv)
            subprocess.run(["btrfs", "-q", "subvolume", "delete", str(raw)], check=True)


def report(results: Results, rounds: int) -> str:
    """Return the results as Markdown."""
    cases = list(dict.fromkeys(case for case, _unused in results.samples))
    lines = ["| case | tool | CPU s | wall s | CPU, engine = 1 |", "|---|---|---|---|---|"]
    for case in cases:
        ours = results.median(case, "engine")
        for tool in (tool for found, tool in results.samples if found == case):
            sample = results.median(case, tool)
            if sample is not None and ours is not None:
                lines.append(
                    f"| {case} | {tool} | {sample.cpu:.2f} | {sample.wall:.2f} | {sample.cpu / ours.cpu:.2f} |"
                )
    lines += ["", "| goal | at most | limit, CPU s | engine, CPU s | of the limit | |", "|---|---|---|---|---|---|"]
    for goal, ours_cpu, limit, holds in results.goals():
        word = "reached" if holds else "missed"
        lines.append(
            f"| {goal.case} | {goal.text()} | {limit:.2f} | {ours_cpu:.2f} | {ours_cpu / limit:.2f} | {word} |"
        )
    return "\n".join([machine(rounds), "", *lines, ""])


def machine(rounds: int) -> str:
    model = next((line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())  # fmt: skip
    rsync = subprocess.run(["rsync", "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    return (
        f"Measured on {datetime.date.today().isoformat()}: {model}, {os.cpu_count()} cores, "
        f"Linux {platform.release()}, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, {' '.join(rsync.split())}; medians of {rounds} rounds."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="T1,T2,T3,btrfs", help="which of T1, T2, T3 and btrfs")
    parser.add_argument("--json", type=pathlib.Path, help="also write every sample there")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("Cannot measure on fresh filesystems: loop devices need root; run it as root.")
    wanted = arguments.only.split(",")
    results = Results()
    if "T1" in wanted:
        bench_t1(results, arguments.rounds)
    if "T2" in wanted:
        peers = {"naive": ["rsync", "-avz", "--delete"], "cp --reflink": ["cp", "-a", "--reflink=always"]}
        bench_copy(results, arguments.rounds, "T2 first", "xfs", make_t2, peers)
    if "T3" in wanted:
        bench_copy(results, arguments.rounds, "T3 first", "ext4", make_t3, {"cp": ["cp", "-a"]})
    if "btrfs" in wanted:
        bench_subvolume(results, arguments.rounds)
    if arguments.json:
        samples = {f"{case}/{tool}": [vars(each) for each in found] for (case, tool), found in results.samples.items()}
        arguments.json.write_text(json.dumps(samples, indent=1))
    print("\n" + report(results, arguments.rounds))


if __name__ == "__main__":
    main()
