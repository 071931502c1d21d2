# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clusters that are ready to use: one guest of each kind, and a fleet for benchmarks.

Called by tests and by the command line (``--scenario``). Standard library only.
"""

from __future__ import annotations

from .server import PveServer


def kinds(server: PveServer) -> None:
    """Add a guest of each kind, users with each permission, and two tokens.

    100 ZFS, 101 LVM thin, 102 qcow2 (stopped), 103 raw, 104 on the last node, 105 thick LVM, 106 and 107 volume
    chains, 108 locked, 109 a template, 110 Ceph with HA, 111 virtiofs; containers: 200 ZFS, 201 a bind mount, 202 LVM
    thin, 203 raw.
    """
    server.add_qemu(100, name="web-zfs", tags="prod;web", agent=True, pool="shop")
    server.add_qemu(101, name="db-thin", storage="local-lvm", tags="prod")
    server.add_qemu(102, name="mail-qcow2", storage="local", running=False)
    server.add_qemu(103, name="old-raw", storage="local-raw")
    server.add_qemu(104, name="web-two", node=list(server.cluster.nodes)[-1], tags="web")
    server.add_qemu(105, name="old-thick", storage="local-thick")
    server.add_qemu(106, name="san-chain", storage="san")
    server.add_qemu(107, name="dir-chain", storage="chain")
    server.add_qemu(108, name="busy", lock="backup")
    server.add_qemu(109, name="golden", template=True)
    server.add_qemu(110, name="on-ceph", storage="ceph", hastate="started")
    server.add_qemu(111, name="shares", config={"virtiofs0": "dirid=share"})
    server.add_lxc(200, name="ct-zfs", tags="prod")
    server.add_lxc(201, name="ct-bind", mounts=["/srv/data"])
    server.add_lxc(202, name="ct-thin", storage="local-lvm", pool="shop")
    server.add_lxc(203, name="ct-raw", storage="local-raw")
    accounts(server)


def accounts(server: PveServer) -> None:
    """Add users: snap, rb, audit and pooluser (all @pve, password ``secret``), and tokens full and sep of root."""
    access = server.access
    for name, role, path in (
        ("snap@pve", "Snapshotter", "/vms"),
        ("rb@pve", "Rollbacker", "/vms"),
        ("audit@pve", "PVEAuditor", "/"),
        ("pooluser@pve", "PVEVMAdmin", "/pool/shop"),
    ):
        access.add_user(name)
        access.grant(name, path, role)
    access.add_token("root@pam", "full", separated=False, secret="11111111-2222-3333-4444-555555555555")
    access.add_token("root@pam", "sep", secret="66666666-7777-8888-9999-000000000000")


def fleet(server: PveServer, guests: int = 200, archived: int = 1100) -> None:
    """Add many guests, spread over all nodes, every fifth a container, and archived tasks in each node's list."""
    nodes = list(server.cluster.nodes)
    for number in range(guests):
        add = server.add_lxc if number % 5 == 4 else server.add_qemu
        storage = ("local-zfs", "local-lvm", "ceph")[number % 3]
        tags = "prod" if number % 2 else "test"
        add(1000 + number, name=f"vm{number:04d}", node=nodes[number % len(nodes)], storage=storage, tags=tags)
    with server.frozen():
        for name in nodes:
            for number in range(archived):
                status = "OK" if number % 10 else "snapshot feature is not available"
                ago = 60.0 * (archived - number)
                server.tasks.archive(name, "vzdump", 1000 + number % max(1, guests), "root@pam", ago, status)


SCENARIOS = {"kinds": kinds, "fleet": fleet}
