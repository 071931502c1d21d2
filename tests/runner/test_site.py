# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""playbooks/site.yml with the worked example of a homelab: variables against all roles, without touching a host.

That the playbook does its work is proven by the molecule scenarios btrfs and schedule, which play it.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys

from .jobs import CHECKOUT

ROLES = {
    "agents": ("agent", "schedule"),
    "kubernetes_api": ("kubernetes_schedule",),
    "microk8s": ("microk8s_storage",),
    "monitored": ("monitoring",),
    "storage_btrfs": ("btrfs",),
    "storage_lvm": ("lvm",),
    "storage_zfs": ("zfs",),
}
HOSTS = {
    "agents": {"pve1", "pve2", "nas1", "db1", "desk1"},
    "kubernetes_api": {"control"},
    "microk8s": {"k8s1", "k8s2", "k8s3"},
    "monitored": {"pve1", "pve2", "nas1", "db1", "desk1", "watch1"},
    "storage_btrfs": {"desk1"},
    "storage_lvm": {"db1"},
    "storage_zfs": {"nas1", "k8s1", "k8s2", "k8s3"},
}


def validate(inventory: pathlib.Path, folder: pathlib.Path) -> tuple[int, str]:
    """Play nothing of the site but what is always played: the policies' check, and that of each role's arguments."""
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": os.environ["PYTHONPATH"].split(os.pathsep)[0],
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_NOCOLOR": "true",
    }
    program = str(pathlib.Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "-i", str(inventory), str(CHECKOUT / "playbooks" / "site.yml"), "--tags", "nothing_but_always"]
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    return done.returncode, done.stdout + done.stderr


def validated(output: str) -> dict[str, set[str]]:
    """Return on which hosts the arguments of each role were found to be right."""
    found: dict[str, set[str]] = {}
    for role, lines in re.findall(
        r"TASK \[restorepoint\.core\.(\w+) : Validating arguments.*\n((?:ok: .*\n)+)", output
    ):
        found[role] = set(re.findall(r"ok: \[(\w+)\]", lines))
    return found


def test_the_worked_example_gives_each_role_what_it_takes(tmp_path: pathlib.Path) -> None:
    code, output = validate(CHECKOUT / "examples" / "homelab" / "hosts.yml", tmp_path)
    assert code == 0, output[-6000:]
    assert "Could not match supplied host pattern" not in output
    expected = {role: HOSTS[group] for group, roles in ROLES.items() for role in roles}
    assert validated(output) == expected


def test_a_policy_with_a_fault_ends_the_play_before_any_host_is_touched(tmp_path: pathlib.Path) -> None:
    shutil.copytree(CHECKOUT / "examples" / "homelab", tmp_path / "homelab")
    variables = tmp_path / "homelab" / "group_vars" / "nas.yml"
    variables.write_text(variables.read_text(encoding="utf-8").replace("dataset: [tank/media]", "datset: [tank/media]"))
    code, output = validate(tmp_path / "homelab" / "hosts.yml", tmp_path)
    assert code != 0
    assert "policies[1].targets[0].datset" in output
    assert validated(output) == {}
