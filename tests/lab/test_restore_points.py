# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role restore_point and the playbook pre_upgrade as they are played: hosts that fail, a control node that dies.

The hosts of the inventory are folders of this machine: one with a directory, one with a subvolume of Btrfs and a guest
of Proxmox VE, which is reached from the control node. A play takes seconds, so there are few of them here. What hosts
decide together is tested without plays: tests/unit/plugins/module_utils/core/test_restore_points.py.
"""

from __future__ import annotations

import json
import pathlib
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest

from ansible_collections.restorepoint.core.plugins.modules import restore_point
from ansible_collections.restorepoint.core.tests.lab import driver, plays
from ansible_collections.restorepoint.core.tests.lab.volumes import create
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.running import run

HOSTS = ("web1", "db1")
#: The guest of Proxmox VE that is part of db1.
GUEST = 101
#: One big file, so that what is returned is compared byte by byte, and not by a word.
SIZE = 300_000

HOOK = """
- name: {name}
  ansible.builtin.shell: >-
    echo {name} >> {{{{ ({folders})[inventory_hostname] }}}}/log
  changed_when: false
"""

UPGRADE = """
- name: Replace everything
  ansible.builtin.shell: |
    cd {{{{ ({folders})[inventory_hostname] }}}}/data && rm -r -- * && mkdir {word} && echo {word} > ../boot/kernel &&
    python3 -c 'print("{word} of {{{{ inventory_hostname }}}} " * {size}, end="")' > file
  changed_when: true
- name: Break the guest
  ansible.builtin.command: {tool} write {guest} {word}
  changed_when: true
  when: inventory_hostname == 'db1'
- name: Fail
  ansible.builtin.fail:
    msg: it is broken
  when: inventory_hostname == '{fails}'
"""


@dataclass
class Fleet:
    """The hosts, each with a folder: ``data``, ``store``, and ``log``, to which hooks write; and a server of guests."""

    folder: pathlib.Path
    pve: Any
    hosts: dict[str, pathlib.Path] = field(default_factory=dict)

    @property
    def _folders(self) -> str:
        return json.dumps({host: str(own) for host, own in self.hosts.items()})

    @property
    def hooks(self) -> dict[str, str]:
        """A hook of each kind, which notes that it was played."""
        found = {}
        for name in ("before", "after", "stop", "start"):
            path = self.folder / f"{name}.yml"
            path.write_text(HOOK.format(name=name, folders=self._folders))
            found[name] = str(path)
        return found

    def targets(self, host: str) -> list[dict[str, Any]]:
        own = self.hosts[host]
        if host == "web1":
            return [
                {"backend": "hostpath", "path": [str(own / "data")], "checksum": "yes", "store": str(own / "store")}
            ]
        return [
            {"backend": "btrfs", "subvolume": [str(own / "data")], "store": str(own / "store")},
            {"backend": "pve", "vmid": str(GUEST), "delegate_to": "localhost", "become": False, **self.pve.login},
        ]

    def write(self, word: str) -> None:
        for host, own in self.hosts.items():
            (own / "data" / "file").write_bytes(f"{word} of {host} ".encode() * (SIZE // 10))
            (own / "data" / word).mkdir(exist_ok=True)
        self.pve.server.guest(GUEST).write(word)

    def replace(self, word: str) -> None:
        """Have this content, and no other."""
        for own in self.hosts.values():
            for each in (own / "data").iterdir():
                each.rmdir() if each.is_dir() else each.unlink()
        self.write(word)

    def upgrading(self, word: str, fails: str = "") -> str:
        """Return a file of tasks that does what `replace` does, and then fails on one host."""
        path, programs = self.folder / f"{word}.yml", self.pve.server.described()["programs"]["pve1"]
        tool = f"{programs}/pve-test-server"
        path.write_text(
            UPGRADE.format(word=word, folders=self._folders, size=SIZE // 10,
                           tool=tool, guest=GUEST, fails=fails)
        )  # fmt: skip
        return str(path)

    def holds(self, word: str) -> None:
        """See to it that all hosts hold just what ``write`` wrote, byte by byte."""
        for host, own in self.hosts.items():
            assert (own / "data" / "file").read_bytes() == f"{word} of {host} ".encode() * (SIZE // 10), host
            assert [each.name for each in (own / "data").iterdir() if each.is_dir()] == [word], host
        self.pve.server.wait_idle()
        assert set(self.pve.server.guest(GUEST).content.values()) == {word}

    def boots(self, word: str) -> bool:
        """Say whether this is what lies in each host's directory beside the root."""
        return {(own / "boot" / "kernel").read_text() for own in self.hosts.values()} == {f"{word}\n"}

    def play(
        self, name: str, state: str = "present", /, *arguments: str, kill: str = "", **variables: Any
    ) -> plays.Played:
        """Play the role. ``variables`` are its own, without the role's name."""
        given = {f"restore_point_{key}": value for key, value in variables.items()}
        book = self.folder / "play.json"
        roles = [{"role": "restorepoint.core.restore_point"}]
        book.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "roles": roles}]))
        given.update(restore_point_name=name, restore_point_state=state)
        return self.run(str(book), given, *arguments, kill=kill)

    def upgrade(self, *arguments: str, kill: str = "", **variables: Any) -> plays.Played:
        """Play pre_upgrade. ``variables`` are its own, without its name."""
        given = {f"pre_upgrade_{key}": value for key, value in variables.items()}
        own = f"{{{{ ({self._folders})[inventory_hostname] }}}}"
        given.update(pre_upgrade_boot=f"{own}/boot", pre_upgrade_boot_store=f"{own}/boot-store")
        return self.run("restorepoint.core.pre_upgrade", {"pre_upgrade_room_mb": "1", **given}, *arguments, kill=kill)

    def run(self, book: str, variables: dict[str, Any], *arguments: str, kill: str = "") -> plays.Played:
        hosts = {host: {"restore_point_targets": self.targets(host)} for host in self.hosts}
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False}
        inventory = {"all": {"vars": local, "hosts": hosts}}
        return plays.play(self.folder, inventory, book, variables, *arguments, kill=kill)

    def labels(self, name: str) -> list[dict[str, str]]:
        """Return the labels of all snapshots of that name."""
        found = [self.pve.info(vmid=GUEST)]
        for host, look, option in (("web1", driver.info, "path"), ("db1", driver.btrfs_info, "subvolume")):
            own = self.hosts[host]
            if (own / "store").exists():
                found.append(look(store=own / "store", **{option: [own / "data"]}))
        return [each["labels"] for told in found for each in told["snapshots"] if each["name"] == name]

    def asides(self, host: str) -> list[str]:
        return [each.name for each in self.hosts[host].iterdir() if each.name.startswith("data.aside-")]

    def logs(self) -> dict[str, list[str]]:
        return {
            host: (own / "log").read_text().split() if (own / "log").exists() else []
            for host, own in self.hosts.items()
        }


@pytest.fixture
def fleet(lab, pve):
    """The hosts, with content."""
    with lab.place("ext4") as plain, lab.place("btrfs") as volume:
        found = Fleet(plain.folder, pve, {"web1": plain.folder / "web1", "db1": volume.folder / "db1"})
        for own in found.hosts.values():
            own.mkdir()
            (own / "boot").mkdir()
            (own / "boot" / "kernel").write_text("one\n")
        (found.hosts["web1"] / "data").mkdir()
        create(found.hosts["db1"] / "data")
        found.write("one")
        yield found


def test_hosts_take_together_or_not_at_all_and_return_together_whoever_dies(fleet):
    breaking = fleet.folder / "breaking.yml"
    breaking.write_text(
        f"- name: Break web1\n  ansible.builtin.command: mv {fleet.hosts['web1']}/data {fleet.hosts['web1']}/gone\n"
        "  when: inventory_hostname == 'web1'\n"
    )
    fleet.play("upgrade", hooks={"before": str(breaking), "after": fleet.hooks["after"]}).said(
        "Cannot take restore point upgrade: ", "web1: ", "No such file or directory",
        "What this run had made on the other hosts was removed again",
    )  # fmt: skip
    (fleet.hosts["web1"] / "gone").rename(fleet.hosts["web1"] / "data")
    assert fleet.labels("upgrade") == []
    assert fleet.logs() == {host: ["after"] for host in HOSTS}

    fleet.play("upgrade", kill="See what was taken|1|start").killed()
    assert all("restorepoint.unfinished" in each for each in fleet.labels("upgrade"))
    # As if it had died a little earlier: how far the hosts come is luck, and no test may lean on that.
    own = fleet.hosts["web1"]
    driver.call(name="upgrade", state="absent", path=[own / "data"], store=own / "store")
    fleet.replace("two")
    taken = fleet.play("upgrade", labels={"app": "shop"}).well()
    assert "upgrade: present on 2 hosts, spread over" in taken.text
    labels = fleet.labels("upgrade")
    assert [each["app"] for each in labels] == ["shop"] * 3
    assert len({each["restorepoint.run"] for each in labels}) == 1
    assert not any("restorepoint.unfinished" in each for each in labels)

    fleet.replace("broken")
    fleet.play("upgrade", "rolled_back", kill="Act|2|first", hooks=fleet.hooks).killed()
    fleet.play("upgrade", "rolled_back", hooks=fleet.hooks).well()
    fleet.holds("two")
    for host, log in fleet.logs().items():
        assert len(fleet.asides(host)) == 1, "each target returns once"
        assert log == ["after", "stop", "stop", "start"]
    assert not any("restorepoint.returning" in each for each in fleet.labels("upgrade"))


def test_an_upgrade_that_breaks_everything_is_rolled_back_and_one_that_is_well_is_played_once(fleet):
    broken, good = fleet.upgrading("broken", fails="db1"), fleet.upgrading("better")
    fleet.upgrade("--check", tasks=good).well()
    fleet.upgrade("--check", tasks=good, room_mb="1000000000").said(
        "the hook check failed at Object to a lack of room: only ", " MB are free on /, and pre_upgrade_room_mb wants"
    )
    assert fleet.labels("pre-upgrade") == []
    fleet.holds("one")
    fleet.upgrade(tasks=broken).said(
        "Cannot upgrade: db1: the hook upgrade failed at Fail: it is broken", "All hosts were returned"
    )
    fleet.holds("one")
    assert fleet.boots("one")
    # As if it had died when the return began.
    fleet.write("broken")
    for host in HOSTS:
        (fleet.hosts[host] / "boot" / "kernel").write_text("broken\n")
        marked = {"state": "rolled_back", "stage": "begin", "once": "earlier", "targets": fleet.targets(host)}
        assert run(restore_point, name="pre-upgrade", **marked)["changed"]
    fleet.upgrade(tasks=good).said("An earlier run had begun to return. All hosts were returned")
    fleet.holds("one")
    assert fleet.boots("one")
    fleet.upgrade(tasks=good, kill="Remove those whose time is over|1|start").killed()
    fleet.holds("better")
    fleet.replace("later")
    again = fleet.upgrade(tasks=good).well()
    assert "was accepted before, and was not played again" in again.text
    fleet.holds("later")
    assert fleet.boots("better")
