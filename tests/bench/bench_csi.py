# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure snapshots of many claims side by side with what kubernetes.core does.

    make bench-csi                            20 claims, then 200
    make bench-csi ARGS="--claims 20"         20 alone
    make bench-csi ARGS="--loop-most 200"     the loop over 200 too, where else it is 20 claims, times ten

All on the real control plane of tools/cluster.py, in processes whose CPU is not counted, and through the counting proxy
of tests/cluster. Wall and CPU are those of the whole ansible-playbook, its start and all children included. The peers:

- loop: kubernetes.core.k8s in a loop, then kubernetes.core.k8s_info in a loop until each is ready: what people write;
- list: one k8s task with all objects, then one k8s_info task until all are ready: the best that can be written.

That every claim has its snapshot, and its data after a return, is checked. The goals are printed, and not asserted.
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
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.restorepoint.core.tests.cluster.lab import Cluster, Lab, Proxy, guarded, lab_of

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tools"))
CLASS = "folders"


@dataclass
class Sample:
    """What a play took: seconds, and requests to the API server."""

    wall: float
    cpu: float
    requests: int

    def mean(self, other: Sample) -> Sample:
        """Return the mean of two of the same work."""
        return Sample((self.wall + other.wall) / 2, (self.cpu + other.cpu) / 2, self.requests)

    def beyond(self, floor: Sample, factor: float) -> Sample:
        """Return it for so many times the work, with the start of a play only once."""
        wall, cpu = self.wall - floor.wall, self.cpu - floor.cpu
        return Sample(floor.wall + wall * factor, floor.cpu + cpu * factor, round(self.requests * factor))


def peers() -> pathlib.Path:
    """Return the programs of an environment with PyPI's ansible package, which carries kubernetes.core."""
    cores, environments = (importlib.import_module(each) for each in ("cores", "environments"))
    return pathlib.Path(environments.environment("peers", cores.newest_core()[1], ["ansible", "kubernetes"]))


@contextlib.contextmanager
def lab() -> Iterator[Lab]:
    """Give a cluster of our own; one that RP_CLUSTER names and that runs is taken and left."""
    cluster = Cluster(os.environ.get("RP_CLUSTER") or f"bench-{os.getpid()}")
    kept = cluster.is_running()
    if not kept:
        cluster.start(fresh=True)
        guarded(cluster.name, os.getpid())
    made = lab_of(cluster)
    try:
        yield made
    finally:
        made.close()
        if not kept:
            cluster.remove()


class Bench:
    """Plays on one namespace of claims."""

    def __init__(self, found: Lab, proxy: Proxy, folder: pathlib.Path, count: int) -> None:
        self.lab, self.proxy, self.folder, self.count = found, proxy, folder, count
        self.kubeconfig = str(found.through(proxy))
        self.namespace = found.make_namespace("bench")
        self.names = [f"data-{number:03d}" for number in range(count)]
        found.claims(self.namespace, self.names)

    def close(self) -> None:
        """Remove the namespace, and wait until its volumes are gone too: the next case has a server at rest."""
        self.lab.remove_namespace(self.namespace)
        self.lab.api.gone(f"/api/v1/namespaces/{self.namespace}", 600)

    def play(self, programs: pathlib.Path, *tasks: dict[str, Any]) -> tuple[Sample, str]:
        """Run a playbook of these tasks; one that fails ends the benchmark."""
        book = self.folder / "book.yml"
        told = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": list(tasks)}
        book.write_text(json.dumps([{**told, "vars": {"ansible_python_interpreter": str(programs / "python")}}]))
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": os.environ["PYTHONPATH"].split(os.pathsep)[0],
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
        }
        if "peers" in str(programs):
            environment.update(ANSIBLE_COLLECTIONS_PATH="/nowhere", PYTHONPATH="")
        self.proxy.forget()
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        argv = [str(programs / "ansible-playbook"), str(book)]
        done = subprocess.run(argv, check=False, env=environment, capture_output=True, text=True)
        wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            sys.exit(f"{' '.join(argv)} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Sample(wall, cpu, self.proxy.count()), done.stdout

    # Ours

    def ours(self, **options: Any) -> Sample:
        """Run one call of csi_snapshot for all claims."""
        told = {"kubeconfig": self.kubeconfig, "namespace": self.namespace, "pvc": self.names, **options}
        return self.play(pathlib.Path(sys.executable).parent, {"restorepoint.core.csi_snapshot": told})[0]

    # The peers

    def _task(self, module: str, **words: Any) -> dict[str, Any]:
        return {f"kubernetes.core.{module}": {"kubeconfig": self.kubeconfig, "namespace": self.namespace, **words}}

    def loop(self, programs: pathlib.Path, made: list[dict[str, Any]], ready: str) -> Sample:
        """Make objects in a loop, and look at each until it is ready."""
        first = made[0]
        create = {**self._task("k8s", state="present", definition="{{ item }}"), "loop": made, "no_log": True}
        look = self._task("k8s_info", api_version=first["apiVersion"], kind=first["kind"], name="{{ item }}")
        until = {"register": "seen", "until": f"seen.resources[0].{ready}", "retries": 600, "delay": 1}
        names = [each["metadata"]["name"] for each in made]
        return self.play(programs, create, {**look, **until, "loop": names, "no_log": True})[0]

    def at_once(self, programs: pathlib.Path, made: list[dict[str, Any]], attribute: str, wanted: Any) -> Sample:
        """Make all objects in one task, and look at all of them until every one is ready."""
        first = made[0]
        label = {"bench": first["metadata"]["labels"]["bench"]}
        create = {**self._task("k8s", state="present", resource_definition=made), "no_log": True}
        selector = [f"{name}={value}" for name, value in label.items()]
        look = self._task("k8s_info", api_version=first["apiVersion"], kind=first["kind"], label_selectors=selector)
        ready = f"seen.resources | selectattr('{attribute}', 'defined') | selectattr('{attribute}', 'equalto', "
        ready += f"{wanted!r}) | length == {len(made)}"
        until = {"register": "seen", "until": ready, "retries": 600, "delay": 1, "no_log": True}
        return self.play(programs, create, {**look, **until})[0]

    def snapshots(self, suffix: str) -> list[dict[str, Any]]:
        """Return the snapshots that a peer is to make."""
        return [
            {
                "apiVersion": "snapshot.storage.k8s.io/v1",
                "kind": "VolumeSnapshot",
                "metadata": {"name": f"{name}-{suffix}", "namespace": self.namespace, "labels": {"bench": suffix}},
                "spec": {"volumeSnapshotClassName": CLASS, "source": {"persistentVolumeClaimName": name}},
            }
            for name in self.names
        ]

    def copies(self, suffix: str, snapshot: str) -> list[dict[str, Any]]:
        """Return the claims that a peer is to make from snapshots."""
        group = "snapshot.storage.k8s.io"
        return [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": f"{name}-{suffix}", "namespace": self.namespace, "labels": {"bench": suffix}},
                "spec": {
                    "storageClassName": CLASS,
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "1Mi"}},
                    "dataSource": {"apiGroup": group, "kind": "VolumeSnapshot", "name": f"{name}-{snapshot}"},
                },
            }
            for name in self.names
        ]

    # Proof

    def check_snapshots(self, suffix: str) -> None:
        """See to it that every claim has a snapshot that is ready."""
        found = {
            each["metadata"]["name"]: each.get("status", {}).get("readyToUse")
            for each in self.lab.api.items(self.lab.snapshot_path(self.namespace))
        }
        wrong = [name for name in self.names if not found.get(f"{name}-{suffix}")]
        if wrong:
            sys.exit(f"These claims have no snapshot {suffix} that is ready: {', '.join(wrong)}")

    def check_data(self, suffix: str = "") -> None:
        """See to it that the claims, or the copies of that suffix, hold what the claims held."""
        for name in self.names:
            found = self.lab.read(self.namespace, f"{name}{suffix}")
            if found != {"name": name}:
                sys.exit(f"Claim {name}{suffix} holds {found}, not what was in the snapshot")


def show(label: str, sample: Sample, ours: Sample | None = None) -> None:
    """Print one line, with the ratios to ours."""
    ratio = ""
    if ours:
        ratio = f"   ours/its: wall {ours.wall / sample.wall:.2f}, CPU 1/{sample.cpu / ours.cpu:.1f}"
    line = f"{label:<36} wall {sample.wall:7.2f} s   CPU {sample.cpu:7.2f} s   {sample.requests:5} requests"
    print(line + ratio, flush=True)


def compare(bench: Bench, options: argparse.Namespace, small: dict[str, Sample]) -> None:
    """Measure ours and the peers on a namespace; ``small`` keeps the loops' samples for larger ones."""
    count, mine = bench.count, pathlib.Path(sys.executable).parent
    print(f"\n{count} claims; load {', '.join(f'{each:.1f}' for each in os.getloadavg())}")
    floor = bench.play(mine, {"ansible.builtin.ping": {}})[0]
    show("a play with one ping", floor)
    taken = bench.ours(name="ours")
    bench.check_snapshots("ours")
    again = bench.ours(name="ours")
    show("ours, taking", taken)
    show("ours, taking once more", again)
    copied = bench.ours(state="cloned", name="ours", clone=[f"{name}-ours" for name in bench.names])
    bench.check_data("-ours")
    show("ours, returning into new claims", copied)
    for name in bench.names:
        bench.lab.write(bench.namespace, name, {"name": "spoilt"})
    swapped = bench.ours(state="rolled_back", name="ours")
    bench.check_data()
    show("ours, returning in place", swapped)
    for label, sample, goal in (("taking", taken, 1.5), ("new claims", copied, 1.5), ("in place", swapped, 20)):
        print(f"  requests for each claim, {label}: {sample.requests / count:.2f} (goal: {goal:g} and a constant)")
    if options.loops:
        loops(bench, options, peers(), {"taking": taken, "returning": copied}, floor, small)


def beside(bench: Bench, before: dict[str, Sample]) -> dict[str, Sample]:
    """Measure ours once more after the loops, which take long: return the mean of both times."""
    after = {
        "taking": bench.ours(name="after"),
        "returning": bench.ours(state="cloned", name="ours", clone=[f"{name}-after" for name in bench.names]),
    }
    bench.check_snapshots("after")
    bench.check_data("-after")
    for what, sample in after.items():
        show(f"ours, after the loops, {what}", sample)
    return {what: before[what].mean(after[what]) for what in before}


def loops(
    bench: Bench,
    options: argparse.Namespace,
    programs: pathlib.Path,
    ours: dict[str, Sample],
    floor: Sample,
    small: dict[str, Sample],
) -> None:
    """Measure the peers, and print the ratios."""
    listed = {
        "taking": bench.at_once(programs, bench.snapshots("list"), "status.readyToUse", True),
        "returning": bench.at_once(programs, bench.copies("list", "ours"), "status.phase", "Bound"),
    }
    bench.check_snapshots("list")
    bench.check_data("-list")
    for what, sample in listed.items():
        show(f"kubernetes.core, list, {what}", sample, ours[what])
    if bench.count > options.loop_most and not small:
        return  # nothing was measured that could be multiplied
    if bench.count > options.loop_most:
        first = round(bench.count / small["claims"].requests)
        looped = {what: small[what].beyond(floor, first) for what in ours}
        words = f"loop x {first}"
    else:
        looped = {
            "taking": bench.loop(programs, bench.snapshots("loop"), "status.readyToUse | default(false)"),
            "returning": bench.loop(programs, bench.copies("loop", "ours"), "status.phase == 'Bound'"),
        }
        bench.check_snapshots("loop")
        bench.check_data("-loop")
        ours = beside(bench, ours)
        small.update(looped, claims=replace(floor, requests=bench.count))
        words = "loop"
    for what, sample in looped.items():
        show(f"kubernetes.core, {words}, {what}", sample, ours[what])
    print("  goals against the loop: CPU 1/20; wall 0.9 at 20 claims")


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--loop-most", type=int, default=20, help="up to how many claims the loop is really run")
    parser.add_argument("--no-loops", dest="loops", action="store_false", help="ours alone")
    options = parser.parse_args()
    small: dict[str, Sample] = {}
    with tempfile.TemporaryDirectory() as folder, lab() as found, found.proxy() as proxy:
        for count in options.claims:
            bench = Bench(found, proxy, pathlib.Path(folder), count)
            compare(bench, options, small)
            bench.close()


if __name__ == "__main__":
    main()
