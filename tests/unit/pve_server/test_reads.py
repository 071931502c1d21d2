# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names, lists and stored configurations, held to what a server with Proxmox's own code answered."""

from __future__ import annotations

import http.client
import ssl

import pytest

from ansible_collections.restorepoint.core.tests.unit.pve_server.client import BOX, ONE, Refused

UNKNOWN = "property is not defined in schema and the schema does not allow additional properties"


def bad_id(name):
    """Return the words for a name that is none."""
    return f"invalid format - invalid configuration ID '{name}'\n"


@pytest.mark.parametrize(
    ("params", "errors"),
    [
        ({"snapname": "1bad"}, {"snapname": bad_id("1bad")}),
        ({"snapname": "x"}, {"snapname": bad_id("x")}),
        ({"snapname": "bad name"}, {"snapname": bad_id("bad name")}),
        ({"snapname": "a.b"}, {"snapname": bad_id("a.b")}),
        ({"snapname": "__x"}, {"snapname": bad_id("__x")}),
        ({"snapname": "a" * 41}, {"snapname": "value may only be 40 characters long"}),
        ({}, {"snapname": "property is missing and it is not optional"}),
        ({"snapname": "s3", "bogus": 1}, {"bogus": UNKNOWN}),
        ({"snapname": "vm2", "vmstate": "maybe"}, {"vmstate": "type check ('boolean') failed - got 'maybe'"}),
        ({"snapname": "x", "bogus": 1}, {"snapname": bad_id("x"), "bogus": UNKNOWN}),
    ],
)
def test_parameters_that_do_not_fit_are_refused_all_at_once(root, params, errors):
    with pytest.raises(Refused) as refused:
        root.post(f"{ONE.format(100)}/snapshot", **params)
    assert (refused.value.status, refused.value.reason) == (400, "Parameter verification failed.")
    assert refused.value.errors == errors
    assert not root.server.all_tasks()


@pytest.mark.parametrize(
    ("path", "name", "word"),
    [
        (ONE.format(100), "current", "current"),
        (ONE.format(100), "pending", "pending"),
        (ONE.format(100), "PENDING", "pending"),
        (BOX.format(200), "current", "current"),
        (BOX.format(200), "vzdump", "vzdump"),
    ],
)
def test_reserved_names_are_refused_at_once(root, path, name, word):
    with pytest.raises(Refused) as refused:
        root.post(f"{path}/snapshot", snapname=name)
    assert refused.value.status == 500
    assert refused.value.reason == f"unable to use snapshot name '{word}' (reserved name)"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (ONE.format(100), "vzdump"),
        (ONE.format(100), "Current"),
        (ONE.format(100), "A" * 40),
        (BOX.format(200), "pending"),
    ],
)
def test_other_names_are_not_reserved(root, path, name):
    assert root.create(name, path) == "OK"


def test_names_that_differ_in_case_are_two_snapshots(root):
    assert root.create("same") == "OK"
    assert root.create("Same") == "OK"


def test_a_guest_without_snapshots_lists_only_its_present(root):
    (only,) = root.get(f"{ONE.format(100)}/snapshot")
    digest = only.pop("digest")
    assert only == {"name": "current", "description": "You are here!", "running": 1}
    assert len(digest) == 40


def test_a_list_names_parents_and_ends_with_the_present(root):
    for name, more in (("s1", {"description": "one\ntwo é"}), ("s2", {}), ("vm", {"vmstate": 1})):
        assert root.create(name, **more) == "OK"
    listed = root.get(f"{ONE.format(100)}/snapshot")
    assert listed[-1]["name"] == "current"
    by_name = {each["name"]: each for each in listed}
    assert set(by_name["s1"]) == {"name", "snaptime", "description", "vmstate"}
    assert by_name["s1"]["description"] == "one\ntwo é"
    assert (by_name["s2"]["parent"], by_name["s2"]["description"]) == ("s1", "")
    assert (by_name["vm"]["parent"], by_name["vm"]["vmstate"], by_name["s2"]["vmstate"]) == ("s2", 1, 0)
    assert by_name["current"]["parent"] == "vm"
    assert isinstance(by_name["s1"]["snaptime"], int)


def test_lists_come_in_random_order(root):
    for name in ("aa", "bb", "cc", "dd"):
        root.create(name)
    seen = {tuple(each["name"] for each in root.get(f"{ONE.format(100)}/snapshot")) for _number in range(40)}
    assert len(seen) > 1


def test_the_digest_changes_with_the_configuration_only(root):
    first = root.listed()["current"]["digest"]
    assert root.listed()["current"]["digest"] == first
    root.create("s1")
    assert root.listed()["current"]["digest"] != first


def test_a_stored_configuration_is_the_whole_section(root):
    root.create("s1", description="why")
    root.create("vm", vmstate=1)
    first = root.get(f"{ONE.format(100)}/snapshot/s1/config")
    assert set(first) == {
        *("name", "boot", "cores", "ide2", "memory", "net0", "ostype", "scsi0", "tags", "agent"),
        *("snaptime", "description"),
    }
    assert (first["memory"], first["scsi0"]) == ("2048", "local-zfs:vm-100-disk-0,size=8G")
    second = root.get(f"{ONE.format(100)}/snapshot/vm/config")
    assert second["parent"] == "s1"
    assert second["vmstate"] == "local-zfs:vm-100-state-vm"
    assert second["runningmachine"].startswith("pc-")
    assert "description" not in second


def test_a_containers_description_comes_back_with_a_line_end(root):
    path = BOX.format(200)
    root.create("c1", path, description="d")
    root.create("c2", path)
    assert root.listed(path)["c1"]["description"] == "d\n"
    assert root.listed(path)["c2"]["description"] == ""
    assert "vmstate" not in root.listed(path)["c1"]
    assert root.get(f"{path}/snapshot/c1/config")["description"] == "d\n"
    root.put(f"{path}/snapshot/c1/config", description="e")
    assert root.listed(path)["c1"]["description"] == "e\n"


@pytest.mark.parametrize("text", ["", "0"])
def test_a_description_that_is_false_in_perl_is_dropped(root, text):
    root.create("s1", description=text)
    assert "description" not in root.get(f"{ONE.format(100)}/snapshot/s1/config")


def test_a_description_is_changed_in_place_and_nothing_is_a_no_op(root):
    root.create("s1", description="before")
    path = f"{ONE.format(100)}/snapshot/s1/config"
    assert root.put(path) is None
    assert root.listed()["s1"]["description"] == "before"
    assert root.put(path, description="after") is None
    assert root.listed()["s1"]["description"] == "after"
    assert root.put(path, description="") is None
    assert root.listed()["s1"]["description"] == ""
    with pytest.raises(Refused) as refused:
        root.put(path, snaptime=1)
    assert refused.value.errors == {"snaptime": UNKNOWN}


def test_a_missing_snapshot_has_an_index_but_no_configuration(root):
    path = f"{ONE.format(100)}/snapshot/nope"
    assert root.get(path) == [{"cmd": "rollback"}, {"cmd": "config"}]
    for call in (root.get, root.put):
        with pytest.raises(Refused) as refused:
            call(f"{path}/config")
        assert (refused.value.status, refused.value.reason) == (500, "snapshot 'nope' does not exist")


def test_a_locked_guest_refuses_a_description_before_it_looks_for_the_snapshot(root):
    with pytest.raises(Refused) as refused:
        root.put(f"{ONE.format(108)}/snapshot/nope/config", description="x")
    assert (refused.value.status, refused.value.reason) == (500, "VM is locked (backup)")


def test_containers_take_no_ram(root):
    with pytest.raises(Refused) as refused:
        root.post(f"{BOX.format(200)}/snapshot", snapname="v", vmstate=1)
    assert refused.value.errors == {"vmstate": UNKNOWN, "snapname": bad_id("v")}


def test_resources_show_what_a_client_chooses_by(server, root):
    found = {each["vmid"]: each for each in root.get("/cluster/resources", type="vm")}
    assert set(found) == set(server.cluster.guests)
    assert (found[100]["tags"], found[100]["pool"], found[100]["name"]) == ("prod;web", "shop", "web-zfs")
    assert (found[108]["lock"], found[109]["template"], found[110]["hastate"]) == ("backup", 1, "started")
    assert (found[102]["status"], found[104]["node"], found[200]["type"]) == ("stopped", "pve2", "lxc")
    assert "pool" not in found[101]


def test_the_status_of_resources_is_as_old_as_pvestatds_last_round(server, root):
    server.settings.pvestatd_seconds = 60
    root.get("/cluster/resources", type="vm")
    root.run("POST", f"{ONE.format(100)}/status/stop")
    (old,) = [each for each in root.get("/cluster/resources", type="vm") if each["vmid"] == 100]
    assert old["status"] == "running"
    assert root.get(f"{ONE.format(100)}/status/current")["status"] == "stopped"
    assert root.listed()["current"]["running"] == 0


def test_pools_nodes_ha_and_replication_are_there(server, root):
    server.add_qemu(120, replication=["pve2"])
    assert root.get("/pools") == [{"poolid": "shop"}]
    assert {each["vmid"] for each in root.get("/pools/shop")["members"]} == {100, 202}
    assert {each["node"] for each in root.get("/nodes")} == {"pve1", "pve2"}
    assert [each["sid"] for each in root.get("/cluster/ha/resources")] == ["vm:110"]
    assert [(each["id"], each["target"]) for each in root.get("/cluster/replication")] == [("120-0", "pve2")]
    assert {each["vmid"] for each in root.get("/nodes/pve2/qemu")} == {104}
    assert {each["storage"] for each in root.get("/nodes/pve1/storage")} == set(server.cluster.storages)


def test_a_version_is_told(root):
    assert root.get("/version")["version"] == "9.1.2"


def test_what_is_no_method_is_not_implemented(root):
    with pytest.raises(Refused) as refused:
        root.get("/nodes/pve1/qemu/100/foo")
    assert refused.value.status == 501
    assert refused.value.reason == "Method 'GET /nodes/pve1/qemu/100/foo' not implemented"


def test_a_client_of_another_ca_is_not_served(server):
    connection = http.client.HTTPSConnection(server.host, server.port, context=ssl.create_default_context())
    with pytest.raises(ssl.SSLCertVerificationError):
        connection.request("GET", "/api2/json/version")
