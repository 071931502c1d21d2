# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure snapshots of many Proxmox VE guests side by side with a loop over community.proxmox's proxmox_snap.

    make bench-pve                                200 guests on four nodes, tasks of 0.5 s
    make bench-pve ARGS="--guests 40"             fewer
    make bench-pve ARGS="--loop-guests 40"        the loops on fewer guests, times what is missing

All against the test server, in a process of its own whose CPU is not counted. Wall and CPU are those of the whole
ansible-playbook, its start and all children included. It asserts nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
FIRST = 1000
sys.path.insert(0, str(REPOSITORY / "tools"))


@dataclass
class Sample:
    """What a command took, in seconds."""

    wall: float
    cpu: float
    peak_mib: float = 0.0
    output: str = ""

    def times(self, factor: float) -> Sample:
        """Return it for so many times the work."""
        return Sample(self.wall * factor, self.cpu * factor)


def peers() -> pathlib.Path:
    """Return the programs of an environment with PyPI's ansible package, which carries community.proxmox."""
    cores, environments = (importlib.import_module(each) for each in ("cores", "environments"))
    packages = ["ansible", "proxmoxer", "requests"]
    return pathlib.Path(environments.environment("peers", cores.newest_core()[1], packages))


@contextlib.contextmanager
def server(guests: int, nodes: int, task_seconds: float) -> Iterator[dict[str, Any]]:
    """Run the test server in a process of its own, and yield how to reach it."""
    argv = [sys.executable, "-m", "ansible_collections.restorepoint.core.tests.pve_server", "--scenario", "fleet"]
    argv += ["--guests", str(guests), "--nodes", str(nodes), "--task-seconds", str(task_seconds), "--list-lag", "0.05"]
    with subprocess.Popen([*argv, "--until-eof"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()


def measure(argv: list[str], environment: dict[str, str]) -> Sample:
    """Run a command to its end; a command that fails ends the benchmark."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(argv, check=False, env={**os.environ, **environment}, capture_output=True, text=True)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{' '.join(argv)} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Sample(wall, cpu, after.ru_maxrss / 1024, done.stdout)


class Bench:
    """The playbooks and modules to be measured, on one server."""

    def __init__(self, told: dict[str, Any], guests: int, folder: pathlib.Path) -> None:
        self.folder, self.guests = folder, guests
        self.login = {
            "api_host": told["host"],
            "api_port": told["port"],
            "api_user": told["user"],
            "api_password": told["password"],
            "ca_path": told["ca_path"],
        }
        self.environment = {
            "ANSIBLE_COLLECTIONS_PATH": os.environ["PYTHONPATH"].split(os.pathsep)[0],
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            "ANSIBLE_RETRY_FILES_ENABLED": "false",
            # The peer's does not know this name for it; its server's certificate is not checked by it then.
            "PROXMOX_VALIDATE_CERTS": "true",
        }

    def play(self, programs: pathlib.Path, tasks: list[dict[str, Any]], *arguments: str, **play: Any) -> Sample:
        """Run a playbook of these tasks."""
        book = self.folder / "book.yml"
        told = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks, **play}
        python = {"ansible_python_interpreter": str(programs / "python")}
        book.write_text(json.dumps([{**told, "vars": python}]))
        environment = dict(self.environment)
        if "peers" in str(programs):
            environment.update(ANSIBLE_COLLECTIONS_PATH="/nowhere", PYTHONPATH="")
        return measure([str(programs / "ansible-playbook"), *arguments, str(book)], environment)

    def ours(self, name: str, **options: Any) -> Sample:
        """Run one call of pve_snapshot for all guests."""
        span = f"{FIRST}-{FIRST + self.guests - 1}"
        module = {"restorepoint.core.pve_snapshot": {**self.login, "vmid": span, "name": name, **options}}
        return self.play(pathlib.Path(sys.executable).parent, [{**module, "no_log": False}])

    def peer(self, programs: pathlib.Path, vmid: str, name: str) -> dict[str, Any]:
        """Return the peer's task for a guest."""
        return {"community.proxmox.proxmox_snap": {**self.login, "vmid": vmid, "snapname": name, "timeout": 60}}

    def loop(self, programs: pathlib.Path, count: int, name: str) -> Sample:
        """Run the peer in a loop."""
        ids = list(range(FIRST, FIRST + count))
        return self.play(programs, [{**self.peer(programs, "{{ item }}", name), "loop": ids}])

    def forks(self, programs: pathlib.Path, count: int, name: str) -> Sample:
        """Run the peer on a host for each guest, ten at once."""
        hosts = {f"vm{vmid}": {"vmid": vmid, "ansible_connection": "local"} for vmid in range(FIRST, FIRST + count)}
        inventory = self.folder / "hosts.json"
        inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
        task = self.peer(programs, "{{ vmid }}", name)
        return self.play(programs, [task], "-i", str(inventory), "--forks", "10", hosts="all")

    def module(self, file: str, **options: Any) -> tuple[Sample, dict[str, Any]]:
        """Run a module file by itself, in a process of its own."""
        arguments = self.folder / "arguments.json"
        told = {**self.login, **options, "_ansible_check_mode": False, "_ansible_remote_tmp": "/tmp"}
        arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": told}))
        path = str(REPOSITORY / "plugins" / "modules" / f"{file}.py")
        sample = measure([sys.executable, path, str(arguments)], {})
        return sample, json.loads(sample.output)


def compare(options: argparse.Namespace, folder: pathlib.Path) -> None:
    """Measure ours and the loops, and print them."""
    with server(options.guests, options.nodes, options.task_seconds) as told:
        bench = Bench(told, options.guests, folder)
        floor = bench.play(pathlib.Path(sys.executable).parent, [{"ansible.builtin.ping": {}}])
        ours = bench.ours("ours")
        listing = bench.play(
            pathlib.Path(sys.executable).parent, [{"restorepoint.core.pve_snapshot_info": {**bench.login}}]
        )
        span = f"{FIRST}-{FIRST + options.guests - 1}"
        _unused, result = bench.module("pve_snapshot", vmid=span, name="counted")
        show("a play with one ping", floor)
        show(f"ours, {options.guests} guests", ours)
        print(f"  API calls for each guest created: {(result['api_calls'] + 1) / options.guests:.2f} (goal: at most 5)")
        show(f"listing {options.guests} guests", listing)
        print(f"  beyond start-up: {listing.wall - floor.wall:.2f} s (goal: at most 1.5)")
        if options.loop_guests:
            loops(bench, options, ours)


def loops(bench: Bench, options: argparse.Namespace, ours: Sample) -> None:
    """Measure the peer in a loop and with forks, on as many guests as asked for, and print the ratios."""
    programs, count = peers(), options.loop_guests
    empty = bench.play(programs, [{"ansible.builtin.debug": {"msg": "nothing"}}])
    factor = options.guests / count
    for label, run, wall, cpu in (("loop", bench.loop, 15.0, 25.0), ("forks=10", bench.forks, 2.5, 0.0)):
        sample = run(programs, count, f"peer-{label.replace('=', '')}")
        if factor != 1:
            label = f"{label} ({count} guests, times {factor:g})"
            part = Sample(sample.wall - empty.wall, sample.cpu - empty.cpu).times(factor)
            sample = Sample(part.wall + empty.wall, part.cpu + empty.cpu)
        show(f"proxmox_snap, {label}", sample)
        goal = f", CPU {sample.cpu / ours.cpu:.1f} (goal {cpu:g})" if cpu else f", CPU {sample.cpu / ours.cpu:.1f}"
        print(f"  times ours: wall {sample.wall / ours.wall:.1f} (goal {wall:g}){goal}")


def memory(options: argparse.Namespace, folder: pathlib.Path) -> None:
    """Take a thousand guests in one call, and print the peak of memory."""
    with server(1000, options.nodes, 0.02) as told:
        bench = Bench(told, 1000, folder)
        # ru_maxrss of children is the largest of all so far, so this one is asked for itself.
        code = "import resource, runpy, sys\nsys.argv = sys.argv[1:]\ntry:\n    runpy.run_path(sys.argv[0], run_name="
        code += "'__main__')\nfinally:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
        arguments = folder / "arguments.json"
        told_module = {**bench.login, "vmid": "1000-1999", "name": "thousand", "_ansible_remote_tmp": "/tmp"}
        arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": told_module}))
        path = str(REPOSITORY / "plugins" / "modules" / "pve_snapshot.py")
        started = time.monotonic()
        argv = [sys.executable, "-c", code, path, str(arguments)]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        wall = time.monotonic() - started
        result = json.loads(done.stdout)
        created = sum(each["action"] == "created" for each in result["results"])
        peak = int(done.stderr.split()[-1]) / 1024
        print(f"1000 guests in one call: {created} created in {wall:.1f} s, peak {peak:.0f} MiB (goal: below 150)")


def show(label: str, sample: Sample) -> None:
    """Print one line."""
    print(f"{label:<48} wall {sample.wall:7.2f} s   CPU {sample.cpu:7.2f} s", flush=True)


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guests", type=int, default=200)
    parser.add_argument("--loop-guests", type=int, help="for the loops; 0 leaves them out (default: as many)")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--task-seconds", type=float, default=0.5)
    options = parser.parse_args()
    if options.loop_guests is None:
        options.loop_guests = options.guests
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{options.guests} guests, {options.nodes} nodes, tasks of {options.task_seconds:g} s; load {load}")
    with tempfile.TemporaryDirectory() as folder:
        compare(options, pathlib.Path(folder))
        memory(options, pathlib.Path(folder))


if __name__ == "__main__":
    main()
