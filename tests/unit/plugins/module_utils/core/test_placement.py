# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which host of an inventory a claim belongs on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.claims import ClaimError
from ansible_collections.restorepoint.core.plugins.module_utils.core.placement import (
    Node,
    claims_by_host,
    names_of_host,
    node_of,
)


def node(name, *others):
    return Node(name, frozenset({name, *others}))


def claim(name, *nodes, namespace="shop-a"):
    return {"namespace": namespace, "pvc": name, "pv": f"pv-{name}", "path": f"/srv/{name}", "nodes": list(nodes)}


NODES = [node("worker-1.cluster.local", "worker-1", "10.0.0.11"), node("worker-2", "10.0.0.12")]


def place(claims, hosts, nodes=None, **chosen):
    named = {host: frozenset(names) for host, names in hosts.items()}
    found = claims_by_host(claims, NODES if nodes is None else nodes, named, chosen)
    return {host: [(each["pvc"], each["node"]) for each in claims] for host, claims in found.items()}


def test_a_node_object_is_known_by_name_label_and_addresses():
    item = {
        "metadata": {"name": "W1", "labels": {"kubernetes.io/hostname": "w1.lan"}},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "w1"}]},
    }
    assert node_of(item) == Node("W1", frozenset({"w1", "w1.lan", "10.0.0.1"}))


def test_a_host_is_known_by_its_names_and_addresses():
    variables = {
        "inventory_hostname": "Web1",
        "ansible_host": "10.0.0.11",
        "ansible_facts": {"nodename": "worker-1", "all_ipv4_addresses": ["192.168.0.11"]},
    }
    assert names_of_host("Web1", variables) == {"web1", "10.0.0.11", "worker-1", "192.168.0.11"}
    assert names_of_host("web1", {**variables, "restorepoint_node": "Worker-9"}) == {"worker-9"}


def test_each_host_gets_its_own_claims_and_the_others_an_empty_list():
    claims = [claim("a", "worker-1"), claim("b", "worker-2"), claim("c", "WORKER-2")]
    hosts = {"web1": {"10.0.0.11"}, "web2": {"worker-2"}, "db": {"db", "10.0.0.9"}}
    assert place(claims, hosts) == {
        "web1": [("a", "worker-1.cluster.local")],
        "web2": [("b", "worker-2"), ("c", "worker-2")],
        "db": [],
    }


def test_the_first_part_of_a_name_counts_only_where_nothing_whole_fits():
    claims = [claim("a", "worker-2")]
    assert place(claims, {"worker-2.example.org": {"worker-2.example.org"}}) == {
        "worker-2.example.org": [("a", "worker-2")]
    }
    two = {"worker-2.old.example.org": {"worker-2.old.example.org"}, "x": {"10.0.0.12"}}
    assert place(claims, two)["x"] == [("a", "worker-2")]


def test_addresses_have_no_first_part():
    with pytest.raises(ClaimError, match=r"its node worker-2 \(known as 10.0.0.12, worker-2\) is none of the hosts h"):
        place([claim("a", "worker-2")], {"h": {"10.99.99.99"}})


def test_what_is_not_clear_is_an_error_that_names_every_claim():
    hosts = {"a": {"10.0.0.11"}, "b": {"worker-1"}}
    with pytest.raises(ClaimError) as raised:
        place([claim("x", "worker-1"), claim("y"), claim("z", "worker-2"), claim("w", "worker-1")], hosts)
    assert raised.value.reason == (
        "shop-a/x, shop-a/w: its node worker-1.cluster.local may be any of the hosts a, b; "
        "shop-a/y: its volume names no node, and there are 2; "
        "shop-a/z: its node worker-2 (known as 10.0.0.12, worker-2) is none of the hosts a, b"
    )


def test_a_host_that_may_be_two_nodes_is_not_clear():
    with pytest.raises(ClaimError, match="the host gateway may be any of the nodes worker-2, worker-1"):
        place([claim("a", "worker-2")], {"gateway": {"10.0.0.11", "10.0.0.12"}})


def test_a_volume_without_a_node_lies_on_the_only_one_or_on_the_chosen_one():
    assert place([claim("a")], {"h": {"worker-2"}}, [NODES[1]]) == {"h": [("a", "worker-2")]}
    chosen = {"shop-a/a": "worker-2"}
    assert place([claim("a")], {"h": {"worker-2"}}, **chosen) == {"h": [("a", "worker-2")]}
    with pytest.raises(ClaimError, match="its volume lies on worker-1, not on worker-2"):
        place([claim("a", "worker-1")], {"h": {"worker-2"}}, **chosen)


def test_a_volume_of_several_nodes_lies_on_the_only_one_that_is_in_the_inventory():
    both = claim("a", "worker-1", "worker-2")
    assert place([both], {"h": {"worker-2"}}) == {"h": [("a", "worker-2")]}
    with pytest.raises(ClaimError, match="its volume may lie on any of worker-1, worker-2"):
        place([both], {"h": {"worker-2"}, "i": {"worker-1"}})


def test_nodes_that_could_not_be_listed_are_known_by_the_names_volumes_give_them():
    assert place([claim("a", "worker-7")], {"h": {"worker-7.example.org"}}, []) == {"h": [("a", "worker-7")]}


@given(st.lists(st.sampled_from(["n1", "n2", "n3"]), max_size=6), st.permutations(["n1", "n2", "n3"]))
def test_no_claim_is_lost_or_taken_twice(places, order):
    nodes = [node(name) for name in order]
    claims = [claim(f"c{number}", name) for number, name in enumerate(places)]
    found = claims_by_host(claims, nodes, {f"host-{name}": {name} for name in order}, {})
    taken = [(each["pvc"], host) for host, own in found.items() for each in own]
    assert sorted(taken) == sorted((each["pvc"], f"host-{each['nodes'][0]}") for each in claims)
