# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks for Proxmox VE, as jobs of AWX: text from surveys, check mode, artifacts."""

from __future__ import annotations

from .conftest import Proxmox
from .jobs import Controller

ABLE = {"pve_exclude": "103, 105,108,201,203"}


def test_a_restore_point_is_foretold_then_taken_then_there(controller: Controller, proxmox: Proxmox) -> None:
    survey = {
        "restore_point": "before-jobs",
        "pve_vmids": "100, 104,200",
        "pve_vmstate": "false",
        "pve_status": "any",
        "pve_description": "",
        "pve_tags": "",
        "pve_max_age": "1h",
    }
    expected = {"restore_point": "before-jobs", "restore_point_guests": ["qemu/100", "qemu/104", "lxc/200"]}
    foretold = controller.play("pve_take_restore_point", survey, credential=proxmox.credential, check=True).well()
    assert (foretold.changed, foretold.artifacts) == (1, expected)
    assert "before-jobs" not in proxmox.guest(104)
    taken = controller.play("pve_take_restore_point", survey, credential=proxmox.credential).well()
    assert (taken.changed, taken.artifacts) == (1, expected)
    assert "before-jobs" in proxmox.guest(104)
    again = controller.play("pve_take_restore_point", survey, credential=proxmox.credential).well()
    assert (again.changed, again.artifacts) == (0, expected)
    listing = {"pve_vmids": "104,200", "pve_older_than": ""}
    listed = controller.play("pve_list_snapshots", listing, credential=proxmox.credential).well()
    assert listed.artifacts == {"pve_snapshots_listed": ["qemu/104 before-jobs", "lxc/200 before-jobs"]}


def test_a_guest_goes_back_once_for_a_job_and_says_so(controller: Controller, proxmox: Proxmox) -> None:
    taking = {"restore_point": "before-return", "pve_vmids": "101", "pve_status": ""}
    controller.play("pve_take_restore_point", taking, credential=proxmox.credential).well()
    proxmox.write(101, "spoilt")
    survey = {
        "pve_vmid": "101",
        "restore_point": "before-return",
        "pve_start": "",
        "pve_destroy_newer": "false",
        "pve_keep_current": "",
        "pve_once": "job-7",
    }
    foretold = controller.play("pve_roll_back_guest", survey, credential=proxmox.credential, check=True).well()
    assert (foretold.changed, list(foretold.artifacts["pve_returned_guests"])) == (1, ["qemu/101"])
    assert "spoilt" in proxmox.guest(101)
    controller.play("pve_roll_back_guest", survey, credential=proxmox.credential).well()
    assert "spoilt" not in proxmox.guest(101)
    proxmox.write(101, "newer work")
    again = controller.play("pve_roll_back_guest", survey, credential=proxmox.credential).well()
    assert again.changed == 0
    assert "newer work" in proxmox.guest(101)


def test_what_a_policy_would_prune_is_told_with_reasons_and_of_no_other_guest(
    controller: Controller, proxmox: Proxmox
) -> None:
    for name in ("jobs-one", "jobs-two"):
        survey = {"restore_point": name, "pve_owner": "jobs", "pve_vmids": "202"}
        controller.play("pve_take_restore_point", survey, credential=proxmox.credential).well()
    rules = {"pve_owner": "jobs", "pve_keep_last": "1", "pve_keep_daily": "", "pve_vmids": "202", "pve_timezone": ""}
    foretold = controller.play("pve_prune_by_policy", rules, credential=proxmox.credential, check=True).well()
    assert foretold.artifacts["pve_pruned_changed"] is True
    assert {each["name"]: each["keep"] for each in foretold.artifacts["pve_pruned_decisions"]} == {
        "jobs-one": False,
        "jobs-two": True,
    }
    assert "jobs-one" in proxmox.guest(202)
    old = {"pve_days": "30", "pve_match": "*", "pve_vmids": "202", "pve_owner": ""}
    kept = controller.play("pve_remove_old_snapshots", old, credential=proxmox.credential, check=True).well()
    assert kept.artifacts["pve_removed_changed"] is False
    assert {each["target"] for each in kept.artifacts["pve_removed_decisions"]} == {"lxc/202"}


def test_the_nodes_themselves_need_no_credential(controller: Controller, proxmox: Proxmox) -> None:
    survey = {"restore_point": "on-nodes", "pve_become": "false", "pve_hosts": "", "pve_owner": "", **ABLE}
    foretold = controller.play("pve_on_nodes", survey, hosts=proxmox.nodes, check=True).well()
    assert foretold.changed == len(proxmox.nodes)
    assert foretold.artifacts["restore_point"] == "on-nodes"
    assert "qemu/104" in foretold.artifacts["restore_point_guests"]
    assert "on-nodes" not in proxmox.guest(104)


def test_an_unanswered_question_that_is_needed_fails_with_its_name(controller: Controller, proxmox: Proxmox) -> None:
    survey = {"pve_vmid": "", "restore_point": ""}
    refused = controller.play("pve_roll_back_guest", survey, credential=proxmox.credential)
    assert refused.status == "failed"
    assert "Set pve_vmid to one id" in refused.output
