# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The real client library, proxmoxer, works with the test server as it does with Proxmox."""

from __future__ import annotations

import re

import proxmoxer
import pytest
import requests

from ansible_collections.restorepoint.core.tests.pve_server import faults

TOKEN = "11111111-2222-3333-4444-555555555555"


def connect(server, **more):
    """Return proxmoxer's API, logged in with a password unless told otherwise."""
    login = more or {"user": "root@pam", "password": "secret"}
    return proxmoxer.ProxmoxAPI(server.host, port=server.port, verify_ssl=server.ca_path, **login)


def test_a_snapshot_is_taken_described_returned_to_and_removed(server):
    api = connect(server)
    guest = api.nodes("pve1").qemu(100)
    upid = guest.snapshot.post(snapname="s1", description="one\ntwo é", vmstate=1)
    server.wait_idle()
    assert api.nodes("pve1").tasks(upid).status.get()["exitstatus"] == "OK"
    assert api.nodes("pve1").tasks(upid).log.get()[-1] == {"n": 4, "t": "TASK OK"}
    assert {each["name"] for each in guest.snapshot.get()} == {"s1", "current"}
    assert guest.snapshot("s1").config.get()["description"] == "one\ntwo é"
    assert guest.snapshot("s1").config.put(description="three") is None
    server.guest(100).write("now")
    guest.snapshot("s1").rollback.post()
    server.wait_idle()
    assert server.guest(100).content == {"scsi0": "first"}
    guest.snapshot("s1").delete(force=1)
    server.wait_idle()
    assert [each["name"] for each in guest.snapshot.get()] == ["current"]
    assert len(api.nodes("pve1").tasks.get(source="all", limit=500, since=0)) == 3


def test_its_errors_have_the_words_of_proxmox(server):
    guest = connect(server).nodes("pve1").qemu(100)
    with pytest.raises(proxmoxer.ResourceException) as refused:
        guest.snapshot.post(snapname="current")
    error = refused.value
    assert (error.status_code, error.status_message) == (500, "Internal Server Error")
    assert (error.content, error.errors) == ("unable to use snapshot name 'current' (reserved name)", None)
    with pytest.raises(proxmoxer.ResourceException) as refused:
        guest.snapshot.post(snapname="a.b")
    assert refused.value.content == "Parameter verification failed."
    assert refused.value.errors == {"snapname": "invalid format - invalid configuration ID 'a.b'\n"}


def test_it_uses_tokens(server):
    api = connect(server, user="root@pam", token_name="full", token_value=TOKEN)
    assert api.nodes("pve1").qemu(102).snapshot.post(snapname="s1").endswith(":root@pam!full:")
    api = connect(server, user="root@pam", token_name="full", token_value="wrong")
    with pytest.raises(proxmoxer.ResourceException) as refused:
        api.version.get()
    error = refused.value
    assert (error.status_code, error.content, error.errors) == (401, "Authentication failed!", {"errors": b""})


def test_it_refuses_a_wrong_password_and_a_wrong_ca(server):
    with pytest.raises(proxmoxer.AuthenticationError, match=re.escape("Couldn't authenticate user: root@pam")):
        connect(server, user="root@pam", password="wrong")
    with pytest.raises(requests.exceptions.SSLError):
        proxmoxer.ProxmoxAPI(server.host, port=server.port, user="root@pam", password="secret", verify_ssl=True)


def test_it_keeps_its_connection(server):
    api = connect(server)
    for _number in range(50):
        api.nodes("pve1").qemu(100).snapshot.get()
    assert len(server.calls) == 51
    assert server.connections <= 2


def test_it_notices_a_dropped_connection(server):
    server.faults.at("POST */snapshot", 1, faults.drop_after())
    with pytest.raises(requests.exceptions.ConnectionError):
        connect(server).nodes("pve1").qemu(100).snapshot.post(snapname="s1")
    assert len(server.all_tasks("qmsnapshot")) == 1
