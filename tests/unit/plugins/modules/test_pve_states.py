# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pve_snapshot and pve_snapshot_info reach each state on the test server: once, twice, and in check mode."""

from __future__ import annotations

import json
import threading
import time

import pytest
import yaml

from ansible_collections.restorepoint.core.plugins.modules import pve_snapshot, pve_snapshot_info
from ansible_collections.restorepoint.core.tests.pve_server.faults import drop_after, fail_task
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.documented import faults, missing
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.pve_cluster import guests_of_each_kind, told

BOTH = [100, 101, 200]


def actions(result):
    return [(each["target"], each["action"]) for each in result["results"]]


def test_a_snapshot_is_taken_once_and_the_second_run_changes_nothing(pve):
    first = pve.done(vmid=BOTH, name="one", description="Before\nit", labels={"change": "CHG1"})
    assert actions(first) == [("qemu/100", "created"), ("qemu/101", "created"), ("lxc/200", "created")]
    assert all(each["exit_status"] == "OK" and each["upid"].startswith("UPID:") for each in first["results"])
    second = pve.done(vmid=BOTH, name="one", description="Before\nit", labels={"change": "CHG1"})
    assert not second["changed"]
    assert {each["action"] for each in second["results"]} == {"unchanged"}


def test_check_mode_touches_nothing(pve):
    before = len(pve.server.calls)
    pve.state(check_mode=True, vmid=BOTH, name="one")
    assert {each.method for each in pve.server.calls[before:]} == {"GET", "POST"}
    assert [str(each) for each in pve.server.calls[before:] if each.method == "POST"] == ["POST /access/ticket"]
    assert pve.names(100) == []


@pytest.mark.parametrize("ahead", [86400, -86400])
def test_the_task_of_a_call_whose_answer_was_lost_is_found_by_the_servers_own_clock(ahead):
    with guests_of_each_kind(lambda: time.time() + ahead) as pve:
        pve.server.faults.at("POST */100/snapshot", 1, drop_after())
        result = pve.state(vmid=[100], name="one")
        assert actions(result) == [("qemu/100", "created")]
        assert [each.type for each in pve.server.all_tasks()] == ["qmsnapshot"]


def test_metadata_is_in_the_description_and_not_in_results(pve):
    pve.done(vmid=BOTH, name="one", description="Before it", owner="nightly", labels={"a": "ü"})
    raw = pve.server.guest(100).snapshots["one"]["description"]
    assert raw.startswith("Before it\nrestorepoint: {")
    (found,) = pve.info(vmid=[200])["snapshots"]
    assert (found["description"], found["owner"], found["labels"]) == ("Before it", "nightly", {"a": "ü"})


def test_another_description_is_changed_in_place_and_the_rest_stays(pve):
    pve.done(vmid=BOTH, name="one", description="a", labels={"x": "1"})
    again = pve.done(vmid=BOTH, name="one", description="b\n")
    assert {each["action"] for each in again["results"]} == {"described"}
    assert not pve.done(vmid=BOTH, name="one", description="b")["changed"]
    (found,) = pve.info(vmid=[100])["snapshots"]
    assert (found["description"], found["labels"]) == ("b", {"x": "1"})


def test_ram_is_saved_of_running_vms_and_missing_of_stopped_ones(pve):
    result = pve.state(vmid=[100, 102], name="ram", vmstate=True)
    assert [each["snapshot"]["extra"]["vmstate"] for each in result["results"]] == [True, False]
    assert any("qemu/102" in str(each) and "no RAM" in str(each) for each in result["warnings"])


def test_absent_removes_once(pve):
    pve.done(vmid=BOTH, name="one")
    assert {each["action"] for each in pve.done(vmid=BOTH, name="one", state="absent")["results"]} == {"removed"}
    assert not pve.done(vmid=BOTH, name="one", state="absent")["changed"]
    assert pve.names(100) == pve.names(200) == []


def test_a_return_brings_back_the_content_and_start_waits_until_it_runs(pve):
    for vmid in (101, 200):
        pve.server.guest(vmid).write("then")
    pve.done(vmid=[101, 200], name="one")
    for vmid in (101, 200):
        pve.server.guest(vmid).write("now")
    pve.server.settings.start_seconds = 0.2
    result = pve.done(vmid=[101, 200], name="one", state="rolled_back", start=True)
    assert {each["action"] for each in result["results"]} == {"rolled_back"}
    for vmid in (101, 200):
        assert set(pve.server.guest(vmid).content.values()) == {"then"}
        assert pve.server.guest(vmid).running


def test_a_return_happens_each_time_and_with_a_token_once(pve):
    pve.done(vmid=[101], name="one")
    assert pve.done(vmid=[101], name="one", state="rolled_back")["changed"]
    assert pve.done(vmid=[101], name="one", state="rolled_back")["changed"]
    assert pve.done(vmid=[101], name="one", state="rolled_back", once="job-1")["changed"]
    assert not pve.done(vmid=[101], name="one", state="rolled_back", once="job-1")["changed"]
    assert pve.done(vmid=[101], name="one", state="rolled_back", once="job-2")["changed"]


@pytest.mark.parametrize("vmid", [100, 106, 200])
def test_newer_snapshots_block_where_the_storage_returns_only_to_the_newest(pve, vmid):
    for name in ("one", "two", "three"):
        pve.done(vmid=[vmid], name=name)
    refused = pve.state(vmid=[vmid], name="one", state="rolled_back")
    assert [each["reason"] for each in refused["blockers"]] == ["newer snapshots would be lost: two, three"]
    assert pve.names(vmid) == ["one", "three", "two"]
    done = pve.done(vmid=[vmid], name="one", state="rolled_back", destroy_newer=True)
    assert [each["name"] for each in done["results"]] == ["three", "two", "one"]
    assert pve.names(vmid) == ["one"]


def test_newer_snapshots_stay_where_the_storage_returns_to_any(pve):
    for name in ("one", "two"):
        pve.done(vmid=[101], name=name)
    pve.done(vmid=[101], name="one", state="rolled_back", destroy_newer=True)
    assert pve.names(101) == ["one", "two"]


def test_what_was_there_is_kept_aside_where_that_is_possible(pve):
    for vmid in (100, 101):
        pve.server.guest(vmid).write("then")
        pve.done(vmid=[vmid], name="one")
        pve.server.guest(vmid).write("now")
    refused = pve.state(vmid=[100, 101], name="one", state="rolled_back", keep_current=True)
    assert [each["target"] for each in refused["blockers"]] == ["qemu/100"]
    assert "only to its newest snapshot" in refused["msg"]
    (result,) = pve.done(vmid=[101], name="one", state="rolled_back", keep_current=True)["results"]
    aside = result["aside"]["name"]
    assert [each["name"] for each in pve.info(vmid=[101])["asides"]] == [aside]
    pve.done(vmid=[101], name=aside, state="rolled_back")
    assert set(pve.server.guest(101).content.values()) == {"now"}
    pve.done(vmid=[101], state="pruned", asides={"last": 1})
    assert aside in pve.names(101)
    pve.done(vmid=[101], name=aside, state="absent")
    assert pve.names(101) == ["one"]


def test_only_if_current_parent_is_a_guard(pve):
    pve.done(vmid=[101], name="one")
    pve.done(vmid=[101], name="two")
    refused = pve.state(vmid=[101], name="one", state="rolled_back", only_if_current_parent=True)
    assert "its present state is based on 'two'" in refused["msg"]
    assert pve.done(vmid=[101], name="two", state="rolled_back", only_if_current_parent=True)["changed"]


def test_a_set_of_which_some_are_missing_is_no_success_and_can_be_replaced(pve):
    pve.done(vmid=[100], name="one")
    taken = pve.server.guest(100).snapshots["one"]["description"]
    refused = pve.state(vmid=[100, 101], name="one")
    assert "would not be of one instant" in refused["msg"]
    result = pve.done(vmid=[100, 101], name="one", replace=True)
    assert actions(result) == [("qemu/100", "replaced"), ("qemu/101", "created")]
    assert pve.names(100) == pve.names(101) == ["one"]
    assert pve.server.guest(100).snapshots["one"]["description"] != taken


def test_an_old_snapshot_of_the_name_does_not_pass_for_a_new_one(pve):
    pve.done(vmid=[101], name="one")
    pve.server.guest(101).snapshots["one"]["snaptime"] -= 7200
    assert "older than max_age 1h" in pve.state(vmid=[101], name="one", max_age="1h")["msg"]
    assert actions(pve.done(vmid=[101], name="one", max_age="1h", replace=True)) == [("qemu/101", "replaced")]


def test_pruning_counts_only_what_the_owner_has_taken(pve):
    for number in range(4):
        pve.done(vmid=[101], name=f"nightly-{number}", owner="nightly")
        pve.server.guest(101).snapshots[f"nightly-{number}"]["snaptime"] -= (5 - number) * 86400
    pve.done(vmid=[101], name="by-hand")
    with pve.server.frozen():
        pve.server.guest(101).snapshots["by-hand"]["description"] = "made in the web interface"
        pve.server.guest(101).snapshots["by-hand"]["snaptime"] -= 30 * 86400
    result = pve.done(vmid=[101], state="pruned", owner="nightly", keep={"last": 2})
    assert [each["name"] for each in result["results"]] == ["nightly-0", "nightly-1"]
    assert pve.names(101) == ["by-hand", "nightly-2", "nightly-3"]
    assert not pve.done(vmid=[101], state="pruned", owner="nightly", keep={"last": 2})["changed"]
    pve.done(vmid=[101], state="pruned", owner="nightly", keep={"max_age": "20d"}, match=["*"])
    assert "by-hand" not in pve.names(101)


def test_every_reason_of_every_guest_is_told_at_once(pve):
    result = pve.state(vmid=["100-111", "200-203"], name="one", vmstate=True, lock_timeout=0)
    found = {(each["target"], each["reason"].split(":")[0]) for each in result["blockers"]}
    assert found == {
        ("qemu/103", "its storage cannot take snapshots"),
        ("qemu/105", "its storage cannot take snapshots"),
        ("qemu/108", "it is locked (backup)"),
        ("qemu/111", "its RAM cannot be saved"),
        ("lxc/200", "a container has no RAM to save"),
        ("lxc/201", "its storage cannot take snapshots"),
        ("lxc/201", "a container has no RAM to save"),
        ("lxc/202", "a container has no RAM to save"),
        ("lxc/203", "its storage cannot take snapshots"),
        ("lxc/203", "a container has no RAM to save"),
    }
    assert "is /srv/data of the host" in result["msg"]
    assert not any("snapshot" in task.type for task in pve.server.all_tasks())


def test_a_vm_of_an_old_machine_version_on_a_volume_chain_fails_in_proxmox_words_and_all_is_taken_back(pve):
    pve.server.guest(107).machine = "pc-i440fx-9.2+pve1"
    result = pve.state(vmid=[100, 107], name="one")
    assert result["failed"]
    assert "this requires QEMU machine version >= 10.0" in result["msg"]
    assert (pve.names(100), pve.names(107), pve.server.guest(107).lock) == ([], [], None)


def test_a_template_that_is_named_is_refused_and_otherwise_left_out(pve):
    assert "is a template" in pve.state(vmid=[109], name="one")["msg"]
    result = pve.state(check_mode=True, type="qemu", node="pve1", exclude=[103, 105, 108], name="one")
    assert "qemu/109" not in [each["target"] for each in result["guests"]]
    assert "failed" not in result


def test_a_lock_that_goes_away_is_waited_for(pve):
    def let_go():
        time.sleep(0.3)
        pve.server.unlock(108)

    waiter = threading.Thread(target=let_go)
    waiter.start()
    result = pve.state(vmid=[108], name="one", lock_timeout=120)
    waiter.join()
    assert actions(result) == [("qemu/108", "created")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"vmid": ["100,102 104-105"]}, [100, 102, 104, 105]),
        ({"guest": ["web-*"]}, [100, 104]),
        ({"hostname": ["db-thin"]}, [101]),
        ({"tags": ["prod", "web"]}, [100]),
        ({"pool": ["shop"]}, [100, 202]),
        ({"node": "pve2"}, [104]),
        ({"type": "lxc", "exclude": ["ct-b*", "203"]}, [200, 202]),
        ({"status": "stopped"}, [102]),
        ({"select": "[?pool == 'shop' && type == 'qemu']"}, [100]),
        ({"select": "[?hastate].vmid"}, [110]),
        ({"guest": ["nothing-*"], "allow_none": True}, []),
    ],
)
def test_guests_are_selected(pve, options, expected):
    result = pve.info(**options)
    assert [each["vmid"] for each in result["guests"]] == expected


def test_the_tree_and_its_text_are_those_of_qm_listsnapshot(pve):
    for name in ("one", "two"):
        pve.done(vmid=[101], name=name, description=f"{name} of it\nmore")
    pve.done(vmid=[101], name="one", state="rolled_back")
    pve.done(vmid=[101], name="three")
    for number, name in enumerate(("one", "two", "three")):
        pve.server.guest(101).snapshots[name]["snaptime"] += number
    result = pve.info(vmid=[101], text=True)
    lines = result["listing"]["qemu/101"].splitlines()
    assert [line.split()[1] for line in lines] == ["one", "two", "three", "current"]
    assert [len(line) - len(line.lstrip()) for line in lines] == [0, 4, 4, 8]
    assert lines[0].endswith(" one of it")
    assert lines[2].endswith(" no-description")
    assert lines[3].endswith("You are here!")
    assert {line.index(word) for line, word in zip(lines, ("20", "20", "20", "You"))} == {32, 56}


def test_the_stored_configuration_and_its_difference_are_shown(pve):
    pve.done(vmid=[101], name="one")
    with pve.server.frozen():
        pve.server.guest(101).config["memory"] = "4096"
    (found,) = pve.info(vmid=[101], config=True, compare=True)["snapshots"]
    assert found["config"]["scsi0"].startswith("local-lvm:")
    assert found["differences"] == {"memory": {"snapshot": found["config"]["memory"], "now": "4096"}}


def test_results_hold_what_is_documented(pve, tmp_path):
    documented = yaml.safe_load(pve_snapshot.RETURN)
    results = [
        pve.state(vmid=BOTH, name="one", progress_file=str(tmp_path / "progress"), audit_log=str(tmp_path / "audit")),
        pve.state(vmid=[101], name="one", state="rolled_back", keep_current=True, start=True),
        pve.state(vmid=BOTH, state="pruned", keep={"last": 1}),
        pve.state(vmid=[108], name="one", lock_timeout=0),
        pve.state(vmid=BOTH, name="one", state="absent"),
    ]
    for result in results:
        assert list(faults(result, documented)) == []
        assert missing(result, documented) == []
    info = pve.info(config=True, compare=True, text=True)
    assert list(faults(info, yaml.safe_load(pve_snapshot_info.RETURN))) == []
    steps = [json.loads(line) for line in (tmp_path / "progress").read_text().splitlines()]
    assert sorted(each["target"] for each in steps if each["step"] == "created") == ["lxc/200", "qemu/100", "qemu/101"]


def test_half_deleted_snapshots_are_named_with_the_way_out_and_repaired(pve):
    pve.done(vmid=[101], name="one")
    pve.server.faults.at("DELETE */101/*", 1, fail_task("volume:*", "lvremove failed"))
    failed = pve.state(vmid=[101], name="one", state="absent")
    assert "lvremove failed" in failed["msg"]
    assert "qm unlock 101" in failed["msg"]
    assert "qm delsnapshot 101 one --force" in failed["msg"]
    refused = pve.state(vmid=[101], name="two", lock_timeout=5)
    assert "it is locked (snapshot-delete)" in refused["msg"]
    assert "qm unlock 101" in refused["msg"]
    result = pve.done(vmid=[101], name="two", repair=True)
    assert result["results"][0]["repaired"] == ["lock", "one"]
    assert pve.names(101) == ["two"]
    assert pve.is_clean(101)


def test_repair_of_a_container_says_what_only_its_node_can_do(pve):
    pve.done(vmid=[200], name="one")
    pve.server.faults.at("DELETE */200/*", 1, fail_task("volume:*", "zfs error"))
    assert "pct unlock 200" in pve.state(vmid=[200], name="one", state="absent")["msg"]
    assert "for containers the API has no way" in pve.state(vmid=[200], name="one", state="absent", repair=True)["msg"]
    pve.server.unlock(200)
    result = pve.done(vmid=[200], name="one", state="absent", repair=True)
    assert result["changed"]
    assert pve.names(200) == []


def test_permissions_that_are_missing_are_told_before_anything_is_begun(pve):
    pve.done(vmid=[101], name="one")
    for user, options, lacks in (
        ("audit@pve", {"name": "two"}, "VM.Snapshot"),
        ("rb@pve", {"name": "one", "state": "absent"}, "VM.Snapshot"),
        ("rb@pve", {"name": "one", "state": "rolled_back", "start": True}, "VM.PowerMgmt"),
        ("rb@pve", {"name": "one", "state": "rolled_back", "once": "x"}, "VM.Snapshot"),
        ("audit@pve", {"name": "one", "state": "rolled_back"}, "VM.Snapshot or VM.Snapshot.Rollback"),
    ):
        result = pve.state(vmid=[101], api_user=user, **options)
        assert [each["reason"] for each in result["blockers"]] == [f"{user} lacks {lacks}"]
    assert pve.state(vmid=[101], api_user="rb@pve", name="one", state="rolled_back")["changed"]
    assert pve.state(vmid=[100], api_user="pooluser@pve", name="two")["changed"]


def test_a_token_works_and_sees_what_it_may_see(pve):
    token = {"api_password": None, "api_token_id": "full"}
    secret = "11111111-2222-3333-4444-555555555555"
    assert pve.state(vmid=[101], name="one", api_token_secret=secret, **token)["changed"]
    token["api_token_id"] = "root@pam!sep"
    result = pve.state(vmid=[101], name="two", api_token_secret="66666666-7777-8888-9999-000000000000", **token)
    assert "101 is not to be seen in the cluster" in result["msg"]
    assert "VM.Audit" in result["msg"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"api_password": "wrong"}, "root@pam was not let in"),
        ({"api_user": "root"}, "has no realm"),
        ({"vmid": [999]}, "999 is not to be seen in the cluster; check the spelling, and that the user"),
        ({"vmid": ["abc"]}, "neither an id nor a range"),
        ({"name": "a" * 41}, "the name has 41 characters"),
        ({"name": "1st"}, "beginning with a letter"),
        ({"name": "current"}, "calls the present state 'current'"),
        ({"name": "Pending"}, "reserves 'Pending' for VMs"),
        ({"vmid": [200], "name": "vzdump"}, "reserves 'vzdump' for containers"),
        ({"vmid": [200], "vmstate": True}, "a container has no RAM to save"),
        ({"ca_path": "/nowhere.pem"}, "ca_path /nowhere.pem cannot be read"),
        ({"select": "[?"}, "JMESPath"),
        ({"guest": ["nobody"]}, "nobody is not to be seen"),
        ({"description": "x" * 9000}, "at most 8192"),
        ({"parallel": 0}, "parallel"),
        ({"api_host": None}, "api_host is not set"),
    ],
)
def test_bad_input_is_one_sentence_and_touches_nothing(pve, monkeypatch, options, says):
    monkeypatch.delenv("PROXMOX_HOST", raising=False)
    result = pve.state(**{"vmid": [100], "name": "one", **options})
    assert result["failed"]
    assert says in result["msg"]
    assert not any(each.method in ("PUT", "DELETE") or "/snapshot" in each.path for each in pve.server.calls
                   if each.method != "GET")  # fmt: skip


def test_a_certificate_of_another_ca_is_refused_and_only_request_lets_it_pass(pve):
    result = pve.state(vmid=[100], name="one", ca_path=None)
    assert "is not trusted" in result["msg"]
    assert "pve-root-ca.pem" in result["msg"]
    assert pve.state(vmid=[100], name="one", ca_path=None, validate_certs=False)["changed"]


def test_the_environment_gives_the_connection(pve, monkeypatch):
    for name, value in (("HOST", pve.login["api_host"]), ("PORT", pve.login["api_port"]), ("USER", "root@pam"),
                        ("PASSWORD", pve.login["api_password"]), ("CA_PATH", pve.login["ca_path"])):  # fmt: skip
        monkeypatch.setenv(f"PROXMOX_{name}", str(value))
    pve.login = {}
    assert pve.done(vmid=[100], name="one")["changed"]


def test_a_call_for_nobody_changes_nothing_where_that_is_allowed(pve):
    result = pve.done(guest=["nothing-*"], allow_none=True, name="one")
    assert told(result) == []
    assert not result["changed"]


def test_pvesh_does_the_same_on_a_node_and_for_guests_of_another(pve, monkeypatch):
    monkeypatch.setenv("PATH", f"{pve.server.programs('pve1')}:/usr/bin:/bin")
    pve.login = {"transport": "pvesh"}
    for vmid in (101, 104, 200):
        pve.server.guest(vmid).write("then")
    assert pve.done(vmid=[101, 104, 200], name="one", description="a b\n-c")["changed"]
    assert not pve.done(vmid=[101, 104, 200], name="one", description="a b\n-c")["changed"]
    pve.server.guest(101).write("now")
    assert pve.done(vmid=[101], name="one", state="rolled_back", start=True)["changed"]
    assert set(pve.server.guest(101).content.values()) == {"then"}
    assert "is locked (backup)" in pve.state(vmid=[108], name="one", lock_timeout=0)["msg"]
    pve.done(vmid=[101, 104, 200], name="one", state="absent")
    assert pve.names(101) == pve.names(104) == pve.names(200) == []
    for vmid in (101, 104, 200):
        kinds = [task.type[2:] for task in pve.server.all_tasks() if task.id == str(vmid)]
        assert (kinds.count("snapshot"), kinds.count("delsnapshot")) == (1, 1)  # nothing was sent twice
