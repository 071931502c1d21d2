# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter claims_by_host, as Ansible calls it."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.restorepoint.core.plugins.filter.claims_by_host import FilterModule

claims_by_host = FilterModule().filters()["claims_by_host"]
FOUND = {
    "claims": [{"namespace": "shop", "pvc": "data", "pv": "pv-1", "path": "/srv/data", "nodes": ["worker-1"]}],
    "nodes": [{"name": "worker-1", "names": ["worker-1", "10.0.0.11"]}, {"name": "worker-2", "names": ["worker-2"]}],
    "others": [],
}
HOSTVARS = {
    "localhost": {"ansible_connection": "local"},
    "web1": {"ansible_host": "10.0.0.11"},
    "web2": {"ansible_facts": {"hostname": "worker-2"}},
}


def test_claims_are_given_to_their_hosts():
    found = claims_by_host(FOUND, HOSTVARS, ["web1", "web2"])
    assert {host: [each["pvc"] for each in own] for host, own in found.items()} == {"web1": ["data"], "web2": []}
    assert found["web1"][0]["node"] == "worker-1"
    assert set(claims_by_host(FOUND, HOSTVARS)) == set(HOSTVARS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([], HOSTVARS), "give the result of hostpath_claims_info"),
        ((FOUND, []), "give the variable hostvars"),
        ((FOUND, HOSTVARS, ["web9"]), "web9 is no host of the inventory"),
        ((FOUND, HOSTVARS, ["web2"]), "is none of the hosts web2"),
        ((FOUND, HOSTVARS, None, ["x"]), "write it as {'namespace/claim': 'node'}"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(arguments, words):
    with pytest.raises(AnsibleFilterError) as raised:
        claims_by_host(*arguments)
    assert words in str(raised.value)
    assert str(raised.value).startswith("Cannot find the hosts of the claims: ")
