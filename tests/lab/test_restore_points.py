# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role restore_point as it is played: hosts that fail in the middle, and a control node that dies at each step.

The hosts of the inventory are folders of this machine: two with directories, one with a subvolume of Btrfs.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from ansible_collections.restorepoint.core.tests.lab import driver
from ansible_collections.restorepoint.core.tests.lab.volumes import create

HOSTS = ("web1", "web2", "db1")
CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
KILLED = -9
#: One big file, so that what is returned is compared byte by byte, and not by a word.
SIZE = 300_000

HOOK = """
- name: {name}
  ansible.builtin.shell: echo {name} >> {folder}/{{{{ inventory_hostname }}}}/log
  changed_when: false
"""


@dataclass
class Fleet:
    """Three hosts, each with a folder: ``data``, ``store``, and ``log``, to which hooks write."""

    folder: pathlib.Path
    hosts: dict[str, pathlib.Path] = field(default_factory=dict)

    @property
    def hooks(self) -> dict[str, str]:
        """A hook of each kind, which notes that it was played."""
        found = {}
        for name in ("before", "after", "stop", "start"):
            path = self.folder / f"{name}.yml"
            path.write_text(HOOK.format(name=name, folder=self.folder))
            found[name] = str(path)
        return found

    def target(self, host: str) -> dict[str, Any]:
        own = self.hosts[host]
        named = {"backend": "btrfs", "subvolume": [str(own / "data")]}
        if host != "db1":
            named = {"backend": "hostpath", "path": [str(own / "data")], "checksum": "yes"}
        return {**named, "store": str(own / "store")}

    def write(self, word: str) -> None:
        for host, own in self.hosts.items():
            (own / "data" / "file").write_bytes(f"{word} of {host} ".encode() * (SIZE // 10))
            (own / "data" / word).mkdir(exist_ok=True)

    def holds(self, word: str) -> None:
        """See to it that all hosts hold just what ``write`` wrote, byte by byte."""
        for host, own in self.hosts.items():
            assert (own / "data" / "file").read_bytes() == f"{word} of {host} ".encode() * (SIZE // 10), host
            assert (own / "data" / word).is_dir(), host

    def play(self, name: str, state: str = "present", /, *arguments: str, kill: str = "", **more: Any) -> Played:
        """Play the role. ``more`` are its variables without the role's name; ``vars`` others, ``play`` keywords."""
        keywords = more.pop("play", {})
        variables = {f"restore_point_{key}": value for key, value in more.pop("variables", {}).items()}
        hosts = {host: {"restore_point_targets": [self.target(host)], **more.get(host, {})} for host in self.hosts}
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory, book = self.folder / "inventory.json", self.folder / "play.json"
        inventory.write_text(json.dumps({"all": {"vars": local, "hosts": hosts}}))
        roles = [{"role": "restorepoint.core.restore_point"}]
        book.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "roles": roles, **keywords}]))
        variables.update(restore_point_name=name, restore_point_state=state)
        steps = self.folder / "steps"
        steps.write_text("")
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": os.environ["PYTHONPATH"].split(":")[0],
            "ANSIBLE_CALLBACK_PLUGINS": str(CHECKOUT / "tests" / "lab" / "killing"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "local"),
            "ANSIBLE_REMOTE_TEMP": str(self.folder / "remote"),
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_NOCOLOR": "1",
            "RP_KILL": kill,
            "RP_STEPS": str(steps),
        }
        command = [str(pathlib.Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory), str(book)]
        done = subprocess.run(
            [*command, "-e", json.dumps(variables), *arguments],
            env=environment, capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode == KILLED:
            self._end_left(f"RP_STEPS={steps}".encode())
        return Played(done.returncode, done.stdout + done.stderr, steps.read_text().split("\n"))

    def _end_left(self, sign: bytes) -> None:
        """End what a killed control node has left running: the hosts die with it. Its environment tells which."""
        deadline = time.monotonic() + 60
        while True:
            left = []
            for each in pathlib.Path("/proc").iterdir():
                with contextlib.suppress(OSError):
                    if each.name.isdigit() and sign in (each / "environ").read_bytes().split(b"\0"):
                        left.append(int(each.name))
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not left:
                return
            assert time.monotonic() < deadline, left
            time.sleep(0.05)

    def snapshots(self, host: str) -> list[dict[str, Any]]:
        own = self.hosts[host]
        kind = self.target(host)["backend"]
        if not (own / "store").exists():
            return []
        look = driver.btrfs_info if kind == "btrfs" else driver.info
        named = {"subvolume": [own / "data"]} if kind == "btrfs" else {"path": [own / "data"]}
        found = look(store=own / "store", **named)
        return list(found["snapshots"])

    def labels(self, name: str) -> dict[str, dict[str, str]]:
        """Return the labels of each host's snapshot of that name."""
        return {host: each["labels"] for host in self.hosts for each in self.snapshots(host) if each["name"] == name}

    def asides(self, host: str) -> list[str]:
        return [each.name for each in self.hosts[host].iterdir() if each.name.startswith("data.aside-")]

    def logs(self) -> dict[str, list[str]]:
        return {
            host: (own / "log").read_text().split() if (own / "log").exists() else []
            for host, own in self.hosts.items()
        }


@dataclass
class Played:
    """How a play ended: its exit code, what it printed, and the steps that it came to."""

    code: int
    text: str
    steps: list[str]

    def well(self) -> Played:
        assert self.code == 0, self.text
        return self

    def killed(self) -> Played:
        assert self.code == KILLED, self.text
        return self

    def said(self, *words: str) -> None:
        """See to it that it failed, and said all of this in one message."""
        assert self.code not in (0, KILLED), self.text
        assert any(all(word in line for word in words) for line in self.text.splitlines()), self.text

    @property
    def changed(self) -> bool:
        recap = self.text.rpartition("PLAY RECAP")[2]
        return any("changed=0 " not in line for line in recap.splitlines() if "changed=" in line)


@pytest.fixture
def fleet(lab):
    """The hosts, with content."""
    with lab.place("ext4") as plain, lab.place("btrfs") as volume:
        found = Fleet(plain.folder, {"web1": plain.folder / "web1", "web2": plain.folder / "web2"})
        found.hosts["db1"] = volume.folder / "db1"
        for own in found.hosts.values():
            own.mkdir()
        for host in ("web1", "web2"):
            (found.hosts[host] / "data").mkdir()
        create(found.hosts["db1"] / "data")
        (plain.folder / "db1").mkdir()
        found.write("one")
        yield found


def test_all_hosts_take_return_and_remove_or_change_nothing(fleet):
    told = fleet.play("upgrade", "present", "--check", "--diff").well()
    assert told.changed
    assert fleet.labels("upgrade") == {}
    taken = fleet.play("upgrade", variables={"hooks": fleet.hooks, "labels": {"app": "shop"}}).well()
    assert "upgrade: present on 3 hosts, spread over" in taken.text
    assert not fleet.play("upgrade", variables={"labels": {"app": "shop"}}).well().changed
    labels = fleet.labels("upgrade")
    assert len({each["restorepoint.run"] for each in labels.values()}) == 1
    assert {each["app"] for each in labels.values()} == {"shop"}
    assert not any("restorepoint.unfinished" in each for each in labels.values())
    fleet.write("two")
    assert fleet.play("upgrade", "rolled_back", "--check", variables={"hooks": fleet.hooks}).well().changed
    fleet.holds("two")
    fleet.play("upgrade", "rolled_back", "--limit", "web1,db1").said("taken of 3 hosts", "is there a limit?")
    fleet.holds("two")
    fleet.play("upgrade", "rolled_back", variables={"hooks": fleet.hooks}).well()
    fleet.holds("one")
    assert not fleet.play("upgrade", "rolled_back", variables={"hooks": fleet.hooks}).well().changed
    assert fleet.play("upgrade", "absent").well().changed
    assert fleet.labels("upgrade") == {}
    assert not fleet.play("upgrade", "absent").well().changed


def test_one_host_fails_in_the_middle_and_the_others_undo_what_this_run_made_and_no_more(fleet):
    fleet.play("before").well()
    breaking = fleet.folder / "breaking.yml"
    breaking.write_text(
        f"- name: Break web2\n  ansible.builtin.command: mv {fleet.hosts['web2']}/data {fleet.hosts['web2']}/gone\n"
        "  when: inventory_hostname == 'web2'\n"
        "- name: Cut db1 off\n  ansible.builtin.set_fact:\n    ansible_connection: ssh\n    ansible_host: 127.0.0.1\n"
        "    ansible_port: 1\n  when: inventory_hostname == 'db1'\n"
    )
    hooks = {"before": str(breaking), "after": fleet.hooks["after"]}
    fleet.play("upgrade", variables={"hooks": hooks}).said(
        "Cannot take restore point upgrade: ", "web2: ", "No such file or directory", "db1: it is unreachable",
        "What this run had made on the other hosts was removed again",
    )  # fmt: skip
    (fleet.hosts["web2"] / "gone").rename(fleet.hosts["web2"] / "data")
    assert fleet.labels("upgrade") == {}
    assert set(fleet.labels("before")) == set(HOSTS)


def test_faults_of_all_hosts_are_told_at_once_and_nothing_is_touched(fleet):
    stores = {host: {"restore_point_targets": [{**fleet.target(host), "stor": "x"}]} for host in ("web1", "web2")}
    fleet.play("upgrade", **stores).said("web1: ", "web2: ", "did you mean store?", "Nothing was touched.")
    shared = {"web2": {"restore_point_targets": [fleet.target("web1")]}}
    fleet.play("upgrade", **shared).said("web2: ", "is a target of web1 already")
    fleet.play("upgrade", play={"strategy": "free"}).said("strategy: free")
    fleet.play("upgrade", play={"serial": 2}).said("with serial, db1 would come later")
    assert fleet.labels("upgrade") == {}


def test_a_control_node_that_dies_at_each_step_of_taking_leaves_what_the_next_run_makes_whole(fleet):
    given = {"variables": {"hooks": fleet.hooks}}
    fleet.play("upgrade", kill="See what was taken|1|start", **given).killed()
    assert all("restorepoint.unfinished" in each for each in fleet.labels("upgrade").values())
    fleet.play("upgrade", "rolled_back").said("Cannot return to restore point upgrade: ", "Nothing was touched.")
    # As if it had died a little earlier: how far the hosts come is luck, and no test may lean on that.
    own = fleet.hosts["web2"]
    driver.call(name="upgrade", state="absent", path=[own / "data"], store=own / "store")
    fleet.write("two")
    fleet.play("upgrade", kill="See what was taken|1|start", **given).killed()
    assert set(fleet.labels("upgrade")) == set(HOSTS)
    fleet.play("upgrade", kill="Act|1|first", **given).killed()
    fleet.play("upgrade", **given).well()
    assert not any("restorepoint.unfinished" in each for each in fleet.labels("upgrade").values())
    fleet.write("broken")
    fleet.play("upgrade", "rolled_back").well()
    fleet.holds("two")


def test_a_control_node_that_dies_at_each_step_of_a_return_is_followed_by_one_that_ends_it(fleet):
    fleet.play("upgrade").well()
    fleet.write("broken")
    given = {"variables": {"hooks": fleet.hooks}}
    for step in ("Act|1|first", "Act|2|first", "start|1|start", "Act|3|first"):
        fleet.play("upgrade", "rolled_back", kill=step, **given).killed()
        if step.startswith("start"):
            fleet.play("upgrade", "absent").said("a return to it has not ended")
    fleet.play("upgrade", "rolled_back", **given).well()
    fleet.holds("one")
    for host, log in fleet.logs().items():
        assert len(fleet.asides(host)) == 1, "each target returns once"
        assert log[-1] == "start"
    assert not any("restorepoint.returning" in each for each in fleet.labels("upgrade").values())
    fleet.write("later")
    again = fleet.play("upgrade", "rolled_back", **given).well()
    assert again.changed, "a later return is another one"
    fleet.holds("one")
