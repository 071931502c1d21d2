# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may do what, with the exact words of each refusal: tickets, CSRF, tokens, permissions."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.tests.unit.pve_server.client import BOX, ONE, Client, Refused

FULL = "root@pam!full=11111111-2222-3333-4444-555555555555"
SEPARATED = "root@pam!sep=66666666-7777-8888-9999-000000000000"
SNAPSHOT = f"{ONE.format(100)}/snapshot"


def missing(*privileges, vmid=100):
    """Return the words for privileges that are missing."""
    return f"Permission check failed (/vms/{vmid}, {'|'.join(privileges)})"


def refused_403(call, *arguments, **params):
    """Call something that is forbidden, and return the words."""
    with pytest.raises(Refused) as refused:
        call(*arguments, **params)
    assert refused.value.status == 403
    return refused.value.reason


@pytest.fixture
def snapshot(root):
    """A snapshot s1 of guest 100."""
    assert root.create("s1") == "OK"


def test_a_snapshotter_takes_and_rolls_back_but_does_not_start(server, snapshot):
    user = Client(server, "snap@pve")
    assert set(user.listed()) == {"s1", "current"}
    assert user.create("s2") == "OK"
    assert user.rollback("s2") == "OK"
    assert refused_403(user.post, f"{SNAPSHOT}/s2/rollback", start=1) == missing("VM.PowerMgmt")
    assert user.get(f"{SNAPSHOT}/s1/config")["name"] == "web-zfs"
    assert user.remove("s2") == "OK"


def test_who_may_roll_back_may_not_take_or_remove(server, snapshot):
    user = Client(server, "rb@pve")
    assert refused_403(user.post, SNAPSHOT, snapname="s2") == missing("VM.Snapshot")
    assert user.rollback("prb") == "snapshot 'prb' does not exist"
    assert refused_403(user.post, f"{SNAPSHOT}/prb/rollback", start=1) == missing("VM.PowerMgmt")
    assert user.get(f"{SNAPSHOT}/s1/config")["name"] == "web-zfs"
    assert refused_403(user.delete, f"{SNAPSHOT}/s1") == missing("VM.Snapshot")
    assert refused_403(user.put, f"{SNAPSHOT}/s1/config", description="x") == missing("VM.Snapshot")


def test_an_auditor_only_reads(server, snapshot):
    user = Client(server, "audit@pve")
    assert set(user.listed()) == {"s1", "current"}
    assert user.get(f"{ONE.format(100)}/feature", feature="snapshot")["hasFeature"] == 1
    assert user.get(f"{SNAPSHOT}/s1/config")["name"] == "web-zfs"
    assert refused_403(user.post, SNAPSHOT, snapname="s2") == missing("VM.Snapshot")
    rollback = missing("VM.Snapshot", "VM.Snapshot.Rollback")
    assert refused_403(user.post, f"{SNAPSHOT}/s1/rollback") == rollback
    assert refused_403(user.post, f"{SNAPSHOT}/s1/rollback", start=1) == rollback
    assert refused_403(user.delete, f"{SNAPSHOT}/s1") == missing("VM.Snapshot")


def test_a_container_is_started_after_a_return_without_the_right_to_start(server, root):
    root.create("c1", BOX.format(202))
    user = Client(server, "snap@pve")
    assert user.rollback("c1", BOX.format(202), start=1) == "OK"


def test_a_right_on_a_pool_holds_for_its_guests_alone(server):
    user = Client(server, "pooluser@pve")
    assert {each["vmid"] for each in user.get("/cluster/resources", type="vm")} == {100, 202}
    assert user.create("s1") == "OK"
    assert user.rollback("s1", start=1) == "OK"
    assert refused_403(user.get, f"{ONE.format(101)}/snapshot") == missing("VM.Audit", vmid=101)


def test_who_may_see_nothing_gets_empty_lists_and_no_error(server):
    server.access.add_user("nobody@pve")
    user = Client(server, "nobody@pve")
    for path in ("/cluster/resources?type=vm", "/nodes/pve1/qemu", "/pools", "/cluster/replication"):
        assert user.get(path) == []
    assert refused_403(user.get, SNAPSHOT) == missing("VM.Audit")
    assert refused_403(user.get, f"{ONE.format(999)}/snapshot") == missing("VM.Audit", vmid=999)


def test_permission_is_asked_before_parameters(server):
    user = Client(server, "audit@pve")
    assert refused_403(user.post, SNAPSHOT, snapname="1bad") == missing("VM.Snapshot")


def test_a_token_without_separation_is_its_user(server):
    token = Client(server, token=FULL)
    upid = token.post(f"{ONE.format(102)}/snapshot", snapname="s1")
    assert upid.endswith(":qmsnapshot:102:root@pam!full:")
    assert token.end(upid) == "OK"
    found = token.get(f"/nodes/pve1/tasks/{upid}/status")
    assert (found["user"], found["tokenid"]) == ("root@pam", "full")


def test_a_token_with_separation_has_only_what_it_was_granted(server):
    token = Client(server, token=SEPARATED)
    assert token.get("/cluster/resources", type="vm") == []
    assert refused_403(token.get, f"{ONE.format(102)}/snapshot") == missing("VM.Audit", vmid=102)
    server.access.grant("root@pam!sep", "/vms/102", "Snapshotter")
    assert token.create("s1", ONE.format(102)) == "OK"


def test_a_token_has_nothing_that_its_user_lacks(server):
    token = server.access.add_token("audit@pve", "t")
    server.access.grant("audit@pve!t", "/vms", "Snapshotter")
    client = Client(server, token=f"audit@pve!t={token.secret}")
    assert client.get(SNAPSHOT)
    assert refused_403(client.post, SNAPSHOT, snapname="s2") == missing("VM.Snapshot")


def test_a_user_sees_the_tasks_of_its_tokens_and_a_token_its_own_alone(server):
    user = Client(server, "snap@pve")
    secret = server.access.add_token("snap@pve", "t", separated=False).secret
    token = Client(server, token=f"snap@pve!t={secret}")
    by_user, by_token = user.post(SNAPSHOT, snapname="s1"), token.post(f"{ONE.format(101)}/snapshot", snapname="s1")
    server.wait_idle()
    assert {each["upid"] for each in user.get("/nodes/pve1/tasks")} == {by_user, by_token}
    assert {each["upid"] for each in token.get("/nodes/pve1/tasks")} == {by_token}


def test_other_peoples_tasks_need_an_auditor(server, root):
    upid = root.post(SNAPSHOT, snapname="s1")
    server.wait_idle()
    user = Client(server, "snap@pve")
    words = "Permission check failed (/nodes/pve1, Sys.Audit)"
    for what in ("status", "log"):
        assert refused_403(user.get, f"/nodes/pve1/tasks/{upid}/{what}") == words
    assert user.get("/nodes/pve1/tasks", source="all") == []
    auditor = Client(server, "audit@pve")
    assert auditor.get(f"/nodes/pve1/tasks/{upid}/status")["exitstatus"] == "OK"
    assert len(auditor.get("/nodes/pve1/tasks", source="all")) == 1


@pytest.mark.parametrize(("user", "password"), [("root@pam", "wrong"), ("nobody@pve", "secret"), ("root@pam", "")])
def test_a_wrong_password_is_no_login(root, user, password):
    with pytest.raises(Refused) as refused:
        root.login(user, password)
    assert (refused.value.status, refused.value.reason) == (401, "authentication failure")


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "No ticket"),
        ({"Cookie": "PVEAuthCookie=PVE:root@pam:1::x"}, "permission denied - invalid PVE ticket"),
        ({"Authorization": "PVEAPIToken=root@pam!full=wrong"}, "Authentication failed!"),
        ({"Authorization": "PVEAPIToken=root@pam!none=x"}, "Authentication failed!"),
    ],
)
def test_nobody_is_let_in_without_a_ticket_or_token(root, headers, words):
    root.headers = headers
    with pytest.raises(Refused) as refused:
        root.get("/version")
    assert (refused.value.status, refused.value.reason, refused.value.errors) == (401, words, None)


def test_what_changes_something_needs_the_csrf_token_and_tokens_do_not(server, root):
    del root.headers["CSRFPreventionToken"]
    assert root.get("/version")
    with pytest.raises(Refused) as refused:
        root.post(SNAPSHOT, snapname="s1")
    assert (refused.value.status, refused.value.reason) == (401, "Permission denied - invalid csrf token")
    assert Client(server, token=FULL).create("s1") == "OK"


def test_a_ticket_ends_and_may_be_renewed_before_that(server, root):
    server.settings.ticket_lifetime = 0.2
    root.login("root@pam", "secret")
    ticket = next(reversed(server.access.tickets))
    server.settings.ticket_lifetime = 7200
    root.login("root@pam", ticket)
    assert server.access.logins == 3
    server.access.tickets[ticket].ends = 0
    with pytest.raises(Refused):
        root.login("root@pam", ticket)
    assert root.get("/version")


def test_own_permissions_are_told(server):
    user = Client(server, "snap@pve")
    assert user.get("/access/permissions") == {"/vms": {"VM.Audit": 1, "VM.Snapshot": 1}, **_on_guests()}
    assert user.get("/access/permissions?path=/vms/101") == {"/vms/101": {"VM.Audit": 1, "VM.Snapshot": 1}}
    assert user.get("/access/permissions?path=/nodes/pve1") == {"/nodes/pve1": {}}
    pool = Client(server, "pooluser@pve").get("/access/permissions")
    assert "VM.Snapshot.Rollback" in pool["/vms/100"]
    assert "/vms/101" not in pool


def _on_guests():
    return {f"/vms/{vmid}": {"VM.Audit": 1, "VM.Snapshot": 1} for vmid in (100, 202)}
