# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Proxmox VE of our own for tests, benchmarks and playbooks: the snapshot API over real HTTPS, and a pvesh.

    with PveServer() as server:                          # root@pam / secret, nodes pve1 and pve2
        web = server.add_qemu(100, name="web", storage="local-zfs", tags="prod;web", node="pve1", content="v1")
        server.add_lxc(200, storage="local-lvm", pool="shop", running=False)
        proxmoxer.ProxmoxAPI(server.host, port=server.port, user=server.user, password=server.password,
                             verify_ssl=server.ca_path)
        ...
        web.write("v2")                                  # what programs in the guest write
        server.guest(100).content                        # {"scsi0": "v1"} after a rollback
        server.guest(100).snapshots, .config, .lock, .running
        [str(call) for call in server.calls]             # ["POST /access/ticket", "GET /cluster/resources", ...]

``server.settings`` has the times: tasks take 0.02 s unless told otherwise (``settings.task_seconds = 0.5``,
``settings.realistic()``), ``settings.pvestatd_seconds``, ``settings.ticket_lifetime``; ``server.tasks.list_lag``,
``list_delay`` and ``twice`` are the whims of a node's task list; ``guest.seconds`` is a guest's own time.
``server.access`` has ``add_user``, ``add_token``, ``grant(account, path, *privileges or roles)`` and ``revoke``.
``server.backup(vmid, seconds)`` and ``server.migrate(vmid, node, seconds)`` lock a guest for that long.
``server.tasks.archive(node, type, id, user, seconds_ago)`` puts a task of the past into the lists.

Faults: ``server.faults.at("POST */snapshot", 2, faults.drop_after())`` (faults.py has them all; None instead of 2
means each such call). Those of tasks go by steps, which operations.py names: ``faults.fail_task("volume:scsi0", "zfs
error: out of space")``, ``faults.kill_task("commit")``, ``faults.hang_task()``. ``faults.ANSWERS`` are the faults that
can meet any call, for tests that set each of them at each call of a run.

Storages that are there from the start, with what they can do: local-zfs and chain, san (qcow2 as volume chain) return
only to the newest snapshot; local-lvm, ceph, local-btrfs, local (qcow2), nfs to any; local-raw and local-thick cannot
snapshot. storage.KINDS has the rules, ``server.add_storage`` more of them.

It holds itself to facts/proxmox.md; tests/unit/pve_server proves it. No part of Proxmox's code is in it.
"""

from __future__ import annotations

from . import faults, scenarios
from .server import PveServer

__all__ = ["PveServer", "faults", "scenarios"]
