# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles for storage install and start on each system that their metadata names.

The family of each system is ansible-core's own word for it. That the packages are there is proven on Debian alone, in
the guest (docs/roles.md).
"""

from __future__ import annotations

import itertools
import pathlib

import pytest
import yaml
from ansible.module_utils.facts.system.distribution import Distribution
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLES = pathlib.Path(__file__).resolve().parents[3] / "roles"
#: Each platform of Galaxy, and what ansible-core calls the systems that it stands for.
PLATFORMS = {
    "Debian": ["Debian"],
    "Ubuntu": ["Ubuntu"],
    "EL": ["RedHat", "Rocky", "AlmaLinux", "CentOS", "OracleLinux"],
    "Fedora": ["Fedora"],
}
LVM = {
    "Debian": ["lvm2", "dmeventd", "thin-provisioning-tools", "e2fsprogs", "xfsprogs"],
    "RedHat": ["lvm2", "device-mapper-event", "device-mapper-persistent-data", "e2fsprogs", "xfsprogs"],
}
VOLUMES = [{"name": name, "filesystem": kind} for name, kind in (("a", "ext4"), ("b", "xfs"), ("c", "xfs"))]
HEADERS = {
    ("Debian", "x86_64"): "linux-headers-amd64",
    ("Debian", "aarch64"): "linux-headers-arm64",
    ("Ubuntu", "x86_64"): "linux-headers-generic",
    ("Ubuntu", "aarch64"): "linux-headers-generic",
}


def platforms(role):
    """The systems that a role's metadata names, as ansible-core calls them."""
    named = yaml.safe_load((ROLES / role / "meta" / "main.yml").read_text())["galaxy_info"]["platforms"]
    return [system for platform in named for system in PLATFORMS[platform["name"]]]


def trusted(value):
    """Let every text in it be a template, as Ansible does with a role's files."""
    if isinstance(value, dict):
        return {key: trusted(each) for key, each in value.items()}
    if isinstance(value, list):
        return [trusted(each) for each in value]
    return trust_as_template(value) if isinstance(value, str) else value


def shown(role, template, system, machine="x86_64", **variables):
    """What a template of a role says on a system."""
    files = (ROLES / role / part / "main.yml" for part in ("defaults", "vars"))
    known = {key: value for file in files for key, value in (yaml.safe_load(file.read_text()) or {}).items()}
    family = Distribution.OS_FAMILY[system]
    facts = {"os_family": family, "distribution": system, "machine": machine, "service_mgr": "systemd"}
    everything = {**trusted(known), "ansible_facts": facts, **variables}
    return Templar(loader=DataLoader(), variables=everything).template(trust_as_template(template))


def systems(role):
    return [(role, system) for system in platforms(role)]


@pytest.mark.parametrize(("role", "system"), [pair for role in ("lvm", "zfs", "btrfs") for pair in systems(role)])
def test_every_system_that_a_role_names_has_packages(role, system):
    packages = shown(role, f"{{{{ __{role}_install_packages }}}}", system)
    assert packages
    assert all(isinstance(each, str) and each for each in packages)


@pytest.mark.parametrize("system", platforms("lvm"))
def test_lvm_brings_what_watches_and_mends_thin_pools_and_what_makes_the_filesystems(system):
    packages = shown("lvm", "{{ __lvm_install_packages }}", system, lvm_volumes=VOLUMES)
    assert packages == LVM[Distribution.OS_FAMILY[system]]


@pytest.mark.parametrize(
    ("system", "machine", "given"),
    itertools.product(platforms("zfs"), ["x86_64", "aarch64"], ["nothing", "kernel", "proxmox"]),
)
def test_zfs_is_built_only_where_the_kernel_does_not_bring_it(system, machine, given):
    there = {"__zfs_in_kernel": given == "kernel", "__zfs_on_proxmox": given == "proxmox"}
    packages = shown("zfs", "{{ __zfs_install_packages }}", system, machine, **there)
    tools = ["zfsutils-linux" if Distribution.OS_FAMILY[system] == "Debian" else "zfs"]
    building = [] if any(there.values()) else [HEADERS.get((system, machine), "kernel-devel"), "zfs-dkms"]
    assert packages == tools + building


@pytest.mark.parametrize("system", platforms("zfs"))
def test_cron_is_asked_for_by_the_name_that_it_has_there(system):
    tasks = yaml.safe_load((ROLES / "zfs" / "tasks" / "schedule.yml").read_text())
    unit = next(word for task in tasks for word in words(task) if "cron" in word and "{{" in word)
    assert (
        shown("zfs", unit, system)
        == {"Debian": "cron.service", "RedHat": "crond.service"}[Distribution.OS_FAMILY[system]]
    )


def words(task):
    """The command of a task, and of the tasks in it."""
    for each in task.get("block", [task]):
        yield from each.get("ansible.builtin.command", {}).get("argv", [])


def test_a_system_of_no_known_family_has_none_and_names_given_by_hand_count_everywhere():
    assert shown("lvm", "{{ __lvm_install_packages }}", "Alpine") == []
    assert shown("zfs", "{{ __zfs_install_packages }}", "Alpine", zfs_packages=["zfs-lts"]) == ["zfs-lts"]


EXPORTS = [
    {"kind": "restic", "repository": "sftp:nas:/x"},
    {"kind": "file", "path": "/a"},
    {"kind": "file", "path": "/b", "compression": "lz4"},
    {"kind": "file", "path": "/c", "compression": "none"},
]


@pytest.mark.parametrize("system", platforms("offsite"))
@pytest.mark.parametrize(
    ("exports", "programs"),
    [
        (EXPORTS, ["restic", "zstd", "lz4", "ssh"]),
        ([{"kind": "zfs", "dataset": "a/b"}], []),
        ([{"kind": "zfs", "dataset": "a/b", "ssh": {"host": "nas"}}], ["ssh"]),
        (None, []),
    ],
)
def test_exports_get_the_programs_that_their_destinations_start(system, exports, programs):
    ssh = {"Debian": "openssh-client", "RedHat": "openssh-clients"}[Distribution.OS_FAMILY[system]]
    policies = [{"name": "one", "export": exports}, {"name": "two"}]
    found = shown("offsite", "{{ __offsite_install_packages }}", system, restorepoint_policies=policies)
    assert found == [ssh if each == "ssh" else each for each in programs]


ALLOWED = ROLES.parent / "tests/unit/plugins/module_utils/backends/zfs/recorded/allow.txt"


@pytest.mark.parametrize(
    ("dataset", "user", "has"),
    [
        ("two/c", "daemon", ["mount", "snapshot"]),
        ("two", "daemon", ["clone"]),
        ("two/c", "nobody", [""]),
        ("one", "daemon", [""]),
    ],
)
def test_what_an_account_may_do_is_read_of_the_dataset_itself_and_of_those_below(dataset, user, has):
    receiver = {"dataset": dataset, "user": user}
    given = {"__offsite_receiver": receiver, "__offsite_allowed": {"stdout": ALLOWED.read_text().rstrip("\n")}}
    assert shown("offsite", "{{ __offsite_has }}", "Debian", **given) == has
