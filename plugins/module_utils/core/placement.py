# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the nodes of claims to the hosts of an inventory. Pure; called by the filter claims_by_host.

A node and a host are the same when one of the names or addresses of the one is one of the other's. The first part of a
name counts only where nothing whole fits. Whatever is not clear is an error: a snapshot on the wrong host is worse than
none.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .claims import ClaimError

#: The variable of a host that says in so many words what Kubernetes calls it.
NODE_VARIABLE = "restorepoint_node"
_PLAIN = ("inventory_hostname", "ansible_host", "ansible_hostname", "ansible_nodename", "ansible_fqdn")
_FACTS = ("hostname", "nodename", "fqdn")
_ADDRESSES = ("all_ipv4_addresses", "all_ipv6_addresses")
_ATTEMPT = "find the hosts of the claims"


@dataclass(frozen=True)
class Node:
    """A node of the cluster: its name, and all the names and addresses it has, its name among them."""

    name: str
    names: frozenset[str]


def node_of(item: Mapping[str, Any]) -> Node:
    """Return the node that a Node object describes."""
    metadata = item.get("metadata") or {}
    name = str(metadata.get("name"))
    label = (metadata.get("labels") or {}).get("kubernetes.io/hostname")
    addresses = [each.get("address") for each in (item.get("status") or {}).get("addresses") or []]
    return Node(name, frozenset(str(each).lower() for each in (name, label, *addresses) if each))


def names_of_host(name: str, variables: Mapping[str, Any]) -> frozenset[str]:
    """Return how a host is known, in small letters; only NODE_VARIABLE where it has that."""
    said = variables.get(NODE_VARIABLE)
    if said:
        return frozenset({str(said).lower()})
    facts = variables.get("ansible_facts") or {}
    found: list[Any] = [name, *(variables.get(each) for each in _PLAIN)]
    if isinstance(facts, Mapping):
        found += [facts.get(each) for each in _FACTS]
        found += [address for each in _ADDRESSES for address in facts.get(each) or ()]
    return frozenset(str(each).lower() for each in found if each)


def claims_by_host(
    claims: Sequence[Mapping[str, Any]],
    nodes: Iterable[Node],
    hosts: Mapping[str, Collection[str]],
    chosen: Mapping[str, str],
) -> dict[str, list[dict[str, Any]]]:
    """Return the claims of each host, for hosts without any an empty list.

    Args:
        claims: as hostpath_claims_info returns them.
        hosts: how each host of the inventory is known.
        chosen: the node of claims (``namespace/claim``) whose volumes do not name one.

    Raises:
        ClaimError: one sentence with all claims whose host is not clear.
    """
    every = list(nodes)
    found: dict[str, list[dict[str, Any]]] = {host: [] for host in hosts}
    places = _Places(every, hosts)
    faults: dict[str, list[str]] = {}
    for claim in claims:
        name = f"{claim['namespace']}/{claim['pvc']}"
        try:
            node = _node_of_claim(claim, every, chosen.get(name), places)
            found[places.host(node)].append({**claim, "node": node.name})
        except _NotClear as error:
            faults.setdefault(str(error), []).append(name)
    if faults:
        raise ClaimError(
            _ATTEMPT,
            "; ".join(f"{', '.join(names)}: {reason}" for reason, names in faults.items()),
            f"add the host to the inventory, give it the variable {NODE_VARIABLE} with the node's name, or say under "
            "nodes which node a claim lies on",
        )
    return found


class _NotClear(Exception):
    """Why a claim has no host, in words."""


def _node_of_claim(claim: Mapping[str, Any], nodes: Sequence[Node], chosen: str | None, places: _Places) -> Node:
    allowed = [str(each) for each in claim.get("nodes") or ()]
    if chosen is not None:
        if allowed and chosen.lower() not in (each.lower() for each in allowed):
            raise _NotClear(f"its volume lies on {' or '.join(allowed)}, not on {chosen}")
        allowed = [chosen]
    if not allowed:
        if len(nodes) == 1:
            return nodes[0]
        raise _NotClear(f"its volume names no node, and there are {len(nodes)}")
    candidates = [_named(each, nodes) for each in allowed]
    if len(candidates) > 1:
        candidates = [each for each in candidates if places.hosts(each)]
        if len(candidates) != 1:
            raise _NotClear(f"its volume may lie on any of {', '.join(allowed)}")
    return candidates[0]


def _named(name: str, nodes: Sequence[Node]) -> Node:
    """Return the node of that name; where nodes could not be listed, one that is known by nothing else."""
    exact = [each for each in nodes if each.name.lower() == name.lower()]
    known = exact or [each for each in nodes if name.lower() in each.names]
    if len(known) > 1:
        raise _NotClear(f"{', '.join(each.name for each in known)} are all known as {name}")
    return known[0] if known else Node(name, frozenset({name.lower()}))


class _Places:
    """Which host each node is."""

    def __init__(self, nodes: Sequence[Node], hosts: Mapping[str, Collection[str]]) -> None:
        self._nodes = nodes
        self._known = hosts

    def hosts(self, node: Node) -> list[str]:
        """Return the hosts that fit best: by a whole name or address, else by the first part of a name."""
        whole = [host for host, names in self._known.items() if node.names & set(names)]
        if whole:
            return whole
        short = {_short(each) for each in node.names} - {""}
        return [host for host, names in self._known.items() if short & {_short(each) for each in names}]

    def host(self, node: Node) -> str:
        found = self.hosts(node)
        if not found:
            known = ", ".join(sorted(node.names))
            raise _NotClear(f"its node {node.name} (known as {known}) is none of the hosts {', '.join(self._known)}")
        if len(found) > 1:
            raise _NotClear(f"its node {node.name} may be any of the hosts {', '.join(found)}")
        rivals = [each.name for each in self._nodes if each.name != node.name and found == self.hosts(each)]
        if rivals:
            raise _NotClear(f"the host {found[0]} may be any of the nodes {', '.join([node.name, *rivals])}")
        return found[0]


def _short(name: str) -> str:
    """Return the first part of a host's name; nothing for an address, whose first part means nothing."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.partition(".")[0]
    return ""
