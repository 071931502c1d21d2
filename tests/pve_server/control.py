# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pve-test-server: looks at the test server, or changes it, from another process, such as a playbook's.

Called by programs.py. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from . import faults
from .https import Site
from .shell import Emit

USAGE = """usage: pve-test-server ...
  guest VMID                         print a guest as JSON: config, snapshots, content, running, node
  calls                              print all calls so far
  add qemu|lxc VMID [JSON]           add a guest; JSON has add_guest's options
  write VMID VALUE                   change the content of its drives
  move VMID NODE                     migrate a guest
  fault PATTERN NTH NAME [VALUE...]  let something go wrong (faults.py); NTH may be null
  clear                              forget all faults
  set NAME VALUE                     change a setting (cluster.Settings)"""


def control(site: Site, argv: list[str], emit: Emit) -> int:
    """Carry out one of USAGE's commands; return an exit code."""
    words = [_value(each) for each in argv[1:]]
    with site.lock:
        site.cluster.tasks.advance()
        try:
            shown = _COMMANDS[argv[0]](site, *words)
        except (LookupError, TypeError, AttributeError) as error:
            emit("err", f"{type(error).__name__}: {error}\n{USAGE}\n")
            return 2
    if shown is not None:
        emit("out", f"{json.dumps(shown, sort_keys=True)}\n")
    return 0


def _guest(site: Site, vmid: int) -> Any:
    guest = site.cluster.guests[vmid]
    state = {key: getattr(guest, key) for key in ("vmid", "type", "node", "running", "content", "ram", "starts")}
    return {**state, "config": guest.config, "snapshots": guest.snapshots}


def _add(site: Site, kind: str, vmid: int, options: dict[str, Any] | None = None) -> None:
    site.cluster.add_guest(kind, vmid, **(options or {}))


def _fault(site: Site, pattern: str, nth: int | None, name: str, *values: Any) -> None:
    site.faults.at(pattern, nth, getattr(faults, name)(*values))


def _set(site: Site, name: str, value: Any) -> None:
    getattr(site.cluster.settings, name)
    setattr(site.cluster.settings, name, value)


_COMMANDS: dict[str, Callable[..., Any]] = {
    "guest": _guest,
    "calls": lambda site: [str(call) for call in site.calls],
    "add": _add,
    "write": lambda site, vmid, value: site.cluster.guests[vmid].write(value),
    "move": lambda site, vmid, node: site.cluster.move(vmid, node),
    "fault": _fault,
    "clear": lambda site: site.faults.clear(),
    "set": _set,
}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
